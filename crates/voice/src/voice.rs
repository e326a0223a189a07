//! The voice as a model.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{
    Control, Data, Error, Footprint, Graph, Loader, Model, Output, Session, Step, Tensor, Values, find_text,
};

use crate::fourier::{BINS, Fourier};
use crate::reading::{Reader, UnknownWords};
use crate::sound::{Frames, RATE_HZ, synthesise};

const NETWORK: &str = "hibari.onnx";
/// The network's outputs.
const OUTPUTS: [&str; 6] = ["lh", "theta", "ln", "lr", "phi", "f0"];
/// Slowest and fastest speech that the package offers.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.5..=2.0;

/// A voice that reads English text aloud: text in, sound of one channel at 24 kHz out.
///
/// An inference takes [`Graph::segments`] + 1 steps: the first finds the phonemes and runs the network's first segment, the last
/// makes the sound. A text of several sentences goes through each step as a whole. The same text gives the same samples each time.
#[derive(Clone, Debug)]
pub struct Voice {
    shared: Arc<Shared>,
    settings: Settings,
}

#[derive(Debug)]
struct Shared {
    graph: Arc<dyn Graph>,
    unknown: UnknownWords,
    reader: Reader,
    fourier: Fourier,
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
struct Settings {
    speed: f32,
    noise: f32,
}

impl Voice {
    /// Loads a voice from a folder with the files of `hibari/assets` of the package hibari-tts 0.2.1: `hibari.onnx`, `oov.onnx`, `oov.json`,
    /// `lexicon_us_gold.json.gz`, `lexicon_us_silver.json.gz`, `tagger.json.gz`, `tokenizer_exceptions.json`, `normalize.json`,
    /// `vocab.json`. Both networks are loaded onto the loader's device, the small one as a single segment.
    ///
    /// # Errors
    /// Names the file that is missing or damaged.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        let reader = Reader::load(dir)?;
        let graph = loader.load(&dir.join(NETWORK))?;
        let has = |name: &str| graph.outputs().iter().any(|port| port.name == name);
        if let Some(missing) = OUTPUTS.iter().find(|name| !has(name)) {
            let file = dir.join(NETWORK);
            return Err(Error::invalid_model(format!(
                "{}: has no output `{missing}`; a voice of hibari-tts 0.2.1 has {}",
                file.display(),
                OUTPUTS.join(", ")
            )));
        }
        let unknown = UnknownWords::load(dir, loader)?;
        let shared = Shared { graph, unknown, reader, fourier: Fourier::new() };
        Ok(Self { shared: Arc::new(shared), settings: Settings { speed: 1.0, noise: 1.0 } })
    }

    /// The same voice, speaking faster or slower: 0.5 to 2 times as fast as by itself. A clone with another speed shares the weights.
    ///
    /// # Errors
    /// If the speed is outside.
    pub fn with_speed(mut self, speed: f32) -> Result<Self, Error> {
        if !SPEEDS.contains(&speed) {
            return Err(Error::invalid_input(format!("a voice speaks at a speed of 0.5 to 2, not {speed}")));
        }
        self.settings.speed = speed;
        Ok(self)
    }

    /// The same voice with or without the noise of breath and consonants, which it has by itself. Without it speech sounds unnatural, but
    /// all of it follows from the network's outputs: for comparing with other implementations.
    #[must_use]
    pub fn with_noise(mut self, noise: bool) -> Self {
        self.settings.noise = if noise { 1.0 } else { 0.0 };
        self
    }

    /// How a text is read: phonemes in the alphabet of misaki, one string for each sentence or shorter piece that is spoken at once. Runs
    /// the network for unknown words on the calling thread.
    ///
    /// # Errors
    /// If the backend cannot run that network.
    pub fn phonemes(&self, text: &str) -> Result<Vec<String>, Error> {
        self.shared.phonemes(text, &Control::new())
    }
}

impl Shared {
    fn phonemes(&self, text: &str, control: &Control) -> Result<Vec<String>, Error> {
        self.reader.read(text, &|word| self.unknown.read(word, control))
    }
}

impl Model for Voice {
    fn footprint(&self) -> Footprint {
        let (voice, unknown) = (self.shared.graph.footprint(), self.shared.unknown.footprint());
        Footprint {
            weights: voice.weights + unknown.weights + self.shared.reader.bytes(),
            activations: voice.activations.max(unknown.activations),
        }
    }

    fn segments(&self) -> usize {
        self.shared.graph.segments() + 1
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(Speaking { shared, settings: self.settings, text: None, next: 0, pieces: None }))
    }
}

/// A text on its way to sound.
#[derive(Debug)]
struct Speaking {
    shared: Arc<Shared>,
    settings: Settings,
    text: Option<Arc<str>>,
    /// The segment of the next step.
    next: usize,
    /// `None` until the phonemes are found.
    pieces: Option<Vec<Piece>>,
}

/// What is spoken at once.
#[derive(Debug)]
struct Piece {
    ids: Vec<i64>,
    values: Values,
    /// Segments of the network that have run.
    done: usize,
    frames: Option<Frames>,
    samples: Option<Vec<f32>>,
}

