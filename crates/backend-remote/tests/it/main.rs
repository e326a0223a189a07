//! Talks to a small server in the same process, over real connections.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod server;

use std::net::{Shutdown, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use onbeat_backend::{Control, Data, Error, ErrorKind, Model, Session, Size, Step};
use onbeat_backend_remote::{Remote, RemoteOptions};
use server::{Server, begin, end, event, send, token, whole};

/// Long enough for any machine: nothing waits this long unless a test fails.
const LONG: Duration = Duration::from_mins(1);

fn connect(server: &Server, options: RemoteOptions) -> Remote {
    Remote::connect(&server.address, "tiny", options).unwrap()
}

fn prompt(text: &str) -> [Data; 1] {
    [Data::Text(text.into())]
}

/// Runs an inference to its end. Returns the reply, the units of each step, and the parts.
fn run(session: &mut dyn Session) -> Result<(String, Vec<u32>, Vec<String>), Error> {
    let (mut units, mut parts) = (Vec::new(), Vec::new());
    loop {
        let step = session.step(1, &Control::new())?;
        units.push(step.units);
        parts.extend(step.parts.iter().map(text));
        if step.done {
            break;
        }
    }
    let output = session.finish()?;
    Ok((text(&output.data[0]), units, parts))
}

fn text(data: &Data) -> String {
    if let Data::Text(text) = data { text.to_string() } else { panic!("{data:?} is no text") }
}

/// Does a step in another thread, which is left behind if it hangs.
fn step_elsewhere(
    mut session: Box<dyn Session>,
    control: Control,
) -> mpsc::Receiver<(Box<dyn Session>, Result<Step, Error>)> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let result = session.step(1, &control);
        sender.send((session, result))
    });
    receiver
}

/// The error that a reply ends with.
fn failure(answer: impl Fn(&server::Request, &mut std::net::TcpStream) + Send + Sync + 'static) -> Error {
    let server = Server::start(answer);
    let mut session = connect(&server, RemoteOptions::default()).open().unwrap();
    session.begin(&prompt("Hello")).unwrap();
    let error = run(&mut *session).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}/chat/completions: ", server.address)), "{error}");
    assert!(error.to_string().len() < 2000, "an error of {} bytes", error.to_string().len());
    error
}

