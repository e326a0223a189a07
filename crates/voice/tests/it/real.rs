//! Tests with the voice of hibari-tts 0.2.1, from the folder `hibari-tts` below `ONBEAT_TEST_MODELS`.

use std::path::{Path, PathBuf};

use onbeat_backend::{LoadOptions, Model};
use onbeat_voice::{PHONEMES_MAX, Voice};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::{load, speak};

/// The folder; `None`, with a note, if there is none.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("ONBEAT_TEST_MODELS").map(|models| Path::new(&models).join("hibari-tts"));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        println!("skipped: ONBEAT_TEST_MODELS has no folder hibari-tts");
    }
    folder
}

fn voice() -> Option<Voice> {
    Some(load(&folder()?, &LoadOptions::default()).unwrap())
}

/// What `Hibari().phonemize(text)` of hibari-tts 0.2.1 returns, with onnxruntime 1.31.1.
const READINGS: [(&str, &[&str]); 20] = [
    ("The quick brown fox jumps over the lazy dog.", &["ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ."]),
    (
        "Hello everyone, welcome to the weekly video conference.",
        &["həlˈO ˈɛvɹiwən, wˈɛlkəm tə ðə wˈikli vˈɪdiO kˈɑnfəɹəns."],
    ),
    (
        "On the 3rd of March 2024, 1,250 people paid $9.99 each to hear it read at 7:30 pm.",
        &[
            "ˌɔn ðə θˈɜɹd ʌv mˈɑɹʧ twˈɛnti twˈɛnti fˈɔɹ, wˈʌn θˈWzᵊnd tˈu hˈʌndɹəd fˈɪfti pˈipᵊl pˈAd nˈIn dˈɑləɹz ænd nˈIndi nˈIn sˈɛnts ˈiʧ tə hˈɪɹ ɪt ɹˈid æt sˈɛvən θˈɜɹTi pˌiˈɛm",
        ],
    ),
    (
        "Dr. Smith lives at 221B Baker St. and pays $1,250.50 per month.",
        &[
            "dˈɑktəɹ smˈɪθ lˈɪvz æt tˈu hˈʌndɹəd twˈɛnti wˈʌn bˈi bˈAkəɹ stɹˈit ænd pˈAz wˈʌn θˈWzᵊnd tˈu hˈʌndɹəd fˈɪfti dˈɑləɹz ænd fˈɪfti sˈɛnts pɜɹ mˈʌnθ.",
        ],
    ),
    ("I read the book yesterday; will you read it tomorrow?", &["ˌI ɹˈɛd ðə bˈʊk jˈɛstəɹdˌA; wɪl ju ɹˈid ɪt təmˈɑɹO?"]),
    (
        "The temperature fell to -5°C, about 23 °F, near the lake.",
        &["ðə tˈɛmpɹəʧəɹ fˈɛl tə mˈInəs fˈIv dəɡɹˈiz sˈɛlsiəs, əbˈWt twˈɛnti θɹˈi dəɡɹˈiz fˈɛɹənhˌIt, nˌɪɹ ðə lˈAk."],
    ),
    (
        "She used to live here, but the live concert was cancelled.",
        &["ʃˌi jˈust tə lˈɪv hˈɪɹ, bˌʌt ðə lˈIv kˈɑnsəɹt wʌz kˈænsəld."],
    ),
    (
        "In 1905 and 2005, the U.S. economy grew 3.5% and 12%.",
        &[
            "ɪn nˌIntˈin ˈO fˈIv ænd tˈu θˈWzᵊnd fˈIv, ðə jˌuˈɛs ikˈɑnəmi ɡɹˈu θɹˈi pYnt fˈIv pəɹsˈɛnt ænd twˈɛlv pəɹsˈɛnt.",
        ],
    ),
    (
        "Chapter IV describes how Henry VIII met NASA's 747 pilots.",
        &["ʧˈæptəɹ fˈɔɹ dəskɹˈIbz hˌW hˈɛnɹi ði ˈAθ mˈɛt nˈæsəz sˈɛvən hˈʌndɹəd fˈɔɹTi sˈɛvən pˈIləts."],
    ),
    (
        "Please record the record at 44.1 kHz, 16-bit, state-of-the-art quality.",
        &["plˈiz ɹəkˈɔɹd ðə ɹˈɛkəɹd æt fˈɔɹTi fˈɔɹ pYnt wˈʌn kˈɪləhˌɜɹts, sˌɪkstˈin bˈɪt, stˈAtʌvðiˈɑɹt kwˈɑləTi."],
    ),
    (
        "\"What?\" he asked. \"I'm not sure we're going to use it!\"",
        &["wˈʌt? hi ˈæskt.", "ˈɪm nˌɑt ʃˈʊɹ wɪɹ ɡˈOɪŋ tə jˈuz ɪt!"],
    ),
    (
        "The GPU runs at 1.5 GHz with 16 GB of RAM and an NPU.",
        &["ðə ʤˌipˌijˈu ɹˈʌnz æt wˈʌn pYnt fˈIv ɡˈɪɡəhˌɜɹts wɪð sˌɪkstˈin ɡˈɪɡəbˌIts ʌv ɹˈæm ænd ɐn ˌɛnpˌijˈu."],
    ),
    (
        "Call 555-1234 or visit www.example.com/help for more info.",
        &["kˈɔl fˈIv fˈIv fˈIv, wˈʌn tˈu θɹˈi fˈɔɹ ɔɹ vˈɪzət dʊˌʊuə ɛɡzˈæmpᵊl kˈɑm slˈæʃ hˈɛlp fɔɹ mˈɔɹ ˈɪnfO."],
    ),
    (
        "It's the 21st century, and the 1990s are history.",
        &["ˌɪts ðə twˈɛnti fˈɜɹst sˈɛnʧəɹi, ænd ðə nˌIntˈin nˈIndiz ɑɹ hˈɪstəɹi."],
    ),
    (
        "Mr. and Mrs. O'Neill bought 1/2 kg of cheese vs. 3/4 lb of ham.",
        &["mˈɪstəɹ ænd mˈɪsɪz ˈO nˈAl bˈɔt wˈʌn hˈæf kˈɪləɡɹˌæmz ʌv ʧˈiz vˈɜɹsəs.", "θɹˈi kwˈɔɹTəɹz pˈWndz ʌv hˈæm."],
    ),
    (
        "The wind was too strong to wind the sail, so we present the present.",
        &["ðə wˈɪnd wʌz tˈu stɹˈɔŋ tə wˈInd ðə sˈAl, sˌO wi pɹizˈɛnt ðə pɹˈɛzᵊnt."],
    ),
    (
        "Zyxomatic flibbertigibbets quantized the transformer's logits.",
        &["zˌIksəmˈæTɪk flˌɪbəɹTiʤˈɪbəts kwˈɑntˌIzd ðə tɹænsfˈɔɹməɹz lˈɑʤɪts."],
    ),
    (
        "Version 2.0.1 of llama.cpp decodes 128 tokens in 5.2 ms.",
        &[
            "vˈɜɹʒən tˈu zˈɪɹO wˈʌn ʌv lˈɑmə sˌipˌipˈi dˌikˈOdz wˈʌn hˈʌndɹəd twˈɛnti ˈAt tˈOkᵊnz ɪn fˈIv pYnt tˈu mˈɪləsˌɛkəndz.",
        ],
    ),
    (
        "A lead pipe can lead to trouble; they refuse to take out the refuse.",
        &["ɐ lˈid pˈIp kæn lˈid tə tɹˈʌbᵊl; ðA ɹəfjˈuz tə tˈAk ˈWt ðə ɹˈɛfjˌus."],
    ),
    (
        "Running, jumping and swimming: 100% fun, 0 stress, €5 & £3.20!",
        &[
            "ɹˈʌnɪŋ, ʤˈʌmpɪŋ ænd swˈɪmɪŋ: wˈʌn hˈʌndɹəd pəɹsˈɛnt fˈʌn, zˈɪɹO stɹˈɛs, fˈIv jˈʊɹOz ænd θɹˈi pˈWndz ænd twˈɛnti pˈɛns!",
        ],
    ),
];

