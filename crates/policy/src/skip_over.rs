//! `skip-over`: streams may lose one job in s: earliest due first for the jobs that must not be lost, the others when nothing else is due.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::outcomes::{Outcomes, Tracked};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "skip-over",
    summary: "Streams may lose one job in s: the jobs that must be on time go first by due time, the others when there is room",
    group: "real-time",
    parameters: &[
        ParameterInfo {
            name: "s",
            default: "3",
            meaning: "after a lost job the next s - 1 must be on time, 2 to 1000000: (s-1, s)-firm deadlines",
        },
        ParameterInfo {
            name: "blue",
            default: "true",
            meaning: "true: jobs that may be lost run when nothing else is due (blue when possible); false: they are dropped at once (red tasks only)",
        },
    ],
    reference: "Koren and Shasha, Skip-Over: Algorithms and Complexity for Overloaded Systems that Allow Skips, IEEE RTSS 1995",
    build,
};

/// Red jobs first.
#[derive(Clone, Debug)]
struct SkipOver {
    order: Colours,
    dispatch: Dispatch,
    alarm: Alarm,
}

/// By colour and due time.
#[derive(Clone, Debug)]
struct Colours {
    s: u64,
    blue_runs: bool,
    /// How many of the source's next jobs are red, by source.
    red_left: Vec<u64>,
    /// How many jobs of the source have been given a colour, by source.
    count: Vec<u64>,
    outcomes: Outcomes<Colour>,
}

/// The colour of a live job.
#[derive(Clone, Copy, Debug, Default)]
struct Colour {
    /// How many jobs of the source there were, this one included.
    number: u64,
    blue: bool,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let text = parameters.text("s");
    let s: u64 = text.parse().ok().filter(|s| (2..=1_000_000).contains(s)).ok_or_else(|| PolicyError::BadValue {
        policy: INFO.name,
        parameter: "s",
        value: text.to_owned(),
        allowed: "a whole number from 2 to 1000000",
    })?;
    let order = Colours {
        s,
        blue_runs: parameters.flag("blue")?,
        red_left: vec![s - 1; system.sources.len()],
        count: vec![0; system.sources.len()],
        outcomes: Outcomes::default(),
    };
    Ok(Box::new(SkipOver { order, dispatch: Dispatch::default(), alarm: Alarm::default() }))
}

impl Policy for SkipOver {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.settle(view);
        self.order.welcome(view);
        self.order.give_up(view, actions);
        self.dispatch.run(view, actions, &mut self.order);
        self.order.stop_late(view, actions);
        self.order.outcomes.note_running(view, actions);
        if let Some(at) = self.order.next_deadline(view.now()) {
            self.alarm.set(view.now(), at, actions);
        }
    }
}

impl Colours {
    /// Learns from the jobs that have ended what colour the next ones have.
    fn settle(&mut self, view: &View<'_>) {
        let Self { outcomes, red_left, count, s, .. } = self;
        outcomes.settle(view, |tracked, on_time| {
            if !on_time {
                // Those that came while this was open are red already.
                red_left[tracked.source] = (*s - 1).saturating_sub(count[tracked.source] - tracked.more.number);
            }
        });
    }

    /// Gives new jobs a colour.
    fn welcome(&mut self, view: &View<'_>) {
        let known = self.outcomes.welcome(view);
        let jobs = &mut self.outcomes.jobs;
        for i in known..jobs.len() {
            let source = jobs[i].source;
            self.count[source] += 1;
            jobs[i].more.number = self.count[source];
            if self.red_left[source] > 0 {
                self.red_left[source] -= 1;
            } else {
                // While it is open whether the last one is lost, the next one must not be.
                jobs[i].more.blue = !jobs[..i].iter().any(|other| other.source == source && other.more.blue);
            }
        }
    }

    /// Drops blue jobs: at their deadlines, or at once.
    fn give_up(&mut self, view: &View<'_>, actions: &mut Actions) {
        for tracked in self.outcomes.jobs.iter_mut().filter(|tracked| tracked.more.blue && !tracked.dropped) {
            let over = !self.blue_runs || tracked.deadline <= view.now();
            if over && view.state.jobs[tracked.job].running == 0 {
                tracked.dropped = true;
                actions.drop_job(tracked.job);
            }
        }
    }

