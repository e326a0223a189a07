//! A run as a Perfetto trace: open it at <https://ui.perfetto.dev>.
//!
//! One process per platform; one thread per processor slot (of a divided processor: per run that goes on at once) with a slice per run; one track per stream with instants for misses and
//! drops; counters for memory and bus traffic; flows that lead from a job's release through its stages. Timestamps are simulated
//! nanoseconds.
//!
//! The format is protocol buffers as Perfetto's page "Writing TrackEvent Protos Synthetically" describes it. The messages below hold the
//! few fields that we write, with the field numbers of Perfetto's published `.proto` files.

use std::collections::BTreeSet;

use onbeat_core::id::{Id, ProcessorId};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use prost::Message;

use crate::timeline::{Slice, Timeline, why_name};

/// `perfetto.protos.Trace`.
#[derive(Clone, PartialEq, Message)]
pub struct Trace {
    /// Packets.
    #[prost(message, repeated, tag = "1")]
    pub packet: Vec<TracePacket>,
}

/// `perfetto.protos.TracePacket`.
#[derive(Clone, PartialEq, Message)]
pub struct TracePacket {
    /// Time [ns].
    #[prost(uint64, optional, tag = "8")]
    pub timestamp: Option<u64>,
    /// Identifies the writer; any number but zero.
    #[prost(uint32, optional, tag = "10")]
    pub trusted_packet_sequence_id: Option<u32>,
    /// An event, if the packet is one.
    #[prost(message, optional, tag = "11")]
    pub track_event: Option<TrackEvent>,
    /// Flags of the sequence; 1 at its first packet: there is no earlier state.
    #[prost(uint32, optional, tag = "13")]
    pub sequence_flags: Option<u32>,
    /// A track, if the packet describes one.
    #[prost(message, optional, tag = "60")]
    pub track_descriptor: Option<TrackDescriptor>,
}

/// `perfetto.protos.TrackDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct TrackDescriptor {
    /// Identifies the track.
    #[prost(uint64, optional, tag = "1")]
    pub uuid: Option<u64>,
    /// Name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Makes it a process.
    #[prost(message, optional, tag = "3")]
    pub process: Option<ProcessDescriptor>,
    /// Makes it a thread.
    #[prost(message, optional, tag = "4")]
    pub thread: Option<ThreadDescriptor>,
    /// Track that it belongs to.
    #[prost(uint64, optional, tag = "5")]
    pub parent_uuid: Option<u64>,
    /// Makes it a counter.
    #[prost(message, optional, tag = "8")]
    pub counter: Option<CounterDescriptor>,
}

/// `perfetto.protos.ProcessDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessDescriptor {
    /// Number.
    #[prost(int32, optional, tag = "1")]
    pub pid: Option<i32>,
    /// Name.
    #[prost(string, optional, tag = "6")]
    pub process_name: Option<String>,
}

/// `perfetto.protos.ThreadDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct ThreadDescriptor {
    /// Process.
    #[prost(int32, optional, tag = "1")]
    pub pid: Option<i32>,
    /// Number.
    #[prost(int32, optional, tag = "2")]
    pub tid: Option<i32>,
    /// Name.
    #[prost(string, optional, tag = "5")]
    pub thread_name: Option<String>,
}

/// `perfetto.protos.CounterDescriptor`.
#[derive(Clone, PartialEq, Message)]
pub struct CounterDescriptor {
    /// Built-in unit: 3 is bytes.
    #[prost(int32, optional, tag = "3")]
    pub unit: Option<i32>,
    /// Unit in words, where no built-in one fits.
    #[prost(string, optional, tag = "6")]
    pub unit_name: Option<String>,
}

/// `perfetto.protos.TrackEvent`.
#[derive(Clone, PartialEq, Message)]
pub struct TrackEvent {
    /// Details.
    #[prost(message, repeated, tag = "4")]
    pub debug_annotations: Vec<DebugAnnotation>,
    /// Kind of event.
    #[prost(enumeration = "EventType", optional, tag = "9")]
    pub r#type: Option<i32>,
    /// Track.
    #[prost(uint64, optional, tag = "11")]
    pub track_uuid: Option<u64>,
    /// Categories.
    #[prost(string, repeated, tag = "22")]
    pub categories: Vec<String>,
    /// Name.
    #[prost(string, optional, tag = "23")]
    pub name: Option<String>,
    /// Value of a counter.
    #[prost(int64, optional, tag = "30")]
    pub counter_value: Option<i64>,
    /// Value of a counter with a fraction.
    #[prost(double, optional, tag = "44")]
    pub double_counter_value: Option<f64>,
    /// Flows that pass through.
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub flow_ids: Vec<u64>,
}

/// `perfetto.protos.TrackEvent.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// Not set.
    Unspecified = 0,
    /// A slice begins.
    SliceBegin = 1,
    /// The last slice that began on the track ends.
    SliceEnd = 2,
    /// A moment.
    Instant = 3,
    /// A counter changes.
    Counter = 4,
}

