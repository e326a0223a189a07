//! Both backends give the same numbers for real networks, whole and in parts.

use std::path::Path;

use onbeat_backend::{Backend, Control, Dim, ElementType, Graph, LoadOptions, Tensor};
use onbeat_backend_ort::Ort;
use onbeat_backend_rten::Rten;

use crate::support::{max_difference, model, noise, ort, ort_with, run};

/// A network, sizes for its free dimensions, and how far the results may be apart, relative to the largest value of each output or
/// to 1, whichever is larger.
/// Convolutions and matrix products add in another order; the two quantised networks (tolerance 0.05) also round activations to 8 bits.
const NETWORKS: [(&str, usize, f32); 13] = [
    ("silero-vad/silero_vad_16k_stateful.onnx", 1, 1e-5),
    ("dtln/dtln_1.onnx", 1, 1e-5),
    ("dtln/dtln_2.onnx", 1, 1e-5),
    ("hibari-tts/hibari.onnx", 20, 0.05),
    ("terrain-diffusion/model.onnx", 1, 1e-4),
    ("style-multistyle26/model.onnx", 64, 1e-4),
    ("style-arbitrary-predict/model.onnx", 1, 0.05),
    ("ocr-detection/model.onnx", 64, 1e-4),
    ("ocr-recognition/model.onnx", 64, 1e-4),
    ("anime4k-2x/model.onnx", 64, 1e-5),
    ("selfie-segmentation/model.onnx", 1, 1e-4),
    ("face-detection/model.onnx", 1, 1e-4),
    ("face-landmark/model.onnx", 1, 1e-4),
];

fn inputs(graph: &dyn Graph, free: usize) -> Vec<(String, Tensor)> {
    let inputs = graph.inputs().iter().zip(1..).map(|(port, seed)| {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            // The first dimension is a batch, if it is free.
            Dim::Free(_) => free,
        };
        let mut shape: Vec<usize> = port.shape.iter().map(size).collect();
        if matches!(port.shape.first(), Some(Dim::Free(_))) {
            shape[0] = 1;
        }
        let count = shape.iter().product();
        let tensor = match port.element_type {
            Some(ElementType::I64) => {
                let ids = noise(seed, count).into_iter().map(|value| 5 + (20.0 * (value + 0.5)) as i64);
                Tensor::new(shape, ids.collect::<Vec<_>>())
            }
            // 0 to 1: pictures, weights, speeds, spectra.
            _ => Tensor::new(shape, noise(seed, count).into_iter().map(|value| value + 0.5).collect::<Vec<_>>()),
        };
        (port.name.clone(), tensor.unwrap())
    });
    inputs.collect()
}

#[test]
fn both_backends_give_the_same() {
    let Some(ort) = ort() else { return };
    let control = Control::new();
    let load = |backend: &dyn Backend, file: &Path, segments| {
        backend.load(file, "cpu", &LoadOptions { segments, ..LoadOptions::default() }, &control).unwrap()
    };
    for (name, free, tolerance) in NETWORKS {
        let Some(file) = model(name) else { continue };
        let (whole, parts) = (load(&ort, &file, 1), load(&ort, &file, 3));
        let other = load(&Rten, &file, 1);
        let inputs = inputs(&*whole, free);
        let inputs: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        for output in whole.outputs().iter().filter(|port| port.element_type == Some(ElementType::F32)) {
            let expected = run(&*whole, &inputs, &output.name);
            let largest = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
            let in_parts = max_difference(&expected, &run(&*parts, &inputs, &output.name));
            let rten = max_difference(&expected, &run(&*other, &inputs, &output.name));
            println!(
                "{name} {}: largest {largest:.3}, {} parts {in_parts:.1e}, rten {rten:.1e}",
                output.name,
                parts.segments()
            );
            assert!(largest > 0.0 && expected.iter().all(|value| value.is_finite()), "{name}");
            assert!(in_parts <= tolerance * largest.max(1.0), "{name} {}: {in_parts} of {largest}", output.name);
            assert!(rten <= tolerance * largest.max(1.0), "{name} {}: {rten} of {largest}", output.name);
        }
    }
}

/// Loads a network onto a device with sizes for all free dimensions, runs it, and compares with the CPU.
fn compare_with_cpu(ort: &Ort, device: &str, (name, free, tolerance): (&str, usize, f32)) {
    let Some(file) = model(name) else { return };
    let control = Control::new();
    let cpu = ort.load(&file, "cpu", &LoadOptions::default(), &control).unwrap();
    let inputs = inputs(&*cpu, free);
    let inputs: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let sizes = cpu.inputs().iter().zip(&inputs).flat_map(|(port, (_, tensor))| port.shape.iter().zip(tensor.shape()));
    let free =
        sizes.filter_map(|(dim, &size)| if let Dim::Free(name) = dim { Some((name.clone(), size)) } else { None });
    let options = LoadOptions { dimensions: free.collect(), ..LoadOptions::default() };
    let other = ort.load(&file, device, &options, &control).unwrap();
    for output in cpu.outputs().iter().filter(|port| port.element_type == Some(ElementType::F32)) {
        let expected = run(&*cpu, &inputs, &output.name);
        let largest = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
        let difference = max_difference(&expected, &run(&*other, &inputs, &output.name));
        println!("{device} {name} {}: largest {largest:.3}, difference {difference:.1e}", output.name);
        assert!(difference <= tolerance * largest.max(1.0), "{name} {}: {difference} of {largest}", output.name);
    }
}

#[test]
fn openvino_gives_the_same_as_the_cpu() {
    let Some(ort) = ort_with("ONBEAT_TEST_ORT_OPENVINO") else { return };
    for network in NETWORKS {
        compare_with_cpu(&ort, "OpenVINOExecutionProvider:CPU", network);
    }
}

#[test]
fn the_simulator_of_an_npu_gives_the_same_as_the_cpu() {
    let Some(ort) = ort_with("ONBEAT_TEST_ORT_QNN") else { return };
    // Those that it has all operators for, and memory enough while no chip is named.
    let able = ["dtln/dtln_2.onnx", "selfie-segmentation", "face-detection", "face-landmark"];
    for network in NETWORKS.into_iter().filter(|(name, ..)| able.iter().any(|able| name.starts_with(able))) {
        compare_with_cpu(&ort, "QNNExecutionProvider:CPU", network);
    }
}
