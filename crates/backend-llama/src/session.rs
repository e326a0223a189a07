//! One inference: a prompt worked through in pieces, then a reply token by token.

use std::sync::Arc;

use onbeat_backend::{Control, Data, Error, Gate, Output, Sentences, Session, Step, find_text};

use crate::ffi::{Context, Decoded, Token};
use crate::model::Loaded;
use crate::saved::Saved;

/// A session: a context, and the inference in progress.
#[derive(Debug)]
pub(crate) struct LlamaSession {
    loaded: Arc<Loaded>,
    context: Context,
    inference: Option<Inference>,
}

#[derive(Debug)]
struct Inference {
    /// The prompt, then the reply.
    tokens: Vec<Token>,
    /// How many of them are the prompt.
    prompt: usize,
    /// How many of them steps have worked through. All but the last, once the prompt is done.
    done: usize,
    /// How many of them are in the context's cache: more than `done` after a step was cancelled half-way, fewer if the cache was lost.
    cached: usize,
    reply: Reply,
    finished: bool,
}

/// The reply's text.
#[derive(Debug, Default)]
struct Reply {
    /// All bytes so far. The last may be part of a character.
    bytes: Vec<u8>,
    /// How many of them `sentences` has seen.
    seen: usize,
    sentences: Sentences,
}

impl LlamaSession {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Result<Self, Error> {
        let context = loaded.context()?;
        Ok(Self { loaded, context, inference: None })
    }

    /// Computes the tokens up to `target`.
    fn advance(&mut self, target: usize, control: &Control) -> Result<(), Error> {
        let inference = self.inference.as_mut().expect("an inference was begun");
        let ubatch = self.loaded.options.ubatch as usize;
        while inference.cached < target {
            let end = target.min(inference.cached + ubatch);
            let done = self.context.decode(&inference.tokens[inference.cached..end], control);
            if matches!(done, Ok(Decoded::Done)) {
                inference.cached = end;
                continue;
            }
            // The cache is to hold what it held before. Caches that cannot go back are filled again from the beginning.
            if self.context.cached() != inference.cached {
                self.context.clear();
                inference.cached = 0;
            }
            return done.and(Err(Error::cancelled()));
        }
        Ok(())
    }
}

impl Session for LlamaSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        let tokens = self.loaded.prompt(find_text(input)?)?;
        let (prompt, most) = (tokens.len(), self.context.length());
        if prompt == 0 || prompt >= most {
            let what = format!("the prompt has {prompt} tokens; 1 to {} would be right for this context", most - 1);
            return Err(Error::invalid_input(what));
        }
        self.context.clear();
        self.inference =
            Some(Inference { tokens, prompt, done: 0, cached: 0, reply: Reply::default(), finished: false });
        Ok(())
    }

    fn step(&mut self, units: u32, control: &Control) -> Result<Step, Error> {
        let Some(inference) = &self.inference else {
            return Err(Error::invalid_input("no inference was begun"));
        };
        if inference.finished {
            return Ok(Step { done: true, ..Step::default() });
        }
        let begin = inference.done;
        let target = inference.tokens.len().min(begin.saturating_add(units.max(1) as usize));
        self.advance(target, control)?;
        let inference = self.inference.as_mut().expect("as before");
        let mut sentences = Vec::new();
        if target == inference.tokens.len() {
            let token = self.context.most_probable()?;
            let replied = inference.tokens.len() - inference.prompt + 1;
            if self.loaded.weights.is_end(token) {
                inference.finished = true;
            } else {
                inference.tokens.push(token);
                sentences = inference.reply.push(&self.loaded.weights.piece(token));
                let is_long = replied >= self.loaded.options.max_tokens as usize;
                inference.finished = is_long || inference.tokens.len() >= self.context.length();
            }
            if inference.finished {
                sentences.extend(inference.reply.rest());
            }
        }
        inference.done = target;
        let parts = sentences.into_iter().map(|sentence| Data::Text(sentence.into())).collect();
        Ok(Step { units: (target - begin) as u32, done: inference.finished, parts })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        match self.inference.take() {
            Some(inference) if inference.finished => {
                let text = String::from_utf8_lossy(&inference.reply.bytes).into_owned();
                Ok(Output { data: vec![Data::Text(text.into())], gate: Gate::Unknown })
            }
            unfinished => {
                self.inference = unfinished;
                Err(Error::invalid_input("the inference is not finished"))
            }
        }
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        let Some(inference) = &self.inference else {
            return Err(Error::invalid_input("no inference was begun"));
        };
        let saved = Saved {
            fingerprint: self.loaded.fingerprint(),
            tokens: inference.tokens.clone(),
            prompt: inference.prompt,
            done: inference.done,
            cached: inference.cached,
            bytes: inference.reply.bytes.clone(),
            finished: inference.finished,
            cache: self.context.save()?,
        };
        Ok(saved.write())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let saved = Saved::read(saved)?;
        if saved.fingerprint != self.loaded.fingerprint() {
            return Err(Error::invalid_input(format!(
                "what was saved belongs to another model than {}",
                self.loaded.name
            )));
        }
        if saved.tokens.len() >= self.context.length() && !saved.finished {
            let (tokens, most) = (saved.tokens.len(), self.context.length());
            return Err(Error::invalid_input(format!(
                "the inference has {tokens} tokens already; this context holds {most}"
            )));
        }
        self.inference = None;
        self.context.restore(&saved.cache)?;
        if self.context.cached() != saved.cached {
            self.context.clear();
            return Err(Error::device("llama.cpp has taken over another part of the cache than was saved"));
        }
        let mut reply = Reply::default();
        // The sentences that are complete were given by the session that was saved.
        reply.push(&saved.bytes);
        let Saved { tokens, prompt, done, cached, finished, .. } = saved;
        self.inference = Some(Inference { tokens, prompt, done, cached, reply, finished });
        Ok(())
    }

    /// The cache, for the whole context, of a model whose cache grows with each token; of others, their state as it would be saved.
    fn memory(&self) -> u64 {
        match self.loaded.cache_bytes(self.context.length()) {
            0 => self.context.saved_size() as u64,
            bytes => bytes,
        }
    }
}

impl Reply {
    /// Adds bytes. Returns the sentences that are complete with them.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend(bytes);
        let mut text = String::new();
        loop {
            let new = &self.bytes[self.seen..];
            let (valid, invalid) = match std::str::from_utf8(new) {
                Ok(_) => (new.len(), None),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.push_str(&String::from_utf8_lossy(&new[..valid]));
            self.seen += valid;
            // What cannot become a character is shown as such; the beginning of one waits for its end.
            let Some(invalid) = invalid else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            self.seen += invalid;
        }
        self.sentences.push(&text)
    }

    /// The last sentence.
    fn rest(&mut self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.bytes[self.seen..]).into_owned();
        self.seen = self.bytes.len();
        let mut sentences = self.sentences.push(&text);
        sentences.extend(self.sentences.rest());
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_may_be_split_between_tokens() {
        let mut reply = Reply::default();
        let [a, b] = *"é".as_bytes() else { panic!("two bytes") };
        assert!(reply.push(&[b'H', a]).is_empty());
        assert!(reply.push(&[b, b'.']).is_empty());
        assert_eq!(reply.push(b" No"), ["Hé."]);
        assert_eq!(reply.rest(), ["No"]);
        assert_eq!(reply.push(&[0xff, b'x', b'\n', a]), ["\u{fffd}x"]);
        assert_eq!(reply.rest(), ["\u{fffd}"]);
    }
}
