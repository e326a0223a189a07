//! `chain-edf`: earliest due first, where every stage of a chain has a due time of its own, from its share of the time that is left.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::edf::{PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "chain-edf",
    summary: "Earliest due first, with virtual deadlines for the stages of a chain: slack is shared in proportion to execution time",
    group: "real-time",
    parameters: &[PREEMPTIVE],
    reference: "Kao and Garcia-Molina, Deadline Assignment in a Distributed Soft Real-Time System, IEEE TPDS 8(12), 1997 (equal flexibility)",
    build,
};

/// Earliest virtual deadline first.
#[derive(Clone, Debug)]
struct ChainEdf {
    order: VirtualDeadline,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = VirtualDeadline { preemptive: parameters.flag("preemptive")? };
    Ok(Box::new(ChainEdf { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for ChainEdf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }
}

/// By virtual deadline.
#[derive(Clone, Debug)]
struct VirtualDeadline {
    preemptive: bool,
}

impl Order for VirtualDeadline {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let (node, deadline) = (view.node(stage), view.job(stage).deadline);
        // Goals for tokens apply as they are, and no stage is due later than with plain EDF.
        share(view.stage(stage).ready_at, deadline, node.best, node.tail).min(view.due(stage)).0
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

/// When a stage is due that takes `own` of the `own + tail` that remain of its chain: at its share of the time from its readiness to the
/// deadline.
fn share(ready: Nanos, deadline: Nanos, own: Nanos, tail: Nanos) -> Nanos {
    if deadline == Nanos::MAX || tail == Nanos::ZERO {
        return deadline;
    }
    let time = u128::from(deadline.saturating_sub(ready).0);
    let part = time * u128::from(own.0) / (u128::from(own.0) + u128::from(tail.0));
    ready.saturating_add(Nanos(u64::try_from(part).expect("a part is no more than the whole")))
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;
    use onbeat_core::units::Nanos;

    use super::share;
    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn slack_is_shared_in_proportion_to_execution_time() {
        // Three stages of 2, 3 and 5 ms, 30 ms in all: 20 ms of slack, of which the first gets 2/10, hence 2 + 4.
        assert_eq!(share(ms(0.0), ms(30.0), ms(2.0), ms(8.0)), ms(6.0));
        // Done early, at 4: 18 ms of slack for the other two, of which the second gets 3/8: 4 + 3 + 6.75.
        assert_eq!(share(ms(4.0), ms(30.0), ms(3.0), ms(5.0)), ms(13.75));
        assert_eq!(share(ms(14.0), ms(30.0), ms(5.0), ms(0.0)), ms(30.0));
        assert_eq!(share(ms(1.0), Nanos::MAX, ms(5.0), ms(5.0)), Nanos::MAX);
        assert_eq!(share(ms(40.0), ms(30.0), ms(5.0), ms(5.0)), ms(40.0), "late: no time left to share");
    }

    #[test]
    fn the_first_stage_of_a_long_chain_goes_before_what_is_due_earlier() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let chain = rig.stream("chain", Some(30.0), &[Some(5.0)]);
        let single = rig.stream("single", Some(20.0), &[Some(5.0)]);
        let node = rig.system.nodes_of(chain).next().unwrap();
        rig.system.nodes[node].tail = ms(5.0);
        let other = rig.ready(single, 0.0);
        let first = rig.ready(chain, 0.0);
        assert_eq!(rig.decide("edf"), [start(other, 0)], "due at 20, before 30 - 5");
        assert_eq!(rig.decide("chain-edf"), [start(first, 0)], "due at 30 x 5/10 = 15");
    }
}
