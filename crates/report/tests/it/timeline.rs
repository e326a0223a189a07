//! Slices, jobs and marks from events.

use onbeat_core::cost::Phase;
use onbeat_core::event::{DropCause, Event, StopReason, What};
use onbeat_core::id::{NodeId, ProcessorId, SourceId};
use onbeat_core::system::Division;
use onbeat_core::units::{Bytes, Nanos};
use onbeat_report::perfetto::{self, EventType};
use onbeat_report::timeline::{MarkKind, Outcome, Timeline};
use onbeat_report::timeline_svg;
use prost::Message;

use crate::sample;

const GPU: ProcessorId = ProcessorId(1);
const CPU: ProcessorId = ProcessorId(0);

fn ms(at: u64) -> Nanos {
    Nanos(at * 1_000_000)
}

fn at(time: u64, what: What) -> Event {
    Event { at: ms(time), what }
}

fn start(time: u64, run: u64, stage: u64, processor: ProcessorId, setup: u64) -> Event {
    at(time, What::start(run, stage, processor, Phase::Forward, ms(setup)))
}

fn stop(time: u64, run: u64, stage: u64, processor: ProcessorId, why: StopReason) -> Event {
    at(time, What::Stop { run, stage, processor, why, alone: ms(1), bytes: Bytes(0), energy_mj: None, tokens: 0 })
}

/// Two camera jobs on two CPU slots, one late and one preempted and dropped.
fn events() -> Vec<Event> {
    let release = |time, job, deadline| {
        at(
            time,
            What::Release { job, source: SourceId(0), nominal: ms(time), deadline: Some(ms(deadline)), content: None },
        )
    };
    let ready = |time, stage, job| at(time, What::Ready { stage, job, node: NodeId(0), prompt: 0, output: 0 });
    vec![
        release(0, 7, 30),
        ready(0, 70, 7),
        start(1, 1, 70, CPU, 2),
        release(10, 8, 40),
        ready(10, 80, 8),
        start(10, 2, 80, CPU, 0),
        stop(25, 2, 80, CPU, StopReason::Preempted),
        stop(35, 1, 70, CPU, StopReason::Finished),
        at(35, What::StageDone { stage: 70, job: 7 }),
        at(35, What::JobDone { job: 7 }),
        at(41, What::Drop { job: 8, cause: DropCause::Late }),
        at(50, What::End),
    ]
}

#[test]
fn slices_lanes_and_marks_by_hand() {
    let system = sample::system(0);
    let timeline = Timeline::new(&system, &events(), Nanos::ZERO, ms(100));
    let names: Vec<&str> = timeline.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["cpu 1", "cpu 2", "gpu", "npu"]);
    let seen: Vec<_> = timeline.slices.iter().map(|s| (s.lane, s.start, s.ready, s.end, s.job, s.why)).collect();
    assert_eq!(
        seen,
        [
            (0, ms(1), ms(3), ms(35), 7, Some(StopReason::Finished)),
            (1, ms(10), ms(10), ms(25), 8, Some(StopReason::Preempted))
        ]
    );
    let jobs: Vec<_> = timeline.jobs.iter().map(|j| (j.job, j.release, j.end, j.outcome)).collect();
    assert_eq!(jobs, [(7, ms(0), ms(35), Outcome::Done), (8, ms(10), ms(41), Outcome::Dropped(DropCause::Late))]);
    let marks: Vec<_> = timeline.marks.iter().map(|m| (m.at, m.job, m.kind)).collect();
    assert_eq!(marks, [(ms(30), 7, MarkKind::Deadline), (ms(41), 8, MarkKind::Dropped(DropCause::Late))]);
    assert_eq!(timeline.to, ms(50), "the window ends with the run");
}

