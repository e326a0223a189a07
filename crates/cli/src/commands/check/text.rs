//! Findings as text for people.

use onbeat_core::id::{Id, SourceId};
use onbeat_core::metric::Metric;
use onbeat_core::system::Source;

use super::{Checked, Finding, Outcome};
use crate::plan;
use crate::present::title;
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push, wrap};

/// Everything about one pair.
pub(super) fn full(finding: &Finding, ui: Ui) -> String {
    let system = &finding.system;
    let name = format!("{} on {}", system.scenario, title(&system.platform.title, &system.platform.name));
    let problems = finding.problems();
    let verdict = match problems.len() {
        0 => ui.good("no problem found"),
        1 => ui.bad("1 problem"),
        n => ui.bad(&format!("{n} problems")),
    };
    let mut text = format!("{}: {verdict}\n\n", ui.bold(&name));
    text += &sources(finding, ui);
    match system.nodes.len() {
        1 => text += "\nThe only stage has a profile.\n",
        n => push(&mut text, format_args!("\nAll {n} stages have a profile.\n")),
    }
    text += &load(finding);
    text += &bound(finding);
    text += &bounds(finding, ui);
    text += &provenance(finding);
    text += &list(ui, &ui.bad("problem:"), &problems);
    text += &list(ui, &ui.doubtful("warning:"), &system.warnings);
    text += &list(ui, &ui.dim("assumed:"), &system.assumptions);
    text
}

fn percent(load: f64) -> String {
    format!("{:.0}%", load * 100.0)
}

