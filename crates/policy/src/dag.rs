//! Plans for one task graph on processors of different speed, made in advance by list scheduling. For the policies that carry out
//! such plans.
//!
//! Times and ranks are in nanoseconds. Ranks are compared after rounding, so that equal ones do not differ by the way they were summed.

use onbeat_core::id::{Id, ProcessorId, SourceId};
use onbeat_core::system::{Node, System};

/// Tasks, what each costs where, and what must go before what.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// How many tasks each processor can run side by side.
    pub(crate) slots: Vec<u32>,
    /// Cost by task and processor [ns]; infinite where it cannot run.
    pub(crate) costs: Vec<Vec<f64>>,
    /// From lower to higher tasks.
    pub(crate) edges: Vec<Edge>,
}

/// A dependency.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Time to hand over, by the processors of `from` (row) and `to` [ns].
    pub(crate) handover: Vec<Vec<f64>>,
    /// Its mean over all pairs of different processors that can run the two tasks [ns].
    pub(crate) mean: f64,
}

/// Where a task runs, and when [ns].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) processor: usize,
    pub(crate) start: f64,
    pub(crate) finish: f64,
}

impl Graph {
    /// The chain of a source, with expected sizes; every stage once, whatever the probability and fan-out of the edges to it.
    pub(crate) fn of_source(system: &System, source: SourceId) -> Self {
        let first = system.sources[source].nodes.start as usize;
        let tools = system.nodes_of(source).filter(|&node| system.nodes[node].tool.is_some()).count() as u32;
        let nodes = || system.nodes_of(source).map(|node| &system.nodes[node]);
        let cost = |node: &Node| {
            let on = |cost: &Option<onbeat_core::cost::Cost>| {
                cost.as_ref().map_or(f64::INFINITY, |c| c.total_ns(node.expected))
            };
            // Tools run beside everything, in a place of their own.
            let tool = if node.tool.is_some() { node.best.as_f64() } else { f64::INFINITY };
            node.costs.iter().map(on).chain((tools > 0).then_some(tool)).collect()
        };
        let edges = nodes().enumerate().flat_map(|(from, node)| {
            node.after.iter().map(move |edge| Edge {
                from,
                to: edge.to.index() - first,
                handover: handover_ns(system, node, tools > 0),
                mean: mean_handover_ns(system, node, &system.nodes[edge.to]),
            })
        });
        Self {
            slots: system.platform.processors.iter().map(|p| p.slots).chain((tools > 0).then_some(tools)).collect(),
            costs: nodes().map(cost).collect(),
            edges: edges.collect(),
        }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.costs.len()
    }

    /// Processors that can run a task.
    pub(crate) fn able(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots.len()).filter(move |&p| self.costs[task][p].is_finite())
    }

    /// Mean cost of each task over the processors that can run it [ns].
    pub(crate) fn means(&self) -> Vec<f64> {
        (0..self.tasks()).map(|task| mean(self.able(task).map(|p| self.costs[task][p]))).collect()
    }

    /// Edges with their mean costs.
    pub(crate) fn mean_edges(&self) -> Vec<(usize, usize, f64)> {
        self.edges.iter().map(|edge| (edge.from, edge.to, edge.mean)).collect()
    }

    pub(crate) fn edges_into(&self, task: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == task)
    }

    pub(crate) fn edges_from(&self, task: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == task)
    }
}

/// Mean; 0 of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Upward rank of each task: its mean cost and the longest path to an exit task after it, with mean communication costs (equation 6 of
/// Topcuoglu et al.). Edges (from, to, mean cost) lead to tasks with larger numbers.
pub(crate) fn upward_ranks(mean_costs: &[f64], edges: &[(usize, usize, f64)]) -> Vec<f64> {
    let mut ranks = mean_costs.to_vec();
    for task in (0..ranks.len()).rev() {
        let paths = edges.iter().filter(|&&(from, _, _)| from == task).map(|&(_, to, cost)| cost + ranks[to]);
        ranks[task] += paths.fold(0.0, f64::max);
    }
    ranks
}

/// Downward rank of each task: the longest path from an entry task to it, without its own cost (equation 8).
pub(crate) fn downward_ranks(mean_costs: &[f64], edges: &[(usize, usize, f64)]) -> Vec<f64> {
    let mut ranks = vec![0.0_f64; mean_costs.len()];
    for task in 0..ranks.len() {
        let paths = edges.iter().filter(|&&(_, to, _)| to == task);
        ranks[task] = paths.map(|&(from, _, cost)| ranks[from] + mean_costs[from] + cost).fold(0.0, f64::max);
    }
    ranks
}

/// Tasks by falling rank; ties: the lower task.
pub(crate) fn by_rank(ranks: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by(|&a, &b| ranks[b].round().total_cmp(&ranks[a].round()));
    order
}

