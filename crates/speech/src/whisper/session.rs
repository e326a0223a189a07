//! One utterance after another.

use std::sync::Arc;

use onbeat_backend::{Audio, Control, Data, Error, Gate, Output, Session, Step, Tensor, Value, Values, find_audio};

use super::decoding::{is_silence, looping, probability};
use super::mel::{BANDS, RATE_HZ, log_mel};
use super::model::{Parts, names};
use crate::resample::resample;
use crate::saved::{Reader, Writer, damaged};

const TAG: [u8; 4] = *b"whi1";
/// Sound that never exceeds half of the smallest step of 16-bit samples is silence.
const SILENCE: f32 = 1.0 / 65_536.0;
/// Pieces of a prompt's work beside the encoder's segments: the features before, the first tokens after them.
const OTHER_PIECES: usize = 2;

/// Utterances that a [`Whisper`](super::Whisper) writes down, one after another.
///
/// After a cancellation the same step can be done again; if the device lost what it was computing on, the step begins with the encoder
/// again and feeds all tokens so far, which takes longer.
#[derive(Debug)]
pub struct WhisperSession {
    parts: Arc<Parts>,
    input: Option<Audio>,
    /// Units of the prompt.
    prompt: u32,
    /// Units of the prompt that are done.
    heard: u32,
    /// Pieces of the prompt's work that are done.
    pieces: usize,
    /// `[1, 80, frames]`, once they are computed.
    features: Option<Tensor>,
    /// The encoder's values between its segments; then the decoder's caches.
    values: Values,
    /// Tokens of the text.
    tokens: Vec<u32>,
    /// How many of the first tokens and the text's are in the caches.
    fed: usize,
    /// Sum of the logarithms of the tokens' probabilities.
    log_sum: f32,
    /// Probability that there is no speech.
    no_speech: f32,
    done: bool,
}

