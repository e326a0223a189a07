//! Sessions as bytes.

use onbeat_backend::Error;

const MAGIC: &[u8; 7] = b"OBLANG1";

/// Writes a saved session.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(stage: u8) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.push(stage);
        Self { bytes }
    }

    pub(crate) fn number(&mut self, number: usize) {
        self.bytes.extend((number as u64).to_le_bytes());
    }

    pub(crate) fn floats(&mut self, numbers: &[f32]) {
        self.number(numbers.len());
        self.bytes.reserve(size_of_val(numbers));
        self.bytes.extend(numbers.iter().flat_map(|it| it.to_le_bytes()));
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a saved session.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The reader, and the stage.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<(Self, u8), Error> {
        match bytes.strip_prefix(MAGIC).and_then(|it| it.split_first()) {
            Some((&stage, rest)) if stage <= 2 => Ok((Self { rest }, stage)),
            _ => Err(Error::invalid_input("these bytes are no saved session of a language model")),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn number(&mut self) -> Result<usize, Error> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| damaged())
    }

    pub(crate) fn floats(&mut self, count: usize) -> Result<Vec<f32>, Error> {
        if self.number()? != count {
            return Err(Error::invalid_input("the saved session is of another model: its caches have other sizes"));
        }
        let bytes = self.take(count.checked_mul(size_of::<f32>()).ok_or_else(damaged)?)?;
        let number = |it: &[u8]| f32::from_le_bytes(it.try_into().expect("chunks are of four bytes"));
        Ok(bytes.chunks_exact(size_of::<f32>()).map(number).collect())
    }

    pub(crate) fn end(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }
}

fn damaged() -> Error {
    Error::invalid_input("the saved session is damaged: it is shorter or longer than it says")
}
