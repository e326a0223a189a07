//! Whisper's encoder as an ONNX network.

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Dim, ElementType};

use super::layers::{Net, size};
use super::mel::BANDS;

impl Net<'_> {
    /// The encoder, with the decoder's keys and values of what was heard, which stay the same for all tokens:
    /// `mel [1, 80, frames]` → per layer of the decoder `cross_key_N [1, heads, head, audio]`, `cross_value_N [1, heads, audio, head]`,
    /// `audio` being half of `frames`.
    pub(super) fn encoder(mut self) -> Result<Vec<u8>, Error> {
        let free = |name: &str| Dim::Free(name.into());
        let mel = self.g.input("mel", ElementType::F32, &[Dim::Fixed(1), Dim::Fixed(BANDS), free("frames")]);
        let near = self.convolution(&mel, "encoder/conv1", BANDS, 1)?;
        let far = self.convolution(&near, "encoder/conv2", self.width, 2)?;
        let mut x = self.transpose(&far, &[0, 2, 1]);

        let name = "encoder/position_encodings/encodings";
        let [window_max, _] = self.weights.shape(name)?;
        let positions = self.variable(name, &[window_max, self.width])?;
        let (start, end) = (self.ints(&[0]), self.size(&x, 1));
        let positions = self.slice(&positions, &start, &end, 0);
        x = self.add(&x, &positions);

        for layer in 0..self.layers("encoder") {
            x = self.encoder_layer(&x, &format!("encoder/layer_{layer}"))?;
        }
        x = self.norm(&x, "encoder/layer_norm")?;

        for layer in 0..self.layers("decoder") {
            let prefix = format!("decoder/layer_{layer}/attention/linear_1");
            let both = self.linear(&x, &prefix, [self.width, 2 * self.width], 0)?;
            let parts = self.parts(&both, 2);
            let (key, value) = (self.heads(&parts[0]), self.heads(&parts[1]));
            let key = self.transpose(&key, &[0, 1, 3, 2]);
            let (heads, head) = (Dim::Fixed(self.heads), Dim::Fixed(self.head()));
            let shape = [Dim::Fixed(1), heads.clone(), head.clone(), free("audio")];
            self.g.output_named(&key, &format!("cross_key_{layer}"), ElementType::F32, &shape);
            let shape = [Dim::Fixed(1), heads, free("audio"), head];
            self.g.output_named(&value, &format!("cross_value_{layer}"), ElementType::F32, &shape);
        }
        Ok(self.g.finish())
    }

    fn convolution(&mut self, x: &str, prefix: &str, channels: usize, stride: i64) -> Result<String, Error> {
        let w = self.variable(&format!("{prefix}/weight"), &[self.width, channels, 3])?;
        let b = self.variable(&format!("{prefix}/bias"), &[self.width])?;
        let attributes = [
            ("kernel_shape", Attr::Ints(vec![3])),
            ("pads", Attr::Ints(vec![1, 1])),
            ("strides", Attr::Ints(vec![stride])),
        ];
        let y = self.g.node("Conv", &[x, &w, &b], &attributes);
        Ok(self.gelu(&y))
    }

    fn encoder_layer(&mut self, x: &str, layer: &str) -> Result<String, Error> {
        let normed = self.norm(x, &format!("{layer}/self_attention/layer_norm"))?;
        let width = self.width;
        let fused = self.linear(&normed, &format!("{layer}/self_attention/linear_0"), [width, 3 * width], width)?;
        let parts = self.parts(&fused, 3);
        let [query, key, value] = [0, 1, 2].map(|part| self.heads(&parts[part]));
        let key = self.transpose(&key, &[0, 1, 3, 2]);
        let mixed = self.attention(&query, &key, &value, None);
        let out = self.linear(&mixed, &format!("{layer}/self_attention/linear_1"), [width, width], 0)?;
        let sum = self.add(x, &out);
        self.feed_forward(&sum, layer)
    }

    /// Equal parts of the last dimension, each as wide as the network.
    pub(super) fn parts(&mut self, x: &str, count: usize) -> Vec<String> {
        let sizes = self.ints(&vec![size(self.width); count]);
        self.g.node_n("Split", &[x, &sizes], &[("axis", Attr::Int(-1))], count)
    }
}
