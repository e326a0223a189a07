//! What one decision has given away so far. The view does not change while a policy emits actions, so every policy keeps its
//! own account here.

use std::iter;

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::id::{Id, ModelId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, View};
use onbeat_core::units::Nanos;

use crate::times::Rest;

/// Free slots and room in batches, less what this decision has given away. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Free slots by processor.
    free: Vec<u32>,
    free_total: u32,
    /// Batches that this decision has changed; at most one entry per processor and model.
    batches: Vec<BatchChange>,
}

/// How this decision changes the decode batches of a model on a processor.
#[derive(Clone, Copy, Debug)]
struct BatchChange {
    processor: ProcessorId,
    model: ModelId,
    /// Room gained by batches that were started, less what was taken by joining.
    room: i64,
    /// Tokens that the batch's next step computes because of this decision.
    tokens: u32,
    /// Whether a stage joins.
    joined: bool,
    /// Whether a batch is being preempted: nobody joins any more.
    closed: bool,
}

/// How long a stage would hold a processor if it started there now, by nominal latencies: setup and the rest of the stage.
/// `None` if it cannot run there.
pub(crate) fn holding_time(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
    Some(view.remaining(stage, processor)?.saturating_add(view.setup(stage, processor)))
}

/// Where a stage has begun, if it has: its caches are there. (A streaming stage that has not begun may have state somewhere, too.)
pub(crate) fn begun_on(view: &View<'_>, stage: StageId) -> Option<ProcessorId> {
    let live = view.stage(stage);
    live.processor.filter(|_| live.phase > 0 || live.position > 0.0 || live.partial_ns > 0.0)
}

/// The most stages that one step of the stage's current phase can serve on a processor; 1 where it cannot be batched.
pub(crate) fn batch_max(view: &View<'_>, stage: StageId, processor: ProcessorId) -> u32 {
    let live = view.stage(stage);
    if !live.kind.is_batched() || view.node(stage).adapter.is_some() {
        return 1;
    }
    let Some(cost) = view.cost(stage, processor) else { return 1 };
    let on =
        |phases: &[(Phase, PhaseCost)]| phases.get(usize::from(live.phase)).map_or(1, |(_, cost)| cost.batch_max());
    // Whatever part of a processor a batch runs on.
    cost.at_all_widths().map(|(_, phases)| on(phases)).min().unwrap_or(1)
}

impl Plan {
    /// Starts a decision: everything is as the view says.
    pub(crate) fn begin(&mut self, view: &View<'_>) {
        self.batches.clear();
        self.free.clear();
        self.free_total = 0;
        for processor in view.processors() {
            let slots = view.free_slots(processor);
            self.free.push(slots);
            self.free_total += slots;
        }
    }

    /// Whether any processor has a free slot.
    pub(crate) fn has_free(&self) -> bool {
        self.free_total > 0
    }

    /// Whether a processor has a free slot.
    pub(crate) fn is_free(&self, processor: ProcessorId) -> bool {
        self.free[processor.index()] > 0
    }

    /// Whether a stage could start on a processor.
    pub(crate) fn fits(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.is_free(processor) && view.can_run(stage, processor)
    }

    /// Processors on which a stage could start, in platform order.
    fn idle<'a>(&'a self, view: &View<'a>, stage: StageId) -> impl Iterator<Item = ProcessorId> + 'a {
        let view = *view;
        view.processors().filter(move |&p| self.is_free(p) && view.can_run(stage, p))
    }

    /// The idle processor on which a stage would be done first. Setup counts: a stage prefers the processor that holds its caches.
    pub(crate) fn fastest(&self, view: &View<'_>, stage: StageId) -> Option<ProcessorId> {
        if !self.has_free() {
            return None;
        }
        let mut idle = self.idle(view, stage);
        let first = idle.next()?;
        // With a single candidate nothing need be computed.
        let Some(second) = idle.next() else { return Some(first) };
        let time = |p| holding_time(view, stage, p).expect("idle() yields processors that can run the stage");
        let mut best = (time(first), first);
        for processor in iter::once(second).chain(idle) {
            best = best.min((time(processor), processor));
        }
        Some(best.1)
    }

