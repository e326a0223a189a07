//! TFLite networks, worked by hand.

use onbeat_backend::{ErrorKind, Tensor};
use onbeat_vision::convert_tflite;

use crate::run;
use crate::writer::{F16, F32, Field, Network};

/// Numbers of `BuiltinOperator`.
const ADD: i8 = 0;
const CONV: i8 = 3;
const DEPTHWISE: i8 = 4;
const DEQUANTIZE: i8 = 6;
const MAX_POOL: i8 = 17;
const RESHAPE: i8 = 22;
const RESIZE: i8 = 23;
const PAD: i8 = 34;
const PRELU: i8 = 54;
/// Numbers of `Padding`.
const SAME: i8 = 0;
const VALID: i8 = 1;
/// Number of `ActivationFunctionType`.
const RELU: i8 = 1;

/// Padding, strides and activation of a convolution.
fn convolution(padding: i8, stride: i32, activation: i8) -> Vec<(usize, Field)> {
    vec![(0, Field::Byte(padding)), (1, Field::Int(stride)), (2, Field::Int(stride)), (3, Field::Byte(activation))]
}

/// A convolution with weights in 16 bits, kernel 1 × 2, padded to the same size, with ReLU; then the rows in one.
pub(crate) fn small() -> Vec<u8> {
    let mut net = Network::default();
    let x = net.tensor("x", &[1, 2, 3, 2], F32, vec![]);
    // 1, 10, 100, 1000 in binary16.
    let halves = [0x3c00_u16, 0x4900, 0x5640, 0x63d0];
    let half = net.tensor("half", &[1, 1, 2, 2], F16, halves.iter().flat_map(|it| it.to_le_bytes()).collect());
    let weights = net.tensor("weights", &[1, 1, 2, 2], F32, vec![]);
    let bias = net.floats("bias", &[1], &[0.5]);
    let sums = net.tensor("sums", &[1, 2, 3, 1], F32, vec![]);
    let y = net.tensor("y", &[1, 6], F32, vec![]);
    net.operator(DEQUANTIZE, &[half], weights, vec![]);
    net.operator(CONV, &[x, weights, bias], sums, convolution(SAME, 1, RELU));
    net.operator(RESHAPE, &[sums], y, vec![]);
    net.finish(&[x], &[y])
}

#[test]
fn a_convolution_by_hand() {
    // Rows of pixels with two channels: (1, 2) (3, 4) (5, 6) and (−1, −2) (0, 0) (1, 0); here channel by channel.
    let x = Tensor::new([1, 2, 2, 3], vec![1.0_f32, 3., 5., -1., 0., 1., 2., 4., 6., -2., 0., 0.]).unwrap();
    let y = run::network("convolution", &convert_tflite(&small()).unwrap(), ("x", x), "y");
    // A pixel counts 1 and 10, its right neighbour 100 and 1000; the padding is on the right; bias 0.5.
    assert_eq!(y.view::<f32>().unwrap(), [4321.5, 6543.5, 65.5, 0.0, 100.5, 1.5]);
}

#[test]
fn strides_padding_and_slopes_by_hand() {
    let mut net = Network::default();
    let x = net.tensor("x", &[1, 3, 3, 2], F32, vec![]);
    // Depthwise: the sum of 2 × 2 pixels of the first channel, the upper left one of the second, negated. Stride 2, padded at the end.
    let weights = net.floats("weights", &[1, 2, 2, 2], &[1., -1., 1., 0., 1., 0., 1., 0.]);
    let bias = net.floats("bias", &[2], &[0.0, 0.0]);
    let sums = net.tensor("sums", &[1, 2, 2, 2], F32, vec![]);
    let slope = net.floats("slope", &[1, 1, 2], &[0.5, 0.1]);
    let bent = net.tensor("bent", &[1, 2, 2, 2], F32, vec![]);
    // A third channel of zeros, then a constant for each channel.
    let edges = net.ints("edges", &[4, 2], &[0, 0, 0, 0, 0, 0, 0, 1]);
    let padded = net.tensor("padded", &[1, 2, 2, 3], F32, vec![]);
    let constant = net.floats("constant", &[3], &[1000., 2000., 3000.]);
    let sum = net.tensor("sum", &[1, 2, 2, 3], F32, vec![]);
    let y = net.tensor("y", &[1, 1, 1, 3], F32, vec![]);
    let mut options = convolution(SAME, 2, 0);
    options[3] = (4, Field::Byte(0));
    net.operator(DEPTHWISE, &[x, weights, bias], sums, options);
    net.operator(PRELU, &[sums, slope], bent, vec![]);
    net.operator(PAD, &[bent, edges], padded, vec![]);
    net.operator(ADD, &[padded, constant], sum, vec![]);
    let mut options = convolution(VALID, 2, 0);
    options.truncate(3);
    options.extend([(3, Field::Int(2)), (4, Field::Int(2))]);
    net.operator(MAX_POOL, &[sum], y, options);
    let network = convert_tflite(&net.finish(&[x], &[bent, y])).unwrap();

    let planes = vec![1.0_f32, 2., 3., 4., 5., 6., 7., 8., -90., 10., 20., 30., 40., 50., 60., 70., 80., 90.];
    let x = || Tensor::new([1, 2, 3, 3], planes.clone()).unwrap();
    // First channel: 1 + 2 + 4 + 5, 3 + 6, 7 + 8, −90 halved. Second: −10, −30, −70, −90, each a tenth.
    let bent = run::network("bent", &network, ("x", x()), "bent");
    assert_eq!(bent.shape(), [1, 2, 2, 2]);
    assert_eq!(bent.view::<f32>().unwrap(), [12., 9., 15., -45., -1., -3., -7., -9.]);
    let y = run::network("pooled", &network, ("x", x()), "y");
    assert_eq!(y.shape(), [1, 3, 1, 1]);
    assert_eq!(y.view::<f32>().unwrap(), [1015., 1999., 3000.]);
}