/// With three significant digits, without trailing zeros.
fn significant(value: f64) -> String {
    let decimals = if value > 0.0 { (2 - value.log10().floor() as i32).max(0) as usize } else { 0 };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// What a source must achieve.
fn goals(source: &Source) -> String {
    let mut goals: Vec<String> = Vec::new();
    goals.extend(source.deadline.map(|deadline| deadline.to_string()));
    goals.extend(source.ttft.map(|goal| format!("TTFT {goal}")));
    goals.extend(source.tpot.map(|goal| format!("TPOT {goal}")));
    if goals.is_empty() { "–".to_owned() } else { goals.join("\n") }
}

fn sources(finding: &Finding, ui: Ui) -> String {
    let system = &finding.system;
    let processors = &system.platform.processors;
    let mut headings: Vec<String> =
        ["stream\n", "jobs\n1/s", "deadline\nor goals", "shortest\nms"].map(str::to_owned).to_vec();
    headings.push("load on\nfastest".to_owned());
    // A platform with many processors would fill the line.
    let each = (2..=5).contains(&processors.len());
    if each {
        headings.extend(processors.iter().map(|processor| format!("all on\n{}", processor.name)));
    }
    headings.push("must miss\n%".to_owned());
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut grid = Grid::new(ui, &headings);
    for (id, source) in system.sources.enumerate() {
        grid.row(source_row(finding, id, source, each));
    }
    grid.finish()
}

fn source_row(finding: &Finding, id: SourceId, source: &Source, each: bool) -> Vec<(String, Tone)> {
    let load = &finding.load.sources[id.index()];
    let late = source.deadline.is_some_and(|deadline| source.shortest > deadline);
    let mut cells = vec![
        (source.name.clone(), Tone::Plain),
        (significant(load.jobs_per_s), Tone::Plain),
        (goals(source), Tone::Plain),
        (Metric::ResponseMean.unit().format(source.shortest.as_ms()), if late { Tone::Bad } else { Tone::Plain }),
    ];
    cells.push((percent(load.fastest), Tone::Plain));
    if each {
        for on in &load.on {
            let tone = if on.is_some_and(|load| load > 1.0) { Tone::Doubtful } else { Tone::Plain };
            cells.push((on.map_or_else(|| "–".to_owned(), percent), tone));
        }
    }
    let unavoidable = finding.bound.sources[id].violation_rate;
    let tone = if unavoidable.is_some_and(|rate| rate > 0.0) { Tone::Bad } else { Tone::Plain };
    cells.push((unavoidable.map_or_else(|| "–".to_owned(), |rate| Metric::ViolationRate.unit().format(rate)), tone));
    cells
}

fn load(finding: &Finding) -> String {
    let processors = finding.system.platform.processors.enumerate();
    let each: Vec<String> =
        processors.map(|(id, p)| format!("{} {}", p.name, percent(finding.load.fastest[id]))).collect();
    let total = percent(finding.load.total);
    let lightest = finding.load.lightest.map(|load| format!(", {} in the fastest variants", percent(load)));
    let lightest = lightest.unwrap_or_default();
    format!("Load with every stage on its fastest processor: {}; {total} of all together{lightest}.\n", each.join(", "))
}

fn bound(finding: &Finding) -> String {
    let bound = &finding.bound;
    if bound.judged == 0.0 {
        return "No stream has a deadline and no session has goals.\n".to_owned();
    }
    if bound.mean_violation_rate == 0.0 && bound.violation_rate == 0.0 {
        return "Lower bound: nothing rules out a policy that meets every deadline and goal.\n".to_owned();
    }
    let expected = if bound.in_expectation { " (in expectation: arrivals or sizes are random)" } else { "" };
    format!(
        "Lower bound: every policy misses at least {} of deadlines and goals, {} if every stream counts alike{expected}.\n",
        Metric::ViolationRate.show(bound.violation_rate),
        Metric::MeanViolationRate.show(bound.mean_violation_rate),
    )
}

/// Response-time bounds, beside what was simulated.
fn bounds(finding: &Finding, ui: Ui) -> String {
    let any_bound = finding.orders.iter().any(|order| order.bounds.iter().any(Result::is_ok));
    let simulated = finding.orders.iter().any(|order| !order.simulated_ms.is_empty());
    if !any_bound && !simulated {
        return why_no_bound(finding);
    }
    let mut headings = vec!["stream\n".to_owned(), "deadline\nms".to_owned()];
    for order in &finding.orders {
        headings.push(format!("{}\nbound ms", order.policy));
        if simulated {
            headings.push(format!("{}\nsimulated max ms", order.policy));
        }
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut grid = Grid::new(ui, &headings);
    let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |ms| Metric::ResponseMax.unit().format(ms));
    for (id, source) in finding.system.sources.enumerate() {
        let deadline = source.deadline.map(onbeat_core::units::Nanos::as_ms);
        let mut cells = vec![(source.name.clone(), Tone::Plain), (ms(deadline), Tone::Plain)];
        for order in &finding.orders {
            let bound = order.bounds[id.index()].as_ref().ok().map(|bound| bound.as_ms());
            let misses = bound.zip(deadline).is_some_and(|(bound, deadline)| bound > deadline);
            cells.push((ms(bound), if misses { Tone::Doubtful } else { Tone::Good }));
            if simulated {
                cells.push((ms(order.simulated_ms.get(id.index()).copied().flatten()), Tone::Plain));
            }
        }
        grid.row(cells);
    }
    let why = if any_bound { String::new() } else { why_no_bound(finding) };
    format!("\nWorst-case response times, proven for all time:\n\n{}{why}\n", grid.finish())
}

fn why_no_bound(finding: &Finding) -> String {
    let mut reasons = finding.orders.iter().flat_map(|order| order.bounds.iter().zip(&finding.system.sources));
    let first = reasons.find_map(|(bound, source)| Some((source, bound.as_ref().err()?)));
    first.map_or_else(String::new, |(source, why)| {
        format!("No worst-case response times can be proven: of `{}`, {why}.\n", source.name)
    })
}

fn provenance(finding: &Finding) -> String {
    let mix: Vec<String> =
        finding.provenance().into_iter().map(|(kind, figures)| format!("{figures} {}", kind.name())).collect();
    format!("Figures: {}.\n", mix.join(", "))
}

/// Texts with a word before each.
fn list(ui: Ui, word: &str, texts: &[String]) -> String {
    let indent = crate::ui::visible_width(word) + 1;
    let width = usize::from(ui.width).saturating_sub(indent).max(30);
    let mut text = String::new();
    for item in texts {
        let mut lead = format!("{word} ");
        for line in wrap(item, width) {
            push(&mut text, format_args!("{lead}{line}\n"));
            lead = " ".repeat(indent);
        }
    }
    text
}

/// One line for every pair.
pub(super) fn overview(checked: &[Checked], ui: Ui) -> String {
    let mut grid =
        Grid::new(ui, &["scenario", "<platform", "streams", "stages", "load", "must miss", "analytical", "<result"]);
    let room = usize::from(ui.width).saturating_sub(92).max(40);
    for pair in checked {
        match &pair.outcome {
            Outcome::Found(finding) => grid.row(found_row(finding)),
            Outcome::Wrong(errors) => {
                grid.row(no_system_row(pair, &shorten(&plan::one_line(errors), room), Tone::Bad));
            }
            Outcome::Skipped(_) => {}
        }
    }
    let mut text = grid.finish();
    let skipped: Vec<&Checked> = checked.iter().filter(|pair| matches!(pair.outcome, Outcome::Skipped(_))).collect();
    if !skipped.is_empty() {
        push(
            &mut text,
            format_args!("{}\n", ui.dim(&format!("{} pairs do not fit together and were skipped.", skipped.len()))),
        );
    }
    // The reasons for one scenario can be read; those for all would bury the table.
    if skipped.len() < 20 {
        for pair in skipped {
            if let Outcome::Skipped(errors) = &pair.outcome {
                push(&mut text, format_args!("  {} on {}: {}\n", pair.scenario, pair.platform, plan::one_line(errors)));
            }
        }
    }
    text
}

fn found_row(finding: &Finding) -> Vec<(String, Tone)> {
    let system = &finding.system;
    let analytical = finding.provenance().iter().find(|(kind, _)| kind.name() == "analytical").map_or(0, |(_, n)| *n);
    let analytical = analytical as f64 / system.figures.len().max(1) as f64;
    let (result, tone) = match (finding.problems().len(), system.warnings.len()) {
        (0, 0) => ("ok".to_owned(), Tone::Good),
        (0, 1) => ("ok, 1 warning".to_owned(), Tone::Doubtful),
        (0, n) => (format!("ok, {n} warnings"), Tone::Doubtful),
        (1, _) => ("1 problem".to_owned(), Tone::Bad),
        (n, _) => (format!("{n} problems"), Tone::Bad),
    };
    let plain = |text: String| (text, Tone::Plain);
    vec![
        plain(system.scenario.clone()),
        plain(system.platform.name.clone()),
        plain(system.sources.len().to_string()),
        plain(system.nodes.len().to_string()),
        plain(percent(finding.load.total)),
        plain(Metric::MeanViolationRate.show(finding.bound.mean_violation_rate)),
        plain(percent(analytical)),
        (result, tone),
    ]
}

fn no_system_row(pair: &Checked, result: &str, tone: Tone) -> Vec<(String, Tone)> {
    let mut cells: Vec<(String, Tone)> =
        [&pair.scenario, &pair.platform].map(|text| (text.clone(), Tone::Plain)).to_vec();
    cells.extend(std::iter::repeat_n(("–".to_owned(), Tone::Weak), 5));
    cells.push((result.to_owned(), tone));
    cells
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}
