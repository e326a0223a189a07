//! What servers of language models have in common – `kv-priority`, `kv-offload`, `llumnix` –: streams with deadlines first, and how prompts
//! and answers follow each other. How requests of the same kind rank among each other is the policy's.

use onbeat_core::cost::Phase;
use onbeat_core::id::{IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Limit, View};
use onbeat_core::state::Run;
use onbeat_core::system::{Node, System};

use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError};

/// Ranks are below this: prompts and answers never mix.
pub(crate) const RANKS: u64 = 1 << 60;

/// How many tokens a step computes at most.
pub(crate) const BUDGET: ParameterInfo = ParameterInfo {
    name: "budget",
    default: "2048",
    meaning: "tokens that a step computes at most where prompts and answers share steps [tokens], 1 to 1000000",
};

/// Whether prompts of a stage, in one of its variants, share steps with answers somewhere.
pub(crate) fn shares_steps(node: &Node, variant: u8) -> bool {
    let costs = node.costs_of(variant).iter().flatten();
    costs.flat_map(|cost| &cost.phases).any(|(_, phase)| phase.pieces().is_some_and(|pieces| pieces.mixed))
}

/// How prompts and answers follow each other: answers first where prompts can share their steps; where they cannot, prompts first, as
/// the answers would never end.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    budget: u32,
    /// Whether prompts of a stage share steps with answers somewhere.
    shares: IdVec<NodeId, bool>,
}

impl Serving {
    pub(crate) fn new(parameters: &Parameters<'_>, system: &System) -> Result<Self, PolicyError> {
        let budget = parameters.number("budget", 1.0..=1e6, "a number of tokens from 1 to 1000000")? as u32;
        Ok(Self { budget, shares: system.nodes.iter().map(|node| shares_steps(node, 0)).collect() })
    }

    /// The key of a waiting stage, of this rank among its like.
    pub(crate) fn key(&self, view: &View<'_>, stage: StageId, rank: impl FnOnce() -> u64) -> u64 {
        let live = view.stage(stage);
        let later = (live.kind == Phase::Prefill) == self.shares[live.node];
        let background = || BACKGROUND + if later { RANKS } else { 0 } + rank().min(RANKS - 1);
        real_time_key(view, stage).unwrap_or_else(background)
    }

    /// The key of a run: prompts take over from answers where they cannot share their steps; streams take over from both.
    pub(crate) fn running_key(&self, view: &View<'_>, run: &Run) -> u64 {
        run_key(view, run, |stage| {
            let live = view.stage(stage);
            let gives_way = live.kind == Phase::Decode && !self.shares[live.node];
            BACKGROUND + if gives_way { RANKS } else { 0 }
        })
    }

    /// How far a stage goes at once: a prompt that can share steps, by pieces of the budget.
    pub(crate) fn limit(&self, view: &View<'_>, stage: StageId) -> Option<Limit> {
        let live = view.stage(stage);
        (live.kind == Phase::Prefill && self.shares[live.node]).then_some(Limit::Units(self.budget))
    }

    /// Whose step a prompt can share, and with how many tokens.
    pub(crate) fn share(&self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        crate::sarathi::share_within(self.budget, view, plan, stage)
    }
}
