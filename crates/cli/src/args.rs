//! The command line as plain data. `plan` gives it meaning.
//!
//! Everything here is what the user typed: names are not looked up and files are not opened.

mod real;

use std::path::PathBuf;

use clap::builder::{StyledStr, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use onbeat_core::units::Nanos;

use crate::exit::Exit;

pub use real::{
    DeviceArgs, FetchArgs, ListModelsArgs, ModelSet, ModelsArgs, ModelsCommand, ProfileArgs, ReplayArgs, RunArgs,
};

/// The scenario that `compare` runs without arguments.
pub const DEFAULT_SCENARIO: &str = "video-conference";

/// The platform that is used, where a scenario runs on it, when the command line names none.
pub const DEFAULT_PLATFORM: &str = "snapdragon-x-elite";

/// Seeds per policy when the command line does not say.
pub const DEFAULT_SEEDS: u32 = 20;

/// Where `compare` puts its report when the command line does not say.
pub const DEFAULT_OUT: &str = "onbeat-out";

/// Which scheduling policy keeps a real-time AI app on the beat?
///
/// Simulates real-time generative AI scenarios on chips with a CPU, a GPU and an NPU under many scheduling policies, and says
/// which policy meets the deadlines and why.
#[derive(Debug, Parser)]
#[command(name = "onbeat", version, propagate_version = true, styles = Styles::styled(), max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "General options")]
pub struct Global {
    /// Print results only: no progress, no notes.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Whether to use colours. `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true)]
    pub color: Color,
    /// The most threads to use; 0: one per core. Results do not depend on it.
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(..=1024))]
    pub threads: u16,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios under several policies and say which to use.
    #[command(after_long_help = COMPARE_HELP)]
    Compare(CompareArgs),
    /// Run one scenario under one policy and show what happened.
    #[command(after_long_help = SIMULATE_HELP)]
    Simulate(SimulateArgs),
    /// Run one scenario for real: real time, real models, real devices – or virtual ones.
    #[command(after_long_help = RUN_HELP)]
    Run(RunArgs),
    /// Replay a real run: are the decisions the same, and how good was the prediction?
    #[command(after_long_help = REPLAY_HELP)]
    Replay(ReplayArgs),
    /// Measure the models on this machine's devices, and write platform and profile files.
    #[command(after_long_help = PROFILE_HELP)]
    Profile(ProfileArgs),
    /// Get open models for real runs, and list them.
    Models(ModelsArgs),
    /// Show devices, backends and models, what is missing, and the command that adds it.
    Doctor,
    /// Check that scenarios fit their platforms, and what no policy could do.
    #[command(after_long_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Estimate the latencies of a model that nobody measured, from its architecture and the chip's peaks.
    #[command(after_long_help = ESTIMATE_HELP)]
    Estimate(EstimateArgs),
    /// List what onbeat knows: policies, platforms, scenarios, models, metrics.
    List(ListArgs),
    /// Show one thing by its name: a shipped file, a policy's page, a metric's meaning.
    Show(ShowArgs),
    /// Render a record in any form, without simulating again.
    #[command(after_long_help = REPORT_HELP)]
    Report(ReportArgs),
    /// Print the JSON Schema of a specification file.
    Schema(SchemaArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

const COMPARE_HELP: &str = "\
Without arguments: video-conference on snapdragon-x-elite under the standard policies.

Names: SCENARIO and PLATFORM are names from `onbeat list` or paths of files; several are separated by commas; `all` stands for \
every shipped one. With `all`, pairs of scenario and platform that do not fit are skipped, and the reason is shown. Pairs that you \
name must fit.

Policies take parameters after a colon: `--policy edf:preemptive=false,llf:hysteresis_ms=2,quantum_ms=4,sjf`. A part such as \
`key=value` belongs to the policy before it, so these are edf, llf with two parameters, and sjf. `onbeat list policies` shows the \
parameters.

Every policy sees the same seeds, hence the same arrivals, lengths and execution times: differences are the policies' own.

Examples:
  onbeat compare
  onbeat compare game,ar-assistant --platform all --policy edf,llf
  onbeat compare my-app.toml --platform my-chip.toml --profile my-costs.toml --seeds 50
  onbeat compare --set stream.camera.fps=60 --set duration_s=60
  onbeat compare --format json --quiet > result.json";

const RUN_HELP: &str = "\
Releases frames, sound and requests on time, executes each model where and when the policy says, and accounts for every deadline. \
Writes FOLDER/record.jsonl, FOLDER/report.html and, below FOLDER/outputs, what the models produced.

Examples:
  onbeat run assistant --policy onbeat
  onbeat run assistant --compare edf,llf,onbeat
  onbeat run video-conference --virtual --duration 10s
  onbeat run assistant --input question=question.wav --input camera=me.png";

const PROFILE_HELP: &str = "\
Models are measured in turn with each other, as they run in a scenario; then, where there are two processors, every pair side by side on \
the first two. Close everything else that computes.

Examples:
  onbeat profile
  onbeat profile --device cpu=ort --device npu=ort:OpenVINOExecutionProvider:NPU
  onbeat profile silero-vad dtln --runs 200 --segment-ms-max 5";

const REPLAY_HELP: &str = "\
(a) Drives the record's policy through the recorded events again and verifies that every decision is identical. (b) Simulates the same \
arrivals from the profile alone, and prints prediction against reality, with the error of each figure.

Examples:
  onbeat replay onbeat-run/record.jsonl";

const SIMULATE_HELP: &str = "\
Examples:
  onbeat simulate video-conference --policy edf
  onbeat simulate video-conference --policy edf --seed 7 --record run.jsonl
  onbeat report run.jsonl --html run.html";

const CHECK_HELP: &str = "\
Without --platform: every platform that the scenario says it runs on. Files of platforms and profiles are checked as well.

Ends with exit code 4 if no policy can meet every deadline and goal, because a run takes too long even alone or because the load \
is more than the processors can do, or if a scenario does not fit a platform that it says it runs on.

Loads count nominal latencies alone, of the default variants: without contention, batches, switching and loading. On a processor that is \
divided into units, each phase counts its unit-time (units × latency ÷ units of the processor) on as many units as make that least.

Examples:
  onbeat check video-conference
  onbeat check all --platform all
  onbeat check textbook-edf --simulate
  onbeat check my-chip.toml";

const ESTIMATE_HELP: &str = "\
Estimates assume peak rates, full bandwidth, and nothing but what must be computed and moved: `at least`, a lower bound, whatever a runtime \
overlaps, and `in turn`, one operator after the other. `--validate` shows by how much published latencies exceed the latter.

Models come with their architecture (`transformer` or `network` in a profile file), platforms with peak rates and bandwidths (`peak_tops`, \
`peak_tflops`, `bandwidth_gbps`, `launch_us`).

Examples:
  onbeat estimate llama-3.2-3b --platform ryzen-ai-7-350
  onbeat estimate qwen3-4b --platform snapdragon-x-elite --processor npu --prompt 512 --context 1024 --batch 4
  onbeat estimate my-model --profile my-models.toml --platform my-chip.toml --toml > my-costs.toml
  onbeat estimate --validate";

const REPORT_HELP: &str = "\
Examples:
  onbeat report run.jsonl
  onbeat report run.jsonl --html run.html --perfetto run.pftrace
  onbeat report run.jsonl --svg run.svg --from-ms 1000 --to-ms 1500";

/// Which scenarios, on which platforms, with what changes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scenario options")]
pub struct SystemArgs {
    /// Length of the run instead of the scenario's: `30s`, `500ms`, `2m`, `1h`; a plain number is seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub duration: Option<Nanos>,
    /// Set any field of the scenario, or of the platform with `platform.` before it. Repeatable. Entries of lists go by their
    /// names: `stream.camera.fps=60`, `platform.processor.npu.slots=2`, `duration_s=5`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// A further profile file; its figures go before the shipped ones. Repeatable.
    #[arg(long = "profile", value_name = "FILE")]
    pub profiles: Vec<PathBuf>,
    /// Processors do not slow each other down on the memory bus.
    #[arg(long)]
    pub no_contention: bool,
    /// Who chooses the processors' operating points, instead of whom the platform names: `policy`, `performance`, `powersave`, `ondemand`
    /// or `schedutil`.
    #[arg(long, value_name = "GOVERNOR")]
    pub governor: Option<onbeat_core::power::Governor>,
    /// Multiply all data moved over the memory bus: how sensitive is the result to these figures?
    #[arg(long, value_name = "FACTOR", value_parser = parse_factor, default_value_t = 1.0)]
    pub bytes_scale: f64,
}

/// Arguments of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Scenarios: names or paths, separated by commas or spaces, or `all`.
    #[arg(value_name = "SCENARIO", value_delimiter = ',', default_value = DEFAULT_SCENARIO)]
    pub scenarios: Vec<String>,
    /// Platforms: names or paths, separated by commas, or `all` [default: the scenario's own, snapdragon-x-elite, or the first
    /// that the scenario runs on]
    #[arg(short, long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// Policies, with parameters if any, separated by commas; `standard`, `all`, or a group such as `real-time`.
    #[arg(short = 'P', long = "policy", value_name = "POLICY", default_value = "standard")]
    pub policies: Vec<String>,
    /// How many seeds to run every policy with.
    #[arg(short = 'n', long, value_name = "N", default_value_t = DEFAULT_SEEDS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub seeds: u32,
    /// The first seed; the others follow it.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Form of the results on stdout. `json` and `csv` write no report unless --out is given.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Folder for the HTML report [default: onbeat-out]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Folder for the record of every run, one file each.
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Changes to the scenarios and platforms.
    #[command(flatten)]
    pub system: SystemArgs,
}

