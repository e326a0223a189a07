//! `exclusive-lru`: a processor holds so many models at most, one by default; another one is loaded in place of the least recently used.

use onbeat_core::id::{Id, ModelId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::spec::ProcessorKind;
use onbeat_core::system::System;

use crate::parameters::Parameters;
use crate::plan::{Plan, begun_on};
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "exclusive-lru",
    summary: "What today's model servers do: one model at a time in an NPU, the least recently used evicted, first come, first served",
    group: "runtime",
    parameters: &[
        ParameterInfo {
            name: "models",
            default: "1",
            meaning: "the most models that a limited processor holds, 1 to 64",
        },
        ParameterInfo { name: "all", default: "false", meaning: "true: all processors are limited; false: NPUs only" },
    ],
    reference: "Lemonade (NPU models evict each other; least recently used per type of model), Ollama (loads and unloads whole models, first in, first out): their public documentation; the rule here is ours",
    build,
};

/// At most so many models per processor.
#[derive(Clone, Debug)]
struct ExclusiveLru {
    models: usize,
    all: bool,
    plan: Plan,
    /// Ready stages by serial.
    queue: Vec<(u64, StageId)>,
    /// Models that this decision starts, and those that it evicts.
    used: Vec<(ModelId, ProcessorId)>,
    evicted: Vec<(ModelId, ProcessorId)>,
    /// Processors whose first stage in the queue waits: nobody overtakes it.
    blocked: Vec<bool>,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let models = parameters.count("models")?;
    Ok(Box::new(ExclusiveLru {
        models,
        all: parameters.flag("all")?,
        plan: Plan::default(),
        queue: Vec::new(),
        used: Vec::new(),
        evicted: Vec::new(),
        blocked: Vec::new(),
    }))
}

impl Policy for ExclusiveLru {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.used.clear();
        self.evicted.clear();
        self.blocked.clear();
        self.blocked.resize(view.processors().len(), false);
        self.queue.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            let stage = self.queue[i].1;
            // Users choose the device of a model when they load it; here it is the fastest one.
            // What has begun holds memory, and may be what those before it wait for: they do not hold it up.
            let begun = begun_on(view, stage);
            let processor = begun.unwrap_or(view.node(stage).fastest);
            if self.plan.batch_for(view, stage, |p| p == processor).is_some() && !self.plan.is_free(processor) {
                self.plan.join(view, stage, processor, actions);
            } else if (!self.blocked[processor.index()] || begun.is_some())
                && self.plan.fits(view, stage, processor)
                && self.make_way(view, stage, processor, actions)
            {
                self.used.push((view.stage(stage).weights, processor));
                self.plan.start(view, stage, processor, actions);
            } else {
                self.blocked[processor.index()] = true;
            }
        }
    }
}

impl ExclusiveLru {
    /// Evicts the least recently used models until the stage's model is within the limit. Whether that is possible now; if not, nothing is
    /// evicted.
    fn make_way(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId, actions: &mut Actions) -> bool {
        let kind = view.system.platform.processors[processor].kind;
        if !self.all && kind != ProcessorKind::Npu {
            return true;
        }
        let wanted = view.stage(stage).weights;
        let is_there = |this: &Self, model: ModelId| {
            let pair = (model, processor);
            // Adapters go with a model; they are not counted.
            if !view.system.models[model].role.is_network() {
                return false;
            }
            (view.state.memory.is_resident(model, processor) && !this.evicted.contains(&pair))
                || this.used.contains(&pair)
        };
        let before = (self.evicted.len(), actions.as_slice().len());
        let mut others = view.system.models.ids().filter(|&model| model != wanted && is_there(self, model)).count();
        if others < self.models {
            return true;
        }
        // What can go is counted first: the view does not change while a decision is made.
        let can_go = |this: &Self, model: ModelId| {
            model != wanted
                && is_there(this, model)
                && !this.used.contains(&(model, processor))
                && view.can_evict(model, processor)
        };
        let able = view.system.models.ids().filter(|&model| can_go(self, model)).count();
        if others - able >= self.models {
            return false;
        }
        while others >= self.models {
            let idle = view.system.models.ids().filter(|&model| can_go(self, model));
            let oldest = idle.min_by_key(|&model| (view.state.memory.resident[model][processor], model));
            let Some(model) = oldest else { break };
            actions.evict(model, processor);
            self.evicted.push((model, processor));
            others -= 1;
        }
        debug_assert!(self.evicted.len() > before.0 && actions.as_slice().len() > before.1, "something was evicted");
        true
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ModelId, ProcessorId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::{Preemption, ProcessorKind};

    use crate::test_rig::{Rig, ms, start};

    fn rig() -> Rig {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        rig.system.platform.processors[ProcessorId(0)].kind = ProcessorKind::Npu;
        rig
    }

    fn evict(model: u32) -> Action {
        Action::Evict { model: ModelId(model), processor: ProcessorId(0) }
    }

    #[test]
    fn one_model_at_a_time_in_the_order_of_requests() {
        let mut rig = rig();
        let a = rig.stream("a", Some(90.0), &[Some(4.0)]);
        let b = rig.stream("b", Some(10.0), &[Some(4.0)]);
        let first = rig.ready(a, 0.0);
        rig.ready(b, 0.0);
        rig.ready(a, 0.0);
        assert_eq!(rig.decide("exclusive-lru"), [evict(1), start(first, 0)]);
        assert_eq!(rig.decide("exclusive-lru:models=2"), [start(first, 0)]);
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut rig = rig();
        let sources = ["a", "b", "c"].map(|name| rig.stream(name, Some(90.0), &[Some(4.0)]));
        for (model, used) in [(0, Some(ms(7.0))), (1, Some(ms(3.0))), (2, None)] {
            rig.state.memory.resident[ModelId(model)][ProcessorId(0)] = used;
        }
        let stage = rig.ready(sources[2], 8.0);
        assert_eq!(rig.decide("exclusive-lru:models=2"), [evict(1), start(stage, 0)]);
        assert_eq!(rig.decide("exclusive-lru"), [evict(1), evict(0), start(stage, 0)]);
    }

    #[test]
    fn a_model_in_use_stays_and_the_first_in_line_blocks_the_rest() {
        let mut rig = rig();
        rig.system.platform.processors[ProcessorId(0)].slots = 2;
        let a = rig.stream("a", Some(90.0), &[Some(4.0)]);
        let b = rig.stream("b", Some(90.0), &[Some(4.0)]);
        rig.running(a, 0, 0.0);
        rig.ready(b, 0.0);
        rig.ready(a, 0.0);
        assert_eq!(rig.decide("exclusive-lru"), []);
    }

    #[test]
    fn other_processors_are_not_limited_unless_asked_for() {
        let mut rig = rig();
        rig.system.platform.processors[ProcessorId(0)].kind = ProcessorKind::Gpu;
        let a = rig.stream("a", Some(90.0), &[Some(4.0)]);
        rig.stream("b", Some(90.0), &[Some(4.0)]);
        let stage = rig.ready(a, 0.0);
        assert_eq!(rig.decide("exclusive-lru"), [start(stage, 0)]);
        assert_eq!(rig.decide("exclusive-lru:all=true"), [evict(1), start(stage, 0)]);
    }
}
