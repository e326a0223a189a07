//! `skip-join-mlfq`: streams by deadline; below them, queues with growing quanta, in which a prompt starts where its prefill fits.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "skip-join-mlfq",
    summary: "Streams with deadlines first; then queues with growing quanta, joined where the prefill fits, left downwards",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "quantum_ms",
            default: "100",
            meaning: "service in the first queue [ms], doubled from queue to queue, 1 to 3600000",
        },
        ParameterInfo {
            name: "starve_ms",
            default: "10000",
            meaning: "work that has waited for so long without service goes to the first queue [ms], 1 to 3600000",
        },
    ],
    reference: "Wu et al., Fast Distributed Inference Serving for Large Language Models (FastServe), arXiv 2305.05920, 2023",
    build,
};

/// The last queue; there is no limit to service in it.
const LAST: u8 = 15;

/// Skip-join multi-level feedback queue.
#[derive(Clone, Debug)]
struct SkipJoinMlfq {
    levels: Levels,
    dispatch: Dispatch,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let time = |name| {
        let ms = parameters.number(name, 1.0..=3_600_000.0, "a number of milliseconds from 1 to 3600000")?;
        Ok::<_, PolicyError>(Nanos::from_ms(ms))
    };
    let levels =
        Levels { quantum: time("quantum_ms")?, starve: time("starve_ms")?, times: Times::default(), known: Vec::new() };
    Ok(Box::new(SkipJoinMlfq { levels, dispatch: Dispatch::default(), alarm: Alarm::default() }))
}

impl Policy for SkipJoinMlfq {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.levels.settle(view);
        let before = actions.as_slice().len();
        self.dispatch.run(view, actions, &mut self.levels);
        for action in &actions.as_slice()[before..] {
            // What starts now may have ended before the next decision.
            if let Action::Start { stage, .. } = *action {
                self.levels.known[stage.index()].running_since = Some(view.now());
            }
        }
        if let Some(change) = self.next_change(view) {
            self.alarm.set(view.now(), change, actions);
        }
    }
}

impl SkipJoinMlfq {
    /// When, at the earliest, running work falls to the next queue or waiting work rises to the first one.
    fn next_change(&self, view: &View<'_>) -> Option<Nanos> {
        let now = view.now();
        let waiting = self.dispatch.waiting().iter().filter(|&&(key, _)| key >= BACKGROUND);
        let rise =
            waiting.map(|&(_, stage)| self.levels.of(stage).idle_since.saturating_add(self.levels.starve)).min()?;
        let running = view.processors().filter(|&p| view.preemptible(p)).flat_map(|p| &view.occupancy(p).runs);
        let running = running.filter(|run| !run.ending).flat_map(Run::stages);
        let started = self.dispatch.started().iter().map(|&(_, stage, _)| stage);
        let fall = running
            .chain(started)
            .filter(|&stage| real_time_key(view, stage).is_none())
            .map(|stage| self.levels.of(stage))
            .filter(|level| level.number < LAST)
            .map(|level| now.saturating_add(level.until.saturating_sub(level.served)))
            .min();
        Some(fall.map_or(rise, |fall| fall.min(rise)).max(Nanos(now.0 + 1)))
    }
}

#[derive(Clone, Debug)]
struct Levels {
    quantum: Nanos,
    /// Longest wait without service.
    starve: Nanos,
    times: Times,
    /// Levels of live stages, by [`StageId`].
    known: Vec<Level>,
}

/// Which queue a stage is in, and why.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Serial of the stage, plus one; ids are reused, serials are not.
    serial: u64,
    number: u8,
    /// Time on processors so far, as the clock has it.
    served: Nanos,
    /// Service with which it falls to the next queue.
    until: Nanos,
    /// Since when it runs, or when it was last seen running.
    running_since: Option<Nanos>,
    /// Since when it has had no service.
    idle_since: Nanos,
}

impl Levels {
    fn of(&self, stage: StageId) -> Level {
        self.known[stage.index()]
    }

    /// Length of a queue's quantum.
    fn quantum(&self, number: u8) -> Nanos {
        Nanos(self.quantum.0.saturating_mul(1 << number))
    }

    /// Accounts for the service since the last decision.
    fn settle(&mut self, view: &View<'_>) {
        for &stage in view.ready() {
            self.settle_one(view, stage, None);
        }
        for processor in view.processors() {
            for run in &view.occupancy(processor).runs {
                for stage in run.stages() {
                    self.settle_one(view, stage, Some(run.start));
                }
            }
        }
    }

