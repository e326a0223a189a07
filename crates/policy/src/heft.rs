//! `heft`: the ready stage with the most work left on its chain goes first, where it finishes first.

use onbeat_core::id::{Id, IdVec, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::{Node, System};

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

/// Upward rank of each task: its mean cost and the longest path to an exit task after it, with mean communication costs (equation 6 of
/// the paper). Edges (from, to, mean cost) lead to tasks with larger numbers.
fn upward_ranks(mean_costs: &[f64], edges: &[(usize, usize, f64)]) -> Vec<f64> {
    let mut ranks = mean_costs.to_vec();
    for task in (0..ranks.len()).rev() {
        let paths = edges.iter().filter(|&&(from, _, _)| from == task).map(|&(_, to, cost)| cost + ranks[to]);
        ranks[task] += paths.fold(0.0, f64::max);
    }
    ranks
}

/// Mean nominal latency over the processors that can run the stage, for expected sizes [ns].
fn mean_cost_ns(node: &Node) -> f64 {
    let costs = node.costs.iter().flatten().map(|cost| cost.total_ns(node.expected));
    let (sum, count) = costs.fold((0.0, 0.0), |(sum, count), cost| (sum + cost, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Mean time of handing a stage's output over, over all pairs of different processors that can run the two stages; 0 if there is
/// none [ns].
fn mean_handover_ns(system: &System, from: &Node, to: &Node) -> f64 {
    let able = |node: &Node, p: ProcessorId| node.costs[p].is_some();
    let (mut sum, mut count) = (0.0, 0.0);
    for a in system.platform.processors.ids().filter(|&a| able(from, a)) {
        for b in system.platform.processors.ids().filter(|&b| b != a && able(to, b)) {
            sum += system.platform.links[a][b].time(from.output_bytes).as_f64();
            count += 1.0;
        }
    }
    if count > 0.0 { sum / count } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::NodeId;
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;
    use onbeat_core::units::Nanos;

    use super::{paths_after, upward_ranks};
    use crate::test_rig::{Rig, ms, start};

    /// Figure 2 and table 1 of the paper: ten tasks on three processors.
    #[test]
    fn ranks_of_the_papers_ten_tasks() {
        let costs = [
            [14, 16, 9],
            [13, 19, 18],
            [11, 13, 19],
            [13, 8, 17],
            [12, 13, 10],
            [13, 16, 9],
            [7, 15, 11],
            [5, 11, 14],
            [18, 12, 20],
            [21, 7, 16],
        ];
        let mean = costs.map(|on| f64::from(on.iter().sum::<i32>()) / 3.0);
        let edges = [
            (1, 2, 18),
            (1, 3, 12),
            (1, 4, 9),
            (1, 5, 11),
            (1, 6, 14),
            (2, 8, 19),
            (2, 9, 16),
            (3, 7, 23),
            (4, 8, 27),
            (4, 9, 23),
            (5, 9, 13),
            (6, 8, 15),
            (7, 10, 17),
            (8, 10, 11),
            (9, 10, 13),
        ]
        .map(|(from, to, cost)| (from - 1, to - 1, f64::from(cost)));
        let published = [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667];
        for (task, (rank, published)) in upward_ranks(&mean, &edges).into_iter().zip(published).enumerate() {
            assert!((rank - published).abs() < 0.001, "task {}: {rank}, published {published}", task + 1);
        }
    }

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