/// Takes tasks off one by one: of those whose predecessors are all gone, the one with the highest rank (ties: the lowest).
pub(crate) fn by_rank_of_ready(graph: &Graph, ranks: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    let gone = |order: &[usize], task: usize| order.contains(&task);
    while order.len() < graph.tasks() {
        let ready = (0..graph.tasks())
            .filter(|&task| !gone(&order, task) && graph.edges_into(task).all(|edge| gone(&order, edge.from)));
        let best = ready.reduce(|best, task| if ranks[task].round() > ranks[best].round() { task } else { best });
        order.push(best.expect("edges lead to higher tasks, so there is no cycle"));
    }
    order
}

/// A plan in the making.
#[derive(Clone, Debug)]
pub(crate) struct Draft<'a> {
    graph: &'a Graph,
    /// What each slot of each processor does, in order of time: start and finish.
    busy: Vec<Vec<Vec<(f64, f64)>>>,
    spans: Vec<Option<Span>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let busy = graph.slots.iter().map(|&slots| vec![Vec::new(); slots.max(1) as usize]).collect();
        Self { graph, busy, spans: vec![None; graph.tasks()] }
    }

    /// When a task could be done on a processor, in the first gap that holds it after its inputs have come (equations 3 and 4, with
    /// insertion). Only predecessors that are planned count.
    pub(crate) fn earliest(&self, task: usize, processor: usize) -> Span {
        self.earliest_in_slot(task, processor).1
    }

    fn earliest_in_slot(&self, task: usize, processor: usize) -> (usize, Span) {
        let cost = self.graph.costs[task][processor];
        let mut ready = 0.0_f64;
        for edge in self.graph.edges_into(task) {
            if let Some(before) = self.spans[edge.from] {
                ready = ready.max(before.finish + edge.handover[before.processor][processor]);
            }
        }
        let starts = self.busy[processor].iter().enumerate().map(|(slot, spans)| {
            let mut start = ready;
            for &(from, to) in spans {
                if start + cost <= from {
                    break;
                }
                start = start.max(to);
            }
            (slot, start)
        });
        let (slot, start) = starts.min_by(|a, b| a.1.total_cmp(&b.1)).expect("every processor has a slot");
        (slot, Span { processor, start, finish: start + cost })
    }

    /// Puts a task where it is done first on a processor.
    pub(crate) fn put(&mut self, task: usize, processor: usize) -> Span {
        let (slot, span) = self.earliest_in_slot(task, processor);
        let spans = &mut self.busy[processor][slot];
        let at = spans.partition_point(|&(start, finish)| (start, finish) <= (span.start, span.finish));
        spans.insert(at, (span.start, span.finish));
        self.spans[task] = Some(span);
        span
    }

    /// Of the processors that can run a task the one for which `time` is least; ties: the first.
    pub(crate) fn least(&self, task: usize, time: impl Fn(&Self, Span) -> f64) -> usize {
        let able = self.graph.able(task).map(|p| (time(self, self.earliest(task, p)), p));
        let least = able.min_by(|a, b| a.0.total_cmp(&b.0));
        least.expect("every stage can run somewhere").1
    }

    /// Puts a task where it is done first of all.
    pub(crate) fn put_first(&mut self, task: usize) -> Span {
        let processor = self.least(task, |_, span| span.finish);
        self.put(task, processor)
    }

    /// The whole plan.
    pub(crate) fn finish(self) -> Vec<Span> {
        self.spans.into_iter().map(|span| span.expect("every task was put somewhere")).collect()
    }
}

/// Mean time of handing a stage's output over, over all pairs of different processors that can run the two stages; 0 if there is
/// none [ns].
pub(crate) fn mean_handover_ns(system: &System, from: &Node, to: &Node) -> f64 {
    let able = |node: &Node, p: ProcessorId| node.costs[p].is_some();
    let pairs = system.platform.processors.ids().filter(|&a| able(from, a)).flat_map(|a| {
        let others = system.platform.processors.ids().filter(move |&b| b != a && able(to, b));
        others.map(move |b| system.platform.links[a][b].time(from.output_bytes).as_f64())
    });
    mean(pairs)
}

/// Time of handing a stage's output over, by processors [ns].
fn handover_ns(system: &System, from: &Node, tools: bool) -> Vec<Vec<f64>> {
    let processors = || system.platform.processors.ids();
    let time = |a: ProcessorId, b: ProcessorId| {
        if a == b { 0.0 } else { system.platform.links[a][b].time(from.output_bytes).as_f64() }
    };
    // To a tool and back, nothing is handed over.
    let extra = tools.then_some(0.0);
    let rows = processors().map(|a| processors().map(|b| time(a, b)).chain(extra).collect());
    rows.chain(tools.then(|| vec![0.0; processors().len() + 1])).collect()
}

#[cfg(test)]
pub(crate) mod examples {
    //! Task graphs from papers, three processors each, costs in milliseconds.

