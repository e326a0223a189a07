//! Operating points, temperatures and energy of a processor, from its readings.

use onbeat_core::system::{Processor, System};
use onbeat_core::units::{Millijoules, Nanos};

use super::bins::Bins;

/// What one event says about a processor's power.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) point: u32,
    pub(super) throttled: bool,
    pub(super) energy_mj: Option<f64>,
    pub(super) celsius: Option<f64>,
    pub(super) peak_celsius: Option<f64>,
}

/// What the readings of one processor come to within the measured time.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    at: Nanos,
    last: Reading,
    /// Energy up to the end of the warm-up.
    before_mj: Option<f64>,
    pub(super) time_by_point: Vec<Nanos>,
    pub(super) throttled: Nanos,
    pub(super) peak: Option<f64>,
    /// Over the whole run.
    pub(super) speed: Bins,
    pub(super) celsius: Bins,
}

impl Readings {
    /// The first reading.
    pub(super) fn new(system: &System, unit: &Processor, at: Nanos, first: &Reading) -> Self {
        Self {
            at,
            last: *first,
            before_mj: first.energy_mj,
            time_by_point: vec![Nanos::ZERO; unit.power.as_ref().map_or(0, |model| model.points.len())],
            throttled: Nanos::ZERO,
            peak: first.celsius.filter(|_| system.warm_up == Nanos::ZERO),
            speed: Bins::new(system.duration),
            celsius: Bins::new(system.duration),
        }
    }

    /// The next reading.
    pub(super) fn add(&mut self, system: &System, unit: &Processor, at: Nanos, next: &Reading) {
        let measured = at.min(system.duration).saturating_sub(self.at.max(system.warm_up));
        if let Some(time) = self.time_by_point.get_mut(self.last.point as usize) {
            *time += measured;
        }
        if self.last.throttled {
            self.throttled += measured;
        }
        let points = unit.power.as_ref().map(|model| &model.points);
        if let Some(point) = points.and_then(|points| points.get(self.last.point as usize)) {
            self.speed.add(self.at, at, point.speed);
        }
        if let (Some(from), Some(to)) = (self.last.celsius, next.celsius) {
            self.celsius.add(self.at, at, f64::midpoint(from, to));
        }
        // In a simulation there is a reading at the end of the warm-up; in real time it is a little late.
        if self.at < system.warm_up {
            let share = (system.warm_up.min(at) - self.at).as_f64() / (at - self.at).as_f64().max(1.0);
            let energies = self.last.energy_mj.zip(next.energy_mj);
            self.before_mj = energies.map(|(from, to)| from + (to - from) * share);
        }
        if at <= system.warm_up {
            self.peak = next.celsius.filter(|_| at == system.warm_up);
        } else if let Some(peak) = next.peak_celsius {
            self.peak = Some(self.peak.map_or(peak, |before| before.max(peak)));
        }
        (self.at, self.last) = (at, *next);
    }

    /// Energy within the measured time; `None` if unknown.
    pub(super) fn energy(&self) -> Option<Millijoules> {
        Some(Millijoules(self.last.energy_mj? - self.before_mj?))
    }
}
