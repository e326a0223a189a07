//! The workloads of docs/performance.md, and a table of how fast they run.
//!
//! `cargo run --release -p onbeat-sim --example workloads` prints the table; with the name of a workload it runs only that one,
//! once, for a profiler: `valgrind --tool=callgrind target/release/examples/workloads edf`.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a program that times and prints")]

mod scenarios;

use std::time::Instant;

use onbeat_core::event::NoSink;
use onbeat_core::spec::{Library, NoFiles, Options};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_sim::{Outcome, simulate};

use scenarios::{edf, requests, scaled};

/// Simulates, and tells how long that took [s], without reading the scenario.
fn run(system: &System, policy: &str) -> (Outcome, f64) {
    let made = onbeat_policy::make(policy, system).unwrap_or_else(|error| panic!("{error}"));
    let start = Instant::now();
    let (outcome, _) = simulate(system, made, policy, 1, NoSink).unwrap_or_else(|error| panic!("{error}"));
    (outcome, start.elapsed().as_secs_f64())
}

/// Five minutes of the library's video conference.
fn conference() -> System {
    let options = Options { duration: Some(Nanos::from_secs(300.0)), ..Options::default() };
    Library::shipped()
        .resolve("video-conference", Some("snapdragon-x-elite"), &options, &NoFiles)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn main() {
    let only = std::env::args().nth(1);
    let written = |toml: String| System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"));
    let mut table: Vec<(String, System, &str)> = vec![
        ("edf".to_owned(), written(edf(100.0)), "edf"),
        ("edf-long".to_owned(), written(edf(10_000.0)), "edf"),
        ("requests".to_owned(), written(requests()), "fcfs"),
    ];
    for n in [4, 40, 400] {
        table.push((format!("streams-{n}"), written(scaled(n)), "edf"));
    }
    for policy in ["edf", "onbeat"] {
        table.push((format!("conference-{policy}"), conference(), policy));
    }
    if only.is_none() {
        println!(
            "{:<18} {:>10} {:>10} {:>10} {:>12} {:>10}",
            "workload", "jobs", "decisions", "ms", "jobs/s", "ns/job"
        );
    }
    for (name, system, policy) in table {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let (outcome, s) = run(&system, policy);
        let jobs = outcome.jobs as f64;
        println!(
            "{name:<18} {:>10} {:>10} {:>10.2} {:>12.0} {:>10.0}",
            outcome.jobs,
            outcome.decisions,
            s * 1e3,
            jobs / s,
            s / jobs * 1e9
        );
    }
}
