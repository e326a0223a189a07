//! Scores of the literature: XRBench, and what they need per stage.

use onbeat_core::id::{Id, SourceId};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

/// Constants of XRBench's scores, by default those of its public repository.
///
/// The real-time score of a frame is 1 / (1 + exp(k · (completion − deadline))), its energy score (E_max − E) / E_max.
///
/// * *Repository form*: every stage of a chain is a model of its own, as in XRBench. 100 / M · Σ over models of (Σ over
///   executed frames of real-time × energy score) / frames × (1 − dropped / frames), where frames are those executed or
///   dropped, and models without any are left out. Dropped frames are thus penalised twice, and the energy score may be
///   negative. When a job is dropped, each of its stages that was not executed counts as dropped, with the probability
///   that the chain would have reached it.
/// * *Corrected form*: per source, the mean over done jobs of real-time score × energy score, the latter clamped to 0
///   to 1 and of the energy of the whole job, times done / frames, where frames are those done, dropped, or unfinished
///   past the deadline. Drops are penalised once. The score is 100 × the mean over the sources that have a deadline and
///   a frame.
///
/// Both are absent if the energy of a job is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xrbench {
    /// Steepness k of the real-time score [1/ms], > 0. Default: 15.
    pub k_per_ms: f64,
    /// Energy at which the energy score is zero \[mJ\], > 0. Default: 1500.
    pub energy_max_mj: f64,
}

impl Default for Xrbench {
    fn default() -> Self {
        Self { k_per_ms: 15.0, energy_max_mj: 1500.0 }
    }
}

impl Xrbench {
    /// Real-time score of a completion, 0 to 1; one half exactly at the deadline.
    pub fn real_time(&self, completion: Nanos, deadline: Nanos) -> f64 {
        1.0 / (1.0 + libm::exp(self.k_per_ms * (completion.as_ms() - deadline.as_ms())))
    }

    /// Energy score, at most 1; negative above [`Xrbench::energy_max_mj`].
    pub fn energy(&self, energy_mj: f64) -> f64 {
        (self.energy_max_mj - energy_mj) / self.energy_max_mj
    }
}

/// Completions of one stage of a chain.
#[derive(Clone, Debug)]
pub(super) struct StageTally {
    /// Probability that the chain reaches the stage.
    reach: f64,
    /// All completions, by class of what the job sees – one where that is not said –, and within it by number of the variant.
    pub(super) by_variant: Vec<Vec<u64>>,
    /// Completions in jobs with a deadline.
    executed: u64,
    /// Stages of dropped jobs that were not executed (expected number).
    dropped: f64,
    /// Sum of real-time score × energy score; `None` once an energy is unknown.
    score: Option<f64>,
}

impl StageTally {
    /// One per stage of the source's chain.
    pub(super) fn of_chain(system: &System, source: SourceId) -> Vec<Self> {
        let first = system.sources[source].nodes.start;
        let mut reach: Vec<f64> = Vec::new();
        for node in system.nodes_of(source) {
            // Edges come from earlier stages. Where several meet, the likeliest counts.
            let over = |&before: &onbeat_core::id::NodeId| {
                let edge = system.nodes[before].after.iter().find(|edge| edge.to == node)?;
                Some(reach.get(before.index().checked_sub(first as usize)?)? * edge.probability)
            };
            let before = &system.nodes[node].before;
            let likeliest = before.iter().filter_map(over).fold(0.0, f64::max);
            reach.push(if before.is_empty() { 1.0 } else { likeliest });
        }
        let tally = |(reach, node): (f64, onbeat_core::id::NodeId)| {
            let node = &system.nodes[node];
            let by_variant = vec![vec![0; node.variants.len() + 1]; node.in_content.len().max(1)];
            Self { reach, by_variant, executed: 0, dropped: 0.0, score: Some(0.0) }
        };
        reach.into_iter().zip(system.nodes_of(source)).map(tally).collect()
    }

    pub(super) fn executed(
        &mut self,
        xrbench: &Xrbench,
        (variant, content): (u8, Option<u8>),
        at: Nanos,
        deadline: Option<Nanos>,
        energy: Option<f64>,
    ) {
        let of_class = self.by_variant.get_mut(usize::from(content.unwrap_or(0)));
        if let Some(completions) = of_class.and_then(|of_class| of_class.get_mut(usize::from(variant))) {
            *completions += 1;
        }
        if let Some(deadline) = deadline {
            self.executed += 1;
            let score = energy.map(|energy| xrbench.real_time(at, deadline) * xrbench.energy(energy));
            self.score = self.score.zip(score).map(|(sum, score)| sum + score);
        }
    }

    /// The stage's job was dropped before the stage was executed.
    pub(super) fn dropped(&mut self, was_ready: bool) {
        self.dropped += if was_ready { 1.0 } else { self.reach };
    }

    /// Whether there is anything to score.
    pub(super) fn has_frames(&self) -> bool {
        self.frames() > 0.0
    }

    /// Score of the repository form, 0 to 1; `None` without frames or if an energy is unknown.
    pub(super) fn repository_score(&self) -> Option<f64> {
        let frames = self.frames();
        self.score.filter(|_| frames > 0.0).map(|score| score / frames * (1.0 - self.dropped / frames))
    }

    fn frames(&self) -> f64 {
        self.executed as f64 + self.dropped
    }
}
