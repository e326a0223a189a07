//! ONNX graphs on the CPU, in pure Rust, with the library `rten`.
//!
//! [`Rten`] is a [`Backend`](onbeat_backend::Backend) with one device, `cpu`. What to know about it:
//!
//! * **Threads.** A graph that is loaded with one thread computes on the thread that calls, if that thread runs inside
//!   [`compute_here`]; elsewhere on a helper thread that stays on the caller's cores, which costs two switches of threads per call. A
//!   graph with more threads has a pool of its own, pinned to [`LoadOptions::cores`](onbeat_backend::LoadOptions::cores).
//! * **Types.** `rten` computes with 32-bit numbers. 64-bit integers and truth values become 32-bit integers on the way in, and what the
//!   file declares on the way out; a 64-bit integer that does not fit is an error. Truth values are bytes for callers, 0 or 1. Weights
//!   in 16-bit floating point are widened when the file is loaded.
//! * **Segments.** One loaded network is run from cut to cut. `rten` cannot be interrupted within a run, so a segment is what
//!   cancelling waits for. Where to cut is measured when the network is loaded, if the sizes of all its inputs are known: in the file, or
//!   from [`LoadOptions::dimensions`](onbeat_backend::LoadOptions::dimensions). Meanwhile, the network is in memory twice.
//! * **Options.** [`LoadOptions::extra`](onbeat_backend::LoadOptions::extra) takes `prepack_weights` (off by default: lays weights out for
//!   matrix products once, in further memory that the footprint does not count) and `enable_optimization` (on by default).
//! * **Memory.** `rten` ends the process if an operator wants more memory than there is; no input that makes sense leads to that.
//! * **Copies.** Inputs are handed over and outputs are handed back without a copy, where no type has to change. Caches that grow by
//!   concatenation get room to grow, so that appending to them copies only what is new.

mod adapt;
mod backend;
mod batch;
mod graph;
mod segments;
mod threads;
mod value;

pub use backend::Rten;
pub use threads::compute_here;
