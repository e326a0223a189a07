//! Takes the tensors of a TFLite network through its operators, from the layout batch, height, width, channels to ONNX's batch,
//! channels, height, width.

use std::collections::{HashMap, HashSet};

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

use super::file::{Kind, Network, Tensor};

/// Converts a TFLite network to ONNX, operator set 17, 32-bit floating point.
///
/// For the networks of the package `mediapipe` 0.10.21: convolutions (plain, depthwise, and its own transposed one with a bias),
/// pooling, element-wise sums and products, activations, padding, resizing, reshaping, concatenation, dense layers; 32-bit weights,
/// or 16-bit ones, which are widened. Pictures change from batch, height, width, channels to batch, channels, height, width; tensors
/// of other ranks stay as they are. Inputs and outputs keep their names.
///
/// # Errors
/// [`ErrorKind::InvalidModel`](onbeat_backend::ErrorKind::InvalidModel) if the file is damaged,
/// [`ErrorKind::Unsupported`](onbeat_backend::ErrorKind::Unsupported) for other operators, sparse or integer weights.
pub fn convert_tflite(file: &[u8]) -> Result<Vec<u8>, Error> {
    let network = Network::read(file)?;
    let mut conversion = Conversion::new(&network, file.len());
    conversion.inputs()?;
    for (i, operator) in network.operators.iter().enumerate() {
        conversion.operator(operator).map_err(|error| error.about(&format!("operator {i}")))?;
    }
    conversion.outputs()?;
    Ok(conversion.graph.finish())
}

/// The ONNX graph in the making.
pub(super) struct Conversion<'a> {
    network: &'a Network<'a>,
    graph: Builder,
    /// The ONNX value of each tensor that is computed.
    values: HashMap<usize, String>,
    /// Where the weights of a tensor are that an operator only widens from 16 bits.
    widened: HashMap<usize, usize>,
    /// Names in the graph.
    names: HashSet<String>,
    /// Numbers that may still be written. A damaged file could use one buffer for thousands of tensors.
    budget: usize,
}

impl<'a> Conversion<'a> {
    fn new(network: &'a Network<'a>, file_bytes: usize) -> Self {
        Self {
            network,
            graph: Builder::new("tflite", 17),
            values: HashMap::new(),
            widened: HashMap::new(),
            names: HashSet::from([String::new()]),
            budget: file_bytes.saturating_mul(4).saturating_add(1 << 22),
        }
    }

    fn inputs(&mut self) -> Result<(), Error> {
        for &index in &self.network.inputs {
            let (index, tensor) = self.tensor(index)?;
            if tensor.kind != Kind::F32 {
                return Err(Error::unsupported(format!("the input `{}` is not 32-bit floating point", tensor.name)));
            }
            self.free_name(tensor.name)?;
            let name = self.graph.input(tensor.name, ElementType::F32, &dims(&tensor.shape));
            self.values.insert(index, name);
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), Error> {
        for &index in &self.network.outputs {
            let (_, tensor) = self.tensor(index)?;
            let value = self.value(index)?;
            if value != tensor.name {
                self.free_name(tensor.name)?;
            }
            self.graph.output_named(&value, tensor.name, ElementType::F32, &dims(&tensor.shape));
        }
        Ok(())
    }

    /// Takes a name of the file for the graph.
    fn free_name(&mut self, name: &str) -> Result<(), Error> {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(Error::invalid_model(format!("`{name}` is the name of two inputs or outputs, or of an operator")))
    }

    /// A tensor of the file by its number.
    pub(super) fn tensor(&self, index: i32) -> Result<(usize, &'a Tensor<'a>), Error> {
        let tensor = usize::try_from(index).ok().and_then(|i| Some((i, self.network.tensors.get(i)?)));
        tensor.ok_or_else(|| {
            let count = self.network.tensors.len();
            Error::invalid_model(format!("it names tensor {index}, but the file has {count}"))
        })
    }

    /// The ONNX value of a tensor that is an input or computed by an operator before.
    pub(super) fn value(&self, index: i32) -> Result<String, Error> {
        let (i, tensor) = self.tensor(index)?;
        self.values.get(&i).cloned().ok_or_else(|| {
            Error::invalid_model(format!("tensor {index}, `{}`, is used before it is computed", tensor.name))
        })
    }

    /// Notes that an ONNX value is a tensor of the file.
    pub(super) fn set(&mut self, index: i32, value: String) -> Result<(), Error> {
        let (i, tensor) = self.tensor(index)?;
        if self.values.insert(i, value).is_some() {
            return Err(Error::invalid_model(format!("tensor {index}, `{}`, is computed twice", tensor.name)));
        }
        Ok(())
    }

    /// Notes that one tensor is another one in 32 bits.
    pub(super) fn widen(&mut self, from: i32, to: i32) -> Result<(), Error> {
        let ((source, stored), (target, widened)) = (self.tensor(from)?, self.tensor(to)?);
        if stored.data.is_empty() || stored.shape != widened.shape {
            let what = "widens a tensor that is not weights, or to another shape";
            return Err(Error::unsupported(format!("it {what}: `{}`", stored.name)));
        }
        self.widened.insert(target, source);
        Ok(())
    }

    /// The tensor that holds the weights, if it is weights.
    fn stored(&self, index: i32) -> Result<Option<&'a Tensor<'a>>, Error> {
        let (i, tensor) = self.tensor(index)?;
        let tensor = self.widened.get(&i).map_or(tensor, |&source| &self.network.tensors[source]);
        Ok((!tensor.data.is_empty()).then_some(tensor))
    }

    /// Whether a tensor is weights.
    pub(super) fn is_weights(&self, index: i32) -> Result<bool, Error> {
        Ok(self.stored(index)?.is_some())
    }

    /// Shape and elements of weights.
    pub(super) fn weights(&mut self, index: i32) -> Result<(&'a [usize], Vec<f32>), Error> {
        let tensor = self.stored(index)?;
        let tensor =
            tensor.ok_or_else(|| Error::unsupported(format!("tensor {index} is computed; weights are needed")))?;
        let count: usize = tensor.shape.iter().product();
        let bytes = if tensor.kind == Kind::F16 { 2 } else { 4 };
        tensor.filled(bytes)?;
        self.spend(count)?;
        let elements = match tensor.kind {
            Kind::F32 => {
                tensor.data.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
            }
            Kind::F16 => tensor.data.chunks_exact(2).map(|it| widen(u16::from_le_bytes([it[0], it[1]]))).collect(),
            Kind::I32 | Kind::Other => {
                return Err(Error::unsupported(format!("`{}` has elements that are not floating point", tensor.name)));
            }
        };
        Ok((&tensor.shape, elements))
    }

    /// Notes that so many numbers are added to the graph.
    pub(super) fn spend(&mut self, elements: usize) -> Result<(), Error> {
        let what = "the file's weights are used so often that the network would be far larger than the file";
        self.budget = self.budget.checked_sub(elements).ok_or_else(|| Error::invalid_model(what))?;
        Ok(())
    }

    /// Shape and elements of constant integers: sizes, axes.
    pub(super) fn integers(&mut self, index: i32) -> Result<(&'a [usize], Vec<i64>), Error> {
        let tensor = self.stored(index)?.filter(|it| it.kind == Kind::I32);
        let tensor =
            tensor.ok_or_else(|| Error::unsupported(format!("tensor {index} is not constant integers of 32 bits")))?;
        tensor.filled(4)?;
        self.spend(tensor.data.len() / 4)?;
        let elements =
            tensor.data.chunks_exact(4).map(|it| i64::from(i32::from_le_bytes([it[0], it[1], it[2], it[3]])));
        Ok((&tensor.shape, elements.collect()))
    }

    /// Adds weights to the graph.
    pub(super) fn put(&mut self, name: &str, shape: &[usize], elements: Vec<f32>) -> String {
        self.note(|graph| graph.f32(name, shape, elements))
    }

    /// Adds constant integers to the graph.
    pub(super) fn put_integers(&mut self, name: &str, elements: Vec<i64>) -> String {
        self.note(|graph| graph.i64(name, &[elements.len()], elements))
    }

    /// Adds a node to the graph.
    pub(super) fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        self.note(|graph| graph.node(operator, inputs, attributes))
    }

