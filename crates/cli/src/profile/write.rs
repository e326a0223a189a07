//! Platform and profile files from measurements.

use std::fmt::Write;

use super::measure::{CHUNK, Measured, Shape};
use super::pairs::{NOISE, Pair, fit_bandwidth};
use super::quantile;

/// A platform file and a profile file.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) platform: String,
    pub(crate) profile: String,
}

/// What the files say about the machine and the measurement.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// Name of the platform.
    pub(crate) name: String,
    /// The machine, in words.
    pub(crate) machine: String,
    /// Day of the measurement: 2026-11-21.
    pub(crate) date: String,
    /// Versions of what executed.
    pub(crate) versions: String,
    /// The processors: as in the platform file that the measurement was made on.
    pub(crate) processors: Vec<Processor>,
    /// Memory of the machine [GB].
    pub(crate) memory_gb: f64,
    /// The command that measured.
    pub(crate) command: String,
}

/// A group of equal processors.
#[derive(Clone, Debug)]
pub(crate) struct Processor {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) count: usize,
    pub(crate) device: String,
    pub(crate) cores: Vec<u32>,
}

/// Writes both files. `measured` goes by processor name.
pub(crate) fn write(about: &About, measured: &[(String, Measured)], pairs: &[Pair]) -> Files {
    Files { platform: platform(about, pairs), profile: profile(about, measured) }
}

/// A string as TOML writes it.
fn quoted(text: &str) -> String {
    toml_string(text)
}

fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn platform(about: &About, pairs: &[Pair]) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a string succeeds.
        let _ = writeln!(text, "{args}");
    };
    line(format_args!("# Measured by `{}`.", about.command));
    line(format_args!("name = {}", quoted(&about.name)));
    line(format_args!("title = {}", quoted(&about.machine)));
    line(format_args!(
        "description = {}",
        quoted(&format!("Measured by onbeat on {}: {}", about.date, about.versions))
    ));
    line(format_args!("\n[memory]"));
    line(format_args!("capacity_gb = {:.3}", about.memory_gb));
    let bandwidth = fit_bandwidth(pairs);
    let mut provenance = vec!["capacity_gb = \"measured\""];
    if let Some(bandwidth) = bandwidth {
        line(format_args!("bandwidth_gbps = {bandwidth:.2}"));
        provenance.push("bandwidth_gbps = \"interference\"");
    }
    line(format_args!("provenance = {{ {} }}", provenance.join(", ")));
    for unit in &about.processors {
        line(format_args!("\n[[processor]]\nname = {}\nkind = {}", quoted(&unit.name), quoted(unit.kind)));
        if unit.count > 1 {
            line(format_args!("count = {}", unit.count));
        }
        line(format_args!("device = {}\ncores = {:?}", quoted(&unit.device), unit.cores));
    }
    line(format_args!("\n[source.measured]\nkind = \"measured\"\nfrom = {}", quoted(&from(about))));
    if !pairs.is_empty() {
        line(format_args!(
            "\n# Slowdown of each model beside another one, on another core (1: none; up to {NOISE} is noise):"
        ));
        for pair in pairs {
            let (a, b) = pair.slowdown;
            line(format_args!(
                "#   {} x {a:.2} beside {} x {b:.2} (alone they would move {:.1} GB/s together)",
                pair.first, pair.second, pair.demand_gbps
            ));
        }
        let found = match bandwidth {
            Some(_) => "bandwidth_gbps is what explains the slowdowns: two that want more than the bus has share it",
            None => {
                "no slowdown is the memory bus's, which is therefore never the bottleneck: a pair that moves more is not slowed down"
            }
        };
        line(format_args!("# {found}."));
        if bandwidth.is_some() {
            line(format_args!("\n[source.interference]\nkind = \"measured\"\nfrom = {}", quoted(&from(about))));
            line(format_args!(
                "note = \"fitted to the slowdown of pairs of models, with each inference moving its weights once\""
            ));
        }
    }
    text
}

