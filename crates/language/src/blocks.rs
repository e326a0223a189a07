//! Numbers as GGUF files store them: floating point, or whole numbers of few bits that share a scale in blocks.
//!
//! All block types are one kind of thing: a number is `scale · code + min`, with a code of 4 to 8 bits and one scale and one minimum
//! per 16 or 32 numbers of a row. What differs is how a file packs them. Layouts by the Python package `gguf` 0.19.0 (`quants.py`).

use onbeat_backend::Error;

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point, IEEE 754 binary16.
    F16,
    /// 16-bit floating point, the upper half of binary32.
    Bf16,
    /// 4 bits, scale.
    Q4_0,
    /// 4 bits, scale and minimum.
    Q4_1,
    /// 5 bits, scale.
    Q5_0,
    /// 5 bits, scale and minimum.
    Q5_1,
    /// 8 bits, scale.
    Q8_0,
    /// 4 bits, scales and minima of 6 bits.
    Q4K,
    /// 5 bits, scales and minima of 6 bits.
    Q5K,
    /// 6 bits, scales of 8 bits, for 16 numbers each.
    Q6K,
}

/// Number in the file, name, numbers per block, bytes per block.
const TYPES: [(TensorType, u32, &str, usize, usize); 11] = [
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::Bf16, 30, "BF16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
];

impl TensorType {
    /// The type that a number in a file stands for.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.iter().find(|it| it.1 == number).map(|it| it.0)
    }

    /// The names of all types, for messages.
    pub(crate) fn names() -> String {
        TYPES.map(|it| it.2).join(", ")
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Numbers per block.
    pub fn block(self) -> usize {
        self.row().3
    }

    /// Bytes that so many numbers take, a multiple of [`TensorType::block`].
    pub fn bytes(self, numbers: usize) -> Option<usize> {
        (numbers / self.block()).checked_mul(self.row().4)
    }

    fn row(self) -> (Self, u32, &'static str, usize, usize) {
        TYPES.into_iter().find(|it| it.0 == self).expect("every type is in the table")
    }
}

/// Numbers, in the form that they were stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// As floating point.
    Float(Vec<f32>),
    /// As blocks of codes.
    Blocks(Blocks),
}

/// Numbers as `scale · code + min`.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    /// Numbers per scale: 16 or 32.
    pub size: usize,
    /// Bits of a code: 4, or up to 8.
    pub bits: u32,
    /// One code per number.
    pub codes: Vec<u8>,
    /// One per block.
    pub scales: Vec<f32>,
    /// One per block.
    pub minima: Vec<f32>,
}

impl Blocks {
    /// The numbers.
    pub fn to_floats(&self) -> Vec<f32> {
        let blocks = self.codes.chunks_exact(self.size).zip(self.scales.iter().zip(&self.minima));
        let number = |code: &u8, scale: f32, min: f32| f32::from(*code).mul_add(scale, min);
        blocks.flat_map(|(codes, (&scale, &min))| codes.iter().map(move |code| number(code, scale, min))).collect()
    }
}

impl Numbers {
    /// The numbers.
    pub fn into_floats(self) -> Vec<f32> {
        match self {
            Self::Float(numbers) => numbers,
            Self::Blocks(blocks) => blocks.to_floats(),
        }
    }
}

/// Adds the numbers of one of a file's blocks.
type Unpack = fn(&[u8], &mut Blocks);

