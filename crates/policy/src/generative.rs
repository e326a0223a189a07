//! What the policies for generative work share: two classes of urgency, and how much of a stage is left by one measure that does not
//! depend on where it runs.

use onbeat_core::id::{Id, NodeId, ProcessorId, SourceId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::ModelShape;
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::times::Times;

/// Whether a source's work is generative: it is a session, or a stream with an autoregressive model.
pub(crate) fn is_generative(system: &System, source: SourceId) -> bool {
    let shape = |node: NodeId| system.models[system.nodes[node].model].shape;
    system.sources[source].session || system.nodes_of(source).any(|node| shape(node) == ModelShape::Autoregressive)
}

/// Keys from here on are for work without deadlines. Below it, streams with deadlines go earliest due first.
pub(crate) const BACKGROUND: u64 = 1 << 62;

/// The key of a stage that belongs to a stream with a deadline; `None` for sessions, and for what has no deadline.
pub(crate) fn real_time_key(view: &View<'_>, stage: StageId) -> Option<u64> {
    let deadline = view.job(stage).deadline;
    if view.source(stage).session || deadline == Nanos::MAX {
        return None;
    }
    Some(deadline.saturating_sub(view.node(stage).tail).0.min(BACKGROUND - 1))
}

/// The smallest key among the stages that a run serves, where work without deadlines has the key that `background` gives.
pub(crate) fn run_key(view: &View<'_>, run: &Run, mut background: impl FnMut(StageId) -> u64) -> u64 {
    let keys = run.stages().map(|stage| real_time_key(view, stage).unwrap_or_else(|| background(stage)));
    keys.min().expect("a run serves at least one stage")
}

/// What is left of a waiting stage on the processor where it would be done first, without setup.
pub(crate) fn left(times: &mut Times, view: &View<'_>, stage: StageId) -> Nanos {
    let rest = times.of(view, stage).iter().flatten().map(|rest| rest.stage);
    rest.min().unwrap_or(Nanos::MAX)
}

/// The same for a stage that runs, whose position is that of its last known boundary: the part of its phase that the run has
/// still to do, as time on the processor where it would be done first. Running work and waiting work are thus measured alike, so
/// that two stages cannot each look shorter than the other in turn.
pub(crate) fn left_of_running(
    times: &mut Times,
    view: &View<'_>,
    stage: StageId,
    processor: ProcessorId,
    run: &Run,
) -> Nanos {
    let rest = times.of(view, stage);
    let Some(here) = rest[processor.index()] else { return Nanos::MAX };
    let Some(best) = rest.iter().flatten().min_by_key(|rest| rest.stage) else { return Nanos::MAX };
    let to_go = run.expected_end.saturating_sub(view.now()).as_f64();
    let share = (to_go / here.phase.as_f64().max(1.0)).min(1.0);
    let after = best.stage.saturating_sub(best.phase);
    after.saturating_add(Nanos::from_ns_f64(best.phase.as_f64() * share))
}
