//! The sizes of a llama, as a GGUF file tells them.

use onbeat_backend::Error;

use crate::gguf::Gguf;

/// The sizes of a llama.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head: usize,
    pub(crate) inner: usize,
    pub(crate) context: usize,
    pub(crate) vocabulary: usize,
    pub(crate) epsilon: f32,
    pub(crate) rope_base: f64,
}

/// Sizes beyond these are taken for damage.
const SIZE_MAX: u64 = 1 << 20;
/// The most numbers in the tables of the positions' angles.
const TABLE_MAX: usize = 1 << 28;

impl Shape {
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, Error> {
        let architecture = gguf.text("general.architecture")?;
        if architecture != "llama" {
            return Err(Error::unsupported(format!(
                "GGUF: the architecture is `{architecture}`; only `llama` is converted"
            )));
        }
        let size = |key: &str| {
            let key = format!("llama.{key}");
            let size = gguf.unsigned(&key)?;
            let fine = (1..=SIZE_MAX).contains(&size);
            fine.then_some(size as usize)
                .ok_or_else(|| Error::invalid_model(format!("GGUF: `{key}` is {size}; it must be 1 to {SIZE_MAX}")))
        };
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let kv_heads =
            if gguf.get("llama.attention.head_count_kv").is_some() { size("attention.head_count_kv")? } else { heads };
        let head = if gguf.get("llama.attention.key_length").is_some() {
            size("attention.key_length")?
        } else {
            width / heads
        };
        if !width.is_multiple_of(heads) && gguf.get("llama.attention.key_length").is_none()
            || !heads.is_multiple_of(kv_heads)
            || !head.is_multiple_of(2)
        {
            return Err(Error::invalid_model(format!(
                "GGUF: {heads} heads, {kv_heads} for keys, of {head} numbers each, do not divide a width of {width} evenly"
            )));
        }
        let embedding = gguf.tensor(EMBEDDING)?;
        let &[row, vocabulary] = embedding.shape else {
            return Err(wrong_shape(EMBEDDING, embedding.shape, &[width]));
        };
        if row != width || vocabulary == 0 || vocabulary as u64 > SIZE_MAX {
            return Err(wrong_shape(EMBEDDING, embedding.shape, &[width]));
        }
        let epsilon = gguf.optional_float("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32;
        let rope_base = gguf.optional_float("llama.rope.freq_base")?.unwrap_or(10_000.0);
        let it = Self {
            layers: size("block_count")?,
            width,
            heads,
            kv_heads,
            head,
            inner: size("feed_forward_length")?,
            context: size("context_length")?,
            vocabulary,
            epsilon,
            rope_base,
        };
        if it.context * it.head > TABLE_MAX {
            let Self { context, head, .. } = it;
            let problem = format!("GGUF: {context} positions of {head} numbers are more than {TABLE_MAX} together");
            return Err(Error::unsupported(problem));
        }
        it.refuse_what_is_not_converted(gguf)?;
        Ok(it)
    }

    fn refuse_what_is_not_converted(self, gguf: &Gguf) -> Result<(), Error> {
        let rotated = gguf.optional_unsigned("llama.rope.dimension_count")?.unwrap_or(self.head as u64);
        if rotated != self.head as u64 {
            let head = self.head;
            return Err(Error::unsupported(format!(
                "GGUF: {rotated} of a head's {head} numbers are rotated; all must be"
            )));
        }
        if let Ok(scaling) = gguf.text("llama.rope.scaling.type")
            && scaling != "none"
        {
            return Err(Error::unsupported(format!(
                "GGUF: positions are scaled (`{scaling}`), which is not converted"
            )));
        }
        let known = |name: &str| {
            let part = name.strip_prefix("blk.").and_then(|it| it.split_once('.')).map_or(name, |it| it.1);
            [EMBEDDING, NORM, HEAD, FACTORS].contains(&part) || PARTS.iter().any(|it| part == format!("{it}.weight"))
        };
        match gguf.tensor_names().find(|name| !known(name)) {
            Some(name) => Err(Error::unsupported(format!("GGUF: a llama with a tensor `{name}` is not converted"))),
            None => Ok(()),
        }
    }
}

pub(crate) const EMBEDDING: &str = "token_embd.weight";
pub(crate) const NORM: &str = "output_norm.weight";
pub(crate) const HEAD: &str = "output.weight";
pub(crate) const FACTORS: &str = "rope_freqs.weight";
const PARTS: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];

pub(crate) fn wrong_shape(name: &str, found: &[usize], wanted: &[usize]) -> Error {
    Error::invalid_model(format!("GGUF: the tensor `{name}` has the shape {found:?}; it must be {wanted:?}"))
}
