//! Drafting and verifying: a small model proposes tokens, the large one checks them all in one step.
//!
//! A *cycle* drafts *k* tokens, hands them over, verifies them in one step of the large model, and hands the verdict back. Of the *k*
//! tokens the first few are accepted, up to the first that is not; the large model adds one more by itself. If every token is accepted
//! with probability *a*, independently, a cycle puts out
//!
//! ```text
//! (1 − a^(k+1)) / (1 − a)
//! ```
//!
//! tokens on average (Leviathan, Kalman and Matias, *Fast Inference from Transformers via Speculative Decoding*, ICML 2023, equation 1),
//! and takes *k* draft steps plus the verification. *By hand*: *a* = 0.8 and *k* = 4 give (1 − 0.8⁵) / 0.2 = 3.36 tokens; with draft steps
//! of a tenth of the large model's, and a verification that takes one of its steps, that is 3.36 / 1.4 = 2.40 times as fast.

use serde::{Deserialize, Serialize};

use super::{Contribution, Course, Mark, Pace};
use crate::cost::{Cost, PhaseCost, Work};
use crate::curve::Curve;
use crate::distribution::Distribution;
use crate::id::{IdVec, ModelId, ProcessorId};

/// The most tokens that are drafted in one cycle.
pub const DRAFT_MAX: u32 = 64;

/// Size of a token on a link [bytes].
pub const TOKEN_BYTES: f64 = 4.0;

/// A small model that drafts for a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The small model.
    pub model: ModelId,
    /// Its cost on each processor; `None` where it cannot run.
    pub costs: IdVec<ProcessorId, Option<Cost>>,
    /// Latency of a step of the stage's own model that checks so many tokens, relative to one token; `None` where it cannot run.
    pub verify: IdVec<ProcessorId, Option<Curve>>,
    /// Tokens per cycle that the scenario suggests.
    pub tokens: u32,
    /// Probability that a drafted token is accepted: drawn once per request.
    pub acceptance: Distribution,
    /// [`Draft::tokens_per_cycle`] for 1 to [`DRAFT_MAX`] drafted tokens.
    #[serde(default)]
    pub pace: Vec<f64>,
}

impl Draft {
    /// A draft model; see the fields.
    pub fn new(
        model: ModelId,
        costs: IdVec<ProcessorId, Option<Cost>>,
        verify: IdVec<ProcessorId, Option<Curve>>,
        tokens: u32,
        acceptance: Distribution,
    ) -> Self {
        let pace = if let Some(a) = acceptance.as_constant() {
            (1..=DRAFT_MAX).map(|k| expected_tokens(a, k)).collect()
        } else {
            let mut cycles = vec![0.0; DRAFT_MAX as usize];
            for (a, weight) in acceptance.nodes() {
                let mut tokens = 1.0;
                for cycles in &mut cycles {
                    tokens = 1.0 + a * tokens;
                    *cycles += weight / tokens;
                }
            }
            cycles.into_iter().map(f64::recip).collect()
        };
        Self { model, costs, verify, tokens, acceptance, pace }
    }

    /// Tokens per cycle of `k` drafted tokens by which times are expected, for a request of which only the distribution of its acceptance
    /// is known: 1 / E\[1 / tokens\]. An answer of so many tokens takes a number of cycles that is inverse to its own tokens per cycle,
    /// and the tokens of the mean acceptance, or the mean tokens, would expect too few.
    pub fn tokens_per_cycle(&self, k: u32) -> f64 {
        let known = k.checked_sub(1).and_then(|i| self.pace.get(i as usize)).copied();
        // Records of earlier versions hold none.
        known.unwrap_or_else(|| expected_tokens(self.acceptance.mean(), k))
    }

    /// What its decode step costs on a processor.
    pub fn step(&self, processor: ProcessorId) -> Option<&PhaseCost> {
        self.costs.get(processor)?.as_ref()?.phases.get(1).map(|(_, cost)| cost)
    }

    /// Latency of verifying `tokens` drafted tokens on a processor, relative to one step.
    pub fn verify_factor(&self, processor: ProcessorId, tokens: u32) -> Option<f64> {
        Some(self.verify.get(processor)?.as_ref()?.at(f64::from(tokens) + 1.0))
    }

