//! Work of several processors on one stage at the same time.
//!
//! # Splitting
//! Every segment of the stage is divided among a set of processors, as tensors or patches. Alone, processor *i* would take *Tᵢ* for
//! the segment. The shares are solved for each segment so that all parts end together:
//!
//! ```text
//! shareᵢ = T / Tᵢ        T = 1 / Σ 1/Tᵢ
//! ```
//!
//! At each of the model's [points](Split::points) the processors wait for one another and exchange what they have computed, which costs
//! what the slowest of the links among them says. Chen et al., *Characterizing Mobile SoC for Accelerating Heterogeneous LLM Inference*
//! (`HeteroInfer`), arXiv 2501.14794, solve the ratio likewise per tensor shape, from profiled latencies.
//!
//! *By hand*: 6 ms on one processor and 3 ms on the other give *T* = 1 / (1/6 + 1/3) = 2 ms, with shares of 1/3 and 2/3; ten points at
//! 50 µs add 0.5 ms.

mod draft;

pub use draft::{Cycle, DRAFT_MAX, Draft, TOKEN_BYTES, expected_tokens};

use serde::{Deserialize, Serialize};

use crate::cost::{Phase, PhaseCost, Work};
use crate::id::{IdVec, ProcessorId, ProcessorSet};
use crate::system::Link;

/// How a stage uses several processors at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// Every segment is divided among the stage's processor and these. Possible if the model has a [`Split`].
    Split {
        /// The other processors; not empty, without the stage's own.
        helpers: ProcessorSet,
    },
    /// Decode goes by cycles: a draft model proposes tokens, the stage's own processor verifies them. Possible if the stage has a
    /// [`Draft`]. A cycle is a segment.
    Draft {
        /// Where the draft model runs; the stage's own processor, or another one.
        processor: ProcessorId,
        /// Tokens that are drafted per cycle, 1 to [`DRAFT_MAX`].
        tokens: u32,
    },
}

impl Together {
    /// The processors that work on the stage besides its own.
    pub fn others(self, own: ProcessorId) -> ProcessorSet {
        match self {
            Self::Split { helpers } => helpers,
            Self::Draft { processor, .. } => ProcessorSet::of(processor).without(own),
        }
    }
}

/// How a model is divided among several processors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Places per inference (per step; per prefill segment; per decode step) at which the processors wait for one another.
    pub points: u32,
    /// Data exchanged at each of them [bytes]; for autoregressive models, per token.
    pub bytes: f64,
}

impl Split {
    /// Time that the processors `set` spend waiting for one another within the units `from`..`to` [ns]. `cost` says where segments end.
    pub fn waiting_ns(
        &self,
        links: &IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
        set: ProcessorSet,
        cost: &PhaseCost,
        work: Work,
        (from, to): (f64, f64),
    ) -> f64 {
        let (segments, units) = (cost.segments(work, from, to), to - from);
        let exchange = |from: ProcessorId, to: ProcessorId| {
            let link = links[from][to];
            segments * link.latency.as_f64() + link.bandwidth.map_or(0.0, |bandwidth| units * self.bytes / bandwidth)
        };
        let pairs = set.iter().flat_map(|a| set.iter().filter(move |&b| a != b).map(move |b| (a, b)));
        f64::from(self.points) * pairs.map(|(a, b)| exchange(a, b)).fold(0.0, f64::max)
    }
}

/// Time that work takes if it is divided so that all parts end together, from the times that it takes whole [ns].
pub fn divided_ns(whole_ns: impl Iterator<Item = f64>) -> f64 {
    1.0 / whole_ns.map(|ns| 1.0 / ns.max(f64::MIN_POSITIVE)).sum::<f64>()
}

/// One processor's part in a divided segment.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Which.
    pub processor: ProcessorId,
    /// What the whole would cost there.
    pub cost: &'a PhaseCost,
}

/// How far a joint run is at the end of one of its segments, counted from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark {
    /// Position in the phase [units].
    pub position: f64,
    /// Nominal time alone [ns].
    pub ns: f64,
    /// Data moved by all processors together [bytes].
    pub bytes: f64,
    /// Energy of those processors whose profile states it [mJ].
    pub energy_mj: f64,
}

