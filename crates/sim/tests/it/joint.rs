//! Several processors on one stage: how long it takes, what the bus says, who has to wait, and when it ends.

use onbeat_core::cost::Phase;
use onbeat_core::event::{StopReason, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::policy::{ActionError, Actions, View};
use onbeat_core::units::Nanos;
use onbeat_sim::{SimError, simulate};

use crate::support::{Script, done_at, jobs_of, run, run_script, system, times};

/// One frame that takes 6 ms on a GPU and 3 ms on an NPU, and may be divided at ten points.
fn frame(platform: &str, model: &str, more: &str) -> String {
    format!(
        r#"
        name = "joint"
        duration_s = 1
        [platform]
        name = "p"
        [platform.memory]
        handover_us = 50
        {platform}
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        active_w = 4
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        active_w = 2
        [model.frame]
        {model}
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 6
        bytes_mb = 30
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 3
        bytes_mb = 30
        [[stream]]
        name = "camera"
        model = "frame"
        period_ms = 100
        count = 1
        {more}
        "#
    )
}

const TEN_POINTS: &str = "split = { points = 10 }";

/// Starts whatever is ready on the NPU, with the GPU's help.
fn split_all(view: &View<'_>, actions: &mut Actions) {
    let (gpu, npu) = (ProcessorId(0), ProcessorId(1));
    if let Some(&stage) = view.ready().first()
        && view.free_slots(gpu) > 0
        && view.free_slots(npu) > 0
    {
        actions.split(stage, npu, ProcessorSet::of(gpu), None);
    }
}

#[test]
fn parts_end_together_and_wait_for_one_another_at_every_point() {
    let (system, events) = run_script(&frame("", TEN_POINTS, ""), split_all);
    // 1 / (1/6 + 1/3) = 2 ms, and ten points at 50 µs.
    assert_eq!(done_at(&system, &events, "camera"), [2.5]);
    let stop = events.iter().find_map(|event| match event.what {
        What::Stop { bytes, energy_mj, alone, why, .. } => Some((bytes.0, energy_mj, alone.as_ms(), why)),
        _ => None,
    });
    // A third of 30 MB here, two thirds there. The profile states no energy: 6 W for 2.5 ms.
    assert_eq!(stop, Some((30_000_000, Some(15.0), 2.5, StopReason::Finished)));
    assert!(events.iter().any(
        |event| matches!(event.what, What::Start { processor, over, .. } if processor.0 == 1 && over.contains(ProcessorId(0)) && over.count() == 1)
    ));
}

#[test]
fn an_exchange_takes_time_over_links_with_a_bandwidth() {
    let link = r#"
        [[platform.link]]
        from = "gpu"
        to = "npu"
        latency_us = 50
        bandwidth_gbps = 1
        both_ways = true
        [model.other]
    "#;
    let toml = frame("", "split = { points = 10, kb = 25 }", link);
    let (system, events) = run_script(&toml, split_all);
    // 25 kB at 1 GB/s: 25 µs more at each of ten points.
    assert_eq!(done_at(&system, &events, "camera"), [2.75]);
}

#[test]
fn together_they_draw_no_more_than_the_bus_has() {
    // Each can draw 40 GB/s of the bus's 60: a token that moves 4 GB takes 100 ms on one of them. Together they would take 50 ms, but 80
    // GB/s do not fit: 4 GB at 60 GB/s are 66.7 ms.
    let toml = r#"
        name = "decode"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 60
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        bandwidth_gbps = 40
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        bandwidth_gbps = 40
        [model.llm]
        shape = "autoregressive"
        weights_mb = 4000
        split = { points = 1 }
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 100]]
        decode_ms = [[0, 100]]
        [[cost]]
        model = "llm"
        processor = "npu"
        prefill_ms = [[100, 100]]
        decode_ms = [[0, 100]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 100
        output = 11
    "#;
    let (system, events) = run_script(toml, split_all);
    let done = done_at(&system, &events, "chat")[0];
    // The prompt reads the weights once as well: 66.7 ms, too.
    assert!((done - 11.0 * 4000.0 / 60.0).abs() < 1e-3, "{done}");
    let (system, events) = run_script(&toml.replace("bandwidth_gbps = 60", "bandwidth_gbps = 100"), split_all);
    let done = done_at(&system, &events, "chat")[0];
    assert!((done - 11.0 * 50.0).abs() < 1e-3, "{done}");
}

