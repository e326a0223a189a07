//! Samples of a length of time: exact while they are few, a histogram of fixed size when they are many.

use hdrhistogram::Histogram;
use onbeat_core::units::Nanos;

/// Up to so many samples are kept as they are, so that percentiles are exact.
pub(super) const EXACT: usize = 8192;

/// Significant decimal digits of the histogram: percentiles of more than [`EXACT`] samples have a relative error of at
/// most 0.1%.
const DIGITS: u8 = 3;

/// The most points of a distribution function.
const ECDF_POINTS: usize = 200;

/// Samples of a length of time. Count, mean, standard deviation, minimum and maximum are always exact; percentiles are
/// exact up to [`EXACT`] samples and within 0.1% beyond.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    count: u64,
    sum: u128,
    // Welford's running mean and sum of squared deviations.
    mean: f64,
    squares: f64,
    min: u64,
    max: u64,
    exact: Vec<u64>,
    many: Option<Box<Histogram<u32>>>,
}

impl Samples {
    pub(super) const fn new() -> Self {
        Self { count: 0, sum: 0, mean: 0.0, squares: 0.0, min: u64::MAX, max: 0, exact: Vec::new(), many: None }
    }

    pub(super) fn add(&mut self, sample: Nanos) {
        let value = sample.0;
        self.count += 1;
        self.sum += u128::from(value);
        let delta = value as f64 - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value as f64 - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.store(value);
    }

    fn store(&mut self, value: u64) {
        if let Some(many) = &mut self.many {
            many.saturating_record(value);
            return;
        }
        if self.exact.len() == EXACT {
            self.spill();
            self.store(value);
        } else {
            self.exact.push(value);
        }
    }

    fn spill(&mut self) {
        // Up to 1000 hours in nanoseconds; `saturating_record` holds longer ones at that.
        let mut many = Histogram::new_with_bounds(1, 3_600_000_000_000_000, DIGITS)
            .expect("the bounds and digits are valid constants");
        for value in std::mem::take(&mut self.exact) {
            many.saturating_record(value);
        }
        self.many = Some(Box::new(many));
    }

