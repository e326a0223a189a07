//! Splitting a text into words, numbers and punctuation marks. Follows `tokenize.py` of hibari-tts 0.2.1 (Apache-2.0), which follows the
//! English rules of spaCy 3.8 (MIT): special cases first (contractions, "Mr.", "10am"), then punctuation at both ends, then hyphens and
//! slashes within, at last special cases across the pieces.

use std::collections::HashMap;

use fancy_regex::Regex;

const QUOTES: &str = "'\"“”`‘´’‚,„»«「」『』（）〔〕【】《》〈〉";
const MARKS: &str = "…,:;!?¿¡()[]{}<>_#*&。？！，、；：～·";
const ICONS: &str = "™®©°§¶†‡•";
const CURRENCIES: [&str; 23] = [
    "$", "£", "€", "¥", "฿", "US$", "C$", "A$", "₽", "₹", "₩", "₪", "₺", "₴", "₦", "₫", "₱", "₲", "₵", "₸", "₼", "₾",
    "₿",
];
const UNITS: [&str; 48] = [
    "km", "km²", "km³", "m", "m²", "m³", "dm", "dm²", "dm³", "cm", "cm²", "cm³", "mm", "mm²", "mm³", "ha", "µm", "nm",
    "yd", "in", "ft", "kg", "g", "mg", "µg", "t", "lb", "oz", "m/s", "km/h", "kmh", "mph", "hPa", "Pa", "mbar", "mb",
    "MB", "kb", "KB", "gb", "GB", "tb", "TB", "T", "G", "M", "K", "%",
];
const ADDRESS: &str = r"(?i)^(?:(?:https?|ftp)://|www\.)\S+$|^[\w.+-]+@[\w-]+(?:\.[\w-]+)+$|^(?:[\w-]+\.)+(?:com|org|net|edu|gov|io|co|uk|de|fr|info|biz|us|ca|au|tv|me|ly|ai)(?:/\S*)?$";

/// The rules, with the special cases of the package's `tokenizer_exceptions.json`.
#[derive(Debug)]
pub(super) struct Tokeniser {
    special: HashMap<String, Vec<String>>,
    address: Regex,
}

impl Tokeniser {
    pub(super) fn new(special: HashMap<String, Vec<String>>) -> Self {
        let address = Regex::new(ADDRESS).expect("the pattern is fixed and valid");
        Self { special, address }
    }

    /// The pieces of a text, and whether space follows each.
    pub(super) fn split(&self, text: &str) -> Vec<(String, bool)> {
        let mut pieces = Vec::new();
        let ends_in_space = text.ends_with(char::is_whitespace);
        let mut chunks = text.split_whitespace().peekable();
        while let Some(chunk) = chunks.next() {
            let space = chunks.peek().is_some() || ends_in_space;
            let mut chunk = self.split_chunk(chunk);
            let last = chunk.pop();
            pieces.extend(chunk.into_iter().map(|piece| (piece, false)));
            pieces.extend(last.map(|piece| (piece, space)));
        }
        pieces
    }

    fn is_special(&self, text: &str) -> bool {
        self.special.contains_key(text)
    }

    /// The pieces of a text without spaces.
    fn split_chunk(&self, chunk: &str) -> Vec<String> {
        if let Some(pieces) = self.special.get(chunk) {
            return pieces.clone();
        }
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut left = chunk;
        while !left.is_empty() && !self.is_special(left) {
            let prefix = prefix_length(left);
            let (before, after) = left.split_at(prefix);
            if prefix > 0 && self.is_special(after) {
                front.push(before.to_owned());
                left = after;
                break;
            }
            let suffix = suffix_length(after);
            let (kept, ending) = left.split_at(left.len() - suffix);
            if suffix > 0 && self.is_special(kept) {
                back.push(ending.to_owned());
                left = kept;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                front.push(before.to_owned());
            }
            if suffix > 0 {
                back.push(ending.to_owned());
            }
            left = &left[prefix..left.len() - suffix];
        }
        let mut pieces = front;
        if let Some(special) = self.special.get(left) {
            pieces.extend(special.iter().cloned());
        } else if self.address.is_match(left).unwrap_or(false) {
            pieces.push(left.to_owned());
        } else {
            split_within(left, &mut pieces);
        }
        pieces.extend(back.into_iter().rev());
        if pieces.len() > 1 { self.rejoin(&pieces) } else { pieces }
    }

    /// Puts pieces together that spell a special case: "Sept" and "." are "Sept.".
    fn rejoin(&self, pieces: &[String]) -> Vec<String> {
        let mut joined = Vec::new();
        let mut at = 0;
        while at < pieces.len() {
            let special = [3, 2].into_iter().find_map(|count| {
                let special = self.special.get(&pieces.get(at..at + count)?.concat())?;
                Some((count, special))
            });
            if let Some((count, special)) = special {
                joined.extend(special.iter().cloned());
                at += count;
            } else {
                joined.push(pieces[at].clone());
                at += 1;
            }
        }
        joined
    }
}

fn is_mark(c: char) -> bool {
    MARKS.contains(c) || QUOTES.contains(c) || ICONS.contains(c)
}

/// Small Latin letters, with accents.
pub(super) fn is_small(c: char) -> bool {
    matches!(c, 'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ')
}

/// Latin capitals, with accents.
pub(super) fn is_capital(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ')
}

/// Bytes of the punctuation mark or sign that a text begins with.
fn prefix_length(text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let second = chars.next();
    if matches!(first, '%' | '=' | '—' | '–')
        || is_mark(first)
        || (first == '+' && !second.is_some_and(|c| c.is_ascii_digit()))
    {
        return first.len_utf8();
    }
    let points = text.len() - text.trim_start_matches('.').len();
    if points >= 2 {
        return points;
    }
    CURRENCIES.iter().find(|sign| text.starts_with(**sign)).map_or(0, |sign| sign.len())
}

