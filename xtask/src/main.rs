//! The project's own tasks: `cargo xtask check` does what CI does, `cargo xtask gen` writes the generated references.

mod check;
mod fuzz;
mod generate;
mod layers;
mod real;
mod results;
mod tree;

use std::path::Path;
use std::process::{Command, ExitCode};

const HELP: &str = "\
Usage: cargo xtask <TASK>

  check [STEP…]    everything that CI does, or only the named steps; all steps run, then the failures are listed
  gen [--check]    writes docs/reference from the code; with --check, only tells what is out of date
  fuzz [SECONDS]   fuzzes the readers of specification files and records, each for so many seconds (default 20)
  results [SEEDS]  runs all policies on all shipped scenarios and writes docs/results.md and docs/results.csv
                   (default 20 seeds; minutes)
  steps            lists the steps of check
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // The manifest's folder is compiled in, so that tasks work from any folder of the checkout.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root");
    if let Err(problem) = std::env::set_current_dir(root) {
        eprintln!("cannot enter {}: {problem}", root.display());
        return ExitCode::FAILURE;
    }
    let outcome = match arguments.as_slice() {
        ["check", steps @ ..] => check::run(steps),
        ["gen"] => generate::write(),
        ["gen", "--check"] => generate::check(),
        ["fuzz"] => fuzz::run(fuzz::DEFAULT_SECONDS),
        ["fuzz", seconds] => match seconds.parse() {
            Ok(seconds) => fuzz::run(seconds),
            Err(_) => Err(format!("`{seconds}` is not a number of seconds")),
        },
        ["results"] => results::run(results::DEFAULT_SEEDS),
        ["results", seeds] => match seeds.parse() {
            Ok(seeds @ 2..) => results::run(seeds),
            _ => Err(format!("`{seeds}` is not a number of seeds, at least 2")),
        },
        ["steps"] => {
            check::list();
            Ok(())
        }
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("no such task: {}\n\n{HELP}", arguments.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program with the terminal's output and without input.
fn call(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let shown = format!("{program} {}", arguments.join(" "));
    println!("$ {shown}");
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::null())
        .status()
        .map_err(|problem| format!("cannot run `{shown}`: {problem}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}")) }
}

/// Runs a program and returns what it prints.
fn output_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|problem| format!("cannot run `{shown}`: {problem}"))?;
    if !output.status.success() {
        return Err(format!("`{shown}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{shown}` printed something that is not UTF-8"))
}
