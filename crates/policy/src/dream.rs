//! `dream`: of all ready stages and idle processors, the pair with the highest MapScore goes first.

use onbeat_core::id::{Id, JobId, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::Alarm;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::supernet::Supernet;
use crate::times::{Times, until_due};
use crate::tuning::Tuning;
use crate::waiting::Waits;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "dream",
    summary: "DREAM's MapScore: urgency times latency preference, plus starvation, for every stage and processor",
    group: "multi-DNN",
    parameters: &[
        ParameterInfo { name: "alpha", default: "1", meaning: "weight of starvation, 0 to 1000" },
        ParameterInfo { name: "beta", default: "0", meaning: "weight of the energy preference, 0 to 1000" },
        ParameterInfo {
            name: "late",
            default: "true",
            meaning: "true: a stage that is past its due time keeps the urgency 1; false: it has none, and starvation alone speaks for it",
        },
        ParameterInfo {
            name: "drop",
            default: "false",
            meaning: "true: a job that will miss its deadline on every processor is given up while other jobs wait, at most 2 in 10 of its source",
        },
        ParameterInfo {
            name: "supernet",
            default: "true",
            meaning: "true: stages that may run several variants run the best one with which everything that waits can be on time; false: their default one",
        },
        ParameterInfo {
            name: "tune",
            default: "false",
            meaning: "true: alpha and beta are only where an online search for the least UXCost begins; false: they stay as they are",
        },
        ParameterInfo {
            name: "window_ms",
            default: "500",
            meaning: "with tune: time for which a pair of weights is tried [ms], 1 to 3600000",
        },
        ParameterInfo {
            name: "quantum_ms",
            default: "1",
            meaning: "while stages wait for processors that preempt, scores are compared again after this time [ms]; 0: only when something happens",
        },
    ],
    reference: "Kim, Kwon, Song, Jo, Chen, Lai and Chandra, DREAM: A Dynamic Scheduler for Dynamic Real-time Multi-model ML Workloads, ASPLOS 2023, vol. 4",
    build,
};

/// A waiting stage takes over only if its score is larger by more than this: scores that have just crossed do not cross back at once.
const HYSTERESIS: f64 = 0.1;

/// Of so many jobs in a row of one source, at most [`DROPS_MAX`] are given up.
const DROP_WINDOW: u64 = 10;
const DROPS_MAX: u64 = 2;

/// DREAM.
#[derive(Clone, Debug)]
struct Dream {
    alpha: f64,
    beta: f64,
    late: bool,
    quantum: Nanos,
    plan: Plan,
    scores: Scores,
    waiting: Vec<Candidate>,
    /// Smart frame drop, if it is on.
    drops: Option<Drops>,
    /// Supernet switching, if it is on.
    supernet: Option<Supernet>,
    /// Online tuning, if it is on.
    tuning: Option<Tuning>,
    alarm: Alarm,
}

/// A ready stage and the parts of its score that do not depend on the processor.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    serial: u64,
    stage: StageId,
    parts: Parts,
}

/// The parts of a score that do not depend on the processor.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    urgency: f64,
    starvation: f64,
    /// Sum over processors of the latency of the next segment [ns].
    latency_sum: f64,
    /// Sum over processors of its energy [mJ]; 0 where some are unknown.
    energy_sum: f64,
}

/// What scores are computed from.
#[derive(Clone, Debug, Default)]
struct Scores {
    times: Times,
    waits: Waits,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let (alpha, beta) = (parameters.factor("alpha")?, parameters.factor("beta")?);
    let window_ms = parameters.number("window_ms", 1.0..=3_600_000.0, "a number of milliseconds from 1 to 3600000")?;
    let tune = parameters.flag("tune")?;
    Ok(Box::new(Dream {
        alpha,
        beta,
        late: parameters.flag("late")?,
        quantum: parameters.milliseconds("quantum_ms")?,
        plan: Plan::default(),
        scores: Scores::default(),
        waiting: Vec::new(),
        drops: parameters.flag("drop")?.then(|| Drops::new(system)),
        supernet: parameters.flag("supernet")?.then(|| Supernet::new(system)),
        tuning: tune.then(|| Tuning::new(system, Nanos::from_ms(window_ms), [alpha, beta])),
        alarm: Alarm::default(),
    }))
}

