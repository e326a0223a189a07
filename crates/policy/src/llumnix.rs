//! `llumnix`: requests go to the processor that is freest, and move on to another one while they are being answered: their caches are
//! copied meanwhile.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, Policy, View};
use onbeat_core::spec::ModelShape;
use onbeat_core::state::Run;
use onbeat_core::system::System;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::serving::{BUDGET, Serving};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "llumnix",
    summary: "Requests go to the freest processor, and move to a freer one while they are answered: caches are copied meanwhile",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "live",
            default: "true",
            meaning: "true: caches are copied while their requests go on; false: requests stop for it",
        },
        ParameterInfo {
            name: "rest",
            default: "16",
            meaning: "a request moves when at most so many tokens are left to hand over [tokens], 1 to 1000000",
        },
        BUDGET,
    ],
    reference: "Sun et al., Llumnix: Dynamic Scheduling for Large Language Model Serving, OSDI 2024, arXiv 2406.03243",
    build,
};

/// Rounds of copying after which a move is given up.
const ROUNDS_MAX: u32 = 8;

/// Dispatching and rescheduling by freeness.
#[derive(Clone, Debug)]
struct Llumnix {
    order: AtHome,
    dispatch: Dispatch,
    alarm: Alarm,
    live: bool,
    rest: f64,
    /// Load of each processor.
    load: IdVec<ProcessorId, Load>,
    /// Requests that are being copied, at most one from each processor.
    moves: Vec<Move>,
}

/// What a processor has to do with language models.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Cache memory that its requests take, those that wait for it included [bytes].
    usage: f64,
    /// Requests that hold or get a cache there.
    requests: f64,
    /// Whether any language model runs there.
    serves: bool,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Move {
    stage: StageId,
    serial: u64,
    from: ProcessorId,
    to: ProcessorId,
    rounds: u32,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let language = |node: NodeId| system.models[system.nodes[node].model].shape == ModelShape::Autoregressive;
    let serves = |p: ProcessorId| {
        system.nodes.ids().any(|node| language(node) && system.nodes[node].costs.get(p).is_some_and(Option::is_some))
    };
    let order = AtHome { serving: Serving::new(parameters, system)?, homes: Vec::new() };
    let load = system.platform.processors.ids().map(|p| Load { serves: serves(p), ..Load::default() }).collect();
    Ok(Box::new(Llumnix {
        order,
        dispatch: Dispatch::default(),
        alarm: Alarm::default(),
        live: parameters.flag("live")?,
        rest: parameters.number("rest", 1.0..=1e6, "a number of tokens from 1 to 1000000")?,
        load,
        moves: Vec::new(),
    }))
}

impl Policy for Llumnix {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.measure(view);
        for &stage in view.ready() {
            if is_language(view, stage) && self.order.home(view, stage).is_none_or(|p| !view.can_run(stage, p)) {
                self.settle(view, stage);
            }
        }
        self.go_on(view, actions);
        self.dispatch.run(view, actions, &mut self.order);
        self.rebalance(view, actions);
        let under_way = |one: &Move| view.stage(one.stage).copy.map(|copy| copy.done).filter(|&done| done > view.now());
        // A copy that begins in this decision is not in the view yet.
        let copied = |one: &Move| under_way(one).unwrap_or_else(|| view.now() + view.copy_time(one.stage, one.to));
        if let Some(next) = self.moves.iter().map(copied).filter(|&done| done > view.now()).min() {
            self.alarm.set(view.now(), next, actions);
        }
    }
}

impl Llumnix {
    /// What every processor has to do.
    fn measure(&mut self, view: &View<'_>) {
        for load in &mut self.load {
            (load.usage, load.requests) = (0.0, 0.0);
        }
        for (stage, live) in view.state.stages.iter() {
            if live.running
                && is_language(view, stage)
                && let Some(p) = live.processor
            {
                self.order.set_home(view, stage, self.order.home(view, stage).unwrap_or(p));
            }
            if let Some(p) = self.order.home(view, stage) {
                self.add(p, usage(view, stage));
            }
        }
    }

    fn add(&mut self, p: ProcessorId, usage: f64) {
        self.load[p].usage += usage;
        self.load[p].requests += 1.0;
    }

    /// Memory for caches that each processor counts on: its part of all; without a limit, what all requests take now.
    fn memory(&self, view: &View<'_>) -> f64 {
        let serving = self.load.iter().filter(|load| load.serves);
        match view.state.memory.capacity {
            Some(all) => all.as_f64() / serving.count().max(1) as f64,
            None => serving.map(|load| load.usage).sum(),
        }
    }

    /// How free a processor is, with one more request of this usage if one is given: memory that is left per request.
    fn freeness(&self, memory: f64, p: ProcessorId, more: Option<f64>) -> f64 {
        let load = self.load[p];
        let requests = load.requests + if more.is_some() { 1.0 } else { 0.0 };
        if requests > 0.0 { (memory - load.usage - more.unwrap_or(0.0)) / requests } else { f64::INFINITY }
    }

