//! `cycle-conserving-edf`: partitioned EDF at the slowest operating points that still leave room for everybody's worst case.

use onbeat_core::cost::PhaseCost;
use onbeat_core::id::{IdVec, JobId, NodeId, ProcessorId, SourceId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::spec::{ModelShape, VariationKind};
use onbeat_core::system::{Arrival, System};
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch};
use crate::edf::{PREEMPTIVE, TokenAlarm};
use crate::p_edf::Partition;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "cycle-conserving-edf",
    summary: "Partitioned EDF at the slowest operating points that leave room for everybody's worst case",
    group: "real-time",
    parameters: &[MARGIN, PREEMPTIVE],
    reference: "Pillai and Shin, Real-Time Dynamic Voltage Scaling for Low-Power Embedded Operating Systems, SOSP 2001",
    build,
};

const MARGIN: ParameterInfo = ParameterInfo {
    name: "margin",
    default: "1",
    meaning: "worst-case times are the profile's (the largest of a measured distribution) times this, > 0",
};

/// Cycle-conserving EDF.
#[derive(Clone, Debug)]
struct CycleConserving {
    order: Partition,
    dispatch: Dispatch,
    tokens: TokenAlarm,
    /// What a job of a source needs on each processor at most; `None`: it has no period or no known worst case.
    budgets: IdVec<SourceId, IdVec<ProcessorId, Option<Need>>>,
    /// Until when a job of a source counts, after its release.
    windows: IdVec<SourceId, Nanos>,
    /// Jobs that have not ended, or ended early, by release.
    claims: Vec<Claim>,
    /// What has been running since the last decision: serial number of the job, and processor.
    running: Vec<(u64, ProcessorId)>,
    /// Serial number of the next job that is new.
    next: u64,
    /// When the times of running work were last accounted for, and at which speed each processor has run since.
    since: Nanos,
    speeds: IdVec<ProcessorId, f64>,
    /// Demand on each processor: compute-bound and memory-bound, and whether somebody without a budget is there. Scratch.
    demand: IdVec<ProcessorId, (f64, f64, bool)>,
    alarm: Alarm,
}

/// Time that a job takes on a processor at the first operating point [ns].
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    compute: f64,
    memory: f64,
}

/// A job's claim on a processor.
#[derive(Clone, Copy, Debug)]
struct Claim {
    job: JobId,
    serial: u64,
    source: SourceId,
    processor: ProcessorId,
    /// When it stops counting, if the job has ended by then.
    until: Nanos,
    /// Progress made there, at the first operating point [ns].
    used: f64,
    done: bool,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = Partition::new(system, parameters.flag("preemptive")?);
    let margin = parameters.factor("margin")?;
    let processors = || system.platform.processors.ids();
    let budgets =
        system.sources.ids().map(|source| processors().map(|p| budget(system, &order, source, p, margin)).collect());
    Ok(Box::new(CycleConserving {
        budgets: budgets.collect(),
        windows: system.sources.ids().map(|source| window(system, source)).collect(),
        order,
        dispatch: Dispatch::default(),
        tokens: TokenAlarm::default(),
        claims: Vec::new(),
        running: Vec::new(),
        next: 0,
        since: Nanos::ZERO,
        speeds: processors().map(|_| 1.0).collect(),
        demand: processors().map(|_| (0.0, 0.0, false)).collect(),
        alarm: Alarm::default(),
    }))
}

/// How long a job of a source counts: its period, or its deadline if that is shorter.
fn window(system: &System, source: SourceId) -> Nanos {
    let source = &system.sources[source];
    source.period().unwrap_or(Nanos::MAX).min(source.deadline.unwrap_or(Nanos::MAX))
}

/// What a job of a source needs on a processor in the worst case. `None` if that is not known although it runs there.
fn budget(system: &System, order: &Partition, source: SourceId, p: ProcessorId, margin: f64) -> Option<Need> {
    let declared = &system.sources[source];
    let mut need = Need::default();
    let mut runs: IdVec<NodeId, f64> = system.nodes.iter().map(|_| 0.0).collect();
    for node in system.nodes_of(source) {
        let stage = &system.nodes[node];
        if stage.before.is_empty() {
            runs[node] = 1.0;
        }
        let count = runs[node];
        for edge in &stage.after {
            let most = edge.fan_out.as_ref().map_or(1.0, |fan_out| fan_out.max.ceil());
            runs[edge.to] = runs[edge.to].max(count * most);
        }
        if !order.is_on(node, p) {
            continue;
        }
        let periodic = matches!(declared.arrival, Arrival::Periodic { .. }) && declared.deadline.is_some();
        if !periodic || system.models[stage.model].shape == ModelShape::Autoregressive {
            return None;
        }
        let cost = stage.costs[p].as_ref()?;
        for (kind, phase) in &cost.phases {
            let units = stage.expected.units(*kind);
            let alone = phase.latency_ns(stage.expected, 0.0, units);
            let bytes = phase.bytes(stage.expected, 0.0, units);
            let bound = system.platform.memory_bound(p, bytes, alone);
            let worst = alone * worst_factor(system, phase) * margin * count;
            need.compute += worst * (1.0 - bound);
            need.memory += worst * bound;
        }
    }
    Some(need)
}

