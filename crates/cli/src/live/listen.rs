//! The other end of a real run: a thread that writes the record, counts, and shows progress, so that the schedule never waits for a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use indicatif::ProgressBar;
use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::{Event, Sink, What};
use onbeat_core::record::{Header, Recorder};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::failure::Failure;

/// How often what was written goes to the disk, at least: a crash loses no more than this.
const FLUSH: Duration = Duration::from_millis(200);

/// Events kept for the timeline of the report: about 20 MB.
const EVENTS_MAX: usize = 300_000;

/// Events that are sent together at most.
const BATCH_MAX: usize = 1024;

/// Sends events to the listener, many at a time: waking it for each would cost the dispatcher, and the models that run, more than
/// everything else that happens at an instant. Never blocks.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    events: Sender<Vec<Event>>,
    batch: Vec<Event>,
    sent: Nanos,
}

impl Teller {
    pub(crate) fn new(events: Sender<Vec<Event>>) -> Self {
        Self { events, batch: Vec::with_capacity(BATCH_MAX), sent: Nanos::ZERO }
    }
}

impl Sink for Teller {
    fn event(&mut self, event: &Event) {
        self.batch.push(*event);
        let due = event.at.saturating_sub(self.sent).0 >= FLUSH.as_nanos() as u64;
        if due || self.batch.len() >= BATCH_MAX || event.what == What::End {
            self.sent = event.at;
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_MAX));
            // A listener that is gone has told why; the run goes on without it.
            let _ = self.events.send(batch);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        // A run that ends with an error leaves what was recorded until then.
        let _ = self.events.send(std::mem::take(&mut self.batch));
    }
}

/// What was heard of a run.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) summary: Summary,
    pub(crate) events: Vec<Event>,
    /// Why the record is not whole, if it is not.
    pub(crate) record_failure: Option<io::Error>,
}

/// Creates the record file with its header.
pub(crate) fn begin(
    path: &Path,
    system: &System,
    policy: &str,
    seed: u64,
) -> Result<Recorder<BufWriter<File>>, Failure> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
    }
    let file = File::create(path).map_err(Failure::io("create", path))?;
    let header = Header::new(system, "runtime", policy, seed);
    Recorder::new(BufWriter::new(file), &header).map_err(Failure::io("write", path))
}

/// Listens until the run is over.
pub(crate) fn listen<W: Write>(
    system: &System,
    policy: &str,
    seed: u64,
    events: &Receiver<Vec<Event>>,
    mut recorder: Recorder<W>,
    bar: &ProgressBar,
) -> Heard {
    let mut statistics = Statistics::new(system, seed, policy);
    let mut kept = Vec::new();
    let mut tally = Tally::default();
    let mut flushed = Instant::now();
    loop {
        match events.recv_timeout(FLUSH) {
            Ok(batch) => {
                for event in batch {
                    recorder.event(&event);
                    statistics.event(&event);
                    tally.event(&event);
                    if kept.len() < EVENTS_MAX {
                        kept.push(event);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if flushed.elapsed() >= FLUSH {
            recorder.flush();
            flushed = Instant::now();
            let seconds = kept.last().map_or(0.0, |event: &Event| event.at.as_secs());
            bar.set_position(seconds as u64);
            bar.set_message(tally.to_string());
        }
    }
    bar.finish_and_clear();
    let record_failure = recorder.finish().err();
    Heard { summary: statistics.finish(), events: kept, record_failure }
}

/// What has become of the jobs so far, for the display.
#[derive(Debug, Default)]
struct Tally {
    released: u64,
    done: u64,
    late: u64,
    dropped: u64,
    deadlines: BTreeMap<u64, Option<Nanos>>,
}

impl Sink for Tally {
    fn event(&mut self, event: &Event) {
        match event.what {
            What::Release { job, deadline, .. } => {
                self.released += 1;
                self.deadlines.insert(job, deadline);
            }
            What::JobDone { job } => {
                self.done += 1;
                self.late += u64::from(self.deadlines.remove(&job).flatten().is_some_and(|due| event.at > due));
            }
            What::Drop { job, .. } => {
                self.dropped += 1;
                self.deadlines.remove(&job);
            }
            _ => {}
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { released, done, late, dropped, .. } = self;
        write!(f, "{released} jobs, {done} done, {late} of them late, {dropped} dropped")
    }
}
