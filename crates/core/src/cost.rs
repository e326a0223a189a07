//! What a stage costs on a processor: time, bytes and energy of any part of it.
//!
//! A stage runs through one or more *phases* (prefill, then decode). Progress through a phase is counted in *units*:
//!
//! | phase | unit | units in all |
//! |---|---|---|
//! | [`Phase::Forward`] | the whole inference | 1; less if it ends at an early exit |
//! | [`Phase::Before`], [`Phase::After`] | the whole part | 1 |
//! | [`Phase::Steps`] | one step | the stage's number of steps |
//! | [`Phase::Prefill`] | one prompt token | the prompt length |
//! | [`Phase::Decode`] | one output token after the first | output length − 1 |
//!
//! The first output token comes out of prefill. *Boundaries* between segments are positions in units at which a phase can be
//! interrupted.

use serde::{Deserialize, Serialize};

use crate::curve::{Curve, StepSum};
use crate::offload::{Far, overlapped};
use crate::policy::Limit;

/// A part of a stage with one kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A whole inference (`one_shot`, `streaming`).
    Forward,
    /// What precedes the loop of an `iterative` model.
    Before,
    /// The loop of an `iterative` model.
    Steps,
    /// What follows the loop of an `iterative` model.
    After,
    /// The prompt of an `autoregressive` model, up to the first token.
    Prefill,
    /// The tokens after the first.
    Decode,
}

impl Phase {
    /// Whether several requests can share its steps, where the profile has figures for that.
    pub fn is_batched(self) -> bool {
        matches!(self, Self::Decode | Self::Steps)
    }

    /// The name as written in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Before => "before",
            Self::Steps => "steps",
            Self::After => "after",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// The size of one stage's work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Prompt length [tokens].
    pub prompt: u32,
    /// Output length [tokens], ≥ 1 for autoregressive models. Policies see the expected length, not the real one.
    pub output: u32,
    /// Steps of an iterative model.
    pub steps: u32,
    /// Where an inference ends, as a share of all of it, in (0, 1]: 1 unless it leaves at an [early exit](crate::exits). Of a language
    /// model, the share of each decode step that is computed. Policies see the mean, not the real one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub exit: f64,
    /// How much the whole of an inference is, relative to the profile's, > 0: 1 unless the [content](crate::content) of its input makes it
    /// more or less.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: f64,
}

fn one() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(bytes: &f64) -> bool {
    *bytes == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

impl Default for Work {
    fn default() -> Self {
        Self { prompt: 0, output: 0, steps: 0, exit: 1.0, scale: 1.0 }
    }
}

impl Work {
    /// Units that a phase has for work of this size.
    pub fn units(&self, phase: Phase) -> f64 {
        match phase {
            Phase::Forward => self.exit,
            Phase::Before | Phase::After => 1.0,
            Phase::Steps => f64::from(self.steps),
            Phase::Prefill => f64::from(self.prompt),
            Phase::Decode => f64::from(self.output.saturating_sub(1)),
        }
    }
}

/// Steps that reuse what a full step before them has computed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reuse {
    /// The first of so many steps is full, the others are not; ≥ 2.
    pub every: u32,
    /// Latency of a step that is not full [ns].
    pub step_ns: f64,
    /// Data that it moves [bytes].
    pub bytes: f64,
    /// Its energy [mJ].
    pub energy_mj: Option<f64>,
}

impl Reuse {
    /// Sum over the steps `from`..`to`, parts of steps included, of what a full step costs and of what another one does.
    fn sum(self, from: f64, to: f64, full: f64, other: f64) -> f64 {
        let up_to = |x: f64| {
            let whole = (x + SAME_POSITION).floor();
            let full_ones = (whole / f64::from(self.every)).ceil();
            let running = if whole % f64::from(self.every) == 0.0 { full } else { other };
            full_ones * full + (whole - full_ones) * other + (x - whole) * running
        };
        up_to(to) - up_to(from)
    }
}

