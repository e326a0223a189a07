//! Distributions as the drivers use them: validated, with the moments that policies and bounds may know.

use serde::{Deserialize, Serialize};

use crate::curve::{Below, Curve};

/// How many [nodes](Distribution::nodes) stand for a distribution.
const NODES: u32 = 1024;

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

    /// Values with weights that add up to 1: the weighted sum of any bounded function of them is close to its expectation. Equal steps of
    /// probability, or of the normal variable or the logarithm that the family is made of.
    pub fn nodes(&self) -> Vec<(f64, f64)> {
        let inner =
            |low: f64, high: f64| (0..NODES).map(move |i| low + (high - low) * (f64::from(i) + 0.5) / f64::from(NODES));
        let probabilities = || inner(0.0, 1.0);
        let normal = |z: f64| libm::exp(-z * z / 2.0);
        let mut nodes: Vec<(f64, f64)> = match &self.family {
            Family::Constant(value) => vec![(*value, 1.0)],
            Family::Uniform { low, high } => probabilities().map(|u| (low + (high - low) * u, 1.0)).collect(),
            Family::Quantiles(curve) => probabilities().map(|u| (curve.at(u), 1.0)).collect(),
            Family::Exponential { mean } => probabilities().map(|u| (-mean * libm::log(1.0 - u), 1.0)).collect(),
            Family::Normal { mean, std } => inner(-8.0, 8.0).map(|z| (mean + std * z, normal(z))).collect(),
            Family::Lognormal { median, sigma } => {
                inner(-8.0, 8.0).map(|z| (median * libm::exp(sigma * z), normal(z))).collect()
            }
            Family::Gamma { mean, cv } => {
                // Of y, the logarithm of the variable over its scale, the density goes with exp(shape y - exp(y)).
                let shape = 1.0 / (cv * cv).max(1e-6);
                let (middle, spread) = (libm::log(shape), libm::sqrt(shape));
                let (low, high) = (middle - 9.0 / spread - 40.0 / shape, libm::log(shape + 10.0 * spread + 50.0));
                let height = shape * middle - shape;
                let weight = |y: f64| libm::exp(shape * y - libm::exp(y) - height);
                inner(low, high).map(|y| (mean / shape * libm::exp(y), weight(y))).collect()
            }
        };
        let sum: f64 = nodes.iter().map(|node| node.1).sum();
        for (value, weight) in &mut nodes {
            *value = value.clamp(self.min, self.max);
            *weight /= sum;
        }
        nodes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_moments_of_the_distribution() {
        let of = |family: Family| Distribution { family, min: 0.0, max: f64::MAX };
        let families = [
            (of(Family::Constant(3.0)), 3.0, 9.0),
            (of(Family::Uniform { low: 1.0, high: 4.0 }), 2.5, 7.0),
            (of(Family::Normal { mean: 50.0, std: 3.0 }), 50.0, 2509.0),
            // exp(2 σ²) times the square of the median.
            (of(Family::Lognormal { median: 2.0, sigma: 0.5 }), 2.0 * libm::exp(0.125), 4.0 * libm::exp(0.5)),
            (of(Family::Exponential { mean: 2.0 }), 2.0, 8.0),
            (of(Family::Gamma { mean: 3.0, cv: 0.1 }), 3.0, 9.09),
            (of(Family::Gamma { mean: 3.0, cv: 2.0 }), 3.0, 45.0),
            (Distribution::quantiles(vec![(0.0, 0.0), (0.5, 1.0), (1.0, 3.0)]), 1.25, 0.5 / 3.0 + 0.5 * 13.0 / 3.0),
            // Clamped: 1 for half of the probability.
            (Distribution { family: Family::Uniform { low: 0.0, high: 2.0 }, min: 0.0, max: 1.0 }, 0.75, 2.0 / 3.0),
        ];
        for (distribution, mean, square) in families {
            let nodes = distribution.nodes();
            let sum = |f: fn(f64) -> f64| nodes.iter().map(|&(x, weight)| weight * f(x)).sum::<f64>();
            assert!((sum(|_| 1.0) - 1.0).abs() < 1e-9);
            let (m, s) = (sum(|x| x), sum(|x| x * x));
            assert!((m - mean).abs() < 0.005 * mean, "{distribution:?}: {m} instead of {mean}");
            assert!((s - square).abs() < 0.015 * square, "{distribution:?}: {s} instead of {square}");
        }
    }
}
