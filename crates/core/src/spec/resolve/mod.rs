//! How typed files become a [`System`](crate::system::System), by noun: first everything is checked, so that all mistakes are
//! reported at once, then the stages are put onto the platform.

mod architecture;
mod bounds;
mod chains;
mod content;
mod cost;
mod distribution;
mod entries;
mod experts;
mod figures;
mod models;
mod nodes;
mod notes;
mod platform;
mod power;
mod repeat;
mod scenario;
mod sizes;
mod sources;
mod tools;

pub use scenario::Options;
pub(super) use scenario::{Parts, resolve};
