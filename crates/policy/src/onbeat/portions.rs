//! How much of a stage to run at once.

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::id::StageId;
use onbeat_core::policy::{Limit, View};
use onbeat_core::units::Nanos;

use super::spans::segments;

/// The smallest piece that a prompt is cut into [tokens], where a profile allows any: below that, what is gained is lost again.
const PIECE_MIN: u32 = 16;

/// Part of a phase, up to a limit (`None`: to its end).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Portion {
    pub(super) limit: Option<Limit>,
    /// How long it takes.
    pub(super) held: Nanos,
    /// How long nobody else can have the processor: less than that, where it can be preempted inside.
    pub(super) blocks: Nanos,
}

impl Portion {
    fn of(limit: Option<Limit>, held: u64) -> Self {
        Self { limit, held: Nanos(held), blocks: Nanos(held) }
    }
}

/// The portion of a stage that is run where nobody needs the processor: to the end of the phase, or about a quantum of it. `cost` is what
/// the phase costs there, `span` what has to be done by the time that it is due [ns].
pub(super) fn usual(view: &View<'_>, stage: StageId, cost: Option<&PhaseCost>, span: u64, quantum: Nanos) -> Portion {
    let (segment, count) = segments(view, stage, cost);
    // Only of an answer nobody knows whether it ends when it is expected to.
    let sure = view.stage(stage).kind != Phase::Decode;
    if count <= 1 && sure {
        return Portion::of(None, span);
    }
    let fit = (quantum.0 / segment.max(1)).clamp(1, u64::from(count));
    if fit >= u64::from(count) && sure {
        Portion::of(None, span.max(segment * fit))
    } else {
        Portion::of(Some(Limit::Segments(fit as u32)), segment * fit)
    }
}

/// Portions to try, the largest first.
pub(super) fn list(
    view: &View<'_>,
    stage: StageId,
    cost: Option<&PhaseCost>,
    span: u64,
    quantum: Nanos,
    portions: &mut Vec<Portion>,
) {
    portions.clear();
    let mut largest = usual(view, stage, cost, span, quantum);
    let groups = cost.map_or(1, PhaseCost::layer_groups);
    if groups > 1 && view.stage(stage).kind == Phase::Prefill {
        // It gives way at the end of a group.
        largest.blocks = Nanos(largest.held.0 / u64::from(groups));
    }
    portions.push(largest);
    let live = view.stage(stage);
    let Some(cost) = cost else { return };
    if cost.any_piece() {
        // Halves and halves of them: the largest that harms nobody is found within a factor of two, in few steps.
        let mut tokens = (live.work.units(live.kind) - live.position).max(0.0) as u32 / 2;
        while tokens >= PIECE_MIN {
            let held = cost.piece_ns(live.work, live.position, live.position + f64::from(tokens)) as u64;
            portions.push(Portion::of(Some(Limit::Units(tokens)), held));
            tokens /= 2;
        }
        return;
    }
    let (segment, count) = segments(view, stage, Some(cost));
    let first = match count {
        0 | 1 if live.kind != Phase::Decode => return,
        _ => Portion::of(Some(Limit::Segments(1)), segment),
    };
    if first != portions[0] {
        portions.push(first);
    }
}