    /// Takes blue jobs off their processors at their deadlines.
    fn stop_late(&self, view: &View<'_>, actions: &mut Actions) {
        for processor in view.processors().filter(|&p| view.preemptible(p)) {
            for run in view.occupancy(processor).runs.iter().filter(|run| !run.ending) {
                let late = |stage| self.of(view, stage).is_some_and(|t| t.more.blue && t.deadline <= view.now());
                let asked = |action: &Action| *action == Action::Preempt { stage: run.stage };
                if run.stages().all(late) && !actions.as_slice().iter().any(asked) {
                    actions.preempt(run.stage);
                }
            }
        }
    }

    /// When the next blue job is to be given up.
    fn next_deadline(&self, now: Nanos) -> Option<Nanos> {
        let jobs = self.outcomes.jobs.iter();
        let blue = jobs.filter(|tracked| tracked.more.blue && !tracked.dropped && tracked.deadline > now);
        blue.map(|tracked| tracked.deadline).min()
    }

    fn of(&self, view: &View<'_>, stage: StageId) -> Option<&Tracked<Colour>> {
        let job = view.stage(stage).job;
        self.outcomes.jobs.iter().find(|tracked| tracked.job == job)
    }
}

/// Added to the due times of blue jobs: none is due in 292 years.
const BLUE: u64 = 1 << 63;

impl Order for Colours {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let due = view.due(stage).0;
        if self.of(view, stage).is_some_and(|tracked| tracked.more.blue) { due | BLUE } else { due }
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        self.of(view, stage)
            .is_none_or(|tracked| !(tracked.dropped || tracked.more.blue && tracked.deadline <= view.now()))
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::StageId;
    use onbeat_core::policy::{Action, Policy};
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    /// Lets a job that runs end now; the policy is told.
    fn finish(rig: &mut Rig, policy: &mut Box<dyn Policy>, stage: StageId) {
        let job = rig.state.stages[stage].job;
        rig.state.ready.retain(|&s| s != stage);
        rig.state.stages.remove(stage);
        rig.state.jobs.remove(job);
        rig.decide_with(policy);
    }

    /// Releases the next job at `at`, and lets it be done at `done` if it is started at once. Whether it was.
    fn release(rig: &mut Rig, policy: &mut Box<dyn Policy>, at: f64, done: f64) -> bool {
        let source = onbeat_core::id::SourceId(0);
        rig.state.now = ms(at);
        let stage = rig.ready(source, at);
        let actions = rig.decide_with(policy);
        rig.state.now = ms(done);
        finish(rig, policy, stage);
        actions.contains(&start(stage, 0))
    }

    #[test]
    fn red_tasks_only_drops_every_third_job() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let mut policy = rig.make("skip-over:blue=false");
        let started: Vec<_> =
            (0..7).map(|i| release(&mut rig, &mut policy, f64::from(i) * 10.0, f64::from(i) * 10.0 + 4.0)).collect();
        assert_eq!(started, [true, true, false, true, true, false, true]);
    }

    #[test]
    fn after_a_blue_job_on_time_the_next_is_blue_and_after_a_lost_one_red() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let mut policy = rig.make("skip-over");
        let wakes = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Wake { .. }));
        let mut blue = Vec::new();
        for (i, late) in [(0, 0.0), (1, 0.0), (2, 0.0), (3, 7.0), (4, 0.0), (5, 0.0), (6, 0.0)] {
            let at = f64::from(i) * 20.0;
            rig.state.now = ms(at);
            let stage = rig.ready(camera, at);
            // Only for blue jobs is there something to be done at the deadline.
            blue.push(wakes(&rig.decide_with(&mut policy)));
            rig.state.now = ms(at + 4.0 + late);
            finish(&mut rig, &mut policy, stage);
        }
        assert_eq!(blue, [false, false, true, true, false, false, true]);
    }

    #[test]
    fn red_goes_before_blue_and_blue_ends_at_its_deadline() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let slow = rig.stream("slow", Some(90.0), &[Some(40.0)]);
        let mut policy = rig.make("skip-over");
        release(&mut rig, &mut policy, 0.0, 4.0);
        release(&mut rig, &mut policy, 10.0, 14.0);
        rig.state.now = ms(20.0);
        let red = rig.ready(slow, 20.0);
        let blue = rig.ready(camera, 20.0);
        let actions = rig.decide_with(&mut policy);
        assert_eq!(actions, [start(red, 0), Action::Wake { at: ms(30.0) }], "due at 30, yet behind what is due at 110");
        rig.state.now = ms(30.0);
        rig.state.ready.clear();
        rig.state.ready.push(blue);
        assert_eq!(rig.decide_with(&mut policy), [Action::Drop { job: rig.state.stages[blue].job }]);
    }
}
