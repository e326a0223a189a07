//! `sarathi`: streams by deadline; below them answers never stop for prompts: pieces of prompts share their steps, within a budget of
//! tokens per step.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "sarathi",
    summary: "Streams with deadlines first; then answers, whose steps pieces of prompts share within a budget of tokens",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "budget",
        default: "512",
        meaning: "tokens that a step computes at most: one per answer, and the rest for prompts [tokens], 1 to 1000000",
    }],
    reference: "Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve, OSDI 2024; Holmes et al., DeepSpeed-FastGen (Dynamic SplitFuse), arXiv 2401.08671, 2024",
    build,
};

/// Stall-free batching within a token budget.
#[derive(Clone, Debug)]
struct Sarathi {
    order: WithinBudget,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let budget = parameters.number("budget", 1.0..=1e6, "a number of tokens from 1 to 1000000")? as u32;
    Ok(Box::new(Sarathi { order: WithinBudget { budget }, dispatch: Dispatch::default() }))
}

impl Policy for Sarathi {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

#[derive(Clone, Copy, Debug)]
struct WithinBudget {
    budget: u32,
}

impl Order for WithinBudget {
    /// Answers, then prompts that have begun, then new ones (each first come, first served), then other work.
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        if let Some(key) = real_time_key(view, stage) {
            return key;
        }
        let live = view.stage(stage);
        BACKGROUND
            + match live.kind {
                Phase::Decode => 0,
                Phase::Prefill if live.position > 0.0 || live.partial_ns > 0.0 => 1,
                Phase::Prefill => 2,
                Phase::Forward | Phase::Before | Phase::Steps | Phase::After => 3,
            }
    }

    /// Only streams with deadlines take over.
    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |_| BACKGROUND)
    }

    fn limit(&mut self, view: &View<'_>, stage: StageId, _: ProcessorId) -> Option<Limit> {
        (view.stage(stage).kind == Phase::Prefill).then_some(Limit::Units(self.budget))
    }

    fn share(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        share_within(self.budget, view, plan, stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

/// Where most is left of a budget of tokens per step for a piece of the stage's prompt, and how many tokens the piece has.
pub(crate) fn share_within(budget: u32, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
    let left = |p| Some((budget.checked_sub(plan.tokens_to_share(view, stage, p)?)?, p));
    let most = view.processors().filter_map(left).max_by_key(|&(left, p)| (left, std::cmp::Reverse(p)));
    let live = view.stage(stage);
    let needed = (live.work.units(Phase::Prefill) - live.position).max(1.0) as u32;
    most.filter(|&(left, _)| left > 0).map(|(left, p)| (p, left.min(needed)))
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, preempt, start};

    fn units(stage: onbeat_core::id::StageId, tokens: u32) -> Action {
        Action::Start {
            stage,
            processor: onbeat_core::id::ProcessorId(0),
            limit: Some(Limit::Units(tokens)),
            units: None,
        }
    }

    #[test]
    fn prompts_take_what_the_answers_leave_of_the_budget() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 8);
        rig.mix(chat);
        rig.running_decode(chat, 0, 0.0);
        let (new, begun) = (rig.ready(chat, 0.0), rig.ready(chat, 0.0));
        let answer = rig.ready_decode(chat, 0.0);
        rig.state.stages[begun].position = 10.0;
        // Two answers, and 62 tokens of the prompt that has begun: all of the budget.
        assert_eq!(rig.decide("sarathi:budget=64"), [start(answer, 0), units(begun, 62)]);
        // 90 tokens are left of the first prompt, the other one gets the rest.
        assert_eq!(rig.decide("sarathi:budget=150"), [start(answer, 0), units(begun, 90), units(new, 58)]);
        assert_eq!(rig.decide("sarathi:budget=2"), [start(answer, 0)]);
    }

    #[test]
    fn an_idle_processor_takes_a_prompt_in_pieces_of_the_budget() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 8);
        rig.mix(chat);
        let prompt = rig.ready(chat, 0.0);
        assert_eq!(rig.decide("sarathi"), [units(prompt, 512)]);
        // An answer goes first, and the prompt shares its first step.
        let answer = rig.ready_decode(chat, 0.0);
        assert_eq!(rig.decide("sarathi:budget=64"), [start(answer, 0), units(prompt, 63)]);
    }

    #[test]
    fn without_mixed_steps_a_prompt_waits_for_the_answers_and_streams_for_nobody() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 8);
        let frame = rig.stream("frame", Some(30.0), &[Some(5.0)]);
        let running = rig.running_decode(chat, 0, 0.0);
        rig.ready(chat, 0.0);
        assert_eq!(rig.decide("sarathi"), []);
        rig.ready(frame, 0.0);
        assert_eq!(rig.decide("sarathi"), [preempt(running)]);
    }
}
