//! Language models whose key-value cache stays in slower memory while they run: what fetching it adds to each step.
//!
//! A decode step over *n* tokens of context fetches, for every layer, what matters of the cache: a share *s* of the tokens, at least
//! *m* of them. With *L* layers, a latency *λ* and a bandwidth *b* of the link, and *k* bytes of cache per token in all layers:
//!
//! > f(n) = L · λ + max(s · n, min(m, n)) · k / b
//!
//! The layers of a step are computed one after the other, and what a layer needs is fetched while the one before it is computed. If
//! computing takes *c* in all, and layers are alike:
//!
//! > step = max(c, f) + min(c, f) / L
//!
//! The shorter of the two is hidden behind the longer one, but for one layer: the first layer's part is fetched before anything is
//! computed, and the last layer is computed when everything has been fetched. With *s* = 1 this is plain offloading (FlexGen, Sheng et
//! al. 2023); with a small *s* it is prefetching by importance (InfiniGen, Lee et al., OSDI 2024, arXiv 2406.19707). The closed form
//! is ours.
//!
//! A prompt writes its cache over the link while it is computed, by the same formula with f(n) = n · k / b. A piece of it that is less
//! efficient takes longer to compute, but not to write.

mod batch;

pub use batch::BatchSteps;
use serde::{Deserialize, Serialize};

use crate::cost::{Cost, Phase, PhaseCost, Written};
use crate::curve::{Below, Curve, StepSum};
use crate::system::Link;

/// How a model runs while its cache stays in slower memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offload {
    /// Layers, one of which is computed while the next one's part of the cache is fetched; ≥ 1.
    pub layers: u32,
    /// Share of the context's tokens that a decode step fetches, in (0, 1].
    pub share: f64,
    /// It fetches at least so many tokens, or all that there are.
    pub least: f64,
}

/// What a model costs on a processor while its cache stays in slower memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Far {
    /// Its phases, fetching included.
    pub cost: Cost,
    /// What a decode step fetches [ns] by context length [tokens], summed.
    pub fetch_ns: StepSum,
    /// Layers.
    pub layers: f64,
}

/// Time of something that computes for `compute` and fetches for `fetch`, layer by layer, one layer ahead.
pub fn overlapped(compute: f64, fetch: f64, layers: f64) -> f64 {
    compute.max(fetch) + compute.min(fetch) / layers
}

impl Offload {
    /// Time in which a decode step's part of the cache is fetched [ns], by context length [tokens]; `bytes` per token of cache.
    pub fn fetch_ns(&self, bytes: f64, link: Link) -> Curve {
        let latency = link.latency.as_f64() * f64::from(self.layers);
        let token = link.bandwidth.map_or(0.0, |bandwidth| bytes / bandwidth);
        let floor = latency + self.least * token;
        let full = self.least / self.share;
        let mut points = vec![(0.0, latency)];
        if self.least > 0.0 {
            points.push((self.least, floor));
        }
        if full > self.least {
            points.push((full, floor));
        }
        // Past the last point a curve goes on with its last slope.
        points.push((full + 1.0, floor + self.share * token));
        Curve::new(points, Below::Hold)
    }

    /// What a model costs on a whole processor while its cache stays behind a link; `bytes` per token of cache.
    pub fn far(&self, near: &Cost, bytes: f64, link: Link) -> Far {
        let layers = f64::from(self.layers);
        let fetch = self.fetch_ns(bytes, link);
        let write = link.bandwidth.map_or(0.0, |bandwidth| bytes / bandwidth);
        let mut cost = near.clone();
        for (kind, phase) in &mut cost.phases {
            match (kind, phase) {
                (Phase::Prefill, PhaseCost::Prefill { latency_ns, pieces, .. }) if write > 0.0 => {
                    if pieces.efficiency.is_some() {
                        let written = Written { compute_ns: latency_ns.clone(), token_ns: write, layers };
                        pieces.written = Some(Box::new(written));
                    }
                    let writes = Curve::new(vec![(1.0, write)], Below::Origin);
                    *latency_ns = combine(latency_ns, &writes, layers, Below::Origin);
                }
                (Phase::Decode, PhaseCost::Decode { step_ns, .. }) => {
                    *step_ns = StepSum::new(combine(step_ns.curve(), &fetch, layers, Below::Hold));
                }
                _ => {}
            }
        }
        Far { cost, fetch_ns: StepSum::new(fetch), layers }
    }
}

