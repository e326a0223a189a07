//! The engine: virtual time, the order of events, and the loop.

use onbeat_core::event::{Sink, StopReason};
use onbeat_core::id::{IdVec, ProcessorId};
use onbeat_core::policy::{Actions, Policy};
use onbeat_core::state::State;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_driver::{Course, DriveError as SimError, Effect, Facts, Outcome};

use crate::runs::LiveRun;

/// Decisions at one instant after which a policy counts as going round in a circle.
const DECISIONS_PER_INSTANT_MAX: u32 = 10_000;

/// A simulation in progress: a [`System`], a [`Policy`] and a [`Sink`] for what happens.
///
/// Cloning forks the simulation: both copies go on independently and, with the same policy, identically.
#[derive(Clone, Debug)]
pub struct Engine<'a, S> {
    pub(crate) course: Course<'a, S>,
    /// What policies do not see of runs; parallel to the state's runs.
    pub(crate) runs: IdVec<ProcessorId, Vec<LiveRun>>,
    /// The set of runs that make progress has changed.
    pub(crate) bus_dirty: bool,
    pub(crate) last_bus: (f64, f64),
    actions: Actions,
    /// Scratch of the bus.
    pub(crate) shares: Vec<f64>,
    pub(crate) order: Vec<usize>,
    finished: bool,
    /// What a policy did wrong when a cache was to grow.
    pub(crate) wrong: Option<SimError>,
}

impl<'a, S: Sink> Engine<'a, S> {
    /// A simulation of `system` at time zero.
    pub fn new(system: &'a System, policy: Box<dyn Policy>, policy_name: &str, seed: u64, sink: S) -> Self {
        Self::with_facts(system, policy, policy_name, seed, Facts::default(), sink)
    }

    /// Like [`Engine::new`], with what is known of the run's jobs in place of what would be drawn at random.
    pub fn with_facts(
        system: &'a System,
        policy: Box<dyn Policy>,
        policy_name: &str,
        seed: u64,
        facts: Facts,
        sink: S,
    ) -> Self {
        Self {
            course: Course::new(system, policy, policy_name, seed, facts, sink),
            runs: system.platform.processors.iter().map(|_| Vec::new()).collect(),
            bus_dirty: false,
            last_bus: (0.0, 1.0),
            actions: Actions::default(),
            shares: Vec::new(),
            order: Vec::new(),
            finished: false,
            wrong: None,
        }
    }

    /// Current time.
    pub fn now(&self) -> Nanos {
        self.course.state.now
    }

    /// What is going on.
    pub fn state(&self) -> &State {
        &self.course.state
    }

    /// What it did so far.
    pub fn outcome(&self) -> Outcome {
        self.course.outcome
    }

    /// Goes on to the next instant at which something happens. False at the end of the simulated time.
    ///
    /// # Errors
    /// [`SimError`]; the engine cannot go on then.
    pub fn step(&mut self) -> Result<bool, SimError> {
        let boundary = self.next_boundary();
        let timer = self.course.next_timer();
        let at = boundary.min(timer).min(self.course.next_power());
        if at > self.course.system.duration {
            self.end();
            return Ok(false);
        }
        debug_assert!(at >= self.course.state.now, "time does not go backwards");
        self.course.state.now = at;
        self.course.outcome.instants += 1;
        if boundary == at {
            self.pass_boundaries();
            if let Some(error) = self.wrong.take() {
                return Err(error);
            }
        }
        if self.course.expire_power() {
            // The policy is to see the speeds that hold from now on.
            self.share_bus();
        }
        self.course.expire_timers()?;
        if self.course.changed {
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
        Ok((self.course.outcome, self.course.sink))
    }

    /// Asks the policy, and does what it says, until nothing changes any more at this instant.
    fn decide(&mut self) -> Result<(), SimError> {
        self.sync_progress();
        let mut actions = std::mem::take(&mut self.actions);
        let mut decisions = 0;
        while self.course.changed || self.course.break_deadlock() {
            if decisions == DECISIONS_PER_INSTANT_MAX {
                let (policy, at) = (self.course.policy_name.clone(), self.course.state.now);
                return Err(SimError::Livelock { policy, at, decisions });
            }
            decisions += 1;
            self.course.begin_decision(&mut actions);
            for &action in actions.as_slice() {
                let effect = self.course.act(action).map_err(|reason| self.course.illegal(action, reason))?;
                self.carry_out(effect);
            }
            self.course.end_decision();
        }
        self.actions = actions;
        Ok(())
    }

    /// Ends all that is going on at the end of the simulated time.
    fn end(&mut self) {
        if self.finished {
            return;
        }
        self.finished = true;
        self.course.state.now = self.course.system.duration;
        self.stop_all_at_horizon();
        self.course.end();
    }

    /// Does to the processors what an action asks for.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Done => {}
            Effect::Launch { stage, processor, setup, loads, limit } => {
                self.launch(processor, &[stage], setup, loads, limit);
            }
            Effect::LaunchTogether { stage, processor, together, setup, loaded, segments } => {
                self.launch_together(processor, stage, together, setup, loaded, segments);
            }
            Effect::Join { stage, processor, run, setup, limit } => self.join(stage, processor, run, setup, limit),
            Effect::Speed => self.bus_dirty = true,
            Effect::Cut { processor, run } => self.cut(processor, run, StopReason::Preempted),
        }
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
