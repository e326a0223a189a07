//! Parts of speech, by an averaged perceptron: they decide how "read", "live" and "record" sound. Ported from `tagger.py` of hibari-tts
//! 0.2.1 (Apache-2.0).

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::letters::{is_alphabetic, is_digits, is_lower, is_upper, last, length, lower, rest};

/// The package's `tagger.json.gz`.
#[derive(Deserialize)]
struct File {
    tags: Vec<String>,
    tagdict: HashMap<String, String>,
    vocab: HashSet<Box<str>>,
    weights: HashMap<Box<str>, HashMap<String, f64>>,
}

/// Finds parts of speech.
#[derive(Debug, Deserialize)]
#[serde(try_from = "File")]
pub(super) struct Tagger {
    tags: Vec<String>,
    /// Words that are nearly always the same part of speech, by its place in `tags`.
    fixed: HashMap<Box<str>, u8>,
    /// Words that the weights know; others count as their shape.
    known: HashSet<Box<str>>,
    /// What a feature says for each part of speech, in tenths.
    weights: HashMap<Box<str>, Box<[(u8, i16)]>>,
}

impl TryFrom<File> for Tagger {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let places: HashMap<&str, usize> = file.tags.iter().enumerate().map(|(i, tag)| (tag.as_str(), i)).collect();
        let place = |tag: &str| {
            let place = places.get(tag).ok_or_else(|| format!("`{tag}` is not in `tags`"))?;
            u8::try_from(*place).map_err(|_| "more than 256 `tags`".to_owned())
        };
        let fixed = file.tagdict.into_iter().map(|(word, tag)| Ok((word.into(), place(&tag)?)));
        let weights = file.weights.into_iter().map(|(feature, weights)| {
            let tenths = weights.iter().map(|(tag, weight)| Ok((place(tag)?, (weight * 10.0).round() as i16)));
            Ok((feature, tenths.collect::<Result<_, String>>()?))
        });
        let (fixed, weights) = (fixed.collect::<Result<_, String>>()?, weights.collect::<Result<_, String>>()?);
        Ok(Self { fixed, weights, known: file.vocab, tags: file.tags })
    }
}

impl Tagger {
    /// The part of speech of each word of a sentence.
    pub(super) fn tag(&self, words: &[&str]) -> Vec<&str> {
        let seen: Vec<String> = words.iter().map(|word| self.seen(word)).collect();
        let mut tags: Vec<&str> = Vec::with_capacity(words.len());
        for (i, word) in words.iter().enumerate() {
            let tag = match self.fixed.get(*word) {
                Some(&place) => self.tags.get(usize::from(place)).map_or("NN", String::as_str),
                None => self.predict(&features(words, &seen, &tags, i)),
            };
            tags.push(tag);
        }
        tags
    }

    /// Memory that it takes, about [bytes].
    pub(super) fn bytes(&self) -> u64 {
        let tables = self.weights.values().map(|weights| size_of_val::<[(u8, i16)]>(weights) + 64).sum::<usize>();
        (tables + 48 * (self.fixed.len() + self.known.len())) as u64
    }

    /// A word as the features see it.
    fn seen(&self, word: &str) -> String {
        let class = class(word);
        if self.known.contains(class.as_str()) { class } else { format!("<{}>", shape(word)) }
    }

    fn predict(&self, features: &[String]) -> &str {
        // Decimal fractions in the package's order: where two parts of speech are equal but for rounding, the same one wins.
        let mut scores = vec![0.0_f64; self.tags.len()];
        let mut any = false;
        for weights in features.iter().filter_map(|feature| self.weights.get(feature.as_str())) {
            for &(place, weight) in weights {
                scores[usize::from(place)] += f64::from(weight) / 10.0;
                any = true;
            }
        }
        // Of equal ones the last in the alphabet.
        let order = |a: &(&String, &f64), b: &(&String, &f64)| a.1.total_cmp(b.1).then_with(|| a.0.cmp(b.0));
        let best = self.tags.iter().zip(&scores).max_by(order);
        best.filter(|_| any).map_or("NN", |(tag, _)| tag)
    }
}

fn class(word: &str) -> String {
    let first = word.chars().next();
    match () {
        () if first != Some('-') && word.contains('-') => "!HYPHEN".to_owned(),
        () if is_digits(word) && word.len() == 4 => "!YEAR".to_owned(),
        () if first.is_some_and(|c| c.is_ascii_digit()) => "!DIGITS".to_owned(),
        () => lower(word),
    }
}

