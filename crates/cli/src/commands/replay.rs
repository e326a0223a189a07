//! `onbeat replay`: are the decisions the same, and how good was the prediction?

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::Sink;
use onbeat_core::metric::{Metric, Values};
use onbeat_core::record::{Header, Record, Recorder};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_runtime::{ReplayError, facts_of, replay};
use serde_json::json;

use crate::args::{PlainFormat, ReplayArgs};
use crate::commands::report::read;
use crate::failure::Failure;
use crate::policies;
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push};

/// What is compared of every stream and session.
const OF_SOURCES: [Metric; 7] = [
    Metric::ViolationRate,
    Metric::ResponseP50,
    Metric::ResponseP95,
    Metric::ResponseP99,
    Metric::TtftP50,
    Metric::TtftP95,
    Metric::TpotMean,
];

/// Verifies the decisions, then predicts.
pub(crate) fn run(args: &ReplayArgs, ui: Ui) -> Result<(), Failure> {
    let record = read(&args.record)?;
    let Header { policy, system, .. } = &record.header;
    let fresh = policies::make(policy, system)?;
    let decisions = match replay(&record, fresh, policy) {
        Ok(decisions) => decisions,
        Err(ReplayError::NotReal(driver)) => {
            return Err(Failure::usage(
                format!("{}: written by the {driver}", args.record.display()),
                "only records of `onbeat run` can be replayed; `onbeat report` renders any record",
            ));
        }
        Err(error @ ReplayError::Different { .. }) => return Err(Failure::Differs(error.to_string())),
        Err(ReplayError::Drive(error)) => return Err(Failure::Policy { message: error.to_string(), help: None }),
    };
    let whole = if record.complete { "" } else { " (the record was cut short)" };
    ui.note(&format!("{decisions} decisions of {policy}: identical, bit for bit{whole}"));
    if args.decisions {
        return Ok(());
    }
    let measured = measured(&record);
    let predicted = predicted(&record, args)?;
    let table = match args.format {
        PlainFormat::Table => table(system, &predicted, &measured, ui),
        PlainFormat::Json => as_json(system, policy, decisions, &predicted, &measured),
    };
    ui.print(&table)
}

fn measured(record: &Record) -> Summary {
    let Header { system, seed, policy, .. } = &record.header;
    let mut statistics = Statistics::new(system, *seed, policy);
    for event in &record.events {
        statistics.event(event);
    }
    statistics.finish()
}

/// The same arrivals and the same sizes of work, simulated from the profile alone.
fn predicted(record: &Record, args: &ReplayArgs) -> Result<Summary, Failure> {
    let Header { system, seed, policy, .. } = &record.header;
    let mut system = system.clone();
    if let Some(last) = record.events.last() {
        // A run that was interrupted is predicted up to there.
        system.duration = system.duration.min(last.at);
    }
    let system = Arc::new(system);
    let mut statistics = Statistics::new(&system, *seed, policy);
    let mut recorder = match &args.predicted {
        Some(path) => {
            let file = File::create(path).map_err(Failure::io("create", path))?;
            let header = Header::new(&system, "simulator", policy, *seed);
            Some(Recorder::new(BufWriter::new(file), &header).map_err(Failure::io("write", path))?)
        }
        None => None,
    };
    let fresh = policies::make(policy, &system)?;
    let sink = (&mut statistics, recorder.as_mut());
    let engine = onbeat_sim::Engine::with_facts(&system, fresh, policy, *seed, facts_of(record), sink);
    engine.run().map_err(|error| Failure::Policy { message: error.to_string(), help: None })?;
    if let (Some(recorder), Some(path)) = (recorder, &args.predicted) {
        recorder.finish().map_err(Failure::io("write", path))?;
    }
    Ok(statistics.finish())
}

/// A figure predicted and measured.
#[derive(Clone, Copy, Debug)]
struct Pair {
    metric: Metric,
    predicted: f64,
    measured: f64,
}

impl Pair {
    fn of(metric: Metric, predicted: &Values, measured: &Values) -> Option<Self> {
        Some(Self { metric, predicted: *predicted.get(&metric)?, measured: *measured.get(&metric)? })
    }

    /// Error of the prediction: in percentage points for rates and shares, relative to what was measured for others.
    fn error(self) -> (f64, &'static str) {
        if matches!(self.metric, Metric::ViolationRate | Metric::Utilisation) {
            ((self.predicted - self.measured) * 100.0, "points")
        } else if self.measured == 0.0 {
            (0.0, "%")
        } else {
            ((self.predicted / self.measured - 1.0) * 100.0, "%")
        }
    }
}

fn table(system: &System, predicted: &Summary, measured: &Summary, ui: Ui) -> String {
    let mut grid = Grid::new(ui, &["<of\n", "<figure\n", "predicted\n", "measured\n", "error\n"]);
    let mut line = |of: &str, pair: Pair| {
        let (error, unit) = pair.error();
        let show = |value: f64| (pair.metric.show(value), Tone::Plain);
        grid.row(vec![
            (of.to_owned(), Tone::Plain),
            (pair.metric.short().to_owned(), Tone::Plain),
            show(pair.predicted),
            show(pair.measured),
            (format!("{error:+.1} {unit}"), Tone::Plain),
        ]);
    };
    for (i, source) in system.sources.iter().enumerate() {
        let (Some(predicted), Some(measured)) = (predicted.sources.get(i), measured.sources.get(i)) else { continue };
        for pair in OF_SOURCES.iter().filter_map(|&metric| Pair::of(metric, &predicted.values, &measured.values)) {
            line(&source.name, pair);
        }
    }
    for (i, unit) in system.platform.processors.iter().enumerate() {
        let (Some(predicted), Some(measured)) = (predicted.processors.get(i), measured.processors.get(i)) else {
            continue;
        };
        if let Some(pair) = Pair::of(Metric::Utilisation, &predicted.values, &measured.values) {
            line(&unit.name, pair);
        }
    }
    let mut text = String::new();
    push(&mut text, format_args!("{}\n", grid.finish()));
    text
}

fn as_json(system: &System, policy: &str, decisions: u64, predicted: &Summary, measured: &Summary) -> String {
    let pairs = |predicted: &Values, measured: &Values, metrics: &[Metric]| {
        let all = metrics.iter().filter_map(|&metric| Pair::of(metric, predicted, measured));
        let entry = |pair: Pair| {
            let (error, unit) = pair.error();
            json!({ "metric": pair.metric.name(), "predicted": pair.predicted, "measured": pair.measured,
                "error": error, "error_unit": unit })
        };
        all.map(entry).collect::<Vec<_>>()
    };
    let sources = system.sources.iter().zip(predicted.sources.iter().zip(&measured.sources));
    let sources: Vec<_> = sources
        .map(|(source, (p, m))| json!({ "source": source.name, "figures": pairs(&p.values, &m.values, &OF_SOURCES) }))
        .collect();
    let units = system.platform.processors.iter().zip(predicted.processors.iter().zip(&measured.processors));
    let units: Vec<_> = units
        .map(|(unit, (p, m))| {
            json!({ "processor": unit.name, "figures": pairs(&p.values, &m.values, &[Metric::Utilisation]) })
        })
        .collect();
    let all = json!({ "onbeat_replay": 1, "scenario": system.scenario, "platform": system.platform.name, "policy": policy,
        "decisions": decisions, "identical": true, "sources": sources, "processors": units });
    format!("{all:#}\n")
}
