//! Several runs of the same scenario: intervals over seeds, paired differences between policies, and which ones to mark
//! as best.
//!
//! Under common random numbers the i-th run of every policy has the same arrivals and sizes, so that differences are
//! taken run by run: what the runs have in common cancels out. Intervals are Student's t at 95%; they assume that the
//! means over runs are close to normal.

use onbeat_core::metric::{Better, Metric};
use onbeat_core::summary::Summary;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean over runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width of the 95% interval around it; `None` for a single run, which says nothing about the spread.
    pub half_width: Option<f64>,
    /// Number of runs.
    pub runs: usize,
}

impl Mean {
    /// Over the runs' values; `None` if there are none or one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let half_width = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            t_quantile(values.len() - 1) * (squares / (n - 1.0) / n).sqrt()
        });
        Some(Self { mean, half_width, runs: values.len() })
    }
}

/// The 97.5% quantile of Student's t distribution.
fn t_quantile(freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom as f64).expect("there is at least one degree of freedom").inverse_cdf(0.975)
}

/// What a paired difference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Better than the baseline: the interval of the difference excludes zero.
    Better,
    /// Worse than the baseline: the interval of the difference excludes zero.
    Worse,
    /// The interval of the difference includes zero.
    WithinNoise,
    /// A single run: the difference may be noise or not.
    OneRun,
    /// The metric has no better and worse.
    Neutral,
}

impl Verdict {
    /// As shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::WithinNoise => "within noise",
            Self::OneRun => "one run",
            Self::Neutral => "neutral",
        }
    }
}

/// A paired difference between two policies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean over runs of (value − baseline), with its interval.
    pub difference: Mean,
    /// What it says.
    pub verdict: Verdict,
}

/// Compares a policy with a baseline, run by run: element i of both comes from the same seed. `None` if there are no
/// runs, the numbers of runs differ, or a value is not finite.
pub fn paired(metric: Metric, values: &[f64], baseline: &[f64]) -> Option<Difference> {
    if values.len() != baseline.len() {
        return None;
    }
    let differences: Vec<f64> = values.iter().zip(baseline).map(|(value, base)| value - base).collect();
    let difference = Mean::of(&differences)?;
    let improvement = match metric.better() {
        Better::Lower => -difference.mean,
        Better::Higher => difference.mean,
        Better::Neutral => return Some(Difference { difference, verdict: Verdict::Neutral }),
    };
    let verdict = match difference.half_width {
        None => Verdict::OneRun,
        // Differences that are pure rounding count as none.
        Some(half) if improvement.abs() <= half.max(1e-12) => Verdict::WithinNoise,
        Some(_) if improvement > 0.0 => Verdict::Better,
        Some(_) => Verdict::Worse,
    };
    Some(Difference { difference, verdict })
}

/// Which policies to mark as best: one entry per policy with its values by run (`None`: the metric does not apply).
///
/// The policy with the best mean is marked, and with it all whose paired difference from it is within the noise – with
/// a single run, all that are equal to it. Nothing is marked if the metric is neutral, if fewer than two policies have
/// it, or if all that have it would be marked.
pub fn best(metric: Metric, policies: &[Option<Vec<f64>>]) -> Vec<bool> {
    let mean = |values: &Option<Vec<f64>>| values.as_deref().and_then(Mean::of).map(|mean| mean.mean);
    let means: Vec<Option<f64>> = policies.iter().map(mean).collect();
    let none = vec![false; policies.len()];
    let known = || means.iter().flatten().copied();
    let best = match metric.better() {
        Better::Lower => known().min_by(f64::total_cmp),
        Better::Higher => known().max_by(f64::total_cmp),
        Better::Neutral => None,
    };
    let Some(best) = best else { return none };
    let Some(first) = means.iter().position(|&mean| mean == Some(best)).and_then(|i| policies[i].as_deref()) else {
        return none;
    };
    let as_good = |values: &Option<Vec<f64>>| {
        values.as_deref().and_then(|values| paired(metric, values, first)).is_some_and(|found| match found.verdict {
            Verdict::Better | Verdict::WithinNoise => true,
            Verdict::OneRun => found.difference.mean == 0.0,
            Verdict::Worse | Verdict::Neutral => false,
        })
    };
    let marks: Vec<bool> = policies.iter().map(as_good).collect();
    let (marked, have_it) = (marks.iter().filter(|&&mark| mark).count(), known().count());
    if marked == have_it { none } else { marks }
}

