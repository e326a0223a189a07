//! `terastal`: every layer has a virtual budget; it runs where it keeps it, on the processor that it prefers if that will do.

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::id::{Id, NodeId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dag::mean;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::{Times, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "terastal",
    summary: "Layer by layer: each has a virtual budget from its mean time over processors, and runs where it keeps it",
    group: "multi-DNN",
    parameters: &[],
    reference: "Wu, Song and Bozorgzadeh, Terastal: Layer-Variant-based Scheduling for Real-Time Multi-DNN Workloads on Heterogeneous Accelerators, RTCSA 2026 (arXiv 2606.06818); after its abstract, without layer variants",
    build,
};

/// Virtual budgets by layer.
#[derive(Clone, Debug)]
struct Terastal {
    plan: Plan,
    times: Times,
    /// For each stage the mean times before it, of itself, and of the whole, along the longest path of its chain.
    paths: Vec<Path>,
    /// Ready stages by the end of their layer's budget, and serial.
    queue: Vec<(Nanos, u64, StageId)>,
}

/// Mean times over processors along the longest path through a stage [ns].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Path {
    before: f64,
    own: f64,
    after: f64,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(Terastal { plan: Plan::default(), times: Times::default(), paths: paths(system), queue: Vec::new() }))
}

fn paths(system: &System) -> Vec<Path> {
    let own = |node: &onbeat_core::system::Node| {
        // A tool takes its time, wherever the others are.
        let tool = node.tool.as_ref().map(|_| node.best.as_f64());
        tool.unwrap_or_else(|| mean(node.costs.iter().flatten().map(|cost| cost.total_ns(node.expected))))
    };
    let mut paths: Vec<Path> =
        system.nodes.iter().map(|node| Path { before: 0.0, own: own(node), after: 0.0 }).collect();
    let certain = |from: NodeId| system.nodes[from].after.iter().filter(|edge| edge.probability >= 1.0);
    for id in system.nodes.ids() {
        let Path { before, own, .. } = paths[id.index()];
        for edge in certain(id) {
            let next = &mut paths[edge.to.index()];
            next.before = next.before.max(before + own);
        }
    }
    for number in (0..paths.len()).rev() {
        let rest = certain(NodeId::new(number)).map(|edge| paths[edge.to.index()].own + paths[edge.to.index()].after);
        paths[number].after = rest.fold(0.0, f64::max);
    }
    paths
}

/// When the budget of the layers up to a part of a stage ends, of the time from release to deadline.
fn budget(path: &Path, part: f64, time: Nanos) -> Nanos {
    let whole = (path.before + path.own + path.after).max(1.0);
    Nanos::from_ns_f64(time.as_f64() * (path.before + path.own * part) / whole)
}

/// The next layer of a stage: the end of the segment at which it stands, as a part of the stage; 1 where it is not cut.
fn layer_end(view: &View<'_>, stage: StageId) -> f64 {
    let live = view.stage(stage);
    let cost = view.cost(stage, view.node(stage).fastest).and_then(|cost| cost.phases.get(usize::from(live.phase)));
    match cost {
        Some((Phase::Forward, cost @ PhaseCost::Fixed { .. })) => {
            cost.next_boundary(live.work, Phase::Forward, live.position)
        }
        _ => 1.0,
    }
}

impl Policy for Terastal {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        let mut queue = std::mem::take(&mut self.queue);
        queue.clear();
        queue.extend(view.ready().iter().map(|&s| (self.virtual_deadline(view, s), view.stage(s).serial, s)));
        queue.sort_unstable();
        for &(due, _, stage) in &queue {
            if let Some(processor) = self.place(view, stage, due) {
                let portion = (layer_end(view, stage) < 1.0).then_some(1);
                self.plan.start_portion(view, stage, processor, portion, actions);
            } else {
                self.plan.join_any(view, stage, actions);
            }
        }
        self.queue = queue;
    }
}

