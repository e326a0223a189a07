//! GGUF files, version 3: what `llama.cpp` stores language models in.
//!
//! Source of the layout: the specification in ggml's `docs/gguf.md`, and the Python package `gguf` 0.19.0.

use onbeat_backend::Error;

use crate::blocks::TensorType;

/// A value of a file's metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number ≥ 0.
    Unsigned(u64),
    /// A whole number.
    Signed(i64),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of values of one type.
    List(Vec<Value>),
}

/// A tensor in a file.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its name.
    pub name: &'a str,
    /// Sizes of its dimensions, the one that runs fastest first.
    pub shape: &'a [usize],
    /// How its numbers are stored.
    pub tensor_type: TensorType,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// An open GGUF file. Every count, size and offset in it has been checked.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Info>,
    data: &'a [u8],
}

#[derive(Clone, Debug)]
struct Info {
    name: String,
    shape: Vec<usize>,
    tensor_type: TensorType,
    offset: usize,
    bytes: usize,
}

/// The fewest bytes that a tensor's description takes: an empty name, no dimension, type and offset.
const INFO_BYTES_MIN: usize = 8 + 4 + 4 + 8;
/// The fewest bytes that a pair of metadata takes: an empty key, a type and one byte.
const PAIR_BYTES_MIN: usize = 8 + 4 + 1;
const DIMENSIONS_MAX: usize = 4;

impl<'a> Gguf<'a> {
    /// Reads a file's directory.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`](onbeat_backend::ErrorKind::InvalidModel) says what is wrong where.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader { file, at: 0 };
        if reader.take(4, "magic")? != b"GGUF" {
            return Err(Error::invalid_model("not a GGUF file: it does not begin with `GGUF`"));
        }
        let version = reader.u32("version")?;
        if version != 3 && version != 2 {
            return Err(Error::invalid_model(format!("GGUF version {version} is not read; versions 2 and 3 are")));
        }
        let tensor_count = reader.count("tensor count", INFO_BYTES_MIN)?;
        let pair_count = reader.count("metadata count", PAIR_BYTES_MIN)?;
        let mut metadata = Vec::with_capacity(pair_count);
        for _ in 0..pair_count {
            let key = reader.text("metadata key")?;
            let number = reader.u32(&key)?;
            let value = reader.value(number, &key, true)?;
            metadata.push((key, value));
        }
        let mut infos = Vec::with_capacity(tensor_count);
        for _ in 0..tensor_count {
            infos.push(reader.info()?);
        }
        let mut gguf = Self { metadata, tensors: infos, data: &[] };
        let alignment = gguf.optional_unsigned("general.alignment")?.unwrap_or(32);
        let alignment = usize::try_from(alignment).ok().filter(|it| it.is_power_of_two());
        let alignment =
            alignment.ok_or_else(|| Error::invalid_model("GGUF: `general.alignment` is not a power of two"))?;
        let start = reader.at.checked_next_multiple_of(alignment).filter(|&start| start <= file.len());
        gguf.data = match start {
            Some(start) => &file[start..],
            None if gguf.tensors.is_empty() => &[],
            None => return Err(truncated("tensor data", reader.at)),
        };
        for it in &gguf.tensors {
            let end = it.offset.checked_add(it.bytes);
            if end.is_none_or(|end| end > gguf.data.len()) || !it.offset.is_multiple_of(alignment) {
                let (name, offset, bytes, have) = (&it.name, it.offset, it.bytes, gguf.data.len());
                return Err(Error::invalid_model(format!(
                    "GGUF: tensor `{name}` claims {bytes} bytes at {offset}, which must be a multiple of {alignment} and lie \
                     within {have} bytes of data"
                )));
            }
        }
        Ok(gguf)
    }

    /// A value of the metadata.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// If it is not there, or no text.
    pub fn text(&self, key: &str) -> Result<&str, Error> {
        match self.required(key)? {
            Value::Text(text) => Ok(text),
            other => Err(wrong_type(key, "a text", other)),
        }
    }

    /// A whole number ≥ 0 of the metadata.
    ///
    /// # Errors
    /// If it is not there, or no such number.
    pub fn unsigned(&self, key: &str) -> Result<u64, Error> {
        self.optional_unsigned(key)?.ok_or_else(|| missing(key))
    }

    /// A whole number ≥ 0 of the metadata that may be left out.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn optional_unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Unsigned(number)) => Ok(Some(number)),
            Some(other) => match other {
                Value::Signed(number) if *number >= 0 => Ok(Some(number.unsigned_abs())),
                _ => Err(wrong_type(key, "a whole number, 0 or more", other)),
            },
        }
    }

    /// A number of the metadata that may be left out.
    ///
    /// # Errors
    /// If it is no finite number.
    pub fn optional_float(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Float(number)) if number.is_finite() => Ok(Some(number)),
            Some(other) => Err(wrong_type(key, "a finite number", other)),
        }
    }

    /// A yes or no of the metadata that may be left out.
    ///
    /// # Errors
    /// If it is neither.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Bool(yes)) => Ok(Some(yes)),
            Some(other) => Err(wrong_type(key, "true or false", other)),
        }
    }

    /// A list of the metadata, each item turned into what it must be by `item`.
    ///
    /// # Errors
    /// If it is not there, or no list, or an item is of another type.
    pub fn list<T>(&self, key: &str, item: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Error> {
        match self.required(key)? {
            Value::List(values) => {
                values.iter().map(|it| item(it).ok_or_else(|| wrong_type(key, "a list of another type", it))).collect()
            }
            other => Err(wrong_type(key, "a list", other)),
        }
    }

    /// The names of the tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|it| it.name.as_str())
    }

    /// A tensor.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn tensor(&self, name: &str) -> Result<Stored<'_>, Error> {
        let info = self.tensors.iter().find(|it| it.name == name);
        let info = info.ok_or_else(|| Error::invalid_model(format!("GGUF: the tensor `{name}` is missing")))?;
        Ok(Stored {
            name: &info.name,
            shape: &info.shape,
            tensor_type: info.tensor_type,
            bytes: &self.data[info.offset..info.offset + info.bytes],
        })
    }

    fn required(&self, key: &str) -> Result<&Value, Error> {
        self.get(key).ok_or_else(|| missing(key))
    }
}

