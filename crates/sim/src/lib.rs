//! The simulator: drives a [`Policy`](onbeat_core::policy::Policy) through a [`System`](onbeat_core::system::System) in virtual time.
//!
//! # Ordering and determinism guarantees
//! * Time is integer nanoseconds. At one instant, ends of segments come first (by processor, then by slot), then changes of operating
//!   points, ends of tools, drop timers, arrivals (in the order of the scenario's sources), delayed releases, the policy's wake-ups, and
//!   caches that have moved out. After all of them the policy is asked, once, and again at the same instant only if what it did changed
//!   something by itself (a preemption that took effect at once, a drop, a start that memory refused).
//! * Random numbers depend on the seed, the source's name, and the job's number within the source. They do not depend on the policy, on
//!   other sources, or on the machine.
//! * The same system, policy and seed give the same events, byte for byte, on any machine and in any number of threads.
//!
//! # Example
//! See [`simulate`].

mod engine;
mod joint;
mod offload;
mod power;
mod runs;
mod sharing;
mod steps;
mod stops;

pub use engine::{Engine, simulate};
pub use onbeat_driver::{Checker, DriveError as SimError, Facts, Outcome, Violation};
