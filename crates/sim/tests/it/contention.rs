//! The memory bus.

use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::What;
use onbeat_core::metric::Metric;
use onbeat_sim::simulate;

use crate::support::{done_at, first_come, language_cost, run_script, system};

/// Two processors, each with one job that moves `bytes_mb` in 10 ms; the bus moves 100 bytes/ns.
fn scenario(bytes_mb: [f64; 2], limits: &str) -> String {
    format!(
        r#"
        name = "bus"
        duration_s = 0.1
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 100
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        {limits}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        {limits}
        [model.a]
        [model.b]
        [[cost]]
        model = "a"
        processor = "gpu"
        latency_ms = 10
        bytes_mb = {}
        [[cost]]
        model = "b"
        processor = "npu"
        latency_ms = 10
        bytes_mb = {}
        [[stream]]
        name = "a"
        model = "a"
        period_ms = 1000
        [[stream]]
        name = "b"
        model = "b"
        period_ms = 1000
        "#,
        bytes_mb[0], bytes_mb[1]
    )
}

#[test]
fn two_equal_memory_bound_jobs_on_a_saturated_bus_take_twice_as_long() {
    // 1000 MB in 10 ms is all that the bus can move.
    let (system, events) = run_script(&scenario([1000.0, 1000.0], ""), first_come);
    assert_eq!(done_at(&system, &events, "a"), [20.0]);
    assert_eq!(done_at(&system, &events, "b"), [20.0]);
}

#[test]
fn compute_bound_jobs_do_not_slow_down() {
    let (system, events) = run_script(&scenario([0.0, 1000.0], ""), first_come);
    assert_eq!(done_at(&system, &events, "a"), [10.0]);
    assert_eq!(done_at(&system, &events, "b"), [10.0]);
}

#[test]
fn only_the_memory_bound_part_of_a_job_slows_down() {
    // `a` is memory-bound 40% of the time, `b` all of it; each gets 50 of 100 bytes/ns. `a` takes 6 + 4 * 2 = 14 ms. In that
    // time `b` has done 7 ms of its 10; the remaining 3 ms are alone.
    let (system, events) = run_script(&scenario([400.0, 1000.0], ""), first_come);
    let (a, b) = (done_at(&system, &events, "a")[0], done_at(&system, &events, "b")[0]);
    assert!((a - 14.0).abs() < 1e-5, "{a}");
    assert!((b - 17.0).abs() < 1e-5, "{b}");
}

#[test]
fn processors_that_cannot_saturate_the_bus_do_not_disturb_each_other() {
    // Each draws at most 50 of 100 bytes/ns.
    let (system, events) = run_script(&scenario([500.0, 500.0], "bandwidth_gbps = 50"), first_come);
    assert_eq!(done_at(&system, &events, "a"), [10.0]);
    assert_eq!(done_at(&system, &events, "b"), [10.0]);
}

#[test]
fn traffic_is_reported_and_contention_can_be_switched_off() {
    let (_, events) = run_script(&scenario([1000.0, 1000.0], ""), first_come);
    let traffic: Vec<(f64, f64)> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Bus { traffic, speed } => Some((traffic, speed)),
            _ => None,
        })
        .collect();
    assert_eq!(traffic, [(100.0, 0.5), (0.0, 1.0)]);

    let mut off = system(&scenario([1000.0, 1000.0], ""));
    off.contention = false;
    let events = crate::support::run(&off, Box::new(crate::support::Script(first_come)), 1);
    assert_eq!(done_at(&off, &events, "a"), [10.0]);
}

#[test]
fn loading_weights_slows_others_on_the_bus() {
    // `b` loads 1000 MB at 100 GB/s from 0 to 10 ms, as much as the bus can move; `a`, always memory-bound, gets half of it in that time: 5 ms
    // of its 10 are done at 10 ms, the rest at 15 ms. `b` itself is compute-bound.
    let toml = scenario([1000.0, 0.0], "")
        .replace("duration_s = 0.1", "duration_s = 0.1\npreloaded = false")
        .replace("bandwidth_gbps = 100\n", "bandwidth_gbps = 100\nload_gbps = 100\n")
        .replace("[model.b]", "[model.b]\nweights_mb = 1000");
    let (system, events) = run_script(&toml, first_come);
    assert_eq!(done_at(&system, &events, "a"), [15.0]);
    assert_eq!(done_at(&system, &events, "b"), [20.0]);
}

