//! `fcfs`: first come, first served, on the first idle processor in platform order.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "fcfs",
    summary: "First come, first served, on the first idle processor that can run it",
    group: "RTGen-style",
    parameters: &[],
    reference: "RTGen-style: one of the kinds of policy that Karami et al. compare, arXiv 2507.14715, 2025; not their definition",
    build,
};

/// First come, first served.
#[derive(Clone, Debug, Default)]
struct Fcfs {
    order: FirstCome,
    dispatch: Dispatch,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<Fcfs>::default())
}

impl Policy for Fcfs {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// All stages are equally urgent: their serials decide.
#[derive(Clone, Debug, Default)]
struct FirstCome;

impl Order for FirstCome {
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        plan.first_from(view, stage, 0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    #[test]
    fn the_first_comer_takes_the_first_processor_however_slow() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime), ("npu", Preemption::Anytime)]);
        let slow = rig.stream("slow", Some(100.0), &[Some(50.0), Some(5.0)]);
        let soon = rig.stream("soon", Some(10.0), &[Some(4.0), Some(4.0)]);
        let (first, second) = (rig.ready(slow, 0.0), rig.ready(soon, 0.0));
        rig.ready(soon, 0.0);
        assert_eq!(rig.decide("fcfs"), [start(first, 0), start(second, 1)]);
    }

    #[test]
    fn a_stage_that_can_go_on_overtakes_one_that_cannot() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let npu_only = rig.stream("npu-only", Some(10.0), &[None, Some(5.0)]);
        let any = rig.stream("any", Some(10.0), &[Some(5.0), Some(5.0)]);
        rig.running(npu_only, 1, 0.0);
        rig.ready(npu_only, 0.0);
        let second = rig.ready(any, 0.0);
        assert_eq!(rig.decide("fcfs"), [start(second, 0)]);
    }

    #[test]
    fn the_next_phase_goes_on_where_the_last_one_ended() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[9.0, 4.0], 1);
        let stage = rig.ready_decode(chat, 0.0);
        rig.state.stages[stage].processor = Some(onbeat_core::id::ProcessorId(1));
        assert_eq!(rig.decide("fcfs"), [start(stage, 1)]);
    }
}