/// The text of a value, for [`Gguf::list`].
pub fn as_text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn missing(key: &str) -> Error {
    Error::invalid_model(format!("GGUF: the metadata lack `{key}`"))
}

fn wrong_type(key: &str, wanted: &str, found: &Value) -> Error {
    let found = match found {
        Value::List(values) => format!("a list of {}", values.len()),
        other => format!("{other:?}"),
    };
    Error::invalid_model(format!("GGUF: the metadata's `{key}` must be {wanted}, not {found}"))
}

fn truncated(what: &str, at: usize) -> Error {
    Error::invalid_model(format!("GGUF: the file ends within {what}, at byte {at}; is it complete?"))
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize, what: &str) -> Result<&'a [u8], Error> {
        let rest = &self.file[self.at..];
        let taken = rest.get(..bytes).ok_or_else(|| truncated(what, self.file.len()))?;
        self.at += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        Ok(self.take(N, what)?.try_into().expect("as many bytes were taken"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things that take at least so many bytes each: no more than the file can hold.
    fn count(&mut self, what: &str, bytes_min: usize) -> Result<usize, Error> {
        let number = self.u64(what)?;
        let most = (self.file.len() - self.at) / bytes_min.max(1);
        usize::try_from(number).ok().filter(|&it| it <= most).ok_or_else(|| {
            Error::invalid_model(format!("GGUF: {what} is {number}, and the file has room for at most {most}"))
        })
    }

    fn text(&mut self, what: &str) -> Result<String, Error> {
        let length = self.count(what, 1)?;
        let bytes = self.take(length, what)?;
        // Names are UTF-8 by the specification; a token need not be, and is kept as well as it can be.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, number: u32, key: &str, lists: bool) -> Result<Value, Error> {
        Ok(match number {
            0 => Value::Unsigned(u64::from(self.array::<1>(key)?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array(key)?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => Value::Unsigned(u64::from(self.u32(key)?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array(key)?))),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            8 => Value::Text(self.text(key)?),
            9 if lists => {
                let item = self.u32(key)?;
                let bytes_min = match item {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    _ => 8,
                };
                let length = self.count(key, bytes_min)?;
                Value::List((0..length).map(|_| self.value(item, key, false)).collect::<Result<_, _>>()?)
            }
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => return Err(Error::invalid_model(format!("GGUF: the metadata's `{key}` is of unknown type {number}"))),
        })
    }

    fn info(&mut self) -> Result<Info, Error> {
        let name = self.text("tensor name")?;
        let dimensions = self.u32(&name)? as usize;
        if dimensions > DIMENSIONS_MAX {
            let problem = format!("GGUF: tensor `{name}` has {dimensions} dimensions; at most {DIMENSIONS_MAX} can be");
            return Err(Error::invalid_model(problem));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let size = self.u64(&name)?;
            shape.push(usize::try_from(size).map_err(|_| truncated(&name, self.at))?);
        }
        let number = self.u32(&name)?;
        let tensor_type = TensorType::from_number(number).ok_or_else(|| {
            Error::unsupported(format!(
                "GGUF: tensor `{name}` is stored as type {number}, which is not read; read are: {}",
                TensorType::names()
            ))
        })?;
        let offset = self.u64(&name)?;
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let row = shape.first().copied().unwrap_or(1);
        let bytes = elements.filter(|_| row.is_multiple_of(tensor_type.block())).and_then(|it| tensor_type.bytes(it));
        let (Some(bytes), Ok(offset)) = (bytes, usize::try_from(offset)) else {
            let block = tensor_type.block();
            return Err(Error::invalid_model(format!(
                "GGUF: tensor `{name}` has the impossible shape {shape:?}: its rows must be multiples of {block}"
            )));
        };
        Ok(Info { name, shape, tensor_type, offset, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::GgufWriter;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        let mut file = GgufWriter::new();
        file.text("general.architecture", "llama").u32("n", 7).f32("f", 0.5).texts("list", &["a", "bc"]);
        file.f32_tensor("one", &[4, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        file.f32_tensor("two", &[1], &[9.0]);
        file.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let file = small();
        let gguf = Gguf::read(&file).unwrap();
        assert_eq!(gguf.text("general.architecture").unwrap(), "llama");
        assert_eq!(gguf.unsigned("n").unwrap(), 7);
        assert_eq!(gguf.optional_float("f").unwrap(), Some(0.5));
        assert_eq!(gguf.list("list", as_text).unwrap(), ["a", "bc"]);
        let one = gguf.tensor("one").unwrap();
        assert_eq!((one.shape, one.tensor_type, one.bytes.len()), (&[4, 2][..], TensorType::F32, 32));
        assert_eq!(gguf.tensor("two").unwrap().bytes, 9.0_f32.to_le_bytes());
        assert_eq!(gguf.tensor("three").unwrap_err().to_string(), "GGUF: the tensor `three` is missing");
        let error = gguf.unsigned("f").unwrap_err().to_string();
        assert_eq!(error, "GGUF: the metadata's `f` must be a whole number, 0 or more, not Float(0.5)");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let file = small();
        // The last tensor's 4 bytes are followed by 28 that only fill up.
        for length in 0..file.len() - 28 {
            assert!(Gguf::read(&file[..length]).is_err(), "{length} of {} bytes", file.len());
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..400, byte: u8, more in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut file = small();
            let at = at % file.len();
            file[at] = byte;
            let _ = Gguf::read(&file);
            let mut file = b"GGUF\x03\0\0\0".to_vec();
            file.extend(more);
            let _ = Gguf::read(&file);
        }
    }
}