impl WhisperSession {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            input: None,
            prompt: 0,
            heard: 0,
            pieces: 0,
            features: None,
            values: Values::new(),
            tokens: Vec::new(),
            fed: 0,
            log_sum: 0.0,
            no_speech: 0.0,
            done: false,
        }
    }

    /// Tokens of the text so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Probability that there is no speech, after the first token, 0 to 1.
    pub fn no_speech(&self) -> f32 {
        self.no_speech
    }

    fn pieces_max(&self) -> usize {
        self.parts.encoder.segments() + OTHER_PIECES
    }

    /// Does pieces of the prompt's work until so many are done. After the last one the first token of the text is there.
    fn prepare(&mut self, pieces: usize, control: &Control) -> Result<(), Error> {
        while self.pieces < pieces && !self.done {
            if control.is_cancelled() {
                return Err(Error::cancelled());
            }
            match self.pieces {
                0 => self.listen()?,
                piece if piece <= self.parts.encoder.segments() => self.encode(piece - 1, control)?,
                _ => self.next(control)?,
            }
            self.pieces += 1;
        }
        Ok(())
    }

    /// Computes the features; ends at once if the sound is silence.
    fn listen(&mut self) -> Result<(), Error> {
        let audio = self.input.as_ref().ok_or_else(|| Error::invalid_input("Whisper: no inference has begun"))?;
        if audio.samples.iter().all(|sample| sample.abs() < SILENCE) {
            self.done = true;
        } else if self.features.is_none() {
            let frames = 2 * self.prompt as usize;
            let features = log_mel(&resample(audio, RATE_HZ)?.samples, frames);
            self.features = Some(Tensor::new([1, BANDS, frames], features)?);
        }
        Ok(())
    }

    fn encode(&mut self, segment: usize, control: &Control) -> Result<(), Error> {
        if segment == 0 {
            let features = self.features.clone().ok_or_else(damaged)?;
            self.values.clear();
            self.values.put("mel", features);
        }
        let parts = Arc::clone(&self.parts);
        self.attempt(|values| parts.encoder.run_segment(segment, values, control))?;
        if segment + 1 == parts.encoder.segments() {
            let shape = [1, parts.description.heads, 0, parts.description.head];
            for name in names(parts.description.layers, ["past_key", "past_value"]) {
                self.values.put(&name, Tensor::zeros(shape));
            }
            self.fed = 0;
        }
        Ok(())
    }

    /// Does something with the values. If it fails and takes values with it, all is computed again from the features.
    fn attempt(&mut self, act: impl FnOnce(&mut Values) -> Result<(), Error>) -> Result<(), Error> {
        let list = |values: &Values| values.names().map(str::to_owned).collect::<Vec<_>>();
        let before = list(&self.values);
        let result = act(&mut self.values);
        if result.is_err() && list(&self.values) != before {
            self.values.clear();
            self.pieces = usize::from(self.features.is_some());
            self.fed = 0;
        }
        result
    }

    /// Feeds the tokens that are not in the caches, and finds the one that follows.
    fn next(&mut self, control: &Control) -> Result<(), Error> {
        let parts = Arc::clone(&self.parts);
        let start = &parts.description.start;
        let mut logits = None;
        // The first tokens one by one: whether there is speech shows after the very first.
        while self.fed < start.len() {
            let found = self.pass(&start[self.fed..=self.fed], control)?;
            if self.fed == 0 {
                self.no_speech = probability(&found, parts.description.no_speech);
            }
            self.fed += 1;
            logits = Some(found);
        }
        let rest = self.tokens[self.fed - start.len()..].to_vec();
        if !rest.is_empty() {
            logits = Some(self.pass(&rest, control)?);
            self.fed += rest.len();
        }
        // There is always a token to feed: each is chosen as soon as those before it are in the caches.
        let logits = logits.ok_or_else(damaged)?;
        let (token, log) = parts.choice.choose(&logits, self.tokens.is_empty());
        self.log_sum += log;
        if token == parts.description.end {
            self.done = true;
            return Ok(());
        }
        self.tokens.push(token);
        if let Some(kept) = looping(&self.tokens) {
            self.tokens.truncate(kept);
            self.done = true;
        }
        self.done |= self.tokens.len() >= parts.text_max();
        Ok(())
    }

    /// Runs the decoder on tokens that follow those in the caches.
    fn pass(&mut self, tokens: &[u32], control: &Control) -> Result<Vec<f32>, Error> {
        let parts = Arc::clone(&self.parts);
        let ids = tokens.iter().map(|&token| i64::from(token)).collect();
        self.values.put("tokens", Tensor::new([1, tokens.len()], ids)?);
        self.attempt(|values| parts.decoder.run(values, control))?;
        let layers = parts.description.layers;
        for (made, taken) in [
            (["present_key", "present_value"], ["past_key", "past_value"]),
            (["kept_key", "kept_value"], ["cross_key", "cross_value"]),
        ] {
            for (from, to) in names(layers, made).iter().zip(&names(layers, taken)) {
                self.values.rename(from, to)?;
            }
        }
        let logits: Vec<f32> = self.values.take_tensor("logits")?.into_vec()?;
        if logits.len() != parts.description.vocabulary {
            return Err(Error::invalid_model(format!(
                "Whisper's decoder gives {} logits for {} tokens",
                logits.len(),
                parts.description.vocabulary
            )));
        }
        Ok(logits)
    }
}

