//! The runtime: drives a policy through real time, real models and real devices.
//!
//! # How it works
//! One thread, the dispatcher, keeps the schedule. It waits for the next timer or for a report from a processor, hands both to a state
//! machine ([`Live`]) that asks the policy, and passes on what the policy decided. Every slot of every processor has a thread of its
//! own, pinned to the cores that the platform file names, which executes one run at a time on a real device or on a virtual one. The
//! dispatcher never waits for a device; a device that does not answer is lost, and the policy goes on with those that are left.
//!
//! # Record and replay
//! The state machine has no clock, no threads and no devices. A record holds everything that went into it, so a replay feeds it the
//! same reports at the same times, and must come to the same decisions, bit for bit ([`replay()`]).

#![cfg_attr(
    test,
    allow(clippy::duplicate_mod, reason = "`shuttled` compiles the slots' code again, with instrumented threads")
)]

mod awake;
mod caches;
#[cfg(test)]
mod desk;
mod joint;
mod library;
mod live;
mod machine;
mod plan;
mod power;
mod rehearse;
mod replay;
mod run;
mod runs;
#[cfg(test)]
mod shuttled;
mod store;
mod sync;
mod task;
mod threads;
mod worker;

pub use awake::Awake;
pub use library::{Feed, Keep, Library, Product, Trouble};
pub use live::Live;
pub use machine::{Machine, energy_uj, machine, nvidia_energy_uj, real_time_permission, resident_bytes};
pub use plan::{Finished, Options, Plan, RunError, Times};
pub use replay::{ReplayError, facts_of, replay};
pub use run::run;
pub use task::{Command, JointLaunch, Launch, Member, Report};
pub use threads::{pin, stand_back};
