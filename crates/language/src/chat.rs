//! What a model is told around a user's words.

use onbeat_backend::Error;

use crate::tokenizer::Tokenizer;

/// What [`Options::default`](crate::Options) tells the model. Short, because it is a part of every prompt; of nine that were tried on
/// SmolLM2-135M-Instruct with three questions, the one with the shortest answers that were still to the point.
pub const SYSTEM_PROMPT: &str = "Answer in one sentence.";

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

/// The tokens of a prompt: in ChatML, if the vocabulary has its marks, so that the model answers; else the text alone, so that the
/// model goes on with it.
pub(crate) fn prompt(tokenizer: &Tokenizer, system: &str, user: &str) -> Result<Vec<u32>, Error> {
    let (Some(start), Some(end)) = (tokenizer.special(START), tokenizer.special(END)) else {
        let mut tokens: Vec<u32> = tokenizer.begin().into_iter().collect();
        tokens.extend(tokenizer.encode(user)?);
        return Ok(tokens);
    };
    let mut tokens = Vec::new();
    let mut turn = |role: &str, text: &str| -> Result<(), Error> {
        tokens.push(start);
        tokens.extend(tokenizer.encode(&format!("{role}\n{text}"))?);
        tokens.push(end);
        tokens.extend(tokenizer.encode("\n")?);
        Ok(())
    };
    if !system.is_empty() {
        turn("system", system)?;
    }
    turn("user", user)?;
    tokens.push(start);
    tokens.extend(tokenizer.encode("assistant\n")?);
    Ok(tokens)
}
