//! The engine: virtual time, the order of events, and the loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use onbeat_core::event::{Event, Sink, What};
use onbeat_core::id::{Id, IdVec, JobId, NodeId, SourceId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::State;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::arrivals::SourceState;
use crate::error::SimError;
use crate::jobs::{Book, Hidden, InOrder, NodeTraits};
use crate::runs::LiveRun;

/// Decisions at one instant after which a policy counts as going round in a circle.
const DECISIONS_PER_INSTANT_MAX: u32 = 10_000;

/// Jobs alive at once after which a scenario counts as a runaway.
const JOBS_ALIVE_MAX: usize = 1_000_000;

/// What a simulation did, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Jobs released.
    pub jobs: u64,
    /// Stage instances that became ready.
    pub stages: u64,
    /// Runs started.
    pub runs: u64,
    /// Times that the policy was asked.
    pub decisions: u64,
    /// Instants at which something happened.
    pub instants: u64,
}

/// A simulation in progress: a [`System`], a [`Policy`] and a [`Sink`] for what happens.
///
/// Cloning forks the simulation: both copies go on independently and, with the same policy, identically.
#[derive(Clone, Debug)]
pub struct Engine<'a, S> {
    pub(crate) system: &'a System,
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) policy_name: String,
    pub(crate) state: State,
    pub(crate) sink: S,
    pub(crate) sink_active: bool,
    pub(crate) timers: BinaryHeap<Reverse<Timer>>,
    pub(crate) sources: IdVec<SourceId, SourceState>,
    pub(crate) nodes: IdVec<NodeId, NodeTraits>,
    pub(crate) in_order: IdVec<NodeId, InOrder>,
    /// What policies do not see of jobs, by [`JobId`].
    pub(crate) books: Vec<Book>,
    /// What policies do not see of stages, by [`StageId`].
    pub(crate) hidden: Vec<Hidden>,
    /// What policies do not see of runs; parallel to the state's runs.
    pub(crate) runs: IdVec<onbeat_core::id::ProcessorId, Vec<LiveRun>>,
    pub(crate) outcome: Outcome,
    pub(crate) sequence: u64,
    /// Something happened that the policy should know.
    pub(crate) changed: bool,
    /// The set of runs that make progress has changed.
    pub(crate) bus_dirty: bool,
    pub(crate) last_bus: (f64, f64),
    actions: Actions,
    pub(crate) room: Actions,
    /// Jobs whose drop rules are applied when the actions of the current decision are done.
    pub(crate) to_judge: Vec<(JobId, u64)>,
    /// Whether the actions of a decision are being done.
    pub(crate) acting: bool,
    /// Scratch of the bus.
    pub(crate) shares: Vec<f64>,
    pub(crate) order: Vec<usize>,
    finished: bool,
}

/// Something that will happen at a known time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) at: Nanos,
    pub(crate) kind: TimerKind,
    /// Source for arrivals and releases: files' order decides at equal times.
    pub(crate) order: u32,
    /// Order of making, last resort.
    pub(crate) sequence: u64,
    pub(crate) payload: u64,
    pub(crate) nominal: Nanos,
}

/// Kinds of timers, in their order at equal times. Ends of runs come before all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKind {
    /// A job with a drop rule is late or hopeless from now on.
    DropCheck,
    /// Nominal arrival of a source's next job.
    Arrival,
    /// Release of a job that was delayed by jitter.
    Release,
    /// The policy wants to be asked.
    Wake,
}

impl<'a, S: Sink> Engine<'a, S> {
    /// A simulation of `system` at time zero.
    pub fn new(system: &'a System, policy: Box<dyn Policy>, policy_name: &str, seed: u64, sink: S) -> Self {
        let sink_active = sink.is_active();
        let mut engine = Self {
            system,
            policy,
            policy_name: policy_name.to_owned(),
            state: State::new(system),
            sink,
            sink_active,
            timers: BinaryHeap::new(),
            sources: system.sources.iter().map(|source| SourceState::new(source, seed)).collect(),
            nodes: system.nodes.ids().map(|node| NodeTraits::new(system, node)).collect(),
            in_order: system.nodes.iter().map(|_| InOrder::default()).collect(),
            books: Vec::new(),
            hidden: Vec::new(),
            runs: system.platform.processors.iter().map(|_| Vec::new()).collect(),
            outcome: Outcome::default(),
            sequence: 0,
            changed: false,
            bus_dirty: false,
            last_bus: (0.0, 1.0),
            actions: Actions::default(),
            room: Actions::default(),
            to_judge: Vec::new(),
            acting: false,
            shares: Vec::new(),
            order: Vec::new(),
            finished: false,
        };
        engine.preload();
        for source in system.sources.ids() {
            engine.schedule_arrival(source);
        }
        engine
    }

