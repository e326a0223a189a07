//! `onbeat`: starts nothing that would make somebody else late, and waits for the right processor.
//!
//! Before it starts a stage, it asks what would become of everybody else: it plans the ready stages and the next jobs of the periodic
//! streams greedily, once with the stage started and once without, and compares what each plan misses. A miss weighs as much as the
//! time between two jobs of its source, so that every source counts alike, whatever its rate. What a stage would hold its processor for
//! counts with the contention on the bus. Answers that are too slow alone are drafted; divided processors give units.

use onbeat_core::bus::Demand;
use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, JobId, ProcessorId, StageId};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, Actions, Limit, Policy, Shortage, View, evict_least_recently_used};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use self::needs::{Need, Needs};
use self::pace::Pace;
use self::portions::Portion;
use self::spans::{likely_end, narrowest, phase_cost, slower, stretched, to_boundary, until_next, yields_until};
use crate::bus::{Rates, bandwidth, demand};
use crate::dispatch::Alarm;
use crate::foreseen::{Sporadic, Stream};
use crate::kv_offload::{is_on_its_way, place_longest_far};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::serving::shares_steps;
use crate::slack_chunk::BySlack;
use crate::speculative::drafted;
use crate::times::Times;
use crate::timetable::{NOWHERE, Place, Span, Task, Timetable};
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

/// The smallest piece of a prompt that shares a step with answers [tokens], so that prompts get on even where nobody has slack.
const SHARED_MIN: u32 = 32;

/// Drafts are used if they are expected to make an answer at least so many times as fast.
const DRAFT_GAIN: f64 = 1.05;

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
    needs: Needs,
    choices: Choices,
    pace: Pace,
    /// For prompts that share steps with answers, and whether any can.
    sharing: BySlack,
    mixes: bool,
    table: Timetable,
    /// What is missed with what this decision has started so far, if that was computed.
    without: Option<u64>,
    /// Stages for which this decision has made plans.
    planned: u32,
    /// What runs ask of the memory bus.
    beside: Vec<(ProcessorId, Demand)>,
    rates: Rates,
    /// For the link to slower memory, and prompts that are held back.
    alarm: Alarm,
    longest: Vec<(u64, u64, StageId)>,
    portions: Vec<Portion>,
    /// Until when each stage was last given a processor, with its serial, by [`StageId`].
    served: Vec<(u64, Nanos)>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let divided = system.platform.processors.iter().any(|processor| processor.division.is_some());
    Ok(Box::new(Onbeat {
        horizon: parameters.milliseconds("horizon_ms")?,
        quantum: parameters.milliseconds("quantum_ms")?,
        patience: parameters.milliseconds("patience_ms")?,
        streams: Stream::all(system),
        sporadic: Sporadic::all(system),
        plan: Plan::default(),
        times: Times::default(),
        needs: Needs::default(),
        choices: Choices::new(system),
        pace: Pace::new(system),
        sharing: BySlack::new(system, SHARED_MIN, u32::MAX),
        mixes: system.nodes.iter().any(|node| node.variant_numbers().any(|variant| shares_steps(node, variant))),
        table: Timetable::new(system.platform.processors.len(), divided),
        without: None,
        planned: 0,
        beside: Vec::new(),
        rates: Rates::default(),
        alarm: Alarm::default(),
        longest: Vec::new(),
        portions: Vec::new(),
        served: Vec::new(),
    }))
}

impl Policy for Onbeat {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.planned = 0;
        self.without = None;
        self.table.begin();
        self.pace.begin();
        self.list_slots(view);
        self.list_tasks(view, actions);
        let yields = yields_until(view);
        for k in 0..self.table.order.len() {
            let i = self.table.order[k].1 as usize;
            let task = &self.table.tasks[i];
            let Some(stage) = task.stage.filter(|_| task.release <= view.now()) else { continue };
            // Where nothing is free, batches can be joined, steps shared, and room can be made if somebody is less urgent.
            let joins = task.kind.is_batched() || (task.kind == Phase::Prefill && self.mixes);
            if self.table.has_free(view.now()) || joins || task.due < yields {
                self.serve(view, actions, i, stage);
            }
        }
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        if view.can_offload(shortage.stage) {
            place_longest_far(view, shortage, actions, &mut self.longest);
        } else {
            evict_least_recently_used(view, shortage, actions);
        }
    }
}

