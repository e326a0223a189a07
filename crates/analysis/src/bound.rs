//! A lower bound on deadline violations that no policy can beat: what is the scenario's fault, and not the policy's.
//!
//! # How
//! 1. Each source's jobs are cut into classes by their random sizes; each class counts with its smallest size. A job
//!    whose fastest path, alone, every part on its fastest processor (or, where models can be divided, on all of them
//!    at once), takes longer than its deadline (or whose first
//!    token then comes later than the TTFT goal, or its tokens slower than the TPOT goal) cannot meet it: it is
//!    *impossible*.
//! 2. For the others, a linear programme chooses which fraction of each class's jobs to accept and on which processors
//!    to do their work, so that the number of accepted jobs is largest. A job released in one period of use may be
//!    worked on from the start of that period to its end plus the deadline; no processor can do more work there than
//!    slots × time. Jobs may be cut and spread at will.
//! 3. Jobs that are neither impossible nor accepted must be violated by any policy, however clairvoyant.
//!
//! # Why it is a lower bound
//! Everything that is left out only makes life harder: contention, context switches, loading, hand-over, segments,
//! memory, order within a period, jobs from before the warm-up, parallelism within a job. Jobs whose deadline lies past
//! the end of the run need not be judged and are never counted as violations, but count among the judged.
//!
//! Where arrivals or sizes are random it is a bound on the *expected* number of violations over the expected number of
//! judged jobs: a single seed may lie below it. [`LowerBound::in_expectation`] says so.
//!
//! A source with a TPOT goal, but neither a TTFT goal nor a deadline, adds nothing to the bound of the whole run: its
//! jobs could be left unfinished, and unfinished jobs without an overdue goal are not judged.

mod classes;
mod programme;

use onbeat_core::id::{Id, IdVec, SourceId};
use onbeat_core::spec::VariationKind;
use onbeat_core::system::System;

use crate::demand::{IsRandom, epochs};
use classes::{Demand, demands};
use programme::{Weights, maximise};

/// A lower bound on violations.
#[derive(Clone, Debug, PartialEq)]
pub struct LowerBound {
    /// No policy has a violation rate over the whole run below this, 0 to 1.
    pub violation_rate: f64,
    /// No policy has a mean of the sources' violation rates below this, 0 to 1.
    pub mean_violation_rate: f64,
    /// Violations that cannot be avoided.
    pub violations: f64,
    /// Jobs that can be judged at most.
    pub judged: f64,
    /// Per stream and session, in the scenario's order.
    pub sources: IdVec<SourceId, SourceBound>,
    /// What makes violations unavoidable, one sentence each; empty if nothing does.
    pub binding: Vec<String>,
    /// Whether it is a bound in expectation, because arrivals or sizes are random.
    pub in_expectation: bool,
}

/// A lower bound on one source's violations.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceBound {
    /// Name.
    pub name: String,
    /// No policy has a violation rate below this for the source, even if it neglects all others; `None` if the source
    /// has neither deadline nor goals.
    pub violation_rate: Option<f64>,
    /// Why some of its jobs, or all, cannot be in time even alone.
    pub impossible: Option<String>,
}

/// Rates below this are rounding of the solver.
const NEGLIGIBLE: f64 = 1e-6;

/// The lower bound for a system.
pub fn lower_bound(system: &System) -> LowerBound {
    let epochs = epochs(system);
    let demands = demands(system, &epochs);
    let everything = maximise(system, &epochs, &demands, |_| Weights::Jobs);
    let forced: f64 = demands.iter().map(|demand| demand.certain).sum();
    let judged: f64 = demands.iter().map(|demand| demand.most).sum();
    let violations = (forced - everything.accepted).max(0.0);
    let mut binding: Vec<String> = Vec::new();
    let sources: IdVec<SourceId, SourceBound> =
        system.sources.ids().map(|id| source_bound(system, &epochs, &demands, id)).collect();
    binding.extend(sources.iter().filter_map(|s| s.impossible.as_ref().map(|why| format!("{}: {why}", s.name))));
    if everything.turned_down > NEGLIGIBLE * judged {
        binding.extend(everything.saturated);
    }
    binding.extend(everything.failure);
    LowerBound {
        violation_rate: rate(violations, judged),
        mean_violation_rate: mean_rate(system, &epochs, &demands),
        violations: if rate(violations, judged) > 0.0 { violations } else { 0.0 },
        judged,
        sources,
        binding,
        in_expectation: is_random(system),
    }
}