impl Terastal {
    fn virtual_deadline(&self, view: &View<'_>, stage: StageId) -> Nanos {
        let (job, due) = (view.job(stage), view.due(stage));
        if job.deadline == Nanos::MAX {
            return due;
        }
        let time = job.deadline.saturating_sub(job.release);
        let path = &self.paths[view.stage(stage).node.index()];
        job.release.saturating_add(budget(path, layer_end(view, stage), time)).min(due)
    }

    /// Where a layer starts now: the idle processor on which it is done first, unless it would overrun its budget there and a busy one
    /// would be done sooner, which it then waits for.
    fn place(&mut self, view: &View<'_>, stage: StageId, due: Nanos) -> Option<ProcessorId> {
        if !self.plan.has_free() {
            return None;
        }
        let live = view.stage(stage);
        // What has to be done of the rest by the end of the budget.
        let part = if live.kind == Phase::Forward {
            (layer_end(view, stage) - live.position) / (1.0 - live.position).max(1e-9)
        } else {
            1.0
        };
        let rest = self.times.of(view, stage);
        let (mut idle, mut busy): (Option<(Nanos, ProcessorId)>, Option<Nanos>) = (None, None);
        for processor in view.processors().filter(|&p| view.can_run(stage, p)) {
            let Some(rest) = rest[processor.index()] else { continue };
            let layer = Nanos::from_ns_f64(until_due(view, stage, rest).as_f64() * part);
            let time = view.setup(stage, processor).saturating_add(layer);
            if self.plan.is_free(processor) {
                let done = view.now().saturating_add(time);
                idle = Some(idle.map_or((done, processor), |known| known.min((done, processor))));
            } else {
                let done = view.free_at(processor).saturating_add(time);
                busy = Some(busy.map_or(done, |known| known.min(done)));
            }
        }
        let (done, processor) = idle?;
        let waits = done > due && busy.is_some_and(|busy| busy < done);
        (!waits).then_some(processor)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::cost::PhaseCost;
    use onbeat_core::id::{NodeId, SourceId};
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;

    use super::{Path, budget};
    use crate::test_rig::{Rig, ms, start};

    fn cut(rig: &mut Rig, source: SourceId, ends: &[f64]) {
        let node = NodeId(rig.system.sources[source].nodes.start);
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            if let PhaseCost::Fixed { boundaries, .. } = &mut cost.phases[0].1 {
                *boundaries = ends.to_vec();
            }
        }
    }

    #[test]
    fn budgets_are_parts_of_the_deadline_by_mean_times() {
        // 5 ms before, 10 ms of its own in two layers, 5 ms after, due in 40 ms: the layers end at 20 and 30 ms.
        let path = Path { before: 5e6, own: 10e6, after: 5e6 };
        assert_eq!(budget(&path, 0.5, ms(40.0)), ms(20.0));
        assert_eq!(budget(&path, 1.0, ms(40.0)), ms(30.0));
    }

    #[test]
    fn layers_start_one_by_one() {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let camera = rig.stream("camera", Some(40.0), &[Some(8.0)]);
        cut(&mut rig, camera, &[0.5, 1.0]);
        let stage = rig.ready(camera, 0.0);
        assert!(matches!(rig.decide("terastal")[..], [Action::Start { limit: Some(Limit::Segments(1)), .. }]));
        rig.state.stages[stage].position = 0.5;
        assert_eq!(rig.decide("terastal"), [start(stage, 0)], "the last one, to the end");
    }

    #[test]
    fn a_layer_runs_on_a_slower_processor_only_if_it_keeps_its_budget() {
        for (deadline, expected) in [(40.0, true), (20.0, false)] {
            let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
            let camera = rig.stream("camera", Some(deadline), &[Some(26.0), Some(8.0)]);
            cut(&mut rig, camera, &[0.5, 1.0]);
            rig.running(camera, 1, 0.0);
            let stage = rig.ready(camera, 0.0);
            // Its first layer takes 13 ms on the CPU and has half of the deadline: 20 or 10 ms. The NPU would be done with it at 8 + 4 = 12 ms.
            let actions = rig.decide("terastal");
            assert_eq!(!actions.is_empty(), expected, "{deadline}: {actions:?} {stage:?}");
        }
    }
}
