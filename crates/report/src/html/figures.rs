//! Tables and charts that compare the policies.

use minijinja::Value;
use onbeat_core::metric::{Metric, Unit};
use onbeat_core::system::Source;
use onbeat_core::units::Nanos;
use serde::Serialize;

use super::page::Numbers;
use super::{HtmlOptions, safe};
use crate::charts::{self, Dot, Reference, Series};
use crate::columns::{Column, columns};
use crate::model::{Comparison, PolicyRow, Verdict};
use crate::palette::{colour, dashes};
use crate::svg::escape;

#[derive(Serialize)]
pub(super) struct Table {
    verdicts: bool,
    heads: Vec<Head>,
    rows: Vec<Row>,
    bound: Vec<String>,
    note: String,
}

#[derive(Serialize)]
pub(super) struct Head {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) meaning: String,
}

#[derive(Serialize)]
struct Row {
    policy: String,
    swatch: Value,
    verdict: &'static str,
    verdict_label: &'static str,
    verdict_title: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    text: String,
    half: Option<String>,
    best: bool,
}

#[derive(Serialize)]
pub(super) struct Violations {
    sources: Vec<SourceHead>,
    rows: Vec<BarRow>,
    bound: Vec<String>,
}

#[derive(Serialize)]
struct SourceHead {
    name: String,
    goal: String,
}

#[derive(Serialize)]
struct BarRow {
    policy: String,
    cells: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    text: String,
    width: String,
    class: &'static str,
}

#[derive(Serialize)]
pub(super) struct Chart {
    pub(super) name: String,
    pub(super) svg: Value,
}

/// Policies × the metrics that matter.
pub(super) fn table(comparison: &Comparison, numbers: &Numbers) -> Table {
    let columns = columns(comparison);
    let best: Vec<Vec<bool>> = columns.iter().map(|column| column.best(&comparison.rows)).collect();
    let heads = columns.iter().map(|column| Head {
        title: column.title().to_owned(),
        subtitle: column.subtitle(),
        meaning: format!("{}: {}", column.label(), column.metric.meaning()),
    });
    let rows = comparison.rows.iter().enumerate().map(|(r, row)| Row {
        policy: row.policy.clone(),
        swatch: safe(swatch(numbers.of(&row.policy))),
        verdict: verdict_class(row.verdict),
        verdict_label: row.verdict.short(),
        verdict_title: verdict_title(comparison, row),
        cells: columns.iter().zip(&best).map(|(column, best)| cell(column, row, best[r])).collect(),
    });
    let has_bound = columns.iter().any(|column| column.bound(comparison).is_some());
    let bound = |column: &Column| column.bound(comparison).map_or_else(|| "–".to_owned(), |value| column.format(value));
    let mut note = vec!["* best in its column.".to_owned()];
    if comparison.seeds() > 1 {
        note.push(format!("± half of the 95% confidence interval over {} seeds.", comparison.seeds()));
        note.push("“≈ noise”: cannot be told from the best policy, compared seed by seed.".to_owned());
    } else {
        note.push("With one seed, noise cannot be told from a difference.".to_owned());
    }
    if has_bound {
        note.push("Lower bound: what no policy can beat, as far as the analysis can tell.".to_owned());
    }
    Table {
        verdicts: comparison.rows.len() > 1,
        heads: heads.collect(),
        rows: rows.collect(),
        bound: if has_bound { columns.iter().map(bound).collect() } else { Vec::new() },
        note: note.join(" "),
    }
}

fn cell(column: &Column, row: &PolicyRow, best: bool) -> Cell {
    match column.value(row) {
        None => Cell { text: "–".to_owned(), half: None, best: false },
        Some(value) => Cell {
            text: column.format(value.mean),
            half: value.half_width.filter(|_| column.interval).map(|half| column.format(half)),
            best,
        },
    }
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Best => "best",
        Verdict::Same => "same",
        Verdict::WithinNoise => "noise",
        Verdict::Worse => "worse",
        Verdict::Unknown => "unknown",
    }
}

fn verdict_title(comparison: &Comparison, row: &PolicyRow) -> String {
    match (row.difference, comparison.metric) {
        (Some(difference), Some(metric)) => {
            let half =
                difference.half_width.map_or_else(String::new, |half| format!(" ± {}", metric.unit().format(half)));
            format!("{} {half} from the best, by {}", metric.show(difference.mean), metric.name())
        }
        _ => String::new(),
    }
}

/// A short piece of the policy's line.
fn swatch(number: usize) -> String {
    format!(
        r#"<svg class="swatch" width="20" height="8" aria-hidden="true"><line x1="0" y1="4" x2="20" y2="4" stroke="{}" stroke-width="3" stroke-dasharray="{}"/></svg>"#,
        colour(number),
        dashes(number)
    )
}

