//! What happened under one policy: its streams, processors and timeline.

use minijinja::Value;
use onbeat_core::cost::Phase;
use onbeat_core::event::{DropCause, StopReason};
use onbeat_core::id::{Id, ModelId, NodeId};
use onbeat_core::metric::{Metric, Unit};
use onbeat_core::system::{Node, System};
use onbeat_core::units::Nanos;
use serde::Serialize;
use serde_json::json;

use super::figures::{Chart, Head, goals};
use super::variants::{VariantRow, variants};
use super::{HtmlOptions, safe, script_json};
use crate::charts::{self, Part, Reference};
use crate::model::{Comparison, Excerpt, PolicyRow};
use crate::palette::{SERIES, ink_on};
use crate::timeline::{MarkKind, Outcome, Timeline, why_name};
use crate::timeline_svg;

/// Runs in the picture for print.
const PICTURE_SLICES: usize = 160;
/// Runs in the interactive timeline's first view.
const FIRST_SLICES: usize = 120;

#[derive(Serialize)]
pub(super) struct Inside {
    policy: String,
    streams: Streams,
    variants: Vec<VariantRow>,
    charts: Vec<Chart>,
}

#[derive(Serialize)]
struct Streams {
    heads: Vec<Head>,
    rows: Vec<StreamRow>,
}

#[derive(Serialize)]
struct StreamRow {
    name: String,
    goal: String,
    cells: Vec<StreamCell>,
}

#[derive(Serialize)]
struct StreamCell {
    text: String,
    bad: bool,
}

#[derive(Serialize)]
pub(super) struct TimelineView {
    picture: Value,
    caption: String,
    data: Value,
}

pub(super) fn inside(comparison: &Comparison, row: &PolicyRow) -> Inside {
    Inside {
        policy: row.policy.clone(),
        streams: streams(comparison, row),
        variants: variants(comparison, row),
        charts: processor_charts(comparison, row),
    }
}

fn streams(comparison: &Comparison, row: &PolicyRow) -> Streams {
    const METRICS: [Metric; 14] = [
        Metric::Jobs,
        Metric::ViolationRate,
        Metric::DropRate,
        Metric::ResponseP50,
        Metric::ResponseP95,
        Metric::ResponseP99,
        Metric::ResponseMax,
        Metric::CompletionJitter,
        Metric::TtftP95,
        Metric::TpotMean,
        Metric::SloAttainment,
        Metric::Quality,
        Metric::RelativeQuality,
        Metric::Degraded,
    ];
    let present = |metric: &Metric| row.sources.iter().any(|values| values.contains_key(metric));
    let metrics: Vec<Metric> = METRICS.into_iter().filter(present).collect();
    let mut heads: Vec<Head> = metrics
        .iter()
        .map(|metric| Head {
            title: metric.short().to_owned(),
            subtitle: metric.unit().symbol().to_owned(),
            meaning: metric.meaning().to_owned(),
        })
        .collect();
    let bounds = row.response_bounds_ms.iter().any(Option::is_some);
    if bounds {
        heads.push(Head {
            title: "proven max".to_owned(),
            subtitle: "ms".to_owned(),
            meaning: "Upper bound of the response time by response-time analysis.".to_owned(),
        });
    }
    let stream = |(i, source): (usize, &onbeat_core::system::Source)| {
        let cell = |metric: &Metric| {
            let value = row.source_mean(i, *metric);
            let text = value.map_or_else(|| "–".to_owned(), |value| metric.unit().format(value));
            StreamCell { text, bad: *metric == Metric::ViolationRate && value.is_some_and(|value| value > 0.0) }
        };
        let mut cells: Vec<StreamCell> = metrics.iter().map(cell).collect();
        if bounds {
            let bound = row.response_bounds_ms.get(i).copied().flatten();
            cells.push(StreamCell {
                text: bound.map_or_else(|| "–".to_owned(), |ms| Unit::Ms.format(ms)), bad: false
            });
        }
        StreamRow { name: source.name.clone(), goal: goals(source), cells }
    };
    Streams { heads, rows: comparison.system.sources.iter().enumerate().map(stream).collect() }
}

