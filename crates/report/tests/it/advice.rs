//! The advice in all its cases.

use onbeat_core::metric::Metric;
use onbeat_report::advice::{Advice, advise};
use onbeat_report::{Bound, Comparison, Reason};

use crate::sample::{comparison, statistic, system};

fn text(policies: &[(&str, &[f64])], seeds: u64, change: impl Fn(&mut Comparison)) -> String {
    advice(policies, seeds, change).text()
}

fn advice(policies: &[(&str, &[f64])], seeds: u64, change: impl Fn(&mut Comparison)) -> Advice {
    let mut system = system(0);
    system.warnings.clear();
    let mut comparison = comparison(system, policies, seeds);
    for run in comparison.rows.iter_mut().flat_map(|row| &mut row.runs) {
        run.provenance.clear();
    }
    change(&mut comparison);
    advise(&comparison)
}

fn unchanged(_: &mut Comparison) {}

#[test]
fn no_policy() {
    assert_eq!(text(&[], 1, unchanged), "No policy ran.");
}

#[test]
fn one_policy() {
    insta::assert_snapshot!(text(&[("edf", &[0.02, 0.0, 0.1])], 5, unchanged));
}

#[test]
fn a_clear_winner() {
    insta::assert_snapshot!(text(
        &[("edf", &[0.02, 0.0, 0.1]), ("llf", &[0.0, 0.0, 0.01]), ("fcfs", &[0.4, 0.3, 0.5])],
        5,
        unchanged
    ));
}

#[test]
fn within_the_noise() {
    // Seeds shake each policy by its name's length, so that these two change places from seed to seed.
    insta::assert_snapshot!(text(
        &[("edf", &[0.02, 0.0, 0.1]), ("llf-2", &[0.02, 0.0, 0.1001]), ("fcfs", &[0.4, 0.3, 0.5])],
        5,
        unchanged
    ));
}

#[test]
fn one_seed_cannot_tell() {
    insta::assert_snapshot!(text(&[("edf", &[0.02, 0.0, 0.1]), ("llf", &[0.0, 0.0, 0.01])], 1, unchanged));
}

#[test]
fn everything_is_perfect() {
    let advice = advice(&[("edf", &[0.0]), ("round-robin", &[0.0]), ("llf", &[0.0])], 3, unchanged);
    insta::assert_snapshot!(advice.text());
}

#[test]
fn equal_but_not_perfect() {
    let advice = advice(&[("edf", &[0.2]), ("llf", &[0.2])], 3, unchanged);
    assert_eq!(advice.policy, None, "nothing speaks for either");
    insta::assert_snapshot!(advice.text());
}

#[test]
fn perfect_and_others() {
    insta::assert_snapshot!(text(&[("edf", &[0.0]), ("llf", &[0.0]), ("fcfs", &[0.4, 0.3, 0.5])], 3, unchanged));
}

#[test]
fn nothing_serves() {
    insta::assert_snapshot!(text(&[("edf", &[0.9, 0.8, 1.0]), ("llf", &[0.95, 0.9, 1.0])], 3, |comparison| {
        comparison.bound = Bound { reasons: vec![Reason::Overload { load: 1.84 }], ..Bound::default() };
        comparison.bound.run.insert(Metric::MeanViolationRate, 0.4);
    }));
}

#[test]
fn the_bound_is_reached_or_not_needed() {
    let at = |bound: f64| {
        text(&[("edf", &[0.3]), ("fcfs", &[0.5])], 3, |comparison| {
            let mean = comparison.rows[0].run[&Metric::MeanViolationRate].mean;
            comparison.bound.run.insert(Metric::MeanViolationRate, mean * bound);
        })
    };
    assert!(at(1.0).contains("`edf` reaches it"), "{}", at(1.0));
    assert!(at(0.5).contains("are left to gain"), "{}", at(0.5));
    assert!(at(0.0).contains("a better policy may exist"), "{}", at(0.0));
}

#[test]
fn without_deadlines_response_times_decide() {
    insta::assert_snapshot!(text(&[("edf", &[0.0]), ("round-robin", &[0.3])], 3, |comparison| {
        for row in &mut comparison.rows {
            for values in std::iter::once(&mut row.run).chain(&mut row.sources) {
                values.retain(|metric, _| !metric.name().contains("violation"));
            }
            for run in &mut row.runs {
                run.run.retain(|metric, _| !metric.name().contains("violation"));
            }
        }
        comparison.metric = None;
        comparison.judge(statistic);
    }));
}

#[test]
fn nothing_was_judged_or_finished() {
    insta::assert_snapshot!(text(&[("edf", &[0.0]), ("llf", &[0.3])], 3, |comparison| {
        for row in &mut comparison.rows {
            row.run.clear();
        }
        comparison.metric = None;
        comparison.judge(statistic);
    }));
}

#[test]
fn another_count_has_another_winner() {
    // `sjf` starves the assistant, which has few jobs.
    let text = text(&[("edf", &[0.05, 0.05, 0.1]), ("sjf", &[0.0, 0.0, 0.9])], 5, unchanged);
    assert!(text.starts_with("Use `edf`"), "{text}");
    assert!(text.contains("Counting every job alike instead of every stream, `sjf` misses fewer"), "{text}");
}

#[test]
fn many_reasons_are_counted_and_those_in_words_are_kept() {
    let text = text(&[("edf", &[0.3]), ("fcfs", &[0.5])], 3, |comparison| {
        let stated = |i: u32| Reason::Stated { text: format!("reason {i}.") };
        comparison.bound.reasons = (1..=5).map(stated).collect();
        comparison.bound.run.insert(Metric::MeanViolationRate, 0.1);
    });
    let expected = "No policy can go below 10.00%: reason 1; reason 2; reason 3; and 2 more reasons; at most";
    assert!(text.contains(expected), "{text}");
}
