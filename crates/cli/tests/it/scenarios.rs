//! The repository's `tests/scenarios/*.md`: prose, a scenario, how to run it, and what must come out.
//!
//! A file holds fenced blocks: `toml` is a scenario; `run` has `policy = "…"` and `seed = N`; `expect` has lines such as
//! `source camera: violation_rate 0 %, response_max 8 ms`, `processor npu: …` or `run: …`. A `run` block uses the last scenario
//! before it, an `expect` block the last run. Values are compared to as many digits as the file gives.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use onbeat_core::metric::{Metric, Unit};
use serde_json::Value;

use crate::support::{Folder, Ran};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

#[test]
fn scenarios_come_out_as_written() {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    assert!(!files.is_empty(), "no scenario in {}", folder.display());
    let mut wrong = String::new();
    for file in files {
        for problem in check(&std::fs::read_to_string(&file).expect("readable")) {
            writeln!(wrong, "{}: {problem}", file.file_name().expect("a file").display()).expect("a string");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Runs a file's blocks and says what is wrong.
fn check(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let mut problems = Vec::new();
    let mut result: Option<Value> = None;
    let mut expectations = 0;
    for block in blocks(text) {
        match block.kind {
            "toml" => {
                folder.write("scenario.toml", &block.body);
                result = None;
            }
            "run" => {
                let ran = run(&folder, &block.body, policy_of(&block.body));
                if ran.code == 0 {
                    result = Some(values_of(&ran));
                } else {
                    problems.push(format!("line {}: exit code {}\n{}", block.line, ran.code, ran.stderr));
                }
            }
            "expect" => {
                expectations += 1;
                let Some(result) = &result else {
                    problems.push(format!("line {}: nothing was run before", block.line));
                    continue;
                };
                for (i, line) in block.body.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                    problems
                        .extend(compare(result, line).into_iter().map(|p| format!("line {}: {p}", block.line + 1 + i)));
                }
            }
            _ => {}
        }
    }
    if expectations == 0 {
        problems.push("nothing is expected".to_owned());
    }
    problems
}

/// Runs the scenario as a `run` block says, under a policy.
fn run(folder: &Folder, block: &str, policy: &str) -> Ran {
    let seed = setting(block, "seed").unwrap_or("1");
    let mut command = vec!["simulate", "scenario.toml", "--policy", policy, "--seed", seed, "--format", "json"];
    command.extend(setting(block, "governor").into_iter().flat_map(|governor| ["--governor", governor]));
    folder.onbeat(&command)
}

fn policy_of(block: &str) -> &str {
    setting(block, "policy").unwrap_or("edf")
}

fn values_of(ran: &Ran) -> Value {
    ran.json()["comparisons"][0]["policies"][0]["runs"][0].clone()
}

/// Whether another policy does all that a file expects of a policy, whatever its parameters are.
fn does_the_same(text: &str, policy: &str, other: &str) -> bool {
    let folder = Folder::new();
    let mut result: Option<Value> = None;
    for block in blocks(text) {
        match block.kind {
            "toml" => folder.write("scenario.toml", &block.body),
            "run" => {
                let asked = policy_of(&block.body);
                let ours = asked.split(':').next() == Some(policy);
                result = ours.then(|| values_of(&run(&folder, &block.body, other).ended_with(0)));
            }
            "expect" => {
                let lines = || block.body.lines().filter(|line| !line.trim().is_empty());
                if result.as_ref().is_some_and(|result| lines().any(|line| !compare(result, line).is_empty())) {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

#[test]
fn what_a_policys_example_shows_is_more_than_edf_and_fcfs_do() {
    let mut same = Vec::new();
    for policy in onbeat_policy::all() {
        let path = folder().join(format!("{}.md", policy.name));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for plain in ["edf", "fcfs"].into_iter().filter(|plain| *plain != policy.name) {
            if does_the_same(&text, policy.name, plain) {
                same.push(format!("{}: {plain} does all that it expects", policy.name));
            }
        }
    }
    assert!(same.is_empty(), "\n{}", same.join("\n"));
}

struct Block<'a> {
    kind: &'a str,
    body: String,
    /// Line of the opening fence, from 1.
    line: usize,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            if !open {
                blocks.push(Block { kind: kind.trim(), body: String::new(), line: i + 1 });
            }
            open = !open;
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            block.body += line;
            block.body += "\n";
        }
    }
    blocks
}

/// The value of `key = value` in a block, without quotes.
fn setting<'a>(body: &'a str, key: &str) -> Option<&'a str> {
    let lines = body.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(k, _)| k.trim() == key).map(|(_, value)| value.trim().trim_matches('"')).next()
}

/// Compares one line of an `expect` block.
fn compare(result: &Value, line: &str) -> Vec<String> {
    let Some((subject, claims)) = line.split_once(':') else {
        return vec![format!("`{line}` has no colon")];
    };
    let values = match subject.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["run"] => Some(&result["run"]),
        ["source", name] => named(&result["sources"], name),
        ["processor", name] => named(&result["processors"], name),
        _ => None,
    };
    let Some(values) = values else { return vec![format!("there is no `{subject}`")] };
    claims.split(',').filter_map(|claim| compare_claim(values, claim.trim()).err()).collect()
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry["name"] == name).map(|entry| &entry["values"])
}

/// `response_max 8 ms`
fn compare_claim(values: &Value, claim: &str) -> Result<(), String> {
    let mut words = claim.split_whitespace();
    let (Some(name), Some(expected)) = (words.next(), words.next()) else {
        return Err(format!("`{claim}` is not `metric value unit`"));
    };
    let metric = Metric::by_name(name).ok_or_else(|| format!("there is no metric `{name}`"))?;
    let symbol = words.next().unwrap_or("");
    if symbol != metric.unit().symbol() {
        return Err(format!("`{claim}`: the unit of {name} is `{}`", metric.unit().symbol()));
    }
    let wanted: f64 = expected.parse().map_err(|_| format!("`{expected}` is no number"))?;
    let factor = if metric.unit() == Unit::Fraction { 100.0 } else { 1.0 };
    let real = values[name].as_f64().ok_or_else(|| format!("there is no {name}"))? * factor;
    let decimals = expected.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    // Half of the last digit, and a little for decimal fractions that binary ones cannot hold.
    let tolerance = 0.5 / 10f64.powf(decimals as f64) * (1.0 + 1e-9);
    if (real - wanted).abs() <= tolerance { Ok(()) } else { Err(format!("{name} is {real}, not {expected}")) }
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let result =
        serde_json::json!({ "run": { "jobs": 10.0, "violation_rate": 0.125 }, "sources": [], "processors": [] });
    assert_eq!(compare(&result, "run: jobs 10, violation_rate 12.5 %"), Vec::<String>::new());
    assert_eq!(compare(&result, "run: jobs 11"), ["jobs is 10, not 11"]);
    assert_eq!(compare(&result, "run: violation_rate 12.4 %").len(), 1);
    assert_eq!(compare(&result, "run: violation_rate 12.5 ms").len(), 1);
    assert_eq!(compare(&result, "source x: jobs 1"), ["there is no `source x`"]);
}
