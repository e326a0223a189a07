//! Mixtures of experts of which only a part is in memory: what the others cost.
//!
//! Per layer there are *E* experts, of which a token activates *k*; a share *s* of them is resident. An activated expert is resident with
//! probability *h* (left out: *s*, as if every expert were activated alike). The *M = E (1 − s)* others are taken to be alike: a token
//! activates each of them with probability *q = k (1 − h) / M*, independently of other tokens. So *n* tokens that are processed together
//! need on average
//!
//! > misses(n) = L · M · (1 − (1 − q)^n)
//!
//! experts from slow memory, in all *L* layers; one token *L k (1 − h)*, a long prompt *L M*. Each takes its size ÷ bandwidth, nothing of
//! which is hidden behind computation, and is thrown away after use: what is resident does not change.

use crate::cost::{Phase, PhaseCost};
use crate::curve::{Below, Curve, StepSum};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{ExpertsSpec, limits};

/// Checks a model's experts.
pub(super) fn check(check: &mut Check<'_>, at: &Field, spec: &ExpertsSpec, weights_mb: Option<f64>) {
    let before = check.errors.len();
    check.number(at, "layers", f64::from(spec.layers), &limits::LAYERS);
    check.number(at, "per_layer", f64::from(spec.per_layer), &limits::EXPERTS);
    check.number(at, "active", f64::from(spec.active), &limits::EXPERTS);
    check.number(at, "expert_mb", spec.expert_mb, &limits::ADAPTER_MB);
    check.number(at, "resident", spec.resident, &limits::PROBABILITY);
    check.optional(at, "hit_rate", spec.hit_rate, &limits::PROBABILITY);
    if check.errors.len() > before {
        return;
    }
    if spec.active > spec.per_layer {
        let problem = format!("a token activates {} experts of {}", spec.active, spec.per_layer);
        check.wrong(&at.key("active"), problem, "it cannot activate more than there are");
    }
    let missing = f64::from(spec.per_layer) * (1.0 - spec.resident);
    let missed = f64::from(spec.active) * (1.0 - hit_rate(spec));
    if missed > missing + 1e-9 {
        let problem =
            format!("{missed:.2} experts are missed per token and layer, and only {missing:.2} are not resident");
        check.wrong(&at.key("hit_rate"), problem, "raise the hit rate or lower `resident`");
    }
    if weights_mb.is_none_or(|weights| weights < all_mb(spec)) {
        let problem = format!("the experts have {} MB", all_mb(spec));
        check.wrong(at, problem, "`weights_mb` of the model is the size of all weights, experts included");
    }
}

fn hit_rate(spec: &ExpertsSpec) -> f64 {
    spec.hit_rate.unwrap_or(spec.resident)
}

/// Size of all experts [MB].
fn all_mb(spec: &ExpertsSpec) -> f64 {
    f64::from(spec.layers) * f64::from(spec.per_layer) * spec.expert_mb
}

/// Size of the experts that are not resident [MB].
pub(super) fn missing_mb(spec: &ExpertsSpec) -> f64 {
    all_mb(spec) * (1.0 - spec.resident)
}

/// Weights that one token reads [MB]: all but the experts that it does not activate.
pub(super) fn read_mb(spec: &ExpertsSpec, weights_mb: f64) -> f64 {
    weights_mb - all_mb(spec) * (1.0 - f64::from(spec.active) / f64::from(spec.per_layer))
}

/// Expected number of experts that `tokens` processed together need from slow memory.
fn misses(spec: &ExpertsSpec, tokens: f64) -> f64 {
    let missing = f64::from(spec.per_layer) * (1.0 - spec.resident);
    if missing <= 0.0 {
        return 0.0;
    }
    let each = (f64::from(spec.active) * (1.0 - hit_rate(spec)) / missing).min(1.0);
    f64::from(spec.layers) * missing * (1.0 - libm::pow(1.0 - each, tokens))
}

