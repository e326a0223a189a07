//! Language models that do not compute all of their layers for every token or answer.

use onbeat_core::event::{Event, What};
use onbeat_core::policy::{Actions, View};
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};
use proptest::prelude::*;

use crate::serving::ask;
use crate::support::{Script, done_at, first_come, jobs_of, run, run_script, system, times};

/// 0.1 ms per prompt token; a decode step takes 10 ms, moves 40 MB of weights and 0.1 MB per token of context, and costs 8 mJ.
fn llm(model: &str, cost: &str, sources: &str) -> String {
    format!(
        r#"
        name = "layers"
        duration_s = 20
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 100
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.llm]
        shape = "autoregressive"
        weights_mb = 40
        kv_kb_per_token = 100
        {model}
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10]]
        prefill_mj_per_token = 0.5
        energy_mj = 8
        {cost}
        {sources}
        "#
    )
}

const BATCHED: &str = "batch_factor = [[1, 1.0], [4, 1.3]]";

/// Answers join each other; prompts when nothing runs.
fn serve(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let mut idle = view.free_slots(p) > 0;
    for &stage in view.ready() {
        if idle || view.can_join(stage, p) {
            actions.start(stage, p);
            idle = false;
        }
    }
}

/// Runs of answers: time alone, bytes, energy.
fn decoded(events: &[Event]) -> Vec<(Nanos, Bytes, f64)> {
    let of = |event: &Event| match event.what {
        What::Stop { alone, bytes, energy_mj, tokens, .. } if tokens > 1 => Some((alone, bytes, energy_mj.unwrap())),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn layers_that_are_left_out_cost_nothing_and_prompts_are_read_whole() {
    // 10 ms for the prompt; ten steps of 6 ms at contexts 101 to 110.
    for per in ["answer", "token"] {
        let model = format!("exits = [[0.6, 1], [1, 0]]\nexits_per = \"{per}\"");
        let (system, events) = run_script(&llm(&model, "", &ask("a", 0.0, 100, 11)), first_come);
        assert_eq!(times(&events, |what| matches!(what, What::FirstToken { .. })), [Nanos(10_000_000)]);
        assert_eq!(done_at(&system, &events, "a"), [70.0]);
        // 0.6 · 10 · (40 + 10.55) MB, and 0.6 · 80 mJ.
        assert_eq!(decoded(&events), [(Nanos(60_000_000), Bytes(303_300_000), 48.0)]);
        assert_eq!(system.sources.as_slice()[0].shortest, Nanos(70_000_000));
    }
}

/// The share of each step that each of the first answers computes alone.
fn shares(model: &str, count: u32) -> Vec<f64> {
    let source = ask("a", 0.0, 100, 11).replace("period_s = 100", "period_s = 0.2");
    let (system, events) = run_script(&llm(model, "", &source), first_come);
    let jobs = jobs_of(&system, &events, "a").into_iter().take(count as usize);
    jobs.map(|(release, done)| ((done.unwrap() - release - 10.0) / 100.0 * 1e6).round() / 1e6).collect()
}

#[test]
fn answers_leave_by_their_shares_and_tokens_all_cost_the_mean() {
    let exits = "exits = [[0.25, 0.5], [0.5, 0.25], [1, 0.25]]";
    let answers = shares(&format!("{exits}\nexits_per = \"answer\""), 99);
    let part = |share: f64| answers.iter().filter(|&&s| s == share).count();
    assert_eq!(part(0.25) + part(0.5) + part(1.0), 99);
    assert!((38..61).contains(&part(0.25)) && (15..35).contains(&part(0.5)), "{answers:?}");
    assert_eq!(shares(exits, 99), vec![0.5; 99], "tokens are the default");
    // Policies see the mean of either.
    for per in ["answer", "token"] {
        let system = system(&llm(&format!("{exits}\nexits_per = \"{per}\""), "", &ask("a", 0.0, 100, 11)));
        let seen = |view: &View<'_>, actions: &mut Actions| {
            for &stage in view.ready() {
                let p = view.processors().next().unwrap();
                let expected = if view.stage(stage).tokens == 0 { 60.0 } else { 50.0 };
                assert_eq!(view.remaining(stage, p).map(Nanos::as_ms), Some(expected));
            }
            first_come(view, actions);
        };
        run(&system, Box::new(Script(seen)), 3);
    }
}

#[test]
fn a_batch_goes_as_deep_as_the_deepest_of_its_answers() {
    let exits = "exits = [[0.25, 0.5], [1, 0.5]]\nexits_per = \"answer\"";
    // Two users; both prompts are read by 20 ms, and then both write together, 1.1 times as long a step.
    let users = ask("a", 0.0, 100, 11) + &ask("b", 0.0, 100, 11);
    let alone = |user: &str, seed| {
        let system = system(&llm(exits, BATCHED, &ask(user, 0.0, 100, 11)));
        let events = run(&system, Box::new(Script(serve)), seed);
        ((done_at(&system, &events, user)[0] - 10.0) / 25.0).round() / 4.0
    };
    fn prompts_first(view: &View<'_>, actions: &mut Actions) {
        let all_read = view.state.stages.iter().all(|(_, live)| live.tokens > 0);
        let p = view.processors().next().unwrap();
        for &stage in view.ready() {
            if all_read {
                actions.start(stage, p);
            } else if view.stage(stage).tokens == 0 && view.free_slots(p) > 0 {
                return actions.start(stage, p);
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..8 {
        let system = system(&llm(exits, BATCHED, &users));
        let events = run(&system, Box::new(Script(prompts_first)), seed);
        let (a, b) = (alone("a", seed), alone("b", seed));
        let deepest = a.max(b);
        for user in ["a", "b"] {
            assert!((done_at(&system, &events, user)[0] - (20.0 + 110.0 * deepest)).abs() < 1e-6, "{seed}: {a} {b}");
        }
        // Each accounts for half of the time, the weights and the energy, and for its own cache.
        let half =
            (Nanos::from_ms(55.0 * deepest), Bytes((deepest * (200.0 + 105.5) * 1e6).round() as u64), 40.0 * deepest);
        assert_eq!(decoded(&events), [half, half]);
        seen.insert([a, b].map(|share| (4.0 * share) as u32));
    }
    assert!(seen.len() > 2, "{seen:?}");
    // Tokens: the deepest of two is at the end unless both leave at a quarter, 0.25 · 0.25 + 1 · 0.75.
    let system = system(&llm("exits = [[0.25, 0.5], [1, 0.5]]", BATCHED, &users));
    let events = run(&system, Box::new(Script(prompts_first)), 1);
    assert_eq!(done_at(&system, &events, "a"), [20.0 + 110.0 * 0.8125]);
}

#[test]
fn a_prompt_that_shares_a_step_reads_the_layers_that_the_answer_leaves_out() {
    /// Prompts alone, or with the step of an answer that starts.
    fn mix(view: &View<'_>, actions: &mut Actions) {
        let p = view.processors().next().unwrap();
        let mut ready = view.ready().to_vec();
        ready.sort_by_key(|&stage| view.stage(stage).tokens == 0);
        if view.free_slots(p) > 0 {
            for stage in ready {
                actions.start(stage, p);
            }
        }
    }
    let cost = format!("{BATCHED}\nchunk_efficiency = [[1, 1.0]]\nmixed_steps = true");
    let users = ask("a", 0.0, 100, 2) + &ask("b", 0.0095, 50, 1);
    let model = "exits = [[0.5, 1], [1, 0]]\nexits_per = \"answer\"";
    let (system, events) = run_script(&llm(model, &cost, &users), mix);
    // The weights are read in 0.4 ms, half of them in 0.2: a step of 5 ms and a prompt of 5 ms take 5 - 0.2 + 5.
    assert_eq!(done_at(&system, &events, "a"), [19.8]);
    assert_eq!(done_at(&system, &events, "b"), [19.8]);
}

/// Mean time between tokens [ms] when so many write at once.
fn step(model: &str, users: usize) -> f64 {
    let sources: String = (0..users).map(|i| ask(&format!("u{i}"), 0.0, 100, 101)).collect();
    let cost = "batch_factor = [[1, 1.0], [32, 1.0]]";
    let system = system(&llm(model, cost, &sources));
    let events = run(&system, onbeat_policy::make("prefill-first", &system).unwrap(), 1);
    let last = times(&events, |what| matches!(what, What::JobDone { .. })).into_iter().max().unwrap();
    let read = 10.0 * users as f64;
    (last.as_ms() - read) / 100.0
}

#[test]
fn the_gain_of_exits_by_token_goes_with_the_batch() {
    // Four of five leave at a third: 0.467 of the layers alone, 0.888 with eight, nearly all with 32.
    let exits = "exits = [[0.3333333333, 0.8], [1, 0.2]]";
    let of = |users: usize| 1.0 - 2.0 / 3.0 * 0.8_f64.powf(users as f64);
    for users in [1, 8, 32] {
        let (with, theory) = (step(exits, users), 10.0 * of(users));
        assert!((with - theory).abs() < 1e-6, "{users}: {with} ms, {theory} ms");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Whatever is left out: the time that members account for is that of their runs, no answer costs more than with all layers, and the
    /// same seed gives the same events.
    #[test]
    fn work_is_conserved_and_never_more_than_that_of_all_layers(
        first in 0.05..0.5_f64,
        second in 0.51..0.95_f64,
        often in 0.1..0.8_f64,
        per in prop_oneof![Just("token"), Just("answer")],
        policy in prop_oneof![Just("prefill-first"), Just("sarathi"), Just("decode-first"), Just("onbeat")],
        rate in 0.5..4.0_f64,
        seed in 0_u64..1000,
    ) {
        let exits = format!("exits = [[{first}, {often}], [{second}, 0.1], [1, {}]]\nexits_per = \"{per}\"", 0.9 - often);
        let source = ask("a", 0.0, 80, 30).replace("process = \"periodic\", period_s = 100, start_s = 0", &format!("process = \"poisson\", rate_per_s = {rate}"));
        let cost = format!("{BATCHED}\nchunk_efficiency = [[1, 1.0]]\nmixed_steps = true");
        let go = |model: &str| -> (System, Vec<Event>) {
            let system = system(&llm(model, &cost, &source));
            let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), seed);
            (system, events)
        };
        let (system, events) = go(&exits);
        let shortest = system.sources.as_slice()[0].shortest.as_ms();
        for (release, done) in jobs_of(&system, &events, "a") {
            // Each run's end is rounded to a nanosecond.
            prop_assert!(done.is_none_or(|done| done - release >= shortest - 1e-4), "nobody beats the bound");
        }
        prop_assert_eq!(&events, &go(&exits).1, "the same seed, the same events");
        let (mut busy, mut alone, mut energy, mut tokens) = (0.0, 0.0, 0.0, 0);
        let mut started = std::collections::BTreeMap::new();
        for event in &events {
            match event.what {
                What::Start { run, .. } => _ = started.insert(run, event.at),
                What::Stop { run, alone: own, energy_mj, tokens: own_tokens, .. } => {
                    busy += started.remove(&run).map_or(0.0, |start| (event.at - start).as_ms());
                    alone += own.as_ms();
                    energy += energy_mj.unwrap();
                    tokens += own_tokens;
                }
                _ => {}
            }
        }
        prop_assert!((busy - alone).abs() < 1e-3 * busy.max(1.0), "{} {}", busy, alone);
        prop_assert!(tokens > 10);
        // Prompts cost 40 mJ each; a step at least its first exit, at most all layers.
        let prompts = events.iter().filter(|event| matches!(event.what, What::FirstToken { .. })).count() as f64;
        let steps = f64::from(tokens) - prompts;
        let of_answers = energy - 40.0 * prompts;
        prop_assert!(of_answers <= 8.0 * steps + 41.0, "{} mJ for {} tokens", of_answers, steps);
    }
}
