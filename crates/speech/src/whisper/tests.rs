//! A tiny Whisper with random weights, which needs no download.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onbeat_backend::{
    Audio, Control, Data, Error, ErrorKind, Footprint, Graph, LoadOptions, Loader, Model, Port, Session, Tensor, Values,
};
use onbeat_backend_rten::Rten;

use super::ctranslate2::tests::file;
use super::description::Description;
use super::model::{Parts, Whisper, names};
use super::session::WhisperSession;
use super::{WhisperWeights, convert_whisper, convert_whisper_as};

const WIDTH: usize = 8;
const WORDS: &str = "Ġa\nĠb\nc\nd\n<|endoftext|>\n<|startoftranscript|>\n<|nocaptions|>\n<|notimestamps|>\n<|0.00|>\n";

/// Numbers between −1 and 1 that are the same on every machine.
fn random(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f32 / f32::powi(2.0, 23) - 1.0
}

/// A folder that is removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("onbeat-speech-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The variables of a Whisper with two layers of either kind.
fn variables() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut list: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| list.push((name.to_owned(), shape.to_vec()));
    add("encoder/conv1/weight", &[WIDTH, 80, 3]);
    add("encoder/conv1/bias", &[WIDTH]);
    add("encoder/conv2/weight", &[WIDTH, WIDTH, 3]);
    add("encoder/conv2/bias", &[WIDTH]);
    add("encoder/position_encodings/encodings", &[30, WIDTH]);
    add("decoder/position_encodings/encodings", &[12, WIDTH]);
    add("decoder/embeddings/weight", &[9, WIDTH]);
    for part in ["encoder", "decoder"] {
        let mut norms = vec![format!("{part}/layer_norm")];
        for layer in 0..2 {
            let prefix = format!("{part}/layer_{layer}");
            let mut linear = vec![("self_attention/linear_0", 3, 1), ("self_attention/linear_1", 1, 1)];
            linear.extend([("ffn/linear_0", 2, 1), ("ffn/linear_1", 1, 2)]);
            norms.extend(["self_attention", "ffn"].map(|it| format!("{prefix}/{it}/layer_norm")));
            if part == "decoder" {
                linear.extend([
                    ("attention/linear_0", 1, 1),
                    ("attention/linear_1", 2, 1),
                    ("attention/linear_2", 1, 1),
                ]);
                norms.push(format!("{prefix}/attention/layer_norm"));
            }
            for (name, outputs, inputs) in linear {
                add(&format!("{prefix}/{name}/weight"), &[outputs * WIDTH, inputs * WIDTH]);
                add(&format!("{prefix}/{name}/bias"), &[outputs * WIDTH]);
            }
        }
        for norm in norms {
            add(&format!("{norm}/gamma"), &[WIDTH]);
            add(&format!("{norm}/beta"), &[WIDTH]);
        }
    }
    let mut seed = 7;
    let fill = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let elements = (0..count).map(|_| random(&mut seed)).collect();
        (name, shape, elements)
    };
    list.into_iter().map(fill).collect()
}

fn write_source(dir: &Path) {
    let numbers = [("encoder/num_heads", 2), ("decoder/num_heads", 2), ("decoder/activation", 3)];
    let aliases = [("decoder/projection/weight", "decoder/embeddings/weight")];
    std::fs::write(dir.join("model.bin"), file(&variables(), &numbers, &aliases)).unwrap();
    std::fs::write(dir.join("config.json"), r#"{"suppress_ids": [5, 6, 7], "suppress_ids_begin": [0, 4]}"#).unwrap();
    std::fs::write(dir.join("vocabulary.txt"), WORDS).unwrap();
}

fn load(name: &str, segments: usize) -> Whisper {
    load_as(name, segments, WhisperWeights::AsStored)
}

fn load_as(name: &str, segments: usize, weights: WhisperWeights) -> Whisper {
    let folder = Folder::new(name);
    write_source(&folder.0);
    convert_whisper_as(&folder.0, &folder.0.join("converted"), weights).unwrap();
    let options = LoadOptions { segments, ..LoadOptions::default() };
    let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &Control::new() };
    Whisper::load(&folder.0.join("converted"), &loader).unwrap()
}

