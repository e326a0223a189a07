//! Key-value caches that grow by blocks, leave memory for slower memory or for good, and move with their stage.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Event, What};
use onbeat_core::policy::{Actions, Policy, Shortage, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use proptest::prelude::*;

use crate::support::{Script, done_at, language_cost, request, run, run_script, system, times};

/// A language model with 1 MB of cache per token: 0.1 ms per prompt token, 10 ms per step, whatever the batch.
pub(crate) fn llm(memory: &str, sources: &str) -> String {
    format!(
        r#"
        name = "caches"
        duration_s = 3
        [platform]
        name = "p"
        [platform.memory]
        {memory}
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.llm]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10]]
        batch_factor = [[1, 1.0], [8, 1.0]]
        {sources}
        "#
    )
}

pub(crate) fn ask(name: &str, start_ms: u32, prompt: u32, output: u32) -> String {
    request(name, "llm", start_ms, prompt, output)
}

/// The same with a second processor, `other`, behind a link of so many GB/s and half a millisecond.
pub(crate) fn two(sources: &str, gbps: u32, step_ms: f64) -> String {
    let other = format!(
        r#"
        [[platform.processor]]
        name = "other"
        kind = "gpu"
        [[platform.link]]
        from = "gpu"
        to = "other"
        latency_us = 500
        bandwidth_gbps = {gbps}
        "#
    );
    let cost = language_cost("llm", "other", 10.0, step_ms, "");
    llm("", sources).replace("[model.llm]", &format!("{other}{cost}[model.llm]"))
}

/// Answers in one batch, the oldest first; a prompt when nothing is written.
pub(crate) fn serve(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let mut ready: Vec<_> = view.ready().iter().copied().filter(|&stage| view.can_run(stage, p)).collect();
    ready.sort_by_key(|&stage| view.stage(stage).serial);
    // Prompts first: they need an idle processor.
    let prompt = ready.iter().copied().find(|&stage| view.stage(stage).kind == Phase::Prefill);
    match (view.occupancy(p).runs.first(), prompt) {
        (None, Some(prompt)) => actions.start(prompt, p),
        (None, None) => ready.iter().for_each(|&stage| actions.start(stage, p)),
        (Some(_), _) => {
            for &stage in ready.iter().filter(|&&stage| view.can_join(stage, p)) {
                actions.start(stage, p);
            }
        }
    }
}

/// Serves like [`serve`], and moves the youngest waiting cache to slower memory when there is a shortage.
#[derive(Clone, Debug)]
struct Swaps;

impl Policy for Swaps {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        serve(view, actions);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        let younger = |&stage: &_| view.stage(stage).serial > view.stage(shortage.stage).serial;
        let waiting = view.ready().iter().copied().filter(younger);
        let victim = waiting.filter(|&stage| view.can_evict_cache(stage, true)).max_by_key(|&s| view.stage(s).serial);
        if let Some(stage) = victim {
            actions.evict_cache(stage, true);
        }
    }
}

fn used(events: &[Event]) -> Vec<(f64, f64)> {
    let used = |e: &Event| match e.what {
        What::Memory { used } => Some((e.at.as_ms(), used.as_mb())),
        _ => None,
    };
    events.iter().filter_map(used).collect()
}

#[test]
fn a_cache_grows_by_blocks_while_the_answer_gets_longer() {
    let (system, events) = run_script(&llm("kv_block_tokens = 10", &ask("a", 0, 50, 41)), serve);
    // 51 tokens are six blocks. Step number 10 writes the 61st token, at 5 + 100 ms, and so on.
    assert_eq!(used(&events), [(0.0, 60.0), (105.0, 70.0), (205.0, 80.0), (305.0, 90.0), (405.0, 0.0)]);
    assert_eq!(done_at(&system, &events, "a"), [405.0]);
    // Reserved: the prompt and the largest output, at once.
    let (_, events) = run_script(&llm("", &ask("a", 0, 50, 41)), serve);
    assert_eq!(used(&events), [(0.0, 91.0), (405.0, 0.0)]);
}

#[test]
fn a_lost_cache_is_prefilled_again_with_the_tokens_so_far() {
    let sources = ask("a", 0, 50, 41) + &ask("b", 0, 50, 41);
    let (system, events) = run_script(&llm("capacity_gb = 0.13\nkv_block_tokens = 10", &sources), serve);
    // Both prompts until 10 ms, then both decode. At 110 a gets the last ten tokens of memory, and b has to wait. At 210 a takes b's
    // cache. a is done at 410. b prefills 50 + 11 tokens until 416.1, which is its 12th token, and 29 more steps.
    assert_eq!(done_at(&system, &events, "a"), [410.0]);
    assert_eq!(done_at(&system, &events, "b"), [706.1]);
    let lost: Vec<_> = events
        .iter()
        .filter_map(|e| match e.what {
            What::EvictCache { stage, held, moved, tokens, .. } => {
                Some((e.at.as_ms(), stage, held.as_mb(), moved.0, tokens))
            }
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(210.0, 1, 60.0, 0, 61)]);
    assert_eq!(times(&events, |what| matches!(what, What::FirstToken { .. })).len(), 2, "each has one first token");
    let tokens: u32 = events.iter().map(|e| if let What::Stop { tokens, .. } = e.what { tokens } else { 0 }).sum();
    assert_eq!(tokens, 82);
}

