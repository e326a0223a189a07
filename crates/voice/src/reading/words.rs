//! Reading a tokenised sentence: words apart, words together, unknown words. Ported from `g2p/__init__.py` of hibari-tts 0.2.1 (Apache-2.0),
//! which ports misaki 0.9.4 (Apache-2.0).

use fancy_regex::Regex;
use onbeat_backend::Error;

use super::figures::currency_sign;
use super::lexicon::{Context, Lexicon, is_to};
use super::stress::{self, PRIMARY, Stress, VOWELS};
use super::token::{Token, merge, sound, text};

/// Parts of a token: letters with apostrophes, capitals that begin a part, numbers, each other mark.
const PARTS: &str = r"^['‘’]+|[A-ZÀ-ÖØ-Þ](?=[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ])|(?:^-)?(?:[0-9]?[,.]?[0-9])+|[-_]+|['‘’]{2,}|[^\W0-9_]*?(?:['‘’][^\W0-9_])*?[a-zß-öø-ÿ](?=[A-ZÀ-ÖØ-Þ])|[^\W0-9_]+(?:['‘’][^\W0-9_])*|[^\w\-'‘’]|['‘’]+$";
const PIECES: &str = r"[^\W\d_]+(?:['’][^\W\d_]+)*|[0-9]+(?:[,.][0-9]+)*|[^\w\s]+";
const CONSONANTS: &str = "bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθ";
const PAUSES: &str = ";:,.!?—…";
/// Parts of a word that may stay silent.
const SILENT: &str = "',-._‘’/";
/// Most parts that are looked up as one: the dictionaries have no such word, and the time for strange texts stays bounded.
const RUN_MAX: usize = 32;
const SYMBOLS: [(char, &str); 13] = [
    ('/', "slˈæʃ"),
    ('=', "ˈikwᵊlz"),
    ('+', "plˈʌs"),
    ('&', "ænd"),
    ('@', "æt"),
    ('%', "pəɹsˈɛnt"),
    ('#', "hˈæʃ"),
    ('*', "ˈæstəɹˌɪsk"),
    ('~', "tˈɪldə"),
    ('^', "kˈɛɹət"),
    ('<', "lˈɛs ðən"),
    ('>', "ɡɹˈATəɹ ðən"),
    ('—', "—"),
];

/// Reads words that the lexicon does not know; `None` if it cannot.
pub(super) type Speller<'a> = dyn Fn(&str) -> Result<Option<String>, Error> + 'a;

/// The patterns by which words are taken apart.
#[derive(Debug)]
pub(super) struct Words {
    parts: Regex,
    pieces: Regex,
}

impl Words {
    pub(super) fn new() -> Self {
        let regex = |pattern| Regex::new(pattern).expect("the pattern is fixed and valid");
        Self { parts: regex(PARTS), pieces: regex(PIECES) }
    }

    /// The phonemes of a sentence, with a space where the text has one.
    ///
    /// # Errors
    /// Those of `unknown`.
    pub(super) fn read(
        &self,
        lexicon: &Lexicon,
        tokens: Vec<Token<'_>>,
        unknown: &Speller<'_>,
    ) -> Result<String, Error> {
        let mut words = self.group(tokens);
        let mut context = Context::default();
        for word in words.iter_mut().rev() {
            context = self.read_word(lexicon, word, context, unknown)?;
        }
        let mut sounds = String::new();
        for word in &words {
            // The network was taught "T" for the tap and "t" for the glottal stop.
            sounds.push_str(&sound(word).replace('ɾ', "T").replace('ʔ', "t"));
            if word.last().is_some_and(|token| token.space) {
                sounds.push(' ');
            }
        }
        Ok(sounds.trim().to_owned())
    }

