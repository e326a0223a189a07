//! Lower bounds on violations: by hand, and against brute force.

use onbeat_analysis::bound::lower_bound;
use onbeat_core::distribution::{Distribution, Family};
use onbeat_core::id::ProcessorId;
use onbeat_core::spec::VariationKind;
use onbeat_core::system::{Arrival, Request, Variation};
use proptest::prelude::*;

use crate::support::{Builder, ms};

fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-6, "{got} instead of {want}");
}

#[test]
fn a_deadline_below_the_fastest_path_is_missed_by_all() {
    let mut builder = Builder::new(2, ms(1000));
    let stream = builder.stream(ms(50));
    builder.stage(stream, 1.0, &[Some(45.0), Some(30.0)], None);
    builder.stage(stream, 1.0, &[Some(21.0), Some(40.0)], None);
    let bound = lower_bound(&builder.system);
    assert_eq!(bound.sources[stream].violation_rate, Some(1.0));
    assert_eq!(
        bound.sources[stream].impossible.as_deref(),
        Some("its fastest path takes 51 ms alone and the deadline is 50 ms: no job can be in time")
    );
    // The job released at 950 ms is due at the very end and need not be judged.
    close(bound.violation_rate, 19.0 / 20.0);
    assert!(!bound.in_expectation && bound.binding.len() == 1, "{:?}", bound.binding);
    builder.system.sources[stream].deadline = Some(ms(51));
    assert_eq!(lower_bound(&builder.system).violation_rate, 0.0);
}

#[test]
fn an_overloaded_processor_must_turn_jobs_down() {
    let mut builder = Builder::new(1, ms(1000));
    let stream = builder.stream(ms(5));
    builder.stage(stream, 1.0, &[Some(10.0)], None);
    builder.system.sources[stream].deadline = Some(ms(100));
    let bound = lower_bound(&builder.system);
    // 180 of 200 jobs are due before the end; at most 100 can be done.
    close(bound.violations, 80.0);
    close(bound.violation_rate, 0.4);
    close(bound.mean_violation_rate, 0.4);
    assert_eq!(bound.binding, ["p0 would have to be busy all the time from 0 ns to 1 s"]);
    builder.system.platform.processors[ProcessorId(0)].slots = 2;
    assert_eq!(lower_bound(&builder.system).violation_rate, 0.0);
    assert!(lower_bound(&builder.system).binding.is_empty());
}

#[test]
fn an_overload_during_a_phase_of_use_is_seen() {
    let mut builder = Builder::new(1, ms(1000));
    let stream = builder.stream(ms(10));
    builder.stage(stream, 1.0, &[Some(20.0)], None);
    builder.system.sources[stream].deadline = Some(ms(20));
    builder.system.sources[stream].active = vec![(ms(200), ms(400))];
    let bound = lower_bound(&builder.system);
    // 20 jobs of 20 ms. The LP lets the whole epoch after the phase serve them: 400 ms of work from 200 ms on all fit.
    assert_eq!(bound.violation_rate, 0.0);
    // With another phase that begins 20 ms later, the time that can be used is cut there: 220 ms for 20 jobs.
    let other = builder.stream(ms(500));
    builder.stage(other, 1.0, &[Some(1.0)], None);
    builder.system.sources[other].active = vec![(ms(420), ms(1000))];
    let bound = lower_bound(&builder.system);
    close(bound.violations, 20.0 - 11.0);
}

#[test]
fn the_warm_up_does_not_count() {
    let mut builder = Builder::new(1, ms(1000));
    let stream = builder.stream(ms(50));
    builder.stage(stream, 1.0, &[Some(60.0)], None);
    builder.system.warm_up = ms(500);
    let bound = lower_bound(&builder.system);
    close(bound.judged, 10.0);
    close(bound.violations, 9.0);
}

#[test]
fn a_policy_can_turn_down_the_long_jobs() {
    let mut builder = Builder::new(1, ms(1000));
    let stream = builder.stream(ms(10));
    builder.stage(stream, 1.0, &[Some(1.0)], None);
    builder.stage(stream, 0.5, &[Some(30.0)], None);
    builder.system.sources[stream].deadline = Some(ms(50));
    let bound = lower_bound(&builder.system);
    // 95 of 100 jobs are due before the end, 47.5 of each kind. All short ones take 47.5 ms; the rest of the time is
    // enough for 952.5 / 31 long ones.
    close(bound.violations, 47.5 - 952.5 / 31.0);
    assert!(bound.in_expectation);
}

