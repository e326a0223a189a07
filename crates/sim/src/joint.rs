//! Runs that several processors work on together.
//!
//! The run stands on the stage's own processor. On each of the others a *helper* holds a slot for it: it draws on the bus while the run
//! makes progress, and does nothing by itself. The run is as fast as the slowest of them. Its course is known from the start, segment by
//! segment (see [`onbeat_core::joint`]), and it ends at the end of a segment.

use onbeat_core::bus::Demand;
use onbeat_core::event::{Sink, StopReason};
use onbeat_core::id::{Id, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{Course, Mark, Together};
use onbeat_core::units::{Bytes, Nanos};

use crate::engine::Engine;
use crate::power::Meter;
use crate::runs::{Doing, LiveRun, at_rate};

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
        let (course, factor) = self.course.plan_together(p, stage, together, segments);
        let (end, others) = (course.end(), together.others(p));
        let length = end.position - live.position;
        debug_assert!(length > 0.0, "a stage does not wait at the end of its phase");
        let expected = self.course.expected_together((p, stage), together, segments, &course);
        self.course.begin_together((p, stage), together, setup, expected);
        for q in std::iter::once(p).chain(others.iter()) {
            let demand = course.demand_of(together, (p, q), end.ns * factor, |q| self.course.limit_of(q));
            self.runs[q].push(LiveRun::helper(demand, now));
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
                if !self.course.speeds_differ(&joint.course) {
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
        let stage = self.course.state.processors[p].runs[i].stage;
        let mut joint = self.runs[p][i].joint.take().expect("the caller has found it");
        self.course.plan_anew((p, stage), joint.together, &mut joint.course, mark);
        let serial = self.course.state.processors[p].runs[i].serial;
        let alone_ns = joint.course.ahead_ns * self.runs[p][i].factor;
        for q in std::iter::once(p).chain(joint.others.iter()) {
            let demand = joint.course.demand_of(joint.together, (p, q), alone_ns, |q| self.course.limit_of(q));
            let j = self.course.place_of(q, serial);
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
            let j = self.course.place_of(q, serial);
            let meter = &mut self.runs[q][j].meter;
            (meter.profile_w, meter.turn) = joint.course.power_of(q, factor);
        }
        self.runs[p][i].joint = Some(joint);
    }

    /// What the helpers of a run, if it has any, do from now on.
    pub(crate) fn set_helpers(&mut self, p: ProcessorId, i: usize, doing: Doing) {
        let Some(joint) = &self.runs[p][i].joint else { return };
        let (helpers, serial) = (joint.others, self.course.state.processors[p].runs[i].serial);
        for q in helpers.iter() {
            let j = self.course.place_of(q, serial);
            self.runs[q][j].doing = doing;
        }
    }

    /// Takes the helpers of a run that has stopped off their slots. What they have drawn [mJ], where known.
    pub(crate) fn dismiss(&mut self, serial: u64, helpers: ProcessorSet) -> Option<f64> {
        let now = self.course.state.now;
        let mut drawn = Some(0.0);
        for q in helpers.iter() {
            let j = self.course.place_of(q, serial);
            let mut helper = self.runs[q].remove(j);
            helper.meter.pass(now);
            drawn = drawn.zip(helper.meter.energy_mj).map(|(sum, energy)| sum + energy);
            self.course.vacate(q, j);
        }
        drawn
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
                let (p, i) = self.course.home_of(q, j);
                let Some(joint) = &self.runs[p][i].joint else { continue };
                if p != q && matches!(joint.together, Together::Draft { .. }) {
                    continue;
                }
                let rates = [share, f64::INFINITY].map(|share| {
                    joint.course.rate_of(q, joint.together, (run.demand, share), |r| self.course.speed(r))
                });
                if let Some(joint) = &mut self.runs[p][i].joint {
                    joint.rate = joint.rate.min(rates[0]);
                    joint.alone = joint.alone.min(rates[1]);
                }
            }
        }
        for q in ids() {
            for j in 0..self.runs[q].len() {
                if self.runs[q][j].helps() {
                    let (p, i) = self.course.home_of(q, j);
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
        let (p, i) = self.course.home_of(q, j);
        let home = &self.runs[p][i];
        let joint = home.joint.as_ref().expect("helpers help joint runs");
        let turns = p != q && matches!(joint.together, Together::Draft { .. });
        let (demand, share) = if turns { (home.demand, f64::INFINITY) } else { (self.runs[q][j].demand, share) };
        self.course.rate_held_by(&joint.course, q, joint.together, (demand, share), speed)
    }
}
