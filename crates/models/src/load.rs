//! Loading models: those of the catalogue by name, the user's own by path.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onbeat_backend::{Error, Loader, Model};

use crate::cache::Cache;
use crate::catalogue::{Catalogue, Conversion, Entry, RunsAs};
use crate::network::Network;
use crate::state::{State, look};

/// Loads a fetched model of the shipped catalogue.
///
/// # Errors
/// [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound), with what to do, if there is no model of that name or it has not
/// been fetched; else like the model's own `load`.
pub fn load(name: &str, cache: &Cache, loader: &Loader<'_>) -> Result<Arc<dyn Model>, Error> {
    let entry = fetched(name, cache)?;
    load_folder(entry, &cache.folder(name), loader).map_err(|error| error.about(&format!("model {name}")))
}

/// Whether a model of the shipped catalogue has been fetched.
///
/// # Errors
/// [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound), with what to do, if not.
pub fn find(name: &str, cache: &Cache) -> Result<(), Error> {
    fetched(name, cache).map(drop)
}

/// An entry of the shipped catalogue that is complete in the cache.
fn fetched(name: &str, cache: &Cache) -> Result<&'static Entry, Error> {
    let entry = Catalogue::shipped().find(name).map_err(|error| Error::not_found(error.to_string()))?;
    let listed = look(entry, cache, false).map_err(|error| Error::not_found(error.to_string()))?;
    let fetch = format!("`onbeat models fetch {name}`");
    let missing = match &listed.state {
        State::Fetched => return Ok(entry),
        State::Missing => format!("model {name} has not been fetched: {fetch} does it"),
        State::Damaged(what) => format!("model {name}: {what}: {fetch} repairs it"),
        State::Incomplete => format!("model {name} is not complete: {fetch} completes it"),
    };
    Err(Error::not_found(missing))
}

/// Loads a model of the catalogue from a folder that holds its files, wherever it lies and however they came there.
///
/// # Errors
/// Like the model's own `load`.
pub fn load_folder(entry: &Entry, folder: &Path, loader: &Loader<'_>) -> Result<Arc<dyn Model>, Error> {
    Ok(match entry.runs_as {
        RunsAs::Vad => Arc::new(onbeat_speech::Vad::load(folder, loader)?),
        RunsAs::Denoiser => Arc::new(onbeat_speech::Denoiser::load(folder, loader)?),
        RunsAs::Whisper => Arc::new(onbeat_speech::Whisper::load(folder, loader)?),
        RunsAs::Language => Arc::new(onbeat_language::load(folder, loader, onbeat_language::Options::default())?),
        RunsAs::Voice => Arc::new(onbeat_voice::Voice::load(folder, loader)?),
        RunsAs::Segmentation => Arc::new(onbeat_vision::Segmentation::load(folder, loader)?),
        RunsAs::FaceDetection => Arc::new(onbeat_vision::FaceDetector::load(folder, loader)?),
        RunsAs::FaceLandmark => Arc::new(onbeat_vision::FaceLandmarks::load(folder, loader)?),
        RunsAs::SuperResolution => Arc::new(onbeat_vision::SuperResolution::load(folder, loader)?),
        RunsAs::Network => {
            let network = entry.network.as_ref().expect("the catalogue was checked: networks name their file");
            Arc::new(Network::load(&folder.join(network), &entry.dimensions, loader)?)
        }
        RunsAs::File => {
            let files: Vec<String> =
                entry.files.iter().map(|file| folder.join(&file.name).display().to_string()).collect();
            return Err(Error::unsupported(format!(
                "it is no model, but a file that models are tried on: {}",
                files.join(", ")
            )));
        }
    })
}

/// Path of a fetched file that is no model: `test-picture`.
///
/// # Errors
/// [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound), with what to do, if it has not been fetched;
/// [`ErrorKind::Unsupported`](onbeat_backend::ErrorKind::Unsupported) if it is a model.
pub fn file(name: &str, cache: &Cache) -> Result<PathBuf, Error> {
    let entry = fetched(name, cache)?;
    match &entry.files[..] {
        [file] if entry.runs_as == RunsAs::File => Ok(cache.folder(name).join(&file.name)),
        _ => Err(Error::unsupported(format!("{name} is a model, not a file"))),
    }
}

/// Loads a user's own file: an ONNX network as a [`Network`], a GGUF file as a language model. GGUF files are converted once; the
/// result lies in the cache under the hash of the file.
///
/// # Errors
/// If the file is neither, or as for the model's own `load`.
pub fn load_path(file: &Path, cache: &Cache, loader: &Loader<'_>) -> Result<Arc<dyn Model>, Error> {
    let mut magic = Vec::new();
    let opened = File::open(file).and_then(|opened| opened.take(4).read_to_end(&mut magic));
    opened.map_err(|error| Error::not_found(format!("{}: {error}", file.display())))?;
    if magic == *b"GGUF" {
        let folder = convert_own(file, cache)?;
        let model = onbeat_language::load(&folder, loader, onbeat_language::Options::default());
        return Ok(Arc::new(model.map_err(|error| error.about(&file.display().to_string()))?));
    }
    if file.extension().is_some_and(|extension| extension == "onnx") {
        return Ok(Arc::new(Network::load(file, &[], loader)?));
    }
    Err(Error::unsupported(format!(
        "{}: neither an ONNX file, whose name ends in .onnx, nor a GGUF file",
        file.display()
    )))
}

/// The folder with what a user's GGUF file was converted to, now or before.
fn convert_own(file: &Path, cache: &Cache) -> Result<PathBuf, Error> {
    let failed = |error: crate::Error| Error::not_found(error.to_string());
    let (hash, _) = crate::hash::of_file(file).map_err(failed)?;
    let folder = cache.converted().join(format!("{hash}-{}", Conversion::Gguf.version()));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Each process converts into a folder of its own; the first to finish renames it. So no process ever sees a part.
    let part = cache.converted().join(format!("part-{}-{hash}", std::process::id()));
    let result = convert_into(file, &part, &folder);
    if part.exists() {
        // What could not be removed only takes space.
        let _ = fs::remove_dir_all(&part);
    }
    result.map(|()| folder)
}

fn convert_into(file: &Path, part: &Path, folder: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::device(format!("{}: {error}", part.display()));
    if part.exists() {
        fs::remove_dir_all(part).map_err(failed)?;
    }
    fs::create_dir_all(part).map_err(failed)?;
    onbeat_language::convert_file(file, part)?;
    match fs::rename(part, folder) {
        Err(_) if folder.is_dir() => Ok(()),
        result => result.map_err(failed),
    }
}
