//! `onbeat profile`: measures the models on the devices of this machine, and writes platform and profile files.

use std::path::Path;
use std::time::SystemTime;

use onbeat_backend::Error;
use onbeat_core::spec::ModelShape;
use onbeat_models::{Cache, Catalogue, RunsAs, Set, State, list};

use crate::args::{DeviceArgs, ProfileArgs};
use crate::commands::report::write as write_file;
use crate::failure::Failure;
use crate::live::{self, Unit, kind_of};
use crate::profile::{
    About, Measured, Processor, Shape, Side, Subject, fit_bandwidth, in_company, measure, pairs, quantile, write,
};
use crate::tables::{Grid, Tone};
use crate::ui::Ui;

/// Most segments that a network is cut into.
const SEGMENTS_MAX: usize = 16;

/// Measures, prints, writes.
pub(crate) fn run(args: &ProfileArgs, ui: Ui) -> Result<(), Failure> {
    let cache = live::cache()?;
    let subjects = subjects(&args.models, &cache)?;
    let groups = groups(args)?;
    let cores: Vec<u32> = groups.iter().flat_map(|group| group.cores.iter().copied()).collect();
    let _awake = args.awake.then(|| live::keep_awake(&cores, ui));
    let mut measured: Vec<(String, Measured)> = Vec::new();
    let mut sides: Vec<Vec<Side>> = Vec::new();
    for group in &groups {
        let cores: Vec<u32> = group.cores.first().copied().into_iter().collect();
        let unit = unit(&group.device, &cores, &cache)?;
        let mut here = Vec::new();
        for subject in &subjects {
            ui.note(&format!("{} on {} ({})", subject.name, group.name, group.device));
            match one(subject, &unit, &cores, args, &cache) {
                Ok((found, model)) => {
                    here.push(Side {
                        name: subject.name.clone(),
                        kind: subject.kind,
                        model,
                        unit: unit.clone(),
                        cores: cores.clone(),
                    });
                    measured.push((group.name.clone(), found));
                }
                Err(error) => ui.warn(&format!("{} on {}: {error}; left out", subject.name, group.name)),
            }
        }
        if here.len() > 1 {
            ui.note(&format!("Company: {} models in turn on {}", here.len(), group.name));
            let partners: Vec<Side> = group.cores.get(1).map_or_else(Vec::new, |&core| on_core(&here, core));
            let found = in_company(&here, &partners, args.runs, &cache).map_err(|error| failed(&error))?;
            let last = measured.len() - here.len();
            for ((_, model), found) in measured[last..].iter_mut().zip(found) {
                model.keep_company(found);
            }
        }
        sides.push(here);
    }
    if measured.is_empty() {
        return Err(Failure::Device {
            message: "no model could be measured".to_owned(),
            help: Some("`onbeat models fetch` gets models; `onbeat doctor` shows devices".to_owned()),
        });
    }
    let interference = if args.no_interference { Vec::new() } else { interference(&groups, &sides, &cache, ui)? };
    if !interference.is_empty() {
        match fit_bandwidth(&interference) {
            Some(gbps) => ui.note(&format!(
                "Interference: {} pairs; a bus of {gbps:.1} GB/s explains the slowdowns",
                interference.len()
            )),
            None => ui.note(&format!("Interference: {} pairs, no slowdown is the memory bus's", interference.len())),
        }
    }
    ui.print(&table(&measured, ui))?;
    let machine = onbeat_runtime::machine();
    let about = About {
        name: args.name.clone(),
        machine: format!("{}, {} cores", machine.cpu, machine.cores),
        date: today(),
        versions: versions(&groups),
        memory_gb: machine.memory_bytes as f64 / 1e9 * 0.8,
        processors: groups,
        command: if args.awake { "onbeat profile --awake" } else { "onbeat profile" }.to_owned(),
    };
    let files = write(&about, &measured, &interference);
    let (platform, profile) = (args.out.join("platform.toml"), args.out.join("profile.toml"));
    write_file(&platform, files.platform.as_bytes(), ui)?;
    write_file(&profile, files.profile.as_bytes(), ui)?;
    let (platform, profile) = (platform.display(), profile.display());
    ui.note(&format!("Next: onbeat compare assistant --platform {platform} --profile {profile}"));
    ui.note(&format!("      onbeat run assistant --platform {platform} --profile {profile}"));
    Ok(())
}