fn from(about: &About) -> String {
    format!("{}, {}, {}", about.machine, about.date, about.versions)
}

fn profile(about: &About, measured: &[(String, Measured)]) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{args}");
    };
    line(format_args!("# Measured by `{}`.\nplatform = {}", about.command, quoted(&about.name)));
    let mut seen = Vec::new();
    for (_, model) in measured {
        if seen.contains(&&model.name) {
            continue;
        }
        seen.push(&model.name);
        let task = onbeat_models::Catalogue::shipped().find(&model.name).map(|entry| entry.task.clone());
        line(format_args!("\n[model.{}]", quoted(&model.name)));
        if let Ok(task) = task {
            line(format_args!("task = {}", quoted(&task)));
        }
        if let Some(path) = &model.path {
            line(format_args!("path = {}", quoted(&path.display().to_string())));
        }
        line(format_args!("shape = {}", quoted(model.shape.name())));
        line(format_args!("weights_mb = {:.3}", model.weights as f64 / 1e6));
        if let Shape::Tokens { kv_bytes_per_token, .. } = &model.shape {
            line(format_args!("kv_kb_per_token = {:.3}", kv_bytes_per_token / 1e3));
        }
        line(format_args!("source = \"measured\""));
    }
    for (processor, model) in measured {
        line(format_args!("\n[[cost]]\nmodel = {}\nprocessor = {}", quoted(&model.name), quoted(processor)));
        match &model.shape {
            Shape::Whole { latencies_ms, segments_ms, .. } => {
                let q = |share: f64| quantile(latencies_ms, share);
                line(format_args!(
                    "quantiles_ms = {{ min = {:.4}, p50 = {:.4}, p90 = {:.4}, p95 = {:.4}, p99 = {:.4}, max = {:.4} }}",
                    q(0.0),
                    q(0.5),
                    q(0.9),
                    q(0.95),
                    q(0.99),
                    q(1.0)
                ));
                if segments_ms.len() > 1 {
                    let weights: Vec<String> = segments_ms.iter().map(|ms| format!("{ms:.4}")).collect();
                    line(format_args!("segment_weights = [{}]", weights.join(", ")));
                }
            }
            Shape::Tokens { prefill_ms, pieces, decode_ms, batch_factor, .. } => {
                line(format_args!("prefill_ms = {}", points(prefill_ms)));
                if let Some(pieces) = pieces {
                    line(format_args!("prefill_chunk = {CHUNK}\nchunk_overhead_ms = {:.4}", pieces.overhead_ms));
                    line(format_args!("chunk_efficiency = {}", points(&pieces.efficiency)));
                }
                line(format_args!("decode_ms = {}", points(decode_ms)));
                if !batch_factor.is_empty() {
                    line(format_args!("batch_factor = {}", points(batch_factor)));
                }
            }
        }
        if let Some(energy) = model.energy_mj {
            line(format_args!("energy_mj = {energy:.3}"));
        }
        line(format_args!("memory_mb = {:.3}\nload_ms = {:.2}", model.memory as f64 / 1e6, model.load_ms));
        line(format_args!("source = \"measured\""));
        let mut others = vec!["memory_mb", "load_ms"];
        if model.energy_mj.is_some() {
            others.push("energy_mj");
        }
        let others: Vec<String> = others.iter().map(|field| format!("{field} = \"measured\"")).collect();
        line(format_args!("provenance = {{ {} }}", others.join(", ")));
    }
    let runs = measured.iter().map(|(_, model)| model.runs).min().unwrap_or(0);
    line(format_args!("\n[source.measured]\nkind = \"measured\"\nfrom = {}\nruns = {runs}", quoted(&from(about))));
    line(format_args!(
        "note = \"after a warm-up; whole inferences: on one core, in turn with the other models measured and now and then beside one on another core, or alone if there is no other; language models: alone, median over a tenth of the runs at each length\""
    ));
    text
}

fn points(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("[{x}, {y:.4}]")).collect();
    format!("[{}]", points.join(", "))
}
