//! The questions that the samples ask, spoken by the catalogue's own voice, once, and kept beside the models.

use std::sync::Arc;

use onbeat_backend::{Audio, Backend, Control, Data, Error, LoadOptions, Loader, Model};
use onbeat_backend_rten::Rten;
use onbeat_models::Cache;

use super::samples::QUESTIONS;
use crate::failure::Failure;

/// Rate of the samples [Hz].
const RATE_HZ: u32 = 16_000;

/// Silence after each question [s].
const PAUSE_S: f64 = 1.0;

/// The questions as sound at 16 kHz, each followed by a second of silence. Without the voice: silence.
pub(crate) fn questions(cache: &Cache) -> Result<Vec<Audio>, Failure> {
    QUESTIONS.iter().enumerate().map(|(i, text)| question(cache, i, text)).collect()
}

fn question(cache: &Cache, number: usize, text: &str) -> Result<Audio, Failure> {
    let folder = cache.root().join("samples");
    let file = folder.join(format!("question-{number}.wav"));
    if let Ok(audio) = onbeat_speech::wav::read(&file) {
        return Ok(audio);
    }
    let Ok(spoken) = speak(cache, text) else {
        // Noise suppression and the rest take the same time on silence; what is heard is then nothing.
        let silence: Arc<[f32]> = vec![0.0; RATE_HZ as usize * 2].into();
        return Ok(Audio { rate_hz: RATE_HZ, samples: silence });
    };
    std::fs::create_dir_all(&folder).map_err(Failure::io("create", &folder))?;
    // A sample that cannot be kept is made again next time.
    let _ = onbeat_speech::wav::write(&file, &spoken);
    Ok(spoken)
}

fn speak(cache: &Cache, text: &str) -> Result<Audio, Error> {
    let (options, control) = (LoadOptions::default(), Control::new());
    let backend: &dyn Backend = &Rten;
    let loader = Loader { backend, device: "cpu", options: &options, control: &control };
    let voice: Arc<dyn Model> = onbeat_models::load("hibari-tts", cache, &loader)?;
    let mut session = voice.open()?;
    session.begin(&[Data::Text(text.into())])?;
    while !session.step(1, &control)?.done {}
    let output = session.finish()?;
    let spoken = onbeat_backend::find_audio(&output.data)?;
    let spoken = onbeat_speech::resample(spoken, RATE_HZ)?;
    let mut samples = spoken.samples.to_vec();
    samples.resize(samples.len() + (PAUSE_S * f64::from(RATE_HZ)) as usize, 0.0);
    Ok(Audio { rate_hz: RATE_HZ, samples: samples.into() })
}
