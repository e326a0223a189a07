//! Which batches a stage could join.

use super::View;
use crate::cost::Phase;
use crate::id::{ProcessorId, StageId};
use crate::state::Run;

impl<'a> View<'a> {
    /// Whether a stage in decode, or in the loop of an iterative model, could join a batch that runs on the processor: same model, both
    /// in that phase, room in the batch, and the run is not being ended.
    pub fn can_join(&self, stage: StageId, processor: ProcessorId) -> bool {
        self.stage(stage).kind.is_batched() && self.batch_to_join(stage, processor).is_some()
    }

    /// Whether a piece of a stage's prompt could join a step of a batch that runs on the processor: the profile has `mixed_steps`,
    /// and otherwise as for [`View::can_join`].
    pub fn can_mix(&self, stage: StageId, processor: ProcessorId) -> bool {
        self.stage(stage).kind == Phase::Prefill && self.batch_to_join(stage, processor).is_some()
    }

    /// The run of the processor that a stage could join; see [`View::can_join`] and [`View::can_mix`].
    pub fn batch_to_join(&self, stage: StageId, processor: ProcessorId) -> Option<&'a Run> {
        let live = self.stage(stage);
        let adapted = |stage: StageId| self.node(stage).adapter.is_some();
        if adapted(stage) {
            return None;
        }
        let kind = match live.kind {
            Phase::Decode | Phase::Prefill => Phase::Decode,
            Phase::Steps => Phase::Steps,
            _ => return None,
        };
        let stated = self.cost(stage, processor)?;
        // By the units that the batch runs on.
        let most_on = |units: u32| {
            let phases = stated.on_units(units);
            let (_, cost) = phases.get(usize::from(live.phase))?;
            Some(match live.kind {
                Phase::Decode | Phase::Steps => cost.batch_max(),
                // The piece is there for a single step, so that even a step without batches can take one along.
                Phase::Prefill if !self.state.real && cost.pieces()?.mixed => {
                    phases.iter().map(|(_, cost)| cost.batch_max()).max().unwrap_or(1).max(2)
                }
                _ => 0,
            })
        };
        self.occupancy(processor).runs.iter().find(|run| {
            run.kind == kind
                && run.model == live.model
                && !run.ending
                && !adapted(run.stage)
                && run.over.is_empty()
                && most_on(self.stage(run.stage).units).is_some_and(|most| run.others.len() + 1 < most as usize)
        })
    }
}
