//! A cost entry becomes a [`Cost`].

use crate::cost::{Cost, Phase, PhaseCost, Pieces, Reuse, Work};
use crate::curve::{Below, Curve, StepSum};
use crate::distribution::Distribution;
use crate::spec::{CostSpec, ModelShape};
use crate::units::{Bytes, Nanos};

use super::experts;
use super::models::Variant;

const MS: f64 = 1e6;
const MB: f64 = 1e6;
const KB: f64 = 1e3;

/// What a cost depends on besides its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    /// The model.
    pub variant: &'a Variant<'a>,
    /// Input size, for tables by size [elements].
    pub size: Option<f64>,
    /// Factor on all bytes moved.
    pub bytes_scale: f64,
    /// Bandwidth at which weights are loaded [bytes/ns].
    pub load_bandwidth: Option<f64>,
    /// Index of the entry among the system's figures.
    pub figure: u32,
}

/// The cost of an entry that was checked. `None` if it needs an input size and there is none.
pub(super) fn build(entry: &CostSpec, inputs: Inputs<'_>) -> Option<Cost> {
    let weights_mb = inputs.variant.weights_mb().unwrap_or(0.0);
    // Left out, every inference (or step) reads all weights once.
    let experts = inputs.variant.spec.experts.as_ref();
    let read_mb = experts.map_or(weights_mb, |experts| experts::read_mb(experts, weights_mb));
    let bytes = entry.bytes_mb.unwrap_or(read_mb) * MB * inputs.bytes_scale;
    let mut phases = match inputs.variant.spec.shape {
        ModelShape::OneShot | ModelShape::Streaming => {
            let (latency_ns, quantiles) = forward_latency(entry, inputs.size)?;
            let cost = PhaseCost::Fixed {
                latency_ns,
                quantiles,
                boundaries: boundaries(entry),
                bytes,
                energy_mj: entry.energy_mj,
            };
            vec![(Phase::Forward, cost)]
        }
        ModelShape::Iterative => {
            let part = |ms: f64| PhaseCost::Fixed {
                latency_ns: ms * MS,
                quantiles: None,
                boundaries: vec![1.0],
                bytes: 0.0,
                energy_mj: None,
            };
            let reuse = entry.reuse.as_ref().map(|reuse| Reuse {
                every: reuse.every,
                step_ns: reuse.step_ms * MS,
                bytes: reuse.bytes_mb.map_or(bytes, |mb| mb * MB * inputs.bytes_scale),
                energy_mj: reuse.energy_mj,
            });
            let batch = entry.batch_factor.clone().map(|points| Curve::new(points, Below::Hold));
            let step_ns = entry.step_ms? * MS;
            let weights = if batch.is_some() { weights_mb * MB * inputs.bytes_scale } else { 0.0 };
            let steps = PhaseCost::Steps { step_ns, bytes, energy_mj: entry.energy_mj, reuse, batch, weights };
            let before = entry.before_ms.filter(|&ms| ms > 0.0).map(|ms| (Phase::Before, part(ms)));
            let after = entry.after_ms.filter(|&ms| ms > 0.0).map(|ms| (Phase::After, part(ms)));
            before.into_iter().chain([(Phase::Steps, steps)]).chain(after).collect()
        }
        ModelShape::Autoregressive => {
            let in_ns = |points: &Vec<(f64, f64)>| points.iter().map(|&(x, ms)| (x, ms * MS)).collect::<Vec<_>>();
            let prefill = PhaseCost::Prefill {
                latency_ns: Curve::new(in_ns(entry.prefill_ms.as_ref()?), Below::Origin),
                chunk: entry.prefill_chunk,
                chunk_overhead_ns: entry.chunk_overhead_ms.unwrap_or(0.0) * MS,
                bytes_per_segment: weights_mb * MB * inputs.bytes_scale,
                bytes_per_token: entry.prefill_kb_per_token.unwrap_or(0.0) * KB * inputs.bytes_scale,
                energy_mj: entry.prefill_mj_per_token,
                pieces: Pieces {
                    efficiency: entry.chunk_efficiency.clone().map(|points| Curve::new(points, Below::Hold)),
                    layer_groups: entry.layer_groups.unwrap_or(1),
                    mixed: entry.mixed_steps,
                    written: None,
                },
            };
            let kv_kb = inputs.variant.spec.kv_kb_per_token.unwrap_or(0.0);
            // A stated number of bytes per step includes the cache.
            let bytes_per_context_token = if entry.bytes_mb.is_some() { 0.0 } else { kv_kb * KB * inputs.bytes_scale };
            let decode = PhaseCost::Decode {
                step_ns: StepSum::new(Curve::new(in_ns(entry.decode_ms.as_ref()?), Below::Hold)),
                batch: entry.batch_factor.clone().map(|points| Curve::new(points, Below::Hold)),
                bytes_per_step: bytes,
                bytes_per_context_token,
                energy_mj: entry.energy_mj,
            };
            vec![(Phase::Prefill, prefill), (Phase::Decode, decode)]
        }
    };
    if let (Some(experts), Some(bandwidth)) = (experts, entry.experts_gbps.or(inputs.load_bandwidth)) {
        experts::add(&mut phases, experts, bandwidth, entry.expert_ms.map(|ms| ms * MS), inputs.bytes_scale);
    }
    // Experts that are not kept in memory are not loaded with the rest.
    let missing_mb = experts.map_or(0.0, experts::missing_mb);
    let load_ns = match (entry.load_ms, inputs.load_bandwidth) {
        (Some(ms), _) => Nanos::from_ms(ms),
        (None, Some(bandwidth)) => {
            let held_mb = (inputs.variant.held_mb().unwrap_or(0.0) - missing_mb).max(0.0);
            Nanos::from_ns_f64(held_mb * MB / bandwidth)
        }
        (None, None) => Nanos::ZERO,
    };
    let activation_bytes = Bytes::from_mb(entry.memory_mb.unwrap_or(0.0)).0;
    Some(Cost { activation_bytes, load_ns: load_ns.0, figure: inputs.figure, ..Cost::of(phases) })
}

