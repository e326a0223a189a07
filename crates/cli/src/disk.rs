//! Reads the files that users name. `core` itself touches no disk.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use onbeat_core::spec::{ReadFile, SpecErrors};

use crate::failure::Failure;

/// The file system. Remembers the first file that could not be read, because that is another kind of failure than a wrong file.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    unreadable: Mutex<Option<(PathBuf, io::Error)>>,
}

impl ReadFile for Disk {
    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(path).map_err(|error| {
            // An I/O error cannot be cloned, but its kind and its message can.
            let copy = io::Error::new(error.kind(), error.to_string());
            let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
            unreadable.get_or_insert((PathBuf::from(path), error));
            copy
        })
    }
}

impl Disk {
    /// Whether a file could not be read.
    pub(crate) fn has_failed(&self) -> bool {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Tells mistakes in files from files that could not be read and from mistakes on the command line.
    pub(crate) fn failure(&self, errors: SpecErrors) -> Failure {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, error)) = unreadable.take() {
            return Failure::Io { action: "read", path, error };
        }
        // A mistake in no file is one in a name, a path or a value on the command line.
        let outside = |file: &str| file.is_empty() || file.starts_with("--set ");
        match errors.errors.as_slice() {
            [only] if outside(&only.file) => {
                let place = if only.file.is_empty() { String::new() } else { format!("{}: ", only.file) };
                Failure::Usage { message: format!("{place}{}", only.problem), help: only.help.clone() }
            }
            _ => Failure::Spec(errors),
        }
    }
}
