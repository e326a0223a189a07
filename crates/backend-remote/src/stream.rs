//! Server-sent events, as far as these servers use them: `data` fields, comments as signs of life, the rest ignored.
//!
//! Format: WHATWG HTML Standard, section "Server-sent events", "Parsing an event stream".

use std::fmt;
use std::io::Read;
use std::time::Instant;

/// The longest line that is read [bytes]. A chunk of a reply is a few hundred.
const LINE_MAX: usize = 1 << 20;

/// How much is read at once at most [bytes].
const READ_SIZE: usize = 4096;

/// A stream of events. Bytes are put together to whole lines before they are taken for text, so that a character may be split between
/// two reads.
pub(crate) struct Events<R> {
    source: R,
    /// What was read: lines taken already up to `taken`, then lines and parts of lines still to take.
    buffer: Vec<u8>,
    taken: usize,
    /// The last line ended with `\r`: a `\n` that follows belongs to it.
    after_return: bool,
    /// The `data` fields of the event that is not complete yet.
    data: Option<String>,
    /// The last line that was no part of an event, for messages.
    stray: String,
}

impl<R> fmt::Debug for Events<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("unread", &(self.buffer.len() - self.taken)).finish_non_exhaustive()
    }
}

/// Why there is no further event.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Reading failed.
    Read(std::io::Error),
    /// A line has more than [`LINE_MAX`] bytes.
    TooLong,
    /// A line is no UTF-8 text.
    NoText(Vec<u8>),
    /// There was none until the deadline.
    Late,
}

impl<R: Read> Events<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), taken: 0, after_return: false, data: None, stray: String::new() }
    }

    /// The data of the next event; `None` at the end of the stream. Waits as long as the source does, but asks it for nothing more
    /// once the deadline has passed.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Option<String>, Problem> {
        loop {
            while let Some(line) = self.line()? {
                if line.is_empty() {
                    if let Some(data) = self.data.take() {
                        return Ok(Some(data));
                    }
                } else {
                    self.field(&line);
                }
            }
            if Instant::now() >= deadline {
                return Err(Problem::Late);
            }
            if !self.read()? {
                // What the standard throws away, an event without the empty line after it, is the last word of some servers.
                return Ok(self.data.take());
            }
        }
    }

    /// The last line that belonged to no event.
    pub(crate) fn stray(&self) -> &str {
        &self.stray
    }

    fn read(&mut self) -> Result<bool, Problem> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let filled = self.buffer.len();
        if filled > LINE_MAX {
            return Err(Problem::TooLong);
        }
        self.buffer.resize(filled + READ_SIZE, 0);
        let count = loop {
            match self.source.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + count.as_ref().copied().unwrap_or(0));
        Ok(count.map_err(Problem::Read)? > 0)
    }

    /// The next whole line, without its end.
    fn line(&mut self) -> Result<Option<String>, Problem> {
        if self.after_return && self.buffer.get(self.taken) == Some(&b'\n') {
            self.taken += 1;
        }
        let rest = &self.buffer[self.taken..];
        if !rest.is_empty() {
            self.after_return = false;
        }
        let Some(length) = rest.iter().position(|&byte| byte == b'\n' || byte == b'\r') else { return Ok(None) };
        self.after_return = rest[length] == b'\r';
        let line = rest[..length].to_vec();
        self.taken += length + 1;
        String::from_utf8(line).map(Some).map_err(|error| Problem::NoText(error.into_bytes()))
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment, as a sign of life; names and numbers of events, which play no role here.
            "" | "event" | "id" | "retry" => {}
            _ => line.clone_into(&mut self.stray),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Gives the bytes in pieces of this size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn events(bytes: &[u8], piece: usize) -> Result<Vec<String>, Problem> {
        let mut events = Events::new(Pieces(bytes, piece));
        let deadline = Instant::now() + Duration::from_hours(1);
        let mut all = Vec::new();
        while let Some(event) = events.next(deadline)? {
            all.push(event);
        }
        Ok(all)
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = ": ping\n\nevent: x\r\ndata: é\r\ndata:東\r\n\r\nid: 3\rdata: last\r\rdata: [DONE]".as_bytes();
        for piece in 1..=text.len() {
            // A line without an end is none, so the last event is not there.
            assert_eq!(events(text, piece).unwrap(), ["é\n東", "last"], "in pieces of {piece}");
        }
    }

    #[test]
    fn an_event_without_an_empty_line_after_it_counts_at_the_end() {
        assert_eq!(events(b"data: a\n", 3).unwrap(), ["a"]);
    }

    #[test]
    fn garbage_is_an_error_or_no_event() {
        assert!(
            matches!(events(b"data: \xff\xfe\n\n", 4), Err(Problem::NoText(bytes)) if bytes.ends_with(b"\xff\xfe"))
        );
        assert!(events(b"<html>\nnothing here\n\n", 4).unwrap().is_empty());
        assert!(matches!(events(&vec![b'x'; LINE_MAX + 2 * READ_SIZE], READ_SIZE), Err(Problem::TooLong)));
    }

    #[test]
    fn signs_of_life_do_not_move_the_deadline() {
        let mut events = Events::new(std::io::repeat(b'\n'));
        assert!(matches!(events.next(Instant::now()), Err(Problem::Late)));
    }
}
