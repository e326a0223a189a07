//! Which jobs there are to accept: one demand per source, class and period of use.

use onbeat_core::id::{IdVec, NodeId, ProcessorId, SourceId};
use onbeat_core::spec::ModelShape;
use onbeat_core::system::{Source, System};
use onbeat_core::units::Nanos;

use crate::demand::{Arrivals, JobClass, Part, PartKind, groups_of_requests, job_classes, largest, within};

/// A stretch of the run within which no source becomes active or inactive.
pub(super) type Epoch = (Nanos, Nanos);

/// Jobs of one class that are released in one epoch.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub(super) source: SourceId,
    /// Expected number of jobs that can be judged at most.
    pub(super) most: f64,
    /// Expected number of jobs, at least, that are judged whatever the policy does unless they are accepted.
    pub(super) certain: f64,
    /// Why the jobs cannot be in time, if so.
    pub(super) impossible: Option<String>,
    /// Parts of the work of one job that it needs to be in time: time on a slot of each processor [ns].
    pub(super) work: Vec<IdVec<ProcessorId, Option<f64>>>,
    /// Numbers of the epochs in which the work can be done.
    pub(super) epochs: std::ops::Range<usize>,
}

/// All demands of a system.
pub(super) fn demands(system: &System, epochs: &[Epoch]) -> Vec<Demand> {
    system.sources.ids().flat_map(|source| of_source(system, epochs, source)).collect()
}

fn of_source(system: &System, epochs: &[Epoch], id: SourceId) -> Vec<Demand> {
    let source = &system.sources[id];
    if source.deadline.is_none() && source.ttft.is_none() && source.tpot.is_none() {
        return Vec::new();
    }
    let groups = groups_of_requests(&source.arrival);
    let limited = Arrivals::by_epoch(source, epochs);
    let jitter = source.jitter.as_ref().map_or(Some(0.0), largest).map_or(Nanos::MAX, Nanos::from_ns_f64);
    // From when on a job that is not in time is judged: after its deadline, or else its TTFT goal.
    let due = source.deadline.or(source.ttft);
    let mut demands = Vec::new();
    for class in job_classes(system, id) {
        let needs = Needs::of(system, source, id, &class);
        for (k, (&(from, to), limit)) in epochs.iter().zip(&limited).enumerate() {
            if from < system.warm_up {
                continue;
            }
            let of_class = |to: Nanos| {
                if let Some(group) = class.group {
                    // Which requests a trace has in an epoch is known.
                    return within(source, from, to, |i| groups[i] == group);
                }
                let all = within(source, from, to, |_| true);
                let (most, least) = (all.most.min(limit.most), all.least.min(limit.least));
                Arrivals { most: most * class.share, least: least * class.share }
            };
            // A trace with a limit on the number of jobs: which groups it cuts is not tracked.
            let cut = class.group.is_some() && source.count.is_some();
            let judged_until = due.map_or(Nanos::ZERO, |due| system.duration.saturating_sub(due.max(jitter)));
            let certain = if cut || !needs.judged { 0.0 } else { of_class(to.min(judged_until)).least };
            let most = of_class(to).most;
            if most <= 0.0 {
                continue;
            }
            let last = to.saturating_add(due.unwrap_or(Nanos::MAX));
            let reach = epochs.iter().skip(k).take_while(|&&(start, _)| start < last).count();
            demands.push(Demand {
                source: id,
                most,
                certain,
                impossible: needs.impossible.clone(),
                work: needs.work.clone(),
                epochs: k..k + reach,
            });
        }
    }
    demands
}

/// What one job of a class needs to be in time.
struct Needs {
    work: Vec<IdVec<ProcessorId, Option<f64>>>,
    impossible: Option<String>,
    /// Whether a job that is not in time is judged in the end.
    judged: bool,
}

