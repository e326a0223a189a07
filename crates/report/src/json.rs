//! The report as JSON: the documented, stable form for other programs.
//!
//! # Format, version 1
//! One object:
//!
//! | field | meaning |
//! |---|---|
//! | `format` | version of this form: 1 |
//! | `onbeat` | version of onbeat that wrote it |
//! | `command` | command line that gives the report again, or null |
//! | `comparisons[]` | one per scenario and platform |
//! | `.scenario`, `.platform`, `.system_hash` | what was run; the same hash is the same system |
//! | `.duration_s`, `.warm_up_s`, `.seeds` | length of a run, what counts in no statistic, the seeds |
//! | `.metric` | name of the metric that ranks the policies, or null |
//! | `.advice` | `policy` (or null), `headline`, `sentences`, in which names stand in backquotes |
//! | `.bound` | `run` and `sources[]`: best possible values by metric; `reasons[]` |
//! | `.policies[]` | best first: `policy`, `verdict` (`best`, `same`, `within_noise`, `worse`, `unknown`), `difference` from the best |
//! | `..run`, `..sources[]`, `..processors[]` | `mean`, `half_width` (95%, or null) and `n` by metric; the latter two with a `name` |
//! | `..response_bounds_ms[]` | proven bounds of the response time by source, or null |
//! | `..runs[]` | one per seed: the [`Summary`] as onbeat-core documents it |
//! | `.figures[]`, `.assumptions[]`, `.warnings[]` | what the results rest on |
//!
//! Metrics are named and in the units as the metrics' reference says; rates are fractions from 0 to 1. Within a version, fields are only
//! added.

use onbeat_core::metric::Metric;
use onbeat_core::summary::Summary;
use onbeat_core::system::Figure;
use serde::Serialize;

use crate::advice::{Advice, advise};
use crate::model::{Bound, Comparison, PolicyRow, Report, Statistic, Statistics, Verdict};

/// Version of the format that this crate writes.
pub const FORMAT: u32 = 1;

#[derive(Serialize)]
struct ReportView<'a> {
    format: u32,
    onbeat: &'a str,
    command: Option<&'a str>,
    comparisons: Vec<ComparisonView<'a>>,
}

#[derive(Serialize)]
struct ComparisonView<'a> {
    scenario: &'a str,
    platform: &'a str,
    system_hash: String,
    duration_s: f64,
    warm_up_s: f64,
    seeds: Vec<u64>,
    metric: Option<Metric>,
    advice: Advice,
    bound: &'a Bound,
    policies: Vec<PolicyView<'a>>,
    figures: &'a [Figure],
    assumptions: &'a [String],
    warnings: &'a [String],
}

#[derive(Serialize)]
struct PolicyView<'a> {
    policy: &'a str,
    verdict: Verdict,
    difference: Option<Statistic>,
    run: &'a Statistics,
    sources: Vec<Named<'a>>,
    processors: Vec<Named<'a>>,
    response_bounds_ms: &'a [Option<f64>],
    runs: &'a [Summary],
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    values: &'a Statistics,
}

/// The report as JSON, indented.
pub fn render(report: &Report) -> String {
    let view = ReportView {
        format: FORMAT,
        onbeat: &report.onbeat,
        command: report.command.as_deref(),
        comparisons: report.comparisons.iter().map(comparison_view).collect(),
    };
    let mut text = serde_json::to_string_pretty(&view).expect("the view holds only strings, numbers and string keys");
    text.push('\n');
    text
}

fn comparison_view(comparison: &Comparison) -> ComparisonView<'_> {
    let system = &comparison.system;
    ComparisonView {
        scenario: &system.scenario,
        platform: &system.platform.name,
        system_hash: system.hash(),
        duration_s: system.duration.as_secs(),
        warm_up_s: system.warm_up.as_secs(),
        seeds: comparison.rows.first().map(|row| row.runs.iter().map(|run| run.seed).collect()).unwrap_or_default(),
        metric: comparison.metric,
        advice: advise(comparison),
        bound: &comparison.bound,
        policies: comparison.rows.iter().map(|row| policy_view(comparison, row)).collect(),
        figures: &system.figures,
        assumptions: &system.assumptions,
        warnings: &system.warnings,
    }
}

fn policy_view<'a>(comparison: &'a Comparison, row: &'a PolicyRow) -> PolicyView<'a> {
    let system = &comparison.system;
    let named = |name: &'a String, values: &'a Statistics| Named { name, values };
    PolicyView {
        policy: &row.policy,
        verdict: row.verdict,
        difference: row.difference,
        run: &row.run,
        sources: system.sources.iter().zip(&row.sources).map(|(source, values)| named(&source.name, values)).collect(),
        processors: system
            .platform
            .processors
            .iter()
            .zip(&row.processors)
            .map(|(p, values)| named(&p.name, values))
            .collect(),
        response_bounds_ms: &row.response_bounds_ms,
        runs: &row.runs,
    }
}
