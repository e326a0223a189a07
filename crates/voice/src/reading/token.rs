//! Pieces of a text on their way to phonemes.

/// A piece of a text: a word, a part of one, a number, a punctuation mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: String,
    /// Part of speech, as in the Penn Treebank.
    pub(super) tag: &'a str,
    /// Whether space follows.
    pub(super) space: bool,
    /// How it sounds, once that is known.
    pub(super) phonemes: Option<String>,
    /// Whether it begins its word.
    pub(super) is_head: bool,
    /// What is read in its place.
    pub(super) alias: Option<&'static str>,
    /// The currency sign before it, for numbers.
    pub(super) currency: Option<char>,
    /// Whether a pause stands between it and the piece of the same word before it.
    pub(super) pause: bool,
}

impl<'a> Token<'a> {
    pub(super) fn new(text: String, tag: &'a str, space: bool) -> Self {
        Self { text, tag, space, phonemes: None, is_head: true, alias: None, currency: None, pause: false }
    }

    /// Whether it is decided already how it is read.
    pub(super) fn is_settled(&self) -> bool {
        self.alias.is_some() || self.phonemes.is_some()
    }
}

/// One token of several in a row, not yet read.
pub(super) fn merge<'a>(tokens: &[Token<'a>]) -> Token<'a> {
    let mut merged = Token::new(text(tokens), "NN", tokens.last().is_some_and(|token| token.space));
    let mut heaviest = 0;
    for token in tokens {
        // The tag of the piece with the most letters, where a capital counts double; of several, the first.
        let weight = token.text.chars().map(|c| if c.to_lowercase().eq([c]) { 1 } else { 2 }).sum();
        if weight > heaviest {
            (heaviest, merged.tag) = (weight, token.tag);
        }
        merged.currency = merged.currency.max(token.currency);
    }
    merged.is_head = tokens.first().is_none_or(|token| token.is_head);
    merged.pause = tokens.first().is_some_and(|token| token.pause);
    merged
}

/// What several tokens in a row were in the text, without the space after the last.
pub(super) fn text(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    for (i, token) in tokens.iter().enumerate() {
        text.push_str(&token.text);
        if token.space && i + 1 < tokens.len() {
            text.push(' ');
        }
    }
    text
}

/// How several tokens in a row sound.
pub(super) fn sound(tokens: &[Token<'_>]) -> String {
    let mut sound = String::new();
    for phonemes in tokens.iter().filter_map(|token| Some((token, token.phonemes.as_deref()?))) {
        let (token, phonemes) = phonemes;
        if token.pause && !phonemes.is_empty() && !sound.is_empty() && !sound.ends_with(char::is_whitespace) {
            sound.push(' ');
        }
        sound.push_str(phonemes);
    }
    sound
}
