//! `attention-offload`: processors whose memory bandwidth nobody uses read a part of an answer's cache.

use onbeat_core::id::ProcessorId;
use onbeat_core::joint::Together;
use onbeat_core::policy::{Actions, Policy, View, refusal_bit};
use onbeat_core::system::System;

use crate::edf::PREEMPTIVE;
use crate::hetero_split::with_helpers;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::spare::Spare;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "attention-offload",
    summary: "Earliest due first; idle processors compute a part of the attention of answers, where that is predicted to be faster",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "gain",
            default: "1.05",
            meaning: "attention is divided if that makes the rest of the answer at least so many times as fast, nominally; 1 to 1000",
        },
        PREEMPTIVE,
    ],
    reference: "after Fan et al., APEX: Asynchronous Parallel CPU-GPU Execution for Online LLM Inference on Constrained GPUs, arXiv 2506.03296, 2025; dividing one request's attention is ours",
    build,
};

/// Divides attention over processors that nobody else needs.
#[derive(Clone, Debug)]
struct AttentionOffload {
    gain: f64,
    spare: Spare,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let gain = parameters.number("gain", 1.0..=1000.0, "a number from 1 to 1000")?;
    Ok(Box::new(AttentionOffload { gain, spare: Spare::new(parameters.flag("preemptive")?) }))
}

impl Policy for AttentionOffload {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let gain = self.gain;
        self.spare.decide(view, actions, |plan, stage, processor| {
            view.attention(stage)?;
            // It need not be able to run the stage.
            let free = |p: ProcessorId| plan.is_free(p) && view.state.failed & refusal_bit(p) == 0;
            let together = |helpers| Together::Attention { helpers };
            Some((processor, with_helpers(view, stage, processor, gain, free, together)?))
        });
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{NodeId, ProcessorId, ProcessorSet};
    use onbeat_core::joint::{Attention, Split, Together};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    #[test]
    fn idle_processors_read_a_part_of_the_cache() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("cpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0, 4.0], 1);
        let node = NodeId(rig.system.sources[chat].nodes.start);
        rig.system.nodes[node].costs[ProcessorId(1)] = None;
        let stage = rig.ready_decode(chat, 0.0);
        assert_eq!(rig.decide("attention-offload"), [start(stage, 0)], "nothing says how attention is divided");
        rig.system.nodes[node].attention = Some(Attention {
            split: Split { points: 1, bytes: 0.0 },
            cache_per_token: 1e6,
            bandwidth: [Some(100.0), Some(100.0)].into_iter().collect(),
            least: [0.0, 1.0].into_iter().collect(),
        });
        // From 100 to 200 tokens of 1 MB: 1.5 of 4 ms per step, half of it on the CPU, which has no profile of the model.
        let helpers = ProcessorSet::of(ProcessorId(1));
        let divided = Action::StartTogether {
            stage,
            processor: ProcessorId(0),
            together: Together::Attention { helpers },
            segments: None,
        };
        assert_eq!(rig.decide("attention-offload"), [divided]);
        assert_eq!(rig.decide("attention-offload:gain=1.3"), [start(stage, 0)]);
        let stream = rig.stream("s", Some(50.0), &[None, Some(20.0)]);
        rig.running(stream, 1, 0.0);
        assert_eq!(rig.decide("attention-offload"), [start(stage, 0)], "the CPU is busy");
    }
}
