//! Power and heat of a processor: operating points, leakage, and a thermal node, with their closed forms.
//!
//! A processor draws *dynamic* power, which the work at hand, its operating point and idling decide, and *leakage*, which grows with
//! temperature:
//!
//! ```text
//! P(T) = D + L · (1 + β · (T − T₀))          C · dT/dt = P(T) − (T − Tₐ) / R
//! ```
//!
//! `D` is constant between two changes of the schedule. So the temperature goes exponentially to an equilibrium, and temperature,
//! energy and the time at which a threshold is reached are computed in closed form: there is no step width. Leakage that is linear in
//! temperature is within a few percent of detailed models over the range in which chips work (Liu, Dick, Shang and Yang, Accurate
//! Temperature-Dependent Integrated Circuit Leakage Power Estimation is Easy, DATE 2007).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Nanos;

/// How fast a processor can run, what it draws, and how it heats up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerModel {
    /// The speeds that it can run at, at least one; the first is the one that profiles were taken at.
    pub points: Vec<OperatingPoint>,
    /// Time from the request for another point until it takes effect; work goes on at the old one meanwhile.
    pub transition: Nanos,
    /// Who chooses the point.
    pub governor: Governor,
    /// How often `ondemand` and `schedutil` choose.
    pub period: Nanos,
    /// Power that it draws always.
    pub leakage: Leakage,
    /// How it heats up; `None`: its temperature is not modelled.
    pub thermal: Option<Thermal>,
}

/// One speed of a processor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Name.
    pub name: String,
    /// Speed of the compute-bound part of work relative to the first point, > 0.
    pub speed: f64,
    /// Power while busy, for work whose profile states no energy [W]; `None`: unknown.
    pub active_w: Option<f64>,
    /// Energy of work relative to the profile's figure; `None`: unknown.
    pub energy_factor: Option<f64>,
    /// Power while idle [W].
    pub idle_w: f64,
}

/// Power that a processor draws whatever it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// At the reference temperature [W], ≥ 0.
    pub watts: f64,
    /// Growth per kelvin above it, relative to `watts` [1/K], ≥ 0.
    pub per_kelvin: f64,
    /// The reference temperature [°C].
    pub reference: f64,
}

/// A thermal node: one heat capacity behind one resistance to surroundings of constant temperature, and a throttle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thermal {
    /// Resistance to the surroundings, R [K/W], > 0.
    pub resistance: f64,
    /// Heat capacity, C [J/K], > 0.
    pub capacitance: f64,
    /// Temperature of the surroundings, Tₐ [°C].
    pub ambient: f64,
    /// Temperature at the start of the run [°C].
    pub start: f64,
    /// From here on the processor is slowed down by one point per `step` [°C].
    pub throttle: Option<f64>,
    /// From here down it is sped up again, one point per `step` [°C], below `throttle`.
    pub release: f64,
    /// Least time between two such steps.
    pub step: Nanos,
}

/// Who chooses a processor's operating point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Governor {
    /// The scheduling policy; one that does not care leaves the first point.
    #[default]
    Policy,
    /// Always the fastest point.
    Performance,
    /// Always the slowest point.
    Powersave,
    /// Linux's `ondemand`: by the load of the last period.
    Ondemand,
    /// After Linux's `schedutil`: by a decaying average of the load, with a margin of a quarter.
    Schedutil,
}

impl Governor {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Policy, Self::Performance, Self::Powersave, Self::Ondemand, Self::Schedutil];

    /// The name as written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Performance => "performance",
            Self::Powersave => "powersave",
            Self::Ondemand => "ondemand",
            Self::Schedutil => "schedutil",
        }
    }

    /// Whether it looks at the load once per period.
    pub fn samples(self) -> bool {
        matches!(self, Self::Ondemand | Self::Schedutil)
    }
}

impl std::str::FromStr for Governor {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|governor| governor.name() == name);
        known.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|governor| governor.name()).collect();
            format!("there is no governor `{name}`; governors are {}", names.join(", "))
        })
    }
}

/// A stretch of time at constant dynamic power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Temperature at its end [°C]; meaningless without a thermal node.
    pub celsius: f64,
    /// Energy that it took, leakage included [J].
    pub joules: f64,
}

/// Temperatures closer than this count as equal [K]: rounding of times to nanoseconds and of exponentials.
pub const SAME_TEMPERATURE_K: f64 = 1e-6;

impl Leakage {
    /// Power at a temperature [W].
    pub fn at(&self, celsius: f64) -> f64 {
        self.watts * (1.0 + self.per_kelvin * (celsius - self.reference))
    }
}

