//! `band-lsf`: least slack first, where slack counts the wait for the best processor; what cannot be done in time is given up.

use onbeat_core::id::{Id, JobId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::band_sel::busy_for;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Times, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "band-lsf",
    summary: "Band's least slack first: slack counts the wait for the best processor; what cannot be done in time is given up",
    group: "multi-DNN",
    parameters: &[ParameterInfo {
        name: "drop",
        default: "true",
        meaning: "true: a job that cannot meet its deadline any more is given up; false: it stays in the queue",
    }],
    reference: "Jeong et al., Band: Coordinated Multi-DNN Inference on Heterogeneous Mobile Processors, MobiSys 2022; rule after its public code",
    build,
};

/// Least slack first.
#[derive(Clone, Debug)]
struct BandLsf {
    drop: bool,
    plan: Plan,
    times: Times,
    /// Ready stages by slack and serial; slack is shifted so that it has no sign.
    queue: Vec<(u64, u64, StageId)>,
    /// Time until each processor is done with what runs and what this decision puts there.
    backlog: Vec<Nanos>,
    gone: Vec<JobId>,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(BandLsf {
        drop: parameters.flag("drop")?,
        plan: Plan::default(),
        times: Times::default(),
        queue: Vec::new(),
        backlog: Vec::new(),
        gone: Vec::new(),
    }))
}

/// Where a stage would be done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Best {
    /// Time until all of it is done.
    latency: Nanos,
    processor: ProcessorId,
    /// How much of that is its own.
    own: Nanos,
    /// Time until it is done with what has a due time.
    due: Nanos,
}

impl Policy for BandLsf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        let joins = |&stage: &StageId| view.stage(stage).kind.is_batched();
        // As in Band, nothing is looked at while no processor is idle.
        if !self.plan.has_free() && !view.ready().iter().any(joins) {
            return;
        }
        self.backlog.clear();
        self.backlog.extend(view.processors().map(|p| busy_for(view, p)));
        self.queue.clear();
        self.gone.clear();
        for &stage in view.ready() {
            let Some(best) = self.best(view, stage) else { continue };
            self.queue.push((slack(view, stage, best.due), view.stage(stage).serial, stage));
        }
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            let (id, job) = (view.stage(stage).job, view.job(stage));
            let Some(best) = self.best(view, stage) else { continue };
            if self.gone.contains(&id) {
                continue;
            }
            let last = job.deadline.saturating_sub(view.node(stage).tail);
            let late = job.deadline != Nanos::MAX && view.now().saturating_add(best.latency) > last;
            // A job is given up only as a whole: not while another of its stages runs or was just started.
            if self.drop && late && job.running == 0 && !Self::started(view, actions, id) {
                self.gone.push(id);
                actions.drop_job(id);
            } else if self.plan.is_free(best.processor) {
                self.plan.start(view, stage, best.processor, actions);
                let slots = u64::from(view.system.platform.processors[best.processor].slots);
                let backlog = &mut self.backlog[best.processor.index()];
                *backlog = backlog.saturating_add(Nanos(best.own.0 / slots));
            } else {
                self.plan.join_any(view, stage, actions);
            }
        }
    }
}

impl BandLsf {
    fn best(&mut self, view: &View<'_>, stage: StageId) -> Option<Best> {
        let left = self.times.of(view, stage);
        let able = view.processors().filter(|&p| view.can_run(stage, p));
        let bests = able.filter_map(|processor| {
            let rest = left[processor.index()]?;
            let (setup, wait) = (view.setup(stage, processor), self.backlog[processor.index()]);
            let own = rest.stage.saturating_add(setup);
            let due = wait.saturating_add(setup).saturating_add(until_due(view, stage, rest));
            Some(Best { latency: wait.saturating_add(own), processor, own, due })
        });
        bests.min()
    }

    /// Whether this decision starts a stage of the job.
    fn started(view: &View<'_>, actions: &Actions, job: JobId) -> bool {
        actions.as_slice().iter().any(|action| match *action {
            onbeat_core::policy::Action::Start { stage, .. } => view.stage(stage).job == job,
            _ => false,
        })
    }
}

/// Due time - now - expected latency, shifted so that it has no sign; the largest number for a stage that is never due.
fn slack(view: &View<'_>, stage: StageId, latency: Nanos) -> u64 {
    let due = view.due(stage);
    if due == Nanos::MAX {
        return u64::MAX;
    }
    (due.0.saturating_add(1 << 62)).saturating_sub(view.now().saturating_add(latency).0)
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn least_slack_first() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let light = rig.stream("light", Some(20.0), &[Some(2.0)]);
        let heavy = rig.stream("heavy", Some(25.0), &[Some(12.0)]);
        let (_, heavy) = (rig.ready(light, 0.0), rig.ready(heavy, 0.0));
        // Slack 18 and 13 ms; behind the heavy one the light one is done at 14 ms.
        assert_eq!(rig.decide("band-lsf"), [start(heavy, 0)]);
    }

    #[test]
    fn gives_up_what_cannot_be_done_behind_what_goes_first() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let light = rig.stream("light", Some(16.0), &[Some(2.0)]);
        let heavy = rig.stream("heavy", Some(20.0), &[Some(15.0)]);
        let (light, heavy) = (rig.ready(light, 0.0), rig.ready(heavy, 0.0));
        let drop = Action::Drop { job: rig.state.stages[light].job };
        // Slack 14 and 5 ms; behind the heavy one the light one would be done at 17 ms, past 16.
        assert_eq!(rig.decide("band-lsf"), [start(heavy, 0), drop]);
        assert_eq!(rig.decide("band-lsf:drop=false"), [start(heavy, 0)]);
    }

    #[test]
    fn waits_for_the_best_processor() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let source = rig.stream("s", Some(100.0), &[Some(20.0), Some(5.0)]);
        rig.running(source, 1, 0.0);
        rig.state.now = ms(1.0);
        rig.ready(source, 1.0);
        assert_eq!(rig.decide("band-lsf"), []);
    }

    #[test]
    fn a_job_with_a_running_stage_is_not_given_up() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let source = rig.stream("s", Some(5.0), &[Some(9.0)]);
        let stage = rig.ready(source, 0.0);
        rig.state.jobs[rig.state.stages[stage].job].running = 1;
        assert_eq!(rig.decide("band-lsf"), [start(stage, 0)]);
    }
}
