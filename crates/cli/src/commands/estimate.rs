//! `onbeat estimate`: latencies that nobody measured, as tables or as a profile file.

use std::collections::BTreeMap;

use onbeat_analysis::roofline::{self, Comparison, Estimate, Group, Measured, NoEstimate, Rates, Subject};
use onbeat_core::spec::{FileKind, Library, ModelShape, ModelSpec, NoFiles, PlatformSpec, ProcessorSpec, ProfileSpec};
use serde_json::{Value, json};

use crate::args::{EstimateArgs, PlainFormat};
use crate::disk::Disk;
use crate::failure::{Failure, similar};
use crate::present::title;
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push};

/// Lengths of prompts and contexts in the tables of `--toml` [tokens], besides those asked for.
const LENGTHS: [u32; 9] = [1, 32, 128, 512, 1024, 2048, 4096, 8192, 16384];

/// Prints estimates.
pub(crate) fn run(args: &EstimateArgs, ui: Ui) -> Result<(), Failure> {
    if args.validate {
        return validate(args.format, ui);
    }
    let disk = Disk::default();
    let library = Library::shipped();
    let paths = args.profiles.iter().map(|path| path.display().to_string());
    let files: Vec<ProfileSpec> = paths
        .map(|path| library.profile(&path, &disk))
        .collect::<Result<_, _>>()
        .map_err(|errors| disk.failure(errors))?;
    let model = Model::find(args.model.as_deref().unwrap_or_default(), &files)?;
    let platform = library.platform(&args.platform, &disk).map_err(|errors| disk.failure(errors))?;
    let subject = Subject::new(model.spec, model.weights_mb).map_err(|why| model.failure(&why))?;
    let processors = chosen(&platform, &args.processors)?;
    let rated: Vec<(&ProcessorSpec, Result<Rates, NoEstimate>)> = processors
        .into_iter()
        .map(|processor| (processor, rates(&platform, processor, subject.compute_bits(), args.launch_us)))
        .collect();
    if let Some((_, Err(why))) = rated.first().filter(|_| rated.iter().all(|(_, rates)| rates.is_err())) {
        let help = "peaks and bandwidths stand in the platform file: peak_tops, peak_tflops, bandwidth_gbps";
        return Err(Failure::usage(format!("`{}`: {why}", platform.name), help));
    }
    if args.format == PlainFormat::Json {
        return ui.print(&json(args, subject, &rated));
    }
    if !args.toml {
        return ui.print(&tables(args, &model, &platform, subject, &rated, ui));
    }
    for why in rated.iter().filter_map(|(_, rates)| rates.as_ref().err()) {
        ui.note(&format!("left out: {why}"));
    }
    ui.print(&profile(args, &model, &platform, subject, &rated))
}

/// A model in one variant.
#[derive(Debug)]
struct Model<'a> {
    name: String,
    base: String,
    variant: Option<String>,
    spec: &'a ModelSpec,
    weights_mb: Option<f64>,
}

impl<'a> Model<'a> {
    /// From the users' files, later ones first, or the shipped ones.
    fn find(name: &str, files: &'a [ProfileSpec]) -> Result<Self, Failure> {
        let mut models: BTreeMap<&str, &ModelSpec> = Library::shipped().models().into_iter().collect();
        for file in files {
            models.extend(file.model.iter().map(|(name, spec)| (name.as_str(), spec)));
        }
        let (base, variant) = match name.split_once('/') {
            Some((base, variant)) if !models.contains_key(name) => (base, Some(variant)),
            _ => (name, None),
        };
        let Some(spec) = models.get(base) else {
            let meant = similar(base, models.keys().copied());
            let meant = if meant.is_empty() { String::new() } else { format!("did you mean {}? ", meant.join(", ")) };
            return Err(Failure::usage(
                format!("there is no model `{base}`"),
                format!("{meant}`onbeat list models` shows the shipped ones; `--profile FILE` adds yours"),
            ));
        };
        let weights_mb = match variant {
            None => spec.weights_mb,
            Some(wanted) => {
                let Some(variant) = spec.variant.get(wanted) else {
                    let known: Vec<&str> = spec.variant.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    let help = format!("its variants: {known}");
                    return Err(Failure::usage(format!("`{base}` has no variant `{wanted}`"), help));
                };
                variant.weights_mb
            }
        };
        let (base, variant) = (base.to_owned(), variant.map(str::to_owned));
        Ok(Self { name: name.to_owned(), base, variant, spec, weights_mb })
    }

