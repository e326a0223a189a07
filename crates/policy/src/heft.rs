//! `heft`: the ready stage with the most work left on its chain goes first, where it finishes first.

use onbeat_core::id::{Id, IdVec, NodeId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::{Node, System};

use crate::dag::{mean, mean_handover_ns, upward_ranks};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};
use crate::slots::Slots;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "heft",
    summary: "Highest upward rank (longest mean path to the chain's end) first, where it finishes first; busy processors included",
    group: "DAG",
    parameters: &[],
    reference: "Topcuoglu, Hariri and Wu, Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous Computing (HEFT), IEEE TPDS 13(3), 2002",
    build,
};

/// Heterogeneous earliest finish time, decided stage by stage.
#[derive(Clone, Debug)]
struct Heft {
    /// Mean length of the longest path that follows each stage [ns].
    after_ns: IdVec<NodeId, f64>,
    slots: Slots,
    /// Ready stages by falling rank (compared as bits, which order like the rank) and rising serial.
    queue: Vec<(std::cmp::Reverse<u64>, u64, StageId)>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(Heft { after_ns: paths_after(system), slots: Slots::default(), queue: Vec::new() }))
}

impl Policy for Heft {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.slots.begin(view);
        if !view.ready().iter().any(|&stage| self.slots.is_open(view, stage)) {
            return;
        }
        self.queue.clear();
        for &stage in view.ready() {
            let rank = self.slots.mean_rest_ns(view, stage) + self.after_ns[view.stage(stage).node];
            // Floats that are not negative are in the order of their bits.
            self.queue.push((std::cmp::Reverse(rank.max(0.0).to_bits()), view.stage(stage).serial, stage));
        }
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            // A stage that memory has refused everywhere waits until some is freed.
            if let Some(place) = self.slots.best(view, stage) {
                self.slots.take(view, stage, place, |_| true, actions);
            }
        }
    }
}

/// For each stage of each chain the largest sum of mean hand-over and upward rank over the stages that follow [ns].
fn paths_after(system: &System) -> IdVec<NodeId, f64> {
    let mean_ns: Vec<f64> = system.nodes.iter().map(mean_cost_ns).collect();
    let edges = system.nodes.enumerate().flat_map(|(from, node)| {
        let to = node.after.iter().map(move |edge| edge.to);
        to.map(move |to| (from.index(), to.index(), mean_handover_ns(system, node, &system.nodes[to])))
    });
    let ranks = upward_ranks(&mean_ns, &edges.collect::<Vec<_>>());
    ranks.into_iter().zip(mean_ns).map(|(rank, mean)| rank - mean).collect()
}

/// Mean nominal latency over the processors that can run the stage, for expected sizes [ns].
fn mean_cost_ns(node: &Node) -> f64 {
    if node.tool.is_some() {
        return node.best.as_f64();
    }
    mean(node.costs.iter().flatten().map(|cost| cost.total_ns(node.expected)))
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::NodeId;
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;
    use onbeat_core::units::Nanos;

    use super::paths_after;
    use crate::test_rig::{Rig, ms, start};

    fn edge(to: u32) -> Edge {
        Edge { to: NodeId(to), probability: 1.0, fan_out: None, per_tokens: None }
    }

    /// Two processors; `detect` (4 and 8 ms), then `track` (2 and 4 ms), with a hand-over of 1 ms one way and 3 ms the other.
    fn chain() -> Rig {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        rig.stream("detect", Some(100.0), &[Some(4.0), Some(8.0)]);
        rig.stream("track", Some(100.0), &[Some(2.0), Some(4.0)]);
        rig.system.nodes[NodeId(0)].after.push(edge(1));
        let links = &mut rig.system.platform.links;
        links[onbeat_core::id::ProcessorId(0)][onbeat_core::id::ProcessorId(1)].latency = ms(1.0);
        links[onbeat_core::id::ProcessorId(1)][onbeat_core::id::ProcessorId(0)].latency = ms(3.0);
        rig
    }

    #[test]
    fn what_follows_counts_with_mean_costs_and_mean_hand_over() {
        let rig = chain();
        let after = paths_after(&rig.system);
        // Mean hand-over 2 ms, mean cost of `track` 3 ms.
        assert_eq!(Nanos::from_ns_f64(after[NodeId(0)]), ms(5.0));
        assert_eq!(Nanos::from_ns_f64(after[NodeId(1)]), ms(0.0));
    }

    #[test]
    fn the_head_of_a_long_chain_goes_before_a_longer_single_stage() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let single = rig.stream("single", Some(10.0), &[Some(6.0)]);
        let head = rig.stream("head", Some(100.0), &[Some(2.0)]);
        rig.stream("tail", Some(100.0), &[Some(5.0)]);
        let (single, head) = (rig.ready(single, 0.0), rig.ready(head, 0.0));
        assert_eq!(rig.decide("heft"), [start(single, 0)], "ranks 6 and 2");
        rig.system.nodes[NodeId(1)].after.push(edge(2));
        assert_eq!(rig.decide("heft"), [start(head, 0)], "ranks 6 and 2 + 5");
    }

    #[test]
    fn waits_for_a_busy_processor_that_is_worth_it() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let source = rig.stream("s", Some(100.0), &[Some(20.0), Some(5.0)]);
        rig.running(source, 1, 0.0);
        rig.state.now = ms(1.0);
        rig.ready(source, 1.0);
        assert_eq!(rig.decide("heft"), []);
    }
}
