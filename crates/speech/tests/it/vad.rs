//! Voice activity.

use onbeat_backend::{Audio, Control, Data, Gate, Session};
use onbeat_speech::{Vad, VadSession, resample};

use crate::support::{load, model, noise, speech};

fn hear(session: &mut VadSession, samples: &[f32], rate_hz: u32) -> (Vec<f32>, Gate) {
    let input = [Data::Audio(Audio { rate_hz, samples: samples.into() })];
    session.begin(&input).unwrap();
    assert!(session.step(1, &Control::new()).unwrap().done);
    let output = session.finish().unwrap();
    assert_eq!(output.data, input);
    (session.probabilities().to_vec(), output.gate)
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

#[test]
fn speech_is_told_from_noise() {
    let Some(dir) = model("silero-vad", Vad::FILE) else { return };
    let Some(audio) = speech("The train to the city leaves in twenty minutes from the second platform.") else {
        return;
    };
    let vad = load(|loader| Vad::load(&dir, loader));
    let quiet: Vec<f32> = noise(32_000, 0.0).iter().map(|v| v * 0.005).collect();

    let mut session = vad.stream();
    let (before, gate) = hear(&mut session, &quiet, 16_000);
    assert_eq!((before.len(), gate), (62, Gate::Stop));
    let (during, gate) = hear(&mut session, &audio.samples, 16_000);
    assert_eq!(gate, Gate::Follow(1));
    let (after, _) = hear(&mut session, &quiet, 16_000);
    let (_, gate) = hear(&mut session, &quiet, 16_000);
    assert_eq!(gate, Gate::Stop);
    println!("mean probability: noise {:.3}, speech {:.3}, noise {:.3}", mean(&before), mean(&during), mean(&after));
    assert!(mean(&before) < 0.1 && mean(&during) > 0.6 && mean(&after[10..]) < 0.1);

    // The same, frame by frame and from a microphone at 48 kHz, hears the same.
    let mut session = vad.stream();
    let mut all = Vec::new();
    hear(&mut session, &quiet, 16_000);
    for frame in audio.samples.chunks(512) {
        all.extend(hear(&mut session, frame, 16_000).0);
    }
    assert_eq!(all, during);
    let fast = resample(&audio, 48_000).unwrap();
    let mut session = vad.stream();
    let mut all = Vec::new();
    for piece in fast.samples.chunks(1_000) {
        all.extend(hear(&mut session, piece, 48_000).0);
    }
    assert!((mean(&all) - mean(&during)).abs() < 0.1, "{} {}", mean(&all), mean(&during));
    let slow = [Data::Audio(Audio { rate_hz: 16_000, samples: [0.0; 512].into() })];
    let error = session.begin(&slow).unwrap_err().to_string();
    assert_eq!(error, "the stream began with sound at 48000 Hz and goes on at 16000 Hz; a stream has one rate");
}

#[test]
fn a_stream_goes_on_elsewhere() {
    let Some(dir) = model("silero-vad", Vad::FILE) else { return };
    let vad = load(|loader| Vad::load(&dir, loader));
    let sound = noise(4_000, 0.5);
    let mut whole = vad.stream();
    let (wanted, _) = hear(&mut whole, &sound, 16_000);
    let mut first = vad.stream();
    let (mut found, _) = hear(&mut first, &sound[..1_300], 16_000);
    let mut second = vad.stream();
    assert!(second.restore(b"not a session").is_err());
    second.restore(&first.save().unwrap()).unwrap();
    found.extend(hear(&mut second, &sound[1_300..], 16_000).0);
    assert_eq!(found, wanted);

    let control = Control::new();
    control.cancel();
    second.begin(&[Data::Audio(Audio { rate_hz: 16_000, samples: sound.into() })]).unwrap();
    assert!(second.step(1, &control).is_err());
    assert!(second.finish().is_err());
    assert!(second.step(1, &Control::new()).unwrap().done);
}
