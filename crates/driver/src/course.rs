//! The course of a run: what is going on, what will happen at known times, and what was decided.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use onbeat_core::event::{Event, Sink, What};
use onbeat_core::id::{Id, IdVec, JobId, ModelId, NodeId, SourceId, StageId};
use onbeat_core::policy::{Action, ActionError, Actions, Policy, View};
use onbeat_core::state::State;
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};

use crate::arrivals::SourceState;
use crate::conversations::Conversation;
use crate::error::DriveError;
use crate::facts::Facts;
use crate::jobs::{Book, Hidden, InOrder, NodeTraits};
use crate::lengths::Lengths;
use crate::power::Power;
use crate::refusals::Refusal;
use crate::scenes::Scenes;

/// Jobs alive at once after which a scenario counts as a runaway.
const JOBS_ALIVE_MAX: usize = 1_000_000;

/// What a run did, in numbers.
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

/// The course of a run, as far as it is the same in virtual and in real time: jobs and their chains, memory, timers, and what a
/// policy's actions mean. What a processor does with a stage, and how long that takes, is the driver's.
///
/// A driver moves [`State::now`], expires timers, tells what became of runs, and asks the policy when [`Course::changed`] says so.
#[derive(Clone, Debug)]
pub struct Course<'a, S> {
    /// What is run.
    pub system: &'a System,
    /// The policy that decides.
    pub policy: Box<dyn Policy>,
    /// Its name, for errors.
    pub policy_name: String,
    /// What is going on.
    pub state: State,
    /// Who is told of it.
    pub sink: S,
    /// Whether the sink wants events.
    pub sink_active: bool,
    /// Events so far, whether or not anybody listens.
    pub emitted: u64,
    /// What is known of jobs, instead of being drawn.
    pub facts: Facts,
    /// What it did so far.
    pub outcome: Outcome,
    /// Something happened that the policy should know.
    pub changed: bool,
    /// What policies do not see of stages, by [`StageId`].
    pub hidden: Vec<Hidden>,
    /// What is the same for all stages of a node.
    pub nodes: IdVec<NodeId, NodeTraits>,
    pub(crate) timers: BinaryHeap<Reverse<Timer>>,
    pub(crate) sources: IdVec<SourceId, SourceState>,
    pub(crate) in_order: IdVec<NodeId, InOrder>,
    /// What the answers of sessions with a predictor have taught it; `None`: their stage has none.
    pub(crate) lengths: IdVec<NodeId, Option<Box<Lengths>>>,
    /// What there is to see, by number of the content.
    pub(crate) scenes: Vec<Scenes>,
    /// What policies do not see of jobs, by [`JobId`].
    pub(crate) books: Vec<Book>,
    /// Conversations of sessions that have them.
    pub(crate) conversations: BTreeMap<(SourceId, ModelId), Conversation>,
    pub(crate) sequence: u64,
    pub(crate) room: Actions,
    /// Starts that found no memory.
    pub(crate) refusals: Vec<Refusal>,
    /// The last instant at which what was refused was tried again because nothing ran any more.
    pub(crate) stuck_at: Option<Nanos>,
    /// Number of the last decision of which a start found no memory; 0: there was none.
    pub(crate) refused_in: u64,
    /// Speed, power and heat of processors, where the platform says anything about them.
    pub power: Option<Power>,
    /// Scratch of what is told about them.
    pub(crate) told: Vec<What>,
    /// Jobs whose drop rules are applied when the actions of the current decision are done.
    to_judge: Vec<(JobId, u64)>,
    /// Whether the actions of a decision are being done.
    acting: bool,
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

/// Kinds of timers, in their order at equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TimerKind {
    /// A tool's answer is there.
    Tool,
    /// A job with a drop rule is late or hopeless from now on.
    DropCheck,
    /// Nominal arrival of a source's next job.
    Arrival,
    /// Release of a job that was delayed by jitter.
    Release,
    /// The policy wants to be asked.
    Wake,
    /// A cache has been moved to slower memory.
    SwappedOut,
}