/// Unpacks numbers.
///
/// # Errors
/// If the bytes are not whole blocks.
pub fn unpack(tensor_type: TensorType, bytes: &[u8]) -> Result<Numbers, Error> {
    let block = tensor_type.bytes(tensor_type.block()).expect("one block takes few bytes");
    if !bytes.len().is_multiple_of(block) {
        let (name, found) = (tensor_type.name(), bytes.len());
        return Err(Error::invalid_model(format!("{found} bytes are not whole blocks of {name}, {block} bytes each")));
    }
    let chunks = bytes.chunks_exact(block);
    let (size, bits, unpack): (usize, u32, Unpack) = match tensor_type {
        TensorType::F32 => return Ok(Numbers::Float(chunks.map(|it| f32::from_le_bytes(array(it, 0))).collect())),
        TensorType::F16 => return Ok(Numbers::Float(chunks.map(|it| half(it, 0)).collect())),
        TensorType::Bf16 => {
            let number = |it: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes(array(it, 0))) << 16);
            return Ok(Numbers::Float(chunks.map(number).collect()));
        }
        TensorType::Q4_0 => (32, 4, |it, out| simple(out, half(it, 0), None, 8, &it[2..], &[])),
        TensorType::Q4_1 => (32, 4, |it, out| simple(out, half(it, 0), Some(half(it, 2)), 0, &it[4..], &[])),
        TensorType::Q5_0 => (32, 5, |it, out| simple(out, half(it, 0), None, 16, &it[6..], &it[2..6])),
        TensorType::Q5_1 => (32, 5, |it, out| simple(out, half(it, 0), Some(half(it, 2)), 0, &it[8..], &it[4..8])),
        TensorType::Q8_0 => (32, 8, |it, out| {
            out.codes.extend(it[2..].iter().map(|&code| code ^ 0x80));
            out.push_scale(half(it, 0), half(it, 0) * -128.0);
        }),
        TensorType::Q4K => (32, 4, |it, out| four_or_five(out, it, &it[16..], &[])),
        TensorType::Q5K => (32, 5, |it, out| four_or_five(out, it, &it[48..], &it[16..48])),
        TensorType::Q6K => (16, 6, six),
    };
    let numbers = chunks.len() * tensor_type.block();
    let mut out = Blocks {
        size,
        bits,
        codes: Vec::with_capacity(numbers),
        scales: Vec::with_capacity(numbers / size),
        minima: Vec::with_capacity(numbers / size),
    };
    for chunk in chunks {
        unpack(chunk, &mut out);
    }
    Ok(Numbers::Blocks(out))
}

impl Blocks {
    fn push_scale(&mut self, scale: f32, min: f32) {
        self.scales.push(scale);
        self.minima.push(min);
    }
}

/// 32 codes: the low nibbles of 16 bytes, then the high ones, with a fifth bit each from four further bytes. Without a minimum, the
/// code `zero` stands for 0.
fn simple(out: &mut Blocks, scale: f32, min: Option<f32>, zero: u8, nibbles: &[u8], fifth: &[u8]) {
    let high = if fifth.is_empty() { 0 } else { u32::from_le_bytes(array(fifth, 0)) };
    let bit = |i: usize| ((high >> i & 1) as u8) << 4;
    out.codes.extend(nibbles.iter().enumerate().map(|(i, byte)| (byte & 15) | bit(i)));
    out.codes.extend(nibbles.iter().enumerate().map(|(i, byte)| (byte >> 4) | bit(i + 16)));
    out.push_scale(scale, min.unwrap_or(-f32::from(zero) * scale));
}

/// `Q4_K` and `Q5_K`: 8 blocks of 32 with scales and minima of 6 bits, packed into 12 bytes.
fn four_or_five(out: &mut Blocks, it: &[u8], nibbles: &[u8], fifth: &[u8]) {
    let (scale, min, packed) = (half(it, 0), half(it, 2), &it[4..16]);
    for block in 0..8 {
        let (s, m) = if block < 4 {
            (packed[block] & 63, packed[block + 4] & 63)
        } else {
            let low = packed[block + 4];
            ((low & 15) | (packed[block - 4] >> 6) << 4, (low >> 4) | (packed[block] >> 6) << 4)
        };
        let shift = block % 2 * 4;
        let nibbles = &nibbles[block / 2 * 32..][..32];
        let code = |i: usize| (nibbles[i] >> shift & 15) | fifth.get(i).map_or(0, |byte| (byte >> block & 1) << 4);
        out.codes.extend((0..32).map(code));
        out.push_scale(scale * f32::from(s), -min * f32::from(m));
    }
}