#[test]
fn a_reply_arrives_token_by_token_and_sentence_by_sentence() {
    let (sender, requests) = mpsc::channel();
    let server = Server::start(move |request, stream| {
        let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        sender.send((request.line.clone(), body)).unwrap();
        begin(stream);
        send(stream, b": the prompt is being worked on\n\n");
        send(stream, b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n");
        // The two bytes of `ä` travel in two pieces.
        let ja = event("J\u{e4}.");
        let middle = ja.find('\u{e4}').unwrap() + 1;
        send(stream, &ja.as_bytes()[..middle]);
        send(stream, &ja.as_bytes()[middle..]);
        token(stream, " It is");
        token(stream, " late.");
        end(stream, Some((11, 5)));
    });
    let remote = connect(&server, RemoteOptions { max_tokens: 9, ..RemoteOptions::default() });
    assert_eq!(remote.size(&prompt("Is it late?")).unwrap(), Size { prompt: 3, steps: 0 });
    let mut session = remote.open().unwrap();
    session.begin(&prompt("Is it late?")).unwrap();
    assert_eq!(session.finish().unwrap_err().kind(), ErrorKind::InvalidInput);
    let (reply, units, parts) = run(&mut *session).unwrap();
    assert_eq!(reply, "Jä. It is late.");
    // The prompt as estimated, with the first token; two more; the server counts five, two more than came as pieces.
    assert_eq!(units, [3, 1, 1, 2]);
    assert_eq!(parts, ["Jä.", "It is late."]);

    let (line, body) = requests.recv().unwrap();
    assert_eq!(line, "POST /v1/chat/completions");
    assert_eq!(body["model"], "tiny");
    assert_eq!(body["stream"], true);
    assert_eq!(body["max_tokens"], 9);
    assert_eq!(body["messages"], serde_json::json!([{ "role": "user", "content": "Is it late?" }]));

    // The server has said how long the prompt is; and the session's connection is used again.
    assert_eq!(remote.size(&prompt("Is it late?")).unwrap().prompt, 11);
    let connections = server.connections();
    session.begin(&prompt("Is it late?")).unwrap();
    assert_eq!(run(&mut *session).unwrap().1, [11, 1, 1, 2]);
    assert_eq!(server.connections(), connections);
}

#[test]
fn cancelling_closes_the_connection_and_the_step_can_be_done_again() {
    let (waiting, is_waiting) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let server = Server::start(move |request, stream| {
        // The first request gets no answer, the second one token and then silence, the third all.
        if request.number > 0 {
            begin(stream);
            token(stream, "One.");
        }
        if request.number == 2 {
            token(stream, " Two.");
            return end(stream, None);
        }
        waiting.send(()).unwrap();
        let mut byte = [0];
        let end = stream.peek(&mut byte);
        closed.send(matches!(end, Ok(0) | Err(_))).unwrap();
    });
    // Without a limit of its own, only the cancellation can end a step.
    let remote = connect(&server, RemoteOptions { timeout: Duration::from_hours(1), ..RemoteOptions::default() });
    let mut session = remote.open().unwrap();
    session.begin(&prompt("Count")).unwrap();
    for tokens_before in [0, 1] {
        for _ in 0..tokens_before {
            session.step(1, &Control::new()).unwrap();
        }
        let control = Control::new();
        let stepped = step_elsewhere(session, control.clone());
        is_waiting.recv_timeout(LONG).unwrap();
        control.cancel();
        let result;
        (session, result) = stepped.recv_timeout(LONG).unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(is_closed.recv_timeout(LONG).unwrap(), "the server got something more");
    }
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(session.step(1, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);

    let (reply, units, parts) = run(&mut *session).unwrap();
    assert_eq!(reply, "One. Two.");
    assert_eq!(units, [1, 0]);
    assert_eq!(parts, ["One.", "Two."]);
}

#[test]
fn another_reply_after_an_interruption_is_an_error() {
    let server = Server::start(|request, stream| {
        begin(stream);
        token(stream, if request.number == 0 { "One" } else { "Two" });
        end(stream, None);
    });
    let mut session = connect(&server, RemoteOptions::default()).open().unwrap();
    session.begin(&prompt("Count")).unwrap();
    session.step(1, &Control::new()).unwrap();
    let cancelled = Control::new();
    cancelled.cancel();
    session.step(1, &cancelled).unwrap_err();
    let error = session.step(1, &Control::new()).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.to_string().contains("another reply"), "{error}");
}

#[test]
fn a_broken_stream_is_an_error_that_says_how_far_it_got() {
    let error = failure(|_, stream| {
        begin(stream);
        token(stream, "One");
        stream.shutdown(Shutdown::Both).unwrap();
    });
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("after 1 tokens"), "{error}");

    let error = failure(|_, stream| {
        begin(stream);
        send(stream, b"<html>Bad gateway</html>\n\n");
        send(stream, b"");
    });
    assert!(error.to_string().contains("`<html>Bad gateway</html>`"), "{error}");

    let error = failure(|_, stream| {
        begin(stream);
        send(stream, format!("data: {{\"choices\":{}\n\n", "x".repeat(100_000)).as_bytes());
    });
    assert!(error.to_string().contains("no chunk of a reply"), "{error}");

    let error = failure(|_, stream| {
        begin(stream);
        send(stream, b"data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n");
    });
    assert!(error.to_string().contains("out of memory"), "{error}");

    let error = failure(|_, stream| whole(stream, "200 OK", "application/json", "{\"choices\":[]}"));
    assert!(error.to_string().contains("application/json"), "{error}");
}

