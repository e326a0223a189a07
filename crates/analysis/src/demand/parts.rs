//! The least that a stage costs, part by part.

use onbeat_core::cost::{Phase, PhaseCost, Work};
use onbeat_core::id::{IdVec, NodeId, ProcessorId};
use onbeat_core::joint::divided_ns;
use onbeat_core::system::System;

/// Pieces that a phase is cut into where it can go on elsewhere in the middle and its cost is not proportional to its units.
const PIECES: u32 = 4;

/// Which goal a part counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    /// Up to the first token: everything but decoding.
    First,
    /// Decoding, with the number of steps.
    Decode(u32),
}

/// A part of a stage's work that can be cut and spread over processors in any way at a cost proportional to the share.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) kind: PartKind,
    /// The least latency alone [ns] on each processor that can run it.
    pub(crate) latency_ns: IdVec<ProcessorId, Option<f64>>,
    /// The least time that it occupies a processor's slot [ns]: a share of a batch's, where there is batching, and of the processor, where
    /// that can be divided.
    pub(crate) load_ns: IdVec<ProcessorId, Option<f64>>,
    /// Whether several processors can work on it at the same time.
    pub(crate) divides: bool,
}

/// A way to run a phase: its size, its cost, and the share of the processor that it takes.
type Choice<'a> = (Work, &'a PhaseCost, f64);

impl Part {
    /// The least latency [ns]: on any processor, or with all of them together, the sum of whose rates cannot be beaten.
    pub(crate) fn fastest_ns(&self) -> f64 {
        if self.divides {
            return divided_ns(self.latency_ns.iter().flatten().copied());
        }
        self.latency_ns.iter().flatten().copied().fold(f64::MAX, f64::min)
    }
}

/// The parts of a stage of this size whose random numbers are at least `u` (quantile of measured distributions) and
/// `variation` (factor of single figures).
pub(crate) fn parts(system: &System, node: NodeId, work: Work, u: f64, variation: f64) -> Vec<Part> {
    let divides = system.models[system.nodes[node].model].split.is_some();
    let node = &system.nodes[node];
    let Some(any) = node.costs.iter().flatten().next() else { return Vec::new() };
    let mut parts = Vec::new();
    for (i, &(kind, _)) in any.phases.iter().enumerate() {
        let units = work.units(kind);
        if units <= 0.0 {
            continue;
        }
        // In whatever variant, and on whatever part of a processor, it is least; no policy can do better, because a stage runs in one
        // of them at a time. With the share of the processor that it takes.
        let phases: IdVec<ProcessorId, Vec<Choice<'_>>> = (node.costs.ids())
            .map(|p| {
                let unit = &system.platform.processors[p];
                let in_variant = |variant: u8| {
                    let at_widths = node.costs_of(variant)[p].iter().flat_map(onbeat_core::cost::Cost::at_all_widths);
                    at_widths.filter_map(move |(units, phases)| {
                        Some((node.least_work_of(variant, work), &phases.get(i)?.1, unit.share(units)))
                    })
                };
                node.variant_numbers().flat_map(in_variant).collect()
            })
            .collect();
        let movable = phases.iter().filter(|phases| !phases.is_empty()).count() > 1
            && phases.iter().flatten().any(|(_, phase, _)| match phase {
                PhaseCost::Prefill { chunk, .. } => chunk.is_some(),
                PhaseCost::Decode { .. } => true,
                PhaseCost::Fixed { .. } | PhaseCost::Steps { .. } => false,
            });
        let pieces = if movable { PIECES.min(units as u32).max(1) } else { 1 };
        for piece in 0..pieces {
            let edge = |j: u32| (units * f64::from(j) / f64::from(pieces)).floor();
            let (from, to) = if pieces == 1 { (0.0, units) } else { (edge(piece), edge(piece + 1)) };
            let latency = |&(work, phase, _): &Choice<'_>| {
                // Without pieces it is the whole phase, which variants may have different numbers of units of.
                let alone = if pieces == 1 {
                    phase.latency_ns(work, from, work.units(kind))
                } else {
                    least_ns(phase, work, from, to)
                };
                alone * phase.latency_factor(u, variation)
            };
            // Drafting takes no time at best, and all is accepted; or attention takes none. Helped or batched, not both.
            let helped = |at: ProcessorId| if kind == Phase::Decode { node.decode_least(at) } else { 1.0 };
            let least = |of: fn(&PhaseCost) -> f64, occupies: bool| {
                let of_all = |(at, all): (ProcessorId, &Vec<Choice<'_>>)| {
                    let share = |one: &Choice<'_>| if occupies { one.2 } else { 1.0 };
                    all.iter().map(|one| latency(one) * of(one.1).min(helped(at)) * share(one)).reduce(f64::min)
                };
                phases.enumerate().map(of_all).collect()
            };
            let part_kind = if kind == Phase::Decode { PartKind::Decode((to - from) as u32) } else { PartKind::First };
            parts.push(Part {
                kind: part_kind,
                latency_ns: least(|phase| best_batch(phase).0, false),
                load_ns: least(|phase| best_batch(phase).1, true),
                divides,
            });
        }
    }
    parts
}

/// The least latency of any cut of the units `from`..`to`: their number times the least cost of a unit.
fn least_ns(phase: &PhaseCost, work: Work, from: f64, to: f64) -> f64 {
    let (curve, start, by_slope, computed) = match phase {
        PhaseCost::Prefill { latency_ns, .. } => (latency_ns, 0.0, true, 1.0),
        PhaseCost::Decode { step_ns, .. } => (step_ns.curve(), f64::from(work.prompt) + 1.0, false, work.exit),
        PhaseCost::Fixed { .. } | PhaseCost::Steps { .. } => {
            return phase.latency_ns(work, from, to);
        }
    };
    let (from, to) = (from + start, to + start);
    let inner = curve.points().iter().map(|&(x, _)| x).filter(|&x| from < x && x < to);
    let edges: Vec<f64> = [from].into_iter().chain(inner).chain([to]).collect();
    let least = if by_slope {
        edges.windows(2).map(|w| (curve.at(w[1]) - curve.at(w[0])) / (w[1] - w[0])).fold(f64::MAX, f64::min)
    } else {
        edges.iter().map(|&x| curve.at(x)).fold(f64::MAX, f64::min)
    };
    least.max(0.0) * (to - from) * computed
}

/// The smallest latency factor of any batch, and the smallest share of a batch's time per request.
fn best_batch(phase: &PhaseCost) -> (f64, f64) {
    (1..=phase.batch_max()).fold((1.0, 1.0), |(latency, share): (f64, f64), batch| {
        let factor = phase.batch_factor(batch);
        (latency.min(factor), share.min(factor / f64::from(batch)))
    })
}
