//! The server as a model, and its link.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, Footprint, Model, Session, Size, find_text};
use ureq::Agent;
use ureq::http::Response;

use crate::http::{Base, Key, accepted, agent, cancellable, excerpt, unanswered};
use crate::message::Models;
use crate::session::RemoteSession;

/// How many prompts' exact lengths are remembered.
const KNOWN_MAX: usize = 64;

/// Bytes of a prompt per token, where the server has not said how long it is.
const BYTES_PER_TOKEN: usize = 4;

/// The longest list of models that is read [bytes].
const MODELS_MAX: u64 = 4 << 20;

/// Longer than any server takes, and short enough to reckon with.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// How a server is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// The environment variable that holds the API key; `None`: no key is sent.
    pub api_key_env: Option<String>,
    /// How long making a connection may take, more than 0, up to a day; as long again for finding the host's address.
    pub connect_timeout: Duration,
    /// How long the server may be silent, and how long a token may take, more than 0, up to a day. A server that sends signs of life
    /// but no token is given up at the latest when it falls silent after that time, so after twice this time.
    pub timeout: Duration,
    /// Most tokens of a reply, ≥ 1. A server that does not keep to it is cut off there.
    pub max_tokens: u32,
}

impl Default for RemoteOptions {
    /// No key, 5 s to connect, 60 s between tokens, 256 tokens.
    fn default() -> Self {
        Self {
            api_key_env: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_mins(1),
            max_tokens: 256,
        }
    }
}

impl RemoteOptions {
    /// Changes options by key, as a platform file gives them for a device: `api_key_env`, `connect_timeout_ms`, `timeout_ms`,
    /// `max_tokens`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) names a key that there is not, or a value that is no number.
    pub fn read(mut self, pairs: &[(String, String)]) -> Result<Self, Error> {
        for (key, value) in pairs {
            let number = || {
                value.parse::<u32>().map_err(|_| {
                    Error::invalid_input(format!("option {key} = `{value}`: a whole number would be right"))
                })
            };
            let duration = || number().map(|number| Duration::from_millis(number.into()));
            match key.as_str() {
                "api_key_env" => self.api_key_env = Some(value.clone()),
                "connect_timeout_ms" => self.connect_timeout = duration()?,
                "timeout_ms" => self.timeout = duration()?,
                "max_tokens" => self.max_tokens = number()?,
                _ => {
                    let known = "api_key_env, connect_timeout_ms, timeout_ms, max_tokens";
                    return Err(Error::invalid_input(format!(
                        "there is no option `{key}` for a server; there are: {known}"
                    )));
                }
            }
        }
        Ok(self)
    }
}

/// A language model behind an OpenAI-compatible server.
#[derive(Debug)]
pub struct Remote {
    server: Arc<Server>,
}

/// What all sessions of a model know.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base: Base,
    pub(crate) model: String,
    pub(crate) options: RemoteOptions,
    key: Option<Key>,
    /// Lengths of prompts that the server has stated, the latest last [tokens].
    known: Mutex<VecDeque<(Arc<str>, u32)>>,
}

/// What it takes to reach a server and come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The first request, with the making of the connection.
    pub first: Duration,
    /// The requests after it on the same connection, sorted. Each holds the time that the server takes to list its models.
    pub round_trips: Vec<Duration>,
    /// Names of the models that the server lists; none if it keeps no list.
    pub models: Vec<String>,
}

impl Link {
    /// Median of the round trips; with an even number of them the lower middle one.
    pub fn median(&self) -> Option<Duration> {
        self.round_trips.get(self.round_trips.len().saturating_sub(1) / 2).copied()
    }
}

impl Remote {
    /// A model on a server: base address (`http://host:port/v1`; `/v1` may be left out), the name by which the server knows it, options.
    /// Asks the server for its models once, to see that it is there. Whether it has this one shows with the first inference: not every
    /// server lists all that it answers to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound) if the server or the environment variable is not there,
    /// [`ErrorKind::Unsupported`](onbeat_backend::ErrorKind::Unsupported) for `https`,
    /// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if the address or an option is wrong.
    pub fn connect(base_url: &str, model: &str, options: RemoteOptions) -> Result<Self, Error> {
        let base = Base::parse(base_url)?;
        if options.max_tokens == 0 {
            return Err(Error::invalid_input(format!("{}: max_tokens is 0; it must be at least 1", base.as_str())));
        }
        for (name, timeout) in [("connect_timeout", options.connect_timeout), ("timeout", options.timeout)] {
            if timeout.is_zero() || timeout > TIMEOUT_MAX {
                let address = base.as_str();
                let right = "more than 0, up to a day, would be right";
                return Err(Error::invalid_input(format!("{address}: {name} is {timeout:?}; {right}")));
            }
        }
        let key = options.api_key_env.as_deref().map(read_key).transpose()?;
        let server = Server { base, model: model.to_owned(), options, key, known: Mutex::default() };
        let remote = Self { server: Arc::new(server) };
        remote.probe(0, &Control::new())?;
        Ok(remote)
    }

    /// Measures the link: one request that connects, then `count` round trips, each a `GET` of the list of models.
    ///
    /// # Errors
    /// If the server does not answer, or answers with an error other than that it keeps no list.
    pub fn probe(&self, count: usize, control: &Control) -> Result<Link, Error> {
        let agent = self.server.agent();
        let (models, first) = self.server.list(&agent, control)?;
        let mut round_trips = Vec::with_capacity(count);
        for _ in 0..count {
            round_trips.push(self.server.list(&agent, control)?.1);
        }
        round_trips.sort_unstable();
        Ok(Link { first, round_trips, models })
    }

