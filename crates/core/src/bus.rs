//! The memory bus: how fast each running segment gets on when several share it. The simulator goes by these rules, and policies that
//! foresee contention do.
//!
//! A run that takes `T` alone and moves `B` bytes draws `d = B / T` on average. Alone it could draw at most `b`, the smaller of its
//! processor's limit and the bus's bandwidth. So it is bound by memory for the fraction `m = d / b` of its time, during which it
//! draws `p = b`, and by something else for the rest. With a share `a ≤ p` of the bus the memory-bound part stretches by `p / a`:
//! the run progresses at the rate `1 / ((1 - m) + m·p/a)`. Shares are max-min fair over all running segments, first within a
//! processor's limit, then on the bus.
//!
//! On a processor at another operating point, the rest takes as long as its speed `s` says: `1 / ((1 - m)/s + m·p/a)`.
//!
//! The memory-bound parts of concurrent runs are assumed to coincide. Below saturation that is the pessimistic end.

/// What a run asks of the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Fraction of its time alone in which it is bound by memory, 0 to 1.
    pub memory_bound: f64,
    /// What it draws in that part [bytes/ns].
    pub peak: f64,
}

impl Demand {
    /// Asks for nothing.
    pub const NONE: Self = Self { memory_bound: 0.0, peak: 0.0 };

    /// Demand of a run that alone takes `alone_ns` and moves `bytes`, where at most `limit` can be drawn [bytes/ns]. Bytes that
    /// would not fit into the profiled time are left out, for alone it takes its profiled time.
    pub fn new(bytes: f64, alone_ns: f64, limit: f64) -> Self {
        if bytes <= 0.0 || alone_ns <= 0.0 {
            return Self::NONE;
        }
        Self { memory_bound: (bytes / alone_ns / limit).min(1.0), peak: limit }
    }

    /// Rate of progress with a share of the bus [bytes/ns], on a processor at a speed relative to the profiled one.
    pub fn rate(self, share: f64, speed: f64) -> f64 {
        if share >= self.peak {
            return if speed == 1.0 { 1.0 } else { 1.0 / ((1.0 - self.memory_bound) / speed + self.memory_bound) };
        }
        1.0 / ((1.0 - self.memory_bound) / speed + self.memory_bound * self.peak / share)
    }

    /// What it draws when bound by memory [bytes/ns]; nothing if it never is.
    pub fn asks(self) -> f64 {
        if self.memory_bound > 0.0 { self.peak } else { 0.0 }
    }

    /// Mean traffic at a rate of progress [bytes/ns].
    pub fn traffic(self, rate: f64) -> f64 {
        self.memory_bound * self.peak * rate
    }
}

/// Shares `capacity` max-min fairly: everybody gets what they ask for or the common level, whichever is smaller, and the level is as
/// high as possible. Replaces each entry of `demands` by its share. `order` is scratch.
#[inline]
pub fn share_max_min(capacity: f64, demands: &mut [f64], order: &mut Vec<usize>) {
    if demands.iter().sum::<f64>() > capacity {
        share_scarce(capacity, demands, order);
    }
}

/// The same where there is not enough for all.
fn share_scarce(capacity: f64, demands: &mut [f64], order: &mut Vec<usize>) {
    order.clear();
    order.extend(0..demands.len());
    order.sort_by(|&a, &b| demands[a].total_cmp(&demands[b]));
    let mut left = capacity;
    for (served, &i) in order.iter().enumerate() {
        let level = left / (order.len() - served) as f64;
        demands[i] = demands[i].min(level);
        left -= demands[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(capacity: f64, demands: &[f64]) -> Vec<f64> {
        let mut shares = demands.to_vec();
        share_max_min(capacity, &mut shares, &mut Vec::new());
        shares
    }

    #[test]
    fn small_demands_are_met_and_large_ones_share_the_rest() {
        assert_eq!(shares(10.0, &[2.0, 3.0]), [2.0, 3.0]);
        assert_eq!(shares(10.0, &[8.0, 8.0]), [5.0, 5.0]);
        // Bertsekas and Gallager's kind of example: 2 is below every level; the others share 8.
        assert_eq!(shares(10.0, &[9.0, 2.0, 4.5]), [4.0, 2.0, 4.0]);
        assert_eq!(shares(10.0, &[9.0, 2.0, 3.0]), [5.0, 2.0, 3.0]);
    }

    #[test]
    fn only_the_memory_bound_part_slows_down() {
        // 60 MB in 1 ms at a limit of 100 bytes/ns: bound by memory 60% of the time.
        let demand = Demand::new(60e6, 1e6, 100.0);
        assert_eq!(demand, Demand { memory_bound: 0.6, peak: 100.0 });
        assert_eq!(demand.rate(100.0, 1.0), 1.0);
        // Half of the peak: 0.4 + 0.6 * 2 = 1.6 times as long.
        assert!((demand.rate(50.0, 1.0) - 1.0 / 1.6).abs() < 1e-15);
        assert_eq!(Demand::new(0.0, 1e6, 100.0).rate(0.0, 1.0), 1.0);
        // At half the clock, the compute-bound part takes twice as long: 0.4 * 2 + 0.6 alone, 0.4 * 2 + 0.6 * 2 with half of the peak.
        assert!((demand.rate(100.0, 0.5) - 1.0 / 1.4).abs() < 1e-15);
        assert!((demand.rate(50.0, 0.5) - 1.0 / 2.0).abs() < 1e-15);
        // At twice the clock, a run that is always bound by memory is no faster; one that never is is twice as fast.
        assert_eq!(Demand::new(100e6, 1e6, 100.0).rate(100.0, 2.0), 1.0);
        assert_eq!(Demand::NONE.rate(0.0, 2.0), 2.0);
        // More bytes than fit into the profiled time are left out.
        assert_eq!(Demand::new(500e6, 1e6, 100.0).memory_bound, 1.0);
    }
}
