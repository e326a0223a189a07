//! `prema`: stages earn tokens by priority and waiting; of those with enough tokens the shortest goes first.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;
use crate::waiting::Waits;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "prema",
    summary: "PREMA: tokens grow with priority and slowdown; of those with enough tokens the shortest goes first",
    group: "multi-DNN",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "quantum_ms",
            default: "1",
            meaning: "while stages wait, tokens are counted again after this time [ms]; 0: only when something happens",
        },
    ],
    reference: "Choi and Rhu, PREMA: A Predictive Multi-task Scheduling Algorithm For Preemptible Neural Processing Units, HPCA 2020 (arXiv 1909.04548)",
    build,
};

/// Priority levels: low, medium, high. They are also the thresholds.
const LEVELS: [f64; 3] = [1.0, 3.0, 9.0];

/// PREMA.
#[derive(Clone, Debug)]
struct Prema {
    order: Tokens,
    dispatch: Dispatch,
    quantum: Nanos,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = Tokens {
        preemptive: parameters.flag("preemptive")?,
        level: levels(system),
        threshold: LEVELS[0],
        waits: Waits::default(),
        times: Times::default(),
    };
    let quantum = parameters.milliseconds("quantum_ms")?;
    Ok(Box::new(Prema { order, dispatch: Dispatch::default(), quantum, alarm: Alarm::default() }))
}

/// The level of each source: the least of the scenario's priorities is low, the highest high, and those between by rank.
fn levels(system: &System) -> Vec<f64> {
    let mut distinct: Vec<i32> = system.sources.iter().map(|source| source.priority).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let last = (distinct.len() - 1).max(1);
    let rank = |priority: i32| distinct.partition_point(|&known| known < priority);
    system.sources.iter().map(|source| LEVELS[rank(source.priority) * 2 / last]).collect()
}

impl Policy for Prema {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.waits.update(view);
        if view.ready().is_empty() {
            return;
        }
        self.order.set_threshold(view);
        self.dispatch.run(view, actions, &mut self.order);
        let started = self.dispatch.started().iter().map(|&(_, _, processor)| processor);
        let mut running = self.dispatch.running().map(|(_, processor)| processor).chain(started);
        if self.quantum > Nanos::ZERO && !self.dispatch.waiting().is_empty() && running.any(|p| view.preemptible(p)) {
            self.alarm.set(view.now(), view.now().saturating_add(self.quantum), actions);
        }
    }
}

/// Stages with enough tokens first, each group by remaining time.
#[derive(Clone, Debug)]
struct Tokens {
    preemptive: bool,
    /// By source.
    level: Vec<f64>,
    /// What stages need to be candidates.
    threshold: f64,
    waits: Waits,
    times: Times,
}

/// Set in the keys of stages that have too few tokens.
const NO_CANDIDATE: u64 = 1 << 63;

impl Tokens {
    /// The largest level that somebody's tokens have reached.
    fn set_threshold(&mut self, view: &View<'_>) {
        let running = view.processors().flat_map(|p| view.occupancy(p).runs.iter().flat_map(Run::stages));
        let most =
            view.ready().iter().copied().chain(running).map(|stage| self.tokens(view, stage)).fold(0.0, f64::max);
        self.threshold = LEVELS.into_iter().rev().find(|&level| level <= most).unwrap_or(LEVELS[0]);
    }

    /// Level × (1 + waiting time in units of the stage's time alone).
    fn tokens(&self, view: &View<'_>, stage: StageId) -> f64 {
        let live = view.stage(stage);
        let alone = |p: ProcessorId| view.cost(stage, p).map(|cost| cost.total_ns(live.work));
        let alone = view.processors().filter_map(alone).fold(f64::INFINITY, f64::min);
        let level = self.level[view.job(stage).source.index()];
        level * (1.0 + self.waits.in_all(view, stage).as_f64() / alone.max(1.0))
    }

    fn encode(&self, view: &View<'_>, stage: StageId, remaining: Nanos) -> u64 {
        let remaining = remaining.0.min(NO_CANDIDATE - 1);
        if self.tokens(view, stage) >= self.threshold { remaining } else { remaining | NO_CANDIDATE }
    }
}

impl Order for Tokens {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let fastest = self.times.of(view, stage).iter().flatten().map(|rest| rest.stage).min();
        self.encode(view, stage, fastest.unwrap_or(Nanos::MAX))
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        run.stages().map(|stage| self.encode(view, stage, left(view, processor, run, stage))).min().unwrap_or(0)
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

/// What is left of a stage that runs: of this phase as the run says, then the phases after it.
pub(crate) fn left(view: &View<'_>, processor: ProcessorId, run: &Run, stage: StageId) -> Nanos {
    let after = match (view.remaining(stage, processor), view.remaining_in_phase(stage, processor)) {
        (Some(all), Some(phase)) => all.saturating_sub(phase),
        _ => Nanos::ZERO,
    };
    let here = run.expected_end.saturating_sub(view.now()).saturating_add(after);
    // Waiting stages are judged by their fastest processor. If running ones were not, two of them on a slow one would take turns.
    here.min(view.remaining_best(stage))
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use super::levels;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn priorities_become_three_levels() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        for priority in [5, -3, 8, 8] {
            let source = rig.stream("s", Some(10.0), &[Some(4.0)]);
            rig.system.sources[source].priority = priority;
        }
        assert_eq!(levels(&rig.system), [3.0, 1.0, 9.0, 9.0]);
    }

    #[test]
    fn a_high_priority_is_a_candidate_alone_until_others_have_waited() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let low = rig.stream("low", Some(90.0), &[Some(1.0)]);
        let high = rig.stream("high", Some(90.0), &[Some(6.0)]);
        rig.system.sources[low].priority = 0;
        rig.system.sources[high].priority = 1;
        let (low, high) = (rig.ready(low, 0.0), rig.ready(high, 0.0));
        let wake = |at: f64| Action::Wake { at: ms(at) };
        assert_eq!(rig.decide("prema"), [start(high, 0), wake(1.0)]);
        // After 8 ms the low one has 1 + 8 / 1 = 9 tokens, and is shorter.
        rig.state.now = ms(7.9);
        assert_eq!(rig.decide("prema")[0], start(high, 0));
        rig.state.now = ms(8.0);
        assert_eq!(rig.decide("prema")[0], start(low, 0));
    }

    #[test]
    fn a_shorter_candidate_takes_over_and_an_equal_one_does_not() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let long = rig.stream("long", Some(90.0), &[Some(40.0)]);
        let short = rig.stream("short", Some(90.0), &[Some(4.0)]);
        let running = rig.running(long, 0, 0.0);
        rig.state.now = ms(36.0);
        rig.ready(short, 36.0);
        assert_eq!(rig.decide("prema:quantum_ms=0"), [], "4 ms are left of both");
        rig.state.now = ms(35.0);
        assert_eq!(rig.decide("prema"), [preempt(running)]);
        assert_eq!(rig.decide("prema:preemptive=false,quantum_ms=0"), []);
    }
}