/// The two curves overlapped. Both are linear in pieces, and so is the result, with the places at which they cross as further points.
fn combine(compute: &Curve, fetch: &Curve, layers: f64, below: Below) -> Curve {
    let mut at: Vec<f64> = compute.points().iter().chain(fetch.points()).map(|&(x, _)| x).collect();
    if below == Below::Hold {
        at.push(0.0);
    }
    at.sort_by(f64::total_cmp);
    at.dedup();
    let last = at[at.len() - 1];
    // Past the last point both go on straight; where they cross there, if they do, and a little further.
    let gap = |x: f64| compute.at(x) - fetch.at(x);
    let (end, slope) = (gap(last), gap(last + 1.0) - gap(last));
    let crossing = last - end / slope;
    if crossing.is_finite() && crossing > last && crossing < 1e9 {
        at.push(crossing);
    }
    at.push(at[at.len() - 1] + 1.0);
    let mut points: Vec<f64> = Vec::with_capacity(at.len() * 2);
    for (i, &x) in at.iter().enumerate() {
        if i > 0 {
            let before = at[i - 1];
            let (from, to) = (gap(before), gap(x));
            if from * to < 0.0 {
                let crossing = before + (x - before) * from / (from - to);
                if crossing > before && crossing < x {
                    points.push(crossing);
                }
            }
        }
        points.push(x);
    }
    let value = |x: f64| (x, overlapped(compute.at(x), fetch.at(x), layers));
    Curve::new(points.into_iter().map(value).collect(), below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Work;
    use crate::units::Nanos;

    fn link(us: f64, gbps: f64) -> Link {
        Link { latency: Nanos::from_us(us), bandwidth: Some(gbps) }
    }

    fn near() -> Cost {
        let prefill = PhaseCost::prefill(Curve::new(vec![(100.0, 10e6)], Below::Origin));
        let decode = PhaseCost::decode(Curve::new(vec![(100.0, 10e6), (300.0, 12e6)], Below::Hold));
        Cost::of(vec![(Phase::Prefill, prefill), (Phase::Decode, decode)])
    }

    #[test]
    fn what_is_shorter_is_hidden_but_for_one_layer() {
        // Layer by layer: 4 layers of 1 ms each, 2 ms of fetching for each: fetch, then three times fetch beside compute, then compute.
        assert_eq!(overlapped(4.0, 8.0, 4.0), 2.0 + 3.0 * 2.0 + 1.0);
        assert_eq!(overlapped(8.0, 4.0, 4.0), 1.0 + 3.0 * 2.0 + 2.0);
        assert_eq!(overlapped(8.0, 4.0, 1.0), 12.0, "one layer hides nothing");
    }

    #[test]
    fn a_share_of_the_tokens_is_fetched_and_at_least_so_many() {
        let offload = Offload { layers: 4, share: 0.1, least: 20.0 };
        // 1 MB per token at 10 GB/s: 0.1 ms each; 4 × 50 µs of latency.
        let fetch = offload.fetch_ns(1e6, link(50.0, 10.0));
        for (context, tokens) in [(0.0, 0.0), (10.0, 10.0), (20.0, 20.0), (150.0, 20.0), (200.0, 20.0), (1000.0, 100.0)]
        {
            assert!((fetch.at(context) - (0.2e6 + tokens * 0.1e6)).abs() < 1e-3, "{context}");
        }
        let all = Offload { layers: 4, share: 1.0, least: 0.0 }.fetch_ns(1e6, link(0.0, 10.0));
        assert!((all.at(1000.0) - 100e6).abs() < 1e-3);
    }

    #[test]
    fn the_curve_of_far_steps_is_the_formula_at_every_context() {
        for (share, least, gbps, layers) in
            [(0.1, 16.0, 5.0, 8), (1.0, 0.0, 20.0, 32), (0.5, 0.0, 1.0, 1), (0.05, 64.0, 2.0, 4)]
        {
            let offload = Offload { layers, share, least };
            let (near, link) = (near(), link(10.0, gbps));
            let far = offload.far(&near, 1e6, link);
            let fetch = offload.fetch_ns(1e6, link);
            let (PhaseCost::Decode { step_ns: slow, .. }, PhaseCost::Decode { step_ns: fast, .. }) =
                (&far.cost.phases[1].1, &near.phases[1].1)
            else {
                unreachable!("the second phase is decode")
            };
            for context in 0..4000 {
                let x = f64::from(context);
                let by_hand = overlapped(fast.curve().at(x), fetch.at(x), f64::from(layers));
                assert!((slow.curve().at(x) - by_hand).abs() < 1e-6 * by_hand, "{share} {least} {gbps} {context}");
            }
        }
    }

    #[test]
    fn a_prompt_is_written_while_it_is_computed() {
        // 100 tokens: 10 ms of computing, and 100 MB at 5 GB/s are 20 ms; ten layers leave 1 ms unhidden.
        let far = Offload { layers: 10, share: 1.0, least: 0.0 }.far(&near(), 1e6, link(0.0, 5.0));
        let work = Work { prompt: 100, output: 2, steps: 0, exit: 1.0, scale: 1.0 };
        assert!((far.cost.phases[0].1.latency_ns(work, 0.0, 100.0) - 21e6).abs() < 1.0);
    }

    #[test]
    fn a_small_piece_takes_longer_to_compute_but_not_to_write() {
        let mut near = near();
        let PhaseCost::Prefill { pieces, .. } = &mut near.phases[0].1 else {
            unreachable!("it begins with the prompt")
        };
        pieces.efficiency = Some(Curve::new(vec![(50.0, 0.5), (100.0, 1.0)], Below::Hold));
        let far = Offload { layers: 10, share: 1.0, least: 0.0 }.far(&near, 1e6, link(0.0, 5.0));
        let work = Work { prompt: 100, output: 2, ..Work::default() };
        let piece = |from, to| far.cost.phases[0].1.piece_ns(work, from, to);
        // 50 tokens: 10 ms of computing, twice their part of the whole, and 10 ms of writing; a tenth is not hidden.
        assert!((piece(0.0, 50.0) - 11e6).abs() < 1.0);
        assert!((piece(50.0, 100.0) - 11e6).abs() < 1.0);
        assert!((piece(0.0, 100.0) - 21e6).abs() < 1.0, "all of it as before");
    }
}
