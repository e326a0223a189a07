//! `heft-plan`: HEFT as published: a plan for each chain, made in advance, and carried out.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::dag::{Draft, Graph, Span, by_rank, upward_ranks};
use crate::parameters::Parameters;
use crate::planned::{PARAMETERS, Planned};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "heft-plan",
    summary: "HEFT's plan for each chain, made in advance and carried out; a rule says what is kept of it when times differ",
    group: "DAG",
    parameters: PARAMETERS,
    reference: "Topcuoglu, Hariri and Wu, Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous Computing (HEFT), IEEE TPDS 13(3), 2002; its brittleness: Sung et al., DeepSoCS, Electronics 9(6), 2020",
    build,
};

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Planned::build(parameters, system, plan)
}

/// Tasks by falling upward rank, each where it is done first, in gaps between others too.
fn plan(graph: &Graph) -> Vec<Span> {
    let mut draft = Draft::new(graph);
    for task in by_rank(&upward_ranks(&graph.means(), &graph.mean_edges())) {
        draft.put_first(task);
    }
    draft.finish()
}

#[cfg(test)]
mod tests {
    use super::plan;
    use crate::dag::examples::{heft, makespan, peft, table};

    /// Figure 4(a) of the paper; figure 3(c) of Arabnejad and Barbosa 2014.
    #[test]
    fn published_makespans() {
        let plan_of_ten = plan(&heft());
        assert_eq!(makespan(&heft(), &plan_of_ten), 80.0);
        let published = [
            (3, 0.0),
            (1, 27.0),
            (3, 9.0),
            (2, 18.0),
            (3, 28.0),
            (2, 26.0),
            (3, 38.0),
            (1, 57.0),
            (2, 56.0),
            (2, 73.0),
        ];
        assert_eq!(table(&plan_of_ten), published);
        assert_eq!(makespan(&peft(), &plan(&peft())), 133.0);
    }
}
