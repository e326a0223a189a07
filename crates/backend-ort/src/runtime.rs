//! The ONNX Runtime of this process: loaded once, with the plugins registered so far, and the devices that they offer.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use onbeat_backend::{Device, DeviceKind, Error, Granularity};
use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use ort::logging::LogLevel;
use ort::memory::DeviceType;

use crate::find::{self, Candidate, Places};
use crate::provider;

/// The loaded ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its file.
    pub path: PathBuf,
    /// Its version, such as 1.31.1, as far as its name, its package or itself tell.
    pub version: String,
}

/// A plugin library with execution providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// The name that it is registered under.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Version of the package that it comes from, if it is known.
    pub version: Option<String>,
    /// The execution providers that it has added; empty if it found no device that it drives.
    pub providers: Vec<String>,
    /// Why it could not be registered.
    pub error: Option<String>,
}

/// The ONNX Runtime of this process.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) environment: Environment,
    pub(crate) library: Library,
    plugins: Mutex<Vec<Plugin>>,
    /// Written to while a plugin is registered: ONNX Runtime's list of devices must not be read meanwhile.
    registering: RwLock<()>,
}

/// A device, and how ONNX Runtime knows it.
pub(crate) struct Found<'r> {
    pub(crate) device: Device,
    pub(crate) provider: String,
    pub(crate) target: Target<'r>,
}

/// How a session is put on a device.
pub(crate) enum Target<'r> {
    /// By the device that a provider has reported.
    Reported(ort::device::Device<'r>),
    /// By the name of a provider that reports none.
    CoreMl,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// Held while a library is loaded: the first thread does it, others wait for the outcome.
static LOADING: Mutex<()> = Mutex::new(());

/// The runtime, loaded now if it is not yet.
pub(crate) fn get(places: &Places) -> Result<&'static Runtime, Error> {
    let _loading = lock(&LOADING);
    if let Some(runtime) = RUNTIME.get() {
        let named = places.named_library();
        return match named.filter(|path| !same_file(path, &runtime.library.path)) {
            Some(path) => Err(Error::unsupported(format!(
                "{}: this process has loaded {} already, and can load one ONNX Runtime only",
                path.display(),
                runtime.library.path.display()
            ))),
            None => Ok(runtime),
        };
    }
    let mut reasons = Vec::new();
    for path in places.libraries() {
        match load(&path) {
            Ok(runtime) => return Ok(RUNTIME.get_or_init(|| runtime)),
            Err(reason) => reasons.push(reason),
        }
    }
    let tried = if reasons.is_empty() { String::new() } else { format!("; tried: {}", reasons.join("; ")) };
    let wanted = format!("1.{} or newer", ort::MINOR_VERSION);
    Err(Error::not_found(format!(
        "no ONNX Runtime {wanted} was found: `pip install onnxruntime`, or give its library's path in ORT_DYLIB_PATH{tried}"
    )))
}

fn load(path: &Path) -> Result<Runtime, String> {
    // A relative path would be looked for beside the program and then along the system's library path.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if !path.is_file() {
        return Err(format!("{} is not there", path.display()));
    }
    // Reports a file that is no library, is another one, or is too old. `ort::init` would panic.
    let builder = ort::init_from(&path).map_err(|error| error.to_string())?;
    let environment = builder.with_name("onbeat").with_telemetry(false).build();
    let environment = environment.map_err(|error| format!("{}: {error}", path.display()))?;
    // Whatever goes wrong is returned as an error; on the terminal it would be said twice. `ORT_LOG` asks for the library's log.
    if std::env::var_os("ORT_LOG").is_none() {
        environment.set_log_level(LogLevel::Fatal);
    }
    let version = version(&path);
    let library = Library { path, version };
    Ok(Runtime { environment, library, plugins: Mutex::default(), registering: RwLock::default() })
}

fn version(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let found = find::version_in_name(&real).or_else(|| find::package_version(&real));
    found.unwrap_or_else(|| ort::util::probe(path).map_or_else(|| "1".to_owned(), |minor| format!("1.{minor}")))
}

impl Runtime {
    /// Registers plugins that are not registered yet. One that cannot be is noted; the others do not suffer from it.
    pub(crate) fn register(&self, candidates: Vec<Candidate>) {
        let mut plugins = lock(&self.plugins);
        for candidate in candidates {
            if plugins.iter().any(|plugin| same_file(&plugin.path, &candidate.path)) {
                continue;
            }
            let writing = self.registering.write().unwrap_or_else(PoisonError::into_inner);
            let before = self.providers();
            let error = self.register_one(&candidate).err();
            let added = self.providers().into_iter().filter(|name| !before.contains(name)).collect();
            drop(writing);
            let Candidate { name, path } = candidate;
            let version = find::package_version(&path);
            plugins.push(Plugin { name, path, version, providers: added, error });
        }
    }

    fn register_one(&self, candidate: &Candidate) -> Result<(), String> {
        if !candidate.path.is_file() {
            return Err("the file is not there".to_owned());
        }
        for library in find::libraries_to_preload(&candidate.path) {
            // Not all are needed; if one is, registering says which.
            let _ = ort::util::preload_dylib(&library);
        }
        let path = std::path::absolute(&candidate.path).unwrap_or_else(|_| candidate.path.clone());
        self.environment.register_ep_library(candidate.name.as_str(), path).map_err(|error| error.to_string())
    }

    /// Keeps plugins from being registered, as long as the list of devices is read.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.registering.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was registered so far.
    pub(crate) fn plugins(&self) -> Vec<Plugin> {
        lock(&self.plugins).clone()
    }