/// Arguments of `simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// Scenario: a name or a path.
    #[arg(value_name = "SCENARIO", default_value = DEFAULT_SCENARIO)]
    pub scenario: String,
    /// Platform: a name or a path [default: the scenario's own, snapdragon-x-elite, or the first that the scenario runs on]
    #[arg(short, long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Policy, with parameters if any.
    #[arg(short = 'P', long, value_name = "POLICY", default_value = "edf")]
    pub policy: String,
    /// Seed of all that is random.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Form of the results on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// File for the record of the run, for `onbeat report`.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Changes to the scenario and platform.
    #[command(flatten)]
    pub system: SystemArgs,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Scenarios, separated by commas or spaces, or `all`; or specification files of any kind.
    #[arg(value_name = "SCENARIO|FILE", value_delimiter = ',', default_value = DEFAULT_SCENARIO)]
    pub scenarios: Vec<String>,
    /// Platforms, separated by commas, or `all`.
    #[arg(short, long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<String>,
    /// Also simulate, and show the longest response times beside their bounds.
    #[arg(long)]
    pub simulate: bool,
    /// Form of the results on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: PlainFormat,
    /// Changes to the scenarios and platforms.
    #[command(flatten)]
    pub system: SystemArgs,
}

/// Arguments of `estimate`.
#[derive(Clone, Debug, Args)]
pub struct EstimateArgs {
    /// Model: a name, with a variant if any, such as `qwen3-0.6b/w8a8`.
    #[arg(value_name = "MODEL", required_unless_present = "validate")]
    pub model: Option<String>,
    /// Platform: a name or a path.
    #[arg(short, long, value_name = "PLATFORM", default_value = DEFAULT_PLATFORM)]
    pub platform: String,
    /// Processor; repeatable [default: all of the platform].
    #[arg(long = "processor", value_name = "PROCESSOR", value_delimiter = ',')]
    pub processors: Vec<String>,
    /// Length of the prompt [tokens].
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt: u32,
    /// Length of the context while decoding [tokens] [default: that of the prompt].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub context: Option<u32>,
    /// Requests that are computed together.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
    /// Compute the prompt in pieces of so many tokens, each of which reads the weights [default: in one piece].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub chunk: Option<u32>,
    /// Time to launch a kernel [µs], instead of the platform's.
    #[arg(long, value_name = "US", value_parser = parse_factor)]
    pub launch_us: Option<f64>,
    /// A file with models; goes before the shipped ones. Repeatable.
    #[arg(long = "profile", value_name = "FILE")]
    pub profiles: Vec<PathBuf>,
    /// Print a profile file with the estimates, for `compare --profile`.
    #[arg(long, conflicts_with_all = ["validate", "format"])]
    pub toml: bool,
    /// Compare estimates with every published latency of the shipped profiles instead.
    #[arg(long, conflicts_with = "model")]
    pub validate: bool,
    /// Form of the results on stdout; with `--validate`, JSON holds every figure.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: PlainFormat,
}

