//! `heterogeneous-priority`: only work of the highest priority that there is on the whole chip may run, on whatever processor.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order, hold_back};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "heterogeneous-priority",
    summary: "Only work of the highest source priority on the whole chip may run; all other is held back on every processor",
    group: "XSched",
    parameters: &[],
    reference: "Shen et al., XSched: Preemptive Scheduling for Diverse XPUs, OSDI 2025; policy HHPF (heterogeneous highest priority first) of the public repository XpuOS/xsched",
    build,
};

/// Highest priority first, across processors.
#[derive(Clone, Debug, Default)]
struct HeterogeneousPriority {
    order: Highest,
    dispatch: Dispatch,
}

/// The highest priority, if there is work.
#[derive(Clone, Copy, Debug, Default)]
struct Highest {
    priority: Option<i32>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<HeterogeneousPriority>::default())
}

impl Policy for HeterogeneousPriority {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        // What no processor can take at the moment holds nobody back.
        let ready = view.ready().iter().copied().filter(|&stage| view.processors().any(|p| view.can_run(stage, p)));
        let runs = view.processors().flat_map(|p| &view.occupancy(p).runs).filter(|run| !view.gives_way(run));
        let running = runs.flat_map(Run::stages);
        self.order.priority = ready.chain(running).map(|stage| view.source(stage).priority).max();
        self.dispatch.run(view, actions, &mut self.order);
        hold_back(view, actions, |_, run| run.stages().any(|stage| self.order.considers(view, stage)));
    }
}

impl Order for Highest {
    /// All that take part have the same priority: first come, first served.
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        self.priority == Some(view.source(stage).priority)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, preempt, start};

    #[test]
    fn lower_priorities_are_held_back_on_other_processors_too() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime), ("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(30.0), &[None, Some(4.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(40.0), None]);
        rig.system.sources[camera].priority = 2;
        rig.system.sources[bulk].priority = 1;
        let running = rig.running(bulk, 0, 0.0);
        let _waiting = rig.ready(bulk, 0.0);
        let frame = rig.ready(camera, 0.0);
        assert_eq!(rig.decide("heterogeneous-priority"), [start(frame, 1), preempt(running)]);
        assert_eq!(rig.decide("fixed-priority"), [start(frame, 1)]);
        rig.state.stages[frame].refused = 0b11;
        assert_eq!(rig.decide("heterogeneous-priority"), [], "a stage that nobody can take holds nobody back");
    }

    #[test]
    fn equal_priorities_run_side_by_side() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime), ("npu", Preemption::Never)]);
        let a = rig.stream("a", Some(30.0), &[None, Some(4.0)]);
        let b = rig.stream("b", Some(90.0), &[Some(40.0), None]);
        let (a, b) = (rig.ready(a, 0.0), rig.ready(b, 0.0));
        assert_eq!(rig.decide("heterogeneous-priority"), [start(a, 1), start(b, 0)]);
    }

    #[test]
    fn what_cannot_be_preempted_goes_on() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        let camera = rig.stream("camera", Some(30.0), &[None, Some(4.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(40.0), None]);
        rig.system.sources[camera].priority = 2;
        rig.running(bulk, 0, 0.0);
        let frame = rig.ready(camera, 0.0);
        assert_eq!(rig.decide("heterogeneous-priority"), [start(frame, 1)]);
    }
}