/// What one phase costs on one processor, alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PhaseCost {
    /// A fixed latency, for [`Phase::Forward`], [`Phase::Before`] and [`Phase::After`].
    Fixed {
        /// Nominal latency [ns].
        latency_ns: f64,
        /// Quantile function of the latency relative to the nominal one, where a distribution was measured.
        quantiles: Option<Curve>,
        /// Ends of the segments, increasing, in (0, 1]; the last is 1.
        boundaries: Vec<f64>,
        /// Data moved [bytes].
        bytes: f64,
        /// Energy [mJ].
        energy_mj: Option<f64>,
    },
    /// Steps, for [`Phase::Steps`]: equal ones, or some that reuse what the full ones have computed.
    Steps {
        /// Latency of a step [ns].
        step_ns: f64,
        /// Data moved per step [bytes].
        bytes: f64,
        /// Energy per step [mJ].
        energy_mj: Option<f64>,
        /// Steps in between that cost less; `None`: all are full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reuse: Option<Reuse>,
        /// Step latency relative to batch 1, by batch; `None`: no batching.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch: Option<Curve>,
        /// What a step moves at most that is the same for all members of a batch: the weights [bytes]. 0 without batching.
        #[serde(default, skip_serializing_if = "is_zero")]
        weights: f64,
    },
    /// A prompt, for [`Phase::Prefill`].
    Prefill {
        /// Latency [ns] by prompt length [tokens].
        latency_ns: Curve,
        /// Tokens per segment.
        chunk: Option<u32>,
        /// Extra latency of each segment after the first [ns].
        chunk_overhead_ns: f64,
        /// Data moved per segment: the weights [bytes].
        bytes_per_segment: f64,
        /// Data moved per token [bytes].
        bytes_per_token: f64,
        /// Energy per token [mJ].
        energy_mj: Option<f64>,
        /// What can be done with pieces of a prompt besides running the segments above.
        #[serde(default, skip_serializing_if = "Pieces::is_default")]
        pieces: Pieces,
    },
    /// Output tokens after the first, for [`Phase::Decode`].
    Decode {
        /// Latency of a step [ns] by context length [tokens], summed.
        step_ns: StepSum,
        /// Step latency relative to batch 1, by batch; `None`: no batching.
        batch: Option<Curve>,
        /// Data moved per step: the weights [bytes].
        bytes_per_step: f64,
        /// Data moved per step and token of context: the key-value cache [bytes].
        bytes_per_context_token: f64,
        /// Energy per step [mJ].
        energy_mj: Option<f64>,
    },
}

/// What a processor can do with pieces of a prompt besides running the profile's segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pieces {
    /// It takes pieces of any size: their tokens per second relative to those of the whole prompt, in (0, 1], by the piece's size
    /// [tokens]. `None`: only the profile's segments.
    pub efficiency: Option<Curve>,
    /// Equal parts of a segment or piece after each of which it can be preempted, ≥ 1.
    pub layer_groups: u32,
    /// Whether a piece can share a step with the decode steps of a batch.
    pub mixed: bool,
    /// What is written to slower memory meanwhile, where pieces of any size are taken and the cache stays there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Box<Written>>,
}

/// A prompt whose cache is written to slower memory while it is computed: only computing it depends on the size of a piece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Latency by prompt length, if nothing were written [ns].
    pub compute_ns: Curve,
    /// Time to write a token's cache [ns].
    pub token_ns: f64,
    /// Layers.
    pub layers: f64,
}

impl Default for Pieces {
    fn default() -> Self {
        Self { efficiency: None, layer_groups: 1, mixed: false, written: None }
    }
}

impl Pieces {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Nominal latency of a mixed step: decode steps that alone take `decode_ns`, and pieces of prompts that alone take `pieces_ns`.
/// `weights_ns` is the time in which the weights are read once.
///
/// A decode step reads the weights and computes little meanwhile; a piece computes much. Together they read the weights once, and
/// compute the pieces in that time; what is longer of the two counts. With W = min(`weights_ns`, `decode_ns`):
///
/// `decode_ns` − W + max(W, `pieces_ns`)
///
/// So pieces up to W are free, and larger ones save W compared with running them apart (piggybacking: Agrawal et al., SARATHI,
/// arXiv 2308.16369, section 3; the formula is ours). Never shorter than either part alone, never longer than both.
pub fn mixed_step_ns(decode_ns: f64, pieces_ns: f64, weights_ns: f64) -> f64 {
    let weights = weights_ns.min(decode_ns);
    decode_ns - weights + weights.max(pieces_ns)
}

/// Relative tolerance within which two positions are the same boundary.
const SAME_POSITION: f64 = 1e-9;

impl PhaseCost {
    /// A whole inference of so many ns in one segment, of which neither bytes nor energy are known.
    pub fn fixed(latency_ns: f64) -> Self {
        Self::Fixed { latency_ns, quantiles: None, boundaries: vec![1.0], bytes: 0.0, energy_mj: None }
    }

