//! What executes on each processor, and how models get there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use onbeat_backend::{Backend, Control, Error, LoadOptions, Loader, Model, Precision};
use onbeat_core::cost::PhaseCost;
use onbeat_core::id::{IdVec, ModelId, ProcessorId};
use onbeat_core::spec::ModelShape;
use onbeat_core::system::{Node, System};
use onbeat_models::{Cache, Catalogue, Environment, RunsAs};
use onbeat_runtime::Library;

use super::samples;
use crate::failure::Failure;

/// The backends that a platform file can name, in the order in which `doctor` lists them.
pub(crate) fn backends() -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(onbeat_backend_rten::Rten), Arc::new(onbeat_backend_ort::Ort::new(ort_config()))]
}

/// Where else to look for ONNX Runtime: nowhere but in the usual places, which the backend knows.
fn ort_config() -> onbeat_backend_ort::Config {
    onbeat_backend_ort::Config::default()
}

/// The cache folder for models.
pub(crate) fn cache() -> Result<Cache, Failure> {
    Cache::locate(&Environment::read(|name| std::env::var_os(name)))
        .map_err(|error| Failure::Device { message: error.to_string(), help: None })
}

/// What executes on a processor.
#[derive(Clone, Debug)]
pub(crate) enum Unit {
    /// Networks, by a backend on one of its devices.
    Networks {
        /// The backend.
        backend: Arc<dyn Backend>,
        /// Its device.
        device: String,
        /// How to load.
        options: LoadOptions,
    },
    /// Language models, by a server.
    Server {
        /// Where it is.
        url: String,
        /// Options of the platform file.
        options: Vec<(String, String)>,
    },
    /// Language models from GGUF files, by llama.cpp.
    #[cfg(feature = "llama")]
    Llama {
        /// How to load.
        options: onbeat_backend_llama::LlamaOptions,
    },
}

impl Unit {
    /// Whether one of NVIDIA's graphics processors computes: its energy is counted elsewhere than the processor package's.
    pub(crate) fn is_nvidia(&self) -> bool {
        matches!(self, Self::Networks { device, .. } if ["CUDA", "TensorRT", "NvTensorRT"].iter().any(|name| device.contains(name)))
    }

    /// What a platform file's `device` stands for: `rten`, `ort:OpenVINOExecutionProvider:NPU`, `remote:http://host:port/v1`.
    pub(crate) fn find(device: &onbeat_core::system::Device, cache: &Cache) -> Result<Self, Failure> {
        let (name, rest) = device.name.split_once(':').unwrap_or((&device.name, ""));
        if name == "remote" {
            return Ok(Self::Server { url: rest.to_owned(), options: device.options.clone() });
        }
        if name == "llama" {
            return llama(device);
        }
        let backends = backends();
        let Some(backend) = backends.iter().find(|backend| backend.name() == name) else {
            let known: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
            return Err(Failure::Device {
                message: format!("there is no backend `{name}` (of device `{}`)", device.name),
                help: Some(format!(
                    "backends are {}, llama, remote and virtual; `onbeat doctor` shows their devices",
                    known.join(", ")
                )),
            });
        };
        let rest = if rest.is_empty() { "cpu" } else { rest };
        let unusable = |error: Error| Failure::Device {
            message: format!("device `{}`: {error}", device.name),
            help: Some("`onbeat doctor` shows what there is and what is missing".to_owned()),
        };
        let devices = backend.devices().map_err(unusable)?;
        if !devices.iter().any(|found| found.name == rest) {
            let known: Vec<&str> = devices.iter().map(|found| found.name.as_str()).collect();
            return Err(Failure::Device {
                message: format!("{} has no device `{rest}`", backend.description()),
                help: Some(format!("it has: {}", known.join(", "))),
            });
        }
        let options = load_options(device, cache)?;
        Ok(Self::Networks { backend: Arc::clone(backend), device: rest.to_owned(), options })
    }

    /// Does work on the calling thread, or on one that suits the backend better, and waits for it.
    pub(crate) fn host<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            // Saves a switch of threads with every graph.
            Self::Networks { backend, .. } if backend.name() == "rten" => onbeat_backend_rten::compute_here(work),
            _ => work(),
        }
    }

    /// Loads a model, cut into `segments` and for steps of so many `members`, and warms it up.
    pub(crate) fn load(
        &self,
        name: &str,
        kind: RunsAs,
        path: Option<&Path>,
        (segments, members): (usize, usize),
        cache: &Cache,
        control: &Control,
    ) -> Result<Arc<dyn Model>, Error> {
        let model: Arc<dyn Model> = match self {
            Self::Networks { backend, device, options } => {
                let options = LoadOptions { segments: segments.max(options.segments), members, ..options.clone() };
                let loader = Loader { backend: &**backend, device, options: &options, control };
                match path {
                    Some(path) => onbeat_models::load_path(path, cache, &loader)?,
                    None => onbeat_models::load(name, cache, &loader)?,
                }
            }
            Self::Server { url, options } => {
                let options = onbeat_backend_remote::RemoteOptions::default().read(options)?;
                Arc::new(onbeat_backend_remote::Remote::connect(url, name, options)?)
            }
            #[cfg(feature = "llama")]
            Self::Llama { options } => {
                let own = || cache.folder(name).join("model.gguf");
                let path = path.map_or_else(own, Path::to_path_buf);
                Arc::new(onbeat_backend_llama::Llama::load(&path, options.clone(), control)?)
            }
        };
        samples::warm_up(&*model, kind, cache, control).map_err(|error| error.about(name))?;
        Ok(model)
    }
}

