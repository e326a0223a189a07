//! Speed, power and heat of processors over a run: who asked for which operating point, what heat and the power cap allow, what was
//! drawn so far. The formulas are in [`onbeat_core::power`]; what work draws is the driver's to say.

use onbeat_core::event::{Sink, What};
use onbeat_core::id::{IdVec, ProcessorId};
use onbeat_core::policy::ActionError;
use onbeat_core::power::{Governor, PowerModel, SAME_TEMPERATURE_K};
use onbeat_core::system::{Platform, System};
use onbeat_core::units::Nanos;

use crate::course::Course;

/// Load above which `ondemand` goes to the fastest point (the kernel's default `up_threshold`).
const ONDEMAND_UP: f64 = 0.8;
/// Share of the utilisation that `schedutil` adds as a margin.
const SCHEDUTIL_MARGIN: f64 = 1.25;
/// Half-life of the utilisation that `schedutil` sees [ns].
const SCHEDUTIL_HALF_LIFE_NS: f64 = 32e6;
/// Readings of every processor in a run, besides those at changes.
const READINGS: u64 = 200;

/// What all processors draw and are allowed to.
#[derive(Clone, Debug)]
pub struct Power {
    units: IdVec<ProcessorId, Unit>,
    /// When all processors are read next, and how often.
    read_at: Nanos,
    read_every: Nanos,
    warm_up: Nanos,
}

/// What has happened by itself.
#[derive(Clone, Copy, Debug, Default)]
struct Effects {
    /// Speeds are to be determined anew, or there is something to tell.
    moved: bool,
    /// The policy should know.
    changed: bool,
}

/// One processor.
#[derive(Clone, Debug)]
struct Unit {
    /// Whether its point can be chosen at all.
    adjustable: bool,
    /// The point that governor or policy want.
    wanted: u32,
    /// The fastest point that heat allows.
    allowed: u32,
    /// The point that heat and the power cap leave of what is wanted.
    aim: u32,
    /// The point that it runs at.
    point: u32,
    /// A point on its way, and when it takes effect.
    pending: Option<(Nanos, u32)>,
    /// When its governor looks at the load next.
    tick: Nanos,
    /// Busy time since its governor looked last [ns].
    busy_ns: f64,
    /// What `schedutil` remembers.
    utilisation: f64,
    celsius: f64,
    /// The highest temperature since the last reading.
    peak: f64,
    /// When heat will have something to say.
    heat_at: Nanos,
    /// No step of the throttle before this.
    not_before: Nanos,
    /// Up to when everything is accounted for.
    since: Nanos,
    /// Power since then, without leakage [W].
    dynamic: Option<f64>,
    /// Share of its slots that have been busy since then.
    busy: f64,
    /// Energy so far [mJ].
    energy_mj: Option<f64>,
    /// There is something to tell.
    tell: bool,
}

impl Unit {
    fn new(model: &PowerModel) -> Self {
        let point = match model.governor {
            Governor::Policy => 0,
            Governor::Performance => model.fastest(),
            Governor::Powersave | Governor::Ondemand | Governor::Schedutil => model.slowest(),
        };
        let celsius = model.thermal.map_or(0.0, |node| node.start);
        let several = model.points.len() > 1;
        Self {
            adjustable: several,
            wanted: point,
            allowed: model.fastest(),
            aim: point,
            point,
            pending: None,
            tick: if several && model.governor.samples() { model.period } else { Nanos::MAX },
            busy_ns: 0.0,
            utilisation: 0.0,
            celsius,
            peak: celsius,
            heat_at: Nanos::MAX,
            not_before: Nanos::ZERO,
            since: Nanos::ZERO,
            dynamic: Some(model.points[point as usize].idle_w),
            busy: 0.0,
            energy_mj: Some(0.0),
            tell: true,
        }
    }

    /// Accounts for the time up to `now`.
    fn pass(&mut self, model: &PowerModel, now: Nanos) {
        let time = now.saturating_sub(self.since);
        if time == Nanos::ZERO {
            return;
        }
        self.since = now;
        self.busy_ns += self.busy * time.as_f64();
        let Some(watts) = self.dynamic else {
            self.energy_mj = None;
            return;
        };
        let stretch = model.pass(self.celsius, watts, time);
        // Between two changes the temperature rises or falls throughout.
        self.celsius = stretch.celsius;
        self.peak = self.peak.max(stretch.celsius);
        if let Some(energy) = &mut self.energy_mj {
            *energy += stretch.joules * 1e3;
        }
    }