/// The largest ratio of a real latency to the nominal one, where there is a largest; otherwise 1.
fn worst_factor(system: &System, cost: &PhaseCost) -> f64 {
    match (cost, system.variation.kind) {
        (PhaseCost::Fixed { quantiles: Some(quantiles), .. }, _) => quantiles.at(1.0),
        (_, VariationKind::Uniform) => 1.0 + system.variation.spread,
        _ => 1.0,
    }
}

impl Need {
    /// The share of its time that is bound by memory.
    fn bound(self) -> f64 {
        let whole = self.compute + self.memory;
        if whole > 0.0 { self.memory / whole } else { 0.0 }
    }
}

impl Policy for CycleConserving {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.account(view);
        self.admit(view);
        self.set_points(view, actions);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
        self.remember(view, actions);
    }
}

impl CycleConserving {
    /// Adds what running work has done since the last decision to its claims, and closes those of jobs that have ended.
    fn account(&mut self, view: &View<'_>) {
        let (now, time) = (view.now(), (view.now() - self.since).as_f64());
        self.since = now;
        for &(serial, processor) in self.running.iter().filter(|_| time > 0.0) {
            let mut claims = self.claims.iter_mut();
            if let Some(claim) = claims.find(|claim| claim.serial == serial && claim.processor == processor) {
                let bound = self.budgets[claim.source][processor].map_or(0.0, Need::bound);
                claim.used += time / ((1.0 - bound) / self.speeds[processor] + bound);
            }
        }
        for claim in self.claims.iter_mut().filter(|claim| !claim.done) {
            claim.done = view.state.jobs.get(claim.job).is_none_or(|job| job.serial != claim.serial);
        }
        self.claims.retain(|claim| !claim.done || claim.until > now);
    }

    /// New jobs claim their worst case.
    fn admit(&mut self, view: &View<'_>) {
        let mut next = self.next;
        for (id, job) in view.state.jobs.iter().filter(|(_, job)| job.serial >= self.next) {
            next = next.max(job.serial + 1);
            let until = job.release.saturating_add(self.windows[job.source]);
            for (processor, need) in self.budgets[job.source].enumerate() {
                if need.is_none_or(|need| need.compute + need.memory > 0.0) {
                    self.claims.push(Claim {
                        job: id,
                        serial: job.serial,
                        source: job.source,
                        processor,
                        until,
                        used: 0.0,
                        done: false,
                    });
                }
            }
        }
        self.next = next;
    }

    /// The slowest points at which all claims fit: compute ÷ speed + memory ≤ slots.
    fn set_points(&mut self, view: &View<'_>, actions: &mut Actions) {
        for (p, demand) in self.demand.enumerate_mut() {
            *demand = (0.0, 0.0, false);
            self.speeds[p] = view.speed(p);
        }
        let mut early = Nanos::MAX;
        for claim in &self.claims {
            let (compute, memory, unbounded) = &mut self.demand[claim.processor];
            let Some(need) = self.budgets[claim.source][claim.processor] else {
                *unbounded |= !claim.done;
                continue;
            };
            let window = self.windows[claim.source].as_f64();
            // A job that has ended counts with what it has used; before that it may need all of its worst case.
            let used = if claim.done { claim.used / (need.compute + need.memory) } else { 1.0 };
            *compute += need.compute * used / window;
            *memory += need.memory * used / window;
            if claim.done {
                early = early.min(claim.until);
            }
        }
        for (p, &(compute, memory, unbounded)) in self.demand.enumerate() {
            if view.points(p).len() < 2 {
                continue;
            }
            let model = view.system.platform.processors[p].power.as_ref().expect("it has operating points");
            let room = f64::from(view.system.platform.processors[p].slots) - memory;
            let point = if unbounded || room <= 0.0 { model.fastest() } else { model.at_least(compute / room) };
            actions.set_point(p, point);
            if model.transition == Nanos::ZERO && view.power(p).allowed == model.fastest() {
                self.speeds[p] = model.points[point as usize].speed;
            }
        }
        if early != Nanos::MAX && early > view.now() {
            self.alarm.set(view.now(), early, actions);
        }
    }

