//! `hetero-split`: work that can be divided uses processors that nobody else needs.

use onbeat_core::id::{ProcessorId, ProcessorSet, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::spare::Spare;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "hetero-split",
    summary: "Earliest due first; divides work over idle processors that nobody else needs, and gives them back at a boundary",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "gain",
            default: "1.05",
            meaning: "a stage is divided if that makes its phase at least so many times as fast, nominally; 1 to 1000",
        },
        PREEMPTIVE,
    ],
    reference: "Chen et al., Characterizing Mobile SoC for Accelerating Heterogeneous LLM Inference (HeteroInfer), arXiv 2501.14794, 2025",
    build,
};

/// Splits work over processors that nobody else needs.
#[derive(Clone, Debug)]
struct HeteroSplit {
    gain: f64,
    spare: Spare,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let gain = parameters.number("gain", 1.0..=1000.0, "a number from 1 to 1000")?;
    Ok(Box::new(HeteroSplit { gain, spare: Spare::new(parameters.flag("preemptive")?) }))
}

impl Policy for HeteroSplit {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let gain = self.gain;
        self.spare.decide(view, actions, |plan, stage, processor| {
            view.system.models[view.stage(stage).model].split?;
            let fits = |p: ProcessorId| plan.fits(view, stage, p);
            Some((processor, with_helpers(view, stage, processor, gain, fits, |helpers| Together::Split { helpers })?))
        });
    }
}

/// The processors, among those that `can_help`, with which a stage's phase is done first: added one after the other, the most useful
/// first, as long as each makes it faster.
pub(crate) fn with_helpers(
    view: &View<'_>,
    stage: StageId,
    processor: ProcessorId,
    gain: f64,
    can_help: impl Fn(ProcessorId) -> bool,
    together: impl Fn(ProcessorSet) -> Together,
) -> Option<Together> {
    let alone = view.remaining_in_phase(stage, processor)?.saturating_add(view.setup(stage, processor));
    let time = |helpers: ProcessorSet| {
        let together = together(helpers);
        let work = view.remaining_together(stage, processor, together)?;
        Some(work.saturating_add(view.setup_together(stage, processor, together)))
    };
    let (mut best, mut least) = (ProcessorSet::EMPTY, alone);
    loop {
        let free = view.processors().filter(|&p| p != processor && !best.contains(p) && can_help(p));
        let with = |p: ProcessorId| Some((time(best.with(p))?, p)).filter(|_| !ProcessorSet::of(p).is_empty());
        let Some((next, p)) = free.filter_map(with).min().filter(|&(next, _)| next < least) else { break };
        (best, least) = (best.with(p), next);
    }
    let worth_it = !best.is_empty() && least.as_f64() * gain <= alone.as_f64();
    worth_it.then(|| together(best))
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
