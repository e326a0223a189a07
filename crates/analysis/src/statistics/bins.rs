//! Quantities over time, in a fixed number of bins.

use onbeat_core::units::Nanos;

/// How many bins a series has (fewer only if the run is shorter than so many nanoseconds).
pub(super) const BINS: u64 = 240;

/// An amount spread over equal bins of the run: busy time, or bytes.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    end: u64,
    width: u64,
    amounts: Vec<f64>,
}

impl Bins {
    /// Bins from 0 to `end`. Their width is rounded up to whole nanoseconds; the last one is shorter by what is left over.
    pub(super) fn new(end: Nanos) -> Self {
        let width = end.0.div_ceil(BINS).max(1);
        Self { end: end.0, width, amounts: vec![0.0; end.0.div_ceil(width) as usize] }
    }

    /// Adds `rate` per nanosecond over an interval; what lies past the end is left out.
    pub(super) fn add(&mut self, from: Nanos, to: Nanos, rate: f64) {
        let (mut from, to) = (from.0, to.0.min(self.end));
        while from < to {
            let bin = from / self.width;
            let until = ((bin + 1) * self.width).min(to);
            self.amounts[bin as usize] += (until - from) as f64 * rate;
            from = until;
        }
    }

    /// Mean rate in each bin.
    pub(super) fn rates(&self) -> Vec<f64> {
        let width = |i: usize| self.width.min(self.end - i as u64 * self.width) as f64;
        self.amounts.iter().enumerate().map(|(i, amount)| amount / width(i)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_land_in_the_bins_that_they_span() {
        let mut bins = Bins::new(Nanos(2400));
        bins.add(Nanos(5), Nanos(25), 1.0);
        bins.add(Nanos(2395), Nanos(9999), 2.0);
        let rates = bins.rates();
        assert_eq!(rates.len(), 240);
        assert_eq!(rates[..4], [0.5, 1.0, 0.5, 0.0]);
        assert_eq!(rates[239], 1.0);
    }

    #[test]
    fn the_last_bin_is_as_long_as_what_is_left() {
        let mut bins = Bins::new(Nanos(1000)); // Bins of 5 ns: 200 of them.
        bins.add(Nanos(0), Nanos(1000), 3.0);
        assert_eq!(bins.rates(), vec![3.0; 200]);
        let mut odd = Bins::new(Nanos(1001));
        odd.add(Nanos(0), Nanos(1001), 3.0);
        assert_eq!(odd.rates(), vec![3.0; 201]);
    }
}
