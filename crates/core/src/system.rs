//! A scenario resolved on a platform: everything by index, nothing left to look up by name.

mod validate;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::content::{Content, InContent};
use crate::cost::{Cost, Work};
use crate::distribution::Distribution;
use crate::exits::Exits;
use crate::id::{Id, IdVec, ModelId, NodeId, ProcessorId, SourceId};
use crate::joint::{Attention, Draft, Split};
use crate::offload::Offload;
use crate::power::PowerModel;
use crate::spec::{DropRule, ModelShape, Overflow, Preemption, ProcessorKind, ProvenanceKind, VariationKind};
use crate::units::{Bytes, Nanos};

/// A scenario on a platform, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Name of the scenario.
    pub scenario: String,
    /// Scenario's name for people.
    pub title: String,
    /// What the scenario stands for.
    pub description: String,
    /// The chip.
    pub platform: Platform,
    /// Models in use, one entry per variant.
    pub models: IdVec<ModelId, Model>,
    /// Stages of the chains, one entry per source and stage, grouped by source.
    pub nodes: IdVec<NodeId, Node>,
    /// Streams and sessions.
    pub sources: IdVec<SourceId, Source>,
    /// What there is to see, for streams that say what they look at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Content>,
    /// Length of the run.
    pub duration: Nanos,
    /// Jobs released before this time count in no statistic.
    pub warm_up: Nanos,
    /// Execution time variation where a profile gives a single number.
    pub variation: Variation,
    /// Whether models are in memory at the start, as far as memory reaches.
    pub preloaded: bool,
    /// Whether processors slow each other down on the memory bus.
    pub contention: bool,
    /// The figures that the run rests on.
    pub figures: Vec<Figure>,
    /// What a reader of results must know: assumptions and approximations of this system.
    pub assumptions: Vec<String>,
    /// Figures that were extrapolated and other doubtful things, found when the files were resolved.
    pub warnings: Vec<String>,
}

impl System {
    /// The processor's cost for the stage's model, or `None` if it cannot run there.
    pub fn cost(&self, node: NodeId, processor: ProcessorId) -> Option<&Cost> {
        self.nodes[node].costs[processor].as_ref()
    }

    /// The model whose weights a model runs with: itself, unless it shares another one's.
    pub fn weights_of(&self, model: ModelId) -> ModelId {
        self.models[model].weights_of.unwrap_or(model)
    }

    /// Whether some source's work gives way to all other work.
    pub fn has_best_effort(&self) -> bool {
        self.sources.iter().any(|source| source.best_effort)
    }

    /// The processor with this name.
    pub fn processor(&self, name: &str) -> Option<ProcessorId> {
        self.platform.processors.enumerate().find(|(_, p)| p.name == name).map(|(id, _)| id)
    }

    /// Time in which a processor reads a model's weights once, by the smaller of its own and the bus's bandwidth [ns]; 0 where
    /// neither is known.
    pub fn reading_weights_ns(&self, model: ModelId, processor: ProcessorId) -> f64 {
        self.platform.bandwidth_of(processor).map_or(0.0, |bandwidth| self.models[model].weights.as_f64() / bandwidth)
    }

    /// Ids of a source's stages.
    pub fn nodes_of(&self, source: SourceId) -> impl ExactSizeIterator<Item = NodeId> + use<> {
        let Range { start, end } = self.sources[source].nodes;
        (start as usize..end as usize).map(NodeId::new)
    }

    /// SHA-256 of the system's contents, as hexadecimal: two runs with the same hash, seed and policy are the same run.
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        use std::fmt::Write;
        let json = serde_json::to_vec(self).expect("a system holds only finite numbers and string keys");
        Sha256::digest(&json).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string succeeds");
            hex
        })
    }
}

