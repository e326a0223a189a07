//! Speaks a text into a WAV file, and says how much faster than real time that was.
//!
//! `cargo run --release -p onbeat-voice --example speak -- FOLDER OUT.wav "Hello there."`, where the folder holds `hibari/assets` of the
//! package hibari-tts 0.2.1.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use onbeat_backend::{Control, Data, LoadOptions, Loader, Model};
use onbeat_backend_rten::{Rten, compute_here};
use onbeat_voice::Voice;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, text] = &arguments[..] else {
        return Err("usage: speak FOLDER OUT.wav TEXT".into());
    };
    let control = Control::new();
    let loader = Loader { backend: &Rten, device: "cpu", options: &LoadOptions::default(), control: &control };
    let start = Instant::now();
    let voice = Voice::load(Path::new(folder), &loader)?;
    println!("loaded in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for piece in voice.phonemes(text)? {
        println!("{piece}");
    }
    compute_here(|| speak(&voice, file, text, &control))
}

fn speak(voice: &Voice, file: &str, text: &str, control: &Control) -> Result<(), Failure> {
    let mut session = voice.open()?;
    // The first run also warms up.
    for run in ["first run", "second run"] {
        session.begin(&[Data::Text(text.into())])?;
        let start = Instant::now();
        let mut times = Vec::new();
        loop {
            let before = Instant::now();
            let step = session.step(1, control)?;
            times.push(format!("{:.1}", before.elapsed().as_secs_f64() * 1e3));
            if step.done {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let output = session.finish()?;
        let Some(Data::Audio(sound)) = output.data.first() else { return Err("no sound".into()) };
        let length = sound.samples.len() as f64 / f64::from(sound.rate_hz);
        println!(
            "{run}: {length:.2} s of sound in {:.1} ms (steps {}): real-time factor {:.4}",
            seconds * 1e3,
            times.join(" + "),
            seconds / length
        );
        fs::write(file, wav(sound.rate_hz, &sound.samples))?;
    }
    Ok(())
}

/// A WAV file of 16-bit samples, one channel.
fn wav(rate_hz: u32, samples: &[f32]) -> Vec<u8> {
    let bytes = (samples.len() * 2) as u32;
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + bytes).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    for (value, width) in [(1, 2), (1, 2), (rate_hz, 4), (rate_hz * 2, 4), (2, 2), (16, 2)] {
        file.extend_from_slice(&value.to_le_bytes()[..width]);
    }
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| ((sample * 32_767.0) as i16).to_le_bytes()));
    file
}
