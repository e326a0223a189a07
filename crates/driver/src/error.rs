//! What can go wrong in a run, whoever drives it.

use onbeat_core::policy::{Action, ActionError};
use onbeat_core::units::Nanos;
use thiserror::Error;

/// Why a run stopped early. The driver is then at the instant of the error and cannot go on.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DriveError {
    /// A policy asked for something impossible.
    #[error("policy `{policy}` at {at}: {action:?}: {reason}")]
    IllegalAction {
        /// The policy.
        policy: String,
        /// When.
        at: Nanos,
        /// What it asked for.
        action: Action,
        /// Why that is impossible.
        reason: ActionError,
    },
    /// A policy keeps acting without letting time pass.
    #[error(
        "policy `{policy}` at {at}: still acting after {decisions} decisions at the same instant; it preempts and starts in a circle"
    )]
    Livelock {
        /// The policy.
        policy: String,
        /// When.
        at: Nanos,
        /// How many decisions it took there.
        decisions: u32,
    },
    /// More jobs are alive than a driver is willing to hold.
    #[error(
        "policy `{policy}` at {at}: {jobs} jobs are alive; the scenario overloads the platform and has no drop rule or queue limit"
    )]
    TooManyJobs {
        /// The policy.
        policy: String,
        /// When.
        at: Nanos,
        /// How many.
        jobs: usize,
    },
}
