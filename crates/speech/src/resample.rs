//! Another sample rate.

use onbeat_backend::{Audio, Error};

/// Zero crossings of the sinc on either side.
const CROSSINGS: f64 = 24.0;
/// Kaiser window's parameter: about 80 dB of attenuation in the stop band (Kaiser and Schafer, 1980: β = 0.1102 (A − 8.7)).
const BETA: f64 = 7.86;
/// The pass band ends at this fraction of the lower rate's half, so that the transition ends at about that half.
const PASS: f64 = 0.90;
/// Coefficients that a table may have: 16 MiB.
const COEFFICIENTS_MAX: u64 = 1 << 22;

/// Changes the rate of a stream of samples: a windowed sinc, one table row per phase of the ratio of the rates. Sample `n` of the
/// output is the input at the time `n / to`: there is no delay in time, but an output sample is there only when the input goes on
/// for [`Resampler::ahead`] samples beyond it.
#[derive(Clone, Debug)]
pub struct Resampler {
    up: usize,
    down: usize,
    /// Coefficients, `taps` per phase.
    table: Vec<f32>,
    taps: usize,
    /// Input that is still needed, starting at input sample `first`, which counts from `taps / 2` zeros before the stream.
    history: Vec<f32>,
    first: u64,
    /// Next output sample.
    next: u64,
    /// Input samples so far.
    taken: u64,
}

impl Resampler {
    /// A stream from one rate to another [Hz].
    ///
    /// # Errors
    /// If a rate is 0, or their ratio is not one of small enough numbers: 44,100 to 16,000 is 441 : 160.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, Error> {
        if from_hz == 0 || to_hz == 0 {
            return Err(Error::invalid_input(format!("sound at {} Hz; a rate is at least 1 Hz", from_hz.min(to_hz))));
        }
        let divisor = greatest_common_divisor(from_hz, to_hz);
        let (up, down) = (to_hz / divisor, from_hz / divisor);
        // Below the lower of the two rates' halves, in cycles per input sample.
        let cutoff = PASS * 0.5 * f64::from(to_hz.min(from_hz)) / f64::from(from_hz);
        let half = (CROSSINGS / (2.0 * cutoff)).ceil();
        let taps = 2 * half as usize;
        if u64::from(up) * taps as u64 > COEFFICIENTS_MAX {
            return Err(Error::invalid_input(format!(
                "sound at {from_hz} Hz cannot be brought to {to_hz} Hz: their ratio {up} : {down} is none of small numbers"
            )));
        }
        let mut table = Vec::with_capacity(up as usize * taps);
        for phase in 0..up {
            let offset = f64::from(phase) / f64::from(up);
            let row: Vec<f64> = (0..taps)
                .map(|tap| {
                    let t = tap as f64 - (half - 1.0) - offset;
                    sinc(2.0 * cutoff * t) * bessel_i0(BETA * (1.0 - (t / half).powi(2)).max(0.0).sqrt())
                })
                .collect();
            // A constant stays what it is, at every phase.
            let sum: f64 = row.iter().sum();
            table.extend(row.iter().map(|c| (c / sum) as f32));
        }
        let history = vec![0.0; taps / 2 - 1];
        Ok(Self { up: up as usize, down: down as usize, table, taps, history, first: 0, next: 0, taken: 0 })
    }

    /// Input samples that must follow the time of an output sample before it is there.
    pub fn ahead(&self) -> usize {
        self.taps / 2
    }

    /// Takes input, and appends what output has become possible.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        if self.up == self.down {
            output.extend_from_slice(input);
            return;
        }
        self.history.extend_from_slice(input);
        self.advance(output, u64::MAX);
    }

    /// Ends the stream: appends the rest of the output, so that it has `ceil(input · to / from)` samples in all. The next input begins
    /// a new stream.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        if self.up != self.down {
            let total = (self.taken * self.up as u64).div_ceil(self.down as u64);
            self.history.resize(self.history.len() + self.taps, 0.0);
            self.advance(output, total);
        }
        self.history.clear();
        self.history.resize(self.taps / 2 - 1, 0.0);
        (self.first, self.next, self.taken) = (0, 0, 0);
    }

    fn advance(&mut self, output: &mut Vec<f32>, limit: u64) {
        while self.next < limit {
            let at = self.next * self.down as u64;
            let start = (at / self.up as u64 - self.first) as usize;
            let Some(window) = self.history.get(start..start + self.taps) else { break };
            let phase = (at % self.up as u64) as usize;
            let row = &self.table[phase * self.taps..(phase + 1) * self.taps];
            output.push(dot(window, row));
            self.next += 1;
        }
        let start = (self.next * self.down as u64 / self.up as u64).saturating_sub(self.first);
        let unused = (start as usize).min(self.history.len());
        self.history.drain(..unused);
        self.first += unused as u64;
    }
}

