//! The isolation property of the constant-bandwidth server (Abeni and Buttazzo 1998): streams whose load leaves room for the
//! reservation meet their deadlines, however much the generative source asks for.

use onbeat_core::event::What;
use proptest::prelude::*;

use crate::support::{run, system};

/// One processor, streams of the given periods and loads [ms, parts of the total], and a session that always asks for more.
fn scenario(streams: &[(u32, f64)], prompt: u32) -> String {
    use std::fmt::Write;
    let mut toml = format!(
        r#"
        name = "isolation"
        duration_s = 2
        [platform]
        name = "p"
        memory = {{}}
        processor = [{{ name = "npu", kind = "npu", preemption = "anytime" }}]
        [model.llm]
        shape = "autoregressive"
        [[cost]]
        model = "llm"
        processor = "npu"
        prefill_ms = [[100, 100]]
        decode_ms = [[0, 7]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "poisson", rate_per_s = 10 }}
        prompt = {prompt}
        output = 20
        ttft_ms = 20
        "#
    );
    for (i, (period, load)) in streams.iter().enumerate() {
        write!(
            toml,
            "
            [model.m{i}]
            [[cost]]
            model = \"m{i}\"
            processor = \"npu\"
            latency_ms = {}
            [[stream]]
            name = \"s{i}\"
            model = \"m{i}\"
            period_ms = {period}
            ",
            f64::from(*period) * load,
        )
        .unwrap();
    }
    toml
}

/// How many jobs of streams are late.
fn late(toml: &str, policy: &str) -> usize {
    let system = system(toml);
    let mut due = std::collections::BTreeMap::new();
    let mut late = 0;
    for event in run(&system, onbeat_policy::make(policy, &system).unwrap(), 1) {
        match event.what {
            What::Release { job, source, deadline: Some(deadline), .. } if !system.sources[source].session => {
                due.insert(job, deadline);
            }
            What::JobDone { job, .. } => late += usize::from(due.remove(&job).is_some_and(|due| event.at > due)),
            _ => {}
        }
    }
    let end = system.duration;
    late + due.values().filter(|&&due| due < end).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn streams_beside_a_reservation_are_never_late(
        streams in prop::collection::vec((5_u32..60, 1_u32..100), 1..5),
        prompt in 20_u32..300,
        period in 10_u32..80,
    ) {
        // The streams share 0.69 of the processor, the reservation takes 0.3 of it; 0.01 is for wake-ups that round up.
        let total: u32 = streams.iter().map(|&(_, part)| part).sum();
        let streams: Vec<_> = streams.iter().map(|&(p, part)| (p, 0.69 * f64::from(part) / f64::from(total))).collect();
        let policy = format!("cbs:budget_ms={},period_ms={period}", 0.3 * f64::from(period));
        prop_assert_eq!(late(&scenario(&streams, prompt), &policy), 0);
    }

    /// The total-bandwidth server (Spuri and Buttazzo 1996), where requests take what was expected.
    #[test]
    fn streams_beside_a_total_bandwidth_server_are_never_late(
        streams in prop::collection::vec((5_u32..60, 1_u32..100), 1..5),
        prompt in 20_u32..300,
    ) {
        let total: u32 = streams.iter().map(|&(_, part)| part).sum();
        let streams: Vec<_> = streams.iter().map(|&(p, part)| (p, 0.69 * f64::from(part) / f64::from(total))).collect();
        prop_assert_eq!(late(&scenario(&streams, prompt), "tbs:bandwidth=0.3"), 0);
    }
}

#[test]
fn without_the_reservation_they_would_be() {
    assert!(late(&scenario(&[(20, 0.69)], 200), "edf") > 0);
}