    fn settle_one(&mut self, view: &View<'_>, stage: StageId, start: Option<Nanos>) {
        let (now, serial) = (view.now(), view.stage(stage).serial + 1);
        if stage.index() >= self.known.len() {
            self.known.resize(stage.index() + 1, Level::default());
        }
        if self.known[stage.index()].serial != serial {
            let number = self.entry(view, stage);
            let until = self.quantum(number);
            self.known[stage.index()] = Level { serial, number, until, idle_since: now, ..Level::default() };
        }
        let mut level = self.of(stage);
        // A start that memory refused is no service.
        if let Some(since) = level.running_since.or(start)
            && (since < now || start.is_some())
        {
            level.served = level.served.saturating_add(now.saturating_sub(since));
            level.idle_since = now;
        }
        level.running_since = start.map(|_| now);
        while level.served >= level.until && level.number < LAST {
            level.number += 1;
            level.until = level.until.saturating_add(self.quantum(level.number));
        }
        if now.saturating_sub(level.idle_since) >= self.starve {
            (level.number, level.until, level.idle_since) = (0, level.served.saturating_add(self.quantum), now);
        }
        self.known[stage.index()] = level;
    }

    /// The queue that a new stage joins: the first whose quantum holds its first phase on the fastest processor.
    fn entry(&mut self, view: &View<'_>, stage: StageId) -> u8 {
        let first = self.times.of(view, stage).iter().flatten().map(|rest| rest.phase).min().unwrap_or(Nanos::ZERO);
        (0..LAST).find(|&number| self.quantum(number) >= first).unwrap_or(LAST)
    }
}

impl Order for Levels {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        real_time_key(view, stage).unwrap_or_else(|| BACKGROUND + u64::from(self.of(stage).number))
    }

    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |stage| BACKGROUND + u64::from(self.of(stage).number))
    }

    /// The same queue is not more urgent.
    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use super::Levels;
    use crate::test_rig::{Rig, ms, preempt, start};
    use crate::times::Times;

    #[test]
    fn joins_the_first_queue_whose_quantum_holds_the_prefill() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[4.0], 1);
        let stage = rig.ready(chat, 0.0);
        // Prefill takes 100 ms.
        for (quantum, queue) in [(200.0, 0), (100.0, 0), (99.0, 1), (50.0, 1), (25.0, 2), (24.0, 3)] {
            let mut levels =
                Levels { quantum: ms(quantum), starve: ms(1e6), times: Times::default(), known: Vec::new() };
            levels.settle(&rig.view());
            assert_eq!(levels.of(stage).number, queue, "{quantum} ms");
        }
    }

    #[test]
    fn falls_when_the_quantum_is_used_up_and_then_is_taken_over() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let task = rig.stream("task", None, &[Some(90.0)]);
        let mut policy = rig.make("skip-join-mlfq:quantum_ms=100");
        let big = rig.stream("big", None, &[Some(300.0)]);
        let running = rig.running(big, 0, 0.0);
        assert_eq!(rig.decide_with(&mut policy), []);
        // `big` joined the third queue (400 ms): what fits the first one takes over at once.
        rig.state.now = ms(10.0);
        let small = rig.ready(task, 10.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(running)]);
        rig.stop(running);
        // `small` would fall after 100 ms, though nothing else happens then.
        assert_eq!(rig.decide_with(&mut policy), [start(small, 0), Action::Wake { at: ms(110.0) }]);
    }

    #[test]
    fn service_counts_even_if_nothing_else_happens_while_it_runs() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[4.0], 1);
        let stage = rig.ready(chat, 0.0);
        let mut policy = rig.make("skip-join-mlfq");
        assert_eq!(rig.decide_with(&mut policy), [start(stage, 0)]);
        // It has had 100 ms and is ready again: a new request goes before it.
        rig.state.now = ms(100.0);
        let new = rig.ready(chat, 100.0);
        assert_eq!(rig.decide_with(&mut policy)[0], start(new, 0));
    }

    #[test]
    fn equal_queues_do_not_take_over_until_one_falls() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let task = rig.stream("task", None, &[Some(90.0)]);
        let running = rig.running(task, 0, 0.0);
        let mut policy = rig.make("skip-join-mlfq");
        assert_eq!(rig.decide_with(&mut policy), []);
        rig.state.now = ms(1.0);
        rig.ready(task, 1.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(100.0) }]);
        // It has overrun: it is in the second queue now.
        rig.state.now = ms(100.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(running)]);
    }

    #[test]
    fn rises_to_the_first_queue_after_a_long_wait() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let big = rig.stream("big", None, &[Some(300.0)]);
        let task = rig.stream("task", None, &[Some(100.0)]);
        rig.ready(big, 0.0);
        let running = rig.running(task, 0, 0.0);
        let mut policy = rig.make("skip-join-mlfq:starve_ms=50");
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(50.0) }]);
        rig.state.now = ms(50.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(100.0) }], "the first queue, like `task`");
        rig.state.now = ms(100.0);
        assert_eq!(rig.decide_with(&mut policy)[0], preempt(running), "`task` has fallen to the second queue");
    }
}