/// Arguments of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// What to list; everything but models and metrics if left out.
    #[arg(value_enum)]
    pub kind: Option<ListKind>,
    /// Form of the list on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: PlainFormat,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListKind {
    /// Scheduling policies.
    Policies,
    /// Chips.
    Platforms,
    /// Scenarios.
    Scenarios,
    /// Models.
    Models,
    /// Metrics.
    Metrics,
}

/// Arguments of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Name of a scenario, platform, policy, model or metric.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Arguments of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// The record, as written by `simulate --record`.
    #[arg(value_name = "RECORD")]
    pub record: PathBuf,
    /// Form of the results on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Also write an HTML report.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write a trace that Perfetto's UI opens.
    #[arg(long, value_name = "FILE")]
    pub perfetto: Option<PathBuf>,
    /// Also write the timeline as a picture.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Start of the picture and of the timeline in the HTML report [ms] [default: when all streams and sessions are active]
    #[arg(long, value_name = "MS", value_parser = parse_ms)]
    pub from_ms: Option<f64>,
    /// End of the picture and of the timeline in the HTML report [ms] [default: 500 ms after the start in the picture, 5 s in HTML]
    #[arg(long, value_name = "MS", value_parser = parse_ms)]
    pub to_ms: Option<f64>,
}

/// Arguments of `schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Kind of file.
    #[arg(value_enum)]
    pub kind: SchemaKind,
}