    /// Adds all samples of another set.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * m / (n + m);
        self.squares += other.squares + delta * delta * n * m / (n + m);
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        for &value in &other.exact {
            self.store(value);
        }
        if let Some(theirs) = &other.many {
            if self.many.is_none() {
                self.spill();
            }
            let ours = self.many.as_mut().expect("spilled above");
            ours.add(theirs.as_ref()).expect("all histograms have the same bounds");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Mean [ms].
    pub(super) fn mean_ms(&self) -> f64 {
        self.sum as f64 / self.count as f64 / 1e6
    }

    /// Sample standard deviation (n − 1) [ms]; `None` for fewer than two samples.
    pub(super) fn deviation_ms(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / (self.count - 1) as f64).sqrt() / 1e6)
    }

    /// Largest sample [ms].
    pub(super) fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }

    /// The samples at these ranks (1 = smallest; increasing) with the number of samples at or below each.
    fn at_ranks(&self, ranks: &[u64]) -> Vec<(f64, u64)> {
        let Some(many) = &self.many else {
            let mut sorted = self.exact.clone();
            sorted.sort_unstable();
            let at = |&rank: &u64| {
                let value = sorted[rank as usize - 1];
                (value as f64, sorted.partition_point(|&other| other <= value) as u64)
            };
            return ranks.iter().map(at).collect();
        };
        let mut found = Vec::with_capacity(ranks.len());
        let mut below = 0;
        for bucket in many.iter_recorded() {
            below += bucket.count_since_last_iteration();
            let value = many.median_equivalent(bucket.value_iterated_to()).clamp(self.min, self.max);
            let value = if below == self.count { self.max } else { value };
            while found.len() < ranks.len() && ranks[found.len()] <= below {
                found.push((value as f64, below));
            }
        }
        found
    }

    /// Percentiles by nearest rank [ms]: the smallest sample such that at least so many per mille of all are at or below it.
    /// `per_mille` increases. Empty without samples.
    pub(super) fn percentiles_ms(&self, per_mille: &[u64]) -> Vec<f64> {
        if self.is_empty() {
            return Vec::new();
        }
        let ranks: Vec<u64> = per_mille.iter().map(|p| (self.count * p).div_ceil(1000).max(1)).collect();
        self.at_ranks(&ranks).into_iter().map(|(ns, _)| ns / 1e6).collect()
    }

    /// The empirical distribution function: at most [`ECDF_POINTS`] points of (value [ms], fraction of samples at or
    /// below), strictly increasing in both; the last one is (maximum, 1).
    pub(super) fn ecdf(&self) -> Vec<(f64, f64)> {
        let points = (ECDF_POINTS as u64).min(self.count);
        let ranks: Vec<u64> = (1..=points).map(|i| (self.count * i).div_ceil(points)).collect();
        let mut curve: Vec<(f64, f64)> =
            self.at_ranks(&ranks).into_iter().map(|(ns, below)| (ns / 1e6, below as f64 / self.count as f64)).collect();
        curve.dedup_by(|next, kept| next.0 == kept.0);
        curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ms(values: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::new();
        for ms in values {
            samples.add(Nanos(ms * 1_000_000));
        }
        samples
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        // The textbook case: the 50th percentile of five samples is the third.
        assert_eq!(
            of_ms([15, 20, 35, 40, 50]).percentiles_ms(&[50, 300, 400, 500, 1000]),
            [15.0, 20.0, 20.0, 35.0, 50.0]
        );
        assert_eq!(of_ms((1..=100).rev()).percentiles_ms(&[500, 950, 990]), [50.0, 95.0, 99.0]);
        assert_eq!(of_ms([7]).percentiles_ms(&[500, 990]), [7.0, 7.0]);
        assert!(of_ms([]).percentiles_ms(&[500]).is_empty());
    }

    #[test]
    fn mean_and_deviation_by_hand() {
        let samples = of_ms([2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!(samples.mean_ms(), 5.0);
        // Squared deviations sum to 32; 32 / 7.
        assert!((samples.deviation_ms().unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(of_ms([3]).deviation_ms(), None);
    }

    #[test]
    fn many_samples_stay_within_a_thousandth() {
        let samples = of_ms((1..=100_000).map(|i| i * 7 % 100_003));
        assert!(samples.many.is_some());
        let mut sorted: Vec<u64> = (1..=100_000).map(|i| i * 7 % 100_003).collect();
        sorted.sort_unstable();
        for (permille, got) in [500, 950, 990].into_iter().zip(samples.percentiles_ms(&[500, 950, 990])) {
            let exact = sorted[permille * 100 - 1] as f64;
            assert!((got / exact - 1.0).abs() <= 1e-3, "{got} against {exact}");
        }
        let curve = samples.ecdf();
        assert!(curve.len() <= 200 && curve.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
        assert_eq!(*curve.last().unwrap(), (samples.max_ms(), 1.0));
    }

    #[test]
    fn the_distribution_function_counts_ties() {
        assert_eq!(of_ms([1, 1, 1, 5]).ecdf(), [(1.0, 0.75), (5.0, 1.0)]);
        assert!(of_ms([]).ecdf().is_empty());
    }

    #[test]
    fn merging_is_like_adding() {
        let (a, b): (Vec<u64>, Vec<u64>) = ((1..500).collect(), (300..12_000).collect());
        let mut merged = of_ms(a.iter().copied());
        merged.merge(&of_ms(b.iter().copied()));
        let whole = of_ms(a.into_iter().chain(b));
        assert_eq!(merged.percentiles_ms(&[500, 990]), whole.percentiles_ms(&[500, 990]));
        assert_eq!(merged.mean_ms(), whole.mean_ms());
        let (got, want) = (merged.deviation_ms().unwrap(), whole.deviation_ms().unwrap());
        assert!((got / want - 1.0).abs() < 1e-12);
    }
}