#[test]
fn the_transposed_convolution_by_hand() {
    let mut net = Network::default();
    let x = net.tensor("x", &[1, 1, 1, 2], F32, vec![]);
    // What the two channels of the pixel add to upper left, upper right, lower left, lower right.
    let weights = net.floats("weights", &[1, 2, 2, 2], &[1., 0., 0., 1., 1., 1., 2., 0.]);
    let bias = net.floats("bias", &[1], &[0.5]);
    let y = net.tensor("y", &[1, 2, 2, 1], F32, vec![]);
    net.custom("Convolution2DTransposeBias", &[x, weights, bias], y, &[1, 2, 2]);
    let network = convert_tflite(&net.finish(&[x], &[y])).unwrap();
    let x = Tensor::new([1, 2, 1, 1], vec![3.0_f32, 5.]).unwrap();
    let y = run::network("transposed", &network, ("x", x), "y");
    assert_eq!(y.view::<f32>().unwrap(), [3.5, 5.5, 8.5, 6.5]);
}

#[test]
fn what_cannot_be_converted_says_why() {
    let error = |net: Network, inputs: &[i32], outputs: &[i32]| {
        let error = convert_tflite(&net.finish(inputs, outputs)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let mut net = Network::default();
    let (x, y) = (net.tensor("x", &[1, 2], F32, vec![]), net.tensor("y", &[1, 2], F32, vec![]));
    net.operator(124, &[x], y, vec![]);
    let found = error(net, &[x], &[y]);
    assert_eq!(found, (ErrorKind::Unsupported, "operator 0: the operator with the number 124 is not supported".into()));

    let mut net = Network::default();
    let (x, y) = (net.tensor("x", &[1, 2], F32, vec![]), net.tensor("y", &[1, 2], F32, vec![]));
    net.operator(ADD, &[x, 7], y, vec![]);
    let found = error(net, &[x], &[y]);
    assert_eq!(found, (ErrorKind::InvalidModel, "operator 0: ADD: it names tensor 7, but the file has 2".into()));

    let mut net = Network::default();
    let (x, y) = (net.tensor("x", &[1, 1, 1, 1], F32, vec![]), net.tensor("y", &[1, 1, 1, 1], F32, vec![]));
    let short = net.floats("short", &[1, 1, 1, 1], &[1.0, 2.0]);
    net.operator(CONV, &[x, short], y, convolution(SAME, 1, 0));
    let found = error(net, &[x], &[y]);
    let wanted = "operator 0: CONV_2D: the weights `short` of shape [1, 1, 1, 1] take 4 bytes, but have 8";
    assert_eq!(found, (ErrorKind::InvalidModel, wanted.into()));

    let found = convert_tflite(b"not a network").unwrap_err().to_string();
    assert_eq!(found, "bytes 4 to 7 of the file are not the identifier `TFL3`");
}

#[test]
fn resizing_by_hand() {
    // A row of 0 and 4 in four pixels, by the flags align_corners and half_pixel_centers.
    let cases = [
        (0, 0, [0.0, 2.0, 4.0, 4.0]),             // Old pixels at 0 and 2.
        (0, 1, [0.0, 1.0, 3.0, 4.0]),             // Old pixels at 0.5 and 2.5.
        (1, 0, [0.0, 4.0 / 3.0, 8.0 / 3.0, 4.0]), // Old pixels at 0 and 3.
    ];
    for (corners, half, wanted) in cases {
        let mut net = Network::default();
        let x = net.tensor("x", &[1, 1, 2, 2], F32, vec![]);
        let size = net.ints("size", &[2], &[2, 4]);
        let y = net.tensor("y", &[1, 2, 4, 2], F32, vec![]);
        net.operator(RESIZE, &[x, size], y, vec![(2, Field::Byte(corners)), (3, Field::Byte(half))]);
        let network = convert_tflite(&net.finish(&[x], &[y])).unwrap();
        // The second channel is ten more; both rows are the same.
        let x = Tensor::new([1, 2, 1, 2], vec![0.0_f32, 4., 10., 14.]).unwrap();
        let y = run::network("resize", &network, ("x", x), "y");
        assert_eq!(y.shape(), [1, 2, 2, 4]);
        for (i, found) in y.view::<f32>().unwrap().iter().enumerate() {
            let wanted = wanted[i % 4] + if i < 8 { 0.0 } else { 10.0 };
            assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}, at {i}");
        }
    }
}
