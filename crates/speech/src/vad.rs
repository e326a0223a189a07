//! Voice activity: Silero VAD.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{
    Audio, Control, Data, Error, Footprint, Gate, Graph, Loader, Model, Output, Session, Step, Tensor, Values,
    find_audio,
};

use crate::load::{footprint, load};
use crate::resample::Resampler;
use crate::saved::{Reader, Writer, damaged};

const RATE_HZ: u32 = 16_000;
/// New samples per frame: 32 ms.
const FRAME: usize = 512;
/// Samples of the frame before that each frame begins with.
const CONTEXT: usize = 64;
const STATE_SHAPE: [usize; 3] = [2, 1, 128];
const STATE: usize = 2 * 128;
const TAG: [u8; 4] = *b"vad1";

/// When there is speech.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VadOptions {
    /// Speech begins with a frame of at least this probability, 0 to 1.
    pub threshold: f32,
    /// Speech goes on as long as frames have at least this probability, 0 to `threshold`.
    pub release: f32,
    /// Speech ends only after this many frames of 32 ms below `release`: pauses within a sentence do not end it.
    pub hold_frames: u32,
}

impl Default for VadOptions {
    /// 0.5 and 0.35, as in the package `silero-vad` 6.2.3 (`VADIterator`: the release is 0.15 below the threshold), and three frames
    /// (96 ms; 100 ms there).
    fn default() -> Self {
        Self { threshold: 0.5, release: 0.35, hold_frames: 3 }
    }
}

/// Silero VAD, 16 kHz: the probability of speech, frame by frame of 32 ms. A `streaming` model; sessions pass the sound through, and
/// their gate follows when there is speech in it.
///
/// Network: `input [1, 576]` (64 samples of the frame before, 512 new ones), `state [2, 1, 128]` → `output [1, 1]`,
/// `stateN [2, 1, 128]`.
#[derive(Clone, Debug)]
pub struct Vad {
    graph: Arc<dyn Graph>,
    options: VadOptions,
}

impl Vad {
    /// The file that [`Vad::load`] needs: the network with its state as input and output, made for OpenVINO in the package
    /// `silero-vad` 6.2.3.
    pub const FILE: &str = "silero_vad_16k_stateful.onnx";

    /// Loads [`Vad::FILE`] of a folder.
    ///
    /// # Errors
    /// If it cannot be loaded, or is another network.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        let graph = load(dir, Self::FILE, loader, &["input", "state"], &["output", "stateN"])?;
        Ok(Self { graph, options: VadOptions::default() })
    }

    /// With other options.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if 0 ≤ release ≤ threshold ≤ 1 does not hold.
    pub fn with_options(self, options: VadOptions) -> Result<Self, Error> {
        let VadOptions { threshold, release, .. } = options;
        if !(0.0 <= release && release <= threshold && threshold <= 1.0) {
            return Err(Error::invalid_input(format!(
                "voice activity begins at {threshold} and goes on above {release}: 0 ≤ release ≤ threshold ≤ 1 must hold"
            )));
        }
        Ok(Self { options, ..self })
    }

    /// A stream, with what it found.
    pub fn stream(&self) -> VadSession {
        VadSession {
            model: self.clone(),
            resampler: None,
            samples: Vec::new(),
            context: [0.0; CONTEXT],
            state: vec![0.0; STATE],
            talking: false,
            below: 0,
            speech: false,
            probabilities: Vec::new(),
            input: None,
            done: false,
        }
    }
}

impl Model for Vad {
    fn footprint(&self) -> Footprint {
        footprint(&[&self.graph])
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.stream()))
    }
}

/// A stream that a [`Vad`] listens to. One inference takes sound of any length: whole frames are heard, what is left waits for the
/// next inference. Sound of another rate than 16 kHz is resampled; the rate must stay the same.
#[derive(Debug)]
pub struct VadSession {
    model: Vad,
    /// Once the stream has begun, with the rate that it has.
    resampler: Option<(u32, Resampler)>,
    /// Sound that is not heard yet.
    samples: Vec<f32>,
    context: [f32; CONTEXT],
    state: Vec<f32>,
    talking: bool,
    /// Frames below the release since speech was last heard.
    below: u32,
    /// Whether there was speech in this inference.
    speech: bool,
    probabilities: Vec<f32>,
    input: Option<Audio>,
    done: bool,
}

