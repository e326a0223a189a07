//! Key-value caches: how much memory they take, how they grow, and how they leave it.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, StageId};
use onbeat_core::policy::{Action, ActionError, View};
use onbeat_core::state::{Cache, CacheCopy};
use onbeat_core::units::{Bytes, Nanos};

use crate::course::{Course, TimerKind};
use crate::error::DriveError;

impl<S: Sink> Course<'_, S> {
    /// Memory that a stage's cache needs to go on, beyond what it holds.
    pub(crate) fn cache_to_add(&self, stage: StageId) -> Bytes {
        let live = &self.state.stages[stage];
        let view = View { system: self.system, state: &self.state };
        let hidden = &self.hidden[stage.index()];
        if let Some(block) =
            self.system.platform.kv_block.filter(|_| (hidden.drafts || hidden.ahead > 0) && !self.view().on_devices())
        {
            // Every token is in both caches, and a verification writes those that were drafted.
            let tokens = live.context() as u64 + u64::from(hidden.ahead);
            let blocks = tokens.next_multiple_of(u64::from(block.max(1)));
            return Bytes((self.cached_per_token(stage) * blocks).saturating_sub(live.cache.held.0));
        }
        let largest = hidden.work.output.max(self.system.nodes[live.node].output_max.saturating_sub(hidden.before));
        Bytes(view.cache_needed(stage, largest).0.saturating_sub(live.cache.held.0))
    }

    /// What a token takes in a stage's caches, its draft model's included [bytes].
    fn cached_per_token(&self, stage: StageId) -> u64 {
        let live = &self.state.stages[stage];
        let draft = self.system.nodes[live.node].draft.as_ref().filter(|_| self.hidden[stage.index()].drafts);
        let of = |model: ModelId| self.system.models[model].kv_per_token.0;
        of(live.model) + draft.map_or(0, |draft| of(draft.model))
    }

    /// Whether caches grow by blocks.
    pub fn caches_grow(&self) -> bool {
        self.system.platform.kv_block.is_some() && !self.view().on_devices()
    }

    /// Where a decoding stage comes to the end of the memory that its cache holds [units]; `None` if it never does.
    pub fn cache_full_at(&self, stage: StageId) -> Option<f64> {
        let live = &self.state.stages[stage];
        if live.kind != Phase::Decode || live.cache.far || !self.caches_grow() {
            return None;
        }
        let per_token = self.cached_per_token(stage);
        if per_token == 0 {
            return None;
        }
        // A step writes one token, and those that were drafted; those of the prompt are there.
        let there = u64::from(live.work.prompt) + u64::from(self.hidden[stage.index()].ahead);
        Some((live.cache.held.0 / per_token).saturating_sub(there) as f64)
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

    /// A stage that ran is ready again. Its cache may now make room for others; of idle-time work, its weights as well.
    pub fn wait_again(&mut self, stage: StageId) {
        self.make_wait(stage);
        let live = &self.state.stages[stage];
        let gives_way = self.nodes[live.node].best_effort && !self.state.real;
        if gives_way || (self.caches_grow() && live.cache.held > Bytes::ZERO) {
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
            let tokens = view.cache_tokens(stage) as u32;
            self.hidden(stage).drafts = false;
            self.state.stages[stage].drafted = None;
            self.state.stages[stage].cache = Cache::default();
            self.begin_again(stage);
            let (moved, took) = (Bytes::ZERO, Nanos::ZERO);
            self.emit(What::EvictCache { stage: live.serial, held, moved, tokens, took });
            self.free(held);
            return Ok(());
        }
        if !view.can_evict_cache(stage, true) {
            return Err(ActionError::NoSwap);
        }
        let moved = view.cache_in_use(stage);
        let swap = self.system.platform.swap.ok_or(ActionError::NoSwap)?;
        self.state.memory.swapped += moved;
        let took = swap.link.time(moved.as_f64());
        let done = self.occupy_swap(took);
        self.hidden(stage).drafts = false;
        self.state.stages[stage].drafted = None;
        self.state.stages[stage].cache = Cache { swapped: moved, ..Cache::default() };
        self.state.stages[stage].copy = None;
        self.emit(What::EvictCache { stage: live.serial, held, moved, tokens: 0, took });
        self.free_when_written(held, done);
        Ok(())
    }

    /// The link to slower memory is busy for so long, after what it was given before. When it will be done.
    fn occupy_swap(&mut self, took: Nanos) -> Nanos {
        let memory = &mut self.state.memory;
        memory.swap_free_at = memory.swap_free_at.max(self.state.now) + took;
        memory.swap_free_at
    }

    /// Memory that is free when all has been written to slower memory.
    fn free_when_written(&mut self, held: Bytes, done: Nanos) {
        if done > self.state.now {
            self.push_timer(done, TimerKind::SwappedOut, 0, held.0, done);
        } else {
            self.free(held);
        }
    }

    /// Begins to copy what there is of a stage's cache to another processor.
    pub(crate) fn copy_cache(&mut self, stage: StageId, to: ProcessorId) -> Result<(), ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        if self.system.platform.processors.get(to).is_none() {
            return Err(ActionError::NoCopy);
        }
        if !self.view().can_copy(stage, to) {
            // It may have lost its cache to an earlier action.
            return self.unless_overtaken(stage, ActionError::NoCopy).map(|_| ());
        }
        let tokens = self.view().tokens_to_hand_over(stage, to);
        let moved = self.system.models[live.model].kv_per_token.as_f64() * tokens;
        let took = self.view().copy_time(stage, to);
        let copy = CacheCopy { to, tokens: self.view().cache_tokens(stage), done: self.state.now.saturating_add(took) };
        self.state.stages[stage].copy = Some(copy);
        self.emit(What::CopyCache { stage: live.serial, to, moved: Bytes(moved as u64), took });
        Ok(())
    }

    /// Moves a waiting stage's cache to slower memory, where it stays while the stage runs, or says that it is to be read back.
    pub(crate) fn place_cache(&mut self, stage: StageId, far: bool) -> Result<(), ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        if !self.state.is_waiting(stage) {
            return Err(ActionError::NotReady);
        }
        if far == live.cache.far {
            return Ok(());
        }
        let view = View { system: self.system, state: &self.state };
        let swap = self.system.platform.swap.filter(|_| !far || view.can_offload(stage));
        let swap = swap.ok_or(ActionError::NoOffload)?;
        let in_use = view.cache_in_use(stage);
        let swapped = if far { view.cache_reserve(stage).max(in_use) } else { in_use };
        let held = live.cache.held;
        let memory = &mut self.state.memory;
        memory.swapped -= live.cache.swapped;
        memory.swapped += swapped;
        let moved = if held > Bytes::ZERO { in_use } else { Bytes::ZERO };
        let took = if moved > Bytes::ZERO { swap.link.time(moved.as_f64()) } else { Nanos::ZERO };
        let done = if moved > Bytes::ZERO { self.occupy_swap(took) } else { self.state.now };
        self.hidden(stage).drafts = false;
        self.hidden(stage).reused = false;
        self.hidden(stage).overtaken_in = self.outcome.decisions;
        let live = &mut self.state.stages[stage];
        live.drafted = None;
        live.cache = Cache { swapped, far, ..Cache::default() };
        live.copy = None;
        // What is done of a step was done at the other pace.
        live.partial_ns = 0.0;
        let serial = live.serial;
        self.forget_refusals(stage);
        // The policy is asked again: its view showed other costs.
        self.changed = true;
        self.emit(What::PlaceCache { stage: serial, far, held, moved, took });
        if held > Bytes::ZERO {
            self.free_when_written(held, done);
        }
        Ok(())
    }

    /// A stage whose cache is gone starts again: its prompt, and the tokens so far as a part of it, are prefilled, and the next token
    /// comes out of that.
    pub(crate) fn begin_again(&mut self, stage: StageId) {
        let decision = self.outcome.decisions;
        let live = &mut self.state.stages[stage];
        let hidden = &mut self.hidden[stage.index()];
        hidden.overtaken_in = decision;
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
        live.copy = None;
        live.processor = None;
        hidden.piece_end = 0.0;
    }

    /// A stage goes on: what of its cache lies in slower memory is read back.
    pub(crate) fn read_back(&mut self, stage: StageId) {
        if self.state.stages[stage].cache.far {
            return;
        }
        let moved = std::mem::take(&mut self.state.stages[stage].cache.swapped);
        if moved > Bytes::ZERO
            && let Some(swap) = self.system.platform.swap
        {
            self.state.memory.swapped -= moved;
            let took = swap.link.time(moved.as_f64());
            self.state.stages[stage].cache.there_at = self.occupy_swap(took);
            let serial = self.state.stages[stage].serial;
            self.emit(What::ReadCache { stage: serial, moved, took });
        }
    }

    /// A stage is gone, and with it its cache.
    pub(crate) fn free_cache(&mut self, cache: Cache) {
        self.state.memory.swapped -= cache.swapped;
        self.free(cache.held);
    }
}
