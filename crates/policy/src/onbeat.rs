//! `onbeat`: starts nothing that would make somebody else late, and waits for the right processor.
//!
//! Before it starts a stage, it asks what would become of everybody else: it plans the ready stages and the next jobs of the periodic
//! streams greedily, once with the stage started and once without, and compares what each plan misses. A miss weighs as much as the
//! time between two jobs of its source, so that every source counts alike, whatever its rate.

use onbeat_core::cost::{Cost, Phase};
use onbeat_core::id::{Id, IdVec, JobId, ProcessorId, SourceId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::spec::{DropRule, Preemption};
use onbeat_core::state::Run;
use onbeat_core::system::{Arrival, System};
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;
use crate::variants::Choices;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "onbeat",
    summary: "Starts a stage only where it harms no deadline, its own included; generative work fills the gaps",
    group: "onbeat",
    parameters: &[
        ParameterInfo {
            name: "horizon_ms",
            default: "200",
            meaning: "how far ahead the releases of periodic streams are taken into account, in milliseconds, from 0",
        },
        ParameterInfo {
            name: "quantum_ms",
            default: "20",
            meaning: "the longest that work with preemption points runs before it is looked at again, in milliseconds, from 0 (0: one segment)",
        },
        ParameterInfo {
            name: "patience_ms",
            default: "500",
            meaning: "how long work that has no deadline, or cannot meet it any more, waits at most for a harmless moment, in milliseconds, from 0",
        },
    ],
    reference: "onbeat's own; built from what measured failures teach: XSched (OSDI 2025) for laxity, XRBench (MLSys 2023) for feasibility before dispatch, HEFT (IEEE TPDS 2002) for waiting for the faster processor",
    build,
};

/// Most planned jobs per stream; bounds the cost of a decision.
const UPCOMING_PER_SOURCE_MAX: u32 = 8;

/// Most stages in one decision for which plans are made; bounds its cost. What is left over is looked at in the next decision.
const PLANNED_MAX: u32 = 16;

/// Where a stage cannot run.
const NOWHERE: u64 = u64::MAX;

/// onbeat's own policy.
#[derive(Clone, Debug)]
struct Onbeat {
    horizon: Nanos,
    quantum: Nanos,
    patience: Nanos,
    /// Periodic streams with a deadline: what each of their jobs needs.
    streams: Vec<Stream>,
    /// Sources with a deadline or a goal whose jobs may come at any time.
    sporadic: Vec<Sporadic>,
    plan: Plan,
    times: Times,
    choices: Choices,
    /// Ready stages and upcoming jobs.
    tasks: Vec<Task>,
    /// Tasks by latest start, then by tie: both, and the place in `tasks`. Small, because sorting moves it about.
    order: Vec<(Nanos, u64, u32)>,
    /// Time of each task, in each variant that it may run, on each processor [ns], row by row; [`NOWHERE`] if it cannot run there.
    spans: Vec<u64>,
    /// Length of a row: the number of processors.
    columns: usize,
    /// When each slot will be free, with what this decision puts there.
    slots: Vec<(ProcessorId, Nanos)>,
    scratch: Vec<(ProcessorId, Nanos)>,
    /// What is missed with what this decision has started so far, if that was computed.
    without: Option<u64>,
    /// Stages for which this decision has made plans.
    planned: u32,
    /// Until when each stage was last given a processor, with its serial, by [`StageId`].
    served: Vec<(u64, Nanos)>,
}

/// A periodic stream with a deadline.
#[derive(Clone, Debug)]
struct Stream {
    source: SourceId,
    first: Nanos,
    period: Nanos,
    deadline: Nanos,
    /// Time of a whole job if it ran on each processor, stages that cannot run there on their fastest one [ns].
    spans: IdVec<ProcessorId, u64>,
    shortest: Nanos,
    droppable: bool,
}

/// A source whose jobs may come at any time.
#[derive(Clone, Debug)]
struct Sporadic {
    /// By how much a job meets its first goal – for the first token, otherwise for the end – if it starts at once on each processor: the
    /// goal less what has to be done by then; `None` where it cannot.
    slack: IdVec<ProcessorId, Option<Nanos>>,
}

