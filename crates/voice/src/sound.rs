//! From the network's spectra to samples.
//!
//! The network gives for every frame of 12.5 ms and every frequency: the magnitude and phase of the voice's harmonics relative to a train of
//! pulses at the voice's pitch, the magnitude of noise, and the magnitude and phase of the rest. With the pulses' spectrum P and
//! complex normal noise Z, whose parts have variance 1, the spectrum is
//!
//! ```text
//! S = exp(lh) · exp(iπ·tanh(theta)) · P + exp(ln) · Z + exp(lr) · exp(i·phi)
//! ```
//!
//! and an inverse short-time Fourier transform makes it sound. Ported from `dsp.py` of hibari-tts 0.2.1 (Apache-2.0).

use std::f32::consts::{PI, TAU};

use onbeat_backend::{Control, Error};
use rand::Rng;
use rand_pcg::Pcg64Mcg;
use rustfft::num_complex::Complex;

use crate::fourier::{BINS, Fourier, HOP, Spectrum, silence};

/// Samples per second of the voice [Hz].
pub const RATE_HZ: u32 = 24_000;
/// The magnitudes' logarithms are cut off above, as in the package: a damaged one does not become infinite.
const LOG_MAX: f32 = 7.0;
/// Pitch below which there is no voice [Hz].
const PITCH_MIN: f32 = 40.0;
/// Highest harmonic of the pulses [Hz].
const HARMONIC_MAX: f32 = 11_000.0;

/// What the network gives for one utterance: `frames` frames; each table has [`BINS`] rows of `frames` values.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) frames: usize,
    /// Harmonics: logarithm of the magnitude.
    pub(crate) lh: Vec<f32>,
    /// Harmonics: phase, as the inverse hyperbolic tangent of a fraction of π.
    pub(crate) theta: Vec<f32>,
    /// Noise: logarithm of the magnitude.
    pub(crate) ln: Vec<f32>,
    /// Rest: logarithm of the magnitude.
    pub(crate) lr: Vec<f32>,
    /// Rest: phase.
    pub(crate) phi: Vec<f32>,
    /// Pitch per frame [Hz].
    pub(crate) f0: Vec<f32>,
}

/// The samples of an utterance. `noise` scales the noise: 1 for the voice as it is, 0 to compare it with a reference.
///
/// # Errors
/// Only if cancelled.
pub(crate) fn synthesise(
    fourier: &Fourier,
    frames: &Frames,
    noise: f32,
    seed: u64,
    control: &Control,
) -> Result<Vec<f32>, Error> {
    let source = pulses(&frames.f0);
    let scale = 2.0 / fourier.window_sum(); // Makes exp(lh) the harmonic's magnitude.
    let mut random = Noise::new(seed, noise);
    let mut buffers = fourier.buffers();
    let mut spectra = [silence(), silence()];
    let mut sum = vec![0.0; (frames.frames + 3) * HOP];
    for first in (0..frames.frames).step_by(2) {
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        fourier.analyse(&source, first, &mut spectra, &mut buffers);
        for (offset, spectrum) in spectra.iter_mut().enumerate() {
            if first + offset < frames.frames {
                shape(spectrum, frames, first + offset, scale, &mut random);
            } else {
                *spectrum = silence();
            }
        }
        fourier.add_frames(&spectra, first, &mut sum, &mut buffers);
    }
    let mut samples = fourier.normalise(sum, frames.frames);
    for sample in &mut samples {
        *sample = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
    }
    Ok(samples)
}

/// Turns the pulses' spectrum at one frame into the voice's.
fn shape(spectrum: &mut Spectrum, frames: &Frames, frame: usize, scale: f32, random: &mut Noise) {
    for bin in 0..BINS {
        let at = bin * frames.frames + frame;
        let magnitude = |log: f32| log.min(LOG_MAX).exp();
        let harmonic = Complex::from_polar(magnitude(frames.lh[at]) * scale, PI * frames.theta[at].tanh());
        let rest = Complex::from_polar(magnitude(frames.lr[at]), frames.phi[at]);
        spectrum[bin] = spectrum[bin] * harmonic + random.next() * magnitude(frames.ln[at]) + rest;
    }
}

/// Complex normal numbers, by Box and Muller's method.
struct Noise {
    generator: Pcg64Mcg,
    scale: f32,
}

impl Noise {
    fn new(seed: u64, scale: f32) -> Self {
        // The generator starts slowly from a small state; a product with a large odd number is none.
        let state = u128::from(seed).wrapping_add(1).wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15);
        Self { generator: Pcg64Mcg::new(state), scale }
    }

    fn next(&mut self) -> Complex<f32> {
        if self.scale == 0.0 {
            return Complex::default();
        }
        let bits = self.generator.next_u64();
        let unit = |bits: u32| (bits >> 8) as f32 / (1 << 24) as f32; // 0 ≤ … < 1
        let radius = (-2.0 * (1.0 - unit((bits >> 32) as u32)).ln()).sqrt();
        Complex::from_polar(radius * self.scale, TAU * unit(bits as u32))
    }
}

