//! Words and how they sound.

use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::letters::{capitalised, length, lower};

/// Words and how they sound. A word in small letters also answers to its capitalised form and the other way round, unless that has an
/// entry of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Dictionary {
    entries: HashMap<Box<str>, Entry>,
}

/// How a word sounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Always the same.
    Always(Box<str>),
    /// Depends on the part of speech: `DEFAULT`, `VERB`, `VBD`, or `None` at the end of a phrase. No phonemes: it is spelled.
    ByTag(Vec<(Box<str>, Option<Box<str>>)>),
}

/// What an entry says for a part of speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sound<'a> {
    /// These phonemes.
    As(&'a str),
    /// It is read letter by letter.
    Spelled,
}

impl<'a> Sound<'a> {
    /// The phonemes, unless it is spelled.
    pub(super) fn phonemes(self) -> Option<&'a str> {
        match self {
            Self::As(phonemes) => Some(phonemes),
            Self::Spelled => None,
        }
    }
}

impl Entry {
    /// How it sounds as this part of speech, if there is an entry for it.
    pub(super) fn tagged(&self, tag: &str) -> Option<Sound<'_>> {
        let Self::ByTag(list) = self else { return None };
        let (_, sound) = list.iter().find(|(other, _)| **other == *tag)?;
        Some(sound.as_deref().map_or(Sound::Spelled, Sound::As))
    }

    /// How it sounds if nothing else is known.
    pub(super) fn default_sound(&self) -> Option<&str> {
        match self {
            Self::Always(sound) => Some(sound),
            Self::ByTag(_) => self.tagged("DEFAULT").and_then(Sound::phonemes),
        }
    }
}

impl Dictionary {
    /// The entry of a word.
    pub(super) fn get(&self, word: &str) -> Option<&Entry> {
        if let Some(entry) = self.entries.get(word) {
            return Some(entry);
        }
        if length(word) < 2 {
            return None;
        }
        let small = lower(word);
        let capital = capitalised(&small);
        match word {
            _ if word == small && word != capital => self.entries.get(capital.as_str()),
            _ if word == capital => self.entries.get(small.as_str()),
            _ => None,
        }
    }

    /// Whether it knows a word.
    pub(super) fn contains(&self, word: &str) -> bool {
        self.get(word).is_some()
    }

    /// Memory that it takes, about [bytes].
    pub(super) fn bytes(&self) -> u64 {
        // Per entry a key, an entry and their two allocations; words and sounds have about 20 bytes together.
        let entry = size_of::<(Box<str>, Entry)>() + 20;
        (self.entries.capacity() * entry) as u64
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("phonemes, or phonemes by part of speech")
            }

            fn visit_str<E>(self, phonemes: &str) -> Result<Entry, E> {
                Ok(Entry::Always(phonemes.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = map.next_entry()? {
                    list.push(item);
                }
                Ok(Entry::ByTag(list))
            }
        }
        deserializer.deserialize_any(EntryVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_and_small_letters_answer_for_each_other() {
        let dictionary: Dictionary =
            serde_json::from_str(r#"{"cat":"kˈæt","Paris":"pˈɛɹɪs","polish":"pˈɑlɪʃ","Polish":"pˈOlɪʃ","it":"ɪt"}"#)
                .unwrap();
        let sound = |word: &str| dictionary.get(word).and_then(Entry::default_sound);
        assert_eq!(sound("Cat"), Some("kˈæt"));
        assert_eq!(sound("paris"), Some("pˈɛɹɪs"));
        assert_eq!((sound("polish"), sound("Polish")), (Some("pˈɑlɪʃ"), Some("pˈOlɪʃ")));
        assert_eq!((sound("CAT"), sound("dog"), sound("")), (None, None, None));
    }

    #[test]
    fn entries_depend_on_the_part_of_speech() {
        let entry: Entry = serde_json::from_str(r#"{"DEFAULT":"ɹˈid","VBD":"ɹˈɛd","NOUN":null}"#).unwrap();
        assert_eq!(entry.tagged("VBD"), Some(Sound::As("ɹˈɛd")));
        assert_eq!(entry.tagged("NOUN"), Some(Sound::Spelled));
        assert_eq!(entry.tagged("VERB"), None);
        assert_eq!(entry.default_sound(), Some("ɹˈid"));
        assert!(serde_json::from_str::<Entry>("5").is_err());
    }
}
