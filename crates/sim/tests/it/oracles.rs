//! Results that theory knows.

use onbeat_core::event::{Event, What};
use onbeat_core::system::System;

use crate::support::{Script, first_come, run, system};

/// A queue: Poisson arrivals at 0.7 per ms of service time, one server, first come first served.
fn queue(variation: &str, cost: &str) -> String {
    format!(
        r#"
        name = "queue"
        duration_s = 400
        warm_up_s = 1
        {variation}
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "server"
        kind = "cpu"
        [model.work]
        [[cost]]
        model = "work"
        processor = "server"
        {cost}
        [[stream]]
        name = "customers"
        model = "work"
        arrival = {{ process = "poisson", rate_per_s = 700 }}
        "#
    )
}

/// Mean time from release to start [ms], over all jobs of a run.
fn mean_wait(system: &System, seed: u64) -> f64 {
    let events = run(system, Box::new(Script(first_come)), seed);
    let mut released = std::collections::BTreeMap::new();
    let (mut sum, mut n) = (0.0, 0.0);
    for Event { at, what } in events {
        match what {
            What::Release { job, nominal, .. } => {
                released.insert(job, nominal);
            }
            // One stage per job and no preemption: stages are numbered like jobs.
            What::Start { stage, .. } => {
                let nominal = released.remove(&stage).unwrap();
                sum += (at - nominal).as_ms();
                n += 1.0;
            }
            _ => {}
        }
    }
    sum / n
}

/// Checks that the mean over independent seeds agrees with theory within its own 99.9% confidence interval.
fn agrees(toml: &str, theory_ms: f64) {
    let system = system(toml);
    let waits: Vec<f64> = (0..8).map(|seed| mean_wait(&system, seed)).collect();
    let n = waits.len() as f64;
    let mean = waits.iter().sum::<f64>() / n;
    let variance = waits.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / (n - 1.0);
    // Student's t for 7 degrees of freedom.
    let half_width = 5.408 * (variance / n).sqrt();
    assert!((mean - theory_ms).abs() <= half_width, "{mean} ± {half_width} ms, theory says {theory_ms} ms");
    assert!(half_width < 0.15 * theory_ms, "the test is too blunt: ± {half_width} ms");
}

#[test]
fn m_m_1() {
    // rho / (mu - lambda) = 0.7 / 0.3 ms.
    agrees(&queue("[variation]\nkind = \"exponential\"", "latency_ms = 1"), 0.7 / 0.3);
}

#[test]
fn m_d_1() {
    // Half of M/M/1.
    agrees(&queue("", "latency_ms = 1"), 0.7 / 0.3 / 2.0);
}

#[test]
fn m_g_1() {
    // Uniform 0.5..1.5 ms: E[S^2] = 1 + 1/12; Pollaczek-Khinchine: lambda E[S^2] / (2 (1 - rho)).
    agrees(&queue("[variation]\nkind = \"uniform\"\nspread = 0.5", "latency_ms = 1"), 0.7 * (1.0 + 1.0 / 12.0) / 0.6);
}

#[test]
fn edf_meets_every_deadline_up_to_full_load() {
    // U = 2/5 + 3/10 + 6/20 = 1 on one preemptive processor (Liu and Layland 1973, theorem 7).
    let toml = r#"
        name = "liu-layland"
        duration_s = 2
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "cpu"
        kind = "cpu"
        preemption = "anytime"
        [model.a]
        [model.b]
        [model.c]
        [[cost]]
        model = "a"
        processor = "cpu"
        latency_ms = 2
        [[cost]]
        model = "b"
        processor = "cpu"
        latency_ms = 3
        [[cost]]
        model = "c"
        processor = "cpu"
        latency_ms = 6
        [[stream]]
        name = "a"
        model = "a"
        period_ms = 5
        [[stream]]
        name = "b"
        model = "b"
        period_ms = 10
        [[stream]]
        name = "c"
        model = "c"
        period_ms = 20
    "#;
    let system = system(toml);
    let lateness = |policy: &str| {
        let policy = onbeat_policy::make(policy, &system).unwrap();
        let events = run(&system, policy, 1);
        let mut deadlines = std::collections::BTreeMap::new();
        let mut late = 0;
        let mut done = 0;
        for Event { at, what } in events {
            match what {
                What::Release { job, deadline, .. } => {
                    deadlines.insert(job, deadline.unwrap());
                }
                What::JobDone { job } => {
                    done += 1;
                    late += u32::from(at > deadlines[&job]);
                }
                _ => {}
            }
        }
        (done, late)
    };
    assert_eq!(lateness("edf"), (400 + 200 + 100, 0));
    // Without preemption the same load does miss deadlines: the test can fail.
    assert!(lateness("fcfs").1 > 0);
}

