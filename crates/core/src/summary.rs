//! Statistics of one run, as reports show them.

use serde::{Deserialize, Serialize};

use crate::metric::Values;
use crate::spec::ProvenanceKind;

/// Statistics of one run. Computed from the events of a record and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Scenario.
    pub scenario: String,
    /// Platform.
    pub platform: String,
    /// Policy, with its parameters.
    pub policy: String,
    /// Seed.
    pub seed: u64,
    /// Time over which statistics were taken: the run less the warm-up [s].
    pub measured_s: f64,
    /// Metrics of the whole run.
    pub run: Values,
    /// Metrics per stream and session, in the scenario's order.
    pub sources: Vec<SourceSummary>,
    /// Metrics per processor, in the platform's order.
    pub processors: Vec<ProcessorSummary>,
    /// Traffic on the memory bus over time: mean over equal bins of the whole run [GB/s].
    pub bus_traffic: Vec<f64>,
    /// Share of the processors' busy time by the provenance of the figures that it rests on.
    pub provenance: Vec<(ProvenanceKind, f64)>,
}

/// Statistics of one stream or session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// Name.
    pub name: String,
    /// Whether it is a session.
    pub session: bool,
    /// Deadline [ms], if it has one.
    pub deadline_ms: Option<f64>,
    /// TTFT goal [ms].
    pub ttft_goal_ms: Option<f64>,
    /// TPOT goal [ms].
    pub tpot_goal_ms: Option<f64>,
    /// Metrics.
    pub values: Values,
    /// Which variants ran, for every stage that has a choice; in order of the chain and of the variants, the default one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantShare>,
    /// Distribution of the response time of done jobs: points of (response time [ms], fraction of jobs at or below).
    pub response_ecdf: Vec<(f64, f64)>,
    /// Distribution of the time to first token: points of (TTFT [ms], fraction of requests at or below).
    pub ttft_ecdf: Vec<(f64, f64)>,
}

/// How often a stage ran one of its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantShare {
    /// Name of the stage.
    pub stage: String,
    /// Name of the variant's model.
    pub model: String,
    /// Share of the stage's completions, 0 to 1.
    pub share: f64,
    /// Quality relative to the best variant of the stage, where known.
    pub relative_quality: Option<f64>,
    /// Published score: its name and value.
    pub quality: Option<(String, f64)>,
}

/// Statistics of one processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessorSummary {
    /// Name.
    pub name: String,
    /// Metrics.
    pub values: Values,
    /// Busy fraction over equal bins of the whole run.
    pub utilisation: Vec<f64>,
    /// Busy time by model [ms], in order of the system's models: (model, time).
    pub busy_by_model: Vec<(String, f64)>,
    /// Time at each operating point that was used [ms], in the platform's order: (point, time). Empty unless the platform has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_by_point: Vec<(String, f64)>,
    /// Speed of the operating point over equal bins of the whole run, relative to the first point. Empty unless there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speed: Vec<f64>,
    /// Temperature over equal bins of the whole run [°C], linear between readings. Empty where it is not modelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub celsius: Vec<f64>,
}