    /// A new request goes to the freest processor (ties: where it would be done first).
    fn settle(&mut self, view: &View<'_>, stage: StageId) {
        let (memory, usage) = (self.memory(view), usage(view, stage));
        let free = |p: ProcessorId| {
            Some((self.freeness(memory, p, None), std::cmp::Reverse(view.remaining(stage, p)?), std::cmp::Reverse(p)))
        };
        let able = view.processors().filter(|&p| view.can_run(stage, p)).filter_map(free);
        let best = able.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        if let Some((_, _, std::cmp::Reverse(p))) = best {
            self.order.set_home(view, stage, p);
            self.add(p, usage);
        }
    }

    /// Goes on with what is being copied: once more, or the request leaves for good.
    fn go_on(&mut self, view: &View<'_>, actions: &mut Actions) {
        let (live_copies, rest, order, load) = (self.live, self.rest, &mut self.order, &mut self.load);
        self.moves.retain_mut(|one| {
            let Some(live) = view.state.stages.get(one.stage).filter(|live| live.serial == one.serial) else {
                return false;
            };
            let serves = |run: &&Run| run.stages().any(|other| other == one.stage);
            let run = view.occupancy(one.from).runs.iter().find(serves);
            // It may have joined a batch elsewhere meanwhile.
            let stays = live.running && run.is_none_or(|run| !view.can_preempt(one.from, run));
            let stays = stays
                || live.processor != Some(one.from)
                || (live_copies && live.copy.is_none_or(|copy| copy.to != one.to));
            if stays || !view.can_run(one.stage, one.to) {
                return false;
            }
            if live.copy.is_some_and(|copy| copy.done > view.now()) {
                return true;
            }
            let left = view.tokens_to_hand_over(one.stage, one.to);
            let place = view.free_slots(one.to) > 0 || view.can_join(one.stage, one.to);
            if place && (left <= rest || !live_copies) {
                order.set_home(view, one.stage, one.to);
                let usage = usage(view, one.stage);
                load[one.from].usage -= usage;
                load[one.from].requests -= 1.0;
                load[one.to].usage += usage;
                load[one.to].requests += 1.0;
                if live.running {
                    actions.preempt(one.stage);
                }
                return false;
            }
            one.rounds += 1;
            let again = live_copies && one.rounds < ROUNDS_MAX && view.can_copy(one.stage, one.to);
            if again {
                actions.copy_cache(one.stage, one.to);
            }
            again
        });
    }

    /// Lets one request leave the processor that is least free for the freest one, if that one is still freer with it.
    fn rebalance(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.on_devices() {
            return;
        }
        let memory = self.memory(view);
        let by_freeness = |p: &ProcessorId| (self.freeness(memory, *p, None), *p);
        let serving = || view.processors().filter(|&p| self.load[p].serves);
        let order = |a: &(f64, ProcessorId), b: &(f64, ProcessorId)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let busiest = serving().filter(|&p| view.preemptible(p)).map(|p| by_freeness(&p)).min_by(order);
        let freest = serving().map(|p| by_freeness(&p)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let (Some((least, from)), Some((_, to))) = (busiest, freest) else { return };
        if from == to || self.moves.iter().any(|one| one.from == from || one.to == to) {
            return;
        }
        // The least important with the shortest context: it costs least.
        let candidates = view.occupancy(from).runs.iter().flat_map(|run| run.stages().filter(move |_| !run.ending));
        let may = |&stage: &StageId| {
            view.stage(stage).kind == Phase::Decode && view.stage(stage).running && view.can_copy(stage, to)
        };
        let rank =
            |&stage: &StageId| (view.source(stage).priority, view.cache_tokens(stage) as u64, view.stage(stage).serial);
        let Some(stage) = candidates.filter(may).min_by_key(rank) else { return };
        if self.freeness(memory, to, Some(usage(view, stage))) <= least {
            return;
        }
        let serial = view.stage(stage).serial;
        self.moves.push(Move { stage, serial, from, to, rounds: 0 });
        if self.live {
            actions.copy_cache(stage, to);
        } else {
            self.go_on(view, actions);
        }
    }
}

fn is_language(view: &View<'_>, stage: StageId) -> bool {
    matches!(view.stage(stage).kind, Phase::Prefill | Phase::Decode)
}

/// Cache memory that a request takes, or needs as soon as its prompt is read [bytes]; tokens where the model states no size.
fn usage(view: &View<'_>, stage: StageId) -> f64 {
    let live = view.stage(stage);
    let written = if live.kind == Phase::Decode { live.position + 1.0 } else { 0.0 };
    (f64::from(live.work.prompt) + written) * view.system.models[live.model].kv_per_token.as_f64().max(1.0)
}

/// Streams by deadline; below them every request on the processor that it was given: prompts and answers, each by priority, then first
/// come, first served.
#[derive(Clone, Debug)]
struct AtHome {
    serving: Serving,
    /// By stage: its serial, and where it belongs.
    homes: Vec<(u64, ProcessorId)>,
}

impl AtHome {
    fn home(&self, view: &View<'_>, stage: StageId) -> Option<ProcessorId> {
        let &(serial, p) = self.homes.get(stage.index())?;
        (serial == view.stage(stage).serial).then_some(p)
    }

