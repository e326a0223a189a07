//! `hetero-split`: work that can be divided uses processors that nobody else needs.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, ProcessorSet, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "hetero-split",
    summary: "Earliest due first; divides work over idle processors that nobody else needs, and gives them back at a boundary",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "gain",
        default: "1.05",
        meaning: "a stage is divided if that makes its phase at least so many times as fast, nominally; 1 to 1000",
    }],
    reference: "Chen et al., Characterizing Mobile SoC for Accelerating Heterogeneous LLM Inference (HeteroInfer), arXiv 2501.14794, 2025",
    build,
};

/// Splits work over processors that nobody else needs.
#[derive(Clone, Debug)]
struct HeteroSplit {
    gain: f64,
    plan: Plan,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// Stages that start, with their processor.
    placed: Vec<(StageId, ProcessorId)>,
    /// Stages that no processor was found for.
    waiting: Vec<StageId>,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let gain = parameters.number("gain", 1.0..=1000.0, "a number from 1 to 1000")?;
    let (plan, queue, placed, waiting) = (Plan::default(), Vec::new(), Vec::new(), Vec::new());
    Ok(Box::new(HeteroSplit { gain, plan, queue, placed, waiting }))
}

impl Policy for HeteroSplit {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.queue.clear();
        self.placed.clear();
        self.waiting.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            if let Some(processor) = self.plan.fastest(view, stage) {
                self.plan.take(processor);
                self.placed.push((stage, processor));
            } else {
                self.waiting.push(stage);
            }
        }
        // Everybody has a place, or none can be had: what is free now is needed by nobody.
        for i in 0..self.placed.len() {
            let (stage, processor) = self.placed[i];
            let helpers = self.helpers(view, stage, processor);
            if helpers.is_empty() {
                actions.start(stage, processor);
                self.plan.open(view, stage, processor);
                continue;
            }
            for helper in helpers.iter() {
                self.plan.take(helper);
            }
            actions.split(stage, processor, helpers, None);
        }
        for i in 0..self.waiting.len() {
            if !self.plan.join_any(view, self.waiting[i], actions) {
                ask_back(view, self.waiting[i], actions);
            }
        }
    }
}

impl HeteroSplit {
    /// The free processors with which a stage's phase is done first: added one after the other, the most useful first, as long as each
    /// makes it faster.
    fn helpers(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> ProcessorSet {
        let none = ProcessorSet::EMPTY;
        let live = view.stage(stage);
        let Some(alone) = view.remaining_in_phase(stage, processor) else { return none };
        if view.system.models[live.model].split.is_none() || is_batched(view, stage, processor) {
            return none;
        }
        let alone = alone.saturating_add(view.setup(stage, processor));
        let time = |helpers: ProcessorSet| {
            let work = view.remaining_split(stage, processor, helpers)?;
            Some(work.saturating_add(view.setup_together(stage, processor, helpers)))
        };
        let (mut best, mut least) = (none, alone);
        loop {
            let free =
                view.processors().filter(|&p| p != processor && !best.contains(p) && self.plan.fits(view, stage, p));
            let with = |p: ProcessorId| Some((time(best.with(p))?, p)).filter(|_| !ProcessorSet::of(p).is_empty());
            let Some((next, p)) = free.filter_map(with).min().filter(|&(next, _)| next < least) else { break };
            (best, least) = (best.with(p), next);
        }
        if least.as_f64() * self.gain <= alone.as_f64() { best } else { none }
    }
}

/// Ends the work that holds a second processor, where a stage that waits could run there.
fn ask_back(view: &View<'_>, stage: StageId, actions: &mut Actions) {
    for processor in view.processors().filter(|&p| view.can_run(stage, p)) {
        for run in &view.occupancy(processor).runs {
            let helps = !run.over.is_empty() && view.stage(run.stage).processor != Some(processor);
            if !helps || !run.over.iter().all(|p| view.preemptible(p)) {
                continue;
            }
            if !run.ending && !actions.as_slice().contains(&Action::Preempt { stage: run.stage }) {
                actions.preempt(run.stage);
            }
            return;
        }
    }
}

/// Whether others could share the stage's steps, which is worth more than a second processor.
fn is_batched(view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
    let live = view.stage(stage);
    live.kind == Phase::Decode
        && crate::plan::batch_max(view, stage, processor) > 1
        && view.ready().iter().any(|&other| other != stage && view.stage(other).model == live.model)
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ProcessorId, ProcessorSet, SourceId};
    use onbeat_core::joint::{Split, Together};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;
    use onbeat_core::state::Run;

    use crate::test_rig::{Rig, ms, preempt, start};

    fn divide(rig: &mut Rig, source: SourceId) {
        let node = rig.system.sources[source].nodes.start;
        let model = rig.system.nodes[onbeat_core::id::NodeId(node)].model;
        rig.system.models[model].split = Some(Split { points: 1, bytes: 0.0 });
    }

    fn split(stage: onbeat_core::id::StageId, processor: u32, helpers: &[u32]) -> Action {
        let helpers = helpers.iter().map(|&p| ProcessorId(p)).collect();
        let together = Together::Split { helpers };
        Action::StartTogether { stage, processor: ProcessorId(processor), together, segments: None }
    }

    #[test]
    fn divides_what_can_be_divided_over_what_is_idle() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
        let big = rig.stream("big", Some(50.0), &[Some(9.0), Some(6.0)]);
        let stage = rig.ready(big, 0.0);
        assert_eq!(rig.decide("hetero-split"), [start(stage, 1)], "nothing says how it is divided");
        divide(&mut rig, big);
        // 1 / (1/9 + 1/6) = 3.6 ms instead of 6.
        assert_eq!(rig.decide("hetero-split"), [split(stage, 1, &[0])]);
        assert_eq!(rig.decide("hetero-split:gain=1.6"), [split(stage, 1, &[0])]);
        assert_eq!(rig.decide("hetero-split:gain=1.7"), [start(stage, 1)]);
    }

    #[test]
    fn leaves_a_processor_to_whoever_can_use_it() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
        let big = rig.stream("big", Some(50.0), &[Some(9.0), Some(6.0)]);
        let small = rig.stream("small", Some(90.0), &[Some(2.0), None]);
        divide(&mut rig, big);
        let (big, small) = (rig.ready(big, 0.0), rig.ready(small, 0.0));
        assert_eq!(rig.decide("hetero-split"), [start(big, 1), start(small, 0)]);
    }

    #[test]
    fn asks_a_processor_back_once() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
        let big = rig.stream("big", Some(50.0), &[Some(9.0), Some(6.0)]);
        let small = rig.stream("small", Some(90.0), &[Some(2.0), None]);
        divide(&mut rig, big);
        let running = rig.running(big, 1, 0.0);
        let over: ProcessorSet = [ProcessorId(0), ProcessorId(1)].into_iter().collect();
        let on_npu = &mut rig.state.processors[ProcessorId(1)].runs[0];
        on_npu.over = over;
        let helper: Run = on_npu.clone();
        rig.state.processors[ProcessorId(0)].runs.push(helper);
        rig.state.now = ms(1.0);
        rig.ready(small, 1.0);
        rig.ready(small, 1.0);
        assert_eq!(rig.decide("hetero-split"), [preempt(running)], "once for both");
    }
}
