//! Whisper's features: the logarithm of a mel spectrum.

use std::sync::{Arc, LazyLock};

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Samples per second that Whisper hears [Hz].
pub(crate) const RATE_HZ: u32 = 16_000;
/// Samples from frame to frame: 10 ms.
pub(crate) const HOP: usize = 160;
/// Filters.
pub(crate) const BANDS: usize = 80;
/// Samples of a frame: 25 ms.
const FRAME: usize = 400;
const BINS: usize = FRAME / 2 + 1;

/// What does not change from call to call.
struct Tables {
    fft: Arc<dyn Fft<f32>>,
    /// Hann window, of the period of a frame.
    window: Vec<f32>,
    /// Per filter its first bin, and its weights from there.
    filters: Vec<(usize, Vec<f32>)>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    fft: FftPlanner::new().plan_fft_forward(FRAME),
    window: (0..FRAME).map(|n| (0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / FRAME as f64).cos()) as f32).collect(),
    filters: filters(),
});

/// Frequency on Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above [mel].
fn mel(hz: f64) -> f64 {
    if hz < 1_000.0 { hz * 3.0 / 200.0 } else { 15.0 + 27.0 * (hz / 1_000.0).ln() / 6.4_f64.ln() }
}

/// The inverse of [`mel`] [Hz].
fn hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1_000.0 * (6.4_f64.ln() * (mel - 15.0) / 27.0).exp() }
}

/// Triangles between frequencies that lie equally far apart on the mel scale, each of area 1 over the frequency [Hz].
fn filters() -> Vec<(usize, Vec<f32>)> {
    let half_rate = f64::from(RATE_HZ) / 2.0;
    let corner = |i: usize| hertz(mel(half_rate) * i as f64 / (BANDS + 1) as f64);
    let weight = |band: usize, bin: usize| {
        let hz = half_rate * bin as f64 / (BINS - 1) as f64;
        let (low, centre, high) = (corner(band), corner(band + 1), corner(band + 2));
        let height = ((hz - low) / (centre - low)).min((high - hz) / (high - centre)).max(0.0);
        (height * 2.0 / (high - low)) as f32
    };
    let filter = |band: usize| {
        let first = (0..BINS).find(|&bin| weight(band, bin) > 0.0).unwrap_or(0);
        let weights = (first..BINS).map(|bin| weight(band, bin)).take_while(|&w| w > 0.0).collect();
        (first, weights)
    };
    (0..BANDS).map(filter).collect()
}

/// Whisper's features of sound at 16 kHz, followed by silence up to `frames` frames of 10 ms: `[80, frames]`, the frames running
/// fastest. The logarithm to base 10 of the power in each band, at least 10⁻¹⁰ and at most 8 below the largest, plus 4, by 4
/// (Radford et al., arXiv 2212.04356, as in the package `openai-whisper` 20240930, `audio.py`).
pub fn log_mel(samples: &[f32], frames: usize) -> Vec<f32> {
    let Tables { fft, window, filters } = &*TABLES;
    // Frames are centred on multiples of the hop. Sound and silence together are mirrored at the first sample and at the last.
    let last = (frames * HOP).saturating_sub(1);
    // The sample `n − FRAME / 2`.
    let sample = |n: usize| {
        let at = n.abs_diff(FRAME / 2);
        let mirrored = if n > FRAME / 2 && at > last { (2 * last).saturating_sub(at) } else { at };
        samples.get(mirrored).copied().unwrap_or(0.0)
    };
    let mut features = vec![0.0_f32; BANDS * frames];
    let mut scratch = vec![Complex::default(); fft.get_inplace_scratch_len()];
    let mut buffer = vec![Complex::default(); FRAME];
    let mut power = [vec![0.0_f32; BINS], vec![0.0_f32; BINS]];
    // Frames that reach no sample have no power.
    let sounding = (samples.len() + FRAME / 2).div_ceil(HOP).min(frames);
    for pair in (0..sounding).step_by(2) {
        // Two real frames in one complex transform: one as the real part, the other as the imaginary part.
        for (n, value) in buffer.iter_mut().enumerate() {
            let at = pair * HOP + n;
            *value = Complex::new(sample(at), sample(at + HOP)) * window[n];
        }
        fft.process_with_scratch(&mut buffer, &mut scratch);
        for bin in 0..BINS {
            let (a, b) = (buffer[bin], buffer[(FRAME - bin) % FRAME].conj());
            power[0][bin] = ((a + b) * 0.5).norm_sqr();
            power[1][bin] = ((a - b) * 0.5).norm_sqr();
        }
        for (offset, power) in power.iter().enumerate().take(frames - pair) {
            for (band, (first, weights)) in filters.iter().enumerate() {
                let bins = &power[*first..first + weights.len()];
                features[band * frames + pair + offset] = bins.iter().zip(weights).map(|(p, w)| p * w).sum();
            }
        }
    }
    let mut largest = f32::NEG_INFINITY;
    for feature in &mut features {
        *feature = feature.max(1e-10).log10();
        largest = largest.max(*feature);
    }
    for feature in &mut features {
        *feature = (feature.max(largest - 8.0) + 4.0) / 4.0;
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tones, and a click every 37 samples.
    fn sound() -> Vec<f32> {
        let tone = |hz: f64, n: usize| (std::f64::consts::TAU * hz * n as f64 / 16_000.0).sin();
        (0..1_600)
            .map(|n| (0.5 * tone(440.0, n) + 0.25 * tone(3_000.0, n) + if n % 37 == 0 { 0.1 } else { 0.0 }) as f32)
            .collect()
    }

    /// From numpy 2.4.6, in 64-bit floating point: `rfft` of the frames times `hanning(401)[:-1]`, squared, times Slaney's filters;
    /// `log10`, `maximum`, `(x + 4) / 4`.
    #[test]
    fn features_are_those_of_numpy() {
        let frames = 12;
        let features = log_mel(&sound(), frames);
        assert_eq!(features.len(), BANDS * frames);
        let table = [
            (0, 0, 1.005_9),
            (10, 0, 1.341_015),
            (11, 5, 1.439_778),
            (11, 9, 1.434_87),
            (40, 3, 0.425_546),
            (58, 5, 0.358_703),
            (79, 0, 0.257_598),
            (79, 4, 0.256_647),
            (30, 10, 0.242_470),
            (5, 11, 0.358_180),
        ];
        for (band, frame, wanted) in table {
            let found = features[band * frames + frame];
            assert!((found - wanted).abs() < 1e-4, "band {band}, frame {frame}: {found}, not {wanted}");
        }
        let mean = features.iter().sum::<f32>() / features.len() as f32;
        assert!((mean - 0.146_535).abs() < 1e-4, "{mean}");
    }

    /// As above, for sound that fills the window: the last frame is mirrored at its end.
    #[test]
    fn sound_up_to_the_end_is_mirrored_there() {
        let features = log_mel(&sound(), 10);
        for (band, wanted) in [(0, 0.555_850), (11, 1.433_609), (40, 0.424_476), (79, 0.257_385)] {
            let found = features[band * 10 + 9];
            assert!((found - wanted).abs() < 1e-4, "band {band}: {found}, not {wanted}");
        }
    }

    #[test]
    fn silence_has_the_least_features() {
        assert!(log_mel(&[], 3).iter().all(|&feature| feature == -1.5));
    }
}
