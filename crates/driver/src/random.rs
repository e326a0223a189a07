//! Random numbers: one stream per source for arrivals, and numbers that depend only on (seed, source, job, stage) for
//! everything within a job. Adding a stream to a scenario, or choosing another policy, changes nobody else's numbers.
//!
//! Sampling is written out over `libm` instead of taken from a crate, because the same seed must give the same bytes of record
//! on every machine, and the platform's `ln` and `cos` differ in their last digits.

use onbeat_core::distribution::{Distribution, Family};
use onbeat_core::spec::VariationKind;
use onbeat_core::system::Variation;
use rand::Rng;
use rand_pcg::Pcg64Mcg;

/// A stream of random numbers.
pub(crate) type Random = Pcg64Mcg;

/// A key from which streams are derived; equal inputs give equal keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of a named source under a seed.
    pub(crate) fn of_source(seed: u64, name: &str) -> Self {
        // FNV-1a: stable over versions and machines, which `std`'s hashers do not promise.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(mix(seed ^ mix(hash)))
    }

    /// The key of a part, by number.
    pub(crate) fn part(self, number: u64) -> Self {
        Self(mix(self.0 ^ mix(number.wrapping_add(0x5851_f42d_4c95_7f2d))))
    }

    /// The stream that belongs to the key.
    pub(crate) fn stream(self) -> Random {
        // The generator's state must be odd; `new` makes it so.
        Random::new((u128::from(mix(self.0)) << 64) | u128::from(mix(self.0 ^ 0x9e37_79b9_7f4a_7c15)))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in [0, 1), with 53 random bits.
pub(crate) fn uniform(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Standard exponential.
pub(crate) fn exponential(random: &mut Random) -> f64 {
    -libm::log(1.0 - uniform(random))
}

/// Standard normal (Box and Muller 1958; the second variate is not kept, so that a sample is a function of the stream's position).
fn normal(random: &mut Random) -> f64 {
    let radius = libm::sqrt(2.0 * exponential(random));
    radius * libm::cos(std::f64::consts::TAU * uniform(random))
}

/// Gamma with the given shape > 0 and scale 1 (Marsaglia and Tsang 2000).
fn gamma(random: &mut Random, shape: f64) -> f64 {
    if shape < 1.0 {
        // Their section 6: boost the shape by one and scale back.
        let boosted = gamma(random, shape + 1.0);
        return boosted * libm::pow(1.0 - uniform(random), 1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = normal(random);
        let root = 1.0 + c * x;
        if root <= 0.0 {
            continue;
        }
        let cube = root * root * root;
        let accept = libm::log(1.0 - uniform(random));
        if accept < 0.5 * x * x + d - d * cube + d * libm::log(cube) {
            return d * cube;
        }
    }
}

/// Gamma with the given mean and coefficient of variation.
pub(crate) fn gamma_with(random: &mut Random, mean: f64, cv: f64) -> f64 {
    let shape = 1.0 / (cv * cv);
    gamma(random, shape) * mean / shape
}

/// A sample of a distribution.
pub(crate) fn sample(distribution: &Distribution, random: &mut Random) -> f64 {
    let value = match &distribution.family {
        Family::Constant(value) => *value,
        Family::Uniform { low, high } => low + (high - low) * uniform(random),
        Family::Normal { mean, std } => mean + std * normal(random),
        Family::Lognormal { median, sigma } => median * libm::exp(sigma * normal(random)),
        Family::Exponential { mean } => mean * exponential(random),
        Family::Gamma { mean, cv } => gamma_with(random, *mean, *cv),
        Family::Quantiles(curve) => curve.at(uniform(random)),
    };
    value.clamp(distribution.min, distribution.max)
}

/// A sample of the execution time factor, whose mean is 1.
pub(crate) fn variation(variation: Variation, random: &mut Random) -> f64 {
    match variation.kind {
        VariationKind::None => 1.0,
        VariationKind::Uniform => 1.0 + variation.spread * (2.0 * uniform(random) - 1.0),
        VariationKind::Exponential => exponential(random),
        VariationKind::Lognormal => {
            // Mean 1 and the given standard deviation.
            let sigma2 = libm::log(1.0 + variation.spread * variation.spread);
            libm::exp(libm::sqrt(sigma2) * normal(random) - sigma2 / 2.0)
        }
    }
}

/// What a predictor says of a length: the length times a log-normal factor of median 1, at least 1 token.
pub(crate) fn predict(length: u32, sigma: f64, random: &mut Random) -> u32 {
    let predicted = f64::from(length) * libm::exp(sigma * normal(random));
    predicted.round_ties_even().clamp(1.0, 1e9) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_err_as_much_as_the_predictor_does() {
        let mut random = Key::of_source(1, "predictor").stream();
        assert_eq!(predict(123, 0.0, &mut random), 123);
        let n = 50_000;
        let errors: Vec<f64> = (0..n).map(|_| libm::log(f64::from(predict(100_000, 0.4, &mut random)) / 1e5)).collect();
        let mean = errors.iter().sum::<f64>() / f64::from(n);
        let sigma = (errors.iter().map(|e| (e - mean) * (e - mean)).sum::<f64>() / f64::from(n)).sqrt();
        assert!(mean.abs() < 0.01 && (sigma - 0.4).abs() < 0.01, "mean {mean}, sigma {sigma}");
        assert!(predict(1, 5.0, &mut random) >= 1);
    }

    #[test]
    fn samples_have_the_moments_that_the_distribution_states() {
        let mut random = Key::of_source(1, "moments").stream();
        let families = [
            (Distribution { family: Family::Uniform { low: 2.0, high: 6.0 }, min: 0.0, max: 1e9 }, 4.0, 16.0 / 12.0),
            (Distribution { family: Family::Normal { mean: 50.0, std: 3.0 }, min: 0.0, max: 1e9 }, 50.0, 9.0),
            (Distribution { family: Family::Exponential { mean: 2.0 }, min: 0.0, max: 1e9 }, 2.0, 4.0),
            (Distribution { family: Family::Gamma { mean: 3.0, cv: 0.5 }, min: 0.0, max: 1e9 }, 3.0, 2.25),
            (Distribution { family: Family::Gamma { mean: 3.0, cv: 2.0 }, min: 0.0, max: 1e9 }, 3.0, 36.0),
            (Distribution::quantiles(vec![(0.0, 0.0), (0.5, 1.0), (1.0, 3.0)]), 1.25, f64::NAN),
        ];
        let n = 200_000;
        for (distribution, mean, variance) in families {
            let samples: Vec<f64> = (0..n).map(|_| sample(&distribution, &mut random)).collect();
            let m = samples.iter().sum::<f64>() / f64::from(n);
            let v = samples.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / f64::from(n);
            assert!((m - mean).abs() < 0.02 * mean, "{distribution:?}: mean {m} instead of {mean}");
            assert!((distribution.mean() - mean).abs() < 1e-9);
            if variance.is_finite() {
                assert!((v - variance).abs() < 0.1 * variance, "{distribution:?}: variance {v} instead of {variance}");
            }
        }
        let lognormal = Variation { kind: VariationKind::Lognormal, spread: 0.3 };
        let factors: Vec<f64> = (0..n).map(|_| variation(lognormal, &mut random)).collect();
        let m = factors.iter().sum::<f64>() / f64::from(n);
        let s = (factors.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / f64::from(n)).sqrt();
        assert!((m - 1.0).abs() < 0.01 && (s - 0.3).abs() < 0.01, "mean {m}, standard deviation {s}");
    }

    #[test]
    fn keys_depend_on_every_part() {
        let base = Key::of_source(7, "camera");
        assert_ne!(base, Key::of_source(8, "camera"));
        assert_ne!(base, Key::of_source(7, "microphone"));
        assert_ne!(base.part(0), base.part(1));
        assert_ne!(base.part(0).part(1), base.part(1).part(0));
        // Pinned: a change of these numbers changes every record ever made.
        assert_eq!(Key::of_source(1, "a").part(2).stream().next_u64(), 0x6bcb_0ca4_f7f0_9150);
    }
}
