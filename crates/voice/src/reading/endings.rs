//! Words that a dictionary knows without their ending: plurals and genitives, past tenses, gerunds. Ported from `lexicon.py` of hibari-tts
//! 0.2.1 (Apache-2.0), which ports misaki 0.9.4 (Apache-2.0).

use super::letters::length;
use super::lexicon::{Lexicon, Query};
use super::stress::Stress;

/// After these an American "t" before a vowel is a tap.
const BEFORE_TAP: &str = "AIOWYiuæɑəɛɪɹʊʌ";

impl Lexicon {
    /// "cats", "boxes", "parties", "dog's".
    pub(super) fn plural(&self, query: Query<'_>) -> Option<String> {
        let word = query.word;
        let stem = word.strip_suffix('s').filter(|_| length(word) >= 3)?;
        let long = length(word) > 4;
        let mut found = (!word.ends_with("ss")).then(|| stem.to_owned()).filter(|stem| self.knows(stem));
        if found.is_none() && (word.ends_with("'s") || (long && word.ends_with("es") && !word.ends_with("ies"))) {
            found = Some(word[..word.len() - 2].to_owned()).filter(|stem| self.knows(stem));
        }
        if found.is_none() && long && word.ends_with("ies") {
            found = Some(format!("{}y", &word[..word.len() - 3])).filter(|stem| self.knows(stem));
        }
        with_s(&self.lookup(query.of(&found?))?)
    }

    /// "walked", "agreed", "wanted".
    pub(super) fn past(&self, query: Query<'_>) -> Option<String> {
        let word = query.word;
        let stem = word.strip_suffix('d').filter(|_| length(word) >= 4)?;
        let mut found = Some(stem).filter(|stem| !word.ends_with("dd") && self.knows(stem));
        if found.is_none() && length(word) > 4 && word.ends_with("ed") && !word.ends_with("eed") {
            found = Some(&word[..word.len() - 2]).filter(|stem| self.knows(stem));
        }
        with_ed(&self.lookup(query.of(found?))?)
    }

    /// "reading", "making", "running".
    pub(super) fn gerund(&self, query: Query<'_>) -> Option<String> {
        let word = query.word;
        let stem = word.strip_suffix("ing").filter(|_| length(word) >= 5)?;
        let long = length(word) > 5;
        let mut found = Some(stem.to_owned()).filter(|stem| long && self.knows(stem));
        if found.is_none() {
            found = Some(format!("{stem}e")).filter(|stem| self.knows(stem));
        }
        if found.is_none() && long && doubles(stem) {
            found = Some(stem[..stem.len() - 1].to_owned()).filter(|stem| self.knows(stem));
        }
        let stress = if query.stress == Stress::Keep { Stress::Light } else { query.stress };
        with_ing(&self.lookup(Query { stress, ..query.of(&found?) })?)
    }
}

/// Whether a consonant is doubled at the end, or "k" added to "c".
fn doubles(stem: &str) -> bool {
    let mut letters = stem.chars().rev();
    match (letters.next(), letters.next()) {
        (Some('k'), Some('c')) => true,
        (Some(last), before) => "bcdgklmnprstvxz".contains(last) && before == Some(last),
        _ => false,
    }
}

/// The sound of a word and of the ending "s".
pub(super) fn with_s(stem: &str) -> Option<String> {
    let ending = match stem.chars().next_back()? {
        'p' | 't' | 'k' | 'f' | 'θ' => "s",
        's' | 'z' | 'ʃ' | 'ʒ' | 'ʧ' | 'ʤ' => "ᵻz",
        _ => "z",
    };
    Some(format!("{stem}{ending}"))
}

/// The sound of a word and of the ending "ed".
pub(super) fn with_ed(stem: &str) -> Option<String> {
    let mut sounds = stem.chars().rev();
    Some(match (sounds.next()?, sounds.next()) {
        ('p' | 'k' | 'f' | 'θ' | 'ʃ' | 's' | 'ʧ', _) => format!("{stem}t"),
        ('t', None) => format!("{stem}ɪd"),
        ('t', Some(before)) if BEFORE_TAP.contains(before) => format!("{}ɾᵻd", &stem[..stem.len() - 1]),
        ('d' | 't', _) => format!("{stem}ᵻd"),
        _ => format!("{stem}d"),
    })
}

/// The sound of a word and of the ending "ing".
pub(super) fn with_ing(stem: &str) -> Option<String> {
    let mut sounds = stem.chars().rev();
    Some(match (sounds.next()?, sounds.next()) {
        ('t', Some(before)) if BEFORE_TAP.contains(before) => format!("{}ɾɪŋ", &stem[..stem.len() - 1]),
        _ => format!("{stem}ɪŋ"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_sound_after_their_stems() {
        assert_eq!(with_s("kˈæt").unwrap(), "kˈæts");
        assert_eq!(with_s("bˈɑks").unwrap(), "bˈɑksᵻz");
        assert_eq!(with_s("dˈɔɡ").unwrap(), "dˈɔɡz");
        assert_eq!(with_ed("wˈɔk").unwrap(), "wˈɔkt");
        assert_eq!(with_ed("nˈid").unwrap(), "nˈidᵻd");
        assert_eq!(with_ed("wˈAt").unwrap(), "wˈAɾᵻd");
        assert_eq!(with_ed("wˈɑnt").unwrap(), "wˈɑntᵻd");
        assert_eq!(with_ed("t").unwrap(), "tɪd");
        assert_eq!(with_ed("plˈA").unwrap(), "plˈAd");
        assert_eq!(with_ing("sˈɪt").unwrap(), "sˈɪɾɪŋ");
        assert_eq!(with_ing("ɹˈʌn").unwrap(), "ɹˈʌnɪŋ");
        assert_eq!((with_s(""), with_ed(""), with_ing("")), (None, None, None));
        assert!(doubles("runn") && doubles("panick") && !doubles("read") && !doubles("") && !doubles("n"));
    }
}