/// What `bandwidth-aware` foresees of the bus is what the simulator does: work beside an urgent stage is held back if and only if the stage
/// would be late.
#[test]
fn a_policy_foresees_the_bus_exactly() {
    let run = |toml: &str, policy: &str| {
        let system = system(toml);
        let events = crate::support::run(&system, onbeat_policy::make(policy, &system).unwrap(), 1);
        [done_at(&system, &events, "a")[0], done_at(&system, &events, "b")[0]]
    };
    let due =
        |toml: &str, ms: f64| toml.replacen("period_ms = 1000", &format!("period_ms = 1000\ndeadline_ms = {ms}"), 1);
    for (bytes, limits) in [
        ([1000.0, 1000.0], ""),
        ([600.0, 1000.0], ""),
        ([300.0, 900.0], ""),
        ([1000.0, 200.0], ""),
        ([600.0, 600.0], "bandwidth_gbps = 70"),
        ([700.0, 350.0], "bandwidth_gbps = 80"),
    ] {
        let toml = scenario(bytes, limits);
        let [together, other] = run(&toml, "edf");
        assert!(together > 10.0, "{bytes:?} {limits}: the bus is no bottleneck");
        let in_time = run(&due(&toml, together + 0.001), "bandwidth-aware:margin_ms=0");
        assert_eq!(in_time, [together, other], "{bytes:?} {limits}: on time beside the other");
        let late = run(&due(&toml, together - 0.001), "bandwidth-aware:margin_ms=0");
        assert_eq!(late, [10.0, 20.0], "{bytes:?} {limits}: one after the other");
    }
}

/// An answer whose tokens the bus would delay is protected as a frame is: the other work, which has time, waits.
#[test]
fn an_answer_keeps_its_pace_beside_a_memory_hog() {
    // 100 tokens of 10 ms, every 5 s, and 900 ms of work: side by side a token takes 19 ms.
    let scenario = |tpot: f64, preemption: &str| {
        format!(
            r#"
            name = "hog"
            duration_s = 20
            [platform]
            name = "p"
            memory = {{ bandwidth_gbps = 100 }}
            processor = [
                {{ name = "gpu", kind = "gpu", preemption = "{preemption}" }},
                {{ name = "npu", kind = "npu", preemption = "segment" }},
            ]
            [model.llm]
            shape = "autoregressive"
            [model.net]
            {}
            [[cost]]
            model = "net"
            processor = "npu"
            latency_ms = 900
            bytes_mb = 80000
            segments = 90
            [[session]]
            name = "chat"
            model = "llm"
            arrival = {{ process = "periodic", period_s = 5 }}
            prompt = 10
            output = 100
            ttft_ms = 500
            tpot_ms = {tpot}
            [[stream]]
            name = "upscale"
            model = "net"
            period_ms = 5000
            deadline_ms = 4500
            "#,
            language_cost("llm", "gpu", 100.0, 10.0, "bytes_mb = 900")
        )
    };
    let late = |toml: &str, policy: &str| {
        let system = system(toml);
        let statistics = Statistics::new(&system, 1, policy);
        let made = onbeat_policy::make(policy, &system).unwrap();
        let summary = simulate(&system, made, policy, 1, statistics).unwrap().1.finish();
        ["chat", "upscale"].map(|name| {
            let source = summary.sources.iter().find(|source| source.name == name).unwrap();
            source.values[&Metric::ViolationRate]
        })
    };
    for preemption in ["segment", "never"] {
        assert_eq!(late(&scenario(12.0, preemption), "edf"), [1.0, 0.0]);
        assert_eq!(late(&scenario(12.0, preemption), "bandwidth-aware"), [0.0, 0.0]);
        // Where nobody could keep the goal, nobody waits for it.
        assert_eq!(late(&scenario(9.0, preemption), "bandwidth-aware"), [1.0, 0.0]);
    }
}