#[test]
fn texts_are_read_as_by_the_package() {
    let Some(voice) = voice() else { return };
    for (text, phonemes) in READINGS {
        assert_eq!(voice.phonemes(text).unwrap(), phonemes, "{text}");
    }
}

#[test]
fn a_sentence_is_spoken() {
    let Some(voice) = voice() else { return };
    let text = "The quick brown fox jumps over the lazy dog.";
    let sound = speak(&voice, &mut *voice.open().unwrap(), text);
    // The package makes 73,800 samples of it: 246 frames. Other rounding may change the duration of a phoneme by a frame.
    let length = sound.samples.len();
    assert!(length.is_multiple_of(300) && length.abs_diff(73_800) <= 1200, "{length} samples");
    let peak = sound.samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let power = sound.samples.iter().map(|sample| sample * sample).sum::<f32>() / length as f32;
    assert!((0.1..1.0).contains(&peak), "peak {peak}");
    // The package's samples have a root mean square of 0.0438 without noise, which adds little.
    assert!((power.sqrt() - 0.0438).abs() < 0.005, "root mean square {}", power.sqrt());
}

#[test]
fn without_noise_the_sound_has_the_loudness_of_the_package_over_time() {
    let Some(voice) = voice().map(|voice| voice.with_noise(false)) else { return };
    let sound = speak(&voice, &mut *voice.open().unwrap(), "The quick brown fox jumps over the lazy dog.");
    // Root mean square of each 0.25 s of what the package makes of the same phonemes with its noise set to zero, with onnxruntime 1.31.1.
    let reference =
        [0.0000, 0.0548, 0.0542, 0.0689, 0.0508, 0.0475, 0.0374, 0.0498, 0.0588, 0.0276, 0.0036, 0.0000, 0.0000];
    for (i, (chunk, wanted)) in sound.samples.chunks(6000).zip(reference).enumerate() {
        let loudness = (chunk.iter().map(|sample| sample * sample).sum::<f32>() / chunk.len() as f32).sqrt();
        assert!((loudness - wanted).abs() < 0.1 * wanted + 0.001, "chunk {i}: {loudness}, not {wanted}");
    }
}

