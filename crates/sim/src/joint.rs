//! Runs that several processors work on together.
//!
//! The run stands on the stage's own processor. On each of the others a *helper* holds a slot for it: it draws on the bus while the run
//! makes progress, and does nothing by itself. The run is as fast as the slowest of them. Its course is known from the start, segment by
//! segment (see [`onbeat_core::joint`]), and it ends at the end of a segment.

use onbeat_core::bus::Demand;
use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, StopReason, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{Attention, Course, Mark, Pace, Part, Together};
use onbeat_core::policy::Limit;
use onbeat_core::state::{Occupancy, Run};
use onbeat_core::units::{Bytes, Millijoules, Nanos};

use crate::engine::Engine;
use crate::power::Meter;
use crate::runs::{Doing, LiveRun, at_rate, cost_of};

/// What a run that several processors work on has besides.
#[derive(Clone, Debug)]
pub(crate) struct Joint {
    pub(crate) together: Together,
    pub(crate) course: Course,
    /// The other processors.
    pub(crate) others: ProcessorSet,
    /// Rate of the slowest processor, and what it would be if nobody shared the bus.
    pub(crate) rate: f64,
    pub(crate) alone: f64,
}

impl Joint {
    /// Rate at which a processor gets on with its part, with a share of the bus and at these speeds: relative to the speeds that the
    /// run was planned with. Where drafting and verifying take turns, the stage's own processor stands for both.
    fn own_rate(&self, q: ProcessorId, demand: Demand, share: f64, speed: impl Fn(ProcessorId) -> f64) -> f64 {
        let drafts = matches!(self.together, Together::Draft { .. });
        let (mut planned, mut now) = (0.0, 0.0);
        for part in self.course.parts.iter().filter(|part| drafts || part.processor == q) {
            planned += part.computing_ns;
            now += part.computing_ns * part.speed / speed(part.processor);
        }
        if now == planned {
            return if demand.memory_bound <= 0.0 { 1.0 } else { demand.rate(share, 1.0) };
        }
        let memory = demand.memory_bound;
        // Waiting for one another and handing over do not depend on the clock.
        let computing = (1.0 - memory - self.course.waiting_ns / self.course.ahead_ns).max(0.0);
        // A part that reads nothing is given nothing, and needs nothing.
        let reading = if share >= demand.peak || memory <= 0.0 { memory } else { memory * demand.peak / share };
        1.0 / ((1.0 - memory - computing) + computing * now / planned + reading)
    }

    /// What a processor draws for its part at the first operating points [W], by the profile, if that states it for all that the
    /// processor does; and the share of the time in which it is at it.
    fn power_of(&self, q: ProcessorId, factor: f64) -> (Option<f64>, f64) {
        let course = &self.course;
        let (mut energy, mut turn) = (Some(0.0), 0.0);
        for part in course.parts.iter().filter(|part| part.processor == q) {
            energy = energy.zip(part.energy_mj).map(|(sum, energy)| sum + energy);
            turn += part.turn_ns;
        }
        let watts = |energy: f64| energy / (course.ahead_ns * factor).max(f64::MIN_POSITIVE) * 1e6;
        (energy.map(watts), (turn / course.ahead_ns.max(f64::MIN_POSITIVE)).min(1.0))
    }
}

impl LiveRun {
    /// A helper of another processor's run.
    fn helper(demand: Demand, now: Nanos) -> Self {
        Self {
            doing: Doing::Waiting,
            next_at: Nanos::MAX,
            members: 1,
            decoders: 1,
            depth: 1.0,
            piece: false,
            early: false,
            from: 0.0,
            others_from: Vec::new(),
            length: 0.0,
            target: 0.0,
            target_ns: 0.0,
            partial_ns: 0.0,
            done_ns: 0.0,
            updated: now,
            rate: 1.0,
            demand,
            factor: 1.0,
            started: now,
            why: StopReason::Finished,
            setup_traffic: 0.0,
            joint: None,
            meter: Meter::at(now),
        }
    }