/// A train of pulses that follows the pitch: the sum of all harmonics' cosines up to [`HARMONIC_MAX`], by
/// Σ cos(h·t) for h = 1 … H = sin((H + ½)·t) / (2·sin(t/2)) − ½. Zero where there is no voice.
fn pulses(f0: &[f32]) -> Vec<f32> {
    let mut phase = 0.0_f64; // In periods: exact over minutes.
    let mut samples = Vec::with_capacity(f0.len() * HOP);
    for frame in 0..f0.len() {
        let (before, here) = (f0[frame.saturating_sub(1)], f0[frame]);
        let after = f0.get(frame + 1).copied().unwrap_or(here);
        for n in 0..HOP {
            // The pitch holds at a frame's middle and changes linearly from middle to middle.
            let weight = ((n as f32 + 0.5) / HOP as f32 + 0.5) % 1.0;
            let (left, right) = if n < HOP / 2 { (before, here) } else { (here, after) };
            let pitch = left * (1.0 - weight) + right * weight;
            let voiced = pitch > PITCH_MIN;
            let pitch = if voiced { pitch } else { PITCH_MIN };
            phase = (phase + f64::from(pitch) / f64::from(RATE_HZ)).fract();
            samples.push(if voiced { pulse(phase as f32 * TAU, pitch) } else { 0.0 });
        }
    }
    samples
}

fn pulse(angle: f32, pitch: f32) -> f32 {
    let order = (HARMONIC_MAX / pitch).floor() + 0.5;
    let half = 2.0 * (angle * 0.5).sin();
    // Near the pulse itself the quotient is its limit.
    let quotient = if half.abs() <= 2e-3 { order } else { (order * angle).sin() / half };
    quotient - 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(frames: usize) -> Frames {
        let table = |value: f32| vec![value; BINS * frames];
        Frames {
            frames,
            lh: table(-40.0),
            theta: table(0.0),
            ln: table(-40.0),
            lr: table(-40.0),
            phi: table(0.0),
            f0: vec![0.0; frames],
        }
    }

    fn samples(frames: &Frames, noise: f32) -> Vec<f32> {
        synthesise(&Fourier::new(), frames, noise, 1, &Control::new()).unwrap()
    }

    #[test]
    fn pulses_are_the_sum_of_their_harmonics() {
        // 200 Hz: 55 harmonics below 11 kHz, period 120 samples. The phase of sample n is (n + 1) / 120.
        let train = pulses(&[200.0; 4]);
        assert_eq!(train.len(), 4 * HOP);
        for (n, sample) in train.iter().enumerate() {
            let angle = std::f64::consts::TAU * ((n as f64 + 1.0) / 120.0).fract();
            let wanted: f64 = (1..=55).map(|h| (f64::from(h) * angle).cos()).sum();
            assert!((f64::from(*sample) - wanted).abs() < 0.02, "sample {n}: {sample}, not {wanted}");
        }
        assert!(pulses(&[0.0; 4]).iter().all(|&sample| sample == 0.0));
    }

    #[test]
    fn a_single_harmonic_is_a_sine_of_its_magnitude() {
        // 200 Hz is bin 10; its window reaches the bins beside it. Magnitude 0.25 at these three, nothing elsewhere. The frames
        // at the ends, which see the pulses reflected, are left out.
        let mut frames = quiet(12);
        frames.f0 = vec![200.0; 12];
        for bin in 9..=11 {
            frames.lh[bin * 12..(bin + 1) * 12].fill((0.25_f32 * 300.0).ln());
        }
        let sound = samples(&frames, 1.0);
        assert_eq!(sound.len(), 12 * HOP);
        for (n, sample) in sound.iter().enumerate().skip(4 * HOP).take(4 * HOP) {
            let wanted = 0.25 * (TAU * (n as f32 + 1.0) / 120.0).cos();
            assert!((sample - wanted).abs() < 2e-3, "sample {n}: {sample}, not {wanted}");
        }
    }

    #[test]
    fn noise_has_the_variance_that_its_magnitude_says() {
        // E|Z|² = 2, so by Parseval a frame before the window has variance 2 · exp(2·ln) / 1200; overlap-add with the window w and division
        // by Σw² leave Σw² / (Σw²)² = 1 / 1.5 of it (Hann, four overlapping frames: Σw² = 1.5).
        let mut frames = quiet(200);
        frames.ln.fill(0.0);
        let sound = samples(&frames, 1.0);
        let inner = &sound[4 * HOP..196 * HOP];
        let variance = inner.iter().map(|x| f64::from(x * x)).sum::<f64>() / inner.len() as f64;
        let wanted = 2.0 / 1200.0 / 1.5;
        assert!((variance / wanted - 1.0).abs() < 0.05, "{variance}, not {wanted}");
        assert_eq!(sound, samples(&frames, 1.0), "the same seed gives the same noise");
        assert!(samples(&frames, 0.0).iter().all(|x| x.abs() < 1e-9));
    }

    #[test]
    fn damaged_spectra_stay_in_range_and_no_frames_are_no_sound() {
        let mut frames = quiet(3);
        frames.lr.fill(f32::INFINITY);
        frames.phi.fill(f32::NAN);
        frames.f0.fill(f32::NAN);
        assert!(samples(&frames, 1.0).iter().all(|x| x.abs() <= 1.0));
        assert!(samples(&quiet(0), 1.0).is_empty());
        let control = Control::new();
        control.cancel();
        assert!(synthesise(&Fourier::new(), &quiet(2), 1.0, 1, &control).is_err());
    }
}
