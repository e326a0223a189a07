//! The scenario file: what must run together, how often, and by when.

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::distribution::DistributionSpec;
use super::platform::PlatformSpec;
use super::profile::{CostSpec, ModelSpec};
use super::provenance::SourceSpec;

/// What must run together, how often, and by when.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioSpec {
    /// Name by which the command line refers to the scenario.
    pub name: String,
    /// Name for people.
    #[serde(default)]
    pub title: String,
    /// What it stands for.
    #[serde(default)]
    pub description: String,
    /// Platforms that have a profile for every stage; `check` verifies it.
    #[serde(default)]
    pub runs_on: Vec<String>,
    /// Length of the run [s], > 0.
    pub duration_s: f64,
    /// Jobs released before this time count in no statistic [s], ≥ 0 and below `duration_s`.
    #[serde(default)]
    pub warm_up_s: f64,
    /// Variation of execution times where a profile gives a single number. Default: none.
    #[serde(default)]
    pub variation: VariationSpec,
    /// Whether every model is in memory at the start, as far as memory reaches (fastest processor first). Default: yes.
    #[serde(default = "yes")]
    pub preloaded: bool,
    /// Periods of use that streams and sessions can be bound to.
    #[serde(default)]
    pub phase: Vec<PhaseSpec>,
    /// Periodic and sporadic activations.
    #[serde(default)]
    pub stream: Vec<StreamSpec>,
    /// A user's requests to generative models.
    #[serde(default)]
    pub session: Vec<SessionSpec>,
    /// Chains of stages, by name.
    #[serde(default)]
    pub chain: IndexMap<String, ChainSpec>,
    /// What there is to see, by name, for streams that look at it.
    #[serde(default)]
    pub content: IndexMap<String, ContentSpec>,
    /// Adapters of models, by name.
    #[serde(default)]
    pub adapter: IndexMap<String, AdapterSpec>,
    /// Inline models, in addition to the library's.
    #[serde(default)]
    pub model: IndexMap<String, ModelSpec>,
    /// Inline costs, for any platform whose processor names match; they go before the library's.
    #[serde(default)]
    pub cost: Vec<CostSpec>,
    /// Inline platform, used when the command line names none.
    pub platform: Option<PlatformSpec>,
    /// Where the requirements and the inline figures come from, by key.
    #[serde(default)]
    pub source: IndexMap<String, SourceSpec>,
}

/// Variation of execution times around a profile's single number: every inference's latency is multiplied by a random
/// factor, the same one on every processor and under every policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VariationSpec {
    /// The factor's distribution.
    #[serde(default)]
    pub kind: VariationKind,
    /// `lognormal`: standard deviation of the factor, whose mean is 1; `uniform`: half width of the interval around 1, < 1.
    #[serde(default)]
    pub spread: f64,
}

/// Distribution of the execution time factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VariationKind {
    /// Always 1.
    #[default]
    None,
    /// Log-normal with mean 1.
    Lognormal,
    /// Uniform around 1.
    Uniform,
    /// Exponential with mean 1 (as M/M/1 needs it).
    Exponential,
}

/// A period of use.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    /// Name, such as `screen-sharing`.
    pub name: String,
    /// Start [s], ≥ 0.
    pub start_s: f64,
    /// End [s], after the start.
    pub end_s: f64,
}

