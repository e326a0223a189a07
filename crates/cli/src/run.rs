//! Simulations side by side. Results are ordered by index, so they do not depend on the number of threads.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::{Event, Sink};
use onbeat_core::record::{Header, Recorder};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_sim::{Outcome, SimError};
use rayon::prelude::*;

use crate::failure::Failure;
use crate::policies;
use crate::ui::Ui;

/// The most events kept of one run for its timeline: about 20 MB.
const EXCERPT_EVENTS_MAX: usize = 300_000;

/// One simulation to do.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    /// The resolved scenario on its platform.
    pub(crate) system: &'a System,
    /// Policy with its parameters.
    pub(crate) policy: &'a str,
    /// Seed.
    pub(crate) seed: u64,
    /// Keep the events up to this time.
    pub(crate) keep_until: Option<Nanos>,
    /// Write the record here.
    pub(crate) record: Option<PathBuf>,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its metrics.
    pub(crate) summary: Summary,
    /// What the simulator did.
    pub(crate) outcome: Outcome,
    /// The events up to [`Run::keep_until`]; empty without it.
    pub(crate) events: Vec<Event>,
}

/// Does one simulation.
pub(crate) fn one(run: &Run<'_>) -> Result<Done, Failure> {
    let policy = policies::make(run.policy, run.system)?;
    let mut statistics = Statistics::new(run.system, run.seed, run.policy);
    let mut beginning = run.keep_until.map(|until| Beginning { until, events: Vec::new() });
    let mut recorder = match &run.record {
        Some(path) => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
            }
            let file = File::create(path).map_err(Failure::io("create", path))?;
            let header = Header::new(run.system, "simulator", run.policy, run.seed);
            Some(Recorder::new(BufWriter::new(file), &header).map_err(Failure::io("write", path))?)
        }
        None => None,
    };
    let sink = (&mut statistics, (beginning.as_mut(), recorder.as_mut()));
    let (outcome, _) = onbeat_sim::simulate(run.system, policy, run.policy, run.seed, sink).map_err(|e| failure(&e))?;
    if let (Some(recorder), Some(path)) = (recorder, &run.record) {
        recorder.finish().map_err(Failure::io("write", path))?;
    }
    let events = beginning.map(|beginning| beginning.events).unwrap_or_default();
    Ok(Done { summary: statistics.finish(), outcome, events })
}

/// Does all simulations, in parallel, and returns what came out in the same order. If several fail, reports the first of them.
pub(crate) fn all(runs: &[Run<'_>], ui: Ui) -> Result<Vec<Done>, Failure> {
    let bar = ui.progress(runs.len());
    // Runs after a failed one are skipped; runs before it are not, so that the failure reported is always the same one.
    let failed = AtomicUsize::new(usize::MAX);
    let results: Vec<Option<Result<Done, Failure>>> = runs
        .par_iter()
        .enumerate()
        .map(|(i, run)| {
            if failed.load(Ordering::Relaxed) < i {
                return None;
            }
            bar.set_message(format!("{} on {}: {}", run.system.scenario, run.system.platform.name, run.policy));
            let result = one(run);
            if result.is_err() {
                failed.fetch_min(i, Ordering::Relaxed);
            }
            bar.inc(1);
            Some(result)
        })
        .collect();
    bar.finish_and_clear();
    // Nothing is skipped before the first failure, and there `collect` stops.
    results.into_iter().flatten().collect()
}

fn failure(error: &SimError) -> Failure {
    let help = match error {
        SimError::TooManyJobs { .. } => {
            Some("give the streams a `drop` rule or a `queue` limit, or shorten the run with --duration".to_owned())
        }
        _ => None,
    };
    Failure::Policy { message: error.to_string(), help }
}

/// Keeps the events of the beginning of a run, so that an hour takes no more memory than a minute.
#[derive(Debug)]
struct Beginning {
    until: Nanos,
    events: Vec<Event>,
}

impl Sink for Beginning {
    fn event(&mut self, event: &Event) {
        if event.at <= self.until && self.events.len() < EXCERPT_EVENTS_MAX {
            self.events.push(*event);
        }
    }
}
