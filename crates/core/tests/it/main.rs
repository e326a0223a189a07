//! Integration tests of the specification files.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod bad_files;
mod library;
mod resolve;
mod robustness;
