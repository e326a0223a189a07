//! `lookahead`: HEFT that looks one step ahead: each stage is planned where its successors will be done first.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::dag::{Draft, Graph, Span, by_rank, upward_ranks};
use crate::parameters::Parameters;
use crate::planned::{PARAMETERS, Planned};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "lookahead",
    summary: "HEFT with lookahead: a plan that puts each stage where the stages right after it will be done first",
    group: "DAG",
    parameters: PARAMETERS,
    reference: "Bittencourt, Sakellariou and Madeira, DAG Scheduling Using a Lookahead Variant of the Heterogeneous Earliest Finish Time Algorithm, PDP 2010",
    build,
};

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Planned::build(parameters, system, plan)
}

/// Tasks by falling upward rank, each on the processor with which the last of its successors is done first; then (also for exit tasks)
/// where the task itself is.
fn plan(graph: &Graph) -> Vec<Span> {
    let ranks = upward_ranks(&graph.means(), &graph.mean_edges());
    let order = by_rank(&ranks);
    let mut draft = Draft::new(graph);
    for &task in &order {
        let tried = graph.able(task).map(|processor| {
            let mut trial = draft.clone();
            let own = trial.put(task, processor).finish;
            let successors = order.iter().filter(|&&next| graph.edges_from(task).any(|edge| edge.to == next));
            let last = successors.map(|&next| trial.put_first(next).finish).fold(0.0, f64::max);
            (if last > 0.0 { last } else { own }, own, processor)
        });
        let best = tried.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let (_, _, processor) = best.expect("every stage can run somewhere");
        draft.put(task, processor);
    }
    draft.finish()
}

#[cfg(test)]
mod tests {
    use super::plan;
    use crate::dag::examples::{heft, makespan, peft};

    /// Figure 3(b) of Arabnejad and Barbosa 2014: 127, between PEFT's 122 and HEFT's 133.
    #[test]
    fn published_makespan() {
        assert_eq!(makespan(&peft(), &plan(&peft())), 127.0);
        // Not published.
        assert_eq!(makespan(&heft(), &plan(&heft())), 76.0);
    }
}
