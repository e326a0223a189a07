//! Whatever stands in a specification file or trace: reading it returns something whole or errors that point into it, and never
//! panics. Every input plays all parts: scenario, platform, profile and trace.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use onbeat_core::spec::{Library, Options, SpecErrors, TraceWindow, read_trace};
use onbeat_core::system::System;

/// A task for a platform that is fuzzed.
const TASK: &str = r#"
name = "task"
duration_s = 1
stream = [{ name = "camera", model = "net", fps = 30 }]
model = { net = {} }
cost = [{ model = "net", processor = "cpu", latency_ms = 1 }, { model = "net", processor = "npu", latency_ms = 1 }]
"#;

/// The platform of a task whose costs are fuzzed.
const PLATFORM: &str = r#"
[platform]
name = "chip"
memory = { capacity_gb = 8, bandwidth_gbps = 50 }
processor = [{ name = "cpu", kind = "cpu" }, { name = "npu", kind = "npu", preemption = "never" }]
"#;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = |_: &str| -> io::Result<String> { Ok(text.to_owned()) };
    let library = Library::shipped();
    let options = Options::default();
    judge(library.resolve_text("scenario.toml", text, None, &options, &files));
    judge(library.resolve_text("task.toml", TASK, Some("platform.toml"), &options, &files));
    let with_profile = Options { profiles: vec!["profile.toml".to_owned()], ..Options::default() };
    judge(library.resolve_text("task.toml", &format!("{TASK}{PLATFORM}"), None, &with_profile, &files));
    let whole =
        TraceWindow { from_s: 0.0, to_s: f64::INFINITY, speed: 1.0, start_s: 0.0, max_prompt: u32::MAX, max_output: u32::MAX };
    match read_trace("trace.csv", text, &whole) {
        Ok(requests) => assert!(requests.is_sorted_by_key(|request| request.at), "requests are in order of time"),
        Err(errors) => judge_errors(&errors),
    }
});

fn judge(outcome: Result<System, SpecErrors>) {
    match outcome {
        Ok(system) => {
            assert_eq!(system.validate(), Ok(()));
            // A system serialises: it holds only finite numbers.
            system.hash();
        }
        Err(errors) => judge_errors(&errors),
    }
}

fn judge_errors(errors: &SpecErrors) {
    assert!(!errors.errors.is_empty(), "a failure says why");
    assert!(!errors.to_string().is_empty());
    for error in &errors.errors {
        assert!(error.text.get(error.span.clone()).is_some(), "an error points into the file, at whole characters");
    }
}