/// A chip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    /// Name.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Its processors.
    pub processors: IdVec<ProcessorId, Processor>,
    /// Memory for models, caches and activations.
    pub capacity: Option<Bytes>,
    /// Bandwidth of the memory bus [bytes/ns = GB/s].
    pub bandwidth: Option<f64>,
    /// Cost of handing data from a processor (row) to another (column).
    pub links: IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
    /// The most power that all processors together may draw [W]; `None`: no limit. Needs [`Processor::power`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cap: Option<f64>,
    /// Caches grow by blocks of so many tokens; `None`: they are reserved for the largest output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_block: Option<u32>,
    /// Slower memory that caches can be moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
}

/// Slower memory for caches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    /// How much there is; `None`: unlimited.
    pub capacity: Option<Bytes>,
    /// The link to it, the same in both directions.
    pub link: Link,
}

impl Platform {
    /// Whether a processor is one of the group of identical ones that another, if any, belongs to: progress within a segment counts there,
    /// too.
    pub fn are_alike(&self, from: Option<ProcessorId>, to: ProcessorId) -> bool {
        from.is_some_and(|from| self.processors[from].group == self.processors[to].group)
    }

    /// The most that a processor can draw from memory: the smaller of its own bandwidth and the bus's [bytes/ns]; `None`: unknown.
    pub fn bandwidth_of(&self, processor: ProcessorId) -> Option<f64> {
        match (self.processors[processor].bandwidth, self.bandwidth) {
            (Some(own), Some(bus)) => Some(own.min(bus)),
            (one, other) => one.or(other),
        }
    }

    /// The fraction of its time alone in which work on a processor is bound by memory, 0 to 1: bytes ÷ time ÷ what can be drawn.
    /// 0 where the bandwidth of the bus is unknown. See `docs/semantics.md`, section 6.
    pub fn memory_bound(&self, processor: ProcessorId, bytes: f64, alone_ns: f64) -> f64 {
        let Some(bus) = self.bandwidth.filter(|_| bytes > 0.0 && alone_ns > 0.0) else { return 0.0 };
        let limit = self.processors[processor].bandwidth.map_or(bus, |own| own.min(bus));
        (bytes / alone_ns / limit).min(1.0)
    }
}

/// A processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Name.
    pub name: String,
    /// Kind of unit.
    pub kind: ProcessorKind,
    /// Number of the group of identical processors that it belongs to; preempted segments can go on anywhere in it.
    pub group: u32,
    /// Segments that it runs side by side, each at its profiled speed and with all of the processor.
    pub slots: u32,
    /// Units that it can be divided into: columns, cores, slices; then runs side by side take units instead of slots. `None`: it
    /// cannot be divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub division: Option<Division>,
    /// When running work can be taken off it.
    pub preemption: Preemption,
    /// Cost of starting another model than the last one.
    pub switch_cost: Nanos,
    /// Cost of taking running work off it.
    pub preempt_cost: Nanos,
    /// Power while idle [W].
    pub idle_w: f64,
    /// Power while busy [W], where known.
    pub active_w: Option<f64>,
    /// The most memory bandwidth that it draws alone [bytes/ns], where limited.
    pub bandwidth: Option<f64>,
    /// What executes on it in a real run; `None`: it is rehearsed, by a device that takes as long as the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Its operating points, power and heat; present on all processors of a platform or on none. `None`: one speed, and power only
    /// as `idle_w` and `active_w` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerModel>,
}

/// How a processor can be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division {
    /// How many equal units it has, ≥ 2.
    pub units: u32,
    /// Cost of cutting parts anew.
    pub repartition: Nanos,
}

impl Processor {
    /// The most runs that it can have at the same time.
    pub fn runs_max(&self) -> u32 {
        self.division.map_or(self.slots, |division| division.units)
    }

    /// The part of the processor that so many units are: 1 for all of it, which 0 stands for.
    pub fn share(&self, units: u32) -> f64 {
        match self.division {
            Some(division) if units > 0 => f64::from(units) / f64::from(division.units),
            _ => 1.0,
        }
    }

    /// Whether real models run on it in a real run; otherwise it is rehearsed by a virtual device.
    pub fn runs_models(&self) -> bool {
        self.device.as_ref().is_some_and(|device| device.name != "virtual")
    }
}

