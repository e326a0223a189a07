//! Caches that stay in slower memory while their stage runs.

use onbeat_core::event::What;
use onbeat_core::policy::{Action, Actions, Policy, Shortage, View};
use proptest::prelude::*;

use crate::caches::{ask, llm, nothing_is_lost, serve};
use crate::support::{Script, done_at, run, run_script, system};

/// A language model whose cache may stay behind a link of 1 GB/s, 1 ms per token.
fn offloads(memory: &str, offload: &str, sources: &str) -> String {
    llm(&format!("swap_gbps = 1\n{memory}"), sources)
        .replace("kv_kb_per_token = 1000", &format!("kv_kb_per_token = 1000\nkv_offload = {{ {offload} }}"))
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

#[test]
fn a_step_fetches_its_part_of_the_cache_one_layer_ahead() {
    // The prompt: 100 ms of writing, 10 ms of computing, a tenth of which is not hidden. Ten steps at contexts of 101 to 110: 10.1 to
    // 11 ms of fetching, 10 ms of computing, a tenth not hidden: 105.5 + 10.
    let toml = offloads("", "layers = 10, share = 0.1", &ask("a", 0, 100, 11));
    let (system_, events) = run_script(&toml, far);
    assert_eq!(done_at(&system_, &events, "a"), [101.0 + 115.5]);
    // All of it: 1055 ms of fetching instead.
    let all = offloads("", "layers = 10", &ask("a", 0, 100, 11));
    let (system_, events) = run_script(&all, far);
    assert_eq!(done_at(&system_, &events, "a"), [101.0 + 1055.0 + 10.0]);
    // At least 20 tokens: 200 ms of fetching, 10 not hidden.
    let least = offloads("", "layers = 10, share = 0.1, min_tokens = 20", &ask("a", 0, 100, 11));
    let (system_, events) = run_script(&least, far);
    assert_eq!(done_at(&system_, &events, "a"), [101.0 + 210.0]);
    // In memory it would have taken 10 + 100 ms; nothing of the memory is taken.
    let (system_, events) = run_script(&least, serve);
    assert_eq!(done_at(&system_, &events, "a"), [110.0]);
    let small = least.replace("swap_gbps = 1\n", "swap_gbps = 1\ncapacity_gb = 0.05\n");
    let (system_, events) = run_script(&small, far);
    assert_eq!(done_at(&system_, &events, "a"), [311.0]);
}

#[test]
fn a_batch_fetches_for_all_of_its_members_over_one_link() {
    // b reads its prompt at 0 and a at 5.5, writing meanwhile: 50 ms each, and half a millisecond that is not hidden. Then ten steps of
    // both: 2 × 5.1 to 2 × 6 ms of fetching, 10 ms of computing and a tenth of that.
    let toml = offloads("", "layers = 10, share = 0.1", &(ask("a", 0, 50, 11) + &ask("b", 0, 50, 11)));
    let (system_, events) = run_script(&toml, far);
    let both = 101.0 + 2.0 * 55.5 + 10.0;
    assert_eq!(done_at(&system_, &events, "a"), [both]);
    assert_eq!(done_at(&system_, &events, "b"), [both]);
}

#[test]
fn a_cache_leaves_memory_comes_back_and_is_paid_for_both_ways() {
    /// Two steps in memory, two from slower memory, the rest in memory again.
    fn moves(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        for &stage in view.ready() {
            let live = view.stage(stage);
            let far = live.tokens == 3 || live.tokens == 4;
            if live.cache.far != far {
                actions.place_cache(stage, far);
            } else if live.tokens == 0 {
                actions.start(stage, p);
            } else {
                actions.start_segments(stage, p, if live.tokens == 3 || live.tokens == 1 { 2 } else { 6 });
            }
        }
    }
    let (system_, events) = run_script(&offloads("", "layers = 10, share = 0.1", &ask("a", 0, 100, 11)), moves);
    // Prompt 10, two steps: 30. 103 tokens leave: 133. Two steps: 10.3 + 10.4 of fetching, 2 not hidden: 155.7. 105 come back: 260.7.
    // Six steps: 320.7.
    assert_eq!(done_at(&system_, &events, "a"), [320.7]);
    let placed = |what: &What| match *what {
        What::PlaceCache { far, moved, .. } => Some((far, moved.as_mb())),
        _ => None,
    };
    let placed: Vec<_> = events.iter().filter_map(|event| placed(&event.what)).collect();
    assert_eq!(placed, [(true, 103.0), (false, 0.0)]);
}

#[test]
fn what_cannot_be_offloaded_says_so() {
    let wrong = |toml: &str| {
        let system = system(toml);
        let sinks = onbeat_core::event::NoSink;
        onbeat_sim::simulate(&system, Box::new(Script(far)), "test", 1, sinks).unwrap_err().to_string()
    };
    let request = ask("a", 0, 100, 11);
    let text = "the cache cannot stay in slower memory";
    assert!(wrong(&llm("swap_gbps = 1", &request)).contains(text));
    assert!(wrong(&offloads("", "layers = 10", &request).replace("swap_gbps = 1", "")).contains(text));
    assert!(wrong(&offloads("swap_gb = 0.1", "layers = 10", &request)).contains(text));
    let error = |offload: &str| {
        onbeat_core::system::System::from_toml(&offloads("", offload, &request)).unwrap_err().to_string()
    };
    assert!(error("layers = 0").contains("layers"), "{}", error("layers = 0"));
    assert!(error("layers = 4, share = 0").contains("share"));
}

/// Places some caches in slower memory when there is a shortage, that of the request that lacks memory included.
#[derive(Clone, Debug)]
struct Offloads;

impl Policy for Offloads {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        serve(view, actions);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        let able = |&stage: &_| !view.stage(stage).cache.far && view.can_offload(stage);
        if let Some(stage) = view.ready().iter().copied().filter(able).max_by_key(|&s| view.stage(s).serial) {
            actions.place_cache(stage, true);
        }
        assert!(actions.as_slice().iter().all(|action| matches!(action, Action::PlaceCache { .. })), "{shortage:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_far_every_answer_is_finished(
        requests in prop::collection::vec((0_u32..300, 1_u32..60, 1_u32..20), 1..6),
        capacity in 90_u32..250, block in 1_u32..20, share in 0.05..1.0_f64, layers in 1_u32..8,
    ) {
        let sources: String =
            requests.iter().enumerate().map(|(i, r)| ask(&format!("s{i}"), r.0, r.1, r.2)).collect();
        let memory = format!("capacity_gb = {}\nkv_block_tokens = {block}", f64::from(capacity) / 1e3 + 0.02);
        let toml = offloads(&memory, &format!("layers = {layers}, share = {share}"), &sources)
            .replace("swap_gbps = 1", "swap_gbps = 20")
            .replace("duration_s = 3", "duration_s = 30");
        let system = system(&toml);
        let outputs: Vec<u32> = requests.iter().map(|r| r.2).collect();
        nothing_is_lost(&system, Box::new(Offloads), &outputs);
        prop_assert_eq!(run(&system, Box::new(Offloads), 1), run(&system, Box::new(Offloads), 1));
    }
}
