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
//! * **Several sequences at once.** A network with `GroupQueryAttention`, loaded whole, is extended when it is loaded, so that
//!   [`run_together`](onbeat_backend::Graph::run_together) takes one row of each of up to 8 members: attention runs for each on its own
//!   caches, all else on the rows of all. No cache is copied or padded, and nobody waits for who joins or leaves. `rten` 0.27.0 unpacks
//!   4-bit codes anew for each row, so up to 5 members get bit for bit what each gets alone, and save little: of SmolLM2-135M (Q4_1),
//!   a step of 2, 4, 6 and 8 members took 1.94, 3.7, 5.3 and 5.5 times as long as one (one thread of a busy Intel Xeon, processor
//!   time, contexts of 128 tokens). From 6 on the codes are unpacked once, as for prompts; the rows are not rounded to 8 bits then, and what members get
//!   differs from what they get alone as what a prompt gets does. In floating-point networks weights are read once from 2 members on.
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
