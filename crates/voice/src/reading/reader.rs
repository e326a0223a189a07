//! The whole way from text to phonemes.

use std::collections::HashMap;
use std::path::Path;

use fancy_regex::Regex;
use onbeat_backend::Error;

use super::lexicon::Lexicon;
use super::normalise::Normaliser;
use super::tag::Tagger;
use super::token::Token;
use super::tokenise::Tokeniser;
use super::utterances::{cut, sentences};
use super::words::{Speller, Words};
use crate::assets::read_json;

/// Reads English text.
#[derive(Debug)]
pub(crate) struct Reader {
    normaliser: Normaliser,
    tokeniser: Tokeniser,
    tagger: Tagger,
    lexicon: Lexicon,
    words: Words,
    /// `[text](/phonemes/)`, by which a text says how a word sounds.
    link: Regex,
    /// Numbers of the phonemes in the network's alphabet.
    symbols: HashMap<char, i64>,
}

impl Reader {
    /// Reads the package's tables from a folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            normaliser: Normaliser::new(read_json(folder, "normalize.json")?)?,
            tokeniser: Tokeniser::new(read_json(folder, "tokenizer_exceptions.json")?),
            tagger: read_json(folder, "tagger.json.gz")?,
            lexicon: Lexicon {
                gold: read_json(folder, "lexicon_us_gold.json.gz")?,
                silver: read_json(folder, "lexicon_us_silver.json.gz")?,
            },
            words: Words::new(),
            link: Regex::new(r"\[([^\]]+)\]\(([^\)]*)\)").expect("the pattern is fixed and valid"),
            symbols: read_json(folder, "vocab.json")?,
        })
    }

    /// The phonemes of a text, in pieces that the network can speak at once. `unknown` reads words that the lexicon does not know.
    pub(crate) fn read(&self, text: &str, unknown: &Speller<'_>) -> Result<Vec<String>, Error> {
        let mut pieces = Vec::new();
        for sentence in sentences(text, |word| self.normaliser.is_title(word)) {
            let written = self.normaliser.apply(sentence);
            let phonemes = self.words.read(&self.lexicon, self.tokens(&written), unknown)?;
            pieces.extend(cut(&phonemes));
        }
        Ok(pieces)
    }

    /// The numbers of phonemes, between two silences; `None` if the network knows none of them.
    pub(crate) fn ids(&self, phonemes: &str) -> Option<Vec<i64>> {
        let mut ids = vec![0];
        ids.extend(phonemes.chars().filter_map(|c| self.symbols.get(&c)));
        ids.push(0);
        (ids.len() > 2).then_some(ids)
    }

    /// Memory that the tables take, about [bytes].
    pub(crate) fn bytes(&self) -> u64 {
        self.lexicon.gold.bytes() + self.lexicon.silver.bytes() + self.tagger.bytes()
    }

    fn tokens(&self, text: &str) -> Vec<Token<'_>> {
        let mut tokens = Vec::new();
        let mut start = 0;
        for link in self.link.captures_iter(text).map_while(Result::ok) {
            let (Some(whole), Some(words), Some(target)) = (link.get(0), link.get(1), link.get(2)) else { break };
            tokens.extend(self.plain_tokens(&text[start..whole.start()]));
            let space = text[whole.end()..].starts_with(char::is_whitespace);
            let mut token = Token::new(words.as_str().to_owned(), "NN", space);
            let phonemes = target.as_str().strip_prefix('/').and_then(|target| target.strip_suffix('/'));
            token.phonemes = phonemes.map(str::to_owned);
            tokens.push(token);
            start = whole.end();
        }
        tokens.extend(self.plain_tokens(&text[start..]));
        tokens
    }

    fn plain_tokens(&self, text: &str) -> Vec<Token<'_>> {
        let pieces = self.tokeniser.split(text);
        let words: Vec<&str> = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
        let tags = self.tagger.tag(&words);
        pieces.iter().zip(tags).map(|((piece, space), tag)| Token::new(piece.clone(), tag, *space)).collect()
    }
}
