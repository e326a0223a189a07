//! Models that do a task, and their inferences in progress.

use std::any::Any;
use std::fmt::Debug;

use crate::control::Control;
use crate::data::Data;
use crate::error::Error;
use crate::graph::Footprint;

/// A loaded model: what does a task.
pub trait Model: Send + Sync + Debug {
    /// Memory that it takes.
    fn footprint(&self) -> Footprint;

    /// How many segments one inference of a `one_shot` or `streaming` model consists of, ≥ 1; each is one [`Session::step`].
    fn segments(&self) -> usize {
        1
    }

    /// How much work an input is.
    ///
    /// # Errors
    /// If the input is none that the model takes.
    fn size(&self, input: &[Data]) -> Result<Size, Error> {
        let _ = input;
        Ok(Size::default())
    }

    /// A session: for `streaming` models one per stream, which keeps the state between inferences; for others one per inference, or
    /// used again for the next.
    ///
    /// # Errors
    /// If there is no memory.
    fn open(&self) -> Result<Box<dyn Session>, Error>;

    /// How many sessions [`Model::step_together`] takes at most, ≥ 1; 1: none share their steps.
    fn members_max(&self) -> usize {
        1
    }

    /// Does one step of each of several sessions of this model in one go: one more output token of each, or one more step. Each gets what
    /// [`Session::step`] would give it, up to rounding, but the device reads the weights once for all. The steps are in the order of the
    /// sessions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a session is of another model, is finished, or is still in its
    /// prompt; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if there are more than [`Model::members_max`]. After
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) the same step can be done again, together or one by one.
    fn step_together(&self, sessions: &mut [&mut dyn Session], control: &Control) -> Result<Vec<Step>, Error> {
        match sessions {
            [one] => Ok(vec![one.step(1, control)?]),
            _ => Err(Error::unsupported(format!("{} sessions of this model do not share their steps", sessions.len()))),
        }
    }
}

/// How much work an input is, for models whose work depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Prompt length of an `autoregressive` model [tokens].
    pub prompt: u32,
    /// Steps of an `iterative` model.
    pub steps: u32,
}

/// An inference in progress, or a stream of them. It moves between threads, but one at a time uses it. Its model recognises it by its
/// type ([`Any`]) where several share a step.
pub trait Session: Any + Send + Debug {
    /// Begins the next inference. The input holds what the stages before produced, then what the source released; a model looks
    /// for the first item of the type that it needs.
    ///
    /// # Errors
    /// If the input is none that the model takes.
    fn begin(&mut self, input: &[Data]) -> Result<(), Error>;

    /// Does the next piece of the inference: one segment; one step of an `iterative` model; up to `units` tokens of the prompt – after
    /// the last of which the first output token is there –, or one more output token, of an `autoregressive` one. `units` counts only
    /// in a prompt.
    ///
    /// # Errors
    /// After [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) the same step can be done again.
    fn step(&mut self, units: u32, control: &Control) -> Result<Step, Error>;

    /// Ends an inference that would go on, because its output is as long as it may become. What there is so far is what it produced;
    /// the part of it that no [`Step::parts`] has given yet is returned.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the model knows no end but its own.
    fn end_early(&mut self) -> Result<Vec<Data>, Error> {
        Err(Error::unsupported("this model's inferences cannot be ended early"))
    }

    /// Takes what the finished inference has produced.
    ///
    /// # Errors
    /// If it is not finished.
    fn finish(&mut self) -> Result<Output, Error>;

    /// What it takes to go on elsewhere: state of a stream, caches of a language model.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it cannot be taken elsewhere.
    fn save(&self) -> Result<Vec<u8>, Error> {
        Err(Error::unsupported("this model's sessions cannot be moved"))
    }

    /// Goes on from what another session of the same model, perhaps on another device, has saved.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it cannot.
    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let _ = saved;
        Err(Error::unsupported("this model's sessions cannot be moved"))
    }

    /// Memory that its state and caches take now [bytes].
    fn memory(&self) -> u64 {
        0
    }
}

/// What a step has done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Units that it advanced by: segments, steps, prompt tokens or output tokens.
    pub units: u32,
    /// Whether the whole inference is finished.
    pub done: bool,
    /// What is complete already and may go to the stages that follow before the inference is finished: sentences of a text.
    pub parts: Vec<Data>,
}

/// What a finished inference has produced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// For the stages that follow. For a model that gave [`Step::parts`], the whole again.
    pub data: Vec<Data>,
    /// Whether stages that follow only sometimes shall follow.
    pub gate: Gate,
}

/// Whether stages that follow only sometimes (edges with a probability) shall follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// The model has no say: the scenario's probability decides.
    #[default]
    Unknown,
    /// They follow, so many times where an edge has a fan-out: once per face that was found.
    Follow(u32),
    /// They do not.
    Stop,
}