    fn failure(&self, why: &NoEstimate) -> Failure {
        let with_architecture = Library::shipped().models().into_iter();
        let known: Vec<&str> = with_architecture
            .filter(|(_, spec)| spec.transformer.is_some() || spec.network.is_some())
            .map(|(name, _)| name)
            .collect();
        let help = match why {
            NoEstimate::Architecture => format!(
                "add `transformer` or `network` to the model in a file of yours and name it with `--profile`; known for: {}",
                known.join(", ")
            ),
            _ => "see `onbeat schema profile`".to_owned(),
        };
        Failure::usage(format!("`{}`: {why}", self.name), help)
    }
}

fn chosen<'a>(platform: &'a PlatformSpec, names: &[String]) -> Result<Vec<&'a ProcessorSpec>, Failure> {
    if names.is_empty() {
        return Ok(platform.processor.iter().collect());
    }
    let find = |name: &String| {
        platform.processor.iter().find(|processor| processor.name == *name).ok_or_else(|| {
            let known: Vec<&str> = platform.processor.iter().map(|processor| processor.name.as_str()).collect();
            Failure::usage(
                format!("`{}` has no processor `{name}`", platform.name),
                format!("it has: {}", known.join(", ")),
            )
        })
    };
    names.iter().map(find).collect()
}

fn rates(
    platform: &PlatformSpec,
    processor: &ProcessorSpec,
    bits: u32,
    launch_us: Option<f64>,
) -> Result<Rates, NoEstimate> {
    let launch_us = launch_us.or(processor.launch_us);
    Rates::of(platform, &ProcessorSpec { launch_us, ..processor.clone() }, bits)
}

fn tables(
    args: &EstimateArgs,
    model: &Model<'_>,
    platform: &PlatformSpec,
    subject: Subject<'_>,
    rated: &[(&ProcessorSpec, Result<Rates, NoEstimate>)],
    ui: Ui,
) -> String {
    let context = args.context.unwrap_or(args.prompt);
    let mut text = format!(
        "{} on {}: estimates\n",
        ui.bold(title(&model.spec.title, &model.name)),
        ui.bold(title(&platform.title, &platform.name))
    );
    if model.spec.shape == ModelShape::Autoregressive {
        push(
            &mut text,
            format_args!("prompt {} tokens, context {context} tokens, batch {}\n", args.prompt, args.batch),
        );
    }
    text.push('\n');
    let headings = [
        "processor\n",
        "<\n",
        "at least\nms",
        "in turn\nms",
        "<bound by\n",
        "compute\nms",
        "memory\nms",
        "launch\nms",
        "work\nGop",
        "data\nMB",
    ];
    let mut grid = Grid::new(ui, &headings);
    for (processor, rates) in rated {
        let Ok(rates) = rates else { continue };
        for (phase, estimate) in phases(args, subject, *rates, context) {
            let cells = [
                (processor.name.clone(), Tone::Plain),
                (phase.to_owned(), Tone::Plain),
                (digits(estimate.at_least_ms()), Tone::Plain),
                (digits(estimate.ms()), Tone::Plain),
                (estimate.bound().name().to_owned(), Tone::Plain),
                (digits(estimate.compute_s * 1e3), Tone::Weak),
                (digits(estimate.memory_s * 1e3), Tone::Weak),
                (digits(estimate.launch_s * 1e3), Tone::Weak),
                (digits(estimate.operations * 1e-9), Tone::Weak),
                (digits(estimate.bytes * 1e-6), Tone::Weak),
            ];
            grid.row(cells);
        }
    }
    text += &grid.finish();
    for why in rated.iter().filter_map(|(_, rates)| rates.as_ref().err()) {
        push(&mut text, format_args!("Left out: {why}.\n"));
    }
    if args.launch_us.is_none() && rated.iter().any(|(p, rates)| rates.is_ok() && p.launch_us.is_none()) {
        text += "No cost of launching a kernel is known, so none is counted; try --launch-us.\n";
    }
    text += "At least: no runtime is faster, whatever it overlaps. In turn: one operator after the other, and launches on top.\n\
             Real latencies are longer: `onbeat estimate --validate` shows by how much.\n";
    text
}

fn json(args: &EstimateArgs, subject: Subject<'_>, rated: &[(&ProcessorSpec, Result<Rates, NoEstimate>)]) -> String {
    let mut rows = Vec::new();
    for (processor, rates) in rated {
        let rates = match rates {
            Ok(rates) => rates,
            Err(why) => {
                rows.push(json!({ "processor": processor.name, "no_estimate": why.to_string() }));
                continue;
            }
        };
        for (phase, estimate) in phases(args, subject, *rates, args.context.unwrap_or(args.prompt)) {
            rows.push(json!({
                "processor": processor.name,
                "phase": phase,
                "at_least_ms": estimate.at_least_ms(),
                "latency_ms": estimate.ms(),
                "bound": estimate.bound().name(),
                "compute_ms": estimate.compute_s * 1e3,
                "memory_ms": estimate.memory_s * 1e3,
                "launch_ms": estimate.launch_s * 1e3,
                "operations": estimate.operations,
                "bytes": estimate.bytes,
            }));
        }
    }
    pretty(&rows)
}