/// What executes on a processor in a real run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Backend, and after a colon one of its devices: `rten`, `ort:OpenVINOExecutionProvider:NPU`.
    pub name: String,
    /// Cores that its threads are pinned to; empty: not pinned.
    pub cores: Vec<u32>,
    /// Options for the backend: key and value.
    pub options: Vec<(String, String)>,
}

/// Cost of handing data from one processor to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Fixed cost.
    pub latency: Nanos,
    /// Bandwidth [bytes/ns]; `None`: the data stays where it is.
    pub bandwidth: Option<f64>,
}

impl Link {
    /// Time to hand over `bytes`.
    pub fn time(&self, bytes: f64) -> Nanos {
        let copy = self.bandwidth.map_or(Nanos::ZERO, |bandwidth| Nanos::from_ns_f64(bytes / bandwidth));
        self.latency + copy
    }
}

/// A model in one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Name, with the variant after a slash unless it is the default one.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// What it is for.
    pub task: String,
    /// How it runs.
    pub shape: ModelShape,
    /// Weights, held once per processor that has it loaded.
    pub weights: Bytes,
    /// Key-value cache per token of context.
    pub kv_per_token: Bytes,
    /// State of a streaming model.
    pub state: Bytes,
    /// Quality score of the variant: name of the score and value.
    pub quality: Option<(String, f64)>,
    /// Network file for real runs; `None`: the catalogue's model of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How it is divided among several processors; `None`: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// How it runs while its cache stays in slower memory; `None`: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// The model whose weights it runs with, where it has none of its own: a sub-network of a supernet, an early exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_of: Option<ModelId>,
    /// What it is besides a network that runs by itself.
    #[serde(default, skip_serializing_if = "Role::is_network")]
    pub role: Role,
}

/// What an entry of [`System::models`] stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A network that stages run.
    #[default]
    Network,
    /// An adapter (LoRA): weights that stages need beside those of their own model. It never runs by itself.
    Adapter,
    /// A tool: it has no weights. It never occupies a processor.
    Tool,
}

impl Role {
    /// Whether it is a network that stages run.
    pub fn is_network(&self) -> bool {
        *self == Self::Network
    }
}

/// A stage of a source's chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Name of the stage.
    pub name: String,
    /// Source whose chain it belongs to.
    pub source: SourceId,
    /// Model.
    pub model: ModelId,
    /// Cost on each processor; `None` where it cannot run.
    pub costs: IdVec<ProcessorId, Option<Cost>>,
    /// The fastest processor by nominal latency (ties: the first).
    pub fastest: ProcessorId,
    /// Nominal latency on the fastest processor, for expected sizes.
    pub best: Nanos,
    /// Nominal latency on the fastest processors of what certainly follows, along the longest path, for smallest sizes.
    pub tail: Nanos,
    /// The same if what can be divided is, and what can be drafted is, as well as can be; `None`: nothing can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_together: Option<Nanos>,
    /// Nominal time, for expected sizes on the fastest processors and along the longest path, from this stage's end to the first token
    /// of the chain's last language model. Zero for that model itself, whose tokens the goals are for. `None` where the source has no
    /// goal for tokens, or the stage does not come before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_first_token: Option<Nanos>,
    /// How the attention of its decode steps can be divided, in the default variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<Attention>,
    /// Steps of an iterative model.
    pub steps: u32,
    /// Prompt length, for autoregressive models; `None` with a trace.
    pub prompt: Option<Distribution>,
    /// Output length, for autoregressive models; `None` with a trace.
    pub output: Option<Distribution>,
    /// Expected size of the work.
    pub expected: Work,
    /// The largest output that memory is reserved for [tokens].
    pub output_max: u32,
    /// Size of the output handed to successors [bytes].
    pub output_bytes: f64,
    /// The model that may draft its output; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Draft>,
    /// Stages that go before.
    pub before: Vec<NodeId>,
    /// Edges to the stages that follow.
    pub after: Vec<Edge>,
    /// Variants that a policy may choose instead of `model`, in the order of the file; variant number 1 is the first of them. Their
    /// phases are of the same kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Alternative>,
    /// Quality of `model`, relative to the best of the stage's variants: 0 to 1, 1 for the best. `None` without a choice, or where
    /// scores are unknown or of different kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// It is a tool: it takes so long [ns], and no processor. It has no costs then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Distribution>,
    /// Weights that it needs in memory beside those of its model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// Where inferences of its model may end early.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    pub exits: Exits,
    /// What each class of content changes about it, by class; empty where the source does not say what it sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_content: Vec<InContent>,
}