    fn set_home(&mut self, view: &View<'_>, stage: StageId, p: ProcessorId) {
        if self.homes.len() <= stage.index() {
            self.homes.resize(stage.index() + 1, (u64::MAX, p));
        }
        self.homes[stage.index()] = (view.stage(stage).serial, p);
    }
}

impl Order for AtHome {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.serving.key(view, stage, || {
            let priority = (1_000_000 - i64::from(view.source(stage).priority)).clamp(0, 2_000_000) as u64;
            (priority << 36) + view.stage(stage).serial.min((1 << 36) - 1)
        })
    }

    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        self.serving.running_key(view, run)
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.home(view, stage).is_none_or(|home| home == processor)
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        match self.home(view, stage) {
            Some(home) => Some(home).filter(|&p| plan.fits(view, stage, p)),
            None => plan.fastest(view, stage),
        }
    }

    fn limit(&mut self, view: &View<'_>, stage: StageId, _: ProcessorId) -> Option<Limit> {
        self.serving.limit(view, stage)
    }

    fn share(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        self.serving.share(view, plan, stage).filter(|&(p, _)| self.allows(view, stage, p))
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;
    use onbeat_core::state::CacheCopy;
    use onbeat_core::units::Bytes;

    use super::*;
    use crate::test_rig::{Rig, ms, preempt, start};

    /// Two alike processors, a model with 1 byte of cache per token.
    fn rig() -> (Rig, onbeat_core::id::SourceId) {
        let mut rig = Rig::new(&[("a", Preemption::Segment), ("b", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0, 4.0], 8);
        for unit in &mut rig.system.platform.processors {
            unit.slots = 2;
        }
        for model in &mut rig.system.models {
            model.kv_per_token = Bytes(1);
        }
        (rig, chat)
    }

    fn running(rig: &mut Rig, chat: onbeat_core::id::SourceId, p: u32, prompt: u32) -> StageId {
        let stage = rig.running_decode(chat, p, 0.0);
        rig.state.stages[stage].work.prompt = prompt;
        rig.state.stages[stage].cache.held = Bytes(u64::from(prompt) + 101);
        stage
    }

    #[test]
    fn new_requests_go_to_the_freest_processor() {
        let (mut rig, chat) = rig();
        let (first, second, third) = (rig.ready(chat, 0.0), rig.ready(chat, 0.0), rig.ready(chat, 0.0));
        rig.state.stages[first].work.prompt = 500;
        // The third goes to where there is less to do.
        assert_eq!(rig.decide("llumnix"), [start(first, 0), start(second, 1), start(third, 1)]);
    }

    #[test]
    fn the_shortest_of_the_fullest_moves_if_that_leaves_its_new_place_freer() {
        let (mut rig, chat) = rig();
        let long = running(&mut rig, chat, 0, 200);
        let short = running(&mut rig, chat, 0, 100);
        let copy = Action::CopyCache { stage: short, to: ProcessorId(1) };
        assert_eq!(rig.decide("llumnix"), [copy]);
        // Nothing would be won: with it, the other one would be as full.
        let other = running(&mut rig, chat, 1, 200);
        assert_eq!(rig.decide("llumnix"), []);
        let _ = (long, other);
    }

    #[test]
    fn it_leaves_when_little_is_left_to_hand_over() {
        let (mut rig, chat) = rig();
        running(&mut rig, chat, 0, 200);
        let short = running(&mut rig, chat, 0, 100);
        let mut policy = rig.make("llumnix");
        let copy = Action::CopyCache { stage: short, to: ProcessorId(1) };
        assert_eq!(rig.decide_with(&mut policy), [copy]);
        rig.state.stages[short].copy = Some(CacheCopy { to: ProcessorId(1), tokens: 101.0, done: ms(10.0) });
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(10.0) }]);
        // 20 tokens were written meanwhile: once more; then 5.
        rig.state.now = ms(10.0);
        rig.state.stages[short].position = 20.0;
        assert_eq!(rig.decide_with(&mut policy), [copy]);
        rig.state.stages[short].copy = Some(CacheCopy { to: ProcessorId(1), tokens: 121.0, done: ms(12.0) });
        rig.state.now = ms(12.0);
        rig.state.stages[short].position = 25.0;
        assert_eq!(rig.decide_with(&mut policy), [preempt(short)]);
        rig.stop(short);
        assert_eq!(rig.decide_with(&mut policy), [start(short, 1)]);
    }
}
