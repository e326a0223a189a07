//! Answers of one language model that share their steps in a real run: a small llama with random weights, written as a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

use crate::support::{Folder, Ran};

#[path = "../../../language/src/test_files.rs"]
#[allow(dead_code, reason = "the language models' own tests use the rest")]
mod test_files;

const PROMPTS: [&str; 3] = ["hello", "how are you?", "what is the time?"];

/// Three people ask at the same time; their answers may have 60, 80 and 100 tokens.
fn prepare(folder: &Folder, batch_factor: &str) {
    // Without ChatML's marks, prompts are taken as they are.
    let llama = test_files::llama(test_files::Storage::Blocks, 256, ["<|a|>", "<|b|>"]);
    std::fs::write(folder.path("tiny.gguf"), llama).unwrap();
    folder.write(
        "chip.toml",
        "name = \"chip\"\ntitle = \"A chip for tests\"\n[memory]\n[[processor]]\nname = \"cpu\"\nkind = \"cpu\"\ndevice = \"rten\"\n",
    );
    let session = |(i, prompt): (usize, &&str)| {
        folder.write(&format!("s{i}.txt"), prompt);
        let output = 60 + 20 * i;
        format!(
            "[[session]]\nname = \"s{i}\"\nmodel = \"tiny\"\nprompt = 20\noutput = {output}\narrival = {{ process = \"periodic\", period_s = 60 }}\n"
        )
    };
    let sessions: String = PROMPTS.iter().enumerate().map(session).collect();
    folder.write(
        "app.toml",
        &format!(
            r#"
name = "app"
title = "An app for tests"
description = "Three chats."
runs_on = ["chip.toml"]
duration_s = 4
{sessions}
[model.tiny]
shape = "autoregressive"
path = "tiny.gguf"
[[cost]]
model = "tiny"
processor = "cpu"
prefill_ms = [[1, 1], [100, 10]]
decode_ms = [[1, 1], [200, 1]]
{batch_factor}
"#
        ),
    );
}

fn run(folder: &Folder, policy: &str) -> (Ran, [String; 3]) {
    let mut args = vec!["run", "app.toml", "--policy", policy, "--out", "out", "--format", "json"];
    args.extend(["--input", "s0=s0.txt", "--input", "s1=s1.txt", "--input", "s2=s2.txt"]);
    let ran = folder.onbeat_with(&args, &[("ONBEAT_CACHE", "cache")]).ended_with(0);
    // Before the job is the time, after it the answer.
    let said = |i: usize| {
        let files = std::fs::read_dir(folder.path("out/outputs")).unwrap();
        let mut names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
        let name = names.find(|name| name.starts_with(&format!("s{i}-"))).unwrap();
        let text = folder.read(&format!("out/outputs/{name}"));
        text.split_once("job ").map(|(_, it)| it.to_owned()).unwrap_or_default()
    };
    (ran, [said(0), said(1), said(2)])
}

#[test]
fn answers_that_share_their_steps_are_those_written_one_by_one_and_the_record_replays() {
    let folder = Folder::new();
    prepare(&folder, "");
    let (_, alone) = run(&folder, "kv-priority");
    assert!(alone.iter().all(|it| it.len() > 20), "{alone:?}");
    assert!(!folder.read("out/record.jsonl").contains("\"why\":\"rebatched\""));
    prepare(&folder, "batch_factor = [[1, 1.0], [4, 2.0]]\n");
    for policy in ["kv-priority", "onbeat"] {
        let (ran, together) = run(&folder, policy);
        assert!(!ran.stderr.contains("without batches"), "{}", ran.stderr);
        assert_eq!(together, alone, "{policy}");
        let record = folder.read("out/record.jsonl");
        for event in ["\"why\":\"rebatched\"", "\"event\":\"ended\""] {
            assert!(record.contains(event), "{policy}: no {event}");
        }
        folder.onbeat(&["replay", "out/record.jsonl"]).ended_with(0);
    }
}
