//! From the files of a package to files that a backend loads.

use std::fs;
use std::path::Path;

use crate::catalogue::{Conversion, Entry};
use crate::check::is_file_name;
use crate::error::Error;

impl Conversion {
    /// Name of the converter, as manifests write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whisper => "whisper",
            Self::Gguf => "gguf",
            Self::Tflite => "tflite",
            Self::Anime4k => "anime4k",
        }
    }

    /// Version of the converter: it rises whenever the same input gives another output.
    pub(crate) fn version(self) -> u32 {
        match self {
            Self::Whisper | Self::Gguf | Self::Tflite | Self::Anime4k => 1,
        }
    }
}

/// Converts the files of a model, which lie in `from`, into the empty folder `to`.
pub(crate) fn run(conversion: Conversion, entry: &Entry, from: &Path, to: &Path) -> Result<(), onbeat_backend::Error> {
    match conversion {
        Conversion::Whisper => onbeat_speech::convert_whisper(from, to),
        Conversion::Gguf => onbeat_language::convert_file(&from.join(only(entry, "gguf")?), to),
        Conversion::Tflite => to_onnx(from, only(entry, "tflite")?, to, onbeat_vision::convert_tflite),
        Conversion::Anime4k => to_onnx(from, only(entry, "json")?, to, onbeat_vision::convert_anime4k),
    }
}

/// Name of the one file of a model that has this ending.
fn only<'a>(entry: &'a Entry, ending: &str) -> Result<&'a str, onbeat_backend::Error> {
    let has_ending = |name: &str| Path::new(name).extension().is_some_and(|found| found == ending);
    let mut names = entry.files.iter().map(|file| file.name.as_str()).filter(|name| has_ending(name));
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(onbeat_backend::Error::invalid_model(format!("it has not exactly one .{ending} file to convert"))),
    }
}

/// Converts one file to an ONNX file of the same name.
fn to_onnx(
    from: &Path,
    name: &str,
    to: &Path,
    convert: impl Fn(&[u8]) -> Result<Vec<u8>, onbeat_backend::Error>,
) -> Result<(), onbeat_backend::Error> {
    let failed =
        |path: &Path, error: std::io::Error| onbeat_backend::Error::device(format!("{}: {error}", path.display()));
    let source = from.join(name);
    let bytes = fs::read(&source).map_err(|error| failed(&source, error))?;
    let network = convert(&bytes).map_err(|error| error.about(name))?;
    let path = to.join(name).with_extension("onnx");
    fs::write(&path, network).map_err(|error| failed(&path, error))
}

/// Names of the files that a converter has written.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for file in fs::read_dir(folder).map_err(|source| Error::file("read", folder, source))? {
        let file = file.map_err(|source| Error::file("read", folder, source))?;
        let name = file.file_name().to_string_lossy().into_owned();
        assert!(is_file_name(&name), "converters write plain names, not {name}");
        names.push(name);
    }
    names.sort();
    Ok(names)
}