/// How much the choice of policy matters: the largest less the smallest mean. `None` with fewer than two policies.
pub fn spread(policies: &[Vec<f64>]) -> Option<f64> {
    let means: Option<Vec<f64>> = policies.iter().map(|values| Mean::of(values).map(|mean| mean.mean)).collect();
    let means = means.filter(|means| means.len() > 1)?;
    let (low, high) = means.iter().fold((f64::MAX, f64::MIN), |(low, high), &mean| (low.min(mean), high.max(mean)));
    Some(high - low)
}

/// A metric of the whole run by run; `None` if it does not apply to each of them.
pub fn of_run(summaries: &[Summary], metric: Metric) -> Option<Vec<f64>> {
    summaries.iter().map(|summary| summary.run.get(&metric).copied()).collect()
}

/// A metric of one stream or session, by run; `None` if it does not apply in each of them.
pub fn of_source(summaries: &[Summary], source: usize, metric: Metric) -> Option<Vec<f64>> {
    summaries.iter().map(|summary| summary.sources.get(source)?.values.get(&metric).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOWER: Metric = Metric::ViolationRate;

    #[test]
    fn the_interval_of_a_mean_by_hand() {
        // Mean 3, variance 2.5, t(4) = 2.776445: half width 2.776445 * sqrt(0.5) = 1.963243.
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(mean.mean, 3.0);
        assert!((mean.half_width.unwrap() - 1.963_243).abs() < 1e-5, "{mean:?}");
        assert_eq!(Mean::of(&[4.0]).unwrap().half_width, None);
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[f64::NAN]), None);
    }

    #[test]
    fn pairing_sees_through_noise_that_both_share() {
        let noise = [0.1, 0.5, 0.9, 0.3];
        let worse: Vec<f64> = noise.iter().enumerate().map(|(i, x)| x + 0.05 + 0.001 * i as f64).collect();
        assert_eq!(paired(LOWER, &worse, &noise).unwrap().verdict, Verdict::Worse);
        assert_eq!(paired(LOWER, &noise, &worse).unwrap().verdict, Verdict::Better);
        assert_eq!(paired(Metric::Goodput, &worse, &noise).unwrap().verdict, Verdict::Better);
        assert_eq!(paired(Metric::Utilisation, &worse, &noise).unwrap().verdict, Verdict::Neutral);
        let unrelated = [0.5, 0.1, 0.8, 0.45];
        assert_eq!(paired(LOWER, &unrelated, &noise).unwrap().verdict, Verdict::WithinNoise);
    }

    #[test]
    fn equal_runs_are_within_noise_and_constant_differences_are_not() {
        assert_eq!(paired(LOWER, &[0.2, 0.3], &[0.2, 0.3]).unwrap().verdict, Verdict::WithinNoise);
        assert_eq!(paired(LOWER, &[0.25, 0.25], &[0.5, 0.5]).unwrap().verdict, Verdict::Better);
        assert_eq!(paired(LOWER, &[0.2], &[0.3]).unwrap().verdict, Verdict::OneRun);
        assert_eq!(paired(LOWER, &[0.2], &[0.3, 0.4]), None);
    }

    #[test]
    fn the_best_and_what_cannot_be_told_from_it_are_marked() {
        let policies = [Some(vec![0.10, 0.12, 0.11]), Some(vec![0.11, 0.11, 0.12]), Some(vec![0.50, 0.52, 0.51]), None];
        assert_eq!(best(LOWER, &policies), [true, true, false, false]);
        assert_eq!(best(Metric::Goodput, &policies), [false, false, true, false]);
        assert_eq!(best(Metric::Utilisation, &policies), [false; 4]);
        // One run: only exact ties.
        assert_eq!(best(LOWER, &[Some(vec![0.1]), Some(vec![0.1]), Some(vec![0.2])]), [true, true, false]);
        // Everybody is best: nobody is marked.
        assert_eq!(best(LOWER, &[Some(vec![0.0]), Some(vec![0.0])]), [false, false]);
        assert_eq!(best(LOWER, &[Some(vec![0.1]), None]), [false, false]);
    }

    #[test]
    fn spread_is_between_means() {
        assert_eq!(spread(&[vec![0.0, 0.5], vec![0.75], vec![0.5]]), Some(0.5));
        assert_eq!(spread(&[vec![0.1]]), None);
    }
}
