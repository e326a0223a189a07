//! ONNX graphs through ONNX Runtime and its execution providers: the road to every accelerator.
//!
//! [`Ort`] loads an ONNX Runtime library that is installed on the machine – from a Python wheel, an npm package, a system package –
//! and the plugin execution providers beside it. Nothing is linked or downloaded; without a library every call says what to install.
//!
//! ```
//! use onbeat_backend::{Backend, ErrorKind};
//! use onbeat_backend_ort::Ort;
//!
//! let ort = Ort::default();
//! match ort.devices() {
//!     Ok(devices) => devices.iter().for_each(|device| println!("{}: {}", device.name, device.description)),
//!     Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound), // … `pip install onnxruntime`
//! }
//! ```
//!
//! # What it does, whatever the library's defaults
//! * A session runs on the device that it was loaded for and on no other. ONNX Runtime would put operators that a device lacks on the
//!   CPU; here that is an error unless [`LoadOptions::fallback`](onbeat_backend::LoadOptions::fallback) allows it. Core ML and vendor
//!   libraries may still use the CPU inside what they have accepted.
//! * The precision is that of the file, unless [`Precision::Half`](onbeat_backend::Precision::Half) is asked for. OpenVINO would compute
//!   in bf16 on some CPUs, CUDA in TF32; both are told not to. NPUs cannot do otherwise than in 16 bits: they refuse a 32-bit network.
//! * Threads sleep when there is nothing to do; none spins. With one thread, the thread that calls computes.
//! * Nothing is reported to the library's vendor: its telemetry is switched off.
//!
//! # Sessions and threads
//! ONNX Runtime's `Run` is not safe to call from several threads on one session with every provider, so a segment runs for one thread
//! at a time; others wait. Load the file twice to run it twice at once.
//!
//! # Cancelling
//! On the CPU a run ends after the operator that is running. Inside what a provider has compiled nothing can be interrupted: the run
//! ends with the segment, as if it had not been cancelled. After a cancelled run the inputs are back in the values, so that the
//! same segment can be run again.
//!
//! # One library a process
//! The first library that loads stays. Asking for another one later is an error.

mod backend;
mod cache;
mod costs;
mod cut;
mod error;
mod find;
mod graph;
mod precision;
mod provider;
mod runtime;
mod session;
mod value;

pub use backend::{Config, Ort};
pub use runtime::{Library, Plugin};
