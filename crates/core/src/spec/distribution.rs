//! Distributions of jitter, prompt lengths, output lengths and fan-out.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// A distribution of a quantity: a plain number, or a table such as `{ kind = "lognormal", median = 120, sigma = 0.8 }`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DistributionSpec {
    /// The family.
    pub kind: DistributionKind,
    /// `constant`: the value.
    pub value: Option<f64>,
    /// `uniform`: smallest value.
    pub low: Option<f64>,
    /// `uniform`: largest value.
    pub high: Option<f64>,
    /// `normal`, `exponential`, `gamma`: mean.
    pub mean: Option<f64>,
    /// `normal`: standard deviation, ≥ 0.
    pub std: Option<f64>,
    /// `gamma`: coefficient of variation, > 0.
    pub cv: Option<f64>,
    /// `lognormal`: median, > 0.
    pub median: Option<f64>,
    /// `lognormal`: standard deviation of the logarithm, ≥ 0.
    pub sigma: Option<f64>,
    /// `quantiles`: points of (probability, value), both increasing, from probability 0 to 1.
    pub points: Option<Vec<(f64, f64)>>,
    /// Smaller samples become this.
    pub min: Option<f64>,
    /// Larger samples become this.
    pub max: Option<f64>,
}

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DistributionKind {
    /// Always the same value.
    Constant,
    /// Uniform between two values.
    Uniform,
    /// Normal.
    Normal,
    /// Log-normal.
    Lognormal,
    /// Exponential.
    Exponential,
    /// Gamma.
    Gamma,
    /// Piecewise linear between given quantiles.
    Quantiles,
}

impl DistributionSpec {
    /// Always `value`.
    pub fn constant(value: f64) -> Self {
        Self {
            kind: DistributionKind::Constant,
            value: Some(value),
            low: None,
            high: None,
            mean: None,
            std: None,
            cv: None,
            median: None,
            sigma: None,
            points: None,
            min: None,
            max: None,
        }
    }
}

/// The table form, which serde derives.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: DistributionKind,
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    mean: Option<f64>,
    std: Option<f64>,
    cv: Option<f64>,
    median: Option<f64>,
    sigma: Option<f64>,
    points: Option<Vec<(f64, f64)>>,
    min: Option<f64>,
    max: Option<f64>,
}

// By hand: an untagged enum would say "data did not match any variant" about every mistake.
impl<'de> Deserialize<'de> for DistributionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrTable;

        impl<'de> Visitor<'de> for NumberOrTable {
            type Value = DistributionSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a distribution such as { kind = \"uniform\", low = 1, high = 5 }")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(DistributionSpec::constant(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(DistributionSpec::constant(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(DistributionSpec::constant(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Table { kind, value, low, high, mean, std, cv, median, sigma, points, min, max } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DistributionSpec { kind, value, low, high, mean, std, cv, median, sigma, points, min, max })
            }
        }

        deserializer.deserialize_any(NumberOrTable)
    }
}
