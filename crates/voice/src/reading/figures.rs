//! Numbers written in digits: amounts, years, ordinals, decades, decimals, digits in codes. Ported from `lexicon.py` of hibari-tts 0.2.1
//! (Apache-2.0), which ports misaki 0.9.4 (Apache-2.0).

use super::endings::{with_ed, with_ing, with_s};
use super::letters::is_digits;
use super::lexicon::{Lexicon, Query};
use super::numbers;
use super::stress::Stress;

/// Sign, whole and part of the currencies that are read with their amounts.
const CURRENCIES: [(char, &str, &str); 3] = [('$', "dollar", "cent"), ('£', "pound", "pence"), ('€', "euro", "cent")];
const ENDINGS: [&str; 9] = ["ing", "'d", "ed", "'s", "st", "nd", "rd", "th", "s"];

/// The currency sign that a text is.
pub(super) fn currency_sign(text: &str) -> Option<char> {
    CURRENCIES.iter().map(|(sign, ..)| *sign).find(|sign| text.chars().eq([*sign]))
}

impl Lexicon {
    /// A number, perhaps with an ending (3rd, 1990s, 20's); `None` if it is none. `is_head`: it begins its word, so that it is read as
    /// one number rather than as a code.
    pub(super) fn number(&self, word: &str, currency: Option<char>, is_head: bool) -> Option<String> {
        if !is_number(word, is_head) {
            return None;
        }
        let digits = word.trim_end_matches(|c: char| c.is_ascii_lowercase() || c == '\'');
        let ending = &word[digits.len()..];
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let words = if negative { "minus ".to_owned() } else { String::new() };
        let mut sounds = self.words(&words);
        sounds.extend(self.figures(digits, ending, currency, is_head, negative));
        if sounds.is_empty() {
            return None;
        }
        let sound = sounds.join(" ");
        match ending {
            "s" | "'s" => with_s(&sound),
            "ed" | "'d" => with_ed(&sound),
            "ing" => with_ing(&sound),
            _ => Some(sound),
        }
    }

    fn figures(
        &self,
        digits: &str,
        ending: &str,
        currency: Option<char>,
        is_head: bool,
        negative: bool,
    ) -> Vec<String> {
        let ordinal = matches!(ending, "st" | "nd" | "rd" | "th");
        let whole = digits.replace(',', "");
        let points = digits.matches('.').count();
        let unit = CURRENCIES.iter().find(|(sign, ..)| Some(*sign) == currency);
        match unit {
            _ if ordinal && is_digits(digits) => self.words(&numbers::ordinal(digits)),
            None if digits.len() == 4 && is_digits(digits) && !negative => self.words(&numbers::year(digits)),
            _ if !is_head && points == 0 => self.code(&whole),
            _ if !is_head || points > 1 => self.version(&whole),
            Some((_, whole_unit, part_unit)) if digits.split_once('.').is_none_or(|(_, cents)| cents.len() < 3) => {
                self.amount(&whole, whole_unit, part_unit)
            }
            _ if ordinal && points == 0 => self.words(&numbers::ordinal(&whole)),
            _ if points == 0 => self.words(&numbers::cardinal(&whole)),
            _ => match whole.strip_prefix('.') {
                Some(fraction) => self.words(&format!("point {}", numbers::spelled(fraction))),
                None => self.words(&numbers::decimal(&whole)),
            },
        }
    }

    /// Digits in the middle of a word: 747 in "B747", 007.
    fn code(&self, digits: &str) -> Vec<String> {
        if digits.starts_with('0') || digits.len() > 3 {
            return self.words(&numbers::spelled(digits));
        }
        if digits.len() < 3 || digits.ends_with("00") {
            return self.words(&numbers::cardinal(digits));
        }
        let (hundred, rest) = digits.split_at(1);
        let mut sounds = self.words(&numbers::cardinal(hundred));
        if let Some(one) = rest.strip_prefix('0') {
            sounds.extend(self.lookup(Query { stress: Stress::Remove, ..Query::alone("O") }));
            sounds.extend(self.words(&numbers::cardinal(one)));
        } else {
            sounds.extend(self.words(&numbers::cardinal(rest)));
        }
        sounds
    }

    /// Numbers with several points: versions, addresses.
    fn version(&self, digits: &str) -> Vec<String> {
        let parts = digits.split('.').filter(|part| !part.is_empty());
        let read = |part: &str| {
            let round = part.bytes().skip(1).all(|digit| digit == b'0');
            if part.starts_with('0') || (part.len() != 2 && !round) {
                numbers::spelled(part)
            } else {
                numbers::cardinal(part)
            }
        };
        parts.flat_map(|part| self.words(&read(part))).collect()
    }

    /// An amount of money.
    fn amount(&self, digits: &str, whole_unit: &str, part_unit: &str) -> Vec<String> {
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        let mut pairs = vec![(whole, whole_unit), (part, part_unit)];
        if is_zero(part) {
            pairs.pop();
        } else if is_zero(whole) {
            pairs.remove(0);
        }
        let mut sounds = Vec::new();
        for (i, (count, unit)) in pairs.into_iter().enumerate() {
            if i > 0 {
                sounds.extend(self.lookup(Query::alone("and")));
            }
            sounds.extend(self.words(&numbers::cardinal(count)));
            let one = count.trim_start_matches('0') == "1";
            sounds.extend(if one || unit == "pence" {
                self.lookup(Query::alone(unit))
            } else {
                self.plural(Query::alone(&format!("{unit}s")))
            });
        }
        sounds
    }

    /// The words of a number; "and" is not read.
    fn words(&self, words: &str) -> Vec<String> {
        let words = words.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty() && *word != "and");
        let stress = |word: &str| if word == "point" { Stress::Remove } else { Stress::Keep };
        words.filter_map(|word| self.lookup(Query { stress: stress(word), ..Query::alone(word) })).collect()
    }

    /// A word after a currency sign: "$ five" has its dollars after it.
    pub(super) fn with_currency(&self, sound: String, currency: Option<char>) -> String {
        let unit = CURRENCIES.iter().find(|(sign, ..)| Some(*sign) == currency);
        match unit.and_then(|(_, unit, _)| self.plural(Query::alone(&format!("{unit}s")))) {
            Some(unit) => format!("{sound} {unit}"),
            None => sound,
        }
    }
}

fn is_number(word: &str, is_head: bool) -> bool {
    let digits = ENDINGS.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word);
    let digits = if is_head { digits.strip_prefix('-').unwrap_or(digits) } else { digits };
    digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == ',' || c == '.')
}
