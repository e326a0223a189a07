//! Several virtual devices on one stage.

use onbeat_core::cost::Phase;
use onbeat_core::event::StopReason;
use onbeat_core::id::ProcessorSet;
use onbeat_core::joint::Together;
use onbeat_core::policy::{ActionError, Actions, View};
use onbeat_driver::DriveError;

use super::*;
use crate::desk::mix::mixes;

/// A policy made of one function.
#[derive(Clone, Debug)]
pub(super) struct Rule(pub(super) fn(&View<'_>, &mut Actions));

impl Policy for Rule {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        (self.0)(view, actions);
    }
}

const GPU: ProcessorId = ProcessorId(0);
const NPU: ProcessorId = ProcessorId(1);

/// Frames that take 6 ms on a GPU and 3 ms on an NPU in `segments` segments, and may be divided at ten points.
fn frames(segments: u32, processor: &str, more: &str) -> System {
    System::from_toml(&format!(
        r#"
        name = "joint"
        duration_s = 1
        [platform]
        name = "p"
        memory = {{ handover_us = 50 }}
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        active_w = 4
        {processor}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        active_w = 2
        {processor}
        [model.frame]
        split = {{ points = 10 }}
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 6
        bytes_mb = 30
        segments = {segments}
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 3
        bytes_mb = 30
        segments = {segments}
        [[stream]]
        name = "camera"
        model = "frame"
        period_ms = 100
        count = 1
        {more}
        "#
    ))
    .unwrap()
}

/// Starts whatever is ready on the NPU, with the GPU's help where that is possible.
fn split_all(view: &View<'_>, actions: &mut Actions) {
    let Some(&stage) = view.ready().first() else { return };
    let together = Together::Split { helpers: ProcessorSet::of(GPU) };
    let free = view.free_slots(NPU) > 0 && view.free_slots(GPU) > 0 && view.state.failed == 0;
    if free && view.remaining_together(stage, NPU, together).is_some() {
        actions.start_together(stage, NPU, together);
    } else if let Some(p) = [NPU, GPU].into_iter().find(|&p| view.free_slots(p) > 0 && view.can_run(stage, p)) {
        actions.start(stage, p);
    }
}

/// Runs a rule; the invariants hold, and the record replays.
pub(super) fn run_rule(system: &System, rule: fn(&View<'_>, &mut Actions), faults: Vec<Fault>) -> Vec<Event> {
    let events = run_made_on_desk(system, Box::new(Rule(rule)), "rule", 1, faults);
    checked(system, &events, "rule");
    let record = as_record(system, "rule", 1, events);
    replay(&record, Box::new(Rule(rule)), "rule").unwrap_or_else(|error| panic!("{error}"));
    record.events
}

pub(super) fn done_at(events: &[Event]) -> Vec<f64> {
    let done = events.iter().filter(|event| matches!(event.what, What::JobDone { .. }));
    done.map(|event| (event.at.as_ms() * 1e3).round() / 1e3).collect()
}

/// Reason, progress alone [ms], data [MB] and energy [mJ] of every stop.
fn stops(events: &[Event]) -> Vec<(StopReason, f64, f64, f64)> {
    let of = |event: &Event| match event.what {
        What::Stop { why, alone, bytes, energy_mj, .. } => {
            let energy = (energy_mj.unwrap_or(f64::NAN) * 1e3).round() / 1e3;
            Some((why, (alone.as_ms() * 1e3).round() / 1e3, bytes.as_mb(), energy))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn parts_end_together_and_the_run_holds_a_slot_of_each() {
    let system = frames(1, "", "");
    let events = run_rule(&system, split_all, Vec::new());
    // 1 / (1/6 + 1/3) = 2 ms, and ten points at 50 µs. The profile states no energy: 6 W for 2.5 ms.
    assert_eq!(done_at(&events), [2.5]);
    assert_eq!(stops(&events), [(StopReason::Finished, 2.5, 30.0, 15.0)]);
    let over = events.iter().find_map(|event| match event.what {
        What::Start { processor, over, .. } => Some((processor, over)),
        _ => None,
    });
    assert_eq!(over, Some((NPU, ProcessorSet::of(GPU))));
    // The GPU is taken: what comes meanwhile, and runs nowhere else, waits.
    let other = r#"
        [model.other]
        [[cost]]
        model = "other"
        processor = "gpu"
        latency_ms = 1
        [[stream]]
        name = "other"
        model = "other"
        period_ms = 100
        phase_ms = 1
        count = 1
    "#;
    assert_eq!(done_at(&run_rule(&frames(1, "", other), split_all, Vec::new())), [2.5, 3.5]);
}

#[test]
fn shares_follow_the_operating_points_from_the_next_segment_on() {
    let points = "operating_point = [{ name = \"full\", speed = 1 }, { name = \"low\", speed = 0.5, active_w = 1 }]";
    // Three segments of 2/3 ms and a third of ten points at 50 µs: 5/6 ms each.
    let wakes = |view: &View<'_>, actions: &mut Actions| {
        split_all(view, actions);
        if view.now() == Nanos::ZERO {
            actions.wake(Nanos::from_ms(1.0));
        }
    };
    let system = frames(3, points, "");
    assert_eq!(done_at(&run_rule(&system, wakes, Vec::new())), [2.5]);
    // At half its clock the NPU takes 2 ms for a segment, as the GPU does: 1 ms and 1/6. The second segment ends as it was begun.
    let slows = |view: &View<'_>, actions: &mut Actions| {
        split_all(view, actions);
        if view.now() == Nanos::ZERO {
            actions.wake(Nanos::from_ms(1.0));
        } else if view.now() < Nanos::from_ms(1.1) {
            actions.set_point(NPU, 1);
        }
    };
    let events = run_rule(&system, slows, Vec::new());
    assert_eq!(done_at(&events), [2.833]);
    // Energy is the integral of power: 6 W for 1 ms, then 5.
    let (_, alone, _, energy) = stops(&events)[0];
    assert!((alone - 2.833).abs() < 1e-9 && (energy - 6.0 - 5.0 * 1.833).abs() < 0.01, "{alone} {energy}");
}

#[test]
fn a_joint_run_gives_way_at_the_end_of_a_segment() {
    // Asked at 1 ms, within the second of three segments of 5/6 ms, it ends with it, and its last segment is done alone.
    let system = frames(3, "preemption = \"segment\"", "");
    let rule = |view: &View<'_>, actions: &mut Actions| {
        if view.now() == Nanos::ZERO {
            actions.wake(Nanos::from_ms(1.0));
            split_all(view, actions);
        } else if let Some(run) = view.occupancy(NPU).runs.first().filter(|run| !run.over.is_empty() && !run.ending) {
            actions.preempt(run.stage);
        } else if let Some(&stage) = view.ready().first() {
            actions.start(stage, NPU);
        }
    };
    let events = run_rule(&system, rule, Vec::new());
    assert_eq!(
        stops(&events).iter().map(|stop| stop.0).collect::<Vec<_>>(),
        [StopReason::Preempted, StopReason::Finished]
    );
    assert_eq!(stops(&events)[0].1, 1.667);
    assert_eq!(done_at(&events), [2.667]);
}

#[test]
fn the_end_of_time_stops_a_joint_run_once() {
    let mut system = frames(3, "", "");
    system.duration = Nanos::from_ms(2.0);
    let events = run_rule(&system, split_all, Vec::new());
    // Nobody has asked how far it is. The profile states no energy: 6 W for 2 ms.
    assert_eq!(stops(&events), [(StopReason::Horizon, 0.0, 0.0, 12.0)]);
}

#[test]
fn without_its_helper_a_stage_goes_on_and_without_its_own_processor_it_begins_anew() {
    let system = frames(3, "", "");
    let at = Nanos::from_ms(1.5);
    // The helper is lost in the second segment: that is done again, alone.
    let events = run_rule(&system, split_all, vec![Fault::Lose(at, GPU)]);
    assert_eq!(stops(&events)[0], (StopReason::Preempted, 0.833, 10.0, 9.0));
    assert_eq!(done_at(&events), [3.5]);
    // The stage's own processor is lost: another one begins with the first segment.
    let events = run_rule(&system, split_all, vec![Fault::Lose(at, NPU)]);
    assert_eq!(done_at(&events), [7.5]);
    // A run that fails takes its job along, and leaves both processors free.
    let events = run_rule(&system, split_all, vec![Fault::Fail(at, NPU)]);
    assert_eq!(done_at(&events), [0.0; 0]);
    assert!(events.iter().any(|event| matches!(event.what, What::Drop { .. })));
}

#[test]
fn real_devices_share_no_stage_and_policies_see_it() {
    let mut system = frames(1, "", "");
    system.platform.processors[GPU].device =
        Some(onbeat_core::system::Device { name: "rten".to_owned(), ..Default::default() });
    let asks = |view: &View<'_>, actions: &mut Actions| {
        actions.split(view.ready()[0], NPU, ProcessorSet::of(GPU), None);
    };
    let mut live = Live::new(&system, Box::new(Rule(asks)), "rule", 1, Facts::default(), Vec::<Event>::new());
    let error = live.instant(Nanos::ZERO, &[], &mut Vec::new()).unwrap_err();
    assert!(matches!(error, DriveError::IllegalAction { reason: ActionError::OnlyRehearsed, .. }), "{error}");
    let looks = |view: &View<'_>, _: &mut Actions| {
        let Some(&stage) = view.ready().first() else { return };
        let together = Together::Split { helpers: ProcessorSet::of(GPU) };
        assert_eq!(view.remaining_together(stage, NPU, together), None);
    };
    run_rule(&system, looks, Vec::new());
    // The others can: what is real beside them is no obstacle.
    system.platform.processors[GPU].device = None;
    let looks = |view: &View<'_>, _: &mut Actions| {
        let Some(&stage) = view.ready().first() else { return };
        let together = Together::Split { helpers: ProcessorSet::of(GPU) };
        assert_eq!(view.remaining_together(stage, NPU, together), Some(Nanos::from_ms(2.5)));
    };
    run_rule(&system, looks, Vec::new());
}

