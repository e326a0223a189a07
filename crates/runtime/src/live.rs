//! The runtime's state machine: what was reported goes in, what is to be done comes out. No clock, no threads, no devices: a record
//! replays through the very same code.

use std::collections::BTreeSet;

use onbeat_core::event::{DropCause, Sink, StopReason, What};
use onbeat_core::id::{Id, IdVec, ModelId, ProcessorId, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, Actions, Limit, Policy, refusal_bit};
use onbeat_core::state::{Run, Stage};
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};
use onbeat_driver::{Course, DriveError, Effect, Facts, Outcome};

use crate::runs::LiveRun;
use crate::task::{Command, Report};

/// Decisions at one instant after which a policy counts as going round in a circle.
const DECISIONS_PER_INSTANT_MAX: u32 = 1_000;

/// A real run in progress, as a state machine.
#[derive(Clone, Debug)]
pub struct Live<'a, S> {
    pub(crate) course: Course<'a, S>,
    /// What policies do not see of runs; parallel to the state's runs.
    pub(crate) runs: IdVec<ProcessorId, Vec<LiveRun>>,
    pub(crate) commands: Vec<Command>,
    /// Jobs that are dropped as soon as none of their stages runs, because a device has failed them.
    pub(crate) doomed: BTreeSet<u64>,
    /// What was in memory when commands were given last.
    resident: Vec<(ModelId, ProcessorId)>,
    actions: Actions,
    /// What a policy did wrong when a cache was to grow.
    pub(crate) wrong: Option<DriveError>,
}

impl<'a, S: Sink> Live<'a, S> {
    /// A run of `system` at time zero. What `facts` does not know about jobs is drawn at random, as in a simulation with this seed.
    pub fn new(
        system: &'a System,
        policy: Box<dyn Policy>,
        policy_name: &str,
        seed: u64,
        facts: Facts,
        sink: S,
    ) -> Self {
        let mut live = Self {
            course: Course::new(system, policy, policy_name, seed, facts, sink),
            runs: system.platform.processors.iter().map(|_| Vec::new()).collect(),
            commands: Vec::new(),
            doomed: BTreeSet::new(),
            resident: Vec::new(),
            actions: Actions::default(),
            wrong: None,
        };
        live.resident = live.resident_now();
        live.course.state.real = true;
        for (p, unit) in system.platform.processors.enumerate() {
            if unit.runs_models() {
                live.course.fix_point(p);
            }
        }
        live
    }

    /// Models that are in memory, and for which processors.
    pub fn resident_now(&self) -> Vec<(ModelId, ProcessorId)> {
        let of = |(model, on): (ModelId, &IdVec<ProcessorId, Option<Nanos>>)| {
            let there = on.enumerate().filter(|(_, used)| used.is_some()).map(|(p, _)| (model, p));
            there.collect::<Vec<_>>()
        };
        self.course.state.memory.resident.enumerate().flat_map(of).collect()
    }

    /// Commands the removal of weights that are not in memory any more.
    fn unload(&mut self) {
        let (system, memory, commands) = (self.course.system, &self.course.state.memory, &mut self.commands);
        self.resident.retain(|&(model, processor)| {
            let there = memory.is_resident(model, processor);
            if !there && system.models[model].role.is_network() {
                commands.push(Command::Unload { model, processor });
            }
            there
        });
    }

    /// Forgets what was known of a job that has ended.
    pub fn forget(&mut self, job: u64) {
        self.course.facts.forget(job);
    }

    /// When something happens next by itself: a release, a drop rule, a policy's wake-up.
    pub fn next_timer(&self) -> Nanos {
        self.course.next_timer().min(self.course.next_power())
    }

    /// What it did so far.
    pub fn outcome(&self) -> Outcome {
        self.course.outcome
    }

