//! Sizes of the stages' work, and whether the profiles' tables reach that far.

use crate::cost::{Cost, PhaseCost, Work};
use crate::distribution::{Distribution, Family};
use crate::exits::Exits;
use crate::spec::CostSpec;
use crate::system::{Arrival, Request};

/// Sizes of a stage's work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// The smallest possible one.
    pub smallest: Work,
    /// The expected one.
    pub expected: Work,
    /// The largest one; see [`Distribution::largest`].
    pub largest: Work,
}

impl Sizes {
    /// The same lengths, with another number of steps.
    pub(super) fn with_steps(self, steps: u32) -> Self {
        let work = |work: Work| Work { steps, ..work };
        Self { smallest: work(self.smallest), expected: work(self.expected), largest: work(self.largest) }
    }

    /// The same, for a model whose inferences may end early.
    pub(super) fn with_exits(self, exits: &Exits) -> Self {
        let work = |work: Work, exit: f64| Work { exit, ..work };
        let (least, mean) = (exits.least_after(0.0), exits.mean());
        Self { smallest: work(self.smallest, least), expected: work(self.expected, mean), largest: self.largest }
    }

    /// The same, where an inference is so much in each class of content, which has this share of the time.
    pub(super) fn with_content(self, classes: &[(f64, f64)]) -> Self {
        if classes.is_empty() {
            return self;
        }
        let works = || classes.iter().map(|&(work, _)| work);
        let (least, most) = (works().fold(f64::INFINITY, f64::min), works().fold(0.0, f64::max));
        let mean = classes.iter().map(|&(work, share)| work * share).sum::<f64>().clamp(least, most);
        let work = |work: Work, scale: f64| Work { scale, ..work };
        Self {
            smallest: work(self.smallest, least),
            expected: work(self.expected, mean),
            largest: work(self.largest, most),
        }
    }
}

/// Sizes by the stage's lengths of prompt and output, if its model has such; a length that is not given is that of the trace's
/// requests.
///
/// # Errors
/// The length that is given nowhere.
pub(super) fn of(
    arrival: &Arrival,
    lengths: Option<[Option<&Distribution>; 2]>,
    steps: u32,
) -> Result<Sizes, &'static str> {
    let [prompt, output] = match lengths {
        Some([prompt, output]) => [
            length(arrival, prompt, |request| request.prompt).ok_or("prompt")?,
            length(arrival, output, |request| request.output).ok_or("output")?,
        ],
        None => [[0; 3]; 2],
    };
    let work = |i: usize| Work { prompt: prompt[i], output: output[i], steps, exit: 1.0, scale: 1.0 };
    Ok(Sizes { smallest: work(0), expected: work(1), largest: work(2) })
}

/// Smallest, expected and largest length [tokens], at least 1.
fn length(arrival: &Arrival, own: Option<&Distribution>, of: impl Fn(&Request) -> u32) -> Option<[u32; 3]> {
    if let Some(own) = own {
        return Some([own.smallest(), own.mean(), own.largest()].map(|length| length.round().max(1.0) as u32));
    }
    let Arrival::Trace { requests } = arrival else { return None };
    let sum: u64 = requests.iter().map(|request| u64::from(of(request))).sum();
    let mean = (sum as f64 / requests.len() as f64).round().max(1.0) as u32;
    Some([requests.iter().map(&of).min()?, mean, requests.iter().map(&of).max()?])
}

/// Whether a distribution's family has a largest value.
pub(super) fn has_end(distribution: &Distribution) -> bool {
    matches!(distribution.family, Family::Constant(_) | Family::Uniform { .. } | Family::Quantiles(_))
}

/// Warnings where a table of an entry does not reach as far as the work.
pub(super) fn beyond_tables(what: &str, entry: &CostSpec, size: Option<f64>, cost: &Cost, sizes: Sizes) -> Vec<String> {
    let mut warnings = Vec::new();
    if let (Some(points), Some(size)) = (&entry.by_size_ms, size)
        && outside(size, size, points)
    {
        warnings.push(format!("{what}: size {size} lies outside of the profile's table and is extrapolated."));
    }
    let (least, most) = (sizes.smallest, sizes.largest);
    for (_, cost) in &cost.phases {
        let (points, name, low, high) = match cost {
            PhaseCost::Prefill { latency_ns, .. } => {
                (latency_ns.points(), "prompt lengths", f64::from(least.prompt), f64::from(most.prompt))
            }
            PhaseCost::Decode { step_ns, .. } => {
                let high = f64::from(most.prompt) + f64::from(most.output);
                (step_ns.curve().points(), "context lengths", f64::from(least.prompt) + 1.0, high)
            }
            _ => continue,
        };
        let (first, last) = (points[0].0, points[points.len() - 1].0);
        let single = matches!(cost, PhaseCost::Prefill { .. }) && points.len() == 1;
        if single && (low < first || high > last) {
            warnings.push(format!(
                "{what}: prefill was profiled at {first} tokens only; {} is taken as proportional.",
                span(low, high)
            ));
        } else if outside(low, high, points) {
            let (used, known) = (span(low, high), span(first, last));
            warnings.push(format!("{what}: {name} of {used} reach beyond the profile's {known} and are extrapolated."));
        }
    }
    warnings
}

/// Whether a part of the range lies outside of the points. One point holds everywhere.
fn outside(low: f64, high: f64, points: &[(f64, f64)]) -> bool {
    points.len() > 1 && (low < points[0].0 || high > points[points.len() - 1].0)
}

fn span(low: f64, high: f64) -> String {
    if low == high { low.to_string() } else { format!("{low} to {high}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn lengths_come_from_the_stage_or_from_the_trace() {
        let at = |prompt, output| Request { at: Nanos::ZERO, prompt, output };
        let trace = Arrival::Trace { requests: vec![at(10, 4), at(40, 1), at(11, 9)] };
        let own = Distribution::constant(7.0);
        let sizes = of(&trace, Some([None, Some(&own)]), 0).expect("both lengths are known");
        assert_eq!([sizes.smallest.prompt, sizes.expected.prompt, sizes.largest.prompt], [10, 20, 40]);
        assert_eq!([sizes.smallest.output, sizes.largest.output], [7, 7]);
        let poisson = Arrival::Poisson { start: Nanos::ZERO, rate_per_s: 1.0 };
        assert_eq!(of(&poisson, Some([Some(&own), None]), 0).expect_err("no output"), "output");
        assert_eq!(of(&poisson, None, 3).expect("no lengths needed").expected.steps, 3);
    }
}