impl Onbeat {
    /// Lists when slots are free. What can be preempted is work like any other in plans: others may come first.
    fn list_slots(&mut self, view: &View<'_>) {
        let now = view.now();
        for p in view.processors() {
            let divided = view.system.platform.processors[p].division.is_some();
            let free = if divided { view.free_units(p) } else { view.free_slots(p) };
            self.table.add_slots(p, free, now, now);
            for run in &view.occupancy(p).runs {
                let units = if divided { view.stage(run.stage).units } else { 1 };
                let end = likely_end(view, p, run);
                let boundary = now.saturating_add(Nanos(to_boundary(view, p, run.stage).max(1)));
                if divided || boundary >= end || !view.can_preempt(p, run) {
                    self.table.add_slots(p, units, end, end);
                    continue;
                }
                self.table.add_slots(p, units, end, boundary);
                let row = self.table.next_row();
                for q in view.processors() {
                    let ns = if p == q { end.0 - now.0 } else { NOWHERE };
                    self.table.add_span(Span { ns, units: 1 });
                }
                let live = view.stage(run.stage);
                let due = run.stages().map(|stage| view.due(stage)).min().unwrap_or(Nanos::MAX);
                // What is late anyway is due when others allow it.
                let due = if due < end { Nanos::MAX } else { due };
                let (kind, weight) = (live.kind, needs::weight(view, run.stage));
                self.table.tasks.push(Task::foreseen(kind, row, (now, due), end - now, weight));
            }
        }
    }

    /// Lists what has to be done, by latest start. Jobs that cannot be on time any more are dropped, where their scenario allows that.
    fn list_tasks(&mut self, view: &View<'_>, actions: &mut Actions) {
        let actions_before = actions.as_slice().len();
        for &stage in view.ready() {
            let Some((need, row, best, variants)) = self.list_needs(view, stage) else {
                self.alarm.set(view.now(), view.state.memory.swap_free_at, actions);
                continue;
            };
            let mut due = need.due;
            let unhurried = due == Nanos::MAX;
            let too_late = match need.per_token {
                // A late token can be made up for: the goal is for the mean.
                Some(goal) => {
                    let more = u64::from(need.tokens_left) - 1;
                    let whole = best.saturating_mul(more + 1);
                    view.now().saturating_add(Nanos(whole)) > due.saturating_add(Nanos(goal.0.saturating_mul(more)))
                }
                None => view.now().saturating_add(Nanos(best)) > due,
            };
            if due != Nanos::MAX && too_late {
                let droppable = need.droppable && best != NOWHERE && view.job(stage).running == 0;
                let job = view.stage(stage).job;
                // What is only likely to be late may still be on time.
                let lost = view.token_is_due(stage) || view.now().saturating_add(view.remaining_shortest(stage)) > due;
                if droppable && lost && !is_dropped(actions, job) {
                    actions.drop_job(job);
                }
                due = Nanos::MAX;
            }
            let soft = due == Nanos::MAX;
            if soft {
                due = self.waits_since(view, stage, &need).saturating_add(self.patience);
            }
            let held_until = Nanos(due.0.saturating_sub(best.saturating_add(best / 2)));
            let held =
                need.kind == Phase::Prefill && !soft && held_until > view.now() && self.pace.is_taken(view, stage);
            if held {
                self.alarm.set(view.now(), held_until, actions);
            }
            self.table.tasks.push(Task {
                latest: if soft { due } else { Nanos(due.0.saturating_sub(best)) },
                stage: Some(stage),
                kind: need.kind,
                drafted: need.drafted,
                release: if held { held_until } else { view.now() },
                due,
                weight: need.weight,
                impatient: soft && due <= view.now(),
                droppable: need.droppable && !soft,
                row,
                variants,
                unhurried,
                hopeless: soft && !unhurried,
                started: false,
            });
        }
        // A job that was just given up takes its other ready stages with it.
        let dropped = actions.as_slice().len() > actions_before;
        for task in self.table.tasks.iter_mut().filter(|_| dropped) {
            if task.stage.is_some_and(|stage| is_dropped(actions, view.stage(stage).job)) {
                task.stage = None;
                task.started = true;
            }
        }
        self.list_upcoming(view);
        self.table.sort();
    }

    /// Since when a ready stage waits: when it became ready, or was last given a processor.
    fn waits_since(&self, view: &View<'_>, stage: StageId, need: &Need) -> Nanos {
        match self.served.get(stage.index()) {
            Some(&(serial, until)) if serial == need.serial => until.min(view.now()).max(need.ready_at),
            _ => need.ready_at,
        }
    }

