//! `pd-adaptive`: where a prompt is read and where its answer is written is decided together, anew for every phase, by when the answer
//! would be done.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "pd-adaptive",
    summary: "Earliest due first; prompt and answer go to the pair of processors with which the answer is done first, busy ones included",
    group: "generative",
    parameters: &[],
    reference: "Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024; semi-PD, arXiv 2504.19867, 2025",
    build,
};

/// Prefill and decode placed by expected finish.
#[derive(Clone, Debug, Default)]
struct PdAdaptive {
    plan: Plan,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// When each slot will be free, with what this decision puts there, in order of processors.
    slots: Vec<(ProcessorId, Nanos)>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<PdAdaptive>::default())
}

impl Policy for PdAdaptive {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.slots.clear();
        for p in view.processors() {
            let free = view.free_slots(p) as usize;
            self.slots.extend(std::iter::repeat_n((p, view.now()), free));
            let runs = &view.occupancy(p).runs;
            self.slots.extend(runs.iter().map(|run| (p, run.expected_end.max(view.now()))));
        }
        self.queue.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        for i in 0..self.queue.len() {
            self.serve(view, self.queue[i].2, actions);
        }
    }
}

impl PdAdaptive {
    fn serve(&mut self, view: &View<'_>, stage: StageId, actions: &mut Actions) {
        let able = view.processors().filter(|&p| view.can_run(stage, p));
        let found = able.filter_map(|p| Some((self.done(view, stage, p)?, p))).min();
        let Some((_, processor)) = found else { return };
        if let Some(batch) = self.plan.batch_for(view, stage, |p| p == processor) {
            self.plan.join(view, stage, batch, actions);
            return;
        }
        // It holds the slot until its phase ends, or waits for it: nobody who comes later may count on it before.
        let Some(slot) = self.first_slot(processor) else { return };
        let end = self.phase_end(view, stage, processor).unwrap_or(Nanos::MAX);
        let is_free = self.slots[slot].1 <= view.now() && self.plan.fits(view, stage, processor);
        self.slots[slot].1 = end;
        if is_free {
            self.plan.start(view, stage, processor, actions);
        }
    }

    /// The slot of a processor that will be free first.
    fn first_slot(&self, processor: ProcessorId) -> Option<usize> {
        let own = (0..self.slots.len()).filter(|&i| self.slots[i].0 == processor);
        own.min_by_key(|&i| self.slots[i].1)
    }

    fn free_at(&self, processor: ProcessorId) -> Nanos {
        self.first_slot(processor).map_or(Nanos::MAX, |slot| self.slots[slot].1)
    }

    /// When the stage's current phase would be done on a processor.
    fn phase_end(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        let joins = self.plan.batch_for(view, stage, |p| p == processor).is_some();
        let start = if joins { view.now() } else { self.free_at(processor) };
        let work = view.remaining_in_phase(stage, processor)?;
        Some(start.saturating_add(view.setup(stage, processor)).saturating_add(work))
    }

    /// When the whole stage would be done, if its current phase ran on a processor. What follows prefill goes wherever it is then done
    /// first.
    fn done(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        let live = view.stage(stage);
        let end = self.phase_end(view, stage, processor)?;
        if live.kind != Phase::Prefill {
            let rest = view.remaining(stage, processor)?.saturating_sub(view.remaining_in_phase(stage, processor)?);
            return Some(end.saturating_add(rest));
        }
        let bytes = view.system.models[live.model].kv_per_token.as_f64() * (f64::from(live.work.prompt) + 1.0);
        let answer = |q: ProcessorId| {
            let decode = view.remaining(stage, q)?.saturating_sub(view.remaining_in_phase(stage, q)?);
            let start = if q == processor {
                end
            } else {
                end.max(self.free_at(q)).saturating_add(view.system.platform.links[processor][q].time(bytes))
            };
            Some(start.saturating_add(decode))
        };
        view.processors().filter(|&q| view.can_run(stage, q)).filter_map(answer).min()
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    /// The session reads 100 tokens in 100 ms anywhere, and writes 100 at 9, 4 and 6 ms.
    fn rig() -> (Rig, onbeat_core::id::SourceId) {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        let chat = rig.session("chat", &[9.0, 4.0, 6.0], 1);
        (rig, chat)
    }

    #[test]
    fn idle_processors_are_chosen_by_when_the_answer_is_done() {
        let (mut rig, chat) = rig();
        let first = rig.ready(chat, 0.0);
        // Anywhere the prompt takes 100 ms; the answer is written on the GPU. The first of the equal ones reads.
        assert_eq!(rig.decide("pd-adaptive"), [start(first, 0)]);
    }

    #[test]
    fn an_answer_waits_for_the_processor_that_is_worth_it() {
        let (mut rig, chat) = rig();
        let stream = rig.stream("s", Some(200.0), &[None, Some(150.0), None]);
        rig.running(stream, 1, 0.0);
        let decode = rig.ready_decode(chat, 0.0);
        // GPU: 150 + 400 ms; NPU: 600 ms.
        assert_eq!(rig.decide("pd-adaptive"), []);
        rig.state.processors[onbeat_core::id::ProcessorId(1)].runs[0].expected_end = ms(250.0);
        assert_eq!(rig.decide("pd-adaptive"), [start(decode, 2)], "250 + 400 ms are not");
    }

    #[test]
    fn a_place_that_is_promised_is_not_given_to_others() {
        let (mut rig, chat) = rig();
        let stream = rig.stream("s", Some(200.0), &[None, Some(150.0), None]);
        rig.running(stream, 1, 0.0);
        let (first, second) = (rig.ready_decode(chat, 0.0), rig.ready_decode(chat, 0.0));
        let _ = first;
        // The first waits for the GPU until 150 and has it until 550; the second is done on the NPU at 600.
        assert_eq!(rig.decide("pd-adaptive"), [start(second, 2)]);
    }

    #[test]
    fn decode_joins_a_batch() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 2);
        rig.running_decode(chat, 0, 0.0);
        let second = rig.ready_decode(chat, 1.0);
        assert_eq!(rig.decide("pd-adaptive"), [start(second, 0)]);
    }
}
