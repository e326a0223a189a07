//! `rate-limiter`: models take turns, weighted by priority.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::parameters::Parameters;
use crate::plan::{Plan, begun_on};
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "rate-limiter",
    summary: "Triton's rate limiter: models take turns, in proportion to one over their priority number",
    group: "runtime",
    parameters: &[ParameterInfo {
        name: "equal",
        default: "false",
        meaning: "true: all models have the priority number 1; false: 1 for the highest of the scenario's priorities, 2 for the next, and so on",
    }],
    reference: "NVIDIA Triton Inference Server, user guide, Rate Limiter, and its public code (`exec_count * priority`)",
    build,
};

/// Weighted turns.
#[derive(Clone, Debug)]
struct RateLimiter {
    plan: Plan,
    /// Priority number of each model, from 1: the larger, the fewer turns.
    number: Vec<u64>,
    /// Turns that each model has had.
    turns: Vec<u64>,
    /// Ready stages that have not been started.
    open: Vec<StageId>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let number = if parameters.flag("equal")? { vec![1; system.models.len()] } else { numbers(system) };
    let turns = vec![0; system.models.len()];
    Ok(Box::new(RateLimiter { plan: Plan::default(), number, turns, open: Vec::new() }))
}

/// A model's number is the rank of the highest priority among the sources that use it.
fn numbers(system: &System) -> Vec<u64> {
    let mut distinct: Vec<i32> = system.sources.iter().map(|source| source.priority).collect();
    distinct.sort_unstable_by(|a, b| b.cmp(a));
    distinct.dedup();
    let mut number = vec![distinct.len() as u64; system.models.len()];
    for node in &system.nodes {
        let priority = system.sources[node.source].priority;
        let rank = distinct.partition_point(|&known| known > priority) as u64 + 1;
        let number = &mut number[node.model.index()];
        *number = rank.min(*number);
    }
    number
}

impl Policy for RateLimiter {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.open.clear();
        self.open.extend_from_slice(view.ready());
        while self.plan.has_free() {
            let Some((i, processor)) = self.next(view) else { break };
            let stage = self.open.swap_remove(i);
            self.plan.start(view, stage, processor, actions);
            // A turn is a whole inference: the phases after the first belong to it.
            if begun_on(view, stage).is_none() {
                self.turns[view.stage(stage).model.index()] += 1;
            }
        }
        self.open.sort_unstable_by_key(|&stage| view.stage(stage).serial);
        for i in 0..self.open.len() {
            self.plan.join_any(view, self.open[i], actions);
        }
    }
}

impl RateLimiter {
    /// The stage whose model has had the fewest turns by its weight, and where it would be done first.
    fn next(&self, view: &View<'_>) -> Option<(usize, ProcessorId)> {
        let key = |&stage: &StageId| {
            let live = view.stage(stage);
            // What has begun goes on first: it holds its instance.
            let begun = begun_on(view, stage).is_none();
            (begun, self.turns[live.model.index()] * self.number[live.model.index()], live.serial)
        };
        let able = self.open.iter().enumerate().filter_map(|(i, stage)| {
            let processor = self.plan.fastest(view, *stage)?;
            Some((key(stage), i, processor))
        });
        able.min().map(|(_, i, processor)| (i, processor))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use super::numbers;
    use crate::test_rig::Rig;

    #[test]
    fn turns_go_by_the_inverse_of_the_number() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let sources = [rig.stream("first", None, &[Some(1.0)]), rig.stream("second", None, &[Some(1.0)])];
        rig.system.sources[sources[0]].priority = 9;
        rig.system.sources[sources[1]].priority = 4;
        assert_eq!(numbers(&rig.system), [1, 2]);
        let mut count = |policy: &str| {
            let mut policy = rig.make(policy);
            let mut turns = [0, 0];
            for _ in 0..12 {
                rig.state.ready.clear();
                let stages = sources.map(|source| rig.ready(source, 0.0));
                let actions = rig.decide_with(&mut policy);
                let &[Action::Start { stage, .. }] = actions.as_slice() else { panic!("{actions:?}") };
                turns[usize::from(stage == stages[1])] += 1;
            }
            turns
        };
        assert_eq!(count("rate-limiter"), [8, 4]);
        assert_eq!(count("rate-limiter:equal=true"), [6, 6]);
    }

    #[test]
    fn decode_is_no_turn_of_its_own() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 2);
        let decode = rig.ready_decode(chat, 0.0);
        rig.state.stages[decode].processor = Some(onbeat_core::id::ProcessorId(0));
        let other = rig.stream("other", None, &[Some(1.0)]);
        rig.ready(other, 0.0);
        assert_eq!(rig.decide("rate-limiter"), [crate::test_rig::start(decode, 0)], "it holds its instance");
    }
}