    fn note(&mut self, add: impl FnOnce(&mut Builder) -> String) -> String {
        let name = add(&mut self.graph);
        self.names.insert(name.clone());
        name
    }
}

impl Tensor<'_> {
    /// Checks that the data is as long as the shape says.
    fn filled(&self, element_bytes: usize) -> Result<(), Error> {
        let wanted = self.shape.iter().product::<usize>() * element_bytes;
        if self.data.len() == wanted {
            return Ok(());
        }
        let (name, shape, found) = (self.name, &self.shape, self.data.len());
        Err(Error::invalid_model(format!(
            "the weights `{name}` of shape {shape:?} take {wanted} bytes, but have {found}"
        )))
    }
}

/// Sizes in ONNX's order.
fn dims(shape: &[usize]) -> Vec<Dim> {
    let order = if let &[n, h, w, c] = shape { vec![n, c, h, w] } else { shape.to_vec() };
    order.into_iter().map(Dim::Fixed).collect()
}

/// The number that the bits of a 16-bit floating point number (IEEE 754 binary16) stand for.
fn widen(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    }
}

/// Elements in another order of dimensions: dimension `i` of the result is dimension `order[i]` of `elements`, whose shape is `shape`.
pub(super) fn permute<const N: usize>(elements: &[f32], shape: [usize; N], order: [usize; N]) -> Vec<f32> {
    let mut strides = [1; N];
    for i in (1..N).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    let (sizes, strides) = (order.map(|i| shape[i]), order.map(|i| strides[i]));
    let mut at = [0; N];
    let mut result = Vec::with_capacity(elements.len());
    for _ in 0..elements.len() {
        result.push(elements[at.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for i in (0..N).rev() {
            at[i] += 1;
            if at[i] < sizes[i] {
                break;
            }
            at[i] = 0;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_numbers_are_widened() {
        // Examples of the table in the Wikipedia article "Half-precision floating-point format".
        let cases: [(u16, f32); 9] = [
            (0x3c00, 1.0),
            (0x3c01, 1.000_976_6),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(widen(bits), value, "{bits:#06x}");
        }
        assert!(widen(0x7e00).is_nan());
    }

    #[test]
    fn dimensions_change_places() {
        // Two pictures of 1 × 2 pixels with 3 channels: the channels of a pixel lie side by side, then they lie apart.
        let picture = [1., 2., 3., 4., 5., 6., 11., 12., 13., 14., 15., 16.];
        let planes = permute(&picture, [2, 1, 2, 3], [0, 3, 1, 2]);
        assert_eq!(planes, [1., 4., 2., 5., 3., 6., 11., 14., 12., 15., 13., 16.]);
        assert_eq!(permute(&planes, [2, 3, 1, 2], [0, 2, 3, 1]), picture);
    }
}
