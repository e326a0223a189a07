//! When every slot will be free, and what a greedy plan for all that has to be done would miss: what `onbeat` decides by.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::units::Nanos;

use crate::foreseen::Sporadic;

/// Where a stage cannot run.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// What something takes on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Time [ns]; [`NOWHERE`] if it cannot run there.
    pub(crate) ns: u64,
    /// Units that it takes there; 1 on a processor that cannot be divided.
    pub(crate) units: u32,
}

/// Something that has to be done: a ready stage, or a job that will be released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Latest start at which it is still on time on its fastest processor.
    pub(crate) latest: Nanos,
    pub(crate) stage: Option<StageId>,
    /// What the stage does next.
    pub(crate) kind: Phase,
    /// Whether a small model may draft it.
    pub(crate) drafted: bool,
    pub(crate) release: Nanos,
    pub(crate) due: Nanos,
    /// What being late costs: the mean time between jobs of the source [ns]; for a token, its share of the request's.
    pub(crate) weight: u64,
    /// Whether it has waited for a harmless moment long enough.
    pub(crate) impatient: bool,
    /// Whether it vanishes instead of running late.
    pub(crate) droppable: bool,
    /// Its row of times, in the variant in which it is done first: what others may count on.
    pub(crate) row: usize,
    /// First row of the variants that it may run, the best one first, and their number; 0 without a choice.
    pub(crate) variants: (usize, usize),
    /// Whether it has no deadline: being late is no reason to run a worse variant.
    pub(crate) unhurried: bool,
    /// Whether it has one and cannot meet it any more.
    pub(crate) hopeless: bool,
    pub(crate) started: bool,
}

impl Task {
    /// Something that plans reckon with, and that the decision at hand does not start: a job that will be released, or work that runs. It
    /// takes `least` on its fastest processor.
    pub(crate) fn foreseen(kind: Phase, row: usize, (release, due): (Nanos, Nanos), least: Nanos, weight: u64) -> Self {
        Self {
            latest: due.saturating_sub(least),
            stage: None,
            kind,
            drafted: false,
            release,
            due,
            weight,
            impatient: false,
            droppable: false,
            row,
            variants: (row, 0),
            unhurried: false,
            hopeless: false,
            started: false,
        }
    }
}

/// Where and when something could start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// When it would be done.
    pub(crate) finish: Nanos,
    pub(crate) processor: ProcessorId,
    /// Units that it takes there.
    pub(crate) units: u32,
    /// When so many are free.
    pub(crate) free: Nanos,
}

/// Slots, tasks, and what each task takes where. Processors that can be divided have a slot for each of their units.
#[derive(Clone, Debug)]
pub(crate) struct Timetable {
    /// Ready stages, those that wait longest first, and then upcoming jobs by source.
    pub(crate) tasks: Vec<Task>,
    /// Tasks by latest start, with their place in `tasks`, which decides ties. Small, because sorting moves it about.
    pub(crate) order: Vec<(Nanos, u32)>,
    /// Time of each task, in each variant that it may run, on each processor [ns], row by row.
    spans: Vec<u64>,
    /// The units that each of them takes; empty if no processor can be divided.
    units: Vec<u32>,
    /// Length of a row: the number of processors.
    columns: usize,
    /// Whether a processor can be divided.
    divided: bool,
    /// When each slot will be free, with what this decision puts there; processors in their order.
    slots: Vec<(ProcessorId, Nanos)>,
    /// The same, if what can be preempted is.
    yielding: Vec<(ProcessorId, Nanos)>,
    scratch: Vec<(ProcessorId, Nanos)>,
}

