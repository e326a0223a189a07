//! How long what runs holds its processor, and what stages take until something of them is due.

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::Preemption;
use onbeat_core::state::Run;
use onbeat_core::units::Nanos;

use super::needs::tokens_left;
use crate::times::Rest;
use crate::timetable::{NOWHERE, Place, Span};

/// When the least urgent work is due that can be taken off its processor.
pub(super) fn yields_until(view: &View<'_>) -> Nanos {
    let runs = view.processors().flat_map(|p| view.occupancy(p).runs.iter().map(move |run| (p, run)));
    let yielding = runs.filter(|&(p, run)| view.can_preempt(p, run));
    let dues = yielding.filter_map(|(_, run)| run.stages().map(|stage| view.due(stage)).min());
    dues.max().unwrap_or(Nanos::ZERO)
}

/// When a run will end. One that outlives its expected length – an answer longer than most – may go on for as long again as it has
/// lasted; to take it for over at any moment would make everybody wait for it. Idle-time work gives way, but not within a segment.
pub(super) fn likely_end(view: &View<'_>, p: ProcessorId, run: &Run) -> Nanos {
    let now = view.now();
    let end = if view.gives_way(run) && view.can_preempt(p, run) {
        now.saturating_add(Nanos(to_boundary(view, p, run.stage)))
    } else if run.expected_end > now {
        run.expected_end
    } else {
        now.saturating_add(now.saturating_sub(run.start))
    };
    // What is free now is what nothing runs on.
    end.max(now.saturating_add(Nanos(1)))
}

/// How long it takes at most until running work can be taken off its processor [ns].
pub(super) fn to_boundary(view: &View<'_>, p: ProcessorId, stage: StageId) -> u64 {
    if view.system.platform.processors[p].preemption == Preemption::Anytime {
        return 0;
    }
    let live = view.stage(stage);
    let cost = view.cost(stage, p).map(|cost| cost.on_units(live.units));
    let cost = cost.map(|phases| &phases[usize::from(live.phase)].1);
    let groups = cost.filter(|_| live.kind == Phase::Prefill).map_or(1, PhaseCost::layer_groups);
    segments(view, stage, cost).0 / u64::from(groups.max(1))
}

/// How many times longer than profiled a stage takes on a processor at its present clock.
pub(super) fn slower(view: &View<'_>, stage: StageId, p: ProcessorId) -> f64 {
    match view.speed(p) {
        1.0 => 1.0,
        speed => view.stretch(stage, p, speed).unwrap_or(1.0),
    }
}

/// A time that is so many times longer [ns]; [`NOWHERE`] stays so.
pub(super) fn stretched(ns: u64, slower: f64) -> u64 {
    if ns == NOWHERE || slower == 1.0 { ns } else { (ns as f64 * slower) as u64 }
}

/// What the next thing that is due of a stage takes [ns]: a token – not the whole answer –, the first token, or all that is left. Where
/// nothing is due, language models go by tokens, too.
pub(super) fn until_next(view: &View<'_>, stage: StageId, rest: Rest) -> u64 {
    if !view.token_is_due(stage) && view.due(stage) < Nanos::MAX {
        return rest.stage.0;
    }
    match view.stage(stage).kind {
        Phase::Decode => rest.phase.0 / u64::from(tokens_left(view.stage(stage))),
        Phase::Prefill => rest.phase.0,
        _ => rest.stage.0,
    }
}

/// The fewest units of a processor on which a stage is on time, or else those on which it is done first.
pub(super) fn narrowest(view: &View<'_>, stage: StageId, p: ProcessorId, time: u64) -> Span {
    let mut best = Span { ns: NOWHERE, units: 1 };
    for units in view.widths(stage, p) {
        let (Some(phase), Some(whole)) =
            (view.remaining_in_phase_on_units(stage, p, units), view.remaining_on_units(stage, p, units))
        else {
            continue;
        };
        let ns = until_next(view, stage, Rest { phase, stage: whole }) + view.setup_on_units(stage, p, units).0;
        if ns < best.ns {
            best = Span { ns, units };
        }
        if ns <= time {
            break;
        }
    }
    best
}

/// What the current phase of a stage costs at a place, in a variant.
pub(super) fn phase_cost<'a>(view: &View<'a>, stage: StageId, variant: u8, place: Place) -> Option<&'a PhaseCost> {
    let live = view.stage(stage);
    let cost = view.node(stage).costs_of(variant)[place.processor].as_ref()?.with_cache(live.cache.far);
    Some(&cost.on_units(place.units)[usize::from(live.phase)].1)
}

/// Length of a stage's next segment at a cost [ns], and how many segments are left, as far as they matter.
pub(super) fn segments(view: &View<'_>, stage: StageId, cost: Option<&PhaseCost>) -> (u64, u32) {
    let live = view.stage(stage);
    let Some(cost) = cost else { return (0, 1) };
    // An answer that is longer than expected has at least one step more.
    let more = if live.kind == Phase::Decode { 1.0 } else { 0.0 };
    let end = live.work.units(live.kind).max(live.position + more);
    let next = cost.next_boundary(live.work, live.kind, live.position).min(end);
    let segment = cost.latency_ns(live.work, live.position, next).max(0.0) as u64;
    let done = next - live.position;
    let left = if done > 0.0 { ((end - live.position) / done).ceil() } else { 1.0 };
    (segment, left.min(1e9) as u32)
}
