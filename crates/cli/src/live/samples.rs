//! Samples: what models work on when the user gives no input – a picture of the catalogue, and questions that our own voice speaks.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Audio, Control, Data, Error, Image, Model, Region};
use onbeat_models::{Cache, RunsAs};

/// Questions to the assistant.
pub(crate) const QUESTIONS: [&str; 3] =
    ["What is the capital of France?", "Why is the sky blue?", "Tell me a short story about a dog."];

/// Longest warm-up of a language model [tokens].
const WARM_UP_TOKENS: u32 = 4;

/// Runs a model once on a sample, so that its first real inference is like any other. Libraries compile, allocate and cache in the
/// first one.
pub(crate) fn warm_up(model: &dyn Model, kind: RunsAs, cache: &Cache, control: &Control) -> Result<(), Error> {
    let mut session = model.open()?;
    session.begin(&sample(kind, cache))?;
    for _ in 0..64 + WARM_UP_TOKENS {
        let step = session.step(u32::MAX, control)?;
        if step.done {
            session.finish()?;
            break;
        }
        if matches!(kind, RunsAs::Language | RunsAs::Whisper) && control.is_cancelled() {
            return Err(Error::cancelled());
        }
    }
    Ok(())
}

/// Something that a model of this kind can work on.
pub(crate) fn sample(kind: RunsAs, cache: &Cache) -> Vec<Data> {
    match kind {
        RunsAs::Vad => vec![Data::Audio(tone(512))],
        RunsAs::Denoiser => vec![Data::Audio(tone(256))],
        RunsAs::Whisper => vec![Data::Audio(tone(16_000))],
        RunsAs::Language => vec![Data::Text("Hello!".into())],
        RunsAs::Voice => vec![Data::Text("Good morning.".into())],
        RunsAs::Segmentation | RunsAs::FaceDetection => vec![Data::Image(picture(cache))],
        RunsAs::FaceLandmark => vec![Data::Regions([CENTRE].into()), Data::Image(picture(cache))],
        RunsAs::SuperResolution => vec![Data::Image(small(&picture(cache), 320, 180))],
        RunsAs::Network | RunsAs::File => Vec::new(),
    }
}

/// What stands in for the output of a model of this kind that ran on a virtual device.
pub(crate) fn stand_in(kind: RunsAs, cache: &Cache) -> Vec<Data> {
    match kind {
        RunsAs::Vad | RunsAs::Denoiser | RunsAs::Voice => vec![Data::Audio(tone(512))],
        RunsAs::Whisper => vec![Data::Text(QUESTIONS[0].into())],
        RunsAs::Language => vec![Data::Text("Paris is the capital of France.".into())],
        RunsAs::FaceDetection => vec![Data::Regions([CENTRE].into())],
        RunsAs::Segmentation | RunsAs::SuperResolution => vec![Data::Image(picture(cache))],
        RunsAs::FaceLandmark | RunsAs::Network | RunsAs::File => Vec::new(),
    }
}

/// A face-sized region in the middle.
const CENTRE: Region = Region { x: 0.3, y: 0.2, width: 0.4, height: 0.4, score: 1.0 };

/// A quiet tone of 440 Hz at 16 kHz.
fn tone(samples: usize) -> Audio {
    let wave = |i: usize| (i as f32 * 440.0 * std::f32::consts::TAU / 16_000.0).sin() * 0.1;
    Audio { rate_hz: 16_000, samples: (0..samples).map(wave).collect() }
}

/// The catalogue's test picture, or, as long as it is not fetched, a drawing.
pub(crate) fn picture(cache: &Cache) -> Image {
    read_picture(&cache.folder("test-picture").join("astronaut.png")).unwrap_or_else(|_| drawing(512, 512))
}

/// A picture file.
pub(crate) fn read_picture(path: &Path) -> Result<Image, Error> {
    onbeat_vision::picture::read(path)
}

/// A gradient with a bright disc.
fn drawing(width: u32, height: u32) -> Image {
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (f64::from(x) / f64::from(width) - 0.5, f64::from(y) / f64::from(height) - 0.4);
            let disc = if dx * dx + dy * dy < 0.04 { 90 } else { 0 };
            pixels.extend([(x * 128 / width) as u8 + disc, (y * 128 / height) as u8 + disc, 80 + disc]);
        }
    }
    Image { width, height, channels: 3, pixels: Arc::from(pixels) }
}

/// The middle of a picture, made small.
pub(crate) fn small(image: &Image, width: u32, height: u32) -> Image {
    // Both pictures have a size, so it cannot fail.
    onbeat_vision::picture::resize(image, width, height, onbeat_vision::picture::Filter::Bilinear)
        .unwrap_or_else(|_| image.clone())
}