/// Something that has to be done: a ready stage, or a job that will be released.
#[derive(Clone, Copy, Debug)]
struct Task {
    /// Latest start at which it is still on time on its fastest processor.
    latest: Nanos,
    /// Ties: ready stages in order of readiness, then upcoming jobs by source.
    tie: u64,
    stage: Option<StageId>,
    release: Nanos,
    due: Nanos,
    /// What being late costs: the mean time between jobs of the source [ns]; for a token, its share of the request's.
    weight: u64,
    /// Whether it has waited for a harmless moment long enough.
    impatient: bool,
    /// Whether it vanishes instead of running late.
    droppable: bool,
    /// Its row of times, in the variant in which it is done first: what others may count on.
    row: usize,
    /// First row of the variants that it may run, the best one first, and their number; 0 without a choice.
    variants: (usize, usize),
    /// Whether it has no deadline: being late is no reason to run a worse variant.
    unhurried: bool,
    /// Whether it has one and cannot meet it any more.
    hopeless: bool,
    started: bool,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let streams = system.sources.enumerate().filter_map(|(id, source)| {
        let (&Arrival::Periodic { first, period }, Some(deadline)) = (&source.arrival, source.deadline) else {
            return None;
        };
        let mut spans: IdVec<ProcessorId, u64> = system.platform.processors.iter().map(|_| 0).collect();
        for p in system.platform.processors.ids() {
            let whole = |node| {
                // In the lightest variant, if it comes to that.
                let node = &system.nodes[node];
                let best = node.variants.iter().map(|other| other.best.0).fold(node.best.0, u64::min);
                let span = |variant| {
                    let work = node.work_of(variant, node.expected);
                    node.costs_of(variant)[p].as_ref().map(|cost| cost.total_ns(work) as u64)
                };
                node.variant_numbers().filter_map(span).min().unwrap_or(best)
            };
            let runs_here = system.nodes_of(id).any(|node| system.nodes[node].costs_on(p).next().is_some());
            spans[p] = if runs_here { system.nodes_of(id).map(whole).sum() } else { NOWHERE };
        }
        let shortest = spans.iter().copied().min().map_or(Nanos::ZERO, Nanos);
        let droppable = source.drop != DropRule::None;
        Some(Stream { source: id, first, period, deadline, spans, shortest, droppable })
    });
    Ok(Box::new(Onbeat {
        horizon: parameters.milliseconds("horizon_ms")?,
        quantum: parameters.milliseconds("quantum_ms")?,
        patience: parameters.milliseconds("patience_ms")?,
        streams: streams.collect(),
        sporadic: system.sources.ids().filter_map(|id| Sporadic::new(system, id)).collect(),
        plan: Plan::default(),
        times: Times::default(),
        choices: Choices::new(system),
        tasks: Vec::new(),
        order: Vec::new(),
        spans: Vec::new(),
        columns: system.platform.processors.len(),
        slots: Vec::new(),
        scratch: Vec::new(),
        without: None,
        planned: 0,
        served: Vec::new(),
    }))
}

impl Sporadic {
    fn new(system: &System, id: SourceId) -> Option<Self> {
        let source = &system.sources[id];
        if source.best_effort || (source.deadline.is_some() && matches!(source.arrival, Arrival::Periodic { .. })) {
            return None;
        }
        let goal = source.ttft.or(source.deadline)?;
        let slack = system.platform.processors.ids().map(|p| {
            let mut need = 0.0;
            let mut runs_here = false;
            for node in system.nodes_of(id).map(|node| &system.nodes[node]) {
                let here = node.costs[p].as_ref();
                runs_here |= here.is_some();
                // A tool takes no processor.
                let Some(cost) = here.or(node.costs[node.fastest].as_ref()) else { continue };
                let (kind, first) = &cost.phases[0];
                if source.ttft.is_some() && *kind == Phase::Prefill {
                    need += first.latency_ns(node.expected, 0.0, node.expected.units(*kind));
                    break;
                }
                need += cost.total_ns(node.expected);
            }
            (runs_here && need <= goal.as_f64()).then(|| goal.saturating_sub(Nanos::from_ns_f64(need)))
        });
        let slack: IdVec<ProcessorId, Option<Nanos>> = slack.collect();
        slack.iter().any(Option::is_some).then_some(Self { slack })
    }
}

