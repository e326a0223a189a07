//! Operations and bytes of networks, counted from their architecture.
//!
//! Counted are the matrix multiplications and attention. Norms, activation functions, softmax, rotary embeddings and the bytes of
//! activations are not: a runtime can fuse them into what is counted, so leaving them out keeps the count a lower bound.

use onbeat_core::spec::{NetworkSpec, TransformerSpec};

use super::BYTES_PER_MB;

/// A group of operators that runs as one kernel per layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operator {
    /// What it computes.
    pub name: &'static str,
    /// Operations; a multiply-accumulate counts as two.
    pub operations: f64,
    /// Bytes from and to memory.
    pub bytes: f64,
    /// Kernels that are launched.
    pub kernels: f64,
}

/// One pass through a language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Tokens that are computed, per request.
    pub new: u32,
    /// Tokens in the cache before, per request.
    pub past: u32,
    /// Requests.
    pub batch: u32,
    /// Whether the pass ends in a token of the output: only then is the output layer computed, for the last position.
    pub last: bool,
}

/// Parameters of a language model: matrices, router and embeddings; norms and biases, which are below a thousandth, are not counted.
pub fn parameters(spec: &TransformerSpec) -> f64 {
    let table = f64::from(spec.vocab) * f64::from(spec.hidden);
    let tables = if spec.tied_embeddings { 1.0 } else { 2.0 };
    let sizes = Sizes::of(spec);
    let layer = sizes.qkv + sizes.output + sizes.router + f64::from(spec.experts) * (sizes.up + sizes.down);
    f64::from(spec.layers) * layer + tables * table
}

/// Weights per layer.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    qkv: f64,
    output: f64,
    router: f64,
    /// Of one expert, with the gate.
    up: f64,
    /// Of one expert.
    down: f64,
}

impl Sizes {
    fn of(spec: &TransformerSpec) -> Self {
        let hidden = f64::from(spec.hidden);
        let head = f64::from(spec.head_size());
        let (queries, keys) = (f64::from(spec.heads) * head, f64::from(spec.kv_heads) * head);
        let matrix = hidden * f64::from(spec.ffn);
        Self {
            qkv: hidden * (queries + 2.0 * keys),
            output: queries * hidden,
            router: if spec.experts > 1 { hidden * f64::from(spec.experts) } else { 0.0 },
            up: f64::from(spec.ffn_matrices.saturating_sub(1)) * matrix,
            down: matrix,
        }
    }
}

/// The operator groups of one pass, with weights of so many bytes in all.
///
/// Weights are read once per pass; of the table of token embeddings a pass reads a few rows, which are not counted. The cache of the past
/// is read and that of the new tokens written, once per layer. Of several experts a pass reads those that its tokens choose: with
/// `E` experts of which a token takes `k`, independently and evenly, `E (1 − (1 − k/E)^tokens)` of them are expected.
pub fn transformer(spec: &TransformerSpec, weight_bytes: f64, pass: Pass) -> Vec<Operator> {
    let sizes = Sizes::of(spec);
    let layers = f64::from(spec.layers);
    let tokens = f64::from(pass.new) * f64::from(pass.batch);
    let bytes_per_weight = weight_bytes / parameters(spec);
    let matrices = |name, weights: f64, read: f64, used: f64| Operator {
        name,
        operations: 2.0 * layers * weights * used * tokens,
        bytes: layers * weights * read * bytes_per_weight,
        kernels: layers,
    };
    let (experts, active) = (f64::from(spec.experts), f64::from(spec.active_experts));
    let read = experts * (1.0 - libm::pow(1.0 - active / experts, tokens));
    let mut operators = vec![matrices("qkv", sizes.qkv, 1.0, 1.0)];
    let windowed = spec.windowed_layers.min(spec.layers);
    operators.extend(attention("attention", spec, spec.layers - windowed, None, pass));
    operators.extend(attention("window attention", spec, windowed, spec.window, pass));
    operators.push(matrices("output", sizes.output, 1.0, 1.0));
    if sizes.router > 0.0 {
        operators.push(matrices("router", sizes.router, 1.0, 1.0));
    }
    operators.push(matrices("up", sizes.up, read, active));
    operators.push(matrices("down", sizes.down, read, active));
    if pass.last {
        let weights = f64::from(spec.vocab) * f64::from(spec.hidden);
        operators.push(Operator {
            name: "head",
            operations: 2.0 * weights * f64::from(pass.batch),
            bytes: weights * bytes_per_weight,
            kernels: 1.0,
        });
    }
    operators
}

