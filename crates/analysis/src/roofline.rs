//! Latencies that nobody measured, from the shape of a model and the peaks of a processor.
//!
//! A network is a sequence of operator groups ([`Operator`]). A group cannot be faster than its operations at the processor's peak
//! rate, nor than its bytes at the processor's bandwidth, and each of its kernels must be launched. If one group follows the other, and
//! nothing else is done during a launch, that takes
//!
//! ```text
//! in turn  = Σ over groups of max(operations / peak, bytes / bandwidth)  +  kernels × launch
//! ```
//!
//! That is the roofline model (Williams, Waterman and Patterson 2009) per operator, as GenZ (Bambhaniya et al., arXiv 2406.01698) applies
//! it to language models, with a launch cost, and with an efficiency of 1. A runtime that fetches the next group's weights while this
//! one computes, or launches ahead, can be faster. None is faster than each of the three alone, which is the *lower bound*, as far as its
//! inputs are right:
//!
//! ```text
//! at least = max(Σ operations / peak, Σ bytes / bandwidth, kernels × launch)
//! ```
//!
//! [`compare`] says by how much reality exceeds the first.

mod accuracy;
mod operators;

use onbeat_core::spec::{ModelShape, ModelSpec, PlatformSpec, ProcessorSpec};
use thiserror::Error;

pub use accuracy::{Comparison, Group, Measured, compare, groups, published};
pub use operators::{Operator, Pass, network, parameters, transformer};

/// Bytes of a megabyte, as files count them.
const BYTES_PER_MB: f64 = 1e6;

/// Why there is no estimate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoEstimate {
    /// The processor's file states no peak rate.
    #[error("no peak rate of `{0}` is known")]
    Peak(String),
    /// Neither the processor's nor the memory's bandwidth is stated.
    #[error("no bandwidth of `{0}` is known")]
    Bandwidth(String),
    /// The model's file states no architecture.
    #[error("no architecture of the model is known")]
    Architecture,
    /// The model's file states no size of the weights.
    #[error("no size of the model's weights is known")]
    Weights,
    /// A value of the files cannot be.
    #[error("{key}: {problem}")]
    Value {
        /// The value's key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a processor can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Operations [1/s]; a multiply-accumulate counts as two.
    pub operations_per_s: f64,
    /// Bytes from and to memory [1/s].
    pub bytes_per_s: f64,
    /// Launch of one kernel [s]; 0 where unknown.
    pub launch_s: f64,
}

impl Rates {
    /// The peaks that a platform's file states for numbers of `bits`: the 16-bit rate for 16 bits, where stated; otherwise the larger one of
    /// the two, which keeps the estimate a lower bound.
    ///
    /// # Errors
    /// If the file does not state what is needed, or not as a positive number.
    pub fn of(platform: &PlatformSpec, processor: &ProcessorSpec, bits: u32) -> Result<Self, NoEstimate> {
        let fastest = [processor.peak_tops, processor.peak_tflops].into_iter().flatten().reduce(f64::max);
        let peak = if bits > 8 { processor.peak_tflops.or(fastest) } else { fastest };
        let peak = peak.ok_or_else(|| NoEstimate::Peak(processor.name.clone()))?;
        let bandwidth = processor.bandwidth_gbps.or(platform.memory.bandwidth_gbps);
        let bandwidth = bandwidth.ok_or_else(|| NoEstimate::Bandwidth(processor.name.clone()))?;
        let launch_us = processor.launch_us.unwrap_or(0.0);
        let usable = [("peak", peak, peak > 0.0), ("bandwidth_gbps", bandwidth, bandwidth > 0.0)];
        for (key, value, usable) in usable.into_iter().chain([("launch_us", launch_us, launch_us >= 0.0)]) {
            if !usable || !value.is_finite() {
                let (key, problem) = (format!("{}: {key}", processor.name), format!("{value} is out of range"));
                return Err(NoEstimate::Value { key, problem });
            }
        }
        Ok(Self { operations_per_s: peak * 1e12, bytes_per_s: bandwidth * 1e9, launch_s: launch_us / 1e6 })
    }
}