#[test]
fn goals_of_requests_can_be_impossible() {
    let mut builder = Builder::new(2, ms(100_000));
    let session = builder.session(1.0);
    builder.language(session, &[Some((1.0, 20.0)), Some((2.0, 10.0))], 100, 11);
    builder.system.sources[session].ttft = Some(ms(99));
    let bound = lower_bound(&builder.system);
    assert_eq!(bound.sources[session].violation_rate, Some(1.0));
    assert!(
        bound.binding[0].contains("first token comes after 100 ms at best and the TTFT goal is 99 ms"),
        "{:?}",
        bound.binding
    );
    close(bound.violation_rate, (100.0 - 0.099) / 100.0);
    // The prefill on p0 and the decoding on p1 meet both goals.
    builder.system.sources[session].ttft = Some(ms(100));
    builder.system.sources[session].tpot = Some(ms(10));
    assert_eq!(lower_bound(&builder.system).sources[session].violation_rate, Some(0.0));
    builder.system.sources[session].tpot = Some(ms(9));
    let bound = lower_bound(&builder.system);
    // Every judged job is a violation, but a policy can leave all answers unfinished.
    assert_eq!(bound.sources[session].violation_rate, Some(1.0));
    assert_eq!(bound.violation_rate, 0.0);
}

#[test]
fn random_sizes_and_times_count_with_the_smallest_of_each_slice() {
    let mut builder = Builder::new(1, ms(100_000));
    let session = builder.session(1.0);
    let node = builder.language(session, &[Some((1.0, 1.0))], 100, 1);
    builder.system.sources[session].ttft = Some(ms(120));
    // Prompts from 100 to 180: the slices from 140 and from 160 cannot be in time, the one from 120 can.
    builder.system.nodes[node].prompt =
        Some(Distribution { family: Family::Uniform { low: 100.0, high: 180.0 }, min: 1.0, max: 1e6 });
    let bound = lower_bound(&builder.system);
    let due = (100.0 - 0.12) / 100.0;
    close(bound.violation_rate, 0.5 * due);
    assert!(bound.sources[session].impossible.as_deref().unwrap().ends_with("50.0% of the jobs cannot be in time"));
    // An unbounded factor of execution times: its lower quartiles are 0, 0.29, 0.69 and 1.39; prompts are again 100.
    builder.system.nodes[node].prompt = Some(Distribution::constant(100.0));
    builder.system.variation = Variation { kind: VariationKind::Exponential, spread: 0.0 };
    close(lower_bound(&builder.system).violation_rate, 0.25 * due);
}

#[test]
fn a_trace_is_known_request_by_request() {
    let mut builder = Builder::new(1, ms(10_000));
    let session = builder.session(1.0);
    let node = builder.language(session, &[Some((1.0, 1.0))], 1, 1);
    (builder.system.nodes[node].prompt, builder.system.nodes[node].output) = (None, None);
    builder.system.sources[session].ttft = Some(ms(100));
    let requests = [50, 60, 101, 200].into_iter().enumerate();
    let requests = requests.map(|(i, prompt)| Request { at: ms(i as u64 * 1000), prompt, output: 5 }).collect();
    builder.system.sources[session].arrival = Arrival::Trace { requests };
    let bound = lower_bound(&builder.system);
    close(bound.violations, 2.0);
    close(bound.judged, 4.0);
    assert!(!bound.in_expectation);
}

#[test]
fn sources_without_requirements_are_left_out() {
    let mut builder = Builder::new(1, ms(1000));
    let session = builder.session(1.0);
    builder.language(session, &[Some((1.0, 1.0))], 10, 10);
    let bound = lower_bound(&builder.system);
    assert_eq!((bound.judged, bound.violation_rate), (0.0, 0.0));
    assert_eq!(bound.sources[session].violation_rate, None);
}

/// The most jobs that can be assigned whole to processors without exceeding any one's time.
fn brute_force(jobs: &[[u64; 2]], left: [u64; 2]) -> usize {
    let Some((job, rest)) = jobs.split_first() else { return 0 };
    let mut best = brute_force(rest, left);
    for p in 0..2 {
        if job[p] <= left[p] {
            let mut after = left;
            after[p] -= job[p];
            best = best.max(1 + brute_force(rest, after));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_assignment_beats_the_bound(streams in prop::collection::vec((1..4_u64, [10..90_u64, 10..90]), 1..4)) {
        let mut builder = Builder::new(2, ms(100));
        let mut jobs = Vec::new();
        for &(count, [a, b]) in &streams {
            let stream = builder.stream(ms(1));
            builder.stage(stream, 1.0, &[Some(a as f64), Some(b as f64)], None);
            builder.system.sources[stream].deadline = Some(ms(95));
            builder.system.sources[stream].count = Some(count);
            jobs.extend((0..count).map(|_| [a, b]));
        }
        let bound = lower_bound(&builder.system);
        let best = brute_force(&jobs, [100, 100]);
        let unavoidable = jobs.len() - best;
        prop_assert!(bound.violations <= unavoidable as f64 + 1e-6, "{} above {unavoidable}", bound.violations);
        // A vertex of the programme cuts no more classes than there are constraints: the bound is not far off either.
        let cuts = streams.len() + 2;
        prop_assert!(bound.violations >= unavoidable as f64 - cuts as f64 - 1e-6, "{} far below {unavoidable}", bound.violations);
        prop_assert!((bound.judged - jobs.len() as f64).abs() < 1e-9);
        for (source, &(count, _)) in bound.sources.iter().zip(&streams) {
            prop_assert!(source.violation_rate.is_some_and(|rate| rate * count as f64 <= bound.violations + 1e-6));
        }
    }
}
