//! Key-value caches: how much memory they take, how they grow, and how they leave it.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, ActionError, View};
use onbeat_core::state::Cache;
use onbeat_core::units::Bytes;

use crate::course::{Course, TimerKind};
use crate::error::DriveError;

impl<S: Sink> Course<'_, S> {
    /// Memory that a stage's cache needs to go on, beyond what it holds.
    pub(crate) fn cache_to_add(&self, stage: StageId) -> Bytes {
        let live = &self.state.stages[stage];
        let view = View { system: self.system, state: &self.state };
        let hidden = &self.hidden[stage.index()];
        let largest = hidden.work.output.max(self.system.nodes[live.node].output_max.saturating_sub(hidden.before));
        Bytes(view.cache_needed(stage, largest).0.saturating_sub(live.cache.held.0))
    }

    /// Whether caches grow by blocks.
    pub fn caches_grow(&self) -> bool {
        self.system.platform.kv_block.is_some() && !self.state.real
    }

    /// Where a decoding stage comes to the end of the memory that its cache holds [units]; `None` if it never does.
    pub fn cache_full_at(&self, stage: StageId) -> Option<f64> {
        let live = &self.state.stages[stage];
        let per_token = self.system.models[live.model].kv_per_token.0;
        if live.kind != Phase::Decode || per_token == 0 || !self.caches_grow() {
            return None;
        }
        // A step writes one token; those of the prompt are there.
        Some((live.cache.held.0 / per_token).saturating_sub(u64::from(live.work.prompt)) as f64)
    }

    /// Makes sure that a running stage's cache has room for the next token, asking the policy to make room if there is none. Whether
    /// it has.
    ///
    /// # Errors
    /// If the policy answers with something impossible.
    pub fn grow_cache(&mut self, stage: StageId, processor: ProcessorId) -> Result<bool, DriveError> {
        if !self.caches_grow() || self.cache_to_add(stage) == Bytes::ZERO {
            return Ok(true);
        }
        let action = Action::Start { stage, processor, limit: None, units: None };
        self.make_room_for(stage, processor, Bytes::ZERO).map_err(|reason| self.illegal(action, reason))
    }

    /// A stage that ran is ready again. Its cache may now make room for others.
    pub fn wait_again(&mut self, stage: StageId) {
        self.make_wait(stage);
        if self.caches_grow() && self.state.stages[stage].cache.held > Bytes::ZERO {
            self.forgive_refusals();
        }
    }

    /// Takes a waiting stage's cache out of memory, to slower memory or for good.
    pub(crate) fn evict_cache(&mut self, stage: StageId, keep: bool) -> Result<(), ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        let view = View { system: self.system, state: &self.state };
        if !view.can_evict_cache(stage, false) || !self.state.is_waiting(stage) {
            return Err(ActionError::NoCache);
        }
        let held = live.cache.held;
        if !keep {
            self.hidden(stage).drafts = false;
            self.state.stages[stage].cache.held = Bytes::ZERO;
            self.begin_again(stage);
            self.emit(What::EvictCache { stage: live.serial, held, moved: Bytes::ZERO });
            self.free(held);
            return Ok(());
        }
        if !view.can_evict_cache(stage, true) {
            return Err(ActionError::NoSwap);
        }
        let moved = view.cache_in_use(stage);
        let swap = self.system.platform.swap.ok_or(ActionError::NoSwap)?;
        let memory = &mut self.state.memory;
        memory.swapped += moved;
        memory.swap_free_at = memory.swap_free_at.max(self.state.now) + swap.link.time(moved.as_f64());
        let done = memory.swap_free_at;
        self.hidden(stage).drafts = false;
        self.state.stages[stage].cache = Cache { held: Bytes::ZERO, swapped: moved };
        self.emit(What::EvictCache { stage: live.serial, held, moved });
        if done > self.state.now {
            // The memory is free when all has been written.
            self.push_timer(done, TimerKind::SwappedOut, 0, held.0, done);
        } else {
            self.free(held);
        }
        Ok(())
    }

    /// A stage whose cache is gone starts again: its prompt, and the tokens so far as a part of it, are prefilled, and the next token
    /// comes out of that.
    pub(crate) fn begin_again(&mut self, stage: StageId) {
        let decision = self.outcome.decisions;
        let live = &mut self.state.stages[stage];
        let hidden = &mut self.hidden[stage.index()];
        hidden.lost_in = decision;
        if live.kind == Phase::Decode {
            let written = live.position as u32 + 1;
            hidden.before += written;
            for work in [&mut hidden.work, &mut live.work] {
                work.prompt += written;
                work.output = work.output.saturating_sub(written).max(1);
            }
            live.phase = 0;
            live.kind = Phase::Prefill;
        }
        live.position = 0.0;
        live.partial_ns = 0.0;
        live.processor = None;
        hidden.piece_end = 0.0;
    }

    /// A stage goes on: what of its cache lies in slower memory is read back.
    pub(crate) fn read_back(&mut self, stage: StageId) {
        let moved = std::mem::take(&mut self.state.stages[stage].cache.swapped);
        if moved > Bytes::ZERO
            && let Some(swap) = self.system.platform.swap
        {
            let memory = &mut self.state.memory;
            memory.swapped -= moved;
            memory.swap_free_at = memory.swap_free_at.max(self.state.now) + swap.link.time(moved.as_f64());
        }
    }

    /// A stage is gone, and with it its cache.
    pub(crate) fn free_cache(&mut self, cache: Cache) {
        self.state.memory.swapped -= cache.swapped;
        self.free(cache.held);
    }
}
