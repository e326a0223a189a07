//! Results that others published, and bounds that must hold.

use onbeat_analysis::bound::lower_bound;
use onbeat_analysis::response_time::{Order, response_times};
use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::{StopReason, What};
use onbeat_core::id::{Id, ProcessorId};
use onbeat_core::metric::Metric;
use onbeat_core::spec::{FileKind, Library, NoFiles, Options};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_sim::{Checker, simulate};

use crate::support::{run, times};

fn shipped(scenario: &str, platform: &str) -> System {
    Library::shipped()
        .resolve(scenario, Some(platform), &Options::default(), &NoFiles)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn summary(system: &System, policy: &str, seed: u64) -> Summary {
    let made = onbeat_policy::make(policy, system).unwrap_or_else(|error| panic!("{error}"));
    let sinks = (Statistics::new(system, seed, policy), Checker::new(system));
    let (_, (statistics, checker)) = simulate(system, made, policy, seed, sinks).unwrap_or_else(|e| panic!("{e}"));
    let violations = checker.finish();
    assert!(violations.is_empty(), "{policy}: {violations:#?}");
    statistics.finish()
}

/// XRBench (MLSys 2023), repository commit 8915666, VR_gaming. The scenario's description and the page of `latency-greedy` list the
/// harness's quirks that are emulated. The profile of 4K WS holds the repository's own figures; the others are rounded to 0.01 ms and
/// 0.1 or 1 mJ, hence the tolerance. Left out are the two OS configurations, whose scores hang on a quirk that no chain can have (a
/// dependency on the *number* of upstream frames).
#[test]
fn xrbench_vr_gaming_scores_what_the_repository_publishes() {
    for (platform, published, tolerance) in [
        ("xrbench-4k-ws", 86.466_141, 1e-4),
        ("xrbench-8k-ws", 93.96, 0.05),
        ("xrbench-8k-rs", 97.17, 0.05),
        // One frame in the balance: 0.01 ms of rounding moves the score from 46.6 to 50.4.
        ("xrbench-4k-rs", 50.05, 2.0),
    ] {
        let system = shipped("xrbench-vr-gaming-compat", platform);
        let score = summary(&system, "latency-greedy:tick_ms=16", 1).run[&Metric::XrbenchRepoScore];
        assert!((score - published).abs() < tolerance, "{platform}: {score}, published {published}");
    }
    // The quirk matters: without it the same scheduler scores higher.
    let system = shipped("xrbench-vr-gaming-compat", "xrbench-4k-ws");
    let without = summary(&system, "latency-greedy", 1).run[&Metric::XrbenchRepoScore];
    assert!(without > 90.0, "{without}");
}

/// XSched (OSDI 2025), background blur and whisper on one NPU: native first come first served makes the frames' P99 many times that of
/// the laxity policy (880 ms against 95 ms there; the scenario's description says what differs).
#[test]
fn a_whisper_call_ruins_the_frames_under_fcfs_and_not_under_laxity() {
    let system = shipped("blur-and-whisper", "intel-npu-3720");
    let p99 = |policy: &str| {
        let summary = summary(&system, policy, 1);
        let camera = summary.sources.iter().find(|source| source.name == "camera");
        camera.unwrap_or_else(|| panic!("the scenario has a camera")).values[&Metric::ResponseP99]
    };
    let (fcfs, llf) = (p99("fcfs"), p99("llf"));
    assert!(fcfs > 700.0 && fcfs < 900.0, "{fcfs} ms");
    assert!(fcfs > 5.0 * llf, "fcfs {fcfs} ms, llf {llf} ms");
}

/// No policy beats the lower bound, on any shipped scenario.
#[test]
fn no_policy_beats_the_lower_bound() {
    let mut compared = 0;
    for scenario in Library::shipped().names(FileKind::Scenario) {
        let spec = Library::shipped().scenario(scenario, &NoFiles).unwrap_or_else(|errors| panic!("{errors}"));
        let platform = spec.runs_on.first().map(String::as_str);
        let options = Options { duration: Some(onbeat_core::units::Nanos::from_secs(5.0)), ..Options::default() };
        if spec.warm_up_s >= 5.0 {
            continue;
        }
        let system =
            Library::shipped().resolve(scenario, platform, &options, &NoFiles).unwrap_or_else(|e| panic!("{e}"));
        let bound = lower_bound(&system);
        for policy in ["edf", "eft", "llf"] {
            let seeds = 3;
            let runs: Vec<Summary> = (0..seeds).map(|seed| summary(&system, policy, seed)).collect();
            let rates: Vec<f64> = runs.iter().filter_map(|run| run.run.get(&Metric::ViolationRate).copied()).collect();
            if rates.len() < seeds as usize {
                continue;
            }
            let mean = rates.iter().sum::<f64>() / f64::from(seeds as u32);
            // A bound in expectation may be missed by chance; three short runs are given two points.
            let slack = if bound.in_expectation { 0.02 } else { 1e-9 };
            assert!(
                mean >= bound.violation_rate - slack,
                "{scenario}, {policy}: {mean} below {}",
                bound.violation_rate
            );
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}

/// The first seconds of every shipped scenario on every platform that it is for.
fn beginnings() -> impl Iterator<Item = (&'static str, System)> {
    Library::shipped().names(FileKind::Scenario).into_iter().flat_map(|scenario| {
        let spec = Library::shipped().scenario(scenario, &NoFiles).unwrap_or_else(|errors| panic!("{errors}"));
        // Requests of sessions come seldom.
        let measured = if spec.stream.is_empty() { 10.0 } else { 3.0 };
        let length = onbeat_core::units::Nanos::from_secs((spec.warm_up_s + measured).min(spec.duration_s));
        let options = Options { duration: Some(length), ..Options::default() };
        let platforms: Vec<Option<&str>> = spec
            .runs_on
            .iter()
            .map(|name| Some(name.as_str()))
            .chain(spec.runs_on.is_empty().then_some(None))
            .collect();
        let resolve = |platform| {
            Library::shipped().resolve(scenario, platform, &options, &NoFiles).unwrap_or_else(|e| panic!("{e}"))
        };
        platforms.into_iter().map(|platform| (scenario, resolve(platform))).collect::<Vec<_>>()
    })
}

/// Every policy gets through every shipped scenario, with all invariants.
#[test]
fn every_policy_runs_every_shipped_scenario() {
    for (scenario, system) in beginnings() {
        for policy in onbeat_policy::all() {
            // `summary` checks the invariants.
            let run = summary(&system, policy.name, 7);
            assert!(run.run[&Metric::Jobs] > 0.0, "{scenario}: {}", policy.name);
        }
    }
}

/// Policies that give spare processors to work that can use them do the same as EDF where there is no such work, preemption included.
#[test]
fn spare_processors_make_no_difference_where_nothing_can_use_them() {
    let (mut compared, mut preempted) = (0, 0);
    for (scenario, system) in beginnings() {
        let divided = system.models.iter().any(|model| model.split.is_some());
        let drafted = system.nodes.iter().any(|node| node.draft.is_some());
        let attended = system.nodes.iter().any(|node| node.attention.is_some());
        for parameter in ["", ":preemptive=false"] {
            let events =
                |policy: &str| run(&system, onbeat_policy::make(&format!("{policy}{parameter}"), &system).unwrap(), 7);
            let edf = events("edf");
            preempted += times(&edf, |what| matches!(what, What::Stop { why: StopReason::Preempted, .. })).len();
            for (policy, used) in [("hetero-split", divided), ("speculative", drafted), ("attention-offload", attended)]
            {
                if !used {
                    assert!(events(policy) == edf, "{scenario}: {policy}{parameter}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100 && preempted > 100, "{compared} runs, {preempted} preemptions");
}

/// The simulated maximum stays below the response-time bound, and comes close to it where the critical instant occurs.
#[test]
fn simulated_response_times_stay_below_their_bounds() {
    for (preemption, tight) in [("anytime", true), ("segment", false), ("never", false)] {
        let toml = format!(
            r#"
            name = "bounds"
            duration_s = 4
            [platform]
            name = "p"
            [platform.memory]
            [[platform.processor]]
            name = "cpu"
            kind = "cpu"
            preemption = "{preemption}"
            [model.a]
            [model.b]
            [model.c]
            [[cost]]
            model = "a"
            processor = "cpu"
            latency_ms = 1
            [[cost]]
            model = "b"
            processor = "cpu"
            latency_ms = 3
            segments = 3
            [[cost]]
            model = "c"
            processor = "cpu"
            latency_ms = 5
            segments = 2
            [[stream]]
            name = "a"
            model = "a"
            period_ms = 4
            [[stream]]
            name = "b"
            model = "b"
            period_ms = 10
            [[stream]]
            name = "c"
            model = "c"
            period_ms = 20
            "#
        );
        let system = crate::support::system(&toml);
        for (order, policy) in [(Order::FixedPriority, "fixed-priority"), (Order::Edf, "edf")] {
            let bounds = response_times(&system, ProcessorId::new(0), order);
            let run = summary(&system, policy, 1);
            for (source, bound) in run.sources.iter().zip(bounds) {
                let bound = bound.unwrap_or_else(|why| panic!("{}: {why}", source.name)).as_ms();
                let worst = source.values[&Metric::ResponseMax];
                assert!(worst <= bound + 1e-9, "{policy}, {preemption}, {}: {worst} ms above {bound} ms", source.name);
                if tight && order == Order::FixedPriority {
                    // All are released together at time zero: Liu and Layland's critical instant.
                    assert!((worst - bound).abs() < 1e-9, "{}: {worst} ms, bound {bound} ms", source.name);
                }
            }
        }
    }
}

/// DREAM (ASPLOS 2023, abstract) lowers UXCost by 32.2% and 50.0% in the geometric mean against its two baselines, over five scenarios of
/// real-time multi-model work on two accelerators. Scenarios and platforms are not public in detail; XRBench's are of the same kind
/// and in part by the same authors. The direction and the rough size must be the same against first come, first served.
#[test]
fn dream_lowers_uxcost_and_violations_against_fcfs() {
    let scenarios = [
        "xrbench-ar-assistant",
        "xrbench-ar-gaming",
        "xrbench-outdoor-activity-a",
        "xrbench-outdoor-activity-b",
        "xrbench-social-interaction-a",
        "xrbench-social-interaction-b",
        "xrbench-vr-gaming",
    ];
    let (mut log_ratio, mut violations) = (0.0, [0.0, 0.0]);
    for scenario in scenarios {
        let system = shipped(scenario, "xrbench-dual-4k-ws-4k-os");
        let [fcfs, dream] = ["fcfs", "dream:drop=true"].map(|policy| summary(&system, policy, 1));
        let cost = |summary: &Summary| summary.run[&Metric::UxCost];
        log_ratio += (cost(&dream) / cost(&fcfs)).ln() / scenarios.len() as f64;
        for (sum, summary) in violations.iter_mut().zip([&fcfs, &dream]) {
            *sum += summary.run[&Metric::MeanViolationRate] / scenarios.len() as f64;
        }
    }
    let reduction = 1.0 - log_ratio.exp();
    assert!(violations[1] < violations[0], "{violations:?}");
    assert!((0.15..0.8).contains(&reduction), "{reduction}");
}

#[test]
fn bandwidth_aware_takes_a_run_off_its_processor_once_in_a_decision() {
    // Work that its turn has just taken off made way a second time here, which is impossible.
    let system = shipped("desktop-agents", "ryzen-ai-7-350");
    for seed in 0..6 {
        let summary = summary(&system, "bandwidth-aware", seed);
        assert!(summary.run[&Metric::Jobs] > 100.0);
    }
}
