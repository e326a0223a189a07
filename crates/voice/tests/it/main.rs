//! The voice as a model: with a tiny voice that the tests make, and with the real one where it is at hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod real;
mod tiny;
mod tiny_voice;

use onbeat_backend::{Audio, Control, Data, LoadOptions, Loader, Model, Session};
use onbeat_backend_rten::Rten;
use onbeat_voice::Voice;
use std::path::Path;

/// Loads a voice onto rten.
fn load(folder: &Path, options: &LoadOptions) -> Result<Voice, onbeat_backend::Error> {
    let control = Control::new();
    Voice::load(folder, &Loader { backend: &Rten, device: "cpu", options, control: &control })
}

/// Goes through all steps of an inference.
fn speak(voice: &Voice, session: &mut dyn Session, text: &str) -> Audio {
    session.begin(&[Data::Text(text.into())]).unwrap();
    for step in 1..=voice.segments() {
        let done = session.step(1, &Control::new()).unwrap();
        assert_eq!((done.units, done.done), (1, step == voice.segments()));
    }
    let output = session.finish().unwrap();
    match &output.data[..] {
        [Data::Audio(sound)] => sound.clone(),
        other => panic!("not a sound: {other:?}"),
    }
}
