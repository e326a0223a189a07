//! `band-sel`: every stage is put into the queue of the processor where it is expected to be done first, and stays there.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "band-sel",
    summary: "Band's shortest expected latency: each stage joins the queue in which it would be done first, and stays there",
    group: "multi-DNN",
    parameters: &[],
    reference: "Jeong et al., Band: Coordinated Multi-DNN Inference on Heterogeneous Mobile Processors, MobiSys 2022; rule after its public code",
    build,
};

/// Shortest expected latency.
#[derive(Clone, Debug, Default)]
struct BandSel {
    queues: Queues,
    dispatch: Dispatch,
    times: Times,
    /// Stages without a queue.
    new: Vec<StageId>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<BandSel>::default())
}

impl Policy for BandSel {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.queues.measure(view);
        self.new.clear();
        let unqueued = view.ready().iter().copied().filter(|&stage| self.queues.queued(view, stage).is_none());
        self.new.extend(unqueued);
        self.new.sort_unstable_by_key(|&stage| view.stage(stage).serial);
        // Of the stages left, the one whose shortest latency is the longest chooses next.
        while !self.new.is_empty() {
            let mut longest: Option<(Nanos, usize, ProcessorId)> = None;
            for (i, &stage) in self.new.iter().enumerate() {
                let best = self.queues.best(view, &mut self.times, stage);
                if let Some((latency, processor)) = best
                    && longest.is_none_or(|(most, _, _)| latency > most)
                {
                    longest = Some((latency, i, processor));
                }
            }
            // Memory has refused the others everywhere: they are looked at again when some is freed.
            let Some((_, i, processor)) = longest else { break };
            let stage = self.new.remove(i);
            self.queues.put(view, &mut self.times, stage, processor);
        }
        self.dispatch.run(view, actions, &mut self.queues);
    }
}

/// Which processor each stage waits for, in which order, and how long the queues are.
#[derive(Clone, Debug, Default)]
struct Queues {
    /// By [`StageId`].
    places: Vec<Option<Place>>,
    /// Number of the next stage that joins a queue.
    next: u64,
    /// Time until each processor is done with what runs and waits there.
    backlog: Vec<Nanos>,
}

/// A stage's place in a queue; it keeps it through its phases.
#[derive(Clone, Copy, Debug)]
struct Place {
    serial: u64,
    number: u64,
    processor: ProcessorId,
    /// Nominal latency of what was left of it when it joined.
    latency: Nanos,
}

impl Queues {
    /// Adds up what runs and what waits.
    fn measure(&mut self, view: &View<'_>) {
        self.backlog.clear();
        self.backlog.extend(view.processors().map(|p| busy_for(view, p)));
        for &stage in view.ready() {
            if let Some(place) = self.queued(view, stage) {
                self.lengthen(view, place.processor, place.latency);
            }
        }
    }

    fn lengthen(&mut self, view: &View<'_>, processor: ProcessorId, latency: Nanos) {
        let slots = u64::from(view.system.platform.processors[processor].slots);
        let backlog = &mut self.backlog[processor.index()];
        *backlog = backlog.saturating_add(Nanos(latency.0 / slots));
    }

    /// The stage's queue, unless memory has refused it there.
    fn queued(&self, view: &View<'_>, stage: StageId) -> Option<Place> {
        let place = self.places.get(stage.index()).copied().flatten();
        place.filter(|place| place.serial == view.stage(stage).serial && view.can_run(stage, place.processor))
    }

    /// Expected latency in the queue that is best for the stage.
    fn best(&self, view: &View<'_>, times: &mut Times, stage: StageId) -> Option<(Nanos, ProcessorId)> {
        let left = times.of(view, stage);
        let latency = |p: ProcessorId| {
            let time = left[p.index()]?.stage.saturating_add(view.setup(stage, p));
            Some((self.backlog[p.index()].saturating_add(time), p))
        };
        view.processors().filter(|&p| view.can_run(stage, p)).filter_map(latency).min()
    }

    fn put(&mut self, view: &View<'_>, times: &mut Times, stage: StageId, processor: ProcessorId) {
        let left = times.of(view, stage)[processor.index()];
        let latency = left.map_or(Nanos::ZERO, |rest| rest.stage).saturating_add(view.setup(stage, processor));
        if stage.index() >= self.places.len() {
            self.places.resize(stage.index() + 1, None);
        }
        let (serial, number) = (view.stage(stage).serial, self.next);
        self.places[stage.index()] = Some(Place { serial, number, processor, latency });
        self.next += 1;
        self.lengthen(view, processor, latency);
    }
}

/// Time until the runs of a processor are done, by nominal latencies; shared out among its slots. Zero while a slot is free.
pub(crate) fn busy_for(view: &View<'_>, processor: ProcessorId) -> Nanos {
    if view.free_slots(processor) > 0 {
        return Nanos::ZERO;
    }
    let runs = &view.occupancy(processor).runs;
    let left: Nanos = runs.iter().map(|run| run.expected_end.saturating_sub(view.now())).sum();
    Nanos(left.0 / runs.len().max(1) as u64)
}

impl Order for Queues {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.queued(view, stage).map_or(u64::MAX, |place| place.number)
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        let place = self.queued(view, stage)?;
        plan.fits(view, stage, place.processor).then_some(place.processor)
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.queued(view, stage).is_some_and(|place| place.processor == processor)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn the_longest_of_the_shortest_latencies_chooses_first() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let small = rig.stream("small", Some(10.0), &[Some(6.0), Some(4.0)]);
        let big = rig.stream("big", Some(90.0), &[Some(30.0), Some(9.0)]);
        let (small, big) = (rig.ready(small, 0.0), rig.ready(big, 0.0));
        // 9 ms is longer than 4; after it the NPU would take 13 ms, the CPU 6.
        assert_eq!(rig.decide("band-sel"), [start(big, 1), start(small, 0)]);
    }

    #[test]
    fn a_stage_stays_in_its_queue_even_if_another_processor_falls_idle() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let source = rig.stream("s", Some(100.0), &[Some(20.0), Some(5.0)]);
        rig.running(source, 1, 0.0);
        let mut policy = rig.make("band-sel");
        rig.state.now = ms(1.0);
        rig.ready(source, 1.0);
        assert_eq!(rig.decide_with(&mut policy), [], "4 + 5 ms in the NPU's queue, 20 ms on the CPU");
        // The run takes far longer than expected. A new decision would not wait, but this one stands.
        rig.state.processors[onbeat_core::id::ProcessorId(1)].runs[0].expected_end = ms(90.0);
        assert_eq!(rig.decide_with(&mut policy), []);
        assert_eq!(rig.decide("band-sel").len(), 1);
    }

    #[test]
    fn decode_joins_a_batch_of_its_own_queue() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 2);
        rig.running_decode(chat, 0, 0.0);
        let second = rig.ready_decode(chat, 0.0);
        assert_eq!(rig.decide("band-sel"), [start(second, 0)]);
    }
}