    fn is_hot(&self, throttle: f64) -> bool {
        self.celsius >= throttle - SAME_TEMPERATURE_K
    }

    /// One step of the throttle, if it is time. Whether there was one.
    fn throttle(&mut self, model: &PowerModel, now: Nanos) -> bool {
        let Some((node, throttle)) = model.thermal.and_then(|node| Some((node, node.throttle?))) else { return false };
        if !self.adjustable || now < self.not_before {
            return false;
        }
        let next = if self.is_hot(throttle) {
            model.slower(self.allowed)
        } else if self.celsius <= node.release + SAME_TEMPERATURE_K {
            model.faster(self.allowed)
        } else {
            None
        };
        let Some(next) = next else { return false };
        self.allowed = next;
        self.not_before = now + node.step;
        true
    }

    /// When the throttle takes its next step if nothing changes before.
    fn next_heat(&self, model: &PowerModel) -> Nanos {
        let Some((node, throttle)) = model.thermal.and_then(|node| Some((node, node.throttle?))) else {
            return Nanos::MAX;
        };
        let Some(watts) = self.dynamic.filter(|_| self.adjustable) else { return Nanos::MAX };
        let until = |threshold| model.time_to(self.celsius, watts, threshold);
        let up = model
            .slower(self.allowed)
            .and_then(|_| if self.is_hot(throttle) { Some(Nanos::ZERO) } else { until(throttle) });
        let cool = self.celsius <= node.release + SAME_TEMPERATURE_K;
        let down = model.faster(self.allowed).and_then(|_| if cool { Some(Nanos::ZERO) } else { until(node.release) });
        let first = up.into_iter().chain(down).min();
        first.map_or(Nanos::MAX, |time| self.since.saturating_add(time).max(self.not_before).max(self.since + Nanos(1)))
    }

    /// Lets a sampling governor choose. Whether it wants another point now.
    fn choose(&mut self, model: &PowerModel) -> bool {
        let period = model.period.as_f64();
        let load = (self.busy_ns / period).min(1.0);
        self.busy_ns = 0.0;
        self.tick += model.period;
        let speed = |point: u32| model.points[point as usize].speed;
        let (slowest, fastest) = (speed(model.slowest()), speed(model.fastest()));
        let wanted = match model.governor {
            Governor::Ondemand if load > ONDEMAND_UP => model.fastest(),
            Governor::Ondemand => model.at_least(slowest + load * (fastest - slowest)),
            Governor::Schedutil => {
                let keep = libm::exp2(-period / SCHEDUTIL_HALF_LIFE_NS);
                let used = load * speed(self.point) / fastest;
                self.utilisation = keep * self.utilisation + (1.0 - keep) * used;
                model.at_least(SCHEDUTIL_MARGIN * fastest * self.utilisation)
            }
            Governor::Policy | Governor::Performance | Governor::Powersave => self.wanted,
        };
        std::mem::replace(&mut self.wanted, wanted) != wanted
    }

    /// Goes where it should, at once or after the transition time.
    fn go(&mut self, model: &PowerModel, now: Nanos) {
        if self.aim == self.point {
            self.pending = None;
        } else if model.transition == Nanos::ZERO {
            self.point = self.aim;
            self.pending = None;
            self.tell = true;
        } else if self.pending.is_none_or(|(_, point)| point != self.aim) {
            self.pending = Some((now + model.transition, self.aim));
        }
    }
}

/// The model of a processor of a platform that has any.
fn model(platform: &Platform, processor: ProcessorId) -> &PowerModel {
    platform.processors[processor].power.as_ref().expect("all processors of a platform have power models, or none")
}