/// Scores and weighted values of some layers, which look back as far as `window`.
fn attention(
    name: &'static str,
    spec: &TransformerSpec,
    layers: u32,
    window: Option<u32>,
    pass: Pass,
) -> Option<Operator> {
    let head = f64::from(spec.head_size());
    let (layers, batch) = (f64::from(layers), f64::from(pass.batch));
    let window = window.map_or(f64::INFINITY, f64::from);
    let (new, past) = (f64::from(pass.new), f64::from(pass.past));
    // Each new token attends to itself and to all before it, or to the last `window` of them.
    let pairs = sum_up_to(past + new, window) - sum_up_to(past, window);
    let cache = 2.0 * f64::from(spec.kv_heads) * head * f64::from(spec.kv_bits) / 8.0;
    // Of the past, the first new token sees the most: all but itself of its window.
    let seen = past.min(window - 1.0) + new;
    (layers > 0.0).then(|| Operator {
        name,
        operations: layers * batch * 4.0 * f64::from(spec.heads) * head * pairs,
        bytes: layers * batch * cache * seen,
        kernels: layers,
    })
}

/// Σ over i = 1..n of min(i, window).
fn sum_up_to(n: f64, window: f64) -> f64 {
    let ramp = n.min(window);
    let flat = if n > window { (n - window) * window } else { 0.0 };
    ramp * (ramp + 1.0) / 2.0 + flat
}

