//! Several processors on one stage: whether they can, and the memory that they need.

use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{ActionError, View, refusal_bit};
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
        if live.running || !self.state.ready.contains(&stage) {
            return Err(ActionError::NotReady);
        }
        let helpers = together.helpers();
        if helpers.is_empty() || helpers.contains(p) || ProcessorSet::of(p).is_empty() {
            return Err(ActionError::NoHelper);
        }
        let view = View { system: self.system, state: &self.state };
        if self.system.models[live.model].split.is_none() {
            return Err(ActionError::CannotSplit);
        }
        for q in std::iter::once(p).chain(helpers.iter()) {
            if self.system.platform.processors.get(q).is_none() || view.cost(stage, q).is_none() {
                return Err(ActionError::CannotRunHere);
            }
            if self.state.failed & refusal_bit(q) != 0 {
                return Err(ActionError::ProcessorFailed);
            }
            if view.free_slots(q) == 0 {
                return Err(ActionError::Busy);
            }
        }
        if segments == Some(0) {
            return Err(ActionError::NoSegments);
        }
        let setup = view.setup_together(stage, p, helpers);
        let Some(loaded) = self.make_room_together(stage, p, helpers)? else { return Ok(Effect::Done) };
        let place = self.state.ready.iter().position(|&ready| ready == stage).ok_or(ActionError::NotReady)?;
        self.state.ready.remove(place);
        // It goes on at a boundary: progress within a segment is lost.
        self.state.stages[stage].partial_ns = 0.0;
        Ok(Effect::LaunchTogether { stage, processor: p, together, setup, loaded, segments })
    }

    /// Takes the memory that a stage needs on several processors, or none of it. How much of it are weights that have to be loaded.
    fn make_room_together(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        helpers: ProcessorSet,
    ) -> Result<Option<Bytes>, ActionError> {
        let model = self.state.stages[stage].model;
        let cached = self.hidden[stage.index()].cache;
        let mut loaded = Bytes::ZERO;
        let mut last = p;
        let mut has_room = true;
        for q in std::iter::once(p).chain(helpers.iter()) {
            last = q;
            if !self.state.memory.is_resident(model, q) {
                loaded += self.system.models[model].weights;
            }
            has_room = self.make_room(stage, q)?;
            if !has_room {
                break;
            }
        }
        // Room for one of them may have been made at the cost of another.
        let all_there = |q: ProcessorId| self.state.memory.is_resident(model, q);
        if has_room && !(all_there(p) && helpers.iter().all(all_there)) {
            let (serial, missing) = (self.state.stages[stage].serial, self.system.models[model].weights);
            self.emit(What::OutOfMemory { stage: serial, processor: last, missing });
            self.state.stages[stage].refused |= refusal_bit(last);
            self.changed = true;
            has_room = false;
        }
        if has_room {
            return Ok(Some(loaded));
        }
        // What is given back here was of no use to anybody: what was refused stays refused.
        let refused: Vec<(StageId, u64)> =
            self.state.ready.iter().map(|&ready| (ready, self.state.stages[ready].refused)).collect();
        self.free_activation(stage);
        if cached == Bytes::ZERO {
            self.free_cache(stage);
        }
        for (ready, refused) in refused {
            self.state.stages[ready].refused = refused;
        }
        Ok(None)
    }
}
