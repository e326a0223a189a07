//! `sjf`: of all ready stages, the one that is done soonest on an idle processor goes first.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "sjf",
    summary: "Shortest remaining time first, on the fastest idle processor; deadlines play no part",
    group: "real-time",
    parameters: &[],
    reference: "Smith, Various Optimizers for Single-Stage Production, Naval Research Logistics Quarterly 3, 1956",
    build,
};

/// Shortest job first.
#[derive(Clone, Debug, Default)]
struct Sjf {
    plan: Plan,
    times: Times,
    queue: Vec<Candidate>,
    /// Stages in decode that no idle processor is left for, in order of readiness.
    others: Vec<(u64, StageId)>,
}

/// A ready stage with its fastest idle processor and the time for which it would hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    time: Nanos,
    serial: u64,
    stage: StageId,
    processor: ProcessorId,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<Sjf>::default())
}

impl Policy for Sjf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.queue.clear();
        self.others.clear();
        for &stage in view.ready() {
            self.consider(view, stage);
        }
        // Every round fills a slot; the number of rounds is at most the number of slots.
        while let Some(shortest) = (0..self.queue.len()).min_by_key(|&i| self.queue[i]) {
            let Candidate { stage, processor, .. } = self.queue.swap_remove(shortest);
            self.plan.start(view, stage, processor, actions);
            if !self.plan.is_free(processor) {
                self.look_again(view, processor);
            }
        }
        self.others.sort_unstable();
        for i in 0..self.others.len() {
            self.plan.join_any(view, self.others[i].1, actions);
        }
    }
}

impl Sjf {
    fn consider(&mut self, view: &View<'_>, stage: StageId) {
        let live = view.stage(stage);
        let found = if self.plan.has_free() {
            self.plan.fastest_with_time(view, stage, self.times.of(view, stage))
        } else {
            None
        };
        if let Some((time, processor)) = found {
            self.queue.push(Candidate { time, serial: live.serial, stage, processor });
        } else if live.kind == Phase::Decode {
            self.others.push((live.serial, stage));
        }
    }

    /// Finds another processor for the candidates of one that has filled up.
    fn look_again(&mut self, view: &View<'_>, full: ProcessorId) {
        let mut i = 0;
        while i < self.queue.len() {
            if self.queue[i].processor == full {
                let stage = self.queue.swap_remove(i).stage;
                // Whatever is pushed at the end has another processor, so this loop ends.
                self.consider(view, stage);
            } else {
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    #[test]
    fn the_shortest_goes_first_whatever_is_due() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime), ("npu", Preemption::Anytime)]);
        let long = rig.stream("long", Some(10.0), &[Some(9.0), Some(8.0)]);
        let short = rig.stream("short", Some(90.0), &[Some(30.0), Some(3.0)]);
        let (long, short) = (rig.ready(long, 0.0), rig.ready(short, 0.0));
        assert_eq!(rig.decide("sjf"), [start(short, 1), start(long, 0)]);
    }

    #[test]
    fn times_are_those_on_the_processors_that_are_left() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let a = rig.stream("a", Some(10.0), &[Some(20.0), Some(1.0)]);
        let b = rig.stream("b", Some(10.0), &[Some(30.0), Some(2.0)]);
        let c = rig.stream("c", Some(10.0), &[Some(10.0), Some(3.0)]);
        let (a, _, c) = (rig.ready(a, 0.0), rig.ready(b, 0.0), rig.ready(c, 0.0));
        // `b` is second on the NPU, but once that is taken `c` is the shorter one on the CPU.
        assert_eq!(rig.decide("sjf"), [start(a, 1), start(c, 0)]);
    }

    #[test]
    fn decode_joins_when_nothing_is_idle() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 2);
        rig.running_decode(chat, 0, 0.0);
        let (second, _third) = (rig.ready_decode(chat, 0.0), rig.ready_decode(chat, 0.0));
        assert_eq!(rig.decide("sjf"), [start(second, 0)]);
    }
}
