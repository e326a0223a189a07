//! `edf-vd`: earliest virtual deadline first: a chain's deadline is sliced among its stages at the release, and scaled.

use onbeat_core::id::{IdVec, NodeId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::edf::{PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "edf-vd",
    summary: "Earliest virtual deadline first: a chain's deadline is sliced among its stages when it is released, and scaled",
    group: "real-time",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "slack",
            default: "proportional",
            meaning: "how a chain's slack is shared: `proportional` to the stages' execution times, or `equal` for every stage",
        },
        ParameterInfo {
            name: "scale",
            default: "1",
            meaning: "virtual deadlines lie at this part of the time from the release, above 0 and at most 1",
        },
    ],
    reference: "Di Natale and Stankovic, Dynamic End-to-End Guarantees in Distributed Real-Time Systems, IEEE RTSS 1994 (slicing: NORM and PURE); scaled deadlines: Baruah et al., The Preemptive Uniprocessor Scheduling of Mixed-Criticality Implicit-Deadline Sporadic Task Systems (EDF-VD), ECRTS 2012",
    build,
};

/// Earliest virtual deadline first.
#[derive(Clone, Debug)]
struct EdfVd {
    order: Sliced,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

/// How slack is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Proportional,
    Equal,
}

/// By virtual deadline.
#[derive(Clone, Debug)]
struct Sliced {
    share: Share,
    scale: f64,
    preemptive: bool,
    paths: IdVec<NodeId, Path>,
}

