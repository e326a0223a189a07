//! Online tuning of the two weights of DREAM's score, by what they have cost.
//!
//! Time is divided into windows; each tries a pair of weights. The search is a local one whose radius shrinks: it tries the centre and four
//! pairs around it, moves to the best, and halves the radius where that is the centre. So it converges in a few rounds, and begins
//! again when other streams are active than before.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::outcomes::Outcomes;

/// Weights are searched from 0 to this.
const MOST: f64 = 2.0;
/// Radius at the beginning of a search, and the least: five halvings.
const RADIUS: f64 = 0.5;
const RADIUS_MIN: f64 = RADIUS / 32.0;
/// What is tried in a round, in radii around the centre.
const PROBES: [[f64; 2]; 5] = [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];

/// A local search in two dimensions for what costs least.
#[derive(Clone, Debug)]
struct Search {
    centre: [f64; 2],
    radius: f64,
    /// Costs of the probes of this round that were tried.
    costs: [f64; PROBES.len()],
    tried: usize,
}

impl Search {
    fn new(centre: [f64; 2]) -> Self {
        Self { centre, radius: RADIUS, costs: [0.0; PROBES.len()], tried: 0 }
    }

    fn probe(&self, number: usize) -> [f64; 2] {
        [0, 1].map(|i| (self.centre[i] + PROBES[number][i] * self.radius).clamp(0.0, MOST))
    }

    /// What is to be tried next; the centre once the search has ended.
    fn weights(&self) -> [f64; 2] {
        self.probe(self.tried)
    }

    /// What was tried has cost so much.
    fn learn(&mut self, cost: f64) {
        if self.radius < RADIUS_MIN {
            return;
        }
        self.costs[self.tried] = cost;
        self.tried += 1;
        if self.tried == PROBES.len() {
            // Of equals the first: the centre before all others.
            let best = (1..PROBES.len()).fold(0, |best, i| if self.costs[i] < self.costs[best] { i } else { best });
            self.centre = self.probe(best);
            self.radius *= if best == 0 { 0.5 } else { 1.0 };
            self.tried = 0;
        }
    }

    fn begin_again(&mut self) {
        *self = Self::new(self.centre);
    }
}

/// What one source cost in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    jobs: f64,
    violated: f64,
    /// Energy of what was started, and what it would be on the costliest processor [mJ].
    energy: f64,
    worst: f64,
}

/// UXCost of a window: the sum of the violation rates times the sum of the relative energies, over the sources with jobs that ended. As in
/// DREAM, no violation among n jobs counts as half of one.
fn ux_cost(sources: &[Cost]) -> Option<f64> {
    let (mut violations, mut energies, mut any) = (0.0, 0.0, false);
    for source in sources.iter().filter(|source| source.jobs > 0.0) {
        any = true;
        violations += f64::max(source.violated, 0.5) / source.jobs;
        energies += if source.worst > 0.0 { source.energy / source.worst } else { 1.0 };
    }
    any.then_some(violations * energies)
}

/// Tunes two weights.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    window: Nanos,
    /// End of the window under way.
    until: Nanos,
    search: Search,
    outcomes: Outcomes<()>,
    /// Of the window under way, by source.
    sources: Vec<Cost>,
    /// Which sources had jobs that ended, in the last window.
    active: Vec<bool>,
}

impl Tuning {
    pub(crate) fn new(system: &System, window: Nanos, weights: [f64; 2]) -> Self {
        Self {
            window,
            until: window,
            search: Search::new(weights),
            outcomes: Outcomes::default(),
            sources: vec![Cost::default(); system.sources.len()],
            active: Vec::new(),
        }
    }

    /// At the beginning of a decision: the weights that it is to use.
    pub(crate) fn weights(&mut self, view: &View<'_>) -> [f64; 2] {
        let Self { outcomes, sources, .. } = self;
        outcomes.settle(view, |tracked, on_time| {
            let source = &mut sources[tracked.source];
            source.jobs += 1.0;
            source.violated += if on_time { 0.0 } else { 1.0 };
        });
        outcomes.welcome(view);
        if view.now() >= self.until {
            self.close(view.now());
        }
        self.search.weights()
    }

