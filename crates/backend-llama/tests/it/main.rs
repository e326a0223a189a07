//! Runs small GGUF files. What needs weights looks for them below `ONBEAT_TEST_MODELS` and is skipped without it.

#![cfg(feature = "llama")]
#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use onbeat_backend::{Control, Data, DeviceKind, Error, ErrorKind, Model, Session, Step};
use onbeat_backend_llama::{Llama, LlamaOptions, description, devices};

/// Waiting threads are busy threads: two models side by side on few cores take many times as long as one after the other.
static ALONE: Mutex<()> = Mutex::new(());

/// The file, and the turn to use it; `None` without test models.
fn smollm2() -> Option<(PathBuf, MutexGuard<'static, ()>)> {
    let Some(folder) = std::env::var_os("ONBEAT_TEST_MODELS") else {
        println!("skipped: ONBEAT_TEST_MODELS is not set");
        return None;
    };
    let file = Path::new(&folder).join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    Some((file, ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn options() -> LlamaOptions {
    LlamaOptions { context: 1024, ubatch: 32, max_tokens: 24, ..LlamaOptions::default() }
}

fn load(file: &Path, options: LlamaOptions) -> Result<Llama, Error> {
    Llama::load(file, options, &Control::new())
}

fn prompt(text: &str) -> [Data; 1] {
    [Data::Text(text.into())]
}

fn text(data: &Data) -> String {
    if let Data::Text(text) = data { text.to_string() } else { panic!("{data:?} is no text") }
}

/// Runs an inference to its end, with so many prompt tokens at once.
fn run(session: &mut dyn Session, units: u32) -> (String, Vec<Step>) {
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step: &Step| !step.done) {
        steps.push(session.step(units, &Control::new()).unwrap());
    }
    (text(&session.finish().unwrap().data[0]), steps)
}

const QUESTION: &str = "What is the capital of France?";

#[test]
fn cores_are_a_device() {
    assert!(devices().iter().any(|device| device.kind == DeviceKind::Cpu));
    assert!(description().starts_with("llama.cpp "));
}

#[test]
fn what_is_no_model_is_an_error_that_names_the_file() {
    let folder = std::env::temp_dir().join(format!("onbeat-llama-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("some.gguf");
    let missing = load(&file, options()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    for bytes in
        [&b""[..], b"GG", b"not a model", b"GGUF", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\x01\0\0\0\0\0\0\0"]
    {
        std::fs::write(&file, bytes).unwrap();
        let error = load(&file, options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
        assert!(error.to_string().contains("some.gguf: "), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
    let nothing = LlamaOptions { context: 0, ..options() };
    assert_eq!(load(&file, nothing).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_damaged_file_is_an_error() {
    let Some((file, _alone)) = smollm2() else { return };
    let folder = std::env::temp_dir().join(format!("onbeat-llama-damaged-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for length in [1000, whole.len() / 2, whole.len() - 1] {
        let cut = folder.join("cut.gguf");
        std::fs::write(&cut, &whole[..length]).unwrap();
        let error = load(&cut, options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let Some((file, _alone)) = smollm2() else { return };
    let kind = |options| load(&file, options).unwrap_err().kind();
    assert_eq!(kind(LlamaOptions { context: 1 << 20, ..options() }), ErrorKind::InvalidInput);
    assert_eq!(kind(LlamaOptions { cores: vec![100_000], ..options() }), ErrorKind::InvalidInput);
    assert_eq!(kind(LlamaOptions { threads: 100_000, ..options() }), ErrorKind::InvalidInput);
    if devices().iter().all(|device| device.kind == DeviceKind::Cpu) {
        assert_eq!(kind(LlamaOptions { gpu_layers: 1, ..options() }), ErrorKind::Unsupported);
    }
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(Llama::load(&file, options(), &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn it_knows_the_capital_of_france() {
    let Some((file, _alone)) = smollm2() else { return };
    let model = load(&file, options()).unwrap();
    // 30 layers, 3 heads of 64 for keys and for values, 2 bytes each.
    let mut session = model.open().unwrap();
    assert_eq!(session.memory(), 1024 * 30 * 3 * (64 + 64) * 2);
    assert!(model.footprint().weights > 90_000_000);

    let tokens = model.size(&prompt(QUESTION)).unwrap().prompt;
    session.begin(&prompt(QUESTION)).unwrap();
    assert_eq!(session.finish().unwrap_err().kind(), ErrorKind::InvalidInput);
    let (reply, steps) = run(&mut *session, 5);
    assert!(reply.contains("Paris"), "{reply}");
    // The prompt in pieces of five, then a token each.
    let prefill = tokens.div_ceil(5) as usize;
    assert_eq!(steps[..prefill].iter().map(|step| step.units).sum::<u32>(), tokens);
    assert!(steps[prefill..].iter().all(|step| step.units == 1));
    let parts: Vec<String> = steps.iter().flat_map(|step| &step.parts).map(text).collect();
    assert_eq!(parts.join(" "), reply.split_whitespace().collect::<Vec<_>>().join(" "));

    // The same again, in the same session and in another one; with two threads, in one session after the other.
    session.begin(&prompt(QUESTION)).unwrap();
    assert_eq!(run(&mut *session, 5).0, reply);
    assert_eq!(session.begin(&prompt(&"word ".repeat(2000))).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut other = model.open().unwrap();
    other.begin(&prompt(QUESTION)).unwrap();
    assert_eq!(run(&mut *other, 5).0, reply);
}

#[test]
fn two_threads_on_cores_of_their_own() {
    let Some((file, _alone)) = smollm2() else { return };
    // A short reply: on cores that others use too, threads that wait for each other busily are slow.
    let options = LlamaOptions { threads: 2, cores: vec![0, 1], max_tokens: 8, ..options() };
    let model = load(&file, options).unwrap();
    let replies: Vec<String> = thread::scope(|scope| {
        let one = || {
            let mut session = model.open().unwrap();
            session.begin(&prompt(QUESTION)).unwrap();
            run(&mut *session, 100).0
        };
        let both = [scope.spawn(one), scope.spawn(one)];
        both.map(|thread| thread.join().unwrap()).into()
    });
    assert!(replies[0].contains("Paris"), "{replies:?}");
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn a_session_goes_on_in_another_one() {
    let Some((file, _alone)) = smollm2() else { return };
    let model = load(&file, options()).unwrap();
    let mut whole = model.open().unwrap();
    whole.begin(&prompt(QUESTION)).unwrap();
    let (reply, steps) = run(&mut *whole, 8);

    // Moved in the middle of the prompt, and at several places of the reply.
    let mut session = model.open().unwrap();
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::InvalidInput);
    session.begin(&prompt(QUESTION)).unwrap();
    let mut parts = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let done = session.step(8, &Control::new()).unwrap();
        assert_eq!(done, *step, "step {i}");
        parts.extend(done.parts);
        if i % 4 == 1 {
            let saved = session.save().unwrap();
            session = model.open().unwrap();
            session.restore(&saved).unwrap();
        }
    }
    assert_eq!(text(&session.finish().unwrap().data[0]), reply);
    assert_eq!(parts, steps.into_iter().flat_map(|step| step.parts).collect::<Vec<_>>());

    session.begin(&prompt(QUESTION)).unwrap();
    session.step(8, &Control::new()).unwrap();
    let mut saved = session.save().unwrap();
    saved[50] ^= 1;
    assert_eq!(session.restore(&saved).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_cancelled_prompt_goes_on() {
    let Some((file, _alone)) = smollm2() else { return };
    let model = load(&file, options()).unwrap();
    let story = format!("{} What is this about?", "The fox crossed the river at dawn. ".repeat(40));
    let mut whole = model.open().unwrap();
    whole.begin(&prompt(&story)).unwrap();
    let (reply, _) = run(&mut *whole, u32::MAX);

    let mut session = model.open().unwrap();
    session.begin(&prompt(&story)).unwrap();
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(session.step(u32::MAX, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
    // Cancelled later and later, until a step gets through. It stands for the whole prompt all the same.
    let mut delay = Duration::from_millis(5);
    let step = loop {
        let control = Control::new();
        let canceller = control.clone();
        let step = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(delay);
                canceller.cancel();
            });
            session.step(u32::MAX, &control)
        });
        match step {
            Ok(step) => break step,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        delay = delay * 3 / 2;
    };
    println!("the last cancellation came after {delay:?}");
    assert_eq!(step.units, model.size(&prompt(&story)).unwrap().prompt);
    assert_eq!(run(&mut *session, u32::MAX).0, reply);
    session.begin(&prompt(QUESTION)).unwrap();
    assert!(run(&mut *session, 8).0.contains("Paris"));
}
