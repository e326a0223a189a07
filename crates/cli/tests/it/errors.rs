//! Mistakes: what is said about them, and with which exit code.

use crate::support::{Folder, TINY, onbeat};

#[test]
fn a_wrong_command_line_is_usage() {
    for args in [
        vec!["frobnicate"],
        vec!["compare", "--seeds", "0"],
        vec!["compare", "--duration", "5 parsecs"],
        vec!["simulate", "textbook-edf", "--set", "nonsense"],
        vec!["compare", "no-such-scenario"],
        vec!["compare", "textbook-edf", "--policy", "no-such-policy"],
        vec!["show", "no-such-thing"],
        vec!["list", "stars"],
    ] {
        let ran = onbeat(&args).ended_with(2);
        assert_eq!(ran.stdout, "", "{args:?} printed results");
        assert!(!ran.stderr.is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn unknown_names_come_with_what_was_meant() {
    for (args, meant) in [
        (["simulate", "texbook-edf", "--quiet"], "did you mean `textbook-edf`"),
        (["simulate", "textbook-edf", "--policy=edff"], "did you mean `edf`"),
        (["simulate", "textbook-edf", "--set=stream.fats.fps=1"], "did you mean `fast`"),
        (["show", "violation_rat", "--quiet"], "did you mean violation_rate"),
    ] {
        let ran = onbeat(&args).ended_with(2);
        assert!(ran.stderr.contains(meant), "{args:?}: {}", ran.stderr);
    }
    insta::assert_snapshot!("unknown_policy", onbeat(&["simulate", "textbook-edf", "--policy", "edff"]).stderr);
}

#[test]
fn a_mistake_in_a_file_is_shown_in_its_place() {
    let folder = Folder::new();
    let wrong = TINY.replace("fps = 50", "fsp = 50").replace("latency_ms = 30", "latency_ms = -30");
    folder.write("wrong.toml", &wrong);
    insta::assert_snapshot!("unknown_field", folder.onbeat(&["simulate", "wrong.toml"]).ended_with(3).stderr);
    folder.write(
        "wrong.toml",
        &TINY
            .replace("duration_s = 2", "duration_s = -2")
            .replace("model = \"denoise\", period", "model = \"denoize\", period"),
    );
    insta::assert_snapshot!("wrong_values", folder.onbeat(&["simulate", "wrong.toml"]).ended_with(3).stderr);
}

#[test]
fn a_missing_file_is_an_io_failure() {
    let ran = onbeat(&["simulate", "nowhere/missing.toml"]).ended_with(5);
    assert!(ran.stderr.contains("nowhere/missing.toml"), "{}", ran.stderr);
    onbeat(&["report", "missing.jsonl"]).ended_with(5);
    let folder = Folder::new();
    folder.write("tiny.toml", TINY);
    folder.write("file", "");
    folder.onbeat(&["simulate", "tiny.toml", "--record", "file/record.jsonl"]).ended_with(5);
}

#[test]
fn a_damaged_record_says_where() {
    let folder = Folder::new();
    folder.write("record.jsonl", "{\"onbeat_record\":99}\n");
    let ran = folder.onbeat(&["report", "record.jsonl"]).ended_with(3);
    assert!(ran.stderr.contains("version 99"), "{}", ran.stderr);
    folder.write("record.jsonl", "no json\n");
    let ran = folder.onbeat(&["report", "record.jsonl"]).ended_with(3);
    assert!(ran.stderr.contains("line 1"), "{}", ran.stderr);
}

#[test]
fn a_policy_refuses_parameters_that_it_does_not_have() {
    let ran = onbeat(&["simulate", "textbook-edf", "--policy", "edf:warp=9"]).ended_with(6);
    assert!(ran.stderr.contains("warp"), "{}", ran.stderr);
}

#[test]
fn check_tells_impossible_deadlines_by_its_exit_code() {
    let folder = Folder::new();
    folder.write("tiny.toml", TINY);
    folder.onbeat(&["check", "tiny.toml"]).ended_with(0);
    folder.write("impossible.toml", &TINY.replace("fps = 50,", "fps = 50, deadline_ms = 5,"));
    let ran = folder.onbeat(&["check", "impossible.toml"]).ended_with(4);
    assert!(ran.stdout.contains("camera"), "{}", ran.stdout);
}

#[test]
fn a_scenario_that_does_not_fit_a_named_platform_is_an_error_and_in_all_it_is_skipped() {
    let ran = onbeat(&["compare", "blur-and-whisper", "--platform", "xrbench-4k-ws", "--seeds", "1"]).ended_with(3);
    assert_eq!(ran.stdout, "");
    let ran = onbeat(&[
        "compare",
        "xrbench-vr-gaming",
        "--platform",
        "all",
        "--seeds",
        "1",
        "--policy",
        "edf",
        "--duration",
        "200ms",
    ])
    .ended_with(0);
    assert!(ran.stderr.contains("skipped"), "{}", ran.stderr);
}