    /// Prompts in one segment, by their length; neither bytes nor energy are known.
    pub fn prefill(latency_ns: Curve) -> Self {
        Self::Prefill {
            latency_ns,
            chunk: None,
            chunk_overhead_ns: 0.0,
            bytes_per_segment: 0.0,
            bytes_per_token: 0.0,
            energy_mj: None,
            pieces: Pieces::default(),
        }
    }

    /// Decode steps one by one, by the length of the context; neither bytes nor energy are known.
    pub fn decode(step_ns: Curve) -> Self {
        Self::Decode {
            step_ns: StepSum::new(step_ns),
            batch: None,
            bytes_per_step: 0.0,
            bytes_per_context_token: 0.0,
            energy_mj: None,
        }
    }

    /// Nominal latency of the units `from`..`to` [ns], alone and unbatched.
    pub fn latency_ns(&self, work: Work, from: f64, to: f64) -> f64 {
        match self {
            Self::Fixed { latency_ns, .. } => latency_ns * work.scale * (to - from),
            Self::Steps { step_ns, reuse: Some(reuse), .. } => reuse.sum(from, to, *step_ns, reuse.step_ns),
            Self::Steps { step_ns, .. } => step_ns * (to - from),
            Self::Prefill { latency_ns, chunk_overhead_ns, .. } => {
                let overhead = if *chunk_overhead_ns > 0.0 {
                    // Every segment after the prompt's first pays it; `from` and `to` are boundaries or the prompt's end.
                    chunk_overhead_ns
                        * (self.segments_before(work, to) - self.segments_before(work, from).max(1.0)).max(0.0)
                } else {
                    0.0
                };
                latency_ns.at(to) - latency_ns.at(from) + overhead
            }
            Self::Decode { step_ns, .. } => {
                let context = f64::from(work.prompt) + 1.0;
                step_ns.between(context + from, context + to) * work.exit
            }
        }
    }

    /// Data moved over the bus by the units `from`..`to` [bytes].
    pub fn bytes(&self, work: Work, from: f64, to: f64) -> f64 {
        let units = to - from;
        match self {
            Self::Steps { bytes, reuse: Some(reuse), .. } => reuse.sum(from, to, *bytes, reuse.bytes),
            Self::Fixed { bytes, .. } => bytes * work.scale * units,
            Self::Steps { bytes, .. } => bytes * units,
            Self::Prefill { bytes_per_segment, bytes_per_token, .. } => {
                let segments = self.segments_before(work, to) - self.segments_before(work, from);
                bytes_per_segment * segments.max(0.0) + bytes_per_token * units
            }
            Self::Decode { bytes_per_step, bytes_per_context_token, .. } => {
                let context = f64::from(work.prompt) + 1.0 + f64::midpoint(from, to - 1.0);
                (bytes_per_step + bytes_per_context_token * context) * units * work.exit
            }
        }
    }

    /// Energy of the units `from`..`to` [mJ], where the profile states it.
    pub fn energy_mj(&self, work: Work, from: f64, to: f64) -> Option<f64> {
        if let Self::Steps { energy_mj, reuse: Some(reuse), .. } = self {
            return Some(reuse.sum(from, to, (*energy_mj)?, reuse.energy_mj?));
        }
        let (Self::Fixed { energy_mj, .. }
        | Self::Steps { energy_mj, .. }
        | Self::Prefill { energy_mj, .. }
        | Self::Decode { energy_mj, .. }) = self;
        let part = match self {
            Self::Fixed { .. } => work.scale,
            Self::Decode { .. } => work.exit,
            Self::Steps { .. } | Self::Prefill { .. } => 1.0,
        };
        energy_mj.map(|energy| energy * part * (to - from))
    }

    /// The first boundary after `position`; the end of the phase is the last one.
    pub fn next_boundary(&self, work: Work, phase: Phase, position: f64) -> f64 {
        let end = work.units(phase);
        match self {
            Self::Fixed { boundaries, .. } => {
                boundaries.iter().copied().find(|&b| b > position + SAME_POSITION).unwrap_or(end).min(end)
            }
            Self::Prefill { chunk: None, .. } => end,
            Self::Prefill { chunk: Some(chunk), .. } => next_multiple(position, f64::from(*chunk)).min(end),
            Self::Steps { .. } | Self::Decode { .. } => next_multiple(position, 1.0).min(end),
        }
    }

    /// What can be done with pieces of a prompt; `None` for other phases.
    pub fn pieces(&self) -> Option<&Pieces> {
        match self {
            Self::Prefill { pieces, .. } => Some(pieces),
            _ => None,
        }
    }

