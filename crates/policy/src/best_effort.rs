//! Idle-time work: what best-effort sources ask for is served behind any policy's back, on processors that nothing else waits for.
//!
//! Written once, for all policies: they see neither the stages that wait nor any reason to serve them, and decide as if the work did not
//! exist, except that a slot it holds is busy until it has given way. Two rules:
//!
//! * **It starts** on a processor only if no stage of another source waits that could run there after the policy has decided.
//! * **It gives way** – is preempted, where the processor can – as soon as such a stage waits.
//!
//! The second is the first one's opposite, so that there is no going round in a circle. Where a processor never preempts, one segment
//! runs at a time.
//!
//! Memory is no different: a stage of another source that is short of it takes what idle-time work has, models first, then caches, and
//! as long as such a stage waits for memory, none of this work runs anywhere. In real runs caches stay where they are until their stage
//! ends, and it had better get there: then it goes on.

use onbeat_core::id::{Id, IdVec, ModelId, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, Shortage, View, evict_caches};
use onbeat_core::system::System;
use onbeat_core::units::Bytes;

use crate::plan::holding_time;

/// A policy, and best-effort work behind it.
#[derive(Clone, Debug)]
struct BestEffort {
    policy: Box<dyn Policy>,
    /// Models that other sources use, too: best-effort work never evicts them.
    shared: IdVec<ModelId, bool>,
    /// Free slots by processor, less what this decision has given away.
    free: Vec<u32>,
    /// Processors that a stage waits for.
    wanted: Vec<bool>,
    /// Whether a stage waits for memory.
    short: bool,
    /// Waiting best-effort stages by serial.
    queue: Vec<(u64, StageId)>,
}

/// The policy, with best-effort work served behind it.
pub(crate) fn serve_behind(policy: Box<dyn Policy>, system: &System) -> Box<dyn Policy> {
    let mut shared: IdVec<ModelId, bool> = system.models.iter().map(|_| false).collect();
    for node in system.nodes.iter().filter(|node| !system.sources[node.source].best_effort) {
        for variant in node.variant_numbers() {
            shared[system.weights_of(node.model_of(variant))] = true;
        }
        if let Some(adapter) = node.adapter {
            shared[adapter.model] = true;
        }
    }
    Box::new(BestEffort { policy, shared, free: Vec::new(), wanted: Vec::new(), short: false, queue: Vec::new() })
}

impl Policy for BestEffort {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.policy.decide(view, actions);
        self.account(view, actions);
        self.give_way(view, actions);
        self.start(view, actions);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        let before = actions.as_slice().len();
        let missing = self.evict_own(view, shortage, actions);
        if missing == 0 {
            return;
        }
        if view.source(shortage.stage).best_effort {
            // Among themselves, the oldest gets on: as by default, where caches grow.
            if view.system.platform.kv_block.is_some() {
                let serial = view.stage(shortage.stage).serial;
                evict_caches(view, view.background(), Some(serial), missing, actions);
            }
            return;
        }
        if evict_caches(view, view.background(), None, missing, actions) {
            return;
        }
        // All caches of idle-time work are not enough. For the rest it is the policy's choice, as if there were no such work.
        actions.truncate(before);
        let held = evictable_caches(view);
        evict_caches(view, view.background(), None, held, actions);
        let rest = Shortage { missing: Bytes(shortage.missing.0 - held), ..*shortage };
        let own = actions.as_slice().len();
        self.policy.out_of_memory(view, &rest, actions);
        if actions.as_slice().len() == own {
            // It would not help.
            actions.truncate(before);
        }
    }
}

impl BestEffort {
    /// Works out what the policy has left: free slots, and processors that some stage waits for.
    fn account(&mut self, view: &View<'_>, actions: &Actions) {
        self.free.clear();
        self.free.extend(view.processors().map(|p| view.free_slots(p)));
        self.wanted.clear();
        self.wanted.resize(self.free.len(), false);
        self.short = false;
        for action in actions.as_slice() {
            for p in taken(action) {
                self.free[p.index()] = self.free[p.index()].saturating_sub(1);
            }
        }
        for &stage in view.ready() {
            let goes = actions.as_slice().iter().any(|action| match *action {
                Action::Drop { job } => view.stage(stage).job == job,
                _ => action.starts().is_some_and(|(other, ..)| other == stage),
            });
            if goes {
                continue;
            }
            self.short |= view.stage(stage).refused != 0 && !view.state.real;
            for p in view.processors().filter(|&p| view.can_run(stage, p)) {
                self.wanted[p.index()] = true;
            }
        }
    }

    /// Takes best-effort work off processors that a stage waits for; off all of them, one after the other, if one waits for memory.
    fn give_way(&self, view: &View<'_>, actions: &mut Actions) {
        let wanted = |p: ProcessorId| self.wanted[p.index()] && self.free[p.index()] == 0;
        for p in view.processors().filter(|&p| wanted(p) || self.short) {
            if !view.preemptible(p) {
                continue;
            }
            // What the policy has joined or preempts itself is its business.
            let touched = actions.as_slice().iter().any(|action| match *action {
                Action::Preempt { stage } => view.stage(stage).processor == Some(p),
                _ => taken(action).any(|other| other == p),
            });
            let runs = &view.occupancy(p).runs;
            let on_its_way = runs.iter().any(|run| run.ending);
            if let Some(run) = runs.iter().find(|run| view.gives_way(run)).filter(|_| !touched && !on_its_way) {
                actions.preempt(run.stage);
            }
        }
    }

