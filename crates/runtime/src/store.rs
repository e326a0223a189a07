//! What belongs to live jobs besides the schedule: their data, and the sessions of their stages.

use std::collections::{BTreeMap, BTreeSet};

use onbeat_backend::{Data, Session};
use onbeat_core::event::{Event, Sink, What};
use onbeat_core::id::{ModelId, NodeId, ProcessorId, SourceId};
use onbeat_core::system::System;

use crate::library::Feed;

/// A session, the model that it is one of, and the processor that it was opened on.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) model: ModelId,
    pub(crate) processor: ProcessorId,
    pub(crate) session: Box<dyn Session>,
}

/// Data and sessions of live jobs.
#[derive(Debug, Default)]
pub(crate) struct Store {
    jobs: BTreeMap<u64, JobData>,
    /// Sessions of stages, by serial number.
    stages: BTreeMap<u64, Seat>,
    /// Sessions of streaming models, by node: they outlive jobs.
    streams: BTreeMap<NodeId, Seat>,
    /// Sessions that a finished stage of another kind has left, for the next one: by node.
    spare: BTreeMap<NodeId, Seat>,
    /// Jobs released by each source.
    released: BTreeMap<SourceId, u64>,
}

#[derive(Debug)]
struct JobData {
    source: SourceId,
    input: Vec<Data>,
    /// By node and instance.
    outputs: BTreeMap<(NodeId, u32), Vec<Data>>,
    /// Nodes that have run on a virtual device, which produces nothing.
    rehearsed: BTreeSet<NodeId>,
    parts: BTreeMap<NodeId, Vec<Data>>,
    stages: Vec<u64>,
}

impl Store {
    pub(crate) fn release(&mut self, job: u64, source: SourceId, feed: &dyn Feed) {
        let index = self.released.entry(source).or_insert(0);
        let input = feed.data(source, *index);
        *index += 1;
        let data = JobData {
            source,
            input,
            outputs: BTreeMap::new(),
            rehearsed: BTreeSet::new(),
            parts: BTreeMap::new(),
            stages: Vec::new(),
        };
        self.jobs.insert(job, data);
    }

    /// Forgets a job. The sessions that are not needed any more are given back.
    pub(crate) fn end(&mut self, job: u64) -> Vec<Seat> {
        let stages = self.jobs.remove(&job).map(|data| data.stages).unwrap_or_default();
        stages.iter().filter_map(|stage| self.stages.remove(stage)).collect()
    }

    pub(crate) fn source_of(&self, job: u64) -> Option<SourceId> {
        self.jobs.get(&job).map(|data| data.source)
    }

    /// What a stage works on: what the stages before it produced – all instances of them, in order –, then what the source released.
    /// What stands in for the outputs of virtual devices comes from the feed.
    pub(crate) fn input(&self, system: &System, feed: &dyn Feed, job: u64, node: NodeId, instance: u32) -> Vec<Data> {
        let Some(data) = self.jobs.get(&job) else { return Vec::new() };
        let mut input = Vec::new();
        for &before in &system.nodes[node].before {
            let edge = system.nodes[before].after.iter().find(|edge| edge.to == node);
            let part = edge.is_some_and(|edge| edge.per_tokens.is_some());
            if part && let Some(part) = data.parts.get(&before).and_then(|parts| parts.get(instance as usize)) {
                input.push(part.clone());
                continue;
            }
            let one_each = edge.is_some_and(|edge| edge.fan_out.is_some());
            let outputs: Vec<&Data> =
                data.outputs.range((before, 0)..=(before, u32::MAX)).flat_map(|(_, all)| all).collect();
            if outputs.is_empty() && data.rehearsed.contains(&before) {
                input.extend(feed.stand_in(before));
            }
            for item in outputs {
                match item {
                    Data::Regions(regions) if one_each && !regions.is_empty() => {
                        let region = regions[(instance as usize).min(regions.len() - 1)];
                        input.push(Data::Regions([region].into()));
                    }
                    item => input.push(item.clone()),
                }
            }
        }
        input.extend(data.input.iter().cloned());
        input
    }