/// Half a second of noise.
fn sound() -> [Data; 1] {
    let mut seed = 1;
    let samples = (0..8_000).map(|_| random(&mut seed)).collect();
    [Data::Audio(Audio { rate_hz: 16_000, samples })]
}

fn transcribe(session: &mut WhisperSession, units: u32) -> (Vec<u32>, Vec<u32>) {
    session.begin(&sound()).unwrap();
    let (mut steps, mut done) = (Vec::new(), false);
    while !done {
        let step = session.step(units, &Control::new()).unwrap();
        steps.push(step.units);
        done = step.done;
    }
    (session.tokens().to_vec(), steps)
}

#[test]
fn conversion_describes_the_model() {
    let whisper = load("describe", 1);
    let wanted = Description { suppress: vec![5, 6, 7], ..super::description::tests::tiny() };
    assert_eq!(whisper.parts.description, wanted);
    assert_eq!(whisper.size(&sound()).unwrap().prompt, 30);
}

#[test]
fn a_missing_variable_is_named() {
    let folder = Folder::new("missing");
    write_source(&folder.0);
    let mut variables = variables();
    variables.retain(|(name, _, _)| name != "decoder/layer_1/attention/linear_1/bias");
    let numbers = [("encoder/num_heads", 2), ("decoder/num_heads", 2)];
    std::fs::write(folder.0.join("model.bin"), file(&variables, &numbers, &[])).unwrap();
    let error = convert_whisper(&folder.0, &folder.0.join("converted")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(
        error.to_string().contains("`decoder/layer_1/attention/linear_1/bias`: there is no such variable"),
        "{error}"
    );
}

/// Logits after tokens that are fed in these portions.
fn logits(parts: &Parts, portions: &[&[i64]]) -> Vec<f32> {
    let mut values = Values::new();
    let mut seed = 3;
    let mel = (0..80 * 60).map(|_| random(&mut seed)).collect();
    values.put("mel", Tensor::new([1, 80, 60], mel).unwrap());
    parts.encoder.run(&mut values, &Control::new()).unwrap();
    for name in names(2, ["past_key", "past_value"]) {
        values.put(&name, Tensor::zeros([1, 2, 0, 4]));
    }
    for portion in portions {
        values.put("tokens", Tensor::new([1, portion.len()], portion.to_vec()).unwrap());
        parts.decoder.run(&mut values, &Control::new()).unwrap();
        for (made, taken) in [("present", "past"), ("kept", "cross")] {
            for kind in ["key_0", "value_0", "key_1", "value_1"] {
                values.rename(&format!("{made}_{kind}"), &format!("{taken}_{kind}")).unwrap();
            }
        }
    }
    values.take_tensor("logits").unwrap().into_vec().unwrap()
}

fn assert_close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    let difference = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn tokens_one_by_one_give_what_all_at_once_give() {
    let whisper = load("incremental", 1);
    let whole = logits(&whisper.parts, &[&[5, 7, 0, 2, 1]]);
    assert_close(&logits(&whisper.parts, &[&[5], &[7], &[0], &[2], &[1]]), &whole);
    assert_close(&logits(&whisper.parts, &[&[5, 7], &[0, 2, 1]]), &whole);
    // The logits depend on every token, and on what came before it.
    let other = logits(&whisper.parts, &[&[5, 7, 2, 0, 1]]);
    assert!(whole.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn eight_bits_are_nearly_the_same() {
    let tokens: [&[i64]; 2] = [&[5, 7, 0], &[2]];
    let wanted = logits(&load("stored", 1).parts, &tokens);
    let found = logits(&load_as("int8", 1, WhisperWeights::Int8).parts, &tokens);
    let largest = wanted.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
    let difference = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference > 0.0 && difference < 0.05 * largest, "{difference} of {largest}");
}

#[test]
fn prompts_in_pieces_give_the_same_text() {
    for segments in [1, 3] {
        let whisper = load(&format!("pieces-{segments}"), segments);
        let (tokens, steps) = transcribe(&mut whisper.transcription(), 30);
        assert!(!tokens.is_empty());
        assert_eq!(steps[0], 30);
        assert!(steps[1..].iter().all(|&units| units == 1));
        let after = steps.len() - 1;
        for units in [1, 7, 29] {
            let (again, steps) = transcribe(&mut whisper.transcription(), units);
            assert_eq!(again, tokens);
            let prompt: u32 = steps[..steps.len() - after].iter().sum();
            assert_eq!(prompt, 30);
        }
    }
}

#[test]
fn silence_is_no_text_and_is_found_at_once() {
    let whisper = load("silence", 1);
    let mut session = whisper.open().unwrap();
    session.begin(&[Data::Audio(Audio { rate_hz: 8_000, samples: [0.0; 100].into() })]).unwrap();
    assert!(session.finish().is_err());
    let step = session.step(5, &Control::new()).unwrap();
    assert!(step.done);
    assert_eq!(step.units, 30);
    assert_eq!(session.finish().unwrap().data, [Data::Text("".into())]);
    let long = [Data::Audio(Audio { rate_hz: 16_000, samples: vec![0.0; 9_601].into() })];
    let error = session.begin(&long).unwrap_err().to_string();
    assert_eq!(
        error,
        "9601 samples at 16000 Hz are 0.6 s; Whisper hears at most 0.6 s at once, at a rate of at least 1 Hz"
    );
}

#[test]
fn a_saved_session_goes_on_elsewhere() {
    let whisper = load("saved", 2);
    let (tokens, _) = transcribe(&mut whisper.transcription(), 30);
    for steps in 0..10 {
        let mut session = whisper.transcription();
        session.begin(&sound()).unwrap();
        let mut done = false;
        for _ in 0..steps {
            done = session.step(12, &Control::new()).unwrap().done;
        }
        let saved = session.save().unwrap();
        let mut other = whisper.transcription();
        assert!(other.restore(&saved[..saved.len() - 1]).is_err());
        other.restore(&saved).unwrap();
        while !done {
            done = other.step(12, &Control::new()).unwrap().done;
        }
        assert_eq!(other.tokens(), tokens, "after {steps} steps");
        assert!(other.finish().is_ok());
    }
}

/// A graph that fails at one of its calls, and takes what it was given with it, as a device that is stopped in the middle may.
#[derive(Debug)]
struct Failing {
    inner: Arc<dyn Graph>,
    calls: Arc<AtomicUsize>,
    at: usize,
}

impl Graph for Failing {
    fn inputs(&self) -> &[Port] {
        self.inner.inputs()
    }
    fn outputs(&self) -> &[Port] {
        self.inner.outputs()
    }
    fn segments(&self) -> usize {
        self.inner.segments()
    }
    fn run_segment(&self, segment: usize, values: &mut Values, control: &Control) -> Result<(), Error> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            values.clear();
            return Err(Error::cancelled());
        }
        self.inner.run_segment(segment, values, control)
    }
    fn footprint(&self) -> Footprint {
        self.inner.footprint()
    }
}

