//! Runs that several processors work on together.
//!
//! The run stands on the stage's own processor. On each of the others a *helper* holds a slot for it: it draws on the bus while the run
//! makes progress, and does nothing by itself. The run is as fast as the slowest of them. Its course is known from the start, segment by
//! segment (see [`onbeat_core::joint`]), and it ends at the end of a segment.

use onbeat_core::event::{Sink, StopReason, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{Course, Mark, Part, Together};
use onbeat_core::state::{Occupancy, Run};
use onbeat_core::units::{Bytes, Millijoules, Nanos};

use crate::bus::Demand;
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
    /// Rate of the slowest processor.
    pub(crate) rate: f64,
}

impl LiveRun {
    /// A helper of another processor's run.
    fn helper(demand: Demand, now: Nanos) -> Self {
        Self {
            doing: Doing::Waiting,
            next_at: Nanos::MAX,
            members: 1,
            decoders: 1,
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
        let expected = match segments {
            Some(_) => Nanos::from_ns_f64(end.ns),
            None => self.course.view().remaining_together(stage, p, together).unwrap_or(Nanos::ZERO),
        };
        let serial = self.course.outcome.runs;
        self.course.outcome.runs += 1;
        let other = &mut self.course.state.stages[stage];
        other.running = true;
        other.processor = Some(p);
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
            let model = if q == p { live.weights } else { self.model_of(stage, together) };
            let occupancy: &mut Occupancy = &mut self.course.state.processors[q];
            occupancy.last_model = Some(model);
            // All of them are taken as a whole.
            if let Some(division) = self.course.system.platform.processors[q].division {
                occupancy.take_units(division.units, model, serial);
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
            joint: Some(Box::new(Joint { together, course, others, rate: 1.0 })),
            ..self.runs[p].pop().expect("it was just pushed")
        };
        self.runs[p].push(run);
        let i = self.runs[p].len() - 1;
        self.runs[p][i].target = self.next_mark_of(p, i, &[stage], 0.0);
        let target_ns = self.time_to(p, &[stage], &self.runs[p][i], self.runs[p][i].target);
        let run = &mut self.runs[p][i];
        run.target_ns = target_ns;
        run.next_at = if run.doing == Doing::Setup { now + setup } else { now + at_rate(target_ns, 1.0) };
        if run.doing == Doing::Work {
            self.set_helpers(p, i, Doing::Helping);
        }
        self.bus_dirty = true;
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
                let parts: Vec<Part<'_>> = std::iter::once(p)
                    .chain(others.iter())
                    .map(|processor| Part { processor, cost: cost_of(system, live, processor) })
                    .collect();
                let split = system.models[live.model].split.expect("only models that can be divided are");
                let phase = (live.kind, hidden.work, live.position);
                let course = Course::of_split(&split, &system.platform.links, &parts, phase, segments);
                // All wait for the slowest.
                let factors = parts.iter().map(|part| part.cost.latency_factor(hidden.u, hidden.variation));
                (others, course, factors.fold(0.0, f64::max))
            }
            Together::Draft { processor, tokens } => {
                let cycle = self.course.view().cycle(stage, p, processor, tokens);
                let cycle = cycle.expect("the start was checked");
                let accepts = self.course.accepts(stage);
                let course = Course::of_draft(&cycle, (hidden.work, live.position), segments, accepts);
                (others, course, cycle.target.1.latency_factor(hidden.u, hidden.variation))
            }
        }
    }

    /// What runs on the other processors.
    fn model_of(&self, stage: StageId, together: Together) -> ModelId {
        let view = self.course.view();
        match together {
            Together::Draft { .. } => view.node(stage).draft.as_ref().map(|draft| draft.model),
            Together::Split { .. } => None,
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
            Together::Split { .. } => {
                let bytes = course.moved.iter().find(|&&(at, _)| at == q).map_or(0.0, |&(_, bytes)| bytes);
                self.limit_of(q).map_or(Demand::NONE, |limit| Demand::new(bytes, alone_ns, limit))
            }
            // Drafting and verifying take turns: the stage's own processor asks for both.
            Together::Draft { .. } if q == p => {
                let with_limits = || course.moved.iter().filter_map(|&(at, bytes)| Some((bytes, self.limit_of(at)?)));
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

    /// Takes the helpers of a run that has stopped off their slots.
    pub(crate) fn dismiss(&mut self, serial: u64, helpers: ProcessorSet) {
        for q in helpers.iter() {
            let j = self.place_of(q, serial);
            self.runs[q].remove(j);
            let occupancy = &mut self.course.state.processors[q];
            occupancy.runs.remove(j);
            occupancy.idle_since = self.course.state.now;
            occupancy.release_units(serial);
        }
    }

    fn place_of(&self, q: ProcessorId, serial: u64) -> usize {
        let runs = &self.course.state.processors[q].runs;
        runs.iter().position(|run| run.serial == serial).expect("a helper holds its slot as long as the run lasts")
    }

    /// Lets every joint run be as slow as the slowest of its processors, with these shares of the bus.
    pub(crate) fn couple(&mut self, shares: &[f64]) {
        if self.runs.iter().flatten().all(|run| run.joint.is_none()) {
            return;
        }
        for run in self.runs.iter_mut().flatten() {
            if let Some(joint) = &mut run.joint {
                joint.rate = 1.0;
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
                let rate = run.demand.rate(*share.next().expect("one share per run that takes part"), 1.0);
                if run.doing != Doing::Setup && (run.joint.is_some() || run.helps()) {
                    let (p, i) = self.home_of(q, j);
                    if let Some(joint) = &mut self.runs[p][i].joint {
                        joint.rate = joint.rate.min(rate);
                    }
                }
            }
        }
        for q in ids() {
            for j in 0..self.runs[q].len() {
                if self.runs[q][j].helps() {
                    let (p, i) = self.home_of(q, j);
                    self.runs[q][j].rate = self.runs[p][i].joint.as_ref().map_or(1.0, |joint| joint.rate);
                }
            }
        }
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

    /// Energy of a joint run of which so much was done; `None` if a processor's is unknown.
    pub(crate) fn energy_together(&self, joint: &Joint, done: Mark, busy: Nanos) -> Option<f64> {
        let mut sum = done.energy_mj;
        for q in joint.course.unstated.iter() {
            sum += Millijoules::of_power(self.course.system.platform.processors[q].active_w?, busy).0;
        }
        Some(sum)
    }
}