fn processor_charts(comparison: &Comparison, row: &PolicyRow) -> Vec<Chart> {
    let mut charts = Vec::new();
    let system = &comparison.system;
    let Some(first) = row.runs.first() else { return charts };
    let number_of = |model: &str| system.models.iter().position(|m| m.name == model).unwrap_or(0);
    let bars: Vec<(String, Vec<Part>)> = first
        .processors
        .iter()
        .enumerate()
        .map(|(i, processor)| {
            let slots = system.platform.processors.as_slice().get(i).map_or(1, |p| p.slots);
            let capacity = first.measured_s * 1e3 * f64::from(slots);
            let part = |(name, ms): &(String, f64)| Part {
                name: name.clone(),
                number: number_of(name),
                share: if capacity > 0.0 { ms / capacity } else { 0.0 },
            };
            (processor.name.clone(), processor.busy_by_model.iter().map(part).collect())
        })
        .collect();
    if bars.iter().any(|(_, parts)| !parts.is_empty()) {
        let name = "Busy time by model";
        charts.push(Chart { name: format!("{name}, seed {}", first.seed), svg: safe(charts::stacked(name, &bars)) });
    }
    let end = system.duration.as_secs();
    let mut chart = |svg: String| charts.push(Chart { name: String::new(), svg: safe(svg) });
    for (i, processor) in first.processors.iter().enumerate() {
        if !processor.utilisation.is_empty() {
            let values: Vec<f64> = processor.utilisation.iter().map(|value| value * 100.0).collect();
            let title = format!("{} busy over time, seed {}", processor.name, first.seed);
            chart(charts::over_time(&title, &values, end, 100.0, "%", SERIES[i % SERIES.len()], None));
        }
    }
    for (i, processor) in first.processors.iter().enumerate() {
        let model = system.platform.processors.as_slice().get(i).and_then(|unit| unit.power.as_ref());
        let fastest = model.map_or(1.0, |model| model.points[model.fastest() as usize].speed);
        if !processor.speed.is_empty() {
            let title = format!("{} operating point over time, seed {}", processor.name, first.seed);
            chart(charts::over_time(&title, &processor.speed, end, fastest, "×", SERIES[i % SERIES.len()], None));
        }
        if !processor.celsius.is_empty() {
            let throttle = model.and_then(|model| model.thermal?.throttle);
            let most = processor.celsius.iter().copied().fold(throttle.unwrap_or(0.0), f64::max);
            let line = throttle.map(|at| Reference { at, label: format!("throttled from {at} °C") });
            let title = format!("{} temperature over time, seed {}", processor.name, first.seed);
            let values = &processor.celsius;
            chart(charts::over_time(&title, values, end, most * 1.05, "°C", SERIES[i % SERIES.len()], line.as_ref()));
        }
    }
    if first.bus_traffic.iter().any(|traffic| *traffic > 0.0) {
        let most = first.bus_traffic.iter().copied().fold(0.0, f64::max);
        let bandwidth = system.platform.bandwidth;
        let line = bandwidth.map(|at| Reference { at, label: format!("bandwidth {at} GB/s") });
        let high = bandwidth.unwrap_or(most).max(most) * 1.05;
        let title = format!("memory bus over time, seed {}", first.seed);
        chart(charts::over_time(&title, &first.bus_traffic, end, high, "GB/s", SERIES[2], line.as_ref()));
    }
    charts
}

/// The timelines of all policies that have events.
pub(super) fn timeline(comparison: &Comparison, options: HtmlOptions) -> Option<TimelineView> {
    let system = &comparison.system;
    let with: Vec<(&PolicyRow, &Excerpt)> =
        comparison.rows.iter().filter_map(|row| Some((row, row.excerpt.as_ref()?))).collect();
    let &(first_row, first) = with.first()?;
    let fitted = |excerpt: &Excerpt, slices| Timeline::fit(system, &excerpt.events, excerpt.from, excerpt.to, slices);
    let picture = fitted(first, PICTURE_SLICES);
    let first_view = fitted(first, FIRST_SLICES);
    let title = format!("{} on {}, {}, seed {}", system.scenario, system.platform.name, first_row.policy, first.seed);
    let policies: Vec<serde_json::Value> = with
        .iter()
        .map(|(row, excerpt)| policy_data(&row.policy, excerpt, system, &fitted(excerpt, options.slices_max)))
        .collect();
    let nodes = entries(system)
        .map(|(node, model)| json!([system.nodes[node].name, system.nodes[node].source.index(), model.index()]));
    let data = json!({
        "lanes": first_view.lanes.iter().map(|lane| &lane.name).collect::<Vec<_>>(),
        "sources": system.sources.iter().map(|source| &source.name).collect::<Vec<_>>(),
        "models": system.models.iter().map(|model| &model.name).collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "phases": PHASES.map(Phase::name),
        "whys": WHYS.map(why_name),
        "marks": MARKS.map(MarkKind::name),
        "outcomes": ["done", "dropped", "not done"],
        "palette": SERIES,
        "inks": SERIES.map(ink_on),
        "first": first_view.to.saturating_sub(first_view.from).0,
        "policies": policies,
    });
    Some(TimelineView {
        picture: safe(timeline_svg::render(system, &picture, &title)),
        caption: format!(
            "{} under {}, seed {}: from {} to {}.",
            comparison.name(),
            first_row.policy,
            first.seed,
            picture.from,
            picture.to
        ),
        data: script_json(&data),
    })
}

