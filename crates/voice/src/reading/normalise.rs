//! Writing out what the lexicon cannot read: times, dates, units, abbreviations, amounts, symbols. Ported from `normalize.py` of hibari-tts
//! 0.2.1 (Apache-2.0), whose tables (`normalize.json`) it reads. Plain numbers, years and percentages are read later.

#![expect(clippy::unnecessary_wraps, reason = "all rules have one signature")]

use fancy_regex::{Captures, Regex};
use indexmap::IndexMap;
use onbeat_backend::Error;
use serde::Deserialize;

use super::amounts;
use super::dates;

/// Letters in a row after which a space is put in: no word is longer, and all later rules take bounded time.
const WORD_MAX: usize = 200;
/// A number, with commas and a decimal point.
const NUMBER: &str = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?";
const ROMAN: &str = "((?=[IVXLC])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))";

/// The package's `normalize.json`: written form to words; two words are singular and plural.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tables {
    pub(super) months: IndexMap<String, String>,
    pub(super) titles: IndexMap<String, String>,
    abbreviations: IndexMap<String, String>,
    pub(super) units: IndexMap<String, [String; 2]>,
    symbols: IndexMap<String, String>,
    pub(super) currency: IndexMap<String, [String; 2]>,
    roman_cardinal: Vec<String>,
    roman_ordinal: Vec<String>,
}

/// Writes a text out. The rules apply one after the other, each to what the one before made.
#[derive(Debug)]
pub(super) struct Normaliser {
    tables: Tables,
    rules: Vec<(Regex, Rule)>,
}

/// What takes the place of a match; `None`: it stays.
type Rule = fn(&Tables, &Match<'_>) -> Option<String>;

/// Where a pattern matches a text.
pub(super) struct Match<'t> {
    captures: Captures<'t, str>,
    /// What follows the match.
    pub(super) after: &'t str,
}

impl<'t> Match<'t> {
    /// A group of the pattern; empty if it took no part. Group 0 is all of it.
    pub(super) fn group(&self, index: usize) -> &'t str {
        self.captures.get(index).map_or("", |group| group.as_str())
    }
}

impl Normaliser {
    /// # Errors
    /// If the tables make a pattern too large.
    pub(super) fn new(tables: Tables) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for (pattern, rule) in patterns(&tables) {
            let regex = Regex::new(&pattern)
                .map_err(|error| Error::invalid_model(format!("normalize.json: its words make no pattern: {error}")))?;
            rules.push((regex, rule));
        }
        Ok(Self { tables, rules })
    }

    /// The text, written out, with single spaces.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = single_spaces(text).replace('’', "'").replace('‒', "-").replace('―', "—");
        for (regex, rule) in &self.rules {
            text = substitute(regex, &text, |found| rule(&self.tables, found));
        }
        for (symbol, word) in &self.tables.symbols {
            if text.contains(symbol.as_str()) && !matches!(symbol.as_str(), "=" | "<" | ">" | "~" | "") {
                text = text.replace(symbol.as_str(), &if word.is_empty() { " ".into() } else { format!(" {word} ") });
            }
        }
        let mut text = single_spaces(&text);
        for mark in [",", ".", ";", ":", "!", "?"] {
            text = text.replace(&format!(" {mark}"), mark);
        }
        text.trim().to_owned()
    }

    /// Whether a word with a point after it is a title: "Dr. Smith" is no end of a sentence.
    pub(super) fn is_title(&self, word: &str) -> bool {
        self.tables.titles.contains_key(word)
    }
}

/// Runs of spaces become one, and words of more than [`WORD_MAX`] characters are cut.
fn single_spaces(text: &str) -> String {
    let mut single = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        for (i, c) in word.chars().enumerate() {
            if i % WORD_MAX == 0 && !single.is_empty() {
                single.push(' ');
            }
            single.push(c);
        }
    }
    single
}

/// Replaces each match for which there is something to take its place.
fn substitute(regex: &Regex, text: &str, replace: impl Fn(&Match<'_>) -> Option<String>) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut end = 0;
    // A match that takes too many steps ends the search: what follows is read as it stands.
    for captures in regex.captures_iter(text).map_while(Result::ok) {
        let Some(whole) = captures.get(0).map(|whole| whole.range()) else { break };
        if let Some(words) = replace(&Match { captures, after: &text[whole.end..] }) {
            replaced.push_str(&text[end..whole.start]);
            replaced.push_str(&words);
            end = whole.end;
        }
    }
    replaced.push_str(&text[end..]);
    replaced
}

/// Alternatives, the longest first.
fn any_of<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let mut words: Vec<&String> = words.into_iter().collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let escaped: Vec<_> = words.into_iter().map(|word| fancy_regex::escape(word)).collect();
    escaped.join("|")
}