impl Node {
    /// What is left of decode on a processor at least, relative to what it takes there by itself, if everything that can help does.
    pub fn decode_least(&self, processor: ProcessorId) -> f64 {
        let draft = self.draft.as_ref().map_or(1.0, |draft| draft.least_factor(processor));
        self.attention.as_ref().map_or(draft, |attention| draft.min(attention.least[processor]))
    }

    /// Numbers of the variants that the stage may run: 0 is its default one.
    pub fn variant_numbers(&self) -> impl ExactSizeIterator<Item = u8> + use<> {
        0..=self.variants.len() as u8
    }

    /// Cost of a variant on each processor; of the default one if there is none with this number.
    pub fn costs_of(&self, variant: u8) -> &IdVec<ProcessorId, Option<Cost>> {
        if variant == 0 {
            return &self.costs;
        }
        self.variants.get(usize::from(variant) - 1).map_or(&self.costs, |other| &other.costs)
    }

    /// The processor on which a variant is fastest; that of the default one if there is none with this number.
    pub fn fastest_of(&self, variant: u8) -> ProcessorId {
        self.alternative(variant).map_or(self.fastest, |other| other.fastest)
    }

    /// The model that a variant is; that of the default one if there is none with this number.
    pub fn model_of(&self, variant: u8) -> ModelId {
        self.alternative(variant).map_or(self.model, |other| other.model)
    }

    /// Quality of a variant, relative to the best of the stage's variants; see [`Node::quality`].
    pub fn quality_of(&self, variant: u8) -> Option<f64> {
        self.alternative(variant).map_or(self.quality, |other| other.quality)
    }

    /// What a class of content changes about it, if anything can.
    pub fn in_content(&self, class: Option<u8>) -> Option<&InContent> {
        self.in_content.get(usize::from(class?))
    }

    /// [`Node::quality_of`] for inputs of a class of content, where scores are known for it; otherwise that over all content.
    pub fn quality_in(&self, variant: u8, class: Option<u8>) -> Option<f64> {
        let quality = self.in_content(class).and_then(|class| class.quality.get(usize::from(variant)));
        quality.copied().or_else(|| self.quality_of(variant))
    }

    /// The least and the most that an inference is in any class of content, relative to the profile's.
    pub fn scales(&self) -> (f64, f64) {
        let works = || self.in_content.iter().map(|class| class.work);
        let bounds = (works().fold(f64::INFINITY, f64::min), works().fold(0.0, f64::max));
        if self.in_content.is_empty() { (1.0, 1.0) } else { bounds }
    }

    /// Steps of an iterative model in a variant.
    pub fn steps_of(&self, variant: u8) -> u32 {
        self.alternative(variant).map_or(self.steps, |other| other.steps)
    }

    /// Where inferences of a variant may end early.
    pub fn exits_of(&self, variant: u8) -> &Exits {
        self.alternative(variant).map_or(&self.exits, |other| &other.exits)
    }

    /// Work of a stage that has not begun, if a variant did it: the number of steps differs, and the mean of the exits.
    pub fn work_of(&self, variant: u8, work: Work) -> Work {
        Work { steps: self.steps_of(variant), exit: self.exits_of(variant).mean(), ..work }
    }

