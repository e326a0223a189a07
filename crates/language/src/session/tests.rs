use std::path::{Path, PathBuf};
use std::sync::Mutex;

use onbeat_backend::{Backend, Footprint, Graph, LoadOptions, Loader, Model, Port};
use onbeat_backend_rten::Rten;

use super::*;
use crate::blocks::unpack;
use crate::gguf::Gguf;
use crate::model::{LanguageModel, Options};
use crate::test_files::{
    Folder, Storage, TINY_BASE, TINY_CONTEXT, TINY_EPSILON, TINY_HEAD, TINY_HEADS, TINY_INNER, TINY_KV_HEADS,
    TINY_LAYERS, TINY_WIDTH, tiny_llama, tiny_tokens,
};
use crate::{convert_file, load};

pub(super) fn load_from(dir: &Path, options: Options) -> LanguageModel {
    let (load_options, control) = (LoadOptions { members: 8, ..LoadOptions::default() }, Control::new());
    let loader = Loader { backend: &Rten, device: "cpu", options: &load_options, control: &control };
    load(dir, &loader, options).unwrap()
}

pub(super) fn tiny(folder: &Folder, storage: Storage, options: Options) -> LanguageModel {
    let file = folder.0.join("tiny.gguf");
    std::fs::write(&file, tiny_llama(storage)).unwrap();
    convert_file(&file, &folder.0).unwrap();
    load_from(&folder.0, options)
}

pub(super) fn short() -> Options {
    Options { system: String::new(), tokens_max: 12, ..Options::default() }
}

pub(super) fn session(model: &LanguageModel, prompt: &str) -> LanguageSession {
    let mut session = LanguageSession::new(model.shared());
    session.begin(&[Data::Text(prompt.into())]).unwrap();
    session
}

/// Steps to the end; the answer's tokens and the parts.
pub(super) fn run(session: &mut LanguageSession, units: u32) -> (Vec<u32>, Vec<Data>) {
    let (control, mut parts) = (Control::new(), Vec::new());
    loop {
        let step = session.step(units, &control).unwrap();
        parts.extend(step.parts);
        if step.done {
            return (session.tokens[session.prompt..].to_vec(), parts);
        }
    }
}

