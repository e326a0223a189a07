//! Operating points in real time: virtual devices take as long as theirs says; real devices run at whatever speed the system gives
//! them, and their point is never set.

use onbeat_core::cost::{PhaseCost, Work};
use onbeat_core::event::Sink;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::power::OperatingPoint;
use onbeat_core::units::{Millijoules, Nanos};

use crate::live::Live;
use crate::runs::cost_of;
use crate::task::Command;

/// What a run draws and has drawn, by the profile, where the platform says anything about power.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Share of its time that is bound by memory.
    pub(crate) bound: f64,
    /// Power at full progress at the first operating point [W], where the profile states energy.
    profile_w: Option<f64>,
    /// The part of the processor that it takes, where that can be divided; else 1.
    share: f64,
    /// Share of the time in which the processor is at it: less than 1 where drafting and verifying take turns, and of those that only
    /// read a part of the cache.
    turn: f64,
    /// How many times longer it takes at the present operating point than at the first.
    stretch: f64,
    watts: Option<f64>,
    pub(crate) energy_mj: Option<f64>,
    since: Nanos,
}

impl Meter {
    /// Of a run that starts.
    pub(crate) fn at(now: Nanos) -> Self {
        Self {
            bound: 0.0,
            profile_w: None,
            share: 1.0,
            turn: 1.0,
            stretch: 1.0,
            watts: Some(0.0),
            energy_mj: Some(0.0),
            since: now,
        }
    }

    /// Of a processor's part in a joint run.
    pub(crate) fn share_joint(&mut self, bound: f64, profile_w: Option<f64>, turn: f64) {
        (self.bound, self.profile_w, self.turn) = (bound, profile_w, turn);
    }

    /// Accounts for the energy up to `now`.
    pub(crate) fn pass(&mut self, now: Nanos) {
        let drawn = self.watts.map(|watts| Millijoules::of_power(watts, now.saturating_sub(self.since)).0);
        self.energy_mj = self.energy_mj.zip(drawn).map(|(sum, drawn)| sum + drawn);
        self.since = now;
    }

    fn stretch_at(&self, point: &OperatingPoint) -> f64 {
        (1.0 - self.bound) / point.speed + self.bound
    }

    /// What it draws at an operating point if it takes so many times longer than its profile says.
    fn draws(&self, point: &OperatingPoint, stretch: f64) -> Option<f64> {
        match self.profile_w {
            Some(watts) => Some(watts / stretch * point.energy_factor?),
            None if self.turn < 1.0 => Some(point.active_w? * self.turn + point.idle_w * (1.0 - self.turn)),
            None => Some(point.active_w? * self.share),
        }
    }
}

impl<S: Sink> Live<'_, S> {
    /// The meter of a run that starts, and how many times longer than nominally it takes.
    pub(crate) fn meter(&self, p: ProcessorId, stages: &[StageId]) -> (Meter, f64) {
        let now = self.course.state.now;
        let platform = &self.course.system.platform;
        let mut meter = Meter::at(now);
        meter.share = platform.processors[p].share(self.course.state.stages[stages[0]].units);
        let (Some(power), Some(model)) = (&self.course.power, &platform.processors[p].power) else {
            return (meter, 1.0);
        };
        let members = stages.len() as u32;
        let (mut bytes, mut alone_ns, mut energy_mj) = (0.0, 0.0, Some(0.0));
        for &stage in stages {
            let live = &self.course.state.stages[stage];
            let work = Work { exit: self.course.depth(stages), ..self.course.hidden[stage.index()].work };
            let cost: &PhaseCost = cost_of(self.course.system, live, p);
            let end = work.units(live.kind).max(live.position);
            bytes += cost.member_bytes(work, live.position, end, members);
            let part = cost.batch_factor(members) / f64::from(members);
            alone_ns += cost.latency_ns(work, live.position, end) * part;
            let energy = cost.member_energy_mj(work, live.position, end, members);
            energy_mj = energy_mj.zip(energy).map(|(sum, energy)| sum + energy);
        }
        meter.bound = platform.memory_bound(p, bytes, alone_ns);
        meter.profile_w = energy_mj.filter(|_| alone_ns > 0.0).map(|energy| energy / alone_ns * 1e6);
        meter.stretch = meter.stretch_at(&model.points[power.point(p) as usize]);
        let stretch = meter.stretch;
        (meter, stretch)
    }

    /// Decides on operating points and tells virtual devices how fast they are from now on.
    pub(crate) fn settle_power(&mut self) {
        let Some(mut power) = self.course.power.take() else { return };
        let (platform, now) = (&self.course.system.platform, self.course.state.now);
        power.pass(platform, now);
        let points = |p: ProcessorId| {
            &platform.processors[p].power.as_ref().expect("all processors have power models, or none").points
        };
        let draw = |p: ProcessorId, point: u32| {
            let point = &points(p)[point as usize];
            if self.runs[p].is_empty() {
                return Some(point.idle_w);
            }
            let idle = self.course.view().idle_share(p) * point.idle_w;
            self.runs[p].iter().enumerate().try_fold(idle, |sum, (i, run)| {
                let joint = self.joint_stretch(p, i, point.speed);
                Some(sum + run.meter.draws(point, joint.unwrap_or_else(|| run.meter.stretch_at(point)))?)
            })
        };
        power.decide(platform, now, draw);
        self.course.power = Some(power);
        self.plan_for_speeds();
        let Some(mut power) = self.course.power.take() else { return };
        for p in platform.processors.ids() {
            let point = &points(p)[power.point(p) as usize];
            let idle = self.course.view().idle_share(p);
            for (i, run) in self.runs[p].iter_mut().enumerate() {
                run.meter.pass(now);
                // What several do together was planned for these speeds.
                let joint = run.helps || run.joint.is_some();
                let stretch = if joint { 1.0 } else { run.meter.stretch_at(point) };
                run.meter.watts = run.meter.draws(point, stretch);
                if stretch != run.meter.stretch {
                    run.meter.stretch = stretch;
                    let run = self.course.state.processors[p].runs[i].serial;
                    self.commands.push(Command::Pace { run, stretch });
                }
            }
            let runs = &self.runs[p];
            let sum = runs.iter().try_fold(idle * point.idle_w, |sum, run| Some(sum + run.meter.watts?));
            let watts = if runs.is_empty() { Some(point.idle_w) } else { sum };
            let unit = &platform.processors[p];
            let busy = if unit.division.is_some() { 1.0 - idle } else { runs.len() as f64 / f64::from(unit.slots) };
            power.load(platform, p, watts, busy);
        }
        self.course.power = Some(power);
        self.course.tell_power(false);
    }
}