fn rate(violations: f64, judged: f64) -> f64 {
    let rate = if judged > 0.0 { violations / judged } else { 0.0 };
    if rate < NEGLIGIBLE { 0.0 } else { rate.min(1.0) }
}

fn of_source(demands: &[Demand], source: SourceId) -> impl Iterator<Item = &Demand> {
    demands.iter().filter(move |demand| demand.source == source)
}

fn source_bound(system: &System, epochs: &[classes::Epoch], demands: &[Demand], id: SourceId) -> SourceBound {
    let source = &system.sources[id];
    let own = || of_source(demands, id);
    let required = source.deadline.is_some() || source.ttft.is_some() || source.tpot.is_some();
    let impossible = own().find_map(|demand| demand.impossible.clone());
    let all_impossible = own().next().is_some() && own().all(|demand| demand.impossible.is_some());
    let violation_rate = if all_impossible {
        1.0
    } else {
        let best =
            maximise(system, epochs, demands, |demand| if demand.source == id { Weights::Jobs } else { Weights::Left });
        let forced: f64 = own().map(|demand| demand.certain).sum();
        rate(forced - best.accepted, own().map(|demand| demand.most).sum())
    };
    let share: f64 = own().filter(|demand| demand.impossible.is_some()).map(|demand| demand.most).sum::<f64>()
        / own().map(|demand| demand.most).sum::<f64>().max(f64::MIN_POSITIVE);
    let impossible = impossible.map(|why| {
        if all_impossible {
            format!("{why}: no job can be in time")
        } else {
            format!("{why}: {:.1}% of the jobs cannot be in time", share * 100.0)
        }
    });
    SourceBound { name: source.name.clone(), violation_rate: required.then_some(violation_rate), impossible }
}

/// The bound on the mean of the sources' rates: the programme weighs every source's jobs by 1 / their number.
fn mean_rate(system: &System, epochs: &[classes::Epoch], demands: &[Demand]) -> f64 {
    let most: Vec<f64> =
        system.sources.ids().map(|id| of_source(demands, id).map(|demand| demand.most).sum()).collect();
    let sources = most.iter().filter(|&&most| most > 0.0).count();
    let best = maximise(system, epochs, demands, |demand| {
        Weights::Each(1.0 / most[demand.source.index()].max(f64::MIN_POSITIVE))
    });
    let forced: f64 =
        demands.iter().filter(|d| most[d.source.index()] > 0.0).map(|d| d.certain / most[d.source.index()]).sum();
    rate(forced - best.weighted, sources as f64)
}

/// Whether anything that the bound rests on is random.
fn is_random(system: &System) -> bool {
    let arrivals = system.sources.iter().any(|source| source.arrival.is_random());
    let edges = system.nodes.iter().flat_map(|node| &node.after);
    let branches =
        edges.into_iter().any(|edge| (0.0 < edge.probability && edge.probability < 1.0) || edge.fan_out.is_some());
    let constant =
        |d: &Option<onbeat_core::distribution::Distribution>| d.as_ref().is_none_or(|d| d.as_constant().is_some());
    let sizes = system.nodes.iter().any(|node| !constant(&node.prompt) || !constant(&node.output));
    let measured = system.nodes.iter().flat_map(onbeat_core::system::Node::all_costs).flat_map(|cost| &cost.phases);
    let quantiles = measured
        .into_iter()
        .any(|(_, phase)| matches!(phase, onbeat_core::cost::PhaseCost::Fixed { quantiles: Some(_), .. }));
    arrivals || branches || sizes || quantiles || system.variation.kind != VariationKind::None
}