/// The course of a joint run, segment by segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// The start, and the end of every segment.
    pub marks: Vec<Mark>,
    /// Data that each processor moves in all [bytes]; the stage's own processor comes first.
    pub moved: Vec<(ProcessorId, f64)>,
    /// Processors whose profile states no energy.
    pub unstated: ProcessorSet,
}

impl Course {
    /// The course of a phase that is divided among `parts` from `from` to its end, or for at most so many segments. Segments are those of
    /// the first part.
    pub fn of_split(
        split: &Split,
        links: &IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
        parts: &[Part<'_>],
        (phase, work, from): (Phase, Work, f64),
        segments: Option<u32>,
    ) -> Self {
        let end = work.units(phase);
        let set = parts.iter().fold(ProcessorSet::EMPTY, |set, part| set.with(part.processor));
        let mut course = Self {
            marks: vec![Mark { position: from, ..Mark::default() }],
            moved: parts.iter().map(|part| (part.processor, 0.0)).collect(),
            unstated: ProcessorSet::EMPTY,
        };
        let mut at = Mark { position: from, ..Mark::default() };
        let mut left = segments.unwrap_or(u32::MAX);
        while at.position < end && left > 0 {
            left -= 1;
            let (here, next) = (at.position, parts[0].cost.next_boundary(work, phase, at.position));
            let whole = |part: &Part<'_>| part.cost.latency_ns(work, here, next);
            let divided = divided_ns(parts.iter().map(whole));
            for (part, moved) in parts.iter().zip(&mut course.moved) {
                let share = divided / whole(part).max(f64::MIN_POSITIVE);
                let bytes = share * part.cost.bytes(work, here, next);
                at.bytes += bytes;
                moved.1 += bytes;
                match part.cost.energy_mj(here, next) {
                    Some(energy) => at.energy_mj += share * energy,
                    None => course.unstated = course.unstated.with(part.processor),
                }
            }
            at.ns += divided + split.waiting_ns(links, set, parts[0].cost, work, (here, next));
            at.position = next;
            course.marks.push(at);
        }
        course
    }

    /// The end.
    pub fn end(&self) -> Mark {
        *self.marks.last().expect("a course has a start")
    }

    /// Number of the first mark at or after a position; of the last one past the end.
    fn mark_at(&self, position: f64) -> usize {
        let first = self.marks.partition_point(|mark| mark.position < position - SAME_POSITION);
        first.min(self.marks.len() - 1)
    }

    /// The first end of a segment at or after a position.
    pub fn boundary_at_or_after(&self, position: f64) -> Mark {
        self.marks[self.mark_at(position)]
    }

    /// The first end of a segment after a position; the last one past the end [units].
    pub fn boundary_after(&self, position: f64) -> f64 {
        let first = self.marks.partition_point(|mark| mark.position <= position + SAME_POSITION);
        self.marks[first.min(self.marks.len() - 1)].position
    }

    /// The last end of a segment, or the start, that is reached after so much nominal time.
    pub fn reached_after(&self, ns: f64) -> Mark {
        let passed = self.marks.partition_point(|mark| mark.ns <= ns + SAME_TIME_NS);
        self.marks[passed.max(1) - 1]
    }

    /// What was done after so much nominal time, linear within a segment.
    pub fn after(&self, ns: f64) -> Mark {
        let next = self.marks.partition_point(|mark| mark.ns <= ns);
        let (Some(a), Some(b)) = (self.marks.get(next.wrapping_sub(1)), self.marks.get(next)) else {
            return self.reached_after(ns);
        };
        let part = (ns - a.ns) / (b.ns - a.ns);
        let between = |a: f64, b: f64| a + (b - a) * part;
        Mark {
            position: between(a.position, b.position),
            ns,
            bytes: between(a.bytes, b.bytes),
            energy_mj: between(a.energy_mj, b.energy_mj),
        }
    }
}

/// Positions closer than this are the same.
const SAME_POSITION: f64 = 1e-9;
/// Times closer than this are the same: half a nanosecond of rounding [ns].
const SAME_TIME_NS: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Below, Curve, StepSum};
    use crate::id::Id;
    use crate::units::Nanos;

    fn fixed(ms: f64, boundaries: Vec<f64>) -> PhaseCost {
        PhaseCost::Fixed { latency_ns: ms * 1e6, quantiles: None, boundaries, bytes: 30e6, energy_mj: Some(9.0) }
    }

    fn links(us: f64, bandwidth: Option<f64>) -> IdVec<ProcessorId, IdVec<ProcessorId, Link>> {
        let link = Link { latency: Nanos::from_us(us), bandwidth };
        (0..2).map(|_| (0..2).map(|_| link).collect()).collect()
    }

    fn parts<'a>(a: &'a PhaseCost, b: &'a PhaseCost) -> [Part<'a>; 2] {
        [(0, a), (1, b)].map(|(i, cost)| Part { processor: ProcessorId::new(i), cost })
    }

    #[test]
    fn parts_end_together_and_wait_at_every_point() {
        // The example above: 6 ms and 3 ms, ten points at 50 µs.
        let (a, b) = (fixed(6.0, vec![1.0]), fixed(3.0, vec![1.0]));
        let split = Split { points: 10, bytes: 0.0 };
        let whole = (Phase::Forward, Work::default(), 0.0);
        let course = Course::of_split(&split, &links(50.0, None), &parts(&a, &b), whole, None);
        assert_eq!(course.marks.len(), 2);
        let end = course.end();
        assert!((end.ns - 2.5e6).abs() < 1e-3, "{end:?}");
        // A third of 30 MB and 9 mJ here, two thirds there: the same in all.
        assert!((end.bytes - 30e6).abs() < 1.0 && (end.energy_mj - 9.0).abs() < 1e-9, "{end:?}");
        assert!((course.moved[0].1 - 10e6).abs() < 1.0 && (course.moved[1].1 - 20e6).abs() < 1.0);
        // 4 kB at each point, at 1 GB/s: 4 µs more each.
        let split = Split { bytes: 4e3, ..split };
        let course = Course::of_split(&split, &links(50.0, Some(1.0)), &parts(&a, &b), whole, None);
        assert!((course.end().ns - 2.54e6).abs() < 1e-3);
    }

    #[test]
    fn the_ratio_is_solved_for_every_segment() {
        // Halves: equal on both in the beginning; decode steps grow with the context on one of them.
        let step = |points| PhaseCost::Decode {
            step_ns: StepSum::new(Curve::new(points, Below::Hold)),
            batch: None,
            bytes_per_step: 6e6,
            bytes_per_context_token: 0.0,
            energy_mj: None,
        };
        let flat = step(vec![(0.0, 200.0)]);
        let growing = step(vec![(100.0, 200.0), (101.0, 600.0)]);
        let work = Work { prompt: 99, output: 3, steps: 0 };
        let split = Split { points: 1, bytes: 0.0 };
        let phase = (Phase::Decode, work, 0.0);
        let course = Course::of_split(&split, &links(0.0, None), &parts(&flat, &growing), phase, None);
        // Step 1 at context 100: 200 and 200 make 100. Step 2 at context 101: 200 and 600 make 150, in shares of 3/4 and 1/4.
        let times: Vec<f64> = course.marks.iter().map(|mark| mark.ns).collect();
        assert!(times.iter().zip([0.0, 100.0, 250.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        assert!((course.moved[0].1 - 7.5e6).abs() < 1e-3, "{:?}", course.moved);
        assert!(course.unstated.contains(ProcessorId(0)) && course.unstated.contains(ProcessorId(1)));
        assert_eq!(course.reached_after(249.0).position, 1.0);
        assert_eq!(course.reached_after(250.0).position, 2.0);
        assert_eq!(course.boundary_at_or_after(0.5).position, 1.0);
        assert!((course.after(175.0).position - 1.5).abs() < 1e-9);
        let one = Course::of_split(&split, &links(0.0, None), &parts(&flat, &growing), phase, Some(1));
        assert_eq!(one.end().position, 1.0);
    }
}
