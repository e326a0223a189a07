//! Tokenizers of GGUF files: text to tokens and back.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use onbeat_backend::Error;
use rten_text::models::{Bpe, BpeOptions, Model, char_to_byte};
use rten_text::pre_tokenizers::{PreTokenizer, Split, SplitDelimiterBehavior, SplitOptions};
use serde::{Deserialize, Serialize};

use crate::gguf::{Gguf, Value, as_text};
use crate::pieces::Pieces;

/// A tokenizer as a GGUF file describes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Vocabulary {
    /// `gpt2`: pairs of bytes, merged in the order of a list; `llama`: pairs of characters, merged by their scores.
    pub(crate) model: String,
    /// How text is split into words first.
    pub(crate) pre: String,
    pub(crate) tokens: Vec<String>,
    /// GGUF's token types.
    pub(crate) types: Vec<i32>,
    pub(crate) merges: Vec<String>,
    pub(crate) scores: Vec<f32>,
    /// A token that texts without a chat form begin with.
    pub(crate) begin: Option<u32>,
    /// Tokens that end an answer.
    pub(crate) end: Vec<u32>,
    /// Whether a space is put before a text.
    pub(crate) space_first: bool,
}

const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;
/// Tokens that end an answer whatever a file says.
const ENDS: [&str; 4] = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>"];

impl Vocabulary {
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, Error> {
        let model = gguf.text("tokenizer.ggml.model")?.to_owned();
        if model != "gpt2" && model != "llama" {
            return Err(Error::unsupported(format!("GGUF: tokenizers `{model}` are not read; `gpt2` and `llama` are")));
        }
        let tokens = gguf.list("tokenizer.ggml.tokens", as_text)?;
        let integer = |value: &Value| if let Value::Signed(it) = value { i32::try_from(*it).ok() } else { None };
        let float = |value: &Value| if let Value::Float(it) = value { Some(*it as f32) } else { None };
        let types = match gguf.get("tokenizer.ggml.token_type") {
            Some(_) => gguf.list("tokenizer.ggml.token_type", integer)?,
            None => vec![1; tokens.len()],
        };
        let byte_pairs = model == "gpt2";
        let merges = if byte_pairs { gguf.list("tokenizer.ggml.merges", as_text)? } else { Vec::new() };
        let scores = if byte_pairs { Vec::new() } else { gguf.list("tokenizer.ggml.scores", float)? };
        let token = |key: &str| -> Result<Option<u32>, Error> {
            let id = gguf.optional_unsigned(&format!("tokenizer.ggml.{key}"))?;
            // An identifier beyond the vocabulary stands for none in some files.
            Ok(id.filter(|&id| id < tokens.len() as u64).map(|id| id as u32))
        };
        let mut end: Vec<u32> = token("eos_token_id")?.into_iter().chain(token("eot_token_id")?).collect();
        end.extend((0..).zip(&tokens).filter(|(_, text)| ENDS.contains(&text.as_str())).map(|(id, _)| id));
        end.sort_unstable();
        end.dedup();
        let begins = gguf.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(!byte_pairs);
        Ok(Self {
            pre: gguf.text("tokenizer.ggml.pre").unwrap_or("default").to_owned(),
            begin: if begins { token("bos_token_id")? } else { None },
            end,
            space_first: gguf.optional_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(!byte_pairs),
            model,
            tokens,
            types,
            merges,
            scores,
        })
    }
}

/// Turns text into tokens and back.
pub(crate) struct Tokenizer {
    encoder: Encoder,
    /// The bytes of each token; none for control tokens.
    bytes: Vec<Vec<u8>>,
    bytes_max: usize,
    special: Vec<(String, u32)>,
    space_first: bool,
    begin: Option<u32>,
    end: Vec<u32>,
}

