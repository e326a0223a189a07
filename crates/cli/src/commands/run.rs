//! `onbeat run`: one scenario for real, under one policy or several.

use std::sync::Arc;

use onbeat_core::cost::PhaseCost;
use onbeat_core::system::{Role, System};
use onbeat_report::{Comparison, Report};

use crate::analyse;
use crate::args::{Format, RunArgs};
use crate::commands::compare::excerpt;
use crate::commands::report::write;
use crate::failure::Failure;
use crate::live::{self, Devices, Inputs, RealDone, RealRun, kind_of, shares_steps};
use crate::plan;
use crate::policies;
use crate::present;
use crate::ui::Ui;

/// Name of the record within the folder.
const RECORD: &str = "record.jsonl";

/// Runs for real, prints, and writes record, report and outputs.
pub(crate) fn run(args: &RunArgs, ui: Ui) -> Result<(), Failure> {
    let mut system = plan::one_system(&args.scenario, args.platform.as_deref(), &args.system)?;
    if args.all_virtual {
        for unit in &mut system.platform.processors {
            unit.device = None;
        }
    }
    let names = if args.compare.is_empty() { vec![args.policy.clone()] } else { policies::select(&args.compare)? };
    for name in &names {
        policies::make(name, &system)?;
    }
    tell_devices(&system, ui);
    check_devices(&system)?;
    unbatch(&mut system, ui);
    let system = Arc::new(system);
    let devices = Arc::new(Devices::prepare(&system)?);
    let inputs = Arc::new(Inputs::prepare(&system, &devices, &args.inputs)?);
    let _awake = args.awake.then(|| live::keep_awake(&cores_of(&system), ui));
    let mut rows = Vec::new();
    let mut failed = None;
    for name in &names {
        let folder =
            if names.len() == 1 { args.out.clone() } else { args.out.join(name.replace([':', ',', '/'], "_")) };
        let record = folder.join(RECORD);
        let outputs = folder.join("outputs");
        ui.note(&format!(
            "{} on {} under {name}, {} of real time",
            system.scenario, system.platform.name, system.duration
        ));
        let run = RealRun {
            system: &system,
            policy: name,
            seed: args.seed,
            devices: &devices,
            inputs: &inputs,
            urgent: args.urgent,
            record: &record,
            outputs: (!args.no_outputs).then_some(outputs.as_path()),
        };
        let done = live::one(&run, ui)?;
        tell(&done, &system, ui);
        ui.note(&format!("Record: {} (`onbeat replay {0}` checks it)", record.display()));
        let RealDone { summary, events, record_failure, .. } = done;
        if let Some(error) = record_failure {
            failed.get_or_insert(Failure::io("write", &record)(error));
        }
        let mut row = present::row(name, vec![summary]);
        let (from, to) = present::window(&system);
        row.excerpt = excerpt(args.seed, events, from, to);
        rows.push(row);
        if live::interrupted() {
            ui.warn("interrupted: the run ended early, in order; its record is valid");
            break;
        }
    }
    let mut comparison = Comparison::new((*system).clone(), rows);
    comparison.real = true;
    analyse::complete(&mut comparison);
    let report = Report { onbeat: env!("CARGO_PKG_VERSION").to_owned(), command: None, comparisons: vec![comparison] };
    if names.len() == 1 {
        ui.print(&present::ran(&report, "of real time", args.format, ui))?;
    } else {
        ui.print(&present::compared(&report, args.format, ui))?;
    }
    if args.format == Format::Table {
        write(&args.out.join("report.html"), present::html(&report)?.as_bytes(), ui)?;
    }
    failed.map_or(Ok(()), Err)
}

/// The cores that the platform names; all that there are if it names none.
fn cores_of(system: &System) -> Vec<u32> {
    let devices = system.platform.processors.iter().filter_map(|unit| unit.device.as_ref());
    let named: std::collections::BTreeSet<u32> = devices.flat_map(|device| device.cores.iter().copied()).collect();
    if named.is_empty() {
        return (0..std::thread::available_parallelism().map_or(1, usize::from) as u32).collect();
    }
    named.into_iter().collect()
}

