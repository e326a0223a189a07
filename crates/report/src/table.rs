//! Tables for a terminal, with the advice in words.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use onbeat_core::metric::{Metric, Unit};
use onbeat_core::spec::ProvenanceKind;

use crate::advice::{self, advise};
use crate::columns::{Column, Place, columns};
use crate::model::{Comparison, PolicyRow, Report, Statistic, Verdict};

/// How soon the column of utilisations is left out; see [`Column::expendable`].
const UTILISATION: u32 = 5;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// The most characters in a line; columns that do not fit are left out, the least important first.
    pub width: usize,
    /// Whether to use colour and bold type (ANSI escape sequences).
    pub colour: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { width: 110, colour: false }
    }
}

/// The whole report: for each comparison its table, the advice and the streams under the best policy.
pub fn render(report: &Report, options: TableOptions) -> String {
    let mut parts: Vec<String> = report.comparisons.iter().map(|comparison| render_one(comparison, options)).collect();
    if report.comparisons.len() > 1 {
        parts.push(matrix(report, options));
    }
    parts.join("\n")
}

/// One comparison: title, policies, advice, streams under the best policy.
pub fn render_one(comparison: &Comparison, options: TableOptions) -> String {
    let mut text = title(comparison);
    text += "\n\n";
    text += &policies(comparison, options);
    text += &legend(comparison, options);
    text += "\n";
    text += &wrap(&advise(comparison).text(), options.width);
    text += &warnings(comparison, options);
    if let Some(best) = comparison.rows.first() {
        text += &["\nStreams and sessions under ", &best.policy, ":\n\n"].concat();
        text += &streams(comparison, best, options);
    }
    text
}

fn title(comparison: &Comparison) -> String {
    let system = &comparison.system;
    let seeds = comparison.seeds();
    let seeds = if seeds == 1 { "1 seed".to_owned() } else { format!("{seeds} seeds") };
    let how = if comparison.real { "of real time" } else { "simulated" };
    format!("{} on {}: {} {how}, {seeds}", system.scenario, comparison.platform_title(), system.duration)
}

/// Policies × the metrics that matter, best first, with a last row for the lower bound.
pub fn policies(comparison: &Comparison, options: TableOptions) -> String {
    let mut shown = columns(comparison);
    // They share one column, so they go together.
    for column in shown.iter_mut().filter(|column| matches!(column.place, Place::Processor(_))) {
        column.expendable = UTILISATION;
    }
    loop {
        let text = policies_with(comparison, &shown, options);
        let width = text.lines().map(visible_width).max().unwrap_or(0);
        let least = shown.iter().enumerate().max_by_key(|(_, column)| column.expendable);
        match least {
            Some((_, column)) if width > options.width && column.expendable == UTILISATION => {
                shown.retain(|column| column.expendable != UTILISATION);
            }
            Some((i, column)) if width > options.width && column.expendable > 0 => {
                shown.remove(i);
            }
            _ => return text,
        }
    }
}

fn policies_with(comparison: &Comparison, columns: &[Column], options: TableOptions) -> String {
    // Utilisations share one column: they explain the others and are compared within a row rather than down a column.
    let (utilisations, columns): (Vec<&Column>, Vec<&Column>) =
        columns.iter().partition(|column| matches!(column.place, Place::Processor(_)));
    let verdicts = comparison.rows.len() > 1;
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = new_table();
    let mut head = vec![Cell::new("policy\n")];
    if verdicts {
        head.push(Cell::new("verdict\n"));
    }
    // A space under the marks keeps headings in line with the numbers.
    head.extend(columns.iter().map(|column| right(format!("{} \n{} ", column.title(), column.subtitle()))));
    if !utilisations.is_empty() {
        let names: Vec<&str> = utilisations.iter().map(|column| column.of.as_str()).collect();
        head.push(right(format!("util. %\n{}", names.join("/"))));
    }
    table.set_header(head);
    let best: Vec<Vec<bool>> = columns.iter().map(|column| column.best(&comparison.rows)).collect();
    for (r, row) in comparison.rows.iter().enumerate() {
        let mut cells = vec![emphasise(Cell::new(&row.policy), r == 0 && verdicts, options)];
        if verdicts {
            cells.push(verdict_cell(row.verdict, options));
        }
        for (column, best) in columns.iter().zip(&best) {
            let text = column.value(row).map_or_else(|| "–".to_owned(), |value| value_text(column, value));
            let mark = if best[r] { "*" } else { " " };
            cells.push(emphasise(right(format!("{text}{mark}")), best[r], options));
        }
        if !utilisations.is_empty() {
            let one =
                |column: &&Column| column.value(row).map_or_else(|| "–".to_owned(), |value| column.format(value.mean));
            cells.push(right(utilisations.iter().map(one).collect::<Vec<_>>().join("/")));
        }
        table.add_row(cells);
    }
    if columns.iter().any(|column| column.bound(comparison).is_some()) {
        let mut cells = vec![Cell::new("lower bound")];
        if verdicts {
            cells.push(Cell::new(""));
        }
        for column in columns {
            let text = column.bound(comparison).map_or_else(|| "–".to_owned(), |value| column.format(value));
            let pad = if column.interval { " ".repeat(interval_width(column, comparison)) } else { String::new() };
            cells.push(right(format!("{text}{pad} ")));
        }
        table.add_row(cells);
    }
    finish(&mut table)
}

