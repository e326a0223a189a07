//! From runs to what the report crate shows.

use onbeat_core::metric::Metric;
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_report::html::HtmlOptions;
use onbeat_report::table::TableOptions;
use onbeat_report::{Comparison, PolicyRow, Report};

use crate::analyse;
use crate::args::Format;
use crate::failure::Failure;
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push, visible_width};

/// Length of the window that timelines show unless the command line says otherwise: 5 s.
pub(crate) const WINDOW: Nanos = Nanos(5_000_000_000);

/// The window that timelines show: it starts shortly before the last of the sources becomes active, so that everything is in it.
pub(crate) fn window(system: &System) -> (Nanos, Nanos) {
    let lead = Nanos::from_ms(200.0);
    let starts = system.sources.iter().filter_map(|source| source.active.first().map(|(start, _)| *start));
    let last = starts.max().unwrap_or(Nanos::ZERO).saturating_sub(lead);
    let from = last.min(system.duration.saturating_sub(WINDOW));
    (from, from.saturating_add(WINDOW).min(system.duration))
}

/// How tables look on this terminal.
pub(crate) fn table_options(ui: Ui) -> TableOptions {
    TableOptions { width: usize::from(ui.width), colour: ui.color }
}

/// A policy's runs with their statistics.
pub(crate) fn row(policy: &str, runs: Vec<Summary>) -> PolicyRow {
    PolicyRow::new(policy, runs, analyse::statistic)
}

/// A report of a single run.
pub(crate) fn single(system: System, policy: &str, summary: Summary) -> Report {
    let mut comparison = Comparison::new(system, vec![row(policy, vec![summary])]);
    analyse::complete(&mut comparison);
    Report { onbeat: env!("CARGO_PKG_VERSION").to_owned(), command: None, comparisons: vec![comparison] }
}

/// A comparison of policies in the form that was asked for; of several, only which policy is best where.
pub(crate) fn compared(report: &Report, format: Format, ui: Ui) -> String {
    match format {
        Format::Table if report.comparisons.len() > 1 => onbeat_report::table::matrix(report, table_options(ui)),
        Format::Table => onbeat_report::table::render(report, table_options(ui)),
        Format::Json => onbeat_report::json::render(report),
        Format::Csv => onbeat_report::csv::render(report),
    }
}

/// A report of a single run in the form that was asked for. `how` the time passed: simulated, or real.
pub(crate) fn ran(report: &Report, how: &str, format: Format, ui: Ui) -> String {
    match format {
        Format::Table => report.comparisons.iter().map(|comparison| run_tables(comparison, how, ui)).collect(),
        Format::Json => onbeat_report::json::render(report),
        Format::Csv => onbeat_report::csv::render(report),
    }
}

fn run_tables(comparison: &Comparison, how: &str, ui: Ui) -> String {
    let Some(row) = comparison.rows.first() else { return String::new() };
    let system = &comparison.system;
    let seed = row.runs.first().map_or(0, |run| run.seed);
    let mut text = format!(
        "{} under {}, {} {how}, seed {seed}\n\n",
        ui.bold(&format!("{} on {}", system.scenario, title(&system.platform.title, &system.platform.name))),
        ui.bold(&row.policy),
        system.duration,
    );
    text += &onbeat_report::table::streams(comparison, row, table_options(ui));
    text += "\n";
    text += &processors(row, system, ui);
    text += "\n";
    text += &points(row);
    text += &whole_run(row);
    for warning in &system.warnings {
        push(&mut text, format_args!("{} {warning}\n", ui.doubtful("warning:")));
    }
    text
}

/// The report as an HTML page.
pub(crate) fn html(report: &Report) -> Result<String, Failure> {
    onbeat_report::html::render(report, HtmlOptions::for_comparisons(report.comparisons.len()))
        .map_err(|error| Failure::Internal(error.to_string()))
}

/// The name for people, or the name if there is none.
pub(crate) fn title<'a>(title: &'a str, name: &'a str) -> &'a str {
    if title.is_empty() { name } else { title }
}