#[test]
fn a_step_that_failed_can_be_done_again_even_if_its_values_are_lost() {
    let whisper = load("failing", 2);
    let (tokens, _) = transcribe(&mut whisper.transcription(), 30);
    let mut failures = 0;
    for at in 0..20 {
        let calls = Arc::new(AtomicUsize::new(0));
        let failing = |inner: &Arc<dyn Graph>| -> Arc<dyn Graph> {
            Arc::new(Failing { inner: Arc::clone(inner), calls: Arc::clone(&calls), at })
        };
        let Parts { encoder, decoder, description, .. } = &*whisper.parts;
        let parts = Parts {
            encoder: failing(encoder),
            decoder: failing(decoder),
            choice: super::decoding::Choice::new(description),
            description: description.clone(),
            vocabulary: super::vocabulary::Vocabulary::parse(WORDS),
        };
        let mut session = WhisperSession::new(Arc::new(parts));
        session.begin(&sound()).unwrap();
        let mut done = false;
        while !done {
            match session.step(11, &Control::new()) {
                Ok(step) => done = step.done,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled);
                    failures += 1;
                }
            }
        }
        assert_eq!(session.tokens(), tokens, "failed at call {at}");
    }
    assert!(failures >= 5);
    let control = Control::new();
    control.cancel();
    let mut session = whisper.transcription();
    session.begin(&sound()).unwrap();
    assert_eq!(session.step(30, &control).unwrap_err().kind(), ErrorKind::Cancelled);
}
