//! Integration tests of `onbeat-analysis`.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod bound;
mod offered;
mod response_time;
mod statistics;
mod support;
