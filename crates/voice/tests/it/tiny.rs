//! Tests with the tiny voice.

use std::f32::consts::TAU;
use std::fs;
use std::sync::LazyLock;

use onbeat_backend::{Control, Data, ErrorKind, LoadOptions, Model};
use onbeat_voice::Voice;
use proptest::prelude::*;

use crate::tiny_voice::{Folder, drop_output, folder};
use crate::{load, speak};

static FOLDER: LazyLock<Folder> = LazyLock::new(folder);
static VOICE: LazyLock<Voice> = LazyLock::new(|| load(&FOLDER.0, &LoadOptions::default()).unwrap());

#[test]
fn texts_are_read_by_the_rules() {
    for (text, phonemes) in [
        ("Hello, world!", "həlˈO, wˈɜɹld!"),
        ("the cats walked.", "ðə kˈæts wˈɔkt."),
        ("the apple", "ði ˈæpᵊl"),
        ("I read.", "ˌI ɹˈɛd."),
        ("read", "ɹˈid"),
        ("making", "mˈAkɪŋ"),
        ("walk to work", "wˈɔk tə wˈɜɹk"),
        ("a wombat's", "ɐ wˈɑmbˌæts"),
        ("ABC", "ˌAbˌisˈi"),
        ("1920", "nˌIntˈin twˈɛnti"),
        ("23rd", "twˈɛnti θˈɜɹd"),
        ("$9.27", "nˈIn dˈɑləɹz ænd twˈɛnti sˈɛvən sˈɛnts"),
        ("7.9%", "sˈɛvən pYnt nˈIn pəɹsˈɛnt"),
        // Each letter that the network for unknown words is given it reads as itself; twice the same is once.
        ("zzyx", "zyx"),
        ("[cat](/kˈIt/) cat", "kˈIt kˈæt"),
    ] {
        assert_eq!(VOICE.phonemes(text).unwrap(), [phonemes], "{text}");
    }
    assert_eq!(VOICE.phonemes("Dr. Cat. Read").unwrap().len(), 2, "a title ends no sentence");
    assert_eq!(VOICE.phonemes("cat. Walk!\nRead?").unwrap(), ["kˈæt.", "wˈɔk!", "ɹˈid?"]);
}

#[test]
fn what_cannot_be_read_is_silent() {
    for text in ["", "  \n", "日本語", "🎉", "\u{0}\u{1}"] {
        let sound = speak(&VOICE, &mut *VOICE.open().unwrap(), text);
        assert_eq!((sound.rate_hz, sound.samples.len()), (24_000, 0), "{text:?}");
    }
}

#[test]
fn a_text_becomes_the_sine_that_the_network_asks_for() {
    // "həlˈO wˈɜɹld" has 12 phonemes; with a silence at both ends that is 14 frames of 300 samples. The frames at the ends see the source
    // reflected and are left out.
    let sound = speak(&VOICE, &mut *VOICE.open().unwrap(), "hello world");
    assert_eq!(sound.samples.len(), 14 * 300);
    for (n, sample) in sound.samples.iter().enumerate().skip(1200).take(1200) {
        let wanted = 0.1 * (TAU * (n as f32 + 1.0) / 120.0).cos();
        assert!((sample - wanted).abs() < 1e-3, "sample {n}: {sample}, not {wanted}");
    }
}

#[test]
fn sentences_follow_one_another_and_sessions_are_used_again() {
    let mut session = VOICE.open().unwrap();
    let both = speak(&VOICE, &mut *session, "Hello. World.");
    let (first, second) = (speak(&VOICE, &mut *session, "Hello."), speak(&VOICE, &mut *session, "World."));
    assert_eq!(both.samples.len(), first.samples.len() + second.samples.len());
    assert_eq!(both.samples[..first.samples.len()], first.samples[..]);
    assert_eq!(speak(&VOICE, &mut *session, "Hello."), first, "the same text gives the same samples");
}

#[test]
fn a_cancelled_step_can_be_done_again() {
    let mut session = VOICE.open().unwrap();
    let whole = speak(&VOICE, &mut *session, "Hello, zzyx.");
    let cancelled = Control::new();
    cancelled.cancel();
    session.begin(&[Data::Text("Hello, zzyx.".into())]).unwrap();
    for _ in 0..VOICE.segments() {
        assert_eq!(session.step(1, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(session.finish().unwrap_err().kind(), ErrorKind::InvalidInput, "it is not finished");
        session.step(1, &Control::new()).unwrap();
    }
    assert_eq!(session.finish().unwrap().data, [Data::Audio(whole)]);
    assert_eq!(session.step(1, &Control::new()).unwrap_err().kind(), ErrorKind::InvalidInput, "nothing is begun");
    assert_eq!(session.begin(&[]).unwrap_err().kind(), ErrorKind::InvalidInput, "there is no text");
}

#[test]
fn segments_change_nothing_but_the_number_of_steps() {
    let options = LoadOptions { segments: 3, ..LoadOptions::default() };
    let cut = load(&FOLDER.0, &options).unwrap();
    assert!(cut.segments() >= VOICE.segments());
    let text = "Hello, the cat walked.";
    assert_eq!(speak(&cut, &mut *cut.open().unwrap(), text), speak(&VOICE, &mut *VOICE.open().unwrap(), text));
}

#[test]
fn speed_reaches_the_network() {
    let voice = load(&FOLDER.0, &LoadOptions::default()).unwrap();
    let slow = speak(&voice, &mut *voice.open().unwrap(), "hello");
    let fast = voice.clone().with_speed(1.5).unwrap();
    assert_ne!(speak(&fast, &mut *fast.open().unwrap(), "hello"), slow);
    assert_eq!(speak(&voice, &mut *voice.open().unwrap(), "hello"), slow, "a clone is of its own");
    for speed in [0.0, 0.4, 2.1, f32::NAN] {
        assert_eq!(voice.clone().with_speed(speed).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn missing_and_damaged_files_are_errors_that_name_them() {
    let names: Vec<String> =
        fs::read_dir(&FOLDER.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 9);
    for name in names {
        let folder = folder();
        fs::write(folder.0.join(&name), b"damaged").unwrap();
        let error = load(&folder.0, &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(&name) && error.kind() == ErrorKind::InvalidModel, "{name}: {error:?}");
        fs::remove_file(folder.0.join(&name)).unwrap();
        let error = load(&folder.0, &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(&name) && error.kind() == ErrorKind::NotFound, "{name}: {error:?}");
    }
    let folder = folder();
    drop_output(&folder.0);
    let error = load(&folder.0, &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("has no output `phi`"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|[ -~\\n]{0,80}|[a-z0-9$%.,:/'’ -]{0,60}|.{0,40}") {
        for piece in VOICE.phonemes(&text).unwrap() {
            prop_assert!(!piece.is_empty() && piece.chars().count() <= onbeat_voice::PHONEMES_MAX);
        }
    }
}
