//! Real networks, where `ONBEAT_TEST_MODELS` says that they are. Expected numbers are those of ONNX Runtime 1.31.1 (PyPI), with the same inputs.

use std::env;
use std::path::PathBuf;

use onbeat_backend::{Backend, Control, LoadOptions, Tensor, Values};
use onbeat_backend_rten::Rten;

fn file(name: &str) -> Option<PathBuf> {
    let path = env::var_os("ONBEAT_TEST_MODELS").map(|folder| PathBuf::from(folder).join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        println!("skipped: ONBEAT_TEST_MODELS has no {name}");
    }
    found
}

/// A saw-tooth of numbers that are exact in binary.
fn saw(count: usize, number: fn(f32) -> f32) -> Vec<f32> {
    (0..count).map(|i| number((i % 32) as f32)).collect()
}

#[test]
fn silero_hears_what_it_hears_elsewhere() {
    let Some(path) = file("silero-vad/silero_vad_16k_stateful.onnx") else { return };
    for segments in [1, 3] {
        let options = LoadOptions { segments, ..LoadOptions::default() };
        let graph = Rten.load(&path, "cpu", &options, &Control::new()).unwrap();
        let mut values = Values::new();
        values.put("state", Tensor::zeros([2, 1, 128]));
        for (probability, sum) in [(0.009_783_387, -7.739_704), (0.003_111_124, 1.105_812), (0.001_242_697, 10.993_244)]
        {
            values.put("input", Tensor::new([1, 576], saw(576, |x| (x - 16.0) / 64.0)).unwrap());
            graph.run(&mut values, &Control::new()).unwrap();
            let found = values.take_tensor("output").unwrap().view::<f32>().unwrap()[0];
            assert!((found - probability).abs() < 1e-5, "{found}");
            values.rename("stateN", "state").unwrap();
            let state = values.take_tensor("state").unwrap();
            let found: f32 = state.view::<f32>().unwrap().iter().sum();
            assert!((found - sum).abs() < 1e-3, "{found}");
            values.put("state", state);
        }
    }
}

#[test]
fn dtln_masks_what_it_masks_elsewhere() {
    // The file leaves out an input by an empty name at the end.
    let Some(path) = file("dtln/dtln_1.onnx") else { return };
    let graph = Rten.load(&path, "cpu", &LoadOptions::default(), &Control::new()).unwrap();
    let mut values = Values::new();
    values.put("input_3", Tensor::zeros([1, 2, 128, 2]));
    for (mean, at_100) in [(0.178_621, 0.131_507_22), (0.120_643_3, 0.073_810_31), (0.091_757_54, 0.046_919_376)] {
        values.put("input_2", Tensor::new([1, 1, 257], saw(257, |x| (x + 1.0) / 16.0)).unwrap());
        graph.run(&mut values, &Control::new()).unwrap();
        let mask = values.take_tensor("activation_2").unwrap();
        let mask = mask.view::<f32>().unwrap();
        assert!((mask[100] - at_100).abs() < 1e-5, "{}", mask[100]);
        assert!((mask.iter().sum::<f32>() / 257.0 - mean).abs() < 1e-5);
        values.rename("tf_op_layer_stack_2", "input_3").unwrap();
    }
}
