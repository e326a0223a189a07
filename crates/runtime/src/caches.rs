//! Caches that grow while virtual devices decode.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, StopReason};
use onbeat_core::id::{Id, ProcessorId, StageId};

use crate::live::Live;

impl<S: Sink> Live<'_, S> {
    /// Whether what a run of the phase does must be told step by step: caches grow with it.
    pub(crate) fn tells(&self, phase: Phase) -> bool {
        phase == Phase::Decode && self.course.caches_grow()
    }

    /// A run of decode has come to where it is now: its caches take another block where they are full. If there is none, the run ends here;
    /// the step that has begun is lost.
    pub(crate) fn grow_caches_of(&mut self, p: ProcessorId, i: usize) {
        let (run, visible) = (&self.runs[p][i], &self.course.state.processors[p].runs[i]);
        if run.starved || !self.tells(visible.kind) {
            return;
        }
        let stages: Vec<StageId> = visible.stages().take(run.members).collect();
        let full = |&stage: &StageId| {
            let live = &self.course.state.stages[stage];
            let ends = live.position >= self.course.hidden[stage.index()].work.units(live.kind);
            !ends && self.course.cache_full_at(stage).is_some_and(|full| full <= live.position)
        };
        let full: Vec<StageId> = stages.into_iter().filter(full).collect();
        if !self.grow_caches(p, &full) {
            self.runs[p][i].starved = true;
            self.cut(p, i, StopReason::Rebatched);
        }
    }

    /// Gives the caches of stages that decode room for their next tokens. Whether there is memory for all.
    pub(crate) fn grow_caches(&mut self, p: ProcessorId, stages: &[StageId]) -> bool {
        let mut enough = true;
        for &stage in stages {
            match self.course.grow_cache(stage, p) {
                Ok(grown) => enough &= grown,
                Err(error) => self.wrong = Some(error),
            }
        }
        enough
    }
}
