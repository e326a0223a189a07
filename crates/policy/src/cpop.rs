//! `cpop`: critical path on a processor: the longest path of each chain is planned for one processor.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::dag::{Draft, Graph, Span, by_rank_of_ready, downward_ranks, upward_ranks};
use crate::parameters::Parameters;
use crate::planned::{PARAMETERS, Planned};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "cpop",
    summary: "Critical path on a processor: a plan that keeps each chain's longest path on the one processor that is fastest for it",
    group: "DAG",
    parameters: PARAMETERS,
    reference: "Topcuoglu, Hariri and Wu, Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous Computing (CPoP), IEEE TPDS 13(3), 2002",
    build,
};

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Planned::build(parameters, system, plan)
}

/// Ready tasks by falling sum of both ranks; those on the critical path on its processor, all others where they are done first.
fn plan(graph: &Graph) -> Vec<Span> {
    let (means, edges) = (graph.means(), graph.mean_edges());
    let ranks = upward_ranks(&means, &edges).into_iter().zip(downward_ranks(&means, &edges));
    let priorities: Vec<f64> = ranks.map(|(up, down)| up + down).collect();
    let path = critical_path(graph, &priorities);
    let processor = path_processor(graph, &path);
    let mut draft = Draft::new(graph);
    for task in by_rank_of_ready(graph, &priorities) {
        if path.contains(&task) && graph.costs[task][processor].is_finite() {
            draft.put(task, processor);
        } else {
            draft.put_first(task);
        }
    }
    draft.finish()
}

/// From the entry task with the highest priority on, the successor whose priority is the same (ties: the lowest): every task on the
/// longest path has its length as its priority.
fn critical_path(graph: &Graph, priorities: &[f64]) -> Vec<usize> {
    let entries = (0..graph.tasks()).filter(|&task| graph.edges_into(task).next().is_none());
    let longest =
        entries.reduce(|best, task| if priorities[task].round() > priorities[best].round() { task } else { best });
    let mut path: Vec<usize> = longest.into_iter().collect();
    while let Some(&last) = path.last() {
        let same = |&task: &usize| (priorities[task] - priorities[path[0]]).abs() < 1.0;
        let Some(next) = graph.edges_from(last).map(|edge| edge.to).filter(same).min() else { break };
        path.push(next);
    }
    path
}

/// The processor on which the path takes least; where none can run all of it, the one of those that can run most of its tasks.
fn path_processor(graph: &Graph, path: &[usize]) -> usize {
    let load = |p: usize| {
        let costs = path.iter().map(|&task| graph.costs[task][p]);
        let able = costs.clone().filter(|cost| cost.is_finite()).count();
        (path.len() - able, costs.filter(|cost| cost.is_finite()).sum::<f64>())
    };
    let least = (0..graph.slots.len()).map(|p| (load(p), p)).min_by(|a, b| {
        let ((unable_a, sum_a), (unable_b, sum_b)) = (a.0, b.0);
        unable_a.cmp(&unable_b).then(sum_a.total_cmp(&sum_b))
    });
    least.expect("a platform has a processor").1
}

#[cfg(test)]
mod tests {
    use super::{critical_path, path_processor, plan};
    use crate::dag::examples::{heft, makespan, peft};
    use crate::dag::{downward_ranks, upward_ranks};

    /// Section 5.2 and figure 4(b) of the paper: the path 1, 2, 9, 10 on the second processor (54, where the first would take 66 and the
    /// third 63).
    #[test]
    fn published_path_and_makespan() {
        let graph = heft();
        let (means, edges) = (graph.means(), graph.mean_edges());
        let sum = upward_ranks(&means, &edges).into_iter().zip(downward_ranks(&means, &edges)).map(|(a, b)| a + b);
        let path = critical_path(&graph, &sum.collect::<Vec<_>>());
        assert_eq!(path, [0, 1, 8, 9]);
        assert_eq!(path_processor(&graph, &path), 1);
        assert_eq!(makespan(&graph, &plan(&graph)), 86.0);
    }

    #[test]
    fn a_possible_plan_for_another_graph() {
        // Not published; longer than HEFT's 133.
        assert_eq!(makespan(&peft(), &plan(&peft())), 167.0);
    }

    #[test]
    fn a_path_that_no_processor_can_run_alone_goes_where_most_of_it_can() {
        let mut graph = heft();
        for task in [0, 1] {
            graph.costs[task][1] = f64::INFINITY;
        }
        graph.costs[8] = vec![f64::INFINITY, 12e6, f64::INFINITY];
        assert_eq!(path_processor(&graph, &[0, 1, 8, 9]), 2, "three of four on the first and the third, 43 against 48");
        makespan(&graph, &plan(&graph));
    }
}