/// `Q6_K`: two halves of 128 numbers; lower four bits, upper two bits, scales of 8 bits, one scale over all.
fn six(it: &[u8], out: &mut Blocks) {
    let (low, high, scales, scale) = (&it[..128], &it[128..192], &it[192..208], half(it, 208));
    for part in 0..8 {
        // Each half has four groups of 32: two nibbles of two runs of 32 bytes, with two bits each of one run.
        let (half, group) = (part / 4, part % 4);
        let (low, high) = (&low[half * 64 + group % 2 * 32..][..32], &high[half * 32..][..32]);
        let code = |i: usize| (low[i] >> (group / 2 * 4) & 15) | (high[i] >> (group * 2) & 3) << 4;
        out.codes.extend((0..32).map(code));
        for &it in &scales[part * 2..][..2] {
            let scale = scale * f32::from(it.cast_signed());
            out.push_scale(scale, -32.0 * scale);
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("blocks are as long as their type says")
}

fn half(bytes: &[u8], at: usize) -> f32 {
    half_to_float(u16::from_le_bytes(array(bytes, at)))
}

/// The number that the bits of an IEEE 754 binary16 stand for.
pub(crate) fn half_to_float(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (bits >> 10 & 31, f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2.0_f32.powi(i32::from(exponent) - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_the_standard_says() {
        for (bits, number) in [(0x3C00, 1.0), (0xC000, -2.0), (0x7BFF, 65504.0), (0x0001, 5.960_464_5e-8), (0, 0.0)] {
            assert_eq!(half_to_float(bits), number);
        }
        assert_eq!(half_to_float(0xFC00), f32::NEG_INFINITY);
        assert!(half_to_float(0x7E00).is_nan());
    }

    /// Blocks of the bytes (73 i + 41) mod 256 with 0.1 and 0.333 as scale and minimum, unpacked by the Python package gguf 0.19.0
    /// (`gguf.quants.dequantize`): numbers 0, 1, 17 and the last, and the sum of all, the n-th times n.
    #[test]
    fn every_block_type_is_unpacked_as_by_the_reference() {
        let cases: [(TensorType, &[usize], [f32; 4], f64); 8] = [
            (TensorType::Q4_0, &[0], [0.299_926_76, -0.399_902_34, -0.799_804_7, -0.799_804_7], -79.880_493_164_062_5),
            (TensorType::Q4_1, &[0, 2], [1.632_934_6, 0.933_105_5, 1.233_032_2, 1.233_032_2], 522.472_412_109_375),
            (TensorType::Q5_0, &[0], [1.499_633_8, 0.799_804_7, -1.399_658_2, 0.199_951_17], -118.471_069_335_937_5),
            (TensorType::Q5_1, &[0, 2], [2.032_837, 1.333_007_8, 3.032_592_8, 1.432_983_4], 980.560_546_875),
            (TensorType::Q8_0, &[0], [-6.898_315_4, 0.399_902_34, -10.797_363, -10.997_314], -68.783_203_125),
            (TensorType::Q4K, &[0, 2], [-4.632_202, -13.729_98, -13.729_98, -7.664_795], 530_844.234_375),
            (TensorType::Q5K, &[0, 2], [16.162_72, -13.729_98, -13.729_98, -7.664_795], 1_284_173.871_093_75),
            (TensorType::Q6K, &[208], [16.096_07, -4.598_877, 9.997_559, 28.792_97], -162_773.050_781_25),
        ];
        for (tensor_type, halves, some, sum) in cases {
            let length = tensor_type.bytes(tensor_type.block()).unwrap();
            let mut bytes: Vec<u8> = (0..length).map(|i| (i * 73 + 41) as u8).collect();
            for (&at, bits) in halves.iter().zip([0x2E66_u16, 0x3555]) {
                bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
            let numbers = unpack(tensor_type, &bytes).unwrap().into_floats();
            let found = [0, 1, 17, numbers.len() - 1].map(|i| numbers[i]);
            for (found, wanted) in found.iter().zip(some) {
                assert!((found - wanted).abs() < 2e-5, "{tensor_type:?}: {found} is not {wanted}");
            }
            let weighted: f64 = (1..).zip(&numbers).map(|(i, &it)| f64::from(i) * f64::from(it)).sum();
            assert!((weighted - sum).abs() < 1e-6 * sum.abs().max(1e3), "{tensor_type:?}: {weighted} is not {sum}");
        }
    }

    #[test]
    fn half_a_block_is_an_error() {
        let error = unpack(TensorType::Q4_1, &[0; 30]).unwrap_err();
        assert_eq!(error.to_string(), "30 bytes are not whole blocks of Q4_1, 20 bytes each");
    }
}
