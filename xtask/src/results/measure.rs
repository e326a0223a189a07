//! Runs the programs that measure, and reads what they print.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use onbeat_core::spec::{FileKind, Library, NoFiles};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::output_of;
use crate::results::data::{Cell, Cost, Entry, Group, Loss, OWN, Standing};

/// The metric that ranks policies.
const METRIC: &str = "mean_violation_rate";

/// The optimised programs.
#[derive(Debug)]
pub(super) struct Programs {
    onbeat: PathBuf,
    decisions: PathBuf,
}

/// Builds them.
pub(super) fn build() -> Result<Programs, String> {
    Ok(Programs {
        onbeat: executable(&["-p", "onbeat", "--bin", "onbeat"])?,
        decisions: executable(&["-p", "onbeat-sim", "--example", "decisions"])?,
    })
}

/// Builds a program; cargo itself says where it lies.
fn executable(what: &[&str]) -> Result<PathBuf, String> {
    println!("$ cargo build --release --locked {}", what.join(" "));
    let output = Command::new("cargo")
        .args(["build", "--release", "--locked", "--message-format", "json-render-diagnostics"])
        .args(what)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|problem| format!("cannot run cargo: {problem}"))?;
    if !output.status.success() {
        return Err(format!("building {} failed: {}", what.join(" "), output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let found = messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    found.ok_or_else(|| format!("cargo built no program for {}", what.join(" ")))
}

/// What is read of `onbeat compare --format json`; docs/json-format.md describes it.
#[derive(Debug, Deserialize)]
struct Output {
    comparisons: Vec<Comparison>,
}

#[derive(Debug, Deserialize)]
struct Comparison {
    platform: String,
    duration_s: f64,
    bound: Bound,
    policies: Vec<PolicyOutput>,
}

#[derive(Debug, Deserialize)]
struct Bound {
    run: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct PolicyOutput {
    policy: String,
    verdict: String,
    run: BTreeMap<String, Statistic>,
    sources: Vec<SourceOutput>,
    runs: Vec<Summary>,
}

#[derive(Debug, Deserialize)]
struct Statistic {
    mean: f64,
    half_width: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct SourceOutput {
    name: String,
    values: BTreeMap<String, Statistic>,
}

#[derive(Debug, Deserialize)]
struct Summary {
    run: BTreeMap<String, f64>,
    // The greater part of the output; named so that it is skipped while reading.
    #[serde(rename = "processors")]
    _processors: IgnoredAny,
}

/// Every shipped scenario on each platform that it says it runs on, under all policies that get through. A policy that stops a run
/// with an error is left out everywhere, and the error returned: cells must be comparable.
pub(super) fn matrix(programs: &Programs, seeds: u32) -> Result<(Vec<Cell>, Vec<String>), String> {
    let mut policies: Vec<&str> = onbeat_policy::all().iter().map(|info| info.name).collect();
    let mut errors = Vec::new();
    'again: loop {
        let mut cells = Vec::new();
        for (scenario, platform, group) in pairs()? {
            let Ok(comparison) = compare(programs, scenario, platform, seeds, &policies.join(","), &[]) else {
                let before = policies.len();
                policies.retain(|policy| match compare(programs, scenario, platform, seeds, policy, &[]) {
                    Ok(_) => true,
                    Err(problem) => {
                        println!("{problem}");
                        let place = platform.map_or_else(String::new, |platform| format!(" on {platform}"));
                        errors.push(format!("`{policy}`, on {scenario}{place}"));
                        false
                    }
                });
                if policies.len() == before {
                    return Err(format!("{scenario}: fails with all policies together, but with none alone"));
                }
                continue 'again;
            };
            let cell = cell(scenario, group, comparison)?;
            println!("{}: best {}, {:.1}%", cell.name(), cell.best().policy, cell.best().mean * 100.0);
            cells.push(cell);
        }
        return Ok((cells, errors));
    }
}

/// A scenario, its platform (none: its own), and the group that it is shown in.
type Pair = (&'static str, Option<&'static str>, Group);

/// All scenarios with their platforms; none for the scenario's own.
fn pairs() -> Result<Vec<Pair>, String> {
    let library = Library::shipped();
    let mut pairs = Vec::new();
    for scenario in library.names(FileKind::Scenario) {
        let spec = library.scenario(scenario, &NoFiles).map_err(|errors| errors.to_string())?;
        if spec.platform.is_some() {
            pairs.push((scenario, None, Group::Textbook));
            continue;
        }
        // The library's own name of the platform, which lives as long as the program.
        for platform in library.names(FileKind::Platform) {
            if spec.runs_on.iter().any(|name| name == platform) {
                let group = if platform.starts_with("xrbench-") { Group::XrBench } else { Group::Chips };
                pairs.push((scenario, Some(platform), group));
            }
        }
    }
    Ok(pairs)
}

fn compare(
    programs: &Programs,
    scenario: &str,
    platform: Option<&str>,
    seeds: u32,
    policies: &str,
    more: &[&str],
) -> Result<Comparison, String> {
    let program = programs.onbeat.to_string_lossy();
    let seeds = seeds.to_string();
    let mut arguments =
        vec!["compare", scenario, "--format", "json", "--quiet", "--seeds", &seeds, "--policy", policies];
    if let Some(platform) = platform {
        arguments.extend(["--platform", platform]);
    }
    arguments.extend(more);
    let text = output_of(&program, &arguments)?;
    let output: Output = serde_json::from_str(&text).map_err(|problem| format!("{scenario}: {problem}"))?;
    output.comparisons.into_iter().next().ok_or_else(|| format!("{scenario}: nothing was compared"))
}

fn cell(scenario: &str, group: Group, comparison: Comparison) -> Result<Cell, String> {
    let entries = comparison.policies.iter().map(|policy| {
        entry(policy).map_err(|problem| format!("{scenario} on {}, {}: {problem}", comparison.platform, policy.policy))
    });
    Ok(Cell {
        entries: entries.collect::<Result<_, _>>()?,
        scenario: scenario.to_owned(),
        group,
        duration_s: comparison.duration_s,
        bound: comparison.bound.run.get(METRIC).copied().unwrap_or(0.0),
        platform: comparison.platform,
    })
}

fn entry(output: &PolicyOutput) -> Result<Entry, String> {
    let statistic = output.run.get(METRIC).ok_or("it has no mean violation rate")?;
    let by_seed = |metric: &str| -> Option<Vec<f64>> {
        output.runs.iter().map(|summary| summary.run.get(metric).copied()).collect()
    };
    let violations = |source: &SourceOutput| {
        source.values.get("violation_rate").map(|statistic| (source.name.clone(), statistic.mean))
    };
    Ok(Entry {
        policy: output.policy.clone(),
        standing: match output.verdict.as_str() {
            "best" | "same" => Standing::Best,
            "within_noise" => Standing::WithinNoise,
            "worse" => Standing::Worse,
            other => return Err(format!("the verdict `{other}` is not known here")),
        },
        mean: statistic.mean,
        half_width: statistic.half_width.ok_or("one seed gives no interval")?,
        by_seed: by_seed(METRIC).ok_or("a seed lacks the mean violation rate")?,
        of_all_jobs: output.run.get("violation_rate").map_or(statistic.mean, |statistic| statistic.mean),
        slo_by_seed: by_seed("slo_attainment"),
        sources: output.sources.iter().filter_map(violations).collect(),
    })
}

/// Where our own policy is worse than the best, and how much of that is left without contention.
pub(super) fn losses(programs: &Programs, cells: &[Cell], seeds: u32) -> Result<Vec<Loss>, String> {
    let mut losses = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let own = cell.entry(OWN);
        if own.standing != Standing::Worse || cell.group == Group::Textbook {
            continue;
        }
        let best = cell.best();
        let both = format!("{},{OWN}", best.policy);
        let comparison = compare(programs, &cell.scenario, Some(&cell.platform), seeds, &both, &["--no-contention"])?;
        let mean = |policy: &str| {
            let output = comparison.policies.iter().find(|output| output.policy == policy);
            output.and_then(|output| output.run.get(METRIC)).map_or(0.0, |statistic| statistic.mean)
        };
        losses.push(Loss {
            cell: index,
            difference: own.mean - best.mean,
            without_contention: mean(OWN) - mean(&best.policy),
        });
    }
    losses.sort_by(|a, b| b.difference.total_cmp(&a.difference));
    Ok(losses)
}

/// What the policies' decisions cost, from `crates/sim/examples/decisions.rs`.
pub(super) fn decision_costs(programs: &Programs) -> Result<Vec<Cost>, String> {
    let text = output_of(&programs.decisions.to_string_lossy(), &[])?;
    text.lines().skip(1).map(|line| cost(line).ok_or_else(|| format!("decisions printed `{line}`"))).collect()
}

/// One line of the table of decision costs.
fn cost(line: &str) -> Option<Cost> {
    let columns: Vec<&str> = line.split(',').collect();
    let [policy, workload, decisions, mean, _, p99, _, allocations] = columns.as_slice() else { return None };
    Some(Cost {
        policy: (*policy).to_owned(),
        workload: (*workload).to_owned(),
        decisions: decisions.parse().ok()?,
        mean_ns: mean.parse().ok()?,
        p99_ns: p99.parse().ok()?,
        allocations: allocations.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_costs_is_read_and_a_broken_one_is_not() {
        let read = cost("edf,64-live-jobs,540,812,790,1400,9000,0.250").unwrap();
        assert_eq!((read.policy.as_str(), read.decisions, read.p99_ns), ("edf", 540, 1400.0));
        assert_eq!((read.mean_ns, read.allocations), (812.0, 0.25));
        assert!(cost("edf,64-live-jobs,540,812,790,1400,9000").is_none());
        assert!(cost("edf,64-live-jobs,540,?,790,1400,9000,0").is_none());
    }

    #[test]
    fn a_comparison_is_read() {
        let text = r#"{ "format": 1, "comparisons": [{ "scenario": "s", "platform": "p", "duration_s": 2.0,
            "bound": { "run": { "mean_violation_rate": 0.125 }, "sources": [] },
            "policies": [{ "policy": "edf", "verdict": "same", "sources": [],
                "run": { "mean_violation_rate": { "mean": 0.25, "half_width": 0.1, "n": 2 } },
                "runs": [{ "run": { "mean_violation_rate": 0.2 }, "processors": [] },
                         { "run": { "mean_violation_rate": 0.3 }, "processors": [] }] }] }] }"#;
        let output: Output = serde_json::from_str(text).unwrap();
        let cell = cell("s", Group::Chips, output.comparisons.into_iter().next().unwrap()).unwrap();
        assert_eq!((cell.bound, cell.best().by_seed.as_slice()), (0.125, [0.2, 0.3].as_slice()));
        assert_eq!((cell.best().standing, cell.best().slo_by_seed.as_ref()), (Standing::Best, None));
    }
}