    /// Remembers that a stage is given a processor until about then.
    fn note(&mut self, view: &View<'_>, stage: StageId, until: Nanos) {
        if stage.index() >= self.served.len() {
            self.served.resize(stage.index() + 1, (u64::MAX, Nanos::ZERO));
        }
        self.served[stage.index()] = (view.stage(stage).serial, until);
    }

    /// What a ready stage needs; with its row of times, the shortest of them [ns], and the rows of its variants, all of which it lists.
    /// `None` as long as its cache is on its way.
    fn list_needs(&mut self, view: &View<'_>, stage: StageId) -> Option<(Need, usize, u64, (usize, usize))> {
        let Some((need, on)) = self.needs.of(view, stage, &mut self.times, &self.choices) else {
            if is_on_its_way(view, stage) {
                return None;
            }
            let need = Need::of(view, stage);
            let (row, best, variants) = self.list_spans(view, stage, need.due);
            return Some((need, row, best, variants));
        };
        let (row, mut best) = (self.table.next_row(), NOWHERE);
        for (p, on) in view.processors().zip(on) {
            let ns = match on.ns {
                NOWHERE => NOWHERE,
                ns => stretched(ns, slower(view, stage, p)) + view.setup_beside(need.weights, on.load, p).0,
            };
            best = best.min(ns);
            self.table.add_span(Span { ns, units: 1 });
        }
        Some((need, row, best, (row, 0)))
    }

    /// Lists what a ready stage takes on each processor, in each variant that it may run: the row of the fastest one, its shortest time
    /// [ns], and the rows of all variants.
    fn list_spans(&mut self, view: &View<'_>, stage: StageId, due: Nanos) -> (usize, u64, (usize, usize)) {
        let first = self.table.next_row();
        let choices = self.choices.of(view, stage);
        let (mut row, mut best) = (first, NOWHERE);
        for (k, choice) in choices.iter().enumerate() {
            for p in view.processors() {
                let span = choice.span_until_due(view, stage, p);
                let span = span.map_or(NOWHERE, |span| stretched(span.0, slower(view, stage, p)));
                if span < best {
                    (row, best) = (first + k, span);
                }
                let cost = view.node(stage).costs_of(choice.number)[p].as_ref();
                let widest = cost.map_or(1, |cost| cost.widths.widest.max(1));
                self.table.add_span(Span { ns: span, units: widest });
            }
        }
        if !choices.is_empty() {
            return (row, best, (first, choices.len()));
        }
        let time = due.saturating_sub(view.now()).0;
        let left = self.times.of(view, stage);
        for p in view.processors() {
            let span = if !view.can_run(stage, p) {
                Span { ns: NOWHERE, units: 1 }
            } else if view.system.platform.processors[p].division.is_some() {
                let slower = slower(view, stage, p);
                let span = narrowest(view, stage, p, (time as f64 / slower) as u64);
                Span { ns: stretched(span.ns, slower), ..span }
            } else {
                let next = left[p.index()].map(|rest| until_next(view, stage, rest));
                let next = next.map(|ns| stretched(ns, slower(view, stage, p)) + view.setup(stage, p).0);
                Span { ns: next.unwrap_or(NOWHERE), units: 1 }
            };
            best = best.min(span.ns);
            self.table.add_span(span);
        }
        (row, best, (first, 0))
    }

    /// Adds the jobs that periodic streams will release within the horizon.
    fn list_upcoming(&mut self, view: &View<'_>) {
        let (now, end) = (view.now(), view.now().saturating_add(self.horizon).min(view.system.duration));
        for stream in &mut self.streams {
            if stream.next <= now {
                let passed = (now.0 + 1).saturating_sub(stream.first.0).div_ceil(stream.period.0);
                stream.next = Nanos(stream.first.0 + passed * stream.period.0);
            }
            for k in 0..u64::from(UPCOMING_PER_SOURCE_MAX) {
                let release = Nanos(stream.next.0 + k * stream.period.0);
                if release >= end {
                    break;
                }
                let source = &view.system.sources[stream.source];
                if !source.active.is_empty() && !source.active.iter().any(|&(from, to)| from <= release && release < to)
                {
                    continue;
                }
                let due = release.saturating_add(stream.deadline);
                let row = self.table.next_row();
                for (p, &span) in stream.spans.enumerate() {
                    // How much of it memory takes is not looked at: at a slower clock, it takes no longer than that.
                    let ns = stretched(span.ns, 1.0 / view.speed(p));
                    self.table.add_span(Span { ns, ..span });
                }
                let task = Task::foreseen(Phase::Forward, row, (release, due), stream.shortest, stream.period.0);
                self.table.tasks.push(Task { droppable: stream.droppable, ..task });
            }
        }
    }