    /// A stage of the job runs on a virtual device.
    pub(crate) fn rehearse(&mut self, job: u64, node: NodeId) {
        if let Some(data) = self.jobs.get_mut(&job) {
            data.rehearsed.insert(node);
        }
    }

    pub(crate) fn set_output(&mut self, job: u64, node: NodeId, instance: u32, output: Vec<Data>) {
        if let Some(data) = self.jobs.get_mut(&job) {
            data.outputs.insert((node, instance), output);
        }
    }

    pub(crate) fn add_part(&mut self, job: u64, node: NodeId, part: Data) {
        if let Some(data) = self.jobs.get_mut(&job) {
            data.parts.entry(node).or_default().push(part);
        }
    }

    /// Takes the session that a stage goes on with, if there is one.
    pub(crate) fn take_seat(&mut self, stage: u64, node: NodeId, streaming: bool) -> Option<Seat> {
        if streaming { self.streams.remove(&node) } else { self.stages.remove(&stage) }
    }

    /// Takes a session of the model that an earlier stage of the node left on the processor.
    pub(crate) fn take_spare(&mut self, node: NodeId, model: ModelId, processor: ProcessorId) -> Option<Seat> {
        let fits = self.spare.get(&node).is_some_and(|seat| (seat.model, seat.processor) == (model, processor));
        if fits { self.spare.remove(&node) } else { None }
    }

    /// Keeps a session for when the stage, or the next of its node, runs again. One that is not needed any more is given back.
    pub(crate) fn keep_seat(
        &mut self,
        job: u64,
        stage: u64,
        node: NodeId,
        streaming: bool,
        finished: bool,
        seat: Seat,
    ) -> Option<Seat> {
        if streaming {
            self.streams.insert(node, seat)
        } else if finished {
            self.spare.insert(node, seat)
        } else if let Some(data) = self.jobs.get_mut(&job) {
            data.stages.push(stage);
            self.stages.insert(stage, seat)
        } else {
            Some(seat)
        }
    }

    /// Gives back the spare sessions of a model that was unloaded.
    pub(crate) fn forget_spares(&mut self, model: ModelId, processor: ProcessorId) -> Vec<Seat> {
        let unloaded = |seat: &Seat| (seat.model, seat.processor) == (model, processor);
        self.spare.extract_if(.., |_, seat| unloaded(seat)).map(|(_, seat)| seat).collect()
    }

    /// Gives back all sessions on a processor that is lost: nobody may ask them anything, because it may never answer.
    pub(crate) fn forget_processor(&mut self, lost: ProcessorId) -> Vec<Seat> {
        let mut seats: Vec<Seat> =
            self.stages.extract_if(.., |_, seat| seat.processor == lost).map(|(_, seat)| seat).collect();
        for sessions in [&mut self.streams, &mut self.spare] {
            seats.extend(sessions.extract_if(.., |_, seat| seat.processor == lost).map(|(_, seat)| seat));
        }
        seats
    }

    pub(crate) fn forget_stage(&mut self, stage: u64) -> Option<Seat> {
        self.stages.remove(&stage)
    }
}

/// Notes which jobs come and go, for the store, and passes everything on.
#[derive(Debug)]
pub(crate) struct Tap<S> {
    pub(crate) jobs: Vec<What>,
    pub(crate) sink: S,
}

impl<S: Sink> Sink for Tap<S> {
    fn event(&mut self, event: &Event) {
        if matches!(event.what, What::Release { .. } | What::JobDone { .. } | What::Drop { .. }) {
            self.jobs.push(event.what);
        }
        self.sink.event(event);
    }
}

/// Whether a node's sessions carry state from one job to the next.
pub(crate) fn is_streaming(system: &System, node: NodeId) -> bool {
    system.models[system.nodes[node].model].shape == onbeat_core::spec::ModelShape::Streaming
}