impl Session for Speaking {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        (self.text, self.pieces, self.next) = (Some(Arc::clone(find_text(input)?)), None, 0);
        Ok(())
    }

    fn step(&mut self, _: u32, control: &Control) -> Result<Step, Error> {
        let shared = Arc::clone(&self.shared);
        let segments = shared.graph.segments();
        let settings = self.settings;
        let Some(text) = self.text.clone().filter(|_| self.next <= segments) else {
            return Err(Error::invalid_input("no text was begun that is not yet spoken"));
        };
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        if self.pieces.is_none() {
            let phonemes = shared.phonemes(&text, control)?;
            self.pieces = Some(phonemes.iter().filter_map(|piece| shared.reader.ids(piece)).map(Piece::new).collect());
        }
        for (seed, piece) in self.pieces.iter_mut().flatten().enumerate() {
            if self.next < segments {
                piece.run(&*shared.graph, self.next, settings, control)?;
            } else {
                piece.speak(&shared, seed as u64, settings, control)?;
            }
        }
        self.next += 1;
        Ok(Step { units: 1, done: self.next > segments, parts: Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        if self.text.is_none() || self.next <= self.shared.graph.segments() {
            return Err(Error::invalid_input("the text is not yet spoken to its end"));
        }
        let pieces = self.pieces.take().unwrap_or_default();
        let samples: Vec<f32> = pieces.into_iter().filter_map(|piece| piece.samples).flatten().collect();
        self.text = None;
        let sound = onbeat_backend::Audio { rate_hz: RATE_HZ, samples: samples.into() };
        Ok(Output { data: vec![Data::Audio(sound)], ..Output::default() })
    }

    fn memory(&self) -> u64 {
        self.pieces.iter().flatten().map(Piece::bytes).sum()
    }
}

impl Piece {
    fn new(ids: Vec<i64>) -> Self {
        Self { ids, values: Values::new(), done: 0, frames: None, samples: None }
    }

    /// Memory of the network's outputs and of the samples [bytes]; what lies between the network's segments is the backend's.
    fn bytes(&self) -> u64 {
        let frames = self.frames.as_ref().map_or(0, |frames| frames.frames * (5 * BINS + 1));
        let samples = self.samples.as_ref().map_or(0, Vec::len);
        (size_of::<f32>() * (frames + samples)) as u64
    }

    /// Runs the network up to a segment. What was interrupted begins anew: an interrupted segment may have consumed its inputs.
    fn run(&mut self, graph: &dyn Graph, segment: usize, settings: Settings, control: &Control) -> Result<(), Error> {
        while self.done <= segment {
            if self.done == 0 {
                self.values.clear();
                self.values.put("ids", Tensor::new([1, self.ids.len()], self.ids.clone())?);
                self.values.put("speed", Tensor::new([1], vec![settings.speed])?);
            }
            match graph.run_segment(self.done, &mut self.values, control) {
                Ok(()) => self.done += 1,
                Err(error) => {
                    self.done = 0;
                    return Err(error);
                }
            }
        }
        if self.done == graph.segments() {
            self.frames = Some(take_frames(&mut self.values)?);
            self.values.clear();
        }
        Ok(())
    }

    /// Makes the sound, unless that was done before an interruption.
    fn speak(&mut self, shared: &Shared, seed: u64, settings: Settings, control: &Control) -> Result<(), Error> {
        if self.samples.is_none() {
            let frames = self.frames.as_ref().ok_or_else(|| Error::invalid_input("the network has not run"))?;
            self.samples = Some(synthesise(&shared.fourier, frames, settings.noise, seed, control)?);
            self.frames = None;
        }
        Ok(())
    }
}

/// The network's outputs, of which the shapes are checked.
fn take_frames(values: &mut Values) -> Result<Frames, Error> {
    let mut table = |name: &str, rows: &[usize]| {
        let (shape, elements) = values.take_tensor(name)?.into_parts();
        let fits = shape.len() == rows.len() + 1 && shape.starts_with(rows);
        let frames = shape.last().copied().filter(|_| fits).ok_or_else(|| {
            Error::invalid_model(format!("{NETWORK}: `{name}` has shape {shape:?}, not {rows:?} and the frames"))
        })?;
        let values = Tensor::from_elements(shape, elements)?.into_vec::<f32>()?;
        Ok::<_, Error>((frames, values))
    };
    let (frames, f0) = table("f0", &[1])?;
    let mut spectrum = |name: &str| {
        let (found, values) = table(name, &[1, BINS])?;
        if found != frames {
            return Err(Error::invalid_model(format!("{NETWORK}: `{name}` has {found} frames, `f0` {frames}")));
        }
        Ok(values)
    };
    Ok(Frames {
        frames,
        lh: spectrum("lh")?,
        theta: spectrum("theta")?,
        ln: spectrum("ln")?,
        lr: spectrum("lr")?,
        phi: spectrum("phi")?,
        f0,
    })
}
