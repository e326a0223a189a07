//! What runs draw, and the operating points of processors among the runs of the moment. Who may choose a point, heat and the power
//! cap are in [`onbeat_driver::Power`].
//!
//! A run whose profile states energy draws it evenly over its progress, times the point's factor, and idle power while it is set up or
//! saved; any other run draws the point's active power from its start to its end. A processor without a run draws idle power. Leakage
//! comes on top. So energy is the integral of power, and the sum over the runs, idling and leakage.

use onbeat_core::event::Sink;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::power::OperatingPoint;
use onbeat_core::units::{Millijoules, Nanos};

use crate::engine::Engine;
use crate::runs::{Doing, LiveRun, cost_of};

/// What a run draws and has drawn, where the platform says anything about power.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Power at full progress at the first operating point [W], where the profile states energy.
    pub(crate) profile_w: Option<f64>,
    /// The part of the processor that it takes, where that can be divided; else 1.
    pub(crate) share: f64,
    /// Rate of progress that it would have alone at the present operating point.
    pub(crate) alone_rate: f64,
    /// Share of the time in which the processor is at it: less than 1 where drafting and verifying take turns, and
    /// of those that only read a part of the cache.
    pub(crate) turn: f64,
    /// Time alone that its progress would have taken [ns].
    alone_ns: f64,
    /// Power now [W]; `None`: unknown.
    watts: Option<f64>,
    /// Energy so far [mJ]; `None`: unknown.
    pub(crate) energy_mj: Option<f64>,
    /// Up to when energy is accounted for.
    since: Nanos,
}

impl Meter {
    /// Of a run that starts.
    pub(crate) fn at(now: Nanos) -> Self {
        Self {
            profile_w: None,
            share: 1.0,
            alone_rate: 1.0,
            turn: 1.0,
            alone_ns: 0.0,
            watts: Some(0.0),
            energy_mj: Some(0.0),
            since: now,
        }
    }

    /// Accounts for the energy up to `now`.
    pub(crate) fn pass(&mut self, now: Nanos) {
        let time = now.saturating_sub(self.since);
        self.since = now;
        if time > Nanos::ZERO {
            let drawn = self.watts.map(|watts| Millijoules::of_power(watts, time).0);
            self.energy_mj = self.energy_mj.zip(drawn).map(|(sum, drawn)| sum + drawn);
        }
    }
}

impl LiveRun {
    /// Accounts for its progress up to `now`, at the rate that it has had.
    pub(crate) fn credit(&mut self, now: Nanos) {
        if self.doing == Doing::Work {
            self.meter.alone_ns += now.saturating_sub(self.updated).as_f64() * (self.rate / self.meter.alone_rate);
        }
        self.updated = now;
    }

    /// What it would draw at an operating point and a rate of progress [W].
    fn draws(&self, point: &OperatingPoint, rate: f64) -> Option<f64> {
        match self.meter.profile_w {
            Some(watts) if matches!(self.doing, Doing::Work | Doing::Helping) => {
                Some(watts * rate * point.energy_factor?)
            }
            Some(_) => Some(point.idle_w * self.meter.share),
            None if self.meter.turn < 1.0 => {
                Some((point.active_w? * self.meter.turn + point.idle_w * (1.0 - self.meter.turn)) * self.meter.share)
            }
            None => Some(point.active_w? * self.meter.share),
        }
    }
}

impl<S: Sink> Engine<'_, S> {
    /// Time alone that the progress of a run would have taken [ns].
    pub(crate) fn alone_ns(&self, run: &LiveRun) -> f64 {
        if self.course.power.is_some() { run.meter.alone_ns } else { run.done_ns }
    }

    /// Power of a run at full progress at the first operating point, where the profile states its energy [W].
    pub(crate) fn profile_power(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun) -> Option<f64> {
        self.course.power.as_ref()?;
        let mut energy_mj = 0.0;
        for (k, &stage) in stages[..run.members].iter().enumerate() {
            let from = run.start_of(k);
            let cost = cost_of(self.course.system, &self.course.state.stages[stage], p);
            let work = self.work_in(run, stage);
            if k < run.decoders {
                energy_mj += cost.member_energy_mj(work, from, from + run.length, run.decoders as u32)?;
            } else {
                energy_mj += cost.energy_mj(work, from, self.course.hidden[stage.index()].piece_end)?;
            }
        }
        let alone_ns = self.nominal_to(p, stages, run, run.length) * run.factor;
        (alone_ns > 0.0).then(|| energy_mj / alone_ns * 1e6)
    }

    /// Decides on the processors' operating points, given each run's share of the bus.
    pub(crate) fn set_points(&mut self, shares: &[f64]) {
        let Some(mut power) = self.course.power.take() else { return };
        let (system, now) = (self.course.system, self.course.state.now);
        power.pass(&system.platform, now);
        let draw = |p: ProcessorId, point: u32| self.draw(p, point, |index| shares[index]);
        power.decide(&system.platform, now, draw);
        self.course.power = Some(power);
    }

    /// Power of a processor at an operating point, without leakage [W]. `share` is the bandwidth of the n-th run that takes part in
    /// sharing the bus.
    fn draw(&self, p: ProcessorId, point: u32, share: impl Fn(usize) -> f64) -> Option<f64> {
        let model = self.course.system.platform.processors[p].power.as_ref()?;
        let point = &model.points[point as usize];
        if self.runs[p].is_empty() {
            return Some(point.idle_w);
        }
        let taking_part = |runs: &[LiveRun]| runs.iter().filter(|run| run.asks().is_some()).count();
        let mut index: usize = self.runs.iter().take(p.index()).map(|runs| taking_part(runs)).sum();
        let mut sum = self.course.view().idle_share(p) * point.idle_w;
        for (j, run) in self.runs[p].iter().enumerate() {
            let mut rate = 0.0;
            if run.asks().is_some() {
                rate = if run.doing == Doing::Helping || (run.joint.is_some() && run.doing == Doing::Work) {
                    self.rate_by_itself(p, j, share(index), point.speed)
                } else {
                    run.demand.rate(share(index), point.speed)
                };
                index += 1;
            }
            sum += run.draws(point, rate)?;
        }
        Some(sum)
    }

    /// Tells what every run and every processor draws from now on.
    pub(crate) fn set_loads(&mut self) {
        let Some(mut power) = self.course.power.take() else { return };
        let (platform, now) = (&self.course.system.platform, self.course.state.now);
        for p in platform.processors.ids() {
            let unit = &platform.processors[p];
            let model = unit.power.as_ref().expect("all processors of a platform have power models, or none");
            let point = &model.points[power.point(p) as usize];
            let idle = self.course.view().idle_share(p);
            let mut sum = if self.runs[p].is_empty() { Some(point.idle_w) } else { Some(idle * point.idle_w) };
            let busy =
                if unit.division.is_some() { 1.0 - idle } else { self.runs[p].len() as f64 / f64::from(unit.slots) };
            for run in &mut self.runs[p] {
                run.meter.pass(now);
                run.meter.watts = run.draws(point, run.rate);
                sum = sum.zip(run.meter.watts).map(|(sum, watts)| sum + watts);
            }
            power.load(platform, p, sum, busy);
        }
        self.course.power = Some(power);
        self.course.tell_power(false);
    }
}
