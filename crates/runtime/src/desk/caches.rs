//! Caches on virtual devices: they grow, leave memory, stay in slower memory, and are kept for conversations, as in a simulation.

use onbeat_core::cost::Phase;
use onbeat_core::policy::{Actions, View};

use super::joint::{Rule, done_at, run_rule};
use super::*;

/// A language model with 1 MB of cache per token: 0.1 ms per prompt token, 10 ms per step, whatever the batch.
fn llm(memory: &str, model: &str, sources: &str) -> System {
    let toml = format!(
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
        preemption = "segment"
        [model.llm]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        {model}
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10]]
        batch_factor = [[1, 1.0], [8, 1.0]]
        {sources}
        "#
    );
    System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"))
}

fn ask(name: &str, prompt: u32, output: u32) -> String {
    format!(
        "[[session]]\nname = \"{name}\"\nmodel = \"llm\"\narrival = {{ process = \"periodic\", period_s = 100 }}\n\
         prompt = {prompt}\noutput = {output}\n"
    )
}

/// Answers in one batch, the oldest first; a prompt when nothing is written.
fn serve(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let mut ready = view.ready().to_vec();
    ready.sort_by_key(|&stage| view.stage(stage).serial);
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

/// Serves with every cache in slower memory from the beginning.
fn far(view: &View<'_>, actions: &mut Actions) {
    for &stage in view.ready() {
        if !view.stage(stage).cache.far {
            actions.place_cache(stage, true);
        }
    }
    serve(view, actions);
}

fn simulated(system: &System, rule: fn(&View<'_>, &mut Actions)) -> Vec<Event> {
    onbeat_sim::simulate(system, Box::new(Rule(rule)), "rule", 1, Vec::<Event>::new()).unwrap().1
}

#[test]
fn a_cache_grows_by_blocks_as_tokens_are_told() {
    let system = llm("kv_block_tokens = 10", "", &ask("a", 50, 41));
    let events = run_rule(&system, serve, Vec::new());
    let used = |event: &Event| match event.what {
        What::Memory { used } => Some((event.at.as_ms().round(), used.as_mb())),
        _ => None,
    };
    // 51 tokens are six blocks. Step number 10 writes the 61st token, at 5 + 100 ms, and so on.
    let used: Vec<_> = events.iter().filter_map(used).collect();
    assert_eq!(used, [(0.0, 60.0), (105.0, 70.0), (205.0, 80.0), (305.0, 90.0), (405.0, 0.0)]);
    assert_eq!(done_at(&events), [405.0]);
}

#[test]
fn where_a_cache_cannot_grow_the_token_that_has_begun_is_lost() {
    let sources = ask("a", 50, 41) + &ask("b", 50, 41);
    let system = llm("capacity_gb = 0.13\nkv_block_tokens = 10", "", &sources);
    let events = run_rule(&system, serve, Vec::new());
    // a decodes from 10 ms on, and b joins it at 20. At 110 a gets the last ten tokens of memory. At 120 there are none for b: the step
    // until 130 is lost for both. a goes on alone from its 11th step, takes b's cache at 220 and is done at 420. b prefills 50 + 11
    // tokens until 426.1, and writes 29 more.
    assert_eq!(done_at(&events), [420.0, 716.1]);
    let lost = events.iter().filter(|event| matches!(event.what, What::EvictCache { tokens: 61, .. })).count();
    assert_eq!(lost, 1);
    let tokens: u32 = events.iter().map(|e| if let What::Stop { tokens, .. } = e.what { tokens } else { 0 }).sum();
    assert_eq!(tokens, 82);
    // Each answer is as long as it was drawn, whatever was done twice.
    let lengths =
        events.iter().filter_map(|e| if let What::Length { output, .. } = e.what { Some(output) } else { None });
    assert_eq!(lengths.collect::<Vec<_>>(), [41, 41]);
}

#[test]
fn a_rehearsal_takes_as_long_as_a_simulation() {
    let chat = "conversation = 1000\ncount = 3\npredictor_sigma = 0.5\n";
    let chat = ask("chat", 50, 11).replace("period_s = 100", "period_s = 0.5") + chat;
    let offload = "kv_offload = { layers = 10, share = 0.1 }";
    for (system, rule) in [
        (llm("", "", &chat), serve as fn(&View<'_>, &mut Actions)),
        (llm("swap_gbps = 1", offload, &ask("a", 100, 11)), far),
        (llm("swap_gbps = 1\ncapacity_gb = 0.05", offload, &ask("a", 100, 11)), far),
    ] {
        let (a, b) = (simulated(&system, rule), run_rule(&system, rule, Vec::new()));
        assert_eq!(done_at(&a), done_at(&b));
        assert!(!done_at(&a).is_empty());
        let ready = |events: &[Event]| {
            let of = |e: &Event| if let What::Ready { prompt, .. } = e.what { Some(prompt) } else { None };
            events.iter().filter_map(of).collect::<Vec<_>>()
        };
        assert_eq!(ready(&a), ready(&b));
    }
    // Two that fetch over one link: both prompts are written at 101 ms. a's first step takes 10 ms, and a tenth of 5.1 ms of fetching. b joins
    // it: nine steps, 10.3 to 11.9 ms of fetching, and a tenth of 10 ms of computing. b's last step is alone again.
    let two = ask("a", 50, 11) + &ask("b", 50, 11);
    let events = run_rule(&llm("swap_gbps = 1", offload, &two), far, Vec::new());
    let joined = 101.0 + 10.51;
    let expected = [joined + 99.9 + 9.0, joined + 99.9 + 9.0 + 10.6];
    assert!(
        done_at(&events).iter().zip(expected).all(|(at, expected)| (at - expected).abs() < 1e-6),
        "{:?}",
        done_at(&events)
    );
}