/// Bytes of the punctuation mark, sign, unit or genitive that a text ends with; of several, the longest.
fn suffix_length(text: &str) -> usize {
    let Some(last) = text.chars().next_back() else { return 0 };
    let mut longest = if is_mark(last) || matches!(last, '—' | '–') { last.len_utf8() } else { 0 };
    let points = text.len() - text.trim_end_matches('.').len();
    if points >= 2 {
        longest = points;
    }
    if text.ends_with("……") {
        longest = "……".len();
    }
    let genitive = ["'s", "'S", "’s", "’S"].into_iter().find(|ending| text.ends_with(ending));
    longest = longest.max(genitive.map_or(0, str::len));
    let after_digit =
        UNITS.iter().chain(&CURRENCIES).chain(&["+"]).filter(|unit| {
            text.strip_suffix(**unit).is_some_and(|before| before.ends_with(|c: char| c.is_ascii_digit()))
        });
    longest = longest.max(after_digit.map(|unit| unit.len()).max().unwrap_or(0));
    if points == 1 && point_ends_sentence(&text[..text.len() - 1]) {
        longest = longest.max(1);
    }
    longest
}

/// Whether a point after this is no part of it: after a small letter, a digit, a mark, two capitals, or degrees.
fn point_ends_sentence(before: &str) -> bool {
    let mut chars = before.chars().rev();
    let (last, second) = (chars.next(), chars.next());
    let ends =
        |c: char| is_small(c) || c.is_ascii_digit() || "%²-+".contains(c) || MARKS.contains(c) || QUOTES.contains(c);
    last.is_some_and(ends)
        || (last.is_some_and(is_capital) && second.is_some_and(is_capital))
        || (last.is_some_and(|c| "FfCcKk".contains(c)) && second == Some('°'))
}

/// Splits at hyphens, slashes, points and commas between letters, keeping them as pieces.
fn split_within(text: &str, pieces: &mut Vec<String>) {
    let mut start = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let length = infix_length(&text[..at], &text[at..]);
        if length == 0 || at == 0 {
            // A mark at the very beginning belongs to what follows.
            at += length.max(c.len_utf8());
            continue;
        }
        if start < at {
            pieces.push(text[start..at].to_owned());
        }
        pieces.push(text[at..at + length].to_owned());
        at += length;
        start = at;
    }
    if start < text.len() {
        pieces.push(text[start..].to_owned());
    }
}

/// Bytes of the mark between `before` and what follows it, at the beginning of `here`.
fn infix_length(before: &str, here: &str) -> usize {
    let points = here.len() - here.trim_start_matches('.').len();
    if points >= 2 {
        return points;
    }
    let mut chars = here.chars();
    let Some(mark) = chars.next() else { return 0 };
    let (last, next) = (before.chars().next_back(), chars.next());
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    if mark == '…' || ICONS.contains(mark) {
        return mark.len_utf8();
    }
    let splits = match mark {
        '+' | '-' | '*' | '^' if is_digit(last) && (is_digit(next) || next == Some('-')) => true,
        '.' => {
            last.is_some_and(|c| is_small(c) || QUOTES.contains(c))
                && next.is_some_and(|c| is_capital(c) || QUOTES.contains(c))
        }
        ',' => is_letter(last) && is_letter(next),
        '-' | '–' | '—' | '~' | ':' | '<' | '>' | '=' | '/' => is_word(last) && is_letter(next),
        _ => false,
    };
    if splits {
        return mark.len_utf8();
    }
    let long = ["--", "---", "——"]
        .into_iter()
        .find(|dash| is_word(last) && here.strip_prefix(dash).is_some_and(|after| is_letter(after.chars().next())));
    long.map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokeniser() -> Tokeniser {
        let special = [("don't", vec!["do", "n't"]), ("Mr.", vec!["Mr."]), ("10am", vec!["10", "am"])];
        let owned = |pieces: Vec<&str>| pieces.into_iter().map(str::to_owned).collect();
        Tokeniser::new(special.into_iter().map(|(text, pieces)| (text.to_owned(), owned(pieces))).collect())
    }

    #[test]
    fn words_and_marks_are_told_apart() {
        for (text, pieces) in [
            ("Hello, world!", vec!["Hello", ",", "world", "!"]),
            ("\"I don't,\" said Mr. X.", vec!["\"", "I", "do", "n't", ",", "\"", "said", "Mr.", "X."]),
            ("state-of-the-art", vec!["state", "-", "of", "-", "the", "-", "art"]),
            ("the dog's 5kg...", vec!["the", "dog", "'s", "5", "kg", "..."]),
            ("$9.99 or 50%", vec!["$", "9.99", "or", "50", "%"]),
            ("5kg", vec!["5", "kg"]),
            ("see www.example.com/a-b.", vec!["see", "www.example.com/a-b", "."]),
            ("end.Start yes/no 3-4", vec!["end", ".", "Start", "yes", "/", "no", "3", "-", "4"]),
            ("(10am)", vec!["(", "10", "am", ")"]),
            ("wait--what", vec!["wait", "--", "what"]),
            ("U.S. NASA.", vec!["U.S.", "NASA", "."]),
            ("+5 a+", vec!["+5", "a+"]),
            ("", vec![]),
        ] {
            let found: Vec<String> = tokeniser().split(text).into_iter().map(|(piece, _)| piece).collect();
            assert_eq!(found, pieces, "{text}");
        }
    }

    #[test]
    fn spaces_are_remembered() {
        let spaces: Vec<bool> = tokeniser().split("a b, c ").into_iter().map(|(_, space)| space).collect();
        assert_eq!(spaces, [true, false, true, true]);
    }
}