    /// Starts best-effort work on processors that nothing waits for: first come, first served, each where it is done first.
    fn start(&mut self, view: &View<'_>, actions: &mut Actions) {
        if self.short {
            return;
        }
        self.queue.clear();
        let dropped = |job| {
            actions.as_slice().iter().any(|action| matches!(*action, Action::Drop { job: other } if other == job))
        };
        let alive = view.background().iter().filter(|&&stage| !dropped(view.stage(stage).job));
        self.queue.extend(alive.map(|&stage| (view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        for &(_, stage) in &self.queue {
            let idle = view
                .processors()
                .filter(|&p| self.free[p.index()] > 0 && !self.wanted[p.index()] && view.can_run(stage, p));
            let Some((_, p)) = idle.filter_map(|p| Some((holding_time(view, stage, p)?, p))).min() else { continue };
            self.free[p.index()] -= 1;
            if view.preemptible(p) {
                actions.start(stage, p);
            } else {
                actions.start_segments(stage, p, 1);
            }
        }
    }

    /// Evicts models that only best-effort sources use, the least recently used first, until the shortage is covered. What is still
    /// missing then [bytes].
    fn evict_own(&self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) -> u64 {
        let own = view.stage(shortage.stage).weights;
        let adapter = view.node(shortage.stage).adapter.map(|adapter| adapter.model);
        let mut missing = shortage.missing.0;
        let mut last = None;
        while missing > 0 {
            let resident = view.system.models.ids().filter(|&model| !self.shared[model]).flat_map(|model| {
                view.processors().filter_map(move |p| Some((view.state.memory.resident[model][p]?, model, p)))
            });
            // In order, each one once.
            let next = resident
                .filter(|&(_, model, p)| {
                    let needed = model == own || Some(model) == adapter;
                    !(needed && p == shortage.processor) && view.can_evict(model, p)
                })
                .filter(|&candidate| last.is_none_or(|last| candidate > last))
                .min();
            let Some(next) = next else { break };
            last = Some(next);
            actions.evict(next.1, next.2);
            missing = missing.saturating_sub(view.system.models[next.1].weights.0);
        }
        missing
    }
}

/// Memory that caches of waiting idle-time work hold.
fn evictable_caches(view: &View<'_>) -> u64 {
    let caches = view.background().iter().filter(|&&stage| view.can_evict_cache(stage, false));
    caches.map(|&stage| view.stage(stage).cache.held.0).sum()
}

/// The processors that an action starts something on.
pub(crate) fn taken(action: &Action) -> impl Iterator<Item = ProcessorId> {
    action.starts().into_iter().flat_map(|(_, own, others)| others.with(own).iter())
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ProcessorId, SourceId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    fn rig(preemption: Preemption) -> (Rig, SourceId, SourceId) {
        let mut rig = Rig::new(&[("npu", preemption)]);
        let camera = rig.stream("camera", Some(20.0), &[Some(4.0)]);
        let dream = rig.stream("dream", None, &[Some(40.0)]);
        rig.system.sources[dream].best_effort = true;
        (rig, camera, dream)
    }

    #[test]
    fn every_policy_serves_it_on_an_idle_processor_and_only_there() {
        for info in crate::all() {
            let (mut rig, camera, dream) = rig(Preemption::Segment);
            let work = rig.background(dream, 0.0);
            assert_eq!(rig.decide(info.name), [start(work, 0)], "{}", info.name);
            let frame = rig.ready(camera, 0.0);
            let actions = rig.decide(info.name);
            assert!(!actions.contains(&start(work, 0)), "{}: {actions:?}", info.name);
            assert!(actions.contains(&start(frame, 0)), "{}: {actions:?}", info.name);
        }
    }

    #[test]
    fn under_every_policy_it_gives_way_at_once_and_only_once() {
        for info in crate::all() {
            let (mut rig, camera, dream) = rig(Preemption::Segment);
            let work = rig.running(dream, 0, 0.0);
            rig.state.now = ms(1.0);
            rig.ready(camera, 1.0);
            let preempts = rig.decide(info.name).iter().filter(|&&action| action == preempt(work)).count();
            assert_eq!(preempts, 1, "{}", info.name);
            rig.state.processors[ProcessorId(0)].runs[0].ending = true;
            let actions = rig.decide(info.name);
            assert!(!actions.contains(&preempt(work)), "{}: {actions:?}", info.name);
        }
    }

    #[test]
    fn it_runs_one_segment_at_a_time_where_nothing_is_preempted() {
        let (mut rig, camera, dream) = rig(Preemption::Never);
        let work = rig.background(dream, 0.0);
        let segment = Action::Start {
            stage: work,
            processor: ProcessorId(0),
            limit: Some(onbeat_core::policy::Limit::Segments(1)),
            units: None,
        };
        assert_eq!(rig.decide("fcfs"), [segment]);
        rig.state.background.clear();
        rig.start_again(work, 0, 0.0);
        rig.ready(camera, 0.0);
        assert_eq!(rig.decide("edf"), []);
    }

    #[test]
    fn it_evicts_no_model_that_others_use() {
        use onbeat_core::policy::{Actions, Shortage};
        use onbeat_core::units::Bytes;
        let (mut rig, camera, dream) = rig(Preemption::Segment);
        let other = rig.stream("other dream", None, &[Some(40.0)]);
        rig.system.sources[other].best_effort = true;
        for model in &mut rig.system.models {
            model.weights = Bytes(100);
        }
        let (work, frame) = (rig.background(dream, 0.0), rig.ready(camera, 0.0));
        let mut policy = rig.make("edf");
        let mut count = |stage, missing| {
            let mut actions = Actions::default();
            let shortage = Shortage { stage, processor: ProcessorId(0), missing: Bytes(missing) };
            policy.out_of_memory(&rig.view(), &shortage, &mut actions);
            actions.as_slice().len()
        };
        assert_eq!(count(work, 150), 1, "the other dream's model goes, the camera's stays");
        assert_eq!(count(frame, 150), 2, "both dreams' models go");
    }
}
