//! How an inference in progress is written down, to go on in another session.
//!
//! Not a format to keep: both sides are the same build, or it is refused.

use onbeat_backend::Error;

use crate::ffi::Token;

const MAGIC: &[u8; 8] = b"onbeatl1";

/// An inference in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Which model it belongs to.
    pub(crate) fingerprint: [u64; 3],
    pub(crate) tokens: Vec<Token>,
    pub(crate) prompt: usize,
    pub(crate) done: usize,
    pub(crate) cached: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) cache: Vec<u8>,
}

impl Saved {
    pub(crate) fn write(&self) -> Vec<u8> {
        let lengths = [self.tokens.len(), self.prompt, self.done, self.cached, self.bytes.len(), self.cache.len()];
        let lengths = lengths.map(|length| length as u64);
        let mut out = MAGIC.to_vec();
        for number in self.fingerprint.into_iter().chain(lengths).chain([u64::from(self.finished)]) {
            out.extend(number.to_le_bytes());
        }
        for token in &self.tokens {
            out.extend(token.to_le_bytes());
        }
        out.extend(&self.bytes);
        out.extend(&self.cache);
        out.extend(checksum(&out).to_le_bytes());
        out
    }

    pub(crate) fn read(saved: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::invalid_input("what was saved is damaged, or comes from another kind of session");
        let (body, sum) = saved.split_last_chunk::<8>().ok_or_else(damaged)?;
        let mut rest = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(damaged());
        }
        let mut number = || {
            let (bytes, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*bytes))
        };
        let mut numbers = [0; 10];
        for into in &mut numbers {
            *into = number().ok_or_else(damaged)?;
        }
        let [a, b, c, tokens, prompt, done, cached, bytes, cache, finished] = numbers;
        let length = |value: u64| usize::try_from(value).map_err(|_| damaged());
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count).ok_or_else(damaged)?;
            rest = after;
            Ok::<_, Error>(taken)
        };
        let tokens = take(length(tokens)?.checked_mul(4).ok_or_else(damaged)?)?;
        let (tokens, _) = tokens.as_chunks::<4>();
        let read = Self {
            fingerprint: [a, b, c],
            tokens: tokens.iter().map(|bytes| Token::from_le_bytes(*bytes)).collect(),
            prompt: length(prompt)?,
            done: length(done)?,
            cached: length(cached)?,
            bytes: take(length(bytes)?)?.to_vec(),
            finished: finished != 0,
            cache: take(length(cache)?)?.to_vec(),
        };
        let fits = [read.prompt, read.done, read.cached].iter().all(|&count| count <= read.tokens.len());
        if fits && rest.is_empty() { Ok(read) } else { Err(damaged()) }
    }
}

/// FNV-1a, 64 bits: finds damage, not malice. Parameters: IETF draft-eastlake-fnv, section 5.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        Saved {
            fingerprint: [1, 2, 3],
            tokens: vec![5, -1, 7],
            prompt: 2,
            done: 1,
            cached: 3,
            bytes: b"two".to_vec(),
            finished: false,
            cache: vec![9; 20],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Saved::read(&saved().write()).unwrap(), saved());
    }

    #[test]
    fn damage_is_found_at_every_byte() {
        let whole = saved().write();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Saved::read(&damaged).is_err(), "byte {at}");
            assert!(Saved::read(&whole[..at]).is_err(), "cut at {at}");
        }
        let beyond = Saved { prompt: 4, ..saved() };
        assert!(Saved::read(&beyond.write()).is_err());
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        // Test vectors of the draft, appendix C: the empty text, and `a`.
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
