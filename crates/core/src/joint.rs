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
//! Where processors have operating points, the *Tᵢ* are those at the points that hold when the segment begins ([`Pace`]).
//!
//! *By hand*: 6 ms on one processor and 3 ms on the other give *T* = 1 / (1/6 + 1/3) = 2 ms, with shares of 1/3 and 2/3; ten points at
//! 50 µs add 0.5 ms.

mod attention;
mod draft;
mod rates;

pub use attention::Attention;
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
    /// Decode steps run on the stage's own processor, but for their attention, which is divided among it and these: each reads a part of
    /// the cache. Possible in decode if the stage has an [`Attention`].
    Attention {
        /// The other processors; not empty, without the stage's own. They need no profile of the model.
        helpers: ProcessorSet,
    },
}

impl Together {
    /// The processors that work on the stage besides its own.
    pub fn others(self, own: ProcessorId) -> ProcessorSet {
        match self {
            Self::Split { helpers } | Self::Attention { helpers } => helpers,
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
    let (mut parts, mut last, mut rates) = (0, f64::INFINITY, 0.0);
    for ns in whole_ns {
        (parts, last) = (parts + 1, ns);
        rates += 1.0 / ns.max(f64::MIN_POSITIVE);
    }
    // Not divided at all: exactly what it takes.
    if parts == 1 { last } else { 1.0 / rates }
}

/// How fast a processor works when a run is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Speed of its operating point relative to the first one, > 0.
    pub speed: f64,
    /// The most that it can draw from memory [bytes/ns]; `None`: unknown, nothing is bound by memory.
    pub limit: Option<f64>,
}

impl Pace {
    /// At the first operating point.
    pub const FIRST: Self = Self { speed: 1.0, limit: None };

    /// Time of work that takes `ns` at the first operating point and moves `bytes`, and how much of that time depends on the clock [ns].
    fn time_ns(self, ns: f64, bytes: f64) -> (f64, f64) {
        let reading = self.limit.map_or(0.0, |limit| (bytes / limit).min(ns));
        if self.speed == 1.0 {
            return (ns, ns - reading);
        }
        let computing = (ns - reading) / self.speed;
        (computing + reading, computing)
    }
}

/// One processor's part in a divided segment.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Which.
    pub processor: ProcessorId,
    /// What the whole would cost there.
    pub cost: &'a PhaseCost,
    /// How fast it is.
    pub pace: Pace,
}

/// How far a joint run is at the end of one of its segments, counted from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark {
    /// Position in the phase [units].
    pub position: f64,
    /// Nominal time alone, at the speeds that it was planned with [ns].
    pub ns: f64,
    /// Data moved by all processors together [bytes].
    pub bytes: f64,
    /// Energy of those parts whose profile states it, at the first operating points [mJ].
    pub energy_mj: f64,
}

/// What one of the parts of a joint run amounts to from where it was planned to its end: a processor's share of divided work, or
/// drafting, or verifying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// Who does it.
    pub processor: ProcessorId,
    /// Speed of its operating point relative to the first one.
    pub speed: f64,
    /// Data moved [bytes].
    pub bytes: f64,
    /// Energy at the first operating point [mJ]; `None`: the profile states none.
    pub energy_mj: Option<f64>,
    /// Time in which the processor is at it, nominally: less than the whole where drafting and verifying take turns, and of
    /// those that only read a part of the cache [ns].
    pub turn_ns: f64,
    /// How much of that depends on the clock [ns].
    pub computing_ns: f64,
}

impl Contribution {
    fn of(processor: ProcessorId, speed: f64) -> Self {
        Self { processor, speed, bytes: 0.0, energy_mj: Some(0.0), turn_ns: 0.0, computing_ns: 0.0 }
    }

    /// Adds a segment's.
    fn add(&mut self, at: &mut Mark, bytes: f64, energy_mj: Option<f64>, (turn_ns, computing_ns): (f64, f64)) {
        at.bytes += bytes;
        at.energy_mj += energy_mj.unwrap_or(0.0);
        self.bytes += bytes;
        self.energy_mj = self.energy_mj.zip(energy_mj).map(|(sum, energy)| sum + energy);
        self.turn_ns += turn_ns;
        self.computing_ns += computing_ns;
    }
}

