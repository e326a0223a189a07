//! `mlfq`: multi-level feedback queue: whatever has used little processor time goes first.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::usage::{Usage, slice};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "mlfq",
    summary: "Multi-level feedback queue: stages sink level by level as they use processor time; higher levels go first",
    group: "XSched",
    parameters: &[
        ParameterInfo {
            name: "quantum_ms",
            default: "10",
            meaning: "processor time that a stage may use on the highest level [ms], above 0; every further level allows twice as much",
        },
        ParameterInfo {
            name: "levels",
            default: "4",
            meaning: "number of levels, 1 to 32; the lowest one has no limit",
        },
        ParameterInfo {
            name: "boost_ms",
            default: "1000",
            meaning: "all stages return to the highest level so often [ms]; 0: never",
        },
    ],
    reference: "Corbató, Merwin-Daggett and Daley, An Experimental Time-Sharing System, AFIPS Spring Joint Computer Conference 1962",
    build,
};

/// Multi-level feedback queue.
#[derive(Clone, Debug)]
struct Mlfq {
    order: Levels,
    dispatch: Dispatch,
    usage: Usage,
    boost: Nanos,
    next_boost: Nanos,
    alarm: Alarm,
}

/// By level.
#[derive(Clone, Debug)]
struct Levels {
    quantum: u64,
    lowest: u32,
    /// Time used by each stage since the last boost [ns], with its serial.
    used: Vec<(u64, u64)>,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let bad = |parameter: &'static str, allowed: &'static str| PolicyError::BadValue {
        policy: INFO.name,
        parameter,
        value: parameters.text(parameter).to_owned(),
        allowed,
    };
    let quantum = parameters.milliseconds("quantum_ms")?.0;
    if quantum == 0 {
        return Err(bad("quantum_ms", "a number of milliseconds above 0"));
    }
    let levels: Option<u32> = parameters.text("levels").parse().ok().filter(|levels| (1..=32).contains(levels));
    let lowest = levels.ok_or_else(|| bad("levels", "a whole number from 1 to 32"))? - 1;
    let boost = parameters.milliseconds("boost_ms")?;
    Ok(Box::new(Mlfq {
        order: Levels { quantum, lowest, used: Vec::new() },
        dispatch: Dispatch::default(),
        usage: Usage::default(),
        boost,
        next_boost: boost,
        alarm: Alarm::default(),
    }))
}

/// No wake-up sooner than this: a quantum may be overrun by so much.
const GRAIN: u64 = 10_000;

impl Policy for Mlfq {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        for charge in self.usage.charges(view) {
            self.order.charge(charge.stage, charge.serial, charge.time);
        }
        if self.boost > Nanos::ZERO && view.now() >= self.next_boost {
            self.order.used.fill((0, 0));
            self.next_boost = view.now().saturating_add(self.boost);
        }
        self.dispatch.run(view, actions, &mut self.order);
        self.usage.note(view, actions);
        if !self.dispatch.waiting().is_empty()
            && let Some(left) = self.next_sink(view)
        {
            self.alarm.set(view.now(), view.now().saturating_add(Nanos(left.max(GRAIN))), actions);
        }
    }
}

impl Mlfq {
    /// Time until a running stage that can be preempted sinks a level.
    fn next_sink(&self, view: &View<'_>) -> Option<u64> {
        let running = self.usage.running(view).filter(|&(_, processor, _)| view.preemptible(processor));
        let left = running.filter_map(|(stage, _, part)| {
            let left = self.order.left(stage, view.stage(stage).serial)?;
            Some((left as f64 / part).ceil() as u64)
        });
        left.min()
    }
}

impl Levels {
    fn used(&self, stage: StageId, serial: u64) -> u64 {
        self.used.get(stage.index()).map_or(0, |&(known, used)| if known == serial { used } else { 0 })
    }

    fn charge(&mut self, stage: StageId, serial: u64, time: Nanos) {
        let used = self.used(stage, serial).saturating_add(time.0);
        if stage.index() >= self.used.len() {
            self.used.resize(stage.index() + 1, (0, 0));
        }
        self.used[stage.index()] = (serial, used);
    }

    /// Time used by a stage when it has left a level and all above it: quanta of 1, 2, 4, … add up to 1, 3, 7, …
    fn limit(&self, level: u32) -> u64 {
        self.quantum.saturating_mul((2 << level) - 1)
    }

    fn level(&self, used: u64) -> u32 {
        (0..self.lowest).find(|&level| used < self.limit(level)).unwrap_or(self.lowest)
    }

    /// Time that a stage has left on its level; `None` on the lowest.
    fn left(&self, stage: StageId, serial: u64) -> Option<u64> {
        let used = self.used(stage, serial);
        let level = self.level(used);
        (level < self.lowest).then(|| self.limit(level) - used)
    }
}

impl Order for Levels {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.level(self.used(stage, view.stage(stage).serial)).into()
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }

    fn portion(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<u32> {
        slice(view, stage, processor, Nanos(self.left(stage, view.stage(stage).serial)?))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use super::Levels;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn every_level_allows_twice_the_time() {
        let levels = Levels { quantum: 10, lowest: 3, used: Vec::new() };
        let level: Vec<_> = [0, 9, 10, 29, 30, 69, 70, 1_000_000].map(|used| levels.level(used)).into();
        assert_eq!(level, [0, 0, 1, 1, 2, 2, 3, 3]);
        let flat = Levels { quantum: 10, lowest: 0, used: Vec::new() };
        assert_eq!(flat.level(1_000_000), 0);
        let many = Levels { quantum: u64::MAX / 2, lowest: 31, used: Vec::new() };
        assert_eq!(many.level(u64::MAX - 1), 1);
    }

    #[test]
    fn a_stage_that_has_used_its_quantum_gives_way_to_a_new_one() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let long = rig.stream("long", Some(90.0), &[Some(40.0)]);
        let short = rig.stream("short", Some(90.0), &[Some(4.0)]);
        let mut policy = rig.make("mlfq");
        let running = rig.running(long, 0, 0.0);
        assert_eq!(rig.decide_with(&mut policy), []);
        rig.state.now = ms(3.0);
        let new = rig.ready(short, 3.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(10.0) }], "7 ms of the quantum are left");
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(running)]);
        rig.stop(running);
        assert_eq!(rig.decide_with(&mut policy)[0], start(new, 0), "though the other one was ready first");
    }

    #[test]
    fn a_boost_lifts_all_to_the_highest_level() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let long = rig.stream("long", Some(90.0), &[Some(40.0)]);
        let short = rig.stream("short", Some(90.0), &[Some(4.0)]);
        for (policy, preempted) in [("mlfq:boost_ms=20", false), ("mlfq:boost_ms=0", true)] {
            let mut policy = rig.make(policy);
            rig.state.now = ms(0.0);
            let running = rig.running(long, 0, 0.0);
            rig.decide_with(&mut policy);
            rig.state.now = ms(20.0);
            let new = rig.ready(short, 20.0);
            assert_eq!(rig.decide_with(&mut policy).contains(&preempt(running)), preempted);
            rig.stop(running);
            rig.state.ready.retain(|&stage| stage != running && stage != new);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        let rig = Rig::new(&[("npu", Preemption::Never)]);
        for text in ["mlfq:levels=0", "mlfq:levels=x", "mlfq:quantum_ms=0"] {
            assert!(crate::make(text, &rig.system).is_err(), "{text}");
        }
    }
}