/// Nominal latency of an inference [ns], and the distribution relative to it. The nominal latency of a distribution is the mean of
/// its piecewise linear quantile function.
fn forward_latency(entry: &CostSpec, size: Option<f64>) -> Option<(f64, Option<Curve>)> {
    if let Some(ms) = entry.latency_ms {
        return Some((ms * MS, None));
    }
    if let Some(points) = &entry.by_size_ms {
        return Some((Curve::new(points.clone(), Below::Hold).at(size?) * MS, None));
    }
    let quantiles = entry.quantiles_ms.as_ref()?;
    let mut points: Vec<(f64, f64)> =
        quantiles.in_order().map(|(_, probability, value)| (probability, value)).collect();
    // Constant below the first quantile and above the last.
    let (first, last) = (*points.first()?, *points.last()?);
    if first.0 > 0.0 {
        points.insert(0, (0.0, first.1));
    }
    if last.0 < 1.0 {
        points.push((1.0, last.1));
    }
    let mean = Distribution::quantiles(points.clone()).mean();
    let relative = points.into_iter().map(|(probability, ms)| (probability, ms / mean)).collect();
    Some((mean * MS, Some(Curve::new(relative, Below::Hold))))
}

/// Ends of the segments of an inference, relative to its length.
fn boundaries(entry: &CostSpec) -> Vec<f64> {
    if let Some(weights) = &entry.segment_weights {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let mut ends: Vec<f64> = weights
            .iter()
            .map(|weight| {
                sum += weight;
                sum / total
            })
            .collect();
        if let Some(last) = ends.last_mut() {
            *last = 1.0;
        }
        return ends;
    }
    let segments = entry.segments.unwrap_or(1);
    (1..=segments).map(|i| f64::from(i) / f64::from(segments)).collect()
}

/// The largest bandwidth that a part of the cost would need to take no longer than its latency [bytes/ns], for work of a size.
pub(super) fn bandwidth_needed(cost: &Cost, work: Work) -> f64 {
    let needs = cost.phases.iter().map(|(phase, cost)| {
        let end = work.units(*phase);
        let latency = cost.latency_ns(work, 0.0, end);
        if end > 0.0 && latency > 0.0 { cost.bytes(work, 0.0, end) / latency } else { 0.0 }
    });
    needs.fold(0.0, f64::max)
}

/// The smallest ratio of the latency to the nominal one: 1 without variation.
pub(super) fn smallest_factor(cost: &PhaseCost, variation: f64) -> f64 {
    match cost {
        PhaseCost::Fixed { quantiles: Some(quantiles), .. } => quantiles.at(0.0),
        _ => variation,
    }
}

