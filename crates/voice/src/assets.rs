//! The voice's files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use onbeat_backend::{Error, ErrorKind};
use serde::de::DeserializeOwned;

/// No file of the package is larger than a tenth of this when unpacked; a damaged one must not fill the memory [bytes].
const BYTES_MAX: u64 = 64 << 20;

/// Reads a JSON file of the voice's folder; one whose name ends in `.gz` is unpacked.
///
/// # Errors
/// Names the file. [`ErrorKind::NotFound`] if it cannot be opened, else [`ErrorKind::InvalidModel`].
pub(crate) fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, Error> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(|error| Error::not_found(format!("{}: {error}", path.display())))?;
    let mut bytes = Vec::new();
    let read = if path.extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(file).take(BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    let invalid = |what: String| Error::new(ErrorKind::InvalidModel, format!("{}: {what}", path.display()));
    read.map_err(|error| invalid(error.to_string()))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(invalid(format!("more than {BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))
}