impl VadSession {
    /// Probabilities of speech of the frames that the latest inference has heard, 0 to 1.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    fn hear(&mut self, control: &Control) -> Result<(), Error> {
        let mut heard = 0;
        let result = self.samples.chunks_exact(FRAME).try_for_each(|frame| {
            let mut input = self.context.to_vec();
            input.extend_from_slice(frame);
            let mut values = Values::new();
            values.put("input", Tensor::new([1, CONTEXT + FRAME], input)?);
            values.put("state", Tensor::new(STATE_SHAPE, self.state.clone())?);
            self.model.graph.run(&mut values, control)?;
            let probability = values.take_tensor("output")?.view::<f32>()?.first().copied();
            let state = values.take_tensor("stateN")?.into_vec()?;
            let (Some(probability), STATE) = (probability, state.len()) else {
                return Err(Error::invalid_model(format!(
                    "{}: its outputs have {} and {} elements; Silero VAD's have 1 and {STATE}",
                    Vad::FILE,
                    usize::from(probability.is_some()),
                    state.len()
                )));
            };
            // Only now has the frame been heard: after an error or a cancellation it is heard again.
            self.state = state;
            self.context.copy_from_slice(&frame[FRAME - CONTEXT..]);
            heard += FRAME;
            self.probabilities.push(probability);
            (self.talking, self.below) = follow(self.model.options, self.talking, self.below, probability);
            self.speech |= self.talking;
            Ok(())
        });
        self.samples.drain(..heard);
        result
    }
}

/// Whether someone talks after a frame of this probability, and the number of frames since speech was heard.
fn follow(options: VadOptions, talking: bool, below: u32, probability: f32) -> (bool, u32) {
    if probability >= options.threshold || (talking && probability >= options.release) {
        (true, 0)
    } else if talking && below < options.hold_frames {
        (true, below + 1)
    } else {
        (false, 0)
    }
}

impl Session for VadSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        let audio = find_audio(input)?;
        let (rate_hz, resampler) = match &mut self.resampler {
            Some(it) => it,
            none => none.insert((audio.rate_hz, Resampler::new(audio.rate_hz, RATE_HZ)?)),
        };
        if *rate_hz != audio.rate_hz {
            return Err(Error::invalid_input(format!(
                "the stream began with sound at {rate_hz} Hz and goes on at {} Hz; a stream has one rate",
                audio.rate_hz
            )));
        }
        resampler.push(&audio.samples, &mut self.samples);
        self.input = Some(audio.clone());
        self.probabilities.clear();
        self.speech = self.talking && self.samples.len() < FRAME;
        self.done = false;
        Ok(())
    }

    fn step(&mut self, _units: u32, control: &Control) -> Result<Step, Error> {
        self.hear(control)?;
        self.done = true;
        Ok(Step { units: 1, done: true, parts: Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        let unfinished = || Error::invalid_input("voice activity: the inference is not finished");
        let audio = self.input.take_if(|_| self.done).ok_or_else(unfinished)?;
        let gate = if self.speech { Gate::Follow(1) } else { Gate::Stop };
        Ok(Output { data: vec![Data::Audio(audio)], gate })
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        if self.resampler.as_ref().is_some_and(|(rate_hz, _)| *rate_hz != RATE_HZ) {
            return Err(Error::unsupported("voice activity: a stream that is resampled cannot be moved"));
        }
        let mut writer = Writer::new(TAG);
        writer.numbers(&[u32::from(self.talking), self.below, u32::from(self.speech)]);
        for floats in [&self.state, &self.context[..], &self.samples] {
            writer.floats(floats);
        }
        Ok(writer.finish())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(saved, TAG)?;
        let [talking, below, speech] = reader.numbers()?.try_into().map_err(|_| damaged())?;
        let state = reader.exactly(STATE)?;
        let context = reader.exactly(CONTEXT)?;
        let samples = reader.floats()?;
        reader.finish()?;
        (self.talking, self.below, self.speech) = (talking != 0, below, speech != 0);
        self.context.copy_from_slice(&context);
        (self.state, self.samples, self.resampler) = (state, samples, None);
        Ok(())
    }

    fn memory(&self) -> u64 {
        ((STATE + CONTEXT + self.samples.capacity()) * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_begins_at_the_threshold_and_ends_after_the_hold() {
        let options = VadOptions { threshold: 0.5, release: 0.35, hold_frames: 2 };
        let (mut talking, mut below) = (false, 0);
        let mut follow_all = |probabilities: &[f32]| -> Vec<bool> {
            probabilities
                .iter()
                .map(|&p| {
                    (talking, below) = follow(options, talking, below, p);
                    talking
                })
                .collect()
        };
        assert_eq!(follow_all(&[0.4, 0.49, 0.5, 0.4, 0.35]), [false, false, true, true, true]);
        assert_eq!(follow_all(&[0.3, 0.1, 0.36, 0.1, 0.1, 0.1, 0.4]), [true, true, true, true, true, false, false]);
    }
}
