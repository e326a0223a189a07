//! `static`: every stage is pinned to one processor, first come, first served there.

use onbeat_core::id::{Id, IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::suggest::closest;
use onbeat_core::system::{Node, System};

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "static",
    summary: "Every stage pinned to its fastest processor (or to a given one), first come, first served there",
    group: "RTGen-style",
    parameters: &[ParameterInfo {
        name: "map",
        default: "",
        meaning: "STAGE:PROCESSOR+STAGE:PROCESSOR, where STAGE is a stage, source.stage or a model; what is not named stays on its fastest processor",
    }],
    reference: "RTGen-style: one of the kinds of policy that Karami et al. compare, arXiv 2507.14715, 2025; not their definition",
    build,
};

/// Every stage pinned to one processor.
#[derive(Clone, Debug)]
struct Static {
    order: Pinned,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let processors = mapping(parameters, system)?;
    Ok(Box::new(Static { order: Pinned { processors }, dispatch: Dispatch::default() }))
}

impl Policy for Static {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// First come, first served, each on its own processor.
#[derive(Clone, Debug)]
struct Pinned {
    processors: IdVec<NodeId, ProcessorId>,
}

impl Order for Pinned {
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        Some(self.processors[view.stage(stage).node]).filter(|&p| plan.fits(view, stage, p))
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.processors[view.stage(stage).node] == processor
    }
}

/// How a name in the mapping refers to a stage; a closer reference overrides a wider one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reference {
    Model,
    Stage,
    SourceAndStage,
}

fn reference(system: &System, node: &Node, name: &str) -> Option<Reference> {
    let source = &system.sources[node.source].name;
    if name.strip_prefix(source.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(node.name.as_str()) {
        Some(Reference::SourceAndStage)
    } else if node.name == name {
        Some(Reference::Stage)
    } else if system.models[node.model].name == name {
        Some(Reference::Model)
    } else {
        None
    }
}

fn mapping(parameters: &Parameters<'_>, system: &System) -> Result<IdVec<NodeId, ProcessorId>, PolicyError> {
    let policy = parameters.policy();
    let text = parameters.text("map");
    let mut chosen: IdVec<NodeId, (Option<Reference>, ProcessorId)> =
        system.nodes.iter().map(|node| (None, node.fastest)).collect();
    for entry in text.split('+').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, unit) = entry.rsplit_once(':').ok_or_else(|| PolicyError::BadValue {
            policy,
            parameter: "map",
            value: text.to_owned(),
            allowed: "stage:processor, several of them joined by +",
        })?;
        let processor = find_processor(policy, system, unit)?;
        let mut found = false;
        for (id, node) in system.nodes.enumerate() {
            let Some(reference) = reference(system, node, name) else { continue };
            found = true;
            if chosen[id].0.is_some_and(|closer| closer > reference) {
                continue;
            }
            if node.costs[processor].is_none() {
                return Err(cannot_run(policy, system, node, unit));
            }
            chosen[id] = (Some(reference), processor);
        }
        if !found {
            return Err(no_such_stage(policy, system, name));
        }
    }
    Ok(chosen.iter().map(|&(_, processor)| processor).collect())
}

fn find_processor(policy: &'static str, system: &System, name: &str) -> Result<ProcessorId, PolicyError> {
    let names = || system.platform.processors.iter().map(|processor| processor.name.as_str());
    system.processor(name).ok_or_else(|| PolicyError::UnknownName {
        policy,
        parameter: "map",
        kind: "processor",
        name: name.to_owned(),
        known: names().map(str::to_owned).collect(),
        suggestion: closest(name, names()).map(str::to_owned),
    })
}

fn no_such_stage(policy: &'static str, system: &System, name: &str) -> PolicyError {
    let mut known: Vec<String> =
        system.nodes.iter().flat_map(|node| [node.name.clone(), system.models[node.model].name.clone()]).collect();
    known.sort_unstable();
    known.dedup();
    let suggestion = closest(name, known.iter().map(String::as_str)).map(str::to_owned);
    PolicyError::UnknownName {
        policy,
        parameter: "map",
        kind: "stage or model",
        name: name.to_owned(),
        known,
        suggestion,
    }
}

fn cannot_run(policy: &'static str, system: &System, node: &Node, processor: &str) -> PolicyError {
    let able = (0..node.costs.len()).map(ProcessorId::new).filter(|&p| node.costs[p].is_some());
    PolicyError::CannotRunThere {
        policy,
        parameter: "map",
        stage: format!("{}.{}", system.sources[node.source].name, node.name),
        processor: processor.to_owned(),
        allowed: able.map(|p| system.platform.processors[p].name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::make;
    use crate::registry::PolicyError;
    use crate::test_rig::{Rig, start};

    fn rig() -> Rig {
        Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)])
    }

    #[test]
    fn waits_for_its_own_processor_though_another_is_idle() {
        let mut rig = rig();
        let source = rig.stream("camera", Some(10.0), &[Some(9.0), Some(2.0)]);
        let (first, _second) = (rig.ready(source, 0.0), rig.ready(source, 0.0));
        assert_eq!(rig.decide("static"), [start(first, 1)]);
        assert_eq!(rig.decide("static:map=camera:cpu"), [start(first, 0)]);
    }

    #[test]
    fn a_closer_reference_overrides_a_wider_one() {
        let mut rig = rig();
        let a = rig.stream("a", Some(10.0), &[Some(9.0), Some(2.0)]);
        let b = rig.stream("b", Some(10.0), &[Some(9.0), Some(2.0)]);
        rig.share_model(a, b);
        let (a, b) = (rig.ready(a, 0.0), rig.ready(b, 0.0));
        // Streams of one model have a stage of the stream's name; the model of both is called `a-model`.
        assert_eq!(rig.decide("static:map=b.b:npu+a-model:cpu"), [start(a, 0), start(b, 1)]);
        assert_eq!(rig.decide("static:map=a-model:cpu+b:npu"), [start(a, 0), start(b, 1)]);
    }

    #[test]
    fn mistakes_in_the_mapping_are_explained() {
        let mut rig = rig();
        rig.stream("camera", Some(10.0), &[None, Some(2.0)]);
        let error = |text: &str| make(text, &rig.system).expect_err("the mapping is wrong").to_string();
        assert_eq!(
            error("static:map=camera:cpu"),
            "policy `static`: parameter `map`: stage `camera.camera` cannot run on `cpu`; it runs on npu"
        );
        assert_eq!(
            error("static:map=camra:npu"),
            "policy `static`: parameter `map`: there is no stage or model `camra` (did you mean `camera`?); there are camera, camera-model"
        );
        assert_eq!(
            error("static:map=camera:nup"),
            "policy `static`: parameter `map`: there is no processor `nup` (did you mean `npu`?); there are cpu, npu"
        );
        assert!(matches!(make("static:map=camera", &rig.system), Err(PolicyError::BadValue { .. })));
    }
}
