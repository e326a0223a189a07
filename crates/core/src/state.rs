//! What is going on right now: live jobs and stages, what runs where, what is in memory. Plain data, kept by the driver
//! (simulator or runtime) and read by policies through [`View`](crate::policy::View).

use crate::cost::{Cost, Phase, Work};
use crate::id::{IdVec, JobId, ModelId, NodeId, ProcessorId, ProcessorSet, SourceId, StageId};
use crate::slab::Slab;
use crate::system::{Processor, System};
use crate::units::{Bytes, Nanos};

/// What is going on right now.
#[derive(Clone, Debug)]
pub struct State {
    /// Current time.
    pub now: Nanos,
    /// Live jobs.
    pub jobs: Slab<JobId, Job>,
    /// Live stage instances whose predecessors have finished.
    pub stages: Slab<StageId, Stage>,
    /// Stages that wait for a processor, in the order in which they became ready; less those of best-effort sources.
    pub ready: Vec<StageId>,
    /// Stages of best-effort sources that wait for a processor, in the order in which they became ready.
    pub background: Vec<StageId>,
    /// What each processor does.
    pub processors: IdVec<ProcessorId, Occupancy>,
    /// What is in memory.
    pub memory: Memory,
    /// Processors, as bits by id, that have failed: nothing can run there any more.
    pub failed: u64,
    /// Speed, power and temperature of each processor.
    pub power: IdVec<ProcessorId, PowerState>,
    /// Whether it is run in real time: then prompt pieces share no steps with decode. What
    /// [real devices](crate::policy::View::on_devices) cannot do besides is rehearsed where there are none.
    pub real: bool,
}

impl State {
    /// A stage waits for a processor from now on.
    pub fn wait(&mut self, stage: StageId, best_effort: bool) {
        if best_effort {
            self.background.push(stage);
        } else {
            self.ready.push(stage);
        }
    }

    /// A stage does not wait any more. Whether it did.
    pub fn stop_waiting(&mut self, stage: StageId) -> bool {
        for waiting in [&mut self.ready, &mut self.background] {
            if let Some(place) = waiting.iter().position(|&other| other == stage) {
                waiting.remove(place);
                return true;
            }
        }
        false
    }

    /// Whether a stage waits for a processor.
    pub fn is_waiting(&self, stage: StageId) -> bool {
        self.ready.contains(&stage) || self.background.contains(&stage)
    }

    /// Nothing has happened yet.
    pub fn new(system: &System) -> Self {
        Self {
            now: Nanos::ZERO,
            jobs: Slab::new(),
            stages: Slab::new(),
            ready: Vec::new(),
            background: Vec::new(),
            processors: system.platform.processors.iter().map(Occupancy::new).collect(),
            memory: Memory {
                capacity: system.platform.capacity,
                used: Bytes::ZERO,
                swapped: Bytes::ZERO,
                swap_free_at: Nanos::ZERO,
                resident: system
                    .models
                    .iter()
                    .map(|_| system.platform.processors.iter().map(|_| None).collect())
                    .collect(),
            },
            failed: 0,
            real: false,
            power: system.platform.processors.iter().map(PowerState::new).collect(),
        }
    }
}

/// Speed, power and temperature of a processor right now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PowerState {
    /// The operating point that it runs at.
    pub point: u32,
    /// The fastest point that its temperature allows.
    pub allowed: u32,
    /// Whether its temperature holds it back: `allowed` is not the fastest point.
    pub throttled: bool,
    /// Whether points can be chosen: it has several, and in a real run it is a virtual device.
    pub adjustable: bool,
    /// Temperature [°C], where it is modelled.
    pub celsius: Option<f64>,
    /// Power, leakage included [W], where it is known.
    pub watts: Option<f64>,
}

impl PowerState {
    /// A processor at the start of a run.
    fn new(processor: &Processor) -> Self {
        let Some(model) = &processor.power else { return Self::default() };
        Self {
            point: 0,
            allowed: model.fastest(),
            throttled: false,
            adjustable: model.points.len() > 1,
            celsius: model.thermal.map(|node| node.start),
            watts: Some(model.power(model.points[0].idle_w, model.thermal.map_or(0.0, |node| node.start))),
        }
    }
}

/// A live job: one activation of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Number in order of release, from 0, never reused.
    pub serial: u64,
    /// Who released it.
    pub source: SourceId,
    /// Nominal release.
    pub release: Nanos,
    /// Absolute deadline; [`Nanos::MAX`] without one.
    pub deadline: Nanos,
    /// Whether any of its stages has started.
    pub started: bool,
    /// How many of its stages run now.
    pub running: u32,
    /// Class of what it sees, by number among the classes of its source's content; `None` where its source does not say what it sees.
    pub content: Option<u8>,
}

