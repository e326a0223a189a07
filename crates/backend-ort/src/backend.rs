//! The backend: finds the library, its devices, and loads networks onto them.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use onbeat_backend::{Backend, Control, Device, Error, ErrorKind, Footprint, Graph, LoadOptions, Port};
use onbeat_onnx::Model;

use crate::cut::{Beside, cut};
use crate::find::Places;
use crate::graph::{OrtGraph, Segment};
use crate::runtime::{self, Library, Plugin, Runtime};
use crate::session::{self, Source};
use crate::value::port;

/// Where to look for ONNX Runtime and its plugins, before the usual places, and options for its providers.
///
/// The usual places are, in this order: the paths in the environment variable `ONBEAT_ORT` (libraries, plugins and folders, separated
/// as in `PATH`), the library in `ORT_DYLIB_PATH`, the program's own folder, the active Python environment (`VIRTUAL_ENV`,
/// `CONDA_PREFIX`), the user's Python packages, and the system's. A library that is named is the only one that is tried.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// ONNX Runtime's library: `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`, `onnxruntime.dll`.
    pub dylib: Option<PathBuf>,
    /// Plugin libraries, each under a name of its own. A name that ends in `.virtual` lets the plugin offer devices that this machine
    /// lacks, to compile for.
    pub providers: Vec<(String, PathBuf)>,
    /// Folders to look into: a Python environment, a folder of packages, an unpacked wheel, a folder with `node_modules`.
    pub folders: Vec<PathBuf>,
    /// Provider options for every network: `QNNExecutionProvider.htp_performance_mode`, and its value.
    pub options: Vec<(String, String)>,
}

/// ONNX Runtime. Does nothing until it is asked for devices or to load a network.
#[derive(Clone, Debug, Default)]
pub struct Ort {
    config: Config,
}

impl Ort {
    /// An ONNX Runtime that is looked for as the configuration says. Reads no file.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// The library, loaded now if it is not yet.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound), with what to install, if there is none that can be used.
    pub fn library(&self) -> Result<Library, Error> {
        Ok(self.runtime()?.library.clone())
    }

    /// The plugins that were found or named, those that cannot be used included.
    ///
    /// # Errors
    /// Like [`Ort::library`].
    pub fn plugins(&self) -> Result<Vec<Plugin>, Error> {
        Ok(self.runtime_with_plugins()?.plugins())
    }

    fn places(&self) -> Places {
        Places::new(&self.config, &|name| std::env::var_os(name))
    }

    fn runtime(&self) -> Result<&'static Runtime, Error> {
        runtime::get(&self.places())
    }

    fn runtime_with_plugins(&self) -> Result<&'static Runtime, Error> {
        let places = self.places();
        let runtime = runtime::get(&places)?;
        runtime.register(places.plugins());
        Ok(runtime)
    }
}

impl Backend for Ort {
    fn name(&self) -> &'static str {
        "ort"
    }

    fn description(&self) -> String {
        self.library().map_or_else(
            |_| "ONNX Runtime (not installed)".to_owned(),
            |library| format!("ONNX Runtime {}", library.version),
        )
    }

    fn devices(&self) -> Result<Vec<Device>, Error> {
        let runtime = self.runtime_with_plugins()?;
        Ok(runtime.devices().into_iter().map(|found| found.device).collect())
    }

    fn load(
        &self,
        file: &Path,
        device: &str,
        options: &LoadOptions,
        control: &Control,
    ) -> Result<Arc<dyn Graph>, Error> {
        if options.threads == 0 || options.segments == 0 {
            return Err(Error::invalid_input("a network has at least 1 thread and 1 segment, not 0"));
        }
        // ONNX Runtime would leave the thread unpinned, and say nothing.
        let cores = Path::new("/sys/devices/system/cpu");
        let missing = |core: &&usize| cores.is_dir() && !cores.join(format!("cpu{core}")).exists();
        if let Some(core) = options.cores.iter().find(missing) {
            return Err(Error::invalid_input(format!("this machine has no core {core}")));
        }
        // The CPU needs no plugin, so none is loaded for it.
        let runtime = if device == "cpu" { self.runtime()? } else { self.runtime_with_plugins()? };
        let target = session::Target { runtime, device, options, defaults: &self.config.options, control };
        let graph = load(file, &target).map_err(|error| error.about(&file.display().to_string()))?;
        Ok(Arc::new(graph))
    }
}

