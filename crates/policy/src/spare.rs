//! How policies give processors that nobody else needs to work that can use more than one: `attention-offload`,
//! `hetero-split` and `speculative`.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::units::Nanos;

use crate::plan::{Plan, batch_max};

/// Ready stages earliest due first, each on its fastest idle processor; what is idle then helps. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spare {
    plan: Plan,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// Stages that start, with their processor.
    placed: Vec<(StageId, ProcessorId)>,
    /// Stages that no processor was found for.
    waiting: Vec<StageId>,
}

impl Spare {
    /// Serves the ready stages. `choose` says how a stage that starts on a processor uses what is still free, and on which processor it
    /// stands then: that one, or one that is free.
    pub(crate) fn decide(
        &mut self,
        view: &View<'_>,
        actions: &mut Actions,
        choose: impl Fn(&Plan, StageId, ProcessorId) -> Option<(ProcessorId, Together)>,
    ) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.queue.clear();
        self.placed.clear();
        self.waiting.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            if let Some(processor) = self.plan.fastest(view, stage) {
                self.plan.take(processor);
                self.placed.push((stage, processor));
            } else {
                self.waiting.push(stage);
            }
        }
        // Everybody has a place, or none can be had: what is free now is needed by nobody.
        for i in 0..self.placed.len() {
            let (stage, processor) = self.placed[i];
            let together = if is_batched(view, stage, processor) { None } else { choose(&self.plan, stage, processor) };
            let Some((own, together)) = together else {
                actions.start(stage, processor);
                self.plan.open(view, stage, processor);
                continue;
            };
            for other in together.others(own).with(own).without(processor).iter() {
                self.plan.take(other);
            }
            actions.start_together(stage, own, together);
        }
        for i in 0..self.waiting.len() {
            if !self.plan.join_any(view, self.waiting[i], actions) {
                ask_back(view, self.waiting[i], actions);
            }
        }
    }
}

/// Whether others could share the stage's steps, which is worth more than a second processor.
fn is_batched(view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
    let live = view.stage(stage);
    live.kind == Phase::Decode
        && batch_max(view, stage, processor) > 1
        && view.ready().iter().any(|&other| other != stage && view.stage(other).model == live.model)
}

/// Ends the work that holds a processor besides its own, where a stage that waits could run.
fn ask_back(view: &View<'_>, stage: StageId, actions: &mut Actions) {
    for processor in view.processors().filter(|&p| view.can_run(stage, p)) {
        for run in &view.occupancy(processor).runs {
            let helps = !run.over.is_empty() && view.stage(run.stage).processor != Some(processor);
            if !helps || !view.can_preempt(processor, run) {
                continue;
            }
            if !run.ending && !actions.as_slice().contains(&Action::Preempt { stage: run.stage }) {
                actions.preempt(run.stage);
            }
            return;
        }
    }
}