    use super::{Edge, Graph, Span};

    /// Topcuoglu, Hariri and Wu 2002, figure 2 and table 1.
    pub(crate) fn heft() -> Graph {
        graph(
            &[
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
            ],
            &[
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
            ],
        )
    }

    /// Arabnejad and Barbosa 2014, figure 1.
    pub(crate) fn peft() -> Graph {
        graph(
            &[
                [22, 21, 36],
                [22, 18, 18],
                [32, 27, 43],
                [7, 10, 4],
                [29, 27, 35],
                [26, 17, 24],
                [14, 25, 30],
                [29, 23, 36],
                [15, 21, 8],
                [13, 16, 33],
            ],
            &[
                (1, 2, 17),
                (1, 3, 31),
                (1, 4, 29),
                (1, 5, 13),
                (1, 6, 7),
                (2, 8, 3),
                (2, 9, 30),
                (3, 7, 16),
                (4, 8, 11),
                (4, 9, 7),
                (5, 9, 57),
                (6, 8, 5),
                (7, 10, 9),
                (8, 10, 42),
                (9, 10, 7),
            ],
        )
    }

    fn graph(costs: &[[u32; 3]], edges: &[(usize, usize, u32)]) -> Graph {
        let ns = |ms: u32| f64::from(ms) * 1e6;
        let edges = edges.iter().map(|&(from, to, cost)| {
            let handover = (0..3).map(|a| (0..3).map(|b| if a == b { 0.0 } else { ns(cost) }).collect()).collect();
            Edge { from: from - 1, to: to - 1, handover, mean: ns(cost) }
        });
        Graph { slots: vec![1; 3], costs: costs.iter().map(|on| on.map(ns).to_vec()).collect(), edges: edges.collect() }
    }

    /// When all is done [ms], after checking that the plan is possible.
    pub(crate) fn makespan(graph: &Graph, plan: &[Span]) -> f64 {
        for edge in &graph.edges {
            let (from, to) = (plan[edge.from], plan[edge.to]);
            let ready = from.finish + edge.handover[from.processor][to.processor];
            assert!(to.start >= ready, "{} starts before its input from {} has come", edge.to, edge.from);
        }
        for (task, a) in plan.iter().enumerate() {
            assert_eq!(a.finish, a.start + graph.costs[task][a.processor]);
            let overlapping =
                plan.iter().filter(|b| b.processor == a.processor && b.start <= a.start && a.start < b.finish);
            assert!(overlapping.count() <= graph.slots[a.processor] as usize, "task {task} overlaps");
        }
        plan.iter().map(|span| span.finish).fold(0.0, f64::max) / 1e6
    }

    /// Processor (from 1) and start [ms] of each task.
    pub(crate) fn table(plan: &[Span]) -> Vec<(usize, f64)> {
        plan.iter().map(|span| (span.processor + 1, span.start / 1e6)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::examples::heft;
    use super::{Draft, Graph, downward_ranks, upward_ranks};

    /// Table 1 and figure 3 of the paper: priorities of CPoP are the sums of both ranks.
    #[test]
    fn ranks_of_the_papers_ten_tasks() {
        let graph = heft();
        let up = upward_ranks(&graph.means(), &graph.mean_edges());
        let published = [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667];
        for (task, (rank, published)) in up.iter().zip(published).enumerate() {
            assert!((rank / 1e6 - published).abs() < 0.001, "task {}: {rank}, published {published}", task + 1);
        }
        let down = downward_ranks(&graph.means(), &graph.mean_edges());
        let published = [0.0, 31.0, 25.0, 22.0, 24.0, 27.0, 62.333, 66.667, 63.667, 93.333];
        for (task, (rank, published)) in down.iter().zip(published).enumerate() {
            assert!((rank / 1e6 - published).abs() < 0.001, "task {}: {rank}, published {published}", task + 1);
        }
    }

    #[test]
    fn a_task_goes_into_the_first_gap_that_holds_it_in_any_slot() {
        let graph =
            Graph { slots: vec![1], costs: vec![vec![4.0], vec![2.0], vec![3.0], vec![1.0]], edges: Vec::new() };
        let mut draft = Draft::new(&graph);
        assert_eq!(draft.put(0, 0).start, 0.0);
        draft.busy[0][0].push((6.0, 9.0));
        assert_eq!(draft.earliest(2, 0).start, 9.0, "3 do not fit between 4 and 6");
        assert_eq!(draft.put(1, 0).start, 4.0, "2 do");
        assert_eq!(draft.put(3, 0).start, 9.0);
        let two = Graph { slots: vec![2], ..graph };
        let mut draft = Draft::new(&two);
        assert_eq!([0, 1, 2, 3].map(|task| draft.put(task, 0).start), [0.0, 0.0, 2.0, 4.0]);
    }
}
