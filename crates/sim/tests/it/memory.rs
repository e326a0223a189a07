//! Memory: loading, eviction, caches, and running out.

use onbeat_core::event::What;
use onbeat_core::units::Bytes;

use crate::support::{done_at, first_come, run, run_script, system, times};

/// Two models of 600 MB in 1 GB.
fn scenario(extra: &str) -> String {
    format!(
        r#"
        name = "memory"
        duration_s = 10
        {extra}
        [platform]
        name = "p"
        [platform.memory]
        capacity_gb = 1
        load_gbps = 2
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        [model.a]
        weights_mb = 600
        [model.b]
        weights_mb = 600
        [[cost]]
        model = "a"
        processor = "npu"
        latency_ms = 10
        memory_mb = 50
        [[cost]]
        model = "b"
        processor = "npu"
        latency_ms = 10
        [[stream]]
        name = "a"
        model = "a"
        period_ms = 2000
        count = 2
        [[stream]]
        name = "b"
        model = "b"
        period_ms = 2000
        phase_ms = 1000
        count = 2
        "#
    )
}

#[test]
fn models_that_do_not_fit_together_take_turns_at_the_cost_of_loading() {
    let (system, events) = run_script(&scenario(""), first_come);
    // `a` is preloaded; every other use loads 600 MB at 2 GB/s = 300 ms and evicts the other model.
    assert_eq!(done_at(&system, &events, "a"), [10.0, 2310.0]);
    assert_eq!(done_at(&system, &events, "b"), [1310.0, 3310.0]);
    assert_eq!(times(&events, |what| matches!(what, What::Evict { .. })).len(), 3);
    let peak = events
        .iter()
        .filter_map(|e| match e.what {
            What::Load { used, .. } | What::Memory { used } | What::Evict { used, .. } => Some(used),
            _ => None,
        })
        .max();
    assert_eq!(peak, Some(Bytes::from_mb(650.0)));
}

#[test]
fn a_policy_that_answers_a_shortage_with_the_impossible_is_stopped() {
    use onbeat_core::policy::{Actions, Policy, Shortage, View};

    /// Evicts the very model that it wants to load.
    #[derive(Clone, Debug)]
    struct Confused;

    impl Policy for Confused {
        fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
            first_come(view, actions);
        }
        fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
            actions.evict(view.stage(shortage.stage).model, shortage.processor);
        }
    }

    let system = crate::support::system(&scenario(""));
    let sink = onbeat_core::event::NoSink;
    let error = onbeat_sim::simulate(&system, Box::new(Confused), "confused", 1, sink).unwrap_err().to_string();
    assert!(error.contains("`confused`") && error.contains("not in memory"), "{error}");
}

#[test]
fn without_preloading_the_first_use_loads() {
    let (system, events) = run_script(&scenario("preloaded = false"), first_come);
    assert_eq!(done_at(&system, &events, "a")[0], 310.0);
}

#[test]
fn what_does_not_fit_even_alone_waits_and_is_reported() {
    let toml = scenario("").replace("memory_mb = 50", "memory_mb = 500");
    let (system, events) = run_script(&toml, first_come);
    assert!(crate::support::jobs_of(&system, &events, "a").iter().all(|job| job.1.is_none()));
    assert!(!times(&events, |what| matches!(what, What::OutOfMemory { .. })).is_empty());
    // It does not stand in the way of others.
    assert_eq!(done_at(&system, &events, "b"), [1310.0, 3010.0]);
    assert_eq!(times(&events, |what| matches!(what, What::Unfinished { .. })).len(), 2);
}

#[test]
fn a_cache_is_held_from_the_first_start_to_the_end() {
    let toml = r#"
        name = "cache"
        duration_s = 10
        [platform]
        name = "p"
        [platform.memory]
        capacity_gb = 1
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        [model.llm]
        shape = "autoregressive"
        weights_mb = 100
        kv_kb_per_token = 100
        [[cost]]
        model = "llm"
        processor = "npu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 10]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 100
        output = 20
    "#;
    let (_, events) = run_script(toml, first_come);
    let used: Vec<f64> = events
        .iter()
        .filter_map(|e| match e.what {
            What::Load { used, .. } | What::Memory { used } => Some(used.as_mb()),
            _ => None,
        })
        .collect();
    // Weights, then weights and 120 tokens of 0.1 MB, then weights again.
    assert_eq!(used, [100.0, 112.0, 100.0]);
}

#[test]
fn who_was_refused_is_tried_again_when_the_weights_in_its_way_are_not_used_any_more() {
    // Neither holds anything but weights, so that nothing is freed when the first ends: its model can be evicted then.
    let toml = r#"
        name = "weights"
        duration_s = 1
        [platform]
        name = "p"
        memory = { capacity_gb = 0.15 }
        processor = [{ name = "cpu", kind = "cpu" }, { name = "npu", kind = "npu" }]
        [model]
        first = { weights_mb = 100 }
        second = { weights_mb = 100 }
        [[cost]]
        model = "first"
        processor = "cpu"
        latency_ms = 500
        [[cost]]
        model = "second"
        processor = "npu"
        latency_ms = 10
        [[stream]]
        name = "a"
        model = "first"
        period_ms = 5000
        [[stream]]
        name = "b"
        model = "second"
        period_ms = 5000
        phase_ms = 100
    "#;
    let system = system(toml);
    for policy in ["fcfs", "edf", "onbeat"] {
        let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), 1);
        assert_eq!(done_at(&system, &events, "b"), [510.0], "{policy}");
    }
}
