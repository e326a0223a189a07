//! Short-time Fourier transform and its inverse: 1200 samples per frame, 300 from frame to frame, Hann window.

use std::f32::consts::TAU;
use std::fmt;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

/// Samples per frame.
pub(crate) const FRAME: usize = 1200;
/// Samples from one frame to the next.
pub(crate) const HOP: usize = 300;
/// Frequencies per frame, from 0 to half the sampling rate.
pub(crate) const BINS: usize = FRAME / 2 + 1;

/// Plans and window of both directions.
pub(crate) struct Fourier {
    forward: Arc<dyn Fft<f32>>,
    backward: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
}

impl fmt::Debug for Fourier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fourier").finish_non_exhaustive()
    }
}

impl Fourier {
    pub(crate) fn new() -> Self {
        let mut planner = FftPlanner::new();
        let window = (0..FRAME).map(|n| 0.5 - 0.5 * (TAU * n as f32 / FRAME as f32).cos()).collect();
        Self { forward: planner.plan_fft_forward(FRAME), backward: planner.plan_fft_inverse(FRAME), window }
    }

    /// Room for the frames in work.
    pub(crate) fn buffers(&self) -> Buffers {
        let scratch = self.forward.get_inplace_scratch_len().max(self.backward.get_inplace_scratch_len());
        Buffers { frame: vec![Complex::default(); FRAME], scratch: vec![Complex::default(); scratch] }
    }

    /// The spectra of two successive frames, the first one centred at sample `HOP · first`; the signal is reflected at its ends.
    /// Two real frames are the real and the imaginary part of one complex transform.
    pub(crate) fn analyse(&self, signal: &[f32], first: usize, spectra: &mut [Spectrum; 2], buffers: &mut Buffers) {
        let sample = |frame: usize, n: usize| {
            let position = (frame * HOP + n).cast_signed() - (FRAME / 2).cast_signed();
            signal.get(reflect(position, signal.len())).copied().unwrap_or(0.0) * self.window[n]
        };
        for (n, value) in buffers.frame.iter_mut().enumerate() {
            *value = Complex::new(sample(first, n), sample(first + 1, n));
        }
        self.forward.process_with_scratch(&mut buffers.frame, &mut buffers.scratch);
        let [first, second] = spectra;
        for (bin, (first, second)) in first.iter_mut().zip(second.iter_mut()).enumerate() {
            let (here, mirrored) = (buffers.frame[bin], buffers.frame[(FRAME - bin) % FRAME].conj());
            let difference = here - mirrored;
            *first = (here + mirrored) * 0.5;
            *second = Complex::new(difference.im, -difference.re) * 0.5;
        }
    }

    /// Adds two successive frames, windowed, to `signal`, which begins half a frame before the centre of the very first one.
    pub(crate) fn add_frames(&self, spectra: &[Spectrum; 2], first: usize, signal: &mut [f32], buffers: &mut Buffers) {
        let [a, b] = spectra;
        let edge = |value: Complex<f32>| Complex::new(value.re, 0.0); // A real signal has real values at both ends.
        for bin in 0..BINS {
            let (a, b) = if bin == 0 || bin == BINS - 1 { (edge(a[bin]), edge(b[bin])) } else { (a[bin], b[bin]) };
            buffers.frame[bin] = Complex::new(a.re - b.im, a.im + b.re);
            if bin > 0 && bin < BINS - 1 {
                buffers.frame[FRAME - bin] = Complex::new(a.re + b.im, b.re - a.im);
            }
        }
        self.backward.process_with_scratch(&mut buffers.frame, &mut buffers.scratch);
        let scale = 1.0 / FRAME as f32;
        for (n, (value, window)) in buffers.frame.iter().zip(&self.window).enumerate() {
            let weight = window * scale;
            if let Some(sample) = signal.get_mut(first * HOP + n) {
                *sample += value.re * weight;
            }
            if let Some(sample) = signal.get_mut((first + 1) * HOP + n) {
                *sample += value.im * weight;
            }
        }
    }

    /// Ends an overlap-add of `frames` frames: divides by the sum of the squared windows and cuts off the half frames outside.
    pub(crate) fn normalise(&self, mut signal: Vec<f32>, frames: usize) -> Vec<f32> {
        let mut weights = vec![0.0_f32; signal.len()];
        for frame in 0..frames {
            for (weight, window) in weights[frame * HOP..].iter_mut().zip(&self.window) {
                *weight += window * window;
            }
        }
        for (sample, weight) in signal.iter_mut().zip(&weights) {
            *sample /= weight.max(1e-11);
        }
        signal.drain(..(FRAME / 2).min(signal.len()));
        signal.truncate(frames * HOP);
        signal
    }

