//! What a converted Whisper says about itself, beside its networks.

use std::path::Path;

use onbeat_backend::Error;
use serde::{Deserialize, Serialize};

/// Written by the conversion, read when the model is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Description {
    /// Version of this layout.
    pub(super) format: u32,
    /// Layers of the decoder.
    pub(super) layers: usize,
    /// Attention heads of the decoder.
    pub(super) heads: usize,
    /// Size of one head.
    pub(super) head: usize,
    /// Most encoder frames (20 ms) that one window may have.
    pub(super) window_max: usize,
    /// Most tokens that the decoder may have seen.
    pub(super) tokens_max: usize,
    /// Tokens that there are.
    pub(super) vocabulary: usize,
    /// Tokens that a text begins with.
    pub(super) start: Vec<u32>,
    /// Token that ends a text.
    pub(super) end: u32,
    /// Token whose probability after the first token says that there is no speech.
    pub(super) no_speech: u32,
    /// Tokens that never follow. Timestamps and all tokens behind them do not follow either.
    pub(super) suppress: Vec<u32>,
    /// Tokens that a text does not begin with.
    pub(super) suppress_first: Vec<u32>,
    /// First of the tokens that are timestamps.
    pub(super) timestamps: u32,
}

impl Description {
    /// Its file.
    pub(super) const FILE: &str = "whisper.json";
    /// Its layout's version.
    pub(super) const FORMAT: u32 = 1;

    /// Reads it from a folder.
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(Self::FILE);
        let name = path.display();
        let text = std::fs::read_to_string(&path).map_err(|e| Error::not_found(format!("{name}: {e}")))?;
        let it: Self = serde_json::from_str(&text).map_err(|e| Error::invalid_model(format!("{name}: {e}")))?;
        it.check().map_err(|what| Error::invalid_model(format!("{name}: {what}")))?;
        Ok(it)
    }

    /// Writes it to a folder.
    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(Self::FILE);
        let text = serde_json::to_string_pretty(self).expect("numbers and lists are always JSON");
        std::fs::write(&path, text).map_err(|e| Error::device(format!("{}: {e}", path.display())))
    }

    /// Whether it describes a Whisper; what is wrong if not.
    pub(super) fn check(&self) -> Result<(), String> {
        let ranges = [
            ("format", self.format as usize, Self::FORMAT as usize, Self::FORMAT as usize),
            ("layers", self.layers, 1, 64),
            ("heads", self.heads, 1, 64),
            ("head", self.head, 1, 256),
            ("window_max", self.window_max, 1, 1 << 16),
            ("tokens_max", self.tokens_max, 2, 1 << 12),
            ("vocabulary", self.vocabulary, 1, 1 << 20),
        ];
        if let Some((name, value, least, most)) = ranges.into_iter().find(|(_, v, least, most)| v < least || v > most) {
            return Err(format!("`{name}` is {value}; {least} to {most} would be right"));
        }
        let lists = [&self.start, &self.suppress, &self.suppress_first];
        let single = [self.end, self.no_speech];
        let token = lists.into_iter().flatten().chain(&single).find(|&&token| token as usize >= self.vocabulary);
        if let Some(token) = token {
            return Err(format!("there is no token {token} in a vocabulary of {}", self.vocabulary));
        }
        if self.start.is_empty() || self.start.len() >= self.tokens_max {
            return Err(format!(
                "a text begins with {} tokens; 1 to {} would be right",
                self.start.len(),
                self.tokens_max - 1
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Four tokens of text (0 to 3), end (4), start (5), no speech (6), no timestamps (7), one timestamp (8).
    pub(in crate::whisper) fn tiny() -> Description {
        Description {
            format: 1,
            layers: 2,
            heads: 2,
            head: 4,
            window_max: 30,
            tokens_max: 12,
            vocabulary: 9,
            start: vec![5, 7],
            end: 4,
            no_speech: 6,
            suppress: vec![5, 6],
            suppress_first: vec![0, 4],
            timestamps: 8,
        }
    }

    #[test]
    fn damage_is_an_error() {
        assert_eq!(tiny().check(), Ok(()));
        let wrong = Description { end: 9, ..tiny() };
        assert_eq!(wrong.check().unwrap_err(), "there is no token 9 in a vocabulary of 9");
        let wrong = Description { heads: 0, ..tiny() };
        assert_eq!(wrong.check().unwrap_err(), "`heads` is 0; 1 to 64 would be right");
        assert!(Description { start: vec![], ..tiny() }.check().is_err());
    }
}