/// A live stage instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Number in order of becoming ready, from 0, never reused.
    pub serial: u64,
    /// Its job.
    pub job: JobId,
    /// Which stage of which chain.
    pub node: NodeId,
    /// Which of its variants it runs: 0 is the default one. A policy can change it until the stage starts.
    pub variant: u8,
    /// Model that it runs: the variant.
    pub model: ModelId,
    /// Model whose weights it uses: `model`, unless that one shares another one's.
    pub weights: ModelId,
    /// When it became ready.
    pub ready_at: Nanos,
    /// Size of the work as far as a policy may know it: for autoregressive models the real prompt length, and the expected or
    /// predicted output length (at least what was generated so far). Where a cache is computed again, the tokens so far count as
    /// prompt. Of early exits, the mean of those that it had not passed when it stopped last.
    pub work: Work,
    /// Number of the current phase.
    pub phase: u8,
    /// Kind of the current phase.
    pub kind: Phase,
    /// Progress in the current phase, at the last boundary that the driver knows of [units].
    pub position: f64,
    /// Progress within the segment that starts at `position`, if it was preempted within one [ns of nominal latency].
    pub partial_ns: f64,
    /// Where it ran last, or runs; for a streaming model that has not started, where its state is.
    pub processor: Option<ProcessorId>,
    /// Where its input was produced, and the input's size [bytes].
    pub input: Option<(ProcessorId, f64)>,
    /// Whether it runs now.
    pub running: bool,
    /// Units that it runs on, or ran on last, of a processor that can be divided; 0 elsewhere.
    pub units: u32,
    /// When its first token came out.
    pub first_token: Option<Nanos>,
    /// Output tokens so far.
    pub tokens: u32,
    /// Where a draft model ran for it last, and how much of the context it has read there [tokens].
    pub drafted: Option<(ProcessorId, u32)>,
    /// Processors, as bits by id, on which its start was refused because memory ran out; cleared when memory is freed.
    pub refused: u64,
    /// Where its key-value cache is.
    pub cache: Cache,
    /// The part of its cache that was copied to another processor, or is being copied, while it goes on here.
    pub copy: Option<CacheCopy>,
}

/// A copy of a cache on another processor: what was written later is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheCopy {
    /// Where.
    pub to: ProcessorId,
    /// Tokens that it holds.
    pub tokens: f64,
    /// When it is complete.
    pub done: Nanos,
}

/// Where a stage's key-value cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    /// Memory that is held for it.
    pub held: Bytes,
    /// What of it lies in slower memory: all of it, or nothing. If `far`, what is reserved for it there.
    pub swapped: Bytes,
    /// Whether it stays in slower memory while the stage runs.
    pub far: bool,
    /// When all of it has been read back from slower memory; the stage makes no progress before.
    pub there_at: Nanos,
}

impl Stage {
    /// Whether anything of it was done that another variant could not go on from.
    pub fn has_begun(&self) -> bool {
        self.running || self.phase > 0 || self.position > 0.0 || self.partial_ns > 0.0
    }

    /// Tokens in its key-value cache, wherever that is; of an answer, the last one is counted with them. 0 without a cache.
    pub fn context(&self) -> f64 {
        match self.kind {
            Phase::Prefill => self.position,
            Phase::Decode => f64::from(self.work.prompt) + 1.0 + self.position,
            Phase::Forward | Phase::Before | Phase::Steps | Phase::After => 0.0,
        }
    }

    /// Units for which its cost is to be read: those that it runs on, and otherwise the widest part that is stated.
    pub(crate) fn units_to_run_on(&self, cost: &Cost) -> u32 {
        if self.running { self.units } else { cost.widths.widest }
    }

    /// It runs on a processor from now on: a copy of its cache that was made from elsewhere is of no more use.
    pub fn go_to(&mut self, processor: ProcessorId) {
        if self.processor != Some(processor) {
            self.copy = None;
        }
        self.processor = Some(processor);
    }

    /// The stage as it would be if it ran another of its variants.
    #[must_use]
    pub fn in_variant(self, system: &System, variant: u8) -> Self {
        let node = &system.nodes[self.node];
        let model = node.model_of(variant);
        let mut work = node.work_of(variant, self.work);
        if variant == self.variant {
            // What is known of its exits by now.
            work.exit = self.work.exit;
        }
        Self { variant, model, weights: system.weights_of(model), work, ..self }
    }
}

/// What a processor does.
#[derive(Clone, Debug, Default)]
pub struct Occupancy {
    /// Running work in order of start: at most one entry per slot, or per unit of a processor that can be divided.
    pub runs: Vec<Run>,
    /// Model whose weights it started with last: variants that share weights count as one. Of a processor that can be divided, on
    /// whichever of its parts; each [`Part`] has its own.
    pub last_model: Option<ModelId>,
    /// When it last became less busy.
    pub idle_since: Nanos,
    /// The parts that it is divided into at present, which together have all of its units; empty if it cannot be divided.
    pub parts: Vec<Part>,
}