impl Policy for Onbeat {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.planned = 0;
        self.without = None;
        self.list_slots(view);
        self.list_tasks(view, actions);
        for k in 0..self.order.len() {
            let i = self.order[k].2 as usize;
            if let Some(stage) = self.tasks[i].stage {
                self.serve(view, actions, i, stage);
            }
        }
    }
}

impl Onbeat {
    fn list_slots(&mut self, view: &View<'_>) {
        self.slots.clear();
        for p in view.processors() {
            let free = view.free_slots(p) as usize;
            self.slots.extend(std::iter::repeat_n((p, view.now()), free));
            let runs = &view.occupancy(p).runs;
            self.slots.extend(runs.iter().map(|run| (p, likely_end(view, p, run))));
        }
    }

    /// Lists what has to be done, by latest start. Jobs that cannot be on time any more are dropped, where their scenario allows that.
    fn list_tasks(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.tasks.clear();
        self.spans.clear();
        for &stage in view.ready() {
            let live = view.stage(stage);
            let (row, best, variants) = self.list_spans(view, stage);
            let mut due = view.due(stage);
            let unhurried = due == Nanos::MAX;
            let droppable = view.source(stage).drop != DropRule::None;
            let too_late = match view.source(stage).tpot {
                // A late token can be made up for: the goal is for the mean.
                Some(tpot) if live.kind == Phase::Decode => {
                    let more = u64::from(tokens_left(view, stage)) - 1;
                    let whole = best.saturating_mul(more + 1);
                    view.now().saturating_add(Nanos(whole)) > due.saturating_add(Nanos(tpot.0.saturating_mul(more)))
                }
                _ => view.now().saturating_add(Nanos(best)) > due,
            };
            if due != Nanos::MAX && too_late {
                let free_to_drop = droppable && best != NOWHERE && view.state.jobs[live.job].running == 0;
                if free_to_drop && !is_dropped(actions, live.job) {
                    actions.drop_job(live.job);
                }
                due = Nanos::MAX;
            }
            let soft = due == Nanos::MAX;
            if soft {
                due = self.waits_since(view, stage).saturating_add(self.patience);
            }
            self.tasks.push(Task {
                latest: if soft { due } else { Nanos(due.0.saturating_sub(best)) },
                tie: live.serial,
                stage: Some(stage),
                release: view.now(),
                due,
                weight: weight(view, stage),
                impatient: soft && due <= view.now(),
                droppable: droppable && !soft,
                row,
                variants,
                unhurried,
                hopeless: soft && !unhurried,
                started: false,
            });
        }
        // A job that was just given up takes its other ready stages with it.
        for task in &mut self.tasks {
            if task.stage.is_some_and(|stage| is_dropped(actions, view.stage(stage).job)) {
                task.stage = None;
                task.started = true;
            }
        }
        self.list_upcoming(view);
        self.order.clear();
        self.order.extend(self.tasks.iter().enumerate().map(|(i, task)| (task.latest, task.tie, i as u32)));
        self.order.sort_unstable();
    }

    /// Since when a ready stage waits: when it became ready, or was last given a processor.
    fn waits_since(&self, view: &View<'_>, stage: StageId) -> Nanos {
        let live = view.stage(stage);
        match self.served.get(stage.index()) {
            Some(&(serial, until)) if serial == live.serial => until.min(view.now()).max(live.ready_at),
            _ => live.ready_at,
        }
    }

