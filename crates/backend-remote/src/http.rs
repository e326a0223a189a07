//! Requests, and what it means when they fail.

use std::fmt;
use std::io::{ErrorKind as IoKind, Read};
use std::time::Duration;

use onbeat_backend::{Control, Error, ErrorKind};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Timeout};

/// How much of an answer an error message quotes [bytes].
const EXCERPT_MAX: usize = 300;

/// The base address of a server, `http://host:port/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

impl Base {
    /// Reads an address. A bare `http://host:port` gets `/v1` added, as these servers have it.
    pub(crate) fn parse(address: &str) -> Result<Self, Error> {
        let example = "an example of what would be right is `http://127.0.0.1:8080/v1`";
        let wrong = |what: &str| Error::invalid_input(format!("server address `{address}`: {what}; {example}"));
        let uri: Uri = address.trim().parse().map_err(|error| wrong(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(Error::unsupported(format!(
                    "server address `{address}`: this build has no TLS; reach the server through a local proxy or tunnel that speaks `http`"
                )));
            }
            _ => return Err(wrong("it must begin with `http://`")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(
                "names and passwords do not belong into it; an API key comes from an environment variable",
            ));
        }
        if uri.query().is_some() {
            return Err(wrong("it must not contain `?`"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = if path.is_empty() { "/v1" } else { path };
        Ok(Self(format!("http://{authority}{path}")))
    }

    /// The address of something below it.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An API key. It is not shown anywhere.
pub(crate) struct Key(pub(crate) String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What makes requests: connections of its own, so that cancelling ends nobody else's. Proxies of the environment are left out, since the
/// link is to be the one that was measured; so are redirects, which would hand the API key on.
pub(crate) fn agent(connect_timeout: Duration, timeout: Duration) -> Agent {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_resolve(Some(connect_timeout))
        .timeout_connect(Some(connect_timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .build()
        .new_agent()
}

/// Does something that waits for the server. If `control` is cancelled meanwhile, the agent's connections are closed, and neither they
/// nor the agent are of further use; what was done by then counts nevertheless.
pub(crate) fn cancellable<T>(
    agent: &Agent,
    control: &Control,
    act: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if control.is_cancelled() {
        return Err(Error::cancelled());
    }
    let done = {
        let agent = agent.clone();
        let _hook = control.on_cancel(move || agent.clone().shutdown());
        act()
    };
    // A connection that was closed looks like a failure of the server.
    done.map_err(|error| if control.is_cancelled() { Error::cancelled() } else { error })
}

/// An error for a request that got no answer.
pub(crate) fn unanswered(url: &str, error: &ureq::Error) -> Error {
    let kind = match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => ErrorKind::NotFound,
        ureq::Error::Io(error) => match error.kind() {
            IoKind::ConnectionRefused
            | IoKind::HostUnreachable
            | IoKind::NetworkUnreachable
            | IoKind::AddrNotAvailable => ErrorKind::NotFound,
            _ => ErrorKind::Device,
        },
        _ => ErrorKind::Device,
    };
    let hint = if kind == ErrorKind::NotFound { "; start the server, or correct its address" } else { "" };
    Error::new(kind, format!("{url}: no answer: {error}{hint}"))
}

/// The answer, if it says that all is well; else an error that quotes it.
pub(crate) fn accepted(url: &str, response: Response<Body>) -> Result<Response<Body>, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let said = read_excerpt(response);
    let kind = match status.as_u16() {
        404 => ErrorKind::NotFound,
        // What the server refuses because of what it says, a prompt that is too long above all: no fault of the device.
        400 | 413 | 422 => ErrorKind::InvalidInput,
        _ => ErrorKind::Device,
    };
    let hint = match status.as_u16() {
        401 | 403 => "; set `api_key_env` to the environment variable that holds the key",
        300..=399 => "; redirects are not followed: give the address that it leads to",
        _ => "",
    };
    Err(Error::new(kind, format!("{url}: the server answered {status}: {said}{hint}")))
}

/// The beginning of an answer's body.
pub(crate) fn read_excerpt(response: Response<Body>) -> String {
    let mut bytes = Vec::new();
    let limit = EXCERPT_MAX as u64 + 1;
    // What cannot be read of a body that only serves a message is no further error.
    let _ = response.into_body().into_reader().take(limit).read_to_end(&mut bytes);
    excerpt(&bytes)
}

/// The beginning of what was received, as one line.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_MAX)]);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    let more = if bytes.len() > EXCERPT_MAX { "…" } else { "" };
    if line.is_empty() { "(nothing)".to_owned() } else { format!("`{line}{more}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_completed_or_refused() {
        let base = |address| Base::parse(address).map(|base| base.0);
        assert_eq!(base("http://localhost:8080").unwrap(), "http://localhost:8080/v1");
        assert_eq!(base("http://localhost:8080/v1/").unwrap(), "http://localhost:8080/v1");
        assert_eq!(base("http://10.0.0.2/api/v1").unwrap(), "http://10.0.0.2/api/v1");
        assert_eq!(base("https://example.org/v1").unwrap_err().kind(), ErrorKind::Unsupported);
        for wrong in ["localhost:8080", "ftp://a/", "http://", "http://me:secret@a/", "http://a/v1?x=1", "http://a b"] {
            assert_eq!(base(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }

    #[test]
    fn excerpts_are_short_and_one_line() {
        assert_eq!(excerpt(b"a\r\nb"), "`a  b`");
        assert_eq!(excerpt(b"\n"), "(nothing)");
        assert!(excerpt(&[0xff; 4000]).len() < 4 * EXCERPT_MAX);
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Key("secret".to_owned())), "Key(…)");
    }
}
