//! Fuzzing of the readers: builds libFuzzer targets with the stable compiler and runs each for a bounded time.
//!
//! cargo-fuzz needs nightly for the address sanitizer, which has nothing to find in code without `unsafe`. The coverage that
//! libFuzzer is guided by comes from compiler flags that are stable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{call, output_of};

/// Seconds per target in CI.
pub(crate) const DEFAULT_SECONDS: u32 = 20;

/// The targets, `fuzz/targets/NAME.rs`.
const TARGETS: &[&str] = &["spec", "record"];

/// Coverage counters and traced comparisons, as cargo-fuzz sets them.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Fuzzes every target for `seconds`. Inputs found on the way stay in `fuzz/corpus`, failing ones in `fuzz/artifacts`.
pub(crate) fn run(seconds: u32) -> Result<(), String> {
    let host = output_of("rustc", &["-vV"])?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not tell its host")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let target = target.join("fuzz");
    let folder = target.display().to_string();
    // With `--target`, the flags do not reach build scripts and macros.
    let mut build = vec!["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"];
    build.extend(["--target", host, "--target-dir", &folder]);
    call("cargo", &build, &[("RUSTFLAGS", COVERAGE)])?;
    for name in TARGETS {
        let corpus = corpus(name)?;
        let artifacts = format!("fuzz/artifacts/{name}/");
        std::fs::create_dir_all(&artifacts).map_err(|problem| format!("cannot create {artifacts}: {problem}"))?;
        let program = target.join(host).join("release").join(name).display().to_string();
        let limit = format!("-max_total_time={seconds}");
        let prefix = format!("-artifact_prefix={artifacts}");
        // The seed makes a run repeatable as far as the clock allows; one input may take 5 s and 2 GB.
        let flags =
            ["-seed=1", "-timeout=5", "-rss_limit_mb=2048", "-max_len=65536", "-verbosity=0", "-print_final_stats=1"];
        let mut arguments = vec![corpus.as_str(), limit.as_str(), prefix.as_str()];
        arguments.extend(flags);
        let words = target.join("spec.dict").display().to_string();
        let dictionary = format!("-dict={words}");
        if *name == "spec" {
            write_words(&words)?;
            arguments.push(&dictionary);
        }
        fuzz(&program, &arguments, &target.join(format!("{name}.log")))?;
    }
    Ok(())
}

/// Runs a target with its chatter in a log; prints the statistics, or the log's end if it found something.
fn fuzz(program: &str, arguments: &[&str], log: &Path) -> Result<(), String> {
    let failed = |problem: std::io::Error| format!("cannot run {program}: {problem}");
    println!("$ {program} {}", arguments.join(" "));
    let sink = std::fs::File::create(log).map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(sink);
    let status = command.status().map_err(failed)?;
    let text = std::fs::read(log).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if status.success() {
        let is_statistic = |line: &&&str| line.starts_with("stat::") || line.starts_with("Done ");
        lines.iter().filter(is_statistic).for_each(|line| println!("{line}"));
        return Ok(());
    }
    lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
    Err(format!(
        "{program} found an input that breaks it; it lies in fuzz/artifacts, the whole log in {}",
        log.display()
    ))
}

/// The target's corpus: what earlier runs found, the committed seeds, and the library's files or a real record.
fn corpus(name: &str) -> Result<String, String> {
    let corpus = format!("fuzz/corpus/{name}");
    let failed = |problem: std::io::Error| format!("cannot fill {corpus}: {problem}");
    std::fs::create_dir_all(&corpus).map_err(failed)?;
    let mut folders = vec![format!("fuzz/seeds/{name}")];
    if name == "spec" {
        folders.extend(["platforms", "profiles", "models", "scenarios"].map(|kind| format!("library/{kind}")));
    }
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let label = folder.replace('/', "-");
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            std::fs::copy(&path, Path::new(&corpus).join(format!("{label}-{file}"))).map_err(failed)?;
        }
    }
    if name == "record" {
        let file = format!("{corpus}/simulated.jsonl");
        let mut simulate = vec!["run", "--release", "--locked", "--quiet", "--", "simulate", "textbook-edf"];
        simulate.extend(["--policy", "edf", "--duration", "0.05", "--quiet", "--record", &file]);
        call("cargo", &simulate, &[])?;
    }
    Ok(corpus)
}

/// Writes the fields and values that the schemas of specification files know, for the fuzzer to build inputs from.
fn write_words(path: &str) -> Result<(), String> {
    let mut words = BTreeSet::new();
    for kind in ["platform", "profile", "scenario"] {
        let file = format!("docs/reference/schema/{kind}.schema.json");
        let text = std::fs::read_to_string(&file).map_err(|problem| format!("{file}: {problem}"))?;
        let schema: Value = serde_json::from_str(&text).map_err(|problem| format!("{file}: {problem}"))?;
        collect_words(&schema, &mut words);
    }
    let lines: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    std::fs::write(path, lines.join("\n")).map_err(|problem| format!("cannot write {path}: {problem}"))
}

/// Names of properties and constants, at any depth.
fn collect_words(schema: &Value, words: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                words.extend(properties.keys().cloned());
            }
            words.extend(fields.get("const").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect_words(value, words));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, words)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_at_any_depth() {
        let schema = serde_json::json!({
            "properties": { "kind": { "oneOf": [{ "const": "cpu", "type": "string" }] } },
            "$defs": { "Link": { "properties": { "from": {} } } },
        });
        let mut words = BTreeSet::new();
        collect_words(&schema, &mut words);
        assert_eq!(words.into_iter().collect::<Vec<_>>(), ["cpu", "from", "kind"]);
    }
}