/// What devices cannot do is an error, not something to leave out.
fn check_devices(system: &System) -> Result<(), Failure> {
    for node in &system.nodes {
        let real =
            node.costs.enumerate().find(|(p, cost)| cost.is_some() && system.platform.processors[*p].runs_models());
        let Some((p, _)) = real else { continue };
        let unit = &system.platform.processors[p].name;
        if let Some(adapter) = node.adapter {
            let name = &system.models[adapter.model].name;
            return Err(Failure::usage(
                format!("stage `{}` needs the adapter `{name}`, and no backend can load adapters", node.name),
                format!("rehearse it: set the device of `{unit}` to `virtual`, or take `adapter` out of the stage"),
            ));
        }
        if system.models[node.model].role == Role::Tool {
            return Err(Failure::usage(
                format!("the tool `{}` takes a slot of `{unit}`, which is real: nothing would be called", node.name),
                "leave out `on`, so that the tool is rehearsed without a processor".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Takes batching out of the profile where a real device serves one request of a model at a time.
fn unbatch(system: &mut System, ui: Ui) {
    let System { platform, models, nodes, .. } = system;
    let mut batched = false;
    for node in nodes {
        let all = node.variants.iter_mut().map(|other| (other.model, &mut other.costs));
        for (model, costs) in all.chain([(node.model, &mut node.costs)]) {
            let kind = kind_of(&models[model].name, models[model].shape);
            for (cost, unit) in costs.iter_mut().zip(&platform.processors).filter(|(_, unit)| unit.runs_models()) {
                let shares = unit.device.as_ref().is_some_and(|device| shares_steps(&device.name, kind));
                for (_, phase) in cost.iter_mut().flat_map(|cost| &mut cost.phases) {
                    match phase {
                        PhaseCost::Decode { .. } if shares => {}
                        PhaseCost::Decode { batch, .. } | PhaseCost::Steps { batch, .. } => {
                            batched |= batch.take().is_some();
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    if batched {
        ui.note("  without batches where a device serves one request of a model at a time: `rten` shares the steps of language models");
    }
}

/// Says what executes where: nobody should take a rehearsal for a measurement.
fn tell_devices(system: &System, ui: Ui) {
    for unit in &system.platform.processors {
        match &unit.device {
            Some(device) if unit.runs_models() => {
                let cores: Vec<String> = device.cores.iter().map(u32::to_string).collect();
                let cores = if cores.is_empty() { String::new() } else { format!(", on core {}", cores.join("+")) };
                let points = unit.power.as_ref().map_or(0, |model| model.points.len());
                let speed = if points > 1 {
                    ", at the speed that the system gives it: operating points are not set"
                } else {
                    ""
                };
                ui.note(&format!("  {}: {}{cores}{speed}", unit.name, device.name));
            }
            _ => ui.note(&format!("  {}: virtual, takes as long as the profile says and computes nothing", unit.name)),
        }
    }
}

fn tell(done: &RealDone, system: &System, ui: Ui) {
    for note in &done.finished.notes {
        ui.note(&format!("Note: {note}"));
    }
    let (lateness, instants) = (&done.finished.lateness, &done.finished.instants);
    let onbeat_driver::Outcome { jobs, decisions, .. } = done.finished.outcome;
    ui.note(&format!(
        "{jobs} jobs with {decisions} decisions in {} of real time; timers late by {} (p50), {} (p99); dispatcher busy {} (p50), {} (p99) per instant",
        done.finished.ended,
        lateness.at(0.5),
        lateness.at(0.99),
        instants.at(0.5),
        instants.at(0.99),
    ));
    for trouble in done.troubles.iter().take(10) {
        let unit = &system.platform.processors[trouble.processor].name;
        ui.warn(&format!("at {} on {unit}: {}", trouble.at, trouble.what));
    }
    if done.troubles.len() > 10 {
        ui.warn(&format!("and {} more", done.troubles.len() - 10));
    }
    for line in &done.products {
        ui.note(line);
    }
}
