//! What a network consists of, so that its cost can be estimated where nobody measured it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::{self, Limit};

/// The architecture of a language model: what `onbeat estimate` counts operations and bytes from.
///
/// Size and precision of the weights are not repeated here: they are the model's (or variant's) `weights_mb`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformerSpec {
    /// Layers, each an attention and a feed-forward part, ≥ 1.
    pub layers: u32,
    /// Width of the hidden state, ≥ 1.
    pub hidden: u32,
    /// Inner width of the feed-forward part; of one expert, where there are several, ≥ 1.
    pub ffn: u32,
    /// Matrices of the feed-forward part: 3 with a gate (SwiGLU, GeGLU), 2 without. Default 3.
    #[serde(default = "three")]
    pub ffn_matrices: u32,
    /// Query heads, ≥ 1.
    pub heads: u32,
    /// Key-value heads, ≥ 1, at most `heads`.
    pub kv_heads: u32,
    /// Width of a head, ≥ 1. Left out: `hidden / heads`.
    pub head_size: Option<u32>,
    /// Tokens of the vocabulary, ≥ 1.
    pub vocab: u32,
    /// Whether the table of token embeddings is also the output layer. Default: no.
    #[serde(default)]
    pub tied_embeddings: bool,
    /// Experts of a layer, ≥ 1. Default 1: a dense model.
    #[serde(default = "one")]
    pub experts: u32,
    /// Experts that a token goes through, ≥ 1, at most `experts`. Default 1.
    #[serde(default = "one")]
    pub active_experts: u32,
    /// Tokens that the `windowed_layers` look back, ≥ 1.
    pub window: Option<u32>,
    /// Layers whose attention sees the last `window` tokens only. Default 0.
    #[serde(default)]
    pub windowed_layers: u32,
    /// Bits of a number in the key-value cache, 1 to 64. Default 16.
    #[serde(default = "sixteen")]
    pub kv_bits: u32,
    /// Bits of the numbers that are multiplied: 8 or 16. Default 8, the faster one: estimates stay lower bounds.
    #[serde(default = "eight")]
    pub compute_bits: u32,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// Any other network by its totals: what `onbeat estimate` needs to know of one inference (one step of an `iterative` model).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Multiply-accumulate operations [10^9], > 0.
    pub gmacs: f64,
    /// Activations that go through memory, read and written [MB], ≥ 0. Default 0: all stay on the chip, a lower bound.
    #[serde(default)]
    pub activation_mb: f64,
    /// Kernels that are launched, ≥ 1. Default 1: the graph is submitted as a whole.
    #[serde(default = "one")]
    pub kernels: u32,
    /// Bits of the numbers that are multiplied: 8 or 16. Default 8, the faster one: estimates stay lower bounds.
    #[serde(default = "eight")]
    pub compute_bits: u32,
    /// Key of `[source]`.
    pub source: Option<String>,
}

/// A value that cannot be: its key, what is wrong, and what would be right.
pub type Mistake = (&'static str, String, String);

impl TransformerSpec {
    /// Width of a head.
    pub fn head_size(&self) -> u32 {
        self.head_size.unwrap_or(self.hidden / self.heads.max(1))
    }

    /// All values that cannot be.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let sizes = [
            ("layers", self.layers, limits::LAYERS),
            ("hidden", self.hidden, limits::WIDTH),
            ("ffn", self.ffn, limits::WIDTH),
            ("heads", self.heads, limits::WIDTH),
            ("kv_heads", self.kv_heads, limits::WIDTH),
            ("head_size", self.head_size(), limits::WIDTH),
            ("vocab", self.vocab, limits::WIDTH),
            ("experts", self.experts, limits::WIDTH),
            ("active_experts", self.active_experts, limits::WIDTH),
            ("window", self.window.unwrap_or(1), limits::TOKENS),
            ("kv_bits", self.kv_bits, limits::BITS),
        ];
        mistakes.extend(sizes.into_iter().filter_map(|(key, value, limit)| outside(key, f64::from(value), &limit)));
        let mut wrong = |key, problem: String, help: &str| mistakes.push((key, problem, help.to_owned()));
        if !matches!(self.ffn_matrices, 2 | 3) {
            wrong("ffn_matrices", format!("{} matrices", self.ffn_matrices), "3 with a gate, 2 without");
        }
        for (key, part, whole_key, whole) in [
            ("kv_heads", self.kv_heads, "heads", self.heads),
            ("active_experts", self.active_experts, "experts", self.experts),
            ("windowed_layers", self.windowed_layers, "layers", self.layers),
        ] {
            if part > whole {
                wrong(key, format!("{part} of {whole}"), &format!("must be at most `{whole_key}`"));
            }
        }
        if self.windowed_layers > 0 && self.window.is_none() {
            wrong("windowed_layers", "there is no `window`".to_owned(), "add the tokens that these layers look back");
        }
        mistakes.extend(compute_bits(self.compute_bits));
        mistakes
    }
}

impl NetworkSpec {
    /// All values that cannot be.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let values = [
            ("gmacs", self.gmacs, limits::GMACS),
            ("activation_mb", self.activation_mb, limits::SIZE_MB),
            ("kernels", f64::from(self.kernels), limits::WIDTH),
        ];
        let outside = values.into_iter().filter_map(|(key, value, limit)| outside(key, value, &limit));
        outside.chain(compute_bits(self.compute_bits)).collect()
    }
}

fn outside(key: &'static str, value: f64, limit: &Limit) -> Option<Mistake> {
    (!limit.allows(value)).then(|| (key, format!("{value} is out of range"), limit.describe()))
}

fn compute_bits(bits: u32) -> Option<Mistake> {
    let known = matches!(bits, 8 | 16);
    (!known).then(|| ("compute_bits", format!("no rate is known for {bits} bits"), "must be 8 or 16".to_owned()))
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn eight() -> u32 {
    8
}

fn sixteen() -> u32 {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENSE: &str = "layers = 2\nhidden = 8\nffn = 16\nheads = 4\nkv_heads = 2\nvocab = 32\n";

    #[test]
    fn the_rest_has_defaults() {
        let spec: TransformerSpec = toml::from_str(DENSE).expect("a transformer");
        assert_eq!((spec.head_size(), spec.ffn_matrices, spec.experts, spec.kv_bits), (2, 3, 1, 16));
        assert!(spec.mistakes().is_empty());
    }

    #[test]
    fn what_cannot_be_is_told() {
        let more = "experts = 4\nactive_experts = 5\nwindowed_layers = 1\ncompute_bits = 4\n";
        let spec: TransformerSpec = toml::from_str(&format!("{DENSE}{more}")).expect("a transformer");
        let keys: Vec<&str> = spec.mistakes().iter().map(|(key, ..)| *key).collect();
        assert_eq!(keys, ["active_experts", "windowed_layers", "compute_bits"]);
        let spec = TransformerSpec { heads: 0, kv_heads: 0, ..spec };
        assert!(spec.mistakes().iter().any(|(key, ..)| *key == "heads"));
        let network: NetworkSpec = toml::from_str("gmacs = 0\n").expect("a network");
        assert_eq!(network.mistakes()[0].0, "gmacs");
    }
}
