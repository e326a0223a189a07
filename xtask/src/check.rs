//! What CI does, step by step.

use std::time::Instant;

use crate::{call, fuzz, generate, layers, real, tree};

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<(), String>,
}

/// In order of cost, so that cheap mistakes show first.
const STEPS: &[Step] = &[
    Step { name: "fmt", what: "formatting", run: fmt },
    Step { name: "tree", what: "file lengths, links, no path or registry of somebody's machine", run: tree::check },
    Step { name: "layers", what: "arrows between crates, licences and sources of dependencies", run: layers::check },
    Step { name: "gen", what: "generated references are up to date", run: generate::check },
    Step { name: "clippy", what: "lints and capability bans, warnings are errors", run: clippy },
    Step { name: "doc", what: "documentation builds, warnings are errors", run: doc },
    Step { name: "smoke", what: "the main job, once, optimised", run: smoke },
    Step { name: "models", what: "real models and ONNX Runtime, fetched for the tests", run: real::fetch },
    Step { name: "test", what: "all tests, those of real models where they were fetched", run: test },
    Step { name: "real", what: "the assistant with real models: run and replayed", run: real::run },
    Step { name: "fuzz", what: "readers of files, for a bounded time", run: || fuzz::run(fuzz::DEFAULT_SECONDS) },
];

/// Runs the named steps, or all. A failed step does not keep the later ones from running.
pub(crate) fn run(names: &[&str]) -> Result<(), String> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        return Err(format!("no such step: {unknown}; `cargo xtask steps` lists them"));
    }
    let mut results = Vec::new();
    for step in STEPS.iter().filter(|step| names.is_empty() || names.contains(&step.name)) {
        println!("\n==> {}: {}", step.name, step.what);
        let start = Instant::now();
        let outcome = (step.run)();
        let seconds = start.elapsed().as_secs_f64();
        if let Err(problem) = &outcome {
            println!("{problem}");
        }
        println!("<== {}: {} in {seconds:.1} s", step.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        results.push((step.name, outcome.is_ok(), seconds));
    }
    println!();
    for (name, ok, seconds) in &results {
        println!("{name:<8} {:<6} {seconds:>7.1} s", if *ok { "ok" } else { "FAILED" });
    }
    let failed: Vec<&str> = results.iter().filter(|(_, ok, _)| !ok).map(|(name, ..)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Prints the steps.
pub(crate) fn list() {
    for step in STEPS {
        println!("{:<8} {}", step.name, step.what);
    }
}

fn fmt() -> Result<(), String> {
    call("cargo", &["fmt", "--all", "--check"], &[])
}

fn clippy() -> Result<(), String> {
    call("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"], &[])
}

fn doc() -> Result<(), String> {
    call("cargo", &["doc", "--workspace", "--no-deps", "--locked", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])
}

fn test() -> Result<(), String> {
    let fetched = real::fetched()?;
    // `INSTA_UPDATE=no`: a snapshot that differs fails and is not written.
    let mut environment = vec![("INSTA_UPDATE", "no")];
    environment.extend(fetched.iter().map(|(name, path)| (*name, path.as_str())));
    call("cargo", &["test", "--workspace", "--locked"], &environment)
}

fn smoke() -> Result<(), String> {
    let out = "target/smoke";
    call(
        "cargo",
        &["run", "--release", "--locked", "--", "compare", "--quiet", "--seeds", "2", "--duration", "10", "--out", out],
        &[],
    )
}
