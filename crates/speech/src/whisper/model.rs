//! Whisper as a model.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Audio, Data, Error, Footprint, Graph, LoadOptions, Loader, Model, Session, Size, find_audio};

use super::decoding::Choice;
use super::description::Description;
use super::mel::{HOP, RATE_HZ};
use super::session::WhisperSession;
use super::vocabulary::Vocabulary;
use crate::load::{footprint, load};

pub(super) const ENCODER: &str = "encoder.onnx";
pub(super) const DECODER: &str = "decoder.onnx";

/// Samples of a frame of the encoder's output, the unit of a prompt: 20 ms.
pub(super) const UNIT: usize = 2 * HOP;
/// Fewest units that are encoded: 10 s. Whisper repeats itself after shorter windows.
const WINDOW_MIN: usize = 500;
/// Units of silence that follow the sound, where the window has room: 1 s, in which the text ends.
const TAIL: usize = 50;
/// Windows are whole seconds, so that there are few sizes of them.
const ROUND: usize = 50;

/// Whisper (Radford et al., arXiv 2212.04356), English: the text of an utterance of up to 30 s. An `autoregressive` model: the prompt
/// is what the encoder hears, the output tokens are those of the text.
///
/// One unit of the prompt is a frame of the encoder's output, 20 ms. The sound is followed by silence: at least a second of it, up to
/// at least ten seconds in all, and up to a whole second, so that a prompt has 500, 550, … 1500 units. The encoder looks at the whole
/// window at once, so a prompt cannot be encoded from left to right. Instead its work is cut into pieces – features, the encoder's
/// segments, the first tokens – which are done as the units that they are spread over are asked for.
#[derive(Clone, Debug)]
pub struct Whisper {
    pub(super) parts: Arc<Parts>,
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) description: Description,
    pub(super) vocabulary: Vocabulary,
    pub(super) choice: Choice,
    pub(super) encoder: Arc<dyn Graph>,
    pub(super) decoder: Arc<dyn Graph>,
}

impl Whisper {
    /// The files that [`Whisper::load`] needs, made by [`convert_whisper`](crate::convert_whisper).
    pub const FILES: [&str; 4] = [ENCODER, DECODER, Description::FILE, Vocabulary::FILE];

    /// Loads [`Whisper::FILES`] of a folder. The encoder is cut into as many segments as the options say; the decoder is not cut, as
    /// a token is short.
    ///
    /// # Errors
    /// If one cannot be loaded, or does not fit the others.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        let description = Description::read(dir)?;
        let vocabulary = Vocabulary::read(dir)?;
        if vocabulary.len() != description.vocabulary {
            return Err(Error::invalid_model(format!(
                "{}: {} has {} tokens, and {} has {}",
                dir.display(),
                Vocabulary::FILE,
                vocabulary.len(),
                Description::FILE,
                description.vocabulary
            )));
        }
        let cross = names(description.layers, ["cross_key", "cross_value"]);
        let encoder = load(dir, ENCODER, loader, &["mel"], &refer(&cross))?;
        let whole = LoadOptions { segments: 1, ..loader.options.clone() };
        let loader = Loader { options: &whole, ..*loader };
        let mut inputs = names(description.layers, ["past_key", "past_value"]);
        inputs.extend(cross);
        inputs.push("tokens".to_owned());
        let mut outputs = names(description.layers, ["present_key", "present_value"]);
        outputs.extend(names(description.layers, ["kept_key", "kept_value"]));
        outputs.push("logits".to_owned());
        let decoder = load(dir, DECODER, &loader, &refer(&inputs), &refer(&outputs))?;
        let choice = Choice::new(&description);
        Ok(Self { parts: Arc::new(Parts { description, vocabulary, choice, encoder, decoder }) })
    }

    /// An inference, with what it has found so far.
    pub fn transcription(&self) -> WhisperSession {
        WhisperSession::new(Arc::clone(&self.parts))
    }
}

/// The names of two values per layer.
pub(super) fn names(layers: usize, kinds: [&str; 2]) -> Vec<String> {
    (0..layers).flat_map(|layer| kinds.map(|kind| format!("{kind}_{layer}"))).collect()
}

fn refer(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

impl Parts {
    /// How many units a sound is, silence included.
    pub(super) fn window(&self, audio: &Audio) -> Result<usize, Error> {
        let most = self.description.window_max;
        let samples = audio.samples.len() as u64 * u64::from(RATE_HZ);
        let units = samples.div_ceil(u64::from(audio.rate_hz.max(1)) * UNIT as u64);
        match usize::try_from(units) {
            Ok(units) if audio.rate_hz > 0 && units <= most => {
                Ok((units + TAIL).next_multiple_of(ROUND).max(WINDOW_MIN).min(most))
            }
            _ => Err(Error::invalid_input(format!(
                "{} samples at {} Hz are {:.1} s; Whisper hears at most {} s at once, at a rate of at least 1 Hz",
                audio.samples.len(),
                audio.rate_hz,
                audio.samples.len() as f64 / f64::from(audio.rate_hz),
                most as f64 * UNIT as f64 / f64::from(RATE_HZ)
            ))),
        }
    }

    /// Most tokens of a text: half of what the decoder can see, as in the package `openai-whisper` 20240930 (`decoding.py`).
    pub(super) fn text_max(&self) -> usize {
        (self.description.tokens_max / 2).min(self.description.tokens_max - self.description.start.len())
    }
}

impl Model for Whisper {
    fn footprint(&self) -> Footprint {
        footprint(&[&self.parts.encoder, &self.parts.decoder])
    }

    fn size(&self, input: &[Data]) -> Result<Size, Error> {
        let window = self.parts.window(find_audio(input)?)?;
        Ok(Size { prompt: window as u32, steps: 0 })
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.transcription()))
    }
}
