//! Invariants of a run, checked while it happens.

use std::collections::{BTreeMap, BTreeSet};

use onbeat_core::event::{Event, Sink, StopReason, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use thiserror::Error;

/// An invariant that a run has broken. Every one is a bug in the driver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("at {at}: {what}")]
pub struct Violation {
    /// When.
    pub at: Nanos,
    /// What is wrong.
    pub what: String,
}

/// A sink that checks the invariants of a run:
///
/// * time does not go backwards;
/// * no processor runs more at once than it has slots or units, helping others included;
/// * a stage is ready before it starts, runs at most once at a time, and every start has its stop;
/// * progress never exceeds the time that passed, and setup comes before it;
/// * every released job ends exactly once: done, dropped, or unfinished at the end.
#[derive(Clone, Debug)]
pub struct Checker {
    slots: Vec<u32>,
    /// Units that runs take of processors that can be divided.
    units: BTreeMap<u64, (ProcessorId, u32)>,
    now: Nanos,
    /// Runs on each processor: number, start, setup, stages in it.
    running: Vec<BTreeMap<u64, (Nanos, Nanos, u32)>>,
    /// Other processors that work on a run.
    helpers: BTreeMap<u64, ProcessorSet>,
    /// Live stages: their job, and the run that they are in.
    stages: BTreeMap<u64, (u64, Option<u64>)>,
    /// Live jobs.
    jobs: BTreeSet<u64>,
    counts: [u64; 4],
    ended: bool,
    violations: Vec<Violation>,
}

impl Checker {
    /// A checker for runs of `system`.
    pub fn new(system: &System) -> Self {
        let slots: Vec<u32> = system.platform.processors.iter().map(onbeat_core::system::Processor::runs_max).collect();
        Self {
            now: Nanos::ZERO,
            running: slots.iter().map(|_| BTreeMap::new()).collect(),
            slots,
            units: BTreeMap::new(),
            helpers: BTreeMap::new(),
            stages: BTreeMap::new(),
            jobs: BTreeSet::new(),
            counts: [0; 4],
            ended: false,
            violations: Vec::new(),
        }
    }

    /// What was broken, at the end of a run.
    pub fn finish(mut self) -> Vec<Violation> {
        if !self.ended {
            self.wrong("the run has no end".to_owned());
        }
        if let Some(job) = self.jobs.first() {
            self.wrong(format!("job {job} never ended"));
        }
        let [released, done, dropped, unfinished] = self.counts;
        if released != done + dropped + unfinished {
            self.wrong(format!("{released} released, but {done} done + {dropped} dropped + {unfinished} unfinished"));
        }
        self.violations
    }

    fn wrong(&mut self, what: String) {
        self.violations.push(Violation { at: self.now, what });
    }

    fn end_job(&mut self, job: u64, count: usize) {
        self.counts[count] += 1;
        if !self.jobs.remove(&job) {
            self.wrong(format!("job {job} ends, but is not alive"));
        }
        // A dropped job takes its stages with it; none may be running.
        let running =
            self.stages.iter().find(|(_, (owner, run))| *owner == job && run.is_some()).map(|(&stage, _)| stage);
        if let Some(stage) = running {
            self.wrong(format!("job {job} ends while its stage {stage} runs"));
        }
        self.stages.retain(|_, (owner, _)| *owner != job);
    }

    fn start(&mut self, run: u64, stage: u64, p: ProcessorId, setup: Nanos, over: ProcessorSet) {
        if over.contains(p) {
            self.wrong(format!("run {run} has processor {p} as its own helper"));
        }
        self.occupy(run, p, setup);
        for helper in over.iter() {
            self.occupy(run, helper, setup);
        }
        if !over.is_empty() {
            self.helpers.insert(run, over);
        }
        match self.stages.get_mut(&stage) {
            None => self.wrong(format!("stage {stage} starts, but is not ready")),
            Some((_, Some(other))) => {
                let other = *other;
                self.wrong(format!("stage {stage} starts in run {run} while it is in run {other}"));
            }
            Some((_, in_run)) => *in_run = Some(run),
        }
    }

    /// A run takes units: all runs of a processor together no more than it has.
    fn take_units(&mut self, run: u64, p: ProcessorId, units: u32) {
        if units > 0 {
            self.units.insert(run, (p, units));
            let taken: u32 = self.units.values().filter(|&&(at, _)| at == p).map(|&(_, units)| units).sum();
            let all = self.slots[p.0 as usize];
            if taken > all {
                self.wrong(format!("{taken} units are taken on processor {p}, which has {all}"));
            }
        }
    }

    /// A run holds a slot.
    fn occupy(&mut self, run: u64, p: ProcessorId, setup: Nanos) {
        let slots = self.slots[p.0 as usize];
        let running = &mut self.running[p.0 as usize];
        running.entry(run).or_insert((self.now, setup, 0)).2 += 1;
        if running.len() > slots as usize {
            let (n, now) = (running.len(), self.now);
            self.violations.push(Violation { at: now, what: format!("{n} runs on processor {p} with {slots} slots") });
        }
    }

    fn stop(&mut self, run: u64, stage: u64, p: ProcessorId, alone: Nanos, why: StopReason) {
        match self.stages.get_mut(&stage) {
            Some((_, in_run)) if *in_run == Some(run) => *in_run = None,
            _ => self.wrong(format!("stage {stage} stops in run {run}, in which it was not")),
        }
        let now = self.now;
        let Some((start, setup, stages)) = self.running[p.0 as usize].get_mut(&run) else {
            self.wrong(format!("run {run} stops on processor {p}, where it was not"));
            return;
        };
        *stages -= 1;
        let (last, passed, setup) = (*stages == 0, now - *start, *setup);
        if last {
            self.units.remove(&run);
            self.running[p.0 as usize].remove(&run);
            for helper in self.helpers.remove(&run).unwrap_or_default().iter() {
                self.running[helper.0 as usize].remove(&run);
            }
        }
        // One nanosecond for rounding.
        if alone.0 > passed.saturating_sub(setup).0 + 1 && why != StopReason::Horizon {
            self.wrong(format!("run {run} made {alone} of progress in {passed}, {setup} of it setup"));
        }
    }
}

impl Sink for Checker {
    fn event(&mut self, event: &Event) {
        if event.at < self.now {
            self.wrong(format!("time goes back to {}", event.at));
        }
        self.now = event.at;
        if self.ended {
            self.wrong("something happens after the end".to_owned());
        }
        match event.what {
            What::Release { job, .. } => {
                self.counts[0] += 1;
                if !self.jobs.insert(job) {
                    self.wrong(format!("job {job} is released twice"));
                }
            }
            What::Ready { stage, job, .. } => {
                if !self.jobs.contains(&job) {
                    self.wrong(format!("stage {stage} is ready, but its job {job} is not alive"));
                }
                if self.stages.insert(stage, (job, None)).is_some() {
                    self.wrong(format!("stage {stage} becomes ready twice"));
                }
            }
            What::Switch { stage, .. } => match self.stages.get(&stage) {
                None => self.wrong(format!("stage {stage} is switched, but is not ready")),
                Some((_, Some(run))) => {
                    let run = *run;
                    self.wrong(format!("stage {stage} is switched while it is in run {run}"));
                }
                Some((_, None)) => {}
            },
            What::Start { run, stage, processor, setup, over, units, .. } => {
                self.start(run, stage, processor, setup, over);
                self.take_units(run, processor, units);
            }
            What::Stop { run, stage, processor, alone, why, .. } => self.stop(run, stage, processor, alone, why),
            What::StageDone { stage, .. } => {
                if self.stages.remove(&stage).is_none() {
                    self.wrong(format!("stage {stage} is finished, but was never ready"));
                }
            }
            What::FirstToken { stage, .. } => {
                if !self.stages.contains_key(&stage) {
                    self.wrong(format!("stage {stage} has a first token, but is not alive"));
                }
            }
            What::JobDone { job } => self.end_job(job, 1),
            What::Drop { job, .. } => self.end_job(job, 2),
            What::Unfinished { job } => self.end_job(job, 3),
            What::End => self.ended = true,
            What::Load { .. }
            | What::Evict { .. }
            | What::EvictCache { .. }
            | What::PlaceCache { .. }
            | What::CopyCache { .. }
            | What::ReadCache { .. }
            | What::OutOfMemory { .. }
            | What::Memory { .. }
            | What::Bus { .. }
            | What::Power { .. }
            | What::Asked { .. }
            | What::Progress { .. }
            | What::Ended { .. }
            | What::Ran { .. }
            | What::Part { .. }
            | What::Length { .. }
            | What::Follow { .. }
            | What::Failed { .. }
            | What::Lost { .. } => {}
        }
    }
}