#[test]
fn a_run_next_door_slows_the_whole() {
    // A third processor takes half of the bus away from both.
    let more = r#"
        [[platform.processor]]
        name = "dsp"
        kind = "dsp"
        [model.hog]
        [[cost]]
        model = "hog"
        processor = "dsp"
        latency_ms = 50
        bytes_mb = 1500
        [[stream]]
        name = "hog"
        model = "hog"
        period_ms = 1000
    "#;
    fn both(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            if view.source(stage).name == "hog" {
                actions.start(stage, ProcessorId(2));
            } else {
                actions.split(stage, ProcessorId(1), ProcessorSet::of(ProcessorId(0)), None);
            }
        }
    }
    let toml = frame("bandwidth_gbps = 30", "split = { points = 1 }", more).replace("handover_us = 50", "");
    let (system, events) = run_script(&toml, both);
    // Alone 2 ms, 10 MB on the GPU and 20 MB on the NPU: 5 and 10 GB/s of at most 30, memory-bound for 1/6 and 1/3 of the time. All three
    // ask for 30 GB/s in it and get 10: the NPU, the slower one, takes 2/3 + 3/3 = 1.667 times as long.
    assert!((done_at(&system, &events, "camera")[0] - 2.0 * (2.0 / 3.0 + 1.0)).abs() < 1e-5);
}

#[test]
fn it_gives_way_at_the_end_of_a_segment_and_frees_all() {
    // Six segments of 1/3 ms (and 10/6 points of 50 µs) each.
    let more = r#"
        [model.small]
        [[cost]]
        model = "small"
        processor = "gpu"
        latency_ms = 1
        [[stream]]
        name = "small"
        model = "small"
        period_ms = 1000
        phase_ms = 1
    "#;
    fn give_way(view: &View<'_>, actions: &mut Actions) {
        let (gpu, npu) = (ProcessorId(0), ProcessorId(1));
        let mut free = view.free_slots(gpu) > 0;
        for &stage in view.ready() {
            if view.source(stage).name == "small" {
                match view.occupancy(gpu).runs.first() {
                    None => actions.start(stage, gpu),
                    Some(run) if !run.ending => actions.preempt(run.stage),
                    Some(_) => {}
                }
                free = false;
            }
        }
        for &stage in view.ready() {
            if view.source(stage).name == "camera" && view.free_slots(npu) > 0 {
                if free {
                    actions.split(stage, npu, ProcessorSet::of(gpu), None);
                } else {
                    actions.start(stage, npu);
                }
            }
        }
    }
    let toml = frame("", TEN_POINTS, more).replace("bytes_mb = 30", "bytes_mb = 30\nsegments = 6");
    let (system, events) = run_script(&toml, give_way);
    // A segment takes 2.5/6 ms: the third ends at 1.25 ms. Then the small one has the GPU and the frame the NPU, for 1.5 ms.
    assert_eq!(done_at(&system, &events, "small"), [2.25]);
    assert_eq!(done_at(&system, &events, "camera"), [2.75]);
    let preempted = times(&events, |what| matches!(what, What::Stop { why: StopReason::Preempted, .. }));
    assert_eq!(preempted.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [1.25]);
}

#[test]
fn the_horizon_ends_helpers_with_their_run() {
    let toml = frame("", TEN_POINTS, "").replace("duration_s = 1", "duration_s = 0.001");
    let (_, events) = run_script(&toml, split_all);
    let stops: Vec<_> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Stop { why, bytes, .. } => Some((why, bytes.0)),
            _ => None,
        })
        .collect();
    // 1 ms of 2.5: two fifths of the bytes.
    assert_eq!(stops, [(StopReason::Horizon, 12_000_000)]);
}