#[test]
fn long_texts_are_spoken_in_pieces() {
    let Some(voice) = voice() else { return };
    let text = "and then the cat walked over the wall, ".repeat(40);
    let pieces = voice.phonemes(&text).unwrap();
    assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.chars().count() <= PHONEMES_MAX));
    let endless = voice.phonemes(&"word ".repeat(300)).unwrap();
    assert!(endless.len() > 2 && endless.iter().all(|piece| piece.chars().count() <= PHONEMES_MAX));
}

#[test]
fn cuts_change_nothing_but_the_number_of_steps() {
    let (Some(folder), Some(whole)) = (folder(), voice()) else { return };
    let cut = load(&folder, &LoadOptions { segments: 4, ..LoadOptions::default() }).unwrap();
    assert!((3..=5).contains(&cut.segments()), "{} segments", cut.segments());
    assert_eq!(whole.segments(), 2);
    let speech = |voice: &Voice| speak(voice, &mut *voice.open().unwrap(), "Hello there. How are you?");
    assert_eq!(speech(&cut), speech(&whole));
}

#[test]
fn no_text_makes_it_panic() {
    let Some(voice) = voice() else { return };
    let texts = "\\PC{0,40}|[ -~\\n]{0,60}|[A-Z]?[a-z]{1,9}[0-9$%.,:/'’ -]{0,30}|.{0,30}";
    let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
    let result = runner.run(&texts, |text| {
        let pieces = voice.phonemes(&text).unwrap();
        prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= PHONEMES_MAX));
        Ok(())
    });
    result.unwrap();
}