impl PowerModel {
    /// A processor with one speed.
    pub fn fixed(idle_w: f64, active_w: Option<f64>) -> Self {
        let point = OperatingPoint { name: String::new(), speed: 1.0, active_w, energy_factor: Some(1.0), idle_w };
        Self {
            points: vec![point],
            transition: Nanos::ZERO,
            governor: Governor::Policy,
            period: Nanos::from_ms(10.0),
            leakage: Leakage::default(),
            thermal: None,
        }
    }

    /// The fastest point (ties: the first).
    pub fn fastest(&self) -> u32 {
        self.extreme(|speed, best| speed > best)
    }

    /// The slowest point (ties: the first).
    pub fn slowest(&self) -> u32 {
        self.extreme(|speed, best| speed < best)
    }

    fn extreme(&self, better: impl Fn(f64, f64) -> bool) -> u32 {
        let mut best = 0;
        for (i, point) in self.points.iter().enumerate() {
            if better(point.speed, self.points[best].speed) {
                best = i;
            }
        }
        best as u32
    }

    /// The slowest point that is at least so fast; the fastest if none is.
    pub fn at_least(&self, speed: f64) -> u32 {
        let able = self.points.iter().enumerate().filter(|(_, point)| point.speed >= speed * (1.0 - 1e-9));
        let slowest = able.min_by(|a, b| a.1.speed.total_cmp(&b.1.speed).then(a.0.cmp(&b.0)));
        slowest.map_or_else(|| self.fastest(), |(i, _)| i as u32)
    }

    /// The next slower point, if there is one.
    pub fn slower(&self, point: u32) -> Option<u32> {
        let speed = self.points[point as usize].speed;
        let below = self.points.iter().enumerate().filter(|(_, other)| other.speed < speed);
        below.max_by(|a, b| a.1.speed.total_cmp(&b.1.speed).then(b.0.cmp(&a.0))).map(|(i, _)| i as u32)
    }

    /// The next faster point, if there is one.
    pub fn faster(&self, point: u32) -> Option<u32> {
        let speed = self.points[point as usize].speed;
        let above = self.points.iter().enumerate().filter(|(_, other)| other.speed > speed);
        above.min_by(|a, b| a.1.speed.total_cmp(&b.1.speed).then(a.0.cmp(&b.0))).map(|(i, _)| i as u32)
    }

    /// The slower of two points (ties: the first).
    pub fn slower_of(&self, a: u32, b: u32) -> u32 {
        let speed = |point: u32| self.points[point as usize].speed;
        if speed(b) < speed(a) { b } else { a }
    }

    /// Power at a temperature [W].
    pub fn power(&self, dynamic_w: f64, celsius: f64) -> f64 {
        dynamic_w + if self.thermal.is_some() { self.leakage.at(celsius) } else { self.leakage.watts }
    }

    /// The temperature that it goes to under constant dynamic power [°C], and the time constant [s].
    pub fn equilibrium(&self, dynamic_w: f64) -> Option<(f64, f64)> {
        let node = self.thermal.as_ref()?;
        // C dT/dt = (D + L (1 − β T₀) + Tₐ/R) − (1/R − L β) T.
        let conductance = 1.0 / node.resistance - self.leakage.watts * self.leakage.per_kelvin;
        let inflow = self.power(dynamic_w, 0.0) + node.ambient / node.resistance;
        Some((inflow / conductance, node.capacitance / conductance))
    }

    /// What happens within `time` at constant dynamic power, from a temperature.
    pub fn pass(&self, celsius: f64, dynamic_w: f64, time: Nanos) -> Stretch {
        let seconds = time.as_secs();
        let Some((goal, tau)) = self.equilibrium(dynamic_w) else {
            return Stretch { celsius, joules: (dynamic_w + self.leakage.watts) * seconds };
        };
        // 1 − e^(−t/τ), without cancellation for short times.
        let share = -libm::expm1(-seconds / tau);
        let end = celsius + (goal - celsius) * share;
        // The integral of T over the time is goal·t + (T(0) − goal)·τ·share.
        let excess = self.leakage.watts * self.leakage.per_kelvin * (celsius - goal) * tau * share;
        Stretch { celsius: end, joules: self.power(dynamic_w, goal) * seconds + excess }
    }

