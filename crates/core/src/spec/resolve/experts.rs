//! Mixtures of experts of which only a part is in memory: what the others cost.
//!
//! Per layer there are *E* experts, of which a token activates *k*; a share *s* of them is resident. An activated expert is resident with
//! probability *h* (stated, or from how unevenly experts are activated and what is kept: [`hit_rate`]). The *M = E (1 − s)* others are
//! taken to be alike: a token activates each of them with probability *q = k (1 − h) / M*, independently of other tokens. So *n* tokens
//! that are processed together need on average
//!
//! > misses(n) = L · M · (1 − (1 − q)^n)
//!
//! experts from slow memory, in all *L* layers; one token *L k (1 − h)*, a long prompt *L M*. Each takes its size ÷ bandwidth, nothing of
//! which is hidden behind computation; or they are computed where they lie, if that is faster.

use crate::cost::{Phase, PhaseCost};
use crate::curve::{Below, Curve, StepSum};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{ExpertsSpec, Replacement, limits};

/// Checks a model's experts.
pub(super) fn check(check: &mut Check<'_>, at: &Field, spec: &ExpertsSpec, weights_mb: Option<f64>) {
    let before = check.errors.len();
    check.number(at, "layers", f64::from(spec.layers), &limits::LAYERS);
    check.number(at, "per_layer", f64::from(spec.per_layer), &limits::EXPERTS);
    check.number(at, "active", f64::from(spec.active), &limits::EXPERTS);
    check.number(at, "expert_mb", spec.expert_mb, &limits::ADAPTER_MB);
    check.number(at, "resident", spec.resident, &limits::PROBABILITY);
    check.optional(at, "hit_rate", spec.hit_rate, &limits::PROBABILITY);
    check.optional(at, "skew", spec.skew, &limits::SKEW);
    if spec.hit_rate.is_some() && spec.skew.is_some() {
        check.wrong(
            &at.key("skew"),
            "both `hit_rate` and `skew` are given",
            "the hit rate follows from the skew: give one of them",
        );
    }
    if spec.replacement == Replacement::Lru && spec.skew.is_none() {
        let help = "say how unevenly experts are activated: `skew`";
        check.wrong(&at.key("replacement"), "`replacement` without `skew` decides nothing", help);
    }
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

/// Probability that an activated expert is in memory: stated, or from how unevenly they are activated and what is kept.
pub(super) fn hit_rate(spec: &ExpertsSpec) -> f64 {
    let Some(skew) = spec.skew else { return spec.hit_rate.unwrap_or(spec.resident) };
    let weights: Vec<f64> = (1..=spec.per_layer).map(|i| libm::pow(f64::from(i), -skew)).collect();
    let sum: f64 = weights.iter().sum();
    let popularity: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let capacity = f64::from(spec.per_layer) * spec.resident;
    match spec.replacement {
        Replacement::Score => most_popular(&popularity, capacity),
        Replacement::Lru => least_recently_used(&popularity, capacity),
    }
    .clamp(0.0, 1.0)
}

/// Hit rate of a cache that holds the most popular ones; a part of an expert counts as such.
fn most_popular(popularity: &[f64], capacity: f64) -> f64 {
    let held = |i: usize| (capacity - i as f64).clamp(0.0, 1.0);
    popularity.iter().enumerate().map(|(i, p)| p * held(i)).sum()
}

/// Hit rate of a cache that holds those that were used last, by Che's approximation (Che, Tung and Wang, Hierarchical Web caching
/// systems, IEEE JSAC 20(7), 2002): an expert is in memory if it was used within the last T activations, and T is such that as many are
/// as there is room for.
fn least_recently_used(popularity: &[f64], capacity: f64) -> f64 {
    if capacity >= popularity.len() as f64 {
        return 1.0;
    }
    let inside = |p: f64, time: f64| 1.0 - libm::exp(-p * time);
    let held = |time: f64| popularity.iter().map(|&p| inside(p, time)).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    // An expert that is hardly ever activated makes T large, but not unbounded: 2^200 activations are enough for any skew allowed.
    for _ in 0..200 {
        if held(high) >= capacity {
            break;
        }
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if held(middle) < capacity {
            low = middle;
        } else {
            high = middle;
        }
    }
    popularity.iter().map(|&p| p * inside(p, high)).sum()
}

/// How the hit rate comes about, for the list of figures.
pub(super) fn hit_rate_source(spec: &ExpertsSpec) -> String {
    let rate = hit_rate(spec);
    match (spec.skew, spec.replacement) {
        (None, _) => format!("hit rate {rate}"),
        (Some(skew), Replacement::Score) => {
            format!("hit rate {rate:.4} = popularity of the experts that fit, the i-th in proportion to i^-{skew}")
        }
        (Some(skew), Replacement::Lru) => format!(
            "hit rate {rate:.4} = Σ p (1 − e^(−p T)) with Σ (1 − e^(−p T)) = experts that fit (Che's approximation of LRU), the i-th in proportion to i^-{skew}"
        ),
    }
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

/// Expected number of experts that `tokens` processed together need from slow memory, at a [`hit_rate`].
fn misses(spec: &ExpertsSpec, hit_rate: f64, tokens: f64) -> f64 {
    let missing = f64::from(spec.per_layer) * (1.0 - spec.resident);
    if missing <= 0.0 {
        return 0.0;
    }
    let each = (f64::from(spec.active) * (1.0 - hit_rate) / missing).min(1.0);
    f64::from(spec.layers) * missing * (1.0 - libm::pow(1.0 - each, tokens))
}

/// Adds to the phases of a language model what experts from slow memory cost, at a bandwidth [bytes/ns], or what computing them where
/// they lie costs, at so much for an expert and token [ns].
pub(super) fn add(
    phases: &mut [(Phase, PhaseCost)],
    spec: &ExpertsSpec,
    bandwidth: f64,
    computed_ns: Option<f64>,
    bytes_scale: f64,
) {
    let hit_rate = hit_rate(spec);
    // However many experts they share, all tokens together miss L k (1 − h) n activations.
    let missed = f64::from(spec.layers) * f64::from(spec.active) * (1.0 - hit_rate);
    // Time, and what is fetched: nothing of what is computed where it lies.
    let faster = |tokens: f64| {
        let fetched = misses(spec, hit_rate, tokens) * spec.expert_mb * 1e6;
        let fetch_ns = fetched / bandwidth;
        let compute_ns = computed_ns.map_or(f64::INFINITY, |ns| missed * tokens * ns);
        if compute_ns < fetch_ns { (compute_ns, 0.0) } else { (fetch_ns, fetched * bytes_scale) }
    };
    let (time_ns, moved) = (|tokens| faster(tokens).0, |tokens| faster(tokens).1);
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
        ExpertsSpec {
            layers: 10,
            per_layer: 8,
            active: 2,
            expert_mb: 5.0,
            resident,
            hit_rate,
            skew: None,
            replacement: Replacement::Score,
        }
    }

    fn skewed(per_layer: u32, resident: f64, skew: f64, replacement: Replacement) -> f64 {
        hit_rate(&ExpertsSpec { per_layer, skew: Some(skew), replacement, ..spec(resident, None) })
    }

    #[test]
    fn the_hit_rate_follows_from_skew_and_replacement() {
        // Four experts in proportion to 1, 1/2, 1/3, 1/4: 0.48, 0.24, 0.16 and 0.12. The first two fit; or one and a half.
        assert!((skewed(4, 0.5, 1.0, Replacement::Score) - 0.72).abs() < 1e-12);
        assert!((skewed(4, 0.375, 1.0, Replacement::Score) - 0.60).abs() < 1e-12);
        // T = 3.098: 0.48 · 0.774 + 0.24 · 0.525 + 0.16 · 0.391 + 0.12 · 0.310.
        assert!((skewed(4, 0.5, 1.0, Replacement::Lru) - 0.5972).abs() < 1e-4);
        for replacement in [Replacement::Score, Replacement::Lru] {
            assert!((skewed(8, 0.25, 0.0, replacement) - 0.25).abs() < 1e-9, "all alike: as many as there are");
            assert_eq!(skewed(8, 1.0, 2.0, replacement), 1.0);
            assert_eq!(skewed(8, 0.0, 2.0, replacement), 0.0);
            assert!((0.999..=1.0).contains(&skewed(256, 0.9, 5.0, replacement)));
        }
    }

    #[test]
    fn ches_approximation_is_what_a_simulated_cache_does() {
        for (experts, resident, skew) in [(64_u32, 0.25, 1.0), (8, 0.5, 0.8), (4, 0.5, 1.0), (128, 0.1, 1.5)] {
            let popularity: Vec<f64> = (1..=experts).map(|i| libm::pow(f64::from(i), -skew)).collect();
            let sum: f64 = popularity.iter().sum();
            let room = (f64::from(experts) * resident) as usize;
            let (mut held, mut hits, mut state) = (Vec::new(), 0_u32, 1_u64);
            let count = 200_000;
            for _ in 0..count {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut left = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
                let expert = popularity
                    .iter()
                    .position(|p| {
                        left -= p;
                        left < 0.0
                    })
                    .unwrap_or(0);
                match held.iter().position(|&other| other == expert) {
                    Some(place) => {
                        hits += 1;
                        held.remove(place);
                    }
                    None if held.len() == room => {
                        held.remove(0);
                    }
                    None => {}
                }
                held.push(expert);
            }
            let resident = room as f64 / f64::from(experts);
            let (simulated, formula) =
                (f64::from(hits) / f64::from(count), skewed(experts, resident, skew, Replacement::Lru));
            assert!((simulated - formula).abs() < 0.01, "{experts} {resident} {skew}: {simulated} {formula}");
        }
    }

    #[test]
    fn a_missing_expert_is_computed_where_it_lies_if_that_is_faster() {
        // 5 misses per token, 0.5 ms each to fetch, 0.2 ms each to compute for one token.
        let decode = |computed: Option<f64>| {
            let step = PhaseCost::Decode {
                step_ns: StepSum::new(Curve::constant(10e6)),
                batch: None,
                bytes_per_step: 0.0,
                bytes_per_context_token: 0.0,
                energy_mj: None,
            };
            let mut phases = [(Phase::Decode, step)];
            add(&mut phases, &spec(0.5, Some(0.75)), 10.0, computed, 1.0);
            let work = Work { output: 2, ..Work::default() };
            (phases[0].1.latency_ns(work, 0.0, 1.0).round(), phases[0].1.bytes(work, 0.0, 1.0).round())
        };
        assert_eq!(decode(None), (12.5e6, 25e6));
        assert_eq!(decode(Some(0.2e6)), (11.0e6, 0.0), "what is computed where it lies is not fetched");
        assert_eq!(decode(Some(0.7e6)), (12.5e6, 25e6), "fetching is faster");
    }

    #[test]
    fn misses_of_one_token_and_of_many() {
        // Half of the experts resident, hit by three of four activations: 10 layers × 2 × 1/4 = 5 misses per token.
        let half = spec(0.5, Some(0.75));
        let misses = |spec: &ExpertsSpec, tokens| misses(spec, hit_rate(spec), tokens);
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
        add(&mut phases, &spec(0.5, Some(0.75)), 10.0, None, 1.0);
        let work = Work { prompt: 100, output: 11, steps: 0, exit: 1.0, scale: 1.0 };
        // 5 misses of 5 MB at 10 GB/s: 2.5 ms per step.
        let (_, decode) = &phases[1];
        assert!((decode.latency_ns(work, 0.0, 10.0) - 10.0 * 12.5e6).abs() < 1.0);
        assert!((decode.bytes(work, 0.0, 1.0) - 26e6).abs() < 1.0);
        // All 40 missing experts: 200 MB, 20 ms.
        let (_, prefill) = &phases[0];
        assert!((prefill.latency_ns(work, 0.0, 100.0) - 30e6).abs() < 100.0);
    }
}