#[test]
fn an_error_status_is_quoted() {
    let of = |status: &'static str, body: String| failure(move |_, stream| whole(stream, status, "text/plain", &body));
    let error = of("500 Internal Server Error", format!("worker died{}", "!".repeat(100_000)));
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().contains("500 Internal Server Error: `worker died!!!"), "{error}");
    assert_eq!(of("404 Not Found", "no model `tiny`".to_owned()).kind(), ErrorKind::NotFound);
    assert_eq!(of("400 Bad Request", "the prompt is too long".to_owned()).kind(), ErrorKind::InvalidInput);
    let error = of("401 Unauthorized", String::new());
    assert!(error.to_string().contains("api_key_env"), "{error}");
}

#[test]
fn a_server_that_falls_silent_is_no_hang() {
    let server = Server::start(|_, stream| {
        begin(stream);
        // Until the client has given up.
        let _ = stream.peek(&mut [0]);
    });
    let options = RemoteOptions { timeout: Duration::from_millis(20), ..RemoteOptions::default() };
    // Even the list of models may come too late on a busy machine; that is the same error.
    let error = Remote::connect(&server.address, "tiny", options).and_then(|remote| {
        let mut session = remote.open()?;
        session.begin(&prompt("Hello"))?;
        run(&mut *session).map(|_| ())
    });
    let error = error.unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.to_string().contains("timeout"), "{error}");
}

#[test]
fn a_server_that_knows_no_end_is_cut_off() {
    let (closed, is_closed) = mpsc::channel();
    let server = Server::start(move |_, stream| {
        begin(stream);
        for _ in 0..5 {
            token(stream, "na ");
        }
        let end = stream.peek(&mut [0]);
        closed.send(matches!(end, Ok(0) | Err(_))).unwrap();
    });
    let mut session = connect(&server, RemoteOptions { max_tokens: 3, ..RemoteOptions::default() }).open().unwrap();
    session.begin(&prompt("Sing")).unwrap();
    let (reply, units, _) = run(&mut *session).unwrap();
    assert_eq!((reply.as_str(), units), ("na na na ", vec![1, 1, 1, 0]));
    assert!(is_closed.recv_timeout(LONG).unwrap());
}

#[test]
fn the_key_comes_from_the_environment() {
    let server = Server::start(|request, stream| {
        let key = request.headers.iter().find(|header| header.to_lowercase().starts_with("authorization:"));
        begin(stream);
        token(stream, key.map_or("none", String::as_str));
        end(stream, None);
    });
    // Tests cannot set variables without `unsafe`; any that is set will do.
    let usable = |value: &str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let (name, value) = std::env::vars().find(|(_, value)| usable(value)).unwrap();
    let options = |name: &str| RemoteOptions { api_key_env: Some(name.to_owned()), ..RemoteOptions::default() };
    let mut session = connect(&server, options(&name)).open().unwrap();
    session.begin(&prompt("Key?")).unwrap();
    let (reply, _, _) = run(&mut *session).unwrap();
    assert_eq!(reply.split_once(": ").unwrap().1, format!("Bearer {value}"));
    let missing = Remote::connect(&server.address, "tiny", options("ONBEAT_NO_SUCH_VARIABLE")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn the_link_is_measured_over_one_connection() {
    let server = Server::start(|_, _| {});
    let remote = connect(&server, RemoteOptions::default());
    let before = server.connections();
    let link = remote.probe(4, &Control::new()).unwrap();
    assert_eq!((link.round_trips.len(), link.models), (4, vec!["tiny".to_owned()]));
    assert_eq!(server.connections(), before + 1);
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(remote.probe(4, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn a_server_that_is_not_there_is_not_found() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Remote::connect(&format!("http://{address}"), "tiny", RemoteOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with(&format!("http://{address}/v1/models: no answer: ")), "{error}");
    let options = RemoteOptions { max_tokens: 0, ..RemoteOptions::default() };
    assert_eq!(Remote::connect("http://localhost", "tiny", options).unwrap_err().kind(), ErrorKind::InvalidInput);
}
