//! Runs: what a slot of a processor is doing, how far it is, and when it ends.
//!
//! Progress is counted in nanoseconds of the time that the work takes alone. A run progresses at rate 1 alone and slower while the
//! memory bus is shared (see [`crate::bus`]). Its length comes from the profile in closed form, so that a thousand decode steps are
//! one run as long as nothing interferes; where it is inside is computed when somebody asks.

use onbeat_core::bus::Demand;
use onbeat_core::cost::{Phase, PhaseCost, Work};
use onbeat_core::event::{Sink, StopReason, What};
use onbeat_core::id::{Id, ProcessorId, ProcessorSet, StageId};
use onbeat_core::policy::Limit;
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};

use crate::engine::Engine;
use crate::joint::Joint;
use crate::power::Meter;
use crate::sharing::load_traffic;

/// What policies do not see of a run. The stages are in [`Run::stage`] and [`Run::others`].
#[derive(Clone, Debug)]
pub(crate) struct LiveRun {
    pub(crate) doing: Doing,
    /// When something happens next by itself: end of setup, mark, end of the run, end of saving.
    pub(crate) next_at: Nanos,
    /// Stages that make progress; those after them in the state's run join at the next boundary.
    pub(crate) members: usize,
    /// Those of the members that advance by the run's units. The others bring one piece of their prompts each: a mixed step.
    pub(crate) decoders: usize,
    /// Share of each step that is computed: none of those that decode ends before the one that goes deepest.
    pub(crate) depth: f64,
    /// Whether it is a prompt piece of a size that the policy chose.
    pub(crate) piece: bool,
    /// Whether it ends inside a segment.
    pub(crate) early: bool,
    /// Where the first member stood at the start [units].
    pub(crate) from: f64,
    /// Where the other members stood at the start [units].
    pub(crate) others_from: Vec<f64>,
    /// How far the run goes [units].
    pub(crate) length: f64,
    /// The next point at which something is to be done, at most `length` [units].
    pub(crate) target: f64,
    /// Time alone up to the target, without the part that was done before the run [ns].
    pub(crate) target_ns: f64,
    /// Part of the first segment that was done before the run [ns].
    pub(crate) partial_ns: f64,
    /// Progress so far, at `updated` [ns].
    pub(crate) done_ns: f64,
    pub(crate) updated: Nanos,
    pub(crate) rate: f64,
    pub(crate) demand: Demand,
    /// Ratio of real to nominal latency.
    pub(crate) factor: f64,
    pub(crate) started: Nanos,
    pub(crate) why: StopReason,
    /// Data that loading weights moves over the bus while the setup lasts [bytes/ns]; 0 if nothing is loaded.
    pub(crate) setup_traffic: f64,
    /// If several processors work on it; the others have helpers.
    pub(crate) joint: Option<Box<Joint>>,
    /// What it draws and has drawn.
    pub(crate) meter: Meter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Context switch, loading, hand-over.
    Setup,
    /// Progress.
    Work,
    /// Taking preempted work off the processor.
    Saving,
    /// Working on another processor's run.
    Helping,
    /// Held for another processor's run, which makes no progress now.
    Waiting,
}

impl LiveRun {
    /// What it asks of the bus now, if it takes part [bytes/ns].
    pub(crate) fn asks(&self) -> Option<f64> {
        match self.doing {
            Doing::Work | Doing::Helping => Some(self.demand.asks()),
            Doing::Setup if self.setup_traffic > 0.0 => Some(self.setup_traffic),
            Doing::Setup | Doing::Saving | Doing::Waiting => None,
        }
    }

    /// Time alone up to a point, given the nominal time of all up to there, less what was done before the run [ns].
    fn alone_ns(&self, nominal: f64) -> f64 {
        ((nominal * self.factor).round_ties_even() - self.partial_ns).max(1.0)
    }

    /// Where member number `k` stood at the start [units].
    pub(crate) fn start_of(&self, k: usize) -> f64 {
        if k == 0 { self.from } else { self.others_from[k - 1] }
    }
}

/// A boundary is hit if the progress is within this of it [ns]: half a nanosecond of rounding.
pub(crate) const SAME_TIME_NS: f64 = 0.5;

