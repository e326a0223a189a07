//! Fetching and loading, with registries' clients and a backend that the tests bring along.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect panics")]

#[cfg(unix)]
mod fetching;
mod loading;
#[cfg(unix)]
mod rig;
