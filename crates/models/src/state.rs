//! What of the catalogue is in the cache.

use crate::cache::Cache;
use crate::catalogue::{Catalogue, Entry};
use crate::error::Error;
use crate::manifest::{Kept, Manifest, kept};

/// What of a model is in the cache.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The model.
    pub entry: &'a Entry,
    /// Whether it can be used.
    pub state: State,
    /// Size of its files that are there, converted ones included [bytes].
    pub bytes: u64,
}

/// Whether a fetched model can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is complete.
    Fetched,
    /// It is not there.
    Missing,
    /// It was begun, or comes from another version of onbeat: the next fetch completes it.
    Incomplete,
    /// A file is not there, or is not what it was when it was fetched. Says which, and what is wrong. The next fetch repairs it.
    Damaged(String),
}

/// What of the catalogue is in the cache. Looks at names and sizes; with `verify`, it reads every file and compares the hashes.
///
/// # Errors
/// A file cannot be read.
pub fn list<'a>(catalogue: &'a Catalogue, cache: &Cache, verify: bool) -> Result<Vec<Listed<'a>>, Error> {
    catalogue.models().map(|entry| look(entry, cache, verify)).collect()
}

/// What of one model is in the cache.
///
/// # Errors
/// Like [`list`].
pub fn look<'a>(entry: &'a Entry, cache: &Cache, verify: bool) -> Result<Listed<'a>, Error> {
    let folder = cache.folder(&entry.name);
    let Some(manifest) = Manifest::read(&folder) else {
        let there: Vec<Kept> = entry.files.iter().map(kept).filter(|file| file.is_there(&folder)).collect();
        let state = if there.is_empty() { State::Missing } else { State::Incomplete };
        return Ok(Listed { entry, state, bytes: there.iter().map(|file| file.bytes).sum() });
    };
    let mut bytes = 0;
    let mut damage = None;
    for file in manifest.all_files() {
        if file.is_there(&folder) {
            bytes += file.bytes;
        }
        if damage.is_none() {
            damage = file.damage(&folder, verify)?;
        }
    }
    let is_converted = match (entry.convert, &manifest.conversion) {
        (None, None) => true,
        (Some(wanted), Some(done)) => done.is_by(wanted),
        _ => false,
    };
    let state = match damage {
        Some(damage) => State::Damaged(damage),
        None if is_converted && manifest.files == Manifest::new(entry).files => State::Fetched,
        None => State::Incomplete,
    };
    Ok(Listed { entry, state, bytes })
}

impl Kept {
    fn damage(&self, folder: &std::path::Path, verify: bool) -> Result<Option<String>, Error> {
        let what = match std::fs::metadata(folder.join(&self.name)) {
            Err(_) => "is not there".to_owned(),
            Ok(data) if data.len() != self.bytes => format!("has {} bytes, not {}", data.len(), self.bytes),
            Ok(_) if verify && !self.is_whole(folder)? => "has changed: its SHA-256 is another".to_owned(),
            Ok(_) => return Ok(None),
        };
        Ok(Some(format!("{} {what}", self.name)))
    }
}