/// Periodic or sporadic activation of one chain or of one model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// Name.
    pub name: String,
    /// Chain that each activation runs through; or `model` for a chain of one stage.
    pub chain: Option<String>,
    /// Model that each activation runs; or `chain`.
    pub model: Option<String>,
    /// Activations per second, > 0; or `period_ms`.
    pub fps: Option<f64>,
    /// Time between activations [ms], > 0; or `fps`.
    pub period_ms: Option<f64>,
    /// Arrivals other than periodic; instead of `fps` and `period_ms`.
    pub arrival: Option<ArrivalSpec>,
    /// First activation [ms], ≥ 0.
    #[serde(default)]
    pub phase_ms: f64,
    /// Delay of each release after its nominal time [ms]; does not accumulate. Deadlines count from the nominal time.
    pub jitter_ms: Option<DistributionSpec>,
    /// End-to-end deadline after the nominal release [ms], > 0. Left out: the chain's, or else the period.
    pub deadline_ms: Option<f64>,
    /// Priority for `fixed-priority`: larger is more urgent. Left out: rate-monotonic.
    pub priority: Option<i32>,
    /// What happens to a job that is late.
    #[serde(default)]
    pub drop: DropRule,
    /// The most jobs of the stream alive at once, ≥ 1. Left out: no limit.
    pub queue: Option<u32>,
    /// Which job goes when the queue is full.
    #[serde(default)]
    pub overflow: Overflow,
    /// Phases of use during which the stream is active. Empty: always.
    #[serde(default)]
    pub during: Vec<String>,
    /// The most activations in one run. Left out: no limit.
    pub count: Option<u64>,
    /// Idle-time work: it uses processors that nothing else waits for, and gives way at once. It has no deadline.
    #[serde(default)]
    pub best_effort: bool,
    /// What it looks at, by its key in `[content]`: each activation is of the class that is to be seen at its nominal time. Streams that
    /// look at the same see the same. Left out: its inputs are all alike.
    pub content: Option<String>,
    /// Each activation puts out a chunk of actions that a robot executes at a fixed rate.
    pub actions: Option<ActionsSpec>,
    /// Key of `[source]` for rate and deadline.
    pub source: Option<String>,
}

/// A chunk of actions: what a robot does with the output of an activation.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionsSpec {
    /// Actions in a chunk, ≥ 1.
    pub count: u32,
    /// Time between two actions [ms], > 0.
    pub period_ms: f64,
    /// The stage whose end makes the first action available; the others follow in time. Left out: the end of the activation.
    pub first: Option<String>,
}

/// A length predictor that learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PredictorSpec {
    /// The mean of the answers so far to prompts of about the same length, drawn towards the mean of all.
    History,
}

/// What happens to a job that cannot meet its deadline any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DropRule {
    /// It is finished, however late.
    #[default]
    None,
    /// It is dropped at its deadline if none of its stages is running.
    Late,
    /// It is dropped as soon as the time left is shorter than its shortest possible remaining run time, if none of its
    /// stages is running.
    Hopeless,
}

/// Which job goes when a queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The job that waits longest and has not started; the new one if all have.
    #[default]
    Oldest,
    /// The new job.
    Newest,
}

/// A user's requests to a chain with a generative model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Name.
    pub name: String,
    /// Chain that each request runs through; or `model`.
    pub chain: Option<String>,
    /// Model that each request runs; or `chain`.
    pub model: Option<String>,
    /// When requests arrive.
    pub arrival: ArrivalSpec,
    /// Prompt length of the chain's language model [tokens]. Left out with a trace that has it.
    pub prompt: Option<DistributionSpec>,
    /// Output length of the chain's language model [tokens]. Left out with a trace that has it.
    pub output: Option<DistributionSpec>,
    /// Each prompt begins with the conversation so far – prompts and outputs of the session's requests to the same model –, followed
    /// by the new tokens that `prompt` gives. The longest conversation [tokens]; a request that would make it longer begins a new
    /// one. Left out: requests stand alone.
    pub conversation: Option<u32>,
    /// A length predictor: policies see a prediction of each output length instead of the mean, with a log-normal error: standard
    /// deviation of its logarithm, ≥ 0 (0: always right). Left out: none.
    pub predictor_sigma: Option<f64>,
    /// A length predictor that learns: policies see a prediction of each output length instead of the mean, in real runs, too. Left out:
    /// none, or `predictor_sigma`.
    pub predictor: Option<PredictorSpec>,
    /// Goal for the time to the first token, from the request's release [ms], > 0.
    pub ttft_ms: Option<f64>,
    /// Goal for the mean time per output token after the first [ms], > 0.
    pub tpot_ms: Option<f64>,
    /// Deadline for the whole request [ms], > 0. Left out: the chain's, or none.
    pub deadline_ms: Option<f64>,
    /// Priority for `fixed-priority`: larger is more urgent. Left out: below all streams.
    pub priority: Option<i32>,
    /// What happens to a request that is late. Default: it is finished.
    #[serde(default)]
    pub drop: DropRule,
    /// The most requests alive at once, ≥ 1. Left out: no limit.
    pub queue: Option<u32>,
    /// Which request goes when the queue is full.
    #[serde(default)]
    pub overflow: Overflow,
    /// Phases of use during which the session is active. Empty: always.
    #[serde(default)]
    pub during: Vec<String>,
    /// The most requests in one run. Left out: no limit.
    pub count: Option<u64>,
    /// Idle-time work: it uses processors that nothing else waits for, and gives way at once. It has neither deadline nor goals.
    #[serde(default)]
    pub best_effort: bool,
    /// Key of `[source]` for lengths and goals.
    pub source: Option<String>,
}