    /// Whether it only helps another processor's run.
    pub(crate) fn helps(&self) -> bool {
        matches!(self.doing, Doing::Helping | Doing::Waiting)
    }

    /// What was done of a joint run so far.
    pub(crate) fn joint_done(&self, joint: &Joint) -> Mark {
        joint.course.after(self.done_ns / self.factor)
    }
}

impl<S: Sink> Engine<'_, S> {
    /// Puts a stage on free slots of several processors. `setup` precedes progress, while `loaded` is loaded.
    pub(crate) fn launch_together(
        &mut self,
        p: ProcessorId,
        stage: StageId,
        together: Together,
        setup: Nanos,
        loaded: Bytes,
        segments: Option<u32>,
    ) {
        let now = self.course.state.now;
        let live = self.course.state.stages[stage];
        let (others, course, factor) = self.plan_together(p, stage, together, segments);
        let end = course.end();
        let length = end.position - live.position;
        debug_assert!(length > 0.0, "a stage does not wait at the end of its phase");
        let expected = match segments {
            // Where an answer ends, and at which exit an input leaves, is not known before.
            Some(segments) if matches!(live.kind, Phase::Forward | Phase::Decode) => {
                self.expected_of_segments(p, stage, together, segments)
            }
            Some(_) => Nanos::from_ns_f64(end.ns),
            None => self.course.view().remaining_together(stage, p, together).unwrap_or(Nanos::ZERO),
        };
        let serial = self.course.outcome.runs;
        self.course.outcome.runs += 1;
        let other = &mut self.course.state.stages[stage];
        other.running = true;
        other.go_to(p);
        other.units = 0;
        let job = &mut self.course.state.jobs[live.job];
        job.running += 1;
        job.started = true;
        let (stage_serial, phase) = (live.serial, live.kind);
        self.course.emit(What::Start {
            run: serial,
            stage: stage_serial,
            processor: p,
            phase,
            setup,
            over: others,
            units: 0,
        });

        for q in std::iter::once(p).chain(others.iter()) {
            let demand = self.demand_together(&course, together, (p, q), end.ns * factor);
            self.runs[q].push(LiveRun::helper(demand, now));
            let model = if q == p { live.model } else { self.model_of(stage, together) };
            // Who reads a part of the cache goes on with the weights that it had.
            let reads_only = q != p && matches!(together, Together::Attention { .. });
            let weights = (!reads_only).then(|| self.course.system.weights_of(model));
            let occupancy: &mut Occupancy = &mut self.course.state.processors[q];
            occupancy.last_model = weights.or(occupancy.last_model);
            // All of them are taken as a whole.
            if let Some(division) = self.course.system.platform.processors[q].division {
                occupancy.take_units(division.units, weights, serial);
            }
            occupancy.runs.push(Run {
                serial,
                stage,
                others: Vec::new(),
                model,
                kind: live.kind,
                start: now,
                expected_end: now + setup + expected,
                ending: false,
                over: others.with(p),
            });
        }
        let whole = end.position >= self.course.hidden[stage.index()].work.units(live.kind);
        let run = LiveRun {
            doing: if setup > Nanos::ZERO { Doing::Setup } else { Doing::Work },
            from: live.position,
            length,
            target: length,
            factor,
            why: if whole { StopReason::Finished } else { StopReason::Quantum },
            setup_traffic: if setup > Nanos::ZERO { loaded.as_f64() / setup.as_f64() } else { 0.0 },
            joint: Some(Box::new(Joint { together, course, others, rate: 1.0, alone: 1.0 })),
            ..self.runs[p].pop().expect("it was just pushed")
        };
        self.runs[p].push(run);
        let i = self.runs[p].len() - 1;
        self.runs[p][i].target = self.next_mark_of(p, i, &[stage], 0.0);
        let target_ns = self.time_to(p, &[stage], &self.runs[p][i], self.runs[p][i].target);
        self.set_meters(p, i);
        let run = &mut self.runs[p][i];
        run.target_ns = target_ns;
        run.next_at = if run.doing == Doing::Setup { now + setup } else { now + at_rate(target_ns, 1.0) };
        if run.doing == Doing::Work {
            self.set_helpers(p, i, Doing::Helping);
        }
        self.bus_dirty = true;
    }

    /// Nominal time that a policy may expect so many segments of a joint run to take: their part of what is left by expected lengths.
    fn expected_of_segments(&self, p: ProcessorId, stage: StageId, together: Together, segments: u32) -> Nanos {
        let view = self.course.view();
        let (live, whole) = (view.stage(stage), view.remaining_together(stage, p, together).unwrap_or(Nanos::ZERO));
        let left = live.work.units(live.kind) - live.position;
        let units = match together {
            Together::Draft { tokens, .. } => {
                f64::from(segments) * view.draft(stage).map_or(1.0, |draft| draft.tokens_per_cycle(tokens))
            }
            Together::Split { .. } | Together::Attention { .. } => {
                let cost = cost_of(self.course.system, live, p);
                cost.limit_end(live.work, live.kind, live.position, Limit::Segments(segments)) - live.position
            }
        };
        if units < left { Nanos::from_ns_f64(whole.as_f64() * units / left) } else { whole }
    }

    /// The other processors of a joint run, its course, and the ratio of real to nominal latency.
    fn plan_together(
        &self,
        p: ProcessorId,
        stage: StageId,
        together: Together,
        segments: Option<u32>,
    ) -> (ProcessorSet, Course, f64) {
        let (system, live) = (self.course.system, &self.course.state.stages[stage]);
        let hidden = &self.course.hidden[stage.index()];
        let others = together.others(p);
        match together {
            Together::Split { .. } => {
                let parts = self.parts_of(p, stage, others);
                let split = system.models[live.model].split.expect("only models that can be divided are");
                let phase = (live.kind, hidden.work, live.position);
                let course = Course::of_split(&split, &system.platform.links, &parts, phase, segments);
                // All wait for the slowest.
                let factors = parts.iter().map(|part| part.cost.latency_factor(hidden.u, hidden.variation));
                (others, course, factors.fold(0.0, f64::max))
            }
            Together::Attention { .. } => {
                let (attention, own, helpers) = self.attention_of(p, stage, others);
                let links = &system.platform.links;
                let work = (hidden.work, live.position);
                let course = Course::of_attention(attention, links, (own, &helpers), work, segments);
                (others, course, own.cost.latency_factor(hidden.u, hidden.variation))
            }
            Together::Draft { processor, tokens } => {
                let cycle = self.course.view().cycle(stage, p, processor, tokens);
                let cycle = cycle.expect("the start was checked");
                let accepts = self.course.accepts(stage);
                let paces = [p, processor].map(|q| self.pace_of(q));
                let course = Course::of_draft(&cycle, paces, (hidden.work, live.position), segments, accepts);
                (others, course, cycle.target.1.latency_factor(hidden.u, hidden.variation))
            }
        }
    }

    /// The parts of divided work, the stage's own processor first.
    fn parts_of(&self, p: ProcessorId, stage: StageId, others: ProcessorSet) -> Vec<Part<'_>> {
        let live = &self.course.state.stages[stage];
        let part = |processor| Part {
            processor,
            cost: cost_of(self.course.system, live, processor),
            pace: self.pace_of(processor),
        };
        std::iter::once(p).chain(others.iter()).map(part).collect()
    }

    /// How a stage's attention is divided, the stage's own part, and the others with their speeds.
    fn attention_of(
        &self,
        p: ProcessorId,
        stage: StageId,
        others: ProcessorSet,
    ) -> (&Attention, Part<'_>, Vec<(ProcessorId, f64)>) {
        let live = &self.course.state.stages[stage];
        let attention = self.course.system.nodes[live.node].attention.as_ref();
        let own = Part { processor: p, cost: cost_of(self.course.system, live, p), pace: self.pace_of(p) };
        let helpers = others.iter().map(|q| (q, self.speed(q))).collect();
        (attention.expect("the start was checked"), own, helpers)
    }

    /// How fast a processor is now.
    fn pace_of(&self, q: ProcessorId) -> Pace {
        Pace { speed: self.speed(q), limit: self.limit_of(q) }
    }

    /// Plans what is ahead of every joint run anew whose processors' speeds are not those that it was planned with: now if a segment
    /// begins now, else at the end of the one that runs.
    pub(crate) fn plan_for_speeds(&mut self) {
        if self.course.power.is_none() {
            return;
        }
        for p in self.course.system.platform.processors.ids() {
            for i in 0..self.runs[p].len() {
                let run = &self.runs[p][i];
                let Some(joint) = run.joint.as_ref().filter(|_| run.doing == Doing::Work) else { continue };
                // Who only reads does so at any speed.
                let mut computing = joint.course.parts.iter().filter(|part| part.computing_ns > 0.0);
                if computing.all(|part| part.speed == self.speed(part.processor)) {
                    continue;
                }
                let done = self.done_now(run) / run.factor;
                if let Some(mark) = joint.course.mark_reached_at(done, 1.0 / run.factor.min(1.0)) {
                    self.plan_anew(p, i, mark);
                } else {
                    let position = joint.course.reached_after(done).position;
                    let next = joint.course.boundary_after(position) - run.from;
                    self.aim_at(p, i, next.min(run.target));
                }
            }
        }
    }

    /// Plans what is ahead of a joint run anew from the end of a segment on, for the speeds of the moment.
    fn plan_anew(&mut self, p: ProcessorId, i: usize, mark: usize) {
        let system = self.course.system;
        let stage = self.course.state.processors[p].runs[i].stage;
        let work = self.course.hidden[stage.index()].work;
        let mut joint = self.runs[p][i].joint.take().expect("the caller has found it");
        match joint.together {
            Together::Split { .. } => {
                let split = system.models[self.course.state.stages[stage].model].split;
                let split = split.expect("only models that can be divided are");
                let parts = self.parts_of(p, stage, joint.others);
                joint.course.divide_anew(&split, &system.platform.links, &parts, work, mark);
            }
            Together::Attention { .. } => {
                let (attention, own, helpers) = self.attention_of(p, stage, joint.others);
                joint.course.attend_anew(attention, &system.platform.links, (own, &helpers), work, mark);
            }
            Together::Draft { processor, tokens } => {
                let cycle = self.course.view().cycle(stage, p, processor, tokens);
                let paces = [p, processor].map(|q| self.pace_of(q));
                joint.course.draft_anew(&cycle.expect("the start was checked"), paces, work, mark);
            }
        }
        let serial = self.course.state.processors[p].runs[i].serial;
        let alone_ns = joint.course.ahead_ns * self.runs[p][i].factor;
        for q in std::iter::once(p).chain(joint.others.iter()) {
            let demand = self.demand_together(&joint.course, joint.together, (p, q), alone_ns);
            let j = self.place_of(q, serial);
            // What it asks for when bound by memory stays as it is: the bus has been shared.
            self.runs[q][j].demand.memory_bound = demand.memory_bound;
        }
        self.runs[p][i].joint = Some(joint);
        self.set_meters(p, i);
        self.aim_at(p, i, self.runs[p][i].target);
    }

    /// Lets a run come to its next mark after so many units.
    fn aim_at(&mut self, p: ProcessorId, i: usize, target: f64) {
        let now = self.course.state.now;
        let stage = self.course.state.processors[p].runs[i].stage;
        let target_ns = self.time_to(p, &[stage], &self.runs[p][i], target);
        let done = self.done_now(&self.runs[p][i]);
        let run = &mut self.runs[p][i];
        run.done_ns = done;
        run.credit(now);
        run.target = target;
        run.target_ns = target_ns;
        run.next_at = now + at_rate(target_ns - done, run.rate);
    }

    /// Tells the meters of a joint run and its helpers what they draw.
    fn set_meters(&mut self, p: ProcessorId, i: usize) {
        if self.course.power.is_none() {
            return;
        }
        let Some(joint) = self.runs[p][i].joint.take() else { return };
        let (factor, serial) = (self.runs[p][i].factor, self.course.state.processors[p].runs[i].serial);
        for q in std::iter::once(p).chain(joint.others.iter()) {
            let j = self.place_of(q, serial);
            let meter = &mut self.runs[q][j].meter;
            (meter.profile_w, meter.turn) = joint.power_of(q, factor);
        }
        self.runs[p][i].joint = Some(joint);
    }

    /// What runs on the other processors.
    fn model_of(&self, stage: StageId, together: Together) -> ModelId {
        let view = self.course.view();
        match together {
            Together::Draft { .. } => view.node(stage).draft.as_ref().map(|draft| draft.model),
            Together::Split { .. } | Together::Attention { .. } => None,
        }
        .unwrap_or(view.stage(stage).model)
    }

    /// What processor `q` asks of the bus for a joint run of processor `p` that takes `alone_ns`.
    fn demand_together(
        &self,
        course: &Course,
        together: Together,
        (p, q): (ProcessorId, ProcessorId),
        alone_ns: f64,
    ) -> Demand {
        match together {
            Together::Split { .. } | Together::Attention { .. } => {
                let bytes = course.parts.iter().find(|part| part.processor == q).map_or(0.0, |part| part.bytes);
                self.limit_of(q).map_or(Demand::NONE, |limit| Demand::new(bytes, alone_ns, limit))
            }
            // Drafting and verifying take turns: the stage's own processor asks for both.
            Together::Draft { .. } if q == p => {
                let with_limits =
                    || course.parts.iter().filter_map(|part| Some((part.bytes, self.limit_of(part.processor)?)));
                let at_limit: f64 = with_limits().map(|(bytes, limit)| bytes / limit).sum();
                let bytes: f64 = with_limits().map(|(bytes, _)| bytes).sum();
                if at_limit <= 0.0 { Demand::NONE } else { Demand::new(bytes, alone_ns, bytes / at_limit) }
            }
            Together::Draft { .. } => Demand::NONE,
        }
    }

    /// What the helpers of a run, if it has any, do from now on.
    pub(crate) fn set_helpers(&mut self, p: ProcessorId, i: usize, doing: Doing) {
        let Some(joint) = &self.runs[p][i].joint else { return };
        let (helpers, serial) = (joint.others, self.course.state.processors[p].runs[i].serial);
        for q in helpers.iter() {
            let j = self.place_of(q, serial);
            self.runs[q][j].doing = doing;
        }
    }

    /// Takes the helpers of a run that has stopped off their slots. What they have drawn [mJ], where known.
    pub(crate) fn dismiss(&mut self, serial: u64, helpers: ProcessorSet) -> Option<f64> {
        let now = self.course.state.now;
        let mut drawn = Some(0.0);
        for q in helpers.iter() {
            let j = self.place_of(q, serial);
            let mut helper = self.runs[q].remove(j);
            helper.meter.pass(now);
            drawn = drawn.zip(helper.meter.energy_mj).map(|(sum, energy)| sum + energy);
            let occupancy = &mut self.course.state.processors[q];
            occupancy.runs.remove(j);
            occupancy.idle_since = now;
            occupancy.release_units(serial);
        }
        drawn
    }

    fn place_of(&self, q: ProcessorId, serial: u64) -> usize {
        let runs = &self.course.state.processors[q].runs;
        runs.iter().position(|run| run.serial == serial).expect("a helper holds its slot as long as the run lasts")
    }

    /// Lets every joint run be as slow as the slowest of its processors, with these shares of the bus and at the speeds of the moment.
    pub(crate) fn couple(&mut self, shares: &[f64]) {
        for run in self.runs.iter_mut().flatten() {
            if let Some(joint) = &mut run.joint {
                (joint.rate, joint.alone) = (f64::INFINITY, f64::INFINITY);
            }
        }
        let ids = || self.course.system.platform.processors.ids();
        let mut share = shares.iter();
        for q in ids() {
            for j in 0..self.runs[q].len() {
                let run = &self.runs[q][j];
                if run.asks().is_none() {
                    continue;
                }
                let share = *share.next().expect("one share per run that takes part");
                if run.doing == Doing::Setup || (run.joint.is_none() && !run.helps()) {
                    continue;
                }
                let (p, i) = self.home_of(q, j);
                let Some(joint) = &self.runs[p][i].joint else { continue };
                if p != q && matches!(joint.together, Together::Draft { .. }) {
                    continue;
                }
                let rates = [share, f64::INFINITY].map(|share| joint.own_rate(q, run.demand, share, |r| self.speed(r)));
                if let Some(joint) = &mut self.runs[p][i].joint {
                    joint.rate = joint.rate.min(rates[0]);
                    joint.alone = joint.alone.min(rates[1]);
                }
            }
        }
        for q in ids() {
            for j in 0..self.runs[q].len() {
                if self.runs[q][j].helps() {
                    let (p, i) = self.home_of(q, j);
                    let rates = self.runs[p][i].joint.as_ref().map(|joint| (joint.rate, joint.alone));
                    let helper = &mut self.runs[q][j];
                    (helper.rate, helper.meter.alone_rate) = rates.unwrap_or((1.0, 1.0));
                }
            }
        }
    }

    /// Rate that a processor's run, a joint one or a helper, would have if nothing but this processor at this speed, and the bus, held it
    /// back: at least the rate that it will have.
    pub(crate) fn rate_by_itself(&self, q: ProcessorId, j: usize, share: f64, speed: f64) -> f64 {
        let (p, i) = self.home_of(q, j);
        let home = &self.runs[p][i];
        let joint = home.joint.as_ref().expect("helpers help joint runs");
        let fastest = |r: ProcessorId| {
            let model = self.course.system.platform.processors[r].power.as_ref();
            model.map_or(1.0, |model| model.points[model.fastest() as usize].speed)
        };
        let turns = p != q && matches!(joint.together, Together::Draft { .. });
        let (demand, share) = if turns { (home.demand, f64::INFINITY) } else { (self.runs[q][j].demand, share) };
        joint.own_rate(q, demand, share, |r| if r == q { speed } else { fastest(r) })
    }

    /// Where the run stands that a processor's run number `j` is or helps.
    fn home_of(&self, q: ProcessorId, j: usize) -> (ProcessorId, usize) {
        let run = &self.course.state.processors[q].runs[j];
        let p = self.course.state.stages[run.stage].processor.expect("a running stage is somewhere");
        (p, self.place_of(p, run.serial))
    }

    /// A joint run has stopped where it stands now: the draft model has read what was put out.
    pub(crate) fn note_draft(&mut self, joint: &Joint, stage: StageId, position: f64) {
        if let Together::Draft { processor, .. } = joint.together {
            let live = &mut self.course.state.stages[stage];
            live.drafted = Some((processor, live.work.prompt + 1 + position as u32));
        }
    }

    /// Energy of a joint run of which so much was done, where speeds are fixed; `None` if a processor's is unknown. A part whose profile
    /// states none draws the processor's active power in its turn, and idle power while it waits for the other.
    pub(crate) fn energy_together(&self, joint: &Joint, done: Mark, busy: Nanos) -> Option<f64> {
        let course = &joint.course;
        let mut sum = done.energy_mj;
        for part in course.parts.iter().filter(|part| part.energy_mj.is_none()) {
            let unit = &self.course.system.platform.processors[part.processor];
            let (_, at_it) = joint.power_of(part.processor, 1.0);
            let turn = (part.turn_ns / course.ahead_ns.max(f64::MIN_POSITIVE)).min(1.0);
            sum += Millijoules::of_power(unit.active_w? * turn + unit.idle_w * (1.0 - at_it), busy).0;
        }
        Some(sum)
    }
}