#[test]
fn what_cannot_be_divided_is_an_error() {
    let error = |toml: &str, script: fn(&View<'_>, &mut Actions)| {
        let system = system(toml);
        match simulate(&system, Box::new(Script(script)), "test", 1, Vec::new()) {
            Err(SimError::IllegalAction { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error(&frame("", "", ""), split_all), ActionError::CannotSplit);
    let whole = frame("", TEN_POINTS, "");
    let alone = |view: &View<'_>, actions: &mut Actions| {
        actions.split(view.ready()[0], ProcessorId(1), ProcessorSet::EMPTY, None);
    };
    assert_eq!(error(&whole, alone), ActionError::NoHelper);
    let twice = |view: &View<'_>, actions: &mut Actions| {
        actions.split(view.ready()[0], ProcessorId(1), ProcessorSet::of(ProcessorId(1)), None);
    };
    assert_eq!(error(&whole, twice), ActionError::NoHelper);
    let nowhere = |view: &View<'_>, actions: &mut Actions| {
        actions.split(view.ready()[0], ProcessorId(1), ProcessorSet::of(ProcessorId(7)), None);
    };
    assert_eq!(error(&whole, nowhere), ActionError::CannotRunHere);
    let busy = |view: &View<'_>, actions: &mut Actions| {
        for &stage in view.ready() {
            actions.split(stage, ProcessorId(1), ProcessorSet::of(ProcessorId(0)), None);
        }
    };
    assert_eq!(
        error(&whole.replace("count = 1", "count = 2").replace("period_ms = 100", "period_ms = 1"), busy),
        ActionError::Busy
    );
}

#[test]
fn a_stage_that_memory_refuses_on_one_of_them_keeps_none_of_it() {
    // Weights of 600 MB fit once into 1 GB.
    let toml = frame("capacity_gb = 1", "weights_mb = 600\nsplit = { points = 10 }", "");
    fn try_both(view: &View<'_>, actions: &mut Actions) {
        let (gpu, npu) = (ProcessorId(0), ProcessorId(1));
        let Some(&stage) = view.ready().first() else { return };
        if view.can_run(stage, gpu) && view.can_run(stage, npu) {
            actions.split(stage, npu, ProcessorSet::of(gpu), None);
        } else if view.can_run(stage, npu) {
            actions.start(stage, npu);
        }
    }
    let (system, events) = run_script(&toml, try_both);
    assert_eq!(done_at(&system, &events, "camera").len(), 1);
    assert!(events.iter().any(|event| matches!(event.what, What::OutOfMemory { .. })));
    assert!(!events.iter().any(|event| matches!(event.what, What::Start { over, .. } if !over.is_empty())));
}

/// A language model, frames and an image generator, all of which can be divided, on a shared bus.
pub(crate) const DIVISIBLE: &str = r#"
    name = "divisible"
    duration_s = 3
    [platform]
    name = "p"
    [platform.memory]
    bandwidth_gbps = 20
    handover_us = 20
    [[platform.processor]]
    name = "cpu"
    kind = "cpu"
    preemption = "anytime"
    [[platform.processor]]
    name = "gpu"
    kind = "gpu"
    bandwidth_gbps = 15
    preempt_us = 30
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    bandwidth_gbps = 15
    [model.frame]
    weights_mb = 10
    split = { points = 4, kb = 10 }
    [model.image]
    shape = "iterative"
    steps = 6
    weights_mb = 80
    split = { points = 1 }
    [model.llm]
    shape = "autoregressive"
    weights_mb = 200
    kv_kb_per_token = 20
    split = { points = 12 }
    [[cost]]
    model = "frame"
    processor = "gpu"
    latency_ms = 9
    segments = 3
    energy_mj = 20
    [[cost]]
    model = "frame"
    processor = "npu"
    latency_ms = 6
    segments = 2
    energy_mj = 20
    [[cost]]
    model = "image"
    processor = "gpu"
    step_ms = 20
    [[cost]]
    model = "image"
    processor = "npu"
    step_ms = 25
    [[cost]]
    model = "llm"
    processor = "cpu"
    prefill_ms = [[100, 150]]
    decode_ms = [[0, 40], [500, 50]]
    [[cost]]
    model = "llm"
    processor = "gpu"
    prefill_ms = [[100, 60], [400, 300]]
    prefill_chunk = 64
    decode_ms = [[0, 20], [500, 22]]
    [[cost]]
    model = "llm"
    processor = "npu"
    prefill_ms = [[100, 30], [400, 140]]
    decode_ms = [[0, 25]]
    [[stream]]
    name = "camera"
    model = "frame"
    fps = 20
    deadline_ms = 5
    drop = "hopeless"
    [[session]]
    name = "draw"
    model = "image"
    arrival = { process = "poisson", rate_per_s = 1 }
    deadline_ms = 150
    [[session]]
    name = "chat"
    model = "llm"
    arrival = { process = "poisson", rate_per_s = 1.5 }
    prompt = { kind = "uniform", low = 20, high = 300 }
    output = { kind = "uniform", low = 1, high = 30 }
    ttft_ms = 300
    tpot_ms = 30
"#;

