//! The folder that a converted model lies in.

use std::fs;
use std::path::{Path, PathBuf};

use onbeat_backend::{Error, ErrorKind, Loader};
use serde::{Deserialize, Serialize};

use crate::convert::convert_read;
use crate::gguf::Gguf;
use crate::model::{LanguageModel, Options};
use crate::shape::Shape;
use crate::tokenizer::{Tokenizer, Vocabulary};

/// Name of the network in a model's folder.
pub const NETWORK_FILE: &str = "model.onnx";
/// Name of the description in a model's folder: sizes and tokenizer.
pub const DESCRIPTION_FILE: &str = "language.json";

const FORMAT: u32 = 1;

/// What a converted model's folder says about it besides the network.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Description {
    /// Version of this file's format.
    format: u32,
    name: String,
    /// Tokens that a prompt and its answer may have together.
    context: usize,
    vocabulary: Vocabulary,
}

/// Converts a GGUF file into a folder that [`load`] takes: [`NETWORK_FILE`] and [`DESCRIPTION_FILE`]. The description is written
/// last, and each file takes its name when it is complete, so a folder that has it is complete.
///
/// # Errors
/// Names the file that cannot be read or written, or says what about the GGUF file is damaged or not supported.
pub fn convert_file(gguf: &Path, dir: &Path) -> Result<(), Error> {
    let about = |error: Error| error.about(&gguf.display().to_string());
    let bytes = fs::read(gguf).map_err(|error| io(gguf, "read", &error))?;
    let read = Gguf::read(&bytes).map_err(about)?;
    let shape = Shape::read(&read).map_err(about)?;
    let vocabulary = Vocabulary::read(&read).map_err(about)?;
    if vocabulary.tokens.len() != shape.vocabulary {
        let (tokens, rows) = (vocabulary.tokens.len(), shape.vocabulary);
        return Err(about(Error::invalid_model(format!(
            "the tokenizer has {tokens} tokens, the embedding {rows} rows"
        ))));
    }
    // A tokenizer that cannot be used is found now, not when the model is loaded.
    Tokenizer::new(vocabulary.clone()).map_err(about)?;
    let name = read.text("general.name").unwrap_or("language model").to_owned();
    let network = convert_read(&read).map_err(about)?;
    let description = Description { format: FORMAT, name, context: shape.context, vocabulary };
    let description = serde_json::to_vec(&description).map_err(|error| Error::invalid_model(error.to_string()))?;
    fs::create_dir_all(dir).map_err(|error| io(dir, "create", &error))?;
    write(&dir.join(NETWORK_FILE), &network)?;
    write(&dir.join(DESCRIPTION_FILE), &description)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut part = PathBuf::from(path).into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
    written.map_err(|error| {
        // Whatever cannot be removed is left; the first error is the one to tell.
        let _ = fs::remove_file(&part);
        io(path, "write", &error)
    })
}

/// Loads a converted model from its folder.
///
/// # Errors
/// [`ErrorKind::NotFound`] if the folder holds no converted model; otherwise like [`Loader::load`].
pub fn load(dir: &Path, loader: &Loader, options: Options) -> Result<LanguageModel, Error> {
    let path = dir.join(DESCRIPTION_FILE);
    let bytes = fs::read(&path).map_err(|error| io(&path, "read", &error))?;
    let about = |error: Error| error.about(&path.display().to_string());
    let description: Description =
        serde_json::from_slice(&bytes).map_err(|error| about(Error::invalid_model(error.to_string())))?;
    if description.format != FORMAT {
        let found = description.format;
        return Err(about(Error::invalid_model(format!(
            "its format is {found}, not {FORMAT}; convert the model anew"
        ))));
    }
    let tokenizer = Tokenizer::new(description.vocabulary).map_err(about)?;
    let graph = loader.load(&dir.join(NETWORK_FILE))?;
    LanguageModel::new(description.name, graph, tokenizer, description.context, options)
}

fn io(path: &Path, what: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    Error::new(kind, format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{Folder, Storage, tiny_llama};
    use onbeat_backend::{Control, LoadOptions};
    use onbeat_backend_rten::Rten;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn load_error(dir: &Path) -> Error {
        let (options, control) = (LoadOptions::default(), Control::new());
        let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &control };
        load(dir, &loader, Options::default()).unwrap_err()
    }

    #[test]
    fn a_folder_is_complete_or_no_model() {
        let folder = Folder::new("files");
        let (file, dir) = (folder.0.join("tiny.gguf"), folder.0.join("model"));
        assert_eq!(convert_file(&file, &dir).unwrap_err().kind(), ErrorKind::NotFound);
        let bytes = tiny_llama(Storage::Float);
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        let error = convert_file(&file, &dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
        assert!(names(&dir).is_empty());
        assert_eq!(load_error(&dir).kind(), ErrorKind::NotFound);
        fs::write(&file, &bytes).unwrap();
        convert_file(&file, &dir).unwrap();
        assert_eq!(names(&dir), [DESCRIPTION_FILE, NETWORK_FILE]);
        let path = dir.join(DESCRIPTION_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"format\":1", "\"format\":9", 1)).unwrap();
        assert!(load_error(&dir).to_string().ends_with("its format is 9, not 1; convert the model anew"));
        fs::write(&path, "{").unwrap();
        assert_eq!(load_error(&dir).kind(), ErrorKind::InvalidModel);
        // A file where the folder should be.
        assert_eq!(convert_file(&file, &path).unwrap_err().kind(), ErrorKind::Device);
    }
}
