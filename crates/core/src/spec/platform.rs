//! The platform file: one chip.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provenance::SourceSpec;
use crate::power::Governor;

/// One chip: its processors, its memory and the links between them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlatformSpec {
    /// Name by which scenarios and the command line refer to the platform. Lower case, digits and dashes.
    pub name: String,
    /// Name for people.
    #[serde(default)]
    pub title: String,
    /// What it is, and what its figures are good for.
    #[serde(default)]
    pub description: String,
    /// The memory that all processors share.
    pub memory: MemorySpec,
    /// The processors, at least one.
    pub processor: Vec<ProcessorSpec>,
    /// What holds for the power of all processors.
    #[serde(default)]
    pub power: PowerSpec,
    /// Links for pairs of processors that differ from the memory's own hand-over cost.
    #[serde(default)]
    pub link: Vec<LinkSpec>,
    /// Where the figures come from, by key; the `source` fields refer to these.
    #[serde(default)]
    pub source: IndexMap<String, SourceSpec>,
}

/// The memory that all processors of the chip share.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemorySpec {
    /// Memory that models, activations and caches may use [GB, 10^9 bytes], > 0. Left out: unlimited.
    pub capacity_gb: Option<f64>,
    /// Bandwidth of the memory bus [GB/s], > 0. Left out: never a bottleneck.
    pub bandwidth_gbps: Option<f64>,
    /// Cost of handing a buffer from one processor to another: synchronisation and cache maintenance [µs], ≥ 0.
    #[serde(default)]
    pub handover_us: f64,
    /// Bandwidth at which weights are loaded from storage [GB/s], > 0. Left out: loading takes no time unless
    /// the profile gives a load time.
    pub load_gbps: Option<f64>,
    /// Key-value caches grow by blocks of so many tokens while answers get longer, ≥ 1. Left out: a cache is reserved for the prompt
    /// and the largest output when its stage starts.
    pub kv_block_tokens: Option<u32>,
    /// Slower memory that policies can move caches of waiting stages to: bandwidth of the link to it, in each direction [GB/s], > 0.
    /// Left out: there is none.
    pub swap_gbps: Option<f64>,
    /// Fixed cost of each move over that link [µs], ≥ 0.
    pub swap_us: Option<f64>,
    /// Size of the slower memory [GB], > 0. Left out: unlimited.
    pub swap_gb: Option<f64>,
    /// Where each figure above comes from: field name to a key of `[source]`.
    #[serde(default)]
    pub provenance: IndexMap<String, String>,
}

/// One schedulable unit, or `count` identical ones.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessorSpec {
    /// Name; with `count` > 1 the units are called `name0`, `name1`, … and share the profile rows of `name`.
    pub name: String,
    /// What kind of unit it is.
    pub kind: ProcessorKind,
    /// How many identical units there are, ≥ 1. A preempted segment may go on at any of them.
    #[serde(default = "one")]
    pub count: u32,
    /// How many segments it runs side by side, each at its profiled speed, ≥ 1. One: exclusive.
    #[serde(default = "one")]
    pub slots: u32,
    /// How many equal units it can be divided into, for runs side by side: columns, cores, slices; 1 to 64. Cost entries say how many
    /// they are for. Policies that do not ask for units have the processor to themselves. Default 1: it is not divided.
    #[serde(default = "one")]
    pub units: u32,
    /// Cost of cutting it into other parts than before, paid by the run that is started in the new part [µs], ≥ 0. Needs `units`.
    #[serde(default)]
    pub repartition_us: f64,
    /// When running work can be taken off it.
    #[serde(default)]
    pub preemption: Preemption,
    /// Cost of starting a model other than the one that ran last [µs], ≥ 0.
    #[serde(default)]
    pub switch_us: f64,
    /// Cost of taking running work off the processor, paid by the processor [µs], ≥ 0.
    #[serde(default)]
    pub preempt_us: f64,
    /// Power while idle [W], ≥ 0.
    #[serde(default)]
    pub idle_w: f64,
    /// Power while busy [W], ≥ 0; used for rows that state no energy. Left out: such rows' energy is unknown.
    pub active_w: Option<f64>,
    /// The most memory bandwidth that it can draw alone [GB/s], > 0. Left out: all of the bus.
    pub bandwidth_gbps: Option<f64>,
    /// Peak rate of dense 8-bit integer operations [10^12/s], > 0; a multiply-accumulate counts as two. For `onbeat estimate`.
    pub peak_tops: Option<f64>,
    /// Peak rate of dense 16-bit floating-point operations [10^12/s], > 0; a multiply-accumulate counts as two. For
    /// `onbeat estimate`.
    pub peak_tflops: Option<f64>,
    /// Time that launching one kernel takes, during which nothing is computed [µs], ≥ 0. For `onbeat estimate`. Left out:
    /// unknown, and counted as 0.
    pub launch_us: Option<f64>,
    /// What executes on it in a real run (`onbeat run`): a backend and, after a colon, one of its devices, as `onbeat doctor` lists
    /// them: `rten`, `ort:OpenVINOExecutionProvider:NPU`. Left out: the processor is rehearsed, by a virtual device that takes as long
    /// as the profile says.
    pub device: Option<String>,
    /// Cores that the device's threads are pinned to, one of them for each unit with `count` > 1. Empty: not pinned.
    #[serde(default)]
    pub cores: Vec<u32>,
    /// Options for the device's backend.
    #[serde(default)]
    pub options: IndexMap<String, String>,
    /// The speeds that it can run at, from fast to slow; the first is the one that the profiles were taken at.
    #[serde(default)]
    pub operating_point: Vec<OperatingPointSpec>,
    /// Time from the request for another operating point until it takes effect [µs], ≥ 0. Work goes on at the old one meanwhile.
    #[serde(default)]
    pub transition_us: f64,
    /// Who chooses its operating point, instead of the platform's governor.
    pub governor: Option<Governor>,
    /// Power that it draws always, besides what work or idling takes [W], ≥ 0.
    #[serde(default)]
    pub leakage_w: f64,
    /// Growth of `leakage_w` per kelvin [1/K], ≥ 0. Needs `thermal`.
    #[serde(default)]
    pub leakage_per_k: f64,
    /// Temperature at which the leakage is `leakage_w` [°C]. Default: `ambient_c`.
    pub leakage_at_c: Option<f64>,
    /// How it heats up. Left out: its temperature is not modelled. Needs power figures for all work on it.
    pub thermal: Option<ThermalSpec>,
    /// Where each figure above comes from: field name to a key of `[source]`.
    #[serde(default)]
    pub provenance: IndexMap<String, String>,
}

