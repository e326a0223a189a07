//! `onbeat doctor`: what there is, what is missing, and the command that adds it.

use onbeat_backend::Granularity;
use onbeat_models::{Catalogue, Set, State, list};

use crate::failure::Failure;
use crate::live::{self, backends};
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push};

/// Looks around and prints.
pub(crate) fn run(ui: Ui) -> Result<(), Failure> {
    let mut text = format!("{}\n", ui.bold("Machine"));
    machine(&mut text);
    push(&mut text, format_args!("\n{}\n", ui.bold("Devices")));
    devices(&mut text, ui);
    push(&mut text, format_args!("\n{}\n", ui.bold("Models")));
    models(&mut text)?;
    ui.print(&text)
}

fn machine(text: &mut String) {
    let machine = onbeat_runtime::machine();
    push(
        text,
        format_args!("  onbeat {}, {} {}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH),
    );
    push(
        text,
        format_args!(
            "  {}, {} cores, {:.1} GB of memory\n",
            machine.cpu,
            machine.cores,
            machine.memory_bytes as f64 / 1e9
        ),
    );
    match onbeat_runtime::real_time_permission() {
        Ok(()) => push(text, format_args!("  real-time priority: permitted\n")),
        Err(note) => push(text, format_args!("  real-time priority: {note}\n")),
    }
    let energy = if machine.energy.is_empty() {
        "none (neither a readable RAPL domain nor NVML); profiles will state no energy".to_owned()
    } else {
        machine.energy.join(", ")
    };
    push(text, format_args!("  energy counter: {energy}\n"));
}

fn devices(text: &mut String, ui: Ui) {
    let mut grid = Grid::new(ui, &["device", "<kind", "<what it is", "<stops", "<by"]);
    let mut missing = Vec::new();
    for backend in backends() {
        match backend.devices() {
            Ok(found) => {
                for device in found {
                    let stops = match device.granularity {
                        Granularity::Node => "between operators",
                        Granularity::Segment => "between segments",
                    };
                    let name = if device.name == "cpu" {
                        backend.name().to_owned()
                    } else {
                        format!("{}:{}", backend.name(), device.name)
                    };
                    let cells = [
                        name,
                        format!("{:?}", device.kind).to_lowercase(),
                        device.description,
                        stops.to_owned(),
                        backend.description(),
                    ];
                    grid.row(cells.map(|cell| (cell, Tone::Plain)));
                }
            }
            Err(error) => missing.push(format!("{}: {error}", backend.name())),
        }
    }
    let fixed = [
        ["virtual", "any", "takes as long as a profile says, computes nothing", "between segments", "onbeat"],
        ["remote:URL", "remote", "an OpenAI-compatible server, for language models", "between tokens", "onbeat"],
    ];
    for cells in fixed {
        grid.row(cells.map(|cell| (cell.to_owned(), Tone::Plain)));
    }
    text.push_str(&grid.finish());
    for line in missing {
        push(text, format_args!("  missing: {line}\n"));
    }
    let ort = onbeat_backend_ort::Ort::default();
    for plugin in ort.plugins().unwrap_or_default() {
        let version = plugin.version.as_deref().unwrap_or("version unknown");
        let what = match (&plugin.error, plugin.providers.is_empty()) {
            (Some(error), _) => format!("cannot be used: {error}"),
            (None, true) => "found no device that it drives".to_owned(),
            (None, false) => plugin.providers.join(", "),
        };
        push(text, format_args!("  plugin {} ({version}): {what}\n", plugin.path.display()));
    }
    push(text, format_args!("  More devices: docs/how-to/use-your-accelerator.md\n"));
}

fn models(text: &mut String) -> Result<(), Failure> {
    let cache = live::cache()?;
    let failed = |error: onbeat_models::Error| Failure::Device { message: error.to_string(), help: None };
    let listed = list(Catalogue::shipped(), &cache, false).map_err(failed)?;
    let there = listed.iter().filter(|model| model.state == State::Fetched).count();
    push(text, format_args!("  {there} of {} fetched, in {}\n", listed.len(), cache.root().display()));
    let lacking: Vec<&str> = listed
        .iter()
        .filter(|model| model.entry.set == Set::Core && model.state != State::Fetched)
        .map(|model| model.entry.name.as_str())
        .collect();
    if !lacking.is_empty() {
        push(text, format_args!("  missing of the core set: {}: `onbeat models fetch`\n", lacking.join(", ")));
    }
    Ok(())
}
