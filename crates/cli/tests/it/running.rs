//! Real runs: real threads, real time; virtual devices, and small networks that the tests make.

use onbeat_onnx::{Attr, Builder, Dim, ElementType};

use crate::support::Folder;

/// Two streams for half a second, on one processor that `device` describes.
fn prepare(folder: &Folder, device: &str) {
    folder.write(
        "chip.toml",
        &format!(
            "name = \"chip\"\ntitle = \"A chip for tests\"\n[memory]\n[[processor]]\nname = \"cpu\"\nkind = \"cpu\"\npreemption = \"segment\"\n{device}"
        ),
    );
    folder.write(
        "app.toml",
        r#"
name = "app"
title = "An app for tests"
description = "Two streams."
runs_on = ["chip.toml"]
duration_s = 0.5
[[stream]]
name = "camera"
model = "net"
fps = 20
[[stream]]
name = "sound"
model = "net"
period_ms = 40
[model.net]
shape = "one_shot"
path = "net.onnx"
[[cost]]
model = "net"
processor = "cpu"
latency_ms = 2
"#,
    );
}

/// A network that adds its input to itself.
fn network() -> Vec<u8> {
    let mut graph = Builder::new("double", 17);
    let x = graph.input("x", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(8)]);
    let y = graph.node("Add", &[&x, &x], &[] as &[(&str, Attr)]);
    graph.output_named(&y, "y", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(8)]);
    graph.finish()
}

/// 10 frames and 13 pieces of sound, each released once and accounted for once.
fn all_accounted_for(result: &serde_json::Value) {
    let policy = &result["comparisons"][0]["policies"][0];
    let sources = policy["sources"].as_array().expect("there are sources");
    let number = |source: &serde_json::Value, name: &str| source["values"][name]["mean"].as_f64().unwrap_or(f64::NAN);
    let jobs: Vec<f64> = sources.iter().map(|source| number(source, "jobs")).collect();
    assert_eq!(jobs, [10.0, 13.0], "{policy:#}");
    for source in sources {
        let fates = ["done", "dropped", "unfinished"].map(|fate| number(source, fate));
        assert_eq!(fates.iter().sum::<f64>(), number(source, "jobs"), "{source:#}");
    }
}

#[test]
fn a_rehearsal_replays_and_a_record_that_was_changed_does_not() {
    let folder = Folder::new();
    prepare(&folder, "");
    folder.write("net.onnx", "never looked at: the device is virtual");
    let ran = folder.onbeat(&["run", "app.toml", "--out", "out", "--format", "json"]).ended_with(0);
    all_accounted_for(&ran.json());
    let replayed = folder.onbeat(&["replay", "out/record.jsonl"]).ended_with(0);
    assert!(replayed.stderr.contains("identical, bit for bit"), "{}", replayed.stderr);
    assert!(replayed.stdout.contains("camera"), "{}", replayed.stdout);

    // The policy that the record names is not the one that took its decisions.
    let record = folder.read("out/record.jsonl");
    let at = record.find("\"event\":\"asked\"").expect("the policy was asked");
    let digest = record[at..].find("\"digest\":").map(|i| at + i + 9).expect("a decision has a digest");
    let mut damaged = record.clone();
    damaged.replace_range(digest..=digest, if record[digest..].starts_with('1') { "2" } else { "1" });
    folder.write("changed.jsonl", &damaged);
    let replayed = folder.onbeat(&["replay", "changed.jsonl"]).ended_with(8);
    assert!(replayed.stderr.contains("changed.jsonl") || replayed.stderr.contains("decision"), "{}", replayed.stderr);
}

#[test]
fn an_answer_is_drafted_on_virtual_devices_and_replays() {
    let folder = Folder::new();
    let shipped = include_str!("../../../../library/scenarios/long-answers.toml");
    let short = shipped
        .replace(
            "{ process = \"poisson\", rate_per_s = 0.02, start_s = 2 }",
            "{ process = \"periodic\", period_s = 100 }",
        )
        .replace("prompt = { kind = \"uniform\", low = 1024, high = 2048 }", "prompt = 64")
        .replace("duration_s = 300", "duration_s = 2");
    folder.write("short.toml", &short);
    let args = ["run", "short.toml", "--virtual", "--policy", "speculative", "--out", "out", "--format", "json"];
    folder.onbeat(&args).ended_with(0);
    let record = folder.read("out/record.jsonl");
    let together = record.lines().filter(|line| line.contains("\"event\":\"start\"") && line.contains("\"over\":["));
    assert!(together.count() > 0, "nothing was drafted");
    assert!(record.lines().any(|line| line.contains("\"event\":\"progress\"")), "cycles are reported");
    let replayed = folder.onbeat(&["replay", "out/record.jsonl"]).ended_with(0);
    assert!(replayed.stderr.contains("identical, bit for bit"), "{}", replayed.stderr);
}

#[test]
fn a_network_of_ones_own_runs_for_real_and_replays() {
    let folder = Folder::new();
    prepare(&folder, "device = \"rten\"\n");
    std::fs::write(folder.path("net.onnx"), network()).unwrap();
    let ran = folder.onbeat(&["run", "app.toml", "--awake", "--out", "out", "--format", "json"]).ended_with(0);
    all_accounted_for(&ran.json());
    folder.onbeat(&["replay", "out/record.jsonl", "--decisions"]).ended_with(0);
    assert!(!folder.read("out/record.jsonl").contains("\"event\":\"failed\""));
}

#[test]
fn a_damaged_network_ends_the_run_before_it_begins_and_is_named() {
    let folder = Folder::new();
    prepare(&folder, "device = \"rten\"\n");
    let mut bytes = network();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(folder.path("net.onnx"), bytes).unwrap();
    let ran = folder.onbeat(&["run", "app.toml", "--out", "out"]).ended_with(7);
    assert!(ran.stderr.contains("net.onnx"), "{}", ran.stderr);
}

#[test]
fn a_device_that_is_not_there_ends_the_run_before_it_begins() {
    let folder = Folder::new();
    prepare(&folder, "device = \"ort:NoSuchExecutionProvider\"\n");
    std::fs::write(folder.path("net.onnx"), network()).unwrap();
    let ran = folder.onbeat(&["run", "app.toml", "--out", "out"]).ended_with(7);
    assert!(ran.stderr.contains("cpu") || ran.stderr.contains("ort"), "{}", ran.stderr);
}

/// Writing to this file fails as on a full disk.
#[cfg(target_os = "linux")]
const FULL: &str = "/dev/full";

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_the_record_costs_the_record_and_not_the_run() {
    let folder = Folder::new();
    prepare(&folder, "");
    std::fs::create_dir_all(folder.path("out")).unwrap();
    std::os::unix::fs::symlink(FULL, folder.path("out/record.jsonl")).unwrap();
    let ran = folder.onbeat(&["run", "app.toml", "--out", "out", "--format", "json"]).ended_with(5);
    // The run went on to its end, and its results are there.
    all_accounted_for(&ran.json());
    assert!(ran.stderr.contains("record.jsonl"), "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
}
