//! One inference: a request, and the stream of its reply.

use std::sync::Arc;
use std::time::Instant;

use onbeat_backend::{Control, Data, Error, Gate, Output, Sentences, Session, Step, find_text};
use ureq::{Agent, BodyReader};

use crate::http::{accepted, cancellable, excerpt, read_excerpt, unanswered};
use crate::message::{Chunk, Message, Piece, Request, StreamOptions, Usage};
use crate::remote::Server;
use crate::stream::{Events, Problem};

/// What the stream ends with.
const DONE: &str = "[DONE]";

/// A session: its own connection, and the inference in progress.
#[derive(Debug)]
pub(crate) struct RemoteSession {
    server: Arc<Server>,
    agent: Agent,
    inference: Option<Inference>,
}

#[derive(Debug)]
struct Inference {
    prompt: Arc<str>,
    text: String,
    sentences: Sentences,
    /// The reply as it arrives; `None` before the request is sent, and after the connection was closed.
    events: Option<Events<BodyReader<'static>>>,
    /// What `events` has given so far: bytes of `text`, and tokens. Less than there were after the request had to be sent again.
    heard_bytes: usize,
    heard_tokens: u32,
    /// Output tokens, counted by pieces of the stream.
    tokens: u32,
    /// Output tokens that steps have told of; the first one comes with the prompt.
    told: Option<u32>,
    usage: Option<Usage>,
    finished: bool,
}

impl RemoteSession {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let agent = server.agent();
        Self { server, agent, inference: None }
    }
}

impl Session for RemoteSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        self.inference = Some(Inference::new(Arc::clone(find_text(input)?)));
        Ok(())
    }

    fn step(&mut self, _units: u32, control: &Control) -> Result<Step, Error> {
        let Some(inference) = &mut self.inference else {
            return Err(Error::invalid_input("no inference was begun"));
        };
        if inference.finished {
            return Ok(Step { done: true, ..Step::default() });
        }
        let done = cancellable(&self.agent, control, || inference.step(&self.server, &self.agent));
        if done.is_err() || control.is_cancelled() {
            inference.events = None;
            self.agent = self.server.agent();
        }
        done
    }

    fn finish(&mut self) -> Result<Output, Error> {
        match self.inference.take() {
            Some(inference) if inference.finished => {
                Ok(Output { data: vec![Data::Text(inference.text.into())], gate: Gate::Unknown })
            }
            unfinished => {
                self.inference = unfinished;
                Err(Error::invalid_input("the inference is not finished"))
            }
        }
    }

    /// The texts; the cache is the server's.
    fn memory(&self) -> u64 {
        self.inference.as_ref().map_or(0, |inference| (inference.prompt.len() + inference.text.len()) as u64)
    }
}

impl Inference {
    fn new(prompt: Arc<str>) -> Self {
        Self {
            prompt,
            text: String::new(),
            sentences: Sentences::default(),
            events: None,
            heard_bytes: 0,
            heard_tokens: 0,
            tokens: 0,
            told: None,
            usage: None,
            finished: false,
        }
    }

    /// Waits for the next token, or for the end. An error leaves everything as if there had been no step, but for the stream.
    fn step(&mut self, server: &Server, agent: &Agent) -> Result<Step, Error> {
        let url = server.base.join("chat/completions");
        let deadline = Instant::now() + server.options.timeout;
        if self.events.is_none() {
            self.events = Some(send(server, agent, &self.prompt, &url)?);
            (self.heard_bytes, self.heard_tokens) = (0, 0);
        }
        let mut sentences = Vec::new();
        loop {
            let piece = self.receive(&url, deadline)?;
            self.usage = piece.usage.or(self.usage);
            let new = piece.text.map(|text| self.new_part(&text, &url)).transpose()?.flatten();
            if new.is_none() && !piece.finished {
                continue;
            }
            if piece.finished && self.heard_bytes < self.text.len() && new.is_none() {
                return Err(another_reply(&url));
            }
            self.finished = piece.finished;
            if let Some(text) = new {
                if self.tokens < server.options.max_tokens {
                    self.tokens += 1;
                    self.text.push_str(&text);
                    (self.heard_bytes, self.heard_tokens) = (self.text.len(), self.tokens);
                    sentences = self.sentences.push(&text);
                } else {
                    // It was asked for fewer. Closing the connection ends its work.
                    self.events = None;
                    self.finished = true;
                }
            }
            break;
        }
        if self.finished {
            self.read_to_end(deadline);
            sentences.extend(self.sentences.rest());
        }
        let parts = sentences.into_iter().map(|sentence| Data::Text(sentence.into())).collect();
        Ok(Step { units: self.account(server), done: self.finished, parts })
    }

