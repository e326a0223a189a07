//! `heft-reserved`: the longest of the shortest latencies goes first, waits for a busy processor that is worth it, and reserves time
//! for what follows in its chain.

use std::cmp::Reverse;

use onbeat_core::id::{Id, JobId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::band_sel::busy_for;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "heft-reserved",
    summary: "Band's HEFT: the longest stage chooses first, may wait for a busy processor, and reserves time for its successor",
    group: "multi-DNN",
    parameters: &[ParameterInfo {
        name: "reserve",
        default: "true",
        meaning: "true: the next stage of a chain counts as a load on its fastest processor while the one before it runs; false: it does not",
    }],
    reference: "Jeong et al., Band: Coordinated Multi-DNN Inference on Heterogeneous Mobile Processors, MobiSys 2022, after Topcuoglu et al., HEFT, IEEE TPDS 13(3), 2002; rule after Band's public code",
    build,
};

/// HEFT with reservations.
#[derive(Clone, Debug)]
struct HeftReserved {
    reserve: bool,
    plan: Plan,
    times: Times,
    /// Stages that have not been started, and do not wait for a busy processor.
    open: Vec<Candidate>,
    /// How long each of them would hold each processor, row by row; `None` where it cannot run.
    own: Vec<Option<Nanos>>,
    /// Time until each processor is done with what runs and with what this decision puts or lets wait there.
    backlog: Vec<Nanos>,
    /// For each chain under way, where its next stage will probably run, and how long.
    reserved: Vec<Reservation>,
    /// The sum of the reservations on each processor.
    reserved_sum: Vec<Nanos>,
}

/// A stage with its shortest expected latency. That depends on the load of processors, and is computed anew where it changed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    stage: StageId,
    serial: u64,
    job: JobId,
    /// Where its row begins in `own`.
    row: usize,
    latency: Nanos,
    processor: ProcessorId,
}

/// How the load of processors has changed since the candidates' latencies were computed.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It has grown on one processor.
    Grown(ProcessorId),
    /// Anything may have happened.
    Any,
}

/// Time on a processor for the next stage of a job.
#[derive(Clone, Copy, Debug)]
struct Reservation {
    job: JobId,
    serial: u64,
    processor: ProcessorId,
    time: Nanos,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(HeftReserved {
        reserve: parameters.flag("reserve")?,
        plan: Plan::default(),
        times: Times::default(),
        open: Vec::new(),
        own: Vec::new(),
        backlog: Vec::new(),
        reserved: Vec::new(),
        reserved_sum: Vec::new(),
    }))
}

impl Policy for HeftReserved {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.reserved.retain(|r| view.state.jobs.get(r.job).is_some_and(|job| job.serial == r.serial));
        if view.ready().is_empty() {
            return;
        }
        self.plan.begin(view);
        self.backlog.clear();
        self.backlog.extend(view.processors().map(|p| busy_for(view, p)));
        self.reserved_sum.clear();
        self.reserved_sum.extend(view.processors().map(|_| Nanos::ZERO));
        for r in &self.reserved {
            let sum = &mut self.reserved_sum[r.processor.index()];
            *sum = sum.saturating_add(r.time);
        }
        self.list(view);
        // Every round takes a stage off the list.
        while self.plan.has_free() {
            let key = |candidate: &Candidate| (candidate.latency, Reverse(candidate.serial));
            let Some(longest) = (0..self.open.len()).max_by_key(|&i| key(&self.open[i])) else { break };
            let Candidate { stage, row, processor, .. } = self.open.swap_remove(longest);
            let time = self.own[row + processor.index()].expect("a candidate can run on its processor");
            let slots = u64::from(view.system.platform.processors[processor].slots);
            let backlog = &mut self.backlog[processor.index()];
            *backlog = backlog.saturating_add(Nanos(time.0 / slots));
            let mut change = Change::Grown(processor);
            if self.plan.is_free(processor) {
                self.plan.start(view, stage, processor, actions);
                self.reserve_next(view, stage, &mut change);
            } else if self.plan.join_any(view, stage, actions) {
                self.reserve_next(view, stage, &mut change);
            }
            self.update(change);
        }
        self.open.sort_unstable_by_key(|candidate| candidate.serial);
        for i in 0..self.open.len() {
            let stage = self.open[i].stage;
            if view.stage(stage).kind.is_batched() && self.plan.join_any(view, stage, actions) {
                self.reserve_next(view, stage, &mut Change::Any);
            }
        }
    }
}

impl HeftReserved {
    /// Lists the ready stages that can run somewhere.
    fn list(&mut self, view: &View<'_>) {
        self.open.clear();
        self.own.clear();
        for &stage in view.ready() {
            let row = self.own.len();
            let rest = self.times.of(view, stage);
            self.own.extend(view.processors().zip(rest).map(|(p, rest)| {
                let rest = rest.filter(|_| view.can_run(stage, p))?;
                Some(rest.stage.saturating_add(view.setup(stage, p)))
            }));
            let live = view.stage(stage);
            if let Some((latency, processor)) = self.shortest(row, live.job) {
                self.open.push(Candidate { stage, serial: live.serial, job: live.job, row, latency, processor });
            }
        }
    }