const PHASES: [Phase; 6] = [Phase::Forward, Phase::Before, Phase::Steps, Phase::After, Phase::Prefill, Phase::Decode];
const WHYS: [Option<StopReason>; 6] = [
    None,
    Some(StopReason::Finished),
    Some(StopReason::Quantum),
    Some(StopReason::Preempted),
    Some(StopReason::Rebatched),
    Some(StopReason::Horizon),
];
/// Kinds of marks by number in the data; those from 3 on are drops, which the script relies on.
const MARKS: [MarkKind; 8] = [
    MarkKind::Deadline,
    MarkKind::Ttft,
    MarkKind::Tpot,
    MarkKind::Dropped(DropCause::Late),
    MarkKind::Dropped(DropCause::Hopeless),
    MarkKind::Dropped(DropCause::QueueFull),
    MarkKind::Dropped(DropCause::Policy),
    MarkKind::Dropped(DropCause::Failed),
];

/// What the timeline's slices are of: every stage in its default variant, in order, then all other variants.
fn entries(system: &System) -> impl Iterator<Item = (NodeId, ModelId)> {
    let own = system.nodes.enumerate().map(|(id, node)| (id, node.model));
    let others = |(id, node): (NodeId, &'_ Node)| -> Vec<_> { node.variants.iter().map(|v| (id, v.model)).collect() };
    own.chain(system.nodes.enumerate().flat_map(others))
}

/// A policy's timeline as the script reads it. Times are in nanoseconds.
///
/// * slice: lane, start, length of the setup, length, number of its stage and variant, job, phase, why it ended, batch, tokens;
/// * job: source, release, length, deadline after release or 0, serial number, outcome;
/// * mark: time, source, kind, job.
fn policy_data(policy: &str, excerpt: &Excerpt, system: &System, timeline: &Timeline) -> serde_json::Value {
    let entry = |s: &crate::timeline::Slice| {
        // The stage in its default variant is the common case, and comes first.
        let default = system.nodes.get(s.node).is_none_or(|node| node.model == s.model);
        let found = if default { None } else { entries(system).position(|entry| entry == (s.node, s.model)) };
        found.unwrap_or(s.node.index())
    };
    let at = |list: usize| list;
    let slice = |s: &crate::timeline::Slice| {
        let phase = PHASES.iter().position(|phase| *phase == s.phase).map_or(0, at);
        let why = WHYS.iter().position(|why| *why == s.why).map_or(0, at);
        let (setup, length) = (s.ready.saturating_sub(s.start).0, s.end.saturating_sub(s.start).0);
        json!([s.lane, s.start.0, setup, length, entry(s), s.job, phase, why, s.batch, s.tokens])
    };
    let job = |j: &crate::timeline::Job| {
        let outcome = match j.outcome {
            Outcome::Done => 0,
            Outcome::Dropped(_) => 1,
            Outcome::Open => 2,
        };
        let deadline = j.deadline.map_or(0, |deadline| deadline.saturating_sub(j.release).0);
        json!([j.source.index(), j.release.0, j.end.saturating_sub(j.release).0, deadline, j.job, outcome])
    };
    let mark = |m: &crate::timeline::Mark| {
        let kind = MARKS.iter().position(|kind| *kind == m.kind).map_or(0, at);
        json!([m.at.0, m.source.index(), kind, m.job])
    };
    let (from, to) = (timeline.from, timeline.to);
    let duration = system.duration;
    let note = if to < excerpt.to.min(duration) || from > Nanos::ZERO || to < duration {
        format!(
            "Seed {}; the report holds {from} to {to} of a run of {duration}. The whole run: a record (--record) in Perfetto.",
            excerpt.seed
        )
    } else {
        format!("Seed {}, the whole run.", excerpt.seed)
    };
    json!({
        "name": policy,
        "note": note,
        "from": from.0,
        "to": to.0,
        "slices": timeline.slices.iter().map(slice).collect::<Vec<_>>(),
        "jobs": timeline.jobs.iter().map(job).collect::<Vec<_>>(),
        "marks": timeline.marks.iter().map(mark).collect::<Vec<_>>(),
    })
}
