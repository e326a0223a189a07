//! Agents: tools, parts that repeat, idle-time work, adapters.

use std::collections::BTreeMap;

use onbeat_core::event::{DropCause, Event, What};
use onbeat_core::id::NodeId;
use onbeat_core::system::System;
use proptest::prelude::*;

use crate::support::{done_at, first_come, run, run_script, system, times};

/// An agent that plans on one NPU, calls two tools, joins, perhaps repeats that, and answers.
fn agent(probability: f64, at_most: u32, more: &str) -> String {
    format!(
        r#"
        name = "agent"
        duration_s = 400
        stream = [{{ name = "agent", chain = "agent", period_ms = 400, {more} }}]
        [chain.agent]
        stage = [
            {{ name = "plan", model = "small" }},
            {{ name = "search", tool_ms = {{ kind = "exponential", mean = 30 }}, after = [{{ stage = "plan" }}] }},
            {{ name = "read", tool_ms = {{ kind = "uniform", low = 5, high = 50 }}, after = [{{ stage = "plan" }}] }},
            {{ name = "join", model = "small", after = [{{ stage = "search" }}, {{ stage = "read" }}] }},
            {{ name = "answer", model = "small", after = [{{ stage = "join" }}] }},
        ]
        repeat = [{{ stages = ["plan", "search", "read", "join"], probability = {probability}, at_most = {at_most} }}]
        [platform]
        name = "p"
        memory = {{}}
        processor = [{{ name = "npu", kind = "npu", preemption = "anytime" }}]
        [model]
        small = {{}}
        [[cost]]
        model = "small"
        processor = "npu"
        latency_ms = 1
        "#
    )
}

/// How often each stage became ready, by name.
fn ready_by_name(system: &System, events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let What::Ready { node, .. } = event.what {
            *counts.entry(system.nodes[node].name.clone()).or_default() += 1;
        }
    }
    counts
}

/// How long each stage took from being ready to being done: job's node and time [ns].
fn durations(events: &[Event]) -> Vec<(NodeId, u64)> {
    let mut ready = BTreeMap::new();
    let mut durations = Vec::new();
    for event in events {
        match event.what {
            What::Ready { stage, node, .. } => {
                ready.insert(stage, (node, event.at));
            }
            What::StageDone { stage, .. } => {
                let (node, since) = ready[&stage];
                durations.push((node, (event.at - since).0));
            }
            _ => {}
        }
    }
    durations
}

#[test]
fn tools_are_never_offered_to_a_policy_and_take_the_same_time_under_every_one() {
    let system = system(&agent(0.3, 3, "count = 200"));
    let tools = |policy: &str| -> Vec<(NodeId, u64)> {
        let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), 7);
        let mut all = durations(&events);
        all.retain(|&(node, _)| system.nodes[node].tool.is_some());
        all.sort_unstable();
        all
    };
    let expected = tools("fcfs");
    assert!(expected.len() >= 400);
    for info in onbeat_policy::all() {
        assert_eq!(tools(info.name), expected, "{}", info.name);
    }
}

#[test]
fn tools_take_their_distribution_s_mean_and_no_processor() {
    let (system, events) = run_script(&agent(0.0, 2, "count = 1000"), first_come);
    let search = NodeId(1);
    assert_eq!(system.nodes[search].name, "search");
    let all: Vec<f64> =
        durations(&events).into_iter().filter(|&(node, _)| node == search).map(|(_, ns)| ns as f64 / 1e6).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    // Standard error of the mean of 1000 exponential times: 30 / √1000 ≈ 0.95.
    assert!((mean - 30.0).abs() < 3.5, "{mean}");
    let starts = times(&events, |what| matches!(what, What::Start { .. })).len();
    assert_eq!(starts, 3 * 1000, "plan, join, answer");
}

#[test]
fn a_part_repeats_as_often_as_its_probability_says_at_most() {
    let (system, events) = run_script(&agent(0.4, 3, "count = 1000"), first_come);
    let counts = ready_by_name(&system, &events);
    assert_eq!(counts["plan"], 1000);
    assert_eq!(counts["answer"], 1000, "the answer follows the last time, whichever it is");
    // Binomial: 1000 × 0.4 ± 3.5 σ, and of those 0.4 again.
    let (second, third) = (counts["plan.2"] as f64, counts["plan.3"] as f64);
    assert!((second - 400.0).abs() < 55.0, "{second}");
    assert!((third - 160.0).abs() < 45.0, "{third}");
    for name in ["search", "read", "join"] {
        assert_eq!(counts[&format!("{name}.2")], counts["plan.2"]);
        assert_eq!(counts[&format!("{name}.3")], counts["plan.3"]);
    }
    assert!(!counts.contains_key("plan.4"));
}

