//! From weights in CTranslate2's format to networks that every backend loads.

use std::path::Path;

use onbeat_backend::Error;
use onbeat_onnx::Builder;
use serde::Deserialize;

use super::ctranslate2::Weights;
use super::description::Description;
use super::layers::{Net, WhisperWeights};
use super::model::{DECODER, ENCODER};
use super::vocabulary::Vocabulary;

/// ONNX operators, version 17: the first with `LayerNormalization`.
const OPSET: i64 = 17;
/// CTranslate2's number of the activation that Whisper has, the exact Gaussian error linear unit.
const GELU: i32 = 3;
/// From this number of tokens on, a Whisper knows several languages.
const MULTILINGUAL: usize = 51_865;

/// The part of `config.json` that counts.
#[derive(Deserialize)]
struct Config {
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

/// Converts an English-only Whisper of CTranslate2 (`model.bin` version 6 with 16- or 32-bit weights, `config.json`, `vocabulary.txt`)
/// to what [`Whisper::load`](super::Whisper::load) takes: `encoder.onnx`, `decoder.onnx`, `whisper.json` and `vocabulary.txt`.
/// Weights keep their values.
///
/// # Errors
/// Names the file and the variable that is missing, damaged, or not as Whisper's.
pub fn convert_whisper(source: &Path, destination: &Path) -> Result<(), Error> {
    convert_whisper_as(source, destination, WhisperWeights::AsStored)
}

/// Like [`convert_whisper`], with the decoder's matrices stored in a way of choice.
///
/// # Errors
/// Like [`convert_whisper`].
pub fn convert_whisper_as(source: &Path, destination: &Path, matrices: WhisperWeights) -> Result<(), Error> {
    let weights = Weights::read(&source.join("model.bin"))?;
    let config = source.join("config.json");
    let name = config.display();
    let text = std::fs::read_to_string(&config).map_err(|e| Error::not_found(format!("{name}: {e}")))?;
    let config: Config = serde_json::from_str(&text).map_err(|e| Error::invalid_model(format!("{name}: {e}")))?;
    let words = source.join(Vocabulary::FILE);
    let text = std::fs::read_to_string(&words).map_err(|e| Error::not_found(format!("{}: {e}", words.display())))?;
    let description = describe(&weights, &config, &Vocabulary::parse(&text))?;
    description.check().map_err(|what| Error::invalid_model(format!("{}: {what}", source.display())))?;

    let write = |file: &str, bytes: &[u8]| {
        let path = destination.join(file);
        std::fs::write(&path, bytes).map_err(|e| Error::device(format!("{}: {e}", path.display())))
    };
    std::fs::create_dir_all(destination).map_err(|e| Error::device(format!("{}: {e}", destination.display())))?;
    write(ENCODER, &network(&weights, "encoder")?.encoder()?)?;
    write(DECODER, &Net { matrices, ..network(&weights, "decoder")? }.decoder()?)?;
    write(Vocabulary::FILE, text.as_bytes())?;
    description.write(destination)
}

/// A network of which nothing is built yet.
pub(super) fn network<'a>(weights: &'a Weights, part: &str) -> Result<Net<'a>, Error> {
    let wrong = |what: String| Error::invalid_model(format!("{}: {what}", weights.name()));
    for part in ["encoder", "decoder"] {
        for (option, wanted) in [("activation", GELU), ("pre_norm", 1), ("alibi", 0), ("scale_embeddings", 0)] {
            let name = format!("{part}/{option}");
            if weights.has(&name) && weights.number(&name)? != wanted {
                return Err(wrong(format!("`{name}` is {}; Whisper's is {wanted}", weights.number(&name)?)));
            }
        }
    }
    let [width] = weights.shape(&format!("{part}/layer_norm/gamma"))?;
    let name = format!("{part}/num_heads");
    let heads = usize::try_from(weights.number(&name)?).ok().filter(|&heads| heads > 0 && width % heads == 0);
    let heads = heads.ok_or_else(|| wrong(format!("`{name}` does not divide the width {width}")))?;
    let net = Net {
        g: Builder::new(&format!("whisper-{part}"), OPSET),
        weights,
        width,
        heads,
        matrices: WhisperWeights::AsStored,
    };
    if net.layers(part) == 0 { Err(wrong(format!("the {part} has no layers"))) } else { Ok(net) }
}

fn describe(weights: &Weights, config: &Config, words: &Vocabulary) -> Result<Description, Error> {
    let [window_max, _] = weights.shape("encoder/position_encodings/encodings")?;
    let [tokens_max, _] = weights.shape("decoder/position_encodings/encodings")?;
    let [vocabulary, _] = weights.shape("decoder/embeddings/weight")?;
    if vocabulary >= MULTILINGUAL {
        return Err(Error::unsupported(format!(
            "{}: a Whisper of several languages ({vocabulary} tokens); English-only ones can be converted",
            weights.name()
        )));
    }
    if words.len() != vocabulary {
        return Err(Error::invalid_model(format!(
            "{}: {} tokens, but {} lines in {}",
            weights.name(),
            vocabulary,
            words.len(),
            Vocabulary::FILE
        )));
    }
    let find = |names: &[&str]| {
        names.iter().find_map(|name| words.find(name)).ok_or_else(|| {
            Error::invalid_model(format!("{}: there is no token {}", Vocabulary::FILE, names.join(" or ")))
        })
    };
    let untimed = find(&["<|notimestamps|>"])?;
    let (encoder, decoder) = (network(weights, "encoder")?, network(weights, "decoder")?);
    if (encoder.width, encoder.heads) != (decoder.width, decoder.heads) {
        return Err(Error::invalid_model(format!(
            "{}: the encoder's width is {} with {} heads, the decoder's {} with {}; Whisper's are the same",
            weights.name(),
            encoder.width,
            encoder.heads,
            decoder.width,
            decoder.heads
        )));
    }
    Ok(Description {
        format: Description::FORMAT,
        layers: decoder.layers("decoder"),
        heads: decoder.heads,
        head: decoder.head(),
        window_max,
        tokens_max,
        vocabulary,
        start: vec![find(&["<|startoftranscript|>"])?, untimed],
        end: find(&["<|endoftext|>"])?,
        no_speech: find(&["<|nospeech|>", "<|nocaptions|>"])?,
        suppress: config.suppress_ids.clone(),
        suppress_first: config.suppress_ids_begin.clone(),
        timestamps: untimed + 1,
    })
}
