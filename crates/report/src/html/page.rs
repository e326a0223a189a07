//! What the template shows: the page, its index and the parts of each comparison that need no charts.

use minijinja::Value;
use onbeat_core::metric::{Better, Metric};
use onbeat_core::spec::ProvenanceKind;
use serde::Serialize;

use super::figures::{self, Chart, Table, Violations};
use super::inside::{self, Inside, TimelineView};
use super::{HtmlOptions, rich, safe};
use crate::advice::{advise, share};
use crate::model::{Comparison, PolicyRow, Report, Verdict};

#[derive(Serialize)]
pub(super) struct Page {
    title: String,
    onbeat: String,
    command: Option<String>,
    css: Value,
    js: Value,
    index: Option<Index>,
    comparisons: Vec<ComparisonView>,
}

/// Several comparisons at a glance.
#[derive(Serialize)]
struct Index {
    metric: String,
    policies: Vec<String>,
    rows: Vec<IndexRow>,
    wins: Vec<String>,
}

#[derive(Serialize)]
struct IndexRow {
    id: String,
    scenario: String,
    platform: String,
    cells: Vec<IndexCell>,
    bound: String,
}

#[derive(Serialize)]
struct IndexCell {
    text: String,
    class: &'static str,
    /// 0 to 1: how bad.
    heat: String,
}

#[derive(Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
struct ComparisonView {
    id: String,
    name: String,
    headline: Value,
    sentences: Vec<Value>,
    facts: Vec<Fact>,
    description: String,
    warnings: Vec<Value>,
    table: Table,
    violations: Option<Violations>,
    legend: Value,
    ecdfs: Vec<Chart>,
    tokens: Vec<Chart>,
    inside: Vec<Inside>,
    /// Policies that are not looked into.
    left_out: usize,
    timeline: Option<TimelineView>,
    provenance: Vec<Share>,
    provenance_label: String,
    figures: Vec<FigureView>,
    assumptions: Vec<Value>,
    models: Vec<ModelView>,
}

#[derive(Serialize)]
struct Share {
    kind: &'static str,
    percent: String,
    width: String,
    meaning: &'static str,
}

#[derive(Serialize)]
struct FigureView {
    what: String,
    kind: &'static str,
    source: String,
}

#[derive(Serialize)]
struct ModelView {
    source: String,
    stage: String,
    model: String,
    title: String,
    task: String,
    places: String,
}

/// Numbers that give each policy its colour: the same wherever it appears in the report.
#[derive(Debug)]
pub(super) struct Numbers(Vec<String>);

impl Numbers {
    fn new(report: &Report) -> Self {
        let mut names: Vec<String> =
            report.comparisons.iter().flat_map(|c| c.rows.iter().map(|row| row.policy.clone())).collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    pub(super) fn of(&self, policy: &str) -> usize {
        self.0.iter().position(|name| name == policy).unwrap_or(0)
    }
}

pub(super) fn page(report: &Report, options: HtmlOptions) -> Page {
    let numbers = Numbers::new(report);
    let title = match report.comparisons.as_slice() {
        [one] => one.name(),
        many => format!("{} comparisons", many.len()),
    };
    let views = report.comparisons.iter().enumerate().map(|(i, c)| comparison_view(c, i, &numbers, options));
    Page {
        title,
        onbeat: report.onbeat.clone(),
        command: report.command.clone(),
        css: safe(include_str!("../templates/style.css").to_owned()),
        js: safe(include_str!("../templates/report.js").to_owned()),
        index: (report.comparisons.len() > 1).then(|| index(report, &numbers)),
        comparisons: views.collect(),
    }
}

fn index(report: &Report, numbers: &Numbers) -> Index {
    let policies = numbers.0.clone();
    let row_of = |comparison: &'_ Comparison, policy: &str| -> Option<usize> {
        comparison.rows.iter().position(|row| row.policy == policy)
    };
    let good = |row: &PolicyRow| matches!(row.verdict, Verdict::Best | Verdict::Same | Verdict::WithinNoise);
    let rows = report.comparisons.iter().enumerate().map(|(i, c)| {
        let cells = policies.iter().map(|policy| index_cell(c, row_of(c, policy).map(|r| &c.rows[r])));
        let bound = c.metric.and_then(|metric| Some(metric.show(*c.bound.run.get(&metric)?)));
        IndexRow {
            id: id(i),
            scenario: c.system.scenario.clone(),
            platform: c.platform_title().to_owned(),
            cells: cells.collect(),
            bound: bound.unwrap_or_else(|| "–".to_owned()),
        }
    });
    let wins = policies.iter().map(|policy| {
        let ran = report.comparisons.iter().filter_map(|c| Some(&c.rows[row_of(c, policy)?]));
        let (wins, all) = ran.fold((0, 0), |(wins, all), row| (wins + u32::from(good(row)), all + 1));
        format!("{wins} of {all}")
    });
    let mut metrics: Vec<&str> = report.comparisons.iter().filter_map(|c| c.metric).map(Metric::name).collect();
    metrics.sort_unstable();
    metrics.dedup();
    let metric = metrics.join(", ").replace('_', " ");
    Index { metric, rows: rows.collect(), wins: wins.collect(), policies }
}

