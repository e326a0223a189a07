//! What happened in a run: the one vocabulary that simulator and runtime write, and that everything a person sees is
//! computed from.

use serde::{Deserialize, Serialize};

use crate::cost::Phase;
use crate::id::{ModelId, NodeId, ProcessorId, ProcessorSet, SourceId};
use crate::units::{Bytes, Nanos};

/// Something that happened, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Nanos,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened. Jobs, stages and runs are named by their serial numbers, which are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A job was released.
    Release {
        /// The job.
        job: u64,
        /// Who released it.
        source: SourceId,
        /// Nominal release, before jitter; deadlines and response times count from here.
        nominal: Nanos,
        /// Absolute deadline, if it has one.
        deadline: Option<Nanos>,
        /// Class of what it sees, by number among the classes of its source's content.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<u8>,
    },
    /// A stage's predecessors have finished: it waits for a processor.
    Ready {
        /// The stage.
        stage: u64,
        /// Its job.
        job: u64,
        /// Which stage of which chain.
        node: NodeId,
        /// Prompt length [tokens]; 0 unless autoregressive.
        prompt: u32,
        /// Output length [tokens]; 0 unless autoregressive.
        output: u32,
    },
    /// A policy lets a stage that has not begun run another of its variants.
    Switch {
        /// The stage.
        stage: u64,
        /// Number of the variant, 0 for the default one.
        variant: u8,
        /// The model that the variant is.
        model: ModelId,
    },
    /// A stage starts to run, or goes on. In a batch, several stages have the same run.
    Start {
        /// The run.
        run: u64,
        /// The stage.
        stage: u64,
        /// Where.
        processor: ProcessorId,
        /// Phase of the stage.
        phase: Phase,
        /// Context switch, loading and hand-over before progress begins.
        setup: Nanos,
        /// Other processors that work on the stage with it, each on one of its slots, until the run stops.
        #[serde(default, skip_serializing_if = "ProcessorSet::is_empty")]
        over: ProcessorSet,
        /// Units that it takes of a processor that can be divided; 0: all of the processor, or one of its slots.
        #[serde(default, skip_serializing_if = "is_zero")]
        units: u32,
    },
    /// A stage's run ends.
    Stop {
        /// The run.
        run: u64,
        /// The stage.
        stage: u64,
        /// Where.
        processor: ProcessorId,
        /// Why.
        why: StopReason,
        /// Time that the progress would have taken alone, at the operating points that it was made at; in a batch, the stage's share.
        alone: Nanos,
        /// Data moved over the bus, by all processors that worked on it; in a batch, the stage's share.
        bytes: Bytes,
        /// Energy, where known, of the work that was done (without idle power) [mJ], by all processors that worked on it; in a batch,
        /// the stage's share.
        energy_mj: Option<f64>,
        /// Output tokens that came out.
        tokens: u32,
    },
    /// The first token of an autoregressive stage came out.
    FirstToken {
        /// The stage.
        stage: u64,
        /// Its job.
        job: u64,
    },
    /// A stage is finished.
    StageDone {
        /// The stage.
        stage: u64,
        /// Its job.
        job: u64,
    },
    /// All stages of a job are finished.
    JobDone {
        /// The job.
        job: u64,
    },
    /// A job was given up.
    Drop {
        /// The job.
        job: u64,
        /// Why.
        cause: DropCause,
    },
    /// The run ended before the job did.
    Unfinished {
        /// The job.
        job: u64,
    },
    /// Weights are loaded into memory.
    Load {
        /// The model.
        model: ModelId,
        /// For which processor.
        processor: ProcessorId,
        /// Memory in use afterwards.
        used: Bytes,
    },
    /// Weights are removed from memory.
    Evict {
        /// The model.
        model: ModelId,
        /// For which processor.
        processor: ProcessorId,
        /// Memory in use afterwards.
        used: Bytes,
    },
    /// A waiting stage's cache is taken out of memory.
    EvictCache {
        /// The stage.
        stage: u64,
        /// What it held.
        held: Bytes,
        /// What is moved to slower memory; 0 if the cache is to be computed again.
        moved: Bytes,
        /// Tokens that are to be computed again; 0 if the cache is kept.
        #[serde(default)]
        tokens: u32,
        /// How long the link to slower memory is busy with it.
        #[serde(default)]
        took: Nanos,
    },
    /// A cache is read back from slower memory, because its stage starts.
    ReadCache {
        /// The stage.
        stage: u64,
        /// What is moved.
        moved: Bytes,
        /// How long the link to slower memory is busy with it.
        took: Nanos,
    },
    /// A waiting stage's cache is placed in slower memory, where it stays while the stage runs, or in memory again.
    PlaceCache {
        /// The stage.
        stage: u64,
        /// Whether it is in slower memory from now on.
        far: bool,
        /// What it held in memory.
        held: Bytes,
        /// What is moved to slower memory.
        moved: Bytes,
        /// How long the link to slower memory is busy with it.
        took: Nanos,
    },
    /// A stage's cache begins to be copied to another processor, while the stage goes on or waits.
    CopyCache {
        /// The stage.
        stage: u64,
        /// Where.
        to: ProcessorId,
        /// What is copied.
        moved: Bytes,
        /// How long that takes.
        took: Nanos,
    },
    /// A start did not fit into memory.
    OutOfMemory {
        /// The stage that should have started.
        stage: u64,
        /// Where.
        processor: ProcessorId,
        /// Memory missing.
        missing: Bytes,
    },
    /// Memory in use changed for another reason (caches and activations).
    Memory {
        /// Memory in use.
        used: Bytes,
    },
    /// Traffic on the memory bus changed.
    Bus {
        /// Data that moves now [bytes/ns = GB/s].
        traffic: f64,
        /// Processors' mean speed relative to running alone, over those that are making progress.
        speed: f64,
    },
    /// Speed, power and temperature of a processor: at the start of a run, whenever its operating point or its throttling changes, from
    /// time to time, and at the end. Only where the platform has operating points, leakage, thermal nodes or a power cap.
    Power {
        /// Which.
        processor: ProcessorId,
        /// Its operating point from now on.
        point: u32,
        /// Whether its temperature holds it back from now on.
        throttled: bool,
        /// Power from now on, leakage included [W], where known.
        watts: Option<f64>,
        /// Energy since the start of the run [mJ], where known.
        energy_mj: Option<f64>,
        /// Temperature [°C], where modelled.
        celsius: Option<f64>,
        /// The highest temperature since the last of these events [°C].
        peak_celsius: Option<f64>,
    },
    /// The policy was asked, in real time; what it decided follows.
    Asked {
        /// Number of the decision, from 0.
        decision: u64,
        /// Number of actions.
        actions: u32,
        /// Hash of the actions, so that a replay can tell whether they are the same.
        digest: u64,
    },
    /// In real time: a run is under way.
    Progress {
        /// The run.
        run: u64,
        /// Steps done since its start: segments, steps, prompt tokens or output tokens.
        steps: u32,
    },
    /// In real time: of a run of several stages on a device that runs models, this one is complete. The end of the run follows.
    Ended {
        /// The run.
        run: u64,
        /// The stage.
        stage: u64,
    },
    /// In real time: a device has ended a run.
    Ran {
        /// The run.
        run: u64,
        /// Steps done since its start: segments, steps, prompt tokens or output tokens.
        steps: u32,
        /// Whether the inference is complete; of several stages, whether one is.
        finished: bool,
    },
    /// In real time: a part of a stage's output is complete and goes to the stages that follow.
    Part {
        /// The stage.
        stage: u64,
        /// Output tokens so far.
        tokens: u32,
    },
    /// In real time: how long the output of an autoregressive stage turned out to be.
    Length {
        /// The stage.
        stage: u64,
        /// Output length [tokens].
        output: u32,
    },
    /// In real time: what a stage found decides how many instances of the next one follow.
    Follow {
        /// The job.
        job: u64,
        /// The stage that goes before.
        node: NodeId,
        /// Number of its edge.
        edge: u32,
        /// How many follow.
        count: u32,
    },
    /// A device has failed a run. The jobs of its stages are dropped.
    Failed {
        /// The run.
        run: u64,
        /// Where.
        processor: ProcessorId,
    },
    /// A processor does not answer or is gone: nothing runs on it any more.
    Lost {
        /// Which.
        processor: ProcessorId,
    },
    /// The run is over.
    End,
}