impl Policy for Dream {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if let Some(tuning) = &mut self.tuning {
            [self.alpha, self.beta] = tuning.weights(view);
        }
        self.serve(view, actions);
        if let Some(tuning) = &mut self.tuning {
            tuning.note(view, actions, |stage, processor| next_segment(view, stage, processor)?.1);
        }
    }
}

impl Dream {
    fn serve(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.scores.waits.update(view);
        if view.ready().is_empty() {
            return;
        }
        if self.supernet.as_mut().is_some_and(|supernet| supernet.choose(view, &mut self.scores.times, actions)) {
            // It is asked again at once, and sees the variants then.
            return;
        }
        self.plan.begin(view);
        self.waiting.clear();
        if let Some(drops) = &mut self.drops {
            drops.gone.clear();
        }
        for &stage in view.ready() {
            if self.drops.as_mut().is_some_and(|drops| drops.gives_up(view, &mut self.scores.times, stage, actions)) {
                continue;
            }
            let parts = self.scores.parts(view, stage, self.late);
            self.waiting.push(Candidate { serial: view.stage(stage).serial, stage, parts });
        }
        // Every round fills a slot.
        while self.plan.has_free() {
            let Some((i, processor)) = self.best(view) else { break };
            let stage = self.waiting.swap_remove(i).stage;
            self.plan.start(view, stage, processor, actions);
        }
        self.waiting.sort_unstable_by_key(|candidate| candidate.serial);
        let plan = &mut self.plan;
        self.waiting.retain(|candidate| !plan.join_any(view, candidate.stage, actions));
        self.take_over(view, actions);
    }

    /// The waiting stage and idle processor with the highest score; ties go to the earlier stage, then to the first processor.
    fn best(&self, view: &View<'_>) -> Option<(usize, ProcessorId)> {
        let mut best: Option<(f64, u64, usize, ProcessorId)> = None;
        for (i, candidate) in self.waiting.iter().enumerate() {
            for processor in view.processors().filter(|&p| self.plan.fits(view, candidate.stage, p)) {
                let score = self.score(view, candidate.stage, processor, &candidate.parts);
                let better =
                    best.is_none_or(|(top, serial, _, _)| score > top || (score == top && candidate.serial < serial));
                if better {
                    best = Some((score, candidate.serial, i, processor));
                }
            }
        }
        best.map(|(_, _, i, processor)| (i, processor))
    }

    fn score(&self, view: &View<'_>, stage: StageId, processor: ProcessorId, parts: &Parts) -> f64 {
        let Some((latency, energy)) = next_segment(view, stage, processor) else { return f64::NEG_INFINITY };
        let preference = parts.latency_sum / latency.max(1.0);
        let saving = if parts.energy_sum > 0.0 { parts.energy_sum / energy.unwrap_or(f64::INFINITY) } else { 0.0 };
        parts.urgency * preference + self.alpha * parts.starvation + self.beta * saving
    }

    /// Takes processors away from running work with clearly lower scores: for each waiting stage, highest urgency first by serial.
    fn take_over(&mut self, view: &View<'_>, actions: &mut Actions) {
        let mut looks_again = false;
        for processor in view.processors().filter(|&p| view.preemptible(p)) {
            for run in &view.occupancy(processor).runs {
                // A slot that is being freed, and one that is full of work which joins, are left alone.
                if run.ending || self.plan.is_joined(processor, run.model) {
                    continue;
                }
                let score =
                    |this: &Self, candidate: &Candidate| this.score(view, candidate.stage, processor, &candidate.parts);
                let able = self.waiting.iter().enumerate().filter(|(_, c)| view.can_run(c.stage, processor));
                let most = able
                    .map(|(i, candidate)| (score(self, candidate), i))
                    .reduce(|best, other| if other.0 > best.0 { other } else { best });
                let Some((waiting, i)) = most else { continue };
                looks_again = true;
                let mut served = f64::NEG_INFINITY;
                for stage in run.stages() {
                    let parts = self.scores.parts(view, stage, self.late);
                    served = served.max(self.score(view, stage, processor, &parts));
                }
                if waiting > served + HYSTERESIS {
                    actions.preempt(run.stage);
                    self.plan.close(processor, run.model);
                    self.waiting.remove(i);
                }
            }
        }
        if looks_again && self.quantum > Nanos::ZERO {
            self.alarm.set(view.now(), view.now().saturating_add(self.quantum), actions);
        }
    }
}