fn patterns(tables: &Tables) -> Vec<(String, Rule)> {
    let capital = |month: &String| super::letters::capitalised(month);
    let mut months: Vec<String> = tables.months.values().cloned().chain(tables.months.keys().map(capital)).collect();
    months.push("Sept".to_owned());
    let months = any_of(&months);
    let units = any_of(tables.units.keys());
    let titles = any_of(tables.titles.keys());
    let abbreviations = any_of(tables.abbreviations.keys());
    let (cardinals, ordinals) = (any_of(&tables.roman_cardinal), any_of(&tables.roman_ordinal));
    let large = "hundred|thousand|million|billion|trillion|[kKmMbB]\\b";
    let mut patterns: Vec<(String, Rule)> = vec![
        (
            r"\b([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?(?:\s?([AaPp])\.?[Mm]\.?(?![A-Za-z]))?(?![0-9])".to_owned(),
            dates::time,
        ),
        (r"\b([0-9]{4})-([0-9]{2})-([0-9]{2})\b".to_owned(), dates::iso),
        (r"\b([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}|[0-9]{2})\b".to_owned(), dates::american),
        (format!(r"([$£€])({NUMBER})\s?({large})"), amounts::large_sum),
        (format!(r"(?<![\w.])({NUMBER})\s?¢"), amounts::cents),
        (format!(r"(?<![\w])([¥₹₩]|Rs\.?|USD|EUR|GBP)\s?({NUMBER})(?:\s?({large}))?"), amounts::foreign_sum),
        (format!(r"(?<![\w.])(-?{NUMBER})\s?°\s?([CF])?(?![\w])"), amounts::degrees),
        (format!(r"(?<![\w.])(-?{NUMBER})\s?({units})(?![\w])"), amounts::quantity),
        (format!(r"\b({months})\.? ([0-9]{{1,2}})(?:st|nd|rd|th)?\b(?![0-9:%])(,? [0-9]{{4}}\b)?"), dates::month_day),
        (format!(r"\b(the )?([0-9]{{1,2}}) (?:of )?({months})\b\.?"), dates::day_month),
        (format!(r"\b({titles})\.? (?=[A-Z])"), title),
        (format!(r"(?<![\w.])({abbreviations})(?![\w])"), abbreviation),
        (r"\b(No|Nos)\. ?(?=[0-9])".to_owned(), number_sign),
        (r"(?<![\w&])#(?=[0-9])".to_owned(), |_, _| Some("number ".to_owned())),
        (format!(r"\b({cardinals}) {ROMAN}\b(?![.'’]\w)"), amounts::roman_cardinal),
        (format!(r"\b({ordinals}) {ROMAN}\b(?![.'’]\w)"), amounts::roman_ordinal),
        (r"(?<![\w.\-])(?:[0-9]{3}-)?[0-9]{3}-[0-9]{4}(?![\w.\-])".to_owned(), telephone),
        (r"(?<![\w./])([0-9]{1,2})/([0-9]{1,2})(?![\w./])".to_owned(), dates::fraction),
        (r"(?<![\w.\-])([0-9]{1,4})\s?[-–]\s?([0-9]{1,4})(?![\w.\-%])".to_owned(), range),
        (r"(?<![\w+])\+(?=[0-9])".to_owned(), |_, _| Some("plus ".to_owned())),
    ];
    for symbol in tables.symbols.keys().filter(|symbol| matches!(symbol.as_str(), "=" | "<" | ">" | "~")) {
        // Only between words: alone at an end they are parts of faces and arrows.
        patterns.push((format!(r"(?<=\S) ?({}) ?(?=\S)", fancy_regex::escape(symbol)), between_words));
    }
    patterns
}

fn title(tables: &Tables, found: &Match<'_>) -> Option<String> {
    Some(format!("{} ", tables.titles.get(found.group(1))?))
}

