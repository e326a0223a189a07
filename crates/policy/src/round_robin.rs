//! `round-robin`: stages in order of readiness, processors in turn.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::{Plan, begun_on};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "round-robin",
    summary: "First come, first served, with the idle processors taken in turn",
    group: "RTGen-style",
    parameters: &[],
    reference: "RTGen-style: one of the kinds of policy that Karami et al. compare, arXiv 2507.14715, 2025; not their definition",
    build,
};

/// Processors in turn.
#[derive(Clone, Debug, Default)]
struct RoundRobin {
    order: InTurn,
    dispatch: Dispatch,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<RoundRobin>::default())
}

impl Policy for RoundRobin {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// First come, first served; the search for an idle processor begins after the one that was taken last.
#[derive(Clone, Debug, Default)]
struct InTurn {
    next: usize,
}

impl Order for InTurn {
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        let processor = plan.first_from(view, stage, self.next)?;
        // A stage that goes on where it was takes no turn.
        if begun_on(view, stage) != Some(processor) {
            self.next = (processor.index() + 1) % view.processors().len();
        }
        Some(processor)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    #[test]
    fn processors_take_turns_and_those_that_cannot_are_passed_over() {
        let mut rig = Rig::new(&[("a", Preemption::Never), ("b", Preemption::Never), ("c", Preemption::Never)]);
        let any = rig.stream("any", Some(10.0), &[Some(1.0), Some(1.0), Some(1.0)]);
        let not_b = rig.stream("not-b", Some(10.0), &[Some(1.0), None, Some(1.0)]);
        let mut policy = rig.make("round-robin");
        let mut taken = Vec::new();
        for source in [any, not_b, any, any, not_b] {
            let stage = rig.ready(source, 0.0);
            taken.extend(rig.decide_with(&mut policy).into_iter().map(|action| (stage, action)));
            rig.state.ready.clear();
        }
        let processors = [0, 2, 0, 1, 2];
        let expected: Vec<_> = taken.iter().zip(processors).map(|(&(stage, _), p)| (stage, start(stage, p))).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn a_stage_that_waits_takes_no_turn() {
        let mut rig = Rig::new(&[("a", Preemption::Never), ("b", Preemption::Never)]);
        let only_a = rig.stream("only-a", Some(10.0), &[Some(1.0), None]);
        let any = rig.stream("any", Some(10.0), &[Some(1.0), Some(1.0)]);
        let mut policy = rig.make("round-robin");
        let blocker = rig.running(only_a, 0, 0.0);
        rig.ready(only_a, 0.0);
        assert_eq!(rig.decide_with(&mut policy), []);
        rig.stop(blocker);
        rig.state.ready.clear();
        let stage = rig.ready(any, 0.0);
        assert_eq!(rig.decide_with(&mut policy), [start(stage, 0)]);
    }
}