    /// The parts of a token; itself if it has none.
    fn split<'a>(&self, token: Token<'a>) -> Vec<Token<'a>> {
        if token.is_settled() {
            return vec![token];
        }
        let found = self.parts.find_iter(&token.text).map_while(Result::ok).map(|part| part.as_str().to_owned());
        let mut parts: Vec<Token<'a>> = found.map(|part| Token::new(part, token.tag, false)).collect();
        match parts.last_mut() {
            Some(last) => last.space = token.space,
            None => parts.push(token),
        }
        parts
    }

    /// Takes the tokens apart, decides what punctuation sounds like, and puts together what stands without space between: words, each of
    /// one or more parts.
    fn group<'a>(&self, tokens: Vec<Token<'a>>) -> Vec<Vec<Token<'a>>> {
        let tags: Vec<&str> = tokens.iter().map(|token| token.tag).collect();
        let mut words: Vec<Vec<Token<'a>>> = Vec::new();
        let mut is_open = false; // Whether the last word takes further parts.
        let mut currency = None;
        for (i, token) in tokens.into_iter().enumerate() {
            let mut parts = self.split(token);
            let texts: Vec<String> = parts.iter().map(|part| part.text.clone()).collect();
            let ends_amount = tags.get(i + 1) != Some(&"CD");
            for (j, part) in parts.iter_mut().enumerate() {
                if part.is_settled() {
                } else if part.tag == "$" && currency_sign(&part.text).is_some() {
                    currency = currency_sign(&part.text);
                    part.phonemes = Some(String::new());
                } else if let Some(mark) = punctuation(part) {
                    part.phonemes = Some(mark);
                } else if currency.is_some() {
                    if part.tag != "CD" {
                        currency = None;
                    } else if j + 1 == texts.len() && ends_amount {
                        part.currency = currency;
                    }
                } else if part.text == "2" && between_letters(&texts, j) {
                    part.alias = Some("to");
                }
            }
            for mut part in parts {
                let (is_settled, space) = (part.is_settled(), part.space);
                if let Some(word) = words.last_mut().filter(|_| is_open && !is_settled) {
                    part.is_head = false;
                    word.push(part);
                    is_open = !space;
                } else {
                    words.push(vec![part]);
                    is_open = !is_settled && !space;
                }
            }
        }
        words
    }

    /// Reads one word and tells what it is to the word before it.
    fn read_word(
        &self,
        lexicon: &Lexicon,
        word: &mut [Token<'_>],
        context: Context,
        unknown: &Speller<'_>,
    ) -> Result<Context, Error> {
        if let [token] = word {
            let mut sound = token.phonemes.take().or_else(|| lexicon.read(token, context));
            if sound.is_none() {
                sound = Some(self.fall_back(lexicon, &token.text, unknown)?);
            }
            let after = before(context, sound.as_deref().unwrap_or(""), token);
            token.phonemes = sound;
            return Ok(after);
        }
        let mut context = context;
        if read_parts(lexicon, word, &mut context) {
            settle_stress(word);
        } else {
            let sound = self.fall_back(lexicon, &text(word), unknown)?;
            for token in word.iter_mut() {
                token.phonemes = Some(String::new());
            }
            word[0].phonemes = Some(sound);
        }
        Ok(context)
    }

    /// What no rule can read: letters go to the network for unknown words, digits and symbols are read one by one.
    fn fall_back(&self, lexicon: &Lexicon, text: &str, unknown: &Speller<'_>) -> Result<String, Error> {
        let mut sounds = Vec::new();
        for piece in self.pieces.find_iter(text).map_while(Result::ok) {
            let piece = piece.as_str();
            let first = piece.chars().next().unwrap_or(' ');
            let sound = if first.is_ascii_digit() {
                lexicon.number(piece, None, false)
            } else if first.is_alphabetic() {
                unknown(piece)?
            } else {
                let names = piece.chars().filter_map(|c| SYMBOLS.iter().find(|(symbol, _)| *symbol == c));
                Some(names.map(|(_, name)| *name).collect())
            };
            sounds.extend(sound.filter(|sound| !sound.is_empty()));
        }
        Ok(sounds.join(" "))
    }
}