    /// Remembers that a stage is given a processor until about then.
    fn note(&mut self, view: &View<'_>, stage: StageId, until: Nanos) {
        if stage.index() >= self.served.len() {
            self.served.resize(stage.index() + 1, (u64::MAX, Nanos::ZERO));
        }
        self.served[stage.index()] = (view.stage(stage).serial, until);
    }

    /// Lists what a ready stage takes on each processor, in each variant that it may run: the row of the fastest one, its shortest time
    /// [ns], and the rows of all variants.
    fn list_spans(&mut self, view: &View<'_>, stage: StageId) -> (usize, u64, (usize, usize)) {
        let first = self.spans.len() / self.columns;
        let choices = self.choices.of(view, stage);
        let (mut row, mut best) = (first, NOWHERE);
        for (k, choice) in choices.iter().enumerate() {
            for p in view.processors() {
                let span = choice.span_until_due(view, stage, p).map_or(NOWHERE, |span| span.0);
                if span < best {
                    (row, best) = (first + k, span);
                }
                self.spans.push(span);
            }
        }
        if !choices.is_empty() {
            return (row, best, (first, choices.len()));
        }
        let live = view.stage(stage);
        let left = self.times.of(view, stage);
        for p in view.processors() {
            let span = match left[p.index()].filter(|_| view.can_run(stage, p)) {
                None => NOWHERE,
                // A token is due, not the whole answer.
                Some(rest) if live.kind == Phase::Decode => {
                    rest.phase.0 / u64::from(tokens_left(view, stage)) + view.setup(stage, p).0
                }
                Some(rest) if live.kind == Phase::Prefill => rest.phase.0 + view.setup(stage, p).0,
                Some(rest) => rest.stage.0 + view.setup(stage, p).0,
            };
            best = best.min(span);
            self.spans.push(span);
        }
        (row, best, (first, 0))
    }

    /// Adds the jobs that periodic streams will release within the horizon.
    fn list_upcoming(&mut self, view: &View<'_>) {
        let (now, end) = (view.now(), view.now().saturating_add(self.horizon).min(view.system.duration));
        for stream in &self.streams {
            let source = &view.system.sources[stream.source];
            let passed = (now.0 + 1).saturating_sub(stream.first.0).div_ceil(stream.period.0);
            for k in 0..u64::from(UPCOMING_PER_SOURCE_MAX) {
                let release = Nanos(stream.first.0 + (passed + k) * stream.period.0);
                if release >= end {
                    break;
                }
                if !source.active.is_empty() && !source.active.iter().any(|&(from, to)| from <= release && release < to)
                {
                    continue;
                }
                let due = release.saturating_add(stream.deadline);
                let row = self.spans.len() / self.columns;
                self.spans.extend(stream.spans.iter());
                self.tasks.push(Task {
                    latest: Nanos(due.0.saturating_sub(stream.shortest.0)),
                    tie: u64::MAX - u64::from(u32::MAX) + u64::from(stream.source.0),
                    stage: None,
                    release,
                    due,
                    weight: stream.period.0,
                    impatient: false,
                    droppable: stream.droppable,
                    row,
                    variants: (row, 0),
                    unhurried: false,
                    hopeless: false,
                    started: false,
                });
            }
        }
    }

    fn span(&self, row: usize, p: ProcessorId) -> u64 {
        self.spans[row * self.columns + p.index()]
    }

    /// What would be missed, by weight, if each task took the slot where it finishes first, in order of latest start, with one slot blocked
    /// up to a time. Task number `skip` takes no part. Stops counting above `limit`.
    fn missed(&mut self, blocked: Option<(usize, Nanos)>, skip: Option<usize>, limit: u64) -> u64 {
        let mut slots = std::mem::take(&mut self.scratch);
        slots.clear();
        slots.extend_from_slice(&self.slots);
        if let Some((slot, until)) = blocked {
            slots[slot].1 = until;
        }
        let mut missed = 0_u64;
        for &(_, _, i) in &self.order {
            let task = &self.tasks[i as usize];
            if task.started || skip == Some(i as usize) {
                continue;
            }
            let row = &self.spans[task.row * self.columns..][..self.columns];
            let mut best = (u64::MAX, usize::MAX);
            for (slot, &(p, free)) in slots.iter().enumerate() {
                let span = row[p.index()];
                if span != NOWHERE {
                    best = best.min((free.max(task.release).0.saturating_add(span), slot));
                }
            }
            let (finish, slot) = best;
            if slot == usize::MAX {
                continue;
            }
            let late = finish > task.due.0;
            if late {
                missed = missed.saturating_add(task.weight);
                if missed > limit {
                    break;
                }
            }
            if !(late && task.droppable) {
                slots[slot].1 = Nanos(finish);
            }
        }
        self.scratch = slots;
        missed
    }

