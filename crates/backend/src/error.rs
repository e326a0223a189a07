//! What can go wrong in a backend.

use thiserror::Error as ThisError;

/// What went wrong, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A library, a device or a file is not there.
    NotFound,
    /// The backend, the device or this build cannot do it.
    Unsupported,
    /// The file is not a model, is damaged, or does not fit its description.
    InvalidModel,
    /// The input has another type, shape or range than the model takes.
    InvalidInput,
    /// The device has no memory left.
    OutOfMemory,
    /// It was cancelled.
    Cancelled,
    /// The device or the library under it failed.
    Device,
}

/// Why a backend could not do something: the kind, and a sentence that names what it was about.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of a kind. The message names the file, device, tensor or option, what is wrong, and what would be right.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::InvalidModel`].
    pub fn invalid_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidModel, message)
    }

    /// [`ErrorKind::InvalidInput`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Device`].
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Device, message)
    }

    /// [`ErrorKind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// What went wrong, by what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, saying what it happened to: `context: message`.
    #[must_use]
    pub fn about(self, context: &str) -> Self {
        Self { kind: self.kind, message: format!("{context}: {}", self.message) }
    }
}