/// Any other network, as one group.
pub fn network(spec: &NetworkSpec, weight_bytes: f64) -> Operator {
    Operator {
        name: "network",
        operations: 2e9 * spec.gmacs,
        bytes: weight_bytes + spec.activation_mb * BYTES_PER_MB,
        kernels: f64::from(spec.kernels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two layers of width 8 with 4 heads of size 2, 2 of them for keys and values, 16 inside, 32 tokens.
    const TINY: &str = "layers = 2\nhidden = 8\nffn = 16\nheads = 4\nkv_heads = 2\nvocab = 32\n";

    fn spec(more: &str) -> TransformerSpec {
        toml::from_str(&format!("{TINY}{more}")).expect("the test's text is a transformer")
    }

    fn rows(operators: &[Operator]) -> Vec<(&str, f64, f64, f64)> {
        operators.iter().map(|o| (o.name, o.operations, o.bytes, o.kernels)).collect()
    }

    #[test]
    fn a_tiny_transformer_counted_by_hand() {
        let spec = spec("");
        // Per layer: q 8x8, k and v 8x4 each, output 8x8, gate and up 8x16 each, down 16x8: 128 + 64 + 256 + 128 = 576.
        // Twice that, and two tables of 32x8: 1152 + 512.
        assert_eq!(parameters(&spec), 1664.0);
        // One byte per parameter. Three tokens after five: they attend to 6, 7 and 8 tokens: 21 pairs of 8 numbers for
        // scores and 8 for values, 2 operations each, in 2 layers: 1344. Cache: 2 x 2 x 2 numbers of 2 bytes in 2 layers
        // for 8 tokens: 256 bytes.
        let pass = Pass { new: 3, past: 5, batch: 1, last: true };
        let expected = [
            ("qkv", 1536.0, 256.0, 2.0),
            ("attention", 1344.0, 256.0, 2.0),
            ("output", 768.0, 128.0, 2.0),
            ("up", 3072.0, 512.0, 2.0),
            ("down", 1536.0, 256.0, 2.0),
            ("head", 512.0, 256.0, 1.0),
        ];
        assert_eq!(rows(&transformer(&spec, 1664.0, pass)), expected);
        // Two such requests: twice the operations and twice the cache; the weights are read once all the same.
        for (one, two) in expected.iter().zip(transformer(&spec, 1664.0, Pass { batch: 2, ..pass })) {
            assert_eq!(two.operations, 2.0 * one.1, "{}", two.name);
            assert_eq!(two.bytes, if one.0 == "attention" { 2.0 * one.2 } else { one.2 }, "{}", two.name);
        }
        let inner = transformer(&spec, 1664.0, Pass { last: false, ..pass });
        assert_eq!(rows(&inner), expected[..5], "no output layer before the last pass");
    }

    #[test]
    fn a_window_limits_attention() {
        let spec = spec("window = 4\nwindowed_layers = 1\n");
        let operators = transformer(&spec, 0.0, Pass { new: 3, past: 5, batch: 1, last: false });
        let [full, window] = [operators[1], operators[2]];
        assert_eq!((full.operations, full.bytes), (672.0, 128.0));
        // 4 + 4 + 4 pairs instead of 21; three of the past and three new tokens.
        assert_eq!((window.operations, window.bytes), (12.0 * 32.0, 6.0 * 16.0));
        // A prompt from nothing: 1 + 2 + 3 + 4 + 4 pairs.
        let operators = transformer(&spec, 0.0, Pass { new: 5, past: 0, batch: 1, last: false });
        assert_eq!(operators[2].operations, 14.0 * 32.0);
    }

    #[test]
    fn of_many_experts_few_are_read() {
        let spec = spec("experts = 4\nactive_experts = 2\ntied_embeddings = true\n");
        // Per layer 192 for attention, a router of 8x4, 4 x 384; twice; one table of 256.
        assert_eq!(parameters(&spec), 2.0 * (192.0 + 32.0 + 1536.0) + 256.0);
        let bytes = |new| transformer(&spec, parameters(&spec), Pass { new, past: 0, batch: 1, last: false })[4];
        // One token reads 2 of 4 experts; two tokens 4 (1 - 1/4) = 3; their work is that of 2 each.
        assert_eq!((bytes(1).name, bytes(1).bytes, bytes(1).operations), ("up", 2.0 * 256.0 * 2.0, 2.0 * 2.0 * 512.0));
        assert_eq!((bytes(2).bytes, bytes(2).operations), (2.0 * 256.0 * 3.0, 2.0 * 2.0 * 2.0 * 512.0));
    }

    /// The shipped architectures add up to the published number of parameters, which their rows quote, and to the cache per token.
    #[test]
    fn shipped_architectures_have_the_published_size() {
        let models = onbeat_core::spec::Library::shipped().models();
        let known: Vec<_> =
            models.iter().filter_map(|(name, spec)| Some((name, spec, spec.transformer.as_ref()?))).collect();
        assert!(known.len() >= 18, "{} architectures", known.len());
        for (name, spec, transformer) in known {
            assert_eq!(transformer.mistakes(), [], "{name}");
            let quoted = spec.row.as_deref().and_then(|row| row.split_whitespace().next()).expect("a row");
            let published: f64 = quoted.parse().expect("the row starts with the number of parameters");
            let counted = parameters(transformer);
            assert!((counted / published - 1.0).abs() < 0.01, "{name}: {counted} of {published}");
            let full = f64::from(transformer.layers - transformer.windowed_layers);
            let of_layer = f64::from(2 * transformer.kv_heads * transformer.head_size() * 2) / 1e3;
            let cache = spec.kv_kb_per_token.expect("a cache");
            let all = f64::from(transformer.layers) * of_layer;
            assert!([full * of_layer, all].iter().any(|kb| (kb - cache).abs() < 1e-6), "{name}: {cache} kB");
        }
    }

    proptest! {
        /// More tokens, a longer past and more requests never take less of anything.
        #[test]
        fn more_work_is_never_less(
            new in 1u32..5000, past in 0u32..5000, batch in 1u32..64, more in 1u32..500,
            experts in 1u32..9, windowed in 0u32..3,
        ) {
            let active = experts.min(2);
            let spec = spec(&format!(
                "experts = {experts}\nactive_experts = {active}\nwindow = 300\nwindowed_layers = {windowed}\n"
            ));
            let pass = Pass { new, past, batch, last: true };
            let base = transformer(&spec, 1e4, pass);
            let larger = [
                Pass { new: new + more, ..pass },
                Pass { past: past + more, ..pass },
                Pass { batch: batch + more, ..pass },
            ];
            for pass in larger {
                for (small, large) in base.iter().zip(transformer(&spec, 1e4, pass)) {
                    prop_assert_eq!(small.name, large.name);
                    prop_assert!(large.operations >= small.operations * (1.0 - 1e-12), "{:?}", large);
                    prop_assert!(large.bytes >= small.bytes * (1.0 - 1e-12), "{:?}", large);
                }
            }
        }

        /// A prompt in two passes has the operations of one pass.
        #[test]
        fn passes_add_up(first in 1u32..3000, second in 1u32..3000, windowed in 0u32..3) {
            let spec = spec(&format!("window = 300\nwindowed_layers = {windowed}\n"));
            let sum = |pass| transformer(&spec, 1e4, pass).iter().map(|o| o.operations).sum::<f64>();
            let whole = sum(Pass { new: first + second, past: 0, batch: 1, last: true });
            let parts = sum(Pass { new: first, past: 0, batch: 1, last: false })
                + sum(Pass { new: second, past: first, batch: 1, last: true });
            prop_assert!((whole - parts).abs() <= 1e-9 * whole);
        }
    }
}