    /// How long it takes from one temperature to another at constant dynamic power, rounded up; `None` if it is never reached or has
    /// been left already.
    pub fn time_to(&self, celsius: f64, dynamic_w: f64, threshold: f64) -> Option<Nanos> {
        let (goal, tau) = self.equilibrium(dynamic_w)?;
        let ratio = (celsius - goal) / (threshold - goal);
        if !ratio.is_finite() || ratio <= 1.0 {
            return None;
        }
        let seconds = tau * libm::log(ratio);
        Some(Nanos((seconds * 1e9).ceil() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R = 10 K/W, C = 2 J/K, so RC = 20 s; 25 °C around.
    fn node(leakage: Leakage) -> PowerModel {
        let thermal = Thermal {
            resistance: 10.0,
            capacitance: 2.0,
            ambient: 25.0,
            start: 25.0,
            throttle: Some(45.0),
            release: 40.0,
            step: Nanos::from_ms(100.0),
        };
        PowerModel { leakage, thermal: Some(thermal), ..PowerModel::fixed(0.0, Some(3.0)) }
    }

    #[test]
    fn the_node_follows_the_textbook_formula() {
        let model = node(Leakage::default());
        assert_eq!(model.equilibrium(3.0), Some((55.0, 20.0)), "25 °C + 3 W x 10 K/W");
        for seconds in [0.001, 1.0, 20.0, 100.0] {
            let after = model.pass(25.0, 3.0, Nanos::from_secs(seconds));
            let expected = 25.0 + 3.0 * 10.0 * (1.0 - libm::exp(-seconds / 20.0));
            assert!((after.celsius - expected).abs() < 1e-9, "{seconds} s: {} instead of {expected}", after.celsius);
            assert!((after.joules - 3.0 * seconds).abs() < 1e-9);
        }
        // One time constant: 63.2% of the way.
        assert!((model.pass(25.0, 3.0, Nanos::from_secs(20.0)).celsius - 43.963_616_764_856_73).abs() < 1e-9);
        // 45 °C is 2/3 of the way: 20 s x ln 3 = 21.972245773 s.
        assert_eq!(model.time_to(25.0, 3.0, 45.0), Some(Nanos(21_972_245_774)));
        assert_eq!(model.time_to(25.0, 1.9, 45.0), None, "goes to 44 °C only");
        assert_eq!(model.time_to(46.0, 3.0, 45.0), None, "is above already, and goes up");
        assert_eq!(model.time_to(45.0, 0.0, 40.0), Some(Nanos(5_753_641_450)), "20 s x ln(20/15)");
    }

    #[test]
    fn leakage_that_grows_with_temperature_is_integrated_exactly() {
        // 0.5 W at 25 °C and 2% more per kelvin: 1/R − Lβ = 0.1 − 0.01 = 0.09; goal 25 + (3 + 0.5)/0.09.
        let model = node(Leakage { watts: 0.5, per_kelvin: 0.02, reference: 25.0 });
        let (goal, tau) = model.equilibrium(3.0).unwrap();
        assert!((goal - (25.0 + 3.5 / 0.09)).abs() < 1e-9 && (tau - 2.0 / 0.09).abs() < 1e-9);
        // Against ten million steps of Euler's method.
        let (mut celsius, mut joules, step) = (30.0_f64, 0.0, 1e-6);
        for _ in 0..10_000_000 {
            let power = 3.0 + 0.5 * (1.0 + 0.02 * (celsius - 25.0));
            joules += power * step;
            celsius += (power - (celsius - 25.0) / 10.0) / 2.0 * step;
        }
        let exact = model.pass(30.0, 3.0, Nanos::from_secs(10.0));
        assert!((exact.celsius - celsius).abs() < 1e-5, "{} and {celsius}", exact.celsius);
        assert!((exact.joules - joules).abs() < 1e-5, "{} and {joules}", exact.joules);
    }

    #[test]
    fn heat_is_conserved() {
        // What was drawn is either stored or has gone to the surroundings.
        let model = node(Leakage { watts: 0.5, per_kelvin: 0.02, reference: 25.0 });
        let (mut celsius, mut drawn, mut lost) = (25.0, 0.0, 0.0);
        for (watts, ms) in [(4.0, 1500.0), (0.1, 800.0), (6.0, 20_000.0), (0.0, 3.0)] {
            let (goal, tau) = model.equilibrium(watts).unwrap();
            let after = model.pass(celsius, watts, Nanos::from_ms(ms));
            let mean_time = goal * ms / 1e3 + (celsius - after.celsius) * tau;
            lost += (mean_time - 25.0 * ms / 1e3) / 10.0;
            drawn += after.joules;
            celsius = after.celsius;
        }
        assert!((drawn - lost - 2.0 * (celsius - 25.0)).abs() < 1e-9, "{drawn} J drawn, {lost} J lost, {celsius} °C");
    }

    #[test]
    fn points_are_ordered_by_speed() {
        let mut model = PowerModel::fixed(0.0, None);
        for speed in [0.5, 1.5, 0.75] {
            model.points.push(OperatingPoint { speed, ..model.points[0].clone() });
        }
        assert_eq!((model.fastest(), model.slowest()), (2, 1));
        assert_eq!((model.slower(0), model.slower(3), model.slower(1)), (Some(3), Some(1), None));
        assert_eq!((model.faster(0), model.faster(2), model.faster(1)), (Some(2), None, Some(3)));
        assert_eq!((model.at_least(0.6), model.at_least(0.5), model.at_least(9.0)), (3, 1, 2));
        assert_eq!(model.slower_of(2, 3), 3);
    }
}
