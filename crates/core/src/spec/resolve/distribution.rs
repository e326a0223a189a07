//! Distributions: which parameters each family has, and within which limits they lie.

use crate::curve::{Below, Curve};
use crate::distribution::{Distribution, Family};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::limits::{self, Limit};
use crate::spec::{DistributionKind, DistributionSpec};

/// What a distribution is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantity {
    /// Limits of every value, in the file's unit. Samples are cut to them.
    pub limit: Limit,
    /// Size of the file's unit in the system's.
    pub scale: f64,
}

/// A delay, in files in milliseconds.
pub(super) const DELAY_MS: Quantity = Quantity { limit: limits::OFFSET_MS, scale: 1e6 };
/// A number of tokens, at least one.
pub(super) const TOKENS: Quantity = Quantity { limit: limits::TOKENS, scale: 1.0 };
/// A probability.
pub(super) const PROBABILITY: Quantity = Quantity { limit: limits::PROBABILITY, scale: 1.0 };
/// A number of instances.
pub(super) const INSTANCES: Quantity = Quantity { limit: limits::FAN_OUT, scale: 1.0 };

/// The parameters that a family needs.
fn needed(kind: DistributionKind) -> &'static [&'static str] {
    match kind {
        DistributionKind::Constant => &["value"],
        DistributionKind::Uniform => &["low", "high"],
        DistributionKind::Normal => &["mean", "std"],
        DistributionKind::Lognormal => &["median", "sigma"],
        DistributionKind::Exponential => &["mean"],
        DistributionKind::Gamma => &["mean", "cv"],
        DistributionKind::Quantiles => &["points"],
    }
}

/// The distribution, unless it is wrong.
pub(super) fn resolve(
    check: &mut Check<'_>,
    field: &Field,
    spec: &DistributionSpec,
    quantity: Quantity,
) -> Option<Distribution> {
    let before = check.errors.len();
    let Quantity { limit, scale } = quantity;
    // Parameters may lie below the smallest allowed sample (a uniform from 0): samples are cut.
    let parameter = Limit { least: 0.0, open: false, ..limit };
    let exact = if spec.kind == DistributionKind::Constant { limit } else { parameter };
    let spread = Limit { least: 0.0, open: false, ..limit };
    let positive = Limit { least: 0.0, open: true, ..limit };

    let needed = needed(spec.kind);
    let numbers = [
        ("value", spec.value, exact),
        ("low", spec.low, parameter),
        ("high", spec.high, parameter),
        ("mean", spec.mean, positive),
        ("std", spec.std, spread),
        ("cv", spec.cv, limits::VARIATION_COEFFICIENT),
        ("median", spec.median, positive),
        ("sigma", spec.sigma, limits::SIGMA),
    ];
    for (name, value, limit) in numbers {
        parameter_fits(check, field, name, value.is_some(), needed);
        check.optional(field, name, value, &limit);
    }
    parameter_fits(check, field, "points", spec.points.is_some(), needed);
    check.optional(field, "min", spec.min, &parameter);
    check.optional(field, "max", spec.max, &parameter);
    if let (Some(min), Some(max)) = (spec.min, spec.max)
        && min > max
    {
        check.wrong(&field.key("min"), format!("min {min} is above max {max}"), "min must not be above max");
    }
    if let Some(max) = spec.max
        && max < limit.least
    {
        check.wrong(&field.key("max"), format!("{max} is out of range"), limit.describe());
    }
    if let (DistributionKind::Uniform, Some(low), Some(high)) = (spec.kind, spec.low, spec.high)
        && low > high
    {
        check.wrong(&field.key("low"), format!("low {low} is above high {high}"), "low must not be above high");
    }
    if let (DistributionKind::Quantiles, Some(points)) = (spec.kind, &spec.points) {
        let at = field.key("points");
        if check.points(&at, points, &limits::PROBABILITY, &parameter, true)
            && (points.len() < 2 || points[0].0 != 0.0 || points[points.len() - 1].0 != 1.0)
        {
            check.wrong(
                &at,
                "the probabilities do not reach from 0 to 1",
                "start with probability 0 and end with probability 1",
            );
        }
    }
    if check.errors.len() > before {
        return None;
    }

    let family = match spec.kind {
        DistributionKind::Constant => Family::Constant(spec.value? * scale),
        DistributionKind::Uniform => Family::Uniform { low: spec.low? * scale, high: spec.high? * scale },
        DistributionKind::Normal => Family::Normal { mean: spec.mean? * scale, std: spec.std? * scale },
        DistributionKind::Lognormal => Family::Lognormal { median: spec.median? * scale, sigma: spec.sigma? },
        DistributionKind::Exponential => Family::Exponential { mean: spec.mean? * scale },
        DistributionKind::Gamma => Family::Gamma { mean: spec.mean? * scale, cv: spec.cv? },
        DistributionKind::Quantiles => {
            let points = spec.points.as_ref()?.iter().map(|&(p, value)| (p, value * scale)).collect();
            Family::Quantiles(Curve::new(points, Below::Hold))
        }
    };
    let min = spec.min.unwrap_or(0.0).max(limit.least) * scale;
    let max = spec.max.unwrap_or(limit.most).min(limit.most) * scale;
    Some(Distribution { family, min, max })
}

/// Reports a parameter that is missing or belongs to another family.
fn parameter_fits(check: &mut Check<'_>, field: &Field, name: &str, given: bool, needed: &[&str]) {
    let wanted = needed.contains(&name);
    let list = || format!("this kind has: {}", needed.join(", "));
    if given && !wanted {
        check.wrong(&field.key(name), format!("`{name}` does not belong to this kind of distribution"), list());
    } else if wanted && !given {
        check.wrong(field, format!("`{name}` is missing"), list());
    }
}
