//! Tables for a terminal.

use onbeat_report::table::{TableOptions, policies, render, render_one};
use onbeat_report::{Bound, Report};

use crate::sample;

#[test]
fn the_usual_comparison() {
    insta::assert_snapshot!(render(&sample::usual(), TableOptions::default()));
}

#[test]
fn one_policy_with_one_seed() {
    let mut comparison = sample::comparison(sample::system(0), &[("edf", &[0.1, 0.0, 0.0])], 1);
    comparison.bound = Bound::default();
    insta::assert_snapshot!(render_one(&comparison, TableOptions::default()));
}

#[test]
fn several_comparisons_end_with_a_matrix() {
    let mut report = sample::usual();
    report.comparisons.push(sample::comparison(sample::system(0), &[("edf", &[0.0]), ("llf", &[0.0])], 3));
    let text = render(&report, TableOptions::default());
    let (_, matrix) = text.split_once("All comparisons").expect("there is a matrix");
    insta::assert_snapshot!(matrix);
}

#[test]
fn every_width_is_kept_by_leaving_out_the_least_important_columns() {
    for width in [60, 80, 100, 110, 120, 160] {
        let text = render(&sample::usual(), TableOptions { width, colour: false });
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(text.contains("mean viol."), "the deciding metric stays");
    }
}

#[test]
fn colour_adds_only_escape_sequences() {
    let report = sample::usual();
    let plain = policies(&report.comparisons[0], TableOptions { width: 200, colour: false });
    assert!(!plain.contains('\u{1b}'));
    let coloured = policies(&report.comparisons[0], TableOptions { width: 200, colour: true });
    assert!(coloured.contains('\u{1b}'));
}

#[test]
fn an_empty_report_is_empty() {
    assert_eq!(render(&Report::default(), TableOptions::default()), "");
}
