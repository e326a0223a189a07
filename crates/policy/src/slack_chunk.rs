//! `slack-chunk`: earliest due first; a piece of a prompt is as large as the nearest deadline of others allows.

use onbeat_core::cost::{Phase, mixed_step_ns};
use onbeat_core::id::{IdVec, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Limit, Policy, View};
use onbeat_core::system::{Arrival, System};
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Times, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "slack-chunk",
    summary: "Earliest due first; prompts run in pieces as large as the slack of the nearest deadline allows",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "least",
            default: "32",
            meaning: "the smallest piece, so that prompts get on even without slack [tokens], 1 to 1000000",
        },
        ParameterInfo { name: "most", default: "2048", meaning: "the largest piece [tokens], 1 to 1000000" },
    ],
    reference: "onbeat's own; token budgets: Agrawal et al., Sarathi-Serve, OSDI 2024",
    build,
};

/// Pieces by slack.
#[derive(Clone, Debug)]
struct SlackChunk {
    order: BySlack,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let tokens = |name| Ok(parameters.number(name, 1.0..=1e6, "a number of tokens from 1 to 1000000")? as u32);
    let order = BySlack::new(system, tokens("least")?, tokens("most")?);
    Ok(Box::new(SlackChunk { order, dispatch: Dispatch::default() }))
}

impl Policy for SlackChunk {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// A periodic stream with a deadline.
#[derive(Clone, Debug)]
struct Stream {
    first: Nanos,
    period: Nanos,
    deadline: Nanos,
    /// Time that its next job needs on each processor.
    spans: IdVec<ProcessorId, Option<Nanos>>,
}

/// Sizes of prompt pieces by the slack of others.
#[derive(Clone, Debug)]
pub(crate) struct BySlack {
    least: u32,
    most: u32,
    streams: Vec<Stream>,
    times: Times,
}

impl BySlack {
    /// Pieces have at least and at most so many tokens.
    pub(crate) fn new(system: &System, least: u32, most: u32) -> Self {
        let streams = system.sources.enumerate().filter_map(|(id, source)| {
            let (&Arrival::Periodic { first, period }, Some(deadline)) = (&source.arrival, source.deadline) else {
                return None;
            };
            // What the first stages need on each processor that they can run on; later ones will be seen when they are ready.
            let mut spans: IdVec<ProcessorId, Option<Nanos>> =
                system.platform.processors.iter().map(|_| None).collect();
            for node in system.nodes_of(id).map(|node| &system.nodes[node]).filter(|node| node.before.is_empty()) {
                for (p, cost) in node.costs.enumerate() {
                    let whole = cost.as_ref().map(|cost| Nanos::from_ns_f64(cost.total_ns(node.expected)) + node.tail);
                    spans[p] = spans[p].max(whole);
                }
            }
            Some(Stream { first, period, deadline, spans })
        });
        Self { least, most, streams: streams.collect(), times: Times::default() }
    }

