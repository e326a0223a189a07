//! What `onbeat` foresees of sources before their jobs are released: which periodic streams will release some when, and which other jobs
//! may come at any time.

use onbeat_core::cost::{Cost, Phase, PhaseCost, Work};
use onbeat_core::id::{IdVec, ProcessorId, SourceId};
use onbeat_core::spec::DropRule;
use onbeat_core::system::{Arrival, Node, System};
use onbeat_core::units::Nanos;

use crate::timetable::{NOWHERE, Span};

/// A periodic stream with a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) source: SourceId,
    pub(crate) first: Nanos,
    pub(crate) period: Nanos,
    /// The first release in the future, as far as is known.
    pub(crate) next: Nanos,
    pub(crate) deadline: Nanos,
    /// A whole job on each processor, stages that cannot run there on their fastest one.
    pub(crate) spans: IdVec<ProcessorId, Span>,
    pub(crate) shortest: Nanos,
    pub(crate) droppable: bool,
}

/// A source whose jobs may come at any time.
#[derive(Clone, Debug)]
pub(crate) struct Sporadic {
    /// By how much a job meets its first goal – for the first token, otherwise for the end – if it starts at once on each processor: the
    /// goal less what has to be done by then; `None` where it cannot.
    pub(crate) slack: IdVec<ProcessorId, Option<Nanos>>,
}

impl Stream {
    /// All periodic streams with a deadline.
    pub(crate) fn all(system: &System) -> Vec<Self> {
        let streams = system.sources.enumerate().filter_map(|(id, source)| {
            let (&Arrival::Periodic { first, period }, Some(deadline)) = (&source.arrival, source.deadline) else {
                return None;
            };
            let spans: IdVec<ProcessorId, Span> =
                system.platform.processors.ids().map(|p| whole_job(system, id, p, deadline)).collect();
            let shortest = spans.iter().map(|span| span.ns).min().map_or(Nanos::ZERO, Nanos);
            let droppable = source.drop != DropRule::None;
            Some(Self { source: id, first, period, next: first, deadline, spans, shortest, droppable })
        });
        streams.collect()
    }
}

/// A whole job of a source on a processor, in the lightest variants, if it comes to that. Where the processor can be divided, on the fewest
/// units on which every stage is on time by itself.
fn whole_job(system: &System, id: SourceId, p: ProcessorId, deadline: Nanos) -> Span {
    let mut sum = Span { ns: 0, units: 1 };
    let mut runs_here = false;
    for node in system.nodes_of(id).map(|node| &system.nodes[node]) {
        runs_here |= node.costs_on(p).next().is_some();
        let variants = node.variant_numbers().filter_map(|variant| {
            let cost = node.costs_of(variant)[p].as_ref()?;
            Some(best_width(cost, deadline, |phases| total_ns(phases, node.work_of(variant, node.expected))))
        });
        let best = node.variants.iter().map(|other| other.best.0).fold(node.best.0, u64::min);
        let span = variants.min_by_key(|span| span.ns).unwrap_or(Span { ns: best, units: 1 });
        sum = Span { ns: sum.ns + span.ns, units: sum.units.max(span.units) };
    }
    if runs_here { sum } else { Span { ns: NOWHERE, units: 1 } }
}

fn total_ns(phases: &[(Phase, PhaseCost)], work: Work) -> f64 {
    phases.iter().map(|(kind, cost)| cost.latency_ns(work, 0.0, work.units(*kind))).sum()
}

/// The fewest units on which something takes no longer than there is time, or else those on which it is done first.
pub(crate) fn best_width(cost: &Cost, time: Nanos, takes_ns: impl Fn(&[(Phase, PhaseCost)]) -> f64) -> Span {
    let mut best = Span { ns: NOWHERE, units: 1 };
    for (units, phases) in cost.at_all_widths() {
        let ns = takes_ns(phases) as u64;
        if ns < best.ns {
            best = Span { ns, units: units.max(1) };
        }
        if ns <= time.0 {
            break;
        }
    }
    best
}