/// How networks are loaded, from the options of a platform file.
fn load_options(device: &onbeat_core::system::Device, cache: &Cache) -> Result<LoadOptions, Failure> {
    let mut options = LoadOptions {
        threads: device.cores.len().max(1),
        cores: device.cores.iter().map(|&core| core as usize).collect(),
        cache: Some(cache.root().join("compiled")),
        ..LoadOptions::default()
    };
    for (key, value) in &device.options {
        let wrong = |right: &str| Failure::Device {
            message: format!("device `{}`: option {key} = `{value}`", device.name),
            help: Some(format!("it takes {right}")),
        };
        match key.as_str() {
            "threads" => options.threads = value.parse().map_err(|_| wrong("a number of threads"))?,
            "segments" => options.segments = value.parse().map_err(|_| wrong("a number of segments"))?,
            "fallback" => options.fallback = value.parse().map_err(|_| wrong("`true` or `false`"))?,
            "precision" => {
                options.precision = match value.as_str() {
                    "as-stored" => Precision::AsStored,
                    "half" => Precision::Half,
                    _ => return Err(wrong("`as-stored` or `half`")),
                }
            }
            _ => options.extra.push((key.clone(), value.clone())),
        }
    }
    Ok(options)
}

/// llama.cpp, in builds that have it.
#[cfg(feature = "llama")]
fn llama(device: &onbeat_core::system::Device) -> Result<Unit, Failure> {
    let mut options = onbeat_backend_llama::LlamaOptions::default();
    options.threads = device.cores.len().max(1);
    options.cores = device.cores.iter().map(|&core| core as usize).collect();
    let options = options.read(&device.options);
    let options = options.map_err(|error| Failure::Device { message: error.to_string(), help: None })?;
    Ok(Unit::Llama { options })
}

/// llama.cpp, which this build does not have.
#[cfg(not(feature = "llama"))]
fn llama(device: &onbeat_core::system::Device) -> Result<Unit, Failure> {
    Err(Failure::Device {
        message: format!("device `{}`: this build has no llama.cpp", device.name),
        help: Some(
            "build it with `cargo build --release --features llama` (needs cmake, clang, libclang and a C++ compiler)"
                .to_owned(),
        ),
    })
}

/// What a model does: as the catalogue says; of others, language models are those that generate tokens, and all else is a network.
pub(crate) fn kind_of(name: &str, shape: ModelShape) -> RunsAs {
    let base = name.split('/').next().unwrap_or(name);
    match Catalogue::shipped().find(base) {
        Ok(entry) => entry.runs_as,
        Err(_) if shape == ModelShape::Autoregressive => RunsAs::Language,
        Err(_) => RunsAs::Network,
    }
}

/// Whether answers of a model can share steps on a device: `rten` extends the networks of language models so that they do.
pub(crate) fn shares_steps(device: &str, kind: RunsAs) -> bool {
    kind == RunsAs::Language && device.split(':').next() == Some("rten")
}

/// What executes on each processor of a system.
#[derive(Debug)]
pub(crate) struct Devices {
    units: IdVec<ProcessorId, Option<Unit>>,
    models: IdVec<ModelId, Wanted>,
    cache: Cache,
    /// Loaded before the run because something had to be known about them.
    early: Mutex<BTreeMap<(ModelId, ProcessorId), Arc<dyn Model>>>,
}

/// A model, as the runtime will ask for it.
#[derive(Clone, Debug)]
struct Wanted {
    /// Name in the catalogue: without the variant.
    name: String,
    /// With the variant.
    full_name: String,
    kind: RunsAs,
    path: Option<PathBuf>,
    segments: IdVec<ProcessorId, usize>,
    /// The most members of its steps on each processor.
    members: IdVec<ProcessorId, usize>,
}

