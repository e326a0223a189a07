//! The bytes of a saved session: a tag of the model, then numbers, little-endian.

use onbeat_backend::{Elements, Error, Tensor};

/// Largest number of elements of one array: 256 MiB of 32-bit numbers.
const ELEMENTS_MAX: u32 = 1 << 26;

/// Writes a saved session.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// The tag names the model and the version of the layout.
    pub(crate) fn new(tag: [u8; 4]) -> Self {
        Self { bytes: tag.to_vec() }
    }

    pub(crate) fn number(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn floats(&mut self, values: &[f32]) {
        self.number(values.len() as u32);
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    pub(crate) fn numbers(&mut self, values: &[u32]) {
        self.number(values.len() as u32);
        self.bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }

    /// Only tensors of 32-bit floating point are part of a session's state.
    pub(crate) fn tensor(&mut self, tensor: &Tensor) -> Result<(), Error> {
        let sizes: Vec<u32> = tensor.shape().iter().map(|&size| size as u32).collect();
        self.numbers(&sizes);
        self.floats(tensor.view::<f32>()?);
        Ok(())
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
    pub(crate) fn new(saved: &'a [u8], tag: [u8; 4]) -> Result<Self, Error> {
        match saved.split_at_checked(4) {
            Some((found, rest)) if found == tag => Ok(Self { rest }),
            _ => Err(Error::invalid_input("the saved session is of another model or another version")),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn number(&mut self) -> Result<u32, Error> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn numbers(&mut self) -> Result<Vec<u32>, Error> {
        let count = self.number()?;
        if count > ELEMENTS_MAX {
            return Err(damaged());
        }
        let bytes = self.bytes(count as usize * 4)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    pub(crate) fn floats(&mut self) -> Result<Vec<f32>, Error> {
        Ok(self.numbers()?.into_iter().map(f32::from_bits).collect())
    }

    /// So many floats as are wanted.
    pub(crate) fn exactly(&mut self, count: usize) -> Result<Vec<f32>, Error> {
        let values = self.floats()?;
        if values.len() == count { Ok(values) } else { Err(damaged()) }
    }

    pub(crate) fn tensor(&mut self) -> Result<Tensor, Error> {
        let shape: Vec<usize> = self.numbers()?.into_iter().map(|size| size as usize).collect();
        Tensor::from_elements(shape, Elements::F32(self.floats()?)).map_err(|_| damaged())
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }
}

pub(crate) fn damaged() -> Error {
    Error::invalid_input("the saved session is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_damage_is_an_error() {
        let tensor = Tensor::new([2, 1], vec![1.5_f32, -2.0]).unwrap();
        let mut writer = Writer::new(*b"abc1");
        writer.number(7);
        writer.floats(&[0.5]);
        writer.tensor(&tensor).unwrap();
        let bytes = writer.finish();
        let read = |bytes: &[u8]| -> Result<(u32, Vec<f32>, Tensor), Error> {
            let mut reader = Reader::new(bytes, *b"abc1")?;
            let all = (reader.number()?, reader.exactly(1)?, reader.tensor()?);
            reader.finish().map(|()| all)
        };
        assert_eq!(read(&bytes).unwrap(), (7, vec![0.5], tensor));
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Reader::new(&bytes, *b"abc2").is_err());
    }
}
