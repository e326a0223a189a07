//! Words that no lexicon knows, by a small network over letters. Its alphabets and how its output is read follow `oov.py` of hibari-tts 0.2.1
//! (Apache-2.0).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Control, Elements, Error, Footprint, Graph, LoadOptions, Loader, Tensor, Values};
use serde::Deserialize;

use crate::assets::read_json;

/// The package's `oov.json`.
#[derive(Deserialize)]
struct Alphabets {
    #[serde(rename = "in")]
    letters: Vec<char>,
    #[serde(rename = "out")]
    sounds: Vec<char>,
    maxlen: usize,
}

/// Reads unknown words.
#[derive(Debug)]
pub(crate) struct UnknownWords {
    graph: Arc<dyn Graph>,
    letters: HashMap<char, i64>,
    sounds: Vec<char>,
    letters_max: usize,
}

impl UnknownWords {
    /// Loads the network whole: it is too small to be cut.
    pub(crate) fn load(folder: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        let alphabets: Alphabets = read_json(folder, "oov.json")?;
        let options = LoadOptions { segments: 1, ..loader.options.clone() };
        let graph = Loader { options: &options, ..*loader }.load(&folder.join("oov.onnx"))?;
        Ok(Self {
            graph,
            letters: alphabets.letters.into_iter().zip(1..).collect(),
            sounds: alphabets.sounds,
            letters_max: alphabets.maxlen,
        })
    }

    /// How a word sounds; `None` if it has no letter that the network knows.
    pub(crate) fn read(&self, word: &str, control: &Control) -> Result<Option<String>, Error> {
        let letters: Vec<i64> =
            word.chars().filter_map(|c| self.letters.get(&c).copied()).take(self.letters_max).collect();
        if letters.is_empty() {
            return Ok(None);
        }
        let mut values = Values::new();
        values.put("chars", Tensor::new([1, letters.len()], letters)?);
        self.graph.run(&mut values, control)?;
        let found = match values.take_tensor("ids")?.into_parts().1 {
            Elements::I64(found) => found,
            Elements::I32(found) => found.into_iter().map(i64::from).collect(),
            other => {
                let kind = other.element_type();
                return Err(Error::invalid_model(format!("oov.onnx: `ids` is {kind:?}, not 64-bit integers")));
            }
        };
        Ok(Some(collapse(&found, &self.sounds)))
    }

    /// Memory that the network takes.
    pub(crate) fn footprint(&self) -> Footprint {
        self.graph.footprint()
    }
}

/// The sounds of a row of classes, of which 0 is none and the same twice in a row is one.
fn collapse(classes: &[i64], sounds: &[char]) -> String {
    let mut word = String::new();
    let mut before = 0;
    for &class in classes {
        if class != before && class > 0 {
            word.extend(usize::try_from(class - 1).ok().and_then(|place| sounds.get(place)));
        }
        before = class;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_classes_are_one_sound() {
        assert_eq!(collapse(&[0, 1, 1, 0, 1, 2, 0, 9, -3], &['a', 'b']), "aab");
        assert_eq!(collapse(&[], &[]), "");
    }
}
