//! `mct`: every stage is bound, as soon as it is ready, to the processor where it would finish first, and stays with it.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};
use crate::slots::Slots;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "mct",
    summary: "First come, first served: bound on arrival to the processor where it finishes first, counting the queue there",
    group: "DAG",
    parameters: &[],
    reference: "Maheswaran, Ali, Siegel, Hensgen and Freund, Dynamic Mapping of a Class of Independent Tasks onto Heterogeneous Computing Systems, JPDC 59(2), 1999",
    build,
};

/// Minimum completion time, immediate mode.
#[derive(Clone, Debug, Default)]
struct Mct {
    slots: Slots,
    /// Ready stages by serial.
    queue: Vec<(u64, StageId)>,
    /// What each stage is bound to, by [`StageId`].
    bound: Vec<Option<Binding>>,
}

/// A phase of a stage and its processor. Serials are never reused, ids are.
#[derive(Clone, Copy, Debug)]
struct Binding {
    serial: u64,
    phase: u8,
    processor: ProcessorId,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<Mct>::default())
}

impl Policy for Mct {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.slots.begin(view);
        self.queue.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        // What is bound already was there first: a new stage sees the queues as they are.
        for i in 0..self.queue.len() {
            let (_, stage) = self.queue[i];
            if let Some(processor) = self.bound_to(view, stage)
                && let Some(place) = self.slots.on(view, stage, processor)
            {
                self.slots.take(view, stage, place, |p| p == processor, actions);
            }
        }
        for i in 0..self.queue.len() {
            let (serial, stage) = self.queue[i];
            if self.bound_to(view, stage).is_some() {
                continue;
            }
            // A stage that memory has refused everywhere is bound when some is freed.
            let Some(place) = self.slots.best(view, stage) else { continue };
            let binding = Binding { serial, phase: view.stage(stage).phase, processor: place.processor };
            self.bound[stage.index()] = Some(binding);
            self.slots.take(view, stage, place, |p| p == place.processor, actions);
        }
    }
}

impl Mct {
    /// The processor that the stage's phase is bound to, unless memory has refused the stage there.
    fn bound_to(&mut self, view: &View<'_>, stage: StageId) -> Option<ProcessorId> {
        if stage.index() >= self.bound.len() {
            self.bound.resize(stage.index() + 1, None);
        }
        let live = view.stage(stage);
        let binding = self.bound[stage.index()].filter(|b| b.serial == live.serial && b.phase == live.phase)?;
        view.can_run(stage, binding.processor).then_some(binding.processor)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn stays_where_it_was_bound_even_if_another_processor_is_idle_again() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let long = rig.stream("long", None, &[None, Some(10.0)]);
        let task = rig.stream("task", None, &[Some(20.0), Some(5.0)]);
        let running = rig.running(long, 1, 0.0);
        let mut policy = rig.make("mct");
        let waiting = rig.ready(task, 0.0);
        // NPU 10 + 5 = 15 ms, CPU 20 ms: bound to the NPU.
        assert_eq!(rig.decide_with(&mut policy), []);
        // The run overruns. A new decision would expect 14 + 5 < 14 + 20 anyway; but even a slow NPU is not left.
        rig.state.now = ms(14.0);
        rig.state.processors[onbeat_core::id::ProcessorId(1)].runs[0].expected_end = ms(60.0);
        assert_eq!(rig.decide_with(&mut policy), [], "bound to the NPU, though the CPU would be done at 34 ms");
        assert_eq!(rig.decide("eft"), [start(waiting, 0)]);
        rig.stop(running);
        rig.state.ready.retain(|&stage| stage != running);
        assert_eq!(rig.decide_with(&mut policy), [start(waiting, 1)]);
    }

    #[test]
    fn new_stages_see_the_queue_of_bound_ones() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let task = rig.stream("task", None, &[Some(12.0), Some(5.0)]);
        let stages: Vec<_> = (0..3).map(|_| rig.ready(task, 0.0)).collect();
        // NPU at 5 and 10 ms; the third would be done at 15 ms there, and is at 12 ms on the CPU.
        assert_eq!(rig.decide("mct"), [start(stages[0], 1), start(stages[2], 0)]);
    }

    #[test]
    fn is_bound_anew_where_memory_refuses_it() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let task = rig.stream("task", None, &[Some(12.0), Some(5.0)]);
        let stage = rig.ready(task, 0.0);
        let mut policy = rig.make("mct");
        assert_eq!(rig.decide_with(&mut policy), [start(stage, 1)]);
        rig.state.stages[stage].refused = 0b10;
        assert_eq!(rig.decide_with(&mut policy), [start(stage, 0)]);
    }
}