enum Encoder {
    BytePairs { words: Vec<Split>, pairs: Box<Bpe> },
    Pieces(Pieces),
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("tokens", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// `llama.cpp`'s splits into words by the name that a GGUF file gives them (`tokenizer.ggml.pre`, `llama-vocab.cpp`).
fn words(pre: &str) -> Result<Vec<Split>, Error> {
    let patterns: &[(&str, SplitDelimiterBehavior)] = match pre {
        // Digits one by one, then GPT-2's words of what lies between them.
        "smollm" | "starcoder" | "refact" | "command-r" => {
            &[(r"\p{N}", SplitDelimiterBehavior::Isolate), (GPT2, SplitDelimiterBehavior::Remove)]
        }
        "default" | "gpt-2" | "gpt2" => &[(GPT2, SplitDelimiterBehavior::Remove)],
        "llama-bpe" | "llama3" | "llama-v3" => &[(LLAMA3, SplitDelimiterBehavior::Isolate)],
        _ => return Err(Error::unsupported(format!("the tokenizer splits text by `{pre}`, which is not known"))),
    };
    let split = |&(pattern, delimiter): &(&str, _)| Split::new(SplitOptions { pattern, delimiter, invert: true });
    let splits: Result<_, _> = patterns.iter().map(split).collect();
    Ok(splits.expect("the patterns are regular expressions"))
}

const GPT2: &str = rten_text::pre_tokenizers::GPT2_REGEX;
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Tokenizer {
    pub(crate) fn new(vocabulary: Vocabulary) -> Result<Self, Error> {
        let Vocabulary { model, pre, tokens, types, merges, scores, begin, end, space_first } = vocabulary;
        let byte_pairs = model == "gpt2";
        if types.len() != tokens.len() || !byte_pairs && scores.len() != tokens.len() {
            return Err(Error::invalid_model(format!(
                "the tokenizer has {} tokens, {} types and {} scores; there must be one of each per token",
                tokens.len(),
                types.len(),
                scores.len()
            )));
        }
        let beyond = |id: &&u32| **id as usize >= tokens.len();
        if let Some(id) = end.iter().chain(&begin).find(beyond) {
            return Err(Error::invalid_model(format!(
                "the tokenizer has {} tokens, not one of number {id}",
                tokens.len()
            )));
        }
        let special = |kind: i32| kind == CONTROL || kind == USER_DEFINED;
        let listed = (0_u32..).zip(tokens.iter().zip(&types));
        let bytes: Vec<Vec<u8>> =
            listed.clone().map(|(_, (text, &kind))| token_bytes(text, kind, byte_pairs)).collect();
        let bytes_max = bytes.iter().map(Vec::len).max().unwrap_or(0);
        let special: Vec<(String, u32)> = listed
            .filter(|(_, (text, kind))| special(**kind) && !text.is_empty())
            .map(|(id, (text, _))| (text.clone(), id))
            .collect();
        let encoder = if byte_pairs {
            Encoder::BytePairs { words: words(&pre)?, pairs: Box::new(byte_pair_encoder(tokens, &merges)?) }
        } else {
            Encoder::Pieces(Pieces::new(&tokens, &types, scores))
        };
        Ok(Self { encoder, bytes, bytes_max, special, space_first, begin, end })
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The most bytes that a token stands for.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(crate) fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// Whether a token ends an answer.
    pub(crate) fn ends(&self, token: u32) -> bool {
        self.end.contains(&token)
    }

    /// The number of a control token.
    pub(crate) fn special(&self, text: &str) -> Option<u32> {
        self.special.iter().find(|(other, _)| other == text).map(|(_, id)| *id)
    }

    /// The tokens of a text. Names of control tokens in it are text like any other.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut tokens = Vec::new();
        match &self.encoder {
            Encoder::Pieces(pieces) => pieces.encode(text, self.space_first, &mut tokens),
            Encoder::BytePairs { words, pairs } => {
                let text = if self.space_first { Cow::Owned(format!(" {text}")) } else { Cow::Borrowed(text) };
                let mut parts = vec![text.as_ref()];
                let failed =
                    |error: &dyn fmt::Display| Error::invalid_input(format!("the text cannot be split: {error}"));
                for split in words {
                    let mut finer = Vec::new();
                    for part in parts {
                        finer.extend(split.pre_tokenize(part).map_err(|error| failed(&error))?);
                    }
                    parts = finer;
                }
                for part in parts {
                    pairs
                        .encode_with_offsets(part, &mut |_, token| tokens.push(token))
                        .map_err(|error| failed(&error))?;
                }
            }
        }
        Ok(tokens)
    }

    /// The bytes that a token stands for; none for a control token.
    pub(crate) fn decode(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }
}

fn byte_pair_encoder(tokens: Vec<String>, merges: &[String]) -> Result<Bpe, Error> {
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let missing: Vec<char> = char_to_byte().into_keys().filter(|c| !known.contains(c.to_string().as_str())).collect();
    drop(known);
    let merges: Vec<(Cow<str>, Cow<str>)> = merges
        .iter()
        .map(|it| {
            let (left, right) = it.split_once(' ').ok_or_else(|| {
                Error::invalid_model(format!(
                    "the tokenizer's merge `{it}` is not two tokens with a space between them"
                ))
            })?;
            Ok((left.into(), right.into()))
        })
        .collect::<Result<_, Error>>()?;
    // Vocabularies trained on text alone lack bytes that valid text never has (0xC0, 0xFF): they get a number beyond the vocabulary.
    let beyond = tokens.len() as u32;
    let vocabulary = (0..).zip(tokens).map(|(id, token)| (token, id));
    let vocabulary = vocabulary.chain(missing.into_iter().map(|c| (c.to_string(), beyond))).collect();
    let options = BpeOptions { merges: &merges, vocab: Some(vocabulary), ..BpeOptions::default() };
    Bpe::new(options).map_err(|error| Error::invalid_model(format!("the tokenizer: {error}")))
}

fn token_bytes(text: &str, kind: i32, byte_pairs: bool) -> Vec<u8> {
    match kind {
        CONTROL => Vec::new(),
        BYTE => Pieces::byte(text).map_or_else(Vec::new, |byte| vec![byte]),
        USER_DEFINED => text.as_bytes().to_vec(),
        _ if byte_pairs => {
            let table = byte_table();
            let mut bytes = Vec::with_capacity(text.len());
            for c in text.chars() {
                match table.get(c as usize).copied().flatten() {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend(c.to_string().as_bytes()),
                }
            }
            bytes
        }
        _ => text.replace('\u{2581}', " ").into_bytes(),
    }
}

/// GPT-2's printable characters by the byte that they stand for.
fn byte_table() -> &'static [Option<u8>] {
    static TABLE: std::sync::OnceLock<Vec<Option<u8>>> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let map = char_to_byte();
        // The characters end at U+0143.
        (0..512_u32).map(|c| map.get(&char::from_u32(c)?).copied()).collect()
    })
}