#[test]
fn bounds_count_the_shortest_tool_and_what_is_certain() {
    let system = system(&agent(0.4, 3, "count = 1"));
    let source = &system.sources[onbeat_core::id::SourceId(0)];
    // plan 1 + max(exponential ≥ 0, uniform ≥ 5) + join 1 + answer 1.
    assert_eq!(source.shortest.as_ms(), 8.0);
    let tail = |name: &str| system.nodes.iter().find(|node| node.name == name).unwrap().tail.as_ms();
    assert_eq!((tail("plan"), tail("join"), tail("join.2")), (7.0, 1.0, 1.0));
}

#[test]
fn a_job_whose_tool_is_out_can_be_dropped_and_the_answer_is_ignored() {
    let late = agent(0.0, 2, "count = 300, deadline_ms = 40, drop = \"late\"");
    let (_, events) = run_script(&late, first_come);
    let dropped = times(&events, |what| matches!(what, What::Drop { cause: DropCause::Late, .. })).len();
    let done = times(&events, |what| matches!(what, What::JobDone { .. })).len();
    assert!(dropped > 50 && done > 50, "{dropped} dropped, {done} done");
    assert_eq!(dropped + done, 300);
    let hopeless = agent(0.0, 2, "count = 300, deadline_ms = 40, drop = \"hopeless\"");
    let (_, events) = run_script(&hopeless, first_come);
    let hopeless = times(&events, |what| matches!(what, What::Drop { cause: DropCause::Hopeless, .. })).len();
    // 1 ms each for join and answer: the tools have 37 ms instead of 39 or 40.
    assert!(hopeless >= dropped, "{hopeless} against {dropped}");
}

#[test]
fn a_tool_with_a_processor_takes_its_slot() {
    let text = r#"
        name = "tool"
        duration_s = 1
        stream = [{ name = "s", chain = "c", period_ms = 100, count = 1 }, { name = "t", chain = "c", period_ms = 100, count = 1 }]
        chain.c.stage = [{ name = "compile", tool_ms = { kind = "constant", value = 20 }, on = ["cpu"] }]
        platform = { name = "p", memory = {}, processor = [{ name = "cpu", kind = "cpu" }, { name = "npu", kind = "npu" }] }
    "#;
    let (system, events) = run_script(text, first_come);
    assert_eq!(done_at(&system, &events, "s"), [20.0]);
    assert_eq!(done_at(&system, &events, "t"), [40.0]);
}

/// Two streams and a session on two processors that preempt at once, with idle-time work or without.
fn shared(periods: (u32, u32), latencies: (u32, u32), idle: bool) -> System {
    let idle = if idle {
        r#"
        [[session]]
        name = "idle"
        model = "thinker"
        arrival = { process = "periodic", period_s = 0.007 }
        best_effort = true
        queue = 4
        "#
    } else {
        ""
    };
    system(&format!(
        r#"
        name = "shared"
        duration_s = 2
        [[stream]]
        name = "a"
        model = "a"
        period_ms = {}
        [[stream]]
        name = "b"
        model = "b"
        period_ms = {}
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "poisson", rate_per_s = 3 }}
        prompt = {{ kind = "uniform", low = 10, high = 60 }}
        output = {{ kind = "uniform", low = 1, high = 20 }}
        ttft_ms = 500
        {idle}
        [platform]
        name = "p"
        memory = {{}}
        processor = [{{ name = "x", kind = "gpu", preemption = "anytime" }}, {{ name = "y", kind = "npu", preemption = "anytime" }}]
        [model]
        a = {{}}
        b = {{}}
        thinker = {{}}
        [model.llm]
        shape = "autoregressive"
        [[cost]]
        model = "a"
        processor = "x"
        latency_ms = {}
        [[cost]]
        model = "b"
        processor = "y"
        latency_ms = {}
        [[cost]]
        model = "llm"
        processor = "y"
        prefill_ms = [[100, 50]]
        decode_ms = [[0, 5]]
        [[cost]]
        model = "thinker"
        processor = "x"
        latency_ms = 33
        [[cost]]
        model = "thinker"
        processor = "y"
        latency_ms = 41
        "#,
        periods.0, periods.1, latencies.0, latencies.1
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Where processors preempt at once, nothing else is shared and every stage has one place, idle-time work changes nothing for
    /// anybody else. (`onbeat` is left out: it is asked at more instants then, and may preempt or wait at one of them.)
    #[test]
    fn idle_time_work_costs_others_nothing(
        periods in (10_u32..60, 10_u32..60),
        latencies in (1_u32..12, 1_u32..12),
        seed in 0_u64..1000,
        policy in prop::sample::select(vec!["fcfs", "edf", "fixed-priority", "sjf", "eft", "heft", "dm", "srpt", "cost-aware"]),
    ) {
        let (without, with) = (shared(periods, latencies, false), shared(periods, latencies, true));
        let plain = run(&without, onbeat_policy::make(policy, &without).unwrap(), seed);
        let shared = run(&with, onbeat_policy::make(policy, &with).unwrap(), seed);
        let done = |system: &System, events: &[Event]| -> Vec<(String, u64, Option<u64>)> {
            let mut jobs = BTreeMap::new();
            for event in events {
                match event.what {
                    What::Release { job, source, nominal, .. } => {
                        jobs.insert(job, (system.sources[source].name.clone(), nominal.0, None));
                    }
                    What::JobDone { job } => jobs.get_mut(&job).unwrap().2 = Some(event.at.0),
                    _ => {}
                }
            }
            let mut all: Vec<_> = jobs.into_values().filter(|(name, ..)| name != "idle").collect();
            all.sort();
            all
        };
        let (plain, shared) = (done(&without, &plain), done(&with, &shared));
        let first = plain.iter().zip(&shared).find(|(a, b)| a != b);
        prop_assert!(first.is_none() && plain.len() == shared.len(), "{:?}", first);
    }
}

