//! Language models and diffusion: prefill, decode, chunks, batches, tokens handed on, steps.

use onbeat_core::event::{StopReason, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{done_at, first_come, run_script, times};

/// A language model on one processor: prefill 0.1 ms per token; a decode step takes 10 ms plus 0.01 ms per token of context.
fn llm(cost: &str, sources: &str) -> String {
    format!(
        r#"
        name = "generative"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        [model.llm]
        shape = "autoregressive"
        [model.frame]
        [model.voice]
        [[cost]]
        model = "llm"
        processor = "npu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10], [1000, 20]]
        {cost}
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 3
        [[cost]]
        model = "voice"
        processor = "npu"
        latency_ms = 1
        {sources}
        "#
    )
}

fn ask(name: &str, start_s: f64, prompt: u32, output: u32) -> String {
    format!(
        r#"
        [[session]]
        name = "{name}"
        model = "llm"
        arrival = {{ process = "periodic", period_s = 100, start_s = {start_s} }}
        prompt = {prompt}
        output = {output}
        "#
    )
}

#[test]
fn a_request_takes_its_prefill_and_steps_that_grow_with_the_context() {
    let (system, events) = run_script(&llm("", &ask("chat", 0.0, 200, 4)), first_come);
    let first = times(&events, |what| matches!(what, What::FirstToken { .. }));
    assert_eq!(first.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [20.0]);
    // Three steps at contexts 201, 202, 203: 12.01 + 12.02 + 12.03.
    assert_eq!(done_at(&system, &events, "chat"), [20.0 + 36.06]);
    // All decode steps are one run.
    assert_eq!(times(&events, |what| matches!(what, What::Start { .. })).len(), 2);
    let tokens: u32 = events.iter().map(|e| if let What::Stop { tokens, .. } = e.what { tokens } else { 0 }).sum();
    assert_eq!(tokens, 4);
}

/// Frames before everything else.
fn frames_first(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let frame = view.ready().iter().copied().find(|&stage| view.source(stage).name == "frames");
    let Some(first) = frame.or_else(|| view.ready().first().copied()) else { return };
    match view.occupancy(p).runs.first() {
        None => actions.start(first, p),
        Some(run) if frame.is_some() && !run.ending && view.source(run.stage).name != "frames" => {
            actions.preempt(run.stage);
        }
        Some(_) => {}
    }
}

const FRAMES: &str = r#"
    [[stream]]
    name = "frames"
    model = "frame"
    period_ms = 1000
    phase_ms = 5
    count = 1
"#;

#[test]
fn a_prompt_in_chunks_gives_way_after_the_running_chunk() {
    let sources = format!("{}{FRAMES}", ask("chat", 0.0, 200, 1));
    let (system, events) = run_script(&llm("", &sources), frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [23.0], "one segment: the whole prompt");
    let chunked = llm("prefill_chunk = 64\nchunk_overhead_ms = 0.5", &sources);
    let (system, events) = run_script(&chunked, frames_first);
    // The first chunk ends at 6.4 ms; the frame runs until 9.4; then 13.6 ms of prompt and three overheads.
    assert_eq!(done_at(&system, &events, "frames"), [9.4]);
    assert_eq!(done_at(&system, &events, "chat"), [9.4 + 13.6 + 1.5]);
}

#[test]
fn decode_gives_way_after_the_running_step() {
    let sources = format!("{}{}", ask("chat", 0.0, 100, 11), FRAMES.replace("phase_ms = 5", "phase_ms = 30"));
    let (system, events) = run_script(&llm("", &sources), frames_first);
    // Prefill to 10; steps of 11.01, 11.02, …: the second ends at 32.03.
    assert_eq!(done_at(&system, &events, "frames"), [35.03]);
    let steps: f64 = (101..111).map(|context| 10.0 + 0.01 * f64::from(context)).sum();
    assert!((done_at(&system, &events, "chat")[0] - (10.0 + 3.0 + steps)).abs() < 1e-5);
}

#[test]
fn requests_that_join_a_batch_share_its_steps() {
    // Two requests of 100 tokens; the second arrives during the first one's decode and joins after its own prefill, which needs the
    // processor: the first gives way.
    let toml =
        llm("batch_factor = [[1, 1.0], [4, 1.3]]", &format!("{}{}", ask("a", 0.0, 100, 5), ask("b", 0.015, 100, 3)))
            .replace("decode_ms = [[0, 10], [1000, 20]]", "decode_ms = [[0, 10]]");
    fn join(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        let prefill = view.ready().iter().copied().find(|&stage| view.stage(stage).tokens == 0);
        match view.occupancy(p).runs.first() {
            None => {
                if let Some(first) = prefill {
                    actions.start(first, p);
                } else {
                    // The first starts a batch, which the others join.
                    view.ready().iter().for_each(|&stage| actions.start(stage, p));
                }
            }
            Some(run) => {
                if prefill.is_some() && !run.ending {
                    actions.preempt(run.stage);
                }
                for &stage in view.ready() {
                    if view.can_join(stage, p) {
                        actions.start(stage, p);
                    }
                }
            }
        }
    }
    let (system, events) = run_script(&toml, join);
    // a: prefill 0-10, step 10-20, cut for b's prefill 20-30. Then both decode together, 11 ms a step (factor 1.1 at batch 2): b has its
    // 3 tokens at 52; a has one step left, alone again: 62.
    assert_eq!(done_at(&system, &events, "b"), [52.0]);
    assert_eq!(done_at(&system, &events, "a"), [62.0]);
    let regrouped = times(&events, |what| matches!(what, What::Stop { why: StopReason::Rebatched, .. }));
    assert_eq!(regrouped.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [52.0]);
}

#[test]
fn a_request_joins_a_running_batch_at_the_next_step() {
    // A second processor does b's prefill, 4-14 ms, while a decodes from 10 on.
    let toml =
        llm("batch_factor = [[1, 1.0], [4, 1.3]]", &format!("{}{}", ask("a", 0.0, 100, 5), ask("b", 0.004, 100, 3)))
            .replace("decode_ms = [[0, 10], [1000, 20]]", "decode_ms = [[0, 10]]")
            .replace(
                "[model.frame]",
                r#"[[platform.processor]]
            name = "gpu"
            kind = "gpu"
            [[cost]]
            model = "llm"
            processor = "gpu"
            prefill_ms = [[100, 10]]
            decode_ms = [[0, 10]]
            [model.frame]"#,
            );
    fn join(view: &View<'_>, actions: &mut Actions) {
        let (npu, gpu) = (view.system.processor("npu").unwrap(), view.system.processor("gpu").unwrap());
        for &stage in view.ready() {
            let prefill = view.stage(stage).tokens == 0;
            actions.start(stage, if prefill && view.source(stage).name == "b" { gpu } else { npu });
        }
    }
    let (system, events) = run_script(&toml, join);
    // a's first step 10-20 is alone; then b is with it, 11 ms a step: b has its 3 tokens at 42; a one more, alone, at 52.
    assert_eq!(done_at(&system, &events, "b"), [42.0]);
    assert_eq!(done_at(&system, &events, "a"), [52.0]);
    let regrouped = times(&events, |what| matches!(what, What::Stop { why: StopReason::Rebatched, .. }));
    assert_eq!(regrouped.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [20.0, 42.0]);
}

#[test]
fn a_voice_starts_with_the_first_sentence() {
    let toml = llm(
        "",
        r#"
        [[session]]
        name = "talk"
        chain = "talk"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 100
        output = 10
        [[chain.talk.stage]]
        name = "think"
        model = "llm"
        on = ["npu"]
        [[chain.talk.stage]]
        name = "speak"
        model = "voice"
        after = [{ stage = "think", per_tokens = 4 }]
        "#,
    );
    let (system, events) = run_script(&toml, first_come);
    let ready: Vec<(u64, f64)> = events
        .iter()
        .filter_map(|e| match e.what {
            What::Ready { stage, node, .. } if system.nodes[node].name == "speak" => Some((stage, e.at.as_ms())),
            _ => None,
        })
        .collect();
    // Prefill to 10 ms gives token 1; steps at contexts 101, …: token 4 after 3 steps, token 8 after 7, the rest (10) after 9.
    let after = |n: u32| 10.0 + (0..n).map(|i| 11.01 + 0.01 * f64::from(i)).sum::<f64>();
    let expected = [after(3), after(7), after(9)];
    assert_eq!(ready.len(), 3);
    for ((_, at), want) in ready.iter().zip(expected) {
        assert!((at - want).abs() < 1e-5, "{at} instead of {want}");
    }
    // One processor: the voice waits for the model, then speaks three times.
    assert!((done_at(&system, &events, "talk")[0] - (after(9) + 3.0)).abs() < 1e-5);
}

#[test]
fn a_diffusion_loop_has_a_preemption_point_after_every_step() {
    let toml = r#"
        name = "diffusion"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        [model.image]
        shape = "iterative"
        steps = 5
        [model.frame]
        [[cost]]
        model = "image"
        processor = "npu"
        before_ms = 4
        step_ms = 10
        after_ms = 6
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 3
        [[session]]
        name = "draw"
        model = "image"
        arrival = { process = "periodic", period_s = 100 }
        [[stream]]
        name = "frames"
        model = "frame"
        period_ms = 1000
        phase_ms = 25
        count = 1
    "#;
    let (system, events) = run_script(toml, frames_first);
    // Text 0-4, steps 4-14, 14-24, 24-34; frame 34-37; two more steps to 57, decoder to 63.
    assert_eq!(done_at(&system, &events, "frames"), [37.0]);
    assert_eq!(done_at(&system, &events, "draw"), [63.0]);
}

#[test]
fn some_steps_reuse_what_a_full_one_has_computed() {
    let toml = r#"
        name = "reuse"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        preemption = "anytime"
        [model.text]
        shape = "iterative"
        steps = 7
        [model.frame]
        [[cost]]
        model = "text"
        processor = "gpu"
        step_ms = 10
        reuse = { every = 3, step_ms = 2 }
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 3
        [[session]]
        name = "write"
        model = "text"
        arrival = { process = "periodic", period_s = 100 }
        [[stream]]
        name = "frames"
        model = "frame"
        period_ms = 1000
        phase_ms = 17
        count = 1
    "#;
    // Full 0-10, 10-12, 12-14, full 14-24 interrupted at 17 for 3 ms: to 27; 29, 31, and a last full one: 41.
    let (system, events) = run_script(toml, frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [20.0]);
    assert_eq!(done_at(&system, &events, "write"), [41.0]);
    // At boundaries only: the frame waits until 24.
    let (system, events) = run_script(&toml.replace("preemption = \"anytime\"", ""), frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [27.0]);
    assert_eq!(done_at(&system, &events, "write"), [41.0]);
}

#[test]
fn a_quantum_gives_the_processor_back_after_so_many_segments() {
    let (system, events) = run_script(&llm("", &ask("chat", 0.0, 100, 6)), |view, actions| {
        let p = view.processors().next().unwrap();
        if let Some(&stage) = view.ready().first() {
            actions.start_segments(stage, p, 2);
        }
    });
    let steps: f64 = (101..106).map(|context| 10.0 + 0.01 * f64::from(context)).sum();
    assert!((done_at(&system, &events, "chat")[0] - (10.0 + steps)).abs() < 1e-5);
    // Prefill, then 2 + 2 + 1 steps.
    assert_eq!(times(&events, |what| matches!(what, What::Start { .. })).len(), 4);
}