    /// The shortest expected latency of a stage, and where.
    fn shortest(&self, row: usize, job: JobId) -> Option<(Nanos, ProcessorId)> {
        // What is reserved for the stage's own job does not count against it.
        let own_reservation = self.reserved.iter().find(|r| r.job == job);
        let latencies =
            self.own[row..].iter().zip(&self.backlog).enumerate().filter_map(|(number, (time, backlog))| {
                let processor = ProcessorId::new(number);
                let of_job = own_reservation.filter(|r| r.processor == processor).map_or(Nanos::ZERO, |r| r.time);
                let reserved = self.reserved_sum[number].saturating_sub(of_job);
                Some((backlog.saturating_add(reserved).saturating_add((*time)?), processor))
            });
        latencies.min()
    }

    /// Looks again at the candidates that the change can concern.
    fn update(&mut self, change: Change) {
        for i in 0..self.open.len() {
            let Candidate { row, job, processor, .. } = self.open[i];
            if matches!(change, Change::Any) || matches!(change, Change::Grown(grown) if grown == processor) {
                let shortest = self.shortest(row, job).expect("memory refuses nothing during a decision");
                (self.open[i].latency, self.open[i].processor) = shortest;
            }
        }
    }

    /// A stage is being started: what was reserved for it is used, and what certainly follows it is reserved.
    fn reserve_next(&mut self, view: &View<'_>, stage: StageId, change: &mut Change) {
        if !self.reserve {
            return;
        }
        let job = view.stage(stage).job;
        if let Some(used) = self.reserved.iter().position(|r| r.job == job) {
            let r = self.reserved.swap_remove(used);
            let sum = &mut self.reserved_sum[r.processor.index()];
            *sum = sum.saturating_sub(r.time);
            *change = Change::Any;
        }
        if let Some(edge) = view.node(stage).after.iter().find(|edge| edge.probability >= 1.0) {
            let next = &view.system.nodes[edge.to];
            if next.tool.is_some() {
                return;
            }
            let serial = view.job(stage).serial;
            self.reserved.push(Reservation { job, serial, processor: next.fastest, time: next.best });
            let sum = &mut self.reserved_sum[next.fastest.index()];
            *sum = sum.saturating_add(next.best);
            *change = Change::Any;
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{Id, NodeId, ProcessorId};
    use onbeat_core::spec::Preemption;
    use onbeat_core::system::Edge;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn the_longest_goes_first_and_the_rest_may_wait() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let big = rig.stream("big", Some(90.0), &[Some(30.0), Some(9.0)]);
        let small = rig.stream("small", Some(10.0), &[Some(14.0), Some(4.0)]);
        let (small, big) = (rig.ready(small, 0.0), rig.ready(big, 0.0));
        // 9 ms goes before 4 ms; behind it the small one needs 13 ms, less than 14 on the idle CPU: it waits.
        assert_eq!(rig.decide("heft-reserved"), [start(big, 1)]);
        assert_eq!(rig.decide("edf"), [start(small, 1), start(big, 0)]);
    }

    #[test]
    fn it_does_not_wait_where_an_idle_processor_is_no_slower() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let source = rig.stream("s", Some(90.0), &[Some(9.0), Some(5.0)]);
        let (first, second) = (rig.ready(source, 0.0), rig.ready(source, 0.0));
        assert_eq!(rig.decide("heft-reserved"), [start(first, 1), start(second, 0)]);
    }

    #[test]
    fn the_successor_of_a_running_stage_counts_as_a_load() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let head = rig.stream("head", Some(90.0), &[Some(5.0), None]);
        let tail = rig.stream("tail", Some(90.0), &[None, Some(6.0)]);
        let other = rig.stream("other", Some(90.0), &[Some(6.0), Some(4.0)]);
        let edge = Edge { to: NodeId::new(1), probability: 1.0, fan_out: None, per_tokens: None };
        assert_eq!(rig.system.sources[tail].nodes.start, 1);
        rig.system.nodes[NodeId::new(0)].after.push(edge);
        let mut policies = [rig.make("heft-reserved"), rig.make("heft-reserved:reserve=false")];
        let stage = rig.ready(head, 0.0);
        for policy in &mut policies {
            assert_eq!(rig.decide_with(policy), [start(stage, 0)]);
        }
        rig.state.ready.clear();
        rig.start_again(stage, 0, 0.0);
        rig.state.now = ms(1.0);
        let other = rig.ready(other, 1.0);
        // 4 ms on the idle NPU, but 6 ms are reserved there: 10, and on the CPU 4 + 6 = 10 as well: the first processor, so it waits.
        assert_eq!(rig.decide_with(&mut policies[0]), []);
        assert_eq!(rig.decide_with(&mut policies[1]), [start(other, 1)]);
        assert_eq!(ProcessorId::new(1).index(), 1);
    }
}