    /// Starts ready stage number `i` where and if that harms nobody.
    fn serve(&mut self, view: &View<'_>, actions: &mut Actions, i: usize, stage: StageId) {
        let task = self.table.tasks[i];
        if task.kind.is_batched()
            && let Some(p) = self.plan.batch_for(view, stage, |_| true)
        {
            self.plan.join(view, stage, p, actions);
            let rest = self.times.of(view, stage)[p.index()].map_or(Nanos::ZERO, |rest| rest.phase);
            self.note(view, stage, view.now().saturating_add(rest));
            self.table.tasks[i].started = true;
            self.without = None;
            return;
        }
        if self.mixes
            && task.kind == Phase::Prefill
            && let Some((p, tokens)) = self.sharing.shared(view, &self.plan, stage)
            && self.table.place(task.row, view.now()).is_none_or(|place| place.free > view.now())
        {
            self.plan.share_step(view, stage, p, tokens, actions);
            self.note(view, stage, view.now());
            self.table.tasks[i].started = true;
            self.without = None;
            return;
        }
        if task.drafted && self.serve_drafted(view, actions, i, stage) {
            return;
        }
        if task.variants.1 == 0 {
            self.serve_as(view, actions, i, (stage, view.stage(stage).variant), task.row);
            return;
        }
        // The best variant that is on time and harms nobody; what is late anyway runs the fastest.
        for k in 0..task.variants.1 {
            let row = task.variants.0 + k;
            let lighter = k + 1 < task.variants.1;
            let on_time = self.table.place(row, view.now()).is_some_and(|place| place.finish <= task.due);
            let choice = &self.choices.of(view, stage)[k];
            let kept = on_time && choice.keeps_pace(view, stage);
            if lighter && row != task.row && (task.hopeless || !(kept || task.unhurried)) {
                continue;
            }
            let variant = choice.number;
            if self.serve_as(view, actions, i, (stage, variant), row) {
                return;
            }
        }
    }

    /// Where work that nobody waits for leaves most to jobs that may come at any time: where it is done first, or at a free place where it
    /// takes longer, but less than until the next job of its source.
    fn spare(&mut self, view: &View<'_>, (stage, variant): (StageId, u8), row: usize, fastest: Place) -> Place {
        let now = view.now();
        let before = self.table.exposed(&self.sporadic, now, None);
        let exposure = |policy: &mut Self, place: Place| {
            let cost = phase_cost(view, stage, variant, place);
            let span = policy.table.span(row, place.processor).ns;
            let held = portions::usual(view, stage, cost, span, policy.quantum).held;
            let until = place.free.max(now).saturating_add(held);
            policy.table.exposed(&policy.sporadic, now, Some((place, until)))
        };
        let mut best = (exposure(self, fastest), fastest);
        if best.0 == before {
            return fastest;
        }
        let period = view.source(stage).period().unwrap_or(Nanos::ZERO).0;
        for p in view.processors().filter(|&p| p != fastest.processor) {
            let Some(place) = self.table.place_on(row, p, now) else { continue };
            if place.free > now || !self.is_free(view, place) || self.table.span(row, p).ns > period {
                continue;
            }
            let exposed = exposure(self, place);
            if (exposed, place.finish) < (best.0, best.1.finish) {
                best = (exposed, place);
            }
        }
        best.1
    }