    /// Starts ready stage number `i` where and if that harms nobody.
    fn serve(&mut self, view: &View<'_>, actions: &mut Actions, i: usize, stage: StageId) {
        if let Some(p) = self.plan.batch_for(view, stage, |_| true) {
            self.plan.join(view, stage, p, actions);
            let rest = self.times.of(view, stage)[p.index()].map_or(Nanos::ZERO, |rest| rest.phase);
            self.note(view, stage, view.now().saturating_add(rest));
            self.tasks[i].started = true;
            self.without = None;
            return;
        }
        let task = self.tasks[i];
        if task.variants.1 == 0 {
            self.serve_as(view, actions, i, (stage, view.stage(stage).variant), task.row);
            return;
        }
        // The best variant that is on time and harms nobody; what is late anyway runs the fastest.
        for k in 0..task.variants.1 {
            let row = task.variants.0 + k;
            let lighter = k + 1 < task.variants.1;
            let on_time = self.place(view, row).is_some_and(|(finish, _)| finish <= task.due);
            if lighter && row != task.row && (task.hopeless || !(on_time || task.unhurried)) {
                continue;
            }
            let variant = self.choices.of(view, stage)[k].number;
            if self.serve_as(view, actions, i, (stage, variant), row) {
                return;
            }
        }
    }

    /// What jobs that may come at any time would miss, with one slot blocked up to a time: for each source the length of time in which
    /// one that came would be late, which is the chance that one comes, times what missing it costs.
    fn exposed(&self, view: &View<'_>, blocked: Option<(usize, Nanos)>) -> u64 {
        let mut sum = 0_u64;
        for sporadic in &self.sporadic {
            // The first arrival that is on time: on some processor it begins no later than its goal allows.
            let on_time = self.slots.iter().enumerate().filter_map(|(slot, &(p, free))| {
                let free = blocked.filter(|&(other, _)| other == slot).map_or(free, |(_, until)| until);
                Some(free.saturating_sub(sporadic.slack[p]?))
            });
            sum += on_time.min().map_or(0, |first| first.saturating_sub(view.now()).0);
        }
        sum
    }

    /// The slot where work that nobody waits for leaves most to jobs that may come at any time: the one where it is done first, or a free
    /// one where it takes longer, but less than until the next job of its source.
    fn spare(&self, view: &View<'_>, (stage, variant): (StageId, u8), row: usize, fastest: usize) -> usize {
        let period = view.source(stage).period().unwrap_or(Nanos::ZERO).0;
        let exposure = |slot: usize| {
            let (p, free) = self.slots[slot];
            let cost = view.node(stage).costs_of(variant)[p].as_ref();
            let (_, held) = self.portion(view, stage, cost, self.span(row, p));
            self.exposed(view, Some((slot, free.max(view.now()).saturating_add(held))))
        };
        let mut best = (exposure(fastest), self.span(row, self.slots[fastest].0), fastest);
        if best.0 == self.exposed(view, None) {
            return fastest;
        }
        for (slot, &(p, free)) in self.slots.iter().enumerate() {
            let span = self.span(row, p);
            if free <= view.now() && self.plan.is_free(p) && span <= period {
                best = best.min((exposure(slot), span, slot));
            }
        }
        best.2
    }

