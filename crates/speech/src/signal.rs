//! Measures of sound.

/// Scale-invariant signal-to-noise ratio of an estimate against the clean reference [dB]: both without their means, the part of
/// the estimate that is the reference at some gain, against the rest (Le Roux et al., arXiv 1811.02508). Infinite for an estimate
/// that is the reference at some gain; not a number if one of them is silent.
///
/// # Panics
/// If the lengths differ.
pub fn si_snr_db(reference: &[f32], estimate: &[f32]) -> f64 {
    assert_eq!(reference.len(), estimate.len(), "reference and estimate must have the same length");
    let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
    let (mean_r, mean_e) = (mean(reference), mean(estimate));
    let pairs = || reference.iter().zip(estimate).map(|(&r, &e)| (f64::from(r) - mean_r, f64::from(e) - mean_e));
    let gain = pairs().map(|(r, e)| r * e).sum::<f64>() / pairs().map(|(r, _)| r * r).sum::<f64>();
    let (mut signal, mut noise) = (0.0, 0.0);
    for (r, e) in pairs() {
        signal += (gain * r).powi(2);
        noise += (e - gain * r).powi(2);
    }
    10.0 * (signal / noise).log10()
}

/// Level of a sound [dB], relative to a full-scale square wave; −∞ for digital silence and for no samples.
pub fn level_db(samples: &[f32]) -> f64 {
    let power: f64 = samples.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    if power == 0.0 { f64::NEG_INFINITY } else { 10.0 * (power / samples.len() as f64).log10() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: without means r = (1, −1, 1, −1), e = (3, −1, 1, −3). Gain ⟨e,r⟩/⟨r,r⟩ = 8/4 = 2; 2r = (2, −2, 2, −2) has energy 16,
    /// the rest (1, 1, −1, −1) has energy 4: 10 log10(16/4) = 6.0206 dB.
    #[test]
    fn si_snr_of_a_case_worked_by_hand() {
        let reference = [2.0, 0.0, 2.0, 0.0];
        let estimate = [8.0, 4.0, 6.0, 2.0];
        assert!((si_snr_db(&reference, &estimate) - 6.020_6).abs() < 1e-4);
        let louder: Vec<f32> = estimate.iter().map(|v| v * 3.0).collect();
        assert!((si_snr_db(&reference, &louder) - 6.020_6).abs() < 1e-4);
    }

    #[test]
    fn level_of_a_square_wave_is_its_amplitude() {
        assert!((level_db(&[0.1, -0.1, 0.1]) + 20.0).abs() < 1e-5);
        assert_eq!(level_db(&[0.0; 4]), f64::NEG_INFINITY);
        assert_eq!(level_db(&[]), f64::NEG_INFINITY);
    }
}
