//! What becomes of jobs with deadlines, for policies that learn from it: a policy is not told how a job ended, but it can see it.

use onbeat_core::id::{Id, JobId};
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::spec::DropRule;
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
    /// Whether a stage of it ran after the last decision.
    pub(crate) running: bool,
    /// Until when its end would say that it was on time, as it stood after the last decision. `None`: it could not be done by then without
    /// another one, so that the scenario has dropped it if it ends.
    on_time_until: Option<Nanos>,
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
            let on_time = tracked.on_time_until.is_some_and(|until| view.now() <= until);
            ended(tracked, on_time && !tracked.dropped);
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
            self.jobs.push(Tracked {
                job,
                serial,
                source,
                deadline,
                dropped: false,
                running: false,
                on_time_until: None,
                more,
            });
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
            tracked.on_time_until =
                if tracked.running { Some(tracked.deadline) } else { in_tools_until(view, tracked.job) };
        }
    }
}

/// A job of which nothing is left but tools that are out can end by itself, and the scenario can drop it: until when it is not dropped.
/// `None` if anything else is left.
fn in_tools_until(view: &View<'_>, job: JobId) -> Option<Nanos> {
    let live = &view.state.jobs[job];
    if !view.system.nodes_of(live.source).any(|node| view.system.nodes[node].tool.is_some()) {
        return None;
    }
    let (mut need, mut after) = (Nanos::ZERO, Nanos::ZERO);
    for (stage, _) in view.state.stages.iter().filter(|(_, stage)| stage.job == job) {
        let node = view.node(stage);
        node.tool.as_ref()?;
        let tail = node.tail_together.unwrap_or(node.tail);
        need = need.max(view.remaining_least(stage).saturating_add(tail));
        after = after.max(tail);
    }
    match view.system.sources[live.source].drop {
        DropRule::None => Some(live.deadline),
        DropRule::Late => Some(live.deadline.saturating_sub(Nanos(1))),
        DropRule::Hopeless if view.now().saturating_add(need) > live.deadline => None,
        DropRule::Hopeless => Some(live.deadline.saturating_sub(after)),
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::distribution::Distribution;
    use onbeat_core::id::{NodeId, StageId};
    use onbeat_core::policy::Actions;
    use onbeat_core::spec::{DropRule, Preemption};

    use super::Outcomes;
    use crate::test_rig::{Rig, ms};

    /// A job that is due at 100 ms and waits from 60 ms on for a tool that takes 10 ms or more; then, perhaps, comes work of 5 ms.
    fn in_a_tool(rule: DropRule, tail: f64) -> (Rig, StageId) {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let camera = rig.stream("camera", Some(100.0), &[Some(8.0)]);
        rig.system.sources[camera].drop = rule;
        let node = &mut rig.system.nodes[NodeId(rig.system.sources[camera].nodes.start)];
        node.tool = Some(Distribution::constant(10e6));
        node.tail = ms(tail);
        let stage = rig.ready(camera, 0.0);
        rig.state.ready.clear();
        rig.state.stages[stage].ready_at = ms(60.0);
        (rig, stage)
    }

    #[test]
    fn a_job_that_ends_with_a_tool_is_on_time_unless_the_scenario_may_have_dropped_it() {
        for (rule, tail, at, expected) in [
            (DropRule::None, 0.0, 70.0, true),
            (DropRule::None, 0.0, 100.0, true),
            (DropRule::None, 0.0, 101.0, false),
            (DropRule::Late, 0.0, 99.0, true),
            (DropRule::Late, 0.0, 100.0, false),
            // With 5 ms of work to come it is dropped from 95 ms on.
            (DropRule::Hopeless, 5.0, 94.0, true),
            (DropRule::Hopeless, 5.0, 96.0, false),
            // Too late even if the tool takes as little as it can.
            (DropRule::Hopeless, 35.0, 64.0, false),
        ] {
            let (mut rig, stage) = in_a_tool(rule, tail);
            let mut outcomes: Outcomes<()> = Outcomes::default();
            rig.state.now = ms(60.0);
            outcomes.welcome(&rig.view());
            outcomes.note_running(&rig.view(), &Actions::default());
            assert!(!outcomes.jobs[0].running, "it holds no processor");
            rig.state.now = ms(at);
            rig.state.jobs.remove(rig.state.stages[stage].job);
            rig.state.stages.remove(stage);
            let mut found = None;
            outcomes.settle(&rig.view(), |_, on_time| found = Some(on_time));
            assert_eq!(found, Some(expected), "{rule:?} {at}");
        }
    }

    #[test]
    fn a_job_of_which_something_waits_beside_a_tool_has_been_dropped_if_it_ends() {
        let (mut rig, tool) = in_a_tool(DropRule::Late, 0.0);
        let side = rig.stream("side", Some(100.0), &[Some(8.0)]);
        let waiting = rig.ready(side, 0.0);
        let job = rig.state.stages[tool].job;
        rig.state.jobs.remove(rig.state.stages[waiting].job);
        rig.state.stages[waiting].job = job;
        let mut outcomes: Outcomes<()> = Outcomes::default();
        outcomes.welcome(&rig.view());
        outcomes.note_running(&rig.view(), &Actions::default());
        rig.state.jobs.remove(job);
        let mut found = None;
        outcomes.settle(&rig.view(), |_, on_time| found = Some(on_time));
        assert_eq!(found, Some(false));
    }
}
