//! ONNX Runtime's errors, by what can be done about them.

use onbeat_backend::{Error, ErrorKind};
use ort::ErrorCode;

/// What went wrong while a network was loaded. `on_cpu` says that no provider but the CPU's took part.
pub(crate) fn loading<R>(error: &ort::Error<R>, on_cpu: bool) -> Error {
    let message = error.message().trim();
    let kind = match error.code() {
        ErrorCode::ModelLoadCanceled => return Error::cancelled(),
        _ if out_of_memory(message) => ErrorKind::OutOfMemory,
        ErrorCode::NoSuchFile => ErrorKind::NotFound,
        ErrorCode::NotImplemented => ErrorKind::Unsupported,
        ErrorCode::InvalidProtobuf | ErrorCode::InvalidGraph | ErrorCode::NoModel => ErrorKind::InvalidModel,
        _ if message.contains("fallback to CPU EP has been explicitly disabled") => {
            let hint = "the device lacks an operator of this network; `fallback` lets the CPU compute it";
            return Error::unsupported(format!("{hint} ({message})"));
        }
        _ if on_cpu => ErrorKind::InvalidModel,
        _ => ErrorKind::Device,
    };
    Error::new(kind, message)
}

/// What went wrong while a network ran.
pub(crate) fn running<R>(error: &ort::Error<R>) -> Error {
    let message = error.message().trim();
    let kind = match error.code() {
        _ if out_of_memory(message) => ErrorKind::OutOfMemory,
        ErrorCode::InvalidArgument => ErrorKind::InvalidInput,
        ErrorCode::NotImplemented => ErrorKind::Unsupported,
        _ => ErrorKind::Device,
    };
    Error::new(kind, message)
}

/// ONNX Runtime has no code for it; these are the texts of its allocators and of the C++ library.
fn out_of_memory(message: &str) -> bool {
    ["bad_alloc", "Failed to allocate memory", "out of memory", "OUT_OF_MEMORY"]
        .iter()
        .any(|text| message.contains(text))
}
