//! `kv-offload`: caches stay in memory while there is some; when there is none, the longest contexts go on from slower memory.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, Policy, Shortage, View, evict_idle_models, evict_least_recently_used};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Bytes;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};
use crate::serving::{BUDGET, Serving};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "kv-offload",
    summary: "Nobody waits for cache memory: when there is none, the longest contexts go on from slower memory, fetching what matters in each step",
    group: "generative",
    parameters: &[BUDGET],
    reference: "Lee et al., InfiniGen: Efficient Generative Inference of Large Language Models with Dynamic KV Cache Management, OSDI 2024, arXiv 2406.19707",
    build,
};

/// Caches in slower memory instead of waiting.
#[derive(Clone, Debug)]
struct KvOffload {
    order: EarliestFirst,
    dispatch: Dispatch,
    alarm: Alarm,
    /// Requests whose caches could go: context length, serial, stage.
    longest: Vec<(u64, u64, StageId)>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = EarliestFirst { serving: Serving::new(parameters, system)? };
    Ok(Box::new(KvOffload { order, dispatch: Dispatch::default(), alarm: Alarm::default(), longest: Vec::new() }))
}

impl Policy for KvOffload {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        if view.ready().iter().any(|&stage| is_on_its_way(view, stage)) {
            self.alarm.set(view.now(), view.state.memory.swap_free_at, actions);
        }
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        place_longest_far(view, shortage, actions, &mut self.longest);
    }
}

/// Makes room without refusing anybody: idle models go first, and then the longest waiting requests go on with their caches in slower
/// memory; the one that is short of memory may be among them. Where that is not enough – slower memory is full, or models do not say how
/// their caches are fetched – what goes by default goes instead. `longest` is scratch.
pub(crate) fn place_longest_far(
    view: &View<'_>,
    shortage: &Shortage,
    actions: &mut Actions,
    longest: &mut Vec<(u64, u64, StageId)>,
) {
    let short = shortage.stage;
    if evict_idle_models(view, shortage, actions) >= shortage.missing.0 {
        return;
    }
    let gives = |stage: StageId| view.stage(stage).cache.held > Bytes::ZERO || stage == short;
    let able = |&stage: &StageId| gives(stage) && !view.stage(stage).cache.far && view.can_offload(stage);
    let waiting = view.ready().iter().copied().filter(able);
    longest.clear();
    longest.extend(waiting.map(|stage| (context(view, stage), view.stage(stage).serial, stage)));
    longest.sort_unstable();
    let before = actions.as_slice().len();
    // Each of them finds room in slower memory by itself; together they may not.
    let (mut freed, mut room) = (0, room_far(view));
    for &(_, _, stage) in longest.iter().rev() {
        if freed >= shortage.missing.0 {
            return;
        }
        let takes = view.cache_reserve(stage).max(view.cache_in_use(stage)).0;
        let takes = takes.saturating_sub(view.stage(stage).cache.swapped.0);
        if takes > room {
            continue;
        }
        room -= takes;
        actions.place_cache(stage, true);
        if stage == short {
            // It needs no memory for its cache any more.
            return;
        }
        freed += view.stage(stage).cache.held.0;
    }
    if freed < shortage.missing.0 {
        actions.truncate(before);
        evict_least_recently_used(view, shortage, actions);
    }
}

/// Room in slower memory, if there is some at all [bytes].
pub(crate) fn room_far(view: &View<'_>) -> u64 {
    let capacity = view.system.platform.swap.and_then(|swap| swap.capacity);
    capacity.map_or(u64::MAX, |all| all.0.saturating_sub(view.state.memory.swapped.0))
}

/// Whether a request waits for the link to slower memory: a step that it joined would wait with it.
pub(crate) fn is_on_its_way(view: &View<'_>, stage: StageId) -> bool {
    view.stage(stage).cache.far && view.state.memory.swap_free_at > view.now()
}

/// Tokens of context that a request has, or will have when its prompt is read.
fn context(view: &View<'_>, stage: StageId) -> u64 {
    let live = view.stage(stage);
    u64::from(live.work.prompt) + if live.kind == Phase::Decode { live.position as u64 } else { 0 }
}

/// Streams by deadline; then prompts and answers, earliest due first.
#[derive(Clone, Debug)]
struct EarliestFirst {
    serving: Serving,
}

impl Order for EarliestFirst {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.serving.key(view, stage, || view.due(stage).0)
    }

    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        self.serving.running_key(view, run)
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        !is_on_its_way(view, stage)
    }

    fn limit(&mut self, view: &View<'_>, stage: StageId, _: ProcessorId) -> Option<Limit> {
        self.serving.limit(view, stage)
    }

    fn share(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        self.serving.share(view, plan, stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::ProcessorId;
    use onbeat_core::offload::Offload;
    use onbeat_core::policy::{Action, Actions, Shortage};
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::{Link, Swap};
    use onbeat_core::units::{Bytes, Nanos};

    use crate::test_rig::Rig;

    #[test]
    fn the_longest_context_goes_far_first() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        rig.system.platform.kv_block = Some(10);
        rig.system.platform.swap =
            Some(Swap { capacity: Some(Bytes(700)), link: Link { latency: Nanos::ZERO, bandwidth: Some(1.0) } });
        let chat = rig.session("chat", &[4.0], 8);
        for model in &mut rig.system.models {
            model.kv_per_token = Bytes(1);
            model.offload = Some(Offload { layers: 4, share: 0.1, least: 0.0 });
        }
        let (long, short) = (rig.ready_decode(chat, 0.0), rig.ready_decode(chat, 0.0));
        let new = rig.ready(chat, 0.0);
        rig.state.stages[long].work.prompt = 150;
        for stage in [long, short] {
            rig.state.stages[stage].cache.held = Bytes(160);
        }
        let lose = |rig: &Rig, missing| {
            let shortage = Shortage { stage: new, processor: ProcessorId(0), missing: Bytes(missing) };
            let mut actions = Actions::default();
            rig.make("kv-offload").out_of_memory(&rig.view(), &shortage, &mut actions);
            actions.as_slice().to_vec()
        };
        let far = |stage| Action::PlaceCache { stage, far: true };
        assert_eq!(lose(&rig, 10), [far(long)]);
        // Of two contexts of one length the younger goes, and that one is short of memory itself: it needs none then.
        assert_eq!(lose(&rig, 200), [far(long), far(new)]);
        rig.state.stages[short].work.prompt = 101;
        assert_eq!(lose(&rig, 200), [far(long), far(short)]);
        rig.state.stages[short].work.prompt = 100;
        rig.state.stages[new].work.prompt = 151;
        assert_eq!(lose(&rig, 10), [far(new)]);
        // There is no room for it in slower memory.
        rig.state.stages[new].work.prompt = 600;
        assert_eq!(lose(&rig, 10), [far(long)]);
        // Nor for two of them at once: what goes by default goes, and here nobody can.
        rig.system.platform.swap =
            Some(Swap { capacity: Some(Bytes(450)), link: Link { latency: Nanos::ZERO, bandwidth: Some(1.0) } });
        rig.state.stages[new].work.prompt = 100;
        assert_eq!(lose(&rig, 200), []);
    }
}
