//! What is known about a fetched model: the file `fetched.json` in its folder.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cache::put_in_place;
use crate::catalogue::{Conversion, Entry, WeightFile};
use crate::error::Error;
use crate::hash;

/// The manifest's file name.
pub(crate) const FILE_NAME: &str = "fetched.json";

/// Version of the manifest's format. Manifests of another version count as absent: files are then checked by their hashes.
const FORMAT: u32 = 1;

/// What is known about a fetched model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The model.
    pub(crate) model: String,
    /// Where its files come from.
    pub(crate) package: String,
    /// Files as they were in the package.
    pub(crate) files: Vec<Kept>,
    /// Result of the conversion, if there was one.
    pub(crate) conversion: Option<Converted>,
}

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Name in the model's folder.
    pub(crate) name: String,
    /// Size [bytes].
    pub(crate) bytes: u64,
    /// SHA-256.
    pub(crate) sha256: String,
}

/// Result of a conversion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Converted {
    /// The converter.
    pub(crate) converter: String,
    /// Its version.
    pub(crate) version: u32,
    /// What it has written.
    pub(crate) files: Vec<Kept>,
}

impl Manifest {
    /// That of a model whose files are complete, before it is converted.
    pub(crate) fn new(entry: &Entry) -> Self {
        Self {
            format: FORMAT,
            model: entry.name.clone(),
            package: entry.package.to_string(),
            files: entry.files.iter().map(kept).collect(),
            conversion: None,
        }
    }

    /// That of a model's folder, if there is one that can be read.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = fs::read(folder.join(FILE_NAME)).ok()?;
        let manifest: Self = serde_json::from_slice(&text).ok()?;
        // Names become paths; a damaged manifest must not lead elsewhere.
        let names_are_plain = manifest.all_files().all(|file| crate::check::is_file_name(&file.name));
        (manifest.format == FORMAT && names_are_plain).then_some(manifest)
    }

    /// Puts it into a model's folder.
    pub(crate) fn write(&self, folder: &Path, tmp: &Path) -> Result<(), Error> {
        let part = tmp.join(FILE_NAME);
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest holds only texts and numbers");
        text.push(b'\n');
        fs::write(&part, text).map_err(|source| Error::file("write", &part, source))?;
        put_in_place(&part, &folder.join(FILE_NAME))
    }

    /// Files of the package, then files that were converted from them.
    pub(crate) fn all_files(&self) -> impl Iterator<Item = &Kept> {
        self.files.iter().chain(self.conversion.iter().flat_map(|conversion| &conversion.files))
    }
}

impl Kept {
    /// Whether the file is there, with the right size.
    pub(crate) fn is_there(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(&self.name)).is_ok_and(|data| data.is_file() && data.len() == self.bytes)
    }

    /// Whether the file is there, with the right size and hash.
    pub(crate) fn is_whole(&self, folder: &Path) -> Result<bool, Error> {
        Ok(self.is_there(folder) && hash::of_file(&folder.join(&self.name))?.0 == self.sha256)
    }
}

impl Converted {
    /// Whether it was done by the converter of this build.
    pub(crate) fn is_by(&self, conversion: Conversion) -> bool {
        self.converter == conversion.name() && self.version == conversion.version()
    }
}

/// How a manifest writes a file of the catalogue.
pub(crate) fn kept(file: &WeightFile) -> Kept {
    Kept { name: file.name.clone(), bytes: file.bytes, sha256: file.sha256.clone() }
}
