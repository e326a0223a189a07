//! Speech recognition: Whisper, from weights in CTranslate2's format.

mod convert;
mod ctranslate2;
mod decoder;
mod decoding;
mod description;
mod encoder;
mod layers;
mod mel;
mod model;
mod quantised;
mod session;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use convert::{convert_whisper, convert_whisper_as};
pub use layers::WhisperWeights;
pub use mel::log_mel;
pub use model::Whisper;
pub use session::WhisperSession;
