//! Variants: what switching costs and changes, and when it is not possible.

use onbeat_core::event::{DropCause, Event, NoSink, What};
use onbeat_core::metric::Metric;
use onbeat_core::policy::{Action, ActionError, Actions, View};
use onbeat_core::system::System;
use onbeat_core::units::Bytes;
use onbeat_sim::{SimError, simulate};
use proptest::prelude::*;

use crate::support::{Script, done_at, first_come, language_cost, run, run_script, system};

/// One camera every 20 ms. Its network takes 12 ms and scores 0.8; `small` takes 5 and scores 0.6; `exit` uses the first one's weights, takes
/// 9 and scores 0.7.
fn scenario(extra: &str) -> String {
    format!(
        r#"
        name = "choice"
        duration_s = 1
        {extra}
        [platform]
        name = "p"
        [platform.memory]
        load_gbps = 2
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        switch_us = 1000
        [model.net]
        weights_mb = 20
        quality = {{ metric = "mAP", value = 0.8, higher_is_better = true }}
        [model.net.variant.small]
        weights_mb = 4
        quality = {{ metric = "mAP", value = 0.6, higher_is_better = true }}
        [model.net.variant.exit]
        shares_weights = true
        quality = {{ metric = "mAP", value = 0.7, higher_is_better = true }}
        [[cost]]
        model = "net"
        processor = "npu"
        latency_ms = 12
        [[cost]]
        model = "net"
        variant = "small"
        processor = "npu"
        latency_ms = 5
        [[cost]]
        model = "net"
        variant = "exit"
        processor = "npu"
        latency_ms = 9
        [[stream]]
        name = "camera"
        chain = "see"
        period_ms = 20
        count = 3
        [[chain.see.stage]]
        name = "detect"
        model = "net"
        variants = ["net/exit", "net/small"]
        "#
    )
}

/// Switches every ready stage that has a variant `N` to it, and starts.
fn always<const N: u8>(view: &View<'_>, actions: &mut Actions) {
    for &stage in view.ready() {
        if view.variants(stage).any(|variant| variant == N) && view.stage(stage).variant != N {
            actions.switch(stage, N);
        }
    }
    first_come(view, actions);
}

