//! What Whisper's encoder and decoder are built of.

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Builder};

use super::ctranslate2::{Weights, narrow};

/// How a converted Whisper stores the matrices of its decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhisperWeights {
    /// As they came: the same values.
    #[default]
    AsStored,
    /// With eight bits, and computed with integers. A text is written faster, but some words come out otherwise. On x86 processors
    /// without VNNI, ONNX Runtime's sums of products can saturate, which costs more words.
    Int8,
}

/// A network that is being built from weights.
pub(super) struct Net<'a> {
    pub(super) g: Builder,
    pub(super) weights: &'a Weights,
    /// Size of the vectors that pass from layer to layer.
    pub(super) width: usize,
    /// Attention heads.
    pub(super) heads: usize,
    /// How the matrices are stored.
    pub(super) matrices: WhisperWeights,
}

impl Net<'_> {
    /// Size of one head.
    pub(super) fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Adds weights. Those that were 16-bit numbers stay so in the file, which loses nothing and halves it.
    pub(super) fn constant(&mut self, name: &str, shape: &[usize], elements: Vec<f32>) -> String {
        let small = elements.len() < 1024;
        match elements.iter().map(|&v| narrow(v)).collect::<Option<Vec<u16>>>() {
            Some(bits) if !small => {
                let half = self.g.f16_bits(name, shape, bits);
                self.g.node("Cast", &[&half], &[("to", Attr::Int(1))])
            }
            _ => self.g.f32(name, shape, elements),
        }
    }

    /// A variable as it is.
    pub(super) fn variable(&mut self, name: &str, shape: &[usize]) -> Result<String, Error> {
        let elements = self.weights.floats(name, shape)?;
        Ok(self.constant(name, shape, elements))
    }

    /// A list of whole numbers.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.g.i64("ints", &[values.len()], values.to_vec())
    }

    /// The size of one dimension, as a list of one number.
    pub(super) fn size(&mut self, value: &str, dimension: i64) -> String {
        let attributes = [("start", Attr::Int(dimension)), ("end", Attr::Int(dimension + 1))];
        self.g.node("Shape", &[value], &attributes)
    }

    /// `value[start..end]` along a dimension.
    pub(super) fn slice(&mut self, value: &str, start: &str, end: &str, dimension: i64) -> String {
        let axes = self.ints(&[dimension]);
        self.g.node("Slice", &[value, start, end, &axes], &[])
    }

    /// Another shape; 0 keeps a size, −1 is what is left.
    pub(super) fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.g.node("Reshape", &[value, &shape], &[])
    }

    /// Dimensions in another order.
    pub(super) fn transpose(&mut self, value: &str, order: &[i64]) -> String {
        self.g.node("Transpose", &[value], &[("perm", Attr::Ints(order.to_vec()))])
    }

    pub(super) fn add(&mut self, a: &str, b: &str) -> String {
        self.g.node("Add", &[a, b], &[])
    }

    /// `x W + b`, from the variables `prefix/weight [outputs, inputs]` and `prefix/bias`. The first `scaled` outputs are divided by
    /// the square root of a head's size: queries, whose products with keys are divided by it.
    pub(super) fn linear(
        &mut self,
        x: &str,
        prefix: &str,
        [inputs, outputs]: [usize; 2],
        scaled: usize,
    ) -> Result<String, Error> {
        let mut weights = self.weights.floats(&format!("{prefix}/weight"), &[outputs, inputs])?;
        let mut bias = self.weights.floats(&format!("{prefix}/bias"), &[outputs])?;
        let factor = 1.0 / (self.head() as f32).sqrt();
        let factor_of = |output: usize| if output < scaled { factor } else { 1.0 };
        weights.iter_mut().enumerate().for_each(|(i, w)| *w *= factor_of(i / inputs));
        bias.iter_mut().enumerate().for_each(|(output, b)| *b *= factor_of(output));
        let name = format!("{prefix}/weight");
        let product = match self.matrices {
            WhisperWeights::AsStored => {
                let mut transposed = vec![0.0; weights.len()];
                for (i, weight) in weights.into_iter().enumerate() {
                    transposed[i % inputs * outputs + i / inputs] = weight;
                }
                let w = self.constant(&name, &[inputs, outputs], transposed);
                self.g.node("MatMul", &[x, &w], &[])
            }
            WhisperWeights::Int8 => {
                let w = self.quantised(&name, [inputs, outputs], &weights);
                self.quantised_product(x, &w)
            }
        };
        let b = self.g.f32(&format!("{prefix}/bias"), &[outputs], bias);
        Ok(self.add(&product, &b))
    }

    /// Normalisation of each vector.
    pub(super) fn norm(&mut self, x: &str, prefix: &str) -> Result<String, Error> {
        let gamma = self.weights.floats(&format!("{prefix}/gamma"), &[self.width])?;
        let beta = self.weights.floats(&format!("{prefix}/beta"), &[self.width])?;
        let gamma = self.g.f32(&format!("{prefix}/gamma"), &[self.width], gamma);
        let beta = self.g.f32(&format!("{prefix}/beta"), &[self.width], beta);
        let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(1e-5))];
        Ok(self.g.node("LayerNormalization", &[x, &gamma, &beta], &attributes))
    }

    /// `x · (erf(x / √2) + 1) · 0.5`, in the order that runtimes recognise and fuse.
    pub(super) fn gelu(&mut self, x: &str) -> String {
        let root = self.g.f32("root", &[], vec![std::f32::consts::SQRT_2]);
        let one = self.g.f32("one", &[], vec![1.0]);
        let half = self.g.f32("half", &[], vec![0.5]);
        let scaled = self.g.node("Div", &[x, &root], &[]);
        let erf = self.g.node("Erf", &[&scaled], &[]);
        let sum = self.add(&erf, &one);
        let product = self.g.node("Mul", &[x, &sum], &[]);
        self.g.node("Mul", &[&product, &half], &[])
    }

    /// `[1, n, width]` as `[1, heads, n, head]`.
    pub(super) fn heads(&mut self, x: &str) -> String {
        let split = self.reshape(x, &[1, -1, size(self.heads), size(self.head())]);
        self.transpose(&split, &[0, 2, 1, 3])
    }

    /// Attention of queries `[1, heads, n, head]` to keys `[1, heads, head, m]` and values `[1, heads, m, head]`, with what is
    /// added to the scores `[n, m]`: `[1, n, width]`.
    pub(super) fn attention(&mut self, query: &str, key: &str, value: &str, mask: Option<&str>) -> String {
        let mut scores = self.g.node("MatMul", &[query, key], &[]);
        if let Some(mask) = mask {
            scores = self.add(&scores, mask);
        }
        let shares = self.g.node("Softmax", &[&scores], &[("axis", Attr::Int(-1))]);
        let mixed = self.g.node("MatMul", &[&shares, value], &[]);
        let joined = self.transpose(&mixed, &[0, 2, 1, 3]);
        self.reshape(&joined, &[1, -1, size(self.width)])
    }

    /// The second half of a layer: `x + W₂ gelu(W₁ norm(x))`.
    pub(super) fn feed_forward(&mut self, x: &str, layer: &str) -> Result<String, Error> {
        let [inner, _] = self.weights.shape(&format!("{layer}/ffn/linear_0/weight"))?;
        let normed = self.norm(x, &format!("{layer}/ffn/layer_norm"))?;
        let up = self.linear(&normed, &format!("{layer}/ffn/linear_0"), [self.width, inner], 0)?;
        let active = self.gelu(&up);
        let down = self.linear(&active, &format!("{layer}/ffn/linear_1"), [inner, self.width], 0)?;
        Ok(self.add(x, &down))
    }

    /// How many layers there are below a prefix.
    pub(super) fn layers(&self, prefix: &str) -> usize {
        let mut count = 0;
        while self.weights.has(&format!("{prefix}/layer_{count}/ffn/linear_0/weight")) {
            count += 1;
        }
        count
    }
}

/// A size, as ONNX writes it.
pub(super) fn size(size: usize) -> i64 {
    i64::try_from(size).expect("sizes come from shapes in files, which have 32 bits")
}
