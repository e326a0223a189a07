//! What the policies that choose what stays in memory share: what weights cost to load, when they were used, and eviction in an order
//! of value.

use onbeat_core::id::{IdVec, ModelId, ProcessorId};
use onbeat_core::policy::{Actions, Shortage, View, evict_youngest_caches};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

/// Something for each model (adapters included) on each processor.
pub(crate) type Table<T> = IdVec<ModelId, IdVec<ProcessorId, T>>;

/// A table with the same value everywhere.
pub(crate) fn table<T: Clone>(system: &System, value: &T) -> Table<T> {
    system.models.iter().map(|_| system.platform.processors.iter().map(|_| value.clone()).collect()).collect()
}

/// Time to load weights, per byte [ns]; 0 where there is nothing to load.
pub(crate) fn load_per_byte(system: &System) -> Table<f64> {
    let mut costs = table(system, &0.0);
    let per_byte = |model: ModelId, load_ns: u64| load_ns as f64 / system.models[model].weights.as_f64().max(1.0);
    for node in &system.nodes {
        for (p, cost) in node.costs.enumerate() {
            let Some(cost) = cost else { continue };
            let weights = system.weights_of(node.model);
            costs[weights][p] = per_byte(weights, cost.load_ns);
            if let Some(adapter) = node.adapter {
                costs[adapter.model][p] = per_byte(adapter.model, adapter.load.0);
            }
        }
    }
    costs
}

/// When weights were used last, as far as a policy has seen it.
#[derive(Clone, Debug)]
pub(crate) struct Uses {
    seen: Table<Option<Nanos>>,
}

impl Uses {
    /// Nothing was seen yet.
    pub(crate) fn new(system: &System) -> Self {
        Self { seen: table(system, &None) }
    }

    /// Calls `changed` for what was used since the last time, with the time, and for what has left memory.
    pub(crate) fn look(&mut self, view: &View<'_>, mut changed: impl FnMut(ModelId, ProcessorId, Option<Nanos>)) {
        for (model, on) in view.state.memory.resident.enumerate() {
            for (p, &used) in on.enumerate() {
                let seen = &mut self.seen[model][p];
                if *seen != used {
                    *seen = used;
                    changed(model, p, used);
                }
            }
        }
    }
}

/// Idle weights in an order of value. The buffer is reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<(f64, Nanos, ModelId, ProcessorId)>,
}

impl Candidates {
    /// Evicts idle weights, the least valuable first (ties: the least recently used, then lower model, then lower processor), until the
    /// shortage is covered. If all of them do not cover it, they go together with caches of younger stages, as by default, or nothing
    /// goes. The value of the last weights that go.
    pub(crate) fn evict(
        &mut self,
        view: &View<'_>,
        shortage: &Shortage,
        actions: &mut Actions,
        value: impl Fn(ModelId, ProcessorId) -> f64,
    ) -> Option<f64> {
        let wanted = view.stage(shortage.stage).weights;
        let adapter = view.node(shortage.stage).adapter.map(|adapter| adapter.model);
        self.list.clear();
        for (model, on) in view.state.memory.resident.enumerate() {
            let size = view.system.models[model].weights;
            for (p, used) in on.enumerate() {
                let Some(used) = *used else { continue };
                let needed = (model == wanted || Some(model) == adapter) && p == shortage.processor;
                if size.0 > 0 && !needed && view.can_evict(model, p) {
                    self.list.push((value(model, p), used, model, p));
                }
            }
        }
        let size = |model: ModelId| view.system.models[model].weights.0;
        let evictable = self.list.iter().map(|&(_, _, model, _)| size(model)).sum::<u64>();
        if evictable < shortage.missing.0 {
            let short_of = shortage.missing.0 - evictable;
            if !evict_youngest_caches(view, shortage.stage, short_of, actions) {
                return None;
            }
        }
        self.list.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        let mut missing = shortage.missing.0;
        let mut last = None;
        for &(value, _, model, p) in &self.list {
            if missing == 0 {
                break;
            }
            actions.evict(model, p);
            missing = missing.saturating_sub(size(model));
            last = Some(value);
        }
        last
    }
}