    /// How long a processor may be held without making anybody else late, as far as is known: those that wait for it, those that it
    /// serves, and the next jobs of periodic streams.
    fn slack(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Nanos {
        let now = view.now();
        let mut slack = Nanos::MAX;
        for &other in view.ready().iter().filter(|&&other| other != stage) {
            let due = view.due(other);
            if due == Nanos::MAX {
                continue;
            }
            if let Some(rest) = self.times.of(view, other)[onbeat_core::id::Id::index(processor)] {
                let need = until_due(view, other, rest);
                slack = slack.min(due.saturating_sub(now).saturating_sub(need));
            }
        }
        for run in &view.occupancy(processor).runs {
            for other in run.stages() {
                slack = slack.min(view.due(other).saturating_sub(now));
            }
        }
        for stream in &self.streams {
            let Some(span) = stream.spans[processor] else { continue };
            let passed = now.saturating_sub(stream.first).0 / stream.period.0.max(1);
            let at_or_after = Nanos(stream.first.0 + passed * stream.period.0);
            let next = if at_or_after <= now { at_or_after + stream.period } else { at_or_after };
            slack = slack.min((next + stream.deadline).saturating_sub(now).saturating_sub(span));
        }
        slack
    }

    /// Where a piece of a stage's prompt can share the next step of a batch, and its size [tokens].
    pub(crate) fn shared(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        let p = view.processors().find(|&p| plan.tokens_to_share(view, stage, p).is_some())?;
        let decode = decode_step(view, p, stage);
        Some((p, self.tokens(view, stage, p, decode)))
    }

    /// The largest piece of a stage's prompt that, together with a decode step of `decode_ns`, takes no longer than the slack.
    fn tokens(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId, decode_ns: f64) -> u32 {
        let slack = self.slack(view, stage, processor).as_f64();
        let live = view.stage(stage);
        let left = (live.work.units(Phase::Prefill) - live.position).max(1.0) as u32;
        let Some((_, cost)) = view.cost(stage, processor).and_then(|cost| cost.phases.get(usize::from(live.phase)))
        else {
            return self.least;
        };
        let weights = if decode_ns > 0.0 { view.reading_weights(live.model, processor).as_f64() } else { 0.0 };
        let takes = |tokens: u32| {
            let piece = cost.piece_ns(live.work, live.position, live.position + f64::from(tokens));
            mixed_step_ns(decode_ns, piece, weights)
        };
        let (least, most) = (self.least.min(left), self.most.max(self.least).min(left));
        if takes(most) <= slack {
            return most;
        }
        // Invariant: `low` is allowed, `high` takes too long.
        let (mut low, mut high) = (least, most);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if takes(middle) <= slack {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Nominal time of the next decode step of a model's batch on a processor [ns]; 0 if there is none.
fn decode_step(view: &View<'_>, processor: ProcessorId, stage: StageId) -> f64 {
    let model = view.stage(stage).model;
    let Some(run) = view.occupancy(processor).runs.iter().find(|run| run.model == model) else { return 0.0 };
    let (mut sum, mut count, mut factor) = (0.0, 0_u32, 1.0);
    for other in run.stages() {
        let live = view.stage(other);
        if let (Phase::Decode, Some(cost)) = (live.kind, view.cost(other, processor)) {
            let (_, phase) = &cost.phases[usize::from(live.phase)];
            sum += phase.latency_ns(live.work, live.position, live.position + 1.0);
            count += 1;
            factor = phase.batch_factor(count);
        }
    }
    sum / f64::from(count.max(1)) * factor
}

impl Order for BySlack {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn limit(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Limit> {
        let prompt = view.stage(stage).kind == Phase::Prefill;
        prompt.then(|| Limit::Units(self.tokens(view, stage, processor, 0.0)))
    }

    fn share(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<(ProcessorId, u32)> {
        self.shared(view, plan, stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ProcessorId, StageId};
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms};

    fn units(stage: StageId, tokens: u32) -> Action {
        Action::Start { stage, processor: ProcessorId(0), limit: Some(Limit::Units(tokens)), units: None }
    }

    #[test]
    fn a_piece_is_as_large_as_the_next_frame_allows() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let prompt = rig.ready(chat, 0.0);
        assert_eq!(rig.decide("slack-chunk"), [units(prompt, 100)], "nobody else: all of it");
        assert_eq!(rig.decide("slack-chunk:most=40"), [units(prompt, 40)]);
        // A frame every 30 ms, due after 30, takes 5: at 8 ms, the next one must start by 55. One token takes 1 ms.
        let _ = rig.stream("frame", Some(30.0), &[Some(5.0)]);
        rig.state.now = ms(8.0);
        assert_eq!(rig.decide("slack-chunk"), [units(prompt, 47)]);
        rig.state.now = ms(29.0);
        assert_eq!(rig.decide("slack-chunk:least=30"), [units(prompt, 30)], "26 fit, but prompts get on");
    }

    #[test]
    fn a_shared_step_keeps_the_pace_of_the_answers() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 8);
        rig.mix(chat);
        let answer = rig.running_decode(chat, 0, 0.0);
        let prompt = rig.ready(chat, 0.0);
        // Twenty tokens are there, the next one is due at 1000 ms: nothing is near.
        rig.state.stages[answer].tokens = 20;
        assert_eq!(rig.decide("slack-chunk"), [units(prompt, 100)]);
        // 44 ms before it is due: a step of 4 ms and 40 tokens.
        (rig.state.stages[answer].tokens, rig.state.stages[answer].first_token) = (1, Some(ms(1000.0)));
        rig.state.now = ms(1006.0);
        assert_eq!(rig.decide("slack-chunk"), [units(prompt, 40)]);
    }
}
