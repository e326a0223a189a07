//! `peft`: predict earliest finish time: a plan by an optimistic table of what follows each task on each processor.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::dag::{Draft, Graph, Span, by_rank_of_ready, mean};
use crate::parameters::Parameters;
use crate::planned::{PARAMETERS, Planned};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "peft",
    summary: "Predicts the earliest finish of the chain: a plan by a table of what must follow each stage on each processor",
    group: "DAG",
    parameters: PARAMETERS,
    reference: "Arabnejad and Barbosa, List Scheduling Algorithm for Heterogeneous Systems by an Optimistic Cost Table, IEEE TPDS 25(3), 2014",
    build,
};

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Planned::build(parameters, system, plan)
}

/// Ready tasks by falling mean of their row of the table, each where its finish plus the table's entry is least.
fn plan(graph: &Graph) -> Vec<Span> {
    let table = optimistic_costs(graph);
    let ranks: Vec<f64> = (0..graph.tasks()).map(|task| mean(graph.able(task).map(|p| table[task][p]))).collect();
    let mut draft = Draft::new(graph);
    for task in by_rank_of_ready(graph, &ranks) {
        let processor = draft.least(task, |_, span| span.finish + table[task][span.processor]);
        draft.put(task, processor);
    }
    draft.finish()
}

/// The optimistic cost table: the longest of the shortest paths from a task's successors to an exit task, if the task runs on a processor
/// and all others have the processors to themselves (equation 5 of the paper), by task and processor [ns].
fn optimistic_costs(graph: &Graph) -> Vec<Vec<f64>> {
    let processors = graph.slots.len();
    let mut table = vec![vec![0.0_f64; processors]; graph.tasks()];
    for task in (0..graph.tasks()).rev() {
        for p in 0..processors {
            let paths = graph.edges_from(task).map(|edge| {
                let via = |q: usize| {
                    let handover = if q == p { 0.0 } else { edge.mean };
                    table[edge.to][q] + graph.costs[edge.to][q] + handover
                };
                graph.able(edge.to).map(via).fold(f64::INFINITY, f64::min)
            });
            table[task][p] = paths.fold(0.0, f64::max);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{optimistic_costs, plan};
    use crate::dag::examples::{heft, makespan, peft, table};

    /// Table 2 of the paper.
    #[test]
    fn the_papers_optimistic_cost_table() {
        let published = [
            [64.0, 68.0, 86.0],
            [42.0, 39.0, 42.0],
            [27.0, 41.0, 43.0],
            [42.0, 39.0, 50.0],
            [28.0, 37.0, 28.0],
            [42.0, 39.0, 44.0],
            [13.0, 16.0, 22.0],
            [13.0, 16.0, 33.0],
            [13.0, 16.0, 20.0],
            [0.0, 0.0, 0.0],
        ];
        let computed = optimistic_costs(&peft());
        for (task, (computed, published)) in computed.iter().zip(published).enumerate() {
            assert_eq!(computed.as_slice(), published.map(|ms| ms * 1e6), "task {}", task + 1);
        }
    }

    /// Figure 3(a) of the paper: 122, where HEFT needs 133.
    #[test]
    fn published_plan() {
        let plan_of_ten = plan(&peft());
        assert_eq!(makespan(&peft(), &plan_of_ten), 122.0);
        let published = [
            (1, 0.0),
            (1, 29.0),
            (1, 51.0),
            (1, 22.0),
            (3, 35.0),
            (2, 29.0),
            (1, 83.0),
            (2, 54.0),
            (3, 81.0),
            (2, 106.0),
        ];
        assert_eq!(table(&plan_of_ten), published);
        // Not published.
        assert_eq!(makespan(&heft(), &plan(&heft())), 85.0);
    }
}
