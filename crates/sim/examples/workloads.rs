//! The workloads of docs/performance.md, and a table of how fast they run.
//!
//! `cargo run --release -p onbeat-sim --example workloads` prints the table; with the name of a workload it runs only that one,
//! once, for a profiler: `valgrind --tool=callgrind target/release/examples/workloads edf`.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a program that times and prints")]

use std::fmt::Write;
use std::time::Instant;

use onbeat_core::event::NoSink;
use onbeat_core::system::System;
use onbeat_sim::{Outcome, simulate};

/// W1 of the peers' comparison: three periodic tasks, two identical processors, global preemptive EDF.
fn edf(duration_s: f64) -> String {
    streams(2, &[(10.0, 4.0), (15.0, 6.0), (35.0, 14.0)], duration_s)
}

/// Periodic streams of (period, latency) [ms] on identical processors that preempt at any time.
fn streams(processors: u32, set: &[(f64, f64)], duration_s: f64) -> String {
    let mut toml = format!(
        "name = \"streams\"\nduration_s = {duration_s}\n[platform]\nname = \"p\"\n[platform.memory]\n\
         [[platform.processor]]\nname = \"core\"\nkind = \"cpu\"\ncount = {processors}\npreemption = \"anytime\"\n"
    );
    for (i, (period, latency)) in set.iter().enumerate() {
        write!(
            toml,
            "[model.m{i}]\n[[cost]]\nmodel = \"m{i}\"\nprocessor = \"core\"\nlatency_ms = {latency}\n\
             [[stream]]\nname = \"s{i}\"\nmodel = \"m{i}\"\nperiod_ms = {period}\n"
        )
        .expect("writing to a string succeeds");
    }
    toml
}

/// W2 of the peers' comparison: 1000 requests, Poisson 2/s, 512 tokens in, 128 out, with batched decode.
fn requests() -> String {
    r#"
    name = "requests"
    duration_s = 900
    [platform]
    name = "p"
    [platform.memory]
    [[platform.processor]]
    name = "gpu"
    kind = "gpu"
    [model.llm]
    shape = "autoregressive"
    [[cost]]
    model = "llm"
    processor = "gpu"
    prefill_ms = [[512, 60], [4096, 600]]
    decode_ms = [[0, 12], [4096, 16]]
    batch_factor = [[1, 1.0], [32, 1.6]]
    [[session]]
    name = "chat"
    model = "llm"
    arrival = { process = "poisson", rate_per_s = 2 }
    prompt = 512
    output = 128
    count = 1000
    "#
    .to_owned()
}

/// `n` streams with a total load of 1.4 on two processors, periods from 10 to 100 ms.
fn scaled(n: usize) -> String {
    let set: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            let period = 10.0 + 90.0 * (i as f64 * 0.618).fract();
            (period, period * 1.4 / n as f64)
        })
        .collect();
    // The same number of jobs for every n: periods average 55 ms.
    streams(2, &set, 200_000.0 * 0.04 / n as f64)
}

fn run(toml: &str, policy: &str) -> Outcome {
    let system = System::from_toml(toml).unwrap_or_else(|errors| panic!("{errors}"));
    let made = onbeat_policy::make(policy, &system).unwrap_or_else(|error| panic!("{error}"));
    simulate(&system, made, policy, 1, NoSink).unwrap_or_else(|error| panic!("{error}")).0
}

fn main() {
    let only = std::env::args().nth(1);
    let mut table: Vec<(String, String, &str)> = vec![
        ("edf".to_owned(), edf(100.0), "edf"),
        ("edf-long".to_owned(), edf(10_000.0), "edf"),
        ("requests".to_owned(), requests(), "fcfs"),
    ];
    for n in [4, 40, 400] {
        table.push((format!("streams-{n}"), scaled(n), "edf"));
    }
    if only.is_none() {
        println!(
            "{:<12} {:>10} {:>10} {:>10} {:>12} {:>10}",
            "workload", "jobs", "decisions", "ms", "jobs/s", "ns/job"
        );
    }
    for (name, toml, policy) in table {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let start = Instant::now();
        let outcome = run(&toml, policy);
        let s = start.elapsed().as_secs_f64();
        let jobs = outcome.jobs as f64;
        println!(
            "{name:<12} {:>10} {:>10} {:>10.2} {:>12.0} {:>10.0}",
            outcome.jobs,
            outcome.decisions,
            s * 1e3,
            jobs / s,
            s / jobs * 1e9
        );
    }
}