    /// The least work of a stage that has not begun, if a variant did it: it leaves at the first exit.
    pub fn least_work_of(&self, variant: u8, work: Work) -> Work {
        Work { exit: self.exits_of(variant).least_after(0.0), ..self.work_of(variant, work) }
    }

    /// Whether it may end early in one of its variants.
    pub fn has_exits(&self) -> bool {
        self.variant_numbers().any(|variant| !self.exits_of(variant).is_empty())
    }

    /// The number of the variant that is this model.
    pub fn variant_of(&self, model: ModelId) -> Option<u8> {
        self.variant_numbers().find(|&variant| self.model_of(variant) == model)
    }

    /// Costs of all variants on all processors.
    pub fn all_costs(&self) -> impl Iterator<Item = &Cost> {
        self.costs.iter().chain(self.variants.iter().flat_map(|other| &other.costs)).flatten()
    }

    /// Costs of all variants that can run on a processor.
    pub fn costs_on(&self, processor: ProcessorId) -> impl Iterator<Item = &Cost> {
        self.variant_numbers().filter_map(move |variant| self.costs_of(variant)[processor].as_ref())
    }

    fn alternative(&self, variant: u8) -> Option<&Alternative> {
        self.variants.get(usize::from(variant).wrapping_sub(1))
    }
}

/// A variant that a stage may run instead of its default one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The model in this variant.
    pub model: ModelId,
    /// Cost on each processor; `None` where it cannot run.
    pub costs: IdVec<ProcessorId, Option<Cost>>,
    /// The fastest processor by nominal latency (ties: the first).
    pub fastest: ProcessorId,
    /// Nominal latency there, for expected sizes.
    pub best: Nanos,
    /// Steps of an iterative model.
    pub steps: u32,
    /// Quality relative to the best of the stage's variants; see [`Node::quality`].
    pub quality: Option<f64>,
    /// Where its inferences may end early.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    pub exits: Exits,
}

/// Weights that a stage needs beside those of its model, on whatever processor it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// The adapter, an entry of [`System::models`]; it is loaded and evicted like a model.
    pub model: ModelId,
    /// Time to load it.
    pub load: Nanos,
}

/// An edge to a stage that follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The stage that follows.
    pub to: NodeId,
    /// Probability that it is taken.
    pub probability: f64,
    /// Number of instances that follow; `None`: one.
    pub fan_out: Option<Distribution>,
    /// One instance per so many output tokens.
    pub per_tokens: Option<u32>,
}

/// A stream or a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name.
    pub name: String,
    /// Whether it is a user's session with a generative model.
    pub session: bool,
    /// When jobs arrive.
    pub arrival: Arrival,
    /// Delay of the release after its nominal time [ns].
    pub jitter: Option<Distribution>,
    /// Deadline after the nominal release.
    pub deadline: Option<Nanos>,
    /// Goal for the time to first token.
    pub ttft: Option<Nanos>,
    /// Goal for the mean time per output token after the first.
    pub tpot: Option<Nanos>,
    /// Priority for fixed-priority scheduling, larger is more urgent; rate-monotonic where the file gives none.
    pub priority: i32,
    /// What happens to late jobs.
    pub drop: DropRule,
    /// The most jobs alive at once.
    pub queue: Option<u32>,
    /// Which job goes when the queue is full.
    pub overflow: Overflow,
    /// Periods of activity, in order, disjoint. Empty: always active.
    pub active: Vec<(Nanos, Nanos)>,
    /// The most jobs in one run.
    pub count: Option<u64>,
    /// Its stages.
    pub nodes: Range<u32>,
    /// Nominal latency of the longest certain path on the fastest processors, for smallest sizes: no job can be faster.
    pub shortest: Nanos,
    /// What is special about the texts of its requests.
    #[serde(default, skip_serializing_if = "Text::is_default")]
    pub text: Text,
    /// Its work uses idle processors and gives way to all other work. It has neither deadline nor goals.
    #[serde(default, skip_serializing_if = "is_false")]
    pub best_effort: bool,
    /// Each job puts out a chunk of actions that a robot executes one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<Actions>,
    /// What its jobs see: number of an entry of [`System::contents`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<u32>,
}