impl What {
    /// A run starts on all of one processor.
    pub fn start(run: u64, stage: u64, processor: ProcessorId, phase: Phase, setup: Nanos) -> Self {
        Self::Start { run, stage, processor, phase, setup, over: ProcessorSet::EMPTY, units: 0 }
    }
}

/// Why a stage's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The stage's current phase is finished.
    Finished,
    /// The policy asked for so many segments.
    Quantum,
    /// The policy preempted it.
    Preempted,
    /// The batch changed; the stage goes on at once in another run.
    Rebatched,
    /// The end of the simulated time.
    Horizon,
}

/// Why a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropCause {
    /// By the scenario's drop rule `late`.
    Late,
    /// By the scenario's drop rule `hopeless`.
    Hopeless,
    /// The source's queue was full.
    QueueFull,
    /// By the policy.
    Policy,
    /// A device failed, or none is left that could run it.
    Failed,
}

/// Takes the events of a run as they happen. Statistics, recorders and checkers are sinks.
pub trait Sink {
    /// Takes one event. Events come in order of time.
    fn event(&mut self, event: &Event);

    /// Whether it wants events at all; a driver may skip building events for a sink that does not.
    fn is_active(&self) -> bool {
        true
    }
}

/// A sink that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl Sink for NoSink {
    fn event(&mut self, _: &Event) {}
    fn is_active(&self) -> bool {
        false
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn event(&mut self, event: &Event) {
        (**self).event(event);
    }
    fn is_active(&self) -> bool {
        (**self).is_active()
    }
}

impl<A: Sink, B: Sink> Sink for (A, B) {
    fn event(&mut self, event: &Event) {
        self.0.event(event);
        self.1.event(event);
    }
    fn is_active(&self) -> bool {
        self.0.is_active() || self.1.is_active()
    }
}

impl<S: Sink> Sink for Option<S> {
    fn event(&mut self, event: &Event) {
        if let Some(sink) = self {
            sink.event(event);
        }
    }
    fn is_active(&self) -> bool {
        self.as_ref().is_some_and(Sink::is_active)
    }
}

impl Sink for Vec<Event> {
    fn event(&mut self, event: &Event) {
        self.push(*event);
    }
}

/// For fields that are left out where they are 0.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
