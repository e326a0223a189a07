//! `speculative`: a small model drafts, on a processor that nobody else needs or on the same one, where that is expected to be faster.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::joint::{DRAFT_MAX, Together};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::spare::Spare;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "speculative",
    summary: "Earliest due first; answers are drafted by a small model, next to the large one or on an idle processor, where that is faster",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "tokens",
            default: "0",
            meaning: "tokens drafted before they are verified, 1 to 64; 0: as the scenario says",
        },
        ParameterInfo {
            name: "gain",
            default: "1.05",
            meaning: "drafts are used if they make the rest of the answer at least so many times as fast, on average; 1 to 1000",
        },
        PREEMPTIVE,
    ],
    reference: "Leviathan, Kalman and Matias, Fast Inference from Transformers via Speculative Decoding, ICML 2023; Zhang et al., Dovetail: A CPU/GPU Heterogeneous Speculative Decoding for LLM Inference, EMNLP 2025 (arXiv 2412.18934)",
    build,
};

/// Drafts where that is expected to be faster.
#[derive(Clone, Debug)]
struct Speculative {
    tokens: u32,
    gain: f64,
    spare: Spare,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let most = f64::from(DRAFT_MAX);
    let tokens = parameters.number("tokens", 0.0..=most, "a whole number from 0 to 64")? as u32;
    let gain = parameters.number("gain", 1.0..=1000.0, "a number from 1 to 1000")?;
    Ok(Box::new(Speculative { tokens, gain, spare: Spare::new(parameters.flag("preemptive")?) }))
}

impl Policy for Speculative {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let (tokens, gain) = (self.tokens, self.gain);
        self.spare
            .decide(view, actions, |plan, stage, processor| drafted(view, plan, stage, processor, (tokens, gain)));
    }
}

/// Who verifies and who drafts for a stage to be done first, if that makes it faster than where it would start: what is fastest without
/// drafts may be unable to verify.
pub(crate) fn drafted(
    view: &View<'_>,
    plan: &Plan,
    stage: StageId,
    processor: ProcessorId,
    (tokens, gain): (u32, f64),
) -> Option<(ProcessorId, Together)> {
    let draft = view.draft(stage)?;
    let tokens = if tokens == 0 { draft.tokens } else { tokens };
    let alone = view.remaining_in_phase(stage, processor)?.saturating_add(view.setup(stage, processor));
    let time = |own: ProcessorId, drafter: ProcessorId| {
        let together = Together::Draft { processor: drafter, tokens };
        let work = view.remaining_together(stage, own, together)?;
        Some((work.saturating_add(view.setup_together(stage, own, together)), own, drafter))
    };
    let refused = view.stage(stage).refused | view.state.failed;
    let free = |&p: &ProcessorId| {
        let usable = refused & onbeat_core::policy::refusal_bit(p) == 0;
        usable && (p == processor || plan.is_free(p)) && p.0 < 64
    };
    let pairs = || {
        let own = view.processors().filter(free).filter(|&own| view.can_run(stage, own));
        own.flat_map(|own| view.processors().filter(free).filter_map(move |drafter| time(own, drafter)))
    };
    let (least, own, drafter) = pairs().min()?;
    (least.as_f64() * gain <= alone.as_f64()).then_some((own, Together::Draft { processor: drafter, tokens }))
}

#[cfg(test)]
pub(crate) mod tests {
    use onbeat_core::curve::{Below, Curve};
    use onbeat_core::distribution::Distribution;
    use onbeat_core::id::{NodeId, ProcessorId, SourceId, StageId};
    use onbeat_core::joint::{Draft, Together};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    /// Lets the first source's model draft for the second's.
    pub(crate) fn let_draft(rig: &mut Rig, small: SourceId, large: SourceId, acceptance: f64) {
        let node = |rig: &Rig, source: SourceId| NodeId(rig.system.sources[source].nodes.start);
        let (small, large) = (node(rig, small), node(rig, large));
        let small = rig.system.nodes[small].clone();
        let flat = || Some(Curve::new(vec![(1.0, 1.0), (8.0, 1.0)], Below::Hold));
        let verify = small.costs.iter().map(|_| flat()).collect();
        let acceptance = Distribution::constant(acceptance);
        rig.system.nodes[large].draft = Some(Draft::new(small.model, small.costs, verify, 4, acceptance));
    }

    fn speculate(stage: StageId, processor: u32, drafter: u32, tokens: u32) -> Action {
        let together = Together::Draft { processor: ProcessorId(drafter), tokens };
        Action::StartTogether { stage, processor: ProcessorId(processor), together, segments: None }
    }

    #[test]
    fn drafts_where_that_is_faster() {
        let mut rig = Rig::new(&[("cpu", Preemption::Segment), ("gpu", Preemption::Segment)]);
        let small = rig.session("small", &[9.0, 3.0], 1);
        let large = rig.session("large", &[60.0, 90.0], 1);
        let_draft(&mut rig, small, large, 0.8);
        let stage = rig.ready_decode(large, 0.0);
        // On the CPU a cycle takes 4 × 3 + 60 ms with drafts from the GPU, 4 × 9 + 60 with its own.
        assert_eq!(rig.decide("speculative"), [speculate(stage, 0, 1, 4)]);
        assert_eq!(rig.decide("speculative:tokens=2"), [speculate(stage, 0, 1, 2)]);
        // 3.36 tokens in 72 ms are 2.8 times as fast (2.6 with the prompt that the draft model has to read).
        assert_eq!(rig.decide("speculative:gain=3"), [start(stage, 0)]);
        let busy = rig.stream("busy", Some(50.0), &[None, Some(20.0)]);
        rig.running(busy, 1, 0.0);
        assert_eq!(rig.decide("speculative"), [speculate(stage, 0, 0, 4)], "the GPU is busy");
    }

    #[test]
    fn an_answer_goes_where_it_can_be_verified_if_that_is_faster() {
        let mut rig =
            Rig::new(&[("cpu", Preemption::Segment), ("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
        let small = rig.session("small", &[9.0, 9.0, 3.0], 1);
        let large = rig.session("large", &[90.0, 60.0, 50.0], 1);
        let_draft(&mut rig, small, large, 0.8);
        let node = NodeId(rig.system.sources[large].nodes.start);
        rig.system.nodes[node].draft.as_mut().unwrap().verify[ProcessorId(2)] = None;
        let stage = rig.ready_decode(large, 0.0);
        // The NPU is the fastest, and cannot verify. It drafts for the GPU: 72 ms for 3.36 tokens instead of 168.
        assert_eq!(rig.decide("speculative"), [speculate(stage, 1, 2, 4)]);
    }

    #[test]
    fn bad_drafts_are_left_alone() {
        let mut rig = Rig::new(&[("cpu", Preemption::Segment), ("gpu", Preemption::Segment)]);
        let small = rig.session("small", &[9.0, 20.0], 1);
        let large = rig.session("large", &[60.0, 90.0], 1);
        let_draft(&mut rig, small, large, 0.1);
        let stage = rig.ready_decode(large, 0.0);
        assert_eq!(rig.decide("speculative"), [start(stage, 0)]);
    }
}
