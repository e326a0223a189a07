//! How words sound: two dictionaries, the exceptions that depend on context, abbreviations, endings. Ported from `lexicon.py` of hibari-tts
//! 0.2.1 (Apache-2.0), which ports misaki 0.9.4 (Apache-2.0).

use unicode_normalization::UnicodeNormalization;

use super::dictionary::{Dictionary, Entry, Sound};
use super::letters::{is_alphabetic, is_lower, is_upper, length, lower, rest, upper};
use super::stress::{self, PRIMARY, SECONDARY, Stress};
use super::token::Token;

/// The dictionaries and the rules around them.
#[derive(Debug)]
pub(super) struct Lexicon {
    /// Checked by people, with the parts of speech.
    pub(super) gold: Dictionary,
    /// Made by machine.
    pub(super) silver: Dictionary,
}

/// What follows a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// Whether the next sound is a vowel; `None` before a pause.
    pub(super) vowel: Option<bool>,
    /// Whether the next word is "to".
    pub(super) to: bool,
}

/// A word to be looked up: how it is written, its part of speech, how its stress changes, and what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    pub(super) word: &'a str,
    pub(super) tag: &'a str,
    pub(super) stress: Stress,
    /// `None`: in no sentence.
    pub(super) context: Option<Context>,
}

impl<'a> Query<'a> {
    /// A word on its own.
    pub(super) fn alone(word: &'a str) -> Self {
        Self { word, tag: "", stress: Stress::Keep, context: None }
    }

    /// The same for another word.
    pub(super) fn of<'b>(self, word: &'b str) -> Query<'b>
    where
        'a: 'b,
    {
        Query { word, ..self }
    }
}

/// Symbols that are words.
const SYMBOLS: [(&str, &str); 4] = [("%", "percent"), ("&", "and"), ("+", "plus"), ("@", "at")];

fn symbol(word: &str) -> Option<&'static str> {
    SYMBOLS.iter().find(|(symbol, _)| *symbol == word).map(|(_, name)| *name)
}

/// The coarse part of speech that a fine one belongs to.
fn parent(tag: &str) -> &str {
    match tag {
        _ if tag.starts_with("VB") => "VERB",
        _ if tag.starts_with("NN") => "NOUN",
        _ if tag.starts_with("ADV") || tag.starts_with("RB") => "ADV",
        _ if tag.starts_with("ADJ") || tag.starts_with("JJ") => "ADJ",
        _ => tag,
    }
}

impl Lexicon {
    /// How a token sounds; `None` if no rule can read it.
    pub(super) fn read(&self, token: &Token<'_>, context: Context) -> Option<String> {
        let written = token.alias.unwrap_or(&token.text).replace(['‘', '’'], "'");
        let word: String = written.nfkc().collect();
        let stress = match () {
            () if is_lower(&word) => Stress::Keep,
            () if is_upper(&word) => Stress::Strong,
            () => Stress::Light,
        };
        let query = Query { word: &word, tag: token.tag, stress, context: Some(context) };
        if let Some(sound) = self.word(query) {
            return Some(self.with_currency(sound, token.currency));
        }
        self.number(&word, token.currency, token.is_head)
    }

    /// Letter by letter, the last one stressed.
    pub(super) fn spelled(&self, word: &str) -> Option<String> {
        let mut sounds = String::new();
        for letter in word.chars().filter(|c| c.is_alphabetic()) {
            sounds.push_str(self.gold.get(&upper(&letter.to_string()))?.default_sound()?);
        }
        let level = stress::apply(&sounds, Stress::Level);
        Some(match level.rsplit_once(SECONDARY) {
            Some((head, tail)) => format!("{head}{PRIMARY}{tail}"),
            None => level,
        })
    }