    /// What is going on.
    pub fn course(&self) -> &Course<'a, S> {
        &self.course
    }

    /// The nominal end of the runs on a processor, and their numbers: for the watchdog.
    pub fn expected_ends(&self) -> impl Iterator<Item = (ProcessorId, u64, Nanos, Nanos)> + '_ {
        let of = move |(p, occupancy): (ProcessorId, &'_ onbeat_core::state::Occupancy)| {
            // A virtual device at its slowest operating point is not hanging.
            let slowest = |p: ProcessorId| {
                let power = self.course.system.platform.processors[p].power.as_ref();
                power.map_or(1.0, |model| model.points[model.slowest() as usize].speed.min(1.0))
            };
            let end = |run: &Run, nominal_end: Nanos| {
                let slowest = run.over.iter().map(slowest).fold(slowest(p), f64::min);
                let expected = nominal_end - run.start;
                if slowest < 1.0 { run.start + Nanos::from_ns_f64(expected.as_f64() / slowest) } else { nominal_end }
            };
            // Helpers have nothing that could hang.
            let runs = occupancy.runs.iter().zip(&self.runs[p]).filter(|(_, hidden)| !hidden.helps);
            runs.map(|(run, hidden)| (p, run.serial, run.start, end(run, hidden.nominal_end))).collect::<Vec<_>>()
        };
        self.course.state.processors.enumerate().flat_map(of)
    }

    /// Takes what was reported, expires timers, and asks the policy if anything has changed. `now` is later than ever before. What is
    /// to be done is appended to `commands`.
    ///
    /// # Errors
    /// If the policy does something impossible, or the scenario runs away; the run cannot go on then.
    pub fn instant(&mut self, now: Nanos, reports: &[Report], commands: &mut Vec<Command>) -> Result<(), DriveError> {
        debug_assert!(now >= self.course.state.now, "time does not go backwards");
        self.course.state.now = now;
        self.course.outcome.instants += 1;
        let emitted = self.course.emitted;
        for (i, report) in reports.iter().enumerate() {
            self.take(report, reports.get(i + 1));
        }
        if let Some(error) = self.wrong.take() {
            return Err(error);
        }
        // A replay knows of an instant by its events: every expiry has one. An instant without any leaves no trace here either: energy
        // summed up in other steps would differ in its last digits.
        if self.course.expire_power_and_tell() {
            self.settle_power();
        }
        self.course.expire_timers()?;
        self.drop_the_doomed();
        self.decide()?;
        if self.course.emitted != emitted {
            self.settle_power();
        }
        commands.append(&mut self.commands);
        Ok(())
    }

    /// Ends the run: whatever is going on counts as unfinished.
    pub fn end(&mut self, now: Nanos) {
        self.course.state.now = now;
        for p in self.course.system.platform.processors.ids() {
            while !self.runs[p].is_empty() {
                let (home, i) = self.home_of(p, 0);
                self.runs[home][i].why = StopReason::Horizon;
                self.stop(home, i, false);
            }
        }
        self.course.end();
        self.commands.clear();
    }

    /// The sink.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.course.sink
    }

    /// Gives back the sink.
    pub fn into_sink(self) -> S {
        self.course.sink
    }

    /// Takes one report; `next` is the one after it.
    fn take(&mut self, report: &Report, next: Option<&Report>) {
        match *report {
            Report::Progress { run, steps } => {
                if let Some((p, i)) = self.find_run(run) {
                    self.course.emit(What::Progress { run, steps });
                    self.progress(p, i, steps);
                    self.grow_caches_of(p, i);
                }
            }
            // Parts that end at the same token count together: tokens are handed on once.
            Report::Part { stage, tokens } => self.part(stage, tokens, next == Some(report)),
            Report::Follow { job, node, edge, count } => {
                self.course.emit(What::Follow { job, node, edge, count });
                self.course.facts.set_followers(job, node, edge, count);
            }
            Report::Prompt { job, node, instance, prompt, output_max } => {
                self.course.facts.set_length(job, node, instance, prompt, output_max);
            }
            Report::Ended { run, stage } => {
                if let Some((p, i)) = self.find_run(run) {
                    self.course.emit(What::Ended { run, stage });
                    self.runs[p][i].ended.push(stage);
                }
            }
            Report::Ran { run, steps, finished } => {
                if let Some((p, i)) = self.find_run(run) {
                    self.course.emit(What::Ran { run, steps, finished });
                    self.progress(p, i, steps);
                    self.stop(p, i, finished);
                }
            }
            Report::Failed { run } => {
                if let Some((p, i)) = self.find_run(run) {
                    self.fail(p, i);
                }
            }
            Report::Lost { processor } => self.lose(processor),
        }
    }

    /// A part of a running stage's output is complete: what follows may start, unless there is `more` of it at once.
    fn part(&mut self, serial: u64, tokens: u32, more: bool) {
        let found = self.course.state.stages.iter().find(|(_, live)| live.serial == serial).map(|(id, _)| id);
        let Some(stage) = found else { return };
        self.course.emit(What::Part { stage: serial, tokens });
        let live = self.course.state.stages[stage];
        let job = self.course.state.jobs[live.job].serial;
        let instance = self.course.hidden[stage.index()].instance;
        self.course.facts.add_part(job, live.node, instance, tokens);
        if tokens > 1 && !more {
            self.course.count_tokens(stage, f64::from(tokens - 1));
        }
    }

    pub(crate) fn find_run(&self, serial: u64) -> Option<(ProcessorId, usize)> {
        self.course.state.processors.enumerate().find_map(|(p, occupancy)| {
            let mut runs = occupancy.runs.iter().zip(&self.runs[p]);
            runs.position(|(run, hidden)| run.serial == serial && !hidden.helps).map(|i| (p, i))
        })
    }

    /// A device has failed a run: the jobs of its stages cannot be finished.
    fn fail(&mut self, p: ProcessorId, i: usize) {
        let run = self.course.state.processors[p].runs[i].serial;
        self.course.emit(What::Failed { run, processor: p });
        let stages: Vec<StageId> = self.course.state.processors[p].runs[i].stages().collect();
        for stage in stages {
            let live = self.course.state.stages[stage];
            self.doomed.insert(self.course.state.jobs[live.job].serial);
        }
        self.runs[p][i].give_up();
        self.stop(p, i, false);
    }

    /// A processor does not answer any more. What ran there starts again elsewhere if it had nothing to lose, else its job is dropped.
    fn lose(&mut self, p: ProcessorId) {
        if self.course.state.failed & refusal_bit(p) != 0 {
            return;
        }
        self.course.emit(What::Lost { processor: p });
        self.course.state.failed |= refusal_bit(p);
        self.course.changed = true;
        while !self.runs[p].is_empty() {
            let (home, i) = self.home_of(p, 0);
            if home != p {
                // It only helped: the stage is elsewhere, and stands where it is known to stand.
                self.runs[home][i].why = StopReason::Preempted;
                self.stop(home, i, false);
                continue;
            }
            let stages: Vec<StageId> = self.course.state.processors[p].runs[0].stages().collect();
            self.runs[p][0].give_up();
            self.stop(p, 0, false);
            for stage in stages {
                self.restart_or_doom(stage);
            }
        }
        // What had started there and waits has lost its state as well.
        let kept_there = |live: &Stage| live.processor == Some(p) && (live.phase > 0 || live.position > 0.0);
        let lost: Vec<StageId> =
            self.course.state.stages.iter().filter(|(_, live)| kept_there(live)).map(|(id, _)| id).collect();
        for stage in lost {
            self.restart_or_doom(stage);
        }
    }

    fn restart_or_doom(&mut self, stage: StageId) {
        if self.course.state.stages.get(stage).is_none() {
            return;
        }
        let live = &mut self.course.state.stages[stage];
        if live.phase == 0 && live.tokens == 0 {
            live.position = 0.0;
            live.partial_ns = 0.0;
            live.processor = None;
            let serial = live.serial;
            self.commands.push(Command::Forget { stage: serial });
        } else {
            self.doomed.insert(self.course.state.jobs[live.job].serial);
        }
    }

    /// Drops jobs that a device has failed, and those that no processor is left for.
    fn drop_the_doomed(&mut self) {
        if self.course.state.failed != 0 {
            let stranded = |stage: StageId| {
                let live = &self.course.state.stages[stage];
                let node = &self.course.system.nodes[live.node];
                let lost = |p| self.course.state.failed & refusal_bit(p) != 0;
                // What has not begun can still be switched to a variant that runs elsewhere.
                let stuck = |variant| node.costs_of(variant).enumerate().all(|(p, cost)| cost.is_none() || lost(p));
                self.course.view().variants(stage).all(stuck)
            };
            let waiting = self.course.state.ready.iter().chain(&self.course.state.background);
            let stages: Vec<StageId> = waiting.copied().filter(|&s| stranded(s)).collect();
            for stage in stages {
                self.doomed.insert(self.course.state.jobs[self.course.state.stages[stage].job].serial);
            }
        }
        if self.doomed.is_empty() {
            return;
        }
        let jobs: Vec<_> = self.course.state.jobs.iter().map(|(id, job)| (id, job.serial, job.running)).collect();
        for (id, serial, running) in jobs {
            if !self.doomed.contains(&serial) {
                continue;
            }
            if running == 0 {
                self.course.drop_job(id, DropCause::Failed);
                self.doomed.remove(&serial);
            } else {
                self.cut_job(id);
                // What is left of it waits for the end, not for a processor.
                let stages = &self.course.state.stages;
                self.course.state.ready.retain(|&stage| stages[stage].job != id);
                self.course.state.background.retain(|&stage| stages[stage].job != id);
            }
        }
        let live: BTreeSet<u64> = self.course.state.jobs.iter().map(|(_, job)| job.serial).collect();
        self.doomed.retain(|serial| live.contains(serial));
    }

    fn decide(&mut self) -> Result<(), DriveError> {
        let mut actions = std::mem::take(&mut self.actions);
        let mut decisions = 0;
        while self.course.changed {
            if decisions == DECISIONS_PER_INSTANT_MAX {
                let (policy, at) = (self.course.policy_name.clone(), self.course.state.now);
                return Err(DriveError::Livelock { policy, at, decisions });
            }
            decisions += 1;
            let decision = self.course.outcome.decisions;
            self.course.begin_decision(&mut actions);
            let list = actions.as_slice();
            self.course.emit(What::Asked { decision, actions: list.len() as u32, digest: digest(list) });
            for &action in list {
                let effect = self.course.act(action).map_err(|reason| self.course.illegal(action, reason))?;
                if matches!(action, Action::Start { .. } | Action::StartTogether { .. } | Action::Evict { .. }) {
                    self.unload();
                }
                self.carry_out(effect);
            }
            self.course.end_decision();
            self.drop_the_doomed();
        }
        self.actions = actions;
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            // Points are decided on at the end of every instant.
            Effect::Done | Effect::Speed => {}
            Effect::Launch { stage, processor, setup, loads, limit } => {
                let live = self.course.state.stages[stage];
                let adapter = self.course.system.nodes[live.node].adapter.map(|adapter| adapter.model);
                let there = |this: &Self, model| this.resident.contains(&(model, processor));
                // Adapters are rehearsed: devices are told of models only.
                let loads_model = loads > Bytes::ZERO && !there(self, live.weights);
                for model in [Some(live.weights).filter(|_| loads_model), adapter].into_iter().flatten() {
                    if !there(self, model) {
                        self.resident.push((model, processor));
                    }
                }
                self.launch(processor, &[stage], setup, loads_model, limit);
            }
            Effect::LaunchTogether { stage, processor, together, setup, segments, loaded: _ } => {
                self.resident = self.resident_now();
                self.launch_together(processor, stage, together, setup, segments);
            }
            Effect::Join { stage, processor, run, setup, limit: _ } => self.join(stage, processor, run, setup),
            Effect::Cut { processor, run } => self.cut(processor, run, StopReason::Preempted),
        }
    }
}

