//! `heft-reserved`: the longest of the shortest latencies goes first, waits for a busy processor that is worth it, and reserves time
//! for what follows in its chain.

use onbeat_core::cost::Phase;
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
    /// Stages that have not been started, and do not wait for a busy processor, in order of readiness.
    open: Vec<StageId>,
    /// Time until each processor is done with what runs and with what this decision puts or lets wait there.
    backlog: Vec<Nanos>,
    /// For each chain under way, where its next stage will probably run, and how long.
    reserved: Vec<Reservation>,
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
        backlog: Vec::new(),
        reserved: Vec::new(),
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
        self.open.clear();
        self.open.extend_from_slice(view.ready());
        self.open.sort_unstable_by_key(|&stage| view.stage(stage).serial);
        // Every round takes a stage off the list.
        while self.plan.has_free() {
            let Some((i, processor, time)) = self.longest(view) else { break };
            let stage = self.open.remove(i);
            let slots = u64::from(view.system.platform.processors[processor].slots);
            let backlog = &mut self.backlog[processor.index()];
            *backlog = backlog.saturating_add(Nanos(time.0 / slots));
            if self.plan.is_free(processor) {
                self.plan.start(view, stage, processor, actions);
                self.reserve_next(view, stage);
            } else if self.plan.join_any(view, stage, actions) {
                self.reserve_next(view, stage);
            }
        }
        for i in 0..self.open.len() {
            let stage = self.open[i];
            if view.stage(stage).kind == Phase::Decode && self.plan.join_any(view, stage, actions) {
                self.reserve_next(view, stage);
            }
        }
    }
}

impl HeftReserved {
    /// Of the stages left, the one whose shortest expected latency is the longest: its place in the list, processor and own time.
    fn longest(&mut self, view: &View<'_>) -> Option<(usize, ProcessorId, Nanos)> {
        let mut longest: Option<(Nanos, usize, ProcessorId, Nanos)> = None;
        for (i, &stage) in self.open.iter().enumerate() {
            let left = self.times.of(view, stage);
            let able = view.processors().filter(|&p| view.can_run(stage, p));
            let latencies = able.filter_map(|p| {
                let time = left[p.index()]?.stage.saturating_add(view.setup(stage, p));
                let others = self.reserved.iter().filter(|r| r.processor == p && r.job != view.stage(stage).job);
                let reserved: Nanos = others.map(|r| r.time).sum();
                Some((self.backlog[p.index()].saturating_add(reserved).saturating_add(time), p, time))
            });
            if let Some((latency, processor, time)) = latencies.min()
                && longest.is_none_or(|(most, ..)| latency > most)
            {
                longest = Some((latency, i, processor, time));
            }
        }
        longest.map(|(_, i, processor, time)| (i, processor, time))
    }

    /// A stage is being started: what was reserved for it is used, and what certainly follows it is reserved.
    fn reserve_next(&mut self, view: &View<'_>, stage: StageId) {
        if !self.reserve {
            return;
        }
        let job = view.stage(stage).job;
        self.reserved.retain(|r| r.job != job);
        if let Some(edge) = view.node(stage).after.iter().find(|edge| edge.probability >= 1.0) {
            let next = &view.system.nodes[edge.to];
            let serial = view.job(stage).serial;
            self.reserved.push(Reservation { job, serial, processor: next.fastest, time: next.best });
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
