//! Weights of eight bits.

use onbeat_onnx::Attr;

use super::layers::Net;

/// Largest weight: −128 is left out, so that both signs reach equally far.
const LARGEST: f32 = 127.0;
/// ONNX's number of 32-bit floating point.
const FLOAT: i64 = 1;

/// Weights `[inputs, outputs]` of eight bits, and what each output's are multiplied by: the names of constants.
pub(super) struct Quantised {
    weights: String,
    zeros: String,
    scales: String,
}

impl Net<'_> {
    /// Rounds weights `[outputs, inputs]`, each output's to a multiple of a 127th of its largest one.
    pub(super) fn quantised(&mut self, name: &str, [inputs, outputs]: [usize; 2], weights: &[f32]) -> Quantised {
        let mut scales = Vec::with_capacity(outputs);
        let mut rounded = vec![0_i8; weights.len()];
        for (output, row) in weights.chunks_exact(inputs).enumerate() {
            let largest = row.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            let scale = if largest > 0.0 { largest / LARGEST } else { 1.0 };
            for (input, weight) in row.iter().enumerate() {
                rounded[input * outputs + output] = (weight / scale).round() as i8;
            }
            scales.push(scale);
        }
        Quantised {
            weights: self.g.i8(name, &[inputs, outputs], rounded),
            zeros: self.g.i8("zeros", &[outputs], vec![0; outputs]),
            scales: self.g.f32("scales", &[outputs], scales),
        }
    }

    /// `x W`, computed with 8-bit integers: `x` is rounded too, to 255 steps between its least and its largest element. The order
    /// of operators is that of ONNX Runtime's dynamic quantisation, which runtimes recognise and fuse.
    pub(super) fn quantised_product(&mut self, x: &str, w: &Quantised) -> String {
        let parts = self.g.node_n("DynamicQuantizeLinear", &[x], &[], 3);
        let scales = self.g.node("Mul", &[&parts[1], &w.scales], &[]);
        let product = self.g.node("MatMulInteger", &[&parts[0], &w.weights, &parts[2], &w.zeros], &[]);
        let product = self.g.node("Cast", &[&product], &[("to", Attr::Int(FLOAT))]);
        self.g.node("Mul", &[&product, &scales], &[])
    }

    /// The weights of the outputs `[1, n]`, as they were before rounding, nearly: `[1, n, inputs]`.
    pub(super) fn quantised_rows(&mut self, outputs: &str, w: &Quantised) -> String {
        let columns = self.g.node("Gather", &[&w.weights, outputs], &[("axis", Attr::Int(1))]);
        let columns = self.g.node("Cast", &[&columns], &[("to", Attr::Int(FLOAT))]);
        let rows = self.transpose(&columns, &[1, 2, 0]);
        let scales = self.g.node("Gather", &[&w.scales, outputs], &[("axis", Attr::Int(0))]);
        let scales = self.reshape(&scales, &[1, -1, 1]);
        self.g.node("Mul", &[&rows, &scales], &[])
    }
}