/// Text that tokens make, as far as whole characters are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    text: String,
    rest: Vec<u8>,
}

impl Text {
    /// Adds the bytes of a token.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend(bytes);
        loop {
            match std::str::from_utf8(&self.rest) {
                Ok(text) => {
                    self.text.push_str(text);
                    self.rest.clear();
                    return;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    let (text, rest) = self.rest.split_at(valid);
                    self.text.push_str(std::str::from_utf8(text).expect("it is valid up to there"));
                    let Some(wrong) = error.error_len() else {
                        // The character goes on in the next token.
                        self.rest = rest.to_vec();
                        return;
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    self.rest = rest[wrong..].to_vec();
                }
            }
        }
    }

    /// Ends the text: half a character at its end becomes a replacement character.
    pub(crate) fn end(&mut self) {
        if !self.rest.is_empty() {
            self.rest.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// The text so far.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{Storage, tiny_llama};

    fn tiny() -> Vocabulary {
        let file = tiny_llama(Storage::Float);
        Vocabulary::read(&Gguf::read(&file).unwrap()).unwrap()
    }

    #[test]
    fn bytes_are_merged_in_the_order_of_the_list() {
        let tokenizer = Tokenizer::new(tiny()).unwrap();
        // `he` is 258, `hel` 259; all else is the byte itself.
        assert_eq!(tokenizer.encode("hello he").unwrap(), [259, 108, 111, 32, 258]);
        assert_eq!(tokenizer.encode("\u{e9}").unwrap(), [0xC3, 0xA9]);
        // The mark is text like any other, unless it is asked for.
        assert_eq!(tokenizer.encode("<|im_end|>").unwrap().len(), 10);
        assert_eq!(tokenizer.special("<|im_end|>"), Some(257));
        assert!(tokenizer.ends(257) && !tokenizer.ends(256));
        assert!(tokenizer.decode(257).is_empty() && tokenizer.decode(9999).is_empty());
        assert_eq!(tokenizer.bytes_max(), 3);
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let text = |change: fn(&mut Vocabulary)| {
            let mut vocabulary = tiny();
            change(&mut vocabulary);
            Tokenizer::new(vocabulary).unwrap_err().to_string()
        };
        assert!(text(|it| it.types.truncate(3)).contains("260 tokens, 3 types"));
        assert!(text(|it| it.end.push(400)).ends_with("not one of number 400"));
        assert!(text(|it| it.merges.push("xy".into())).contains("`xy` is not two tokens"));
        assert!(text(|it| it.merges.push("x yz".into())).starts_with("the tokenizer: invalid merge entry"));
        assert!(text(|it| it.pre = "new".into()).ends_with("`new`, which is not known"));
    }

    #[test]
    fn characters_appear_when_their_last_byte_does() {
        let mut text = Text::default();
        let smile = "\u{1f642}".as_bytes();
        text.push(b"a");
        text.push(&smile[..3]);
        assert_eq!(text.as_str(), "a");
        text.push(&smile[3..]);
        assert_eq!(text.as_str(), "a\u{1f642}");
        text.push(b"\xFFb\xC3");
        assert_eq!(text.as_str(), "a\u{1f642}\u{fffd}b");
        text.end();
        assert_eq!(text.as_str(), "a\u{1f642}\u{fffd}b\u{fffd}");
    }
}