#[test]
fn idle_time_work_gives_way_at_the_next_segment_and_goes_on_where_it_stood() {
    let text = r#"
        name = "segments"
        duration_s = 0.2
        stream = [
            { name = "frame", model = "frame", period_ms = 100, phase_ms = 12, count = 1 },
            { name = "idle", model = "idle", period_ms = 1000, best_effort = true },
        ]
        [platform]
        name = "p"
        memory = {}
        processor = [{ name = "npu", kind = "npu", preemption = "segment" }]
        [model]
        frame = {}
        idle = {}
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 4
        [[cost]]
        model = "idle"
        processor = "npu"
        latency_ms = 50
        segments = 5
    "#;
    let system = system(text);
    let events = run(&system, onbeat_policy::make("fcfs", &system).unwrap(), 1);
    assert_eq!(done_at(&system, &events, "frame"), [24.0], "it waits for the segment from 10 to 20");
    assert_eq!(done_at(&system, &events, "idle"), [54.0]);
}

#[test]
fn adapters_are_loaded_beside_the_base_and_go_without_it() {
    let text = r#"
        name = "adapters"
        duration_s = 0.4
        preloaded = false
        stream = [
            { name = "a", chain = "a", period_ms = 100 },
            { name = "b", chain = "b", period_ms = 100, phase_ms = 50 },
        ]
        chain.a.stage = [{ name = "a", model = "base", adapter = "a" }]
        chain.b.stage = [{ name = "b", model = "base", adapter = "b" }]
        adapter.a = { model = "base", weights_mb = 50 }
        adapter.b = { model = "base", weights_mb = 50, load_ms = 7 }
        model.base = { weights_mb = 200 }
        [platform]
        name = "p"
        memory = { capacity_gb = 0.28, load_gbps = 10 }
        processor = [{ name = "npu", kind = "npu" }]
        [[cost]]
        model = "base"
        processor = "npu"
        latency_ms = 2
    "#;
    let (system, events) = run_script(text, first_come);
    // Base 20 ms and adapter 5 ms, then the adapters alone, in turn.
    assert_eq!(done_at(&system, &events, "a"), [27.0, 107.0, 207.0, 307.0]);
    assert_eq!(done_at(&system, &events, "b"), [59.0, 159.0, 259.0, 359.0]);
    let name = |model| system.models[model].name.as_str();
    let evicted: Vec<&str> = events
        .iter()
        .filter_map(|event| if let What::Evict { model, .. } = event.what { Some(name(model)) } else { None })
        .collect();
    assert_eq!(evicted, ["base+a", "base+b", "base+a", "base+b", "base+a", "base+b", "base+a"]);
    let used: Vec<f64> = events
        .iter()
        .filter_map(|event| if let What::Load { used, .. } = event.what { Some(used.as_mb()) } else { None })
        .collect();
    assert!(used.iter().all(|&used| used <= 280.0));
    assert_eq!(used.iter().copied().fold(0.0, f64::max), 250.0);
}