#[test]
fn runs_side_by_side_on_a_divided_processor_have_lanes_of_their_own() {
    let mut system = sample::system(0);
    system.platform.processors[CPU].slots = 1;
    system.platform.processors[CPU].division = Some(Division { units: 4, repartition: Nanos::ZERO });
    let mut events = events();
    for event in &mut events {
        if let What::Start { units, .. } = &mut event.what {
            *units = 2;
        }
    }
    let timeline = Timeline::new(&system, &events, Nanos::ZERO, ms(100));
    let names: Vec<&str> = timeline.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["cpu 1", "cpu 2", "gpu", "npu"], "two at once are two lanes, however many units there are");
    let seen: Vec<_> = timeline.slices.iter().map(|s| (s.lane, s.start, s.units)).collect();
    assert_eq!(seen, [(0, ms(1), 2), (1, ms(10), 2)]);
    assert!(timeline_svg::describe(&system, &timeline.slices[0]).contains(", 2 units; "));
    let trace = perfetto::trace(&system, &timeline, "edf");
    let units = |event: &perfetto::TrackEvent| event.debug_annotations.iter().any(|a| a.name() == "units");
    assert_eq!(trace.packet.iter().filter_map(|p| p.track_event.as_ref()).filter(|event| units(event)).count(), 2);
}

#[test]
fn a_window_cuts_what_is_running() {
    let system = sample::system(0);
    let timeline = Timeline::new(&system, &events(), ms(5), ms(20));
    let seen: Vec<_> = timeline.slices.iter().map(|s| (s.start, s.end, s.why)).collect();
    assert_eq!(seen, [(ms(1), ms(20), None), (ms(10), ms(20), None)]);
    assert_eq!(timeline.marks, [], "no deadline passed yet");
}

#[test]
fn nothing_runs_on_after_the_last_event() {
    let system = sample::system(0);
    let known = &events()[..5];
    let timeline = Timeline::new(&system, known, Nanos::ZERO, ms(1000));
    assert_eq!((timeline.to, timeline.slices[0].end), (ms(10), ms(10)));
}

#[test]
fn stages_of_a_batch_share_one_slice() {
    let system = sample::system(0);
    let mut list = vec![
        at(0, What::Release { job: 1, source: SourceId(0), nominal: ms(0), deadline: None, content: None }),
        at(0, What::Ready { stage: 1, job: 1, node: NodeId(0), prompt: 0, output: 0 }),
        at(0, What::Ready { stage: 2, job: 1, node: NodeId(0), prompt: 0, output: 0 }),
        start(0, 9, 1, GPU, 0),
        start(0, 9, 2, GPU, 0),
    ];
    list.extend([stop(8, 9, 1, GPU, StopReason::Finished), stop(8, 9, 2, GPU, StopReason::Finished)]);
    let timeline = Timeline::new(&system, &list, Nanos::ZERO, ms(10));
    assert_eq!(timeline.slices.len(), 1);
    assert_eq!((timeline.slices[0].batch, timeline.slices[0].end), (2, ms(8)));
}

#[test]
fn goals_for_tokens_are_marked() {
    let system = sample::system(0);
    let assistant = SourceId(2);
    let answer = NodeId(4);
    let list = [
        at(0, What::Release { job: 1, source: assistant, nominal: ms(0), deadline: None, content: None }),
        at(0, What::Ready { stage: 1, job: 1, node: answer, prompt: 10, output: 11 }),
        start(0, 1, 1, GPU, 0),
        // The goals are 400 ms to the first token and 60 ms per token; ten tokens follow in 700 ms.
        at(401, What::FirstToken { stage: 1, job: 1 }),
        stop(1101, 1, 1, GPU, StopReason::Finished),
        at(1101, What::StageDone { stage: 1, job: 1 }),
        at(1101, What::JobDone { job: 1 }),
    ];
    let timeline = Timeline::new(&system, &list, Nanos::ZERO, ms(2000));
    let marks: Vec<_> = timeline.marks.iter().map(|m| (m.at, m.kind)).collect();
    assert_eq!(marks, [(ms(401), MarkKind::Ttft), (ms(1101), MarkKind::Tpot)]);
}

#[test]
fn a_fitted_window_has_no_more_slices_than_asked() {
    let system = sample::system(2);
    let events = sample::events(&system, 1.2);
    let whole = Timeline::new(&system, &events, Nanos::ZERO, system.duration);
    let part = Timeline::fit(&system, &events, Nanos::ZERO, system.duration, 40);
    assert!(whole.slices.len() > 40 && part.slices.len() == 40 && part.to < whole.to);
}