    /// Notes what runs from now on. What a preemption or a shortage of memory changes is seen in another decision at this instant.
    fn remember(&mut self, view: &View<'_>, actions: &Actions) {
        self.running.clear();
        let serial = |stage: StageId| view.job(stage).serial;
        for p in view.processors() {
            for run in &view.occupancy(p).runs {
                self.running.extend(run.stages().map(|stage| (serial(stage), p)));
            }
        }
        for action in actions.as_slice() {
            if let Action::Start { stage, processor, .. } = *action {
                self.running.push((serial(stage), processor));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::power::{Governor, OperatingPoint, PowerModel};
    use onbeat_core::spec::Preemption;

    use super::*;
    use crate::test_rig::{Rig, ms};

    /// A processor with the speeds 1, 0.75 and 0.5.
    fn rig() -> Rig {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime)]);
        let mut model = PowerModel::fixed(0.0, Some(1.0));
        for speed in [0.75, 0.5] {
            model.points.push(OperatingPoint { speed, ..model.points[0].clone() });
        }
        rig.system.platform.processors[ProcessorId(0)].power = Some(model);
        rig.state.power[ProcessorId(0)].adjustable = true;
        rig
    }

    fn points(actions: &[Action]) -> Vec<u32> {
        let point = |action: &Action| if let Action::SetPoint { point, .. } = action { Some(*point) } else { None };
        actions.iter().filter_map(point).collect()
    }

    #[test]
    fn the_point_leaves_room_for_the_worst_case_of_all_jobs_at_hand() {
        let mut rig = rig();
        let a = rig.stream("a", Some(10.0), &[Some(4.0)]);
        let b = rig.stream("b", Some(20.0), &[Some(6.0)]);
        let mut policy = rig.make("cycle-conserving-edf");
        rig.ready(a, 0.0);
        assert_eq!(points(&rig.decide_with(&mut policy)), [2], "0.4 fit into half of the speed");
        rig.ready(b, 0.0);
        assert_eq!(points(&rig.decide_with(&mut policy)), [1], "0.4 + 0.3 = 0.7");
        assert_eq!(points(&rig.decide("cycle-conserving-edf:margin=1.2")), [0], "0.84");
    }

    #[test]
    fn a_job_that_has_ended_early_counts_with_what_it_used_until_its_deadline() {
        let mut rig = rig();
        let a = rig.stream("a", Some(10.0), &[Some(4.0)]);
        let b = rig.stream("b", Some(20.0), &[Some(6.0)]);
        let mut policy = rig.make("cycle-conserving-edf");
        let first = rig.ready(a, 0.0);
        rig.ready(b, 0.0);
        rig.decide_with(&mut policy);
        // It runs for 2 ms at 0.75: 1.5 ms at full speed instead of 4. 0.15 + 0.3 = 0.45.
        rig.state.ready.retain(|&stage| stage != first);
        let job = rig.state.stages[first].job;
        rig.state.stages.remove(first);
        rig.state.jobs.remove(job);
        rig.state.now = ms(2.0);
        let actions = rig.decide_with(&mut policy);
        assert_eq!(points(&actions), [2]);
        assert!(actions.contains(&Action::Wake { at: ms(10.0) }), "{actions:?}");
    }

    #[test]
    fn work_without_a_worst_case_runs_at_full_speed() {
        let mut rig = rig();
        let chat = rig.session("chat", &[4.0], 1);
        let mut policy = rig.make("cycle-conserving-edf");
        let stage = rig.ready(chat, 0.0);
        assert_eq!(points(&rig.decide_with(&mut policy)), [0]);
        let job = rig.state.stages[stage].job;
        rig.state.ready.clear();
        rig.state.stages.remove(stage);
        rig.state.jobs.remove(job);
        rig.state.now = ms(1.0);
        assert_eq!(points(&rig.decide_with(&mut policy)), [2], "nothing to do");
    }

    #[test]
    fn points_that_somebody_else_chooses_are_left_alone() {
        let mut rig = rig();
        let a = rig.stream("a", Some(10.0), &[Some(4.0)]);
        rig.ready(a, 0.0);
        let power = rig.system.platform.processors[ProcessorId(0)].power.as_mut().unwrap();
        power.governor = Governor::Ondemand;
        assert_eq!(points(&rig.decide("cycle-conserving-edf")), [0_u32; 0]);
    }
}