/// Adds to the phases of a language model what experts from slow memory cost, at a bandwidth [bytes/ns].
pub(super) fn add(phases: &mut [(Phase, PhaseCost)], spec: &ExpertsSpec, bandwidth: f64, bytes_scale: f64) {
    let time_ns = |tokens: f64| misses(spec, tokens) * spec.expert_mb * 1e6 / bandwidth;
    let moved = |tokens: f64| misses(spec, tokens) * spec.expert_mb * 1e6 * bytes_scale;
    for (_, phase) in phases {
        match phase {
            PhaseCost::Prefill { latency_ns, chunk, chunk_overhead_ns, bytes_per_segment, .. } => {
                let most = chunk.map_or(f64::INFINITY, f64::from);
                let last = latency_ns.points().last().map_or(1.0, |&(tokens, _)| tokens);
                // Between powers of two the number of misses is nearly linear.
                let mut tokens: Vec<f64> = latency_ns.points().iter().map(|&(tokens, _)| tokens).collect();
                tokens.extend((0..24).map(|i| f64::from(1_u32 << i)).take_while(|&x| x < last));
                tokens.extend([most].into_iter().filter(|most| most.is_finite()));
                tokens.sort_by(f64::total_cmp);
                tokens.dedup();
                let points = tokens.into_iter().map(|n| (n, latency_ns.at(n) + time_ns(n.min(most)))).collect();
                *latency_ns = Curve::new(points, Below::Origin);
                if let Some(chunk) = *chunk {
                    *chunk_overhead_ns += time_ns(f64::from(chunk));
                }
                *bytes_per_segment += moved(most.min(last));
            }
            PhaseCost::Decode { step_ns, bytes_per_step, .. } => {
                let points = step_ns.curve().points().iter().map(|&(x, ns)| (x, ns + time_ns(1.0))).collect();
                *step_ns = StepSum::new(Curve::new(points, Below::Hold));
                *bytes_per_step += moved(1.0);
            }
            PhaseCost::Fixed { .. } | PhaseCost::Steps { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Work;

    fn spec(resident: f64, hit_rate: Option<f64>) -> ExpertsSpec {
        ExpertsSpec { layers: 10, per_layer: 8, active: 2, expert_mb: 5.0, resident, hit_rate }
    }

    #[test]
    fn misses_of_one_token_and_of_many() {
        // Half of the experts resident, hit by three of four activations: 10 layers × 2 × 1/4 = 5 misses per token.
        let half = spec(0.5, Some(0.75));
        assert!((misses(&half, 1.0) - 5.0).abs() < 1e-12);
        // Four missing per layer, each with q = 2 × 1/4 / 4 = 1/8: two tokens need 10 × 4 × (1 − 49/64) = 9.375.
        assert!((misses(&half, 2.0) - 9.375).abs() < 1e-12);
        assert!((misses(&half, 1e4) - 40.0).abs() < 1e-9, "a long prompt needs all that are missing");
        // Every expert alike: as many hits as are resident.
        assert!((misses(&spec(0.25, None), 1.0) - 15.0).abs() < 1e-12);
        assert_eq!(misses(&spec(1.0, None), 100.0), 0.0);
    }

    #[test]
    fn misses_lengthen_steps_and_prompts() {
        let mut phases = vec![
            (
                Phase::Prefill,
                PhaseCost::Prefill {
                    pieces: crate::cost::Pieces::default(),
                    latency_ns: Curve::new(vec![(100.0, 1e7)], Below::Origin),
                    chunk: None,
                    chunk_overhead_ns: 0.0,
                    bytes_per_segment: 0.0,
                    bytes_per_token: 0.0,
                    energy_mj: None,
                },
            ),
            (
                Phase::Decode,
                PhaseCost::Decode {
                    step_ns: StepSum::new(Curve::constant(1e7)),
                    batch: None,
                    bytes_per_step: 1e6,
                    bytes_per_context_token: 0.0,
                    energy_mj: None,
                },
            ),
        ];
        add(&mut phases, &spec(0.5, Some(0.75)), 10.0, 1.0);
        let work = Work { prompt: 100, output: 11, steps: 0 };
        // 5 misses of 5 MB at 10 GB/s: 2.5 ms per step.
        let (_, decode) = &phases[1];
        assert!((decode.latency_ns(work, 0.0, 10.0) - 10.0 * 12.5e6).abs() < 1.0);
        assert!((decode.bytes(work, 0.0, 1.0) - 26e6).abs() < 1.0);
        // All 40 missing experts: 200 MB, 20 ms.
        let (_, prefill) = &phases[0];
        assert!((prefill.latency_ns(work, 0.0, 100.0) - 30e6).abs() < 100.0);
    }
}
