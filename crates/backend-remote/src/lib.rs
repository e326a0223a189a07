//! A language model behind an OpenAI-compatible server: llama.cpp's `llama-server`, vLLM, Ollama and others, on this machine or across a
//! network. It is a processor with a link: what is offloaded costs a round trip ([`Remote::probe`]) and the server's own time.
//!
//! [`Remote::connect`] makes a [`Model`](onbeat_backend::Model) of a base address and a model's name. One inference is one request to
//! `/v1/chat/completions` with `stream: true`:
//!
//! * [`begin`](onbeat_backend::Session::begin) notes the prompt. The first step sends it, so that connecting takes place on the
//!   processor's own thread and can be cancelled.
//! * The first [`step`](onbeat_backend::Session::step) waits for the first token: a server's prefill cannot be cut, so `units` plays
//!   no role. Each later one waits for the next token. A step that only learns that the reply is complete advances by no tokens.
//! * Cancelling closes the connection at once, which makes these servers stop generating; only a TCP connection that is being made is
//!   waited for, at most [`RemoteOptions::connect_timeout`]. A step done again after that sends the request anew and reads over what
//!   it had received; a server that now says something else is an error.
//! * Every wait has its limit ([`RemoteOptions::timeout`]): a server that falls silent is an error, not a hang.
//!
//! Requests ask for temperature 0, so that the same prompt gives the same reply as far as the server can.
//!
//! # Tokens
//! A server does not say how long a prompt is before it has worked on it. Until it has, a prompt is taken to be one token per four
//! bytes, rounded up; once the server has stated its usage for this very prompt, the exact number counts. Output is counted by pieces
//! of the stream, and corrected by the usage at its end.
//!
//! # No encryption
//! Only `http`: the usual TLS libraries bring C along. A server that speaks `https` is reached through a local proxy or a tunnel
//! (`stunnel`, `caddy`, `ssh -L`).

mod http;
mod message;
mod remote;
mod session;
mod stream;

pub use remote::{Link, Remote, RemoteOptions};
