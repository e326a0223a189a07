//! `saga`: workflows are served as wholes: the one that will be late most, relative to its length, goes first, near its data.

use onbeat_core::id::{Id, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::plan::{Plan, begun_on};
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "saga",
    summary: "Streams first; then whole workflows by fair share of completion time, each near its data unless another processor is done sooner",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "affinity",
        default: "true",
        meaning: "true: a stage waits for the processor that has its workflow's data, unless it would be done sooner elsewhere; false: it takes the fastest idle one",
    }],
    reference: "Guo, Wu and Yiu, SAGA: Workflow-Atomic Scheduling for AI Agent Inference on GPU Clusters, HPDC 2026 (arXiv 2605.00528); after its abstract",
    build,
};

/// Workflow-atomic with fair share.
#[derive(Clone, Debug)]
struct Saga {
    order: FairShare,
    dispatch: Dispatch,
}

/// By expected stretch of the whole workflow.
#[derive(Clone, Debug)]
struct FairShare {
    affinity: bool,
    /// What a workflow takes alone that passes through each stage [ns], and what of it follows the stage.
    paths: Vec<(f64, f64)>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = FairShare { affinity: parameters.flag("affinity")?, paths: paths(system) };
    Ok(Box::new(Saga { order, dispatch: Dispatch::default() }))
}

impl Policy for Saga {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// For each stage the longest path of its chain through it, and the part after it, by nominal times on the fastest processors, expected
/// sizes, and edges that are likely [ns].
fn paths(system: &System) -> Vec<(f64, f64)> {
    let likely = |from: NodeId| system.nodes[from].after.iter().filter(|edge| edge.probability >= 0.5);
    let count = system.nodes.len();
    let (mut until, mut after) = (vec![0.0_f64; count], vec![0.0_f64; count]);
    for (id, node) in system.nodes.enumerate() {
        until[id.index()] += node.best.as_f64();
        for edge in likely(id) {
            until[edge.to.index()] = until[edge.to.index()].max(until[id.index()]);
        }
    }
    for number in (0..count).rev() {
        let rest = likely(NodeId::new(number)).map(|edge| after[edge.to.index()] + system.nodes[edge.to].best.as_f64());
        after[number] = rest.fold(0.0, f64::max);
    }
    until.into_iter().zip(after).map(|(until, after)| (until + after, after)).collect()
}

/// Stretches count in parts per million, and up to this.
const STRETCH_MAX: f64 = 1e12;

impl FairShare {
    /// How many times as long as alone the workflow will have taken if it goes on now without waiting.
    fn stretch(&self, view: &View<'_>, stage: StageId) -> f64 {
        let (whole, after) = self.paths[view.stage(stage).node.index()];
        let elapsed = view.now().saturating_sub(view.job(stage).release).as_f64();
        let rest = view.remaining_best(stage).as_f64() + after;
        (elapsed + rest) / whole.max(rest).max(1.0)
    }
}

impl Order for FairShare {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        real_time_key(view, stage).unwrap_or_else(|| {
            let stretch = (self.stretch(view, stage) * 1e6).min(STRETCH_MAX);
            BACKGROUND + (STRETCH_MAX - stretch) as u64
        })
    }

    /// Workflows do not take over from each other, streams do.
    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |_| BACKGROUND)
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        let fastest = plan.fastest(view, stage)?;
        let live = view.stage(stage);
        let home = begun_on(view, stage).or(live.input.map(|(processor, _)| processor));
        let Some(home) = home.filter(|&home| self.affinity && view.can_run(stage, home)) else { return Some(fastest) };
        if plan.is_free(home) {
            return Some(home);
        }
        // Stealing: only if it pays, hand-over included.
        let there = view.finish(stage, home, view.free_at(home)).unwrap_or(Nanos::MAX);
        let here = view.finish(stage, fastest, view.now()).unwrap_or(Nanos::MAX);
        (here < there).then_some(fastest)
    }

    /// A stage that waits for its processor does not take another one by force.
    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        let home = begun_on(view, stage).filter(|&home| self.affinity && view.can_run(stage, home));
        home.is_none_or(|home| home == processor)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{NodeId, ProcessorId};
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;

    use super::paths;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_workflow_that_has_waited_longest_for_its_length_goes_first() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let long = rig.stream("long", None, &[Some(100.0)]);
        let short = rig.stream("short", None, &[Some(10.0)]);
        let long = rig.ready(long, 0.0);
        rig.state.now = ms(20.0);
        let short = rig.ready(short, 15.0);
        // Stretch (20 + 100) / 100 = 1.2 against (5 + 10) / 10 = 1.5.
        assert_eq!(rig.decide("saga"), [start(short, 0)]);
        assert_eq!(rig.decide("fcfs"), [start(long, 0)]);
    }

    #[test]
    fn what_follows_counts_as_part_of_the_workflow() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        rig.stream("plan", None, &[Some(10.0)]);
        rig.stream("act", None, &[Some(30.0)]);
        let edge = |to: u32, probability: f64| Edge { to: NodeId(to), probability, fan_out: None, per_tokens: None };
        rig.system.nodes[NodeId(0)].after.push(edge(1, 0.6));
        assert_eq!(paths(&rig.system), [(40e6, 30e6), (40e6, 0.0)]);
        rig.system.nodes[NodeId(0)].after[0].probability = 0.4;
        assert_eq!(paths(&rig.system), [(10e6, 0.0), (30e6, 0.0)], "it is not likely to follow");
    }

    #[test]
    fn a_stage_stays_with_its_data_unless_it_pays_to_steal() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        let agent = rig.stream("agent", None, &[Some(20.0), Some(22.0)]);
        let hog = rig.stream("hog", None, &[Some(1.0), None]);
        rig.running(hog, 0, 0.0);
        let stage = rig.ready(agent, 0.0);
        rig.state.stages[stage].input = Some((ProcessorId(0), 0.0));
        // On the GPU at 1 + 20 = 21, on the idle NPU at 22.
        assert_eq!(rig.decide("saga"), []);
        assert_eq!(rig.decide("saga:affinity=false"), [start(stage, 1)]);
        rig.state.processors[ProcessorId(0)].runs[0].expected_end = ms(5.0);
        assert_eq!(rig.decide("saga"), [start(stage, 1)], "25 against 22");
    }

    #[test]
    fn streams_with_deadlines_take_over_and_workflows_do_not() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let agent = rig.stream("agent", None, &[Some(90.0)]);
        let camera = rig.stream("camera", Some(30.0), &[Some(4.0)]);
        let running = rig.running(agent, 0, 0.0);
        rig.ready(agent, 0.0);
        assert_eq!(rig.decide("saga"), []);
        rig.ready(camera, 0.0);
        assert_eq!(rig.decide("saga"), [preempt(running)]);
    }
}