/// A whole sound at another rate [Hz]: `ceil(samples · rate_hz / its rate)` samples.
///
/// # Errors
/// Like [`Resampler::new`].
pub fn resample(audio: &Audio, rate_hz: u32) -> Result<Audio, Error> {
    if audio.rate_hz == rate_hz {
        return Ok(audio.clone());
    }
    let mut resampler = Resampler::new(audio.rate_hz, rate_hz)?;
    let mut output = Vec::new();
    resampler.push(&audio.samples, &mut output);
    resampler.finish(&mut output);
    Ok(Audio { rate_hz, samples: output.into() })
}

/// Eight sums at once, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn sinc(x: f64) -> f64 {
    let y = std::f64::consts::PI * x;
    if y.abs() < 1e-9 { 1.0 } else { y.sin() / y }
}

/// Modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-12 * sum {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate_hz: u32, count: usize) -> Vec<f32> {
        (0..count).map(|n| (std::f64::consts::TAU * hz * n as f64 / f64::from(rate_hz)).sin() as f32).collect()
    }

    /// Largest difference away from the ends, where the input's silence beyond them counts.
    fn error(output: &[f32], wanted: &[f32]) -> f32 {
        let inner = 200..wanted.len() - 200;
        output[inner.clone()].iter().zip(&wanted[inner]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_stays_the_same_tone() {
        for (from, to) in [(48_000, 16_000), (22_050, 16_000), (16_000, 24_000), (8_000, 16_000), (44_100, 16_000)] {
            let samples = sine(1_000.0, from, from as usize / 2).into();
            let output = resample(&Audio { rate_hz: from, samples }, to).unwrap();
            assert_eq!(output.samples.len(), to as usize / 2, "{from} to {to}");
            let error = error(&output.samples, &sine(1_000.0, to, to as usize / 2));
            assert!(error < 1e-3, "{from} to {to}: {error}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let samples = sine(9_000.0, 48_000, 24_000).into();
        let output = resample(&Audio { rate_hz: 48_000, samples }, 16_000).unwrap();
        let rest = error(&output.samples, &vec![0.0; output.samples.len()]);
        assert!(rest < 1e-3, "{rest}");
    }

    #[test]
    fn a_stream_in_pieces_is_the_whole() {
        let input = sine(700.0, 44_100, 5_000);
        let whole = resample(&Audio { rate_hz: 44_100, samples: input.clone().into() }, 16_000).unwrap();
        let mut resampler = Resampler::new(44_100, 16_000).unwrap();
        for _ in 0..2 {
            let mut output = Vec::new();
            for piece in input.chunks(333) {
                resampler.push(piece, &mut output);
            }
            assert!(output.len() < whole.samples.len());
            resampler.finish(&mut output);
            assert_eq!(&*whole.samples, output);
        }
    }

    #[test]
    fn odd_rates_are_errors() {
        assert!(Resampler::new(0, 16_000).is_err());
        let error = Resampler::new(767_999, 768_001).unwrap_err();
        assert!(error.to_string().contains("none of small numbers"), "{error}");
    }
}