impl Power {
    /// The processors of `system` at time zero; `None` if there is nothing to model.
    pub(crate) fn new(system: &System) -> Option<Self> {
        let models: Option<Vec<&PowerModel>> = system.platform.processors.iter().map(|p| p.power.as_ref()).collect();
        let read_every = Nanos((system.duration.0 / READINGS).max(1_000_000));
        Some(Self {
            units: models?.into_iter().map(Unit::new).collect(),
            read_at: read_every,
            read_every,
            warm_up: system.warm_up,
        })
    }

    /// The point that a processor runs at.
    pub fn point(&self, processor: ProcessorId) -> u32 {
        self.units[processor].point
    }

    /// Nobody can choose the point of this processor: it is a real device.
    fn fix(&mut self, processor: ProcessorId) {
        let unit = &mut self.units[processor];
        (unit.adjustable, unit.tick) = (false, Nanos::MAX);
        (unit.wanted, unit.aim, unit.point, unit.tell) = (0, 0, 0, true);
    }

    /// When something happens next by itself.
    pub(crate) fn next_at(&self) -> Nanos {
        let of = |unit: &Unit| {
            let pending = unit.pending.map_or(Nanos::MAX, |(at, _)| at);
            pending.min(unit.tick).min(unit.heat_at)
        };
        self.units.iter().map(of).fold(self.reading_at(), Nanos::min)
    }

    fn reading_at(&self) -> Nanos {
        if self.warm_up > Nanos::ZERO { self.read_at.min(self.warm_up) } else { self.read_at }
    }

    /// Accounts for the time up to `now`.
    pub fn pass(&mut self, platform: &Platform, now: Nanos) {
        for (p, unit) in self.units.enumerate_mut() {
            unit.pass(model(platform, p), now);
        }
    }

    /// Does what is due at `now`.
    fn expire(&mut self, platform: &Platform, now: Nanos) -> Effects {
        let mut effects = Effects::default();
        if now < self.next_at() {
            return effects;
        }
        self.pass(platform, now);
        let reads = self.reading_at() <= now;
        if reads {
            if self.warm_up > Nanos::ZERO && self.warm_up <= now {
                self.warm_up = Nanos::ZERO;
            }
            while self.read_at <= now {
                self.read_at += self.read_every;
            }
            effects.moved = true;
        }
        for (p, unit) in self.units.enumerate_mut() {
            let model = model(platform, p);
            unit.tell |= reads;
            if let Some((at, point)) = unit.pending
                && at <= now
            {
                unit.point = point;
                unit.pending = None;
                unit.tell = true;
                effects = Effects { moved: true, changed: true };
            }
            if unit.heat_at <= now {
                if unit.throttle(model, now) {
                    unit.tell = true;
                    effects.changed = true;
                }
                effects.moved = true;
            }
            while unit.tick <= now {
                let wants = unit.choose(model);
                effects.moved |= wants;
                effects.changed |= wants;
            }
        }
        effects
    }

    /// Decides on all points, of what is wanted and what heat and the cap allow. `draw` tells what a processor would draw at a point,
    /// without leakage [W].
    pub fn decide(&mut self, platform: &Platform, now: Nanos, draw: impl Fn(ProcessorId, u32) -> Option<f64>) {
        for (p, unit) in self.units.enumerate_mut() {
            unit.aim = model(platform, p).slower_of(unit.wanted, unit.allowed);
        }
        if let Some(cap) = platform.power_cap {
            self.hold(platform, cap, draw);
        }
        for (p, unit) in self.units.enumerate_mut() {
            unit.go(model(platform, p), now);
        }
    }

    /// Slows down what draws most until all together draw no more than the cap.
    fn hold(&mut self, platform: &Platform, cap: f64, draw: impl Fn(ProcessorId, u32) -> Option<f64>) {
        let watts = |p: ProcessorId, point: u32| draw(p, point).unwrap_or(0.0);
        loop {
            let mut total = 0.0;
            let mut most: Option<(f64, ProcessorId, u32)> = None;
            for (p, unit) in self.units.enumerate() {
                let model = model(platform, p);
                let now = watts(p, unit.aim);
                total += model.power(now, unit.celsius);
                let slower = model.slower(unit.aim).filter(|&slower| unit.adjustable && watts(p, slower) < now);
                if let Some(slower) = slower
                    && most.is_none_or(|(most, ..)| now > most)
                {
                    most = Some((now, p, slower));
                }
            }
            match most {
                Some((_, p, slower)) if total > cap * (1.0 + 1e-12) => self.units[p].aim = slower,
                _ => return,
            }
        }
    }

