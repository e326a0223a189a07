//! `flowprefill`: earliest due first, where prompts give way to more urgent ones inside, and those past saving go last.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::generative::BACKGROUND;
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::{Times, best_rest, rest_of_running, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "flowprefill",
    summary: "Earliest due first; prompts that can still make their first token in time take over from others inside their prompts",
    group: "generative",
    parameters: &[],
    reference: "Hsieh et al., FlowPrefill: Decoupling Preemption from Prefill Scheduling Granularity to Mitigate Head-of-Line Blocking in LLM Serving, arXiv 2602.16603, 2026",
    build,
};

/// Event-driven prefill scheduling.
#[derive(Clone, Debug)]
struct FlowPrefill {
    order: InTimeFirst,
    dispatch: Dispatch,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(FlowPrefill { order: InTimeFirst::default(), dispatch: Dispatch::default() }))
}

impl Policy for FlowPrefill {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

#[derive(Clone, Debug, Default)]
struct InTimeFirst {
    times: Times,
}

/// What is due in time goes by its due; prompts that are too late come after everything that is not.
fn key(view: &View<'_>, stage: StageId, time: Nanos) -> u64 {
    let due = view.due(stage);
    let late = view.stage(stage).kind == Phase::Prefill && view.now().saturating_add(time) > due;
    due.0.min(BACKGROUND - 1) + if late { BACKGROUND } else { 0 }
}

impl Order for InTimeFirst {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let rest = best_rest(self.times.of(view, stage));
        key(view, stage, until_due(view, stage, rest))
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        let key = |stage| key(view, stage, until_due(view, stage, rest_of_running(view, stage, processor, run)));
        run.stages().map(key).min().expect("a run serves at least one stage")
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn a_prompt_that_is_due_sooner_takes_over_if_it_can_still_be_in_time() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let (relaxed, urgent) = (rig.session("relaxed", &[4.0], 1), rig.session("urgent", &[4.0], 1));
        rig.system.sources[relaxed].ttft = Some(ms(900.0));
        rig.system.sources[urgent].ttft = Some(ms(300.0));
        let running = rig.running(relaxed, 0, 0.0);
        let soon = rig.ready(urgent, 0.0);
        assert_eq!(rig.decide("flowprefill"), [preempt(running)]);
        // At 201 ms, 100 ms of prompt do not fit before 300: the other one goes on.
        rig.state.now = ms(201.0);
        assert_eq!(rig.decide("flowprefill"), []);
        rig.stop(running);
        rig.state.ready.retain(|&stage| stage != soon);
        rig.state.ready.insert(0, soon);
        assert_eq!(rig.decide("flowprefill"), [start(running, 0)], "what is too late goes last");
    }
}
