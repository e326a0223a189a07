//! Carries out plans that were made in advance: for each chain where every stage runs and when it starts, counted from the job's
//! release. Times will differ from the plan, so a rule says what happens then.

use onbeat_core::id::{Id, IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View, refusal_bit};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dag::{Graph, Span};
use crate::dispatch::Alarm;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError};
use crate::slots::Slots;

/// Parameters of all policies that carry out plans.
pub(crate) const PARAMETERS: &[ParameterInfo] = &[
    ParameterInfo {
        name: "noise",
        default: "order",
        meaning: "what is kept of the plan when times differ from it: `order` (processors, and the order of a job's stages on each), `processor` (processors only) or `move` (like `processor`, but a late stage goes where it finishes first)",
    },
    ParameterInfo {
        name: "late_ms",
        default: "0",
        meaning: "with `noise=move`: a stage that has not started so long after its planned start is late [ms], 0 to 3600000",
    },
];

/// What is kept of the plan when times differ from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Processors, and the order of a job's stages on each.
    Order,
    /// Processors.
    Processor,
    /// Processors, except of stages that are late by more than this.
    UntilLate(Nanos),
}

/// A policy that carries out plans.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    keep: Keep,
    plan: IdVec<NodeId, Entry>,
    slots: Slots,
    /// Ready stages by planned start, and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// For each job, as bits by stage of its chain, what has not started and may still come; by job.
    to_come: Vec<u64>,
    alarm: Alarm,
}

/// A stage's place in the plan.
#[derive(Clone, Copy, Debug)]
struct Entry {
    processor: ProcessorId,
    /// Planned start after the release.
    start: Nanos,
    /// Stages of the chain that are planned before it on its processor, as bits.
    before: u64,
    /// Its own bit; none beyond the 64th stage.
    bit: u64,
    /// Stages that may follow it, as bits.
    after: u64,
}

impl Planned {
    /// Makes a plan for the chain of every source, alone and on idle processors.
    pub(crate) fn build(
        parameters: &Parameters<'_>,
        system: &System,
        algorithm: fn(&Graph) -> Vec<Span>,
    ) -> Result<Box<dyn Policy>, PolicyError> {
        let keep = match parameters.text("noise") {
            "order" => Keep::Order,
            "processor" => Keep::Processor,
            "move" => Keep::UntilLate(parameters.milliseconds("late_ms")?),
            other => {
                return Err(PolicyError::BadValue {
                    policy: parameters.policy(),
                    parameter: "noise",
                    value: other.to_owned(),
                    allowed: "order, processor or move",
                });
            }
        };
        parameters.milliseconds("late_ms")?;
        let mut plan = IdVec::new();
        for source in system.sources.ids() {
            let graph = Graph::of_source(system, source);
            for entry in entries(&graph, &algorithm(&graph)) {
                plan.push(entry);
            }
        }
        Ok(Box::new(Self {
            keep,
            plan,
            slots: Slots::default(),
            queue: Vec::new(),
            to_come: Vec::new(),
            alarm: Alarm::default(),
        }))
    }

    /// Finds out what of each job has not started and may still come.
    fn look_ahead(&mut self, view: &View<'_>) {
        self.to_come.fill(0);
        for (_, live) in view.state.stages.iter() {
            let job = live.job.index();
            if job >= self.to_come.len() {
                self.to_come.resize(job + 1, 0);
            }
            let entry = &self.plan[live.node];
            self.to_come[job] |= entry.after | if live.running { 0 } else { entry.bit };
        }
    }

    /// The processor that a stage is to run on, and whether it may run on others.
    fn target(&self, view: &View<'_>, stage: StageId) -> (ProcessorId, bool) {
        let entry = &self.plan[view.stage(stage).node];
        let failed = view.state.failed & refusal_bit(entry.processor) != 0;
        let late = match self.keep {
            Keep::UntilLate(late) => self.planned_start(view, stage).saturating_add(late) <= view.now(),
            Keep::Order | Keep::Processor => false,
        };
        (entry.processor, late || failed)
    }

    fn planned_start(&self, view: &View<'_>, stage: StageId) -> Nanos {
        view.job(stage).release.saturating_add(self.plan[view.stage(stage).node].start)
    }

    /// Whether the plan has something else of the same job before a stage on its processor that has not started.
    fn waits_for_others(&self, view: &View<'_>, stage: StageId) -> bool {
        let live = view.stage(stage);
        self.keep == Keep::Order && self.to_come[live.job.index()] & self.plan[live.node].before != 0
    }
}

impl Policy for Planned {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.slots.begin(view);
        if self.keep == Keep::Order {
            self.look_ahead(view);
        }
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        queue.extend(
            view.ready().iter().map(|&stage| (self.planned_start(view, stage), view.stage(stage).serial, stage)),
        );
        queue.sort_unstable();
        let mut next_late = Nanos::MAX;
        for &(planned, _, stage) in &queue {
            if self.waits_for_others(view, stage) {
                continue;
            }
            let (processor, free) = self.target(view, stage);
            let place = if free { self.slots.best(view, stage) } else { self.slots.on(view, stage, processor) };
            // A stage that memory has refused waits until some is freed.
            let Some(place) = place else { continue };
            if let Keep::UntilLate(late) = self.keep
                && !free
                && !place.idle()
            {
                next_late = next_late.min(planned.saturating_add(late));
            }
            self.slots.take(view, stage, place, |p| free || p == processor, actions);
        }
        self.queue = queue;
        if next_late != Nanos::MAX {
            self.alarm.set(view.now(), next_late, actions);
        }
    }
}