    /// Sum of the window: a cosine of amplitude 1 peaks at half of it.
    pub(crate) fn window_sum(&self) -> f32 {
        self.window.iter().sum()
    }
}

/// Complex amplitude per frequency.
pub(crate) type Spectrum = Box<[Complex<f32>; BINS]>;

/// An empty spectrum.
pub(crate) fn silence() -> Spectrum {
    Box::new([Complex::default(); BINS])
}

/// Room for the frame in work.
#[derive(Debug)]
pub(crate) struct Buffers {
    frame: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

/// A position reflected at the ends of a signal, without repeating the end itself: −1 becomes 1.
fn reflect(position: isize, length: usize) -> usize {
    if length < 2 {
        return 0;
    }
    let period = 2 * (length.cast_signed() - 1);
    let folded = position.rem_euclid(period);
    folded.min(period - folded).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(signal: &[f32]) -> Vec<f32> {
        let fourier = Fourier::new();
        let mut buffers = fourier.buffers();
        let frames = signal.len() / HOP;
        let mut sum = vec![0.0; (frames + 3) * HOP];
        for first in (0..frames).step_by(2) {
            let mut spectra = [silence(), silence()];
            fourier.analyse(signal, first, &mut spectra, &mut buffers);
            if first + 1 == frames {
                spectra[1] = silence();
            }
            fourier.add_frames(&spectra, first, &mut sum, &mut buffers);
        }
        fourier.normalise(sum, frames)
    }

    #[test]
    fn the_inverse_restores_a_sine() {
        let sine: Vec<f32> = (0..7 * HOP).map(|n| (n as f32 * TAU * 440.0 / 24_000.0).sin()).collect();
        let restored = both_ways(&sine);
        assert_eq!(restored.len(), sine.len());
        let error = sine.iter().zip(&restored).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-5, "{error}");
    }

    #[test]
    fn a_cosine_between_two_frequencies_that_fall_on_bins_peaks_at_its_bin() {
        // 20 Hz per bin: 400 Hz is bin 20. The sum of a periodic Hann window of 1200 is 600, half of it 300.
        let signal: Vec<f32> = (0..8 * HOP).map(|n| (n as f32 * TAU * 400.0 / 24_000.0).cos()).collect();
        let fourier = Fourier::new();
        assert!((fourier.window_sum() - 600.0).abs() < 1e-3);
        let mut spectra = [silence(), silence()];
        fourier.analyse(&signal, 3, &mut spectra, &mut fourier.buffers());
        for spectrum in &spectra {
            assert!((spectrum[20].norm() - 300.0).abs() < 0.1, "{}", spectrum[20].norm());
            assert!((spectrum[21].norm() - 150.0).abs() < 0.1, "the window's side: {}", spectrum[21].norm());
            assert!(spectrum[40].norm() < 0.01);
        }
        // Frame 4 is centred at sample 1200, where the cosine (period 60 samples) is at its peak; so is frame 3, at 900.
        assert!(spectra[0][20].im.abs() < 0.1 && spectra[1][20].im.abs() < 0.1);
    }

    #[test]
    fn a_spectrum_by_formula_becomes_its_sine() {
        // The transform of sin(2π·20·n/1200) under the window has −i·300 at bin 20, and i·150 at the bins beside it, times the phase
        // of where the frame starts: frame k starts at sample 300·k − 600, a whole number of periods of 60 samples.
        let fourier = Fourier::new();
        let mut buffers = fourier.buffers();
        let frames = 6;
        let mut sum = vec![0.0; (frames + 3) * HOP];
        for first in (0..frames).step_by(2) {
            let mut spectra = [silence(), silence()];
            for spectrum in &mut spectra {
                spectrum[20] = Complex::new(0.0, -300.0);
                spectrum[19] = Complex::new(0.0, 150.0);
                spectrum[21] = Complex::new(0.0, 150.0);
            }
            fourier.add_frames(&spectra, first, &mut sum, &mut buffers);
        }
        let signal = fourier.normalise(sum, frames);
        for (n, sample) in signal.iter().enumerate() {
            let wanted = (n as f32 * TAU / 60.0).sin();
            assert!((sample - wanted).abs() < 1e-4, "sample {n}: {sample}, not {wanted}");
        }
    }

    #[test]
    fn reflection_stays_inside() {
        assert_eq!([-2, -1, 0, 3, 4, 5, 6].map(|p| reflect(p, 4)), [2, 1, 0, 3, 2, 1, 0]);
        assert_eq!(reflect(-600, 1), 0);
        assert_eq!(reflect(5, 0), 0);
    }
}
