//! Policies that reckon with time to spare: what it is of a stage that is due as a whole, and of an answer that is due token by token.

use onbeat_analysis::statistics::Statistics;
use onbeat_core::metric::Metric;
use onbeat_sim::simulate;

use crate::support::{language_cost, system};

/// An agent on one GPU that plans (1 ms of prompt and 50 steps of 10 ms) and then answers (10 ms of prompt), with a first token due after
/// 611 ms: of 561 ms to spare 461 are gone if somebody takes the plan for its next token. Beside it, something else.
fn agent_and(other: &str) -> String {
    format!(
        r#"
        name = "agent"
        duration_s = 4
        [platform]
        name = "p"
        memory = {{}}
        processor = [{{ name = "gpu", kind = "gpu", preemption = "segment" }}]
        [model.llm]
        shape = "autoregressive"
        {}
        [[session]]
        name = "agent"
        chain = "agent"
        arrival = {{ process = "periodic", period_s = 100 }}
        ttft_ms = 611
        [[chain.agent.stage]]
        name = "plan"
        model = "llm"
        prompt = 1
        output = 51
        [[chain.agent.stage]]
        name = "answer"
        model = "llm"
        after = [{{ stage = "plan" }}]
        prompt = 10
        output = 2
        {other}
        "#,
        language_cost("llm", "gpu", 100.0, 10.0, "")
    )
}

/// A frame of 300 ms, due after 850 ms.
const FRAME: &str = r#"
    [model.net]
    [[cost]]
    model = "net"
    processor = "gpu"
    latency_ms = 300
    segments = 30
    [[stream]]
    name = "frame"
    model = "net"
    period_ms = 100000
    deadline_ms = 850
"#;

/// A prompt of 300 ms, due after 850 ms, which gives way every 10 ms.
const PROMPT: &str = r#"
    [model.reader]
    shape = "autoregressive"
    [[cost]]
    model = "reader"
    processor = "gpu"
    prefill_ms = [[1, 1]]
    decode_ms = [[0, 10]]
    prefill_chunk = 10
    [[session]]
    name = "other"
    model = "reader"
    arrival = { process = "periodic", period_s = 100 }
    prompt = 300
    output = 2
    ttft_ms = 850
"#;

fn violations(toml: &str, policy: &str) -> f64 {
    let system = system(toml);
    let statistics = Statistics::new(&system, 1, policy);
    let made = onbeat_policy::make(policy, &system).unwrap_or_else(|error| panic!("{error}"));
    simulate(&system, made, policy, 1, statistics).unwrap().1.finish().run[&Metric::Violations]
}

#[test]
fn a_plan_that_can_be_in_time_is_whoever_reckons_with_slack() {
    // `laxity` goes by priorities, and `jitserve` puts streams first.
    for (other, policies) in [
        (FRAME, ["edf", "edzl", "flowprefill", "llf", "laxity"]),
        (PROMPT, ["edf", "edzl", "flowprefill", "llf", "jitserve:caution=0"]),
    ] {
        for policy in policies {
            assert_eq!(violations(&agent_and(other), policy), 0.0, "{policy} beside {other}");
        }
    }
}