    /// The smallest time per token relative to a step that a verifying processor could reach if every token were accepted and drafting
    /// took no time; 1 if drafting never helps there.
    pub fn least_factor(&self, processor: ProcessorId) -> f64 {
        let of = |k: u32| self.verify_factor(processor, k).map_or(1.0, |factor| factor / (f64::from(k) + 1.0));
        (1..=DRAFT_MAX).map(of).fold(1.0, f64::min)
    }

    /// Time to read what the draft model has not seen yet of a context, of which it has read `read` tokens [ns].
    pub fn catch_up_ns(&self, processor: ProcessorId, read: u32, context: u32) -> f64 {
        let prefill = self.costs.get(processor).and_then(Option::as_ref).and_then(|cost| cost.phases.first());
        let work = Work { prompt: context, ..Work::default() };
        let from = f64::from(read.min(context));
        prefill.map_or(0.0, |(_, cost)| cost.latency_ns(work, from, f64::from(context)).max(0.0))
    }
}

/// Tokens that a cycle with `k` drafted tokens puts out on average, if each is accepted with probability `a`.
pub fn expected_tokens(a: f64, k: u32) -> f64 {
    // The sum of a^i for i from 0 to k.
    (0..k).fold(1.0, |sum, _| 1.0 + a * sum)
}

/// What a cycle is made of.
#[derive(Clone, Copy, Debug)]
pub struct Cycle<'a> {
    /// Who verifies, and what its decode step costs.
    pub target: (ProcessorId, &'a PhaseCost),
    /// Who drafts, and what the draft model's step costs there.
    pub drafter: (ProcessorId, &'a PhaseCost),
    /// Tokens drafted.
    pub tokens: u32,
    /// Latency of verifying them relative to one step.
    pub verify: f64,
    /// Hand-over there and back [ns].
    pub handover_ns: f64,
}

impl Cycle<'_> {
    /// Nominal time of a cycle that begins at `position` of decode [ns].
    pub fn time_ns(&self, work: Work, position: f64) -> f64 {
        let drafted = self.drafter.1.latency_ns(work, position, position + f64::from(self.tokens));
        drafted + self.target.1.latency_ns(work, position, position + 1.0) * self.verify + self.handover_ns
    }
}

impl Course {
    /// The course of decode from `from` to its end by cycles, or of so many of them. `accepts` says of an output token, by number from 0
    /// after the first, whether it would be accepted if it were drafted. `paces` are those of who verifies and of who drafts.
    pub fn of_draft(
        cycle: &Cycle<'_>,
        paces: [Pace; 2],
        (work, from): (Work, f64),
        cycles: Option<u32>,
        accepts: impl Fn(u32) -> bool,
    ) -> Self {
        let end = work.units(crate::cost::Phase::Decode);
        let mut course = Self { marks: vec![Mark { position: from, ..Mark::default() }], ..Self::default() };
        let (mut position, mut left) = (from, cycles.unwrap_or(u32::MAX));
        while position < end && left > 0 {
            left -= 1;
            let first = position as u32;
            let accepted = (first..first + cycle.tokens).take_while(|&i| accepts(i)).count();
            // What would follow the end of the text is thrown away.
            position = (position + accepted as f64 + 1.0).min(end);
            course.marks.push(Mark { position, ..Mark::default() });
        }
        course.draft_anew(cycle, paces, work, 0);
        course
    }

