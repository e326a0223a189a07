//! The common way to serve ready stages in order of urgency: an idle processor, or else a batch, or else the slot of less urgent
//! work. Policies say what urgent means, through [`Order`].

use std::cmp::Reverse;

use onbeat_core::id::{ModelId, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Limit, View};
use onbeat_core::state::Run;
use onbeat_core::units::Nanos;

use crate::best_effort::taken;
use crate::plan::Plan;

/// What distinguishes one priority-driven policy from another.
pub(crate) trait Order {
    /// Urgency of a ready stage: smaller goes first. Ties go to the smaller serial.
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64;

    /// Urgency of running work: that of the most urgent stage that it serves.
    fn running_key(&mut self, view: &View<'_>, _processor: ProcessorId, run: &Run) -> u64 {
        run.stages().map(|stage| self.key(view, stage)).min().expect("a run serves at least one stage")
    }

    /// Where a stage starts, if anywhere. By default on the fastest idle processor.
    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        plan.fastest(view, stage)
    }

    /// How many segments a stage runs at most when it starts; `None`: to the end of its phase.
    fn portion(&mut self, _view: &View<'_>, _stage: StageId, _processor: ProcessorId) -> Option<u32> {
        None
    }

    /// How far a stage runs at most when it starts, in segments or units. By default its [portion](Self::portion).
    fn limit(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Limit> {
        self.portion(view, stage, processor).map(Limit::Segments)
    }

    /// Where, and with how many tokens, a stage's prompt shares the next step of a batch if no processor is idle for it. By default
    /// nowhere.
    fn share(&mut self, _view: &View<'_>, _plan: &Plan, _stage: StageId) -> Option<(ProcessorId, u32)> {
        None
    }

    /// Whether a stage may use a processor that its profile allows.
    fn allows(&self, _view: &View<'_>, _stage: StageId, _processor: ProcessorId) -> bool {
        true
    }

    /// Whether a ready stage takes part in this decision.
    fn considers(&self, _view: &View<'_>, _stage: StageId) -> bool {
        true
    }

    /// Whether a stage that found no place takes over from running work, if the order preempts at all.
    fn claims(&self, _view: &View<'_>, _stage: StageId) -> bool {
        true
    }

    /// Whether running work is preempted; if so, by stages whose key is smaller by more than this.
    fn preemption_margin(&self) -> Option<u64> {
        None
    }
}

/// Serves ready stages in an [`Order`]. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatch {
    plan: Plan,
    /// Ready stages by key and serial.
    queue: Vec<(u64, u64, StageId)>,
    /// Running work on processors that preempt; filled when it is first needed in a decision.
    victims: Vec<Victim>,
    victims_listed: bool,
    /// Stages that no processor was found for, and that preempt nothing; only if the order preempts.
    waiting: Vec<(u64, StageId)>,
    /// What this decision has started, with keys where they were computed; only if the order preempts.
    started: Vec<(u64, StageId, ProcessorId)>,
}

/// Running work that could be preempted, or is.
#[derive(Clone, Copy, Debug)]
struct Victim {
    key: u64,
    processor: ProcessorId,
    stage: StageId,
    model: ModelId,
    serial: u64,
    /// Whether its end was asked for in an earlier decision.
    ending: bool,
    /// Whether a stage of this decision counts on its slot.
    claimed: bool,
}

impl Dispatch {
    /// Serves the ready stages.
    pub(crate) fn run(&mut self, view: &View<'_>, actions: &mut Actions, order: &mut impl Order) {
        self.waiting.clear();
        self.started.clear();
        let ready = view.ready();
        if ready.is_empty() {
            return;
        }
        self.plan.begin(view);
        // Nobody joins what this decision takes off its processor.
        for action in actions.as_slice() {
            if let &Action::Preempt { stage } = action
                && let Some(p) = view.stage(stage).processor
            {
                self.plan.close(p, view.stage(stage).model);
            }
        }
        self.victims_listed = false;
        let margin = order.preemption_margin();
        if let &[stage] = ready {
            // The common case: nothing to put in order, and no key unless it comes to preemption.
            if order.considers(view, stage) {
                self.serve(view, actions, order, stage, None, margin);
            }
            return;
        }
        let only_batches = margin.is_none() && !self.plan.has_free();
        self.queue.clear();
        for &stage in ready {
            let live = view.stage(stage);
            if (only_batches && !live.kind.is_batched()) || !order.considers(view, stage) {
                continue;
            }
            self.queue.push((order.key(view, stage), live.serial, stage));
        }
        match self.queue.as_mut_slice() {
            [] | [_] => {}
            [first, second] => {
                if second < first {
                    std::mem::swap(first, second);
                }
            }
            more => more.sort_unstable(),
        }
        for i in 0..self.queue.len() {
            let (key, _, stage) = self.queue[i];
            self.serve(view, actions, order, stage, Some(key), margin);
        }
    }