    /// What the next event means.
    fn receive(&mut self, url: &str, deadline: Instant) -> Result<Piece, Error> {
        let tokens = self.heard_tokens;
        let failed = |what: String| Error::device(format!("{url}: after {tokens} tokens {what}"));
        let events = self.events.as_mut().expect("a request is opened before it is read");
        let data = events.next(deadline).map_err(|problem| {
            failed(match problem {
                Problem::Read(error) => format!("the connection failed: {error}"),
                Problem::Late => "no token came in time".to_owned(),
                Problem::TooLong => "the server sent a line without an end".to_owned(),
                Problem::NoText(line) => format!("the server sent what is no UTF-8 text: {}", excerpt(&line)),
            })
        })?;
        let Some(data) = data else {
            let last = match events.stray() {
                "" => String::new(),
                stray => format!("; it sent {}", excerpt(stray.as_bytes())),
            };
            return Err(failed(format!("the server closed the connection before the reply was complete{last}")));
        };
        if data.trim() == DONE {
            return Ok(Piece { finished: true, ..Piece::default() });
        }
        let chunk: Chunk = serde_json::from_str(&data).map_err(|error| {
            let said = excerpt(data.as_bytes());
            failed(format!("the server sent what is no chunk of a reply ({error}): {said}"))
        })?;
        match &chunk.error {
            Some(error) => Err(failed(format!("the server failed: {}", excerpt(error.to_string().as_bytes())))),
            None => Ok(chunk.into_piece()),
        }
    }

    /// What a token adds to the reply; `None` if it was said before the request had to be sent again.
    fn new_part(&mut self, text: &str, url: &str) -> Result<Option<String>, Error> {
        let old = &self.text[self.heard_bytes..];
        let common = old.len().min(text.len());
        if old.as_bytes()[..common] != text.as_bytes()[..common] {
            return Err(another_reply(url));
        }
        self.heard_bytes += common;
        self.heard_tokens += 1;
        let new = &text[common..];
        // A thought has no text; it is new if there were not as many tokens yet.
        let is_new = !new.is_empty() || (text.is_empty() && old.is_empty() && self.heard_tokens > self.tokens);
        Ok(is_new.then(|| new.to_owned()))
    }

    /// Reads what follows the reply: usage, and the end, after which the connection can be used again. The reply is complete, so
    /// nothing that goes wrong here matters.
    fn read_to_end(&mut self, deadline: Instant) {
        let Some(mut events) = self.events.take() else { return };
        while let Ok(Some(data)) = events.next(deadline) {
            if let Ok(chunk) = serde_json::from_str::<Chunk>(&data) {
                self.usage = chunk.usage.or(self.usage);
            }
        }
    }

    /// Units of this step: the prompt, or the output tokens that no step has told of yet. A server's own count goes before that of
    /// the pieces, of which one may hold several tokens.
    fn account(&mut self, server: &Server) -> u32 {
        let tokens = self.usage.map_or(0, |usage| usage.completion_tokens).max(self.tokens);
        if self.finished
            && let Some(usage) = self.usage
        {
            server.learn(&self.prompt, usage.prompt_tokens);
        }
        match self.told.replace(tokens) {
            Some(told) => tokens.saturating_sub(told),
            None => self.usage.map_or_else(|| server.prompt_tokens(&self.prompt), |usage| usage.prompt_tokens),
        }
    }
}

/// Sends the request. Returns when the server begins to answer.
fn send(server: &Server, agent: &Agent, prompt: &str, url: &str) -> Result<Events<BodyReader<'static>>, Error> {
    let mut request = agent.post(url).header("Accept", "text/event-stream");
    if let Some(authorization) = server.authorization() {
        request = request.header("Authorization", authorization);
    }
    let response = request.send_json(Request {
        model: &server.model,
        messages: [Message { role: "user", content: prompt }],
        max_tokens: server.options.max_tokens,
        temperature: 0.0,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
    });
    let response = accepted(url, response.map_err(|error| unanswered(url, &error))?)?;
    match response.body().mime_type() {
        None | Some("text/event-stream") => Ok(Events::new(response.into_body().into_reader())),
        Some(other) => {
            let what = format!("{url}: the server answered with `{other}`, not with `text/event-stream`");
            Err(Error::device(format!("{what}: {}", read_excerpt(response))))
        }
    }
}

fn another_reply(url: &str) -> Error {
    Error::device(format!("{url}: asked again after an interruption, the server gave another reply than before"))
}