/// A llama's logits after the last of some tokens, computed number by number.
fn reference(file: &[u8], tokens: &[u32]) -> Vec<f32> {
    let gguf = Gguf::read(file).unwrap();
    let numbers = |name: &str| {
        let stored = gguf.tensor(&format!("{name}.weight")).unwrap();
        unpack(stored.tensor_type, stored.bytes).unwrap().into_floats()
    };
    let multiply = |x: &[f32], name: &str| -> Vec<f32> {
        numbers(name).chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    };
    let normalise = |x: &[f32], name: &str| -> Vec<f32> {
        let mean = x.iter().map(|it| it * it).sum::<f32>() / x.len() as f32;
        x.iter().zip(numbers(name)).map(|(it, gain)| it / (mean + TINY_EPSILON).sqrt() * gain).collect()
    };
    let rotate = |x: &mut [f32], position: usize| {
        for head in x.chunks_exact_mut(TINY_HEAD) {
            for (i, pair) in head.chunks_exact_mut(2).enumerate() {
                let angle = position as f32 * TINY_BASE.powf(-2.0 * i as f32 / TINY_HEAD as f32);
                let (sin, cos) = angle.sin_cos();
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        }
    };
    let embedding = numbers("token_embd");
    let mut caches = vec![(Vec::new(), Vec::new()); TINY_LAYERS];
    let mut x = Vec::new();
    for (position, &token) in tokens.iter().enumerate() {
        x = embedding[token as usize * TINY_WIDTH..][..TINY_WIDTH].to_vec();
        for (layer, (keys, values)) in caches.iter_mut().enumerate() {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let normal = normalise(&x, &name("attn_norm"));
            let (mut q, mut k) = (multiply(&normal, &name("attn_q")), multiply(&normal, &name("attn_k")));
            rotate(&mut q, position);
            rotate(&mut k, position);
            keys.push(k);
            values.push(multiply(&normal, &name("attn_v")));
            let mut attended = vec![0.0; TINY_WIDTH];
            for head in 0..TINY_HEADS {
                let own = head * TINY_HEAD..(head + 1) * TINY_HEAD;
                let shared = head / (TINY_HEADS / TINY_KV_HEADS) * TINY_HEAD..;
                let score =
                    |k: &Vec<f32>| q[own.clone()].iter().zip(&k[shared.clone()]).map(|(a, b)| a * b).sum::<f32>();
                let scores: Vec<f32> = keys.iter().map(|k| (score(k) / (TINY_HEAD as f32).sqrt()).exp()).collect();
                let total: f32 = scores.iter().sum();
                for (score, value) in scores.iter().zip(values.iter()) {
                    for (sum, it) in attended[own.clone()].iter_mut().zip(&value[shared.clone()]) {
                        *sum += score / total * it;
                    }
                }
            }
            let add = |x: &mut [f32], more: &[f32]| x.iter_mut().zip(more).for_each(|(a, b)| *a += b);
            add(&mut x, &multiply(&attended, &name("attn_output")));
            let normal = normalise(&x, &name("ffn_norm"));
            let (gate, up) = (multiply(&normal, &name("ffn_gate")), multiply(&normal, &name("ffn_up")));
            assert_eq!(gate.len(), TINY_INNER);
            let product: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(&mut x, &multiply(&product, &name("ffn_down")));
        }
    }
    let head = if gguf.tensor("output.weight").is_ok() { "output" } else { "token_embd" };
    multiply(&normalise(&x, "output_norm"), head)
}

/// The largest difference between the network's logits and the reference's, as a share of the largest logit.
fn difference(storage: Storage, name: &str, pieces: &[usize]) -> f32 {
    let folder = Folder::new(name);
    let model = tiny(&folder, storage, short());
    let mut session = LanguageSession::new(model.shared());
    let tokens: Vec<u32> = (0..pieces.iter().sum::<usize>() as u32).map(|i| i * 37 % 256).collect();
    session.start(tokens.clone()).unwrap();
    for &count in pieces {
        session.feed_to(session.fed + count, &Control::new()).unwrap();
    }
    let found = session.values.take_tensor("logits").unwrap().into_vec::<f32>().unwrap();
    let wanted = reference(&tiny_llama(storage), &tokens);
    assert_eq!(found.len(), tiny_tokens().len());
    let largest = wanted.iter().fold(0.0_f32, |most, it| most.max(it.abs()));
    found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn the_network_computes_what_a_llama_is_defined_to() {
    assert!(difference(Storage::Float, "float", &[9]) < 1e-5);
    assert!(difference(Storage::Float, "float-pieces", &[4, 1, 3, 1]) < 1e-5);
}

#[test]
fn blocks_are_multiplied_as_they_are_stored() {
    // What they are multiplied with may be rounded to 8 bits per block, so the difference is not that of floating point. Codes that
    // were misplaced by one, or a wrong minimum, would make it as large as the logits themselves.
    let whole = difference(Storage::Blocks, "blocks", &[9]);
    assert!(whole < 0.02, "{whole}");
    let pieces = difference(Storage::Blocks, "blocks-pieces", &[4, 1, 3, 1]);
    assert!(pieces < 0.04, "{pieces}");
}

#[test]
fn a_prompt_in_pieces_gives_the_same_answer() {
    let folder = Folder::new("pieces");
    let model = tiny(&folder, Storage::Float, short());
    let (whole, _) = run(&mut session(&model, "hello, world"), u32::MAX);
    for units in [1, 2, 5] {
        assert_eq!(run(&mut session(&model, "hello, world"), units).0, whole, "{units} at a time");
    }
    let mut counted = session(&model, "hello, world");
    let prompt = counted.prompt as u32;
    assert_eq!(model.size(&[Data::Text("hello, world".into())]).unwrap().prompt, prompt);
    assert_eq!(counted.step(4, &Control::new()).unwrap().units, 4);
    assert_eq!(counted.tokens.len(), prompt as usize);
    assert_eq!(counted.step(1000, &Control::new()).unwrap().units, prompt - 4);
    assert_eq!(counted.tokens.len(), prompt as usize + 1);
    assert_eq!(counted.step(1000, &Control::new()).unwrap().units, 1);
}

#[test]
fn sessions_take_turns_without_touching_each_other() {
    let folder = Folder::new("turns");
    let model = tiny(&folder, Storage::Float, short());
    let (first, _) = run(&mut session(&model, "first"), 3);
    let (second, _) = run(&mut session(&model, "the second one"), 3);
    assert_ne!(first, second);
    // One is put aside after every token of the other, and goes on from its caches.
    let mut sessions = [session(&model, "first"), session(&model, "the second one")];
    let mut done = [false; 2];
    while done != [true; 2] {
        for (session, done) in sessions.iter_mut().zip(&mut done).filter(|(_, done)| !**done) {
            *done = session.step(3, &Control::new()).unwrap().done;
        }
    }
    assert_eq!(sessions[0].tokens[sessions[0].prompt..], first);
    assert_eq!(sessions[1].tokens[sessions[1].prompt..], second);
}

#[test]
fn a_saved_session_goes_on_elsewhere_at_every_token() {
    let folder = Folder::new("saved");
    let options = Options { temperature: 0.8, seed: 5, ..short() };
    let model = tiny(&folder, Storage::Float, options.clone());
    let elsewhere = load_from(&folder.0, options);
    let (whole, whole_parts) = run(&mut session(&model, "save me"), 4);
    let mut moved = session(&model, "save me");
    let mut parts = Vec::new();
    loop {
        let saved = moved.save().unwrap();
        for length in [0, 7, saved.len() / 2, saved.len() - 1] {
            assert!(LanguageSession::new(model.shared()).restore(&saved[..length]).is_err());
        }
        let memory = moved.memory();
        moved = LanguageSession::new(elsewhere.shared());
        moved.restore(&saved).unwrap();
        assert_eq!(moved.memory(), memory);
        let step = moved.step(4, &Control::new()).unwrap();
        parts.extend(step.parts);
        if step.done {
            break;
        }
    }
    assert_eq!(moved.tokens[moved.prompt..], whole);
    assert_eq!(parts, whole_parts);
    let finished = moved.save().unwrap();
    moved.restore(&finished).unwrap();
    assert_eq!(moved.finish().unwrap(), session_output(&model, "save me"));
}

fn session_output(model: &LanguageModel, prompt: &str) -> Output {
    let mut session = session(model, prompt);
    run(&mut session, 100);
    session.finish().unwrap()
}

/// A graph that is cancelled again and again: before a segment begins, or when it has eaten its inputs.
#[derive(Debug)]
struct Fragile {
    inner: Arc<dyn Graph>,
    eats: bool,
    calls: Mutex<u32>,
}

impl Graph for Fragile {
    fn inputs(&self) -> &[Port] {
        self.inner.inputs()
    }
    fn outputs(&self) -> &[Port] {
        self.inner.outputs()
    }
    fn segments(&self) -> usize {
        self.inner.segments()
    }
    fn footprint(&self) -> Footprint {
        self.inner.footprint()
    }
    fn run_segment(&self, segment: usize, values: &mut Values, control: &Control) -> Result<(), Error> {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        // So seldom that a session that has to begin anew comes to an end: the next segment in vain, then all.
        if calls.is_multiple_of(2 * self.inner.segments() as u32 + 1) {
            if self.eats {
                values.clear();
            }
            return Err(Error::cancelled());
        }
        self.inner.run_segment(segment, values, control)
    }
}

#[test]
fn a_step_that_was_cancelled_can_be_done_again() {
    let folder = Folder::new("cancelled");
    let model = tiny(&folder, Storage::Float, short());
    let (whole, _) = run(&mut session(&model, "cancel me"), 5);
    for (segments, eats) in [(1, false), (1, true), (3, false), (3, true)] {
        let options = LoadOptions { segments, ..LoadOptions::default() };
        let network = folder.0.join(crate::NETWORK_FILE);
        let inner = Rten.load(&network, "cpu", &options, &Control::new()).unwrap();
        let segments = inner.segments();
        let model = model.with_graph(Arc::new(Fragile { inner, eats, calls: Mutex::new(0) }));
        let mut session = session(&model, "cancel me");
        let (mut cancelled, control) = (0, Control::new());
        loop {
            match session.step(5, &control) {
                Ok(step) if step.done => break,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Cancelled);
                    cancelled += 1;
                    assert!(cancelled < 1000, "{segments} segments, eats {eats}: no end");
                    // It can be saved in this state, too.
                    let saved = session.save().unwrap();
                    assert!(LanguageSession::new(model.shared()).restore(&saved).is_ok());
                }
            }
        }
        assert!(cancelled >= 3, "{cancelled}");
        assert_eq!(session.tokens[session.prompt..], whole, "{segments} segments, eats {eats}");
    }
}

