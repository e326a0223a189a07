//! `srpt`: streams by deadline; below them, what has least left goes first and takes over, and waiting makes it count as less.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::generative::{BACKGROUND, left, left_of_running, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "srpt",
    summary: "Streams with deadlines first; then least remaining time less ageing, taking over at tokens",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "ageing",
        default: "0.1",
        meaning: "each ms since the job's release counts as so many ms less that remain; 0: pure SRPT; 0 to 1000",
    }],
    reference: "Schrage, A Proof of the Optimality of the Shortest Remaining Processing Time Discipline, Operations Research 16(3), 1968",
    build,
};

/// Shortest remaining processing time.
#[derive(Clone, Debug)]
struct Srpt {
    order: ShortestRemaining,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let ageing = parameters.number("ageing", 0.0..=1000.0, "a number from 0 to 1000")?;
    let order = ShortestRemaining { ageing, times: Times::default() };
    Ok(Box::new(Srpt { order, dispatch: Dispatch::default() }))
}

impl Policy for Srpt {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

#[derive(Clone, Debug)]
struct ShortestRemaining {
    ageing: f64,
    times: Times,
}

impl ShortestRemaining {
    /// All stages age alike, so that instead of growing older they are charged for their release once: the order is the same, and
    /// no key changes while a stage waits.
    fn background(&self, view: &View<'_>, stage: StageId, left: Nanos) -> u64 {
        let charge = Nanos::from_ns_f64(self.ageing * view.job(stage).release.as_f64());
        BACKGROUND.saturating_add(left.saturating_add(charge).0.min(BACKGROUND))
    }
}

impl Order for ShortestRemaining {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        if let Some(key) = real_time_key(view, stage) {
            return key;
        }
        let left = left(&mut self.times, view, stage);
        self.background(view, stage, left)
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |stage| {
            let left = left_of_running(&mut self.times, view, stage, processor, run);
            self.background(view, stage, left)
        })
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    /// A stream without a deadline, which runs for `latency` ms.
    fn task(rig: &mut Rig, name: &str, latency: f64) -> onbeat_core::id::SourceId {
        rig.stream(name, None, &[Some(latency)])
    }

    #[test]
    fn takes_over_from_what_has_more_left_now_not_from_what_had_more_at_first() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let (long, short) = (task(&mut rig, "long", 100.0), task(&mut rig, "short", 40.0));
        let running = rig.running(long, 0, 0.0);
        rig.state.now = ms(50.0);
        rig.ready(short, 50.0);
        assert_eq!(rig.decide("srpt:ageing=0"), [preempt(running)], "50 ms left against 40");
        rig.state.now = ms(60.0);
        assert_eq!(rig.decide("srpt:ageing=0"), [], "40 ms left against 40");
    }

    #[test]
    fn age_makes_up_for_length() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let (long, short) = (task(&mut rig, "long", 100.0), task(&mut rig, "short", 40.0));
        let (old, new) = (rig.ready(long, 0.0), rig.ready(short, 500.0));
        rig.state.now = ms(500.0);
        // 100 - 0.1 * 500 = 50 against 40; 100 - 0.2 * 500 = 0 against 40.
        assert_eq!(rig.decide("srpt"), [start(new, 0)]);
        assert_eq!(rig.decide("srpt:ageing=0.2"), [start(old, 0)]);
    }

    #[test]
    fn streams_with_deadlines_go_first_and_take_over() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let tiny = task(&mut rig, "tiny", 1.0);
        let frame = rig.stream("frame", Some(100.0), &[Some(30.0)]);
        let running = rig.running(tiny, 0, 0.0);
        rig.ready(frame, 0.0);
        assert_eq!(rig.decide("srpt"), [preempt(running)]);
    }

    #[test]
    fn a_slow_processor_makes_nothing_longer() {
        // Were the running stage measured where it runs, the two would take the CPU from each other in turn.
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime), ("npu", Preemption::Never)]);
        let frame = rig.stream("frame", Some(100.0), &[None, Some(90.0)]);
        let a = rig.stream("a", None, &[Some(100.0), Some(10.0)]);
        let b = rig.stream("b", None, &[Some(200.0), Some(20.0)]);
        rig.running(frame, 1, 0.0);
        rig.running(a, 0, 0.0);
        rig.ready(b, 0.0);
        assert_eq!(rig.decide("srpt"), []);
    }
}
