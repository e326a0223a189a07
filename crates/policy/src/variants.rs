//! Variants that stages may be switched to, the best first, and what each would take.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{View, refusal_bit};
use onbeat_core::system::{Node, System};
use onbeat_core::units::Nanos;

/// The variants of all stages that have a choice.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    /// By number of the node, and within it by class of content – one where the source does not say what it sees: the best variant first; empty
    /// without a choice.
    by_node: Vec<Vec<Vec<Choice>>>,
}

/// A variant.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// Its number.
    pub(crate) number: u8,
    /// Quality relative to the best variant, for the class of content; where it is unknown, by the order of the file.
    pub(crate) quality: f64,
    /// The same over all content.
    pub(crate) quality_of_all: f64,
    /// Nominal latency of the whole stage on each processor, `None` where it cannot run. Empty: it depends on the stage's lengths.
    spans: Vec<Option<Nanos>>,
}

impl Choices {
    pub(crate) fn new(system: &System) -> Self {
        let in_classes = |node: &Node| {
            let classes = node.in_content.len() as u8;
            if classes == 0 {
                vec![choices(node, None)]
            } else {
                (0..classes).map(|c| choices(node, Some(c))).collect()
            }
        };
        Self { by_node: system.nodes.iter().map(in_classes).collect() }
    }

    /// The variants of a stage that it can still be switched to, the best first for what its job sees; empty if there is no choice (any
    /// more).
    pub(crate) fn of(&self, view: &View<'_>, stage: StageId) -> &[Choice] {
        let live = view.stage(stage);
        let all = &self.by_node[live.node.index()];
        let class = if all.len() > 1 { usize::from(view.content(stage).unwrap_or(0)) } else { 0 };
        if all[class].is_empty() || live.has_begun() { &[] } else { &all[class] }
    }

    /// Whether any stage has a choice.
    pub(crate) fn any(&self) -> bool {
        self.by_node.iter().flatten().any(|all| !all.is_empty())
    }
}

/// The variants of a node by their quality on inputs of a class; where that is unknown, in the order of the file, which is best first.
fn choices(node: &Node, class: Option<u8>) -> Vec<Choice> {
    if node.variants.is_empty() {
        return Vec::new();
    }
    let fixed = node.all_costs().all(|cost| cost.phases.iter().all(|(kind, _)| !matches!(kind, Phase::Prefill)));
    let choice = |number: u8| {
        let mut work = node.work_of(number, node.expected);
        work.scale = node.in_content(class).map_or(work.scale, |class| class.work);
        let span = |cost: &Option<onbeat_core::cost::Cost>| Some(Nanos::from_ns_f64(cost.as_ref()?.total_ns(work)));
        let spans = if fixed { node.costs_of(number).iter().map(span).collect() } else { Vec::new() };
        // Where scores are unknown, equal steps in the order of the file.
        let by_order = 1.0 - f64::from(number) / (node.variants.len() + 1) as f64;
        let quality = node.quality_in(number, class).unwrap_or(by_order);
        Choice { number, quality, quality_of_all: node.quality_of(number).unwrap_or(by_order), spans }
    };
    let mut all: Vec<Choice> = node.variant_numbers().map(choice).collect();
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(a.number.cmp(&b.number)));
    all
}

impl Choice {
    /// Nominal latency of a stage that has not begun, in this variant on a processor, setup included; `None` if it cannot run there.
    pub(crate) fn span(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        if view.state.failed & refusal_bit(processor) != 0 {
            return None;
        }
        let span = match self.spans.get(processor.index()) {
            Some(span) => (*span)?,
            None => view.remaining_as(stage, self.number, processor)?,
        };
        Some(span.saturating_add(view.setup_as(stage, self.number, processor)))
    }

    /// Like [`Choice::span`], up to the first token of a language model, unless its end is [due](View::token_is_due).
    pub(crate) fn span_until_due(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        let end_is_due = !view.token_is_due(stage) && view.due(stage) < Nanos::MAX;
        if view.stage(stage).kind != Phase::Prefill || end_is_due {
            return self.span(view, stage, processor);
        }
        if view.state.failed & refusal_bit(processor) != 0 {
            return None;
        }
        let prefill = view.remaining_in_phase_as(stage, self.number, processor)?;
        Some(prefill.saturating_add(view.setup_as(stage, self.number, processor)))
    }

    /// The shortest [`Choice::span`] on any processor.
    pub(crate) fn fastest(&self, view: &View<'_>, stage: StageId) -> Option<Nanos> {
        view.processors().filter_map(|p| self.span(view, stage, p)).min()
    }

    /// The shortest [`Choice::span_until_due`] on any processor.
    pub(crate) fn fastest_until_due(&self, view: &View<'_>, stage: StageId) -> Option<Nanos> {
        view.processors().filter_map(|p| self.span_until_due(view, stage, p)).min()
    }

    /// Whether an answer's later tokens come as fast as their goal asks for, alone on some processor; without such a goal they do.
    pub(crate) fn keeps_pace(&self, view: &View<'_>, stage: StageId) -> bool {
        let Some(goal) = view.source(stage).tpot.filter(|_| view.answers(stage)) else { return true };
        let decode = |p| {
            let prefill = view.remaining_in_phase_as(stage, self.number, p)?;
            Some(view.remaining_as(stage, self.number, p)?.saturating_sub(prefill).as_f64())
        };
        let least = view.processors().filter_map(decode).fold(f64::INFINITY, f64::min);
        least <= goal.as_f64() * view.stage(stage).work.units(Phase::Decode)
    }
}