fn switches(events: &[Event]) -> Vec<(u64, u8)> {
    let of = |event: &Event| match event.what {
        What::Switch { stage, variant, .. } => Some((stage, variant)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn refused(toml: &str, script: fn(&View<'_>, &mut Actions)) -> ActionError {
    let system = system(toml);
    match simulate(&system, Box::new(Script(script)), "test", 1, NoSink) {
        Err(SimError::IllegalAction { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_variant_that_is_chosen_is_the_one_that_runs() {
    let toml = scenario("");
    let (system, events) = run_script(&toml, first_come);
    assert_eq!(done_at(&system, &events, "camera"), [12.0, 32.0, 52.0]);
    let (system, events) = run_script(&toml, always::<2>);
    assert_eq!(done_at(&system, &events, "camera"), [5.0, 25.0, 45.0], "all variants are preloaded");
    assert_eq!(switches(&events), [(0, 2), (1, 2), (2, 2)]);
    // Relative to 0.8.
    let qualities: Vec<_> = [0, 1, 2].map(|variant| system.nodes.as_slice()[0].quality_of(variant)).into();
    assert_eq!(qualities, [Some(1.0), Some(0.7 / 0.8), Some(0.6 / 0.8)]);
}

#[test]
fn a_variant_of_its_own_is_loaded_and_switched_to_and_one_that_shares_weights_is_not() {
    /// The default one, then `small`, then `exit`.
    fn in_turn(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            let wanted = [0, 2, 1][view.job(stage).serial as usize];
            if view.stage(stage).variant != wanted {
                actions.switch(stage, wanted);
            }
        }
        first_come(view, actions);
    }
    let (system, events) = run_script(&scenario("preloaded = false"), in_turn);
    // 20 MB at 2 GB/s and 12 ms; 1 ms for the switch, 4 MB and 5 ms; 1 ms for the switch and 9 ms: its weights are there.
    assert_eq!(done_at(&system, &events, "camera"), [22.0, 30.0, 50.0]);
    let loads: Vec<(u32, Bytes)> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Load { model, used, .. } => Some((model.0, used)),
            _ => None,
        })
        .collect();
    let small = system.nodes.as_slice()[0].model_of(2);
    assert_eq!(loads, [(0, Bytes::from_mb(20.0)), (small.0, Bytes::from_mb(24.0))]);
    let (system, events) = run_script(&scenario("preloaded = false"), |view, actions| {
        for &stage in view.ready() {
            let wanted = (view.job(stage).serial % 2) as u8;
            if view.stage(stage).variant != wanted {
                actions.switch(stage, wanted);
            }
        }
        first_come(view, actions);
    });
    assert_eq!(done_at(&system, &events, "camera"), [22.0, 31.0, 52.0], "no context switch within one model's weights");
}

#[test]
fn a_stage_that_has_begun_or_is_not_there_cannot_be_switched() {
    let toml = scenario("");
    assert_eq!(refused(&toml, |view, actions| actions.switch(view.ready()[0], 3)), ActionError::NoSuchVariant);
    let twice = |view: &View<'_>, actions: &mut Actions| {
        first_come(view, actions);
        if let Some(&stage) = view.ready().first() {
            actions.switch(stage, 1);
        }
    };
    assert_eq!(refused(&toml, twice), ActionError::NotReady, "it runs by then");
    let cut = toml
        .replace("latency_ms = 12", "latency_ms = 12\nsegments = 4")
        .replace("switch_us = 1000", "preemption = 'segment'");
    let begun = |view: &View<'_>, actions: &mut Actions| {
        if let Some(&stage) = view.ready().first() {
            if view.stage(stage).position > 0.0 {
                assert_eq!(view.variants(stage).collect::<Vec<_>>(), [0]);
                actions.switch(stage, 1);
            } else {
                assert_eq!(view.variants(stage).collect::<Vec<_>>(), [0, 1, 2]);
                actions.start_segments(stage, onbeat_core::id::ProcessorId(0), 1);
            }
        }
    };
    assert_eq!(refused(&cut, begun), ActionError::Begun);
}

#[test]
fn only_what_no_variant_could_do_in_time_is_hopeless() {
    // Something runs until 8 ms; of the camera's 10 ms, 2 are left then: too few for `small`, too. With 14 ms they are enough for it.
    let blocked = |deadline: f64| {
        let toml = format!(
            "{}\n[model.block]\n[[cost]]\nmodel = 'block'\nprocessor = 'npu'\nlatency_ms = 8\n[[stream]]\nname = 'block'\nmodel = 'block'\nperiod_ms = 500\ncount = 1\n",
            scenario("")
                .replace("count = 3", &format!("count = 1\nphase_ms = 1\ndeadline_ms = {deadline}\ndrop = 'hopeless'"))
        );
        run_script(&toml, always::<2>).1
    };
    let dropped = |events: &[Event]| {
        events.iter().find(|e| matches!(e.what, What::Drop { cause: DropCause::Hopeless, .. })).map(|e| e.at.as_ms())
    };
    // Released at 1, due at 11: hopeless after 6, because `small` takes 5.
    assert_eq!(dropped(&blocked(10.0)).map(f64::round), Some(6.0));
    assert_eq!(dropped(&blocked(14.0)), None);
}

#[test]
fn quality_and_shares_are_counted() {
    let system = system(&scenario(""));
    let statistics = onbeat_analysis::statistics::Statistics::new(&system, 1, "test");
    let half = |view: &View<'_>, actions: &mut Actions| {
        for &stage in view.ready() {
            if view.job(stage).serial == 1 && view.stage(stage).variant == 0 {
                actions.switch(stage, 2);
            }
        }
        first_come(view, actions);
    };
    let (_, statistics) = simulate(&system, Box::new(Script(half)), "test", 1, statistics).unwrap();
    let summary = statistics.finish();
    let values = &summary.sources[0].values;
    assert!((values[&Metric::Quality] - (0.8 + 0.6 + 0.8) / 3.0).abs() < 1e-12);
    assert!((values[&Metric::RelativeQuality] - (1.0 + 0.75 + 1.0) / 3.0).abs() < 1e-12);
    assert!((values[&Metric::Degraded] - 1.0 / 3.0).abs() < 1e-12);
    let shares: Vec<(&str, f64)> =
        summary.sources[0].variants.iter().map(|variant| (variant.model.as_str(), variant.share)).collect();
    assert_eq!(shares, [("net", 2.0 / 3.0), ("net/exit", 0.0), ("net/small", 1.0 / 3.0)]);
    let busy: Vec<(&str, f64)> =
        summary.processors[0].busy_by_model.iter().map(|(model, ms)| (model.as_str(), *ms)).collect();
    // Two switches of context of 1 ms: to the small one and back.
    assert_eq!(busy, [("net", 25.0), ("net/small", 6.0)]);
}

/// Three streams on two processors, with variants that run on either, or on one of them only.
const MANY: &str = r#"
    name = "many"
    duration_s = 2
    [variation]
    kind = "lognormal"
    spread = 0.3
    [platform]
    name = "p"
    [platform.memory]
    bandwidth_gbps = 10
    capacity_gb = 0.2
    load_gbps = 5
    [[platform.processor]]
    name = "cpu"
    kind = "cpu"
    preemption = "anytime"
    switch_us = 10
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    preemption = "segment"
    switch_us = 100
    [model.net]
    weights_mb = 80
    variant.mid = { weights_mb = 40 }
    variant.exit = { shares_weights = true, weights_mb = 20 }
    [model.steps]
    shape = "iterative"
    steps = 20
    weights_mb = 50
    [model.few]
    shape = "iterative"
    steps = 4
    weights_mb = 50
    [model.llm]
    shape = "autoregressive"
    weights_mb = 60
    kv_kb_per_token = 5
    variant.small = { weights_mb = 20 }
    [[cost]]
    model = "net"
    processor = "npu"
    latency_ms = 20
    segments = 4
    [[cost]]
    model = "net"
    variant = "mid"
    processor = "cpu"
    latency_ms = 15
    [[cost]]
    model = "net"
    variant = "mid"
    processor = "npu"
    latency_ms = 8
    [[cost]]
    model = "net"
    variant = "exit"
    processor = "npu"
    latency_ms = 5
    [[cost]]
    model = "steps"
    processor = "npu"
    step_ms = 3
    [[cost]]
    model = "few"
    processor = "npu"
    step_ms = 3
    [[cost]]
    model = "llm"
    processor = "npu"
    prefill_ms = [[100, 40]]
    decode_ms = [[0, 12]]
    [[cost]]
    model = "llm"
    variant = "small"
    processor = "npu"
    prefill_ms = [[100, 15]]
    decode_ms = [[0, 5]]
    batch_factor = [[1, 1.0], [3, 1.2]]
    [[stream]]
    name = "camera"
    chain = "see"
    period_ms = 30
    drop = "hopeless"
    [[stream]]
    name = "pictures"
    chain = "draw"
    period_ms = 150
    [[session]]
    name = "chat"
    chain = "talk"
    arrival = { process = "poisson", rate_per_s = 3 }
    prompt = { kind = "uniform", low = 10, high = 100 }
    output = { kind = "uniform", low = 1, high = 20 }
    ttft_ms = 200
    tpot_ms = 30
    [[chain.see.stage]]
    name = "detect"
    model = "net"
    variants = "any"
    [[chain.see.stage]]
    name = "again"
    model = "net"
    variants = ["net/exit"]
    after = [{ stage = "detect", probability = 0.5 }]
    [[chain.draw.stage]]
    name = "draw"
    model = "steps"
    variants = ["few"]
    [[chain.talk.stage]]
    name = "talk"
    model = "llm"
    variants = "any"
"#;

/// Starts what is ready in a variant that follows from a number, after switching it to and fro.
#[derive(Clone, Debug)]
struct Wild {
    number: u64,
    left: u32,
}

impl onbeat_core::policy::Policy for Wild {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            let live = view.stage(stage);
            let all: Vec<u8> = view.variants(stage).collect();
            let wanted = all[((self.number ^ live.serial.wrapping_mul(0x9e37_79b9)) % all.len() as u64) as usize];
            if wanted != live.variant && self.left > 0 {
                self.left -= 1;
                actions.switch(stage, wanted);
                return;
            }
        }
        first_come(view, actions);
        let running = view.processors().flat_map(|p| view.occupancy(p).runs.iter().map(move |run| (p, run)));
        for (p, run) in running {
            if view.preemptible(p) && !run.ending && run.serial % 5 == self.number % 5 {
                actions.preempt(run.stage);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is switched when: the invariants hold, a stage runs one variant only, its work alone is that variant's, and no more weights
    /// are in memory than there is room for.
    #[test]
    fn work_is_that_of_the_variant(number in any::<u64>(), seed in 0_u64..100) {
        let system = system(MANY);
        let events = run(&system, Box::new(Wild { number, left: 100_000 }), seed);
        let mut nodes = std::collections::BTreeMap::new();
        let mut alone = std::collections::BTreeMap::new();
        for event in &events {
            match event.what {
                What::Ready { stage, node, .. } => {
                    nodes.insert(stage, (node, 0_u8));
                }
                What::Switch { stage, variant, model } => {
                    prop_assert!(!alone.contains_key(&stage), "nothing of it was done before");
                    let entry = nodes.get_mut(&stage).unwrap();
                    entry.1 = variant;
                    prop_assert_eq!(system.nodes[entry.0].model_of(variant), model);
                }
                What::Start { stage, processor, .. } => {
                    let (node, variant) = nodes[&stage];
                    prop_assert!(system.nodes[node].costs_of(variant)[processor].is_some());
                }
                What::Stop { stage, alone: ns, .. } if ns.0 > 0 => {
                    *alone.entry(stage).or_insert(0) += ns.0;
                }
                What::Load { used, .. } | What::Memory { used } | What::Evict { used, .. } => {
                    prop_assert!(used <= Bytes::from_mb(200.0));
                }
                _ => {}
            }
        }
        // The picture's 20 or 4 steps of 3 ms, times the stage's factor: the ratio tells them apart.
        let draw = system.nodes.enumerate().find(|(_, node)| node.name == "draw").unwrap().0;
        for event in &events {
            if let What::StageDone { stage, .. } = event.what
                && nodes[&stage].0 == draw
            {
                let steps = if nodes[&stage].1 == 0 { 20.0 } else { 4.0 };
                let factor = alone[&stage] as f64 / (steps * 3e6);
                prop_assert!((0.2..5.0).contains(&factor), "{factor}");
            }
        }
        let again = run(&system, Box::new(Wild { number, left: 100_000 }), seed);
        prop_assert_eq!(events, again);
    }
}

#[test]
fn every_policy_can_run_stages_that_have_a_choice() {
    let system = system(MANY);
    for policy in onbeat_policy::all() {
        for seed in 0..3 {
            let events = run(&system, onbeat_policy::make(policy.name, &system).unwrap(), seed);
            assert!(events.len() > 300, "{}", policy.name);
        }
    }
}

#[test]
fn a_choice_that_nobody_makes_changes_nothing() {
    let without = MANY
        .replace("variants = \"any\"", "")
        .replace("variants = [\"net/exit\"]", "")
        .replace("variants = [\"few\"]", "");
    let keep = |events: Vec<Event>| -> Vec<Event> {
        // Memory differs: variants are preloaded as far as there is room.
        let of_memory = |e: &Event| {
            matches!(e.what, What::Load { .. } | What::Memory { .. } | What::Evict { .. } | What::OutOfMemory { .. })
        };
        events.into_iter().filter(|event| !of_memory(event)).collect()
    };
    // What is hopeless depends on what could be chosen.
    let roomy = |toml: &str| {
        system(&toml.replace("capacity_gb = 0.2", "capacity_gb = 2").replace("drop = \"hopeless\"", "drop = \"late\""))
    };
    let (with, without): (System, System) = (roomy(MANY), roomy(&without));
    for policy in ["fcfs", "edf", "eft", "llf"] {
        let events = |system: &System| keep(run(system, onbeat_policy::make(policy, system).unwrap(), 1));
        assert!(events(&with) == events(&without), "{policy}");
    }
}

#[test]
fn switching_is_an_action_like_any_other() {
    let mut actions = Actions::default();
    actions.switch(onbeat_core::id::StageId(3), 2);
    assert_eq!(actions.as_slice(), [Action::Switch { stage: onbeat_core::id::StageId(3), variant: 2 }]);
}

/// Of an answer the first token is due, and then one after another; what is due of it otherwise is all of it.
#[test]
fn an_answer_runs_the_best_variant_that_keeps_its_goals() {
    // 100 ms to the first token and 20 ms a token, or 20 and 4.
    let scenario = |goals: &str| {
        let cost = |more: &str, prefill: f64, step: f64| language_cost("llm", "gpu", prefill, step, more);
        system(&format!(
            r#"
            name = "caption"
            duration_s = 4
            [platform]
            name = "p"
            memory = {{}}
            processor = [{{ name = "gpu", kind = "gpu", preemption = "segment" }}]
            [model.llm]
            shape = "autoregressive"
            quality = {{ metric = "q", value = 80, higher_is_better = true }}
            variant.small = {{ quality = {{ metric = "q", value = 60, higher_is_better = true }} }}
            {}
            {}
            [[session]]
            name = "caption"
            chain = "caption"
            arrival = {{ process = "periodic", period_s = 100 }}
            {goals}
            [[chain.caption.stage]]
            name = "write"
            model = "llm"
            variants = ["llm/small"]
            prompt = 100
            output = 101
            "#,
            cost("", 100.0, 20.0),
            cost("variant = \"small\"", 20.0, 4.0)
        ))
    };
    for (goals, best) in [
        ("ttft_ms = 200\ntpot_ms = 40", true),
        ("ttft_ms = 60\ntpot_ms = 40", false),
        ("ttft_ms = 200\ntpot_ms = 10", false),
        ("ttft_ms = 200", true),
        ("tpot_ms = 10", false),
        // 2.1 s for all of it.
        ("deadline_ms = 1000", false),
        ("deadline_ms = 3000", true),
        ("", true),
    ] {
        for policy in ["dream", "content-aware"] {
            let system = scenario(goals);
            let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), 1);
            let expected = Vec::from_iter((!best).then_some((0, 1)));
            assert_eq!(switches(&events), expected, "{policy}: {goals}");
        }
    }
}
