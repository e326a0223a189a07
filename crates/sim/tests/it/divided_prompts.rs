//! Prompts that two processors prefill together: what is counted on the way, and where they give way.

use onbeat_core::event::{StopReason, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::policy::{Actions, View};
use onbeat_core::units::Nanos;

use crate::support::{done_at, run_script};

const GPU: ProcessorId = ProcessorId(0);
const NPU: ProcessorId = ProcessorId(1);

/// A prompt that takes 6 ms on a GPU and 3 ms on an NPU, and an answer of one token; and a frame of 1 ms for the GPU.
fn prompt(tokens: u32, npu: &str, cost: &str, frame_at_ms: f64) -> String {
    let one = |processor: &str, ms: u32| {
        format!(
            "[[cost]]\nmodel = \"llm\"\nprocessor = \"{processor}\"\nprefill_ms = [[{tokens}, {ms}]]\ndecode_ms = [[0, 1]]\n{cost}\n"
        )
    };
    format!(
        r#"
        name = "divided"
        duration_s = 1
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        {npu}
        [model.llm]
        shape = "autoregressive"
        weights_mb = 1
        split = {{ points = 1 }}
        [model.frame]
        {}{}
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 1
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "periodic", period_s = 100 }}
        prompt = {tokens}
        output = 1
        [[stream]]
        name = "frames"
        model = "frame"
        period_ms = 1000
        phase_ms = {frame_at_ms}
        count = 1
        "#,
        one("gpu", 6),
        one("npu", 3),
    )
}

/// The prompt on both where both are free; frames before it, at once.
fn frames_first(view: &View<'_>, actions: &mut Actions) {
    let frame = view.ready().iter().copied().find(|&stage| view.source(stage).name == "frames");
    match (frame, view.occupancy(GPU).runs.first()) {
        (Some(frame), None) => actions.start(frame, GPU),
        (Some(_), Some(run)) if !run.ending => actions.preempt(run.stage),
        (_, Some(_)) => {}
        (None, None) => {
            if let Some(&stage) = view.ready().first() {
                actions.split(stage, GPU, ProcessorSet::of(NPU), None);
            }
        }
    }
}

#[test]
fn layer_groups_of_one_processor_do_not_end_what_two_do() {
    // 1 / (1/6 + 1/3) = 2 ms together, in one segment. The GPU's four groups of 1.5 ms say nothing about it.
    for at_ms in [0.4, 1.6] {
        let (system, events) = run_script(&prompt(60, "", "layer_groups = 4", at_ms), frames_first);
        assert_eq!(done_at(&system, &events, "chat"), [2.0], "preempted at {at_ms} ms");
        assert_eq!(done_at(&system, &events, "frames"), [3.0]);
    }
    // Segments of 30 tokens: it gives way after the first of them, at 1 ms, and goes on for another one.
    let halves = "layer_groups = 4\nprefill_chunk = 30";
    let (system, events) = run_script(&prompt(60, "", halves, 0.4), frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [2.0]);
    assert_eq!(done_at(&system, &events, "chat"), [3.0]);
    let stops = events.iter().filter_map(|e| if let What::Stop { why, .. } = e.what { Some(why) } else { None });
    assert_eq!(stops.collect::<Vec<_>>(), [StopReason::Preempted, StopReason::Finished, StopReason::Finished]);
}

#[test]
fn the_end_of_a_chunk_is_not_a_token() {
    /// The NPU is slower from 0.25 ms on, so that the prompt is divided anew where its first chunk ends.
    fn slower(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            actions.split(stage, GPU, ProcessorSet::of(NPU), None);
        }
        let quarters = |n: u64| Nanos(n * 250_000);
        match view.now() {
            Nanos::ZERO => actions.wake(quarters(1)),
            now if now == quarters(1) => {
                actions.set_point(NPU, 1);
                actions.wake(quarters(10));
            }
            now if now == quarters(10) => {
                let stage = view.occupancy(GPU).runs[0].stage;
                assert_eq!(view.stage(stage).tokens, 0, "in the middle of the second chunk");
            }
            _ => {}
        }
    }
    let points = r#"
        operating_point = [
            { name = "full", speed = 1 },
            { name = "low", speed = 0.5 },
        ]"#;
    let (system, events) = run_script(&prompt(256, points, "prefill_chunk = 128", 2000.0), slower);
    // A quarter of the first chunk's millisecond, three at half the speed: 1.75 ms. The second one takes 3 ms on either: 1.5.
    assert_eq!(done_at(&system, &events, "chat"), [3.25]);
}