    /// Like [`Plan::fastest`], among the processors `allowed`.
    pub(crate) fn fastest_among(
        &self,
        view: &View<'_>,
        stage: StageId,
        allowed: impl Fn(ProcessorId) -> bool,
    ) -> Option<ProcessorId> {
        let idle = self.idle(view, stage).filter(|&p| allowed(p));
        idle.filter_map(|p| Some((holding_time(view, stage, p)?, p))).min().map(|(_, p)| p)
    }

    /// Like [`Plan::fastest`], with the time for which the stage would hold the processor, from what is `left` of it there.
    pub(crate) fn fastest_with_time(
        &self,
        view: &View<'_>,
        stage: StageId,
        left: &[Option<Rest>],
    ) -> Option<(Nanos, ProcessorId)> {
        let idle = self.idle(view, stage);
        idle.filter_map(|p| Some((left[p.index()]?.stage.saturating_add(view.setup(stage, p)), p))).min()
    }

    /// The first idle processor, counted from number `from` on and around. A stage that has begun goes on where it was, if it can:
    /// its caches are there.
    pub(crate) fn first_from(&self, view: &View<'_>, stage: StageId, from: usize) -> Option<ProcessorId> {
        if !self.has_free() {
            return None;
        }
        if let Some(previous) = begun_on(view, stage)
            && self.fits(view, stage, previous)
        {
            return Some(previous);
        }
        let count = self.free.len();
        (from..count).chain(0..from.min(count)).map(ProcessorId::new).find(|&p| self.fits(view, stage, p))
    }

    /// Starts a stage on a processor that has a free slot.
    pub(crate) fn start(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId, actions: &mut Actions) {
        self.start_portion(view, stage, processor, None, actions);
    }

    /// Like [`Plan::start`], for at most so many segments.
    pub(crate) fn start_portion(
        &mut self,
        view: &View<'_>,
        stage: StageId,
        processor: ProcessorId,
        segments: Option<u32>,
        actions: &mut Actions,
    ) {
        self.start_limited(view, stage, processor, segments.map(Limit::Segments), actions);
    }

    /// Like [`Plan::start`], up to a limit.
    pub(crate) fn start_limited(
        &mut self,
        view: &View<'_>,
        stage: StageId,
        processor: ProcessorId,
        limit: Option<Limit>,
        actions: &mut Actions,
    ) {
        actions.start_limited(stage, processor, limit);
        self.take(processor);
        self.open(view, stage, processor);
    }

    /// Gives away a free slot of a processor.
    pub(crate) fn take(&mut self, processor: ProcessorId) {
        self.free[processor.index()] -= 1;
        self.free_total -= 1;
    }

    /// Notes that a stage starts on a processor, and that others can join it if it can be batched.
    pub(crate) fn open(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) {
        // A processor that is divided has no free slot any more, whatever units are left.
        if view.system.platform.processors[processor].division.is_some() && self.is_free(processor) {
            self.take(processor);
        }
        let most = batch_max(view, stage, processor);
        if most > 1 {
            let change = self.change(processor, view.stage(stage).model);
            change.room += i64::from(most) - 1;
            change.tokens += 1;
        }
    }

