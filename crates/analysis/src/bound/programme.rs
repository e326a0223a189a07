//! The linear programme: how many jobs could be accepted at best.

use microlp::{ComparisonOp, OptimizationDirection, Problem, Variable};
use onbeat_core::id::Id;
use onbeat_core::system::System;

use super::classes::{Demand, Epoch};

/// What an accepted job is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Weights {
    /// One.
    Jobs,
    /// This.
    Each(f64),
    /// The jobs are left out.
    Left,
}

/// The best that can be done.
#[derive(Clone, Debug, Default)]
pub(super) struct Best {
    /// Accepted jobs.
    pub(super) accepted: f64,
    /// Their worth.
    pub(super) weighted: f64,
    /// Possible jobs that are not accepted.
    pub(super) turned_down: f64,
    /// Processors that have no time left, with the time.
    pub(super) saturated: Vec<String>,
    /// If the solver failed: what that means. All possible jobs then count as accepted, which is a bound still.
    pub(super) failure: Option<String>,
}

/// Terms below this share of a processor's time are left out, which can only let more jobs in.
const SMALLEST_TERM: f64 = 1e-9;

/// Chooses the jobs to accept.
pub(super) fn maximise(
    system: &System,
    epochs: &[Epoch],
    demands: &[Demand],
    weight: impl Fn(&Demand) -> Weights,
) -> Best {
    let worth = |demand: &Demand| match weight(demand) {
        Weights::Jobs => Some(1.0),
        Weights::Each(worth) => Some(worth),
        Weights::Left => None,
    };
    let possible: Vec<(&Demand, f64)> = demands
        .iter()
        .filter(|demand| demand.impossible.is_none() && demand.certain > 0.0)
        .filter_map(|demand| worth(demand).map(|worth| (demand, worth)))
        .collect();
    if possible.is_empty() {
        return Best::default();
    }
    // The objective is scaled to at most one per demand.
    let scale = possible.iter().map(|(demand, worth)| demand.certain * worth).fold(0.0, f64::max);
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let mut accepted: Vec<Variable> = Vec::new();
    // Per epoch and processor: share of its time per unit of each variable.
    let processors = system.platform.processors.len();
    let mut used: Vec<Vec<(Variable, f64)>> = vec![Vec::new(); epochs.len() * processors];
    for (demand, worth) in &possible {
        let fraction = problem.add_var(demand.certain * worth / scale, (0.0, 1.0));
        accepted.push(fraction);
        for part in &demand.work {
            let mut balance = vec![(fraction, -1.0)];
            for k in demand.epochs.clone() {
                let length = epochs[k].1.as_f64() - epochs[k].0.as_f64();
                for (processor, ns) in part.enumerate() {
                    let Some(ns) = ns else { continue };
                    let capacity = length * f64::from(system.platform.processors[processor].slots);
                    let done = problem.add_var(0.0, (0.0, 1.0));
                    balance.push((done, 1.0));
                    let term = demand.certain * ns / capacity;
                    if term > SMALLEST_TERM {
                        used[k * processors + processor.index()].push((done, term));
                    }
                }
            }
            problem.add_constraint(&balance, ComparisonOp::Eq, 0.0);
        }
    }
    for terms in used.iter().filter(|terms| !terms.is_empty()) {
        problem.add_constraint(terms, ComparisonOp::Le, 1.0);
    }
    let solution = problem.solve().ok().and_then(|outcome| outcome.into_solution().ok());
    let fraction = |i: usize| solution.as_ref().map_or(1.0, |solution| solution.var_value(accepted[i]).clamp(0.0, 1.0));
    let mut best = Best::default();
    for (i, (demand, worth)) in possible.iter().enumerate() {
        best.accepted += fraction(i) * demand.certain;
        best.weighted += fraction(i) * demand.certain * worth;
        best.turned_down += (1.0 - fraction(i)) * demand.certain;
    }
    let Some(solution) = solution else {
        best.failure =
            Some("the linear programme could not be solved; the bound counts impossible jobs alone".to_owned());
        return best;
    };
    for (i, terms) in used.iter().enumerate() {
        let share: f64 = terms.iter().map(|&(variable, term)| solution.var_value(variable) * term).sum();
        if share > 0.9999 {
            let (k, processor) = (i / processors, i % processors);
            let name = &system.platform.processors.as_slice()[processor].name;
            best.saturated
                .push(format!("{name} would have to be busy all the time from {} to {}", epochs[k].0, epochs[k].1));
        }
    }
    best
}