fn index_cell(comparison: &Comparison, row: Option<&PolicyRow>) -> IndexCell {
    let metric = comparison.metric;
    let value = metric.and_then(|metric| row?.mean(metric));
    let Some((metric, value)) = metric.zip(value) else {
        return IndexCell { text: "–".to_owned(), class: "", heat: "0".to_owned() };
    };
    let class = match row.map(|row| row.verdict) {
        Some(Verdict::Best) => "best",
        Some(Verdict::Same | Verdict::WithinNoise) => "near",
        _ => "",
    };
    // Rates have a natural scale; other metrics are shaded by the worst policy of the same comparison.
    let worst = comparison.rows.iter().filter_map(|row| row.mean(metric)).fold(0.0, f64::max);
    let scale = if matches!(metric, Metric::MeanViolationRate | Metric::ViolationRate) { 1.0 } else { worst };
    let heat = if scale > 0.0 && metric.better() != Better::Neutral { (value / scale).clamp(0.0, 1.0) } else { 0.0 };
    IndexCell { text: metric.show(value), class, heat: format!("{heat:.3}") }
}

fn id(number: usize) -> String {
    format!("c{}", number + 1)
}

fn comparison_view(comparison: &Comparison, number: usize, numbers: &Numbers, options: HtmlOptions) -> ComparisonView {
    let system = &comparison.system;
    let advice = advise(comparison);
    let provenance = provenance(comparison);
    let label: Vec<String> = provenance.iter().map(|part| format!("{} {}", part.percent, part.kind)).collect();
    let figures = system.figures.iter().map(|figure| FigureView {
        what: figure.what.clone(),
        kind: figure.kind.name(),
        source: figure.source.clone(),
    });
    ComparisonView {
        id: id(number),
        name: comparison.name(),
        headline: rich(&advice.headline),
        sentences: advice.sentences.iter().map(|sentence| rich(sentence)).collect(),
        facts: facts(comparison),
        description: system.description.clone(),
        warnings: system.warnings.iter().map(|warning| rich(warning)).collect(),
        table: figures::table(comparison, numbers),
        violations: figures::violations(comparison),
        legend: figures::legend(comparison, numbers),
        ecdfs: figures::ecdfs(comparison, numbers, options),
        tokens: figures::tokens(comparison, numbers, options),
        inside: comparison.rows.iter().take(options.policies_max).map(|row| inside::inside(comparison, row)).collect(),
        left_out: comparison.rows.len().saturating_sub(options.policies_max),
        timeline: inside::timeline(comparison, options),
        provenance_label: label.join(", "),
        provenance,
        figures: figures.collect(),
        assumptions: system.assumptions.iter().map(|assumption| rich(assumption)).collect(),
        models: models(comparison),
    }
}

fn facts(comparison: &Comparison) -> Vec<Fact> {
    let system = &comparison.system;
    let processors: Vec<String> = system
        .platform
        .processors
        .iter()
        .map(|p| if p.slots > 1 { format!("{} (×{})", p.name, p.slots) } else { p.name.clone() })
        .collect();
    let warm_up =
        if system.warm_up.0 > 0 { format!(", the first {} not counted", system.warm_up) } else { String::new() };
    let mut facts = vec![
        Fact { name: "scenario", value: system.scenario.clone() },
        Fact { name: "platform", value: format!("{}: {}", system.platform.name, processors.join(", ")) },
        Fact {
            name: if comparison.real { "real time" } else { "simulated" },
            value: format!("{}{warm_up}", system.duration),
        },
        Fact { name: "policies × seeds", value: format!("{} × {}", comparison.rows.len(), comparison.seeds()) },
    ];
    let bandwidth = system.platform.bandwidth.map(|bandwidth| format!("{bandwidth} GB/s"));
    let memory: Vec<String> =
        system.platform.capacity.map(|capacity| capacity.to_string()).into_iter().chain(bandwidth).collect();
    if !memory.is_empty() {
        facts.push(Fact { name: "memory", value: memory.join(", ") });
    }
    facts.push(Fact {
        name: "bus contention",
        value: if system.contention { "modelled" } else { "switched off" }.to_owned(),
    });
    facts
}

fn provenance(comparison: &Comparison) -> Vec<Share> {
    const KINDS: [(ProvenanceKind, &str); 3] = [
        (ProvenanceKind::Measured, "by onbeat's users on a machine"),
        (ProvenanceKind::Published, "by others, in a public source"),
        (ProvenanceKind::Analytical, "by a formula; nobody measured it"),
    ];
    let Some(best) = comparison.rows.first() else { return Vec::new() };
    let shares =
        KINDS.iter().map(|(kind, meaning)| (kind, share(best, *kind), *meaning)).filter(|(_, share, _)| *share > 0.0);
    shares
        .map(|(kind, share, meaning)| Share {
            kind: kind.name(),
            percent: if share < 0.01 { "< 1%".to_owned() } else { format!("{:.0}%", share * 100.0) },
            width: format!("{:.2}", share * 100.0),
            meaning,
        })
        .collect()
}

fn models(comparison: &Comparison) -> Vec<ModelView> {
    let system = &comparison.system;
    let view = |(node, variant): (&onbeat_core::system::Node, u8)| {
        let model = &system.models[node.model_of(variant)];
        let places = system.platform.processors.enumerate().filter_map(|(p, processor)| {
            let cost = node.costs_of(variant)[p].as_ref()?;
            let work = node.work_of(variant, node.expected);
            let alone = onbeat_core::units::Nanos::from_ns_f64(cost.total_ns(work));
            Some(format!("{} {}", processor.name, Metric::ResponseMean.show(alone.as_ms())))
        });
        ModelView {
            source: system.sources[node.source].name.clone(),
            stage: if variant == 0 { node.name.clone() } else { format!("{}, or", node.name) },
            model: model.name.clone(),
            title: crate::model::title(&model.title, &model.name).to_owned(),
            task: model.task.clone(),
            places: places.collect::<Vec<_>>().join(", "),
        }
    };
    system.nodes.iter().flat_map(|node| node.variant_numbers().map(move |variant| (node, variant))).map(view).collect()
}
