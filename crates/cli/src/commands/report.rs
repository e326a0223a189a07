//! `onbeat report`: renders a record, without simulating again.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::Sink;
use onbeat_core::record::{Record, RecordError};
use onbeat_core::units::Nanos;
use onbeat_report::timeline::Timeline;
use onbeat_report::{Excerpt, perfetto, timeline_svg};

use crate::args::ReportArgs;
use crate::failure::Failure;
use crate::present;
use crate::ui::Ui;

/// Length of the picture unless the command line says otherwise: 500 ms.
const PICTURE: Nanos = Nanos(500_000_000);

/// Reads the record, prints its tables and writes the files that are asked for.
pub(crate) fn run(args: &ReportArgs, ui: Ui) -> Result<(), Failure> {
    let record = read(&args.record)?;
    let header = &record.header;
    let system = &header.system;
    if !record.complete {
        let last = record.events.last().map_or(Nanos::ZERO, |event| event.at);
        ui.warn(&format!("{} was cut off at {last}; the results cover the time before", args.record.display()));
    }
    let mut statistics = Statistics::new(system, header.seed, &header.policy);
    for event in &record.events {
        statistics.event(event);
    }
    let mut report = present::single(system.clone(), &header.policy, statistics.finish());
    ui.print(&present::ran(
        &report,
        if header.driver == "runtime" { "of real time" } else { "simulated" },
        args.format,
        ui,
    ))?;

    let title =
        format!("{} on {} under {}, seed {}", system.scenario, system.platform.name, header.policy, header.seed);
    let (from, _) = present::window(system);
    let from = args.from_ms.map_or(from, Nanos::from_ms);
    let window = |length: Nanos| {
        let to = args.to_ms.map_or(from.saturating_add(length), Nanos::from_ms).min(system.duration);
        if from < to {
            return Ok((from, to));
        }
        Err(Failure::usage(
            format!("the timeline would end at {to}, before it starts at {from}"),
            format!("give --from-ms and --to-ms within the run of {}", system.duration),
        ))
    };
    if let Some(path) = &args.svg {
        let (from, to) = window(PICTURE)?;
        let timeline = Timeline::new(system, &record.events, from, to);
        write(path, timeline_svg::render(system, &timeline, &title).as_bytes(), ui)?;
    }
    if let Some(path) = &args.perfetto {
        let timeline = Timeline::new(system, &record.events, Nanos::ZERO, system.duration);
        write(path, &perfetto::render(system, &timeline, &header.policy), ui)?;
    }
    if let Some(path) = &args.html {
        let (from, to) = window(present::WINDOW)?;
        let excerpt = Excerpt { seed: header.seed, events: record.events.clone(), from, to };
        for row in report.comparisons.iter_mut().flat_map(|comparison| &mut comparison.rows) {
            row.excerpt = Some(excerpt.clone());
        }
        write(path, present::html(&report)?.as_bytes(), ui)?;
    }
    Ok(())
}

/// Reads a record.
pub(crate) fn read(path: &Path) -> Result<Record, Failure> {
    let file = File::open(path).map_err(Failure::io("read", path))?;
    Record::read(BufReader::new(file)).map_err(|problem| match problem {
        RecordError::Io(error) => Failure::io("read", path)(error),
        problem => Failure::Record { path: path.to_owned(), problem },
    })
}

/// Writes a file and says so.
pub(crate) fn write(path: &Path, contents: &[u8], ui: Ui) -> Result<(), Failure> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Failure::io("create", folder))?;
    }
    fs::write(path, contents).map_err(Failure::io("write", path))?;
    ui.note(&format!("Wrote {}", path.display()));
    Ok(())
}
