//! `dysta`: remaining time plus a little of slack and waiting; the lowest score goes first.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::prema::left;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Times, until_due};
use crate::waiting::Waits;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "dysta",
    summary: "Dysta's score: the shortest remaining time first, corrected by slack and by a penalty for switching",
    group: "multi-DNN",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "beta",
            default: "0.01",
            meaning: "weight of slack and penalty against remaining time, 0 to 1000",
        },
    ],
    reference: "Fan, Venieris, Kouris and Lane, Sparse-DySta: Sparsity-Aware Dynamic and Static Scheduling for Sparse Multi-DNN Workloads, MICRO 2023; formula after its public code",
    build,
};

/// Dysta.
#[derive(Clone, Debug)]
struct Dysta {
    order: LowestScore,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = LowestScore {
        preemptive: parameters.flag("preemptive")?,
        beta: parameters.factor("beta")?,
        alive: 1.0,
        waits: Waits::default(),
        times: Times::default(),
    };
    Ok(Box::new(Dysta { order, dispatch: Dispatch::default() }))
}

impl Policy for Dysta {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.waits.update(view);
        let running: usize =
            view.processors().flat_map(|p| view.occupancy(p).runs.iter()).map(|run| 1 + run.others.len()).sum();
        self.order.alive = (running + view.ready().len()) as f64;
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// By remaining time + beta × (slack beyond it + time since it was served / its time alone / stages alive), in milliseconds.
#[derive(Clone, Debug)]
struct LowestScore {
    preemptive: bool,
    beta: f64,
    /// Stages that are ready or run.
    alive: f64,
    waits: Waits,
    times: Times,
}

/// Added to the keys of stages that are never due: their slack is endless.
const NEVER_DUE: u64 = 1 << 62;

impl LowestScore {
    /// The score [ns]. `needed` is what must be done by the due time.
    fn score(&self, view: &View<'_>, stage: StageId, remaining: Nanos, needed: Nanos) -> u64 {
        let live = view.stage(stage);
        let alone = |p: ProcessorId| view.cost(stage, p).map(|cost| cost.total_ns(live.work));
        let alone = view.processors().filter_map(alone).fold(f64::INFINITY, f64::min).max(1.0);
        let penalty = self.waits.since_served(view, stage).as_f64() / alone / self.alive;
        let due = view.due(stage);
        let slack =
            if due == Nanos::MAX { 0.0 } else { due.saturating_sub(view.now().saturating_add(needed)).as_f64() };
        let score = Nanos::from_ns_f64(remaining.as_f64() + self.beta * (slack + penalty * 1e6)).0.min(NEVER_DUE - 1);
        if due == Nanos::MAX { score + NEVER_DUE } else { score }
    }
}

impl Order for LowestScore {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let rests = self.times.of(view, stage).iter().flatten();
        let times = rests.map(|&rest| (rest.stage, until_due(view, stage, rest)));
        let (remaining, needed) = times.min().expect("every stage can run somewhere");
        self.score(view, stage, remaining, needed)
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        let score = |stage| {
            let remaining = left(view, processor, run, stage);
            // A stage that runs keeps its slack; only what remains of it shrinks.
            self.score(view, stage, remaining, remaining)
        };
        run.stages().map(score).min().unwrap_or(0)
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_shortest_goes_first_unless_slack_weighs_more() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let short = rig.stream("short", Some(100.0), &[Some(4.0)]);
        let tight = rig.stream("tight", Some(6.0), &[Some(5.0)]);
        let (short, tight) = (rig.ready(short, 0.0), rig.ready(tight, 0.0));
        // 4 + 0.01 × 96 = 4.96 against 5 + 0.01 × 1 = 5.01; with 0.02: 5.92 against 5.02.
        assert_eq!(rig.decide("dysta"), [start(short, 0)]);
        assert_eq!(rig.decide("dysta:beta=0.02"), [start(tight, 0)]);
    }

    #[test]
    fn waiting_counts_against_a_stage() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let source = rig.stream("s", None, &[Some(4.0)]);
        rig.ready(source, 0.0);
        rig.state.now = ms(8.0);
        let fresh = rig.ready(source, 8.0);
        // The penalty of the first is 8 / 4 / 2 = 1, times 0.01 ms.
        assert_eq!(rig.decide("dysta"), [start(fresh, 0)], "as in the public code");
        rig.state.now = ms(8.0);
    }

    #[test]
    fn takes_over_from_what_has_more_left() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let long = rig.stream("long", Some(100.0), &[Some(40.0)]);
        let short = rig.stream("short", Some(100.0), &[Some(4.0)]);
        let running = rig.running(long, 0, 0.0);
        rig.state.now = ms(10.0);
        rig.ready(short, 10.0);
        assert_eq!(rig.decide("dysta"), [preempt(running)]);
        rig.state.now = ms(38.0);
        assert_eq!(rig.decide("dysta"), [], "2 ms are left");
    }
}