/// Reads the longest runs of parts that the lexicon knows, from the end; `false` if a part is in none.
fn read_parts(lexicon: &Lexicon, word: &mut [Token<'_>], context: &mut Context) -> bool {
    let (mut left, mut right) = (0, word.len());
    while left < right {
        left = left.max(right.saturating_sub(RUN_MAX));
        let run = &word[left..right];
        let merged = (!run.iter().any(Token::is_settled)).then(|| merge(run));
        let read = merged.and_then(|merged| Some((lexicon.read(&merged, *context)?, merged)));
        if let Some((sound, merged)) = read {
            *context = before(*context, &sound, &merged);
            word[left + 1..right].iter_mut().for_each(|token| token.phonemes = Some(String::new()));
            word[left].phonemes = Some(sound);
            (left, right) = (0, left);
        } else if left + 1 < right {
            left += 1;
        } else {
            right -= 1;
            left = 0;
            let token = &mut word[right];
            if token.phonemes.is_none() {
                if !token.text.chars().all(|c| SILENT.contains(c)) {
                    return false;
                }
                token.phonemes = Some(String::new());
            }
        }
    }
    true
}

/// Of a word of several parts half keep their main stress: the heavier ones.
fn settle_stress(word: &mut [Token<'_>]) {
    let whole = text(word);
    let kind = |c: char| if c.is_alphabetic() { 0 } else { 1 + u8::from(!c.is_ascii_digit()) };
    let mut kinds: Vec<u8> = whole.chars().filter(|&c| !SILENT.contains(c)).map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let pause = whole.contains([' ', '/']) || kinds.len() > 1;
    let count = word.len();
    for (i, token) in word.iter_mut().enumerate() {
        if token.phonemes.is_some() {
            token.pause = i > 0 && pause;
        } else if i + 1 == count && token.text.chars().count() == 1 && PAUSES.contains(token.text.as_str()) {
            token.phonemes = Some(token.text.clone());
        }
    }
    if pause {
        return;
    }
    let weigh = |(i, token): (usize, &Token<'_>)| {
        let sound = token.phonemes.as_deref().filter(|sound| !sound.is_empty())?;
        Some((sound.contains(PRIMARY), stress::weight(sound), i))
    };
    let mut parts: Vec<(bool, usize, usize)> = word.iter().enumerate().filter_map(weigh).collect();
    let stressed = parts.iter().filter(|(stressed, ..)| *stressed).count();
    let lowered: Vec<usize> = match parts[..] {
        [(_, _, first), (_, _, second)] if word[first].text.chars().count() == 1 => vec![second],
        _ if parts.len() < 2 || stressed <= parts.len().div_ceil(2) => Vec::new(),
        _ => {
            parts.sort_unstable();
            parts[..parts.len() / 2].iter().map(|(.., i)| *i).collect()
        }
    };
    for i in lowered {
        word[i].phonemes = word[i].phonemes.take().map(|sound| stress::apply(&sound, Stress::Lower));
    }
}

/// What a word of this sound is to the word before it.
fn before(context: Context, sound: &str, token: &Token<'_>) -> Context {
    let first = sound.chars().find(|&c| [VOWELS, CONSONANTS, PAUSES].iter().any(|set| set.contains(c)));
    let vowel = match first {
        Some(c) if PAUSES.contains(c) => None,
        Some(c) => Some(VOWELS.contains(c)),
        None => context.vowel,
    };
    Context { vowel, to: is_to(&token.text, token.tag) }
}

/// What a punctuation mark sounds like, if the token is one.
fn punctuation(token: &Token<'_>) -> Option<String> {
    let is_word = token.text.chars().all(|c| c.to_lowercase().all(|c| c.is_ascii_lowercase()));
    let mark = match token.tag {
        ":" if matches!(token.text.as_str(), "-" | "–") => "—",
        "-LRB-" | "-RRB-" | "``" | "\"\"" | "''" | "." | "," | ":" | "$" | "#" | "NFP" if is_word => return None,
        "-LRB-" => "(",
        "-RRB-" => ")",
        "``" => "“",
        "\"\"" | "''" => "”",
        "." | "," | ":" | "$" | "#" | "NFP" => {
            let is_mark = |c: &char| PAUSES.contains(*c) || matches!(c, '"' | '“' | '”');
            return Some(token.text.chars().filter(is_mark).collect());
        }
        _ => return None,
    };
    Some(mark.to_owned())
}

/// Whether the part before and the part after it meet it with letters: the 2 of "b2b".
fn between_letters(texts: &[String], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| texts[before].chars().next_back());
    let after = texts.get(at + 1).and_then(|after| after.chars().next());
    before.is_some_and(char::is_alphabetic) && after.is_some_and(char::is_alphabetic)
}