/// When jobs arrive.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArrivalSpec {
    /// The process.
    pub process: ArrivalProcess,
    /// `poisson`, `gamma`: mean rate [1/s], > 0.
    pub rate_per_s: Option<f64>,
    /// `periodic`: time between arrivals [s], > 0.
    pub period_s: Option<f64>,
    /// `gamma`: coefficient of variation of the time between arrivals, > 0 (1: Poisson).
    pub cv: Option<f64>,
    /// First arrival not before [s], ≥ 0.
    #[serde(default)]
    pub start_s: f64,
    /// `trace`: path of a CSV file with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, relative to this file.
    pub file: Option<String>,
    /// `trace`: use the requests from this time of the trace on [s], ≥ 0.
    #[serde(default)]
    pub from_s: f64,
    /// `trace`: use the requests up to this time of the trace [s].
    pub to_s: Option<f64>,
    /// `trace`: speed-up: 2 makes requests arrive twice as often, > 0. Default 1.
    pub speed: Option<f64>,
    /// `trace`: the longest prompt used, longer ones are cut [tokens], ≥ 1.
    pub max_prompt: Option<u32>,
    /// `trace`: the longest output used, longer ones are cut [tokens], ≥ 1.
    pub max_output: Option<u32>,
}

/// The kind of arrival process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArrivalProcess {
    /// At a fixed distance.
    Periodic,
    /// Exponential times in between.
    Poisson,
    /// Gamma-distributed times in between.
    Gamma,
    /// From a recorded trace.
    Trace,
}

/// A DAG of stages that one activation runs through.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainSpec {
    /// End-to-end deadline after the release [ms], > 0.
    pub deadline_ms: Option<f64>,
    /// The stages; those without `after` start when the job is released.
    pub stage: Vec<StageSpec>,
    /// Parts that may run again, depending on the data.
    #[serde(default)]
    pub repeat: Vec<RepeatSpec>,
}

/// A part of a chain that may run again: an agent that plans anew after it has seen what its tools found.
///
/// The part has one stage where it begins and one where it ends. It is unrolled: the second time its stages are called `NAME.2`,
/// the third time `NAME.3`. What follows the part waits for the last time.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepeatSpec {
    /// The stages of the part.
    pub stages: Vec<String>,
    /// Probability that the part runs again, each time, 0 to 1.
    pub probability: f64,
    /// The most times that the part runs, 2 to 16.
    pub at_most: u32,
}

/// One model inference, or one call of a tool, within a chain.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// Name, unique within the chain.
    pub name: String,
    /// Model; or `tool_ms`.
    pub model: Option<String>,
    /// The stage is a tool: it takes so long [ms] and no processor. With `on`, it takes a slot of one of those processors.
    pub tool_ms: Option<DistributionSpec>,
    /// Adapter (LoRA) that must be in memory beside the model, by its key in `[adapter]`.
    pub adapter: Option<String>,
    /// Other models that may take its place on platforms that have no profile of `model`; the first that has one is used.
    #[serde(default)]
    pub or: Vec<String>,
    /// Variant of the model. Left out: the default one.
    pub variant: Option<String>,
    /// Variants that a policy may choose instead, until the stage starts: models (`model/variant`, or others that do the same work), best
    /// first; or `"any"`: all variants of `model`. Those that the platform has no profile of are left out.
    #[serde(default, skip_serializing_if = "VariantsSpec::is_none")]
    pub variants: VariantsSpec,
    /// Stages that must have finished before. Empty: the stage starts the chain.
    #[serde(default)]
    pub after: Vec<EdgeSpec>,
    /// Processors that may run it. Empty: all that have a profile of the model.
    #[serde(default)]
    pub on: Vec<String>,
    /// Input size for profiles with `by_size_ms` [elements], > 0.
    pub size: Option<f64>,
    /// Steps of an `iterative` model, ≥ 1. Left out: the model's.
    pub steps: Option<u32>,
    /// Prompt length of an `autoregressive` model [tokens]. Left out: the session's.
    pub prompt: Option<DistributionSpec>,
    /// Output length of an `autoregressive` model [tokens]. Left out: the session's.
    pub output: Option<DistributionSpec>,
    /// How much an inference is in a class of the stream's `content`, relative to the profile's, 0.01 to 100, for models of shape `one_shot`
    /// and `streaming`: `work_by_content = { crowded = 1.8 }`. It holds for time, bytes and energy. Classes left out: 1.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub work_by_content: IndexMap<String, f64>,
    /// Size of the stage's output, handed to its successors [kB], ≥ 0.
    #[serde(default)]
    pub output_kb: f64,
    /// Key of `[source]` for `tool_ms` or `work_by_content`.
    pub source: Option<String>,
    /// A small model that may draft the output of an `autoregressive` one, which then verifies several tokens in one step. Whether it
    /// does is the policy's choice. Left out: none.
    pub draft: Option<DraftSpec>,
}