    /// Works out all cycles after a mark anew, for the speeds that hold now.
    pub fn draft_anew(&mut self, cycle: &Cycle<'_>, paces: [Pace; 2], work: Work, mark: usize) {
        let ((target, step), (drafter, draft)) = (cycle.target, cycle.drafter);
        let parts = vec![Contribution::of(target, paces[0].speed), Contribution::of(drafter, paces[1].speed)];
        self.plan(mark, parts, |(here, _), at, parts| {
            let drafted_to = here + f64::from(cycle.tokens);
            let bytes = [step.bytes(work, here, here + 1.0), draft.bytes(work, here, drafted_to)];
            let energies = [
                step.energy_mj(work, here, here + 1.0).map(|energy| energy * cycle.verify),
                draft.energy_mj(work, here, drafted_to),
            ];
            let times =
                [step.latency_ns(work, here, here + 1.0) * cycle.verify, draft.latency_ns(work, here, drafted_to)];
            let mut sum = 0.0;
            for i in [1, 0] {
                let (ns, computing) = paces[i].time_ns(times[i], bytes[i]);
                sum += ns;
                parts[i].turn_ns += ns;
                parts[i].computing_ns += computing;
            }
            for i in [0, 1] {
                parts[i].add(at, bytes[i], energies[i], (0.0, 0.0));
            }
            (sum, cycle.handover_ns)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Below, StepSum};
    use crate::distribution::Family;

    #[test]
    fn a_cycle_puts_out_as_many_tokens_as_the_paper_says() {
        assert_eq!(expected_tokens(0.0, 4), 1.0);
        assert_eq!(expected_tokens(1.0, 4), 5.0);
        // (1 - 0.8^5) / 0.2.
        assert!((expected_tokens(0.8, 4) - 3.3616).abs() < 1e-12);
    }

    #[test]
    fn a_pace_that_is_drawn_is_slower_than_that_of_its_mean() {
        let draft = |acceptance| Draft::new(ModelId(0), IdVec::new(), IdVec::new(), 4, acceptance);
        let uniform = Distribution { family: Family::Uniform { low: 0.1, high: 0.95 }, min: 0.0, max: 1.0 };
        // For k = 1, E[1 / (1 + a)] = ln(1.95 / 1.1) / 0.85.
        let by_hand = 0.85 / libm::log(1.95 / 1.1);
        assert!((draft(uniform.clone()).tokens_per_cycle(1) - by_hand).abs() < 1e-6);
        // For k = 4, cycles per token: 0.518 instead of 0.495.
        assert!((1.0 / draft(uniform.clone()).tokens_per_cycle(4) - 0.518).abs() < 5e-4);
        assert!((1.0 / expected_tokens(uniform.mean(), 4) - 0.495).abs() < 5e-4);
        assert_eq!(draft(Distribution::constant(0.8)).tokens_per_cycle(4), expected_tokens(0.8, 4));
    }

    #[test]
    fn tokens_are_accepted_up_to_the_first_that_is_not() {
        let step = |ns: f64, bytes: f64| PhaseCost::Decode {
            step_ns: StepSum::new(Curve::new(vec![(0.0, ns)], Below::Hold)),
            batch: None,
            bytes_per_step: bytes,
            bytes_per_context_token: 0.0,
            energy_mj: Some(bytes),
        };
        let (target, draft) = (step(100.0, 50.0), step(10.0, 5.0));
        let cycle = Cycle {
            target: (ProcessorId(0), &target),
            drafter: (ProcessorId(1), &draft),
            tokens: 3,
            verify: 1.2,
            handover_ns: 4.0,
        };
        let work = Work { prompt: 10, output: 10, steps: 0, exit: 1.0, scale: 1.0 };
        // Tokens 2 and 3 would be refused. Cycle 1 drafts 0, 1, 2: two accepted, the third is put right: 3 tokens. Cycle 2 drafts 3, 4, 5:
        // none accepted, one token. Cycle 3 drafts 4, 5, 6: all accepted, and one more: 4 tokens. Cycle 4 ends the text with the ninth.
        let course = Course::of_draft(&cycle, [Pace::FIRST; 2], (work, 0.0), None, |i| i != 2 && i != 3);
        let positions: Vec<f64> = course.marks.iter().map(|mark| mark.position).collect();
        assert_eq!(positions, [0.0, 3.0, 4.0, 8.0, 9.0]);
        // 3 × 10 + 1.2 × 100 + 4 = 154 ns each.
        assert!((course.end().ns - 4.0 * 154.0).abs() < 1e-9);
        assert_eq!(
            [0, 1].map(|i| (course.parts[i].processor, course.parts[i].bytes)),
            [(ProcessorId(0), 200.0), (ProcessorId(1), 60.0)]
        );
        assert!((course.end().energy_mj - (4.0 * 60.0 + 60.0)).abs() < 1e-9);
        // Who verifies is at it for 120 ns of each cycle, who drafts for 30.
        assert_eq!([0, 1].map(|i| course.parts[i].turn_ns), [480.0, 120.0]);
        // At half the clock, drafts take twice as long less what they read: 5 bytes each at 1 byte/ns, so 5 + 5 / 0.5 = 15 ns.
        let slow = [Pace::FIRST, Pace { speed: 0.5, limit: Some(1.0) }];
        let course = Course::of_draft(&cycle, slow, (work, 0.0), None, |i| i != 2 && i != 3);
        assert!((course.end().ns - 4.0 * 169.0).abs() < 1e-9);
        assert_eq!(Course::of_draft(&cycle, [Pace::FIRST; 2], (work, 4.0), Some(1), |_| false).end().position, 5.0);
    }
}
