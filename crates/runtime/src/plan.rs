//! What a real run is given, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hdrhistogram::Histogram;
use onbeat_backend::Error;
use onbeat_core::policy::Policy;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_driver::{DriveError, Facts, Outcome};
use thiserror::Error as ThisError;

use crate::library::{Feed, Library};

/// What to run, and with what.
#[derive(Debug)]
pub struct Plan {
    /// The resolved scenario on its platform.
    pub system: Arc<System>,
    /// The policy.
    pub policy: Box<dyn Policy>,
    /// Its name, for errors.
    pub policy_name: String,
    /// Seed of arrivals, jitter, and whatever real data does not decide.
    pub seed: u64,
    /// What is known of jobs beforehand: prompts of sources that start with a language model. Nothing where all processors are virtual:
    /// then lengths are drawn from the seed, and a replay draws them again.
    pub facts: Facts,
    /// Loads models.
    pub library: Arc<dyn Library>,
    /// Gives jobs their data.
    pub feed: Arc<dyn Feed>,
    /// How the run behaves.
    pub options: Options,
}

/// How a run behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// A run that takes longer than this and [`Options::hang_factor`] times its nominal latency counts as hanging: its processor is
    /// lost.
    pub hang_floor: Duration,
    /// See [`Options::hang_floor`].
    pub hang_factor: f64,
    /// Whether the dispatcher asks for a real-time priority.
    pub urgent: bool,
    /// Cores for the dispatcher; empty: not pinned.
    pub dispatcher_cores: Vec<u32>,
    /// The run ends early, in order, as soon as this is true.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hang_floor: Duration::from_secs(5),
            hang_factor: 20.0,
            urgent: true,
            dispatcher_cores: Vec::new(),
            stop: Arc::default(),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What it did, in numbers.
    pub outcome: Outcome,
    /// When it ended.
    pub ended: Nanos,
    /// What could not be had: real-time priority, pinning.
    pub notes: Vec<String>,
    /// How late timers were served: the release jitter of the runtime itself.
    pub lateness: Times,
    /// How long instants took, from the first report to the last command.
    pub instants: Times,
}

/// A distribution of times in constant memory, to three significant digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three significant digits are possible"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, ns: u64) {
        // It grows with the largest time; only one beyond all memory is refused.
        let _ = self.0.record(ns);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A share of them, from 0 to 1, is at most this; 0 if there are none.
    pub fn at(&self, share: f64) -> Nanos {
        Nanos(self.0.value_at_quantile(share))
    }
}

/// Why a run could not begin, or ended early.
#[derive(Debug, ThisError)]
pub enum RunError {
    /// A model could not be loaded.
    #[error("`{model}` on `{processor}`: {error}")]
    Load {
        /// Name of the model.
        model: String,
        /// Name of the processor.
        processor: String,
        /// Why.
        error: Error,
    },
    /// A stage whose model states early exits could run on a real device: a backend runs the whole network, and nothing tells it when the
    /// answer is sure.
    #[error("stage `{stage}`: `exits` of its model are simulated and rehearsed only; real devices run whole networks")]
    Exits {
        /// Name of the stage.
        stage: String,
    },
    /// A stream says what it looks at, and its stages run on real devices: nothing tells what is to be seen in its real inputs.
    #[error(
        "stream `{stream}`: `content` is drawn, so it is simulated and rehearsed only; `{processor}` runs real models"
    )]
    Content {
        /// Name of the stream.
        stream: String,
        /// Name of a real processor that could run a stage of it.
        processor: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The policy did something impossible, or the scenario runs away.
    #[error(transparent)]
    Drive(#[from] DriveError),
}
