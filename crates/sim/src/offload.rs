//! Batches in which some caches stay in slower memory.

use onbeat_core::event::Sink;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::offload::BatchSteps;

use crate::engine::Engine;
use crate::runs::LiveRun;

impl<S: Sink> Engine<'_, S> {
    /// The steps of a batch with members whose caches are in slower memory; `None` if all are in memory.
    pub(crate) fn fetching(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun) -> Option<BatchSteps<'_>> {
        let stages = &stages[..run.decoders];
        if !stages.iter().any(|&stage| self.course.state.stages[stage].cache.far) {
            return None;
        }
        let members = stages.iter().enumerate().filter_map(|(k, &stage)| {
            let live = &self.course.state.stages[stage];
            let cost = self.course.system.nodes[live.node].costs_of(live.variant)[p].as_ref()?;
            let context = f64::from(self.course.hidden[stage.index()].work.prompt) + 1.0 + run.start_of(k);
            Some((cost, live.phase, context, live.cache.far))
        });
        Some(BatchSteps::new(run.decoders as u32, members))
    }
}