fn value_text(column: &Column, value: &Statistic) -> String {
    let mean = column.format(value.mean);
    match value.half_width.filter(|_| column.interval) {
        Some(half_width) => format!("{mean} ±{:>5}", column.format(half_width)),
        None => mean,
    }
}

/// Characters that ` ± x` takes in a column, so that numbers without an interval line up with the others.
fn interval_width(column: &Column, comparison: &Comparison) -> usize {
    let widths = comparison
        .rows
        .iter()
        .filter_map(|row| column.value(row))
        .map(|value| value_text(column, value).chars().count() - column.format(value.mean).chars().count());
    widths.max().unwrap_or(0)
}

fn legend(comparison: &Comparison, options: TableOptions) -> String {
    let mut parts = Vec::new();
    if comparison.rows.len() > 1 {
        parts.push("* best in its column");
    }
    if comparison.seeds() > 1 {
        parts.push("± half of the 95% interval over seeds");
    }
    if comparison.rows.iter().any(|row| row.verdict == Verdict::WithinNoise) {
        parts.push("≈ noise: cannot be told from the best");
    }
    if comparison.rows.iter().any(|row| row.verdict == Verdict::Unknown) && comparison.rows.len() > 1 {
        parts.push("?: one seed cannot tell");
    }
    if parts.is_empty() { String::new() } else { wrap(&parts.join(" · "), options.width) }
}

