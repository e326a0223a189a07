//! What is sent, and what comes back, as far as it is used here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of a request to `/chat/completions`.
#[derive(Debug, Serialize)]
pub(crate) struct Request<'a> {
    pub(crate) model: &'a str,
    pub(crate) messages: [Message<'a>; 1],
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f32,
    pub(crate) stream: bool,
    pub(crate) stream_options: StreamOptions,
}

/// One turn of a conversation.
#[derive(Debug, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: &'static str,
    pub(crate) content: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct StreamOptions {
    /// Asks for the numbers of tokens, in a chunk of their own before the end.
    pub(crate) include_usage: bool,
}

/// One event of the reply's stream. Servers leave out what does not apply, or write `null`.
#[derive(Debug, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) choices: Option<Vec<Choice>>,
    pub(crate) usage: Option<Usage>,
    pub(crate) error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) delta: Option<Delta>,
    pub(crate) finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Delta {
    pub(crate) content: Option<String>,
    /// What a reasoning model thinks before it answers: it takes its time as tokens, and is no part of the reply.
    #[serde(alias = "reasoning")]
    pub(crate) reasoning_content: Option<Value>,
}

/// Numbers of tokens, as the server counts them.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u32,
    #[serde(default)]
    pub(crate) completion_tokens: u32,
}

/// The answer to `/models`.
#[derive(Debug, Deserialize)]
pub(crate) struct Models {
    pub(crate) data: Vec<ModelEntry>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ModelEntry {
    pub(crate) id: String,
}

/// What one chunk means.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Text that continues the reply; `None` if the chunk holds no token.
    pub(crate) text: Option<String>,
    /// Whether the reply is complete with it.
    pub(crate) finished: bool,
    /// Numbers of tokens so far.
    pub(crate) usage: Option<Usage>,
}

impl Chunk {
    /// What it means.
    pub(crate) fn into_piece(self) -> Piece {
        let mut piece = Piece { usage: self.usage, ..Piece::default() };
        let Some(choice) = self.choices.and_then(|choices| choices.into_iter().next()) else { return piece };
        piece.finished = choice.finish_reason.is_some();
        if let Some(delta) = choice.delta {
            let thinks = delta.reasoning_content.is_some_and(|it| it.as_str().is_some_and(|text| !text.is_empty()));
            piece.text = delta.content.filter(|text| !text.is_empty()).or_else(|| thinks.then(String::new));
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(json: &str) -> Piece {
        serde_json::from_str::<Chunk>(json).unwrap().into_piece()
    }

    #[test]
    fn only_text_and_thoughts_are_tokens() {
        let of = |json| piece(json).text;
        assert_eq!(of(r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}"#).as_deref(), Some("Hi"));
        assert_eq!(of(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#), None);
        assert_eq!(of(r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#), None);
        assert_eq!(of(r#"{"choices":[{"delta":{"reasoning":"Hm"}}]}"#).as_deref(), Some(""));
        assert_eq!(of(r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#), None);
    }

    #[test]
    fn usage_and_the_end_are_seen() {
        let last = piece(r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5}}"#);
        assert!(last.finished && last.text.is_none());
        assert_eq!(last.usage.unwrap().prompt_tokens, 5);
    }
}
