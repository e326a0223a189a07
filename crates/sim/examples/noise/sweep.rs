//! Task graphs on three processors of different speed, carried out by plans and by policies that decide as they go, under execution
//! times that vary more and more.

use std::fmt::Write;

use onbeat_core::event::{Event, What};
use onbeat_core::system::System;
use onbeat_sim::simulate;

/// Whether a job finds the one before it still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One job at a time.
    Alone,
    /// Jobs overlap: one is released when the one before should be done by its plan.
    Overlapping,
}

/// What is compared.
pub(crate) const POLICIES: &[&str] = &[
    "heft-plan",
    "heft-plan:noise=processor",
    "heft-plan:noise=move",
    "peft",
    "lookahead",
    "cpop",
    "heft",
    "mct",
    "olb",
    "fcfs",
];

/// Standard deviations of the execution time factor, whose mean is 1.
pub(crate) const SPREADS: &[f64] = &[0.0, 0.1, 0.25, 0.5, 1.0];

/// How many task graphs there are.
const GRAPHS: u64 = 12;

/// Jobs per graph.
const JOBS: u32 = 60;

/// A sequence of numbers that looks random and is the same everywhere (Knuth's linear congruential generator).
struct Numbers(u64);

impl Numbers {
    /// A whole number from `low` to `high`.
    fn next(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (self.0 >> 33) % (high - low + 1)
    }
}

/// One of the graphs, as a scenario: 12 stages in layers of up to 4, each after one or two stages of the layer before. A stage takes 2 to 20
/// ms, drawn for each processor; handing over takes 1 ms.
fn graph(number: u64, spread: f64, period_ms: f64) -> System {
    let mut numbers = Numbers(number + 1);
    let mut toml = format!(
        "name = \"graph-{number}\"\nduration_s = {}\nvariation = {{ kind = \"lognormal\", spread = {spread:?} }}\n\
         [[stream]]\nname = \"jobs\"\nchain = \"graph\"\nperiod_ms = {period_ms}\ncount = {JOBS}\n\
         [platform]\nname = \"three\"\nmemory = {{}}\n\
         processor = [{{ name = \"cpu\", kind = \"cpu\" }}, {{ name = \"gpu\", kind = \"gpu\" }}, {{ name = \"npu\", kind = \"npu\" }}]\n\
         link = [{{ from = \"cpu\", to = \"gpu\", latency_us = 1000 }}, {{ from = \"cpu\", to = \"npu\", latency_us = 1000 }}, {{ from = \"gpu\", to = \"npu\", latency_us = 1000 }}]\n",
        period_ms * f64::from(4 * JOBS) / 1000.0,
    );
    let mut put = |text: std::fmt::Arguments<'_>| toml.write_fmt(text).expect("writing to a string succeeds");
    let (mut stages, mut before) = (0_u64, 0..0);
    while stages < 12 {
        let width = if stages == 0 { 1 } else { numbers.next(2, 4).min(12 - stages) };
        for stage in stages..stages + width {
            put(format_args!("[model.m{stage}]\n[[chain.graph.stage]]\nname = \"s{stage}\"\nmodel = \"m{stage}\"\n"));
            if !before.is_empty() {
                let first = numbers.next(before.start, before.end - 1);
                let second = numbers.next(before.start, before.end - 1);
                let after: Vec<String> = if first == second { vec![first] } else { vec![first, second] }
                    .into_iter()
                    .map(|stage| format!("{{ stage = \"s{stage}\" }}"))
                    .collect();
                put(format_args!("after = [{}]\n", after.join(", ")));
            }
            for processor in ["cpu", "gpu", "npu"] {
                let latency = numbers.next(2, 20);
                put(format_args!(
                    "[[cost]]\nmodel = \"m{stage}\"\nprocessor = \"{processor}\"\nlatency_ms = {latency}\n"
                ));
            }
        }
        before = stages..stages + width;
        stages += width;
    }
    System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}\n{toml}"))
}

/// Mean time from release to completion over all jobs of a run [ms].
fn mean_response_ms(system: &System, policy: &str) -> f64 {
    let made = onbeat_policy::make(policy, system).unwrap_or_else(|error| panic!("{error}"));
    let (_, events): (_, Vec<Event>) =
        simulate(system, made, policy, 1, Vec::new()).unwrap_or_else(|error| panic!("{error}"));
    let mut releases = std::collections::BTreeMap::new();
    let (mut sum, mut done) = (0.0, 0_u32);
    for event in &events {
        match event.what {
            What::Release { job, nominal, .. } => drop(releases.insert(job, nominal)),
            What::JobDone { job } => {
                sum += (event.at.as_ms()) - releases[&job].as_ms();
                done += 1;
            }
            _ => {}
        }
    }
    assert_eq!(done, JOBS, "{policy}: every job is done");
    sum / f64::from(done)
}

/// How long a job takes on average over all graphs, relative to `heft-plan` without noise, for each policy and spread. Sampled execution
/// times are the same for all policies.
pub(crate) fn sweep(policies: &[&str], spreads: &[f64], load: Load) -> Vec<Vec<f64>> {
    let mut table = vec![vec![0.0; spreads.len()]; policies.len()];
    for number in 0..GRAPHS {
        let alone = mean_response_ms(&graph(number, 0.0, 10_000.0), "heft-plan");
        let period = if load == Load::Alone { 10_000.0 } else { alone.ceil() };
        let base = mean_response_ms(&graph(number, 0.0, period), "heft-plan");
        for (column, &spread) in spreads.iter().enumerate() {
            let system = graph(number, spread, period);
            for (row, policy) in policies.iter().enumerate() {
                table[row][column] += mean_response_ms(&system, policy) / base / GRAPHS as f64;
            }
        }
    }
    table
}

/// A sweep's table in Markdown.
pub(crate) fn render(policies: &[&str], spreads: &[f64], table: &[Vec<f64>]) -> String {
    let columns: Vec<String> = spreads.iter().map(|spread| format!(" {spread} |")).collect();
    let mut text = format!("| policy |{}\n|---|{}\n", columns.concat(), "---:|".repeat(spreads.len()));
    for (policy, row) in policies.iter().zip(table) {
        let values: Vec<String> = row.iter().map(|value| format!(" {value:.3} |")).collect();
        writeln!(text, "| `{policy}` |{}", values.concat()).expect("writing to a string succeeds");
    }
    text
}