    /// From now on a processor draws so much without leakage [W], and this share of its slots is busy.
    pub fn load(&mut self, platform: &Platform, processor: ProcessorId, dynamic: Option<f64>, busy: f64) {
        let unit = &mut self.units[processor];
        unit.dynamic = dynamic;
        unit.busy = busy;
        unit.heat_at = unit.next_heat(model(platform, processor));
    }
}

impl<S: Sink> Course<'_, S> {
    /// When the speed of a processor may change next by itself; [`Nanos::MAX`] if never.
    pub fn next_power(&self) -> Nanos {
        self.power.as_ref().map_or(Nanos::MAX, Power::next_at)
    }

    /// Does what governors, heat and transitions have to do now. Whether speeds are to be determined anew, with [`Power::decide`].
    pub fn expire_power(&mut self) -> bool {
        let Some(power) = &mut self.power else { return false };
        let effects = power.expire(&self.system.platform, self.state.now);
        self.changed |= effects.changed;
        effects.moved
    }

    /// Like [`Course::expire_power`]; whatever was due, there is something to tell. For records that are to be replayed: that a governor has
    /// looked at the load and left everything as it is decides what it sees the next time.
    pub fn expire_power_and_tell(&mut self) -> bool {
        let due = self.next_power() <= self.state.now;
        self.expire_power();
        if let Some(power) = self.power.as_mut().filter(|_| due) {
            power.units.iter_mut().for_each(|unit| unit.tell = true);
        }
        due
    }

    /// The operating point of a processor cannot be chosen: it is a real device.
    pub fn fix_point(&mut self, processor: ProcessorId) {
        if let Some(power) = &mut self.power {
            power.fix(processor);
            self.tell_power(false);
        }
    }

    pub(crate) fn set_point(&mut self, processor: ProcessorId, point: u32) -> Result<bool, ActionError> {
        let declared = self.system.platform.processors.get(processor).and_then(|p| p.power.as_ref());
        let model = declared.ok_or(ActionError::NoSuchPoint)?;
        if point as usize >= model.points.len() {
            return Err(ActionError::NoSuchPoint);
        }
        if model.governor != Governor::Policy {
            return Err(ActionError::Governed);
        }
        let unit = &mut self.power.as_mut().ok_or(ActionError::NoSuchPoint)?.units[processor];
        if !unit.adjustable && point != 0 {
            return Err(ActionError::NotAdjustable);
        }
        Ok(std::mem::replace(&mut unit.wanted, point) != point)
    }

    /// Brings up to date what policies see.
    pub fn show_power(&mut self) {
        let Some(power) = &mut self.power else { return };
        power.pass(&self.system.platform, self.state.now);
        for (p, unit) in power.units.enumerate() {
            let model = model(&self.system.platform, p);
            let shown = &mut self.state.power[p];
            shown.point = unit.point;
            shown.allowed = unit.allowed;
            shown.throttled = unit.allowed != model.fastest();
            shown.adjustable = unit.adjustable;
            shown.celsius = model.thermal.map(|_| unit.celsius);
            shown.watts = unit.dynamic.map(|watts| model.power(watts, unit.celsius));
        }
    }

    /// Tells the sink what has changed, or `all`.
    pub fn tell_power(&mut self, all: bool) {
        self.show_power();
        let Some(power) = &mut self.power else { return };
        let mut told = std::mem::take(&mut self.told);
        for (p, unit) in power.units.enumerate_mut() {
            if !std::mem::take(&mut unit.tell) && !all {
                continue;
            }
            let shown = &self.state.power[p];
            told.push(What::Power {
                processor: p,
                point: unit.point,
                throttled: shown.throttled,
                watts: shown.watts,
                energy_mj: unit.energy_mj,
                celsius: shown.celsius,
                peak_celsius: shown.celsius.map(|_| unit.peak),
            });
            unit.peak = unit.celsius;
        }
        for what in told.drain(..) {
            self.emit(what);
        }
        self.told = told;
    }
}