    /// Whether [`Lexicon::lookup`] has an answer.
    pub(super) fn knows(&self, word: &str) -> bool {
        if self.gold.contains(word) || symbol(word).is_some() || self.silver.contains(word) {
            return true;
        }
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return false;
        }
        word.len() == 1 || (is_upper(word) && self.gold.contains(&lower(word))) || is_upper(rest(word))
    }

    /// A word as the dictionaries have it, or spelled.
    pub(super) fn lookup(&self, query: Query<'_>) -> Option<String> {
        let small;
        let (mut word, mut is_name) = (query.word, false);
        if is_upper(word) && !self.gold.contains(word) {
            small = lower(word);
            (word, is_name) = (&small, query.tag == "NNP");
        }
        let entry = self.gold.get(word).or_else(|| if is_name { None } else { self.silver.get(word) });
        let sound = entry.and_then(|entry| {
            let ends = query.context.is_some_and(|context| context.vowel.is_none());
            let at_end = if ends { entry.tagged("None") } else { None };
            let tagged = at_end.or_else(|| entry.tagged(query.tag)).or_else(|| entry.tagged(parent(query.tag)));
            tagged.map_or_else(|| entry.default_sound(), Sound::phonemes)
        });
        if sound.is_none_or(|sound| is_name && !sound.contains(PRIMARY))
            && let Some(spelled) = self.spelled(query.word)
        {
            return Some(spelled);
        }
        sound.map(|sound| stress::apply(sound, query.stress))
    }

    /// A word, with or without ending.
    pub(super) fn word(&self, query: Query<'_>) -> Option<String> {
        if let Some(sound) = self.exception(query) {
            return Some(sound);
        }
        let small = lower(query.word);
        let query = if self.reads_as_small(query, &small) { query.of(&small) } else { query };
        let word = query.word;
        if self.knows(word) {
            return self.lookup(query);
        }
        let genitive = word.strip_suffix("s'").map(|stem| format!("{stem}'s"));
        if let Some(genitive) = genitive.filter(|genitive| self.knows(genitive)) {
            return self.lookup(query.of(&genitive));
        }
        if let Some(stem) = word.strip_suffix('\'').filter(|stem| self.knows(stem)) {
            return self.lookup(query.of(stem));
        }
        self.plural(query).or_else(|| self.past(query)).or_else(|| self.gerund(query))
    }

    /// Whether a word with capitals is read like its small form: "Running", "IMPORTANT", but not a name.
    fn reads_as_small(&self, query: Query<'_>, small: &str) -> bool {
        let word = query.word;
        length(word) > 1
            && word != small
            && is_alphabetic(&word.replace('\'', ""))
            && (query.tag != "NNP" || length(word) > 7)
            && !self.gold.contains(word)
            && !self.silver.contains(word)
            && (is_upper(word) || is_lower(rest(word)))
            && (self.gold.contains(small)
                || self.silver.contains(small)
                || self.plural(query.of(small)).is_some()
                || self.past(query.of(small)).is_some()
                || self.gerund(query.of(small)).is_some())
    }

    /// Words that sound otherwise than the dictionary says, by what stands around them.
    fn exception(&self, query: Query<'_>) -> Option<String> {
        let Query { word, tag, stress, context } = query;
        let context = context.unwrap_or_default();
        let plain = |word: &str| self.gold.get(word).and_then(Entry::default_sound).map(str::to_owned);
        if tag == "ADD" && (word == "." || word == "/") {
            let name = if word == "." { "dot" } else { "slash" };
            return self.lookup(Query { tag: "", stress: Stress::Lower, ..query.of(name) });
        }
        if let Some(name) = symbol(word) {
            return self.lookup(Query { tag: "", stress: Stress::Keep, ..query.of(name) });
        }
        if is_initials(word) {
            return self.spelled(word);
        }
        let fixed = |sound: &str| Some(sound.to_owned());
        match word {
            "a" | "A" => fixed(if tag == "DT" { "ɐ" } else { "ˈA" }),
            "am" | "Am" | "AM" | "AN" if tag.starts_with("NN") => self.spelled(word),
            "am" if context.vowel.is_some() && !matches!(stress, Stress::Light | Stress::Strong) => fixed("ɐm"),
            "am" | "Am" | "AM" => plain("am"),
            "an" | "An" | "AN" => fixed("ɐn"),
            "I" if tag == "PRP" => fixed("ˌI"),
            "by" | "By" | "BY" if parent(tag) == "ADV" => fixed("bˈI"),
            _ if is_to(word, tag) => match context.vowel {
                None => plain("to"),
                Some(true) => fixed("tʊ"),
                Some(false) => fixed("tə"),
            },
            "in" | "In" | "IN" if word != "IN" || tag != "NNP" => {
                fixed(if context.vowel.is_none() || tag != "IN" { "ˈɪn" } else { "ɪn" })
            }
            "the" | "The" | "THE" if word != "THE" || tag == "DT" => {
                fixed(if context.vowel == Some(true) { "ði" } else { "ðə" })
            }
            "used" | "Used" | "USED" => {
                let entry = self.gold.get("used")?;
                let accustomed = matches!(tag, "VBD" | "JJ") && context.to;
                let tagged = if accustomed { entry.tagged("VBD").and_then(Sound::phonemes) } else { None };
                tagged.or_else(|| entry.default_sound()).map(str::to_owned)
            }
            _ if tag == "IN" && matches!(lower(word).as_str(), "vs" | "vs.") => {
                self.lookup(Query { tag: "", stress: Stress::Keep, ..query.of("versus") })
            }
            _ => None,
        }
    }
}

/// Whether a word is the preposition.
pub(super) fn is_to(word: &str, tag: &str) -> bool {
    matches!(word, "to" | "To") || (word == "TO" && matches!(tag, "TO" | "IN"))
}

/// Letters with points between them: "U.S.", "e.g".
fn is_initials(word: &str) -> bool {
    word.trim_matches('.').contains('.')
        && is_alphabetic(&word.replace('.', ""))
        && word.split('.').all(|part| length(part) < 3)
}