/// A part of a processor that can be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many units it has.
    pub units: u32,
    /// Model whose weights it started with last.
    pub last_model: Option<ModelId>,
    /// The run that it serves.
    pub run: Option<u64>,
}

impl Occupancy {
    /// A processor at the start of a run: in one part, if it can be divided.
    fn new(processor: &Processor) -> Self {
        let whole = |units| Part { units, last_model: None, run: None };
        let parts = processor.division.map(|division| whole(division.units)).into_iter().collect();
        Self { parts, ..Self::default() }
    }

    /// Whether there is a part of exactly so many units that nothing runs on.
    pub fn has_part(&self, units: u32) -> bool {
        self.parts.iter().any(|part| part.run.is_none() && part.units == units)
    }

    /// The idle part of so many units that a model would take: one that ran it last, or else the first.
    fn part_for(&self, units: u32, model: Option<ModelId>) -> Option<usize> {
        let fits = |part: &&Part| part.run.is_none() && part.units == units;
        let place = |wanted: &dyn Fn(&Part) -> bool| self.parts.iter().position(|part| fits(&part) && wanted(part));
        place(&|part| part.last_model == model).or_else(|| place(&|_| true))
    }

    /// The model that ran last where a run of so many units would start: a cut part keeps that of the first idle one that it is made
    /// of.
    pub fn model_before(&self, units: u32, model: ModelId) -> Option<ModelId> {
        let part = self.part_for(units, Some(model)).or_else(|| self.parts.iter().position(|part| part.run.is_none()));
        part.and_then(|place| self.parts[place].last_model)
    }

    /// A run takes so many idle units: an idle part of that size, or one that is cut from idle parts in their order. What is left of
    /// them becomes one part. Without a model's weights, the part has run last what it or the first of them ran last. Nothing happens on
    /// a processor that cannot be divided.
    pub fn take_units(&mut self, units: u32, weights: Option<ModelId>, run: u64) {
        if self.parts.is_empty() {
            return;
        }
        let taken = |before: Option<ModelId>| Part { units, last_model: weights.or(before), run: Some(run) };
        if let Some(place) = self.part_for(units, weights) {
            self.parts[place] = taken(self.parts[place].last_model);
            return;
        }
        let first = self.parts.iter().position(|part| part.run.is_none()).expect("there are idle units");
        let taken = taken(self.parts[first].last_model);
        let (mut found, mut last_model, mut place) = (0, None, first);
        while found < units {
            let part = self.parts[place];
            if part.run.is_some() {
                place += 1;
            } else {
                (found, last_model) = (found + part.units, part.last_model);
                self.parts.remove(place);
            }
        }
        self.parts.insert(first, taken);
        if found > units {
            self.parts.insert(first + 1, Part { units: found - units, last_model, run: None });
        }
    }

    /// The units of a run are idle again.
    pub fn release_units(&mut self, run: u64) {
        for part in self.parts.iter_mut().filter(|part| part.run == Some(run)) {
            part.run = None;
        }
    }
}

/// Work that runs on one slot of a processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Number in order of start, from 0, never reused.
    pub serial: u64,
    /// The stage; the first of several in a batch.
    pub stage: StageId,
    /// The other stages of a batch, and those that join at the next boundary.
    pub others: Vec<StageId>,
    /// Model.
    pub model: ModelId,
    /// Kind of phase.
    pub kind: Phase,
    /// Start.
    pub start: Nanos,
    /// When it will end by nominal latencies and expected lengths, without contention; not before now. Best-effort work on a processor
    /// that preempts ends whenever it is asked to: its start.
    pub expected_end: Nanos,
    /// Whether a policy has asked to end it at the next boundary.
    pub ending: bool,
    /// If several processors work on it together: all of them, each of which lists it; otherwise empty. The stage's own is
    /// [`Stage::processor`].
    pub over: ProcessorSet,
}

impl Run {
    /// All stages that it serves or that will join it.
    pub fn stages(&self) -> impl Iterator<Item = StageId> + '_ {
        std::iter::once(self.stage).chain(self.others.iter().copied())
    }
}

/// What is in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// How much there is; `None`: unlimited.
    pub capacity: Option<Bytes>,
    /// How much is in use.
    pub used: Bytes,
    /// How much of the slower memory is in use.
    pub swapped: Bytes,
    /// When the link to the slower memory will have moved what it has been given so far.
    pub swap_free_at: Nanos,
    /// When each model's weights on each processor were last used; `None`: not in memory.
    pub resident: IdVec<ModelId, IdVec<ProcessorId, Option<Nanos>>>,
}

impl Memory {
    /// Memory that is not in use; `None`: unlimited.
    pub fn free(&self) -> Option<Bytes> {
        self.capacity.map(|capacity| Bytes(capacity.0.saturating_sub(self.used.0)))
    }

    /// Whether the model's weights are in memory for the processor.
    pub fn is_resident(&self, model: ModelId, processor: ProcessorId) -> bool {
        self.resident[model][processor].is_some()
    }
}
