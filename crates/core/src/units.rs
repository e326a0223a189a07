//! Quantities with their units in the type: [`Nanos`], [`Bytes`], [`Millijoules`].
//!
//! Time is an integer number of nanoseconds, so that sums are exact and the same on every machine; 64 bits
//! hold 584 years.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// A point in time since the start of a run, or a length of time [ns].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The start of a run, or no time at all.
    pub const ZERO: Self = Self(0);
    /// Later than everything that happens: "never", "no deadline".
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds, rounded to the nearest nanosecond. Negative and non-finite values become zero.
    pub fn from_ms(ms: f64) -> Self {
        Self::from_ns_f64(ms * 1e6)
    }

    /// From microseconds, rounded to the nearest nanosecond. Negative and non-finite values become zero.
    pub fn from_us(us: f64) -> Self {
        Self::from_ns_f64(us * 1e3)
    }

    /// From seconds, rounded to the nearest nanosecond. Negative and non-finite values become zero.
    pub fn from_secs(s: f64) -> Self {
        Self::from_ns_f64(s * 1e9)
    }

    /// From a fractional number of nanoseconds, rounded to the nearest. Negative and NaN become zero,
    /// too large becomes [`Nanos::MAX`].
    pub fn from_ns_f64(ns: f64) -> Self {
        Self(ns.round_ties_even() as u64)
    }

    /// In milliseconds.
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In seconds.
    pub fn as_secs(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// As a floating-point number of nanoseconds (exact below 2^53 ns = 104 days).
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }

    /// Sum that stops at [`Nanos::MAX`], so that "never" stays never.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference that stops at zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("simulated time stays below 584 years"))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("a length of time is never negative"))
    }
}

impl SubAssign for Nanos {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Nanos {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Nanos {
    /// With the unit that keeps the number readable: `850 ns`, `12.5 µs`, `33.333 ms`, `2.5 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            u64::MAX => return f.pad("never"),
            0..1_000 => (self.0 as f64, "ns"),
            1_000..1_000_000 => (self.0 as f64 / 1e3, "µs"),
            1_000_000..1_000_000_000 => (self.0 as f64 / 1e6, "ms"),
            _ => (self.0 as f64 / 1e9, "s"),
        };
        let text = format!("{value:.3}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.pad(&format!("{text} {unit}"))
    }
}

/// An amount of memory or of data moved [bytes].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From megabytes (10^6 bytes), rounded to the nearest byte. Negative and NaN become zero.
    pub fn from_mb(mb: f64) -> Self {
        Self((mb * 1e6).round_ties_even() as u64)
    }

    /// In megabytes (10^6 bytes).
    pub fn as_mb(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// As a floating-point number of bytes.
    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }
}

impl Add for Bytes {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("memory sizes stay below 2^64 bytes"))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("memory is freed only after it was allocated"))
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            0..1_000 => return f.pad(&format!("{} B", self.0)),
            1_000..1_000_000 => (self.0 as f64 / 1e3, "kB"),
            1_000_000..1_000_000_000 => (self.0 as f64 / 1e6, "MB"),
            _ => (self.0 as f64 / 1e9, "GB"),
        };
        f.pad(&format!("{value:.1} {unit}"))
    }
}

/// An amount of energy [mJ].
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millijoules(pub f64);

impl Millijoules {
    /// Energy of `watts` drawn for `time`.
    pub fn of_power(watts: f64, time: Nanos) -> Self {
        Self(watts * time.as_ms())
    }
}

impl Add for Millijoules {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Millijoules {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_converts_and_prints_with_a_readable_unit() {
        assert_eq!(Nanos::from_ms(33.333_333_4), Nanos(33_333_333));
        assert_eq!(Nanos::from_ms(-1.0), Nanos::ZERO);
        assert_eq!(Nanos::from_ms(f64::NAN), Nanos::ZERO);
        assert_eq!(Nanos(850).to_string(), "850 ns");
        assert_eq!(Nanos(12_500).to_string(), "12.5 µs");
        assert_eq!(Nanos::from_secs(2.5).to_string(), "2.5 s");
        assert_eq!(Nanos::MAX.to_string(), "never");
        assert_eq!(Nanos::MAX.saturating_add(Nanos(1)), Nanos::MAX);
    }

    #[test]
    fn power_times_time_is_energy() {
        // 2 W for 500 ms is 1 J.
        assert_eq!(Millijoules::of_power(2.0, Nanos::from_ms(500.0)), Millijoules(1000.0));
    }
}