/// The course of a joint run, segment by segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// The start, and the end of every segment.
    pub marks: Vec<Mark>,
    /// The parts of it, from where it was planned last: the stage's own processor comes first.
    pub parts: Vec<Contribution>,
    /// Time from there to its end, at the speeds that it was planned with [ns].
    pub ahead_ns: f64,
    /// How much of that is spent in waiting for one another and in handing over [ns].
    pub waiting_ns: f64,
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
        let mut course = Self { marks: vec![Mark { position: from, ..Mark::default() }], ..Self::default() };
        let (mut position, mut left) = (from, segments.unwrap_or(u32::MAX));
        while position < end && left > 0 {
            left -= 1;
            position = parts[0].cost.next_boundary(work, phase, position);
            course.marks.push(Mark { position, ..Mark::default() });
        }
        course.divide_anew(split, links, parts, work, 0);
        course
    }

    /// Solves the shares of all segments after a mark anew, for the speeds that `parts` have now.
    pub fn divide_anew(
        &mut self,
        split: &Split,
        links: &IdVec<ProcessorId, IdVec<ProcessorId, Link>>,
        parts: &[Part<'_>],
        work: Work,
        mark: usize,
    ) {
        let set = parts.iter().fold(ProcessorSet::EMPTY, |set, part| set.with(part.processor));
        let contributions = parts.iter().map(|part| Contribution::of(part.processor, part.pace.speed)).collect();
        self.plan(mark, contributions, |(here, next), at, contributions| {
            let whole = |part: &Part<'_>| {
                part.pace.time_ns(part.cost.latency_ns(work, here, next), part.cost.bytes(work, here, next))
            };
            let divided = divided_ns(parts.iter().map(|part| whole(part).0));
            for (part, contribution) in parts.iter().zip(contributions) {
                let (ns, computing) = whole(part);
                let share = divided / ns.max(f64::MIN_POSITIVE);
                let bytes = share * part.cost.bytes(work, here, next);
                let energy = part.cost.energy_mj(work, here, next).map(|energy| share * energy);
                contribution.add(at, bytes, energy, (divided, share * computing));
            }
            (divided, split.waiting_ns(links, set, parts[0].cost, work, (here, next)))
        });
        // All of them hold their slots throughout.
        for part in &mut self.parts {
            part.turn_ns = self.ahead_ns;
        }
    }

    /// Works out the segments after mark number `first`. `segment` says what one adds to the mark at its end and to the parts; it returns
    /// how long the parts take and how long they wait [ns].
    fn plan(
        &mut self,
        first: usize,
        parts: Vec<Contribution>,
        mut segment: impl FnMut((f64, f64), &mut Mark, &mut [Contribution]) -> (f64, f64),
    ) {
        self.parts = parts;
        self.waiting_ns = 0.0;
        let mut at = self.marks[first];
        let start_ns = at.ns;
        for mark in &mut self.marks[first + 1..] {
            let (ns, waiting) = segment((at.position, mark.position), &mut at, &mut self.parts);
            self.waiting_ns += waiting;
            at.ns += ns + waiting;
            at.position = mark.position;
            *mark = at;
        }
        self.ahead_ns = at.ns - start_ns;
    }

    /// Number of the mark, not the last, that is reached after so much time, `within` a tolerance; `None` if there is none [ns].
    pub fn mark_reached_at(&self, ns: f64, within: f64) -> Option<usize> {
        let first = self.marks.partition_point(|mark| mark.ns < ns - within);
        (first + 1 < self.marks.len() && self.marks[first].ns <= ns + within).then_some(first)
    }

    /// The end.
    pub fn end(&self) -> Mark {
        *self.marks.last().expect("a course has a start")
    }

    /// Number of the first mark at or after a position; of the last one past the end.
    pub fn mark_at(&self, position: f64) -> usize {
        let first = self.marks.partition_point(|mark| mark.position < position - SAME_POSITION);
        first.min(self.marks.len() - 1)
    }

    /// The last end of a segment, or the start, at or before a position [units].
    pub fn boundary_at_or_before(&self, position: f64) -> f64 {
        let after = self.marks.partition_point(|mark| mark.position <= position + SAME_POSITION);
        self.marks[after.max(1) - 1].position
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
        [(0, a), (1, b)].map(|(i, cost)| Part { processor: ProcessorId::new(i), cost, pace: Pace::FIRST })
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
        assert!((course.parts[0].bytes - 10e6).abs() < 1.0 && (course.parts[1].bytes - 20e6).abs() < 1.0);
        // 4 kB at each point, at 1 GB/s: 4 µs more each.
        let split = Split { bytes: 4e3, ..split };
        let course = Course::of_split(&split, &links(50.0, Some(1.0)), &parts(&a, &b), whole, None);
        assert!((course.end().ns - 2.54e6).abs() < 1e-3);
    }

    #[test]
    fn the_ratio_follows_the_speeds() {
        // 5 ms and 3 ms; the second at half its clock, a third of its time in reading 30 MB at 30 bytes/ns: 1 + 2 / 0.5 = 5 ms.
        let (a, b) = (fixed(5.0, vec![0.5, 1.0]), fixed(3.0, vec![1.0]));
        let split = Split { points: 10, bytes: 0.0 };
        let mut parts = parts(&a, &b);
        let mut course =
            Course::of_split(&split, &links(50.0, None), &parts, (Phase::Forward, Work::default(), 0.0), None);
        assert!((course.end().ns - 2.375e6).abs() < 1e-3);
        parts[1].pace = Pace { speed: 0.5, limit: Some(30.0) };
        course.divide_anew(&split, &links(50.0, None), &parts, Work::default(), 0);
        // 5 ms on both: halves of 2.5 ms, and ten points at 50 µs; 4/5 of its time depend on the clock.
        assert!((course.end().ns - 3.0e6).abs() < 1e-3, "{course:?}");
        assert!((course.parts[1].computing_ns - 2.0e6).abs() < 1e-3 && (course.waiting_ns - 0.5e6).abs() < 1e-3);
        assert!((course.parts[0].bytes - 15e6).abs() < 1.0 && (course.end().bytes - 30e6).abs() < 1.0);
        // From the middle on at full speed again: 1.5 + 1.1875 ms.
        parts[1].pace = Pace::FIRST;
        course.divide_anew(&split, &links(50.0, None), &parts, Work::default(), 1);
        assert!((course.end().ns - 2.6875e6).abs() < 1e-3 && (course.ahead_ns - 1.1875e6).abs() < 1e-3);
        assert_eq!((course.mark_reached_at(1.5e6, 1.0), course.mark_reached_at(1.6e6, 1.0)), (Some(1), None));
        assert!((course.end().bytes - 30e6).abs() < 1.0 && (course.end().energy_mj - 9.0).abs() < 1e-9);
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
        let work = Work { prompt: 99, output: 3, steps: 0, exit: 1.0, scale: 1.0 };
        let split = Split { points: 1, bytes: 0.0 };
        let phase = (Phase::Decode, work, 0.0);
        let course = Course::of_split(&split, &links(0.0, None), &parts(&flat, &growing), phase, None);
        // Step 1 at context 100: 200 and 200 make 100. Step 2 at context 101: 200 and 600 make 150, in shares of 3/4 and 1/4.
        let times: Vec<f64> = course.marks.iter().map(|mark| mark.ns).collect();
        assert!(times.iter().zip([0.0, 100.0, 250.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        assert!((course.parts[0].bytes - 7.5e6).abs() < 1e-3, "{:?}", course.parts);
        assert!(course.parts.iter().all(|part| part.energy_mj.is_none()));
        assert_eq!(course.reached_after(249.0).position, 1.0);
        assert_eq!(course.reached_after(250.0).position, 2.0);
        assert_eq!(course.boundary_at_or_after(0.5).position, 1.0);
        assert!((course.after(175.0).position - 1.5).abs() < 1e-9);
        let one = Course::of_split(&split, &links(0.0, None), &parts(&flat, &growing), phase, Some(1));
        assert_eq!(one.end().position, 1.0);
    }
}
