//! Whisper's tokens, and the text that they stand for.

use std::path::Path;

use onbeat_backend::Error;

/// The tokens, one per line of `vocabulary.txt`: bytes that are no printing ASCII or Latin-1 characters are written as characters
/// from U+0100 on, as GPT-2's tokenizer does (Radford et al., 2019, `encoder.py`).
#[derive(Debug)]
pub(super) struct Vocabulary {
    tokens: Vec<String>,
}

impl Vocabulary {
    /// Its file.
    pub(super) const FILE: &str = "vocabulary.txt";

    /// Reads it from a folder.
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(Self::FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::not_found(format!("{}: {e}", path.display())))?;
        Ok(Self::parse(&text))
    }

    /// One token per line.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        Self { tokens: lines.map(str::to_owned).collect() }
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The number of a token.
    pub(super) fn find(&self, token: &str) -> Option<u32> {
        self.tokens.iter().position(|it| it == token).map(|position| position as u32)
    }

    /// The text of tokens, without space around it. Special tokens, such as `<|endoftext|>`, stand for nothing.
    pub(super) fn text(&self, tokens: &[u32]) -> String {
        let words = tokens.iter().filter_map(|&token| self.tokens.get(token as usize));
        let plain = words.filter(|word| !(word.starts_with("<|") && word.ends_with("|>")));
        let bytes: Vec<u8> = plain.flat_map(|word| word.chars().filter_map(byte)).collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// The byte that a character of a token stands for.
fn byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        // Characters that print stand for their own byte.
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        // The others are numbered in order: 0x00 to 0x20, 0x7f to 0xa0, 0xad.
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let characters = (0..0x144).filter_map(char::from_u32);
        let mut bytes: Vec<u8> = characters.filter_map(byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!((byte('Ġ'), byte('Ċ'), byte('a'), byte('€')), (Some(b' '), Some(b'\n'), Some(b'a'), None));
    }

    #[test]
    fn tokens_become_clean_text() {
        let vocabulary = Vocabulary::parse("Ġthe\nĠcaf\nÃ\n©\n<|endoftext|>\n");
        assert_eq!(vocabulary.len(), 5);
        assert_eq!(vocabulary.find("<|endoftext|>"), Some(4));
        assert_eq!(vocabulary.text(&[0, 1, 2, 3, 4, 99]), "the café");
    }
}