    /// Whether a place that the timetable takes for free is.
    fn is_free(&self, view: &View<'_>, place: Place) -> bool {
        // Units are in the timetable alone.
        view.system.platform.processors[place.processor].division.is_some() || self.plan.is_free(place.processor)
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
        let task = self.table.tasks[i];
        let Some(place) = self.table.place(row, view.now()) else { return false };
        let spares = task.unhurried && self.planned < PLANNED_MAX;
        let place = if spares { self.spare(view, (stage, variant), row, place) } else { place };
        if !self.is_free(view, place) || place.free > view.now() {
            // The processor where it finishes first is busy: wait for it – or make room, if waiting means being late.
            if place.finish > task.due {
                self.make_room(view, actions, &task, row);
            }
            return true;
        }
        if self.planned == PLANNED_MAX {
            return true;
        }
        self.planned += 1;
        let stretch = self.stretch(view, actions, stage, place.processor);
        let own = if place.finish > task.due { task.weight } else { 0 };
        let span = self.table.span(row, place.processor).ns;
        let slower = slower(view, stage, place.processor);
        let stretch = stretch * slower;
        let span = (span as f64 / slower) as u64;
        let mut portions = std::mem::take(&mut self.portions);
        let cost = phase_cost(view, stage, variant, place);
        portions::list(view, stage, cost, span, self.quantum, &mut portions);
        let now = view.now();
        // What starts now is not free now.
        let after = |time: Nanos| now.saturating_add(Nanos((time.as_f64() * stretch) as u64).max(Nanos(1)));
        let usual = portions.iter().position(|portion| portion.held <= self.quantum);
        let mut found = usual.or(portions.len().checked_sub(1)).filter(|_| task.impatient).map(|k| (portions[k], None));
        for &portion in portions.iter().filter(|_| !task.impatient) {
            let slowed = self.slowed(view, actions, after(portion.held));
            let with = self.harms_nobody(&[place], after(portion.blocks), i, own.saturating_add(slowed));
            if with.is_some() {
                found = Some((portion, with));
                break;
            }
        }
        self.portions = portions;
        if let Some((portion, with)) = found {
            if variant != view.stage(stage).variant {
                actions.switch(stage, variant);
            }
            let until = after(portion.held);
            self.start(view, stage, place, portion.limit, actions);
            self.note(view, stage, until);
            self.table.put(place, until);
            self.table.tasks[i].started = true;
            self.without = with;
            return true;
        }
        false
    }

    /// How many times longer than alone a stage would take on a processor beside what runs now and what this decision
    /// has started, because the memory bus is shared.
    fn stretch(&mut self, view: &View<'_>, actions: &Actions, stage: StageId, p: ProcessorId) -> f64 {
        self.rates.of.clear();
        let Some(bus) = bandwidth(view) else { return 1.0 };
        self.beside.clear();
        for q in view.processors() {
            self.beside.extend(view.occupancy(q).runs.iter().map(|run| (q, demand(view, run.stage, q))));
        }
        let started = actions.as_slice().iter().filter_map(Action::starts);
        self.beside.extend(started.map(|(stage, q, _)| (q, demand(view, stage, q))));
        self.beside.push((p, demand(view, stage, p)));
        self.rates.find(view, bus, self.beside.iter().copied());
        1.0 / self.rates.of.last().map_or(1.0, |rate| rate.max(0.01))
    }

    /// What would be missed of what runs and of what this decision has started, with the rates of [`Onbeat::stretch`] until a time. How
    /// far runs have come is not known: a portion of what has to end in time may have done nothing or all since its start.
    fn slowed(&mut self, view: &View<'_>, actions: &Actions, until: Nanos) -> u64 {
        let now = view.now();
        let beside = until.saturating_sub(now).as_f64();
        let mut missed = 0;
        let mut slow = |stage: StageId, (least, most): (Nanos, Nanos), rate: f64| {
            let longer = Nanos((most.as_f64().min(beside * rate) * (1.0 / rate.max(0.01) - 1.0)) as u64);
            let due = view.due(stage);
            if now.saturating_add(least) <= due && now.saturating_add(most).saturating_add(longer) > due {
                missed += needs::weight(view, stage);
            }
        };
        let mut rates = self.rates.of.iter();
        for p in view.processors() {
            for (run, &rate) in view.occupancy(p).runs.iter().zip(rates.by_ref()).filter(|(_, rate)| **rate < 1.0) {
                let rest = run.expected_end.saturating_sub(now);
                for stage in run.stages() {
                    let next = view.due(stage) == Nanos::MAX || view.token_is_due(stage);
                    let whole = view.remaining(stage, p).filter(|_| !next);
                    let after = whole.unwrap_or(Nanos::ZERO).saturating_sub(run.expected_end.saturating_sub(run.start));
                    // Less than that is what nominal times leave over.
                    let goes_on = after > Nanos(1_000);
                    let (least, most) = if goes_on { (after, whole.unwrap_or(rest)) } else { (rest, rest) };
                    slow(stage, (least, most), rate);
                }
            }
        }
        let started = actions.as_slice().iter().filter_map(Action::starts);
        for ((stage, p, _), &rate) in started.zip(rates).filter(|(_, rate)| **rate < 1.0) {
            if let Some(rest) = self.times.of(view, stage)[p.index()] {
                let rest = Nanos(until_next(view, stage, rest));
                slow(stage, (rest, rest), rate);
            }
        }
        missed
    }

