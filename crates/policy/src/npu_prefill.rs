//! `npu-prefill`: hybrid mode. Long prompts are read on the NPU, answers are written on the fastest other processor, streams use
//! what is left.

use onbeat_core::cost::{Phase, Work};
use onbeat_core::id::{IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::spec::{ModelShape, ProcessorKind};
use onbeat_core::system::{Node, System};
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "npu-prefill",
    summary: "Hybrid mode: long prompts on the NPU, answers on the fastest other processor, streams on what is left",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "threshold",
        default: "0",
        meaning: "prompts of at least so many tokens go to the NPU, shorter ones to the processor that decodes; 0 to 1000000",
    }],
    reference: "AMD, Ryzen AI Software documentation, OnnxRuntime GenAI hybrid execution, version 1.5; Lemonade documentation, FAQ",
    build,
};

/// Prefill on the NPU.
#[derive(Clone, Debug)]
struct NpuPrefill {
    order: Hybrid,
    dispatch: Dispatch,
}

/// Generative work in order of readiness on its own processors, then streams by due time.
#[derive(Clone, Debug)]
struct Hybrid {
    /// Prompt length from which on the NPU is used [tokens].
    threshold: u32,
    /// For each stage of a language model that runs both on an NPU and elsewhere.
    splits: IdVec<NodeId, Option<Split>>,
}

/// Processors of a language model.
#[derive(Clone, Debug)]
struct Split {
    npus: Vec<ProcessorId>,
    /// The fastest in decode of the others; several if they are identical.
    decoders: Vec<ProcessorId>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let threshold = parameters.number("threshold", 0.0..=1e6, "a number of tokens from 0 to 1000000")?;
    let splits = system.nodes.iter().map(|node| split(system, node)).collect();
    let order = Hybrid { threshold: threshold.ceil() as u32, splits };
    Ok(Box::new(NpuPrefill { order, dispatch: Dispatch::default() }))
}

fn split(system: &System, node: &Node) -> Option<Split> {
    if system.models[node.model].shape != ModelShape::Autoregressive {
        return None;
    }
    let is_npu = |p: ProcessorId| system.platform.processors[p].kind == ProcessorKind::Npu;
    let able = || system.platform.processors.ids().filter(|&p| node.costs[p].is_some());
    let work = Work { output: node.expected.output.max(2), ..node.expected };
    let decode = |p| node.costs[p].as_ref().map(|cost| Nanos::from_ns_f64(cost.remaining_ns(work, 1, 0.0)));
    let fastest = able().filter(|&p| !is_npu(p)).filter_map(decode).min()?;
    let npus: Vec<_> = able().filter(|&p| is_npu(p)).collect();
    let decoders = able().filter(|&p| !is_npu(p) && decode(p) == Some(fastest)).collect();
    (!npus.is_empty()).then_some(Split { npus, decoders })
}

impl Policy for NpuPrefill {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

impl Order for Hybrid {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let generative = view.system.models[view.stage(stage).model].shape == ModelShape::Autoregressive;
        if generative { 0 } else { view.due(stage).0.max(1) }
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        if self.splits[view.stage(stage).node].is_none() {
            return plan.fastest(view, stage);
        }
        plan.fastest_among(view, stage, |p| self.allows(view, stage, p))
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        let live = view.stage(stage);
        let Some(split) = &self.splits[live.node] else { return true };
        let on_npu = live.kind == Phase::Prefill && live.work.prompt >= self.threshold;
        let own = if on_npu { &split.npus } else { &split.decoders };
        // Where memory refuses all of its processors, it takes any other one.
        own.contains(&processor) || !own.iter().any(|&p| view.can_run(stage, p))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::ProcessorId;
    use onbeat_core::spec::{Preemption, ProcessorKind};

    use crate::test_rig::{Rig, start};

    /// CPU, GPU and NPU; the session decodes at 9, 4 and 6 ms per token, and has prompts of 100 tokens.
    fn rig() -> (Rig, onbeat_core::id::SourceId) {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        rig.system.platform.processors[ProcessorId(1)].kind = ProcessorKind::Gpu;
        rig.system.platform.processors[ProcessorId(2)].kind = ProcessorKind::Npu;
        let chat = rig.session("chat", &[9.0, 4.0, 6.0], 1);
        (rig, chat)
    }

    #[test]
    fn long_prompts_go_to_the_npu_and_answers_to_the_gpu() {
        let (mut rig, chat) = rig();
        let stage = rig.ready(chat, 0.0);
        assert_eq!(rig.decide("npu-prefill"), [start(stage, 2)]);
        assert_eq!(rig.decide("npu-prefill:threshold=100"), [start(stage, 2)]);
        assert_eq!(rig.decide("npu-prefill:threshold=101"), [start(stage, 1)]);
        rig.state.ready.clear();
        let decode = rig.ready_decode(chat, 0.0);
        assert_eq!(rig.decide("npu-prefill"), [start(decode, 1)]);
    }

    #[test]
    fn waits_for_its_processor_and_takes_another_only_if_memory_refuses_it() {
        let (mut rig, chat) = rig();
        rig.running(chat, 2, 0.0);
        let stage = rig.ready(chat, 0.0);
        assert_eq!(rig.decide("npu-prefill"), []);
        rig.state.stages[stage].refused = 0b100;
        assert_eq!(rig.decide("npu-prefill"), [start(stage, 1)]);
    }

    #[test]
    fn streams_take_what_is_left_earliest_due_first() {
        let (mut rig, chat) = rig();
        let late = rig.stream("late", Some(50.0), &[Some(9.0), None, Some(1.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(9.0), None, Some(1.0)]);
        let (_, soon, chat) = (rig.ready(late, 0.0), rig.ready(soon, 0.0), rig.ready(chat, 0.0));
        assert_eq!(rig.decide("npu-prefill"), [start(chat, 2), start(soon, 0)]);
    }
}
