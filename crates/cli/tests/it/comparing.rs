//! `compare` and `check`.

use crate::support::{Folder, TINY};

fn tiny() -> Folder {
    let folder = Folder::new();
    folder.write("tiny.toml", TINY);
    folder
}

const COMPARE: [&str; 6] = ["compare", "tiny.toml", "--policy", "fcfs,edf", "--seeds", "3"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = COMPARE.to_vec();
    args.extend(more);
    args
}

#[test]
fn compare_prints_one_table_and_advice_and_writes_a_report() {
    let folder = tiny();
    let ran = folder.onbeat(&COMPARE).ended_with(0);
    insta::assert_snapshot!("compare_tiny", ran.stdout);
    let html = folder.read("onbeat-out/report.html");
    assert!(html.starts_with("<!") && html.contains("tiny"));
    assert!(!html.contains("src=\"http") && !html.contains("href=\"http"), "the report is self-contained");
}

#[test]
fn quiet_prints_results_only() {
    let folder = tiny();
    let loud = folder.onbeat(&COMPARE).ended_with(0);
    let quiet = folder.onbeat(&with(&["--quiet"])).ended_with(0);
    assert_eq!(quiet.stderr, "");
    assert_eq!(loud.stdout, quiet.stdout);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = tiny();
    for format in ["table", "json", "csv"] {
        let one = folder.onbeat(&with(&["--threads", "1", "--format", format])).ended_with(0).stdout;
        let two = folder.onbeat(&with(&["--threads", "2", "--format", format])).ended_with(0).stdout;
        assert_eq!(one, two, "{format}");
    }
}

#[test]
fn json_and_csv_are_well_formed_and_write_no_report_unasked() {
    let folder = tiny();
    let json = folder.onbeat(&with(&["--format", "json"])).ended_with(0).json();
    assert!(json.to_string().contains("\"violation_rate\""));
    let csv = folder.onbeat(&with(&["--format", "csv"])).ended_with(0).stdout;
    let columns = csv.lines().next().expect("a heading").split(',').count();
    assert!(columns > 3 && csv.lines().count() > 10);
    assert!(!folder.path("onbeat-out").exists());
    folder.onbeat(&with(&["--format", "csv", "--out", "here"])).ended_with(0);
    assert!(folder.path("here/report.html").exists());
}

#[test]
fn policies_see_the_same_arrivals() {
    let folder = tiny();
    folder.onbeat(&with(&["--record", "records"])).ended_with(0);
    let mut names: Vec<String> = std::fs::read_dir(folder.path("records"))
        .expect("the folder of records")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 2 * 3, "{names:?}");
    let releases = |name: &str| -> Vec<String> {
        let text = folder.read(&format!("records/{name}"));
        text.lines().filter(|line| line.contains("\"release\"")).map(str::to_owned).collect()
    };
    let of = |policy: &str, seed: u32| releases(&format!("tiny-two-units-{policy}-{seed}.jsonl"));
    assert!(of("edf", 1).len() > 300);
    assert_eq!(of("edf", 1), of("fcfs", 1));
    assert_eq!(of("edf", 3), of("fcfs", 3));
    assert_ne!(of("edf", 1), of("edf", 2));
}

#[test]
fn options_change_the_scenario() {
    let folder = tiny();
    let jobs = |more: &[&str]| {
        let mut args = vec!["simulate", "tiny.toml", "--policy", "edf", "--format", "json"];
        args.extend(more);
        folder.onbeat(&args).ended_with(0).json()["comparisons"][0]["policies"][0]["run"]["jobs"]["mean"]
            .as_f64()
            .expect("a number of jobs")
    };
    // 2 s at 50 and at 125 per second.
    assert_eq!(jobs(&[]), 350.0);
    assert_eq!(jobs(&["--duration", "1s"]), 175.0);
    assert_eq!(jobs(&["--set", "stream.camera.fps=25"]), 300.0);
}

#[test]
fn several_scenarios_give_a_matrix() {
    let folder = tiny();
    folder.write("tiny2.toml", &TINY.replace("name = \"tiny\"", "name = \"tiny2\"").replace("fps = 50", "fps = 80"));
    let ran = folder.onbeat(&["compare", "tiny.toml,tiny2.toml", "--policy", "fcfs,edf", "--seeds", "2"]).ended_with(0);
    assert!(ran.stdout.contains("tiny ") && ran.stdout.contains("tiny2"), "{}", ran.stdout);
    let html = folder.read("onbeat-out/report.html");
    assert!(html.contains("tiny2"));
}

#[test]
fn check_shows_bounds_beside_what_was_simulated() {
    let folder = tiny();
    let ran = folder.onbeat(&["check", "textbook-edf", "--simulate"]).ended_with(0);
    insta::assert_snapshot!("check_textbook_edf", ran.stdout);
    let json = folder.onbeat(&["check", "tiny.toml", "--format", "json"]).ended_with(0).json();
    assert!(json.is_object() || json.is_array());
}