    /// The slot where a row of times lets a stage finish first, and when.
    fn place(&self, view: &View<'_>, row: usize) -> Option<(Nanos, usize)> {
        let mut place: Option<(Nanos, usize)> = None;
        for (slot, &(p, free)) in self.slots.iter().enumerate() {
            let span = self.span(row, p);
            if span != NOWHERE {
                let finish = free.max(view.now()).saturating_add(Nanos(span));
                if place.is_none_or(|(best, _)| finish < best) {
                    place = Some((finish, slot));
                }
            }
        }
        place
    }

    /// Starts ready stage number `i` in a variant, with its row of times, where and if that harms nobody. Whether that settles it: it
    /// starts, or waits for a processor.
    fn serve_as(
        &mut self,
        view: &View<'_>,
        actions: &mut Actions,
        i: usize,
        (stage, variant): (StageId, u8),
        row: usize,
    ) -> bool {
        let task = self.tasks[i];
        let Some((finish, slot)) = self.place(view, row) else { return false };
        let slot = if task.unhurried { self.spare(view, (stage, variant), row, slot) } else { slot };
        let (p, free) = self.slots[slot];
        if !self.plan.is_free(p) || free > view.now() {
            // The processor where it finishes first is busy: wait for it – or make room, if waiting means being late.
            if finish > task.due {
                self.make_room(view, actions, &task, row);
            }
            return true;
        }
        if self.planned == PLANNED_MAX {
            return true;
        }
        self.planned += 1;
        let own = if finish > task.due { task.weight } else { 0 };
        let span = self.span(row, p);
        let cost = view.node(stage).costs_of(variant)[p].as_ref();
        let portions = [self.portion(view, stage, cost, span), first_segment(view, stage, cost, span)];
        // With a single segment, the two are the same.
        let different = if portions[0] == portions[1] { 1 } else { 2 };
        for (segments, held) in portions.into_iter().take(different) {
            let until = view.now().saturating_add(held);
            if task.impatient || self.harms_nobody((slot, until), i, own) {
                if variant != view.stage(stage).variant {
                    actions.switch(stage, variant);
                }
                self.plan.start_portion(view, stage, p, segments, actions);
                self.note(view, stage, until);
                self.slots[slot].1 = until;
                self.tasks[i].started = true;
                self.without = None;
                return true;
            }
        }
        false
    }

    /// Whether no more is missed if task number `i`, which costs `own` by itself, blocks a slot up to a time.
    fn harms_nobody(&mut self, blocked: (usize, Nanos), i: usize, own: u64) -> bool {
        let without = if let Some(without) = self.without { without } else { self.missed(None, None, u64::MAX) };
        self.without = Some(without);
        own <= without && self.missed(Some(blocked), Some(i), without - own) <= without - own
    }

    /// How many segments of a stage to run at once on a processor (`None`: to the end of the phase), and how long that holds it.
    fn portion(&self, view: &View<'_>, stage: StageId, cost: Option<&Cost>, span: u64) -> (Option<u32>, Nanos) {
        let (segment, count) = segments(view, stage, cost);
        // Only of an answer nobody knows whether it ends when it is expected to.
        let sure = view.stage(stage).kind != Phase::Decode;
        if count <= 1 && sure {
            return (None, Nanos(span));
        }
        let fit = (self.quantum.0 / segment.max(1)).clamp(1, u64::from(count));
        if fit >= u64::from(count) && sure {
            (None, Nanos(span.max(segment * fit)))
        } else {
            (Some(fit as u32), Nanos(segment * fit))
        }
    }

    /// Preempts work that is due later, if the task is on time then and would be late otherwise.
    fn make_room(&self, view: &View<'_>, actions: &mut Actions, task: &Task, row: usize) {
        for p in view.processors() {
            if !view.preemptible(p) || self.span(row, p) == NOWHERE {
                continue;
            }
            for run in &view.occupancy(p).runs {
                let start = view.now().saturating_add(Nanos(to_boundary(view, p, run.stage))).min(run.expected_end);
                let in_time = start.saturating_add(Nanos(self.span(row, p))) <= task.due;
                let less_urgent = run.stages().all(|other| view.due(other) > task.due);
                let asked = actions
                    .as_slice()
                    .iter()
                    .any(|action| matches!(action, Action::Preempt { stage } if *stage == run.stage));
                if run.ending || asked {
                    return;
                }
                if in_time && less_urgent && run.start < view.now() {
                    actions.preempt(run.stage);
                    return;
                }
            }
        }
    }
}