/// What limits an estimated latency most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Operations at the peak rate.
    Compute,
    /// Bytes at the bandwidth.
    Memory,
    /// Launching kernels.
    Launch,
}

impl Bound {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Launch => "launch",
        }
    }
}

/// An estimated latency: in three parts that add up if one group of operators follows the other, and by the bounds of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Time of the groups that the peak rate limits [s].
    pub compute_s: f64,
    /// Time of the groups that the bandwidth limits [s].
    pub memory_s: f64,
    /// Time of launching kernels [s].
    pub launch_s: f64,
    /// Operations; a multiply-accumulate counts as two.
    pub operations: f64,
    /// Bytes from and to memory.
    pub bytes: f64,
    /// Time of all operations at the peak rate [s].
    pub operations_s: f64,
    /// Time of all bytes at the bandwidth [s].
    pub bytes_s: f64,
}

impl Estimate {
    /// The latency if one group follows the other, and launches come on top [ms].
    pub fn ms(&self) -> f64 {
        (self.compute_s + self.memory_s + self.launch_s) * 1e3
    }

    /// What no runtime can be faster than, whatever overlaps [ms].
    pub fn at_least_ms(&self) -> f64 {
        self.operations_s.max(self.bytes_s).max(self.launch_s) * 1e3
    }

    /// The largest part of [`Estimate::ms`].
    pub fn bound(&self) -> Bound {
        if self.launch_s > self.compute_s.max(self.memory_s) {
            Bound::Launch
        } else if self.compute_s > self.memory_s {
            Bound::Compute
        } else {
            Bound::Memory
        }
    }

    /// Adds a group.
    fn add(&mut self, operator: &Operator, rates: Rates) {
        let compute_s = operator.operations / rates.operations_per_s;
        let memory_s = operator.bytes / rates.bytes_per_s;
        if compute_s > memory_s {
            self.compute_s += compute_s;
        } else {
            self.memory_s += memory_s;
        }
        self.operations_s += compute_s;
        self.bytes_s += memory_s;
        self.launch_s += operator.kernels * rates.launch_s;
        self.operations += operator.operations;
        self.bytes += operator.bytes;
    }
}

/// The roofline of a sequence of operator groups.
pub fn roofline(operators: &[Operator], rates: Rates) -> Estimate {
    let mut estimate = Estimate::default();
    for operator in operators {
        estimate.add(operator, rates);
    }
    estimate
}

/// A model whose cost can be estimated: checked once, then without failure.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    spec: &'a ModelSpec,
    weight_bytes: f64,
}

impl<'a> Subject<'a> {
    /// A model with weights of a size [MB]: its own, a variant's, or what a profile says that it moves.
    ///
    /// # Errors
    /// If the model's architecture or the size is unknown or cannot be.
    pub fn new(spec: &'a ModelSpec, weights_mb: Option<f64>) -> Result<Self, NoEstimate> {
        let mistakes = match (&spec.transformer, &spec.network) {
            (Some(transformer), _) if spec.shape == ModelShape::Autoregressive => transformer.mistakes(),
            (_, Some(network)) if spec.shape != ModelShape::Autoregressive => network.mistakes(),
            _ => return Err(NoEstimate::Architecture),
        };
        if let Some((key, problem, _)) = mistakes.into_iter().next() {
            return Err(NoEstimate::Value { key: key.to_owned(), problem });
        }
        let weights_mb = weights_mb.ok_or(NoEstimate::Weights)?;
        if !weights_mb.is_finite() || weights_mb < 0.0 {
            let problem = format!("{weights_mb} is out of range");
            return Err(NoEstimate::Value { key: "weights_mb".to_owned(), problem });
        }
        Ok(Self { spec, weight_bytes: weights_mb * BYTES_PER_MB })
    }

    /// Bits of the numbers that are multiplied.
    pub fn compute_bits(&self) -> u32 {
        let transformer = self.spec.transformer.as_ref().map(|spec| spec.compute_bits);
        transformer.or(self.spec.network.as_ref().map(|spec| spec.compute_bits)).unwrap_or(8)
    }

