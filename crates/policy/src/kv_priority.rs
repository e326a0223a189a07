//! `kv-priority`: what vLLM does with priorities: prompts are admitted while there is memory for their caches, and when caches cannot
//! grow, the least urgent request loses its own.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, Policy, Shortage, View, evict_idle_models};
use onbeat_core::state::{Run, Stage};
use onbeat_core::system::System;
use onbeat_core::units::Bytes;

use crate::dispatch::{Dispatch, Order};
use crate::kv_offload::room_far;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::serving::{BUDGET, Serving};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "kv-priority",
    summary: "vLLM with priorities: prompts are admitted while their caches fit; when caches cannot grow, the least urgent loses its own",
    group: "runtime",
    parameters: &[
        ParameterInfo {
            name: "swap",
            default: "false",
            meaning: "true: caches that must go are moved to slower memory if the platform has some; false: they are computed again",
        },
        ParameterInfo {
            name: "watermark",
            default: "0.01",
            meaning: "part of the memory that is left free when a prompt is admitted, 0 to 1",
        },
        BUDGET,
    ],
    reference: "Kwon et al., Efficient Memory Management for Large Language Model Serving with PagedAttention, SOSP 2023, section 4.5; vLLM's scheduling policy `priority`",
    build,
};

/// Admission and preemption by cache memory.
#[derive(Clone, Debug)]
struct KvPriority {
    order: ByPriority,
    dispatch: Dispatch,
    swap: bool,
    watermark: f64,
    /// Requests that lose their caches: key, stage.
    victims: Vec<(u64, StageId)>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = ByPriority { serving: Serving::new(parameters, system)?, admitted_below: u64::MAX };
    Ok(Box::new(KvPriority {
        order,
        dispatch: Dispatch::default(),
        swap: parameters.flag("swap")?,
        watermark: parameters.number("watermark", 0.0..=1.0, "a number from 0 to 1")?,
        victims: Vec::new(),
    }))
}

impl Policy for KvPriority {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.admitted_below = self.first_that_does_not_fit(view);
        self.dispatch.run(view, actions, &mut self.order);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        let idle = evict_idle_models(view, shortage, actions);
        if idle >= shortage.missing.0 || is_new(view, shortage.stage) {
            // A request that is not admitted yet takes memory from no other request.
            return;
        }
        let limit = rank(view, shortage.stage);
        let waiting = view.ready().iter().copied().filter(|&stage| view.can_evict_cache(stage, false));
        self.victims.clear();
        self.victims.extend(waiting.map(|stage| (rank(view, stage), stage)).filter(|&(key, _)| key > limit));
        self.victims.sort_unstable();
        let held = |&(_, stage): &(u64, StageId)| view.stage(stage).cache.held.0;
        if self.victims.iter().map(held).sum::<u64>() < shortage.missing.0 {
            return;
        }
        let (mut freed, mut room) = (0, room_far(view));
        while freed < shortage.missing.0 {
            let Some(victim) = self.victims.pop() else { break };
            let moved = view.cache_in_use(victim.1).0;
            let keep = self.swap && view.can_evict_cache(victim.1, true) && moved <= room;
            room -= if keep { moved } else { 0 };
            actions.evict_cache(victim.1, keep);
            freed += held(&victim);
        }
    }
}

impl KvPriority {
    /// The key of the first request whose prompt does not fit into memory: nobody is admitted before it.
    fn first_that_does_not_fit(&self, view: &View<'_>) -> u64 {
        let Some(free) = view.state.memory.free() else { return u64::MAX };
        let all = view.state.memory.capacity.map_or(0.0, Bytes::as_f64);
        let room = free.as_f64() + idle_caches(view) as f64 - self.watermark * all;
        let does_not_fit = |&stage: &StageId| {
            is_new(view, stage)
                && view.stage(stage).kind == Phase::Prefill
                && view.cache_needed(stage, view.node(stage).output_max).as_f64() > room
        };
        // A request that is all alone has no one to wait for: idle-time work gives way.
        let holds = |(stage, live): (StageId, &Stage)| live.cache.held > Bytes::ZERO && !view.source(stage).best_effort;
        let anybody = view.state.stages.iter().any(holds);
        let waits = anybody && !stands_still(view);
        let waiting = view.ready().iter().copied().filter(|stage| waits && does_not_fit(stage));
        waiting.map(|stage| rank(view, stage)).min().unwrap_or(u64::MAX)
    }
}

/// Whether a request has no cache yet, and never had one.
fn is_new(view: &View<'_>, stage: StageId) -> bool {
    let live = view.stage(stage);
    live.tokens == 0 && live.cache.held == Bytes::ZERO && live.cache.swapped == Bytes::ZERO
}

/// Whether nothing runs and no answer could go on: memory that is not free now, such as kept caches of conversations, will not be by itself.
fn stands_still(view: &View<'_>) -> bool {
    let mut runs = view.processors().flat_map(|p| &view.occupancy(p).runs);
    let goes_on = |&stage: &StageId| {
        view.stage(stage).kind != Phase::Prefill && view.processors().any(|p| view.can_run(stage, p))
    };
    !runs.any(|run| !view.gives_way(run)) && !view.ready().iter().any(goes_on)
}

/// Memory that caches of idle-time work hold: it gives them up when it is asked to.
fn idle_caches(view: &View<'_>) -> u64 {
    if !view.system.has_best_effort() {
        return 0;
    }
    let caches = view.state.stages.iter().filter(|&(stage, _)| view.source(stage).best_effort);
    caches.map(|(_, live)| live.cache.held.0).sum()
}

