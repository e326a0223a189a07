//! What policies make of how jobs end: one that ends with a tool is as good as any other.

use onbeat_analysis::statistics::Statistics;
use onbeat_core::metric::Metric;
use onbeat_sim::simulate;

use crate::support::system;

/// Two equal streams, 60 ms every 100 ms, of which the processor can serve one; the first one's jobs end with `last`.
fn two_streams(last: &str) -> String {
    format!(
        r#"
        name = "two"
        duration_s = 3
        [platform]
        name = "p"
        memory = {{}}
        processor = [{{ name = "npu", kind = "npu", preemption = "segment" }}]
        [model.net]
        [[cost]]
        model = "net"
        processor = "npu"
        latency_ms = 60
        segments = 6
        [[chain.sends.stage]]
        name = "work"
        model = "net"
        {last}
        [[stream]]
        name = "sends"
        chain = "sends"
        period_ms = 100
        deadline_ms = 100
        [[stream]]
        name = "other"
        model = "net"
        period_ms = 100
        deadline_ms = 100
        "#
    )
}

#[test]
fn a_tool_at_the_end_is_no_loss() {
    const SEND: &str = "[[chain.sends.stage]]\nname = \"send\"\ntool_ms = 10\nafter = [{ stage = \"work\" }]\n";
    for policy in ["mk-firm:m=1,k=2", "skip-over:s=2"] {
        for last in ["", SEND] {
            let system = system(&two_streams(last));
            let statistics = Statistics::new(&system, 1, policy);
            let made = onbeat_policy::make(policy, &system).unwrap_or_else(|error| panic!("{error}"));
            let summary = simulate(&system, made, policy, 1, statistics).unwrap().1.finish();
            // Each stream can lose every second job, and the processor can serve one per period.
            for source in &summary.sources {
                let lost = source.values[&Metric::ViolationRate];
                assert!((0.4..=0.6).contains(&lost), "{policy}, {}, {last}: {lost}", source.name);
            }
        }
    }
}