/// Requests of two lengths, 1 and 10 ms, one in ten of them long, at a load of 0.665 on a processor that can be taken over at any
/// time. An output token takes 10 µs, a prompt as good as nothing.
fn two_lengths() -> System {
    system(
        r#"
        name = "two-lengths"
        duration_s = 12
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "server"
        kind = "cpu"
        preemption = "anytime"
        [model.llm]
        shape = "autoregressive"
        [[cost]]
        model = "llm"
        processor = "server"
        prefill_ms = [[1, 1e-6]]
        decode_ms = [[0, 0.01]]
        [[session]]
        name = "short"
        model = "llm"
        arrival = { process = "poisson", rate_per_s = 315 }
        prompt = 1
        output = 101
        [[session]]
        name = "long"
        model = "llm"
        arrival = { process = "poisson", rate_per_s = 35 }
        prompt = 1
        output = 1001
        "#,
    )
}

/// Mean time from release to completion [ms] of the jobs of each source.
pub(crate) fn mean_responses(system: &System, policy: Box<dyn onbeat_core::policy::Policy>, seed: u64) -> Vec<f64> {
    let mut released = std::collections::BTreeMap::new();
    let mut sums = vec![(0.0, 0.0); system.sources.len()];
    for Event { at, what } in run(system, policy, seed) {
        match what {
            What::Release { job, source, nominal, .. } => {
                released.insert(job, (source.0 as usize, nominal));
            }
            What::JobDone { job } => {
                let (source, nominal) = released[&job];
                sums[source].0 += (at - nominal).as_ms();
                sums[source].1 += 1.0;
            }
            _ => {}
        }
    }
    sums.into_iter().map(|(sum, n)| sum / n).collect()
}

/// Checks that the means over independent seeds agree with theory within their own 99.9% confidence intervals.
fn responses_agree(system: &System, policy: impl Fn() -> Box<dyn onbeat_core::policy::Policy>, theory_ms: [f64; 2]) {
    let all: Vec<Vec<f64>> = (0..8).map(|seed| mean_responses(system, policy(), seed)).collect();
    for (source, theory) in theory_ms.into_iter().enumerate() {
        let means: Vec<f64> = all.iter().map(|means| means[source]).collect();
        let mean = means.iter().sum::<f64>() / 8.0;
        let variance = means.iter().map(|m| (m - mean) * (m - mean)).sum::<f64>() / 7.0;
        let half_width = 5.408 * (variance / 8.0).sqrt();
        assert!((mean - theory).abs() <= half_width, "source {source}: {mean} ± {half_width} ms, theory {theory} ms");
        assert!(half_width < 0.3 * theory, "the test is too blunt: ± {half_width} ms of {theory} ms");
    }
}

#[test]
fn m_g_1_under_processor_sharing() {
    /// One after the other, for 50 µs each: the limit of short turns is processor sharing.
    fn turns(view: &onbeat_core::policy::View<'_>, actions: &mut onbeat_core::policy::Actions) {
        let p = view.processors().next().unwrap();
        if let Some(&first) = view.ready().first().filter(|_| view.free_slots(p) > 0) {
            actions.start_segments(first, p, 5);
        }
    }
    // Whatever the distribution: x / (1 - rho) (Kleinrock 1967).
    responses_agree(&two_lengths(), || Box::new(Script(turns)), [1.0 / 0.335, 10.0 / 0.335]);
}

#[test]
fn m_g_1_under_srpt() {
    // Schrage and Miller 1966, for two sizes, equal ones first come, first served, at 0.315 and 0.035 jobs per ms. A short job waits
    // for short ones and for the last ms of a long one: (0.315 * 1 + 0.035 * 1) / (2 * (1 - 0.315)); then it is not interrupted.
    let short = (0.315 + 0.035) / (2.0 * 0.685) + 1.0;
    // A long one waits for all, and until it has 1 ms left short ones overtake it.
    let long = (0.315 + 3.5) / (2.0 * 0.685 * 0.335) + 1.0 + 9.0 / 0.685;
    let system = two_lengths();
    responses_agree(&system, || onbeat_policy::make("srpt:ageing=0", &system).unwrap(), [short, long]);
}