#[test]
fn two_answers_that_need_the_same_block_are_both_finished_under_every_policy() {
    let sources = ask("a", 0, 50, 41) + &ask("b", 0, 50, 41);
    for swap in ["", "swap_gbps = 1"] {
        let toml = llm(&format!("capacity_gb = 0.13\nkv_block_tokens = 10\n{swap}"), &sources);
        let system = system(&toml.replace("kind = \"gpu\"", "kind = \"gpu\"\npreemption = \"segment\""));
        for info in onbeat_policy::all() {
            let events = run(&system, onbeat_policy::make(info.name, &system).unwrap(), 1);
            let done = times(&events, |what| matches!(what, What::JobDone { .. })).len();
            assert_eq!(done, 2, "{}", info.name);
        }
    }
}

#[test]
fn a_cache_in_slower_memory_is_written_and_read_over_the_link() {
    let sources = ask("a", 0, 50, 41) + &ask("b", 0, 50, 41);
    let system = system(&llm("capacity_gb = 0.13\nkv_block_tokens = 10\nswap_gbps = 1", &sources));
    let events = run(&system, Box::new(Swaps), 1);
    // At 210 b's 61 tokens begin to leave, 1 ms each: a has memory again at 271, and is done 200 ms later. Then b reads its cache
    // back, until 532, and makes its 30 steps.
    assert_eq!(done_at(&system, &events, "a"), [471.0]);
    assert_eq!(done_at(&system, &events, "b"), [832.0]);
}

#[test]
fn a_request_that_moves_takes_its_cache_over_the_link() {
    let toml = two(&ask("a", 0, 100, 11), 10, 5.0);
    /// Prefill and two steps on the first processor, the rest on the other one.
    fn moves(view: &View<'_>, actions: &mut Actions) {
        let (gpu, other) = (view.system.processor("gpu").unwrap(), view.system.processor("other").unwrap());
        for &stage in view.ready() {
            match view.stage(stage).tokens {
                0 => actions.start(stage, gpu),
                1 => actions.start_segments(stage, gpu, 2),
                _ => actions.start(stage, other),
            }
        }
    }
    let (system, events) = run_script(&toml, moves);
    // Prompt until 10, two steps until 30. 103 tokens of cache: 10.3 ms and 0.5 of latency. Eight steps of 5 ms.
    assert_eq!(done_at(&system, &events, "a"), [80.8]);
}

#[test]
fn a_batch_waits_for_the_cache_of_a_stage_that_joins_it() {
    /// When b's prompt is read its cache leaves; at 120 ms b joins a's batch.
    fn moves(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        let back = Nanos::from_ms(120.0);
        if view.now() < back {
            actions.wake(back);
        }
        for &stage in view.ready() {
            let waits = view.source(stage).name == "b" && view.stage(stage).tokens > 0;
            if waits && view.can_evict_cache(stage, true) {
                actions.evict_cache(stage, true);
            } else if !waits || view.now() == back {
                actions.start(stage, p);
            }
        }
    }
    let toml = llm("swap_gbps = 1", &(ask("b", 0, 100, 11) + &ask("a", 20, 50, 41)));
    let (system, events) = run_script(&toml, moves);
    // 101 tokens leave from 10 to 111 ms, and come back from 120 to 221. The step of a that runs then ends at 125: the next one, with b,
    // begins 96 ms later. Ten steps for b, and 30 for a.
    assert_eq!(done_at(&system, &events, "b"), [321.0]);
    assert_eq!(done_at(&system, &events, "a"), [521.0]);
}

/// Every request that was done has made its tokens, memory was never overdrawn, and all of it was given back.
pub(crate) fn nothing_is_lost(system: &System, policy: Box<dyn Policy>, outputs: &[u32]) {
    let events = run(system, policy, 1);
    let capacity = system.platform.capacity.unwrap().as_mb();
    let tokens: u32 = events.iter().map(|e| if let What::Stop { tokens, .. } = e.what { tokens } else { 0 }).sum();
    assert_eq!(tokens, outputs.iter().sum::<u32>());
    assert_eq!(times(&events, |what| matches!(what, What::JobDone { .. })).len(), outputs.len());
    assert!(used(&events).iter().all(|&(_, used)| used <= capacity), "more memory than there is");
    assert_eq!(used(&events).last().unwrap().1, 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_evicted_every_answer_is_finished(
        requests in prop::collection::vec((0_u32..300, 1_u32..60, 1_u32..30), 1..6),
        capacity in 90_u32..250, block in 1_u32..20, swap in any::<bool>(),
    ) {
        let sources: String =
            requests.iter().enumerate().map(|(i, r)| ask(&format!("s{i}"), r.0, r.1, r.2)).collect();
        let swap = if swap { "swap_gbps = 5\nswap_us = 100" } else { "" };
        let memory = format!("capacity_gb = {}\nkv_block_tokens = {block}\n{swap}", f64::from(capacity) / 1e3 + 0.02);
        let system = system(&llm(&memory, &sources));
        let outputs: Vec<u32> = requests.iter().map(|r| r.2).collect();
        nothing_is_lost(&system, Box::new(Script(serve)), &outputs);
        if !swap.is_empty() {
            nothing_is_lost(&system, Box::new(Swaps), &outputs);
        }
    }
}
