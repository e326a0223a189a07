//! The metrics of a run, streamed from its events.
//!
//! # What counts
//! * Jobs released (nominally) before the end of the warm-up count in no statistic of jobs. Utilisation, energy and all
//!   other statistics of processors cover the time from the warm-up to the end of the run; a run across the edge counts
//!   by the share that lies within. Series over time and peak memory cover the whole run.
//! * A job is *judged* if it has a deadline, or its source has goals (TTFT, TPOT), and it was done or dropped – or is
//!   unfinished and has already failed: its deadline has passed, or its TTFT goal has passed without a first token by
//!   then. Goals do not apply to a done job whose chain took a branch without a language model.
//! * A judged job is a *violation* if it was dropped, is late, or missed a goal. An answer of one token has no TPOT.
//! * TTFT is the time from the nominal release to the first token of the chain's last `autoregressive` stage (the first
//!   of its instances to give one); TPOT is the time from that stage's first to its last token over the number of
//!   tokens after the first.
//!
//! # Memory
//! Proportional to the number of live jobs, not to the length of the run. Percentiles are exact (nearest rank) for up
//! to 8192 samples per source, and within 0.1% (3 significant digits) beyond; means, deviations and maxima are always
//! exact.

mod actions;
mod bins;
mod power;
mod processors;
mod ring;
mod samples;
mod scores;
mod sources;
mod summary;

use onbeat_core::event::{Event, Sink, What};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use power::Reading;
use processors::{Lanes, Stopped};
use ring::Ring;
pub use scores::Xrbench;
use sources::{Caches, LiveJob, LiveStage, NONE, Tallies};

/// Computes the metrics of one run from its events. See the [module](self).
#[derive(Clone, Debug)]
pub struct Statistics<'s> {
    system: &'s System,
    seed: u64,
    policy: String,
    jobs: Ring<LiveJob>,
    stages: Ring<LiveStage>,
    lanes: Lanes<'s>,
    tallies: Tallies<'s>,
    now: Nanos,
    ended: bool,
}

impl<'s> Statistics<'s> {
    /// For a run of `system` with this seed under this policy (its name with parameters, as reports show it).
    pub fn new(system: &'s System, seed: u64, policy: impl Into<String>) -> Self {
        Self {
            system,
            seed,
            policy: policy.into(),
            jobs: Ring::new(),
            stages: Ring::new(),
            lanes: Lanes::new(system),
            tallies: Tallies::new(system),
            now: Nanos::ZERO,
            ended: false,
        }
    }

    /// With other constants for XRBench's scores.
    #[must_use]
    pub fn with_xrbench(mut self, constants: Xrbench) -> Self {
        self.tallies.xrbench = constants;
        self
    }

    /// The metrics. If the run was cut short – there was no event `end` – they cover the time up to the last event, and
    /// jobs that were still alive are unfinished.
    pub fn finish(mut self) -> Summary {
        let end = if self.ended { self.system.duration } else { self.now.min(self.system.duration) };
        self.lanes.finish(end);
        while let Some((_, job)) = self.jobs.pop() {
            self.tallies.job_unfinished(&job, end);
        }
        self.tallies.finish(end);
        summary::summarise(self.system, self.seed, self.policy, end, &self.lanes, &self.tallies)
    }

    /// Removes a job that has ended, with its stages.
    fn end_job(&mut self, job: u64) -> Option<LiveJob> {
        let ended = self.jobs.remove(job)?;
        let mut stage = ended.last_stage;
        while stage != NONE {
            stage = self.stages.remove(stage).map_or(NONE, |removed| removed.previous);
        }
        Some(ended)
    }

    fn released(&mut self, serial: u64, job: LiveJob) {
        self.tallies.released(&job);
        self.jobs.insert(serial, job);
    }

    fn stopped(&mut self, stage: u64, stopped: &Stopped, tokens: u32) {
        let Some(live) = self.stages.get_mut(stage) else { return };
        let Some(job) = self.jobs.get_mut(live.job) else { return };
        self.tallies.worked(job, live, stopped.alone, stopped.energy_mj, tokens);
    }