fn failed(error: &Error) -> Failure {
    Failure::Device { message: error.to_string(), help: None }
}

/// The models to measure: those named, or all of the core set that are fetched.
fn subjects(names: &[String], cache: &Cache) -> Result<Vec<Subject>, Failure> {
    if !names.is_empty() {
        return names.iter().map(|name| named(name)).collect();
    }
    let wrong = |error: onbeat_models::Error| Failure::Device { message: error.to_string(), help: None };
    let listed = list(Catalogue::shipped(), cache, false).map_err(wrong)?;
    let fetched = listed.iter().filter(|model| {
        model.state == State::Fetched && model.entry.set == Set::Core && model.entry.runs_as != RunsAs::File
    });
    let subject = |entry: &onbeat_models::Entry| Subject { name: entry.name.clone(), kind: entry.runs_as, path: None };
    Ok(fetched.map(|model| subject(model.entry)).collect())
}

/// A model of the catalogue by name, or a file by path: its name is then the file's.
fn named(name: &str) -> Result<Subject, Failure> {
    let path = Path::new(name);
    let extension = path.extension().and_then(|extension| extension.to_str());
    let kind = match extension {
        Some("onnx") => RunsAs::Network,
        Some("gguf") => RunsAs::Language,
        _ => return Ok(Subject { name: name.to_owned(), kind: kind_of(name, ModelShape::OneShot), path: None }),
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
    let path = std::path::absolute(path).map_err(Failure::io("read", path))?;
    Ok(Subject { name: stem.to_owned(), kind, path: Some(path) })
}

/// The processors to measure: one group per device, the CPU's with a unit per core.
fn groups(args: &ProfileArgs) -> Result<Vec<Processor>, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let default = [DeviceArgs { name: "cpu".to_owned(), device: "rten".to_owned() }];
    let devices: &[DeviceArgs] = if args.devices.is_empty() { &default } else { &args.devices };
    devices
        .iter()
        .map(|DeviceArgs { name, device }| {
            let cpu = device == "rten" || device == "ort" || device == "ort:cpu";
            let kind = match device.rsplit(':').next() {
                _ if cpu => "cpu",
                Some("GPU") => "gpu",
                Some("NPU") => "npu",
                _ if device.starts_with("remote") => "remote",
                _ => "cpu",
            };
            let count = if cpu { cores.min(args.cores.unwrap_or(cores)).max(1) as usize } else { 1 };
            let cores = if cpu { (0..count as u32).collect() } else { Vec::new() };
            Ok(Processor { name: name.clone(), kind, count, device: device.clone(), cores })
        })
        .collect()
}

fn unit(device: &str, cores: &[u32], cache: &Cache) -> Result<Unit, Failure> {
    let device = onbeat_core::system::Device { name: device.to_owned(), cores: cores.to_vec(), options: Vec::new() };
    Unit::find(&device, cache)
}

/// Measures one model on a thread of its own that is pinned to the processor's core.
fn one(
    subject: &Subject,
    unit: &Unit,
    cores: &[u32],
    args: &ProfileArgs,
    cache: &Cache,
) -> Result<(Measured, std::sync::Arc<dyn onbeat_backend::Model>), Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            onbeat_runtime::pin(cores).map_err(Error::device)?;
            unit.host(|| bounded(subject, unit, args, cache))
        });
        thread.join().unwrap_or_else(|_| Err(Error::device("the measuring thread has panicked")))
    })
}