/// Memory that models hold which nobody uses, a stage's own apart: they go first.
fn idle_models(view: &View<'_>, stage: StageId) -> u64 {
    let own = view.stage(stage).weights;
    let resident = view.state.memory.resident.enumerate().filter(|&(model, _)| model != own);
    let idle = resident.flat_map(|(model, on)| on.ids().filter(move |&p| view.can_evict(model, p)).map(move |_| model));
    idle.map(|model| view.system.models[model].weights.0).sum()
}

/// Whether there is memory for a request that has lost its cache, with what those behind it could lose.
fn fits_again(view: &View<'_>, stage: StageId) -> bool {
    let Some(free) = view.state.memory.free() else { return true };
    let own = view.stage(stage).cache.held.0 + free.0;
    let missing = view.cache_needed(stage, view.node(stage).output_max).0.saturating_sub(own);
    let missing = if missing > 0 { missing.saturating_sub(idle_caches(view) + idle_models(view, stage)) } else { 0 };
    let behind = view
        .ready()
        .iter()
        .filter(|&&other| missing > 0 && view.can_evict_cache(other, false) && rank(view, other) > rank(view, stage));
    missing == 0 || behind.map(|&other| view.stage(other).cache.held.0).sum::<u64>() >= missing
}

/// The order of requests: by priority, then first come, first served.
fn rank(view: &View<'_>, stage: StageId) -> u64 {
    let priority = (1_000_000 - i64::from(view.source(stage).priority)).clamp(0, 2_000_000) as u64;
    (priority << 36) + view.stage(stage).serial.min((1 << 36) - 1)
}

#[derive(Clone, Debug)]
struct ByPriority {
    serving: Serving,
    /// New requests from this rank on are not admitted.
    admitted_below: u64,
}

impl Order for ByPriority {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.serving.key(view, stage, || rank(view, stage))
    }

    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        self.serving.running_key(view, run)
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        if view.stage(stage).kind != Phase::Prefill {
            return true;
        }
        if is_new(view, stage) {
            rank(view, stage) < self.admitted_below
        } else {
            fits_again(view, stage) || stands_still(view)
        }
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
    use onbeat_core::policy::{Action, Actions, Shortage};
    use onbeat_core::spec::Preemption;
    use onbeat_core::state::Cache;
    use onbeat_core::units::Bytes;

    use crate::test_rig::{Rig, preempt, start};

    /// One GPU with 1000 bytes of memory, blocks of 10 tokens, 1 byte per token; two sessions, the second more urgent.
    fn rig() -> (Rig, onbeat_core::id::SourceId, onbeat_core::id::SourceId) {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        rig.system.platform.kv_block = Some(10);
        rig.system.platform.capacity = Some(Bytes(1000));
        rig.state.memory.capacity = Some(Bytes(1000));
        let (chat, urgent) = (rig.session("chat", &[4.0], 8), rig.session("urgent", &[4.0], 8));
        rig.share_model(chat, urgent);
        rig.system.sources[urgent].priority = 5;
        for model in &mut rig.system.models {
            model.kv_per_token = Bytes(1);
        }
        (rig, chat, urgent)
    }

    #[test]
    fn prompts_are_admitted_while_their_caches_fit() {
        let (mut rig, chat, urgent) = rig();
        let holder = rig.running_decode(chat, 0, 0.0);
        rig.state.stages[holder].cache = Cache { held: Bytes(880), ..Cache::default() };
        rig.state.memory.used = Bytes(880);
        // 101 tokens are eleven blocks, 110 bytes, and 10 stay free: they fit exactly.
        rig.ready(chat, 0.0);
        assert_eq!(rig.decide("kv-priority"), [preempt(holder)]);
        assert_eq!(rig.decide("kv-priority:watermark=0.02"), []);
        rig.state.memory.used = Bytes(900);
        assert_eq!(rig.decide("kv-priority"), []);
        // What is more urgent and does not fit holds up the rest.
        rig.state.memory.used = Bytes(880);
        let long = rig.ready(urgent, 0.0);
        rig.state.stages[long].work.prompt = 2000;
        assert_eq!(rig.decide("kv-priority"), []);
    }

    #[test]
    fn the_least_urgent_loses_its_cache() {
        let (mut rig, chat, urgent) = rig();
        let (old, young, vip) =
            (rig.ready_decode(chat, 0.0), rig.ready_decode(chat, 0.0), rig.ready_decode(urgent, 0.0));
        for stage in [old, young, vip] {
            rig.state.stages[stage].cache.held = Bytes(110);
        }
        let lose = |policy: &str, stage, missing| {
            let shortage = Shortage { stage, processor: onbeat_core::id::ProcessorId(0), missing: Bytes(missing) };
            let mut actions = Actions::default();
            rig.make(policy).out_of_memory(&rig.view(), &shortage, &mut actions);
            actions.as_slice().to_vec()
        };
        let evict = |stage| Action::EvictCache { stage, keep: false };
        assert_eq!(lose("kv-priority", vip, 10), [evict(young)]);
        assert_eq!(lose("kv-priority", vip, 200), [evict(young), evict(old)]);
        assert_eq!(lose("kv-priority", old, 10), [evict(young)]);
        assert_eq!(lose("kv-priority", young, 10), [], "nobody is less urgent");
        assert_eq!(lose("kv-priority:swap=true", vip, 10), [evict(young)], "there is no slower memory");
        assert_eq!(rig.decide("kv-priority")[0], start(vip, 0), "the most urgent goes on first");
    }
}
