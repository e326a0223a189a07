//! `onbeat estimate`.

use crate::support::{Folder, onbeat};

/// A model and a chip that nobody has: 10^9 operations and 20 MB; 1 TOPS and 10 GB/s, 10 µs per kernel.
const MODEL: &str = r#"
[model.net]
weights_mb = 20
network = { gmacs = 0.5, kernels = 50, source = "us" }
source = "us"

[model.lm]
shape = "autoregressive"
weights_mb = 10
kv_kb_per_token = 1
transformer = { layers = 2, hidden = 256, ffn = 512, heads = 4, kv_heads = 2, vocab = 1000, source = "us" }
source = "us"

[source.us]
kind = "analytical"
formula = "round numbers for a test"
"#;

const CHIP: &str = r#"
name = "chip"
memory = { bandwidth_gbps = 10, provenance = { bandwidth_gbps = "us" } }

[[processor]]
name = "npu"
kind = "npu"
peak_tops = 1
launch_us = 10
provenance = { peak_tops = "us", launch_us = "us" }

[[processor]]
name = "cpu"
kind = "cpu"

[source.us]
kind = "analytical"
formula = "round numbers for a test"
"#;

const SCENARIO: &str = r#"
name = "both"
duration_s = 2
stream = [{ name = "camera", model = "net", fps = 10, source = "us" }]
session = [{ name = "chat", model = "lm", arrival = { process = "periodic", period_s = 1 }, prompt = 100, output = 20, ttft_ms = 500, tpot_ms = 50, source = "us" }]

[source.us]
kind = "analytical"
formula = "round numbers for a test"
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("models.toml", MODEL);
    folder.write("chip.toml", CHIP);
    folder.write("both.toml", SCENARIO);
    folder
}

const OURS: [&str; 4] = ["--profile", "models.toml", "--platform", "chip.toml"];

#[test]
fn a_network_by_hand() {
    let ran = folder().onbeat(&[&["estimate", "net", "--format", "json"], OURS.as_slice()].concat()).ended_with(0);
    let rows = ran.json();
    // 20 MB at 10 GB/s are 2 ms, more than 1 ms of operations; 50 kernels of 10 µs are 0.5 ms.
    // Launching ahead, nothing but the 2 ms would be left.
    let keys = ["at_least_ms", "latency_ms", "memory_ms", "launch_ms"];
    let shown = keys.map(|key| rows[0][key].as_f64().expect("a number"));
    for (shown, expected) in shown.into_iter().zip([2.0, 2.5, 2.0, 0.5]) {
        assert!((shown - expected).abs() < 1e-9, "{rows}");
    }
    assert_eq!(rows[0]["bound"], "memory");
    assert_eq!(rows[1]["no_estimate"], "no peak rate of `cpu` is known");
}

#[test]
fn the_table_names_what_binds() {
    let args = [&["estimate", "lm", "--prompt", "64", "--batch", "2"], OURS.as_slice()].concat();
    let table = folder().onbeat(&args).ended_with(0).stdout;
    for text in ["TTFT", "TPOT", "memory", "Left out: no peak rate of `cpu` is known."] {
        assert!(table.contains(text), "`{text}` is not in:\n{table}");
    }
    // Launching 5 kernels per layer takes longest if each takes a millisecond.
    let slow = folder().onbeat(&[args.as_slice(), &["--launch-us", "1000"]].concat()).ended_with(0).stdout;
    assert!(slow.contains("launch") && slow.contains(" 11 "), "{slow}");
}

#[test]
fn the_printed_profile_works_with_compare() {
    let folder = folder();
    for model in ["net", "lm"] {
        let args = [&["estimate", model, "--toml", "--batch", "4"], OURS.as_slice()].concat();
        folder.write(&format!("{model}.toml"), &folder.onbeat(&args).ended_with(0).stdout);
    }
    let profiles = ["--profile", "models.toml", "--profile", "net.toml", "--profile", "lm.toml"];
    let compare = ["compare", "both.toml", "--platform", "chip.toml", "--policy", "edf,fcfs", "--seeds", "1"];
    let result =
        folder.onbeat(&[compare.as_slice(), &["--format", "json"], profiles.as_slice()].concat()).ended_with(0);
    assert!(
        result.stdout.contains("max(operations / peak, bytes / bandwidth)"),
        "the report says where figures come from"
    );
    // Pasted into one file, without the second line that names the platform, it means the same.
    let costs = |model: &str| folder.read(&format!("{model}.toml"));
    let lm = costs("lm");
    let pasted: Vec<&str> = lm.lines().filter(|line| !line.starts_with("platform")).collect();
    folder.write("all.toml", &format!("{}{}", costs("net"), pasted.join("\n")));
    let again = folder.onbeat(
        &[compare.as_slice(), &["--format", "json", "--profile", "models.toml", "--profile", "all.toml"]].concat(),
    );
    assert_eq!(again.ended_with(0).json()["comparisons"], result.json()["comparisons"]);
}

#[test]
fn estimates_are_compared_with_what_was_published() {
    let figures = onbeat(&["estimate", "--validate", "--format", "json"]).ended_with(0).json();
    let figures = figures.as_array().expect("a list");
    let ratios = |phase: &str| -> Vec<f64> {
        figures.iter().filter(|f| f["phase"] == phase).filter_map(|f| f["ratio"].as_f64()).collect()
    };
    let (prefill, decode) = (ratios("prefill"), ratios("decode"));
    assert!(prefill.len() >= 80 && decode.len() >= 100, "{} and {} figures", prefill.len(), decode.len());
    assert!(prefill.iter().all(|&ratio| ratio >= 1.0), "a prefill is faster than the peak allows");
}

#[test]
fn the_documented_accuracy_is_the_current_one() {
    let page = include_str!("../../../../docs/estimate.md");
    let table = onbeat(&["estimate", "--validate"]).ended_with(0).stdout;
    assert!(table.contains("median") && table.contains("rk3588 npu"), "{table}");
    let block =
        page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the page has the table");
    assert_eq!(
        block, table,
        "put the output of `onbeat estimate --validate` into docs/estimate.md, and check what it says about it"
    );
}

#[test]
fn what_cannot_be_estimated_is_a_mistake_of_the_command_line() {
    for (args, problem) in [
        (vec!["estimate", "qwen3-9b"], "there is no model `qwen3-9b`"),
        (vec!["estimate", "qwen3-4b/w1"], "`qwen3-4b` has no variant `w1`"),
        (vec!["estimate", "lfm2-1.2b"], "no architecture of the model is known"),
        (vec!["estimate", "qwen3-4b", "-p", "xrbench-4k-ws"], "no peak rate of `npu` is known"),
        (vec!["estimate", "qwen3-4b", "-p", "rk3588", "--processor", "tpu"], "`rk3588` has no processor `tpu`"),
        (vec!["estimate"], "required arguments"),
    ] {
        let ran = onbeat(&args).ended_with(2);
        assert!(ran.stderr.contains(problem), "{args:?}:\n{}", ran.stderr);
    }
}

#[test]
fn wrong_architectures_are_found() {
    let folder = folder();
    folder.write("wrong.toml", &MODEL.replace("kv_heads = 2", "kv_heads = 8"));
    let check = folder.onbeat(&["check", "wrong.toml"]).ended_with(3);
    assert!(check.stderr.contains("8 of 4"), "{}", check.stderr);
    let estimate = folder.onbeat(&["estimate", "lm", "--profile", "wrong.toml", "--platform", "chip.toml"]);
    assert!(estimate.ended_with(2).stderr.contains("kv_heads: 8 of 4"));
}