/// When a run will end. One that outlives its expected length – an answer longer than most – may go on for as long again as it has
/// lasted; to take it for over at any moment would make everybody wait for it. Idle-time work gives way, but not within a segment.
fn likely_end(view: &View<'_>, p: ProcessorId, run: &Run) -> Nanos {
    let now = view.now();
    if view.gives_way(run) && view.preemptible(p) {
        return now.saturating_add(Nanos(to_boundary(view, p, run.stage)));
    }
    if run.expected_end > now { run.expected_end } else { now.saturating_add(now.saturating_sub(run.start)) }
}

/// How long it takes at most until running work can be taken off its processor [ns].
fn to_boundary(view: &View<'_>, p: ProcessorId, stage: StageId) -> u64 {
    match view.system.platform.processors[p].preemption {
        Preemption::Anytime => 0,
        _ => segments(view, stage, view.cost(stage, p)).0,
    }
}

/// Whether this decision gives a job up.
fn is_dropped(actions: &Actions, job: JobId) -> bool {
    actions.as_slice().iter().any(|action| matches!(action, Action::Drop { job: dropped } if *dropped == job))
}

/// The first segment alone, and how long it holds the processor.
fn first_segment(view: &View<'_>, stage: StageId, cost: Option<&Cost>, span: u64) -> (Option<u32>, Nanos) {
    match segments(view, stage, cost) {
        (_, 0 | 1) if view.stage(stage).kind != Phase::Decode => (None, Nanos(span)),
        (segment, _) => (Some(1), Nanos(segment)),
    }
}

/// What it costs if a ready stage is late: the mean time between jobs of its source [ns]; for a token, its share of the request's.
fn weight(view: &View<'_>, stage: StageId) -> u64 {
    let live = view.stage(stage);
    let period = view.source(stage).period().unwrap_or(Nanos::from_secs(1.0)).0;
    if live.kind == Phase::Decode { period / u64::from(live.work.output.max(1)) } else { period }
}

/// Output tokens that a stage in decode is expected to generate yet, at least 1.
fn tokens_left(view: &View<'_>, stage: StageId) -> u32 {
    let live = view.stage(stage);
    live.work.output.saturating_sub(live.tokens).max(1)
}

/// Length of a stage's next segment at a cost [ns], and how many segments are left, as far as they matter.
fn segments(view: &View<'_>, stage: StageId, cost: Option<&Cost>) -> (u64, u32) {
    let live = view.stage(stage);
    let Some(cost) = cost else { return (0, 1) };
    let (kind, cost) = &cost.phases[usize::from(live.phase)];
    let end = live.work.units(*kind).max(live.position);
    let next = cost.next_boundary(live.work, *kind, live.position).min(end);
    let segment = cost.latency_ns(live.work, live.position, next).max(0.0) as u64;
    let done = next - live.position;
    let left = if done > 0.0 { ((end - live.position) / done).ceil() } else { 1.0 };
    (segment, left.min(1e9) as u32)
}

#[cfg(test)]
mod tests {
    use onbeat_core::cost::Phase;
    use onbeat_core::id::ProcessorId;
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Arrival;
    use onbeat_core::units::Nanos;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn does_not_wait_for_work_that_is_overdue() {
        let mut rig = Rig::new(&[("cpu0", Preemption::Never), ("cpu1", Preemption::Never)]);
        let long = rig.stream("long", None, &[Some(10.0), Some(10.0)]);
        let frame = rig.stream("frame", Some(16.0), &[Some(1.0), Some(1.0)]);
        rig.running(long, 0, 0.0);
        // Expected to end at 10 ms, and still running: it may go on until 36 ms.
        rig.state.now = ms(18.0);
        rig.state.processors[ProcessorId(0)].runs[0].expected_end = ms(10.0);
        let stage = rig.ready(frame, 18.0);
        assert_eq!(rig.decide("onbeat"), [start(stage, 1)], "the other processor is as fast, and free");
    }

