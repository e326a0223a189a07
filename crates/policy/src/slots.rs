//! When each slot will be free by nominal latencies, and where a stage would finish first, busy processors included. For policies
//! that plan with finish times.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, View};
use onbeat_core::units::Nanos;

use crate::plan::{Plan, batch_max, holding_time};
use crate::times::Times;

/// The slots of all processors during one decision. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    plan: Plan,
    times: Times,
    /// When each slot will be free, with what this decision puts there; by processor, idle slots first.
    free_at: Vec<Nanos>,
    /// Where each processor's slots begin in `free_at`, and the end.
    first: Vec<usize>,
    /// Each processor's slot that will be free first, and when.
    earliest: Vec<(Nanos, usize)>,
}

/// A place for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// When the stage would be done there.
    pub(crate) finish: Nanos,
    /// Of two places with the same finish the idle one is taken.
    busy: bool,
    pub(crate) processor: ProcessorId,
    slot: usize,
}

impl Place {
    /// Whether the stage can start there now.
    pub(crate) fn idle(&self) -> bool {
        !self.busy
    }
}

impl Slots {
    /// Starts a decision: everything is as the view says.
    pub(crate) fn begin(&mut self, view: &View<'_>) {
        self.plan.begin(view);
        self.free_at.clear();
        self.first.clear();
        for processor in view.processors() {
            self.first.push(self.free_at.len());
            let free = view.free_slots(processor) as usize;
            self.free_at.extend(std::iter::repeat_n(view.now(), free));
            let runs = &view.occupancy(processor).runs;
            self.free_at.extend(runs.iter().map(|run| run.expected_end.max(view.now())));
        }
        self.first.push(self.free_at.len());
        self.earliest.clear();
        for processor in view.processors() {
            self.earliest.push(self.earliest_of(processor));
        }
    }

    fn earliest_of(&self, processor: ProcessorId) -> (Nanos, usize) {
        let range = self.first[processor.index()]..self.first[processor.index() + 1];
        let slots = range.map(|slot| (self.free_at[slot], slot));
        slots.min().expect("every processor has a slot")
    }

    /// Whether the stage could start anywhere at all: a slot is idle, or it could join a batch.
    pub(crate) fn is_open(&self, view: &View<'_>, stage: StageId) -> bool {
        self.plan.has_free() || self.plan.batch_for(view, stage, |_| true).is_some()
    }

    /// What is left of a stage on the mean over the processors that can run it [ns].
    pub(crate) fn mean_rest_ns(&mut self, view: &View<'_>, stage: StageId) -> f64 {
        let rest = self.times.of(view, stage).iter().flatten();
        let (sum, count) = rest.fold((0.0, 0.0), |(sum, count), rest| (sum + rest.stage.as_f64(), count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// Where a stage would finish first.
    pub(crate) fn best(&mut self, view: &View<'_>, stage: StageId) -> Option<Place> {
        view.processors().filter_map(|processor| self.on(view, stage, processor)).min()
    }

    /// Appends how long a stage would hold each processor, setup included; `None` where it cannot run now. It does not change during
    /// a decision.
    pub(crate) fn own_times(&mut self, view: &View<'_>, stage: StageId, own: &mut Vec<Option<Nanos>>) {
        let rest = self.times.of(view, stage);
        own.extend(view.processors().zip(rest).map(|(processor, rest)| {
            let rest = rest.filter(|_| view.can_run(stage, processor))?;
            Some(rest.stage.saturating_add(view.setup(stage, processor)))
        }));
    }

    /// Where a stage with these [own times](Self::own_times) would finish first and second (on another processor).
    pub(crate) fn best_two(&self, own: &[Option<Nanos>]) -> Option<(Place, Option<Place>)> {
        let (mut best, mut second): (Option<Place>, Option<Place>) = (None, None);
        for (number, (&(free_at, slot), own)) in self.earliest.iter().zip(own).enumerate() {
            let Some(own) = *own else { continue };
            let processor = ProcessorId::new(number);
            let finish = free_at.saturating_add(own);
            let place = Place { finish, busy: !self.plan.is_free(processor), processor, slot };
            if best.is_none_or(|best| place < best) {
                second = best.replace(place);
            } else if second.is_none_or(|second| place < second) {
                second = Some(place);
            }
        }
        Some((best?, second))
    }

    /// The place of a stage on one processor; `None` if it cannot run there.
    pub(crate) fn on(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Place> {
        if !view.can_run(stage, processor) {
            return None;
        }
        let rest = self.times.of(view, stage)[processor.index()]?;
        let time = rest.stage.saturating_add(view.setup(stage, processor));
        let (free_at, slot) = self.earliest[processor.index()];
        let finish = free_at.saturating_add(time);
        Some(Place { finish, busy: !self.plan.is_free(processor), processor, slot })
    }

    /// Gives a stage its place: it starts there if the slot is idle. Otherwise it joins a batch on one of the processors `allowed`,
    /// if it would be done there no later, or else the slot counts as taken.
    pub(crate) fn take(
        &mut self,
        view: &View<'_>,
        stage: StageId,
        place: Place,
        allowed: impl Fn(ProcessorId) -> bool,
        actions: &mut Actions,
    ) {
        if !place.busy {
            self.plan.start(view, stage, place.processor, actions);
        } else if let Some(processor) =
            self.plan.batch_for(view, stage, |p| allowed(p) && joined_finish(view, stage, p) <= place.finish)
        {
            self.plan.join(view, stage, processor, actions);
            return;
        }
        self.free_at[place.slot] = place.finish;
        self.earliest[place.processor.index()] = self.earliest_of(place.processor);
    }
}

/// When a stage in decode would be done if it joined a batch on a processor, slowed down by the larger batch.
fn joined_finish(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Nanos {
    let Some(time) = holding_time(view, stage, processor) else { return Nanos::MAX };
    let runs = view.occupancy(processor).runs.iter().filter(|run| run.model == view.stage(stage).model);
    let size = runs.map(|run| run.others.len() as u32 + 2).max().unwrap_or(2);
    let phase = usize::from(view.stage(stage).phase);
    let cost = view.cost(stage, processor).map(|cost| &cost.phases[phase].1);
    let slowdown = cost.map_or(1.0, |cost| cost.batch_factor(size.min(batch_max(view, stage, processor))));
    view.now().saturating_add(Nanos::from_ns_f64(time.as_f64() * slowdown))
}
