//! Writes down what is said in a WAV file, and how long each part took, on one thread of the CPU:
//!
//! ```text
//! cargo run --release -p onbeat-speech --example transcribe -- CONVERTED-MODEL-FOLDER FILE.wav...
//! cargo run --release -p onbeat-speech --example transcribe -- --convert CTRANSLATE2-FOLDER CONVERTED-MODEL-FOLDER
//! cargo run --release -p onbeat-speech --example transcribe -- --convert-int8 CTRANSLATE2-FOLDER CONVERTED-MODEL-FOLDER
//! ```

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, LoadOptions, Loader, Model, Session, find_text};
use onbeat_backend_rten::Rten;
use onbeat_speech::{Whisper, WhisperWeights, convert_whisper, convert_whisper_as, wav};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--convert", source, destination] => Ok(convert_whisper(Path::new(source), Path::new(destination))?),
        ["--convert-int8", source, destination] => {
            Ok(convert_whisper_as(Path::new(source), Path::new(destination), WhisperWeights::Int8)?)
        }
        [model, files @ ..] if !files.is_empty() => transcribe(Path::new(model), files),
        _ => Err("usage: transcribe MODEL-FOLDER FILE.wav... | transcribe --convert[-int8] FOLDER MODEL-FOLDER".into()),
    }
}

fn transcribe(model: &Path, files: &[&str]) -> Result<(), Box<dyn Error>> {
    let (options, control) = (LoadOptions::default(), Control::new());
    let begin = Instant::now();
    let whisper =
        Whisper::load(model, &Loader { backend: &Rten, device: "cpu", options: &options, control: &control })?;
    println!("loaded in {:.0} ms", milliseconds(begin.elapsed()));
    let mut session = whisper.transcription();
    for file in files {
        let input = [Data::Audio(wav::read(Path::new(file))?)];
        let prompt = whisper.size(&input)?.prompt;
        session.begin(&input)?;
        let begin = Instant::now();
        let mut done = session.step(prompt, &control)?.done;
        let encoder = begin.elapsed();
        let mut steps = Vec::new();
        while !done {
            let begin = Instant::now();
            done = session.step(1, &control)?.done;
            steps.push(begin.elapsed());
        }
        let (tokens, no_speech, memory) = (session.tokens().len(), session.no_speech(), session.memory());
        let output = session.finish()?;
        println!("{file}: {}", find_text(&output.data)?);
        steps.sort_unstable();
        println!(
            "  {prompt} units: features, encoder and first token {:.0} ms; {tokens} tokens, median {:.1} ms each; no speech {no_speech:.2}; {:.1} MB",
            milliseconds(encoder),
            steps.get(steps.len() / 2).copied().map_or(f64::NAN, milliseconds),
            memory as f64 / 1e6
        );
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