impl Timetable {
    pub(crate) fn new(processors: usize, divided: bool) -> Self {
        Self {
            tasks: Vec::new(),
            order: Vec::new(),
            spans: Vec::new(),
            units: Vec::new(),
            columns: processors,
            divided,
            slots: Vec::new(),
            yielding: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Empties it.
    pub(crate) fn begin(&mut self) {
        self.tasks.clear();
        self.order.clear();
        self.spans.clear();
        self.units.clear();
        self.slots.clear();
        self.yielding.clear();
    }

    /// Adds slots of a processor that will be free at a time, or at an earlier one for what is more urgent.
    pub(crate) fn add_slots(&mut self, processor: ProcessorId, count: u32, free: Nanos, yields: Nanos) {
        self.slots.extend(std::iter::repeat_n((processor, free), count as usize));
        self.yielding.extend(std::iter::repeat_n((processor, yields), count as usize));
    }

    /// Whether any slot is free.
    pub(crate) fn has_free(&self, now: Nanos) -> bool {
        self.slots.iter().any(|slot| slot.1 <= now)
    }

    /// How many slots of a processor are free by a time.
    pub(crate) fn free_by(&self, p: ProcessorId, time: Nanos) -> u32 {
        self.slots.iter().filter(|slot| slot.0 == p && slot.1 <= time).count() as u32
    }

    /// The number of the row that the next [`Timetable::add_span`] begins.
    pub(crate) fn next_row(&self) -> usize {
        self.spans.len() / self.columns
    }

    /// Adds the next entry of a row: one for each processor, in their order.
    pub(crate) fn add_span(&mut self, span: Span) {
        self.spans.push(span.ns);
        if self.divided {
            self.units.push(span.units);
        }
    }

    /// What a row says of a processor.
    pub(crate) fn span(&self, row: usize, p: ProcessorId) -> Span {
        let place = row * self.columns + p.index();
        Span { ns: self.spans[place], units: self.units.get(place).copied().unwrap_or(1) }
    }

    /// Puts the tasks in order.
    pub(crate) fn sort(&mut self) {
        self.order.clear();
        self.order.extend(self.tasks.iter().enumerate().map(|(i, task)| (task.latest, i as u32)));
        self.order.sort_unstable();
    }

    /// Where a row lets a task that is released at `release` finish first. Ties: the first processor.
    pub(crate) fn place(&self, row: usize, release: Nanos) -> Option<Place> {
        place_in(&self.slots, self.row(row), release)
    }

    /// Where a row lets a task start on a processor.
    pub(crate) fn place_on(&self, row: usize, p: ProcessorId, release: Nanos) -> Option<Place> {
        let Span { ns, units } = self.span(row, p);
        if ns == NOWHERE {
            return None;
        }
        let free = if units == 1 {
            self.slots.iter().filter(|slot| slot.0 == p).map(|slot| slot.1).min()?
        } else {
            free_from(&self.slots, p, units)?
        };
        Some(Place { finish: free.max(release).saturating_add(Nanos(ns)), processor: p, units, free })
    }

    /// A task is put where it was said that it could start, until a time.
    pub(crate) fn put(&mut self, place: Place, until: Nanos) {
        occupy(&mut self.slots, place.processor, place.units, until);
        occupy(&mut self.yielding, place.processor, place.units, until);
    }

    fn row(&self, row: usize) -> Row<'_> {
        let range = row * self.columns..(row + 1) * self.columns;
        Row { spans: &self.spans[range.clone()], units: self.units.get(range).unwrap_or(&[]) }
    }

    /// What would be missed, by weight, if each task took the slot where it finishes first, in order of latest start, with something put
    /// at some places up to a time. Task number `skip` takes no part. Stops counting above `limit`.
    pub(crate) fn missed(&mut self, put: &[Place], until: Nanos, skip: Option<usize>, limit: u64) -> u64 {
        let mut slots = std::mem::take(&mut self.scratch);
        slots.clear();
        slots.extend_from_slice(&self.yielding);
        for place in put {
            occupy(&mut slots, place.processor, place.units, until);
        }
        let mut missed = 0_u64;
        for &(_, i) in &self.order {
            let task = &self.tasks[i as usize];
            if task.started || skip == Some(i as usize) {
                continue;
            }
            let row = self.row(task.row);
            let (finish, slot, wide) = if row.units.is_empty() {
                let mut best = (u64::MAX, usize::MAX);
                for (slot, &(p, free)) in slots.iter().enumerate() {
                    // The sum saturates where it cannot run.
                    let finish = free.max(task.release).0.saturating_add(row.spans[p.index()]);
                    if finish < best.0 {
                        best = (finish, slot);
                    }
                }
                (best.0, best.1, None)
            } else {
                let place = place_in(&slots, row, task.release);
                (place.map_or(u64::MAX, |place| place.finish.0), usize::MAX, place)
            };
            if slot == usize::MAX && wide.is_none() {
                continue;
            }
            let late = finish > task.due.0;
            if late {
                missed = missed.saturating_add(task.weight);
                if missed > limit {
                    break;
                }
            }
            if late && task.droppable {
                continue;
            }
            match wide {
                Some(place) => occupy(&mut slots, place.processor, place.units, Nanos(finish)),
                None => slots[slot].1 = Nanos(finish),
            }
        }
        self.scratch = slots;
        missed
    }

    /// What jobs that may come at any time would miss, with something put somewhere up to a time: for each source the length of time in
    /// which one that came would be late, which is the chance that one comes, times what missing it costs.
    pub(crate) fn exposed(&mut self, sporadic: &[Sporadic], now: Nanos, put: Option<(Place, Nanos)>) -> u64 {
        let mut slots = std::mem::take(&mut self.scratch);
        slots.clear();
        slots.extend_from_slice(&self.slots);
        if let Some((place, until)) = put {
            occupy(&mut slots, place.processor, place.units, until);
        }
        let exposed = sporadic.iter().map(|source| {
            // The first arrival that is on time: on some processor it begins no later than its goal allows.
            let on_time = slots.iter().filter_map(|&(p, free)| Some(free.saturating_sub(source.slack[p]?)));
            on_time.min().map_or(0, |first| first.saturating_sub(now).0)
        });
        let sum = exposed.sum();
        self.scratch = slots;
        sum
    }
}

/// A row of times, and of units if processors can be divided.
#[derive(Clone, Copy)]
struct Row<'t> {
    spans: &'t [u64],
    units: &'t [u32],
}