fn phases(
    args: &EstimateArgs,
    subject: Subject<'_>,
    rates: Rates,
    context: u32,
) -> impl Iterator<Item = (&'static str, Estimate)> {
    let rows = [
        ("inference", subject.inference(rates)),
        ("TTFT", subject.prefill(rates, args.prompt, args.chunk, args.batch)),
        ("TPOT", subject.decode(rates, context, args.batch)),
    ];
    rows.into_iter().filter_map(|(phase, estimate)| Some((phase, estimate?)))
}

/// The estimates as a profile file.
fn profile(
    args: &EstimateArgs,
    model: &Model<'_>,
    platform: &PlatformSpec,
    subject: Subject<'_>,
    rated: &[(&ProcessorSpec, Result<Rates, NoEstimate>)],
) -> String {
    let mut text = format!(
        "# Estimated by `onbeat estimate`: peak rates, one operator after the other. Leave the next line out to paste the rest into the platform's profile file.\n\
         platform = {}\n",
        quoted(&platform.name)
    );
    let mut sources = String::new();
    for (processor, rates) in rated {
        let Ok(rates) = rates else { continue };
        let key = format!("roofline {} on {}", model.name, processor.name);
        push(&mut text, format_args!("\n[[cost]]\nmodel = {}\n", quoted(&model.base)));
        if let Some(variant) = &model.variant {
            push(&mut text, format_args!("variant = {}\n", quoted(variant)));
        }
        push(&mut text, format_args!("processor = {}\n", quoted(&processor.name)));
        text += &latencies(args, model, subject, *rates);
        push(&mut text, format_args!("source = {}\n", quoted(&key)));
        push(
            &mut sources,
            format_args!(
                "\n[source.{}]\nkind = \"analytical\"\n\
                 formula = \"sum over operator groups of max(operations / peak, bytes / bandwidth) + kernels x launch: peak rates, one operator after the other\"\n\
                 inputs = {}\n",
                quoted(&key),
                quoted(&inputs(model, &platform.name, &processor.name, *rates))
            ),
        );
    }
    text + &sources
}

fn inputs(model: &Model<'_>, platform: &str, processor: &str, rates: Rates) -> String {
    format!(
        "architecture and {} MB of weights of {}; {processor} of {platform}: {} operations/s, {} bytes/s, {} us per kernel",
        digits(model.weights_mb.unwrap_or(0.0)),
        model.name,
        scientific(rates.operations_per_s),
        scientific(rates.bytes_per_s),
        digits(rates.launch_s * 1e6),
    )
}

/// The lines of an entry that hold latencies.
fn latencies(args: &EstimateArgs, model: &Model<'_>, subject: Subject<'_>, rates: Rates) -> String {
    if let Some(estimate) = subject.inference(rates) {
        let key = if model.spec.shape == ModelShape::Iterative { "step_ms" } else { "latency_ms" };
        return format!("{key} = {}\n", milliseconds(estimate));
    }
    let context = args.context.unwrap_or(args.prompt);
    let lengths = |own: u32| {
        let mut lengths = LENGTHS.to_vec();
        lengths.push(own);
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    };
    let table = |own: u32, estimate: &dyn Fn(u32) -> Option<Estimate>| {
        let points = lengths(own).into_iter().filter_map(|x| Some(format!("[{x}, {}]", milliseconds(estimate(x)?))));
        points.collect::<Vec<_>>().join(", ")
    };
    let prefill = table(args.prompt, &|prompt| subject.prefill(rates, prompt, args.chunk, 1));
    let decode = table(context, &|context| subject.decode(rates, context, 1));
    let mut text = format!("prefill_ms = [{prefill}]\ndecode_ms = [{decode}]\n");
    if let Some(chunk) = args.chunk {
        push(&mut text, format_args!("prefill_chunk = {chunk}\n"));
    }
    if args.batch > 1
        && let Some(alone) = subject.decode(rates, context, 1)
    {
        let mut batches: Vec<u32> = (0..10).map(|i| 1 << i).filter(|&batch| batch < args.batch).collect();
        batches.push(args.batch);
        let point = |batch: u32| {
            let ratio = subject.decode(rates, context, batch)?.ms() / alone.ms();
            Some(format!("[{batch}, {:.4}]", ratio.max(1.0)))
        };
        let points: Vec<String> = batches.into_iter().filter_map(point).collect();
        push(&mut text, format_args!("batch_factor = [{}]\n", points.join(", ")));
    }
    text
}

