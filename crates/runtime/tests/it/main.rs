//! The runtime with real threads and fake models: data, faults, memory, and the end of a run. Nothing here asserts durations.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod batches;
mod data;
mod endings;
mod faults;
mod memory;
mod moving;
mod support;
mod together;
mod variants;