/// The first few warnings, one per line.
fn warnings(comparison: &Comparison, options: TableOptions) -> String {
    const SHOWN: usize = 5;
    let warnings = &comparison.system.warnings;
    let mut text = String::new();
    for warning in warnings.iter().take(SHOWN) {
        text += &wrap(&format!("Warning: {warning}"), options.width);
    }
    if warnings.len() > SHOWN {
        let more = warnings.len() - SHOWN;
        text += &wrap(&format!("{more} more warnings are in the HTML report."), options.width);
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// Streams and sessions under one policy.
pub fn streams(comparison: &Comparison, row: &PolicyRow, options: TableOptions) -> String {
    const METRICS: [(Metric, u32); 17] = [
        (Metric::Jobs, 2),
        (Metric::ViolationRate, 0),
        (Metric::DropRate, 3),
        (Metric::ResponseP50, 6),
        (Metric::ResponseP95, 7),
        (Metric::ResponseP99, 1),
        (Metric::ResponseMax, 5),
        (Metric::TtftP95, 3),
        (Metric::TpotMean, 4),
        (Metric::SloAttainment, 8),
        (Metric::ReactionP95, 2),
        (Metric::Starvation, 2),
        (Metric::Throughput, 2),
        (Metric::Work, 4),
        (Metric::Recomputed, 4),
        (Metric::SwappedOut, 5),
        (Metric::SwapTime, 4),
    ];
    let present = |metric: Metric| row.sources.iter().any(|values| values.contains_key(&metric));
    let mut shown: Vec<(Metric, u32)> = METRICS.into_iter().filter(|(metric, _)| present(*metric)).collect();
    loop {
        let text = streams_with(comparison, row, &shown, options);
        let width = text.lines().map(visible_width).max().unwrap_or(0);
        match shown.iter().enumerate().max_by_key(|(_, (_, expendable))| *expendable) {
            Some((i, (_, expendable))) if width > options.width && *expendable > 0 => {
                shown.remove(i);
            }
            _ => return text,
        }
    }
}

fn streams_with(comparison: &Comparison, row: &PolicyRow, metrics: &[(Metric, u32)], options: TableOptions) -> String {
    let bounds = row.response_bounds_ms.iter().any(Option::is_some);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = new_table();
    let mut head = vec![Cell::new("stream\n"), right("deadline\nor goals".to_owned())];
    for (metric, _) in metrics {
        head.push(right(format!("{}\n{}", metric.short(), metric.unit().symbol())));
        if bounds && *metric == Metric::ResponseMax {
            head.push(right("bound\nms".to_owned()));
        }
    }
    table.set_header(head);
    for (i, source) in comparison.system.sources.iter().enumerate() {
        let mut goals: Vec<String> = Vec::new();
        goals.extend(source.deadline.map(|deadline| deadline.to_string()));
        goals.extend(source.ttft.map(|goal| format!("TTFT {goal}")));
        goals.extend(source.tpot.map(|goal| format!("TPOT {goal}")));
        goals.extend(source.best_effort.then(|| "best effort".to_owned()));
        let goals = if goals.is_empty() { "–".to_owned() } else { goals.join("\n") };
        let mut cells = vec![Cell::new(&source.name), right(goals)];
        for (metric, _) in metrics {
            let value = row.source_mean(i, *metric);
            let text = value.map_or_else(|| "–".to_owned(), |value| metric.unit().format(value));
            let bad = *metric == Metric::ViolationRate && value.is_some_and(|value| value > 0.0);
            let cell = right(text);
            cells.push(if bad && options.colour { cell.fg(Color::Red) } else { cell });
            if bounds && *metric == Metric::ResponseMax {
                let bound = row.response_bounds_ms.get(i).copied().flatten();
                cells.push(right(bound.map_or_else(|| "–".to_owned(), |bound| Unit::Ms.format(bound))));
            }
        }
        table.add_row(cells);
    }
    finish(&mut table)
}

/// Several comparisons at a glance: the best policy of each.
pub fn matrix(report: &Report, options: TableOptions) -> String {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = new_table();
    let mut head = ["scenario", "platform", "best policy", "same or within noise"].map(Cell::new).to_vec();
    head.extend(["best", "bound", "worst", "analytical"].map(|text| right(text.to_owned())));
    table.set_header(head);
    for comparison in &report.comparisons {
        let Some(best) = comparison.rows.first() else { continue };
        let value = |row: Option<&PolicyRow>| {
            let shown = comparison.metric.and_then(|metric| Some(metric.show(row?.mean(metric)?)));
            right(shown.unwrap_or_else(|| "–".to_owned()))
        };
        let near = |row: &&PolicyRow| matches!(row.verdict, Verdict::Same | Verdict::WithinNoise);
        let also: Vec<&str> = comparison.rows.iter().filter(near).map(|row| row.policy.as_str()).collect();
        let also = match also.len() {
            0..=2 => also.join(", "),
            n => format!("{} and {} others", also[0], n - 1),
        };
        let bound = comparison.metric.and_then(|metric| Some(metric.show(*comparison.bound.run.get(&metric)?)));
        table.add_row(vec![
            Cell::new(&comparison.system.scenario),
            Cell::new(&comparison.system.platform.name),
            emphasise(Cell::new(&best.policy), true, options),
            Cell::new(also),
            value(Some(best)),
            right(bound.unwrap_or_else(|| "–".to_owned())),
            value(comparison.rows.last()),
            right(format!("{:.0}%", advice::share(best, ProvenanceKind::Analytical) * 100.0)),
        ]);
    }
    format!("All comparisons, by {}:\n\n{}", deciding_names(report), finish(&mut table))
}

fn deciding_names(report: &Report) -> String {
    let mut names: Vec<&str> = report.comparisons.iter().filter_map(|c| c.metric).map(Metric::name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.enforce_styling();
    // Lines around the heading and at the end only: columns, not boxes.
    table.load_preset("  ── ──      ──    ").set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(table: &mut Table) -> String {
    // Two spaces between columns.
    for column in table.column_iter_mut() {
        column.set_padding((1, 0));
    }
    table.lines().flat_map(|line| [line.trim_end().to_owned(), "\n".to_owned()]).collect()
}

fn emphasise(cell: Cell, bold: bool, options: TableOptions) -> Cell {
    if bold && options.colour { cell.add_attribute(Attribute::Bold) } else { cell }
}

fn verdict_cell(verdict: Verdict, options: TableOptions) -> Cell {
    let cell = Cell::new(verdict.short());
    match verdict {
        Verdict::Best | Verdict::Same if options.colour => cell.fg(Color::Green),
        Verdict::Worse if options.colour => cell.fg(Color::DarkGrey),
        _ => cell,
    }
}

/// Characters of a line that take space: escape sequences do not.
fn visible_width(line: &str) -> usize {
    let mut width = 0;
    let mut escape = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            _ => width += 1,
        }
    }
    width
}

/// Breaks text at spaces; the last line ends with a newline.
pub fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 {
            let fits = used + 1 + length <= width;
            wrapped.push(if fits { ' ' } else { '\n' });
            used = if fits { used + 1 } else { 0 };
        }
        wrapped.push_str(word);
        used += length;
    }
    if !wrapped.is_empty() {
        wrapped.push('\n');
    }
    wrapped
}
