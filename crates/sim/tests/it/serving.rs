//! Prompt pieces of chosen sizes, mixed steps, and preemption inside a prompt at layer groups.

use std::collections::BTreeMap;

use onbeat_core::cost::Phase;
use onbeat_core::event::{Event, StopReason, What};
use onbeat_core::policy::{Actions, Limit, View};
use proptest::prelude::*;

use crate::support::{Script, done_at, run, run_script, system, times};

/// A language model of 80 MB on one processor: 0.1 ms per prompt token, 10 ms per decode step, 8 of them for reading the weights.
pub(crate) fn llm(cost: &str, sources: &str) -> String {
    format!(
        r#"
        name = "serving"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 10
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.llm]
        shape = "autoregressive"
        weights_mb = 80
        [model.frame]
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10]]
        {cost}
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 3
        {sources}
        "#
    )
}

pub(crate) fn ask(name: &str, start_s: f64, prompt: u32, output: u32) -> String {
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

fn frame(at_ms: f64) -> String {
    format!("[[stream]]\nname = \"frames\"\nmodel = \"frame\"\nperiod_ms = 1000\nphase_ms = {at_ms}\ncount = 1\n")
}

const MIXED: &str = "batch_factor = [[1, 1.0], [4, 1.3]]\nchunk_efficiency = [[1, 1.0]]\nmixed_steps = true";

/// Decode and prompt pieces of 100 tokens together wherever they can, else first come, first served.
fn mix(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let mut idle = view.free_slots(p) > 0;
    let mut batch = false;
    let decode_first = |&stage: &_| view.stage(stage).kind != Phase::Decode;
    let mut ready = view.ready().to_vec();
    ready.sort_by_key(decode_first);
    for stage in ready {
        if idle || batch || view.can_join(stage, p) || view.can_mix(stage, p) {
            actions.start_limited(stage, p, Some(Limit::Units(100)));
            if idle && view.stage(stage).kind == Phase::Prefill {
                return;
            }
            // Those that come after the first join its batch.
            batch |= idle;
            idle = false;
        }
    }
}

#[test]
fn a_prompt_piece_shares_the_reading_of_weights_with_a_decode_step() {
    let (system, events) = run_script(&llm(MIXED, &(ask("a", 0.0, 100, 6) + &ask("b", 0.015, 200, 2))), mix);
    // a: prefill 0-10, a step 10-20. b waits until 20, then brings 100 tokens (10 ms alone) to two steps: 10 - 8 + max(8, 10) = 12 ms
    // each, 20-32-44. Then both decode, 11 ms a step: b is done at 55, a, alone again, at 65.
    let first = times(&events, |what| matches!(what, What::FirstToken { .. }));
    assert_eq!(first.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [10.0, 44.0]);
    assert_eq!(done_at(&system, &events, "b"), [55.0]);
    assert_eq!(done_at(&system, &events, "a"), [65.0]);
}

#[test]
fn the_shares_of_a_mixed_step_add_up_to_it() {
    let energy = format!("{MIXED}\nenergy_mj = 7\nprefill_mj_per_token = 0.5\nprefill_kb_per_token = 2");
    let (_, events) = run_script(&llm(&energy, &(ask("a", 0.0, 100, 6) + &ask("b", 0.015, 200, 2))), mix);
    let mut runs: BTreeMap<u64, Vec<(u64, f64, f64, f64)>> = BTreeMap::new();
    for event in &events {
        if let What::Stop { run, stage, alone, bytes, energy_mj, .. } = event.what {
            runs.entry(run).or_default().push((stage, alone.as_ms(), bytes.as_mb(), energy_mj.unwrap()));
        }
    }
    // Decode: its 10 ms, the weights and the energy of a step. The piece: what it adds, its own 200 kB and its own energy.
    let mixed: Vec<_> = runs.values().filter(|stages| stages.len() == 2).take(2).cloned().collect();
    assert_eq!(
        mixed,
        [vec![(0, 10.0, 80.0, 7.0), (1, 2.0, 0.2, 50.0)], vec![(0, 10.0, 80.0, 7.0), (1, 2.0, 0.2, 50.0)]]
    );
}

#[test]
fn a_mixed_step_can_be_preempted_at_its_end() {
    /// Frames take over from everything.
    fn frames_take_over(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        let frame = view.ready().iter().copied().find(|&stage| view.source(stage).name == "frames");
        match (frame, view.occupancy(p).runs.first()) {
            (Some(frame), None) => actions.start(frame, p),
            (Some(_), Some(run)) if !run.ending => actions.preempt(run.stage),
            (Some(_), Some(_)) => {}
            (None, _) => mix(view, actions),
        }
    }
    let sources = ask("a", 0.0, 100, 6) + &ask("b", 0.015, 200, 2) + &frame(25.0);
    let (system, events) = run_script(&llm(MIXED, &sources), frames_take_over);
    // The frame waits for the end of the mixed step 20-32; all of it goes on at 35.
    assert_eq!(done_at(&system, &events, "frames"), [35.0]);
    assert_eq!(done_at(&system, &events, "b"), [58.0]);
    assert_eq!(done_at(&system, &events, "a"), [68.0]);
}

#[test]
fn a_piece_of_chosen_size_takes_what_its_efficiency_says() {
    fn pieces(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        if let Some(&stage) = view.ready().first() {
            actions.start_limited(stage, p, Some(Limit::Units(80)));
        }
    }
    let cost = "chunk_efficiency = [[50, 0.5], [100, 1.0]]\nchunk_overhead_ms = 0.5\nprefill_kb_per_token = 1";
    let (system, events) = run_script(&llm(cost, &ask("a", 0.0, 200, 1)), pieces);
    // 80 tokens at 0.8: 10 ms; again with 0.5 of overhead; 40 tokens at 0.5: 8.5.
    let stops = times(&events, |what| matches!(what, What::Stop { .. }));
    assert_eq!(stops.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [10.0, 20.5, 29.0]);
    assert_eq!(done_at(&system, &events, "a"), [29.0]);
    let bytes = |event: &Event| if let What::Stop { bytes, .. } = event.what { bytes.as_mb() } else { 0.0 };
    let sum: f64 = events.iter().map(bytes).sum();
    assert!((sum - 240.2).abs() < 1e-9, "three times the weights, and 200 tokens: {sum} MB");
}

/// Frames before everything else, at once.
fn frames_first(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let frame = view.ready().iter().copied().find(|&stage| view.source(stage).name == "frames");
    let Some(first) = frame.or_else(|| view.ready().first().copied()) else { return };
    match view.occupancy(p).runs.first() {
        None => actions.start_limited(first, p, Some(Limit::Units(150))),
        Some(run) if frame.is_some() && !run.ending && view.source(run.stage).name != "frames" => {
            actions.preempt(run.stage);
        }
        Some(_) => {}
    }
}

#[test]
fn a_prompt_gives_way_at_a_layer_group_and_goes_on_where_it_was() {
    let sources = ask("chat", 0.0, 200, 1) + &frame(5.0);
    let (system, events) = run_script(&llm("layer_groups = 10", &sources), frames_first);
    // Groups of 2 ms: the prompt stops at 6, the frame runs until 9, 14 ms of prompt remain. Nothing is done twice.
    assert_eq!(done_at(&system, &events, "frames"), [9.0]);
    assert_eq!(done_at(&system, &events, "chat"), [23.0]);
    let why: Vec<_> =
        events.iter().filter_map(|e| if let What::Stop { why, .. } = e.what { Some(why) } else { None }).collect();
    assert_eq!(why, [StopReason::Preempted, StopReason::Finished, StopReason::Finished]);
    // In pieces of 150 tokens (15 ms), a piece has ten groups of 1.5 ms; what is left of it goes first.
    let (system, events) = run_script(&llm("layer_groups = 10\nchunk_efficiency = [[1, 1.0]]", &sources), frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [9.0]);
    assert_eq!(done_at(&system, &events, "chat"), [23.0]);
    // Exactly at a group's end.
    let at_once = ask("chat", 0.0, 200, 1) + &frame(4.0);
    let (system, events) = run_script(&llm("layer_groups = 10", &at_once), frames_first);
    assert_eq!(done_at(&system, &events, "frames"), [7.0]);
    assert_eq!(done_at(&system, &events, "chat"), [23.0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// However prompts are interrupted, they make their time alone, and the frame waits for one group at most.
    #[test]
    fn prompts_make_their_time_however_they_are_interrupted(
        groups in 1_u32..30, prompt in 10_u32..900, at in 1_u32..800, chunk in prop::option::of(16_u32..300),
    ) {
        let at = f64::from(at) / 10.0;
        let chunk = chunk.map_or(String::new(), |chunk| format!("prefill_chunk = {chunk}\n"));
        let sources = ask("chat", 0.0, prompt, 1) + &frame(at);
        let system = system(&llm(&format!("{chunk}layer_groups = {groups}"), &sources));
        let events = run(&system, Box::new(Script(frames_first)), 1);
        let alone: u64 = events.iter().map(|e| if let What::Stop { alone, .. } = e.what { alone.0 } else { 0 }).sum();
        prop_assert!(alone.abs_diff(u64::from(prompt) * 100_000 + 3_000_000) <= 3, "{alone} ns");
        let waited = done_at(&system, &events, "frames")[0] - at - 3.0;
        prop_assert!(waited <= f64::from(prompt) / 10.0 / f64::from(groups) + 1e-5, "waited {waited} ms");
    }

    /// Whatever the sizes: pieces and decode steps share their runs' time without remainder, and every token comes out.
    #[test]
    fn mixed_steps_lose_nothing(prompts in prop::collection::vec((1_u32..400, 1_u32..12, 0_u32..60), 1..5)) {
        let sources: String =
            prompts.iter().enumerate().map(|(i, &(prompt, output, at))| ask(&format!("s{i}"), f64::from(at) / 1e3, prompt, output)).collect();
        let system = system(&llm(MIXED, &sources));
        let events = run(&system, Box::new(Script(mix)), 1);
        let mut tokens = 0;
        let mut runs: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        let mut starts: BTreeMap<u64, f64> = BTreeMap::new();
        for event in &events {
            match event.what {
                What::Start { run, setup, .. } => { starts.insert(run, (event.at + setup).as_ms()); }
                What::Stop { run, alone, tokens: n, .. } => {
                    tokens += n;
                    let entry = runs.entry(run).or_default();
                    *entry = (entry.0 + alone.as_ms(), event.at.as_ms() - starts[&run]);
                }
                _ => {}
            }
        }
        prop_assert_eq!(tokens, prompts.iter().map(|p| p.1).sum::<u32>());
        for (run, (alone, passed)) in runs {
            prop_assert!((alone - passed).abs() < 1e-4, "run {run}: {alone} ms alone in {passed} ms");
        }
    }
}
