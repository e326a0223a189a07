//! The profile file: models, and what a segment of each costs on each processor of one platform.
//!
//! # Interpolation
//! Tables are interpolated piecewise linearly between their points, which never overshoots. `prefill_ms` starts from
//! the origin (no prompt costs nothing); every other table is held at its first value below its first point. Past the
//! last point a table goes on with the slope of its last piece, never downwards. Whatever lies outside of the points is
//! counted as extrapolation, and reports warn about it.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::architecture::{NetworkSpec, TransformerSpec};
use super::provenance::SourceSpec;

/// Models and their costs on one platform.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileSpec {
    /// The platform that the costs belong to. Left out in files that only declare models.
    pub platform: Option<String>,
    /// Models, by name.
    #[serde(default)]
    pub model: IndexMap<String, ModelSpec>,
    /// Costs: one entry per model, variant and processor.
    #[serde(default)]
    pub cost: Vec<CostSpec>,
    /// Where the figures come from, by key.
    #[serde(default)]
    pub source: IndexMap<String, SourceSpec>,
}

/// What is run: a network and its weights.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name for people.
    #[serde(default)]
    pub title: String,
    /// What it is for, such as `segmentation` or `speech recognition`.
    #[serde(default)]
    pub task: String,
    /// Network file for real runs (`onbeat run`), ONNX or GGUF, relative to this file. Left out: the model of this name in onbeat's
    /// catalogue.
    pub path: Option<String>,
    /// How it runs.
    #[serde(default)]
    pub shape: ModelShape,
    /// Size of the weights of the default variant [MB, 10^6 bytes], ≥ 0. Left out: 0, and reports say so.
    pub weights_mb: Option<f64>,
    /// `autoregressive`: key-value cache per token of context [kB, 10^3 bytes], ≥ 0.
    pub kv_kb_per_token: Option<f64>,
    /// `iterative`: steps per inference unless the stage says otherwise, ≥ 1.
    pub steps: Option<u32>,
    /// `streaming`: state carried from one inference to the next [kB], ≥ 0.
    pub state_kb: Option<f64>,
    /// Quality of the default variant.
    pub quality: Option<QualitySpec>,
    /// `one_shot`: exits on the way of an inference, each with the share of its work that is done there (rising, > 0, the last 1) and the
    /// share of the inputs that leave there (0 to 1, all together 1): `exits = [[0.5, 0.3], [1, 0.7]]`. Which one an input takes is drawn for
    /// each; policies see the mean. The cost entries are those of the whole inference. Default: all run to the end.
    ///
    /// `autoregressive`: shares of a decode step, and the share of the tokens (or answers: `exits_per`) that compute so much of it. Prompts
    /// are read whole.
    pub exits: Option<Vec<(f64, f64)>>,
    /// `autoregressive`: what leaves at the exits. Default: `token`.
    pub exits_per: Option<ExitsPer>,
    /// Other variants, by name (precision, size, early exit). The default variant has no name.
    #[serde(default)]
    pub variant: IndexMap<String, VariantSpec>,
    /// `autoregressive`: a mixture of experts of which only a part is in memory.
    pub experts: Option<ExpertsSpec>,
    /// `autoregressive`: how it runs while its key-value cache stays in slower memory (`swap_gbps` of the platform), where a policy lets it.
    /// Left out: the cache is in memory whenever it runs.
    pub kv_offload: Option<KvOffloadSpec>,
    /// `autoregressive`: architecture, for `onbeat estimate`.
    pub transformer: Option<TransformerSpec>,
    /// Other shapes: operations and activations of one inference (one step), for `onbeat estimate`.
    pub network: Option<NetworkSpec>,
    /// How it is divided among several processors that work on it at the same time. Left out: it is not. Not for `streaming`.
    pub split: Option<SplitSpec>,
    /// `autoregressive`: how the attention of decode steps is divided among processors, each of which reads a part of the key-value cache:
    /// `points` per step, one or two per layer, and `kb` per point. It takes what reading takes at their `bandwidth_gbps`; no profile of
    /// the model is needed where only attention runs. Left out: it is not divided.
    pub attention: Option<SplitSpec>,
    /// Key of `[source]` for the figures above.
    pub source: Option<String>,
    /// Row, page or name within that source.
    pub row: Option<String>,
}