    /// A stage's cache left memory, or came back.
    fn cache_left(&mut self, stage: u64, moved: Caches) {
        if let Some(live) = self.stages.get_mut(stage)
            && let Some(job) = self.jobs.get_mut(live.job)
        {
            self.tallies.cache_left(job, moved);
        }
    }
}

impl Sink for Statistics<'_> {
    fn event(&mut self, event: &Event) {
        let at = event.at;
        self.now = self.now.max(at);
        match event.what {
            What::Release { job, source, nominal, deadline, content } => {
                let counted = nominal >= self.system.warm_up;
                self.released(job, LiveJob::new(source, (nominal, deadline), content, counted));
            }
            What::Ready { stage, job, node, prompt, output } => {
                if let Some(live) = self.jobs.get_mut(job) {
                    self.tallies.ready(live, node);
                    self.stages.insert(stage, LiveStage::new(job, node, live.last_stage, prompt, output));
                    live.last_stage = stage;
                }
            }
            What::Switch { stage, variant, .. } => {
                if let Some(live) = self.stages.get_mut(stage) {
                    live.variant = variant;
                }
            }
            What::Start { run, stage, processor, setup, over, units, .. } => {
                if let Some(live) = self.stages.get_mut(stage) {
                    self.lanes.start(processor, run, (live.node, live.variant), at, (setup, units));
                    if !over.is_empty() {
                        self.lanes.help(run, (live.node, live.variant), over, at, setup);
                    }
                }
            }
            What::Stop { run, stage, processor, why, alone, energy_mj, tokens, .. } => {
                let stopped = Stopped { run, at, why, alone, energy_mj };
                self.lanes.stop(processor, &stopped);
                self.stopped(stage, &stopped, tokens);
            }
            What::FirstToken { stage, .. } => {
                if let Some(live) = self.stages.get_mut(stage)
                    && let Some(job) = self.jobs.get_mut(live.job)
                {
                    self.tallies.first_token(job, live, at);
                }
            }
            What::StageDone { stage, .. } => {
                if let Some(live) = self.stages.get_mut(stage)
                    && let Some(job) = self.jobs.get_mut(live.job)
                {
                    self.tallies.stage_done(job, live, at);
                }
            }
            What::JobDone { job } => {
                if let Some(job) = self.end_job(job) {
                    self.tallies.job_done(&job, at);
                }
            }
            What::Drop { job, .. } => {
                if let Some(job) = self.end_job(job) {
                    self.tallies.job_dropped(&job);
                }
            }
            What::Unfinished { job } => {
                if let Some(job) = self.end_job(job) {
                    self.tallies.job_unfinished(&job, at);
                }
            }
            What::Load { used, .. } | What::Evict { used, .. } | What::Memory { used } => {
                self.lanes.memory(used);
            }
            What::Bus { traffic, .. } => self.lanes.bus(at, traffic),
            What::Length { stage, output } => {
                if let Some(live) = self.stages.get_mut(stage) {
                    live.output = output;
                }
            }
            What::Power { processor, point, throttled, energy_mj, celsius, peak_celsius, .. } => {
                self.lanes.power(processor, at, &Reading { point, throttled, energy_mj, celsius, peak_celsius });
            }
            What::EvictCache { stage, moved, tokens, took, .. } => {
                self.cache_left(stage, Caches { recomputed: tokens.into(), out: moved, took, ..Caches::default() });
            }
            What::PlaceCache { stage, moved, took, .. } => {
                self.cache_left(stage, Caches { out: moved, took, ..Caches::default() });
            }
            What::ReadCache { stage, moved, took } => {
                self.cache_left(stage, Caches { back: moved, took, ..Caches::default() });
            }
            What::OutOfMemory { .. }
            | What::CopyCache { .. }
            | What::Asked { .. }
            | What::Progress { .. }
            | What::Ended { .. }
            | What::Ran { .. }
            | What::Part { .. }
            | What::Follow { .. }
            | What::Failed { .. }
            | What::Lost { .. } => {}
            What::End => self.ended = true,
        }
    }
}