/// Measures one model, cut until no segment is longer than the bound.
fn bounded(
    subject: &Subject,
    unit: &Unit,
    args: &ProfileArgs,
    cache: &Cache,
) -> Result<(Measured, std::sync::Arc<dyn onbeat_backend::Model>), Error> {
    let mut segments = 1;
    loop {
        let found = measure(subject, unit, segments, args.runs, cache)?;
        let longest = match &found.0.shape {
            Shape::Whole { segments_ms, .. } => segments_ms.iter().copied().fold(0.0, f64::max),
            Shape::Tokens { .. } => 0.0,
        };
        let more = (segments as f64 * (longest / args.segment_ms_max)).ceil() as usize;
        if longest <= args.segment_ms_max || segments >= SEGMENTS_MAX || found.1.segments() < segments {
            return Ok(found);
        }
        segments = more.clamp(segments + 1, SEGMENTS_MAX);
    }
}

/// The same models on another core.
fn on_core(sides: &[Side], core: u32) -> Vec<Side> {
    sides.iter().map(|side| Side { cores: vec![core], ..side.clone() }).collect()
}

/// Pairs on two processors: two units of one group if it has two, else of the first two groups.
fn interference(
    groups: &[Processor],
    sides: &[Vec<Side>],
    cache: &Cache,
    ui: Ui,
) -> Result<Vec<crate::profile::Pair>, Failure> {
    let (Some(group), Some(here)) = (groups.first(), sides.first()) else { return Ok(Vec::new()) };
    let there: Vec<Side> = if let Some(&core) = group.cores.get(1) {
        on_core(here, core)
    } else if let Some(other) = sides.get(1) {
        other.clone()
    } else {
        return Ok(Vec::new());
    };
    ui.note(&format!("Interference: {} pairs side by side", here.len() * (here.len() + 1) / 2));
    pairs(here, &there, cache).map_err(|error| failed(&error))
}

fn table(measured: &[(String, Measured)], ui: Ui) -> String {
    let mut grid = Grid::new(
        ui,
        &[
            "model\n",
            "<on\n",
            "p50\nms",
            "p95\nms",
            "p99\nms",
            "segments\n",
            "prefill 128\nms",
            "token\nms",
            "weights\nMB",
            "load\nms",
        ],
    );
    for (processor, model) in measured {
        let none = || "–".to_owned();
        let (mut cells, mut tokens) = (vec![none(), none(), none(), none()], [none(), none()]);
        match &model.shape {
            Shape::Whole { latencies_ms, segments_ms, .. } => {
                for (cell, share) in cells.iter_mut().zip([0.5, 0.95, 0.99]) {
                    *cell = format!("{:.2}", quantile(latencies_ms, share));
                }
                cells[3] = segments_ms.len().to_string();
            }
            Shape::Tokens { prefill_ms, decode_ms, .. } => {
                let near = |points: &[(f64, f64)]| {
                    let at = points.iter().min_by(|a, b| (a.0 - 128.0).abs().total_cmp(&(b.0 - 128.0).abs()));
                    at.map_or_else(String::new, |(_, ms)| format!("{ms:.1}"))
                };
                tokens = [near(prefill_ms), near(decode_ms)];
            }
        }
        let mut row = vec![model.name.clone(), processor.clone()];
        row.append(&mut cells);
        row.extend(tokens);
        row.push(format!("{:.1}", model.weights as f64 / 1e6));
        row.push(format!("{:.0}", model.load_ms));
        grid.row(row.into_iter().map(|cell| (cell, Tone::Plain)));
    }
    grid.finish()
}

fn versions(groups: &[Processor]) -> String {
    let mut versions = vec![format!("onbeat {}", env!("CARGO_PKG_VERSION"))];
    for backend in live::backends() {
        if groups.iter().any(|group| group.device.split(':').next() == Some(backend.name())) {
            versions.push(backend.description());
        }
    }
    versions.join(", ")
}

/// Today's date in UTC, as 2026-11-21.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(i64::try_from(seconds / 86_400).unwrap_or(0));
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }
}