    /// What the last decision has given away.
    pub(crate) fn plan_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Stages that found no place in the last decision and preempt nothing, the most urgent first, with their keys. Empty unless
    /// the order preempts.
    pub(crate) fn waiting(&self) -> &[(u64, StageId)] {
        &self.waiting
    }

    /// Running work that stays on processors that preempt, with keys. Known only if a stage is [waiting](Self::waiting).
    pub(crate) fn running(&self) -> impl Iterator<Item = (u64, ProcessorId)> {
        self.victims
            .iter()
            .filter(|victim| !victim.ending && !victim.claimed)
            .map(|victim| (victim.key, victim.processor))
    }

    /// What the last decision has started, with keys. Empty unless the order preempts; a stage that was alone has the key 0.
    pub(crate) fn started(&self) -> &[(u64, StageId, ProcessorId)] {
        &self.started
    }

    fn serve(
        &mut self,
        view: &View<'_>,
        actions: &mut Actions,
        order: &mut impl Order,
        stage: StageId,
        key: Option<u64>,
        margin: Option<u64>,
    ) {
        if let Some(processor) = order.place(view, &self.plan, stage) {
            let limit = order.limit(view, stage, processor);
            self.plan.start_limited(view, stage, processor, limit, actions);
            if margin.is_some() {
                self.started.push((key.unwrap_or(0), stage, processor));
            }
            return;
        }
        if let Some(processor) = self.plan.batch_for(view, stage, |p| order.allows(view, stage, p)) {
            self.plan.join(view, stage, processor, actions);
            return;
        }
        if let Some((processor, tokens)) = order.share(view, &self.plan, stage) {
            self.plan.share_step(view, stage, processor, tokens, actions);
            return;
        }
        if let Some(margin) = margin {
            let key = key.unwrap_or_else(|| order.key(view, stage));
            let claimed =
                order.claims(view, stage) && self.claim(view, actions, order, stage, key.saturating_add(margin));
            if !claimed {
                self.waiting.push((key, stage));
            }
        }
    }

    /// Finds a slot that is being freed, or frees one by preempting the least urgent work whose key is larger than `limit`.
    fn claim(
        &mut self,
        view: &View<'_>,
        actions: &mut Actions,
        order: &mut impl Order,
        stage: StageId,
        limit: u64,
    ) -> bool {
        if !self.victims_listed {
            self.list_victims(view, order);
        }
        let usable =
            |v: &Victim| !v.claimed && view.can_run(stage, v.processor) && order.allows(view, stage, v.processor);
        if let Some(victim) = self.victims.iter_mut().find(|v| v.ending && usable(v)) {
            victim.claimed = true;
            return true;
        }
        // Ties: the processor that comes first, then the run that started last.
        let plan = &self.plan;
        let victim = self
            .victims
            .iter_mut()
            .filter(|v| !v.ending && v.key > limit && usable(v) && !plan.is_joined(v.processor, v.model))
            .max_by_key(|v| (v.key, Reverse(v.processor), v.serial));
        let Some(victim) = victim else { return false };
        victim.claimed = true;
        actions.preempt(victim.stage);
        self.plan.close(victim.processor, victim.model);
        true
    }

    fn list_victims(&mut self, view: &View<'_>, order: &mut impl Order) {
        self.victims_listed = true;
        self.victims.clear();
        for processor in view.processors().filter(|&p| view.preemptible(p)) {
            for run in view.occupancy(processor).runs.iter().filter(|run| view.can_preempt(processor, run)) {
                self.victims.push(Victim {
                    // Work that ends anyway is not compared.
                    key: if run.ending { 0 } else { order.running_key(view, processor, run) },
                    processor,
                    stage: run.stage,
                    model: run.model,
                    serial: run.serial,
                    ending: run.ending,
                    claimed: false,
                });
            }
        }
    }
}

/// Takes off the processors what may not run, where they preempt. Where a stage starts in this decision, or a run ends anyway, the next
/// decision looks again. Idle-time work gives way by itself.
pub(crate) fn hold_back(view: &View<'_>, actions: &mut Actions, may_run: impl Fn(ProcessorId, &Run) -> bool) {
    for processor in view.processors().filter(|&p| view.preemptible(p)) {
        for run in &view.occupancy(processor).runs {
            let handled = |action: &Action| match *action {
                Action::Preempt { stage } => stage == run.stage,
                _ => taken(action).any(|p| p == processor),
            };
            let stays = run.ending || view.gives_way(run) || may_run(processor, run);
            if !stays && !actions.as_slice().iter().any(handled) {
                actions.preempt(run.stage);
            }
        }
    }
}

/// A wake-up that is asked for once, however often a policy is called before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm {
    /// When the next one is due, if that lies in the future.
    at: Nanos,
}

impl Alarm {
    /// Asks for a wake-up, unless one is on its way that comes no later.
    pub(crate) fn set(&mut self, now: Nanos, at: Nanos, actions: &mut Actions) {
        debug_assert!(at > now, "a wake-up lies in the future");
        if self.at <= now || at < self.at {
            self.at = at;
            actions.wake(at);
        }
    }
}
