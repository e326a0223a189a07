//! Help, lists, pages, schemas, completions.

use crate::support::{Folder, TINY, onbeat};

#[test]
fn help_says_everything() {
    insta::assert_snapshot!("help", onbeat(&["--help"]).ended_with(0).stdout);
    insta::assert_snapshot!("help_compare", onbeat(&["compare", "--help"]).ended_with(0).stdout);
    assert!(onbeat(&["--version"]).ended_with(0).stdout.starts_with("onbeat "));
}

#[test]
fn lists_what_there_is() {
    insta::assert_snapshot!("list_policies", onbeat(&["list", "policies"]).ended_with(0).stdout);
    insta::assert_snapshot!("list_metrics", onbeat(&["list", "metrics"]).ended_with(0).stdout);
    let all = onbeat(&["list"]).ended_with(0).stdout;
    for name in ["edf", "textbook-edf", "xrbench-4k-ws"] {
        assert!(all.contains(name), "{name} is not in:\n{all}");
    }
}

#[test]
fn every_listed_thing_can_be_shown() {
    for kind in ["policies", "platforms", "scenarios", "models", "metrics"] {
        let list = onbeat(&["list", kind, "--format", "json"]).ended_with(0).json();
        let entries = list[kind].as_array().expect("a list under the kind's name");
        assert!(!entries.is_empty(), "no {kind}");
        for entry in entries {
            let name = entry["name"].as_str().expect("a name");
            assert!(!entry["description"].as_str().expect("a description").is_empty(), "{name} has no description");
            let page = onbeat(&["show", name]).ended_with(0).stdout;
            assert!(page.contains(name), "the page of {name} does not name it");
        }
    }
}

#[test]
fn a_shown_file_is_a_file_that_works() {
    let folder = Folder::new();
    let text = folder.onbeat(&["show", "textbook-edf"]).ended_with(0).stdout;
    folder.write("copy.toml", &text);
    folder.onbeat(&["simulate", "copy.toml", "--policy", "edf"]).ended_with(0);
}

#[test]
fn schemas_are_json_schemas() {
    for (kind, field) in [("platform", "memory"), ("profile", "cost"), ("scenario", "duration_s")] {
        let schema = onbeat(&["schema", kind]).ended_with(0).json();
        assert!(schema["$schema"].as_str().is_some_and(|s| s.contains("json-schema.org")));
        assert!(schema["properties"][field].is_object(), "{kind} has no {field}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = onbeat(&["completions", shell]).ended_with(0).stdout;
        assert!(script.contains("simulate"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    use std::process::{Command, Stdio};
    let folder = Folder::new();
    folder.write("tiny.toml", TINY);
    let mut child = Command::new(env!("CARGO_BIN_EXE_onbeat"))
        .args(["show", "violation_rate"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("the program ends");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}
