//! Runs in real time: what a slot was told to do, how far it is known to be, and what becomes of its stages.

use onbeat_core::cost::{Phase, PhaseCost, Work};
use onbeat_core::event::{Sink, StopReason, What};
use onbeat_core::id::{Id, JobId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::policy::Limit;
use onbeat_core::state::{Run, Stage};
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Millijoules, Nanos};

use crate::joint::Joint;
use crate::live::Live;
use crate::power::Meter;
use crate::task::{Command, Launch, Member};

/// What policies do not see of a run.
#[derive(Clone, Debug)]
pub(crate) struct LiveRun {
    /// Slot of the processor.
    pub(crate) slot: u32,
    /// Stages that make progress; those after them in the state's run join at the next boundary.
    pub(crate) members: usize,
    /// Where each member stood at the start [units].
    pub(crate) from: Vec<f64>,
    pub(crate) started: Nanos,
    pub(crate) setup: Nanos,
    /// Whether the slot was told to end it.
    pub(crate) cut: bool,
    /// Steps known to be done.
    pub(crate) steps: u32,
    /// Steps that the policy asked for.
    pub(crate) steps_max: Option<u32>,
    pub(crate) why: StopReason,
    /// The device has failed it or is lost: nothing is finished, however far it came.
    pub(crate) failed: bool,
    /// A cache could not grow: what was done after that is lost.
    pub(crate) starved: bool,
    /// Share of each step that is computed: none of those that decode ends before the one that goes deepest.
    pub(crate) depth: f64,
    /// Of several stages on a device: the serial numbers of those that it says are complete.
    pub(crate) ended: Vec<u64>,
    /// What it draws and has drawn.
    pub(crate) meter: Meter,
    /// When it should end by the profile.
    pub(crate) nominal_end: Nanos,
    /// If several virtual devices work on it; the others have helpers.
    pub(crate) joint: Option<Box<Joint>>,
    /// Whether it only helps another processor's run.
    pub(crate) helps: bool,
}

impl LiveRun {
    /// Nothing comes of it any more.
    pub(crate) fn give_up(&mut self) {
        self.why = StopReason::Preempted;
        self.failed = true;
    }

    /// Where its stage number `k` is known to stand [units].
    fn position(&self, cost: &PhaseCost, k: usize, end: f64) -> f64 {
        match &self.joint {
            Some(joint) => joint.after(self.steps).position,
            None => position_after(cost, self.from[k], self.steps, end),
        }
    }
}

/// The profile entry that a stage runs by, on a processor in its current phase.
pub(crate) fn cost_of<'s>(system: &'s System, stage: &Stage, processor: ProcessorId) -> &'s PhaseCost {
    let cost = system.nodes[stage.node].costs_of(stage.variant)[processor].as_ref();
    let cost = cost.expect("a stage starts only where it can run");
    &cost.with_cache(stage.cache.far).on_units(stage.units)[usize::from(stage.phase)].1
}

/// Where a stage that stood at `from` stands after so many steps of a device [units].
fn position_after(cost: &PhaseCost, from: f64, steps: u32, end: f64) -> f64 {
    match cost {
        PhaseCost::Fixed { boundaries, .. } => {
            let passed = boundaries.iter().filter(|&&boundary| boundary <= from + 1e-9).count();
            let now = passed + steps as usize;
            // An early exit ends a segment.
            if now == 0 { 0.0 } else { boundaries.get(now - 1).copied().unwrap_or(end).min(end).max(from) }
        }
        _ => (from + f64::from(steps)).min(end),
    }
}

