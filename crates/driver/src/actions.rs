//! What policies can do, done.

use onbeat_core::event::{DropCause, Sink, What};
use onbeat_core::id::{Id, ModelId, NodeId, ProcessorId, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, ActionError, Limit, Shortage, View, refusal_bit};
use onbeat_core::state::{Cache, Stage};
use onbeat_core::units::{Bytes, Nanos};

use crate::course::{Course, TimerKind};

/// What a driver has to do for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Done,
    /// A stage, for which there is memory, starts on a free slot.
    Launch {
        /// The stage, not in the ready list any more.
        stage: StageId,
        /// Where.
        processor: ProcessorId,
        /// Context switch, loading and hand-over before progress begins, nominally.
        setup: Nanos,
        /// Weights that are loaded first.
        loads: Bytes,
        /// How far to run at most; `None`: to the end of the phase.
        limit: Option<Limit>,
    },
    /// A stage, for which there is memory, starts on free slots of several processors.
    LaunchTogether {
        /// The stage, not in the ready list any more.
        stage: StageId,
        /// The stage's own processor.
        processor: ProcessorId,
        /// What the others are, and do.
        together: Together,
        /// Context switches, loading and hand-over before progress begins, nominally.
        setup: Nanos,
        /// Weights that are loaded first.
        loaded: Bytes,
        /// The most segments to run; `None`: to the end of the phase.
        segments: Option<u32>,
    },
    /// A stage, for which there is memory, joins a batch.
    Join {
        /// The stage, not in the ready list any more.
        stage: StageId,
        /// Where.
        processor: ProcessorId,
        /// Position of the run among the processor's.
        run: usize,
        /// Hand-over before it can join, nominally.
        setup: Nanos,
        /// How much of its prompt a stage in prefill brings along; `None`: all of it.
        limit: Option<Limit>,
    },
    /// The speed of a processor may change: all are to be determined anew.
    Speed,
    /// A run ends as soon as the processor can.
    Cut {
        /// Where.
        processor: ProcessorId,
        /// Position of the run among the processor's.
        run: usize,
    },
}

