//! Drafting and verifying: cycles by hand, the published speed-up, the bus, memory, errors.

use onbeat_core::event::What;
use onbeat_core::id::ProcessorId;
use onbeat_core::joint::{Together, expected_tokens};
use onbeat_core::policy::{ActionError, Actions, View};
use onbeat_sim::{SimError, simulate};

use crate::support::{Script, done_at, jobs_of, language_cost, run, run_script, system, times};

/// A large model on the CPU, a small one on both. The prompt takes no time worth mentioning.
fn chat(draft: &str, output: u32, platform: &str) -> String {
    let on_cpu = language_cost("small", "cpu", 0.001, 20.0, "bytes_mb = 200");
    let on_gpu = language_cost("small", "gpu", 0.001, 5.0, "bytes_mb = 50");
    format!(
        r#"
        name = "draft"
        duration_s = 10000
        [platform]
        name = "p"
        [platform.memory]
        handover_us = 50
        {platform}
        [[platform.processor]]
        name = "cpu"
        kind = "cpu"
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.large]
        shape = "autoregressive"
        [model.small]
        shape = "autoregressive"
        [[cost]]
        model = "large"
        processor = "cpu"
        prefill_ms = [[100, 0.001]]
        decode_ms = [[0, 50]]
        bytes_mb = 500
        verify_factor = [[1, 1.0], [16, 1.0]]
        {on_cpu}
        {on_gpu}
        [[session]]
        name = "chat"
        chain = "chat"
        arrival = {{ process = "periodic", period_s = 20000 }}
        prompt = 100
        output = {output}
        [chain.chat]
        stage = [{{ name = "answer", model = "large", draft = {{ model = "small", {draft} }} }}]
        "#
    )
}

/// The CPU verifies what the GPU has drafted, as many tokens as the scenario says.
fn from_gpu(view: &View<'_>, actions: &mut Actions) {
    let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
    for &stage in view.ready() {
        let tokens = view.node(stage).draft.as_ref().unwrap().tokens;
        if view.stage(stage).tokens == 0 {
            actions.start(stage, cpu);
        } else {
            actions.speculate(stage, cpu, gpu, tokens, None);
        }
    }
}

/// The CPU does both.
fn by_itself(view: &View<'_>, actions: &mut Actions) {
    let cpu = ProcessorId(0);
    for &stage in view.ready() {
        if view.stage(stage).tokens == 0 {
            actions.start(stage, cpu);
        } else {
            actions.speculate(stage, cpu, cpu, 4, None);
        }
    }
}

#[test]
fn a_cycle_takes_its_drafts_the_verification_and_two_handovers() {
    let (system, events) = run_script(&chat("tokens = 4, acceptance = 1", 11, ""), from_gpu);
    // Two cycles of 4 × 5 + 50 + 0.1 ms, five tokens each. Prompts take 1 µs for the large model and 1.01 µs for the small one.
    assert!((done_at(&system, &events, "chat")[0] - 140.2).abs() < 0.003);
    let (system, events) = run_script(&chat("tokens = 4, acceptance = 0", 11, ""), from_gpu);
    assert!((done_at(&system, &events, "chat")[0] - 701.0).abs() < 0.003, "ten cycles, a token each");
    let (system, events) = run_script(&chat("tokens = 4, acceptance = 1", 11, ""), by_itself);
    assert!((done_at(&system, &events, "chat")[0] - 2.0 * 130.0).abs() < 0.003, "no hand-over");
    let tokens: u32 = events.iter().map(|e| if let What::Stop { tokens, .. } = e.what { tokens } else { 0 }).sum();
    assert_eq!(tokens, 11);
}

#[test]
fn the_speed_up_is_the_published_one() {
    // Leviathan et al. 2023, theorem 3.8: (1 − a^(k+1)) / ((1 − a)(k·c + 1)), with c the ratio of the two models' steps. Here c = 0.1,
    // and hand-over is free.
    for (a, k) in [(0.5, 2), (0.6, 5), (0.8, 4), (0.9, 8), (0.95, 3)] {
        let toml = chat(&format!("tokens = {k}, acceptance = {a}"), 40_001, "").replace("handover_us = 50", "");
        let (system, events) = run_script(&toml, from_gpu);
        let simulated = 40_000.0 * 50.0 / done_at(&system, &events, "chat")[0];
        let published = (1.0 - f64::powi(a, k + 1)) / ((1.0 - a) * (f64::from(k) * 0.1 + 1.0));
        assert!((simulated / published - 1.0).abs() < 0.015, "a = {a}, k = {k}: {simulated} instead of {published}");
        assert!((expected_tokens(a, k as u32) / (f64::from(k) * 0.1 + 1.0) - published).abs() < 1e-12);
    }
}

