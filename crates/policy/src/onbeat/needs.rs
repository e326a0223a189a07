//! What the policy has to know of each ready stage, remembered from one decision to the next: looking it up means reading the stage, its
//! job, node, source and costs, which for dozens of stages is most of what a decision takes.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ModelId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::DropRule;
use onbeat_core::state::Stage;
use onbeat_core::units::Nanos;

use super::spans::until_next;
use crate::times::{NEVER, Times};
use crate::timetable::NOWHERE;
use crate::variants::Choices;

/// What a ready stage needs, whatever happens around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Order of readiness.
    pub(super) serial: u64,
    pub(super) ready_at: Nanos,
    /// When it is due; [`Nanos::MAX`]: never.
    pub(super) due: Nanos,
    /// What being late costs: the mean time between jobs of the source [ns]; for a token, its share of the request's.
    pub(super) weight: u64,
    /// What another token may take, if it writes an answer with a goal for that.
    pub(super) per_token: Option<Nanos>,
    /// Output tokens that it is expected to generate yet, at least 1.
    pub(super) tokens_left: u32,
    pub(super) weights: ModelId,
    pub(super) kind: Phase,
    pub(super) droppable: bool,
    /// Whether a small model may draft its answer.
    pub(super) drafted: bool,
}

/// What is left to do on one processor until something is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct On {
    /// Nominal time, hand-over included [ns]; [`NOWHERE`] if it cannot run there.
    pub(super) ns: u64,
    /// Time to load the weights, if they are not in memory.
    pub(super) load: Nanos,
}

/// What stages need, by [`StageId`]; as large as the most stages that were ever alive at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// The [changes](onbeat_core::slab::Slab::changes) of each stage that an entry is of; [`NEVER`]: there is none.
    known: Vec<u64>,
    needs: Vec<Option<Need>>,
    /// By stage and processor.
    on: Vec<On>,
    /// Processors that had failed, as bits by id.
    failed: u64,
}

impl Need {
    pub(super) fn of(view: &View<'_>, stage: StageId) -> Self {
        let (live, source) = (view.stage(stage), view.source(stage));
        Self {
            serial: live.serial,
            ready_at: live.ready_at,
            due: view.due(stage),
            weight: weight(view, stage),
            per_token: source.tpot.filter(|_| live.kind == Phase::Decode && view.answers(stage)),
            tokens_left: tokens_left(live),
            weights: live.weights,
            kind: live.kind,
            droppable: source.drop != DropRule::None,
            drafted: view.draft(stage).is_some(),
        }
    }
}

impl Needs {
    /// What a ready stage needs, and on each processor. `None` where it has a choice of variants, or its times depend on more than the
    /// stage: on units, on a cache that is elsewhere, on an adapter.
    pub(super) fn of(
        &mut self,
        view: &View<'_>,
        stage: StageId,
        times: &mut Times,
        choices: &Choices,
    ) -> Option<(Need, &[On])> {
        let (i, count) = (stage.index(), view.processors().len());
        if self.failed != view.state.failed {
            self.failed = view.state.failed;
            self.known.fill(NEVER);
        }
        if i >= self.known.len() {
            self.known.resize(i + 1, NEVER);
            self.needs.resize(i + 1, None);
            self.on.resize((i + 1) * count, On { ns: NOWHERE, load: Nanos::ZERO });
        }
        let on = &mut self.on[i * count..(i + 1) * count];
        let changes = view.state.stages.changes(stage);
        if self.known[i] != changes {
            self.known[i] = changes;
            let steady = choices.of(view, stage).is_empty() && find_times(view, stage, times, on);
            self.needs[i] = steady.then(|| Need::of(view, stage));
        }
        Some((self.needs[i]?, on))
    }
}

/// Finds what is left of a stage on each processor. Whether that changes with the stage alone.
fn find_times(view: &View<'_>, stage: StageId, times: &mut Times, on: &mut [On]) -> bool {
    let left = times.of(view, stage);
    for (p, on) in view.processors().zip(on) {
        let Some(handover) = view.steady_handover(stage, p) else { return false };
        *on = match (left[p.index()].filter(|_| view.can_run(stage, p)), view.cost(stage, p)) {
            (Some(rest), Some(cost)) => {
                On { ns: until_next(view, stage, rest) + handover.0, load: Nanos(cost.load_ns) }
            }
            _ => On { ns: NOWHERE, load: Nanos::ZERO },
        };
    }
    true
}

/// What being late costs: the mean time between jobs of the source [ns]; for a token of an answer, its share of the request's.
pub(super) fn weight(view: &View<'_>, stage: StageId) -> u64 {
    let live = view.stage(stage);
    let period = view.source(stage).period().unwrap_or(Nanos::from_secs(1.0)).0;
    let token = live.kind == Phase::Decode && (view.token_is_due(stage) || view.due(stage) == Nanos::MAX);
    if token { period / u64::from(live.work.output.max(1)) } else { period }
}

/// Output tokens that a stage in decode is expected to generate yet, at least 1.
pub(super) fn tokens_left(live: &Stage) -> u32 {
    live.work.output.saturating_sub(live.tokens).max(1)
}
