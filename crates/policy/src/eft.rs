//! `eft`: in order of due time, each stage goes where it would finish first, even if that means waiting for a busy processor.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::{Plan, batch_max, holding_time};
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "eft",
    summary: "Earliest due first, where it finishes first: waits for a busy processor that is worth it",
    group: "RTGen-style",
    parameters: &[],
    reference: "Topcuoglu, Hariri and Wu, Performance-Effective and Low-Complexity Task Scheduling for Heterogeneous Computing (HEFT), IEEE TPDS 13(3), 2002",
    build,
};

/// Earliest finish time.
#[derive(Clone, Debug, Default)]
struct Eft {
    plan: Plan,
    times: Times,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// When each slot will be free, with what this decision puts there; by processor, idle slots first.
    slots: Vec<Nanos>,
    /// Where each processor's slots begin in `slots`, and the end.
    first: Vec<usize>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<Eft>::default())
}

/// A place for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    finish: Nanos,
    /// Of two places with the same finish the idle one is taken.
    busy: bool,
    processor: ProcessorId,
    slot: usize,
}

impl Policy for Eft {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let ready = view.ready();
        if ready.is_empty() {
            return;
        }
        self.plan.begin(view);
        let joins = |&stage: &StageId| self.plan.batch_for(view, stage, |_| true).is_some();
        if !self.plan.has_free() && !ready.iter().any(joins) {
            return;
        }
        self.list_slots(view);
        self.queue.clear();
        self.queue.extend(ready.iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        if self.queue.len() > 1 {
            self.queue.sort_unstable();
        }
        let mut end = self.queue.len();
        let mut i = 0;
        while i < end {
            let stage = self.queue[i].2;
            i += 1;
            // A stage that memory has refused everywhere waits until some is freed.
            let Some(place) = self.best_place(view, stage) else { continue };
            if !place.busy {
                self.plan.start(view, stage, place.processor, actions);
                if !self.plan.has_free() {
                    // From here on only batches can be joined; what comes after the last stage that could is not looked at.
                    let joins =
                        |&(_, _, stage): &(Nanos, u64, StageId)| self.plan.batch_for(view, stage, |_| true).is_some();
                    end = self.queue.iter().rposition(joins).map_or(0, |last| last + 1);
                }
            } else if let Some(processor) = self.batch_before(view, stage, place.finish) {
                self.plan.join(view, stage, processor, actions);
                continue;
            }
            self.slots[place.slot] = place.finish;
        }
    }
}

impl Eft {
    fn list_slots(&mut self, view: &View<'_>) {
        self.slots.clear();
        self.first.clear();
        for processor in view.processors() {
            self.first.push(self.slots.len());
            let free = view.free_slots(processor) as usize;
            self.slots.extend(std::iter::repeat_n(view.now(), free));
            let runs = &view.occupancy(processor).runs;
            self.slots.extend(runs.iter().map(|run| run.expected_end.max(view.now())));
        }
        self.first.push(self.slots.len());
    }

    fn best_place(&mut self, view: &View<'_>, stage: StageId) -> Option<Place> {
        let left = self.times.of(view, stage);
        let able = view.processors().filter(|&p| view.can_run(stage, p));
        let places = able.filter_map(|processor| {
            let time = left[processor.index()]?.stage.saturating_add(view.setup(stage, processor));
            let range = self.first[processor.index()]..self.first[processor.index() + 1];
            let slot = range.min_by_key(|&slot| self.slots[slot])?;
            let finish = self.slots[slot].saturating_add(time);
            Some(Place { finish, busy: !self.plan.is_free(processor), processor, slot })
        });
        places.min()
    }

    /// A batch that the stage could join and be done with no later than `finish`.
    fn batch_before(&self, view: &View<'_>, stage: StageId, finish: Nanos) -> Option<ProcessorId> {
        self.plan.batch_for(view, stage, |processor| {
            let Some(time) = holding_time(view, stage, processor) else { return false };
            let runs = view.occupancy(processor).runs.iter().filter(|run| run.model == view.stage(stage).model);
            let size = runs.map(|run| run.others.len() as u32 + 2).max().unwrap_or(2);
            let phase = usize::from(view.stage(stage).phase);
            let cost = view.cost(stage, processor).map(|cost| &cost.phases[phase].1);
            let size = size.min(batch_max(view, stage, processor));
            let slowdown = cost.map_or(1.0, |cost| cost.batch_factor(size));
            view.now().saturating_add(Nanos::from_ns_f64(time.as_f64() * slowdown)) <= finish
        })
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    fn rig() -> Rig {
        Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)])
    }

    #[test]
    fn waits_for_a_busy_processor_that_is_worth_it() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(20.0), Some(5.0)]);
        rig.running(source, 1, 0.0);
        rig.state.now = ms(1.0);
        let waiting = rig.ready(source, 1.0);
        // The NPU is free at 5 ms and done at 10 ms; the CPU would be done at 21 ms.
        assert_eq!(rig.decide("eft"), []);
        assert_eq!(rig.decide("edf"), [start(waiting, 0)], "edf takes what is idle");
    }

    #[test]
    fn counts_the_backlog_of_its_own_decision() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(11.0), Some(5.0)]);
        let stages: Vec<_> = (0..3).map(|_| rig.ready(source, 0.0)).collect();
        // NPU: 5, 10 (waits), then 15 against 11 on the CPU.
        assert_eq!(rig.decide("eft"), [start(stages[0], 1), start(stages[2], 0)]);
    }

    #[test]
    fn the_earliest_due_chooses_first() {
        let mut rig = rig();
        let late = rig.stream("late", Some(100.0), &[Some(6.0), Some(5.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(7.0), Some(5.0)]);
        let (late, soon) = (rig.ready(late, 0.0), rig.ready(soon, 0.0));
        assert_eq!(rig.decide("eft"), [start(soon, 1), start(late, 0)]);
    }

    #[test]
    fn an_idle_processor_goes_before_a_busy_one_with_the_same_finish() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(5.0), Some(5.0)]);
        rig.running(source, 0, 0.0);
        rig.state.now = ms(9.0);
        let stage = rig.ready(source, 9.0);
        assert_eq!(rig.decide("eft"), [start(stage, 1)], "the CPU's run is overdue and may end at any moment, or not");
    }

    #[test]
    fn decode_joins_a_batch_rather_than_wait_for_it() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 4);
        rig.running_decode(chat, 0, 0.0);
        let second = rig.ready_decode(chat, 0.0);
        assert_eq!(rig.decide("eft"), [start(second, 0)]);
    }
}