impl<S: Sink> Course<'_, S> {
    /// Does one action, as far as it concerns jobs and memory. What is left to the driver is the effect.
    ///
    /// # Errors
    /// If the action is not possible now.
    pub fn act(&mut self, action: Action) -> Result<Effect, ActionError> {
        match action {
            Action::Start { stage, processor, limit, units } => self.start(stage, processor, limit, units),
            Action::StartTogether { stage, processor, together, segments } => {
                self.start_together(stage, processor, together, segments)
            }
            Action::Preempt { stage } => self.preempt(stage),
            Action::Drop { job } => {
                let live = self.state.jobs.get(job).ok_or(ActionError::NoSuchJob)?;
                if live.running > 0 {
                    return Err(ActionError::JobRunning);
                }
                self.drop_job(job, DropCause::Policy);
                Ok(Effect::Done)
            }
            Action::Switch { stage, variant } => {
                self.switch(stage, variant)?;
                Ok(Effect::Done)
            }
            Action::Evict { model, processor } => {
                self.evict(model, processor)?;
                Ok(Effect::Done)
            }
            Action::EvictCache { stage, keep } => {
                self.evict_cache(stage, keep)?;
                Ok(Effect::Done)
            }
            Action::PlaceCache { stage, far } => {
                self.place_cache(stage, far)?;
                Ok(Effect::Done)
            }
            Action::CopyCache { stage, to } => {
                self.copy_cache(stage, to)?;
                Ok(Effect::Done)
            }
            Action::Wake { at } => {
                if at <= self.state.now {
                    return Err(ActionError::NotInFuture);
                }
                self.push_timer(at, TimerKind::Wake, 0, 0, at);
                Ok(Effect::Done)
            }
            Action::SetPoint { processor, point } => {
                let wants = self.set_point(processor, point)?;
                Ok(if wants { Effect::Speed } else { Effect::Done })
            }
        }
    }

    fn start(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        limit: Option<Limit>,
        units: Option<u32>,
    ) -> Result<Effect, ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        if live.running {
            return Err(ActionError::NotReady);
        }
        if !self.state.is_waiting(stage) {
            return Err(ActionError::NotReady);
        }
        if self.system.nodes[live.node].costs_of(live.variant).get(p).is_none_or(Option::is_none) {
            return Err(ActionError::CannotRunHere);
        }
        if self.state.failed & refusal_bit(p) != 0 {
            return Err(ActionError::ProcessorFailed);
        }
        if matches!(limit, Some(Limit::Segments(0) | Limit::Units(0))) {
            return Err(ActionError::NoSegments);
        }
        self.hidden(stage).ahead = 0;
        let view = View { system: self.system, state: &self.state };
        if units.is_some_and(|units| !view.widths(stage, p).any(|width| width == units)) {
            return Err(ActionError::NoSuchWidth);
        }
        let is_free = units.map_or(view.free_slots(p) > 0, |units| view.free_units(p) >= units);
        if !is_free {
            let Some(batch) = view.batch_to_join(stage, p).map(|run| run.serial) else {
                return self.unless_overtaken(stage, ActionError::Busy);
            };
            let i = self.state.processors[p].runs.iter().position(|run| run.serial == batch);
            let i = i.expect("the batch was just found");
            let units = view.stage(self.state.processors[p].runs[i].stage).units;
            let setup = view.setup_to_join(stage, p);
            if self.make_room(stage, p)? {
                let setup = self.after_reading_back(stage, &live, setup);
                self.state.stop_waiting(stage);
                self.state.stages[stage].units = units;
                return Ok(Effect::Join { stage, processor: p, run: i, setup, limit });
            }
            return Ok(Effect::Done);
        }
        let divided = self.system.platform.processors[p].division.is_some();
        let widest = view.cost(stage, p).map_or(0, |cost| cost.widths.widest);
        let setup =
            units.filter(|_| divided).map_or_else(|| view.setup(stage, p), |n| view.setup_on_units(stage, p, n));
        let units = units.filter(|_| divided).unwrap_or(widest);
        let loads = self.weights_to_load(&live, p);
        if self.make_room(stage, p)? {
            let setup = self.after_reading_back(stage, &live, setup);
            self.state.stop_waiting(stage);
            let stage_now = &mut self.state.stages[stage];
            stage_now.units = units;
            if !self.system.platform.are_alike(live.processor, p) || live.units != units {
                // Progress within a segment stays behind when a stage moves to another kind of processor, or to another part of one.
                stage_now.partial_ns = 0.0;
            }
            return Ok(Effect::Launch { stage, processor: p, setup, loads, limit });
        }
        Ok(Effect::Done)
    }

    /// A setup that lasts at least until a cache has been read back, or written to slower memory if it stays there. `before` is the stage
    /// before it was given memory.
    fn after_reading_back(&self, stage: StageId, before: &Stage, setup: Nanos) -> Nanos {
        if before.cache.swapped == Bytes::ZERO && !self.state.stages[stage].cache.far {
            return setup;
        }
        setup.max(self.state.memory.swap_free_at.saturating_sub(self.state.now))
    }

    fn switch(&mut self, stage: StageId, variant: u8) -> Result<(), ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        if !self.state.is_waiting(stage) {
            return Err(ActionError::NotReady);
        }
        if usize::from(variant) > self.system.nodes[live.node].variants.len() {
            return Err(ActionError::NoSuchVariant);
        }
        if variant == live.variant {
            return Ok(());
        }
        if live.has_begun() {
            return Err(ActionError::Begun);
        }
        // What was refused for lack of memory was refused to the other variant; its cache, if it was reserved, is the other one's.
        self.free_cache(live.cache);
        let refused = self.refused_as(live.serial, variant);
        let switched = Stage { refused, cache: Cache::default(), ..live.in_variant(self.system, variant) };
        self.state.stages[stage] = switched;
        let exits = self.system.nodes[live.node].exits_of(variant);
        let hidden = self.hidden(stage);
        hidden.work.steps = switched.work.steps;
        hidden.work.exit = exits.of(hidden.ease);
        // The policy is asked again: its view showed the other variant's costs.
        self.changed = true;
        self.emit(What::Switch { stage: live.serial, variant, model: switched.model });
        Ok(())
    }

    fn preempt(&mut self, stage: StageId) -> Result<Effect, ActionError> {
        let live = self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        // It may wait for its turn in a batch elsewhere than it ran last.
        let serves = |p: ProcessorId| {
            let i = self.state.processors[p].runs.iter().position(|run| run.stages().any(|other| other == stage))?;
            Some((p, i))
        };
        let mut places = live.processor.into_iter().chain(self.state.processors.ids());
        let Some((p, i)) = places.find_map(serves).filter(|_| live.running) else {
            return self.unless_overtaken(stage, ActionError::NotRunning);
        };
        let run = &self.state.processors[p].runs[i];
        if !(View { system: self.system, state: &self.state }).can_preempt(p, run) {
            return Err(ActionError::NotPreemptible);
        }
        if run.ending {
            return Ok(Effect::Done);
        }
        for member in run.stages() {
            self.hidden[member.index()].overtaken_in = self.outcome.decisions;
        }
        Ok(Effect::Cut { processor: p, run: i })
    }

    /// A decision is made by the state at its beginning: what an earlier one of its actions has overtaken – it took the stage off its
    /// processor, or its cache away, or found no memory, so that another start took the slot – is no error. Nothing happens, and the
    /// policy is asked again.
    pub(crate) fn unless_overtaken(&mut self, stage: StageId, error: ActionError) -> Result<Effect, ActionError> {
        let decision = self.outcome.decisions;
        let refused = error == ActionError::Busy && self.refused_in == decision;
        if self.hidden[stage.index()].overtaken_in != decision && !refused {
            return Err(error);
        }
        self.changed = true;
        Ok(Effect::Done)
    }

    fn evict(&mut self, model: ModelId, p: ProcessorId) -> Result<(), ActionError> {
        let resident = self.state.memory.resident.get(model).and_then(|on| on.get(p));
        if resident.is_none_or(Option::is_none) {
            return Err(ActionError::NotResident);
        }
        if !(View { system: self.system, state: &self.state }).can_evict(model, p) {
            return Err(ActionError::InUse);
        }
        self.unload(model, p);
        Ok(())
    }

    /// Weights leave memory.
    pub(crate) fn unload(&mut self, model: ModelId, p: ProcessorId) {
        self.state.memory.resident[model][p] = None;
        self.state.memory.used -= self.system.models[model].weights;
        let used = self.state.memory.used;
        self.emit(What::Evict { model, processor: p, used });
        self.forgive_refusals();
    }

    /// Loads every model that memory has room for, the fastest processor of each stage first.
    pub(crate) fn preload(&mut self) {
        if !self.system.preloaded {
            return;
        }
        let system = self.system;
        for rank in 0..system.platform.processors.len() {
            for id in system.nodes.ids() {
                self.preload_variant(id, 0, rank);
            }
        }
        // Variants that may be chosen come after what is there by default.
        for rank in 0..system.platform.processors.len() {
            for (id, node) in system.nodes.enumerate() {
                for variant in node.variant_numbers().skip(1) {
                    self.preload_variant(id, variant, rank);
                }
            }
        }
        // Adapters take what is left.
        for rank in 0..system.platform.processors.len() {
            for (id, node) in system.nodes.enumerate() {
                if let (Some(adapter), Some(p)) = (node.adapter, self.by_speed(id, 0, rank))
                    && !self.state.memory.is_resident(adapter.model, p)
                    && self.state.memory.is_resident(system.weights_of(node.model), p)
                    && self.state.memory.free().is_none_or(|free| free >= system.models[adapter.model].weights)
                {
                    self.load(adapter.model, p);
                }
            }
        }
    }

    /// Loads a variant for the processor that is number `rank` for it, if memory has room.
    fn preload_variant(&mut self, node: NodeId, variant: u8, rank: usize) {
        let system = self.system;
        let weights = system.weights_of(system.nodes[node].model_of(variant));
        if let Some(p) = self.by_speed(node, variant, rank)
            && !self.state.memory.is_resident(weights, p)
            && self.state.memory.free().is_none_or(|free| free >= system.models[weights].weights)
        {
            self.load(weights, p);
        }
    }

    /// The processor that is number `rank` for the stage's variant, from fastest to slowest.
    fn by_speed(&self, node: NodeId, variant: u8, rank: usize) -> Option<ProcessorId> {
        let node = &self.system.nodes[node];
        let (costs, work) = (node.costs_of(variant), node.work_of(variant, node.expected));
        let mut able: Vec<(f64, ProcessorId)> =
            costs.enumerate().filter_map(|(p, cost)| Some((cost.as_ref()?.total_ns(work), p))).collect();
        able.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        able.get(rank).map(|&(_, p)| p)
    }

    fn load(&mut self, model: ModelId, p: ProcessorId) {
        self.state.memory.resident[model][p] = Some(self.state.now);
        self.state.memory.used += self.system.models[model].weights;
        let used = self.state.memory.used;
        self.emit(What::Load { model, processor: p, used });
    }

    /// Takes the memory that a stage needs on a processor, asking the policy to make room if there is none. Whether it has it.
    pub(crate) fn make_room(&mut self, stage: StageId, p: ProcessorId) -> Result<bool, ActionError> {
        let live = &self.state.stages[stage];
        let cost = self.system.nodes[live.node].costs_of(live.variant)[p].as_ref();
        let cost = cost.expect("the caller has checked that it can run here");
        self.make_room_for(stage, p, Bytes(cost.activation_bytes))
    }

    /// The same with so much for activations: nothing if a stage that runs holds it already.
    pub(crate) fn make_room_for(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        activation: Bytes,
    ) -> Result<bool, ActionError> {
        let live = self.state.stages[stage];
        let adapter = self.system.nodes[live.node].adapter.map(|adapter| adapter.model);
        let cache = self.cache_to_add(stage);
        self.take_memory(stage, p, [Some(live.weights), adapter], cache, activation)
    }

    /// Takes memory for a stage on a processor: for the weights that it needs there, as far as they are not in memory, for caches and for
    /// activations. Whether it has it.
    pub(crate) fn take_memory(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        models: [Option<ModelId>; 2],
        mut cache: Bytes,
        activation: Bytes,
    ) -> Result<bool, ActionError> {
        if self.state.stages[stage].refused & refusal_bit(p) != 0 {
            // Nothing was freed since.
            return Ok(false);
        }
        let missing = models.iter().flatten().filter(|&&model| !self.state.memory.is_resident(model, p));
        let weights = missing.fold(Bytes::ZERO, |sum, &model| sum + self.system.models[model].weights);
        let mut need = weights + cache + activation;
        if let Some(missing) = self.missing(need) {
            self.give_up_kept(stage, missing);
        }
        if let Some(missing) = self.missing(need) {
            let shortage = Shortage { stage, processor: p, missing };
            let mut room = std::mem::take(&mut self.room);
            room.clear();
            self.policy.out_of_memory(&View { system: self.system, state: &self.state }, &shortage, &mut room);
            for &action in room.as_slice() {
                match action {
                    Action::Evict { model, processor } => self.evict(model, processor)?,
                    Action::EvictCache { stage, keep } => self.evict_cache(stage, keep)?,
                    Action::PlaceCache { stage, far } => self.place_cache(stage, far)?,
                    _ => return Err(ActionError::OnlyEvictions),
                }
            }
            self.room = room;
            if cache > Bytes::ZERO && self.state.stages[stage].cache.far {
                // The policy has placed its own cache in slower memory.
                if self.state.memory.swap_free_at > self.state.now {
                    // It starts when the policy says so again, seeing when the link will have done its work.
                    return Ok(false);
                }
                need -= cache;
                cache = Bytes::ZERO;
            }
            if let Some(missing) = self.missing(need) {
                self.displace(stage, p, models, missing)?;
            }
            if let Some(missing) = self.missing(need) {
                let serial = self.state.stages[stage].serial;
                self.emit(What::OutOfMemory { stage: serial, processor: p, missing });
                self.refuse(stage, refusal_bit(p));
                return Ok(false);
            }
        }
        for model in models.into_iter().flatten() {
            if self.state.memory.is_resident(model, p) {
                self.state.memory.resident[model][p] = Some(self.state.now);
            } else {
                self.load(model, p);
            }
        }
        self.accept(stage, p);
        self.hidden(stage).reused = false;
        self.read_back(stage);
        self.hidden(stage).activation += activation;
        if cache + activation > Bytes::ZERO {
            self.state.stages[stage].cache.held += cache;
            self.state.memory.used += cache + activation;
            let used = self.state.memory.used;
            self.emit(What::Memory { used });
        }
        Ok(true)
    }

    /// Weights that a stage needs on a processor, its adapter's included, and that are not in memory.
    pub(crate) fn weights_to_load(&self, live: &Stage, p: ProcessorId) -> Bytes {
        let adapter = self.system.nodes[live.node].adapter.map(|adapter| adapter.model);
        let missing = |model: &ModelId| !self.state.memory.is_resident(*model, p);
        let weights = [Some(live.weights), adapter].into_iter().flatten().filter(missing);
        weights.fold(Bytes::ZERO, |sum, model| sum + self.system.models[model].weights)
    }

    /// How much memory is missing for `need`; `None` if it fits.
    fn missing(&self, need: Bytes) -> Option<Bytes> {
        let free = self.state.memory.free()?;
        (need > free).then(|| need - free)
    }

    /// Gives back the memory that a stage holds only while it runs.
    pub fn free_activation(&mut self, stage: StageId) {
        let activation = std::mem::take(&mut self.hidden[stage.index()].activation);
        self.free(activation);
    }

    /// Gives back what of a stage's caches exceeds an amount.
    pub(crate) fn free_cache_down_to(&mut self, stage: StageId, kept: Bytes) {
        let held = std::mem::replace(&mut self.state.stages[stage].cache.held, kept);
        self.free(held - kept);
    }

    pub(crate) fn free(&mut self, bytes: Bytes) {
        if bytes > Bytes::ZERO {
            self.state.memory.used -= bytes;
            let used = self.state.memory.used;
            self.emit(What::Memory { used });
            self.forgive_refusals();
        }
    }
}