    /// Whether prompt pieces of any size can be run.
    pub fn any_piece(&self) -> bool {
        self.pieces().is_some_and(|pieces| pieces.efficiency.is_some())
    }

    /// Equal parts of a segment after which it can be preempted; 1 if only at its end.
    pub fn layer_groups(&self) -> u32 {
        self.pieces().map_or(1, |pieces| pieces.layer_groups)
    }

    /// Where a run that starts at `from` under a limit ends [units].
    pub fn limit_end(&self, work: Work, phase: Phase, from: f64, limit: Limit) -> f64 {
        let end = work.units(phase);
        let mut to = from;
        match limit {
            Limit::Segments(segments) => {
                for _ in 0..segments {
                    to = self.next_boundary(work, phase, to);
                    if to >= end {
                        break;
                    }
                }
                to
            }
            Limit::Units(units) if self.any_piece() => (from + f64::from(units)).min(end),
            Limit::Units(units) => {
                // Whole steps, chunks of one size, or few segments: no loop over tokens.
                if let Self::Prefill { chunk: Some(chunk), .. } = self {
                    let chunk = f64::from(*chunk);
                    return (((from + f64::from(units)) / chunk - SAME_POSITION).ceil() * chunk).min(end);
                }
                while to < end && to < from + f64::from(units) - SAME_POSITION {
                    to = match self {
                        Self::Steps { .. } | Self::Decode { .. } => from + f64::from(units),
                        _ => self.next_boundary(work, phase, to),
                    };
                }
                to.min(end)
            }
        }
    }

    /// Nominal latency of the prompt tokens `from`..`to` as one piece, alone [ns]: their time within the whole prompt over the
    /// efficiency of a piece of that size, and the overhead of a segment that is not the first. Where only the profile's segments
    /// can be run, their latency. Where the cache is written to slower memory meanwhile, that takes as long as for the whole.
    pub fn piece_ns(&self, work: Work, from: f64, to: f64) -> f64 {
        let Self::Prefill {
            latency_ns,
            chunk_overhead_ns,
            pieces: Pieces { efficiency: Some(efficiency), written, .. },
            ..
        } = self
        else {
            return self.latency_ns(work, from, to);
        };
        let &(largest, _) = efficiency.points().last().expect("a curve has at least one point");
        let latency_ns = written.as_ref().map_or(latency_ns, |written| &written.compute_ns);
        let within = latency_ns.at(to) - latency_ns.at(from);
        let compute = within / efficiency.at((to - from).min(largest));
        let both = |written: &Written| overlapped(compute, written.token_ns * (to - from), written.layers);
        written.as_deref().map_or(compute, both) + if from > 0.0 { *chunk_overhead_ns } else { 0.0 }
    }

    /// Data moved over the bus by the prompt tokens `from`..`to` as one piece [bytes]: the weights once.
    pub fn piece_bytes(&self, work: Work, from: f64, to: f64) -> f64 {
        match self {
            Self::Prefill { bytes_per_segment, bytes_per_token, pieces, .. } if pieces.efficiency.is_some() => {
                bytes_per_segment + bytes_per_token * (to - from)
            }
            _ => self.bytes(work, from, to),
        }
    }

    /// The last boundary at or before `position`.
    pub fn boundary_at_or_before(&self, position: f64) -> f64 {
        match self {
            Self::Fixed { boundaries, .. } => {
                boundaries.iter().copied().rev().find(|&b| b <= position + SAME_POSITION).unwrap_or(0.0)
            }
            Self::Prefill { chunk: None, .. } => 0.0,
            Self::Prefill { chunk: Some(chunk), .. } => {
                let chunk = f64::from(*chunk);
                ((position / chunk + SAME_POSITION).floor()) * chunk
            }
            Self::Steps { .. } | Self::Decode { .. } => (position + SAME_POSITION).floor(),
        }
    }

