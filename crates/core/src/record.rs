//! The record of a run: one header line and one line per event, in JSON.
//!
//! # Format, version 1
//! The first line is a [`Header`] whose first field is `"onbeat_record": 1`. Every further line is an [`Event`]. A complete
//! record ends with the event `end`; a record without it is a readable prefix of a run that was cut short.
//!
//! # Compatibility
//! Readers reject other versions. Within a version fields are only added, with a default, and unknown fields are ignored, so an
//! older reader reads a newer record of the same version and a newer reader reads an older one.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::{Event, Sink, What};
use crate::system::System;

/// Version of the format that this crate writes.
pub const VERSION: u32 = 1;

/// The first line of a record: everything needed to understand the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub onbeat_record: u32,
    /// Version of onbeat that wrote the record.
    pub onbeat: String,
    /// What drove the policy: `simulator` or `runtime`.
    pub driver: String,
    /// Policy with its parameters, as given on the command line.
    pub policy: String,
    /// Seed of all random streams.
    pub seed: u64,
    /// Hash of the system, [`System::hash`].
    pub system_hash: String,
    /// The resolved scenario on its platform.
    pub system: System,
}

impl Header {
    /// Header for a run of `system`.
    pub fn new(system: &System, driver: &str, policy: &str, seed: u64) -> Self {
        Self {
            onbeat_record: VERSION,
            onbeat: env!("CARGO_PKG_VERSION").to_owned(),
            driver: driver.to_owned(),
            policy: policy.to_owned(),
            seed,
            system_hash: system.hash(),
            system: system.clone(),
        }
    }
}

/// A record in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What the events are about.
    pub header: Header,
    /// The events in order of time.
    pub events: Vec<Event>,
    /// Whether the run was recorded to its end.
    pub complete: bool,
}

/// Why a record cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Reading failed.
    #[error("cannot read the record: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the record is empty; expected a header line that starts with {{\"onbeat_record\":1")]
    Empty,
    /// The first line is no header.
    #[error("line 1, column {column}: not the header of an onbeat record: {problem}")]
    Header {
        /// Where in the line.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// The format has another version.
    #[error("the record has format version {found}; this onbeat reads version {VERSION}")]
    Version {
        /// The record's version.
        found: u64,
    },
    /// The header's system does not fit together, or an event refers to something that does not exist.
    #[error("line {line}: {problem}")]
    Invalid {
        /// Which line.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl Record {
    /// Reads a record. A last line that was cut off is left out, and [`Record::complete`] is false.
    ///
    /// # Errors
    /// [`RecordError`] names the line and what is wrong.
    pub fn read(reader: impl BufRead) -> Result<Self, RecordError> {
        let mut lines = reader.lines();
        let first = lines.next().ok_or(RecordError::Empty)??;
        let header = Self::read_header(&first)?;
        let mut events = Vec::new();
        let mut cut_off: Option<(usize, String)> = None;
        for (i, line) in lines.enumerate() {
            let (number, line) = (i + 2, line?);
            if let Some((line, problem)) = cut_off.take() {
                return Err(RecordError::Invalid { line, problem });
            }
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str::<Event>(&line) {
                Ok(event) => {
                    if let Some(problem) = problem_of(&event, events.last(), &header.system) {
                        return Err(RecordError::Invalid { line: number, problem });
                    }
                    events.push(event);
                }
                // Only the last line may be broken: a crash can cut it off.
                Err(error) => cut_off = Some((number, format!("not an event: {error}"))),
            }
        }
        let complete = cut_off.is_none() && events.last().is_some_and(|event| event.what == What::End);
        Ok(Self { header, events, complete })
    }

    fn read_header(line: &str) -> Result<Header, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            onbeat_record: u64,
        }
        let problem =
            |error: serde_json::Error| RecordError::Header { column: error.column(), problem: error.to_string() };
        let Version { onbeat_record: found } = serde_json::from_str(line).map_err(problem)?;
        if found != u64::from(VERSION) {
            return Err(RecordError::Version { found });
        }
        let header: Header = serde_json::from_str(line).map_err(problem)?;
        header.system.validate().map_err(|problem| RecordError::Invalid { line: 1, problem })?;
        Ok(header)
    }
}

/// What is wrong with an event that follows another in a record of `system`.
fn problem_of(event: &Event, previous: Option<&Event>, system: &System) -> Option<String> {
    if let Some(previous) = previous
        && event.at < previous.at
    {
        return Some(format!("the event is at {} ns, before the previous one at {} ns", event.at.0, previous.at.0));
    }
    let processor =
        |p| system.platform.processors.get(p).is_none().then(|| format!("there is no processor number {p}"));
    let model = |m| system.models.get(m).is_none().then(|| format!("there is no model number {m}"));
    match event.what {
        What::Release { source, .. } => {
            system.sources.get(source).is_none().then(|| format!("there is no source number {source}"))
        }
        What::Ready { node, .. } => {
            system.nodes.get(node).is_none().then(|| format!("there is no stage number {node}"))
        }
        What::Start { processor: p, over, units, .. } => {
            let has = |p| system.platform.processors.get(p)?.division.map(|division| division.units);
            let too_many =
                || (units > has(p).unwrap_or(0)).then(|| format!("processor number {p} has no {units} units"));
            processor(p).or_else(|| over.iter().find_map(processor)).or_else(too_many)
        }
        What::Stop { processor: p, .. }
        | What::OutOfMemory { processor: p, .. }
        | What::Power { processor: p, .. }
        | What::CopyCache { to: p, .. }
        | What::Failed { processor: p, .. }
        | What::Lost { processor: p } => processor(p),
        What::Follow { node, edge, .. } => {
            let there = system.nodes.get(node).is_some_and(|node| (edge as usize) < node.after.len());
            (!there).then(|| format!("stage number {node} has no edge number {edge}"))
        }
        What::Switch { model: m, .. } => model(m),
        What::Load { model: m, processor: p, .. } | What::Evict { model: m, processor: p, .. } => {
            model(m).or_else(|| processor(p))
        }
        _ => None,
    }
}

/// Writes a record while it happens. After the first failure nothing more is written, and [`Recorder::finish`] returns it.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    writer: W,
    failure: Option<io::Error>,
}

impl<W: Write> Recorder<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If writing fails.
    pub fn new(mut writer: W, header: &Header) -> io::Result<Self> {
        serde_json::to_writer(&mut writer, header)?;
        writer.write_all(b"\n")?;
        Ok(Self { writer, failure: None })
    }

    /// Hands what was written so far to the writer's destination, so that a crash leaves it readable.
    pub fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.writer.flush().err();
        }
    }

    /// Flushes and returns the writer.
    ///
    /// # Errors
    /// The first failure while writing events, or one of flushing.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.writer.flush()?;
        Ok(self.writer)
    }
}

impl<W: Write> Sink for Recorder<W> {
    fn event(&mut self, event: &Event) {
        if self.failure.is_none() {
            let written = serde_json::to_writer(&mut self.writer, event)
                .map_err(io::Error::from)
                .and_then(|()| self.writer.write_all(b"\n"));
            self.failure = written.err();
        }
    }
}