/// A latency for a file, which has none below a nanosecond.
fn milliseconds(estimate: Estimate) -> String {
    digits(estimate.ms().max(1e-6))
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON, and JSON's quoted texts are TOML's")
}

/// Four digits that count, without an exponent.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let places = (3 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// `5.5e13`
fn scientific(value: f64) -> String {
    format!("{value:e}")
}

/// Compares estimates with all shipped profiles.
fn validate(format: PlainFormat, ui: Ui) -> Result<(), Failure> {
    let library = Library::shipped();
    let models: BTreeMap<&str, &ModelSpec> = library.models().into_iter().collect();
    let mut compared: Vec<Comparison> = Vec::new();
    for name in library.names(FileKind::Profile) {
        let profile = library.profile(name, &NoFiles).map_err(Failure::Spec)?;
        let Some(platform) = &profile.platform else { continue };
        let platform = library.platform(platform, &NoFiles).map_err(Failure::Spec)?;
        compared.extend(roofline::compare(&profile, &platform, |name| models.get(name).copied()));
    }
    match format {
        PlainFormat::Table => ui.print(&accuracy(&compared, ui)),
        PlainFormat::Json => ui.print(&pretty(&compared.iter().map(figure).collect())),
    }
}

/// A figure and its estimate, or why there is none.
fn figure(comparison: &Comparison) -> Value {
    let Measured { platform, processor, model, phase, tokens, ms } = &comparison.measured;
    let mut object = json!({
        "platform": platform,
        "processor": processor,
        "model": model,
        "phase": phase,
        "tokens": tokens,
        "published_ms": ms,
    });
    match &comparison.estimate {
        Ok(estimate) => {
            object["at_least_ms"] = json!(estimate.at_least_ms());
            object["estimated_ms"] = json!(estimate.ms());
            object["ratio"] = json!(comparison.ratio());
            object["bound"] = json!(estimate.bound().name());
        }
        Err(why) => object["no_estimate"] = json!(why.to_string()),
    }
    object
}

fn pretty(rows: &Vec<Value>) -> String {
    serde_json::to_string_pretty(rows).expect("texts and numbers are JSON")
}

fn accuracy(compared: &[Comparison], ui: Ui) -> String {
    let mut grid = Grid::new(
        ui,
        &[
            "platform and processor\n",
            "<\n",
            "figures\n",
            "least\n×",
            "median\n×",
            "p90\n×",
            "most\n×",
            "<mostly bound by\n",
        ],
    );
    for group in roofline::groups(compared) {
        let ratio = |value: f64| (format!("{value:.2}"), if value < 1.0 { Tone::Bad } else { Tone::Plain });
        let all = group.of.is_empty();
        let cells = [
            (if all { "all".to_owned() } else { group.of.clone() }, Tone::Plain),
            (group.phase.to_owned(), Tone::Plain),
            (group.figures.to_string(), Tone::Plain),
            ratio(group.least),
            ratio(group.median),
            ratio(group.p90),
            ratio(group.most),
            (bounds(compared, &group), Tone::Weak),
        ];
        grid.row(cells);
    }
    let mut text = "Published latency / estimated latency\n\n".to_owned();
    text += &grid.finish();
    let mut without: BTreeMap<String, usize> = BTreeMap::new();
    for comparison in compared.iter().filter(|comparison| comparison.measured.phase != "inference") {
        if let Err(why) = &comparison.estimate {
            let measured = &comparison.measured;
            let of = match why {
                NoEstimate::Architecture | NoEstimate::Weights => measured.model.clone(),
                _ => measured.platform.clone(),
            };
            *without.entry(format!("{of}: {why}")).or_default() += 1;
        }
    }
    text += "\nLanguage models' figures that have no estimate:\n";
    for (why, figures) in without {
        push(&mut text, format_args!("  {figures:3}  {why}\n"));
    }
    text
}

/// What most of a group's estimates are bound by.
fn bounds(compared: &[Comparison], group: &Group) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for comparison in compared {
        let measured = &comparison.measured;
        let belongs = measured.phase == group.phase
            && (group.of.is_empty() || group.of == format!("{} {}", measured.platform, measured.processor));
        if let (true, Ok(estimate)) = (belongs, &comparison.estimate) {
            *counts.entry(estimate.bound().name()).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map_or_else(String::new, |(bound, count)| format!("{bound} ({count} of {})", group.figures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        let shown = [0.0, 0.000_123_456, 1.0, 12.3456, 123_456.7].map(digits);
        assert_eq!(shown, ["0", "0.0001235", "1", "12.35", "123457"]);
    }

    #[test]
    fn texts_are_quoted_as_toml() {
        assert_eq!(quoted("a \"b\""), "\"a \\\"b\\\"\"");
    }
}
