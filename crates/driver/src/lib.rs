//! What the simulator and the runtime do alike: jobs and their chains, memory, and the actions of a policy.
//!
//! Both drive one policy through one [`System`](onbeat_core::system::System). They differ in what time is and in what happens on a
//! processor; everything else – when jobs arrive, which stages follow, what an action means, what a drop rule drops, what is in
//! memory – is the [`Course`] of the run and is written once, here. It computes: no clock, no threads, no devices.

mod actions;
mod arrivals;
mod caches;
mod check;
mod conversations;
mod course;
mod error;
mod facts;
mod jobs;
mod joint;
mod lengths;
mod phases;
mod power;
mod random;
mod refusals;
mod scenes;
mod together;

pub use actions::Effect;
pub use check::{Checker, Violation};
pub use course::{Course, Outcome};
pub use error::DriveError;
pub use facts::Facts;
pub use jobs::{Hidden, NodeTraits};
pub use power::Power;