/// One speed and power of a processor.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatingPointSpec {
    /// Name, such as `performance`.
    pub name: String,
    /// Speed relative to the profiled one, > 0 and ≤ 1: the first point is the fastest. It concerns what computing takes; what the memory takes stays as it is.
    pub speed: f64,
    /// Power while busy [W], ≥ 0. Left out: the first point's (or the processor's) `active_w` × `speed` × the square of the voltages'
    /// ratio, if `volts` are given; otherwise unknown.
    pub active_w: Option<f64>,
    /// Supply voltage [V], > 0: energy of work goes with its square. Left out: energy of work, relative to the first point's, is
    /// `active_w` ÷ `speed`, if known.
    pub volts: Option<f64>,
    /// Power while idle [W], ≥ 0. Left out: the processor's `idle_w`.
    pub idle_w: Option<f64>,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// A processor's heat: one heat capacity behind one resistance to the surroundings, and a throttle with hysteresis.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ThermalSpec {
    /// Thermal resistance to the surroundings [K/W], > 0: steady temperature rise per watt.
    pub resistance_k_per_w: f64,
    /// Heat capacity [J/K], > 0. Resistance × capacity is the time constant [s].
    pub capacitance_j_per_k: f64,
    /// Temperature at the start of a run [°C]. Default: `ambient_c`.
    pub start_c: Option<f64>,
    /// From here on the processor is slowed down by one operating point per `step_ms` [°C]. Left out: never.
    pub throttle_c: Option<f64>,
    /// From here down it is sped up again by one operating point per `step_ms` [°C], < `throttle_c` and > `ambient_c`. Needed with
    /// `throttle_c`.
    pub release_c: Option<f64>,
    /// Least time between two such steps [ms], ≥ 1. Default 100.
    pub step_ms: Option<f64>,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// What holds for the power of all processors.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerSpec {
    /// Who chooses the operating points of processors that have several. Default `policy`.
    #[serde(default)]
    pub governor: Governor,
    /// How often the governors `ondemand` and `schedutil` choose [ms], ≥ 0.1. Default 10.
    pub governor_period_ms: Option<f64>,
    /// The most power that all processors together may draw [W], > 0: the one that draws most is slowed down first. Left out: no limit.
    pub cap_w: Option<f64>,
    /// Temperature of the surroundings [°C]. Default 25.
    pub ambient_c: Option<f64>,
}

/// Cost of handing data from one processor to another, where it differs from the memory's `handover_us`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Processor that produced the data.
    pub from: String,
    /// Processor that needs it.
    pub to: String,
    /// Fixed cost [µs], ≥ 0.
    #[serde(default)]
    pub latency_us: f64,
    /// Bandwidth [GB/s], > 0. Left out: the data stays where it is (unified memory).
    pub bandwidth_gbps: Option<f64>,
    /// Whether the same holds from `to` to `from`.
    #[serde(default = "yes")]
    pub both_ways: bool,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// What kind of unit a processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessorKind {
    /// General-purpose cores.
    Cpu,
    /// Graphics processor.
    Gpu,
    /// Neural processor.
    Npu,
    /// Signal processor.
    Dsp,
    /// A device behind a network link.
    Remote,
}

impl ProcessorKind {
    /// The name as written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
            Self::Dsp => "dsp",
            Self::Remote => "remote",
        }
    }
}

/// When running work can be taken off a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preemption {
    /// At once, in the middle of a segment; progress within the segment is kept.
    Anytime,
    /// At the end of the running segment.
    #[default]
    Segment,
    /// Not before the stage's phase has ended.
    Never,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}
