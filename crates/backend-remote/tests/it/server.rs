//! A small HTTP server that says what a test tells it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// A request as it arrived.
pub(crate) struct Request {
    /// Method and path: `GET /v1/models`.
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
    /// How many requests for a reply there were before it.
    pub(crate) number: usize,
}

/// What a test does with a request for a reply.
pub(crate) type Answer = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

pub(crate) struct Server {
    pub(crate) address: String,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// A server that lists one model, `tiny`, and leaves requests for replies to `answer`.
    pub(crate) fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let answer: Arc<Answer> = Arc::new(answer);
        let (count, number) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
                thread::spawn(move || serve(stream.unwrap(), &*answer, &number));
            }
        });
        Self { address, connections }
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, number: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(mut request) = read_request(&mut reader) {
        if request.line.starts_with("GET") {
            assert_eq!(request.line, "GET /v1/models");
            whole(&mut stream, "200 OK", "application/json", r#"{"object":"list","data":[{"id":"tiny"}]}"#);
        } else {
            request.number = number.fetch_add(1, Ordering::SeqCst);
            answer(&request, &mut stream);
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // The end, or a connection that the client has cut.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let length = lines.iter().find_map(|header| header.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Some(Request { line, headers: lines, body: String::from_utf8(body).unwrap(), number: 0 })
}

/// Sends a whole answer. Clients may be gone already.
pub(crate) fn whole(stream: &mut TcpStream, status: &str, kind: &str, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
}

/// Begins a stream of events.
pub(crate) fn begin(stream: &mut TcpStream) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
}

/// Sends bytes of it.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = write!(stream, "{:x}\r\n", bytes.len());
    let _ = stream.write_all(bytes);
    let _ = stream.write_all(b"\r\n");
}

/// Sends a token.
pub(crate) fn token(stream: &mut TcpStream, text: &str) {
    send(stream, event(text).as_bytes());
}

/// Ends the stream as these servers do, with or without usage.
pub(crate) fn end(stream: &mut TcpStream, usage: Option<(u32, u32)>) {
    send(stream, b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    if let Some((prompt, completion)) = usage {
        let usage = format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}"#);
        send(stream, format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n").as_bytes());
    }
    send(stream, b"data: [DONE]\n\n");
    let _ = stream.write_all(b"0\r\n\r\n");
}

/// The event of a token.
pub(crate) fn event(text: &str) -> String {
    let content = serde_json::to_string(text).unwrap();
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{content}}},\"finish_reason\":null}}]}}\n\n")
}