fn abbreviation(tables: &Tables, found: &Match<'_>) -> Option<String> {
    let short = found.group(1);
    let long = tables.abbreviations.get(short)?;
    // At the end the abbreviation's point is the sentence's, too.
    let ends = short.ends_with('.') && found.after.is_empty();
    Some(if ends { format!("{long}.") } else { long.clone() })
}

fn number_sign(_: &Tables, found: &Match<'_>) -> Option<String> {
    Some(if found.group(1) == "No" { "Number " } else { "Numbers " }.to_owned())
}

fn telephone(_: &Tables, found: &Match<'_>) -> Option<String> {
    let spelled: Vec<String> = found.group(0).replace('-', ",").chars().map(String::from).collect();
    Some(spelled.join(" "))
}

fn range(_: &Tables, found: &Match<'_>) -> Option<String> {
    Some(format!("{} to {}", found.group(1), found.group(2)))
}

fn between_words(tables: &Tables, found: &Match<'_>) -> Option<String> {
    Some(format!(" {} ", tables.symbols.get(found.group(1))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of the package's tables that the cases below need.
    fn normaliser() -> Normaliser {
        let tables = r#"{"months":{"jan":"January","feb":"February","mar":"March","apr":"April","may":"May","jun":"June",
            "jul":"July","aug":"August","sep":"September","oct":"October","nov":"November","dec":"December"},
            "titles":{"Dr":"Dr","St":"Saint"},
            "abbreviations":{"St.":"Street","vs.":"versus","vs":"versus","Inc.":"Incorporated","approx.":"approximately"},
            "units":{"km":["kilometer","kilometers"],"km/h":["kilometers per hour","kilometers per hour"],"ft":["foot","feet"]},
            "symbols":{"=":"equals","<":"less than","×":"times","™":"","_":" "},
            "currency":{"$":["dollar","dollars"],"¥":["yen","yen"],"¢":["cent","cents"],"Rs":["rupee","rupees"]},
            "roman_cardinal":["Chapter","World War"],"roman_ordinal":["Henry"]}"#;
        Normaliser::new(serde_json::from_str(tables).unwrap()).unwrap()
    }

    #[test]
    fn what_the_lexicon_cannot_read_is_written_out() {
        // The right column is what `normalize()` of hibari-tts 0.2.1 returns.
        for (text, words) in [
            ("at 10:30", "at ten thirty"),
            ("at 7:05 pm.", "at seven oh five P.M."),
            ("at 9:00", "at nine o'clock"),
            ("12:00:01", "twelve and one second"),
            ("25:00", "25:00"),
            ("2024-03-05", "March fifth, 2024"),
            ("12/25/99", "December twenty-fifth, 1999"),
            ("Mar. 3rd, 2024", "March third, 2024"),
            ("the 3rd of March 2024", "the 3rd of March 2024"),
            ("3 March", "the third of March"),
            ("$2.5 million", "2.5 million dollars"),
            ("$5k", "5 thousand dollars"),
            ("99¢", "99 cents"),
            ("¥500", "500 yen"),
            ("Rs. 1", "1 rupee"),
            ("-5°C", "-5 degrees Celsius"),
            ("1 km, 1,200 km", "1 kilometer, 1,200 kilometers"),
            ("120 km/h", "120 kilometers per hour"),
            ("Dr. Smith, St. Paul, Main St.", "Dr Smith, Saint Paul, Main Street."),
            ("us vs. them", "us versus them"),
            ("No. 5 and #7", "Number 5 and number 7"),
            ("World War II", "World War 2"),
            ("Henry VIII", "Henry the eighth"),
            ("555-1234", "5 5 5, 1 2 3 4"),
            ("1/2 and 3/4", "one half and 3 quarters"),
            ("7/30", "July thirtieth"),
            ("1990-1995", "1990 to 1995"),
            ("+5", "plus 5"),
            ("a=b", "a equals b"),
            ("3 × 4™ , a_b", "3 times 4, a b"),
            ("  two\n spaces ", "two spaces"),
            ("", ""),
        ] {
            assert_eq!(normaliser().apply(text), words, "{text}");
        }
    }

    #[test]
    fn words_without_end_are_cut() {
        let text = "a".repeat(2 * WORD_MAX + 1);
        let lengths: Vec<usize> = normaliser().apply(&text).split(' ').map(str::len).collect();
        assert_eq!(lengths, [WORD_MAX, WORD_MAX, 1]);
    }
}