    /// Current time.
    pub fn now(&self) -> Nanos {
        self.state.now
    }

    /// What is going on.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What it did so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Goes on to the next instant at which something happens. False at the end of the simulated time.
    ///
    /// # Errors
    /// [`SimError`]; the engine cannot go on then.
    pub fn step(&mut self) -> Result<bool, SimError> {
        let boundary = self.next_boundary();
        let timer = self.timers.peek().map_or(Nanos::MAX, |Reverse(timer)| timer.at);
        let at = boundary.min(timer);
        if at > self.system.duration {
            self.end();
            return Ok(false);
        }
        debug_assert!(at >= self.state.now, "time does not go backwards");
        self.state.now = at;
        self.outcome.instants += 1;
        if boundary == at {
            self.pass_boundaries();
        }
        while let Some(&Reverse(timer)) = self.timers.peek() {
            if timer.at > at {
                break;
            }
            self.timers.pop();
            self.expire(timer);
        }
        if self.state.jobs.len() > JOBS_ALIVE_MAX {
            return Err(SimError::TooManyJobs { policy: self.policy_name.clone(), at, jobs: self.state.jobs.len() });
        }
        if self.changed {
            self.decide()?;
        }
        if self.bus_dirty {
            self.share_bus();
        }
        Ok(true)
    }

    /// Goes on to the end of the simulated time and returns what happened and the sink.
    ///
    /// # Errors
    /// [`SimError`].
    pub fn run(mut self) -> Result<(Outcome, S), SimError> {
        while self.step()? {}
        Ok((self.outcome, self.sink))
    }

    fn expire(&mut self, timer: Timer) {
        match timer.kind {
            TimerKind::DropCheck => self.check_drop(JobId(timer.order), timer.payload),
            TimerKind::Arrival => self.arrive(SourceId(timer.order)),
            TimerKind::Release => self.release(SourceId(timer.order), timer.payload, timer.nominal),
            TimerKind::Wake => self.changed = true,
        }
    }

    /// Asks the policy, and does what it says, until nothing changes any more at this instant.
    fn decide(&mut self) -> Result<(), SimError> {
        self.sync_progress();
        let mut actions = std::mem::take(&mut self.actions);
        let mut decisions = 0;
        while self.changed {
            self.changed = false;
            if decisions == DECISIONS_PER_INSTANT_MAX {
                let (policy, at) = (self.policy_name.clone(), self.state.now);
                return Err(SimError::Livelock { policy, at, decisions });
            }
            decisions += 1;
            actions.clear();
            self.policy.decide(&View { system: self.system, state: &self.state }, &mut actions);
            self.acting = true;
            for &action in actions.as_slice() {
                self.act(action).map_err(|reason| SimError::IllegalAction {
                    policy: self.policy_name.clone(),
                    at: self.state.now,
                    action,
                    reason,
                })?;
            }
            self.acting = false;
            while let Some((job, serial)) = self.to_judge.pop() {
                self.judge_after_stop(job, serial);
            }
        }
        self.outcome.decisions += u64::from(decisions);
        self.actions = actions;
        Ok(())
    }

    /// Ends all that is going on at the end of the simulated time.
    fn end(&mut self) {
        if self.finished {
            return;
        }
        self.finished = true;
        self.state.now = self.system.duration;
        self.stop_all_at_horizon();
        let mut alive: Vec<u64> = self.state.jobs.iter().map(|(_, job)| job.serial).collect();
        alive.sort_unstable();
        for job in alive {
            self.emit(What::Unfinished { job });
        }
        self.emit(What::End);
    }

    pub(crate) fn push_timer(&mut self, at: Nanos, kind: TimerKind, order: u32, payload: u64, nominal: Nanos) {
        self.sequence += 1;
        self.timers.push(Reverse(Timer { at, kind, order, sequence: self.sequence, payload, nominal }));
    }

    #[inline]
    pub(crate) fn emit(&mut self, what: What) {
        if self.sink_active {
            self.sink.event(&Event { at: self.state.now, what });
        }
    }

    /// What policies do not see of a stage.
    pub(crate) fn hidden(&mut self, stage: StageId) -> &mut Hidden {
        &mut self.hidden[stage.index()]
    }
}

/// Simulates `system` under `policy` to its end. `policy_name` appears in errors.
///
/// # Errors
/// [`SimError`], if the policy does something impossible or the scenario runs away.
pub fn simulate<S: Sink>(
    system: &System,
    policy: Box<dyn Policy>,
    policy_name: &str,
    seed: u64,
    sink: S,
) -> Result<(Outcome, S), SimError> {
    Engine::new(system, policy, policy_name, seed, sink).run()
}