    /// The server's base address.
    pub fn address(&self) -> &str {
        self.server.base.as_str()
    }

    /// The name by which the server knows the model.
    pub fn name(&self) -> &str {
        &self.server.model
    }
}

impl Model for Remote {
    /// The weights are the server's: nothing here.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    fn size(&self, input: &[Data]) -> Result<Size, Error> {
        Ok(Size { prompt: self.server.prompt_tokens(find_text(input)?), steps: 0 })
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(RemoteSession::new(Arc::clone(&self.server))))
    }
}

impl Server {
    /// What makes requests to this server.
    pub(crate) fn agent(&self) -> Agent {
        agent(self.options.connect_timeout, self.options.timeout)
    }

    /// The value of the `Authorization` header.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("Bearer {}", key.0))
    }

    /// Length of a prompt: as the server has stated it, else estimated.
    pub(crate) fn prompt_tokens(&self, prompt: &str) -> u32 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stated = known.iter().find(|(other, _)| **other == *prompt).map(|(_, tokens)| *tokens);
        stated.unwrap_or_else(|| {
            let estimate = prompt.len().div_ceil(BYTES_PER_TOKEN).max(1);
            u32::try_from(estimate).unwrap_or(u32::MAX)
        })
    }

    /// Notes what the server has stated.
    pub(crate) fn learn(&self, prompt: &Arc<str>, tokens: u32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| other != prompt);
        if known.len() == KNOWN_MAX {
            known.pop_front();
        }
        known.push_back((Arc::clone(prompt), tokens.max(1)));
    }

    /// The names of the server's models, and how long it took to get them.
    fn list(&self, agent: &Agent, control: &Control) -> Result<(Vec<String>, Duration), Error> {
        let url = self.base.join("models");
        cancellable(agent, control, || {
            let mut request = agent.get(&url);
            if let Some(authorization) = self.authorization() {
                request = request.header("Authorization", authorization);
            }
            let begin = Instant::now();
            let response = request.call().map_err(|error| unanswered(&url, &error))?;
            // Some servers answer requests for replies only.
            if matches!(response.status().as_u16(), 404 | 405 | 501) {
                // The rest of the answer is read, so that the connection can be used again.
                let _ = body(response, &url);
                return Ok((Vec::new(), begin.elapsed()));
            }
            let text = body(accepted(&url, response)?, &url)?;
            let duration = begin.elapsed();
            let models: Models = serde_json::from_slice(&text).map_err(|error| {
                let said = excerpt(&text);
                Error::device(format!("{url}: the answer is no list of models ({error}): {said}"))
            })?;
            Ok((models.data.into_iter().map(|entry| entry.id).collect(), duration))
        })
    }
}

fn body(response: Response<ureq::Body>, url: &str) -> Result<Vec<u8>, Error> {
    let mut body = response.into_body();
    body.with_config().limit(MODELS_MAX).read_to_vec().map_err(|error| unanswered(url, &error))
}

fn read_key(variable: &str) -> Result<Key, Error> {
    match std::env::var(variable) {
        // What cannot stand in a header would be sent as something else, or end the header early.
        Ok(key) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Key(key)),
        Ok(_) => Err(Error::invalid_input(format!("environment variable `{variable}`: an API key is printable ASCII"))),
        Err(error) => Err(Error::not_found(format!("environment variable `{variable}`, for the API key: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let base = Base::parse("http://localhost").unwrap();
        Server { base, model: String::new(), options: RemoteOptions::default(), key: None, known: Mutex::default() }
    }

    #[test]
    fn a_prompt_is_a_token_per_four_bytes_until_the_server_says_otherwise() {
        let server = server();
        assert_eq!(["", "a", "abcd", "abcde"].map(|text| server.prompt_tokens(text)), [1, 1, 1, 2]);
        server.learn(&"abcde".into(), 7);
        assert_eq!(server.prompt_tokens("abcde"), 7);
        for i in 0..KNOWN_MAX as u32 {
            server.learn(&format!("prompt {i}").into(), i);
        }
        assert_eq!(server.prompt_tokens("abcde"), 2);
        assert_eq!(server.known.lock().unwrap().len(), KNOWN_MAX);
    }

    #[test]
    fn options_are_read_by_name() {
        let read = |key: &str, value: &str| RemoteOptions::default().read(&[(key.to_owned(), value.to_owned())]);
        assert_eq!(RemoteOptions::default().read(&[]).unwrap(), RemoteOptions::default());
        assert_eq!(read("timeout_ms", "250").unwrap().timeout, Duration::from_millis(250));
        assert_eq!(
            read("max_tokens", "-1").unwrap_err().to_string(),
            "option max_tokens = `-1`: a whole number would be right"
        );
        assert!(read("tokens", "1").unwrap_err().to_string().contains("there are: api_key_env"));
    }

    #[test]
    fn the_median_is_one_of_the_round_trips() {
        let link = |count| Link {
            first: Duration::ZERO,
            round_trips: (1..=count).map(Duration::from_micros).collect(),
            models: Vec::new(),
        };
        assert_eq!(link(0).median(), None);
        assert_eq!(link(1).median(), Some(Duration::from_micros(1)));
        assert_eq!(link(4).median(), Some(Duration::from_micros(2)));
        assert_eq!(link(5).median(), Some(Duration::from_micros(3)));
    }
}
