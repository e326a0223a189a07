//! Runs the program and looks at what it did.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the program did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails the test with everything there is to know unless the program ended with this code.
    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is no JSON: {e}\n{}", self.stdout))
    }
}

/// A folder of the test's own, removed at the end, in which the program runs.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("onbeat-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the test's folder can be made");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the test's folder can be written to");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Runs the program in this folder.
    pub(crate) fn onbeat(&self, args: &[&str]) -> Ran {
        self.onbeat_with(args, &[])
    }

    /// The same with variables of the environment: names, and paths in this folder.
    pub(crate) fn onbeat_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Ran {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_onbeat"))
            .args(args)
            .envs(variables.iter().map(|(name, path)| (name, self.path(path))))
            .current_dir(&self.0)
            .env_remove("NO_COLOR")
            .output()
            .expect("the program starts");
        Ran {
            code: status.code().expect("the program was not killed"),
            stdout: String::from_utf8(stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(stderr).expect("stderr is UTF-8"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the program in a folder of its own.
pub(crate) fn onbeat(args: &[&str]) -> Ran {
    Folder::new().onbeat(args)
}

/// Two streams on a CPU and a faster NPU: small enough to see through, and policies differ on it.
pub(crate) const TINY: &str = r#"
name = "tiny"
title = "Two streams, two processors"
description = "For tests."
duration_s = 2
stream = [
    { name = "camera", model = "segment", fps = 50, source = "test" },
    { name = "sound", model = "denoise", period_ms = 8, jitter_ms = { kind = "uniform", low = 0, high = 4 }, source = "test" },
]
model = { segment = {}, denoise = {} }
cost = [
    { model = "segment", processor = "npu", latency_ms = 12, source = "test" },
    { model = "segment", processor = "cpu", latency_ms = 30, source = "test" },
    { model = "denoise", processor = "npu", latency_ms = 1, source = "test" },
    { model = "denoise", processor = "cpu", latency_ms = 3, source = "test" },
]

[platform]
name = "two-units"
memory = {}
processor = [{ name = "cpu", kind = "cpu", preemption = "anytime" }, { name = "npu", kind = "npu" }]

[source.test]
kind = "analytical"
formula = "small numbers for a test"
"#;
