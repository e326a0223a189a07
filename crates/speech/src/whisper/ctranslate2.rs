//! Weights in CTranslate2's binary format, version 6 (package `ctranslate2` 4.x, `ctranslate2/specs/model_spec.py`, `_serialize`):
//! version, name and revision of the specification, variables (name, shape, type, bytes), then aliases of variables. All numbers are
//! little-endian; a text is its length with a closing zero, then its bytes and the zero.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use onbeat_backend::Error;

const VERSION: u32 = 6;
/// No network has more variables or names this long; larger numbers come from damage.
const VARIABLES_MAX: u32 = 100_000;

/// Types of elements that are read, by CTranslate2's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    F32,
    I8,
    I16,
    I32,
    F16,
}

impl Type {
    fn bytes(self) -> usize {
        match self {
            Self::I8 => 1,
            Self::I16 | Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
        }
    }
}

#[derive(Clone, Debug)]
struct Variable {
    shape: Vec<usize>,
    element: Type,
    bytes: Range<usize>,
}

/// A file of weights.
#[derive(Debug)]
pub(super) struct Weights {
    /// What errors call it.
    name: String,
    bytes: Vec<u8>,
    variables: BTreeMap<String, Variable>,
}

impl Weights {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).map_err(|e| Error::not_found(format!("{name}: {e}")))?;
        Self::parse(name, bytes)
    }

    /// Reads the content of a file.
    pub(super) fn parse(name: String, bytes: Vec<u8>) -> Result<Self, Error> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        let variables = variables(&mut reader).map_err(|what| {
            Error::invalid_model(format!(
                "{name}: no CTranslate2 model, or a damaged one: {what}, at byte {}",
                reader.at
            ))
        })?;
        Ok(Self { name, bytes, variables })
    }

    /// What errors call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is a variable.
    pub(super) fn has(&self, variable: &str) -> bool {
        self.variables.contains_key(variable)
    }

    /// Whether two names stand for the same variable.
    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        let bytes = |name| self.variables.get(name).map(|it: &Variable| &it.bytes);
        bytes(one).is_some() && bytes(one) == bytes(other)
    }

    /// The sizes of a variable, which has so many dimensions.
    pub(super) fn shape<const N: usize>(&self, variable: &str) -> Result<[usize; N], Error> {
        let shape = &self.variable(variable)?.shape;
        shape
            .as_slice()
            .try_into()
            .map_err(|_| self.wrong(variable, &format!("it has {} dimensions; {N} would be right", shape.len())))
    }

    /// The elements of a variable of floating point, which has this shape.
    pub(super) fn floats(&self, variable: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let found = self.variable(variable)?;
        if found.shape != shape {
            return Err(self.wrong(variable, &format!("its shape is {:?}; {shape:?} would be right", found.shape)));
        }
        let bytes = &self.bytes[found.bytes.clone()];
        match found.element {
            Type::F32 => Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Type::F16 => Ok(bytes.chunks_exact(2).map(|b| widen(u16::from_le_bytes([b[0], b[1]]))).collect()),
            other => Err(self.wrong(variable, &format!("its elements are {other:?}; F32 and F16 can be converted"))),
        }
    }

    /// A single whole number.
    pub(super) fn number(&self, variable: &str) -> Result<i32, Error> {
        let found = self.variable(variable)?;
        match (found.element, &self.bytes[found.bytes.clone()]) {
            (Type::I8, &[a]) => Ok(i32::from(a.cast_signed())),
            (Type::I16, &[a, b]) => Ok(i32::from(i16::from_le_bytes([a, b]))),
            (Type::I32, &[a, b, c, d]) => Ok(i32::from_le_bytes([a, b, c, d])),
            _ => Err(self.wrong(variable, "it is not a single whole number")),
        }
    }

    fn variable(&self, name: &str) -> Result<&Variable, Error> {
        self.variables.get(name).ok_or_else(|| self.wrong(name, "there is no such variable"))
    }

    fn wrong(&self, variable: &str, what: &str) -> Error {
        Error::invalid_model(format!("{}, `{variable}`: {what}", self.name))
    }
}