fn processors(row: &PolicyRow, system: &System, ui: Ui) -> String {
    const METRICS: [Metric; 9] = [
        Metric::Utilisation,
        Metric::ContentionLoss,
        Metric::SetupShare,
        Metric::Preemptions,
        Metric::Energy,
        Metric::AveragePower,
        Metric::MeanSpeed,
        Metric::PeakTemperature,
        Metric::ThrottledShare,
    ];
    let present = |metric: &Metric| row.processors.iter().any(|values| values.contains_key(metric));
    let metrics: Vec<Metric> = METRICS.into_iter().filter(present).collect();
    // As many models as there is room for.
    let tables = (0..=3).rev().map(|models| processors_with(row, system, &metrics, models, ui));
    let fits = |text: &String| text.lines().all(|line| visible_width(line) <= usize::from(ui.width));
    let mut narrowest = String::new();
    for table in tables {
        narrowest = table;
        if fits(&narrowest) {
            break;
        }
    }
    narrowest
}

fn processors_with(row: &PolicyRow, system: &System, metrics: &[Metric], models: usize, ui: Ui) -> String {
    let mut headings = vec!["processor\n".to_owned()];
    headings.extend(metrics.iter().map(|metric| format!("{}\n{}", metric.short(), metric.unit().symbol())));
    if models > 0 {
        headings.push("<busy most with\n".to_owned());
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut grid = Grid::new(ui, &headings);
    for (i, processor) in system.platform.processors.iter().enumerate() {
        let mut cells = vec![(processor.name.clone(), Tone::Plain)];
        cells.extend(metrics.iter().map(|&metric| {
            let value = row.processor_mean(i, metric);
            (value.map_or_else(|| "–".to_owned(), |value| metric.unit().format(value)), Tone::Plain)
        }));
        if models > 0 {
            let run = row.runs.first().and_then(|run| run.processors.get(i));
            cells.push((run.map_or_else(String::new, |run| busiest(&run.busy_by_model, models)), Tone::Weak));
        }
        grid.row(cells);
    }
    grid.finish()
}

/// `whisper 62%, segment 38%`: the models that a processor worked on most.
fn busiest(busy: &[(String, f64)], most: usize) -> String {
    let total: f64 = busy.iter().map(|(_, ms)| ms).sum();
    let mut models: Vec<&(String, f64)> = busy.iter().filter(|(_, ms)| *ms > 0.0).collect();
    models.sort_by(|a, b| b.1.total_cmp(&a.1));
    let share = |(model, ms): &&(String, f64)| format!("{model} {:.0}%", ms / total * 100.0);
    models.iter().take(most).map(share).collect::<Vec<_>>().join(", ")
}

/// One line with what concerns the whole run.
fn whole_run(row: &PolicyRow) -> String {
    const METRICS: [Metric; 10] = [
        Metric::MeanViolationRate,
        Metric::ViolationRate,
        Metric::PeakMemory,
        Metric::Recomputed,
        Metric::SwappedOut,
        Metric::SwappedIn,
        Metric::SwapTime,
        Metric::Energy,
        Metric::Fairness,
        Metric::XrbenchScore,
    ];
    let shown =
        METRICS.iter().filter_map(|&metric| Some(format!("{} {}", metric.short(), metric.show(row.mean(metric)?))));
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() { String::new() } else { format!("Whole run: {}\n", shown.join(" · ")) }
}

/// One line per processor with the shares of time that it spent at its operating points, in the first run.
fn points(row: &PolicyRow) -> String {
    let line = |processor: &onbeat_core::summary::ProcessorSummary| {
        (!processor.time_by_point.is_empty())
            .then(|| format!("Operating points of {}: {}\n", processor.name, busiest(&processor.time_by_point, 4)))
    };
    row.runs.first().map_or_else(String::new, |run| run.processors.iter().filter_map(line).collect())
}