/// Tokens of every run that ends by itself, and which of them several processors put out.
fn tokens(events: &[Event]) -> Vec<(u64, u32)> {
    let mut decodes = BTreeSet::new();
    let mut tokens = Vec::new();
    for event in events {
        match event.what {
            What::Start { run, phase: Phase::Decode, .. } => {
                decodes.insert(run);
            }
            What::Stop { run, stage, tokens: count, why, .. }
                if decodes.contains(&run) && why != StopReason::Horizon =>
            {
                tokens.push((stage, count));
            }
            _ => {}
        }
    }
    tokens
}

#[test]
fn a_rehearsal_drafts_the_tokens_that_a_simulation_drafts() {
    /// Two cycles at a time.
    fn two_cycles(view: &View<'_>, actions: &mut Actions) {
        let mut answers = view.ready().iter().filter(|&&stage| view.source(stage).session);
        let Some(&stage) = answers.next() else { return };
        let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
        if view.free_slots(cpu) == 0 || view.free_slots(gpu) == 0 {
            return;
        }
        if view.stage(stage).kind == Phase::Decode && view.cycle(stage, gpu, cpu, 3).is_some() {
            actions.speculate(stage, gpu, cpu, 3, 2);
        } else if view.can_run(stage, gpu) {
            actions.start(stage, gpu);
        }
    }
    let system = system("long-answers", "ryzen-ai-7-350", 120.0);
    let (mut drafted, rule) = (0, two_cycles as fn(&View<'_>, &mut Actions));
    for seed in 1..4 {
        let (_, simulated) =
            onbeat_sim::simulate(&system, Box::new(Rule(rule)), "rule", seed, Vec::<Event>::new()).unwrap();
        let rehearsed = run_made_on_desk(&system, Box::new(Rule(rule)), "rule", seed, Vec::new());
        let (a, b) = (tokens(&simulated), tokens(&rehearsed));
        let all = a.len().min(b.len());
        assert!(a.len().abs_diff(b.len()) <= 1 && a[..all] == b[..all], "{a:?}\n{b:?}");
        drafted += a.iter().filter(|(_, tokens)| *tokens > 2).count();
    }
    assert!(drafted > 50, "{drafted}");
}

#[test]
fn a_virtual_device_ends_a_network_where_its_input_leaves() {
    // Half of the inputs leave within the second of three segments.
    let mut system = System::from_toml(
        r#"
        name = "exits"
        duration_s = 1
        [platform]
        name = "p"
        memory = {}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        preemption = "segment"
        [model.eye]
        exits = [[0.5, 0.5], [1, 0.5]]
        [[cost]]
        model = "eye"
        processor = "npu"
        latency_ms = 6
        segments = 3
        [[stream]]
        name = "camera"
        model = "eye"
        period_ms = 20
        count = 20
        "#,
    )
    .unwrap();
    system.contention = false;
    let alone = |view: &View<'_>, actions: &mut Actions| {
        if let Some(&stage) = view.ready().first().filter(|_| view.free_slots(GPU) > 0) {
            actions.start(stage, GPU);
        }
    };
    let by_segments = |view: &View<'_>, actions: &mut Actions| {
        if let Some(&stage) = view.ready().first().filter(|_| view.free_slots(GPU) > 0) {
            actions.start_segments(stage, GPU, 1);
        }
    };
    for rule in [alone as fn(&View<'_>, &mut Actions), by_segments] {
        let (_, simulated) =
            onbeat_sim::simulate(&system, Box::new(Rule(rule)), "rule", 1, Vec::<Event>::new()).unwrap();
        let rehearsed = run_rule(&system, rule, Vec::new());
        assert_eq!(done_at(&simulated), done_at(&rehearsed));
        let early = done_at(&rehearsed).iter().filter(|at| **at % 20.0 < 4.0).count();
        assert!((1..20).contains(&early), "{early} of 20 leave early");
    }
    // Its device has two steps then: one of 2 ms, and one of 1 ms to the exit.
    let mut live = Live::new(&system, Box::new(Rule(alone)), "rule", 1, Facts::default(), Vec::<Event>::new());
    let (mut commands, mut times) = (Vec::new(), BTreeSet::new());
    live.instant(Nanos::ZERO, &[], &mut commands).unwrap();
    while times.len() < 2 {
        let Some(Command::Launch(launch)) = commands.pop() else { panic!("it starts at once") };
        let plan = Plan::new(&system, &launch);
        times.insert((0..=plan.steps).map(|steps| (plan.time_ns(steps) / 1e3).round() as u32).collect::<Vec<_>>());
        let (run, at) = (launch.run, live.next_timer());
        live.instant(at, &[Report::Ran { run, steps: plan.steps, finished: true }], &mut commands).unwrap();
    }
    assert_eq!(times, BTreeSet::from([vec![0, 2000, 3000], vec![0, 2000, 4000, 6000]]));
}

#[test]
fn every_policy_rehearses_what_it_simulates_and_replays() {
    every_policy("long-answers", "ryzen-ai-7-350", 40.0, &|_| Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a system combines, whoever decides, whatever fails: no policy asks for what is not possible, the invariants hold, nothing
    /// starts on a lost processor, and the record replays.
    #[test]
    fn random_systems_break_no_invariant(
        mix in mixes(),
        seed in 0_u64..1000,
        faults in prop::collection::vec((0.0_f64..1.0, 0_usize..3, prop::bool::weighted(0.15)), 0..6),
    ) {
        let mut system = System::from_toml(&mix.toml()).unwrap();
        system.contention = false;
        let processors: Vec<ProcessorId> = system.platform.processors.ids().collect();
        let fault = |&(at, p, lost): &(f64, usize, bool)| {
            let (at, p) = (Nanos::from_secs(at), processors[p]);
            if lost { Fault::Lose(at, p) } else { Fault::Fail(at, p) }
        };
        for info in onbeat_policy::all() {
            let events = run_on_desk(&system, info.name, seed, faults.iter().map(fault).collect());
            checked(&system, &events, info.name);
            let mut lost = ProcessorSet::EMPTY;
            for event in &events {
                match event.what {
                    What::Lost { processor } => lost = lost.with(processor),
                    What::Start { processor, over, .. } => {
                        let on = over.with(processor);
                        prop_assert!(!on.iter().any(|p| lost.contains(p)), "{}: a start on a lost processor", info.name);
                    }
                    _ => {}
                }
            }
            let record = as_record(&system, info.name, seed, events);
            let made = onbeat_policy::make(info.name, &system).unwrap();
            if let Err(error) = replay(&record, made, info.name) {
                return Err(TestCaseError::fail(format!("{}: {error}", info.name)));
            }
        }
    }
}