    fn start(&mut self, view: &View<'_>, stage: StageId, place: Place, limit: Option<Limit>, actions: &mut Actions) {
        let p = place.processor;
        if view.system.platform.processors[p].division.is_some() {
            actions.start_on_units(stage, p, place.units, limit);
            self.plan.open(view, stage, p);
        } else {
            self.plan.start_limited(view, stage, p, limit, actions);
        }
    }

    /// Whether no more is missed if task number `i`, which costs `own` by itself, is put at some places up to a time: then so much is.
    fn harms_nobody(&mut self, places: &[Place], until: Nanos, i: usize, own: u64) -> Option<u64> {
        let table = &mut self.table;
        let without = *self.without.get_or_insert_with(|| table.missed(&[], Nanos::ZERO, None, u64::MAX));
        let most = without.checked_sub(own)?;
        let missed = self.table.missed(places, until, Some(i), most);
        (missed <= most).then_some(missed)
    }

    /// Lets a small model draft an answer that no processor writes in time by itself, for a few cycles, where and if that harms nobody.
    fn serve_drafted(&mut self, view: &View<'_>, actions: &mut Actions, i: usize, stage: StageId) -> bool {
        let task = self.table.tasks[i];
        let Some(alone) = self.table.place(task.row, view.now()) else { return false };
        let step = Nanos(self.table.span(task.row, alone.processor).ns);
        if !task.hopeless && view.source(stage).tpot.is_none_or(|goal| step <= goal) {
            return false;
        }
        let found = drafted(view, &self.plan, stage, alone.processor, (0, DRAFT_GAIN));
        let Some((p, together @ Together::Draft { processor: drafter, tokens })) = found else { return false };
        let Some(cycle) = view.cycle(stage, p, drafter, tokens) else { return false };
        let live = view.stage(stage);
        // Another drafter would have to read the whole context first: a step without drafts is shorter.
        if live.drafted.is_some_and(|(at, _)| at != drafter) {
            return false;
        }
        let cycle = cycle.time_ns(live.work, live.position).max(1.0) as u64;
        let cycles = (self.quantum.0 / cycle).max(1);
        let until =
            view.now().saturating_add(view.setup_together(stage, p, together)).saturating_add(Nanos(cycle * cycles));
        let place = |processor| Place { finish: until, processor, units: 1, free: view.now() };
        let places = [place(p), place(drafter)];
        let places = if p == drafter { &places[..1] } else { &places };
        let whole = |p: ProcessorId| view.system.platform.processors[p].division.is_none() && self.plan.is_free(p);
        let free = places.iter().all(|place| whole(place.processor));
        if self.planned == PLANNED_MAX || !free {
            return false;
        }
        let with = if task.impatient { None } else { self.harms_nobody(places, until, i, 0) };
        if !task.impatient && with.is_none() {
            return false;
        }
        self.planned += 1;
        actions.speculate(stage, p, drafter, tokens, cycles as u32);
        for place in places {
            self.plan.take(place.processor);
            self.table.put(*place, until);
        }
        self.note(view, stage, until);
        self.table.tasks[i].started = true;
        self.without = with;
        true
    }

    /// Preempts work that is due later, if the task is on time then and would be late otherwise.
    fn make_room(&mut self, view: &View<'_>, actions: &mut Actions, task: &Task, row: usize) {
        for p in view.processors() {
            if self.table.span(row, p).ns == NOWHERE {
                continue;
            }
            for run in view.occupancy(p).runs.iter().filter(|run| view.can_preempt(p, run)) {
                let start = view.now().saturating_add(Nanos(to_boundary(view, p, run.stage))).min(run.expected_end);
                let Span { ns, units } = self.table.span(row, p);
                let in_time = start.saturating_add(Nanos(ns)) <= task.due;
                let divided = view.system.platform.processors[p].division.is_some();
                if divided && self.table.free_by(p, start) + view.stage(run.stage).units < units {
                    continue;
                }
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
                    // Nobody joins it any more.
                    self.plan.close(p, run.model);
                    return;
                }
            }
        }
    }
}

/// Whether this decision gives a job up.
fn is_dropped(actions: &Actions, job: JobId) -> bool {
    actions.as_slice().iter().any(|action| matches!(action, Action::Drop { job: dropped } if *dropped == job))
}

mod needs;
mod pace;
mod portions;
mod spans;
#[cfg(test)]
mod tests;
