//! The vocabulary of onbeat: platforms, models, profiles and scenarios; what goes on in a run; what policies may do; what a
//! record holds. No threads, no clock, no I/O.
//!
//! * [`spec`]: the files that users write, and how they become a [`system::System`];
//! * [`system`], [`cost`], [`joint`], [`offload`]: a scenario resolved on a platform, and what each stage costs;
//! * [`state`], [`policy`]: what is going on, and the contract with scheduling policies;
//! * [`power`]: operating points, power and heat of processors;
//! * [`event`], [`record`]: what happened;
//! * [`metric`], [`summary`]: what reports show.

pub mod bus;
pub mod content;
pub mod cost;
pub mod curve;
pub mod distribution;
pub mod event;
pub mod exits;
pub mod id;
pub mod joint;
pub mod metric;
pub mod offload;
pub mod policy;
pub mod power;
pub mod record;
pub mod slab;
pub mod spec;
pub mod state;
pub mod suggest;
pub mod summary;
pub mod system;
pub mod units;
