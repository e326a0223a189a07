//! Prompts and answers on processors of their own, by the shipped policies: what that gains and what it costs. The published figures are in
//! `disaggregation.rs`.

use onbeat_analysis::statistics::Statistics;
use onbeat_core::metric::Metric;
use onbeat_sim::{Checker, simulate};

use crate::support::{language_cost, system};

/// Two equal processors with a link of so many GB/s between them. Requests come at random, four per second: 500 tokens to read in 100 ms,
/// 50 more to write at 10 ms, at most 16 in 16 ms. A cache is 50 MB.
fn two_equal(gbps: f64) -> String {
    let costs: String = ["npu", "gpu"]
        .map(|processor| language_cost("llm", processor, 20.0, 10.0, "batch_factor = [[1, 1.0], [16, 1.6]]"))
        .concat();
    format!(
        r#"
        name = "phases"
        duration_s = 400
        warm_up_s = 10
        [platform]
        name = "p"
        memory = {{}}
        processor = [
            {{ name = "npu", kind = "npu", preemption = "segment" }},
            {{ name = "gpu", kind = "gpu", preemption = "segment" }},
        ]
        link = [{{ from = "npu", to = "gpu", latency_us = 0, bandwidth_gbps = {gbps} }}]
        [model.llm]
        shape = "autoregressive"
        kv_kb_per_token = 100
        {costs}
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "poisson", rate_per_s = 4 }}
        prompt = 500
        output = 51
        "#
    )
}

/// Mean time to the first token, 95th percentile of the time per token, and mean response time [ms].
fn times(toml: &str, policy: &str) -> [f64; 3] {
    let system = system(toml);
    let made = onbeat_policy::make(policy, &system).unwrap();
    let sinks = (Statistics::new(&system, 1, policy), Checker::new(&system));
    let (_, (statistics, checker)) = simulate(&system, made, policy, 1, sinks).unwrap();
    assert!(checker.finish().is_empty());
    let values = &statistics.finish().sources[0].values;
    [Metric::TtftMean, Metric::TpotP95, Metric::ResponseMean].map(|metric| values[&metric])
}

/// Splitwise's trade-off: with a processor for each phase no answer stalls for a prompt, so that tokens come steadily; the first token
/// comes later, because one processor reads all prompts; and each request pays for its cache's way over the link, which a slow one makes
/// too dear.
#[test]
fn a_processor_for_each_phase_buys_steady_tokens_with_later_first_ones_and_a_hand_over() {
    let fast = two_equal(50.0);
    let (split, mixed) = (times(&fast, "npu-prefill"), times(&fast, "prefill-first"));
    // Alone, reading is M/D/1 at a load of 0.4: 100 + 0.4 / (2 · 0.6) · 100 ms.
    assert!((split[0] - 133.3).abs() < 8.0, "first token after {} ms", split[0]);
    assert!(mixed[0] < split[0] - 10.0, "two readers are sooner than one: {} and {} ms", mixed[0], split[0]);
    // No step is longer than that of the largest batch, and the hand-over is a millisecond.
    assert!(split[1] <= 16.0 + 1.0, "{} ms per token", split[1]);
    assert!(mixed[1] > 1.3 * split[1], "a prompt stalls an answer for 100 ms: {} and {} ms", mixed[1], split[1]);
    // The slower the link, the later the answer, until splitting does not pay.
    let responses = [50.0, 1.0, 0.25].map(|gbps| times(&two_equal(gbps), "npu-prefill")[2]);
    assert!(responses[0] < responses[1] && responses[1] < responses[2], "{responses:?} ms");
    assert!(split[2] < mixed[2] && mixed[2] < responses[2], "{} and {}, {responses:?} ms", split[2], mixed[2]);
}
