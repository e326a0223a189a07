//! Choosing a token.

/// The token that follows, by the logits: the likeliest, or one by chance. `None` if the logits are none, or no numbers.
///
/// The chance depends on the seed and on how many tokens were chosen before, on nothing else, so that a session that was saved goes
/// on as it would have.
pub(crate) fn pick(logits: &[f32], temperature: f32, seed: u64, count: u64) -> Option<u32> {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if !logit.is_finite() {
            return None;
        }
        if *logit > logits[best] {
            best = i;
        }
    }
    let most = *logits.get(best)?;
    if temperature == 0.0 {
        return Some(best as u32);
    }
    let likelihood = |logit: &f32| f64::from((logit - most) / temperature).exp();
    let total: f64 = logits.iter().map(likelihood).sum();
    let mut left = chance(seed, count) * total;
    for (i, logit) in logits.iter().enumerate() {
        left -= likelihood(logit);
        if left < 0.0 {
            return Some(i as u32);
        }
    }
    // Rounding may leave a little.
    Some(best as u32)
}

/// 0 to 1: SplitMix64 (Steele, Lea, Flood 2014) of the seed, the count-th value.
fn chance(seed: u64, count: u64) -> f64 {
    let mut z = seed.wrapping_add((count + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_temperature_the_likeliest_is_chosen_and_the_first_of_equals() {
        assert_eq!(pick(&[0.0, 2.0, 1.0, 2.0], 0.0, 0, 0), Some(1));
        assert_eq!(pick(&[], 0.0, 0, 0), None);
        assert_eq!(pick(&[0.0, f32::NAN], 0.0, 0, 0), None);
    }

    #[test]
    fn with_temperature_tokens_are_as_frequent_as_they_are_likely() {
        // Logits of ln 3 and ln 1 at temperature 1: three in four. At temperature 0.5: nine in ten.
        let logits = [3.0_f32.ln(), 0.0];
        for (temperature, wanted) in [(1.0, 0.75), (0.5, 0.9)] {
            let first = (0..4000).filter(|&count| pick(&logits, temperature, 7, count) == Some(0)).count();
            assert!((first as f64 / 4000.0 - wanted).abs() < 0.03, "{first} of 4000 at {temperature}");
        }
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First value of SplitMix64 for seed 1234567, by Vigna's reference code: 6457827717110365317.
        assert_eq!(chance(1_234_567, 0), (6_457_827_717_110_365_317_u64 >> 11) as f64 / (1_u64 << 53) as f64);
    }
}
