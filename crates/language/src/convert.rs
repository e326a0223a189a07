//! GGUF to ONNX, for the llama architecture.

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

use crate::blocks::{Blocks, Numbers, unpack};
use crate::gguf::Gguf;
use crate::shape::{EMBEDDING, FACTORS, HEAD, NORM, Shape, wrong_shape};

/// Codes per row are filled up to a multiple of this. rten 0.27.0 computes the rest of a row after the last full 512-bit vector of
/// 4-bit codes (128) number by number, which costs more than the longer rows: see the crate's page for figures.
const ROW_MULTIPLE: usize = 128;
/// The code that `MatMulNBits` takes for 0 if it is told no zero points.
const ZERO: u8 = 8;
/// `MatMulNBits`' level 4: it may turn what the weights are multiplied with into 8-bit integers, block by block.
const ACCURACY: i64 = 4;

/// Name of the input that holds a layer's keys or values of all tokens before.
pub(crate) fn past(layer: usize, what: &str) -> String {
    format!("past_key_values.{layer}.{what}")
}

/// Name of the output that holds a layer's keys or values with those of the new tokens.
pub(crate) fn present(layer: usize, what: &str) -> String {
    format!("present.{layer}.{what}")
}

/// Turns a GGUF file into an ONNX file.
///
/// Inputs: `input_ids` [1, tokens], and `past_key_values.L.key` and `.value` [1, heads, tokens before, numbers] of each layer L.
/// Outputs: `logits` [1, 1, vocabulary] of the last token, and `present.L.key` and `.value`: the caches with the new tokens.
///
/// # Errors
/// [`ErrorKind::InvalidModel`](onbeat_backend::ErrorKind::InvalidModel) if the file is damaged, and
/// [`ErrorKind::Unsupported`](onbeat_backend::ErrorKind::Unsupported) if it is no llama or has parts that are not converted.
pub fn convert(gguf: &[u8]) -> Result<Vec<u8>, Error> {
    convert_read(&Gguf::read(gguf)?)
}

pub(crate) fn convert_read(gguf: &Gguf) -> Result<Vec<u8>, Error> {
    let shape = Shape::read(gguf)?;
    let mut it = Converter { gguf, shape, g: Builder::new("llama", 17), table: None, renamed: Vec::new() };
    it.g.contrib();
    let ids = it.g.input("input_ids", ElementType::I64, &[Dim::Fixed(1), Dim::Free("sequence_length".into())]);
    let positions = it.positions(&ids)?;
    let mut sum = it.embedding(&ids)?;
    let mut delta = None;
    for layer in 0..shape.layers {
        (sum, delta) = it.layer(layer, sum, delta, &positions)?;
    }
    let delta = delta.expect("there is at least one layer");
    // Only the last token's logits are wanted, so the head multiplies one row, however long the prompt is.
    let last = it.g.i64("last", &[1], vec![-1]);
    let sum = it.g.node("Gather", &[&sum, &last], &[("axis", Attr::Int(1))]);
    let delta = it.g.node("Gather", &[&delta, &last], &[("axis", Attr::Int(1))]);
    let (_, normal) = it.normalise(sum, Some(delta), NORM)?;
    let logits = it.head(&normal)?;
    let dims = [Dim::Fixed(1), Dim::Fixed(1), Dim::Fixed(shape.vocabulary)];
    it.g.output_named(&logits, "logits", ElementType::F32, &dims);
    let renamed = it.renamed;
    let mut model = it.g.into_model();
    for output in model.graph_mut().node.iter_mut().flat_map(|node| &mut node.output) {
        if let Some((_, name)) = renamed.iter().find(|(old, _)| old == output) {
            output.clone_from(name);
        }
    }
    Ok(model.to_bytes())
}

/// What the attention of every layer needs: how many tokens there are, and by what angles they are rotated.
struct Positions {
    last: String,
    total: String,
    cos: String,
    sin: String,
}

struct Converter<'a> {
    gguf: &'a Gguf<'a>,
    shape: Shape,
    g: Builder,
    /// The embedding, if it lies there as the head needs it.
    table: Option<String>,
    /// Outputs of nodes that get other names in the end: outputs of the graph, without a node that copies them, and none for those
    /// that nobody uses.
    renamed: Vec<(String, String)>,
}