/// `perfetto.protos.DebugAnnotation`.
#[derive(Clone, PartialEq, Message)]
pub struct DebugAnnotation {
    /// Value, if it is a whole number.
    #[prost(uint64, optional, tag = "3")]
    pub uint_value: Option<u64>,
    /// Value, if it is a fraction.
    #[prost(double, optional, tag = "5")]
    pub double_value: Option<f64>,
    /// Value, if it is text.
    #[prost(string, optional, tag = "6")]
    pub string_value: Option<String>,
    /// Name.
    #[prost(string, optional, tag = "10")]
    pub name: Option<String>,
}

const SEQUENCE: u32 = 1;
const PROCESS: u64 = 1;
const MEMORY: u64 = 2;
const BUS: u64 = 3;
const PID: i32 = 1;

/// The trace of a run as bytes of a `.pftrace` file. `policy` names the run.
pub fn render(system: &System, timeline: &Timeline, policy: &str) -> Vec<u8> {
    trace(system, timeline, policy).encode_to_vec()
}

/// The trace before it is encoded.
pub fn trace(system: &System, timeline: &Timeline, policy: &str) -> Trace {
    let mut packets = descriptors(system, timeline, policy);
    let mut events: Vec<(Nanos, u8, TrackEvent)> = Vec::new();
    let starts: BTreeSet<u64> = timeline.slices.iter().map(|slice| slice.job).collect();
    for slice in &timeline.slices {
        slice_events(&mut events, system, slice);
    }
    for job in &timeline.jobs {
        let flow_ids = if starts.contains(&job.job) { vec![flow(job.job)] } else { Vec::new() };
        let mut details = vec![number("job", job.job)];
        details.extend(job.deadline.map(|deadline| number("deadline_ns", deadline.0)));
        let name = Some(format!("release of job {}", job.job));
        let release = TrackEvent {
            flow_ids,
            name,
            debug_annotations: details,
            ..event(EventType::Instant, source_track(timeline, job.source.index()), "release")
        };
        events.push((job.release, 1, release));
    }
    for mark in &timeline.marks {
        let category = if mark.kind.is_drop() { "drop" } else { "miss" };
        let track = source_track(timeline, mark.source.index());
        let name = Some(mark.kind.name().to_owned());
        let instant = TrackEvent {
            name,
            debug_annotations: vec![number("job", mark.job)],
            ..event(EventType::Instant, track, category)
        };
        events.push((mark.at, 1, instant));
    }
    for &(at, bytes) in &timeline.memory {
        let value = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        events.push((at, 1, TrackEvent { counter_value: value, ..event(EventType::Counter, MEMORY, "memory") }));
    }
    for &(at, traffic) in &timeline.bus {
        events.push((
            at,
            1,
            TrackEvent { double_counter_value: Some(traffic), ..event(EventType::Counter, BUS, "bus") },
        ));
    }
    for reading in &timeline.power {
        let mut push = |kind: PowerTrack, value: f64| {
            let track = power_track(system, timeline, reading.processor, kind);
            let counter = TrackEvent { double_counter_value: Some(value), ..event(EventType::Counter, track, "power") };
            events.push((reading.at, 1, counter));
        };
        push(PowerTrack::Speed, reading.speed);
        if let Some(watts) = reading.watts {
            push(PowerTrack::Watts, watts);
        }
        if let Some(celsius) = reading.celsius {
            push(PowerTrack::Celsius, celsius);
        }
    }
    // At the same time slices end before others begin, so that neighbours do not nest; the sort is stable, so an empty slice, which
    // begins and ends at once, is ordered by its own rule in `slice_events`.
    events.sort_by_key(|(at, order, _)| (*at, *order));
    packets.extend(events.into_iter().map(|(at, _, event)| TracePacket {
        timestamp: Some(at.0),
        trusted_packet_sequence_id: Some(SEQUENCE),
        track_event: Some(event),
        ..TracePacket::default()
    }));
    if let Some(first) = packets.first_mut() {
        first.sequence_flags = Some(1);
    }
    Trace { packet: packets }
}