#[test]
fn slices_on_a_lane_never_overlap() {
    let system = sample::system(2);
    let timeline = Timeline::new(&system, &sample::events(&system, 1.5), Nanos::ZERO, Nanos::MAX);
    for lane in 0..timeline.lanes.len() {
        let slices: Vec<_> = timeline.slices.iter().filter(|slice| slice.lane == lane).collect();
        assert!(slices.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}

#[test]
fn the_picture_shows_every_slice_and_mark() {
    let system = sample::system(0);
    let timeline = Timeline::new(&system, &events(), Nanos::ZERO, ms(50));
    let svg = timeline_svg::render(&system, &timeline, "A <title>");
    if let Some(folder) = std::env::var_os("ONBEAT_REPORT_SAMPLES") {
        let folder = std::path::Path::new(&folder);
        let many = sample::system(3);
        let window = Timeline::fit(&many, &sample::events(&many, 1.6), Nanos::ZERO, many.duration, 150);
        std::fs::write(
            folder.join("timeline.svg"),
            timeline_svg::render(&many, &window, "video-call on test-chip, llf"),
        )
        .expect("the folder exists");
        std::fs::write(folder.join("run.pftrace"), perfetto::render(&many, &window, "llf")).expect("the folder exists");
    }
    insta::assert_snapshot!(svg);
}

#[test]
fn the_trace_decodes_and_nests() {
    let system = sample::system(2);
    let timeline = Timeline::new(&system, &sample::events(&system, 1.3), Nanos::ZERO, Nanos::MAX);
    let bytes = perfetto::render(&system, &timeline, "edf");
    let trace = perfetto::Trace::decode(bytes.as_slice()).expect("our own bytes decode");
    assert!(trace.packet.iter().all(|packet| packet.trusted_packet_sequence_id == Some(1)));
    let described: Vec<u64> = trace.packet.iter().filter_map(|p| p.track_descriptor.as_ref()?.uuid).collect();
    let unique: std::collections::BTreeSet<u64> = described.iter().copied().collect();
    assert_eq!(unique.len(), described.len(), "tracks have different numbers");
    let mut depth = std::collections::BTreeMap::<u64, i32>::new();
    let mut last = 0;
    let mut begun = 0;
    for packet in &trace.packet {
        let Some(event) = &packet.track_event else { continue };
        let (time, track) =
            (packet.timestamp.expect("events have a time"), event.track_uuid.expect("events have a track"));
        assert!(time >= last, "events are in order of time");
        assert!(unique.contains(&track), "tracks are described before they are used");
        last = time;
        let depth = depth.entry(track).or_default();
        match event.r#type() {
            EventType::SliceBegin => {
                *depth += 1;
                begun += i32::from(event.categories == ["run"]);
                assert!(*depth <= 2, "a run has at most its setup inside");
            }
            EventType::SliceEnd => *depth -= 1,
            _ => {}
        }
        assert!(*depth >= 0, "nothing ends that did not begin");
    }
    assert!(depth.values().all(|depth| *depth == 0), "everything that begins ends");
    assert_eq!(begun as usize, timeline.slices.len());
}

#[test]
fn the_trace_has_the_published_field_numbers() {
    // Worked by hand from Perfetto's .proto files: packet (1), timestamp (8), sequence (10), event (11) with type (9), track (11).
    let event =
        perfetto::TrackEvent { r#type: Some(EventType::SliceBegin as i32), track_uuid: Some(4), ..Default::default() };
    let packet = perfetto::TracePacket {
        timestamp: Some(5),
        trusted_packet_sequence_id: Some(1),
        track_event: Some(event),
        ..Default::default()
    };
    let bytes = perfetto::Trace { packet: vec![packet] }.encode_to_vec();
    assert_eq!(bytes, [0x0a, 10, 0x40, 5, 0x50, 1, 0x5a, 4, 0x48, 1, 0x58, 4]);
}