impl Scores {
    fn parts(&mut self, view: &View<'_>, stage: StageId, late: bool) -> Parts {
        let (mut latency_sum, mut energy_sum, mut count) = (0.0, 0.0, 0.0);
        for processor in view.processors() {
            if let Some((latency, energy)) = next_segment(view, stage, processor) {
                latency_sum += latency;
                energy_sum += energy.unwrap_or(f64::NAN);
                count += 1.0;
            }
        }
        let queued = self.waits.since_served(view, stage).as_f64();
        Parts {
            urgency: self.urgency(view, stage, late),
            starvation: queued / (latency_sum / f64::max(count, 1.0)).max(1.0),
            latency_sum,
            energy_sum: if energy_sum.is_nan() { 0.0 } else { energy_sum },
        }
    }

    /// Work to go, as a mean over processors, by the time left; at most 1.
    fn urgency(&mut self, view: &View<'_>, stage: StageId, late: bool) -> f64 {
        let due = view.due(stage);
        if due == Nanos::MAX {
            return 0.0;
        }
        if due <= view.now() {
            return if late { 1.0 } else { 0.0 };
        }
        let (mut to_go, mut count) = (0.0, 0.0);
        for &rest in self.times.of(view, stage).iter().flatten() {
            to_go += until_due(view, stage, rest).as_f64();
            count += 1.0;
        }
        let slack = due.saturating_sub(view.now()).as_f64();
        (to_go / f64::max(count, 1.0) / slack).min(1.0)
    }
}

/// Latency [ns] and, where it is known, energy [mJ] of a stage's next segment on a processor.
fn next_segment(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<(f64, Option<f64>)> {
    let live = view.stage(stage);
    let (kind, cost) = view.cost(stage, processor)?.phases.get(usize::from(live.phase))?;
    let end = cost.next_boundary(live.work, *kind, live.position);
    let latency = cost.latency_ns(live.work, live.position, end);
    let energy = cost.energy_mj(live.work, live.position, end).or_else(|| {
        let watts = view.system.platform.processors[processor].active_w?;
        Some(watts * latency / 1e6)
    });
    Some((latency, energy))
}

/// Smart frame drop, with a bound on the rate for each source.
#[derive(Clone, Debug)]
struct Drops {
    by_source: Vec<Dropped>,
    /// Jobs given up in this decision.
    gone: Vec<JobId>,
}

/// What was dropped of one source.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    /// Jobs seen so far, and the serial from which on they are new.
    seen: u64,
    next: u64,
    /// Jobs given up.
    dropped: u64,
}

impl Drops {
    fn new(system: &System) -> Self {
        Self { by_source: vec![Dropped::default(); system.sources.len()], gone: Vec::new() }
    }