/// A hash of actions, the same on every machine (FNV-1a, 64 bits, over the actions' own numbers).
fn digest(actions: &[Action]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |number: u64| {
        for byte in number.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for action in actions {
        let numbers = match *action {
            Action::Start { stage, processor, limit, units } => {
                let limit = match limit {
                    None => 0,
                    Some(Limit::Segments(n)) => u64::from(n) + 1,
                    Some(Limit::Units(n)) => u64::from(n) | 1 << 63,
                };
                [1, u64::from(stage.0), u64::from(processor.0) | u64::from(units.unwrap_or(0)) << 32, limit]
            }
            Action::StartTogether { stage, processor, together, segments } => {
                let (kind, with) = match together {
                    Together::Split { helpers } => (1, helpers.bits()),
                    Together::Attention { helpers } => (2, helpers.bits()),
                    Together::Draft { processor, tokens } => (3, u64::from(processor.0) | u64::from(tokens) << 32),
                };
                let place = u64::from(stage.0) | u64::from(processor.0) << 32;
                [11 + 256 * kind, place, with, segments.map_or(0, |n| u64::from(n) + 1)]
            }
            Action::Preempt { stage } => [2, u64::from(stage.0), 0, 0],
            Action::Drop { job } => [3, u64::from(job.0), 0, 0],
            Action::Evict { model, processor } => [4, u64::from(model.0), u64::from(processor.0), 0],
            Action::Wake { at } => [5, at.0, 0, 0],
            Action::SetPoint { processor, point } => [6, u64::from(processor.0), u64::from(point), 0],
            Action::Switch { stage, variant } => [7, u64::from(stage.0), u64::from(variant), 0],
            Action::EvictCache { stage, keep } => [8, u64::from(stage.0), u64::from(keep), 0],
            Action::PlaceCache { stage, far } => [9, u64::from(stage.0), u64::from(far), 0],
            Action::CopyCache { stage, to } => [10, u64::from(stage.0), u64::from(to.0), 0],
        };
        numbers.into_iter().for_each(&mut eat);
    }
    hash
}
