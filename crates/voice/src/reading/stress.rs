//! Stress marks in phoneme strings.

/// Mark before a vowel with the main stress.
pub(super) const PRIMARY: char = 'ˈ';
/// Mark before a vowel with a lesser stress.
pub(super) const SECONDARY: char = 'ˌ';
/// Vowels; capitals are diphthongs.
pub(super) const VOWELS: &str = "AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ";
const DIPHTHONGS: &str = "AIOQWYʤʧ";

/// How the stress of a word that was looked up changes. The names in brackets are misaki's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stress {
    /// As the lexicon has it.
    Keep,
    /// No marks (−2).
    Remove,
    /// A main stress becomes a lesser one (−0.5).
    Lower,
    /// A main stress becomes a lesser one; a word without gets a lesser one (0).
    Level,
    /// A word without gets a lesser one (0.5).
    Light,
    /// A lesser stress becomes the main one; a word without gets a main one (2).
    Strong,
}

/// Changes the stress of a word.
pub(super) fn apply(phonemes: &str, stress: Stress) -> String {
    let (primary, secondary) = (phonemes.contains(PRIMARY), phonemes.contains(SECONDARY));
    match stress {
        Stress::Remove => phonemes.chars().filter(|&c| c != PRIMARY && c != SECONDARY).collect(),
        Stress::Lower | Stress::Level if primary => demote(phonemes),
        Stress::Level | Stress::Light if !primary && !secondary => mark(phonemes, SECONDARY),
        Stress::Strong if !primary && secondary => phonemes.replace(SECONDARY, &PRIMARY.to_string()),
        Stress::Strong if !primary => mark(phonemes, PRIMARY),
        _ => phonemes.to_owned(),
    }
}

fn demote(phonemes: &str) -> String {
    let marks = phonemes.chars().filter(|&c| c != SECONDARY);
    marks.map(|c| if c == PRIMARY { SECONDARY } else { c }).collect()
}

/// Puts a mark before the first vowel, if there is one.
fn mark(phonemes: &str, mark: char) -> String {
    match phonemes.find(|c| VOWELS.contains(c)) {
        Some(at) => format!("{}{mark}{}", &phonemes[..at], &phonemes[at..]),
        None => phonemes.to_owned(),
    }
}

/// How heavy a word is, to find the one of several that keeps its stress.
pub(super) fn weight(phonemes: &str) -> usize {
    phonemes.chars().map(|c| if DIPHTHONGS.contains(c) { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_stress() {
        // Worked by hand from the definitions; `ˌɪntəɹnˈɛt` has both marks, `ðə` has none, `t` has no vowel.
        for (stress, both, none) in [
            (Stress::Keep, "ˌɪntəɹnˈɛt", "ðə"),
            (Stress::Remove, "ɪntəɹnɛt", "ðə"),
            (Stress::Lower, "ɪntəɹnˌɛt", "ðə"),
            (Stress::Level, "ɪntəɹnˌɛt", "ðˌə"),
            (Stress::Light, "ˌɪntəɹnˈɛt", "ðˌə"),
            (Stress::Strong, "ˌɪntəɹnˈɛt", "ðˈə"),
        ] {
            assert_eq!(apply("ˌɪntəɹnˈɛt", stress), both, "{stress:?}");
            assert_eq!(apply("ðə", stress), none, "{stress:?}");
            assert_eq!(apply("t", stress), "t");
        }
        assert_eq!(apply("ˌɪntu", Stress::Strong), "ˈɪntu");
        assert_eq!(weight("tˈAk"), 5);
    }
}