/// The stages' places, in the order of the chain.
fn entries(graph: &Graph, spans: &[Span]) -> Vec<Entry> {
    let bit = |task: usize| 1_u64.checked_shl(task as u32).unwrap_or(0);
    let mut after = vec![0_u64; spans.len()];
    for task in (0..spans.len()).rev() {
        after[task] = graph.edges_from(task).fold(0, |all, edge| all | bit(edge.to) | after[edge.to]);
    }
    let entry = |(task, span): (usize, &Span)| {
        let earlier = |&other: &usize| {
            spans[other].processor == span.processor
                && (spans[other].start, other) < (span.start, task)
                // What follows the stage cannot go before it, however short it is.
                && after[task] & bit(other) == 0
        };
        Entry {
            processor: ProcessorId::new(span.processor),
            start: Nanos::from_ns_f64(span.start),
            before: (0..spans.len()).filter(earlier).fold(0, |all, other| all | bit(other)),
            bit: bit(task),
            after: after[task],
        }
    };
    spans.iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{Id, NodeId, ProcessorId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;

    use crate::test_rig::{Rig, ms, start};

    /// One chain: `a` (2 ms on the NPU) before `b` (1 ms on the NPU), and `c`, the long one (4 ms on the NPU), which follows nothing.
    /// HEFT's order on the NPU: `c` has rank 4, `a` 3, `b` 1.
    fn rig() -> Rig {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let chain = rig.stream("a", Some(100.0), &[None, Some(2.0)]);
        rig.stream("b", Some(100.0), &[None, Some(1.0)]);
        rig.stream("c", Some(100.0), &[None, Some(4.0)]);
        // Make one source of the three.
        let only = rig.system.sources[chain].clone();
        rig.system.sources = std::iter::once(only).collect();
        rig.system.sources[chain].nodes = 0..3;
        for node in &mut rig.system.nodes {
            node.source = chain;
        }
        rig.system.nodes[NodeId(0)].after.push(Edge {
            to: NodeId(1),
            probability: 1.0,
            fan_out: None,
            per_tokens: None,
        });
        rig.system.nodes[NodeId(1)].before.push(NodeId(0));
        rig
    }

    #[test]
    fn an_idle_processor_waits_for_what_the_plan_has_first() {
        let mut rig = rig();
        let chain = onbeat_core::id::SourceId(0);
        // `c` is not ready yet (its input is late); `a` is.
        let a = rig.ready(chain, 0.0);
        let mut c = rig.state.stages[a];
        c.node = NodeId(2);
        c.model = rig.system.nodes[NodeId(2)].model;
        c.serial = 7;
        c.running = true;
        c.processor = Some(ProcessorId(0));
        let c = rig.state.stages.insert(c);
        assert_eq!(rig.decide("heft-plan"), [start(a, 1)], "c runs");
        rig.state.stages[c].running = false;
        assert_eq!(rig.decide("heft-plan"), [], "c is planned first on the NPU, and has not started");
        assert_eq!(rig.decide("heft-plan:noise=processor"), [start(a, 1)]);
    }

    #[test]
    fn a_late_stage_moves_if_the_rule_allows_it() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let s = rig.stream("s", Some(100.0), &[Some(6.0), Some(4.0)]);
        let hog = rig.stream("hog", Some(100.0), &[None, Some(40.0)]);
        rig.running(hog, 1, 0.0);
        let stage = rig.ready(s, 0.0);
        assert_eq!(rig.decide("heft-plan"), []);
        assert_eq!(rig.decide("heft-plan:noise=processor"), []);
        assert_eq!(rig.decide("heft-plan:noise=move"), [start(stage, 0)], "done at 6 there, at 44 here");
        let mut patient = rig.make("heft-plan:noise=move,late_ms=5");
        assert_eq!(rig.decide_with(&mut patient), [Action::Wake { at: ms(5.0) }]);
        rig.state.now = ms(5.0);
        assert_eq!(rig.decide_with(&mut patient), [start(stage, 0)]);
    }

    #[test]
    fn a_failed_processor_is_left() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let s = rig.stream("s", Some(100.0), &[Some(6.0), Some(4.0)]);
        let stage = rig.ready(s, 0.0);
        assert_eq!(rig.decide("heft-plan"), [start(stage, 1)]);
        rig.state.failed = 0b10;
        assert_eq!(rig.decide("heft-plan"), [start(stage, 0)]);
    }

    #[test]
    fn mistakes_are_explained() {
        let rig = Rig::new(&[("npu", Preemption::Never)]);
        for policy in ["heft-plan", "cpop", "peft", "lookahead"] {
            let error = crate::make(&format!("{policy}:noise=none"), &rig.system).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("policy `{policy}`: parameter `noise` cannot be `none`; it takes order, processor or move")
            );
        }
        assert_eq!(ProcessorId::new(1).index(), 1);
    }
}
