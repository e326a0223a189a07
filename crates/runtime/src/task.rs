//! What the dispatcher and the processors' threads say to each other, as plain data.

use std::sync::Arc;

use onbeat_core::cost::Phase;
use onbeat_core::id::{ModelId, NodeId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::units::Nanos;

/// What a processor is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Run stages on a slot, from where they stand.
    Launch(Launch),
    /// End a run at the next boundary.
    Cut {
        /// Where.
        processor: ProcessorId,
        /// The run.
        run: u64,
    },
    /// A virtual device takes so many times as long as its profile says, from its next step on.
    Pace {
        /// The run.
        run: u64,
        /// The factor.
        stretch: f64,
    },
    /// What several virtual devices work on goes on like this, from its next segment on.
    Replan {
        /// The run.
        run: u64,
        /// See [`JointLaunch::ends_ns`].
        ends_ns: Arc<[f64]>,
    },
    /// Remove a model's weights.
    Unload {
        /// The model.
        model: ModelId,
        /// For which processor.
        processor: ProcessorId,
    },
    /// A stage is gone for good, and with it what was kept for it.
    Forget {
        /// Serial number of the stage.
        stage: u64,
    },
}

/// A run to be executed.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Number of the run.
    pub run: u64,
    /// Where.
    pub processor: ProcessorId,
    /// Slot of the processor, from 0.
    pub slot: u32,
    /// The model.
    pub model: ModelId,
    /// Phase that all members are in.
    pub phase: Phase,
    /// Number of the phase.
    pub phase_index: u8,
    /// The stages that run: several in a batch.
    pub members: Vec<Member>,
    /// Whether the weights are loaded first.
    pub loads: bool,
    /// What precedes progress, nominally.
    pub setup: Nanos,
    /// Steps after which the run ends even if the phase does not; `None`: to the end of the phase.
    pub steps_max: Option<u32>,
    /// How many times as long as its profile says a virtual device takes, because of its operating point.
    pub stretch: f64,
    /// Longest step that a device is asked for: tokens of a prompt per step; 1 in other phases.
    pub units_per_step: u32,
    /// Whether it is a prompt piece of a size that the policy chose.
    pub piece: bool,
    /// Whether a virtual device tells of every step: something depends on it.
    pub tells: bool,
    /// If several virtual devices work on it.
    pub joint: Option<JointLaunch>,
}

/// What several virtual devices do together. The processor of the launch sleeps for all of them; its steps are segments.
#[derive(Clone, Debug, PartialEq)]
pub struct JointLaunch {
    /// The other processors: each holds a slot.
    pub over: ProcessorSet,
    /// When it starts and each of its segments ends, counted from the end of the setup [ns].
    pub ends_ns: Arc<[f64]>,
    /// Whether it goes to the end of the phase.
    pub whole: bool,
}

/// A stage within a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The stage.
    pub stage: StageId,
    /// Its serial number.
    pub serial: u64,
    /// Serial number of its job.
    pub job: u64,
    /// Which stage of which chain.
    pub node: NodeId,
    /// Which of its variants it runs.
    pub variant: u8,
    /// Units that it runs on, of a processor that can be divided; else 0.
    pub units: u32,
    /// Whether its cache stays in slower memory.
    pub far: bool,
    /// Number among the instances of its node in the job.
    pub instance: u32,
    /// Whether it has not run before.
    pub fresh: bool,
    /// Where it stands in the phase [units].
    pub from: f64,
    /// Real size of the work, as far as it is known; the output is an upper bound.
    pub work: onbeat_core::cost::Work,
    /// Uniform sample for measured latency distributions, for virtual devices.
    pub u: f64,
    /// Execution time factor, for virtual devices.
    pub variation: f64,
}

/// What became of something that a processor was to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A run is under way. Only told where something depends on it.
    Progress {
        /// The run.
        run: u64,
        /// Steps done since its start.
        steps: u32,
    },
    /// A part of a stage's output is complete.
    Part {
        /// Serial number of the stage.
        stage: u64,
        /// Output tokens so far.
        tokens: u32,
    },
    /// What a stage found decides how many instances of the next one follow.
    Follow {
        /// Serial number of the job.
        job: u64,
        /// The stage that goes before.
        node: NodeId,
        /// Number of its edge.
        edge: u32,
        /// How many follow.
        count: u32,
    },
    /// How long the prompt of a stage that will follow is.
    Prompt {
        /// Serial number of the job.
        job: u64,
        /// The stage that will follow.
        node: NodeId,
        /// Number among its instances.
        instance: u32,
        /// Prompt length [tokens].
        prompt: u32,
        /// Upper bound of the output length [tokens].
        output_max: u32,
    },
    /// Of a run of several stages on a device, which ends now, this one is complete. Told before the run's end.
    Ended {
        /// The run.
        run: u64,
        /// Serial number of the stage.
        stage: u64,
    },
    /// A run has ended.
    Ran {
        /// The run.
        run: u64,
        /// Steps done since its start.
        steps: u32,
        /// Whether the inference is complete; of several stages, whether one is.
        finished: bool,
    },
    /// A device has failed a stage; its run has ended.
    Failed {
        /// The run.
        run: u64,
    },
    /// A processor does not answer, or is gone.
    Lost {
        /// Which.
        processor: ProcessorId,
    },
}
