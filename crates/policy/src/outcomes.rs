//! What becomes of jobs with deadlines, for policies that learn from it: a policy is not told how a job ended, but it can see it.

use onbeat_core::id::{Id, JobId};
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::units::Nanos;

/// A live job of a stream, with its deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracked<T> {
    pub(crate) job: JobId,
    serial: u64,
    pub(crate) source: usize,
    pub(crate) deadline: Nanos,
    /// Whether the policy has given it up.
    pub(crate) dropped: bool,
    /// Whether a stage of it ran after the last decision. A job that ends without is one that the scenario dropped.
    pub(crate) running: bool,
    /// What the policy knows of it besides.
    pub(crate) more: T,
}

/// The live jobs of streams with deadlines, in order of release.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes<T> {
    pub(crate) jobs: Vec<Tracked<T>>,
    /// Jobs with smaller serials are known.
    next_serial: u64,
}

impl<T: Copy + Default> Outcomes<T> {
    /// At the beginning of a decision: says of every job that has ended since the last one whether it was on time.
    pub(crate) fn settle(&mut self, view: &View<'_>, mut ended: impl FnMut(&Tracked<T>, bool)) {
        self.jobs.retain(|tracked| {
            if view.state.jobs.get(tracked.job).is_some_and(|job| job.serial == tracked.serial) {
                return true;
            }
            ended(tracked, tracked.running && !tracked.dropped && view.now() <= tracked.deadline);
            false
        });
    }

    /// After that: takes in the jobs that have come. They stand from the returned place on.
    pub(crate) fn welcome(&mut self, view: &View<'_>) -> usize {
        let known = self.jobs.len();
        let first_new = self.next_serial;
        for (job, live) in view.state.jobs.iter().filter(|(_, job)| job.serial >= first_new) {
            self.next_serial = self.next_serial.max(live.serial + 1);
            if view.system.sources[live.source].session || live.deadline == Nanos::MAX {
                continue;
            }
            let (serial, source, deadline) = (live.serial, live.source.index(), live.deadline);
            let more = T::default();
            self.jobs.push(Tracked { job, serial, source, deadline, dropped: false, running: false, more });
        }
        self.jobs[known..].sort_unstable_by_key(|tracked| tracked.serial);
        known
    }

    /// The policy gives up a job.
    pub(crate) fn given_up(&mut self, job: JobId) {
        for tracked in self.jobs.iter_mut().filter(|tracked| tracked.job == job) {
            tracked.dropped = true;
        }
    }

    /// At the end of a decision: notes which of them run.
    pub(crate) fn note_running(&mut self, view: &View<'_>, actions: &Actions) {
        for tracked in &mut self.jobs {
            let started = |action: &Action| match *action {
                Action::Start { stage, .. } => view.stage(stage).job == tracked.job,
                _ => false,
            };
            tracked.running = view.state.jobs[tracked.job].running > 0 || actions.as_slice().iter().any(started);
        }
    }
}