/// A mixture of experts of which only a part is in memory. The others are fetched from slow memory when they are needed, at
/// `experts_gbps` of the cost entry: layers · active · (1 − hit rate) of them per decode step.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpertsSpec {
    /// Layers that have experts, ≥ 1.
    pub layers: u32,
    /// Experts per layer, ≥ 1.
    pub per_layer: u32,
    /// Experts per layer that a token activates, ≥ 1.
    pub active: u32,
    /// Size of one expert [MB], > 0.
    pub expert_mb: f64,
    /// Share of the experts that is in memory, 0 to 1.
    pub resident: f64,
    /// Probability that an activated expert is in memory, 0 to 1. Left out: computed from `skew`.
    pub hit_rate: Option<f64>,
    /// How unevenly experts are activated: the i-th most popular one of a layer in proportion to i^−skew (Zipf), 0 to 5. Default 0: all
    /// alike. Not together with `hit_rate`.
    pub skew: Option<f64>,
    /// What stays in memory as experts come and go: with `skew`, it decides the hit rate. Default `score`.
    #[serde(default)]
    pub replacement: Replacement,
}

/// Which experts of a layer are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replacement {
    /// Those that are activated most, as scores or counts tell.
    #[default]
    Score,
    /// Those that were activated last.
    Lru,
}

/// How a model runs while its key-value cache stays in slower memory: what a layer needs of it is fetched while the layer before it is
/// computed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvOffloadSpec {
    /// Layers, ≥ 1.
    pub layers: u32,
    /// Share of the context's tokens that a decode step fetches, > 0, at most 1. Default 1: all of the cache, as in plain offloading.
    #[serde(default = "whole_cache")]
    pub share: f64,
    /// It fetches at least so many tokens, or all that there are. Default 0.
    #[serde(default)]
    pub min_tokens: u32,
}

fn whole_cache() -> f64 {
    1.0
}

/// How a model is divided among several processors, as tensors or patches. At each point all of them wait for the slowest and exchange
/// what they have computed, which costs what the slowest link between two of them says.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// Places per inference (per step; per prefill segment; per decode step) at which the processors wait for one another, ≥ 1: a few per
    /// layer for tensors, one per step for patches.
    pub points: u32,
    /// Data exchanged at each of them [kB], ≥ 0; for `autoregressive` models, per token. It takes time only over links that have a
    /// bandwidth.
    #[serde(default)]
    pub kb: f64,
    /// Key of `[source]` for these figures. Left out: the model's.
    pub source: Option<String>,
}

/// Another variant of a model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// Size of the weights [MB], ≥ 0.
    pub weights_mb: Option<f64>,
    /// Whether it runs with the default variant's weights, as an early exit or a sub-network of a supernet does: they are held and loaded
    /// once for both, and changing between them is no context switch. `weights_mb` is then the part of them that it reads.
    #[serde(default)]
    pub shares_weights: bool,
    /// Network file for real runs, relative to this file. Needed where a scenario lets policies choose between variants; otherwise left
    /// out: the model's.
    pub path: Option<String>,
    /// Exits of the variant, as of a model; those of the default variant are not its own.
    pub exits: Option<Vec<(f64, f64)>>,
    /// What leaves at them, as of a model.
    pub exits_per: Option<ExitsPer>,
    /// Quality of the variant.
    pub quality: Option<QualitySpec>,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// What leaves a language model at its exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitsPer {
    /// Each token at an exit of its own, independently of the others (CALM). Every step takes the mean; in a batch, the mean of the deepest.
    #[default]
    Token,
    /// All tokens of an answer alike, as with layers that are skipped by what the prompt holds (`FiRST`). Drawn for each answer; in a batch,
    /// the deepest counts.
    Answer,
}