impl Converter<'_> {
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<Numbers, Error> {
        let stored = self.gguf.tensor(name)?;
        if stored.shape != shape {
            return Err(wrong_shape(name, stored.shape, shape));
        }
        unpack(stored.tensor_type, stored.bytes).map_err(|error| error.about(name))
    }

    fn positions(&mut self, ids: &str) -> Result<Positions, Error> {
        let Shape { head, context, rope_base, layers, kv_heads, .. } = self.shape;
        for layer in 0..layers {
            for what in ["key", "value"] {
                let before = Dim::Free("past_sequence_length".into());
                let dims = [Dim::Fixed(1), Dim::Fixed(kv_heads), before, Dim::Fixed(head)];
                self.g.input(&past(layer, what), ElementType::F32, &dims);
            }
        }
        let factors = match self.gguf.tensor(FACTORS) {
            Ok(_) => self.numbers(FACTORS, &[head / 2])?.into_floats(),
            Err(_) => vec![1.0; head / 2],
        };
        let speeds: Vec<f64> =
            (0..head / 2).map(|i| rope_base.powf(-2.0 * i as f64 / head as f64) / f64::from(factors[i])).collect();
        let table = |of: fn(f64) -> f64| -> Vec<f32> {
            (0..context)
                .flat_map(|position| speeds.iter().map(move |speed| of(position as f64 * speed) as f32))
                .collect()
        };
        let dims = [context, head / 2];
        let (cos, sin) = (self.g.f32("cos", &dims, table(f64::cos)), self.g.f32("sin", &dims, table(f64::sin)));
        // Tokens before and new ones, from the shapes of the inputs.
        let g = &mut self.g;
        let (one, two) = (g.i64("one", &[], vec![1]), g.i64("two", &[], vec![2]));
        let new = g.node("Shape", &[ids], &[]);
        let new = g.node("Gather", &[&new, &one], &[("axis", Attr::Int(0))]);
        let before = g.node("Shape", &[&past(0, "key")], &[]);
        let before = g.node("Gather", &[&before, &two], &[("axis", Attr::Int(0))]);
        let total = g.node("Add", &[&new, &before], &[]);
        let last = g.node("Sub", &[&total, &one], &[]);
        let row = g.i64("row", &[1], vec![1]);
        let last = g.node("Reshape", &[&last, &row], &[]);
        let int32 = [("to", Attr::Int(i64::from(ElementType::I32.number())))];
        let (last, total) = (g.node("Cast", &[&last], &int32), g.node("Cast", &[&total], &int32));
        Ok(Positions { last, total, cos, sin })
    }

    /// The rows of the embedding, as codes and scales if they are stored so: they take a quarter of the memory.
    fn embedding(&mut self, ids: &str) -> Result<String, Error> {
        let Shape { width, vocabulary, .. } = self.shape;
        match self.numbers(EMBEDDING, &[width, vocabulary])? {
            Numbers::Float(numbers) => {
                // Stored as the head needs it, so that a model whose head is its embedding has it once.
                let table = self.g.f32(EMBEDDING, &[width, vocabulary], transposed(&numbers, width));
                let columns = self.g.node("Gather", &[&table, ids], &[("axis", Attr::Int(1))]);
                self.table = Some(table);
                Ok(self.g.node("Transpose", &[&columns], &[("perm", Attr::Ints(vec![1, 2, 0]))]))
            }
            Numbers::Blocks(blocks) => {
                let per_row = width / blocks.size;
                let g = &mut self.g;
                let codes = g.u8("embedding_codes", &[vocabulary, width], blocks.codes);
                let scales = g.f32("embedding_scales", &[vocabulary, per_row, 1], blocks.scales);
                let minima = g.f32("embedding_minima", &[vocabulary, per_row, 1], blocks.minima);
                let [codes, scales, minima] = [codes, scales, minima].map(|it| g.node("Gather", &[&it, ids], &[]));
                let float = [("to", Attr::Int(i64::from(ElementType::F32.number())))];
                let codes = g.node("Cast", &[&codes], &float);
                let in_blocks = g.i64("in_blocks", &[4], vec![1, -1, int(per_row), int(blocks.size)]);
                let codes = g.node("Reshape", &[&codes, &in_blocks], &[]);
                let scaled = g.node("Mul", &[&codes, &scales], &[]);
                let numbers = g.node("Add", &[&scaled, &minima], &[]);
                let in_rows = g.i64("in_rows", &[3], vec![1, -1, int(width)]);
                Ok(g.node("Reshape", &[&numbers, &in_rows], &[]))
            }
        }
    }

    /// The logits of one row.
    fn head(&mut self, row: &str) -> Result<String, Error> {
        let Shape { width, vocabulary, .. } = self.shape;
        let name = if self.gguf.tensor(HEAD).is_ok() { HEAD } else { EMBEDDING };
        match &self.table {
            Some(table) if name == EMBEDDING => Ok(self.g.node("MatMul", &[row, table], &[])),
            _ => {
                let numbers = self.numbers(name, &[width, vocabulary])?;
                Ok(self.multiply(name, row, width, numbers))
            }
        }
    }

    /// Adds what a part of a layer has computed, if there is any, and normalises the sum. Returns the sum and the result.
    fn normalise(&mut self, sum: String, delta: Option<String>, name: &str) -> Result<(String, String), Error> {
        let gain = self.numbers(name, &[self.shape.width])?.into_floats();
        let gain = self.g.f32(name, &[self.shape.width], gain);
        let epsilon = ("epsilon", Attr::Float(self.shape.epsilon));
        let Some(delta) = delta else {
            let normal =
                self.g.node("SimplifiedLayerNormalization", &[&sum, &gain], &[("axis", Attr::Int(-1)), epsilon]);
            return Ok((sum, normal));
        };
        let outputs = self.g.contrib_node_n("SkipSimplifiedLayerNormalization", &[&sum, &delta, &gain], &[epsilon], 4);
        self.renamed.extend(outputs[1..3].iter().map(|unused| (unused.clone(), String::new())));
        Ok((outputs[3].clone(), outputs[0].clone()))
    }

    fn layer(
        &mut self,
        layer: usize,
        sum: String,
        delta: Option<String>,
        positions: &Positions,
    ) -> Result<(String, Option<String>), Error> {
        let Shape { width, heads, kv_heads, head, inner, .. } = self.shape;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (sum, normal) = self.normalise(sum, delta, &name("attn_norm"))?;
        let qkv = [("attn_q", heads * head), ("attn_k", kv_heads * head), ("attn_v", kv_heads * head)];
        let qkv = self.linear(&normal, width, &qkv.map(|(part, rows)| (name(part), rows)))?;
        let Positions { last, total, cos, sin } = positions;
        let inputs = [&qkv, "", "", &past(layer, "key"), &past(layer, "value"), last, total, cos, sin];
        let attributes = [
            ("num_heads", Attr::Int(int(heads))),
            ("kv_num_heads", Attr::Int(int(kv_heads))),
            ("do_rotary", Attr::Int(1)),
            // GGUF files hold llama's rotated pairs next to each other.
            ("rotary_interleaved", Attr::Int(1)),
        ];
        let outputs = self.g.contrib_node_n("GroupQueryAttention", &inputs, &attributes, 3);
        for (what, output) in ["key", "value"].into_iter().zip(&outputs[1..]) {
            let after = Dim::Free("total_sequence_length".into());
            let dims = [Dim::Fixed(1), Dim::Fixed(kv_heads), after, Dim::Fixed(head)];
            self.g.output(&present(layer, what), ElementType::F32, &dims);
            self.renamed.push((output.clone(), present(layer, what)));
        }
        let delta = self.linear(&outputs[0], heads * head, &[(name("attn_output"), width)])?;
        let (sum, normal) = self.normalise(sum, Some(delta), &name("ffn_norm"))?;
        let both = self.linear(&normal, width, &[(name("ffn_gate"), inner), (name("ffn_up"), inner)])?;
        let halves = self.g.i64("halves", &[2], vec![int(inner); 2]);
        let both = self.g.node_n("Split", &[&both, &halves], &[("axis", Attr::Int(-1))], 2);
        let sigmoid = self.g.node("Sigmoid", &[&both[0]], &[]);
        let silu = self.g.node("Mul", &[&both[0], &sigmoid], &[]);
        let product = self.g.node("Mul", &[&silu, &both[1]], &[]);
        let delta = self.linear(&product, inner, &[(name("ffn_down"), width)])?;
        Ok((sum, Some(delta)))
    }

    /// Multiplies with several matrices and puts the results side by side: as one matrix if they are stored alike.
    fn linear(&mut self, x: &str, columns: usize, parts: &[(String, usize)]) -> Result<String, Error> {
        let mut merged: Vec<(String, Numbers)> = Vec::new();
        for (name, rows) in parts {
            let numbers = self.numbers(name, &[columns, *rows])?;
            match (merged.last_mut(), numbers) {
                (Some((_, Numbers::Float(all))), Numbers::Float(more)) => all.extend(more),
                (Some((_, Numbers::Blocks(all))), Numbers::Blocks(more))
                    if all.size == more.size && (all.bits <= 4) == (more.bits <= 4) =>
                {
                    all.codes.extend(more.codes);
                    all.scales.extend(more.scales);
                    all.minima.extend(more.minima);
                }
                (_, numbers) => merged.push((name.clone(), numbers)),
            }
        }
        let results: Vec<String> =
            merged.into_iter().map(|(name, numbers)| self.multiply(&name, x, columns, numbers)).collect();
        if let [one] = results.as_slice() {
            return Ok(one.clone());
        }
        let results: Vec<&str> = results.iter().map(String::as_str).collect();
        Ok(self.g.node("Concat", &results, &[("axis", Attr::Int(-1))]))
    }

    /// Multiplies with a matrix, exactly as it is stored. `MatMulNBits` multiplies with scale · (code − 8), codes of 4 bits. Codes of
    /// more bits are two of 4: code = 16 · high + low. What remains of scale · code + min is the same for all numbers of a block, so
    /// it is multiplied with the sum of the block's inputs.
    fn multiply(&mut self, name: &str, x: &str, columns: usize, numbers: Numbers) -> String {
        let blocks = match numbers {
            Numbers::Float(numbers) => {
                let rows = numbers.len() / columns;
                let weights = self.g.f32(name, &[columns, rows], transposed(&numbers, columns));
                return self.g.node("MatMul", &[x, &weights], &[]);
            }
            Numbers::Blocks(blocks) => blocks,
        };
        let rows = blocks.codes.len() / columns;
        let zero = f32::from(ZERO);
        let padded = self.padded(x, columns);
        let (product, zero) = if blocks.bits <= 4 {
            (self.codes(name, &padded, columns, &blocks, |code| code, 1.0), zero)
        } else {
            // The few high codes of 5 or 6 bits are moved to the middle. Off it, their product and the rest below would be large
            // numbers that nearly cancel.
            let shift = 8 - (1_u8 << (blocks.bits - 5));
            let high = self.codes(&format!("{name}.high"), &padded, columns, &blocks, |code| (code >> 4) + shift, 16.0);
            let low = self.codes(&format!("{name}.low"), &padded, columns, &blocks, |code| code & 15, 1.0);
            (self.g.node("Add", &[&high, &low], &[]), 16.0 * (zero - f32::from(shift)) + zero)
        };
        let rest: Vec<f32> =
            blocks.scales.iter().zip(&blocks.minima).map(|(scale, min)| scale.mul_add(zero, *min)).collect();
        if rest.iter().all(|it| *it == 0.0) {
            return product;
        }
        let per_row = columns / blocks.size;
        let in_blocks = self.g.i64("in_blocks", &[4], vec![1, -1, int(per_row), int(blocks.size)]);
        let x = self.g.node("Reshape", &[x, &in_blocks], &[]);
        let axis = self.g.i64("block", &[1], vec![-1]);
        let sums = self.g.node("ReduceSum", &[&x, &axis], &[("keepdims", Attr::Int(0))]);
        let rest = self.g.f32(&format!("{name}.rest"), &[per_row, rows], transposed(&rest, per_row));
        let rest = self.g.node("MatMul", &[&sums, &rest], &[]);
        self.g.node("Add", &[&product, &rest], &[])
    }

    /// The input with zeros at the end of its rows.
    fn padded(&mut self, x: &str, columns: usize) -> String {
        let more = columns.next_multiple_of(ROW_MULTIPLE) - columns;
        if more == 0 {
            return x.to_owned();
        }
        let pads = self.g.i64("pads", &[6], vec![0, 0, 0, 0, 0, int(more)]);
        self.g.node("Pad", &[x, &pads], &[])
    }

    fn codes(
        &mut self,
        name: &str,
        x: &str,
        columns: usize,
        blocks: &Blocks,
        part: impl Fn(u8) -> u8,
        scale: f32,
    ) -> String {
        let rows = blocks.codes.len() / columns;
        let (long, size) = (columns.next_multiple_of(ROW_MULTIPLE), blocks.size);
        let mut packed = Vec::with_capacity(rows * long / 2);
        let mut scales = Vec::with_capacity(rows * long / size);
        for (codes, row_scales) in blocks.codes.chunks_exact(columns).zip(blocks.scales.chunks_exact(columns / size)) {
            packed.extend(codes.chunks_exact(2).map(|pair| part(pair[0]) | part(pair[1]) << 4));
            packed.resize(packed.len() + (long - columns) / 2, ZERO | ZERO << 4);
            scales.extend(row_scales.iter().map(|it| it * scale));
            scales.resize(scales.len() + (long - columns) / size, 0.0);
        }
        let packed = self.g.u8(&format!("{name}.codes"), &[rows, long / size, size / 2], packed);
        let scales = self.g.f32(&format!("{name}.scales"), &[rows, long / size], scales);
        let attributes = [
            ("K", Attr::Int(int(long))),
            ("N", Attr::Int(int(rows))),
            ("bits", Attr::Int(4)),
            ("block_size", Attr::Int(int(size))),
            ("accuracy_level", Attr::Int(ACCURACY)),
        ];
        self.g.contrib_node("MatMulNBits", &[x, &packed, &scales], &attributes)
    }
}