#[test]
fn what_cannot_be_answered_is_an_error() {
    let folder = Folder::new("errors");
    let model = tiny(&folder, Storage::Float, short());
    let mut session = LanguageSession::new(model.shared());
    let control = Control::new();
    assert_eq!(session.step(1, &control).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(session.begin(&[Data::Text("  ".into())]).unwrap_err().to_string(), "the prompt is empty");
    assert_eq!(session.begin(&[]).unwrap_err().kind(), ErrorKind::InvalidInput);
    let long = "x".repeat(TINY_CONTEXT);
    let error = session.begin(&[Data::Text(long.as_str().into())]).unwrap_err().to_string();
    assert!(error.ends_with("tokens or more; with its answer it may have 64"), "{error}");
    let endless = "x".repeat(1 << 20);
    assert!(session.begin(&[Data::Text(endless.into())]).is_err());
    assert_eq!(session.finish().unwrap_err().to_string(), "the answer is not finished");
    control.cancel();
    session.begin(&[Data::Text("x".into())]).unwrap();
    assert_eq!(session.step(1, &control).unwrap_err().kind(), ErrorKind::Cancelled);
    // An answer ends with the context, if nothing else ends it.
    let options = Options { tokens_max: 1000, ..short() };
    let model = tiny(&folder, Storage::Float, options);
    let mut session = self::session(&model, &"x".repeat(TINY_CONTEXT - 30));
    let (answer, _) = run(&mut session, 100);
    assert!(session.tokens.len() <= TINY_CONTEXT && !answer.is_empty());
    assert!(model.shared().tokenizer.ends(answer[answer.len() - 1]) || session.tokens.len() == TINY_CONTEXT);
}

/// With the real weights, where `ONBEAT_TEST_MODELS` says that they are.
#[test]
fn smollm2_knows_the_capital_of_france() {
    let Some(folder) = real_model() else { return };
    let model = load_from(&folder, Options { tokens_max: 40, ..Options::default() });
    let mut session = session(&model, "What is the capital of France?");
    let (_, parts) = run(&mut session, 16);
    let output = session.finish().unwrap();
    let [Data::Text(answer)] = output.data.as_slice() else { panic!("{output:?}") };
    assert!(answer.contains("Paris"), "{answer}");
    let said: Vec<&str> = parts.iter().map(|it| if let Data::Text(text) = it { text.as_ref() } else { "" }).collect();
    assert_eq!(said.join(" "), answer.split_whitespace().collect::<Vec<_>>().join(" "));
}

/// Tokens by the Python package `tokenizers` 0.23.3, made from the file's vocabulary and merges (digits one by one, then byte-level
/// words), for texts with contractions, digits, white space, accents, other scripts, emoji and a control token's name.
#[test]
fn smollm2s_tokens_are_those_of_the_reference() {
    let Some(folder) = real_model() else { return };
    let model = load_from(&folder, Options::default()).shared();
    let cases: [(&str, &[u32]); 3] = [
        (
            "Hello, world! It's 2026; we've 3.14 apples\n\n  and  tabs\there.",
            &[
                19556, 28, 905, 17, 657, 506, 216, 34, 32, 34, 38, 43, 392, 3543, 216, 35, 30, 33, 36, 13855, 8866,
                284, 216, 29416, 197, 1531, 30,
            ],
        ),
        (
            "na\u{ef}ve caf\u{e9} \u{2013} \u{fc}ber \u{5317}\u{4eac} \u{1f642} I'll they're DON'T x_y  ",
            &[
                3546, 46494, 37366, 816, 5549, 137, 593, 13223, 230, 241, 16736, 122, 47526, 339, 3060, 502, 2316, 422,
                2154, 23, 68, 1792, 79, 105, 256,
            ],
        ),
        (
            "<|im_end|> \u{bd} x\u{b2} \u{661}\u{662} \r\n\tfn main() { }",
            &[
                44, 108, 306, 79, 486, 108, 46, 216, 16738, 1792, 19133, 216, 164, 111, 164, 112, 216, 2738, 197, 7853,
                1085, 1000, 1662, 4029,
            ],
        ),
    ];
    for (text, wanted) in cases {
        let tokens = model.tokenizer.encode(text).unwrap();
        assert_eq!(tokens, wanted, "{text}");
        let mut back = Text::default();
        for &token in &tokens {
            back.push(model.tokenizer.decode(token));
        }
        back.end();
        assert_eq!(back.as_str(), text);
    }
}

pub(super) fn real_model() -> Option<PathBuf> {
    let Some(models) = std::env::var_os("ONBEAT_TEST_MODELS") else {
        println!("skipped: ONBEAT_TEST_MODELS is not set");
        return None;
    };
    let folder = PathBuf::from(models).join("smollm2-135m-instruct");
    if !folder.join(crate::DESCRIPTION_FILE).exists() {
        println!("skipped: {} holds no converted model", folder.display());
        return None;
    }
    Some(folder)
}
