//! The operators, one by one.
#![expect(clippy::cast_possible_wrap, reason = "sizes are below 2^28, which is checked when the file is read")]

use onbeat_backend::Error;
use onbeat_onnx::Attr;

use super::convert::{Conversion, permute};
use super::file::Operator;
use super::flatbuffer::Table;

/// Places of an operator's settings: slots in its options.
struct Slots {
    padding: usize,
    stride_x: usize,
    stride_y: usize,
    activation: usize,
}

/// `Conv2DOptions`, `Pool2DOptions`; the depthwise convolution has one field more before the activation.
const CONV: Slots = Slots { padding: 0, stride_x: 1, stride_y: 2, activation: 3 };
const DEPTHWISE: Slots = Slots { activation: 4, ..CONV };
const POOL: Slots = Slots { activation: 5, ..CONV };

/// From height, width to the edges that ONNX pads: above, left, below, right.
type Pads = [i64; 4];

impl Conversion<'_> {
    /// Adds an operator of the file to the graph.
    pub(super) fn operator(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        // Numbers of `BuiltinOperator` in the schema.
        let (name, result) = match op.code {
            0 => ("ADD", self.element_wise(op, "Add")),
            1 => ("AVERAGE_POOL_2D", self.pool(op, "AveragePool")),
            2 => ("CONCATENATION", self.concatenation(op)),
            3 => ("CONV_2D", self.convolution(op)),
            4 => ("DEPTHWISE_CONV_2D", self.depthwise(op)),
            5 => ("DEPTH_TO_SPACE", self.depth_to_space(op)),
            6 => ("DEQUANTIZE", op.input(0).and_then(|from| self.widen(from, op.output()?))),
            9 => ("FULLY_CONNECTED", self.dense(op)),
            14 => ("LOGISTIC", self.unary(op, "Sigmoid")),
            17 => ("MAX_POOL_2D", self.pool(op, "MaxPool")),
            18 => ("MUL", self.element_wise(op, "Mul")),
            19 => ("RELU", self.unary(op, "Relu")),
            21 => ("RELU6", self.relu6(op)),
            22 => ("RESHAPE", self.reshape(op)),
            23 => ("RESIZE_BILINEAR", self.resize(op)),
            32 if op.custom == "Convolution2DTransposeBias" => (op.custom, self.transposed(op)),
            34 => ("PAD", self.pad(op)),
            40 => ("MEAN", self.mean(op)),
            54 => ("PRELU", self.prelu(op)),
            117 => ("HARD_SWISH", self.unary(op, "HardSwish")),
            code => {
                let which = if code == 32 { format!("`{}`", op.custom) } else { format!("with the number {code}") };
                return Err(Error::unsupported(format!("the operator {which} is not supported")));
            }
        };
        result.map_err(|error| error.about(name))
    }

    /// Adds a node, and the activation that is part of the operator.
    fn finish(&mut self, op: &Operator<'_>, activation: i8, value: String) -> Result<(), Error> {
        // Numbers of `ActivationFunctionType` in the schema.
        let value = match activation {
            0 => value,
            1 => self.node("Relu", &[&value], &[]),
            3 => self.clip(&value),
            other => {
                return Err(Error::unsupported(format!("the activation with the number {other} is not supported")));
            }
        };
        self.set(op.output()?, value)
    }

    fn clip(&mut self, value: &str) -> String {
        let (low, high) = (self.put("zero", &[], vec![0.0]), self.put("six", &[], vec![6.0]));
        self.node("Clip", &[value, &low, &high], &[])
    }

    fn unary(&mut self, op: &Operator<'_>, onnx: &str) -> Result<(), Error> {
        let x = self.value(op.input(0)?)?;
        let y = self.node(onnx, &[&x], &[]);
        self.set(op.output()?, y)
    }

    fn relu6(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.value(op.input(0)?)?;
        let y = self.clip(&x);
        self.set(op.output()?, y)
    }

    /// Height, width and channels of a picture.
    fn picture(&self, index: i32) -> Result<[usize; 3], Error> {
        let (_, tensor) = self.tensor(index)?;
        if let [_, h, w, c] = tensor.shape[..] {
            return Ok([h, w, c]);
        }
        Err(Error::unsupported(format!(
            "`{}` of shape {:?} is not a picture of four dimensions",
            tensor.name, tensor.shape
        )))
    }

    /// Weights of four dimensions.
    fn kernel(&mut self, index: i32) -> Result<([usize; 4], Vec<f32>), Error> {
        let (shape, elements) = self.weights(index)?;
        let shape = shape.try_into();
        Ok((shape.map_err(|_| Error::invalid_model("the weights do not have four dimensions"))?, elements))
    }

    /// Adds the bias, if there is one, which must have a number for each channel that comes out.
    fn bias(&mut self, op: &Operator<'_>, channels: usize) -> Result<String, Error> {
        let Some(index) = op.inputs.get(2).copied().filter(|&index| index >= 0) else { return Ok(String::new()) };
        let (shape, elements) = self.weights(index)?;
        if shape != [channels] {
            return Err(Error::invalid_model(format!("the bias has shape {shape:?}, not [{channels}]")));
        }
        Ok(self.put("bias", &[channels], elements))
    }

    fn convolution(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = op.input(0)?;
        let (shape, elements) = self.kernel(op.input(1)?)?;
        let [out, height, width, channels] = shape;
        let [_, _, given] = self.picture(x)?;
        if channels != given {
            return Err(Error::unsupported(format!("the weights are for {channels} channels; there are {given}")));
        }
        let weights = self.put("weights", &[out, channels, height, width], permute(&elements, shape, [0, 3, 1, 2]));
        let dilations = [positive(&op.options, 5, 1)?, positive(&op.options, 4, 1)?];
        self.convolve(op, &CONV, &weights, [height, width], dilations, 1, out)
    }

    fn depthwise(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = op.input(0)?;
        let (shape, elements) = self.kernel(op.input(1)?)?;
        let [one, height, width, out] = shape;
        let [_, _, given] = self.picture(x)?;
        if one != 1 || out % given != 0 {
            return Err(Error::invalid_model(format!("the weights of shape {shape:?} do not fit {given} channels")));
        }
        let weights = self.put("weights", &[out, 1, height, width], permute(&elements, shape, [3, 0, 1, 2]));
        let dilations = [positive(&op.options, 6, 1)?, positive(&op.options, 5, 1)?];
        self.convolve(op, &DEPTHWISE, &weights, [height, width], dilations, given, out)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what the two kinds of convolution have in common has no shorter form"
    )]
    fn convolve(
        &mut self,
        op: &Operator<'_>,
        slots: &Slots,
        weights: &str,
        kernel: [usize; 2],
        dilations: [usize; 2],
        groups: usize,
        out: usize,
    ) -> Result<(), Error> {
        let (strides, pads) = self.window(op, slots, kernel, dilations)?;
        let (x, bias) = (self.value(op.input(0)?)?, self.bias(op, out)?);
        let inputs = [x.as_str(), weights, &bias];
        let y = self.node(
            "Conv",
            if bias.is_empty() { &inputs[..2] } else { &inputs },
            &[
                ("kernel_shape", ints(kernel)),
                ("strides", ints(strides)),
                ("dilations", ints(dilations)),
                ("pads", Attr::Ints(pads.to_vec())),
                ("group", Attr::Int(groups as i64)),
            ],
        );
        self.finish(op, op.options.byte(slots.activation)?, y)
    }

    /// Strides and padding of an operator that slides a window over a picture.
    fn window(
        &self,
        op: &Operator<'_>,
        slots: &Slots,
        kernel: [usize; 2],
        dilations: [usize; 2],
    ) -> Result<([usize; 2], Pads), Error> {
        let [height, width, _] = self.picture(op.input(0)?)?;
        let strides = [positive(&op.options, slots.stride_y, 0)?, positive(&op.options, slots.stride_x, 0)?];
        let same = match op.options.byte(slots.padding)? {
            0 => true,
            1 => false,
            other => return Err(Error::invalid_model(format!("the padding has the number {other}, not 0 or 1"))),
        };
        let pads = |size: usize, kernel: usize, stride: usize, dilation: usize| {
            let reach = (kernel - 1) * dilation + 1;
            let total = if same { ((size.div_ceil(stride) - 1) * stride + reach).saturating_sub(size) } else { 0 };
            // Where the total is odd, the side of higher coordinates gets the more.
            ((total / 2) as i64, (total - total / 2) as i64)
        };
        let (above, below) = pads(height, kernel[0], strides[0], dilations[0]);
        let (left, right) = pads(width, kernel[1], strides[1], dilations[1]);
        Ok((strides, [above, left, below, right]))
    }

    /// MediaPipe's own transposed convolution. Its options are the C structure of TFLite's: padding, stride in x, stride in y.
    fn transposed(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = op.input(0)?;
        let (shape, elements) = self.kernel(op.input(1)?)?;
        let [out, height, width, channels] = shape;
        let [_, _, given] = self.picture(x)?;
        let stride = |i: usize| {
            let bytes = op.custom_options.get(4 * i..4 * i + 4)?;
            usize::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        if channels != given || stride(2) != Some(height) || stride(1) != Some(width) {
            return Err(Error::unsupported(
                "only kernels as large as the stride, for as many channels as there are, are supported",
            ));
        }
        let weights = self.put("weights", &[channels, out, height, width], permute(&elements, shape, [3, 0, 1, 2]));
        let (x, bias) = (self.value(x)?, self.bias(op, out)?);
        let inputs = [x.as_str(), &weights, &bias];
        let attributes = [("kernel_shape", ints([height, width])), ("strides", ints([height, width]))];
        let y = self.node("ConvTranspose", if bias.is_empty() { &inputs[..2] } else { &inputs }, &attributes);
        self.set(op.output()?, y)
    }

    fn pool(&mut self, op: &Operator<'_>, onnx: &str) -> Result<(), Error> {
        let kernel = [positive(&op.options, 4, 0)?, positive(&op.options, 3, 0)?];
        let (strides, pads) = self.window(op, &POOL, kernel, [1, 1])?;
        let x = self.value(op.input(0)?)?;
        let attributes =
            [("kernel_shape", ints(kernel)), ("strides", ints(strides)), ("pads", Attr::Ints(pads.to_vec()))];
        let y = self.node(onnx, &[&x], &attributes);
        self.finish(op, op.options.byte(POOL.activation)?, y)
    }

    /// A value, or weights in the order of ONNX's dimensions, so that they are spread over a picture as they were.
    fn operand(&mut self, index: i32, rank: usize) -> Result<String, Error> {
        if !self.is_weights(index)? {
            return self.value(index);
        }
        let (shape, elements) = self.weights(index)?;
        if rank != 4 {
            return Ok(self.put("constant", shape, elements));
        }
        let mut whole = [1; 4];
        let missing = whole.len().checked_sub(shape.len());
        let missing = missing.ok_or_else(|| Error::unsupported("a constant has more than four dimensions"))?;
        whole[missing..].copy_from_slice(shape);
        let [n, h, w, c] = whole;
        Ok(self.put("constant", &[n, c, h, w], permute(&elements, whole, [0, 3, 1, 2])))
    }

    fn element_wise(&mut self, op: &Operator<'_>, onnx: &str) -> Result<(), Error> {
        let rank = self.tensor(op.output()?)?.1.shape.len();
        let (a, b) = (self.operand(op.input(0)?, rank)?, self.operand(op.input(1)?, rank)?);
        let y = self.node(onnx, &[&a, &b], &[]);
        self.finish(op, op.options.byte(0)?, y)
    }

    fn prelu(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.value(op.input(0)?)?;
        let slope = self.operand(op.input(1)?, 4)?;
        let y = self.node("PRelu", &[&x, &slope], &[]);
        self.set(op.output()?, y)
    }

    fn pad(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.value(op.input(0)?)?;
        let (shape, edges) = self.integers(op.input(1)?)?;
        if shape != [4, 2] {
            return Err(Error::unsupported(format!("the padding has shape {shape:?}, not [4, 2]")));
        }
        let order = [0, 3, 1, 2];
        let pads = order.iter().map(|i| edges[2 * i]).chain(order.iter().map(|i| edges[2 * i + 1])).collect();
        let pads = self.put_integers("pads", pads);
        let y = self.node("Pad", &[&x, &pads], &[]);
        self.set(op.output()?, y)
    }

    /// Linear interpolation, as a product with a matrix from each side: `Resize` took a seventh of the time of the person segmentation
    /// in `rten` 0.27, where this takes next to none, and it makes no difference in ONNX Runtime 1.31.
    fn resize(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let [height, width, _] = self.picture(op.input(0)?)?;
        let x = self.value(op.input(0)?)?;
        let (_, size) = self.integers(op.input(1)?)?;
        let sizes: Vec<usize> = size.iter().filter_map(|&it| usize::try_from(it).ok()).collect();
        let [new_height, new_width] = sizes[..] else {
            return Err(Error::invalid_model(format!("the new size is {size:?}, not height and width")));
        };
        let corners = op.options.flag(2)?;
        let half = op.options.flag(3)?;
        let rows = self.interpolation(height, new_height, corners, half)?;
        let rows = self.put("rows", &[new_height, height], rows);
        let columns = self.interpolation(width, new_width, corners, half)?;
        let columns = permute(&columns, [new_width, width], [1, 0]);
        let columns = self.put("columns", &[width, new_width], columns);
        let wide = self.node("MatMul", &[&x, &columns], &[]);
        let y = self.node("MatMul", &[&rows, &wide], &[]);
        self.set(op.output()?, y)
    }

    /// For each new pixel of a line the share of each old one.
    fn interpolation(&mut self, old: usize, new: usize, corners: bool, half: bool) -> Result<Vec<f32>, Error> {
        let count = old.checked_mul(new).filter(|count| (1..1 << 20).contains(count));
        let count = count.ok_or_else(|| Error::unsupported(format!("{old} pixels cannot be resized to {new}")))?;
        self.spend(count)?;
        let mut shares = vec![0.0; count];
        for (i, line) in shares.chunks_exact_mut(old).enumerate() {
            let (i, old_size, new_size) = (i as f32, old as f32, new as f32);
            let at = match (corners, half) {
                (true, _) => i * (old_size - 1.0) / (new_size - 1.0).max(1.0),
                (false, true) => (i + 0.5) * old_size / new_size - 0.5,
                (false, false) => i * old_size / new_size,
            };
            let at = at.clamp(0.0, old_size - 1.0);
            let first = at as usize;
            line[first] += 1.0 - at.fract();
            line[(first + 1).min(old - 1)] += at.fract();
        }
        Ok(shares)
    }

    fn mean(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        self.picture(op.input(0)?)?;
        let x = self.value(op.input(0)?)?;
        let (_, axes) = self.integers(op.input(1)?)?;
        let mut axes: Vec<i64> = axes.into_iter().map(|axis| axis.rem_euclid(4)).collect();
        axes.sort_unstable();
        if axes != [1, 2] {
            return Err(Error::unsupported("only means over height and width are supported"));
        }
        let keep = Attr::Int(i64::from(op.options.flag(0)?));
        let y = self.node("ReduceMean", &[&x], &[("axes", Attr::Ints(vec![2, 3])), ("keepdims", keep)]);
        self.set(op.output()?, y)
    }

    /// The value in the file's own order of dimensions.
    fn as_stored(&mut self, index: i32) -> Result<String, Error> {
        let x = self.value(index)?;
        let is_picture = self.tensor(index)?.1.shape.len() == 4;
        Ok(if is_picture { self.node("Transpose", &[&x], &[("perm", Attr::Ints(vec![0, 2, 3, 1]))]) } else { x })
    }

    fn reshape(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.as_stored(op.input(0)?)?;
        let (_, target) = self.tensor(op.output()?)?;
        let shape = self.put_integers("shape", target.shape.iter().map(|&size| size as i64).collect());
        let mut y = self.node("Reshape", &[&x, &shape], &[]);
        if target.shape.len() == 4 {
            y = self.node("Transpose", &[&y], &[("perm", Attr::Ints(vec![0, 3, 1, 2]))]);
        }
        self.set(op.output()?, y)
    }

    fn concatenation(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let rank = self.tensor(op.output()?)?.1.shape.len();
        let axis = i64::from(op.options.int(0, 0)?);
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&axis| axis < rank);
        let axis = axis.ok_or_else(|| Error::invalid_model("the axis is none of the tensor's"))?;
        let axis = if rank == 4 { [0, 2, 3, 1][axis] } else { axis as i64 };
        let parts = op.inputs.iter().map(|&index| self.operand(index, rank)).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let y = self.node("Concat", &parts, &[("axis", Attr::Int(axis))]);
        self.finish(op, op.options.byte(1)?, y)
    }

    fn dense(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.as_stored(op.input(0)?)?;
        let (shape, elements) = self.weights(op.input(1)?)?;
        let &[out, columns] = shape else { return Err(Error::invalid_model("the weights do not have two dimensions")) };
        let weights = self.put("weights", &[out, columns], elements);
        let bias = self.bias(op, out)?;
        let rows = self.put_integers("shape", vec![-1, columns as i64]);
        let x = self.node("Reshape", &[&x, &rows], &[]);
        let inputs = [x.as_str(), &weights, &bias];
        let inputs = if bias.is_empty() { &inputs[..2] } else { &inputs };
        let y = self.node("Gemm", inputs, &[("transB", Attr::Int(1))]);
        self.finish(op, op.options.byte(0)?, y)
    }

    fn depth_to_space(&mut self, op: &Operator<'_>) -> Result<(), Error> {
        let x = self.value(op.input(0)?)?;
        let size = Attr::Int(positive(&op.options, 0, 0)? as i64);
        let y = self.node("DepthToSpace", &[&x], &[("blocksize", size), ("mode", Attr::Text("DCR".into()))]);
        self.set(op.output()?, y)
    }
}

impl Operator<'_> {
    fn input(&self, i: usize) -> Result<i32, Error> {
        let error = || Error::invalid_model(format!("it has {} inputs, and needs more", self.inputs.len()));
        self.inputs.get(i).copied().ok_or_else(error)
    }

    fn output(&self) -> Result<i32, Error> {
        self.outputs.first().copied().ok_or_else(|| Error::invalid_model("it has no output"))
    }
}

/// A size, stride or distance: at least 1, and small enough that products of some of them do not overflow.
fn positive(options: &Table<'_>, slot: usize, default: i32) -> Result<usize, Error> {
    let value = options.int(slot, default)?;
    let size = usize::try_from(value).ok().filter(|size| (1..1 << 16).contains(size));
    size.ok_or_else(|| Error::invalid_model(format!("a stride, size or distance is {value}; it must be 1 to 65535")))
}

fn ints<const N: usize>(sizes: [usize; N]) -> Attr {
    Attr::Ints(sizes.iter().map(|&size| size as i64).collect())
}