    /// The plugin that a provider comes from.
    pub(crate) fn plugin_of(&self, provider: &str) -> Option<Plugin> {
        let plugins = lock(&self.plugins);
        plugins.iter().find(|plugin| plugin.providers.iter().any(|name| name == provider)).cloned()
    }

    fn providers(&self) -> Vec<String> {
        let names = self.environment.devices().filter_map(|device| device.ep().ok().map(str::to_owned));
        names.filter(|name| is_usable(name)).collect()
    }

    /// The devices of all providers, the CPU first.
    pub(crate) fn devices(&self) -> Vec<Found<'_>> {
        let mut list: Vec<Found<'_>> = Vec::new();
        let reported: Vec<_> = {
            let _reading = self.reading();
            self.environment.devices().collect()
        };
        for reported in reported {
            let Ok(provider) = reported.ep().map(str::to_owned) else { continue };
            if !is_usable(&provider) {
                continue;
            }
            let hardware = reported.hardware_device();
            let (kind, short) = match hardware.ty() {
                DeviceType::CPU => (DeviceKind::Cpu, "CPU"),
                DeviceType::GPU => (DeviceKind::Gpu, "GPU"),
                DeviceType::NPU => (DeviceKind::Npu, "NPU"),
                DeviceType::FPGA => (DeviceKind::Other, "FPGA"),
            };
            let on_cpu = provider == provider::CPU;
            let name = if on_cpu { "cpu".to_owned() } else { format!("{provider}:{short}") };
            let name = unique(name, &list);
            let mut description = self.describe(&provider, hardware.vendor().unwrap_or_default(), short);
            if self.simulates_npu(&provider, kind) {
                description.push_str(", simulates the Hexagon NPU");
            }
            let granularity = if on_cpu { Granularity::Node } else { Granularity::Segment };
            let device = Device { name, kind, description, granularity };
            list.push(Found { device, provider, target: Target::Reported(reported) });
        }
        if cfg!(target_os = "macos") && ort::ep::CoreML::is_available().unwrap_or(false) {
            for (kind, short) in [(DeviceKind::Npu, "NPU"), (DeviceKind::Gpu, "GPU")] {
                let name = format!("{}:{short}", provider::CORE_ML);
                let description = self.describe(provider::CORE_ML, "Apple", short);
                let device = Device { name, kind, description, granularity: Granularity::Segment };
                list.push(Found { device, provider: provider::CORE_ML.to_owned(), target: Target::CoreMl });
            }
        }
        list.sort_by_key(|found| found.device.name != "cpu");
        list
    }

    fn simulates_npu(&self, provider: &str, kind: DeviceKind) -> bool {
        if provider != provider::QNN || kind != DeviceKind::Cpu {
            return false;
        }
        let plugin = self.plugin_of(provider);
        let folder = plugin.as_ref().and_then(|plugin| plugin.path.parent());
        provider::qnn_library(kind, folder).is_some_and(|(part, _)| part == provider::QNN_HTP)
    }

    fn describe(&self, provider: &str, vendor: &str, kind: &str) -> String {
        let vendor = if vendor.is_empty() { String::new() } else { format!("{vendor} ") };
        let runtime = &self.library.version;
        let Some(plugin) = self.plugin_of(provider) else {
            return format!("{vendor}{kind}, ONNX Runtime {runtime}");
        };
        let version = plugin.version.map(|version| format!(" {version}")).unwrap_or_default();
        let name = plugin.name.trim_end_matches("ExecutionProvider");
        format!("{vendor}{kind}, {name} plugin{version}, ONNX Runtime {runtime}")
    }

    /// A device by its name.
    pub(crate) fn find(&self, name: &str) -> Result<Found<'_>, Error> {
        let devices = self.devices();
        let names: Vec<String> = devices.iter().map(|found| found.device.name.clone()).collect();
        let wanted = if name == "CPUExecutionProvider:CPU" { "cpu" } else { name };
        if let Some(found) = devices.into_iter().find(|found| found.device.name == wanted) {
            return Ok(found);
        }
        let provider = name.split(':').next().unwrap_or(name);
        let mut message = format!("ONNX Runtime has no device `{name}`; it has: {}", names.join(", "));
        let plugin = self.plugins().into_iter().find(|plugin| plugin.name == provider);
        let more = match plugin {
            Some(Plugin { path, error: Some(error), .. }) => Some(format!("{}: {error}", path.display())),
            Some(Plugin { path, providers, .. }) if providers.is_empty() => {
                Some(format!("{} finds no device of its own here", path.display()))
            }
            Some(_) => None,
            None => provider::install(provider).map(str::to_owned),
        };
        if let Some(more) = more {
            message = format!("{message}; {more}");
        }
        Err(Error::not_found(message))
    }
}

/// The name, with a number if another device has it already.
fn unique(name: String, list: &[Found<'_>]) -> String {
    let taken = |name: &str| list.iter().any(|found| found.device.name == name);
    let numbered = (1..).map(|number| format!("{name}:{number}"));
    if taken(&name) { numbered.take(list.len()).find(|name| !taken(name)).unwrap_or(name) } else { name }
}

/// Whether sessions can be put on a provider's devices: `with_devices` has room for short names only, and OpenVINO's AUTO is no device, but
/// leaves the choice of one to OpenVINO.
fn is_usable(provider: &str) -> bool {
    provider.len() <= 100 && !provider.contains(".AUTO")
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