/// The shortest time that the whole of a stage takes on a processor, if decoding is at best so many times as long as alone [ns].
pub(super) fn shortest_ns(cost: &Cost, work: Work, variation: f64, decode: f64) -> f64 {
    // Phase by phase: each can run on other units.
    let least = |i: usize| {
        let at_widths = cost.at_all_widths().filter_map(|(_, phases)| {
            let (phase, cost) = phases.get(i)?;
            let end = work.units(*phase);
            let drafted = if *phase == Phase::Decode { decode } else { 1.0 };
            let latency = || cost.latency_ns(work, 0.0, end) * smallest_factor(cost, variation) * drafted;
            Some(if end > 0.0 { latency() } else { 0.0 })
        });
        at_widths.fold(f64::INFINITY, f64::min)
    };
    (0..cost.phases.len()).map(least).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ModelSpec, QuantilesSpec};

    fn entry() -> CostSpec {
        CostSpec { model: "m".to_owned(), processor: "p".to_owned(), ..CostSpec::default() }
    }

    fn model(shape: ModelShape) -> ModelSpec {
        let text = format!("shape = '{}'\nweights_mb = 10\n", super::super::models::shape_name(shape));
        toml::from_str(&text).expect("the test's text is a model")
    }

    fn cost(entry: &CostSpec, spec: &ModelSpec) -> Cost {
        let variant = Variant { model: "m", variant: None, spec, layer: 0 };
        build(entry, Inputs { variant: &variant, size: None, bytes_scale: 2.0, load_bandwidth: Some(5.0), figure: 7 })
            .expect("the entry is complete")
    }

    #[test]
    fn weights_move_once_and_load_at_the_given_bandwidth() {
        let built =
            cost(&CostSpec { latency_ms: Some(3.0), segments: Some(4), ..entry() }, &model(ModelShape::OneShot));
        // 10 MB at 5 GB/s are 2 ms; all bytes are doubled by the switch, loading is not.
        assert_eq!(built.load_ns, 2_000_000);
        let PhaseCost::Fixed { latency_ns, boundaries, bytes, .. } = &built.phases[0].1 else { panic!("one part") };
        assert_eq!((*latency_ns, *bytes), (3e6, 2e7));
        assert_eq!(boundaries, &[0.25, 0.5, 0.75, 1.0]);
        let work = Work::default();
        assert!((bandwidth_needed(&built, work) - 2e7 / 3e6).abs() < 1e-12);
    }

    #[test]
    fn weights_of_segments_are_cumulated() {
        let built = CostSpec { segment_weights: Some(vec![1.0, 2.0, 1.0]), ..entry() };
        assert_eq!(boundaries(&built), [0.25, 0.75, 1.0]);
    }

    #[test]
    fn a_distribution_has_its_mean_as_nominal_latency() {
        let quantiles =
            QuantilesSpec { min: Some(1.0), p50: 3.0, p90: None, p95: None, p99: None, p999: None, max: Some(9.0) };
        let built = cost(&CostSpec { quantiles_ms: Some(quantiles), ..entry() }, &model(ModelShape::OneShot));
        // Half of the time between 1 and 3, half between 3 and 9: (2 + 6) / 2.
        let PhaseCost::Fixed { latency_ns, quantiles: Some(curve), .. } = &built.phases[0].1 else {
            panic!("a distribution")
        };
        assert_eq!(*latency_ns, 4e6);
        assert_eq!(curve.points(), [(0.0, 0.25), (0.5, 0.75), (1.0, 2.25)]);
        assert_eq!(shortest_ns(&built, Work::default(), 0.5, 1.0), 1e6);
    }

    #[test]
    fn iterative_models_have_up_to_three_parts() {
        let steps = CostSpec { step_ms: Some(2.0), before_ms: Some(1.0), after_ms: Some(0.0), ..entry() };
        let built = cost(&steps, &model(ModelShape::Iterative));
        let kinds: Vec<Phase> = built.phases.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Phase::Before, Phase::Steps], "what takes no time is no part");
        assert_eq!(built.total_ns(Work { steps: 20, ..Work::default() }), 41e6);
        assert_eq!(shortest_ns(&built, Work { steps: 20, ..Work::default() }, 0.5, 1.0), 20.5e6);
    }
}
