//! Runs that several processors work on: how they are planned, what they hold, and what becomes of that.

use onbeat_core::bus::Demand;
use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{self, Attention, Pace, Part, Together};
use onbeat_core::policy::Limit;
use onbeat_core::state::Run;
use onbeat_core::units::Nanos;

use crate::course::Course;

impl<S: Sink> Course<'_, S> {
    /// Speed of a processor relative to the profiled one.
    pub fn speed(&self, q: ProcessorId) -> f64 {
        let Some(power) = &self.power else { return 1.0 };
        let model = self.system.platform.processors[q].power.as_ref();
        model.map_or(1.0, |model| model.points[power.point(q) as usize].speed)
    }

    /// The most that a processor can draw [bytes/ns]; `None` if the bus is not modelled.
    pub fn limit_of(&self, q: ProcessorId) -> Option<f64> {
        let platform = &self.system.platform;
        // Without contention, a clock still changes the compute-bound part only.
        let matters = self.system.contention || self.power.is_some();
        platform.bandwidth.filter(|_| matters).and_then(|_| platform.bandwidth_of(q))
    }

    /// The course of a joint run that starts now, at the speeds of the moment, and the ratio of real to nominal latency.
    pub fn plan_together(
        &self,
        p: ProcessorId,
        stage: StageId,
        together: Together,
        segments: Option<u32>,
    ) -> (joint::Course, f64) {
        let (system, live) = (self.system, &self.state.stages[stage]);
        let hidden = &self.hidden[stage.index()];
        let others = together.others(p);
        match together {
            Together::Split { .. } => {
                let parts = self.shares_of(p, stage, others);
                let split = system.models[live.model].split.expect("only models that can be divided are");
                let phase = (live.kind, hidden.work, live.position);
                let course = joint::Course::of_split(&split, &system.platform.links, &parts, phase, segments);
                // All wait for the slowest.
                let factors = parts.iter().map(|part| part.cost.latency_factor(hidden.u, hidden.variation));
                (course, factors.fold(0.0, f64::max))
            }
            Together::Attention { .. } => {
                let (attention, own, helpers) = self.attention_of(p, stage, others);
                let links = &system.platform.links;
                let work = (hidden.work, live.position);
                let course = joint::Course::of_attention(attention, links, (own, &helpers), work, segments);
                (course, own.cost.latency_factor(hidden.u, hidden.variation))
            }
            Together::Draft { processor, tokens } => {
                let cycle = self.view().cycle(stage, p, processor, tokens);
                let cycle = cycle.expect("the start was checked");
                let accepts = self.accepts(stage);
                let paces = [p, processor].map(|q| self.pace_of(q));
                let course = joint::Course::of_draft(&cycle, paces, (hidden.work, live.position), segments, accepts);
                (course, cycle.target.1.latency_factor(hidden.u, hidden.variation))
            }
        }
    }

    /// Plans what is ahead of a joint run after one of its marks anew, for the speeds of the moment.
    pub fn plan_anew(
        &self,
        (p, stage): (ProcessorId, StageId),
        together: Together,
        course: &mut joint::Course,
        mark: usize,
    ) {
        let (system, others) = (self.system, together.others(p));
        let work = self.hidden[stage.index()].work;
        match together {
            Together::Split { .. } => {
                let split = system.models[self.state.stages[stage].model].split;
                let split = split.expect("only models that can be divided are");
                let parts = self.shares_of(p, stage, others);
                course.divide_anew(&split, &system.platform.links, &parts, work, mark);
            }
            Together::Attention { .. } => {
                let (attention, own, helpers) = self.attention_of(p, stage, others);
                course.attend_anew(attention, &system.platform.links, (own, &helpers), work, mark);
            }
            Together::Draft { processor, tokens } => {
                let cycle = self.view().cycle(stage, p, processor, tokens);
                let paces = [p, processor].map(|q| self.pace_of(q));
                course.draft_anew(&cycle.expect("the start was checked"), paces, work, mark);
            }
        }
    }

    /// Whether a joint run was planned with other speeds than those of the moment. Who only reads does so at any speed.
    pub fn speeds_differ(&self, course: &joint::Course) -> bool {
        let mut computing = course.parts.iter().filter(|part| part.computing_ns > 0.0);
        computing.any(|part| part.speed != self.speed(part.processor))
    }

    /// Rate that a joint run would have if nothing but processor `q` at this speed, and its share of the bus, held it back: at least the
    /// rate that it will have.
    pub fn rate_held_by(
        &self,
        course: &joint::Course,
        q: ProcessorId,
        together: Together,
        demand: (Demand, f64),
        speed: f64,
    ) -> f64 {
        let fastest = |r: ProcessorId| {
            let model = self.system.platform.processors[r].power.as_ref();
            model.map_or(1.0, |model| model.points[model.fastest() as usize].speed)
        };
        course.rate_of(q, together, demand, |r| if r == q { speed } else { fastest(r) })
    }

    /// The parts of divided work, the stage's own processor first.
    fn shares_of(&self, p: ProcessorId, stage: StageId, others: ProcessorSet) -> Vec<Part<'_>> {
        let part =
            |processor| Part { processor, cost: self.joint_cost(stage, processor), pace: self.pace_of(processor) };
        std::iter::once(p).chain(others.iter()).map(part).collect()
    }

    /// How a stage's attention is divided, the stage's own part, and the others with their speeds.
    fn attention_of(
        &self,
        p: ProcessorId,
        stage: StageId,
        others: ProcessorSet,
    ) -> (&Attention, Part<'_>, Vec<(ProcessorId, f64)>) {
        let attention = self.system.nodes[self.state.stages[stage].node].attention.as_ref();
        let own = Part { processor: p, cost: self.joint_cost(stage, p), pace: self.pace_of(p) };
        let helpers = others.iter().map(|q| (q, self.speed(q))).collect();
        (attention.expect("the start was checked"), own, helpers)
    }

    /// What a stage's phase costs on a whole processor.
    fn joint_cost(&self, stage: StageId, p: ProcessorId) -> &PhaseCost {
        let live = &self.state.stages[stage];
        let cost = self.system.nodes[live.node].costs_of(live.variant)[p].as_ref();
        &cost.expect("the start was checked").phases[usize::from(live.phase)].1
    }

    /// How fast a processor is now.
    fn pace_of(&self, q: ProcessorId) -> Pace {
        Pace { speed: self.speed(q), limit: self.limit_of(q) }
    }

    /// Nominal time that a policy may expect a joint run to take that has been planned, and not begun.
    pub fn expected_together(
        &self,
        (p, stage): (ProcessorId, StageId),
        together: Together,
        segments: Option<u32>,
        course: &joint::Course,
    ) -> Nanos {
        let whole = || self.view().remaining_together(stage, p, together).unwrap_or(Nanos::ZERO);
        let Some(segments) = segments else { return whole() };
        let (view, live) = (self.view(), &self.state.stages[stage]);
        // Where an answer ends, and at which exit an input leaves, is not known before.
        if !matches!(live.kind, Phase::Forward | Phase::Decode) {
            return Nanos::from_ns_f64(course.end().ns);
        }
        // So many segments are their part of what is left by expected lengths.
        let left = live.work.units(live.kind) - live.position;
        let units = match together {
            Together::Draft { tokens, .. } => {
                f64::from(segments) * view.draft(stage).map_or(1.0, |draft| draft.tokens_per_cycle(tokens))
            }
            Together::Split { .. } | Together::Attention { .. } => {
                let cost = self.joint_cost(stage, p);
                cost.limit_end(live.work, live.kind, live.position, Limit::Segments(segments)) - live.position
            }
        };
        if units < left { Nanos::from_ns_f64(whole().as_f64() * units / left) } else { whole() }
    }

    /// A stage begins a joint run of which `expected` is known: it holds a slot of each of the processors. The run's number.
    pub fn begin_together(
        &mut self,
        (p, stage): (ProcessorId, StageId),
        together: Together,
        setup: Nanos,
        expected: Nanos,
    ) -> u64 {
        let (now, others) = (self.state.now, together.others(p));
        let serial = self.outcome.runs;
        self.outcome.runs += 1;
        let other = &mut self.state.stages[stage];
        other.running = true;
        other.go_to(p);
        let live = *other;
        let job = &mut self.state.jobs[live.job];
        job.running += 1;
        job.started = true;
        self.emit(What::Start {
            run: serial,
            stage: live.serial,
            processor: p,
            phase: live.kind,
            setup,
            over: others,
            units: 0,
        });
        for q in std::iter::once(p).chain(others.iter()) {
            let model = if q == p { live.model } else { self.helpers_model(stage, together) };
            // Who reads a part of the cache goes on with the weights that it had.
            let reads_only = q != p && matches!(together, Together::Attention { .. });
            let weights = (!reads_only).then(|| self.system.weights_of(model));
            let occupancy = &mut self.state.processors[q];
            occupancy.last_model = weights.or(occupancy.last_model);
            // All of them are taken as a whole.
            if let Some(division) = self.system.platform.processors[q].division {
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
        serial
    }

    /// What runs on the processors that are not the stage's own.
    fn helpers_model(&self, stage: StageId, together: Together) -> ModelId {
        let view = self.view();
        match together {
            Together::Draft { .. } => view.node(stage).draft.as_ref().map(|draft| draft.model),
            Together::Split { .. } | Together::Attention { .. } => None,
        }
        .unwrap_or(view.stage(stage).model)
    }

    /// Takes a run, number `i` of a processor, off its slot. What the driver knows of it is the driver's to take.
    pub fn vacate(&mut self, q: ProcessorId, i: usize) -> Run {
        let now = self.state.now;
        let occupancy = &mut self.state.processors[q];
        let run = occupancy.runs.remove(i);
        occupancy.idle_since = now;
        occupancy.release_units(run.serial);
        run
    }

    /// Where a run stands among those of a processor that works on it.
    pub fn place_of(&self, q: ProcessorId, serial: u64) -> usize {
        let runs = &self.state.processors[q].runs;
        runs.iter().position(|run| run.serial == serial).expect("a helper holds its slot as long as the run lasts")
    }

    /// Where the run stands that a processor's run number `i` is or helps.
    pub fn home_of(&self, q: ProcessorId, i: usize) -> (ProcessorId, usize) {
        let run = &self.state.processors[q].runs[i];
        let p = self.state.stages[run.stage].processor.expect("a running stage is somewhere");
        (p, self.place_of(p, run.serial))
    }

    /// A joint run has stopped where it stands now: the draft model has read what was put out.
    pub fn note_draft(&mut self, together: Together, stage: StageId, position: f64) {
        if let Together::Draft { processor, .. } = together {
            let live = &mut self.state.stages[stage];
            live.drafted = Some((processor, live.work.prompt + 1 + position as u32));
        }
    }
}