    /// One inference, or one step of an `iterative` model. `None` for language models.
    pub fn inference(&self, rates: Rates) -> Option<Estimate> {
        let spec = self.spec.network.as_ref().filter(|_| self.spec.shape != ModelShape::Autoregressive)?;
        Some(roofline(&[network(spec, self.weight_bytes)], rates))
    }

    /// Time to the first token of `batch` prompts of `prompt` tokens each, in pieces of `chunk` tokens if given. `None` unless it
    /// is a language model.
    pub fn prefill(&self, rates: Rates, prompt: u32, chunk: Option<u32>, batch: u32) -> Option<Estimate> {
        let spec = self.spec.transformer.as_ref()?;
        let (mut estimate, mut past) = (Estimate::default(), 0);
        while past < prompt {
            let new = chunk.unwrap_or(prompt).clamp(1, prompt - past);
            let pass = Pass { new, past, batch, last: past + new == prompt };
            for operator in transformer(spec, self.weight_bytes, pass) {
                estimate.add(&operator, rates);
            }
            past += new;
        }
        Some(estimate)
    }

    /// One decode step of `batch` requests, each with a context of `context` tokens, the one that is computed included. `None` unless it
    /// is a language model.
    pub fn decode(&self, rates: Rates, context: u32, batch: u32) -> Option<Estimate> {
        let spec = self.spec.transformer.as_ref()?;
        let pass = Pass { new: 1, past: context.saturating_sub(1), batch, last: true };
        Some(roofline(&transformer(spec, self.weight_bytes, pass), rates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(text: &str) -> ModelSpec {
        toml::from_str(text).expect("the test's text is a model")
    }

    fn platform() -> PlatformSpec {
        let text = "name = 'p'\nmemory = { bandwidth_gbps = 100 }\n\
                    processor = [{ name = 'npu', kind = 'npu', peak_tops = 10, peak_tflops = 4, launch_us = 5 }]\n";
        toml::from_str(text).expect("the test's text is a platform")
    }

    #[test]
    fn the_peak_goes_with_the_bits() {
        let mut platform = platform();
        let of = |platform: &PlatformSpec, bits| Rates::of(platform, &platform.processor[0], bits);
        assert_eq!(of(&platform, 8).unwrap().operations_per_s, 10e12);
        assert_eq!(of(&platform, 16).unwrap(), Rates { operations_per_s: 4e12, bytes_per_s: 100e9, launch_s: 5e-6 });
        platform.processor[0].bandwidth_gbps = Some(60.0);
        platform.processor[0].peak_tflops = None;
        assert_eq!(of(&platform, 16).unwrap(), Rates { operations_per_s: 10e12, bytes_per_s: 60e9, launch_s: 5e-6 });
        platform.processor[0].peak_tops = None;
        assert_eq!(of(&platform, 8), Err(NoEstimate::Peak("npu".to_owned())));
    }

    #[test]
    fn a_network_is_one_group() {
        // 2e9 operations at 10e12/s: 0.2 ms; (30 + 10) MB at 100 GB/s: 0.4 ms; 20 kernels of 5 µs: 0.1 ms.
        let spec = model("network = { gmacs = 1, activation_mb = 10, kernels = 20 }");
        let rates = Rates::of(&platform(), &platform().processor[0], 8).unwrap();
        let estimate = Subject::new(&spec, Some(30.0)).unwrap().inference(rates).unwrap();
        assert!((estimate.ms() - 0.5).abs() < 1e-12, "{}", estimate.ms());
        assert!((estimate.at_least_ms() - 0.4).abs() < 1e-12, "launches and operations can overlap with reading");
        assert_eq!(estimate.bound(), Bound::Memory);
        // Without weights only 0.1 ms of memory remain, and compute binds.
        assert_eq!(Subject::new(&spec, Some(0.0)).unwrap().inference(rates).unwrap().bound(), Bound::Compute);
        let slow = Rates { launch_s: 1e-3, ..rates };
        assert_eq!(Subject::new(&spec, Some(0.0)).unwrap().inference(slow).unwrap().bound(), Bound::Launch);
        assert!((Subject::new(&spec, Some(0.0)).unwrap().inference(slow).unwrap().at_least_ms() - 20.0).abs() < 1e-12);
    }

    #[test]
    fn groups_of_both_kinds_can_overlap_down_to_the_bound() {
        // 3 ms of operations beside 1 ms of bytes, and then 1 beside 2: 3 + 2 in turn, 4 if the second's bytes come during the first.
        let rates = Rates { operations_per_s: 1e12, bytes_per_s: 1e9, launch_s: 0.0 };
        let group = |operations: f64, bytes: f64| Operator { name: "g", operations, bytes, kernels: 1.0 };
        let estimate = roofline(&[group(3e9, 1e6), group(1e9, 2e6)], rates);
        assert!((estimate.ms() - 5.0).abs() < 1e-12 && (estimate.at_least_ms() - 4.0).abs() < 1e-12);
    }

    proptest! {
        /// A longer prompt, more requests, smaller pieces and slower parts never make an estimate smaller; parts add up.
        #[test]
        fn estimates_are_monotonic(
            prompt in 1u32..3000, more in 1u32..500, batch in 1u32..16, chunk in 1u32..700,
            operations_per_s in 1e9f64..1e13, bytes_per_s in 1e8f64..1e12, launch_s in 0.0f64..1e-3, slower in 0.1f64..1.0,
        ) {
            let spec = model(
                "shape = 'autoregressive'\n\
                 transformer = { layers = 3, hidden = 64, ffn = 128, heads = 4, kv_heads = 2, vocab = 500 }",
            );
            let subject = Subject::new(&spec, Some(1.0)).expect("the model is complete");
            let rates = Rates { operations_per_s, bytes_per_s, launch_s };
            let prefill = |rates, prompt, chunk, batch| subject.prefill(rates, prompt, chunk, batch).expect("a prompt").ms();
            let decode = |rates, context, batch| subject.decode(rates, context, batch).expect("a step").ms();
            let (ttft, tpot) = (prefill(rates, prompt, None, batch), decode(rates, prompt, batch));
            let rounding = 1.0 - 1e-9;
            prop_assert!(ttft > 0.0 && tpot > 0.0);
            prop_assert!(prefill(rates, prompt + more, None, batch) >= ttft * rounding);
            prop_assert!(prefill(rates, prompt, None, batch + 1) >= ttft * rounding);
            prop_assert!(prefill(rates, prompt, Some(chunk), batch) >= ttft * rounding);
            prop_assert!(decode(rates, prompt + more, batch) >= tpot * rounding);
            prop_assert!(decode(rates, prompt, batch + 1) >= tpot * rounding);
            for worse in [
                Rates { operations_per_s: operations_per_s * slower, ..rates },
                Rates { bytes_per_s: bytes_per_s * slower, ..rates },
                Rates { launch_s: launch_s + 1e-6, ..rates },
            ] {
                prop_assert!(prefill(worse, prompt, None, batch) >= ttft * rounding);
                prop_assert!(decode(worse, prompt, batch) >= tpot * rounding);
            }
            // No faster than either roof alone, which is the bound.
            let step = subject.decode(rates, prompt, batch).expect("a step");
            let roofs = 1e3 * (step.operations / operations_per_s).max(step.bytes / bytes_per_s).max(step.launch_s);
            prop_assert!((step.at_least_ms() / roofs - 1.0).abs() < 1e-9 && step.ms() >= roofs * rounding);
        }
    }

    #[test]
    fn what_is_unknown_is_said() {
        let known = model("network = { gmacs = 1 }");
        assert_eq!(Subject::new(&known, None).unwrap_err(), NoEstimate::Weights);
        assert!(matches!(Subject::new(&known, Some(f64::NAN)), Err(NoEstimate::Value { .. })));
        assert_eq!(Subject::new(&model(""), Some(1.0)).unwrap_err(), NoEstimate::Architecture);
        // A language model is not its totals.
        let wrong = model("shape = 'autoregressive'\nnetwork = { gmacs = 1 }");
        assert_eq!(Subject::new(&wrong, Some(1.0)).unwrap_err(), NoEstimate::Architecture);
    }
}