impl<S: Sink> Live<'_, S> {
    /// Puts stages on a free slot. They are not in the ready list any more.
    pub(crate) fn launch(
        &mut self,
        p: ProcessorId,
        stages: &[StageId],
        setup: Nanos,
        loads: bool,
        limit: Option<Limit>,
    ) {
        let now = self.course.state.now;
        let live = self.course.state.stages[stages[0]];
        let cost = cost_of(self.course.system, &live, p);
        let piece = cost.any_piece() && matches!(limit, Some(Limit::Units(_)));
        let (units_per_step, steps_max) = match (cost, limit) {
            (PhaseCost::Prefill { .. }, Some(Limit::Units(n))) if piece => (u32::MAX, Some(n)),
            (PhaseCost::Prefill { chunk, .. }, limit) => {
                let chunk = chunk.unwrap_or(u32::MAX);
                let most = limit.map(|limit| match limit {
                    Limit::Segments(n) => n.saturating_mul(chunk),
                    Limit::Units(n) => n.div_ceil(chunk).saturating_mul(chunk),
                });
                (chunk, most)
            }
            // A network that is not cut by units runs to its end.
            (PhaseCost::Fixed { .. }, Some(Limit::Units(_))) => (1, None),
            (_, limit) => (1, limit.map(|(Limit::Segments(n) | Limit::Units(n))| n)),
        };
        let slot = self.free_slot(p);
        let serial = self.course.outcome.runs;
        self.course.outcome.runs += 1;
        let depth = self.course.depth(stages);
        let mut members = Vec::with_capacity(stages.len());
        for &stage in stages {
            let other = &mut self.course.state.stages[stage];
            let fresh = other.phase == 0 && other.position == 0.0;
            other.running = true;
            other.go_to(p);
            other.units = live.units;
            let other = *other;
            let hidden = self.course.hidden[stage.index()];
            let job = &mut self.course.state.jobs[other.job];
            job.running += 1;
            job.started = true;
            if fresh
                && self.course.nodes[other.node].per_tokens
                && self.course.system.platform.processors[p].runs_models()
            {
                // What the model says decides where a part of its output ends, not the number of tokens.
                self.course.facts.expect_parts(job.serial, other.node, hidden.instance);
            }
            members.push(Member {
                stage,
                serial: other.serial,
                job: job.serial,
                node: other.node,
                variant: other.variant,
                units: live.units,
                far: other.cache.far,
                instance: hidden.instance,
                fresh,
                from: other.position,
                work: Work { exit: depth, ..hidden.work },
                u: hidden.u,
                variation: hidden.variation,
            });
            self.course.emit(What::Start {
                run: serial,
                stage: other.serial,
                processor: p,
                phase: live.kind,
                setup,
                over: ProcessorSet::EMPTY,
                units: live.units,
            });
        }
        let (meter, stretch) = self.meter(p, stages);
        self.runs[p].push(LiveRun {
            slot,
            members: stages.len(),
            from: members.iter().map(|member| member.from).collect(),
            started: now,
            setup,
            cut: false,
            steps: 0,
            steps_max,
            why: StopReason::Finished,
            failed: false,
            starved: false,
            depth,
            ended: Vec::new(),
            meter,
            nominal_end: now,
            joint: None,
            helps: false,
        });
        let nominal_end = now + setup + self.expected(p, stages, limit);
        let expected_end = self.course.end_to_count_on(p, stages, nominal_end);
        self.runs[p].last_mut().expect("it was just added").nominal_end = nominal_end;
        let occupancy = &mut self.course.state.processors[p];
        occupancy.last_model = Some(live.weights);
        occupancy.take_units(live.units, Some(live.weights), serial);
        occupancy.runs.push(Run {
            serial,
            stage: stages[0],
            others: stages[1..].to_vec(),
            model: live.model,
            kind: live.kind,
            start: now,
            expected_end,
            ending: false,
            over: ProcessorSet::EMPTY,
        });
        self.commands.push(Command::Launch(Launch {
            run: serial,
            processor: p,
            slot,
            model: live.model,
            phase: live.kind,
            phase_index: live.phase,
            members,
            loads,
            setup,
            steps_max,
            stretch,
            units_per_step,
            piece,
            tells: self.tells(live.kind),
            joint: None,
        }));
    }

    /// A slot of a processor that nothing runs in.
    pub(crate) fn free_slot(&self, p: ProcessorId) -> u32 {
        let slots = self.course.system.platform.processors[p].runs_max();
        let is_free = |&slot: &u32| self.runs[p].iter().all(|run| run.slot != slot);
        (0..slots).find(is_free).expect("a run starts only on a free slot")
    }

    /// Nominal time that a policy may expect a run to take, by expected lengths.
    fn expected(&self, p: ProcessorId, stages: &[StageId], limit: Option<Limit>) -> Nanos {
        let live = &self.course.state.stages[stages[0]];
        let cost = cost_of(self.course.system, live, p);
        if let Some(limit) = limit {
            let to = cost.limit_end(live.work, live.kind, live.position, limit).max(live.position);
            let nominal = match limit {
                Limit::Units(_) => cost.piece_ns(live.work, live.position, to),
                Limit::Segments(_) => cost.latency_ns(live.work, live.position, to),
            };
            return Nanos::from_ns_f64(nominal);
        }
        let view = self.course.view();
        let rest = stages.iter().filter_map(|&stage| view.remaining_in_phase(stage, p)).max().unwrap_or(Nanos::ZERO);
        Nanos::from_ns_f64(rest.as_f64() * cost.batch_factor(stages.len() as u32))
    }

    /// A stage joins a batch at its next boundary.
    pub(crate) fn join(&mut self, stage: StageId, p: ProcessorId, i: usize, _setup: Nanos) {
        let live = &mut self.course.state.stages[stage];
        live.running = true;
        let job = &mut self.course.state.jobs[live.job];
        job.running += 1;
        job.started = true;
        self.course.state.processors[p].runs[i].others.push(stage);
        self.cut(p, i, StopReason::Rebatched);
    }

    /// Tells a slot to end its run at the next boundary.
    pub(crate) fn cut(&mut self, p: ProcessorId, i: usize, why: StopReason) {
        let visible = &mut self.course.state.processors[p].runs[i];
        visible.ending |= why == StopReason::Preempted;
        let run = &mut self.runs[p][i];
        if why == StopReason::Preempted || run.why != StopReason::Preempted {
            run.why = why;
        }
        if !run.cut {
            run.cut = true;
            self.commands.push(Command::Cut { processor: p, run: visible.serial });
        }
    }

    /// Ends all runs of a job at their next boundary.
    pub(crate) fn cut_job(&mut self, job: JobId) {
        for p in self.course.system.platform.processors.ids() {
            for i in 0..self.runs[p].len() {
                let stages = &self.course.state.stages;
                let serves = self.course.state.processors[p].runs[i].stages().any(|stage| stages[stage].job == job);
                if serves && !self.runs[p][i].helps {
                    self.cut(p, i, StopReason::Preempted);
                }
            }
        }
    }

    /// A run is known to have done so many steps: brings up to date what policies see.
    pub(crate) fn progress(&mut self, p: ProcessorId, i: usize, steps: u32) {
        let run = &mut self.runs[p][i];
        if run.starved {
            return;
        }
        run.steps = run.steps.max(steps);
        let members = run.members;
        let stages: Vec<StageId> = self.course.state.processors[p].runs[i].stages().take(members).collect();
        for (k, stage) in stages.into_iter().enumerate() {
            let live = self.course.state.stages[stage];
            let end = self.course.hidden[stage.index()].work.units(live.kind);
            let position = self.runs[p][i].position(cost_of(self.course.system, &live, p), k, end);
            let live = &mut self.course.state.stages[stage];
            live.position = position;
            if live.kind == Phase::Decode {
                self.course.count_tokens(stage, position);
            }
        }
    }

    /// Takes a run off its slot: accounts for what was done, and says what becomes of its stages.
    pub(crate) fn stop(&mut self, p: ProcessorId, i: usize, finished: bool) {
        let now = self.course.state.now;
        let mut run = self.runs[p].remove(i);
        run.meter.pass(now);
        let mut visible = self.course.vacate(p, i);
        self.course.changed = true;
        if let Some(joint) = &run.joint {
            let helped = self.dismiss(visible.serial, joint.together.others(p));
            run.meter.energy_mj = run.meter.energy_mj.zip(helped).map(|(own, others)| own + others);
        }
        let joiners =
            if visible.others.len() + 1 > run.members { visible.others.split_off(run.members - 1) } else { Vec::new() };
        let stages: Vec<StageId> = visible.stages().collect();
        let jobs: Vec<(JobId, u64)> = stages
            .iter()
            .map(|&stage| self.course.state.stages[stage].job)
            .map(|job| (job, self.course.state.jobs[job].serial))
            .collect();
        let mut going_on = Vec::new();
        for (k, &stage) in stages.iter().enumerate() {
            if self.stop_member(p, &run, &visible, stage, k, finished) {
                going_on.push(stage);
            }
        }
        if run.starved || !self.grow_caches(p, &going_on) {
            // Memory has run out: the policy decides who goes on, at this very instant.
            for &stage in &joiners {
                self.course.leave_batch(stage);
            }
            for stage in going_on.into_iter().chain(joiners) {
                self.course.free_activation(stage);
                self.course.wait_again(stage);
            }
        } else {
            self.regroup(p, &run, going_on, joiners);
        }
        for (job, serial) in jobs {
            self.course.judge(job, serial);
        }
    }

    /// A run has stopped: accounts for one of its stages. Whether the stage should go on in the next batch.
    fn stop_member(
        &mut self,
        p: ProcessorId,
        run: &LiveRun,
        visible: &Run,
        stage: StageId,
        k: usize,
        finished: bool,
    ) -> bool {
        let system = self.course.system;
        let live = self.course.state.stages[stage];
        let work = self.course.hidden[stage.index()].work;
        let cost = cost_of(system, &live, p);
        let mut end = work.units(live.kind);
        let from = run.from[k];
        let mut position = run.position(cost, k, end);
        // A batch ends with the first of its members; the others go on without it. A device that runs models says which have ended; on a
        // virtual one all outputs are as long as they were drawn.
        let finished = finished && !run.starved;
        let over = if run.ended.is_empty() { position >= end } else { run.ended.contains(&live.serial) };
        let outlasts = finished && run.members > 1 && !over;
        let finished = finished && !outlasts;
        if finished && matches!(live.kind, Phase::Prefill | Phase::Decode) {
            // The model has ended its output.
            let output = if live.kind == Phase::Prefill { 1 } else { position as u32 + 1 };
            let hidden = &mut self.course.hidden[stage.index()];
            hidden.work.output = output;
            // What was written before its cache was computed again counts.
            let output = hidden.before + output;
            self.course.emit(What::Length { stage: live.serial, output });
            end = if live.kind == Phase::Prefill { end } else { position };
        }
        if finished {
            position = end;
        } else if live.kind == Phase::Forward {
            // Only the device knows whether a network with more segments than its profile is complete.
            position = position.min(end * (1.0 - 1e-6));
        }
        let done = position >= end && run.why != StopReason::Horizon && !run.failed;
        self.account(p, run, visible, stage, (from, position), done);
        if let Some(joint) = &run.joint {
            self.course.note_draft(joint.together, stage, position);
        }

        let other = &mut self.course.state.stages[stage];
        other.position = position;
        other.running = false;
        let job = other.job;
        self.course.state.jobs[job].running -= 1;
        let goes_on = !done
            && !run.starved
            && (run.why == StopReason::Rebatched || (outlasts && run.why == StopReason::Finished));
        if !goes_on {
            self.course.free_activation(stage);
        }
        if done {
            self.course.finish_phase(stage);
        } else if !goes_on {
            self.course.wait_again(stage);
        }
        goes_on
    }

    /// Writes down what a stage's run did. Bytes and energy are the profile's for the progress that was made.
    fn account(
        &mut self,
        p: ProcessorId,
        run: &LiveRun,
        visible: &Run,
        stage: StageId,
        (from, to): (f64, f64),
        done: bool,
    ) {
        let live = self.course.state.stages[stage];
        let work = Work { exit: run.depth, ..self.course.hidden[stage.index()].work };
        let cost = cost_of(self.course.system, &live, p);
        let (members, share) = (run.members as u32, 1.0 / run.members as f64);
        let passed = self.course.state.now - run.started;
        let worked = passed.saturating_sub(run.setup);
        let joint = run.joint.as_ref().map(|joint| (joint, joint.after(run.steps)));
        let alone = match joint {
            Some((joint, reached)) => reached.ns * joint.factor,
            None => cost.latency_ns(work, from, to) * cost.batch_factor(members),
        };
        let alone = Nanos::from_ns_f64(alone);
        let alone = Nanos::from_ns_f64(alone.min(worked).as_f64() * share);
        let processors = &self.course.system.platform.processors;
        let by_profile = || {
            let active = || Some(processors[p].active_w? * processors[p].share(live.units));
            let energy = cost.member_energy_mj(work, from, to, members);
            energy.or_else(|| Some(Millijoules::of_power(active()?, passed).0 * share))
        };
        let unpowered = match joint {
            Some((joint, reached)) => joint.course.energy_mj(reached, passed, processors),
            None => by_profile(),
        };
        let bytes = joint.map_or_else(|| cost.member_bytes(work, from, to, members), |(_, reached)| reached.bytes);
        // With operating points, energy is the integral of power.
        let powered = self.course.power.is_some();
        let energy_mj = if powered { run.meter.energy_mj.map(|energy| energy * share) } else { unpowered };
        let tokens = match live.kind {
            Phase::Decode => (to.floor() - from.floor()) as u32,
            Phase::Prefill => u32::from(done),
            _ => 0,
        };
        let why = match run.why {
            _ if done => StopReason::Finished,
            StopReason::Finished if run.steps_max.is_some_and(|most| run.steps >= most) => StopReason::Quantum,
            StopReason::Finished if run.members > 1 => StopReason::Rebatched,
            StopReason::Finished => StopReason::Preempted,
            why => why,
        };
        self.course.emit(What::Stop {
            run: visible.serial,
            stage: live.serial,
            processor: p,
            why,
            alone,
            bytes: Bytes(bytes.round_ties_even().max(0.0) as u64),
            energy_mj,
            tokens,
        });
    }

    /// A batch has changed: what remains of it goes on at once with those that joined.
    fn regroup(&mut self, p: ProcessorId, run: &LiveRun, mut stages: Vec<StageId>, joiners: Vec<StageId>) {
        let over = matches!(run.why, StopReason::Horizon | StopReason::Preempted | StopReason::Quantum);
        let view = self.course.view();
        let setup = joiners.iter().map(|&stage| view.setup_to_join(stage, p)).max().unwrap_or(Nanos::ZERO);
        for &stage in &joiners {
            self.course.leave_batch(stage);
            if over {
                // It had not started: it is ready again.
                self.course.free_activation(stage);
                self.course.wait_again(stage);
            }
        }
        if over {
            return;
        }
        stages.extend(joiners);
        if !stages.is_empty() {
            self.launch(p, &stages, setup, false, None);
        }
    }
}
