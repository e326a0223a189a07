//! Expected numbers of arrivals.

use onbeat_core::distribution::{Distribution, Family};
use onbeat_core::system::{Arrival, Source, System};
use onbeat_core::units::Nanos;

/// Expected arrivals of a source, or of one class of its jobs, within an interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrivals {
    /// At most so many in expectation.
    pub(crate) most: f64,
    /// At least so many in expectation.
    pub(crate) least: f64,
}

/// Cuts the run at the end of the warm-up and wherever a source becomes active or inactive.
pub(crate) fn epochs(system: &System) -> Vec<(Nanos, Nanos)> {
    let edges = system.sources.iter().flat_map(|source| source.active.iter().flat_map(|&(start, end)| [start, end]));
    let mut cuts: Vec<Nanos> = edges.chain([Nanos::ZERO, system.warm_up, system.duration]).collect();
    cuts.retain(|&cut| cut <= system.duration);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|w| (w[0], w[1])).collect()
}

/// Expected arrivals with a nominal release in `from..to`, which lies within one of the system's [`epochs`]. `take`
/// selects requests of a trace by their number.
pub(crate) fn within(source: &Source, from: Nanos, to: Nanos, take: impl Fn(usize) -> bool) -> Arrivals {
    let active = source.active.is_empty() || source.active.iter().any(|&(start, end)| start <= from && from < end);
    if !active || from >= to {
        return Arrivals { most: 0.0, least: 0.0 };
    }
    let exactly = |n: f64| Arrivals { most: n, least: n };
    let since = |start: Nanos| to.saturating_sub(from.max(start)).as_secs();
    match &source.arrival {
        Arrival::Periodic { first, period } => {
            // Arrivals before a time t: ceil((t - first) / period).
            let before = |t: Nanos| t.saturating_sub(*first).0.div_ceil(period.0.max(1));
            exactly((before(to) - before(from)) as f64)
        }
        Arrival::Poisson { start, rate_per_s } => exactly(rate_per_s * since(*start)),
        Arrival::Gamma { start, rate_per_s, cv } => {
            // A renewal process has at least t/μ − 1 arrivals in expectation (Wald) and at most t/μ + cv² (Lorden).
            let mean = rate_per_s * since(*start);
            Arrivals { most: mean + if mean > 0.0 { cv * cv } else { 0.0 }, least: (mean - 1.0).max(0.0) }
        }
        Arrival::Trace { requests } => {
            let inside = |&(i, request): &(usize, &onbeat_core::system::Request)| {
                from <= request.at && request.at < to && take(i)
            };
            exactly(requests.iter().enumerate().filter(inside).count() as f64)
        }
    }
}

impl Arrivals {
    /// Arrivals in each of the `epochs`, with the source's limit on the number of jobs applied in order.
    pub(crate) fn by_epoch(source: &Source, epochs: &[(Nanos, Nanos)]) -> Vec<Self> {
        let mut left = source.count.map_or(f64::MAX, |count| count as f64);
        let limited = |&(from, to): &(Nanos, Nanos)| {
            let found = within(source, from, to, |_| true);
            let most = found.most.min(left);
            // The expectation of a capped random number is below its cap and its mean: nothing certain is left.
            let least = match (source.count, source.arrival.is_random()) {
                (Some(_), true) => 0.0,
                _ => found.least.min(left),
            };
            left -= most;
            Self { most, least }
        };
        epochs.iter().map(limited).collect()
    }
}

/// Whether arrivals are drawn at random.
pub(crate) trait IsRandom {
    /// Whether arrivals are drawn at random.
    fn is_random(&self) -> bool;
}

impl IsRandom for Arrival {
    fn is_random(&self) -> bool {
        matches!(self, Self::Poisson { .. } | Self::Gamma { .. })
    }
}

/// The largest value of a distribution, if it has one.
pub(crate) fn largest(distribution: &Distribution) -> Option<f64> {
    let bounded = matches!(distribution.family, Family::Constant(_) | Family::Uniform { .. } | Family::Quantiles(_));
    (bounded || distribution.max < f64::MAX).then(|| if bounded { distribution.largest() } else { distribution.max })
}