#[test]
fn requests_differ_in_what_is_accepted() {
    // Half of the acceptance is 0.2, half 0.9 – on average 0.55, but one request has one of them.
    let toml = chat("tokens = 4, acceptance = { kind = \"uniform\", low = 0.1, high = 0.95 }", 2001, "")
        .replace("period_s = 20000", "period_s = 200");
    let (system, events) = run_script(&toml, from_gpu);
    let took: Vec<f64> =
        jobs_of(&system, &events, "chat").into_iter().filter_map(|(release, done)| Some(done? - release)).collect();
    assert_eq!(took.len(), 50);
    let (least, most) = took.iter().fold((f64::MAX, 0.0), |(a, b), &t| (f64::min(a, t), f64::max(b, t)));
    // 2000 tokens in cycles of 70.1 ms: 1.1 tokens a cycle at 0.1, 4.5 at 0.95.
    assert!(least < 45_000.0 && most > 95_000.0, "{least} {most}");
}

#[test]
fn what_policies_expect_of_a_drawn_acceptance_is_what_it_takes() {
    /// As [`from_gpu`]; whatever time is left is that of cycles of 70.1 ms.
    fn checking(view: &View<'_>, actions: &mut Actions) {
        let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
        for &stage in view.ready().iter().filter(|&&stage| view.stage(stage).tokens > 0) {
            let together = Together::Draft { processor: gpu, tokens: 4 };
            let expected = view.remaining_together(stage, cpu, together).unwrap().as_ms();
            let cycles = 1000.0 / view.draft(stage).unwrap().tokens_per_cycle(4);
            assert!((expected - cycles * 70.1).abs() < 1e-3, "{expected} {cycles}");
        }
        from_gpu(view, actions);
    }
    let toml = chat("tokens = 4, acceptance = { kind = \"uniform\", low = 0.1, high = 0.95 }", 1001, "")
        .replace("period_s = 20000", "period_s = 70")
        .replace("duration_s = 10000", "duration_s = 280000");
    let (system, events) = run_script(&toml, checking);
    let took: Vec<f64> =
        jobs_of(&system, &events, "chat").into_iter().filter_map(|(release, done)| Some(done? - release)).collect();
    assert_eq!(took.len(), 4000);
    let simulated = took.iter().sum::<f64>() / took.len() as f64 / 1000.0 / 70.1;
    let draft = system.nodes.iter().next().unwrap().draft.as_ref().unwrap();
    let expected = 1.0 / draft.tokens_per_cycle(4);
    assert!((simulated / expected - 1.0).abs() < 0.015, "{simulated} cycles per token instead of {expected}");
    // The mean acceptance promises a time that is 4% shorter.
    assert!(simulated * expected_tokens(draft.acceptance.mean(), 4) > 1.03);
}

#[test]
fn drafting_and_verifying_take_turns_on_the_bus() {
    // The large model alone fills the bus: 500 MB in 50 ms. So does the small one: 50 MB in 5 ms.
    let toml = chat("tokens = 4, acceptance = 1", 11, "bandwidth_gbps = 10");
    let (system, events) = run_script(&toml, from_gpu);
    assert!((done_at(&system, &events, "chat")[0] - 140.2).abs() < 0.01, "they do not slow each other");
    let bytes: u64 = events.iter().map(|e| if let What::Stop { bytes, .. } = e.what { bytes.0 } else { 0 }).sum();
    // The prompt reads no weights that are stated.
    assert_eq!(bytes, 2 * (500 + 4 * 50) * 1_000_000);
}