impl Devices {
    /// Finds what the platform file names.
    pub(crate) fn prepare(system: &System) -> Result<Self, Failure> {
        let cache = cache()?;
        let unit = |unit: &onbeat_core::system::Processor| match &unit.device {
            Some(device) if unit.runs_models() => Unit::find(device, &cache).map(Some),
            _ => Ok(None),
        };
        let units = system.platform.processors.iter().map(unit).collect::<Result<_, Failure>>()?;
        let models = system.models.enumerate().map(|(id, model)| Wanted {
            name: model.name.split('/').next().unwrap_or(&model.name).to_owned(),
            full_name: model.name.clone(),
            kind: kind_of(&model.name, model.shape),
            path: model.path.as_ref().map(PathBuf::from),
            segments: system.platform.processors.ids().map(|p| segments_of(system, id, p)).collect(),
            members: system.platform.processors.ids().map(|p| members_of(system, id, p)).collect(),
        });
        let models = models.collect();
        let devices = Self { units, models, cache, early: Mutex::default() };
        system.nodes.iter().filter(|node| !node.variants.is_empty()).try_for_each(|node| devices.check_choice(node))?;
        Ok(devices)
    }

    /// Whether each variant that a stage may run on real processors is a network of its own, and is there: a policy may choose any of
    /// them at any time.
    fn check_choice(&self, node: &Node) -> Result<(), Failure> {
        let real = |variant: &u8| {
            node.costs_of(*variant).enumerate().any(|(p, cost)| cost.is_some() && self.units[p].is_some())
        };
        let mut seen: Vec<&Wanted> = Vec::new();
        for wanted in node.variant_numbers().filter(real).map(|variant| &self.models[node.model_of(variant)]) {
            let failed = |message: String, help: &str| {
                Err(Failure::Device {
                    message: format!("stage `{}`, variant `{}`: {message}", node.name, wanted.full_name),
                    help: Some(help.to_owned()),
                })
            };
            if let Some(other) = seen.iter().find(|other| (&other.name, &other.path) == (&wanted.name, &wanted.path)) {
                let message = format!("it has no network of its own, but would run that of `{}`", other.full_name);
                return failed(message, "give the variant a `path`, or take it out of `variants`");
            }
            if seen.first().is_some_and(|first| first.kind != wanted.kind) {
                return failed(
                    "it is another kind of model than the stage's own".to_owned(),
                    "in a real run, variants of a stage take the same inputs",
                );
            }
            let networks = self.units.iter().flatten().any(|unit| matches!(unit, Unit::Networks { .. }));
            match &wanted.path {
                Some(path) if !path.exists() => {
                    return failed(format!("there is no file {}", path.display()), "`path` is relative to its file");
                }
                None if networks => {
                    if let Err(error) = onbeat_models::find(&wanted.name, &self.cache) {
                        return failed(error.to_string(), "`onbeat models list` shows what there is");
                    }
                }
                _ => {}
            }
            seen.push(wanted);
        }
        Ok(())
    }

    /// The cache folder.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Loads a model before the run, where it runs first of all, and keeps it for the run.
    pub(crate) fn load_early(&self, model: ModelId, processor: ProcessorId) -> Result<Arc<dyn Model>, Error> {
        let loaded = self.load(model, processor, &Control::new())?;
        self.early().insert((model, processor), Arc::clone(&loaded));
        Ok(loaded)
    }

    fn early(&self) -> std::sync::MutexGuard<'_, BTreeMap<(ModelId, ProcessorId), Arc<dyn Model>>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many segments the profile says that a model consists of on a processor.
fn segments_of(system: &System, model: ModelId, p: ProcessorId) -> usize {
    let costs = system.nodes.iter().filter_map(|node| node.costs_of(node.variant_of(model)?)[p].as_ref());
    let boundaries = costs.flat_map(|cost| &cost.phases).map(|(_, cost)| match cost {
        PhaseCost::Fixed { boundaries, .. } => boundaries.len(),
        _ => 1,
    });
    boundaries.max().unwrap_or(1).max(1)
}

/// The most answers that share a step of a model on a processor, by the profile.
fn members_of(system: &System, model: ModelId, p: ProcessorId) -> usize {
    let costs = system.nodes.iter().filter_map(|node| node.costs_of(node.variant_of(model)?)[p].as_ref());
    costs.flat_map(|cost| &cost.phases).map(|(_, cost)| cost.batch_max() as usize).max().unwrap_or(1)
}

impl Library for Devices {
    fn load(&self, model: ModelId, processor: ProcessorId, control: &Control) -> Result<Arc<dyn Model>, Error> {
        if let Some(loaded) = self.early().remove(&(model, processor)) {
            return Ok(loaded);
        }
        let wanted = &self.models[model];
        let Some(unit) = &self.units[processor] else {
            return Err(Error::unsupported(format!("{}: the processor is virtual", wanted.name)));
        };
        unit.load(
            &wanted.name,
            wanted.kind,
            wanted.path.as_deref(),
            (wanted.segments[processor], wanted.members[processor]),
            &self.cache,
            control,
        )
    }

    fn host(&self, processor: ProcessorId, work: Box<dyn FnOnce() + Send + '_>) {
        match &self.units[processor] {
            Some(unit) => unit.host(work),
            None => work(),
        }
    }
}
