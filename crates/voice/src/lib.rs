//! Speaking: text to phonemes to sound.
//!
//! [`Voice`] is the voice of the package hibari-tts 0.2.1 as a [`Model`](onbeat_backend::Model): its reading rules turn English text into
//! phonemes, its network turns phonemes into a spectrum every 12.5 ms, and its synthesis turns the spectra into samples. The network,
//! and a small one for words that no lexicon knows, run on any backend; the rest is Rust.
//!
//! The reading rules and the synthesis are ported from that package (Apache-2.0, © 2026 Maureese Williams), which ported its rules from
//! misaki 0.9.4 (Apache-2.0, hexgrad) and follows the tokenizer of spaCy 3.8 (MIT, ExplosionAI GmbH). What was changed: another language,
//! American English only, no confidence ratings, bounds on lengths.

mod assets;
mod fourier;
mod reading;
mod sound;
mod voice;

pub use reading::PHONEMES_MAX;
pub use sound::RATE_HZ;
pub use voice::Voice;