fn int(size: usize) -> i64 {
    i64::try_from(size).expect("what is in memory has fewer than 2^63 numbers")
}

/// Rows of so many numbers become columns.
fn transposed(numbers: &[f32], columns: usize) -> Vec<f32> {
    let rows = numbers.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| numbers[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{GgufWriter, Storage, tiny_llama};
    use onbeat_onnx::Model;
    use proptest::prelude::*;

    #[test]
    fn the_network_has_the_promised_inputs_and_outputs() {
        let network = Model::read(convert(&tiny_llama(Storage::Blocks)).unwrap()).unwrap();
        let names = |ports: Vec<onbeat_onnx::Port>| ports.into_iter().map(|it| it.name).collect::<Vec<_>>();
        let mut caches = Vec::new();
        for layer in 0..2 {
            caches.extend(["key", "value"].map(|what| (past(layer, what), present(layer, what))));
        }
        let inputs = names(network.inputs());
        assert_eq!(inputs[0], "input_ids");
        assert_eq!(inputs[1..], caches.iter().map(|it| it.0.clone()).collect::<Vec<_>>());
        let outputs = names(network.outputs());
        assert_eq!(outputs[..4], caches.iter().map(|it| it.1.clone()).collect::<Vec<_>>());
        assert_eq!(outputs[4], "logits");
    }

    #[test]
    fn what_is_not_converted_is_an_error() {
        let mut file = GgufWriter::new();
        file.text("general.architecture", "mamba");
        let error = convert(&file.finish()).unwrap_err().to_string();
        assert_eq!(error, "GGUF: the architecture is `mamba`; only `llama` is converted");
        let mut file = GgufWriter::new();
        file.text("general.architecture", "llama").u32("llama.embedding_length", 0);
        let error = convert(&file.finish()).unwrap_err().to_string();
        assert_eq!(error, "GGUF: `llama.embedding_length` is 0; it must be 1 to 1048576");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damage_never_panics(at in 0_usize..9000, byte: u8) {
            // The directory and the first weights; damage to weights only changes numbers.
            let mut file = tiny_llama(Storage::Blocks);
            file[at] = byte;
            let _ = convert(&file);
        }
    }
}
