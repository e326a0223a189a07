//! `prefill-first`: streams by deadline; below them prompts before answers, which stop for them.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

/// The source that names the two ways, which decode-first and prefill-first share.
pub(crate) const SARATHI: &str =
    "Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve, OSDI 2024";

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "prefill-first",
    summary: "Streams with deadlines first; then prompts before answers, which stop at a token for them",
    group: "generative",
    parameters: &[],
    reference: SARATHI,
    build,
};

/// One phase before the other.
#[derive(Clone, Debug)]
pub(crate) struct PhaseFirst {
    order: PhaseOrder,
    dispatch: Dispatch,
}

impl PhaseFirst {
    pub(crate) fn new(first: Phase, takes_over: bool) -> Self {
        Self { order: PhaseOrder { first, takes_over }, dispatch: Dispatch::default() }
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(PhaseFirst::new(Phase::Prefill, true)))
}

impl Policy for PhaseFirst {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

#[derive(Clone, Copy, Debug)]
struct PhaseOrder {
    first: Phase,
    /// Whether the first phase takes over from the other; streams always do.
    takes_over: bool,
}

impl PhaseOrder {
    fn background(self, view: &View<'_>, stage: StageId) -> u64 {
        let kind = view.stage(stage).kind;
        let class = match kind {
            Phase::Prefill | Phase::Decode => u64::from(kind != self.first),
            Phase::Forward | Phase::Before | Phase::Steps | Phase::After => 2,
        };
        BACKGROUND + class
    }
}

impl Order for PhaseOrder {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        real_time_key(view, stage).unwrap_or_else(|| self.background(view, stage))
    }

    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |stage| if self.takes_over { self.background(view, stage) } else { BACKGROUND })
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, preempt, start};

    #[test]
    fn which_phase_goes_first() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let (decode, prefill) = (rig.ready_decode(chat, 0.0), rig.ready(chat, 0.0));
        assert_eq!(rig.decide("prefill-first"), [start(prefill, 0)]);
        assert_eq!(rig.decide("decode-first"), [start(decode, 0)]);
    }

    #[test]
    fn an_answer_stops_for_a_prompt_or_does_not() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let decode = rig.running_decode(chat, 0, 0.0);
        rig.ready(chat, 0.0);
        assert_eq!(rig.decide("prefill-first"), [preempt(decode)]);
        assert_eq!(rig.decide("decode-first"), []);
    }

    #[test]
    fn a_prompt_that_is_being_read_stops_for_nothing_but_a_stream() {
        for policy in ["prefill-first", "decode-first"] {
            let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
            let chat = rig.session("chat", &[4.0], 1);
            let frame = rig.stream("frame", Some(30.0), &[Some(5.0)]);
            let prefill = rig.running(chat, 0, 0.0);
            rig.ready_decode(chat, 0.0);
            assert_eq!(rig.decide(policy), [], "{policy}");
            rig.ready(frame, 0.0);
            assert_eq!(rig.decide(policy), [preempt(prefill)], "{policy}");
        }
    }
}
