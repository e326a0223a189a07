//! Distributions as the drivers use them: validated, with the moments that policies and bounds may know.

use serde::{Deserialize, Serialize};

use crate::curve::{Below, Curve};

/// A distribution of a non-negative quantity. Sampling is the driver's business; see `onbeat_sim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// The family and its parameters.
    pub family: Family,
    /// Smaller samples become this.
    pub min: f64,
    /// Larger samples become this.
    pub max: f64,
}

/// A family of distributions with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Family {
    /// Always the same value.
    Constant(f64),
    /// Uniform between two values.
    Uniform {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Log-normal.
    Lognormal {
        /// Median.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Exponential.
    Exponential {
        /// Mean.
        mean: f64,
    },
    /// Gamma.
    Gamma {
        /// Mean.
        mean: f64,
        /// Coefficient of variation.
        cv: f64,
    },
    /// Piecewise linear quantile function over probabilities 0 to 1.
    Quantiles(Curve),
}

impl Distribution {
    /// Always `value`.
    pub fn constant(value: f64) -> Self {
        Self { family: Family::Constant(value), min: 0.0, max: f64::MAX }
    }

    /// Piecewise linear between `points` of (probability, value).
    pub fn quantiles(points: Vec<(f64, f64)>) -> Self {
        Self { family: Family::Quantiles(Curve::new(points, Below::Hold)), min: 0.0, max: f64::MAX }
    }

    /// The value, if it is always the same.
    pub fn as_constant(&self) -> Option<f64> {
        match self.family {
            Family::Constant(value) => Some(value.clamp(self.min, self.max)),
            _ => None,
        }
    }

    /// Mean of the family, cut to the limits. (The mean of the clamped distribution differs slightly; policies use this as
    /// an expectation, not as a bound.)
    pub fn mean(&self) -> f64 {
        let mean = match &self.family {
            Family::Constant(value) => *value,
            Family::Uniform { low, high } => f64::midpoint(*low, *high),
            Family::Normal { mean, .. } | Family::Exponential { mean } | Family::Gamma { mean, .. } => *mean,
            Family::Lognormal { median, sigma } => median * libm::exp(sigma * sigma / 2.0),
            Family::Quantiles(curve) => {
                curve.points().windows(2).map(|w| (w[1].0 - w[0].0) * f64::midpoint(w[0].1, w[1].1)).sum()
            }
        };
        mean.clamp(self.min, self.max)
    }

    /// Smallest possible value.
    pub fn smallest(&self) -> f64 {
        let low = match &self.family {
            Family::Constant(value) => *value,
            Family::Uniform { low, .. } => *low,
            Family::Quantiles(curve) => curve.points()[0].1,
            Family::Normal { .. } | Family::Lognormal { .. } | Family::Exponential { .. } | Family::Gamma { .. } => 0.0,
        };
        low.clamp(self.min, self.max)
    }

    /// Largest possible value, or a value that one sample in about ten thousand exceeds where there is none.
    pub fn largest(&self) -> f64 {
        let high = match &self.family {
            Family::Constant(value) => *value,
            Family::Uniform { high, .. } => *high,
            Family::Quantiles(curve) => curve.points()[curve.points().len() - 1].1,
            Family::Normal { mean, std } => mean + 3.72 * std,
            Family::Lognormal { median, sigma } => median * libm::exp(3.72 * sigma),
            Family::Exponential { mean } => mean * 9.21,
            Family::Gamma { mean, cv } => mean * (1.0 + 3.72 * cv + 4.6 * cv * cv),
        };
        high.clamp(self.min, self.max)
    }
}
