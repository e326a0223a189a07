//! What holds for every scenario and every policy.

use std::collections::BTreeMap;

use onbeat_core::event::What;
use onbeat_core::system::System;
use proptest::prelude::*;

use crate::support::{run, system};

/// Everything at once: chains, streaming, a language model, drop rules, a shared bus, three processors.
pub(crate) const MIXED: &str = r#"
    name = "mixed"
    duration_s = 3
    [variation]
    kind = "lognormal"
    spread = 0.2
    [platform]
    name = "p"
    [platform.memory]
    bandwidth_gbps = 20
    handover_us = 20
    capacity_gb = 1.5
    [[platform.processor]]
    name = "core"
    kind = "cpu"
    count = 2
    preemption = "anytime"
    preempt_us = 5
    switch_us = 10
    bandwidth_gbps = 15
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    switch_us = 50
    [model.small]
    weights_mb = 5
    [model.big]
    weights_mb = 100
    [model.denoiser]
    shape = "streaming"
    state_kb = 10
    [model.llm]
    shape = "autoregressive"
    weights_mb = 500
    kv_kb_per_token = 50
    [[cost]]
    model = "small"
    processor = "core"
    latency_ms = 4
    [[cost]]
    model = "small"
    processor = "npu"
    latency_ms = 1
    [[cost]]
    model = "big"
    processor = "npu"
    latency_ms = 12
    segments = 3
    [[cost]]
    model = "big"
    processor = "core"
    latency_ms = 30
    [[cost]]
    model = "denoiser"
    processor = "core"
    latency_ms = 2
    [[cost]]
    model = "llm"
    processor = "npu"
    prefill_ms = [[100, 30], [400, 150]]
    prefill_chunk = 64
    decode_ms = [[0, 30], [1000, 40]]
    batch_factor = [[1, 1.0], [4, 1.4]]
    [[cost]]
    model = "llm"
    processor = "core"
    prefill_ms = [[100, 200]]
    decode_ms = [[0, 60]]
    [[stream]]
    name = "camera"
    chain = "vision"
    fps = 30
    drop = "late"
    queue = 3
    [[stream]]
    name = "audio"
    model = "denoiser"
    period_ms = 8
    [[stream]]
    name = "events"
    model = "big"
    arrival = { process = "poisson", rate_per_s = 8 }
    jitter_ms = { kind = "uniform", low = 0, high = 5 }
    deadline_ms = 100
    drop = "hopeless"
    [[session]]
    name = "chat"
    chain = "talk"
    arrival = { process = "gamma", rate_per_s = 1.5, cv = 2 }
    prompt = { kind = "lognormal", median = 120, sigma = 0.5, max = 380 }
    output = { kind = "uniform", low = 1, high = 40 }
    ttft_ms = 500
    tpot_ms = 80
    [[chain.vision.stage]]
    name = "detect"
    model = "small"
    output_kb = 100
    [[chain.vision.stage]]
    name = "landmark"
    model = "small"
    after = [{ stage = "detect", probability = 0.7, fan_out = { kind = "uniform", low = 0, high = 3 } }]
    [[chain.vision.stage]]
    name = "compose"
    model = "small"
    after = [{ stage = "landmark" }, { stage = "detect" }]
    [[chain.talk.stage]]
    name = "think"
    model = "llm"
    [[chain.talk.stage]]
    name = "speak"
    model = "small"
    after = [{ stage = "think", per_tokens = 8 }]
"#;

#[test]
fn invariants_hold_under_every_policy() {
    let system = system(MIXED);
    for policy in onbeat_policy::all() {
        for seed in 0..5 {
            // `run` checks the invariants.
            let events = run(&system, onbeat_policy::make(policy.name, &system).unwrap(), seed);
            assert!(events.len() > 1000, "{}", policy.name);
        }
    }
}

/// Time alone and bytes of every finished stage.
fn work_done(system: &System, policy: &str, seed: u64) -> BTreeMap<u64, (u64, u64, u32)> {
    let events = run(system, onbeat_policy::make(policy, system).unwrap(), seed);
    let mut sums: BTreeMap<u64, (u64, u64, u32)> = BTreeMap::new();
    let mut done = Vec::new();
    for event in events {
        match event.what {
            What::Stop { stage, alone, bytes, .. } => {
                let entry = sums.entry(stage).or_default();
                entry.0 += alone.0;
                entry.1 += bytes.0;
                entry.2 += 1;
            }
            What::StageDone { stage, .. } => done.push(stage),
            _ => {}
        }
    }
    done.into_iter().map(|stage| (stage, sums[&stage])).collect()
}

/// One processor, random periodic jobs with random sizes and segments.
fn tasks(processor: &str, tasks: &[(u32, u32, u32)]) -> String {
    use std::fmt::Write;
    let mut toml = format!(
        r#"
        name = "random"
        duration_s = 0.5
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 10
        [[platform.processor]]
        name = "core"
        kind = "cpu"
        count = 2
        {processor}
        "#
    );
    for (i, (period, cost, segments)) in tasks.iter().enumerate() {
        write!(
            toml,
            "
            [model.m{i}]
            [[cost]]
            model = \"m{i}\"
            processor = \"core\"
            latency_ms = {}
            bytes_mb = {}
            segments = {segments}
            [[stream]]
            name = \"s{i}\"
            model = \"m{i}\"
            period_ms = {}
            ",
            f64::from(*cost) / 10.0,
            f64::from(*cost) / 3.0,
            f64::from(*period) / 10.0,
        )
        .unwrap();
    }
    toml
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However a stage is cut up, moved and slowed down: in the end it has made its time alone and moved its bytes.
    #[test]
    fn work_and_bytes_are_conserved(
        set in prop::collection::vec((30_u32..300, 5_u32..120, 1_u32..6), 1..5),
        preemption in prop::sample::select(vec!["anytime", "segment", "never"]),
        policy in prop::sample::select(vec!["edf", "llf", "fixed-priority", "fcfs", "eft"]),
        preempt_us in 0_u32..50,
    ) {
        let processor = format!("preemption = \"{preemption}\"\npreempt_us = {preempt_us}");
        let system = system(&tasks(&processor, &set));
        let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), 1);
        let mut stages = BTreeMap::new();
        for event in &events {
            if let What::Ready { stage, node, .. } = event.what {
                stages.insert(stage, node);
            }
        }
        for (stage, (alone, bytes, stops)) in work_done(&system, policy, 1) {
            let node = &system.nodes[stages[&stage]];
            let cost = set[node.source.0 as usize].1;
            let expected = u64::from(cost) * 100_000;
            // One nanosecond and one byte of rounding per piece.
            prop_assert!(alone.abs_diff(expected) <= u64::from(stops), "{alone} ns instead of {expected} in {stops} pieces");
            let expected = f64::from(cost) / 3.0 * 1e6;
            prop_assert!((bytes as f64 - expected).abs() <= 1.0 + f64::from(stops), "{bytes} bytes instead of {expected}");
        }
    }
}
