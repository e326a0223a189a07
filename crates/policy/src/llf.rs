//! `llf`: the stage with the least laxity goes first, and takes over when its laxity has fallen clearly below that of running work.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Rest, Times, best_rest, latest_start_ns, rest_of_running};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "llf",
    summary: "Least laxity first, on the fastest idle processor; takes over when laxities have crossed clearly",
    group: "real-time",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "hysteresis_ms",
            default: "1",
            meaning: "running work is preempted only by a stage whose laxity is smaller by more than this [ms], 0 to 3600000",
        },
        ParameterInfo {
            name: "quantum_ms",
            default: "1",
            meaning: "the policy wakes when laxities cross, but not more often than this [ms]; 0: it looks only when something happens",
        },
    ],
    reference: "Mok, Fundamental Design Problems of Distributed Systems for the Hard-Real-Time Environment, PhD thesis, MIT, 1983",
    build,
};

/// Least laxity first.
#[derive(Clone, Debug)]
struct Llf {
    order: LeastLaxity,
    dispatch: Dispatch,
    quantum: Nanos,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let hysteresis = parameters.milliseconds("hysteresis_ms")?;
    let order = LeastLaxity { margin: parameters.flag("preemptive")?.then_some(hysteresis.0), times: Times::default() };
    let quantum = parameters.milliseconds("quantum_ms")?;
    Ok(Box::new(Llf { order, dispatch: Dispatch::default(), quantum, alarm: Alarm::default() }))
}

impl Policy for Llf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        if self.quantum > Nanos::ZERO
            && let Some(crossing) = self.next_crossing(view)
        {
            self.alarm.set(view.now(), view.now().saturating_add(crossing.max(self.quantum)), actions);
        }
    }
}

impl Llf {
    /// Time until a waiting stage may take over from running work: its laxity shrinks while it waits, that of the work does not.
    fn next_crossing(&self, view: &View<'_>) -> Option<Nanos> {
        let margin = self.order.margin?;
        let mut next: Option<u64> = None;
        for &(waiting, stage) in self.dispatch.waiting() {
            if waiting == u64::MAX {
                continue;
            }
            let started = self.dispatch.started().iter().map(|&(key, _, processor)| (key, processor));
            for (running, processor) in self.dispatch.running().chain(started) {
                if view.can_run(stage, processor) && view.preemptible(processor) {
                    let time = waiting.saturating_add(margin).saturating_sub(running).saturating_add(1);
                    next = Some(next.map_or(time, |known| known.min(time)));
                }
            }
        }
        next.map(Nanos)
    }
}

/// By laxity.
#[derive(Clone, Debug)]
struct LeastLaxity {
    /// Hysteresis [ns], if it preempts.
    margin: Option<u64>,
    times: Times,
}

impl Order for LeastLaxity {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        ordered(laxity_ns(view, stage, best_rest(self.times.of(view, stage))))
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        let laxity = |stage| laxity_ns(view, stage, rest_of_running(view, stage, processor, run));
        ordered(run.stages().map(laxity).min().expect("a run serves at least one stage"))
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.margin
    }
}

/// Time to spare until each of the stage's goals, the shortest of them [ns]; negative when it is too late, `i64::MAX` without goals.
fn laxity_ns(view: &View<'_>, stage: StageId, rest: Rest) -> i64 {
    match latest_start_ns(view, stage, rest) {
        i64::MAX => i64::MAX,
        latest => latest.saturating_sub_unsigned(view.now().0),
    }
}

/// The same order without a sign.
fn ordered(laxity: i64) -> u64 {
    laxity.cast_unsigned() ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;
    use onbeat_core::units::Nanos;

    use super::ordered;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn laxities_keep_their_order_without_a_sign() {
        let laxities = [i64::MIN, -5, -1, 0, 1, 7, i64::MAX];
        assert!(laxities.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
    }

    #[test]
    fn a_long_stage_with_a_later_deadline_can_be_more_urgent() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let short = rig.stream("short", Some(20.0), &[Some(2.0)]);
        let long = rig.stream("long", Some(30.0), &[Some(25.0)]);
        let (short, long) = (rig.ready(short, 0.0), rig.ready(long, 0.0));
        // Laxities 18 and 5 ms. While `long` runs `short` loses 13 ms to meet it, and one more to pass it by the hysteresis.
        let wake = Action::Wake { at: Nanos(ms(14.0).0 + 1) };
        assert_eq!(rig.decide("llf"), [start(long, 0), wake]);
        assert_eq!(rig.decide("llf:quantum_ms=0"), [start(long, 0)]);
        assert_eq!(rig.decide("edf"), [start(short, 0)]);
    }

    #[test]
    fn takes_over_only_beyond_the_hysteresis() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let source = rig.stream("s", Some(20.0), &[Some(8.0)]);
        let running = rig.running(source, 0, 0.0);
        rig.ready(source, 0.0);
        // Both have a laxity of 12 ms at first; the one that runs keeps it.
        rig.state.now = ms(1.0);
        assert_eq!(rig.decide("llf:quantum_ms=0"), [], "1 ms is not more than 1 ms");
        rig.state.now = ms(1.1);
        assert_eq!(rig.decide("llf"), [preempt(running)]);
        assert_eq!(rig.decide("llf:preemptive=false"), []);
        assert_eq!(rig.decide("llf:hysteresis_ms=3,quantum_ms=0"), []);
    }

    #[test]
    fn the_first_token_needs_prefill_only() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        // Prefill 100 ms, due at 1000 ms: 900 ms to spare, though the answer takes 400 ms more.
        let chat = rig.session("chat", &[4.0], 1);
        let frame = rig.stream("frame", Some(860.0), &[Some(10.0)]);
        let (chat, frame) = (rig.ready(chat, 0.0), rig.ready(frame, 0.0));
        assert_eq!(rig.decide("llf"), [start(frame, 0)], "850 ms to spare");
        rig.state.now = ms(0.0);
        rig.state.jobs[rig.state.stages[frame].job].deadline = ms(920.0);
        assert_eq!(rig.decide("llf"), [start(chat, 0)], "910 ms to spare");
    }
}