/// The kinds of specification files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// One chip.
    Platform,
    /// Models and their costs.
    Profile,
    /// What must run together.
    Scenario,
}

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Form of results on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// JSON, documented and stable.
    Json,
    /// CSV, one row per policy, seed, source and metric.
    Csv,
}

/// Form of output that is no set of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlainFormat {
    /// Text for people.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// The whole command line, for parsing, completions and the reference page.
pub fn command() -> clap::Command {
    Cli::command().after_help(StyledStr::from(Exit::table()))
}

/// `30s`, `500ms`, `2m`, `1h`; a plain number is seconds.
fn parse_time(text: &str) -> Result<Nanos, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == 'µ');
    let seconds = match text[digits.len()..].trim() {
        "" | "s" => 1.0,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("there is no unit of time `{unit}`; use us, ms, s, m or h")),
    };
    let number: f64 = digits.trim().parse().map_err(|_| "expected a time such as 30s, 500ms, 2m or 1h".to_owned())?;
    // Ten years: far beyond any use, and far below what 64 bits of nanoseconds hold.
    let seconds = number * seconds;
    if seconds > 0.0 && seconds <= 315_360_000.0 {
        Ok(Nanos::from_secs(seconds))
    } else {
        Err("a length of time is above 0 and at most ten years".to_owned())
    }
}

fn parse_factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if factor.is_finite() && factor >= 0.0 { Ok(factor) } else { Err("a factor is 0 or above".to_owned()) }
}

fn parse_ms(text: &str) -> Result<f64, String> {
    let ms: f64 = text.parse().map_err(|_| "expected a number of milliseconds".to_owned())?;
    if ms.is_finite() && ms >= 0.0 { Ok(ms) } else { Err("a time is 0 or above".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn times_take_units() {
        assert_eq!(parse_time("30s"), Ok(Nanos::from_secs(30.0)));
        assert_eq!(parse_time("1.5"), Ok(Nanos::from_secs(1.5)));
        assert_eq!(parse_time("500 ms"), Ok(Nanos::from_ms(500.0)));
        assert_eq!(parse_time("2m"), Ok(Nanos::from_secs(120.0)));
        assert_eq!(parse_time("1h"), Ok(Nanos::from_secs(3600.0)));
        assert!(parse_time("0s").is_err());
        assert!(parse_time("-1s").is_err());
        assert!(parse_time("nan").is_err());
        assert!(parse_time("5 parsecs").is_err_and(|e| e.contains("parsecs")));
    }
}
