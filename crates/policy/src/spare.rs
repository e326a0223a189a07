//! How policies give processors that nobody else needs to work that can use more than one: `attention-offload`,
//! `hetero-split` and `speculative`. Everything else is decided as by `edf`.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::state::Run;

use crate::dispatch::{Dispatch, Order};
use crate::edf::TokenAlarm;
use crate::plan::{Plan, batch_max};

/// Serves stages as `edf` does; what is idle then helps. The buffers are reused.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    order: Due,
    dispatch: Dispatch,
    tokens: TokenAlarm,
    /// What `edf` would do.
    alone: Actions,
}

/// By the time at which stages are due.
#[derive(Clone, Debug)]
struct Due {
    preemptive: bool,
}

impl Order for Due {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn claims(&self, view: &View<'_>, stage: StageId) -> bool {
        // It is enough that a helper gives its processor back.
        self.preemptive && helped_on(view, stage).all(|(_, ending)| ending)
    }

    fn preemption_margin(&self) -> Option<u64> {
        // Also without preemption: what waits is listed then, and asks helpers back.
        Some(0)
    }
}

impl Spare {
    pub(crate) fn new(preemptive: bool) -> Self {
        let order = Due { preemptive };
        Self { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default(), alone: Actions::default() }
    }

    /// Serves the ready stages. `choose` says how a stage that starts on a processor uses what is still free, and on which processor it
    /// stands then: that one, or one that is free.
    pub(crate) fn decide(
        &mut self,
        view: &View<'_>,
        actions: &mut Actions,
        choose: impl Fn(&Plan, StageId, ProcessorId) -> Option<(ProcessorId, Together)>,
    ) {
        self.alone.clear();
        self.dispatch.run(view, &mut self.alone, &mut self.order);
        // Everybody has a place, or none can be had: what is free now is needed by nobody.
        for action in self.alone.as_slice() {
            match *action {
                Action::Start { stage, processor, .. } => {
                    let plan = self.dispatch.plan_mut();
                    let shared = view.free_slots(processor) == 0 || is_batched(view, stage, processor);
                    let together = if shared { None } else { choose(plan, stage, processor) };
                    let Some((own, together)) = together else {
                        actions.start(stage, processor);
                        continue;
                    };
                    for other in together.others(own).with(own).without(processor).iter() {
                        plan.take(other);
                    }
                    actions.start_together(stage, own, together);
                }
                Action::Preempt { stage } => actions.preempt(stage),
                _ => unreachable!("nothing else is done to serve stages in an order"),
            }
        }
        for &(_, stage) in self.dispatch.waiting() {
            ask_back(view, stage, actions);
        }
        if self.order.preemptive {
            self.tokens.set(view, &self.dispatch, actions);
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

/// The work that holds a processor besides its own on which a stage could run, and can give it back; and whether it is about to.
fn helped_on<'a>(view: &View<'a>, stage: StageId) -> impl Iterator<Item = (StageId, bool)> + 'a {
    let view = *view;
    view.processors().filter(move |&p| view.can_run(stage, p)).flat_map(move |p| {
        let helps = move |run: &Run| !run.over.is_empty() && view.stage(run.stage).processor != Some(p);
        let runs = view.occupancy(p).runs.iter().filter(move |run| helps(run) && view.can_preempt(p, run));
        runs.map(|run| (run.stage, run.ending))
    })
}

/// Ends the work that holds a processor besides its own, where a stage that waits could run.
fn ask_back(view: &View<'_>, stage: StageId, actions: &mut Actions) {
    if let Some((helped, ending)) = helped_on(view, stage).next()
        && !ending
        && !actions.as_slice().contains(&Action::Preempt { stage: helped })
    {
        actions.preempt(helped);
    }
}