/// Which line is which policy.
pub(super) fn legend(comparison: &Comparison, numbers: &Numbers) -> Value {
    let item = |(i, row): (usize, &PolicyRow)| {
        let number = numbers.of(&row.policy);
        let strong = if i == 0 && comparison.rows.len() > 1 { r#" class="strong""# } else { "" };
        format!(r#"<li tabindex="0" data-series="{number}"{strong}>{}{}</li>"#, swatch(number), escape(&row.policy))
    };
    let items: String = comparison.rows.iter().enumerate().map(item).collect();
    safe(format!(r#"<ul class="legend">{items}</ul>"#))
}

/// Deadline and goals of a source in words.
pub(super) fn goals(source: &Source) -> String {
    let goals = [("deadline", source.deadline), ("TTFT", source.ttft), ("TPOT", source.tpot)];
    let set: Vec<String> = goals.into_iter().filter_map(|(name, goal)| Some(format!("{name} {}", goal?))).collect();
    if set.is_empty() { "no deadline".to_owned() } else { set.join(", ") }
}

/// Bars of the violation rates, policies × sources that have a rate.
pub(super) fn violations(comparison: &Comparison) -> Option<Violations> {
    let sources = comparison.system.sources.as_slice();
    let judged: Vec<usize> = (0..sources.len())
        .filter(|&i| comparison.rows.iter().any(|row| row.source_mean(i, Metric::ViolationRate).is_some()))
        .collect();
    if judged.is_empty() {
        return None;
    }
    let heads = judged.iter().map(|&i| SourceHead { name: sources[i].name.clone(), goal: goals(&sources[i]) });
    let rows = comparison.rows.iter().map(|row| BarRow {
        policy: row.policy.clone(),
        cells: judged.iter().map(|&i| bar(row.source_mean(i, Metric::ViolationRate))).collect(),
    });
    let bound_of = |i: usize| comparison.bound.sources.get(i)?.get(&Metric::ViolationRate).copied();
    let has_bound = judged.iter().any(|&i| bound_of(i).is_some());
    let bound =
        judged.iter().map(|&i| bound_of(i).map_or_else(|| "–".to_owned(), |value| Metric::ViolationRate.show(value)));
    Some(Violations {
        sources: heads.collect(),
        rows: rows.collect(),
        bound: if has_bound { bound.collect() } else { Vec::new() },
    })
}

fn bar(rate: Option<f64>) -> Bar {
    let Some(rate) = rate else {
        return Bar { text: String::new(), width: "0".to_owned(), class: "" };
    };
    Bar {
        text: Metric::ViolationRate.show(rate),
        width: format!("{:.2}", rate.clamp(0.0, 1.0) * 100.0),
        class: if rate > 0.0 { "some" } else { "" },
    }
}

/// Response-time distributions, one chart per source.
pub(super) fn ecdfs(comparison: &Comparison, numbers: &Numbers, options: HtmlOptions) -> Vec<Chart> {
    let chart = |(i, source): (usize, &Source)| {
        let series = series(comparison, numbers, |run| run.sources.get(i).map(|s| s.response_ecdf.as_slice()), options);
        let reference = source.deadline.map(|deadline| reference("deadline", deadline));
        chart_of(&source.name, "response time", &series, reference.as_ref())
    };
    comparison.system.sources.iter().enumerate().filter_map(chart).collect()
}

/// First tokens and pace of tokens, per source that has them.
pub(super) fn tokens(comparison: &Comparison, numbers: &Numbers, options: HtmlOptions) -> Vec<Chart> {
    let mut charts = Vec::new();
    for (i, source) in comparison.system.sources.iter().enumerate() {
        let series = series(comparison, numbers, |run| run.sources.get(i).map(|s| s.ttft_ecdf.as_slice()), options);
        let goal = source.ttft.map(|goal| reference("goal", goal));
        charts.extend(chart_of(&source.name, "time to first token", &series, goal.as_ref()));
        let dot = |(r, row): (usize, &PolicyRow)| {
            let value = row.sources.get(i)?.get(&Metric::TpotMean)?;
            Some(Dot {
                name: row.policy.clone(),
                number: numbers.of(&row.policy),
                mean: value.mean,
                half_width: value.half_width,
                emphasis: r == 0,
            })
        };
        let dots: Vec<Dot> = comparison.rows.iter().enumerate().filter_map(dot).collect();
        if !dots.is_empty() {
            let goal = source.tpot.map(|goal| reference("goal", goal));
            let name = format!("{}: time per output token after the first", source.name);
            charts.push(Chart { svg: safe(charts::dots(&name, &dots, goal.as_ref(), "ms")), name });
        }
    }
    charts
}

fn reference(name: &str, at: Nanos) -> Reference {
    Reference { at: at.as_ms(), label: format!("{name} {at}") }
}

type Points<'a> = &'a [(f64, f64)];

/// One line per policy: the mean over its seeds.
fn series<'a>(
    comparison: &'a Comparison,
    numbers: &Numbers,
    points: impl Fn(&'a onbeat_core::summary::Summary) -> Option<Points<'a>>,
    options: HtmlOptions,
) -> Vec<Series> {
    let line = |(i, row): (usize, &'a PolicyRow)| {
        let functions: Vec<Points<'a>> = row.runs.iter().filter_map(&points).collect();
        Series {
            name: row.policy.clone(),
            number: numbers.of(&row.policy),
            points: charts::mean_ecdf(&functions, options.points_max),
            emphasis: i == 0,
        }
    };
    comparison.rows.iter().enumerate().map(line).collect()
}

fn chart_of(source: &str, what: &str, series: &[Series], reference: Option<&Reference>) -> Option<Chart> {
    if series.iter().all(|series| series.points.is_empty()) {
        return None;
    }
    let name = format!("{source}: {what}");
    Some(Chart { svg: safe(charts::ecdf(&name, series, reference, Unit::Ms.symbol())), name })
}
