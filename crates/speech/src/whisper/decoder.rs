//! Whisper's decoder as an ONNX network.

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Dim, ElementType};

use super::layers::{Net, WhisperWeights, size};
use super::quantised::Quantised;

const EMBEDDINGS: &str = "decoder/embeddings/weight";
const PROJECTION: &str = "decoder/projection/weight";

/// The matrix that logits come from.
enum Projection {
    /// `[vocabulary, width]`.
    AsStored(String),
    /// `[width, vocabulary]`.
    Int8(Quantised),
}

/// Added to the scores of what a token must not see.
const UNSEEN: f32 = -1e4;

impl Net<'_> {
    /// One pass of the decoder: `tokens [1, new]`; per layer `past_key_N` and `past_value_N [1, heads, past, head]` and the encoder's
    /// `cross_key_N` and `cross_value_N` → `logits [1, vocabulary]` of what follows the last token; per layer `present_key_N` and
    /// `present_value_N [1, heads, past + new, head]`, and `kept_key_N` and `kept_value_N`: the encoder's, handed back for the next
    /// pass.
    pub(super) fn decoder(mut self) -> Result<Vec<u8>, Error> {
        let free = |name: &str| Dim::Free(name.into());
        let (one, heads, head) = (Dim::Fixed(1), Dim::Fixed(self.heads), Dim::Fixed(self.head()));
        let layers = self.layers("decoder");
        let tokens = self.g.input("tokens", ElementType::I64, &[one.clone(), free("new")]);
        let cache = [one.clone(), heads.clone(), free("past"), head.clone()];
        let cross_key = [one.clone(), heads.clone(), head.clone(), free("audio")];
        let cross_value = [one.clone(), heads.clone(), free("audio"), head.clone()];
        let inputs: Vec<[String; 4]> = (0..layers)
            .map(|layer| {
                let ports = [
                    ("past_key", &cache),
                    ("past_value", &cache),
                    ("cross_key", &cross_key),
                    ("cross_value", &cross_value),
                ];
                ports.map(|(name, shape)| self.g.input(&format!("{name}_{layer}"), ElementType::F32, shape))
            })
            .collect();

        let (vocabulary, projection) = self.projection()?;
        let past = self.size(&inputs[0][0], 2);
        let new = self.size(&tokens, 1);
        let all = self.add(&past, &new);
        let name = "decoder/position_encodings/encodings";
        let [tokens_max, _] = self.weights.shape(name)?;
        let positions = self.variable(name, &[tokens_max, self.width])?;
        let positions = self.slice(&positions, &past, &all, 0);
        let embedded = self.embedded(&tokens, vocabulary, &projection)?;
        let mut x = self.add(&embedded, &positions);

        let mask =
            (0..tokens_max * tokens_max).map(|i| if i % tokens_max > i / tokens_max { UNSEEN } else { 0.0 }).collect();
        let mask = self.constant("mask", &[tokens_max, tokens_max], mask);
        let rows = self.slice(&mask, &past, &all, 0);
        let zero = self.ints(&[0]);
        let mask = self.slice(&rows, &zero, &all, 1);

        let mut caches = Vec::with_capacity(layers);
        for (layer, inputs) in inputs.iter().enumerate() {
            let (y, cache) = self.decoder_layer(&x, &format!("decoder/layer_{layer}"), inputs, &mask)?;
            x = y;
            caches.push(cache);
        }
        let minus_one = self.ints(&[-1]);
        let last = self.slice(&x, &minus_one, &all, 1);
        let last = self.norm(&last, "decoder/layer_norm")?;
        let last = self.reshape(&last, &[1, size(self.width)]);
        let logits = match &projection {
            Projection::AsStored(w) => self.g.node("Gemm", &[&last, w], &[("transB", Attr::Int(1))]),
            Projection::Int8(w) => self.quantised_product(&last, w),
        };

        self.g.output_named(&logits, "logits", ElementType::F32, &[one.clone(), Dim::Fixed(vocabulary)]);
        let shape = [one, heads, free("all"), head];
        for (layer, [key, value]) in caches.iter().enumerate() {
            self.g.output_named(key, &format!("present_key_{layer}"), ElementType::F32, &shape);
            self.g.output_named(value, &format!("present_value_{layer}"), ElementType::F32, &shape);
        }
        for (layer, [_, _, key, value]) in inputs.iter().enumerate() {
            self.g.output_named(key, &format!("kept_key_{layer}"), ElementType::F32, &cross_key);
            self.g.output_named(value, &format!("kept_value_{layer}"), ElementType::F32, &cross_value);
        }
        Ok(self.g.finish())
    }

    /// How many tokens there are, and the matrix that their logits come from.
    fn projection(&mut self) -> Result<(usize, Projection), Error> {
        let [vocabulary, _] = self.weights.shape(EMBEDDINGS)?;
        let elements = self.weights.floats(PROJECTION, &[vocabulary, self.width])?;
        let projection = match self.matrices {
            WhisperWeights::AsStored => {
                Projection::AsStored(self.constant(PROJECTION, &[vocabulary, self.width], elements))
            }
            WhisperWeights::Int8 => Projection::Int8(self.quantised(PROJECTION, [self.width, vocabulary], &elements)),
        };
        Ok((vocabulary, projection))
    }

    /// The vectors that tokens begin as. Whisper takes them from the projection; weights in which the two differ are kept apart.
    fn embedded(&mut self, tokens: &str, vocabulary: usize, projection: &Projection) -> Result<String, Error> {
        let rows = match projection {
            Projection::Int8(w) if self.weights.same(EMBEDDINGS, PROJECTION) => {
                return Ok(self.quantised_rows(tokens, w));
            }
            Projection::AsStored(w) if self.weights.same(EMBEDDINGS, PROJECTION) => w.clone(),
            _ => self.variable(EMBEDDINGS, &[vocabulary, self.width])?,
        };
        Ok(self.g.node("Gather", &[&rows, tokens], &[("axis", Attr::Int(0))]))
    }

    fn decoder_layer(
        &mut self,
        x: &str,
        layer: &str,
        [past_key, past_value, cross_key, cross_value]: &[String; 4],
        mask: &str,
    ) -> Result<(String, [String; 2]), Error> {
        let width = self.width;
        let normed = self.norm(x, &format!("{layer}/self_attention/layer_norm"))?;
        let fused = self.linear(&normed, &format!("{layer}/self_attention/linear_0"), [width, 3 * width], width)?;
        let parts = self.parts(&fused, 3);
        let [query, key, value] = [0, 1, 2].map(|part| self.heads(&parts[part]));
        let key = self.g.node("Concat", &[past_key, &key], &[("axis", Attr::Int(2))]);
        let value = self.g.node("Concat", &[past_value, &value], &[("axis", Attr::Int(2))]);
        let turned = self.transpose(&key, &[0, 1, 3, 2]);
        let mixed = self.attention(&query, &turned, &value, Some(mask));
        let out = self.linear(&mixed, &format!("{layer}/self_attention/linear_1"), [width, width], 0)?;
        let x = self.add(x, &out);

        let normed = self.norm(&x, &format!("{layer}/attention/layer_norm"))?;
        let query = self.linear(&normed, &format!("{layer}/attention/linear_0"), [width, width], width)?;
        let query = self.heads(&query);
        let mixed = self.attention(&query, cross_key, cross_value, None);
        let out = self.linear(&mixed, &format!("{layer}/attention/linear_2"), [width, width], 0)?;
        let x = self.add(&x, &out);
        Ok((self.feed_forward(&x, layer)?, [key, value]))
    }
}