    #[test]
    fn waits_for_a_much_faster_processor_that_is_free_soon() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let long = rig.stream("long", None, &[None, Some(2.0)]);
        let frame = rig.stream("frame", Some(30.0), &[Some(20.0), Some(1.0)]);
        rig.running(long, 1, 0.0);
        let _frame = rig.ready(frame, 0.0);
        // On the NPU at 2 + 1 = 3 ms, on the CPU at 20 ms.
        assert_eq!(rig.decide("onbeat"), []);
    }

    #[test]
    fn idle_time_work_gives_way_only_at_the_end_of_its_segment() {
        for (preemption, first) in [(Preemption::Segment, 1), (Preemption::Anytime, 0)] {
            let mut rig = Rig::new(&[("npu", preemption), ("gpu", Preemption::Segment)]);
            let notes = rig.stream("notes", None, &[Some(42.0), None]);
            rig.system.sources[notes].best_effort = true;
            let frame = rig.stream("frame", Some(33.0), &[Some(2.0), Some(10.0)]);
            let background = rig.running(notes, 0, 0.0);
            let stage = rig.ready(frame, 0.0);
            let waits = vec![crate::test_rig::preempt(background)];
            // On the NPU it would be done after 2 ms, or after 42 + 2.
            assert_eq!(rig.decide("onbeat"), if first == 1 { vec![start(stage, 1)] } else { waits });
        }
    }

    #[test]
    fn work_that_nobody_waits_for_leaves_the_processor_that_a_question_would_need() {
        for (latency, place) in [(800.0, 0), (1100.0, 1)] {
            let mut rig = Rig::new(&[("npu", Preemption::Never), ("cpu", Preemption::Never)]);
            // A question needs 100 ms on the NPU for its first token, which is due after 1000 ms: it can wait for 900.
            let chat = rig.session("chat", &[5.0, 5.0], 1);
            let node = rig.system.nodes_of(chat).next().unwrap();
            rig.system.nodes[node].costs[ProcessorId(1)] = None;
            let index = rig.stream("index", None, &[Some(latency), Some(3000.0)]);
            rig.system.sources[index].arrival = Arrival::Periodic { first: Nanos::ZERO, period: ms(5000.0) };
            let stage = rig.ready(index, 0.0);
            assert_eq!(rig.decide("onbeat"), [start(stage, place)], "{latency} ms");
        }
    }

    #[test]
    fn patience_counts_from_when_work_was_last_served() {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let notes = rig.session("notes", &[40.0], 1);
        (rig.system.sources[notes].ttft, rig.system.sources[notes].tpot) = (None, None);
        let frame = rig.stream("frame", Some(50.0), &[Some(20.0)]);
        let mut policy = rig.make("onbeat");
        let answer = rig.ready_decode(notes, 0.0);
        rig.state.now = ms(550.0);
        let Action::Start { stage, limit, .. } = rig.decide_with(&mut policy)[0] else { panic!("it starts") };
        assert_eq!((stage, limit), (answer, Some(Limit::Segments(1))));
        rig.state.now = ms(590.0);
        let stage = rig.ready(frame, 590.0);
        assert_eq!(rig.decide_with(&mut policy), [start(stage, 0)]);
    }

    #[test]
    fn an_answer_never_runs_to_an_end_that_nobody_knows() {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let chat = rig.session("chat", &[5.0], 1);
        let answer = rig.ready_decode(chat, 0.0);
        // One step before the expected end; quanta of 20 ms hold four.
        rig.state.stages[answer].position = rig.state.stages[answer].work.units(Phase::Decode) - 1.0;
        let Action::Start { limit, .. } = rig.decide("onbeat")[0] else { panic!("it starts") };
        assert_eq!(limit, Some(Limit::Segments(1)));
    }
}