    /// Tokens that the next step of the model's batch on a processor computes, if a piece of the stage's prompt can share that step:
    /// there is a batch with room, and no step with a piece is under way.
    pub(crate) fn tokens_to_share(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<u32> {
        let live = view.stage(stage);
        let cost = view.cost(stage, processor)?;
        let (_, phase) = cost.phases.get(usize::from(live.phase))?;
        let narrow = cost.widths.narrower.iter().map(|narrower| &narrower.phases[usize::from(live.phase)].1);
        if live.kind != Phase::Prefill
            || view.state.real
            || !phase.pieces()?.mixed
            || view.node(stage).adapter.is_some()
        {
            return None;
        }
        if narrow.into_iter().any(|phase| phase.pieces().is_none_or(|pieces| !pieces.mixed)) {
            return None;
        }
        let most = cost.phases.iter().map(|(_, phase)| phase.batch_max()).max().unwrap_or(1).max(2);
        if self.room_of(view, stage, processor, i64::from(most)) <= 0 {
            return None;
        }
        let mut tokens = 0;
        for run in view.occupancy(processor).runs.iter().filter(|run| run.model == live.model) {
            for other in run.stages() {
                if view.stage(other).kind == Phase::Prefill {
                    return None;
                }
                tokens += 1;
            }
        }
        let planned = self.batches.iter().filter(|change| change.processor == processor && change.model == live.model);
        Some(tokens + planned.map(|change| change.tokens).sum::<u32>())
    }

    /// Lets a piece of a stage's prompt share a step for which [`Plan::tokens_to_share`] was found.
    pub(crate) fn share_step(
        &mut self,
        view: &View<'_>,
        stage: StageId,
        processor: ProcessorId,
        tokens: u32,
        actions: &mut Actions,
    ) {
        actions.start_limited(stage, processor, Some(Limit::Units(tokens)));
        let change = self.change(processor, view.stage(stage).model);
        change.room -= 1;
        change.tokens += tokens;
        change.joined = true;
    }

    /// A processor among those `allowed` on which a stage in decode can join a batch: the one where it would be done first.
    pub(crate) fn batch_for(
        &self,
        view: &View<'_>,
        stage: StageId,
        allowed: impl Fn(ProcessorId) -> bool,
    ) -> Option<ProcessorId> {
        if !view.stage(stage).kind.is_batched() {
            return None;
        }
        view.processors()
            .filter(|&p| allowed(p) && !self.is_free(p) && self.room(view, stage, p) > 0)
            .filter_map(|p| Some((holding_time(view, stage, p)?, p)))
            .min()
            .map(|(_, p)| p)
    }

    /// Lets a stage join a batch that [`Plan::batch_for`] has found.
    pub(crate) fn join(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId, actions: &mut Actions) {
        actions.start(stage, processor);
        let change = self.change(processor, view.stage(stage).model);
        change.room -= 1;
        change.tokens += 1;
        change.joined = true;
    }

    /// Joins a batch, wherever there is one.
    pub(crate) fn join_any(&mut self, view: &View<'_>, stage: StageId, actions: &mut Actions) -> bool {
        let Some(processor) = self.batch_for(view, stage, |_| true) else { return false };
        self.join(view, stage, processor, actions);
        true
    }

    /// Whether a stage joins a batch of the model on the processor in this decision.
    pub(crate) fn is_joined(&self, processor: ProcessorId, model: ModelId) -> bool {
        self.batches.iter().any(|change| change.joined && change.processor == processor && change.model == model)
    }

    /// Notes that a run of the model is being preempted: nobody joins it any more.
    pub(crate) fn close(&mut self, processor: ProcessorId, model: ModelId) {
        self.change(processor, model).closed = true;
    }

    /// How many stages can still join batches of the stage's model on a processor.
    fn room(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> i64 {
        self.room_of(view, stage, processor, i64::from(batch_max(view, stage, processor)))
    }

    /// The same for batches of at most `most`.
    fn room_of(&self, view: &View<'_>, stage: StageId, processor: ProcessorId, most: i64) -> i64 {
        if most <= 1 || !view.can_run(stage, processor) {
            return 0;
        }
        let live = view.stage(stage);
        let model = live.model;
        let kind = if live.kind == Phase::Steps { Phase::Steps } else { Phase::Decode };
        let mut room = 0;
        for run in &view.occupancy(processor).runs {
            let alike = run.kind == kind && run.model == model && view.node(run.stage).adapter.is_none();
            if alike && !run.ending && run.over.is_empty() {
                room += (most - 1 - i64::from(run.others.len() as u32)).max(0);
            }
        }
        for change in &self.batches {
            if change.processor == processor && change.model == model {
                if change.closed {
                    return 0;
                }
                room += change.room;
            }
        }
        room
    }

    fn change(&mut self, processor: ProcessorId, model: ModelId) -> &mut BatchChange {
        let known = self.batches.iter().position(|c| c.processor == processor && c.model == model);
        let at = known.unwrap_or_else(|| {
            self.batches.push(BatchChange { processor, model, room: 0, tokens: 0, joined: false, closed: false });
            self.batches.len() - 1
        });
        &mut self.batches[at]
    }
}