impl Needs {
    fn of(system: &System, source: &Source, id: SourceId, class: &JobClass) -> Self {
        let parts: Vec<(NodeId, f64, Vec<Part>)> =
            class.stages.iter().map(|stage| (stage.node, stage.instances, stage.parts(system))).collect();
        let language = system
            .nodes_of(id)
            .filter(|&node| system.models[system.nodes[node].model].shape == ModelShape::Autoregressive)
            .last()
            .and_then(|node| parts.iter().position(|part| part.0 == node));
        // When each stage is ready and finished at the earliest, after the release [ns].
        let mut finish: Vec<f64> = Vec::new();
        let mut first_token = None;
        for (i, (node, _, stage)) in parts.iter().enumerate() {
            let before = |n: &NodeId| parts.iter().position(|part| part.0 == *n).and_then(|j| finish.get(j)).copied();
            let ready = system.nodes[*node].before.iter().filter_map(before).fold(0.0, f64::max);
            if language == Some(i) {
                let prefill =
                    stage.iter().filter(|part| part.kind == PartKind::First).map(Part::fastest_ns).sum::<f64>();
                first_token = Some(ready + prefill);
            }
            finish.push(ready + stage.iter().map(Part::fastest_ns).sum::<f64>());
        }
        let whole = finish.iter().copied().fold(0.0, f64::max);
        let later = |takes: f64, goal: Nanos| takes > goal.as_f64() * (1.0 + 1e-9) + 1.0;
        let at_best = |takes: f64| Nanos::from_ns_f64(takes);
        let too_late = |deadline: Nanos| {
            later(whole, deadline)
                .then(|| format!("its fastest path takes {} alone and the deadline is {deadline}", at_best(whole)))
        };
        let late_token = |goal: Nanos| {
            first_token.filter(|&first| later(first, goal)).map(|first| {
                format!("its first token comes after {} at best and the TTFT goal is {goal}", at_best(first))
            })
        };
        let step = language.and_then(|i| mean_step_ns(&parts[i].2));
        let slow = |goal: Nanos| {
            step.filter(|&step| later(step, goal))
                .map(|step| format!("a token takes {} at best and the TPOT goal is {goal}", at_best(step)))
        };
        let impossible = source
            .deadline
            .and_then(too_late)
            .or_else(|| source.ttft.and_then(late_token))
            .or_else(|| source.tpot.and_then(slow));
        // Without a deadline, a request that gave its first token in time and never ends is not judged: all that
        // avoiding a violation takes is the work up to there – and nothing, if there is no TTFT goal or no language
        // model in this class.
        let full = source.deadline.is_some();
        let up_to_first = source.ttft.is_some() && first_token.is_some();
        let needed = |i: usize| full || language.is_some_and(|last| precedes(system, parts[i].0, parts[last].0));
        let work = parts
            .iter()
            .enumerate()
            .filter(|&(i, _)| needed(i))
            .flat_map(|(i, &(_, instances, ref stage))| {
                let counts = move |part: &&Part| full || language != Some(i) || part.kind == PartKind::First;
                let load = move |part: &Part| part.load_ns.iter().map(|ns| ns.map(|ns| ns * instances)).collect();
                stage.iter().filter(counts).map(load)
            })
            .collect();
        // A missed TPOT goal alone is no certain violation without a deadline: the answer can be left unfinished.
        let certain = full || (up_to_first && source.ttft.and_then(late_token).is_some());
        let judged = certain || (up_to_first && impossible.is_none());
        Self { work, impossible, judged }
    }
}

/// The least mean time per token after the first [ns]; `None` if there is none.
fn mean_step_ns(stage: &[Part]) -> Option<f64> {
    let (mut steps, mut sum) = (0_u32, 0.0);
    for part in stage {
        if let PartKind::Decode(n) = part.kind {
            steps += n;
            sum += part.fastest_ns();
        }
    }
    (steps > 0).then(|| sum / f64::from(steps))
}

/// Whether a stage is, or certainly goes before, another one.
fn precedes(system: &System, node: NodeId, of: NodeId) -> bool {
    node == of || system.nodes[of].before.iter().any(|&before| precedes(system, node, before))
}
