//! Noise suppression.

use onbeat_backend::{Audio, Control, Data, Session, find_audio};
use onbeat_speech::signal::si_snr_db;
use onbeat_speech::{DenoiseSession, Denoiser};

use crate::support::{level, load, model, noise, speech};

fn clean(session: &mut DenoiseSession, samples: &[f32]) -> Vec<f32> {
    session.begin(&[Data::Audio(Audio { rate_hz: 16_000, samples: samples.into() })]).unwrap();
    assert!(session.step(1, &Control::new()).unwrap().done);
    let output = session.finish().unwrap();
    find_audio(&output.data).unwrap().samples.to_vec()
}

#[test]
fn noise_is_suppressed() {
    let [first, _] = Denoiser::FILES;
    let Some(dir) = model("dtln", first) else { return };
    let text = "Could you please send me the report before the meeting tomorrow? I would like to read it on the train.";
    let Some(audio) = speech(text) else { return };
    let denoiser = load(|loader| Denoiser::load(&dir, loader));
    let count = audio.samples.len() / 128 * 128;
    let speech = &audio.samples[..count];
    // 5 dB below the speech.
    let mut noisy = noise(count, 0.7);
    let gain = level(speech) / level(&noisy) * 10.0_f32.powf(-5.0 / 20.0);
    noisy.iter_mut().zip(speech).for_each(|(n, s)| *n = *n * gain + s);

    let cleaned = clean(&mut denoiser.stream(), &noisy);
    assert_eq!(cleaned.len(), count);
    let delay = Denoiser::DELAY;
    let before = si_snr_db(speech, &noisy);
    let after = si_snr_db(&speech[..count - delay], &cleaned[delay..]);
    println!("SI-SNR {before:.2} dB before, {after:.2} dB after");
    assert!(after > before + 4.0, "{before} dB before, {after} dB after");

    // In pieces, moved from session to session, it is the same.
    let (mut again, mut session) = (Vec::new(), denoiser.stream());
    for piece in noisy.chunks(128 * 7) {
        again.extend(clean(&mut session, piece));
        let saved = session.save().unwrap();
        session = denoiser.stream();
        assert!(session.restore(&saved[1..]).is_err());
        session.restore(&saved).unwrap();
    }
    assert_eq!(again, cleaned);
}

#[test]
fn what_is_no_whole_hop_is_refused() {
    let [first, _] = Denoiser::FILES;
    let Some(dir) = model("dtln", first) else { return };
    let mut session = load(|loader| Denoiser::load(&dir, loader)).stream();
    for (rate_hz, count) in [(16_000, 100), (48_000, 128)] {
        let input = [Data::Audio(Audio { rate_hz, samples: vec![0.0; count].into() })];
        let error = session.begin(&input).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{count} samples at {rate_hz} Hz; noise suppression takes a multiple of 128 samples at 16000 Hz")
        );
    }
    assert!(session.finish().is_err());
}
