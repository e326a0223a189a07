//! `fixed-priority`: the source with the highest priority goes first; rate-monotonic where the scenario gives none.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "fixed-priority",
    summary: "Highest source priority first (rate-monotonic by default), on the fastest idle processor",
    group: "real-time",
    parameters: &[PREEMPTIVE],
    reference: "Liu and Layland, Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment, J. ACM 20(1), 1973",
    build,
};

/// Highest priority first.
#[derive(Clone, Debug)]
struct FixedPriority {
    order: HighestPriority,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = HighestPriority { preemptive: parameters.flag("preemptive")? };
    Ok(Box::new(FixedPriority { order, dispatch: Dispatch::default() }))
}

impl Policy for FixedPriority {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// By the priority of the source; larger is more urgent.
#[derive(Clone, Debug)]
struct HighestPriority {
    preemptive: bool,
}

impl Order for HighestPriority {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        i64::from(view.source(stage).priority).abs_diff(i64::from(i32::MAX))
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, preempt, start};

    #[test]
    fn priority_beats_deadline() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let low = rig.stream("low", Some(10.0), &[Some(4.0)]);
        let high = rig.stream("high", Some(90.0), &[Some(4.0)]);
        rig.system.sources[low].priority = i32::MIN;
        rig.system.sources[high].priority = 7;
        let running = rig.running(low, 0, 0.0);
        let urgent = rig.ready(high, 1.0);
        assert_eq!(rig.decide("fixed-priority"), [preempt(running)]);
        assert_eq!(rig.decide("fixed-priority:preemptive=false"), []);
        rig.stop(running);
        assert_eq!(rig.decide("fixed-priority"), [start(urgent, 0)]);
    }

    #[test]
    fn jobs_of_one_source_keep_their_order() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let source = rig.stream("s", Some(10.0), &[Some(4.0)]);
        let first = rig.ready(source, 0.0);
        rig.ready(source, 0.0);
        rig.reverse_ready();
        assert_eq!(rig.decide("fixed-priority"), [start(first, 0)]);
    }
}