    /// Where a run that started at `from` is after `elapsed_ns` of nominal progress [units], at most `to`.
    ///
    /// Exact for linear costs; by bisection over whole units for tables.
    pub fn position_after(&self, work: Work, from: f64, to: f64, elapsed_ns: f64) -> f64 {
        match self {
            Self::Fixed { latency_ns, .. } => (from + elapsed_ns / (latency_ns * work.scale).max(1.0)).min(to),
            Self::Steps { step_ns, reuse: Some(reuse), .. } => {
                // Whole steps by bisection, the rest within the step that runs.
                let first = (from + SAME_POSITION).floor();
                let done = elapsed_ns + self.latency_ns(work, first, from);
                let (mut low, mut high) = (0.0, (to - first).max(0.0).ceil() + 1.0);
                while high - low > 1.0 {
                    let middle = f64::midpoint(low, high).floor();
                    if self.latency_ns(work, first, first + middle) <= done + 0.5 {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                let here = first + low;
                let running = if here % f64::from(reuse.every) == 0.0 { *step_ns } else { reuse.step_ns };
                let rest = (done - self.latency_ns(work, first, here)).max(0.0);
                (here + rest / running.max(1.0)).min(to)
            }
            Self::Steps { step_ns, .. } => (from + elapsed_ns / step_ns.max(1.0)).min(to),
            Self::Prefill { .. } | Self::Decode { .. } => {
                // Invariant: latency(from, low) <= elapsed < latency(from, high).
                let (mut low, mut high) = (0.0, (to - from).max(0.0) + 1.0);
                while high - low > 1.0 {
                    let middle = f64::midpoint(low, high).floor();
                    if self.latency_ns(work, from, from + middle) <= elapsed_ns + 0.5 {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                (from + low).min(to)
            }
        }
    }

    /// The most requests that one step of decode or of a loop can serve; 1 without batching.
    pub fn batch_max(&self) -> u32 {
        match self {
            Self::Decode { batch: Some(curve), .. } | Self::Steps { batch: Some(curve), .. } => {
                curve.points().last().map_or(1, |&(batch, _)| batch as u32)
            }
            _ => 1,
        }
    }

    /// Latency of a step at `batch` relative to batch 1.
    pub fn batch_factor(&self, batch: u32) -> f64 {
        match self {
            Self::Decode { batch: Some(curve), .. } | Self::Steps { batch: Some(curve), .. } => {
                curve.at(f64::from(batch))
            }
            _ => 1.0,
        }
    }

    /// Energy of one of the members of a batch for the units `from`..`to` [mJ], where the profile states it. A decode step is bound by
    /// the weights, which are read once for all: it takes as much as alone. A loop's step draws as much power as alone, for longer.
    pub fn member_energy_mj(&self, work: Work, from: f64, to: f64, members: u32) -> Option<f64> {
        let step = if matches!(self, Self::Steps { .. }) { self.batch_factor(members) } else { 1.0 };
        self.energy_mj(work, from, to).map(|energy| energy * (step / f64::from(members)))
    }

    /// Data moved over the bus by one of the members of a batch for the units `from`..`to` [bytes]: what only it moves, and its part of
    /// the weights, which are moved once for all.
    pub fn member_bytes(&self, work: Work, from: f64, to: f64, members: u32) -> f64 {
        let shared = match self {
            Self::Decode { bytes_per_step, .. } => bytes_per_step * (to - from) * work.exit,
            Self::Steps { bytes, reuse: Some(reuse), weights, .. } => {
                reuse.sum(from, to, bytes.min(*weights), reuse.bytes.min(*weights))
            }
            Self::Steps { bytes, weights, .. } => bytes.min(*weights) * (to - from),
            Self::Fixed { .. } | Self::Prefill { .. } => 0.0,
        };
        self.bytes(work, from, to) - shared * (1.0 - 1.0 / f64::from(members))
    }

    /// Ratio of the sampled latency to the nominal one, for a uniform sample `u` in [0, 1) and the scenario's variation
    /// factor, which applies only where the profile gives a single number.
    pub fn latency_factor(&self, u: f64, variation: f64) -> f64 {
        match self {
            Self::Fixed { quantiles: Some(quantiles), .. } => quantiles.at(u),
            _ => variation,
        }
    }

    /// How many inferences, steps or prompt segments the units `from`..`to` are; parts of an inference count as such.
    pub fn segments(&self, work: Work, from: f64, to: f64) -> f64 {
        match self {
            Self::Prefill { .. } => (self.segments_before(work, to) - self.segments_before(work, from)).max(0.0),
            Self::Fixed { .. } | Self::Steps { .. } | Self::Decode { .. } => to - from,
        }
    }

    /// Number of segments of the prompt that end at or before `position`, counting a partial last one.
    fn segments_before(&self, work: Work, position: f64) -> f64 {
        match self {
            Self::Prefill { chunk: Some(chunk), .. } => (position / f64::from(*chunk) - SAME_POSITION).ceil().max(0.0),
            Self::Prefill { .. } if position > 0.0 => (position / f64::from(work.prompt.max(1))).ceil(),
            _ => 0.0,
        }
    }
}

fn next_multiple(position: f64, step: f64) -> f64 {
    ((position / step + SAME_POSITION).floor() + 1.0) * step
}

/// What a model costs on one processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The phases in order; the same kinds on every processor.
    pub phases: Vec<(Phase, PhaseCost)>,
    /// Memory held while a stage runs, besides weights and caches [bytes].
    pub activation_bytes: u64,
    /// Time to load the weights [ns].
    pub load_ns: u64,
    /// Index of the profile entry among the system's figures.
    pub figure: u32,
    /// What it costs while its cache stays in slower memory; `None`: it cannot stay there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far: Option<Box<Far>>,
    /// How much of a divided processor it is for, and what narrower parts of it cost.
    #[serde(default, skip_serializing_if = "Widths::is_whole")]
    pub widths: Widths,
}

/// The widths that a cost is stated for, on a processor that can be divided into units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Widths {
    /// Units that [`Cost::phases`] takes: the widest that is stated. 0: the processor cannot be divided.
    pub widest: u32,
    /// What fewer units cost, the narrowest first. Other widths than those that are stated cannot be run: nothing says what they cost.
    pub narrower: Vec<Narrower>,
}

/// What a model costs on so many units of a processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Narrower {
    /// Units, ≥ 1.
    pub units: u32,
    /// The phases, of the same kinds as [`Cost::phases`].
    pub phases: Vec<(Phase, PhaseCost)>,
    /// Index of the profile entry among the system's figures.
    pub figure: u32,
}

impl Widths {
    fn is_whole(&self) -> bool {
        self.widest == 0
    }