/// What is special about the texts of a session's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Each prompt begins with the conversation so far; a conversation has at most so many tokens. `None`: requests stand alone.
    pub conversation: Option<u32>,
    /// Policies see a prediction of each output length with this error: standard deviation of the logarithm. `None`: they see the
    /// mean length.
    pub predictor: Option<f64>,
    /// Policies see a prediction of each output length that is learned from the answers so far.
    #[serde(default, skip_serializing_if = "is_false")]
    pub learns: bool,
}

impl Text {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A chunk of actions: what a robot does with the output of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions {
    /// Actions in a chunk.
    pub count: u32,
    /// Time between two actions; they are executed at multiples of it since the start of the run.
    pub period: Nanos,
    /// The stage whose end makes the first action available; `None`: the end of the job. The others follow in time.
    pub first: Option<NodeId>,
}

impl Source {
    /// Mean time between arrivals while active, where the process has one.
    pub fn period(&self) -> Option<Nanos> {
        match &self.arrival {
            Arrival::Periodic { period, .. } => Some(*period),
            Arrival::Poisson { rate_per_s, .. } | Arrival::Gamma { rate_per_s, .. } => {
                Some(Nanos::from_secs(1.0 / rate_per_s))
            }
            Arrival::Trace { requests } => match (requests.first(), requests.last()) {
                (Some(first), Some(last)) if requests.len() > 1 => {
                    Some(Nanos((last.at.0 - first.at.0) / (requests.len() as u64 - 1)))
                }
                _ => None,
            },
        }
    }
}

/// When jobs arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Arrival {
    /// At `first`, and then every `period`.
    Periodic {
        /// First arrival.
        first: Nanos,
        /// Distance.
        period: Nanos,
    },
    /// Exponential times in between.
    Poisson {
        /// Not before.
        start: Nanos,
        /// Mean rate [1/s].
        rate_per_s: f64,
    },
    /// Gamma-distributed times in between.
    Gamma {
        /// Not before.
        start: Nanos,
        /// Mean rate [1/s].
        rate_per_s: f64,
        /// Coefficient of variation of the time in between.
        cv: f64,
    },
    /// A recorded trace.
    Trace {
        /// The requests in order of time.
        requests: Vec<Request>,
    },
}

/// A recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Arrival.
    pub at: Nanos,
    /// Prompt length [tokens].
    pub prompt: u32,
    /// Output length [tokens].
    pub output: u32,
}

/// Variation of execution times where a profile gives a single number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// Distribution of the factor.
    pub kind: VariationKind,
    /// Its spread, see the scenario file's documentation.
    pub spread: f64,
}

impl Variation {
    /// The smallest possible factor on a nominal latency. Log-normal and exponential variation come arbitrarily close to 0: there is no
    /// lower bound then.
    pub fn smallest(self) -> f64 {
        match self.kind {
            VariationKind::None => 1.0,
            VariationKind::Uniform => 1.0 - self.spread,
            VariationKind::Lognormal if self.spread == 0.0 => 1.0,
            VariationKind::Lognormal | VariationKind::Exponential => 0.0,
        }
    }
}

/// A figure, or a group of figures from one row of a source, that the run rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is about, such as `mediapipe-selfie on npu: latency`.
    pub what: String,
    /// How it was obtained.
    pub kind: ProvenanceKind,
    /// Source, with version, page and row; or formula and inputs.
    pub source: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_variation_has_no_lower_bound() {
        let smallest = |kind, spread| Variation { kind, spread }.smallest();
        assert_eq!(smallest(VariationKind::Uniform, 0.25), 0.75);
        assert_eq!(smallest(VariationKind::Exponential, 0.0), 0.0);
        assert_eq!(smallest(VariationKind::None, 0.0), 1.0);
    }
}
