//! Attention of decode steps divided among processors: each reads a part of the key-value cache.
//!
//! In decode, attention reads the whole cache and computes little: it takes as long as reading takes, on any processor that can do it. So
//! processors whose bandwidth is idle can do a part of it, head by head, while the stage's own processor does the rest of the step and its
//! own part of the heads. With *A* the time in which the own processor reads the cache of the present context, at most the step, and *Aᵢ*
//! that of the others:
//!
//! ```text
//! step = D − A + 1 / (1/A + Σ 1/Aᵢ) + points · exchange        A = cache per token · context / bandwidth
//! ```
//!
//! *By hand*: steps of 10 ms, a context of 100 tokens of 1 MB, 50 and 25 GB/s: *A* = 2 ms and 4 ms, together 4/3 ms; 8 + 4/3 = 9.33 ms.
//!
//! Attention on the CPU beside decode on the GPU is the idea of `FastDecode` and of `APEX` (Fan et al., arXiv 2506.03296), which move the
//! attention of whole requests of a batch; dividing that of one request, and the formula, are ours.

use serde::{Deserialize, Serialize};

use super::{Contribution, Course, Mark, Part, Split, divided_ns};
use crate::cost::{Phase, PhaseCost, Work};
use crate::id::{IdVec, ProcessorId, ProcessorSet};
use crate::system::Link;

/// How a stage's attention can be divided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Where the processors wait for one another in a step, and what they exchange per token.
    pub split: Split,
    /// Size of the cache per token of context [bytes].
    pub cache_per_token: f64,
    /// What each processor can read [bytes/ns]; `None`: unknown, it can do no part.
    pub bandwidth: IdVec<ProcessorId, Option<f64>>,
    /// By processor: what is left of decode at least, relative to all of it, if attention takes no time.
    pub least: IdVec<ProcessorId, f64>,
}

impl Attention {
    /// What is left at least of decode by this cost if attention takes no time; contexts from `contexts.0` to `contexts.1` tokens.
    pub fn least_of(cost: &PhaseCost, cache_per_token: f64, bandwidth: Option<f64>, contexts: (f64, f64)) -> f64 {
        let (PhaseCost::Decode { step_ns, .. }, Some(bandwidth)) = (cost, bandwidth) else { return 1.0 };
        let left = |context: f64| {
            let step = step_ns.curve().at(context);
            if step > 0.0 { 1.0 - (cache_per_token * context / bandwidth / step).min(1.0) } else { 0.0 }
        };
        // Between two points of the table the ratio of two linear functions is monotone.
        let points = step_ns.curve().points().iter().map(|&(context, _)| context);
        let inside = points.filter(|&context| context > contexts.0 && context < contexts.1);
        inside.chain([contexts.0, contexts.1]).map(left).fold(1.0, f64::min)
    }

    /// Time in which a processor reads the cache of so many tokens [ns].
    fn reading_ns(&self, processor: ProcessorId, tokens: f64) -> f64 {
        self.bandwidth[processor].map_or(f64::INFINITY, |bandwidth| self.cache_per_token * tokens / bandwidth)
    }

    /// Time that is saved of `whole_ns` on the stage's own processor in which attention reads so many tokens of cache in all, without
    /// exchanges; and for how long the parts of attention take [ns].
    pub fn divided_ns(&self, own: ProcessorId, helpers: ProcessorSet, tokens: f64, whole_ns: f64) -> (f64, f64) {
        let alone = self.reading_ns(own, tokens).min(whole_ns);
        let all = std::iter::once(alone).chain(helpers.iter().map(|p| self.reading_ns(p, tokens)));
        let divided = divided_ns(all);
        (alone - divided, divided)
    }

    /// Whether these processors can divide the attention: what all of them can read is known.
    pub fn can_divide(&self, set: ProcessorSet) -> bool {
        set.iter().all(|p| self.bandwidth.get(p).is_some_and(Option::is_some)) && self.cache_per_token > 0.0
    }
}

