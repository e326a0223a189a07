//! What precedes progress when a stage starts.

use super::View;
use crate::id::{ModelId, ProcessorId, StageId};
use crate::state::Stage;
use crate::units::{Bytes, Nanos};

impl View<'_> {
    /// What precedes progress if a stage starts on a processor now: context switch, loading of weights, hand-over of inputs, state
    /// and caches.
    #[inline]
    pub fn setup(&self, stage: StageId, processor: ProcessorId) -> Nanos {
        self.setup_of(self.stage(stage), processor, None)
    }

    /// Like [`View::setup`], if the stage ran another of its variants.
    pub fn setup_as(&self, stage: StageId, variant: u8, processor: ProcessorId) -> Nanos {
        self.setup_of(&self.stage(stage).in_variant(self.system, variant), processor, None)
    }

    pub(super) fn setup_of(&self, live: &Stage, processor: ProcessorId, units: Option<u32>) -> Nanos {
        let unit = &self.system.platform.processors[processor];
        let occupancy = self.occupancy(processor);
        let mut setup = Nanos::ZERO;
        let mut last_model = occupancy.last_model;
        if let (Some(_), Some(0)) = (unit.division, units) {
            last_model = None;
        } else if let Some(division) = unit.division {
            let units = units.or_else(|| Some(self.cost_of(live, processor)?.widths.widest)).unwrap_or(division.units);
            last_model = occupancy.model_before(units, live.weights);
            if !occupancy.has_part(units) {
                setup += division.repartition;
            }
        }
        let load = || self.cost_of(live, processor).map_or(Nanos::ZERO, |cost| Nanos(cost.load_ns));
        setup += self.change_of_model(live.weights, last_model, processor, load);
        if live.cache.swapped > Bytes::ZERO
            && let Some(swap) = self.system.platform.swap
        {
            // What the link was given before goes first, a cache on its way out included.
            let busy = self.state.memory.swap_free_at.saturating_sub(self.now());
            setup += if live.cache.far { busy } else { busy + swap.link.time(live.cache.swapped.as_f64()) };
        }
        // What of it is on its way back already, since the stage was to join a batch or was taken off before its cache was there.
        setup += live.cache.there_at.saturating_sub(self.now());
        if let Some(adapter) = self.system.nodes[live.node].adapter
            && !self.state.memory.is_resident(adapter.model, processor)
        {
            setup += adapter.load;
        }
        setup + self.handover(live, processor)
    }

    /// The hand-over in [`View::setup`], where nothing but [`View::setup_beside`] is added to it: it changes only with the stage. `None`
    /// where the setup depends on more: on a cache in slower memory or on its way, on an adapter, on how a processor is divided.
    pub fn steady_handover(&self, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        let live = self.stage(stage);
        let divided = self.system.platform.processors[processor].division.is_some();
        let adapted = self.system.nodes[live.node].adapter.is_some();
        let cache = live.cache;
        let moving = cache.swapped > Bytes::ZERO || cache.far || cache.there_at > self.now() || live.copy.is_some();
        (!divided && !adapted && !moving).then(|| self.handover(live, processor))
    }

    /// What [`View::setup`] adds to a [steady hand-over](View::steady_handover) on a processor for a model's weights, which take `load`
    /// to load: the context switch, and loading them if they are not in memory.
    #[inline]
    pub fn setup_beside(&self, weights: ModelId, load: Nanos, processor: ProcessorId) -> Nanos {
        self.change_of_model(weights, self.occupancy(processor).last_model, processor, || load)
    }

    #[inline]
    fn change_of_model(
        &self,
        weights: ModelId,
        last: Option<ModelId>,
        processor: ProcessorId,
        load: impl FnOnce() -> Nanos,
    ) -> Nanos {
        let mut time = Nanos::ZERO;
        if last.is_some_and(|last| last != weights) {
            time += self.system.platform.processors[processor].switch_cost;
        }
        if !self.state.memory.is_resident(weights, processor) {
            time += load();
        }
        time
    }

    /// Time to bring a stage's input – or, once it has started, its caches – and its state to a processor.
    fn handover(&self, stage: &Stage, processor: ProcessorId) -> Nanos {
        let model = &self.system.models[stage.model];
        let begun = stage.phase > 0 || stage.position > 0.0 || stage.partial_ns > 0.0;
        let links = &self.system.platform.links;
        let mut time = Nanos::ZERO;
        if let Some(from) = stage.processor
            && from != processor
        {
            let context = if stage.cache.swapped > Bytes::ZERO { 0.0 } else { stage.context() };
            let copy = stage.copy.filter(|copy| copy.to == processor && context > 0.0);
            let missing = (context - copy.map_or(0.0, |copy| copy.tokens)).max(0.0);
            // What is on its way comes first.
            time += copy.map_or(Nanos::ZERO, |copy| copy.done.saturating_sub(self.now()));
            time += links[from][processor].time(model.kv_per_token.as_f64() * missing + model.state.as_f64());
        }
        if let Some((from, bytes)) = stage.input
            && from != processor
            && !begun
        {
            time += links[from][processor].time(bytes);
        }
        time
    }
}
