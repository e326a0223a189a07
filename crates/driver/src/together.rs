//! Several processors on one stage: whether they can, and the memory that they need.

use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::{DRAFT_MAX, Together};
use onbeat_core::policy::{ActionError, refusal_bit};
use onbeat_core::units::Bytes;

use crate::actions::Effect;
use crate::course::Course;

impl<S: Sink> Course<'_, S> {
    /// Starts a stage's phase on several processors.
    pub(crate) fn start_together(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        together: Together,
        segments: Option<u32>,
    ) -> Result<Effect, ActionError> {
        let live = *self.state.stages.get(stage).ok_or(ActionError::NoSuchStage)?;
        if live.running || !self.state.is_waiting(stage) {
            return Err(ActionError::NotReady);
        }
        if let Err(error) = self.check_together(stage, p, together) {
            return self.unless_overtaken(stage, error);
        }
        if segments == Some(0) {
            return Err(ActionError::NoSegments);
        }
        let setup = self.view().setup_together(stage, p, together);
        let Some(loaded) = self.make_room_together(stage, p, together)? else { return Ok(Effect::Done) };
        self.state.stop_waiting(stage);
        // It goes on at a boundary: progress within a segment is lost. It takes its processors as a whole.
        let live = &mut self.state.stages[stage];
        (live.partial_ns, live.units) = (0.0, 0);
        Ok(Effect::LaunchTogether { stage, processor: p, together, setup, loaded, segments })
    }

    /// Whether these processors can work on the stage, and are free.
    fn check_together(&self, stage: StageId, p: ProcessorId, together: Together) -> Result<(), ActionError> {
        let (view, live) = (self.view(), &self.state.stages[stage]);
        if live.cache.far {
            return Err(ActionError::OnlyCachesInMemory);
        }
        let exists = |q: ProcessorId| self.system.platform.processors.get(q).is_some();
        if ProcessorSet::of(p).is_empty() {
            return Err(ActionError::NoHelper);
        }
        let others = together.others(p);
        if !exists(p) || view.cost(stage, p).is_none() || !others.iter().all(exists) {
            return Err(ActionError::CannotRunHere);
        }
        if !view.can_work_together(others.with(p)) {
            return Err(ActionError::OnlyRehearsed);
        }
        match together {
            Together::Split { helpers } => {
                if helpers.is_empty() || helpers.contains(p) {
                    return Err(ActionError::NoHelper);
                }
                if self.system.models[live.model].split.is_none() {
                    return Err(ActionError::CannotSplit);
                }
                if !helpers.iter().all(|q| view.cost(stage, q).is_some()) {
                    return Err(ActionError::CannotRunHere);
                }
            }
            Together::Attention { helpers } => {
                if helpers.is_empty() || helpers.contains(p) {
                    return Err(ActionError::NoHelper);
                }
                let attention = view.attention(stage).ok_or(ActionError::NoAttention)?;
                if !attention.can_divide(helpers.with(p)) {
                    return Err(ActionError::CannotRunHere);
                }
            }
            Together::Draft { processor: drafter, tokens } => {
                if view.draft(stage).is_none() {
                    return Err(ActionError::NoDraft);
                }
                if !(1..=DRAFT_MAX).contains(&tokens) {
                    return Err(ActionError::DraftLength);
                }
                if ProcessorSet::of(drafter).is_empty() || view.cycle(stage, p, drafter, tokens).is_none() {
                    return Err(ActionError::CannotRunHere);
                }
            }
        }
        for q in std::iter::once(p).chain(others.iter()) {
            if self.state.failed & refusal_bit(q) != 0 {
                return Err(ActionError::ProcessorFailed);
            }
            if view.free_slots(q) == 0 {
                return Err(ActionError::Busy);
            }
        }
        Ok(())
    }

    /// Takes the memory that a stage needs on several processors, or none of it. How much of it are weights that have to be loaded.
    fn make_room_together(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        together: Together,
    ) -> Result<Option<Bytes>, ActionError> {
        let live = self.state.stages[stage];
        let (own, cached) = (live.weights, live.cache.held);
        let adapter = self.system.nodes[live.node].adapter.map(|adapter| adapter.model);
        let before = self.hidden(stage).drafts;
        let drafter = match together {
            Together::Draft { processor, .. } => self.view().node(stage).draft.as_ref().map(|d| (d.model, processor)),
            Together::Split { .. } | Together::Attention { .. } => None,
        };
        let splits = together.others(p).iter().filter(|_| matches!(together, Together::Split { .. })).map(|q| (own, q));
        let needs = || std::iter::once((own, p)).chain(splits).chain(drafter);
        let needs: Vec<(ModelId, ProcessorId)> = needs().collect();
        if let Together::Draft { tokens, .. } = together
            && self.caches_grow()
        {
            // Both caches grow together, and a verification needs room for all that was drafted.
            (self.hidden(stage).drafts, self.hidden(stage).ahead) = (true, tokens);
        } else {
            self.hidden(stage).ahead = 0;
        }
        let mut loaded = Bytes::ZERO;
        let mut last = p;
        let mut has_room = true;
        for &(model, q) in &needs {
            last = q;
            let drafts = drafter == Some((model, q));
            if !drafts {
                loaded += self.weights_to_load(&live, q);
            } else if !self.state.memory.is_resident(model, q) {
                loaded += self.system.models[model].weights;
            }
            has_room = if drafts {
                let (cache, activation) = self.draft_memory(stage, model, q);
                self.take_memory(stage, q, [Some(model), None], cache, activation)?
            } else {
                self.make_room(stage, q)?
            };
            // The policy may have made room with the stage's own cache: then there is nothing to work on together.
            has_room = has_room && self.state.stages[stage].cache.held >= cached && !self.state.stages[stage].cache.far;
            if !has_room {
                break;
            }
        }
        // Room for one of them may have been made at the cost of another.
        let there = |&(model, q): &(ModelId, ProcessorId)| {
            let adapter = adapter.filter(|_| drafter != Some((model, q)));
            [Some(model), adapter].into_iter().flatten().all(|model| self.state.memory.is_resident(model, q))
        };
        if has_room && !needs.iter().all(there) {
            let (serial, missing) = (self.state.stages[stage].serial, self.system.models[own].weights);
            self.emit(What::OutOfMemory { stage: serial, processor: last, missing });
            self.refuse(stage, refusal_bit(last));
            has_room = false;
        }
        let refused = self.state.stages[stage].refused & refusal_bit(last) != 0;
        if has_room {
            self.hidden(stage).drafts |= drafter.is_some();
            return Ok(Some(loaded));
        }
        self.hidden(stage).drafts = before;
        self.free_activation(stage);
        self.free_cache_down_to(stage, cached.min(self.state.stages[stage].cache.held));
        // What was given back was of no use.
        if refused {
            self.refuse(stage, refusal_bit(last));
        }
        Ok(None)
    }

    /// Cache and activations of a stage's draft model.
    fn draft_memory(&self, stage: StageId, model: ModelId, q: ProcessorId) -> (Bytes, Bytes) {
        let (hidden, node) = (&self.hidden[stage.index()], self.view().node(stage));
        let tokens = u64::from(hidden.work.prompt) + u64::from(hidden.work.output.max(node.output_max));
        let cache = Bytes(self.system.models[model].kv_per_token.0 * tokens);
        let cost = node.draft.as_ref().and_then(|draft| draft.costs[q].as_ref());
        let activation = Bytes(cost.map_or(0, |cost| cost.activation_bytes));
        (if hidden.drafts { Bytes::ZERO } else { cache }, activation)
    }
}