impl Sporadic {
    /// All sources with a deadline or a goal whose jobs may come at any time.
    pub(crate) fn all(system: &System) -> Vec<Self> {
        system.sources.ids().filter_map(|id| Self::of(system, id)).collect()
    }

    fn of(system: &System, id: SourceId) -> Option<Self> {
        let source = &system.sources[id];
        if source.best_effort || (source.deadline.is_some() && matches!(source.arrival, Arrival::Periodic { .. })) {
            return None;
        }
        let goal = source.ttft.or(source.deadline)?;
        let nodes: Vec<&Node> = system.nodes_of(id).map(|node| &system.nodes[node]).collect();
        let answers = source.ttft.and_then(|_| nodes.iter().rposition(|node| reads(node)));
        let counts = what_precedes(&nodes, answers, source.nodes.start);
        let slack = system.platform.processors.ids().map(|p| {
            if nodes.iter().all(|node| node.costs[p].is_none()) {
                return None;
            }
            let mut need = 0.0;
            for (i, node) in nodes.iter().enumerate().filter(|&(i, _)| counts[i]) {
                // A tool takes no processor.
                let Some(cost) = node.costs[p].as_ref().or(node.costs[node.fastest].as_ref()) else { continue };
                let (kind, first) = &cost.phases[0];
                need += if answers == Some(i) {
                    first.latency_ns(node.expected, 0.0, node.expected.units(*kind))
                } else {
                    cost.total_ns(node.expected)
                };
            }
            (need <= goal.as_f64()).then(|| goal.saturating_sub(Nanos::from_ns_f64(need)))
        });
        let slack: IdVec<ProcessorId, Option<Nanos>> = slack.collect();
        slack.iter().any(Option::is_some).then_some(Self { slack })
    }
}

/// Whether a stage is a language model's.
fn reads(node: &Node) -> bool {
    node.costs.iter().flatten().any(|cost| cost.phases[0].0 == Phase::Prefill)
}

/// Which stages of a chain, the first of which has number `first`, have to be done before one of them, that one included; all of them
/// without one.
fn what_precedes(nodes: &[&Node], last: Option<usize>, first: u32) -> Vec<bool> {
    let mut precedes = vec![last.is_none(); nodes.len()];
    if let Some(last) = last {
        precedes[last] = true;
        for i in (0..=last).rev() {
            if precedes[i] {
                nodes[i].before.iter().for_each(|before| precedes[(before.0 - first) as usize] = true);
            }
        }
    }
    precedes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_for_the_first_token_is_for_the_last_language_model_and_what_precedes_it() {
        let toml = r#"
            name = "agent"
            duration_s = 1
            [platform]
            name = "p"
            memory = {}
            processor = [{ name = "npu", kind = "npu" }]
            [model]
            llm = { shape = "autoregressive" }
            eye = {}
            [[cost]]
            model = "llm"
            processor = "npu"
            prefill_ms = [[100, 10]]
            decode_ms = [[0, 1]]
            [[cost]]
            model = "eye"
            processor = "npu"
            latency_ms = 3
            [[session]]
            name = "ask"
            chain = "agent"
            arrival = { process = "poisson", rate_per_s = 1 }
            ttft_ms = 100
            [chain.agent]
            stage = [
                { name = "plan", model = "llm", prompt = 100, output = 11 },
                { name = "look", model = "eye" },
                { name = "answer", model = "llm", prompt = 100, output = 50, after = [{ stage = "plan" }] },
            ]
        "#;
        let system = System::from_toml(toml).unwrap_or_else(|errors| panic!("{errors}"));
        let [ask] = &Sporadic::all(&system)[..] else { panic!("one source") };
        // The plan, prompt and answer, takes 10 + 10 ms, and then the prompt of the answer 10; nobody has to wait for the look.
        assert_eq!(ask.slack[ProcessorId(0)], Some(Nanos(70_000_000)));
    }
}