/// Letters, digits and capitals of a word.
fn shape(word: &str) -> String {
    if is_alphabetic(word) {
        let has_capital = word.chars().any(char::is_uppercase);
        let first_is_capital = word.chars().next().is_some_and(char::is_uppercase);
        let shape = match () {
            () if !has_capital && word.chars().any(char::is_lowercase) && is_lower(word) => "x",
            () if has_capital && is_upper(word) => {
                if length(word) > 1 {
                    "XX"
                } else {
                    "X1"
                }
            }
            () if first_is_capital && is_lower(rest(word)) && length(word) > 1 => "Xx",
            () => "xX",
        };
        return shape.to_owned();
    }
    if is_digits(word) {
        return "d".to_owned();
    }
    let class = |c: char| match c {
        _ if c.is_ascii_digit() => 'd',
        _ if c.is_alphabetic() => 'x',
        _ => c,
    };
    word.chars().take(4).map(class).collect()
}

/// What the perceptron looks at for word `i`: the word, its neighbours, the parts of speech before it.
fn features(words: &[&str], seen: &[String], tags: &[&str], i: usize) -> [String; 15] {
    let word = words[i];
    let before = |distance: usize| match i.checked_sub(distance) {
        Some(at) => (seen[at].as_str(), tags[at]),
        None if i + 1 == distance => ("-START-", "-START-"),
        None => ("-START2-", "-START2-"),
    };
    let after = |distance: usize| {
        let end = if i + distance == seen.len() { "-END-" } else { "-END2-" };
        seen.get(i + distance).map_or(end, String::as_str)
    };
    let ((word1, tag1), (word2, tag2)) = (before(1), before(2));
    let first: String = word.chars().take(1).collect();
    [
        "b".to_owned(),
        format!("s3={}", last(word, 3)),
        format!("p1={first}"),
        format!("w={}", seen[i]),
        format!("sh={}", shape(word)),
        if i == 0 { "i0" } else { "i+" }.to_owned(),
        format!("t-1={tag1}"),
        format!("t-2={tag2}"),
        format!("t-12={tag1},{tag2}"),
        format!("w-1={word1}"),
        format!("s3-1={}", last(word1, 3)),
        format!("w-2={word2}"),
        format!("w+1={}", after(1)),
        format!("s3+1={}", last(after(1), 3)),
        format!("w+2={}", after(2)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagger() -> Tagger {
        let file = r#"{"tags":["DT","NN","VB"],"tagdict":{"the":"DT"},"vocab":["the","run"],
            "weights":{"t-1=DT":{"NN":2.5,"VB":-1.0},"w=run":{"VB":1.5,"NN":0.5},"i0":{"VB":0.1}}}"#;
        serde_json::from_str(file).unwrap()
    }

    #[test]
    fn weights_of_features_are_summed() {
        // After "the": NN 2.5 + 0.5, VB −1.0 + 1.5. At the beginning: VB 1.5 + 0.1, NN 0.5.
        assert_eq!(tagger().tag(&["the", "run"]), ["DT", "NN"]);
        assert_eq!(tagger().tag(&["run", "the"]), ["VB", "DT"]);
        assert_eq!(tagger().tag(&["the"]), ["DT"]);
        assert_eq!(tagger().tag(&[]), [""; 0]);
    }

    #[test]
    fn a_tag_that_is_not_listed_is_an_error() {
        let file = r#"{"tags":["NN"],"tagdict":{"the":"DT"},"vocab":[],"weights":{}}"#;
        let error = serde_json::from_str::<Tagger>(file).unwrap_err();
        assert!(error.to_string().contains("`DT` is not in `tags`"), "{error}");
    }

    #[test]
    fn shapes_and_classes() {
        let shapes = ["word", "NASA", "I", "Word", "iPhone", "42", "4th-of", "'s"].map(shape);
        assert_eq!(shapes, ["x", "XX", "X1", "Xx", "xX", "d", "dxx-", "'x"]);
        let classes = ["well-known", "-", "1999", "19", "The"].map(class);
        assert_eq!(classes, ["!HYPHEN", "-", "!YEAR", "!DIGITS", "the"]);
    }

    #[test]
    fn features_at_the_edges() {
        let seen = ["a".to_owned()];
        let found = features(&["a"], &seen, &[], 0);
        assert!(found.contains(&"t-12=-START-,-START2-".to_owned()) && found.contains(&"w-2=-START2-".to_owned()));
        assert!(found.contains(&"w+1=-END-".to_owned()) && found.contains(&"w+2=-END2-".to_owned()));
    }
}