impl<'a, S: Sink> Course<'a, S> {
    /// The course of a run of `system` at time zero: models preloaded, the first arrivals scheduled.
    pub fn new(
        system: &'a System,
        policy: Box<dyn Policy>,
        policy_name: &str,
        seed: u64,
        facts: Facts,
        sink: S,
    ) -> Self {
        let sink_active = sink.is_active();
        let mut course = Self {
            system,
            policy,
            policy_name: policy_name.to_owned(),
            state: State::new(system),
            sink,
            sink_active,
            emitted: 0,
            facts,
            outcome: Outcome::default(),
            changed: false,
            hidden: Vec::new(),
            nodes: system.nodes.ids().map(|node| NodeTraits::new(system, node)).collect(),
            timers: BinaryHeap::new(),
            sources: system.sources.iter().map(|source| SourceState::new(source, seed)).collect(),
            scenes: system.contents.iter().map(|content| Scenes::new(content, seed)).collect(),
            in_order: system.nodes.iter().map(|_| InOrder::default()).collect(),
            lengths: system
                .nodes
                .iter()
                .map(|node| system.sources[node.source].text.learns.then(Box::<Lengths>::default))
                .collect(),
            books: Vec::new(),
            conversations: BTreeMap::new(),
            sequence: 0,
            room: Actions::default(),
            refusals: Vec::new(),
            stuck_at: None,
            refused_in: 0,
            power: Power::new(system),
            told: Vec::new(),
            to_judge: Vec::new(),
            acting: false,
        };
        course.preload();
        course.tell_power(true);
        for source in system.sources.ids() {
            course.schedule_arrival(source);
        }
        course
    }

    /// What a policy sees.
    pub fn view(&self) -> View<'_> {
        View { system: self.system, state: &self.state }
    }

    /// When the next timer expires; [`Nanos::MAX`] without one.
    pub fn next_timer(&self) -> Nanos {
        self.timers.peek().map_or(Nanos::MAX, |Reverse(timer)| timer.at)
    }

    /// Expires all timers up to now.
    ///
    /// # Errors
    /// [`DriveError::TooManyJobs`].
    pub fn expire_timers(&mut self) -> Result<(), DriveError> {
        while let Some(&Reverse(timer)) = self.timers.peek() {
            if timer.at > self.state.now {
                break;
            }
            self.timers.pop();
            match timer.kind {
                TimerKind::Tool => self.end_tool(StageId(timer.order), timer.payload),
                TimerKind::DropCheck => self.check_drop(JobId(timer.order), timer.payload),
                TimerKind::Arrival => self.arrive(SourceId(timer.order)),
                TimerKind::Release => self.release_delayed(SourceId(timer.order), timer.payload, timer.nominal),
                TimerKind::Wake => self.changed = true,
                TimerKind::SwappedOut => {
                    self.free(Bytes(timer.payload));
                    self.changed = true;
                }
            }
        }
        if self.state.jobs.len() > JOBS_ALIVE_MAX {
            let (policy, at) = (self.policy_name.clone(), self.state.now);
            return Err(DriveError::TooManyJobs { policy, at, jobs: self.state.jobs.len() });
        }
        Ok(())
    }

    /// Asks the policy once. Between here and [`Course::end_decision`] the actions are done.
    pub fn begin_decision(&mut self, actions: &mut Actions) {
        self.changed = false;
        self.show_power();
        actions.clear();
        self.policy.decide(&View { system: self.system, state: &self.state }, actions);
        self.outcome.decisions += 1;
        self.acting = true;
    }

    /// The actions of a decision are done.
    pub fn end_decision(&mut self) {
        self.acting = false;
        while let Some((job, serial)) = self.to_judge.pop() {
            self.judge_after_stop(job, serial);
        }
    }

    /// Applies drop rules to a job, a run of which has stopped.
    pub fn judge(&mut self, job: JobId, serial: u64) {
        if self.acting {
            // A policy that preempts a late job cannot know that its other stages go with it before the decision is through.
            self.to_judge.push((job, serial));
        } else {
            self.judge_after_stop(job, serial);
        }
    }

    /// The error for an action that is not possible.
    pub fn illegal(&self, action: Action, reason: ActionError) -> DriveError {
        DriveError::IllegalAction { policy: self.policy_name.clone(), at: self.state.now, action, reason }
    }

    /// Writes down at the end which jobs are not finished.
    pub fn end(&mut self) {
        self.tell_power(true);
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

    /// Tells the sink what happens now.
    #[inline]
    pub fn emit(&mut self, what: What) {
        self.emitted += 1;
        if self.sink_active {
            self.sink.event(&Event { at: self.state.now, what });
        }
    }

    /// What policies do not see of a stage.
    pub(crate) fn hidden(&mut self, stage: StageId) -> &mut Hidden {
        &mut self.hidden[stage.index()]
    }
}
