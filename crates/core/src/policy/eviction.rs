//! What a policy evicts by default when a start is short of memory.

use super::{Actions, Shortage, View};
use crate::id::{ModelId, ProcessorId, StageId};
use crate::units::{Bytes, Nanos};

/// Evicts idle models, the least recently used first (ties: lower model, then lower processor), until the shortage is covered. Evicts
/// nothing if that would not cover it – unless caches grow by blocks: then the caches of waiting stages that became ready after this one
/// go as well, the youngest first, to be computed again, so that the oldest stage always gets on.
pub fn evict_least_recently_used(view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
    let evictable = evict_idle_models(view, shortage, actions);
    if evictable < shortage.missing.0 && view.system.platform.kv_block.is_some() {
        let short_of = shortage.missing.0 - evictable;
        if evict_youngest_caches(view, shortage.stage, short_of, actions) {
            let enough = Shortage { missing: Bytes(evictable), ..*shortage };
            evict_idle_models(view, &enough, actions);
        }
    }
}

/// Evicts idle models like [`evict_least_recently_used`], and no caches. How much memory idle models take [bytes]; if that does not cover
/// the shortage, nothing was evicted.
pub fn evict_idle_models(view: &View<'_>, shortage: &Shortage, actions: &mut Actions) -> u64 {
    let wanted = view.stage(shortage.stage).weights;
    let adapter = view.node(shortage.stage).adapter;
    let mut idle: Vec<(Nanos, ModelId, ProcessorId)> = view
        .state
        .memory
        .resident
        .enumerate()
        .flat_map(|(model, on)| on.enumerate().filter_map(move |(p, used)| used.map(|used| (used, model, p))))
        .filter(|&(_, model, p)| {
            let needed = model == wanted || adapter.is_some_and(|adapter| adapter.model == model);
            !(needed && p == shortage.processor) && view.can_evict(model, p)
        })
        .collect();
    let evictable: u64 = idle.iter().map(|&(_, model, _)| view.system.models[model].weights.0).sum();
    if evictable < shortage.missing.0 {
        // It would not help: what is in memory may as well stay.
        return evictable;
    }
    idle.sort_unstable();
    let mut missing = shortage.missing;
    for (_, model, processor) in idle {
        if missing == Bytes::ZERO {
            break;
        }
        actions.evict(model, processor);
        missing = Bytes(missing.0.saturating_sub(view.system.models[model].weights.0));
    }
    evictable
}

/// Evicts caches of waiting stages that became ready after `stage`, the youngest first, to be computed again, until they free `missing`
/// bytes. Whether they do; if not, nothing is evicted.
fn evict_youngest_caches(view: &View<'_>, stage: StageId, missing: u64, actions: &mut Actions) -> bool {
    let serial = view.stage(stage).serial;
    let waiting = view
        .ready()
        .iter()
        .copied()
        .filter(|&other| view.stage(other).serial > serial && view.can_evict_cache(other, false));
    let mut caches: Vec<(u64, StageId)> = waiting.map(|other| (view.stage(other).serial, other)).collect();
    let held = |&(_, other): &(u64, StageId)| view.stage(other).cache.held.0;
    if caches.iter().map(held).sum::<u64>() < missing {
        return false;
    }
    caches.sort_unstable();
    let mut freed = 0;
    for cache in caches.iter().rev() {
        if freed >= missing {
            break;
        }
        actions.evict_cache(cache.1, false);
        freed += held(cache);
    }
    true
}