/// A published quality score.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QualitySpec {
    /// Name of the score, such as `mIoU` or `WER`.
    pub metric: String,
    /// Value of the score.
    pub value: f64,
    /// Whether a larger value is better.
    pub higher_is_better: bool,
    /// Value of the score by class of content: `by_content = { slow = 83.6, fast = 51.2 }`. It counts in streams whose `content` has
    /// classes of these names, `value` in all others.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub by_content: IndexMap<String, f64>,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// How a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelShape {
    /// Input in, output out.
    #[default]
    OneShot,
    /// Like `one_shot`, with state carried from one inference of a stream to the next: strictly in order.
    Streaming,
    /// A loop of equal steps, such as denoising.
    Iterative,
    /// Prefill over the prompt, then one decode step per output token.
    Autoregressive,
}

/// What one model costs on one processor.
///
/// Exactly one group of cost fields applies, by the model's shape: `latency_ms` or `quantiles_ms` or `by_size_ms` for
/// `one_shot` and `streaming`; `step_ms` for `iterative`; `prefill_ms` and `decode_ms` for `autoregressive`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostSpec {
    /// Model.
    pub model: String,
    /// Variant. Left out: the default one.
    pub variant: Option<String>,
    /// Processor name (or the common name of several identical ones).
    pub processor: String,
    /// How many of the processor's units the figures are for, on a platform whose processor has several; one entry for each number that
    /// is known. Left out: all of them. Where the processor is not divided, the entry for the most units counts.
    pub units: Option<u32>,

    /// Latency of one inference, alone [ms], > 0.
    pub latency_ms: Option<f64>,
    /// Latency of one inference as a measured distribution.
    pub quantiles_ms: Option<QuantilesSpec>,
    /// Latency by input size: points of (elements, latency [ms]); both increasing.
    pub by_size_ms: Option<Vec<(f64, f64)>>,

    /// `iterative`: latency of one step [ms], > 0.
    pub step_ms: Option<f64>,
    /// `iterative`: steps that reuse what a full step has computed. Left out: all steps are full.
    pub reuse: Option<ReuseSpec>,
    /// `iterative`: latency of what precedes the loop, such as the text encoder [ms], ≥ 0.
    pub before_ms: Option<f64>,
    /// `iterative`: latency of what follows the loop, such as the image decoder [ms], ≥ 0.
    pub after_ms: Option<f64>,

    /// `autoregressive`: prefill latency by prompt length: points of (tokens, latency [ms]); both increasing.
    pub prefill_ms: Option<Vec<(f64, f64)>>,
    /// `autoregressive`: latency of one decode step by context length: points of (tokens, latency [ms]).
    pub decode_ms: Option<Vec<(f64, f64)>>,
    /// `autoregressive`: prompt tokens per prefill segment, ≥ 1. Left out: the whole prompt is one segment.
    pub prefill_chunk: Option<u32>,
    /// `autoregressive`: extra latency of each prefill segment after the first [ms], ≥ 0. Needs `prefill_chunk` or `chunk_efficiency`.
    pub chunk_overhead_ms: Option<f64>,
    /// `autoregressive`: prompt pieces can have any size: points of (tokens, tokens per second of a piece of that size relative to
    /// those of the whole prompt, in (0, 1]), not decreasing; held outside of the points. Left out: only whole segments.
    pub chunk_efficiency: Option<Vec<(f64, f64)>>,
    /// `autoregressive`: preemption points inside a prefill segment: how many equal parts (groups of layers) it consists of, ≥ 1.
    /// Default 1.
    pub layer_groups: Option<u32>,
    /// `autoregressive`: whether a piece of a prompt and decode steps of other requests can share a step; what it takes is
    /// computed (see the semantics, mixed steps). Default: no.
    #[serde(default)]
    pub mixed_steps: bool,
    /// `autoregressive`, `iterative`: latency of a decode step, or of a step of the loop, relative to batch 1: points of (batch, factor),
    /// the first (1, 1.0). Left out: no batching, concurrent requests interleave.
    pub batch_factor: Option<Vec<(f64, f64)>>,

    /// Models with `experts`: bandwidth at which experts that are not in memory are fetched [GB/s], > 0. Left out: `load_gbps` of the
    /// platform.
    pub experts_gbps: Option<f64>,
    /// Models with `experts`: time in which the CPU computes one expert that is not in memory for one token, where it lies, in place of
    /// fetching it [ms], > 0; whichever is faster counts. Left out: it is always fetched.
    pub expert_ms: Option<f64>,
    /// `autoregressive`: latency of a decode step that verifies so many drafted and own tokens of one request at once, relative to one
    /// token: points of (tokens, factor), the first (1, 1.0). Left out: `batch_factor`.
    pub verify_factor: Option<Vec<(f64, f64)>>,

    /// Preemption points: how many equal segments an inference consists of, ≥ 1. Default 1.
    pub segments: Option<u32>,
    /// Preemption points: relative lengths of the segments, each > 0. Instead of `segments`.
    pub segment_weights: Option<Vec<f64>>,

    /// Data moved over the memory bus by one inference (one step, for `iterative` and for decode) [MB], ≥ 0.
    /// Left out: the weights once (plus, for decode, the key-value cache), as an `analytical` figure.
    pub bytes_mb: Option<f64>,
    /// `autoregressive`: data moved per prompt token in prefill, besides the weights once per segment [kB], ≥ 0.
    pub prefill_kb_per_token: Option<f64>,
    /// Energy of one inference (one step; one decode step) [mJ], ≥ 0. Left out: the processor's `active_w`.
    pub energy_mj: Option<f64>,
    /// `autoregressive`: energy of prefill per prompt token [mJ], ≥ 0.
    pub prefill_mj_per_token: Option<f64>,
    /// Memory held while an inference runs, besides weights and caches [MB], ≥ 0.
    pub memory_mb: Option<f64>,
    /// Time to load the weights onto the processor [ms], ≥ 0. Left out: weights / `load_gbps` of the platform.
    pub load_ms: Option<f64>,

    /// Key of `[source]` for the latency figures.
    pub source: Option<String>,
    /// Row, path or page within that source.
    pub row: Option<String>,
    /// Keys of `[source]` for other figures of this entry: field name to key.
    #[serde(default)]
    pub provenance: IndexMap<String, String>,
}

