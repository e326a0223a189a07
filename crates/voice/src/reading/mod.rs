//! Reading aloud: from text to phonemes, in the alphabet of misaki (Kokoro's: `həlˈO wˈɜɹld!`).
//!
//! 1. A text is cut into [sentences](utterances).
//! 2. Each is [written out](normalise): times, dates, units, abbreviations.
//! 3. It is [split](tokenise) into words, numbers and marks, and each gets its [part of speech](tag).
//! 4. [Words](words) are read from the end of the sentence, because how one sounds depends on what follows: from the [lexicon](lexicon), with
//!    or without [ending](endings); as [numbers](figures); else by the [network](unknown) for unknown words.

mod amounts;
mod dates;
mod dictionary;
mod endings;
mod figures;
mod letters;
mod lexicon;
mod normalise;
mod numbers;
mod reader;
mod stress;
mod tag;
mod token;
mod tokenise;
mod unknown;
mod utterances;
mod words;

pub(crate) use reader::Reader;
pub(crate) use unknown::UnknownWords;
pub use utterances::PHONEMES_MAX;
