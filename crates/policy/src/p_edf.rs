//! `p-edf`: every stage is assigned to one processor before the run; each processor serves its own stages by due time.

use onbeat_core::id::{IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::{Edge, System};

use crate::dispatch::{Dispatch, Order};
use crate::edf::{PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "p-edf",
    summary: "Partitioned: stages assigned to processors by first fit of utilisation, earliest due first on each",
    group: "real-time",
    parameters: &[PREEMPTIVE],
    reference: "Dhall and Liu, On a Real-Time Scheduling Problem, Operations Research 26(1), 1978 (first fit); Liu and Layland 1973 (EDF)",
    build,
};

/// Partitioned EDF.
#[derive(Clone, Debug)]
struct PartitionedEdf {
    order: Partition,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = Partition::new(system, parameters.flag("preemptive")?);
    Ok(Box::new(PartitionedEdf { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for PartitionedEdf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }
}

/// By due time, each on its own processor.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    processors: IdVec<NodeId, ProcessorId>,
    preemptive: bool,
}

impl Partition {
    /// First fit of utilisation.
    pub(crate) fn new(system: &System, preemptive: bool) -> Self {
        Self { processors: assign(system), preemptive }
    }

    /// Whether a stage is assigned to a processor.
    pub(crate) fn is_on(&self, node: NodeId, processor: ProcessorId) -> bool {
        self.processors[node] == processor
    }
}

impl Order for Partition {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        Some(self.processors[view.stage(stage).node]).filter(|&p| plan.fits(view, stage, p))
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.processors[view.stage(stage).node] == processor
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

/// Assigns every stage to a processor: first fit in decreasing order of utilisation, each stage trying its fastest processor first.
/// What fits nowhere goes where the utilisation per slot is lowest afterwards.
fn assign(system: &System) -> IdVec<NodeId, ProcessorId> {
    let rates = rates_per_ns(system);
    let mut nodes: Vec<(f64, NodeId)> =
        system.nodes.enumerate().map(|(id, node)| (rates[id] * node.best.as_f64(), id)).collect();
    nodes.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut assigned: IdVec<NodeId, ProcessorId> = system.nodes.iter().map(|node| node.fastest).collect();
    let mut load: IdVec<ProcessorId, f64> = system.platform.processors.iter().map(|_| 0.0).collect();
    for (_, id) in nodes {
        let node = &system.nodes[id];
        let mut places: Vec<(f64, ProcessorId)> = node
            .costs
            .enumerate()
            .filter_map(|(p, cost)| Some((rates[id] * cost.as_ref()?.total_ns(node.expected), p)))
            .collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let relative = |&(u, p): &(f64, ProcessorId)| (load[p] + u) / f64::from(system.platform.processors[p].slots);
        // A set of tasks that exactly fills a processor is not turned away by a rounding error.
        let fitting = places.iter().find(|place| relative(place) <= 1.0 + 1e-9);
        let least = || places.iter().min_by(|a, b| relative(a).total_cmp(&relative(b)).then(a.1.cmp(&b.1)));
        let &(u, processor) = fitting.or_else(least).expect("every stage can run somewhere");
        load[processor] += u;
        assigned[id] = processor;
    }
    assigned
}

/// Expected instances of every stage per nanosecond while its source is active; 0 where the source has no rate.
///
/// Of several edges into a stage the one that is taken most often counts: an upper bound for stages that need them all.
fn rates_per_ns(system: &System) -> IdVec<NodeId, f64> {
    let mut rates: IdVec<NodeId, f64> = system.nodes.iter().map(|_| 0.0).collect();
    for (id, node) in system.nodes.enumerate() {
        if node.before.is_empty() {
            let period = system.sources[node.source].period();
            rates[id] = period.map_or(0.0, |period| 1.0 / period.as_f64().max(1.0));
        }
        // Edges lead to later stages only, so this rate is complete.
        for edge in &node.after {
            let rate = rates[id] * edge.probability * instances(edge, node.expected.output);
            rates[edge.to] = rates[edge.to].max(rate);
        }
    }
    rates
}

/// Expected instances that follow along an edge that is taken.
fn instances(edge: &Edge, output_tokens: u32) -> f64 {
    match (&edge.fan_out, edge.per_tokens) {
        (Some(fan_out), _) => fan_out.mean(),
        (None, Some(tokens)) => f64::from(output_tokens.div_ceil(tokens.max(1)).max(1)),
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{NodeId, ProcessorId};
    use onbeat_core::spec::Preemption;

    use super::assign;
    use crate::test_rig::{Rig, preempt, start};

    fn assigned(rig: &Rig) -> Vec<u32> {
        assign(&rig.system).iter().map(|&ProcessorId(p)| p).collect()
    }

    #[test]
    fn first_fit_in_decreasing_order_of_utilisation() {
        // Deadline = period. Utilisations 0.5, 0.6, 0.4, 0.3 on two identical processors: 0.6 -> a, 0.5 -> b, 0.4 -> a (1.0),
        // 0.3 -> b (0.8).
        let mut rig = Rig::new(&[("a", Preemption::Anytime), ("b", Preemption::Anytime)]);
        for (name, latency) in [("w", 5.0), ("x", 6.0), ("y", 4.0), ("z", 3.0)] {
            rig.stream(name, Some(10.0), &[Some(latency), Some(latency)]);
        }
        assert_eq!(assigned(&rig), [1, 0, 0, 1]);
    }

    #[test]
    fn what_does_not_fit_goes_where_least_is_asked() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime), ("b", Preemption::Anytime)]);
        for (name, latency) in [("x", 8.0), ("y", 7.0), ("z", 6.0)] {
            rig.stream(name, Some(10.0), &[Some(latency), Some(latency)]);
        }
        assert_eq!(assigned(&rig), [0, 1, 1], "0.8 + 0.6 against 0.7 + 0.6");
        rig.system.platform.processors[ProcessorId(0)].slots = 2;
        assert_eq!(assigned(&rig), [0, 0, 1], "0.8 + 0.7 fit on two slots, 2.1 do not");
    }

    #[test]
    fn a_stage_tries_its_fastest_processor_first() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime), ("npu", Preemption::Anytime)]);
        rig.stream("camera", Some(10.0), &[Some(6.0), Some(2.0)]);
        assert_eq!(assigned(&rig), [1]);
    }

    #[test]
    fn serves_its_own_processor_only_and_preempts_there() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime), ("b", Preemption::Anytime)]);
        let slow = rig.stream("slow", Some(100.0), &[Some(60.0), Some(60.0)]);
        let fast = rig.stream("fast", Some(10.0), &[Some(3.0), Some(3.0)]);
        assert_eq!(assign(&rig.system)[NodeId(1)], ProcessorId(0), "0.6 + 0.3 fit on the first");
        let running = rig.running(slow, 0, 0.0);
        let urgent = rig.ready(fast, 1.0);
        assert_eq!(rig.decide("p-edf"), [preempt(running)], "though the second processor is idle");
        rig.stop(running);
        assert_eq!(rig.decide("p-edf"), [start(urgent, 0)]);
    }
}
