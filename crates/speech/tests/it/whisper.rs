//! Speech recognition.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use onbeat_backend::{Audio, Control, Data, Gate, Model, Output, find_text};
use onbeat_speech::{Whisper, WhisperWeights, convert_whisper, convert_whisper_as};

use crate::support::{load, model, noise, speech};

/// The folder of the converted model, which is converted once if need be.
static CONVERTED: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let source = model("whisper-tiny.en", "vocabulary.txt")?;
    if source.join(Whisper::FILES[0]).exists() {
        return Some(source);
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whisper-tiny.en");
    convert_whisper(&source, &dir).unwrap();
    Some(dir)
});

fn transcribe(whisper: &Whisper, audio: Audio) -> Output {
    let input = [Data::Audio(audio)];
    let prompt = whisper.size(&input).unwrap().prompt;
    let mut session = whisper.open().unwrap();
    session.begin(&input).unwrap();
    let mut step = session.step(prompt, &Control::new()).unwrap();
    assert_eq!(step.units, prompt);
    while !step.done {
        step = session.step(1, &Control::new()).unwrap();
    }
    session.finish().unwrap()
}

/// Small letters, without signs.
fn words(text: &str) -> String {
    text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == ' ').collect()
}

#[test]
fn what_is_said_is_written() {
    let Some(dir) = &*CONVERTED else { return };
    let whisper = load(|loader| Whisper::load(dir, loader));
    for text in ["What is the weather in London today?", "Please open the window before dinner."] {
        let Some(audio) = speech(text) else { return };
        let output = transcribe(&whisper, audio);
        let found = find_text(&output.data).unwrap();
        println!("{text} → {found}");
        assert_eq!(words(found), words(text));
        assert_eq!(output.gate, Gate::Follow(1));
    }
}

#[test]
fn eight_bits_hear_the_same() {
    let Some(source) = model("whisper-tiny.en", "model.bin") else { return };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whisper-tiny.en-int8");
    convert_whisper_as(&source, &dir, WhisperWeights::Int8).unwrap();
    let whisper = load(|loader| Whisper::load(&dir, loader));
    let text = "Remind me to call my brother tomorrow evening after work.";
    let Some(audio) = speech(text) else { return };
    let output = transcribe(&whisper, audio);
    assert_eq!(words(find_text(&output.data).unwrap()), words(text));
}

#[test]
fn silence_and_noise_are_no_text() {
    let Some(dir) = &*CONVERTED else { return };
    let whisper = load(|loader| Whisper::load(dir, loader));
    let quiet = noise(48_000, 0.0).iter().map(|v| v * 0.01).collect();
    for samples in [vec![0.0; 16_000].into(), quiet] {
        let output = transcribe(&whisper, Audio { rate_hz: 16_000, samples });
        assert_eq!(output.data, [Data::Text("".into())]);
        assert_eq!(output.gate, Gate::Stop);
    }
}
