//! Replaying a record: the same reports at the same times must lead to the same decisions.

use onbeat_core::event::{Event, What};
use onbeat_core::policy::Policy;
use onbeat_core::record::Record;
use onbeat_core::system::Processor;
use onbeat_core::units::Nanos;
use onbeat_driver::{DriveError, Facts};
use thiserror::Error;

use crate::live::Live;
use crate::task::Report;

/// Why a record does not replay.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The record was not written by the runtime.
    #[error("the record was written by the {0}; only records of `onbeat run` hold the reports that a replay needs")]
    NotReal(String),
    /// The policy decided differently.
    #[error("event {number} at {at}: recorded {recorded}, replayed {replayed}")]
    Different {
        /// Number of the event, from 1.
        number: usize,
        /// When.
        at: Nanos,
        /// What the record says.
        recorded: String,
        /// What the replay came to.
        replayed: String,
    },
    /// The policy did something impossible.
    #[error(transparent)]
    Drive(#[from] DriveError),
}

/// What a record knows about its jobs: lengths of prompts and outputs, how many stages followed, and where parts of outputs ended. A
/// simulation with these facts sees the same jobs.
pub fn facts_of(record: &Record) -> Facts {
    let mut facts = Facts::default();
    let mut stages = std::collections::BTreeMap::new();
    let mut instances = std::collections::BTreeMap::new();
    let processors = &record.header.system.platform.processors;
    let real = |p| processors[p].runs_models();
    let drawn = is_drawn(record);
    for event in &record.events {
        match event.what {
            What::Ready { stage, job, node, prompt, output } => {
                let count = instances.entry((job, node)).or_insert(0_u32);
                stages.insert(stage, (job, node, *count));
                if prompt > 0 && !drawn {
                    facts.set_length(job, node, *count, prompt, output);
                }
                *count += 1;
            }
            What::Start { stage, processor, .. } if real(processor) => {
                if let Some(&(job, node, instance)) = stages.get(&stage) {
                    let after = &record.header.system.nodes[node].after;
                    if after.iter().any(|edge| edge.per_tokens.is_some()) {
                        facts.expect_parts(job, node, instance);
                    }
                }
            }
            What::Part { stage, tokens } => {
                if let Some(&(job, node, instance)) = stages.get(&stage) {
                    facts.add_part(job, node, instance, tokens);
                }
            }
            What::Length { stage, output } => {
                if let Some(&(job, node, instance)) = stages.get(&stage) {
                    facts.set_output(job, node, instance, output);
                }
            }
            What::Follow { job, node, edge, count } => facts.set_followers(job, node, edge, count),
            _ => {}
        }
    }
    facts
}

/// Whether lengths are drawn from the record's seed: nothing ran that could have told others.
fn is_drawn(record: &Record) -> bool {
    !record.header.system.platform.processors.iter().any(Processor::runs_models)
}

/// Drives a policy through the reports of a record and compares every event, decisions included. Returns how many decisions there were.
///
/// # Errors
/// [`ReplayError::Different`] names the first event that is not as recorded.
pub fn replay(record: &Record, policy: Box<dyn Policy>, policy_name: &str) -> Result<u64, ReplayError> {
    if record.header.driver != "runtime" {
        return Err(ReplayError::NotReal(record.header.driver.clone()));
    }
    // Prompts are what the record says from the start; what was reported on the way is reported again.
    let mut facts = Facts::default();
    let mut instances = std::collections::BTreeMap::new();
    for event in &record.events {
        if let What::Ready { job, node, prompt, output, .. } = event.what {
            let count = instances.entry((job, node)).or_insert(0_u32);
            if prompt > 0 && !is_drawn(record) {
                facts.set_length(job, node, *count, prompt, output);
            }
            *count += 1;
        }
    }
    let system = &record.header.system;
    let mut live = Live::new(system, policy, policy_name, record.header.seed, facts, Vec::<Event>::new());
    let mut compared = 0;
    let (mut i, mut commands) = (0, Vec::new());
    let events = &record.events;
    while i < events.len() {
        let at = events[i].at;
        let end = events[i..].iter().position(|event| event.at != at).map_or(events.len(), |n| i + n);
        let group = &events[i..end];
        if group.last().is_some_and(|event| event.what == What::End) {
            live.end(at);
        } else {
            let reports: Vec<Report> = group.iter().filter_map(|event| report_of(&event.what)).collect();
            live.instant(at, &reports, &mut commands)?;
            commands.clear();
        }
        compare(events, live.sink_mut(), &mut compared)?;
        i = end;
    }
    Ok(live.outcome().decisions)
}

/// The report that an event was written for.
fn report_of(what: &What) -> Option<Report> {
    match *what {
        What::Progress { run, steps } => Some(Report::Progress { run, steps }),
        What::Ended { run, stage } => Some(Report::Ended { run, stage }),
        What::Ran { run, steps, finished } => Some(Report::Ran { run, steps, finished }),
        What::Part { stage, tokens } => Some(Report::Part { stage, tokens }),
        What::Follow { job, node, edge, count } => Some(Report::Follow { job, node, edge, count }),
        What::Failed { run, .. } => Some(Report::Failed { run }),
        What::Lost { processor } => Some(Report::Lost { processor }),
        _ => None,
    }
}

/// Compares what the replay has come to so far, and forgets it.
fn compare(recorded: &[Event], replayed: &mut Vec<Event>, compared: &mut usize) -> Result<(), ReplayError> {
    for event in replayed.drain(..) {
        let expected = recorded.get(*compared);
        *compared += 1;
        if expected != Some(&event) {
            let text = |event: &Event| format!("{:?}", event.what);
            return Err(ReplayError::Different {
                number: *compared,
                at: event.at,
                recorded: expected.map_or_else(|| "nothing more".to_owned(), text),
                replayed: text(&event),
            });
        }
    }
    Ok(())
}