    /// A window has ended. One in which no job did says nothing, and goes on.
    fn close(&mut self, now: Nanos) {
        let windows = now.0 / self.window.0 + 1;
        self.until = Nanos(windows.saturating_mul(self.window.0));
        let Some(cost) = ux_cost(&self.sources) else { return };
        let active = |source: &Cost| source.jobs > 0.0;
        let changed = !self.active.is_empty() && !self.sources.iter().map(active).eq(self.active.iter().copied());
        self.active.clear();
        self.active.extend(self.sources.iter().map(active));
        self.sources.fill(Cost::default());
        if changed {
            self.search.begin_again();
        } else {
            self.search.learn(cost);
        }
    }

    /// At the end of a decision: accounts for what it starts. `energy` is that of a stage's next segment on a processor [mJ].
    pub(crate) fn note(
        &mut self,
        view: &View<'_>,
        actions: &Actions,
        energy: impl Fn(StageId, ProcessorId) -> Option<f64>,
    ) {
        self.outcomes.note_running(view, actions);
        for action in actions.as_slice() {
            let (stage, processor) = match *action {
                Action::Start { stage, processor, .. } => (stage, processor),
                Action::Drop { job } => {
                    self.outcomes.given_up(job);
                    continue;
                }
                _ => continue,
            };
            let worst = view.processors().filter_map(|p| energy(stage, p)).fold(0.0, f64::max);
            let source = &mut self.sources[view.job(stage).source.index()];
            if let Some(energy) = energy(stage, processor) {
                source.energy += energy;
                source.worst += worst;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_moves_to_the_best_and_narrows_where_that_is_the_centre() {
        // Costs least at (1.3, 0.19).
        let cost = |[a, b]: [f64; 2]| (a - 1.3) * (a - 1.3) + (b - 0.19) * (b - 0.19);
        let mut search = Search::new([1.0, 0.0]);
        let round = |search: &mut Search| {
            for _ in 0..PROBES.len() {
                search.learn(cost(search.weights()));
            }
            (search.centre, search.radius)
        };
        assert_eq!(round(&mut search), ([1.5, 0.0], 0.5), "0.076 against 0.126 and more");
        assert_eq!(round(&mut search), ([1.5, 0.0], 0.25), "all others are worse");
        assert_eq!(round(&mut search), ([1.25, 0.0], 0.25), "0.039, against 0.044 at (1.5, 0.25)");
        for _ in 0..12 {
            round(&mut search);
        }
        let [a, b] = search.weights();
        assert!((a - 1.3).abs() < 0.05 && (b - 0.19).abs() < 0.05, "{a} {b}");
        assert!(search.radius < RADIUS_MIN, "it has ended: {}", search.radius);
        let found = search.weights();
        search.learn(0.0);
        assert_eq!(search.weights(), found);
    }

    #[test]
    fn a_window_costs_its_violations_times_its_energy() {
        let source = |jobs, violated, energy, worst| Cost { jobs, violated, energy, worst };
        // 1/4 + 0.5/10, times 6/8 + 1 (of an unknown energy).
        let cost = ux_cost(&[source(4.0, 1.0, 6.0, 8.0), source(10.0, 0.0, 0.0, 0.0), Cost::default()]);
        assert!((cost.unwrap() - 0.3 * 1.75).abs() < 1e-12);
        assert_eq!(ux_cost(&[Cost::default()]), None);
    }

    #[test]
    fn a_job_that_ends_with_a_tool_in_time_is_no_violation() {
        use onbeat_core::distribution::Distribution;
        use onbeat_core::id::NodeId;
        use onbeat_core::spec::Preemption;

        use crate::test_rig::{Rig, ms};

        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let camera = rig.stream("camera", Some(100.0), &[Some(8.0)]);
        rig.system.nodes[NodeId(0)].tool = Some(Distribution::constant(10e6));
        let stage = rig.ready(camera, 0.0);
        rig.state.ready.clear();
        let mut tuning = Tuning::new(&rig.system, ms(500.0), [1.0, 0.0]);
        tuning.weights(&rig.view());
        tuning.note(&rig.view(), &Actions::default(), |_, _| None);
        rig.state.now = ms(10.0);
        rig.state.jobs.remove(rig.state.stages[stage].job);
        rig.state.stages.remove(stage);
        tuning.weights(&rig.view());
        assert_eq!((tuning.sources[0].jobs, tuning.sources[0].violated), (1.0, 0.0));
    }
}
