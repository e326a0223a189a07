//! Hearing: voice activity, noise suppression, speech recognition, as [`Model`](onbeat_backend::Model)s that run on any backend.
//!
//! | model | shape | takes | gives |
//! |---|---|---|---|
//! | [`Vad`] | `streaming` | sound of any rate | the same sound; its gate says whether there is speech in it |
//! | [`Denoiser`] | `streaming` | sound at 16 kHz, whole hops of 8 ms | as much sound, without noise, 24 ms later |
//! | [`Whisper`] | `autoregressive` | an utterance of any rate, up to 30 s | its text |
//!
//! [`convert_whisper`] makes the networks that [`Whisper`] loads. [`wav`] reads and writes files, [`resample`]
//! changes their rate, [`signal`] measures what they hold.

mod denoise;
mod load;
mod resample;
mod saved;
pub mod signal;
mod vad;
pub mod wav;
mod whisper;

pub use denoise::{DenoiseSession, Denoiser};
pub use resample::{Resampler, resample};
pub use vad::{Vad, VadOptions, VadSession};
pub use whisper::{Whisper, WhisperSession, WhisperWeights, convert_whisper, convert_whisper_as, log_mel};
