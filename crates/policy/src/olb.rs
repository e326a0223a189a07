//! `olb`: first come, first served, on the processor that has been idle for longest, whatever the stage costs there.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "olb",
    summary: "First come, first served, on the processor that became idle first, whatever the stage costs there",
    group: "DAG",
    parameters: &[],
    reference: "Maheswaran, Ali, Siegel, Hensgen and Freund, Dynamic Mapping of a Class of Independent Tasks onto Heterogeneous Computing Systems, JPDC 59(2), 1999",
    build,
};

/// Opportunistic load balancing.
#[derive(Clone, Debug, Default)]
struct Olb {
    order: Opportunistic,
    dispatch: Dispatch,
}

#[derive(Clone, Copy, Debug, Default)]
struct Opportunistic;

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<Olb>::default())
}

impl Policy for Olb {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

impl Order for Opportunistic {
    /// All the same: ties go to the smaller serial, the stage that became ready first.
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        let idle = view.processors().filter(|&p| plan.fits(view, stage, p));
        idle.min_by_key(|&p| (view.occupancy(p).idle_since, p))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::ProcessorId;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn takes_the_processor_that_became_idle_first_however_slow_it_is() {
        let mut rig = Rig::new(&[("npu", Preemption::Never), ("cpu", Preemption::Never), ("gpu", Preemption::Never)]);
        let source = rig.stream("s", None, &[Some(1.0), Some(50.0), Some(5.0)]);
        rig.state.now = ms(9.0);
        for (processor, since) in [(0, 8.0), (1, 2.0), (2, 2.0)] {
            rig.state.processors[ProcessorId(processor)].idle_since = ms(since);
        }
        let stages = [rig.ready(source, 9.0), rig.ready(source, 9.0)];
        rig.reverse_ready();
        assert_eq!(rig.decide("olb"), [start(stages[0], 1), start(stages[1], 2)], "ties to the first processor");
    }

    #[test]
    fn passes_over_a_processor_that_cannot_run_the_stage() {
        let mut rig = Rig::new(&[("npu", Preemption::Never), ("cpu", Preemption::Never)]);
        let source = rig.stream("s", None, &[None, Some(5.0)]);
        let stage = rig.ready(source, 0.0);
        assert_eq!(rig.decide("olb"), [start(stage, 1)]);
    }
}
