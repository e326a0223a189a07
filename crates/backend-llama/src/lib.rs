//! Language models from users' own GGUF files, through llama.cpp: on cores, and on the GPUs that llama.cpp drives.
//!
//! Not part of the default build, which needs no C: with the feature `llama` the crate builds the copy of llama.cpp that `llama-cpp-sys-2`
//! carries (a C++ compiler, CMake and libclang are needed; on Debian: `apt install cmake clang libclang-dev g++`); without it the
//! crate is empty. The features `cuda`, `metal` and `vulkan` add llama.cpp's GPU backends and need their vendors' kits.
//!
//! `Llama::load` makes a [`Model`](onbeat_backend::Model) of a file. Each session has a context of its own, so several can be in progress, and
//! a suspended one keeps its cache.
//!
//! * [`step`](onbeat_backend::Session::step) works through up to `units` tokens of the prompt, or makes one output token. The most
//!   probable token is taken: the same prompt gives the same reply.
//! * Cancelling takes effect after the operator that runs, on cores; on a GPU, before the next [`LlamaOptions::ubatch`] tokens of the
//!   prompt. The step can be done again, and the session goes on where it was.
//! * `save` and `restore` move a session to another one of the same file, on another device too if both keep their caches in the
//!   same form; if not, that is an error.
//! * With [`LlamaOptions::cores`], threads of a pool of the model's own are bound to them, one each, and the thread that makes the
//!   first step to the last. They wait for each other busily: cores should not be given to anything else at the same time.

#[cfg(feature = "llama")]
mod ffi;
#[cfg(feature = "llama")]
mod model;
#[cfg(feature = "llama")]
mod saved;
#[cfg(feature = "llama")]
mod session;

#[cfg(feature = "llama")]
pub use model::{Llama, LlamaOptions, description, devices};