    /// Gives up the job of a stage if it is the last of its chain and cannot meet the deadline anywhere, while others wait.
    fn gives_up(&mut self, view: &View<'_>, times: &mut Times, stage: StageId, actions: &mut Actions) -> bool {
        let (id, job) = (view.stage(stage).job, view.job(stage));
        if self.gone.contains(&id) {
            return true;
        }
        let source = &mut self.by_source[job.source.index()];
        if job.serial >= source.next {
            (source.seen, source.next) = (source.seen + 1, job.serial + 1);
        }
        let others_wait = view.ready().iter().any(|&other| view.stage(other).job != id);
        let last = view.node(stage).after.is_empty();
        if !others_wait || !last || job.running > 0 || (source.dropped + 1) * DROP_WINDOW > source.seen * DROPS_MAX {
            return false;
        }
        // In the variant that it runs: with supernet switching, one that would miss runs the lightest.
        let fastest = times.of(view, stage).iter().flatten().map(|rest| rest.stage).min();
        let misses = fastest.is_some_and(|time| view.now().saturating_add(time) > job.deadline);
        if misses {
            source.dropped += 1;
            self.gone.push(id);
            actions.drop_job(id);
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_score_weighs_urgency_by_preference() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        // To go (5 + 5) / 2 = 5 of 10 ms: urgency 0.5; preference 10 / 5 = 2 on both: 1.
        let even = rig.stream("even", Some(10.0), &[Some(5.0), Some(5.0)]);
        // To go (12 + 3) / 2 = 7.5 of 25 ms: 0.3; preference 15 / 12 = 1.25 and 15 / 3 = 5: 0.375 and 1.5.
        let picky = rig.stream("picky", Some(25.0), &[Some(12.0), Some(3.0)]);
        let (even, picky) = (rig.ready(even, 0.0), rig.ready(picky, 0.0));
        assert_eq!(rig.decide("dream"), [start(picky, 1), start(even, 0)], "1.5 before 1");
        assert_eq!(rig.decide("edf"), [start(even, 0), start(picky, 1)]);
    }

    #[test]
    fn waiting_makes_up_for_urgency() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let patient = rig.stream("patient", None, &[Some(4.0)]);
        let urgent = rig.stream("urgent", Some(5.0), &[Some(4.0)]);
        let patient = rig.ready(patient, 0.0);
        rig.state.now = ms(2.0);
        let urgent = rig.ready(urgent, 2.0);
        // Urgency 4 / 5 = 0.8 against starvation 2 / 4 = 0.5.
        assert_eq!(rig.decide("dream"), [start(urgent, 0)]);
        assert_eq!(rig.decide("dream:alpha=2"), [start(patient, 0)]);
    }

    #[test]
    fn a_late_stage_keeps_its_urgency_or_loses_it() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let late = rig.stream("late", Some(5.0), &[Some(4.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(4.0)]);
        let late = rig.ready(late, 0.0);
        rig.state.now = ms(6.0);
        let soon = rig.ready(soon, 6.0);
        assert_eq!(rig.decide("dream:alpha=0"), [start(late, 0)]);
        assert_eq!(rig.decide("dream:alpha=0,late=false"), [start(soon, 0)]);
    }

    #[test]
    fn takes_over_once_and_clearly() {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let slow = rig.stream("slow", None, &[Some(40.0)]);
        let fast = rig.stream("fast", Some(8.0), &[Some(4.0)]);
        let running = rig.running(slow, 0, 0.0);
        rig.state.now = ms(1.0);
        rig.ready(fast, 1.0);
        rig.ready(fast, 1.0);
        let wake = Action::Wake { at: ms(2.0) };
        assert_eq!(rig.decide("dream"), [preempt(running), wake]);
        rig.state.processors[onbeat_core::id::ProcessorId(0)].runs[0].ending = true;
        assert_eq!(rig.decide("dream"), []);
    }

    #[test]
    fn drops_what_will_miss_while_others_wait_within_the_cap() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let hopeless = rig.stream("hopeless", Some(3.0), &[Some(4.0)]);
        let other = rig.stream("other", Some(50.0), &[Some(4.0)]);
        rig.running(other, 0, 0.0);
        rig.ready(other, 0.0);
        let stages: Vec<_> = (0..10).map(|_| rig.ready(hopeless, 0.0)).collect();
        // Of ten jobs two go: the fifth and the tenth to be seen.
        let drop = |i: usize| Action::Drop { job: rig.state.stages[stages[i]].job };
        assert_eq!(rig.decide("dream:drop=true"), [drop(4), drop(9)]);
        assert_eq!(rig.decide("dream"), []);
    }

    #[test]
    fn energy_can_decide_where_speed_does_not() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        for (processor, watts) in [(0, 10.0), (1, 2.0)] {
            rig.system.platform.processors[onbeat_core::id::ProcessorId(processor)].active_w = Some(watts);
        }
        let source = rig.stream("s", Some(20.0), &[Some(4.0), Some(5.0)]);
        let stage = rig.ready(source, 0.0);
        assert_eq!(rig.decide("dream"), [start(stage, 0)]);
        // 40 mJ and 10 mJ: energy preference 1.25 and 5.
        assert_eq!(rig.decide("dream:beta=0.1"), [start(stage, 1)]);
    }
}
