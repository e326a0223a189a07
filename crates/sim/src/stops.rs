//! How runs end: cut at a boundary or at once, accounted for, and what becomes of their stages.

use onbeat_core::cost::{Phase, PhaseCost, Work};
use onbeat_core::event::{Sink, StopReason, What};
use onbeat_core::exits::SAME_PLACE;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::Preemption;
use onbeat_core::state::Run;
use onbeat_core::units::{Bytes, Millijoules, Nanos};

use crate::engine::Engine;
use crate::joint::Joint;
use crate::runs::{Doing, LiveRun, SAME_TIME_NS, at_rate, cost_of, nth_stage};
use crate::steps::{decoders_first, piece_bytes};

impl<S: Sink> Engine<'_, S> {
    /// Ends a run as soon as the processor can: at once, or at the next boundary.
    pub(crate) fn cut(&mut self, p: ProcessorId, i: usize, why: StopReason) {
        let unit = &self.course.system.platform.processors[p];
        let visible = &mut self.course.state.processors[p].runs[i];
        visible.ending |= why == StopReason::Preempted;
        let (stage, kind) = (visible.stage, visible.kind);
        let now = self.course.state.now;
        let alone = self.runs[p][i].members == 1 && self.runs[p][i].joint.is_none();
        let anytime = unit.preemption == Preemption::Anytime && alone && why == StopReason::Preempted;

        if self.runs[p][i].doing == Doing::Setup {
            let run = &mut self.runs[p][i];
            if anytime {
                // Loading is not undone half way: the run ends when it is through.
                run.length = 0.0;
                run.target = 0.0;
                run.target_ns = 0.0;
                run.why = why;
                if run.setup_traffic == 0.0 {
                    run.next_at = now;
                    self.leave_now(p, i);
                }
                return;
            }
            // The first segment is still run.
        }
        let done = self.done_now(&self.runs[p][i]);
        if !anytime && why == StopReason::Preempted && self.cut_at_group(p, i) {
            return;
        }
        if anytime {
            let run = &mut self.runs[p][i];
            run.done_ns = done;
            run.credit(now);
            run.why = why;
            self.leave_now(p, i);
            return;
        }

        let x = self.whole_units_done(p, i);
        let live = self.course.state.stages[stage];
        let work = self.course.hidden[stage.index()].work;
        let cost = cost_of(self.course.system, &live, p);
        let run = &self.runs[p][i];
        let position = run.from + x;
        let (boundary, next) = match &run.joint {
            Some(joint) => (position, joint.course.boundary_after(position)),
            None => (cost.boundary_at_or_before(position), cost.next_boundary(work, kind, position)),
        };
        let stages: Vec<StageId> = self.course.state.processors[p].runs[i].stages().take(run.members).collect();
        let reached = boundary - run.from;
        let at_boundary = reached > 0.0
            && run.doing == Doing::Work
            && (self.time_to(p, &stages, run, reached) - done).abs() <= SAME_TIME_NS;
        let length = if at_boundary { reached } else { next - run.from };
        if length > run.length || (length == run.length && run.why != StopReason::Finished) {
            return;
        }
        // A mixed step ends with its step, whether or not that finishes a stage; what follows does depend on who asked.
        let finishes = length == run.length && !(run.is_mixed() && why == StopReason::Preempted);
        let target = run.target.min(length);
        let target_ns = self.time_to(p, &stages, run, target);
        let run = &mut self.runs[p][i];
        run.length = length;
        run.target = target;
        run.target_ns = target_ns;
        if !finishes {
            run.why = why;
        }
        if at_boundary {
            run.done_ns = target_ns;
            run.credit(now);
            self.leave_now(p, i);
        } else if run.doing == Doing::Work {
            run.done_ns = done;
            run.credit(now);
            run.next_at = now + at_rate(run.target_ns - done, run.rate);
        }
    }

    /// Takes a run off the processor now, or starts saving it.
    pub(crate) fn leave_now(&mut self, p: ProcessorId, i: usize) {
        self.runs[p][i].next_at = self.course.state.now;
        self.leave(p, i);
    }

    /// Ends all runs at the end of the simulated time.
    pub(crate) fn stop_all_at_horizon(&mut self) {
        for p in self.course.system.platform.processors.ids() {
            // Helpers go with the runs that they help.
            while let Some(i) = self.runs[p].iter().position(|run| !run.helps()) {
                let done = self.done_now(&self.runs[p][i]);
                let now = self.course.state.now;
                let run = &mut self.runs[p][i];
                run.done_ns = done;
                run.credit(now);
                run.why = StopReason::Horizon;
                self.stop(p, i);
            }
        }
    }

    /// Takes a run off its slot: accounts for what was done, and says what becomes of its stages.
    pub(crate) fn stop(&mut self, p: ProcessorId, i: usize) {
        let now = self.course.state.now;
        let mut run = self.runs[p].remove(i);
        run.meter.pass(now);
        let mut visible = self.course.vacate(p, i);
        self.bus_dirty = true;
        self.course.changed = true;
        if let Some(joint) = &run.joint {
            let helped = self.dismiss(visible.serial, joint.others);
            run.meter.energy_mj = run.meter.energy_mj.zip(helped).map(|(own, others)| own + others);
        }
        let joiners =
            if visible.others.len() + 1 > run.members { visible.others.split_off(run.members - 1) } else { Vec::new() };

        let mut going_on = Vec::new();
        let shares = if run.is_mixed() { self.mixed_shares(p, &run, &visible) } else { Vec::new() };
        // The first apart, so that runs without a batch allocate nothing.
        let mut first_job = None;
        let mut other_jobs = Vec::new();
        for k in 0..run.members {
            let stage = nth_stage(&visible, k);
            let job = self.course.state.stages[stage].job;
            let job = (job, self.course.state.jobs[job].serial);
            if k == 0 {
                first_job = Some(job);
            } else {
                other_jobs.push(job);
            }
            let share = shares.get(k).copied().unwrap_or(1.0 / run.members as f64);
            if self.stop_member(p, &run, &visible, stage, k, share) {
                going_on.push(stage);
            }
        }
        if !going_on.is_empty() && !self.grow_caches(p, &going_on) {
            // Memory has run out: the policy decides who goes on, at this very instant.
            for &stage in &joiners {
                self.course.leave_batch(stage);
            }
            for stage in going_on.into_iter().chain(joiners) {
                self.course.free_activation(stage);
                self.course.wait_again(stage);
            }
        } else if !going_on.is_empty() || !joiners.is_empty() {
            self.regroup(p, &run, going_on, joiners);
        }
        for (job, serial) in first_job.into_iter().chain(other_jobs) {
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
        share: f64,
    ) -> bool {
        let system = self.course.system;
        let live = &self.course.state.stages[stage];
        let kind = live.kind;
        let work = self.course.hidden[stage.index()].work;
        let cost = cost_of(system, live, p);
        let from = run.start_of(k);
        let end = work.units(kind);

        // Where it stands: at the target, or, if it was stopped in the middle, at a boundary plus some time.
        let complete = run.done_ns >= run.target_ns && run.length > 0.0 && !run.early;
        let brings_piece = k >= run.decoders;
        let mut piece_end = 0.0;
        let (mut position, mut partial_ns, mut exact) = (from, 0.0, from);
        if let Some(joint) = &run.joint {
            position = if complete { from + run.target } else { from + joint_units(joint, run) };
            self.account(p, run, visible, stage, cost, work, (from, position), share, end);
        } else if run.members == 1 {
            let began = cost.position_after(work, from, end, run.partial_ns / run.factor);
            if complete {
                position = from + run.target;
                exact = position;
            } else {
                let nominal = (run.done_ns + run.partial_ns) / run.factor;
                exact = cost.position_after(work, from, from + run.length, nominal);
                position = if run.piece { from } else { cost.boundary_at_or_before(exact).max(from) };
                piece_end = if run.piece { from + run.length } else { 0.0 };
                if position < end {
                    partial_ns = (nominal - cost.latency_ns(work, from, position)).max(0.0);
                } else {
                    // Stopped within rounding of its end.
                    exact = end;
                }
            }
            self.account(p, run, visible, stage, cost, work, (began, exact), share, end);
        } else {
            if complete {
                let piece_end = self.course.hidden[stage.index()].piece_end;
                position = if brings_piece { piece_end } else { from + run.target };
                exact = position;
            }
            self.account(p, run, visible, stage, cost, work, (from, exact), share, end);
        }
        self.course.hidden[stage.index()].piece_end = piece_end;
        if complete && kind == Phase::Forward && (position - end).abs() < SAME_PLACE {
            // The sum of where it started and how far it went may miss the end by rounding.
            position = end;
        }

        if let Some(joint) = &run.joint {
            self.course.note_draft(joint.together, stage, position);
        }
        let other = &mut self.course.state.stages[stage];
        other.position = position;
        other.partial_ns = partial_ns;
        other.running = false;
        let job = other.job;
        self.course.state.jobs[job].running -= 1;
        if kind == Phase::Decode {
            self.course.count_tokens(stage, position);
        }
        // Whoever was stopped within rounding of the end is there: a stage never waits at the end of its phase.
        let finished = position >= end;
        // A joint run goes on as such or not at all: the policy says who works on what is left.
        let goes_on = !finished
            && !brings_piece
            && run.joint.is_none()
            && matches!(run.why, StopReason::Finished | StopReason::Rebatched);
        if !goes_on {
            self.course.free_activation(stage);
        }
        if finished {
            self.course.finish_phase(stage);
        } else if !goes_on {
            self.course.wait_again(stage);
        }
        goes_on
    }

    /// Writes down what a stage's run did.
    #[expect(clippy::too_many_arguments, reason = "one caller; a struct would only rename them")]
    fn account(
        &mut self,
        p: ProcessorId,
        run: &LiveRun,
        visible: &Run,
        stage: StageId,
        cost: &PhaseCost,
        work: Work,
        (from, to): (f64, f64),
        share: f64,
        end: f64,
    ) {
        if !self.course.sink_active {
            return;
        }
        let live = &self.course.state.stages[stage];
        let kind = live.kind;
        let busy = self.course.state.now - run.started;
        let in_mixed = run.is_mixed() && kind == Phase::Prefill;
        let batch = if in_mixed { 1 } else { run.decoders as u32 };
        // Those that finished before it in this loop may be gone; what they went down to together is in the run.
        let work = if run.decoders > 1 { Work { exit: run.depth, ..work } } else { work };
        let bytes = if in_mixed {
            piece_bytes(cost, to - from)
        } else if run.piece {
            cost.piece_bytes(work, run.from, run.from + run.length) * ((to - from) / run.length)
        } else {
            cost.member_bytes(work, from, to, batch)
        };
        let joint = run.joint.as_ref().map(|joint| (joint, run.joint_done(joint)));
        let bytes = joint.map_or(bytes, |(_, done)| done.bytes);
        let energy_mj = match cost.member_energy_mj(work, from, to, batch) {
            _ if self.course.power.is_some() => run.meter.energy_mj.map(|energy| energy * share),
            _ if let Some((joint, done)) = joint => {
                joint.course.energy_mj(done, busy, &self.course.system.platform.processors)
            }
            Some(energy) => Some(energy),
            None => {
                let unit = &self.course.system.platform.processors[p];
                unit.active_w.map(|w| Millijoules::of_power(w * unit.share(live.units), busy).0 * share)
            }
        };
        let tokens = match kind {
            Phase::Decode => (to.floor() - from.floor()) as u32,
            Phase::Prefill => u32::from(to >= end && from < end),
            _ => 0,
        };
        let why = if to >= end {
            StopReason::Finished
        } else if in_mixed && to > from {
            StopReason::Quantum
        } else if run.why == StopReason::Finished {
            StopReason::Rebatched
        } else {
            run.why
        };
        let serial = live.serial;
        self.course.emit(What::Stop {
            run: visible.serial,
            stage: serial,
            processor: p,
            why,
            alone: Nanos::from_ns_f64(self.alone_ns(run) * share),
            bytes: Bytes(bytes.round_ties_even() as u64),
            energy_mj,
            tokens,
        });
    }

    /// A batch has changed: what remains of it goes on at once with those that joined.
    fn regroup(&mut self, p: ProcessorId, run: &LiveRun, mut stages: Vec<StageId>, joiners: Vec<StageId>) {
        if matches!(run.why, StopReason::Horizon | StopReason::Preempted | StopReason::Quantum) {
            // They had not started: they are ready again.
            for stage in joiners {
                self.course.leave_batch(stage);
                self.course.free_activation(stage);
                self.course.wait_again(stage);
            }
            return;
        }
        let view = View { system: self.course.system, state: &self.course.state };
        let setup = joiners.iter().map(|&stage| view.setup_to_join(stage, p)).max().unwrap_or(Nanos::ZERO);
        for &stage in &joiners {
            self.course.leave_batch(stage);
        }
        stages.extend(joiners);
        let decodes = |stage: StageId| self.course.state.stages[stage].kind.is_batched();
        let decoders = decoders_first(&mut stages, decodes);
        if decoders == 0 {
            // The batch is over: whoever wanted to share its next step is ready again.
            for stage in stages {
                self.course.free_activation(stage);
                self.course.wait_again(stage);
            }
            return;
        }
        self.launch(p, &stages, setup, Bytes::ZERO, None);
    }
}

/// Whole segments that a joint run has done [units].
fn joint_units(joint: &Joint, run: &LiveRun) -> f64 {
    joint.course.reached_after(run.done_ns / run.factor).position - run.from
}