impl Course {
    /// The course of decode from `from` to its end, or of so many steps, with the attention divided among `own` and `helpers`, which have
    /// these speeds.
    pub fn of_attention(
        attention: &Attention,
        links: &IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
        (own, helpers): (Part<'_>, &[(ProcessorId, f64)]),
        (work, from): (Work, f64),
        steps: Option<u32>,
    ) -> Self {
        let end = work.units(Phase::Decode);
        let mut course = Self { marks: vec![Mark { position: from, ..Mark::default() }], ..Self::default() };
        let (mut position, mut left) = (from, steps.unwrap_or(u32::MAX));
        while position < end && left > 0 {
            left -= 1;
            position = own.cost.next_boundary(work, Phase::Decode, position);
            course.marks.push(Mark { position, ..Mark::default() });
        }
        course.attend_anew(attention, links, (own, helpers), work, 0);
        course
    }

    /// Works out all steps after a mark anew, for the speeds that hold now.
    pub fn attend_anew(
        &mut self,
        attention: &Attention,
        links: &IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
        (own, helpers): (Part<'_>, &[(ProcessorId, f64)]),
        work: Work,
        mark: usize,
    ) {
        let others: ProcessorSet = helpers.iter().map(|&(p, _)| p).collect();
        let set = others.with(own.processor);
        let all = std::iter::once((own.processor, own.pace.speed)).chain(helpers.iter().copied());
        let parts = all.map(|(p, speed)| Contribution::of(p, speed)).collect();
        self.plan(mark, parts, |(here, next), at, parts| {
            let tokens = (f64::from(work.prompt) + 1.0 + here) * (next - here);
            let whole = own.cost.latency_ns(work, here, next);
            let bytes = own.cost.bytes(work, here, next);
            let (saved, divided) = attention.divided_ns(own.processor, others, tokens, whole);
            let rest = whole - saved - divided;
            // The rest of the step reads the weights and computes.
            let read = (bytes - attention.cache_per_token * tokens).max(0.0);
            let (rest_ns, computing) = own.pace.time_ns(rest, read);
            let mut moved = 0.0;
            for (part, &(p, _)) in parts[1..].iter_mut().zip(helpers) {
                let share = divided / attention.reading_ns(p, tokens);
                let part_bytes = share * attention.cache_per_token * tokens;
                moved += part_bytes;
                part.add(at, part_bytes, None, (divided, 0.0));
            }
            let energy = own.cost.energy_mj(work, here, next);
            parts[0].add(at, (bytes - moved).max(0.0), energy, (rest_ns + divided, computing));
            (rest_ns + divided, attention.split.waiting_ns(links, set, own.cost, work, (here, next)))
        });
        // It is at it throughout, the others only while they read.
        self.parts[0].turn_ns = self.ahead_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Below, Curve, StepSum};
    use crate::joint::Pace;
    use crate::units::Nanos;

    fn step(points: Vec<(f64, f64)>) -> PhaseCost {
        PhaseCost::Decode {
            step_ns: StepSum::new(Curve::new(points, Below::Hold)),
            batch: None,
            bytes_per_step: 300e6,
            bytes_per_context_token: 1e6,
            energy_mj: Some(5.0),
        }
    }

    fn attention() -> Attention {
        Attention {
            split: Split { points: 4, bytes: 0.0 },
            cache_per_token: 1e6,
            bandwidth: [Some(50.0), Some(25.0)].into_iter().collect(),
            least: [1.0, 1.0].into_iter().collect(),
        }
    }

    #[test]
    fn every_step_reads_the_cache_with_all_of_them() {
        let cost = step(vec![(0.0, 10e6)]);
        let link = Link { latency: Nanos::from_us(50.0), bandwidth: None };
        let links = (0..2).map(|_| (0..2).map(|_| link).collect()).collect();
        let own = Part { processor: ProcessorId(0), cost: &cost, pace: Pace { speed: 1.0, limit: Some(50.0) } };
        let work = Work { prompt: 99, output: 11, steps: 0, exit: 1.0, scale: 1.0 };
        let mut course = Course::of_attention(&attention(), &links, (own, &[(ProcessorId(1), 1.0)]), (work, 0.0), None);
        // Contexts of 100 to 109 tokens, 1045 MB in all: 20.9 ms at 50 GB/s, two thirds of that together. Four points of 50 µs a step.
        let expected = 100.0 - 20.9 + 20.9 * 2.0 / 3.0 + 10.0 * 0.2;
        assert!((course.end().ns / 1e6 - expected).abs() < 1e-9, "{:?}", course.end());
        assert!((course.parts[1].bytes - 1045e6 / 3.0).abs() < 1.0 && (course.end().bytes - 4045e6).abs() < 1.0);
        assert_eq!((course.parts[0].energy_mj, course.parts[1].energy_mj), (Some(50.0), None));
        // At half the clock what is not reading takes twice as long: per step 10 - 6 - A ms of computing.
        let slow = Part { pace: Pace { speed: 0.5, ..own.pace }, ..own };
        course.attend_anew(&attention(), &links, (slow, &[(ProcessorId(1), 1.0)]), work, 0);
        assert!((course.end().ns / 1e6 - expected - (100.0 - 60.0 - 20.9)).abs() < 1e-9, "{:?}", course.end());
    }

    #[test]
    fn attention_is_never_more_than_the_step() {
        let attention = attention();
        // 1000 MB would take 20 ms; the step takes 10.
        let (saved, divided) = attention.divided_ns(ProcessorId(0), ProcessorSet::of(ProcessorId(1)), 1000.0, 10e6);
        assert!((divided - 8e6).abs() < 1.0 && (saved - 2e6).abs() < 1.0, "10 and 40 ms make 8");
        assert_eq!(Attention::least_of(&step(vec![(0.0, 10e6)]), 1e6, Some(50.0), (1.0, 1000.0)), 0.0);
        let grows = step(vec![(0.0, 10e6), (100.0, 10e6), (200.0, 20e6)]);
        assert!((Attention::least_of(&grows, 1e6, Some(50.0), (1.0, 150.0)) - 0.8).abs() < 1e-12, "2 of 10 ms at 100");
    }
}
