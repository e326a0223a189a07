//! Runs that several virtual devices work on. The run stands on the stage's own processor, whose slot sleeps for it; on each of the
//! others a helper holds a slot.

use std::sync::Arc;

use onbeat_core::bus::Demand;
use onbeat_core::event::{Sink, StopReason};
use onbeat_core::id::{Id, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{Course, Mark, Together};
use onbeat_core::units::Nanos;

use crate::live::Live;
use crate::power::Meter;
use crate::runs::LiveRun;
use crate::task::{Command, JointLaunch, Launch, Member};

/// What a run that several processors work on has besides.
#[derive(Clone, Debug)]
pub(crate) struct Joint {
    pub(crate) together: Together,
    pub(crate) course: Course,
    /// Ratio of real to nominal latency.
    pub(crate) factor: f64,
}

impl Joint {
    /// How far it is after so many segments.
    pub(crate) fn after(&self, segments: u32) -> Mark {
        self.course.marks[(segments as usize).min(self.course.marks.len() - 1)]
    }

    /// When each of its segments ends, counted from the end of the setup [ns].
    fn ends_ns(&self) -> Arc<[f64]> {
        self.course.marks.iter().map(|mark| mark.ns * self.factor).collect()
    }
}

impl<S: Sink> Live<'_, S> {
    /// Puts a stage on free slots of several virtual devices. It is not in the ready list any more.
    pub(crate) fn launch_together(
        &mut self,
        p: ProcessorId,
        stage: StageId,
        together: Together,
        setup: Nanos,
        segments: Option<u32>,
    ) {
        let now = self.course.state.now;
        let live = self.course.state.stages[stage];
        let hidden = self.course.hidden[stage.index()];
        let (course, factor) = self.course.plan_together(p, stage, together, segments);
        let expected = self.course.expected_together((p, stage), together, segments, &course);
        let run = self.course.begin_together((p, stage), together, setup, expected);
        let over = together.others(p);
        let steps = course.marks.len() as u32 - 1;
        let whole = course.end().position >= hidden.work.units(live.kind);
        let joint = Joint { together, course, factor };
        let ends_ns = joint.ends_ns();
        for q in std::iter::once(p).chain(over.iter()) {
            let slot = self.free_slot(q);
            self.runs[q].push(LiveRun {
                slot,
                members: 1,
                from: vec![live.position],
                started: now,
                setup,
                cut: false,
                steps: 0,
                steps_max: (!whole).then_some(steps),
                why: StopReason::Finished,
                failed: false,
                starved: false,
                ended: Vec::new(),
                depth: hidden.work.exit,
                meter: Meter::at(now),
                nominal_end: now + setup + expected,
                joint: None,
                helps: q != p,
            });
        }
        let home = self.runs[p].last_mut().expect("it was just added");
        home.joint = Some(Box::new(joint));
        let slot = home.slot;
        self.set_meters(p, self.runs[p].len() - 1);
        let job = &self.course.state.jobs[live.job];
        let member = Member {
            stage,
            serial: live.serial,
            job: job.serial,
            node: live.node,
            variant: live.variant,
            units: 0,
            far: false,
            instance: hidden.instance,
            fresh: live.phase == 0 && live.position == 0.0,
            from: live.position,
            work: hidden.work,
            u: hidden.u,
            variation: hidden.variation,
        };
        self.commands.push(Command::Launch(Launch {
            run,
            processor: p,
            slot,
            model: live.model,
            phase: live.kind,
            phase_index: live.phase,
            members: vec![member],
            loads: false,
            setup,
            steps_max: None,
            stretch: 1.0,
            units_per_step: 1,
            piece: false,
            tells: self.tells(live.kind),
            joint: Some(JointLaunch { over, ends_ns, whole }),
        }));
    }

    /// Where the run stands that a processor's run number `i` is or helps.
    pub(crate) fn home_of(&self, p: ProcessorId, i: usize) -> (ProcessorId, usize) {
        if self.runs[p][i].helps { self.course.home_of(p, i) } else { (p, i) }
    }

    /// Takes the helpers of a run that has stopped off their slots. What they have drawn [mJ], where known.
    pub(crate) fn dismiss(&mut self, serial: u64, helpers: ProcessorSet) -> Option<f64> {
        let mut drawn = Some(0.0);
        for q in helpers.iter() {
            let j = self.course.place_of(q, serial);
            let mut helper = self.runs[q].remove(j);
            helper.meter.pass(self.course.state.now);
            drawn = drawn.zip(helper.meter.energy_mj).map(|(sum, energy)| sum + energy);
            self.course.vacate(q, j);
        }
        drawn
    }

    /// Plans what is ahead of every joint run anew whose processors' speeds are not those that it was planned with. The segment that runs
    /// ends as it was planned.
    pub(crate) fn plan_for_speeds(&mut self) {
        for p in self.course.system.platform.processors.ids() {
            for i in 0..self.runs[p].len() {
                let run = &self.runs[p][i];
                let Some(joint) = run.joint.as_ref().filter(|joint| self.course.speeds_differ(&joint.course)) else {
                    continue;
                };
                let begun = self.course.state.now >= run.started + run.setup;
                let mark = run.steps as usize + usize::from(begun);
                if mark + 1 >= joint.course.marks.len() {
                    continue;
                }
                let visible = &self.course.state.processors[p].runs[i];
                let (serial, stage) = (visible.serial, visible.stage);
                let mut joint = self.runs[p][i].joint.take().expect("it was just found");
                self.course.plan_anew((p, stage), joint.together, &mut joint.course, mark);
                self.commands.push(Command::Replan { run: serial, ends_ns: joint.ends_ns() });
                self.runs[p][i].joint = Some(joint);
                self.set_meters(p, i);
            }
        }
    }

    /// Tells the meters of a joint run and its helpers what they draw.
    fn set_meters(&mut self, p: ProcessorId, i: usize) {
        if self.course.power.is_none() {
            return;
        }
        let serial = self.course.state.processors[p].runs[i].serial;
        let Some(joint) = self.runs[p][i].joint.take() else { return };
        let alone_ns = joint.course.ahead_ns * joint.factor;
        for q in std::iter::once(p).chain(joint.together.others(p).iter()) {
            let j = self.course.place_of(q, serial);
            let demand = joint.course.demand_of(joint.together, (p, q), alone_ns, |q| self.course.limit_of(q));
            let (profile_w, turn) = joint.course.power_of(q, joint.factor);
            self.runs[q][j].meter.share_joint(demand.memory_bound, profile_w, turn);
        }
        self.runs[p][i].joint = Some(joint);
    }

    /// How many times longer than planned a joint run would take if nothing but processor `q`, which has it as run number `j`, held it
    /// back at this speed; `None` of any other run.
    pub(crate) fn joint_stretch(&self, q: ProcessorId, j: usize, speed: f64) -> Option<f64> {
        let (p, i) = self.home_of(q, j);
        let joint = self.runs[p][i].joint.as_ref()?;
        // Where drafting and verifying take turns, the stage's own processor stands for both.
        let own = matches!(joint.together, Together::Draft { .. });
        let memory_bound = if own { self.runs[p][i].meter.bound } else { self.runs[q][j].meter.bound };
        // Nobody shares the bus with it.
        let demand = (Demand { memory_bound, peak: 0.0 }, f64::INFINITY);
        Some(1.0 / self.course.rate_held_by(&joint.course, q, joint.together, demand, speed))
    }
}