/// What there is to see: classes of content that follow each other in scenes.
///
/// Scenes have exponentially distributed lengths; which class the next one is of does not depend on those before it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentSpec {
    /// The classes; their shares sum to 1.
    pub classes: Vec<ClassSpec>,
    /// Key of `[source]` for shares and lengths.
    pub source: Option<String>,
}

/// A class of content.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Name, such as `fast`; models state their quality and stages their work by it.
    pub name: String,
    /// Share of the time that belongs to it in the long run, > 0 and ≤ 1.
    pub share: f64,
    /// Mean length of its scenes [s], ≥ 0.001. The next scene may be of the same class again.
    pub scene_s: f64,
}

/// An adapter (LoRA): weights that some stages need beside those of their model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterSpec {
    /// The model that it adapts.
    pub model: String,
    /// Size of its weights [MB], > 0.
    pub weights_mb: f64,
    /// Time to load it onto a processor [ms], ≥ 0. Left out: weights / `load_gbps` of the platform.
    pub load_ms: Option<f64>,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// A small model that drafts the output of a large one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftSpec {
    /// The small model, of shape `autoregressive`; `model/variant` for a variant.
    pub model: String,
    /// Tokens that it drafts before they are verified, 1 to 64; a policy may choose another number.
    pub tokens: u32,
    /// Probability that a drafted token is accepted, 0 to 1. A distribution is drawn from once per request: some texts are easier to guess
    /// than others.
    pub acceptance: DistributionSpec,
    /// Key of `[source]` for the acceptance.
    pub source: Option<String>,
}

/// Variants that a policy may choose instead of a stage's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum VariantsSpec {
    /// None.
    #[default]
    None,
    /// All variants of the model: `"any"`.
    Any(Any),
    /// These, best first.
    These(Vec<String>),
}

impl VariantsSpec {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// The word `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Any {
    /// `any`
    Any,
}

// By hand: an untagged enum would say "data did not match any variant" about every mistake.
impl<'de> Deserialize<'de> for VariantsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyOrList;

        impl<'de> Visitor<'de> for AnyOrList {
            type Value = VariantsSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\" or a list of models such as [\"yolo/int8\", \"yolo-nano\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "any" {
                    Ok(VariantsSpec::Any(Any::Any))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                let these: Vec<String> = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(if these.is_empty() { VariantsSpec::None } else { VariantsSpec::These(these) })
            }
        }

        deserializer.deserialize_any(AnyOrList)
    }
}

/// An edge of a chain.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeSpec {
    /// The stage that goes before.
    pub stage: String,
    /// Probability that the edge is taken, 0 to 1. Default 1.
    pub probability: Option<f64>,
    /// How many instances of this stage follow (rounded; 0: none). Default 1.
    pub fan_out: Option<DistributionSpec>,
    /// The stage that goes before is `autoregressive`: one instance follows every so many output tokens, and one for the
    /// rest, ≥ 1 (a voice that starts with the first sentence).
    pub per_tokens: Option<u32>,
}

fn yes() -> bool {
    true
}