#[test]
fn what_cannot_be_drafted_is_an_error() {
    let error = |toml: &str, script: fn(&View<'_>, &mut Actions)| {
        let system = system(toml);
        match simulate(&system, Box::new(Script(script)), "test", 1, Vec::new()) {
            Err(SimError::IllegalAction { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let good = chat("tokens = 4, acceptance = 1", 11, "");
    let at_once = |view: &View<'_>, actions: &mut Actions| {
        actions.speculate(view.ready()[0], ProcessorId(0), ProcessorId(1), 4, None);
    };
    assert_eq!(error(&good, at_once), ActionError::NoDraft, "the prompt is not drafted");
    let too_long = |view: &View<'_>, actions: &mut Actions| {
        if view.stage(view.ready()[0]).tokens == 0 {
            actions.start(view.ready()[0], ProcessorId(0));
        } else {
            actions.speculate(view.ready()[0], ProcessorId(0), ProcessorId(1), 65, None);
        }
    };
    assert_eq!(error(&good, too_long), ActionError::DraftLength);
    let wrong_way = |view: &View<'_>, actions: &mut Actions| {
        if view.stage(view.ready()[0]).tokens == 0 {
            actions.start(view.ready()[0], ProcessorId(0));
        } else {
            actions.speculate(view.ready()[0], ProcessorId(1), ProcessorId(0), 4, None);
        }
    };
    assert_eq!(error(&good, wrong_way), ActionError::CannotRunHere, "the large model does not run on the GPU");
}

#[test]
fn a_draft_model_needs_memory_of_its_own() {
    // 900 MB for the large model, 200 for the small one, 1 GB in all.
    let toml = chat("tokens = 4, acceptance = 1", 11, "capacity_gb = 1")
        .replace("[model.large]", "[model.large]\nweights_mb = 900")
        .replace("[model.small]", "[model.small]\nweights_mb = 200");
    fn if_possible(view: &View<'_>, actions: &mut Actions) {
        let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
        for &stage in view.ready() {
            if view.stage(stage).tokens == 0 || view.stage(stage).refused != 0 {
                actions.start(stage, cpu);
            } else {
                actions.speculate(stage, cpu, gpu, 4, None);
            }
        }
    }
    let (system, events) = run_script(&toml, if_possible);
    assert!((done_at(&system, &events, "chat")[0] - 500.0).abs() < 0.01, "it goes on alone");
    assert_eq!(times(&events, |what| matches!(what, What::OutOfMemory { .. })).len(), 1);
}

#[test]
fn invariants_hold_and_nobody_beats_the_bound() {
    // A token takes 50 ms alone and is due after 30: without drafts no request could meet its goal.
    let toml = chat("tokens = 4, acceptance = { kind = \"uniform\", low = 0.6, high = 1 }", 41, "bandwidth_gbps = 12")
        .replace("duration_s = 10000", "duration_s = 60")
        .replace("process = \"periodic\", period_s = 20000", "process = \"poisson\", rate_per_s = 0.3")
        .replace("output = 41", "output = { kind = \"uniform\", low = 10, high = 60 }\ntpot_ms = 30\nttft_ms = 5000\ndeadline_ms = 8000\ndrop = \"hopeless\"")
        + r#"
        [[stream]]
        name = "camera"
        model = "frame"
        fps = 10
        deadline_ms = 90
        [model.frame]
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 4
        "#;
    let system = system(&toml);
    let bound = onbeat_analysis::bound::lower_bound(&system);
    assert!(bound.sources.iter().all(|source| source.impossible.is_none()), "{:?}", bound.binding);
    let mut in_time = 0;
    for policy in onbeat_policy::all() {
        for seed in 0..3 {
            let events = run(&system, onbeat_policy::make(policy.name, &system).unwrap(), seed);
            for source in &system.sources {
                for (release, done) in jobs_of(&system, &events, &source.name) {
                    let shortest = source.shortest.as_ms();
                    assert!(
                        done.is_none_or(|done| done - release >= shortest - 1e-6),
                        "{}: {}",
                        policy.name,
                        source.name
                    );
                }
            }
            if policy.name == "speculative" {
                in_time += times(&events, |what| matches!(what, What::Start { over, .. } if !over.is_empty())).len();
            }
        }
    }
    assert!(in_time > 20, "speculative drafts: {in_time}");
}
