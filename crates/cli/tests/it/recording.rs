//! `simulate --record` and `report`.

use crate::support::{Folder, TINY};

fn recorded() -> Folder {
    let folder = Folder::new();
    folder.write("tiny.toml", TINY);
    folder.onbeat(&["simulate", "tiny.toml", "--policy", "edf", "--seed", "7", "--record", "run.jsonl"]).ended_with(0);
    folder
}

#[test]
fn a_report_of_a_record_says_what_the_simulation_said() {
    let folder = recorded();
    for format in ["table", "json", "csv"] {
        let simulated = folder
            .onbeat(&["simulate", "tiny.toml", "--policy", "edf", "--seed", "7", "--format", format])
            .ended_with(0);
        let reported = folder.onbeat(&["report", "run.jsonl", "--format", format]).ended_with(0);
        assert_eq!(simulated.stdout, reported.stdout, "{format}");
    }
}

#[test]
fn the_same_run_gives_the_same_record() {
    let folder = recorded();
    folder
        .onbeat(&["simulate", "tiny.toml", "--policy", "edf", "--seed", "7", "--record", "again.jsonl"])
        .ended_with(0);
    assert_eq!(folder.read("run.jsonl"), folder.read("again.jsonl"));
    folder
        .onbeat(&["simulate", "tiny.toml", "--policy", "edf", "--seed", "8", "--record", "other.jsonl"])
        .ended_with(0);
    assert_ne!(folder.read("run.jsonl"), folder.read("other.jsonl"));
}

#[test]
fn a_record_renders_in_every_form() {
    let folder = recorded();
    folder
        .onbeat(&[
            "report",
            "run.jsonl",
            "--quiet",
            "--html",
            "run.html",
            "--perfetto",
            "run.pftrace",
            "--svg",
            "run.svg",
            "--from-ms",
            "100",
            "--to-ms",
            "200",
        ])
        .ended_with(0);
    assert!(folder.read("run.html").starts_with("<!"));
    assert!(folder.read("run.svg").contains("<svg"));
    assert!(std::fs::metadata(folder.path("run.pftrace")).expect("the trace").len() > 1000);
}

#[test]
fn a_record_that_was_cut_off_is_reported_with_a_warning() {
    let folder = recorded();
    let text = folder.read("run.jsonl");
    folder.write("cut.jsonl", &text[..text.len() / 2]);
    let ran = folder.onbeat(&["report", "cut.jsonl", "--quiet"]).ended_with(0);
    assert!(ran.stderr.contains("cut"), "{}", ran.stderr);
}