#[test]
fn invariants_hold_and_nobody_beats_the_bound() {
    let system = system(DIVISIBLE);
    let bound = onbeat_analysis::bound::lower_bound(&system);
    // A frame takes 6 ms alone and 3.68 ms together, and is due after 5: neither bound nor drop rule may count with one processor.
    let camera = bound.sources.iter().find(|source| source.name == "camera").unwrap();
    assert_eq!(camera.violation_rate, Some(0.0), "{:?}", camera.impossible);
    let (mut splits, mut in_time) = (0, 0);
    for policy in onbeat_policy::all() {
        for seed in 0..3 {
            let events = run(&system, onbeat_policy::make(policy.name, &system).unwrap(), seed);
            splits += times(&events, |what| matches!(what, What::Start { over, .. } if !over.is_empty())).len();
            // Causality: no job is done sooner than its source's shortest time.
            for source in &system.sources {
                for (release, done) in jobs_of(&system, &events, &source.name) {
                    let shortest = source.shortest.as_ms();
                    assert!(
                        done.is_none_or(|done| done - release >= shortest - 1e-6),
                        "{}: {}",
                        policy.name,
                        source.name
                    );
                    in_time += u32::from(source.name == "camera" && done.is_some_and(|done| done - release <= 5.0));
                }
            }
        }
    }
    assert!(splits > 100 && in_time > 20, "hetero-split divides: {splits}, {in_time}");
}

#[test]
fn bytes_are_conserved_however_work_is_divided() {
    let system = system(DIVISIBLE);
    let events = run(&system, onbeat_policy::make("hetero-split", &system).unwrap(), 1);
    let camera = system.sources.enumerate().find(|(_, s)| s.name == "camera").map(|(id, _)| id).unwrap();
    let mut of_stage = std::collections::BTreeMap::new();
    let mut sums: std::collections::BTreeMap<u64, (f64, f64)> = std::collections::BTreeMap::new();
    let mut checked = 0;
    for event in &events {
        match event.what {
            What::Ready { stage, node, .. } => {
                of_stage.insert(stage, system.nodes[node].source);
            }
            What::Stop { stage, bytes, energy_mj, .. } => {
                let sum = sums.entry(stage).or_default();
                sum.0 += bytes.0 as f64;
                sum.1 += energy_mj.unwrap_or(f64::NAN);
            }
            What::StageDone { stage, .. } if of_stage[&stage] == camera => {
                let (bytes, energy) = sums[&stage];
                // The same 10 MB and 20 mJ on every processor, so in whatever shares.
                assert!((bytes - 10e6).abs() < 3.0 && (energy - 20.0).abs() < 1e-6, "{bytes} {energy}");
                checked += 1;
            }
            _ => {}
        }
    }
    assert!(checked > 20);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let system = system(DIVISIBLE);
    let events = || run(&system, onbeat_policy::make("hetero-split", &system).unwrap(), 3);
    assert_eq!(events(), events());
}

#[test]
fn the_end_that_policies_may_count_on_does_not_tell_how_long_an_answer_is() {
    /// Four steps at a time; in the middle of them the end is that of four, or of as many as an answer is expected to have.
    fn fours(view: &View<'_>, actions: &mut Actions) {
        let (gpu, npu) = (ProcessorId(0), ProcessorId(1));
        if let Some(run) = view.occupancy(gpu).runs.first().filter(|run| run.kind == Phase::Decode) {
            let left = view.stage(run.stage).work.output.saturating_sub(view.stage(run.stage).tokens);
            assert_eq!(run.expected_end, run.start + Nanos::from_ms(f64::from(left.min(4)) * 2.0));
        }
        for &stage in view.ready() {
            if view.stage(stage).kind == Phase::Prefill {
                actions.start(stage, gpu);
            } else {
                actions.split(stage, gpu, ProcessorSet::of(npu), 4);
                actions.wake(view.now() + Nanos(1));
            }
        }
    }
    let toml = r#"
        name = "lengths"
        duration_s = 20
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        [model.llm]
        shape = "autoregressive"
        split = { points = 1 }
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 6]]
        [[cost]]
        model = "llm"
        processor = "npu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 3]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = { process = "periodic", period_s = 0.5 }
        prompt = 10
        output = { kind = "uniform", low = 2, high = 20 }
    "#;
    let (system, events) = run_script(toml, fours);
    assert_eq!(jobs_of(&system, &events, "chat").len(), 40);
}