fn place_in(slots: &[(ProcessorId, Nanos)], row: Row<'_>, release: Nanos) -> Option<Place> {
    let mut best: Option<Place> = None;
    let mut consider = |processor: ProcessorId, units: u32, free: Nanos, span: u64| {
        let finish = free.max(release).saturating_add(Nanos(span));
        if best.is_none_or(|best| finish < best.finish) {
            best = Some(Place { finish, processor, units, free });
        }
    };
    let mut last = None;
    for &(p, free) in slots {
        let span = row.spans[p.index()];
        if span == NOWHERE {
            continue;
        }
        match row.units.get(p.index()) {
            None | Some(1) => consider(p, 1, free, span),
            // Once for all of its units.
            Some(&units) if last != Some(p) => {
                if let Some(free) = free_from(slots, p, units) {
                    consider(p, units, free, span);
                }
            }
            Some(_) => {}
        }
        last = Some(p);
    }
    best
}

/// When so many units of a processor are free; `None` if it has fewer.
fn free_from(slots: &[(ProcessorId, Nanos)], p: ProcessorId, units: u32) -> Option<Nanos> {
    let of = || slots.iter().filter(|slot| slot.0 == p).map(|slot| slot.1);
    // Few units: counting beats sorting.
    of().filter(|&free| of().filter(|&other| other <= free).count() >= units as usize).min()
}

/// Takes the units of a processor that are free first, until a time.
fn occupy(slots: &mut [(ProcessorId, Nanos)], p: ProcessorId, units: u32, until: Nanos) {
    for _ in 0..units {
        let first = slots.iter_mut().filter(|slot| slot.0 == p).min_by_key(|slot| slot.1);
        first.expect("a place has as many slots as units").1 = Nanos::MAX;
    }
    for slot in slots.iter_mut().filter(|slot| slot.0 == p && slot.1 == Nanos::MAX) {
        slot.1 = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(ns: u64) -> Nanos {
        Nanos(ns)
    }

    #[test]
    fn wide_work_waits_until_enough_units_are_free() {
        let npu = ProcessorId(0);
        let mut table = Timetable::new(1, true);
        table.add_slots(npu, 1, ns(0), ns(0));
        table.add_slots(npu, 1, ns(20), ns(20));
        table.add_slots(npu, 1, ns(50), ns(50));
        for (units, span) in [(1, 10), (2, 6), (3, 4), (4, 1)] {
            table.add_span(Span { ns: span, units });
        }
        let place = |table: &Timetable, row| table.place(row, ns(5)).map(|place| (place.free.0, place.finish.0));
        let places = [0, 1, 2, 3].map(|row| place(&table, row));
        assert_eq!(places, [Some((0, 15)), Some((20, 26)), Some((50, 54)), None]);
        let two = table.place(1, ns(5)).unwrap();
        table.put(two, two.finish);
        assert_eq!(place(&table, 0), Some((26, 36)), "both units are taken until 26");
        assert_eq!(place(&table, 2), Some((50, 54)));
    }

    #[test]
    fn exposure_is_the_time_in_which_an_arrival_would_be_late() {
        let (npu, cpu) = (ProcessorId(0), ProcessorId(1));
        let mut table = Timetable::new(2, false);
        table.add_slots(npu, 1, ns(0), ns(0));
        table.add_slots(cpu, 1, ns(0), ns(0));
        table.add_span(Span { ns: 100, units: 1 });
        table.add_span(Span { ns: NOWHERE, units: 1 });
        // It can wait for 30 ns if it starts on the NPU, and for 10 on the CPU.
        let sporadic = [Sporadic { slack: [Some(ns(30)), Some(ns(10))].into_iter().collect() }];
        assert_eq!(table.exposed(&sporadic, ns(0), None), 0);
        let place = table.place(0, ns(0)).unwrap();
        assert_eq!(table.exposed(&sporadic, ns(0), Some((place, ns(100)))), 0, "the CPU is free");
        table.put(Place { finish: ns(80), processor: cpu, units: 1, free: ns(0) }, ns(80));
        // From 70 on it is on time on either.
        assert_eq!(table.exposed(&sporadic, ns(0), Some((place, ns(100)))), 70);
    }
}
