//! Measuring models on devices, for the simulator to count with.

mod company;
mod measure;
mod pairs;
mod pieces;
mod write;

pub(crate) use company::in_company;
pub(crate) use measure::{Measured, Shape, Subject, measure};
pub(crate) use pairs::{Pair, Side, fit_bandwidth, pairs};
pub(crate) use write::{About, Processor, write};

/// A share of samples: `share` of them are at most this. Samples need not be in order.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    // Linear between the samples, as profiles are read (Hyndman and Fan 1996, type 7).
    let position = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * (position - position.floor()),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_lie_between_the_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&samples, 0.0), 1.0);
        assert_eq!(quantile(&samples, 0.5), 2.5);
        assert_eq!(quantile(&samples, 1.0), 4.0);
        assert!((quantile(&samples, 0.9) - 3.7).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
