//! Joins the analyses to what was simulated: intervals, verdicts, lower bounds, response-time bounds.

use onbeat_analysis::bound::{LowerBound, lower_bound};
use onbeat_analysis::compare::Mean;
use onbeat_analysis::response_time::{NoBound, Order, response_times};
use onbeat_core::metric::{Metric, Values};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_report::{Bound, Comparison, Reason, Statistic};

/// Mean and 95% interval over seeds.
pub(crate) fn statistic(samples: &[f64]) -> Statistic {
    let n = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    match Mean::of(samples) {
        Some(Mean { mean, half_width, .. }) => Statistic { mean, half_width, n },
        // A value that is not finite has no interval.
        None => Statistic { mean: samples.iter().sum::<f64>() / f64::from(n.max(1)), half_width: None, n },
    }
}

/// Adds the bounds and ranks the policies.
pub(crate) fn complete(comparison: &mut Comparison) {
    comparison.bound = bound(&comparison.system);
    for row in &mut comparison.rows {
        if let Some(order) = order_of(&row.policy) {
            let bounds = response_bounds(&comparison.system, order);
            row.response_bounds_ms = bounds.into_iter().map(|bound| bound.ok().map(Nanos::as_ms)).collect();
        }
    }
    comparison.judge(statistic);
}

/// The order of jobs that a response-time analysis knows and that the policy, with its default parameters, follows.
pub(crate) fn order_of(policy: &str) -> Option<Order> {
    match policy {
        "edf" | "p-edf" => Some(Order::Edf),
        "fixed-priority" => Some(Order::FixedPriority),
        _ => None,
    }
}

/// Worst-case response times of all sources: on the processor where each has a bound, or else why there is none.
pub(crate) fn response_bounds(system: &System, order: Order) -> Vec<Result<Nanos, NoBound>> {
    let mut bounds: Vec<Result<Nanos, NoBound>> = system.sources.iter().map(|_| Err(NoBound::NotHere)).collect();
    for processor in system.platform.processors.ids() {
        for (best, here) in bounds.iter_mut().zip(response_times(system, processor, order)) {
            let says_more = matches!(best, Err(NoBound::NotHere));
            if here.is_ok() || says_more {
                *best = here;
            }
        }
    }
    bounds
}

/// What no policy can beat.
fn bound(system: &System) -> Bound {
    let LowerBound { violation_rate, mean_violation_rate, sources, binding, .. } = lower_bound(system);
    let judged = sources.iter().any(|source| source.violation_rate.is_some());
    let run: Values = if judged {
        [(Metric::MeanViolationRate, mean_violation_rate), (Metric::ViolationRate, violation_rate)].into()
    } else {
        Values::new()
    };
    let sources =
        sources.iter().map(|s| s.violation_rate.map(|rate| (Metric::ViolationRate, rate)).into_iter().collect());
    Bound {
        run,
        sources: sources.collect(),
        reasons: binding.into_iter().map(|text| Reason::Stated { text }).collect(),
    }
}
