//! The conversions on networks that the tests write, and the models on real weights where they are there.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect panics")]

mod anime4k;
mod damage;
mod run;
mod tflite;
mod weights;
mod writer;