    /// Numbers of units that can be run on, the narrowest first; a single 0 on a processor that cannot be divided.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.narrower.iter().map(|narrower| narrower.units).chain([self.widest])
    }
}

impl Cost {
    /// The cost of these phases on all of a processor, without activations and loading, by the first of the system's figures.
    pub fn of(phases: Vec<(Phase, PhaseCost)>) -> Self {
        Self { phases, activation_bytes: 0, load_ns: 0, figure: 0, far: None, widths: Widths::default() }
    }

    /// The cost while the cache is in slower memory (`far`), where that is possible, or in memory.
    pub fn with_cache(&self, far: bool) -> &Self {
        match &self.far {
            Some(slow) if far => &slow.cost,
            _ => self,
        }
    }

    /// The phases on so many units; on the widest part where nothing is stated for that number, which 0 stands for.
    pub fn on_units(&self, units: u32) -> &[(Phase, PhaseCost)] {
        let narrower = self.widths.narrower.iter().find(|narrower| narrower.units == units);
        narrower.map_or(&self.phases, |narrower| &narrower.phases)
    }

    /// Index of the profile entry for so many units.
    pub fn figure_on(&self, units: u32) -> u32 {
        let narrower = self.widths.narrower.iter().find(|narrower| narrower.units == units);
        narrower.map_or(self.figure, |narrower| narrower.figure)
    }

    /// The phases at every width, with the number of units; 0 on a processor that cannot be divided.
    pub fn at_all_widths(&self) -> impl Iterator<Item = (u32, &[(Phase, PhaseCost)])> {
        let narrower = self.widths.narrower.iter().map(|narrower| (narrower.units, narrower.phases.as_slice()));
        narrower.chain([(self.widths.widest, self.phases.as_slice())])
    }

    /// Nominal latency of the rest of a stage that stands at `position` units of phase number `phase` [ns].
    pub fn remaining_ns(&self, work: Work, phase: usize, position: f64) -> f64 {
        remaining_ns(&self.phases, work, phase, position)
    }

    /// Nominal latency of a whole stage [ns].
    pub fn total_ns(&self, work: Work) -> f64 {
        self.remaining_ns(work, 0, 0.0)
    }
}

/// Nominal latency of what is left of some phases from `position` units of number `phase` on [ns].
pub fn remaining_ns(phases: &[(Phase, PhaseCost)], work: Work, phase: usize, position: f64) -> f64 {
    let mut sum = 0.0;
    for (i, (kind, cost)) in phases.iter().enumerate().skip(phase) {
        let from = if i == phase { position } else { 0.0 };
        let end = work.units(*kind);
        if end > from {
            sum += cost.latency_ns(work, from, end);
        }
    }
    sum
}

#[cfg(test)]
mod tests;