/// Steps of a loop that reuse features or caches which a full step has computed, as caching for diffusion and the refresh and reuse
/// phases of diffusion language models do. What that costs in quality is not modelled.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReuseSpec {
    /// The first of so many steps is full, the others reuse; ≥ 2.
    pub every: u32,
    /// Latency of a step that reuses [ms], > 0 and not above that of a full one.
    pub step_ms: f64,
    /// Data that it moves over the memory bus [MB], ≥ 0. Left out: as much as a full one.
    pub bytes_mb: Option<f64>,
    /// Its energy [mJ], ≥ 0. Left out: unknown, and with it that of all steps; the processor's `active_w` counts.
    pub energy_mj: Option<f64>,
}

/// A latency distribution by its quantiles; linear in between, constant below the first and above the last.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantilesSpec {
    /// Smallest latency [ms].
    pub min: Option<f64>,
    /// Median latency [ms].
    pub p50: f64,
    /// 90th percentile [ms].
    pub p90: Option<f64>,
    /// 95th percentile [ms].
    pub p95: Option<f64>,
    /// 99th percentile [ms].
    pub p99: Option<f64>,
    /// 99.9th percentile [ms].
    pub p999: Option<f64>,
    /// Largest latency [ms].
    pub max: Option<f64>,
}

impl QuantilesSpec {
    /// The quantiles that are given: name, probability and value [ms], in order of probability.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&'static str, f64, f64)> {
        let all = [
            ("min", 0.0, self.min),
            ("p50", 0.5, Some(self.p50)),
            ("p90", 0.9, self.p90),
            ("p95", 0.95, self.p95),
            ("p99", 0.99, self.p99),
            ("p999", 0.999, self.p999),
            ("max", 1.0, self.max),
        ];
        all.into_iter().filter_map(|(name, probability, value)| value.map(|value| (name, probability, value)))
    }
}