fn descriptors(system: &System, timeline: &Timeline, policy: &str) -> Vec<TracePacket> {
    let title = format!("{} on {}, {policy}", system.scenario, system.platform.name);
    let mut tracks = vec![TrackDescriptor {
        uuid: Some(PROCESS),
        process: Some(ProcessDescriptor { pid: Some(PID), process_name: Some(title) }),
        ..TrackDescriptor::default()
    }];
    for (i, lane) in timeline.lanes.iter().enumerate() {
        let thread = ThreadDescriptor {
            pid: Some(PID),
            tid: i32::try_from(i).ok().map(|lane| PID + 1 + lane),
            thread_name: Some(lane.name.clone()),
        };
        tracks.push(TrackDescriptor {
            uuid: Some(lane_track(i)),
            parent_uuid: Some(PROCESS),
            thread: Some(thread),
            ..TrackDescriptor::default()
        });
    }
    let child = |uuid: u64, name: String| TrackDescriptor {
        uuid: Some(uuid),
        name: Some(name),
        parent_uuid: Some(PROCESS),
        ..TrackDescriptor::default()
    };
    for (i, source) in system.sources.iter().enumerate() {
        tracks.push(child(source_track(timeline, i), format!("{}: releases, misses, drops", source.name)));
    }
    let bytes = CounterDescriptor { unit: Some(3), ..CounterDescriptor::default() };
    tracks.push(TrackDescriptor { counter: Some(bytes), ..child(MEMORY, "memory in use".to_owned()) });
    let traffic = CounterDescriptor { unit_name: Some("GB/s".to_owned()), ..CounterDescriptor::default() };
    tracks.push(TrackDescriptor { counter: Some(traffic), ..child(BUS, "bus traffic".to_owned()) });
    for (p, unit) in system.platform.processors.enumerate() {
        let Some(model) = &unit.power else { continue };
        let mut counter = |kind: PowerTrack, name: String, unit: &str| {
            let counter = CounterDescriptor { unit_name: Some(unit.to_owned()), ..CounterDescriptor::default() };
            tracks.push(TrackDescriptor {
                counter: Some(counter),
                ..child(power_track(system, timeline, p, kind), name)
            });
        };
        counter(PowerTrack::Speed, format!("{}: speed", unit.name), "x");
        counter(PowerTrack::Watts, format!("{}: power", unit.name), "W");
        if model.thermal.is_some() {
            counter(PowerTrack::Celsius, format!("{}: temperature", unit.name), "°C");
        }
    }
    let packet = |track| TracePacket {
        trusted_packet_sequence_id: Some(SEQUENCE),
        track_descriptor: Some(track),
        ..TracePacket::default()
    };
    tracks.into_iter().map(packet).collect()
}

fn slice_events(events: &mut Vec<(Nanos, u8, TrackEvent)>, system: &System, slice: &Slice) {
    let node = &system.nodes[slice.node];
    let model = &system.models[slice.model].name;
    let track = lane_track(slice.lane);
    // All of a processor goes without saying.
    let units = (slice.units > 0).then(|| number("units", u64::from(slice.units)));
    let begin = TrackEvent {
        name: Some(format!("{} ({model})", node.name)),
        debug_annotations: [
            number("job", slice.job),
            number("stage", slice.stage),
            text("source", &system.sources[slice.source].name),
            text("model", model),
            text("phase", slice.phase.name()),
            text("stopped", why_name(slice.why)),
            number("batch", u64::from(slice.batch)),
            number("tokens", u64::from(slice.tokens)),
        ]
        .into_iter()
        .chain(units)
        .collect(),
        flow_ids: vec![flow(slice.job)],
        ..event(EventType::SliceBegin, track, "run")
    };
    // An empty slice ends after it begins, at the same time.
    let end_order = if slice.end == slice.start { 3 } else { 0 };
    events.push((slice.start, 2, begin));
    if slice.ready > slice.start {
        let setup = TrackEvent { name: Some("setup".to_owned()), ..event(EventType::SliceBegin, track, "setup") };
        events.push((slice.start, 2, setup));
        events.push((slice.ready, 0, event(EventType::SliceEnd, track, "setup")));
    }
    events.push((slice.end, end_order, event(EventType::SliceEnd, track, "run")));
}

fn event(kind: EventType, track: u64, category: &str) -> TrackEvent {
    TrackEvent {
        r#type: Some(kind as i32),
        track_uuid: Some(track),
        categories: vec![category.to_owned()],
        ..TrackEvent::default()
    }
}

fn lane_track(lane: usize) -> u64 {
    BUS + 1 + lane as u64
}

fn source_track(timeline: &Timeline, source: usize) -> u64 {
    lane_track(timeline.lanes.len()) + source as u64
}

/// What is shown of a processor's power.
#[derive(Clone, Copy)]
enum PowerTrack {
    Speed,
    Watts,
    Celsius,
}

fn power_track(system: &System, timeline: &Timeline, processor: ProcessorId, kind: PowerTrack) -> u64 {
    source_track(timeline, system.sources.len()) + 3 * u64::from(processor.0) + kind as u64
}

/// Flows are numbered from 1: zero means none.
fn flow(job: u64) -> u64 {
    job + 1
}

fn number(name: &str, value: u64) -> DebugAnnotation {
    DebugAnnotation { name: Some(name.to_owned()), uint_value: Some(value), ..DebugAnnotation::default() }
}

fn text(name: &str, value: &str) -> DebugAnnotation {
    DebugAnnotation { name: Some(name.to_owned()), string_value: Some(value.to_owned()), ..DebugAnnotation::default() }
}
