//! Weights, and sound to hear.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use onbeat_backend::{Audio, Control, Error, LoadOptions, Loader};
use onbeat_backend_rten::Rten;
use onbeat_speech::{resample, wav};

/// The folder of a model, if there is one with a file; else says that the test is skipped.
pub(crate) fn model(name: &str, file: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("ONBEAT_TEST_MODELS").map(|dir| Path::new(&dir).join(name));
    let dir = dir.filter(|dir| dir.join(file).exists());
    if dir.is_none() {
        println!("skipped: ONBEAT_TEST_MODELS names no folder with {name}/{file}");
    }
    dir
}

/// Speech at 16 kHz; says that the test is skipped if there is no `espeak-ng`.
pub(crate) fn speech(text: &str) -> Option<Audio> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("onbeat-speech-{}-{count}.wav", std::process::id()));
    let status = Command::new("espeak-ng").args(["-v", "en-us", "-s", "150", "-w"]).arg(&file).arg(text).status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: there is no espeak-ng to speak");
        return None;
    }
    let audio = wav::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    Some(resample(&audio, 16_000).unwrap())
}

/// Noise that is the same on every machine: uniform, then averaged with what came before, so that low frequencies prevail.
pub(crate) fn noise(count: usize, memory: f32) -> Vec<f32> {
    let (mut seed, mut level) = (1_u64, 0.0);
    (0..count)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let white = (seed >> 40) as f32 / f32::powi(2.0, 23) - 1.0;
            level = memory * level + (1.0 - memory) * white;
            level
        })
        .collect()
}

/// Root of the mean square.
pub(crate) fn level(samples: &[f32]) -> f32 {
    (samples.iter().map(|v| v * v).sum::<f32>() / samples.len() as f32).sqrt()
}

/// Loads on one thread of the CPU.
pub(crate) fn load<T>(load: impl FnOnce(&Loader<'_>) -> Result<T, Error>) -> T {
    let options = LoadOptions::default();
    load(&Loader { backend: &Rten, device: "cpu", options: &options, control: &Control::new() }).unwrap()
}