/// The longest path of a chain through a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Path {
    /// Nominal time up to the end of the stage, on the fastest processors.
    until: Nanos,
    /// Nominal time after it.
    after: Nanos,
    /// Stages up to it, and after it.
    stages: (u32, u32),
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let wrong = |parameter: &'static str, allowed: &'static str| PolicyError::BadValue {
        policy: INFO.name,
        parameter,
        value: parameters.text(parameter).to_owned(),
        allowed,
    };
    let share = match parameters.text("slack") {
        "proportional" => Share::Proportional,
        "equal" => Share::Equal,
        _ => return Err(wrong("slack", "proportional or equal")),
    };
    let scale = parameters.factor("scale")?;
    if scale <= 0.0 || scale > 1.0 {
        return Err(wrong("scale", "a number above 0 and at most 1"));
    }
    let order = Sliced { share, scale, preemptive: parameters.flag("preemptive")?, paths: paths(system) };
    Ok(Box::new(EdfVd { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for EdfVd {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }
}

/// The longest paths, over certain edges only, with expected sizes.
fn paths(system: &System) -> IdVec<NodeId, Path> {
    let mut paths: IdVec<NodeId, Path> = system.nodes.iter().map(|_| Path::default()).collect();
    let certain = |from: NodeId| system.nodes[from].after.iter().filter(|edge| edge.probability >= 1.0);
    for (id, node) in system.nodes.enumerate() {
        // Edges lead to later stages: what comes before is complete.
        paths[id].until = paths[id].until.saturating_add(node.best);
        paths[id].stages.0 += 1;
        let Path { until, stages: (count, _), .. } = paths[id];
        for edge in certain(id) {
            let next = &mut paths[edge.to];
            (next.until, next.stages.0) = (next.until, next.stages.0).max((until, count));
        }
    }
    let mut ids: Vec<NodeId> = system.nodes.ids().collect();
    ids.reverse();
    for id in ids {
        let after = |to: NodeId| (paths[to].after.saturating_add(system.nodes[to].best), paths[to].stages.1 + 1);
        let longest = certain(id).map(|edge| after(edge.to)).max().unwrap_or_default();
        (paths[id].after, paths[id].stages.1) = longest;
    }
    paths
}

/// Where in the time from release to deadline a stage's virtual deadline lies.
fn slice(path: &Path, share: Share, time: Nanos, scale: f64) -> Nanos {
    let (until, after, time) = (path.until.as_f64(), path.after.as_f64(), time.as_f64());
    let whole = (until + after).max(1.0);
    let position = match share {
        Share::Proportional => time * until / whole,
        Share::Equal => {
            let (before, behind) = path.stages;
            until + (time - whole) * f64::from(before) / f64::from(before + behind)
        }
    };
    Nanos::from_ns_f64((position * scale).max(0.0))
}

impl Order for Sliced {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let (job, due) = (view.job(stage), view.due(stage));
        if job.deadline == Nanos::MAX {
            return due.0;
        }
        let time = job.deadline.saturating_sub(job.release);
        let path = &self.paths[view.stage(stage).node];
        // Goals for tokens apply as they are, and no stage is due later than with plain EDF.
        job.release.saturating_add(slice(path, self.share, time, self.scale)).min(due).0
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::NodeId;
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;

    use super::{Path, Share, paths, slice};
    use crate::test_rig::{Rig, ms, start};

    fn edge(to: u32) -> Edge {
        Edge { to: NodeId(to), probability: 1.0, fan_out: None, per_tokens: None }
    }

    /// Three stages of 2, 3 and 5 ms, 30 ms in all, so 20 ms of slack.
    #[test]
    fn slack_is_shared_in_proportion_or_equally() {
        let path = |until: f64, n: u32| Path { until: ms(until), after: ms(10.0 - until), stages: (n, 3 - n) };
        let at = |share: Share| {
            [(2.0, 1), (5.0, 2), (10.0, 3)].map(|(until, n)| slice(&path(until, n), share, ms(30.0), 1.0))
        };
        assert_eq!(at(Share::Proportional), [ms(6.0), ms(15.0), ms(30.0)]);
        // 20/3 for each: 2 + 6.67, 5 + 13.33, 10 + 20.
        let third = |ns: u64| onbeat_core::units::Nanos(ns);
        assert_eq!(at(Share::Equal), [third(8_666_667), third(18_333_333), ms(30.0)]);
        assert_eq!(slice(&path(2.0, 1), Share::Proportional, ms(30.0), 0.5), ms(3.0));
    }

    #[test]
    fn the_longest_path_through_a_stage_counts() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        for latency in [2.0, 3.0, 7.0, 4.0] {
            rig.stream("s", Some(50.0), &[Some(latency)]);
        }
        // 2 -> 3 -> 4 and 2 -> 7 -> 4.
        rig.system.nodes[NodeId(0)].after.extend([edge(1), edge(2)]);
        rig.system.nodes[NodeId(1)].after.push(edge(3));
        rig.system.nodes[NodeId(2)].after.push(edge(3));
        let path = |until: f64, after: f64, stages| Path { until: ms(until), after: ms(after), stages };
        let expected =
            [path(2.0, 11.0, (1, 2)), path(5.0, 4.0, (2, 1)), path(9.0, 4.0, (2, 1)), path(13.0, 0.0, (3, 0))];
        assert_eq!(paths(&rig.system).iter().copied().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_late_chain_does_not_get_a_later_slice() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let chain = rig.stream("chain", Some(30.0), &[Some(5.0)]);
        let single = rig.stream("single", Some(20.0), &[Some(5.0)]);
        rig.stream("tail", Some(30.0), &[Some(5.0)]);
        rig.system.nodes[NodeId(0)].after.push(edge(2));
        rig.system.nodes[NodeId(0)].tail = ms(5.0);
        let late = rig.ready(chain, 0.0);
        rig.state.stages[late].ready_at = ms(14.0);
        rig.state.now = ms(14.0);
        let other = rig.ready(single, 3.0);
        // Due at 15, half of the 30 ms after the release, whenever it became ready; chain-edf shares what is left at 14: 14 + 16/2 = 22.
        assert_eq!(rig.decide("edf-vd"), [start(late, 0)]);
        assert_eq!(rig.decide("edf"), [start(other, 0)], "23 against 25");
    }

    #[test]
    fn mistakes_are_explained() {
        let rig = Rig::new(&[("npu", Preemption::Never)]);
        let error = |text: &str| crate::make(text, &rig.system).unwrap_err().to_string();
        assert!(error("edf-vd:slack=none").contains("proportional or equal"));
        assert!(error("edf-vd:scale=0").contains("above 0 and at most 1"));
    }
}
