//! Integration tests of the simulator.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::items_after_statements, reason = "tests")]

mod agents;
mod caches;
mod chains;
mod content;
mod contention;
mod conversations;
mod determinism;
mod disaggregation;
mod divided_prompts;
mod draft;
mod exits;
mod generative;
mod goals;
mod isolation;
mod joint;
mod joint_units;
mod layers;
mod liveness;
mod memory;
mod migration;
mod mix;
mod noise;
mod offload;
mod oracles;
mod outcomes;
mod phases;
mod possible;
mod power;
mod preemption;
mod properties;
mod published;
mod serving;
mod slack;
mod steps;
mod support;
mod together;
mod units;
mod variants;