/// The profile entry that a stage runs by, on a processor in its current phase.
#[inline]
pub(crate) fn cost_of<'s>(
    system: &'s System,
    stage: &onbeat_core::state::Stage,
    processor: ProcessorId,
) -> &'s PhaseCost {
    let cost = system.nodes[stage.node].costs_of(stage.variant)[processor].as_ref();
    let cost = cost.expect("a stage starts only where it can run");
    &cost.with_cache(stage.cache.far).on_units(stage.units)[usize::from(stage.phase)].1
}

impl<S: Sink> Engine<'_, S> {
    /// When the next run has something to do by itself.
    pub(crate) fn next_boundary(&self) -> Nanos {
        let mut next = Nanos::MAX;
        for runs in &self.runs {
            for run in runs {
                next = next.min(run.next_at);
            }
        }
        next
    }

    /// Does what runs have to do now, in order of processor and start.
    pub(crate) fn pass_boundaries(&mut self) {
        let now = self.course.state.now;
        for p in self.course.system.platform.processors.ids() {
            let mut i = 0;
            while i < self.runs[p].len() {
                if self.runs[p][i].next_at == now && self.pass_boundary(p, i) {
                    continue;
                }
                i += 1;
            }
        }
    }

    /// Does what run number `i` of a processor has to do now. Whether it left its place.
    fn pass_boundary(&mut self, p: ProcessorId, i: usize) -> bool {
        let now = self.course.state.now;
        let run = &mut self.runs[p][i];
        match run.doing {
            Doing::Setup => {
                run.doing = Doing::Work;
                run.updated = now;
                run.next_at = now + at_rate(run.target_ns, 1.0);
                self.bus_dirty = true;
                let empty = run.length == 0.0;
                self.set_helpers(p, i, Doing::Helping);
                if empty {
                    // Preempted during its setup.
                    return self.leave(p, i);
                }
                false
            }
            Doing::Work => {
                run.done_ns = run.target_ns;
                run.credit(now);
                if run.target < run.length { self.pass_mark(p, i) } else { self.leave(p, i) }
            }
            Doing::Saving => {
                self.stop(p, i);
                true
            }
            Doing::Helping | Doing::Waiting => false,
        }
    }

    /// A run has done what it should: takes it off the processor, at once or after saving. Whether it left its place.
    pub(crate) fn leave(&mut self, p: ProcessorId, i: usize) -> bool {
        let cost = if self.runs[p][i].why == StopReason::Preempted { self.preempt_cost(p, i) } else { Nanos::ZERO };
        if cost == Nanos::ZERO {
            self.stop(p, i);
            return true;
        }
        let run = &mut self.runs[p][i];
        run.doing = Doing::Saving;
        run.next_at = self.course.state.now + cost;
        self.bus_dirty = true;
        self.set_helpers(p, i, Doing::Waiting);
        false
    }

    /// How long it takes to take a run off its processors.
    fn preempt_cost(&self, p: ProcessorId, i: usize) -> Nanos {
        let cost_of = |q: ProcessorId| self.course.system.platform.processors[q].preempt_cost;
        let helpers = self.runs[p][i].joint.as_ref().map(|joint| joint.others).unwrap_or_default();
        helpers.iter().map(cost_of).fold(cost_of(p), Nanos::max)
    }

    /// Puts stages on a free slot. `setup` precedes progress. The stages are not in the ready list any more.
    pub(crate) fn launch(
        &mut self,
        p: ProcessorId,
        stages: &[StageId],
        setup: Nanos,
        loads: Bytes,
        limit: Option<Limit>,
    ) {
        let (system, now) = (self.course.system, self.course.state.now);
        let first = stages[0];
        let live = &self.course.state.stages[first];
        let work = self.course.hidden[first.index()].work;
        let cost = cost_of(system, live, p);
        let (kind, from, model, weights, units) = (live.kind, live.position, live.model, live.weights, live.units);
        let end = work.units(kind);

        let mut others_from = Vec::new();
        let mut length = end - from;
        let mut factor = 0.0;
        let mut decoders = 0;
        for &stage in stages {
            let other = &self.course.state.stages[stage];
            let hidden = &self.course.hidden[stage.index()];
            let cost = if stage == first { cost } else { cost_of(system, other, p) };
            factor += cost.latency_factor(hidden.u, hidden.variation);
            if stages.len() == 1 || other.kind.is_batched() {
                decoders += 1;
                length = length.min(hidden.work.units(other.kind) - other.position);
            } else {
                // The pieces are there for one step.
                length = length.min(1.0);
            }
            if stage != first {
                others_from.push(other.position);
            }
        }
        factor /= stages.len() as f64;
        let mut why = StopReason::Finished;
        let (to, piece) = self.end_of_run(p, first, limit);
        if limit.is_some() && to - from < length {
            length = to - from;
            why = StopReason::Quantum;
        }
        if piece {
            let to = from + length;
            let within = cost.latency_ns(work, from, to);
            if within > 0.0 {
                factor *= cost.piece_ns(work, from, to) / within;
            }
        }
        debug_assert!(to <= end, "a run does not go past the end of its phase");
        debug_assert!(from < end, "a stage does not wait at the end of its phase");

        let serial = self.course.outcome.runs;
        self.course.outcome.runs += 1;
        for &stage in stages {
            let other = &mut self.course.state.stages[stage];
            other.running = true;
            other.go_to(p);
            other.units = units;
            let (job, stage_serial, phase) = (other.job, other.serial, other.kind);
            let job = &mut self.course.state.jobs[job];
            job.running += 1;
            job.started = true;
            let over = ProcessorSet::EMPTY;
            self.course.emit(What::Start { run: serial, stage: stage_serial, processor: p, phase, setup, over, units });
        }

        let partial_ns = self.course.state.stages[first].partial_ns * factor;
        let mut run = LiveRun {
            doing: if setup > Nanos::ZERO { Doing::Setup } else { Doing::Work },
            next_at: Nanos::MAX,
            members: stages.len(),
            decoders,
            depth: 1.0,
            piece,
            early: false,
            from,
            others_from,
            length,
            target: length,
            target_ns: 0.0,
            partial_ns,
            done_ns: 0.0,
            updated: now,
            rate: 1.0,
            demand: Demand::NONE,
            factor,
            started: now,
            why,
            setup_traffic: load_traffic(loads, setup),
            joint: None,
            meter: Meter::at(now),
        };
        run.meter.share = system.platform.processors[p].share(units);
        self.lay_out(p, stages, &mut run);
        run.next_at = if run.doing == Doing::Setup { now + setup } else { now + at_rate(run.target_ns, 1.0) };
        self.runs[p].push(run);
        self.bus_dirty = true;

        let expected = self.expected_rest(p, stages, limit, length);
        let expected_end = self.course.end_to_count_on(p, stages, now + setup + expected);
        let occupancy = &mut self.course.state.processors[p];
        occupancy.last_model = Some(weights);
        occupancy.take_units(units, Some(weights), serial);
        occupancy.runs.push(Run {
            serial,
            stage: first,
            others: stages[1..].to_vec(),
            model,
            kind,
            start: now,
            expected_end,
            ending: false,
            over: ProcessorSet::EMPTY,
        });
    }

    /// A stage joins a batch: at once if the batch has only just been formed, else at its next boundary.
    pub(crate) fn join(&mut self, stage: StageId, p: ProcessorId, i: usize, setup: Nanos, limit: Option<Limit>) {
        let now = self.course.state.now;
        let job = self.course.state.stages[stage].job;
        let decodes = self.course.state.stages[stage].kind.is_batched();
        if !decodes {
            // What was done inside of a piece is done again with the others.
            self.course.state.stages[stage].partial_ns = 0.0;
            let (to, _) = self.end_of_run(p, stage, limit);
            self.course.hidden[stage.index()].piece_end = to;
        }
        self.course.state.stages[stage].running = true;
        let job = &mut self.course.state.jobs[job];
        job.running += 1;
        job.started = true;
        let visible = &mut self.course.state.processors[p].runs[i];
        let run = &self.runs[p][i];
        if run.started < now || run.members < visible.others.len() + 1 {
            visible.others.push(stage);
            self.cut(p, i, StopReason::Rebatched);
            return;
        }
        let place = if decodes { run.decoders } else { run.members };
        visible.others.insert(place - 1, stage);
        let stages: Vec<StageId> = visible.stages().collect();
        // Formed at this very instant: the batch starts with one more.
        let mut run = run.clone();
        let live = self.course.state.stages[stage];
        let hidden = self.course.hidden[stage.index()];
        let others = run.members as f64;
        let factor = cost_of(self.course.system, &live, p).latency_factor(hidden.u, hidden.variation);
        run.factor = (run.factor * others + factor) / (others + 1.0);
        run.members += 1;
        run.others_from.insert(place - 1, live.position);
        if decodes {
            run.decoders += 1;
            run.length = run.length.min(hidden.work.units(live.kind) - live.position);
        } else {
            run.length = run.length.min(1.0);
        }
        self.lay_out(p, &stages, &mut run);
        let ready_at = if run.doing == Doing::Setup { run.next_at } else { now };
        let ready_at = ready_at.max(now + setup);
        run.doing = if ready_at > now { Doing::Setup } else { Doing::Work };
        run.next_at = if ready_at > now { ready_at } else { now + at_rate(run.target_ns, 1.0) };
        self.runs[p][i] = run;
        self.bus_dirty = true;
        let expected = self.expected_rest(p, &stages, None, 0.0);
        let expected_end = self.course.end_to_count_on(p, &stages, ready_at + expected);
        let visible = &mut self.course.state.processors[p].runs[i];
        visible.expected_end = expected_end;
        let serial = visible.serial;
        let other = &mut self.course.state.stages[stage];
        other.go_to(p);
        let (stage, phase, units) = (other.serial, other.kind, other.units);
        let (setup, over) = (ready_at - now, ProcessorSet::EMPTY);
        self.course.emit(What::Start { run: serial, stage, processor: p, phase, setup, over, units });
    }

    /// Works out what follows from a run's length and factor: up to where it goes first, what it asks of the bus, what it draws.
    fn lay_out(&self, p: ProcessorId, stages: &[StageId], run: &mut LiveRun) {
        run.depth = self.course.depth(&stages[..run.decoders]);
        let whole = self.nominal_to(p, stages, run, run.length);
        run.target = self.next_mark(stages, run, 0.0);
        let nominal = if run.target == run.length { whole } else { self.nominal_to(p, stages, run, run.target) };
        run.target_ns = run.alone_ns(nominal);
        run.demand = self.demand_of(p, stages, run, whole * run.factor);
        run.meter.profile_w = self.profile_power(p, stages, run);
    }

    /// Nominal time that a policy may expect a run to take: by expected lengths.
    fn expected_rest(&self, p: ProcessorId, stages: &[StageId], limit: Option<Limit>, length: f64) -> Nanos {
        let live = &self.course.state.stages[stages[0]];
        let cost = cost_of(self.course.system, live, p);
        if let Some(limit) = limit {
            // Where an answer ends, and at which exit an input leaves, is not known before.
            let to = match live.kind {
                Phase::Forward | Phase::Decode => {
                    cost.limit_end(live.work, live.kind, live.position, limit).max(live.position)
                }
                Phase::Before | Phase::Steps | Phase::After | Phase::Prefill => live.position + length,
            };
            let nominal = match limit {
                Limit::Units(_) => cost.piece_ns(live.work, live.position, to),
                Limit::Segments(_) => cost.latency_ns(live.work, live.position, to),
            };
            return Nanos::from_ns_f64(nominal - live.partial_ns);
        }
        if live.kind != Phase::Decode && stages.len() == 1 {
            return self.course.view().remaining_in_phase(stages[0], p).unwrap_or(Nanos::ZERO);
        }
        // Of a mixed step, the decode that goes on after it.
        let mut batch = 0;
        let mut rest = Nanos::ZERO;
        let view = self.course.view();
        for &stage in stages {
            if stages.len() == 1 || view.stage(stage).kind.is_batched() {
                batch += 1;
                rest = rest.max(view.remaining_in_phase(stage, p).unwrap_or(Nanos::ZERO));
            }
        }
        // Nobody knows which of them goes deepest; all are the mean of what they could be.
        let exits = self.course.system.nodes[live.node].exits_of(live.variant);
        let deeper = if batch < 2 || exits.is_empty() { 1.0 } else { exits.deepest_mean(batch) / exits.mean() };
        Nanos::from_ns_f64(rest.as_f64() * cost.batch_factor(batch) * deeper)
    }

    /// Time alone that a run takes from its start to `x` units, less what was done before [ns].
    pub(crate) fn time_to(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun, x: f64) -> f64 {
        run.alone_ns(self.nominal_to(p, stages, run, x))
    }

    /// Nominal time alone that a run takes from its start to `x` units [ns].
    pub(crate) fn nominal_to(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun, x: f64) -> f64 {
        if let Some(joint) = &run.joint {
            return joint.course.boundary_at_or_after(run.from + x).ns;
        }
        if run.is_mixed() { self.mixed_ns(p, stages, run) * x } else { self.decode_ns(p, stages, run, x) }
    }

    /// The same without the prompt pieces of a mixed step.
    pub(crate) fn decode_ns(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun, x: f64) -> f64 {
        let one = |stage: StageId, from: f64| {
            let cost = cost_of(self.course.system, &self.course.state.stages[stage], p);
            cost.latency_ns(self.work_in(run, stage), from, from + x)
        };
        if run.decoders == 1 {
            return one(stages[0], run.from);
        }
        if let Some(steps) = self.fetching(p, stages, run) {
            return steps.sum(x);
        }
        // A batched step takes the mean of its members' steps times the factor for the batch.
        let sum: f64 = (0..run.decoders).map(|k| one(stages[k], run.start_of(k))).sum();
        let cost = cost_of(self.course.system, &self.course.state.stages[stages[0]], p);
        sum / run.decoders as f64 * cost.batch_factor(run.decoders as u32)
    }

    /// The work of a stage in a run that it shares with others: all of them go as deep as the deepest.
    pub(crate) fn work_in(&self, run: &LiveRun, stage: StageId) -> Work {
        let work = self.course.hidden[stage.index()].work;
        if run.decoders > 1 { Work { exit: run.depth, ..work } } else { work }
    }

    /// The next position after `x` [units since the start] at which tokens are to be handed on or a cache is full, at most the run's
    /// length.
    fn next_mark(&self, stages: &[StageId], run: &LiveRun, x: f64) -> f64 {
        let mut mark = run.length;
        for (k, &stage) in stages.iter().enumerate() {
            let live = &self.course.state.stages[stage];
            if live.kind != Phase::Decode {
                continue;
            }
            if k < run.decoders
                && let Some(full) = self.course.cache_full_at(stage)
            {
                mark = mark.min((full - run.start_of(k)).max(x + 1.0));
            }
            if let Some(next) = self.course.next_part(stage) {
                // `live.tokens` is up to date at `x`.
                mark = mark.min(x + f64::from(next - live.tokens));
            }
        }
        mark
    }

    /// Like [`Engine::next_mark`], for a run that stands: at the end of a segment if several processors work on it.
    pub(crate) fn next_mark_of(&self, p: ProcessorId, i: usize, stages: &[StageId], x: f64) -> f64 {
        let run = &self.runs[p][i];
        let mark = self.next_mark(stages, run, x);
        match &run.joint {
            Some(joint) => joint.course.boundary_at_or_after(run.from + mark).position - run.from,
            None => mark,
        }
    }

    /// A run has reached a point at which tokens are to be handed on, or a cache is full. It goes on, unless memory has run out.
    /// Whether it left its place.
    fn pass_mark(&mut self, p: ProcessorId, i: usize) -> bool {
        let stages: Vec<StageId> =
            self.course.state.processors[p].runs[i].stages().take(self.runs[p][i].members).collect();
        let x = self.runs[p][i].target;
        // Of other phases, only what several processors do has marks: where it is planned anew.
        let decodes = self.course.state.processors[p].runs[i].kind == Phase::Decode;
        for (k, &stage) in stages.iter().enumerate().filter(|_| decodes) {
            let position = self.runs[p][i].start_of(k) + x;
            self.course.count_tokens(stage, position);
            if self.course.caches_grow() {
                self.course.state.stages[stage].position = position;
            }
        }
        if decodes && !self.grow_caches(p, &stages) {
            let run = &mut self.runs[p][i];
            run.length = x;
            if run.why == StopReason::Finished {
                run.why = StopReason::Rebatched;
            }
            return self.leave(p, i);
        }
        if self.runs[p][i].joint.is_some() && self.course.power.is_some() {
            // Its processors may have other speeds than those that it was planned with.
            self.bus_dirty = true;
        }
        let target = self.next_mark_of(p, i, &stages, x);
        let target_ns = self.time_to(p, &stages, &self.runs[p][i], target);
        let (now, run) = (self.course.state.now, &mut self.runs[p][i]);
        run.target = target;
        run.target_ns = target_ns;
        run.next_at = now + at_rate(run.target_ns - run.done_ns, run.rate);
        false
    }

    /// Gives the caches of stages that decode room for their next tokens. Whether there is memory for all.
    pub(crate) fn grow_caches(&mut self, p: ProcessorId, stages: &[StageId]) -> bool {
        let mut enough = true;
        for &stage in stages {
            match self.course.grow_cache(stage, p) {
                Ok(grown) => enough &= grown,
                Err(error) => self.wrong = Some(error),
            }
        }
        enough
    }

    /// Brings the tokens that policies see of running decode phases up to date.
    pub(crate) fn sync_progress(&mut self) {
        for p in self.course.system.platform.processors.ids() {
            for i in 0..self.runs[p].len() {
                let kind = self.course.state.processors[p].runs[i].kind;
                if kind == Phase::Decode && self.runs[p][i].doing == Doing::Work {
                    let x = self.whole_units_done(p, i);
                    for k in 0..self.runs[p][i].decoders {
                        let stage = nth_stage(&self.course.state.processors[p].runs[i], k);
                        let position = self.runs[p][i].start_of(k) + x;
                        let before = self.course.hidden[stage.index()].before;
                        let live = &mut self.course.state.stages[stage];
                        live.position = position;
                        live.tokens = live.tokens.max(before + position as u32 + 1);
                        live.work.output = live.work.output.max(live.tokens - before + 1);
                    }
                }
            }
        }
    }

    /// Progress of a run up to now [ns alone].
    pub(crate) fn done_now(&self, run: &LiveRun) -> f64 {
        if run.doing == Doing::Work {
            (run.done_ns + (self.course.state.now - run.updated).as_f64() * run.rate).min(run.target_ns)
        } else {
            run.done_ns
        }
    }

    /// Units that a run has done, whole ones for phases that have them.
    pub(crate) fn whole_units_done(&self, p: ProcessorId, i: usize) -> f64 {
        let run = &self.runs[p][i];
        let nominal = (self.done_now(run) + run.partial_ns) / run.factor;
        if let Some(joint) = &run.joint {
            return joint.course.reached_after(nominal).position - run.from;
        }
        if run.members == 1 {
            let stage = self.course.state.processors[p].runs[i].stage;
            let live = &self.course.state.stages[stage];
            let work = self.course.hidden[stage.index()].work;
            let cost = cost_of(self.course.system, live, p);
            return cost.position_after(work, run.from, run.from + run.length, nominal) - run.from;
        }
        let stages: Vec<StageId> = self.course.state.processors[p].runs[i].stages().take(run.members).collect();
        let fetching = if run.is_mixed() { None } else { self.fetching(p, &stages, run) };
        let nominal_to = |x: f64| match &fetching {
            Some(steps) => steps.sum(x),
            None => self.nominal_to(p, &stages, run, x),
        };
        // Bisection over whole steps, as in `PhaseCost::position_after`.
        let (mut low, mut high) = (0.0, run.length + 1.0);
        while high - low > 1.0 {
            let middle = f64::midpoint(low, high).floor();
            if nominal_to(middle) <= nominal + SAME_TIME_NS {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The k-th stage of a run.
pub(crate) fn nth_stage(run: &Run, k: usize) -> StageId {
    if k == 0 { run.stage } else { run.others[k - 1] }
}

/// Time in which `ns` of progress are made at a rate, rounded up: progress is never ahead of time.
pub(crate) fn at_rate(ns: f64, rate: f64) -> Nanos {
    Nanos((ns.max(0.0) / rate - 1e-6).ceil().max(0.0) as u64)
}