fn load(file: &Path, target: &session::Target) -> Result<OrtGraph, Error> {
    let size = fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if target.control.is_cancelled() {
        return Err(Error::cancelled());
    }
    // A large file holds its own weights. A small one may have them in files beside it.
    let model = if target.options.segments > 1 || size <= LOOKED_INTO {
        let content = fs::read(file).map_err(|error| unreadable(&error))?;
        Some(Model::read(content).map_err(|error| Error::invalid_model(error.to_string()))?)
    } else {
        None
    };
    let weights = model.as_ref().map_or(size, Model::weight_bytes);
    let footprint = Footprint { weights, activations: 0 };
    if let Some(model) = model.filter(|_| target.options.segments > 1) {
        match load_parts(file, model, target) {
            Ok(Some(parts)) => return Ok(OrtGraph { footprint, ..parts }),
            Ok(None) => {}
            // ONNX Runtime needs to know the types of all values at a cut, and does not infer them for every operator.
            Err(error) if error.kind() == ErrorKind::InvalidModel => {}
            Err(error) => return Err(error),
        }
    }
    let session = target.open(Source::File(file))?;
    let inputs = session.inputs().iter().map(port).collect();
    let outputs = session.outputs().iter().map(port).collect();
    Ok(OrtGraph { inputs, outputs, segments: vec![Segment::new(session, &[])?], footprint })
}

/// Files up to this size are looked into for weights in other files [bytes].
const LOOKED_INTO: u64 = 64 << 20;

/// Loads a network in several parts. `None` if there is no place to cut it.
fn load_parts(file: &Path, model: Model, target: &session::Target) -> Result<Option<OrtGraph>, Error> {
    let beside: Vec<Beside> =
        model.external_files().into_iter().map(|name| read_beside(file, name)).collect::<Result<_, _>>()?;
    let names = |ports: Vec<onbeat_onnx::Port>| ports.into_iter().map(|port| port.name).collect::<Vec<_>>();
    let (inputs, outputs) = (names(model.inputs()), names(model.outputs()));
    let options = target.options;
    let parts = cut(target.runtime, model, options.segments, &options.dimensions, &beside)?;
    let count = parts.len();
    if count < 2 {
        return Ok(None);
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut segments = Vec::with_capacity(count);
    let (mut taken, mut made) = (Vec::new(), Vec::new());
    for (i, part) in parts.iter().enumerate() {
        let name = format!("{stem}-{}of{count}", i + 1);
        let session = target.open(Source::Part { name: &name, content: &part.content, beside: &beside });
        let session = session.map_err(|error| error.about(&format!("segment {} of {count}", i + 1)))?;
        taken.extend(session.inputs().iter().map(port));
        made.extend(session.outputs().iter().map(port));
        segments.push(Segment::new(session, &part.lasting)?);
    }
    let pick = |names: &[String], ports: &[Port]| -> Vec<Port> {
        names.iter().filter_map(|name| ports.iter().find(|port| port.name == *name).cloned()).collect()
    };
    // An output that is an input too passes through: no segment makes it.
    let outputs = pick(&outputs, &[made, taken.clone()].concat());
    Ok(Some(OrtGraph { inputs: pick(&inputs, &taken), outputs, segments, footprint: Footprint::default() }))
}

/// Reads a file with weights that a network names, which must lie in the network's folder or below.
fn read_beside(file: &Path, name: &str) -> Result<Beside, Error> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(Error::invalid_model(format!("its weights are in `{name}`, which is not in its folder")));
    }
    let path = file.parent().unwrap_or(Path::new("")).join(name);
    let content = fs::read(&path).map_err(|error| unreadable(&error).about(&path.display().to_string()))?;
    Ok((name.to_owned(), content.into()))
}

fn unreadable(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found("there is no such file"),
        std::io::ErrorKind::OutOfMemory => Error::new(ErrorKind::OutOfMemory, "no memory is left to read the file"),
        _ => Error::not_found(format!("cannot be read: {error}")),
    }
}

// No test of this binary loads a real library, so that every one of them meets a process without one.
#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: PathBuf) -> Ort {
        Ort::new(Config { dylib: Some(path), ..Config::default() })
    }

    #[test]
    fn without_a_library_the_error_says_what_to_install() {
        let ort = named(std::env::temp_dir().join("onbeat-no-such-library.so"));
        let error = ort.devices().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = error.to_string();
        assert!(text.starts_with("no ONNX Runtime 1.24 or newer was found: `pip install onnxruntime`"), "{text}");
        assert!(text.contains("onbeat-no-such-library.so is not there"), "{text}");
        assert_eq!(ort.description(), "ONNX Runtime (not installed)");
        let error = ort.load(Path::new("x.onnx"), "cpu", &LoadOptions::default(), &Control::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(ort.plugins().is_err());
    }

    #[test]
    fn a_file_that_is_no_library_is_named_in_the_error() {
        let path = std::env::temp_dir().join(format!("onbeat-ort-text-{}.so", std::process::id()));
        std::fs::write(&path, "this is no library").unwrap();
        let error = named(path.clone()).devices().unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_library_is_not_taken_for_onnx_runtime() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.split_whitespace().find(|word| word.contains("libc.so")).unwrap();
        let error = named(path.into()).devices().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("OrtGetApiBase"), "{error}");
    }
}
