//! What a policy evicts by default when a start is short of memory.
//!
//! Nothing is collected in a list: what goes next is looked for anew each time. Little goes at a time, and so nothing is allocated.

use super::{Actions, Shortage, View};
use crate::id::{ModelId, ProcessorId, StageId};
use crate::units::{Bytes, Nanos};

/// Evicts idle models, the least recently used first (ties: lower model, then lower processor), until the shortage is covered. Evicts
/// nothing if that would not cover it – unless caches grow by blocks: then the caches of waiting stages that became ready after this one
/// go as well, the youngest first, to be computed again, so that the oldest stage always gets on.
pub fn evict_least_recently_used(view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
    let evictable = evict_idle_models(view, shortage, actions);
    if evictable < shortage.missing.0
        && evict_youngest_caches(view, shortage.stage, shortage.missing.0 - evictable, actions)
    {
        let enough = Shortage { missing: Bytes(evictable), ..*shortage };
        evict_idle_models(view, &enough, actions);
    }
}

/// Evicts idle models like [`evict_least_recently_used`], and no caches. How much memory idle models take [bytes]; if that does not cover
/// the shortage, nothing was evicted.
pub fn evict_idle_models(view: &View<'_>, shortage: &Shortage, actions: &mut Actions) -> u64 {
    let wanted = view.stage(shortage.stage).weights;
    let adapter = view.node(shortage.stage).adapter;
    let may_go = |model: ModelId, p: ProcessorId| {
        let needed = model == wanted || adapter.is_some_and(|adapter| adapter.model == model);
        !(needed && p == shortage.processor) && view.can_evict(model, p)
    };
    let resident = || {
        let on_each = view.state.memory.resident.enumerate();
        on_each.flat_map(|(model, on)| on.enumerate().filter_map(move |(p, used)| Some(((*used)?, model, p))))
    };
    let size = |model: ModelId| view.system.models[model].weights.0;
    let evictable = resident().filter(|&(_, model, p)| may_go(model, p)).map(|(_, model, _)| size(model)).sum();
    if evictable < shortage.missing.0 {
        // It would not help: what is in memory may as well stay.
        return evictable;
    }
    let mut missing = shortage.missing.0;
    let mut last: Option<(Nanos, ModelId, ProcessorId)> = None;
    while missing > 0 {
        let rest = resident().filter(|&candidate| last.is_none_or(|last| candidate > last));
        let Some(next) = rest.filter(|&(_, model, p)| may_go(model, p)).min() else { break };
        actions.evict(next.1, next.2);
        missing = missing.saturating_sub(size(next.1));
        last = Some(next);
    }
    evictable
}

/// Where caches grow by blocks, evicts those of waiting stages that became ready after `stage`, the youngest first, to be computed again,
/// until they free `missing` bytes. Whether they do; if not, nothing is evicted.
pub fn evict_youngest_caches(view: &View<'_>, stage: StageId, missing: u64, actions: &mut Actions) -> bool {
    view.system.platform.kv_block.is_some()
        && evict_caches(view, view.ready(), Some(view.stage(stage).serial), missing, actions)
}

/// Evicts caches of those of the waiting stages whose serial is larger than `after`, the youngest first, to be computed again, until they
/// free `missing` bytes. Whether they do; if not, nothing is evicted.
pub fn evict_caches(
    view: &View<'_>,
    stages: &[StageId],
    after: Option<u64>,
    missing: u64,
    actions: &mut Actions,
) -> bool {
    let waiting = stages.iter().map(|&stage| (view.stage(stage).serial, stage));
    let younger = waiting
        .filter(|&(serial, stage)| after.is_none_or(|after| serial > after) && view.can_evict_cache(stage, false));
    let held = |stage: StageId| view.stage(stage).cache.held.0;
    if younger.clone().map(|(_, stage)| held(stage)).sum::<u64>() < missing {
        return false;
    }
    let (mut freed, mut last) = (0, u64::MAX);
    while freed < missing {
        let Some((serial, stage)) = younger.clone().filter(|&(serial, _)| serial < last).max() else { break };
        actions.evict_cache(stage, false);
        freed += held(stage);
        last = serial;
    }
    true
}