fn variables(reader: &mut Reader<'_>) -> Result<BTreeMap<String, Variable>, String> {
    let version = reader.u32()?;
    if version != VERSION {
        return Err(format!("its version is {version}; {VERSION} can be read"));
    }
    let _specification = reader.text()?;
    let _revision = reader.u32()?;
    let mut variables = BTreeMap::new();
    for _ in 0..reader.count()? {
        let (name, variable) = reader.variable()?;
        variables.insert(name, variable);
    }
    for _ in 0..reader.count()? {
        let (alias, name) = (reader.text()?, reader.text()?);
        let variable = variables
            .get(&name)
            .cloned()
            .ok_or_else(|| format!("`{alias}` stands for `{name}`, which is not there"))?;
        variables.insert(alias, variable);
    }
    Ok(variables)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("{count} bytes are wanted, {} are left", self.bytes.len() - self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn count(&mut self) -> Result<u32, String> {
        let count = self.u32()?;
        if count > VARIABLES_MAX {
            Err(format!("{count} variables; at most {VARIABLES_MAX} would be right"))
        } else {
            Ok(count)
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let b = self.take(2)?;
        let text = self.take(usize::from(u16::from_le_bytes([b[0], b[1]])))?;
        let text = text.strip_suffix(&[0]).ok_or("a name does not end with a zero")?;
        String::from_utf8(text.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn variable(&mut self) -> Result<(String, Variable), String> {
        let name = self.text()?;
        let rank = self.u8()?;
        let shape: Vec<usize> = (0..rank).map(|_| self.u32().map(|size| size as usize)).collect::<Result<_, _>>()?;
        let element = match self.u8()? {
            0 => Type::F32,
            1 => Type::I8,
            2 => Type::I16,
            3 => Type::I32,
            4 => Type::F16,
            other => return Err(format!("`{name}` has elements of type {other}; 0 to 4 can be read")),
        };
        let length = self.u32()? as usize;
        let wanted = shape.iter().try_fold(element.bytes(), |product, &size| product.checked_mul(size));
        if wanted != Some(length) {
            return Err(format!("`{name}` of shape {shape:?} and type {element:?} has {length} bytes"));
        }
        let start = self.at;
        self.take(length)?;
        Ok((name, Variable { shape, element, bytes: start..self.at }))
    }
}

/// The value of an IEEE 754 binary16 number, given as its bits; each is a binary32 number too.
fn widen(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let (exponent, fraction) = (u32::from(bits >> 10) & 31, u32::from(bits) & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: a multiple of 2⁻²⁴.
        0 => return f32::from_bits(sign | (fraction as f32 * 2.0_f32.powi(-24)).to_bits()),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The bits of a number as IEEE 754 binary16, if it can be one exactly.
pub(super) fn narrow(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = value.abs();
    let narrow = if magnitude < 2.0_f32.powi(-14) {
        (magnitude * 2.0_f32.powi(24)) as u16
    } else if magnitude < 65_536.0 {
        ((bits >> 13 & 0x3_ffff) - (112 << 10)) as u16
    } else {
        return None;
    };
    (widen(sign | narrow).to_bits() == bits).then_some(sign | narrow)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes weights in the format: names, shapes, elements; then aliases.
    pub(in crate::whisper) fn file(
        floats: &[(String, Vec<usize>, Vec<f32>)],
        numbers: &[(&str, i8)],
        aliases: &[(&str, &str)],
    ) -> Vec<u8> {
        fn text(bytes: &mut Vec<u8>, text: &str) {
            bytes.extend((text.len() as u16 + 1).to_le_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        let mut bytes = 6_u32.to_le_bytes().to_vec();
        text(&mut bytes, "WhisperSpec");
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(((floats.len() + numbers.len()) as u32).to_le_bytes());
        for (name, shape, elements) in floats {
            text(&mut bytes, name);
            bytes.push(shape.len() as u8);
            bytes.extend(shape.iter().flat_map(|&size| (size as u32).to_le_bytes()));
            bytes.push(0);
            bytes.extend((elements.len() as u32 * 4).to_le_bytes());
            bytes.extend(elements.iter().flat_map(|v| v.to_le_bytes()));
        }
        for (name, number) in numbers {
            text(&mut bytes, name);
            bytes.extend([0, 1]);
            bytes.extend(1_u32.to_le_bytes());
            bytes.push(number.cast_unsigned());
        }
        bytes.extend((aliases.len() as u32).to_le_bytes());
        for (alias, name) in aliases {
            text(&mut bytes, alias);
            text(&mut bytes, name);
        }
        bytes
    }

    #[test]
    fn variables_and_aliases_are_read_and_damage_is_an_error() {
        let bytes = file(&[("a".into(), vec![1, 2], vec![1.5, -2.0])], &[("n", -3)], &[("b", "a")]);
        let weights = Weights::parse("model.bin".into(), bytes.clone()).unwrap();
        assert_eq!(weights.floats("b", &[1, 2]).unwrap(), [1.5, -2.0]);
        assert_eq!(weights.number("n").unwrap(), -3);
        assert!(weights.same("a", "b") && !weights.same("a", "n"));
        let wrong = weights.floats("a", &[2]).unwrap_err();
        assert_eq!(wrong.to_string(), "model.bin, `a`: its shape is [1, 2]; [2] would be right");
        for length in 0..bytes.len() {
            assert!(Weights::parse("model.bin".into(), bytes[..length].to_vec()).is_err(), "{length} bytes");
        }
        let mut huge = bytes;
        // The number of variables, behind the version, a text of 2 + 12 bytes and the revision.
        huge[22..26].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = Weights::parse("model.bin".into(), huge).unwrap_err().to_string();
        assert!(error.contains("4294967295 variables"), "{error}");
    }

    /// Values of IEEE 754-2019, binary16: 1, −2, the largest number, the smallest normal and subnormal ones, infinity.
    #[test]
    fn half_precision_is_exact() {
        let table = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x8000, -0.0),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in table {
            assert_eq!(widen(bits).to_bits(), f32::to_bits(value), "{bits:#x}");
            assert_eq!(narrow(value), Some(bits), "{value}");
        }
        assert_eq!(widen(0x7c00), f32::INFINITY);
        assert!(widen(0x7e00).is_nan());
        for value in [0.1, 65_520.0, 1e9, f32::INFINITY, 1e-9] {
            assert_eq!(narrow(value), None, "{value}");
        }
        assert!((0..=u16::MAX).filter(|b| b >> 10 & 31 != 31).all(|bits| narrow(widen(bits)) == Some(bits)));
    }
}