impl Session for WhisperSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        let audio = find_audio(input)?.clone();
        let prompt = self.parts.window(&audio)? as u32;
        *self = Self { input: Some(audio), prompt, ..Self::new(Arc::clone(&self.parts)) };
        Ok(())
    }

    fn step(&mut self, units: u32, control: &Control) -> Result<Step, Error> {
        let advanced = if self.done {
            0
        } else if self.heard < self.prompt {
            let target = self.heard.saturating_add(units.max(1)).min(self.prompt);
            let pieces = (target as usize * self.pieces_max()).div_ceil(self.prompt as usize);
            self.prepare(pieces, control)?;
            // If it is done already, so is the rest of the prompt.
            let target = if self.done { self.prompt } else { target };
            target - std::mem::replace(&mut self.heard, target)
        } else if self.pieces < self.pieces_max() {
            // What was computed got lost: the last piece finds the next token.
            self.prepare(self.pieces_max(), control)?;
            1
        } else {
            self.next(control)?;
            1
        };
        Ok(Step { units: advanced, done: self.done, parts: Vec::new() })
    }

    fn end_early(&mut self) -> Result<Vec<Data>, Error> {
        if self.input.is_none() || self.pieces < self.pieces_max() {
            return Err(Error::invalid_input("Whisper: there is no text yet that could be ended"));
        }
        self.done = true;
        Ok(Vec::new())
    }

    fn finish(&mut self) -> Result<Output, Error> {
        if !self.done || self.input.take().is_none() {
            return Err(Error::invalid_input("Whisper: the inference is not finished"));
        }
        self.values.clear();
        // The end counts as a token.
        let silence = is_silence(self.no_speech, self.log_sum, self.tokens.len() + 1);
        let text = if silence { String::new() } else { self.parts.vocabulary.text(&self.tokens) };
        let gate = if text.is_empty() { Gate::Stop } else { Gate::Follow(1) };
        Ok(Output { data: vec![Data::Text(text.into())], gate })
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        let mut writer = Writer::new(TAG);
        // What lies between two segments of an encoder means nothing elsewhere: it begins again there.
        let encoded = self.pieces > self.parts.encoder.segments();
        let numbers = [self.prompt, self.heard, self.fed as u32];
        let flags = [self.done, encoded, encoded && self.pieces == self.pieces_max(), self.input.is_some()];
        writer.numbers(&numbers);
        writer.numbers(&flags.map(u32::from));
        writer.numbers(&self.tokens);
        writer.floats(&[self.log_sum, self.no_speech]);
        let audio = self.input.as_ref();
        writer.number(audio.map_or(0, |it| it.rate_hz));
        writer.floats(audio.map_or(&[], |it| &it.samples));
        if encoded {
            for name in caches(self.parts.description.layers) {
                match self.values.get(&name)? {
                    Value::Host(tensor) => writer.tensor(tensor)?,
                    Value::Device(value) => writer.tensor(&value.to_tensor()?)?,
                }
            }
        }
        Ok(writer.finish())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(saved, TAG)?;
        let mut restored = Self::new(Arc::clone(&self.parts));
        let [prompt, heard, fed] = reader.numbers()?.try_into().map_err(|_| damaged())?;
        let flags: [u32; 4] = reader.numbers()?.try_into().map_err(|_| damaged())?;
        let [done, encoded, begun, present] = flags.map(|flag| flag != 0);
        restored.tokens = reader.numbers()?;
        let sums = reader.exactly(2)?;
        let (rate_hz, samples) = (reader.number()?, reader.floats()?.into());
        let described = &self.parts.description;
        let sound = restored.tokens.iter().all(|&token| (token as usize) < described.vocabulary)
            && restored.tokens.len() <= self.parts.text_max()
            && heard <= prompt
            && (fed as usize) <= described.start.len() + restored.tokens.len();
        if !sound {
            return Err(damaged());
        }
        (restored.prompt, restored.heard, restored.fed, restored.done) = (prompt, heard, fed as usize, done);
        (restored.log_sum, restored.no_speech) = (sums[0], sums[1]);
        if present {
            let audio = Audio { rate_hz, samples };
            if self.parts.window(&audio)? != prompt as usize {
                return Err(damaged());
            }
            restored.input = Some(audio);
        }
        if encoded {
            for name in caches(described.layers) {
                restored.values.put(&name, reader.tensor()?);
            }
            restored.pieces = if begun { restored.pieces_max() } else { restored.pieces_max() - 1 };
        }
        reader.finish()?;
        *self = restored;
        Ok(())
    }

    fn memory(&self) -> u64 {
        let bytes = |name: &str| match self.values.get(name) {
            Ok(Value::Host(tensor)) => (tensor.elements().len() * size_of::<f32>()) as u64,
            Ok(Value::Device(value)) => value.bytes(),
            Err(_) => 0,
        };
        let features = self.features.as_ref().map_or(0, |it| it.elements().len() * size_of::<f32>());
        features as u64 + self.values.names().map(bytes).sum::<u64>()
    }
}

fn caches(layers: usize) -> Vec<String> {
    let mut all = names(layers, ["past_key", "past_value"]);
    all.extend(names(layers, ["cross_key", "cross_value"]));
    all
}
