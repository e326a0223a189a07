//! Everything that can be wrong with a file, an input or a device is an error that says so.

use std::path::Path;

use onbeat_backend::{Backend, Control, ErrorKind, LoadOptions, Tensor, Values};
use onbeat_backend_ort::{Config, Ort};
use onbeat_onnx::{Builder, Dim, ElementType};

use crate::support::{ConvNet, File, load, load_cpu, ort, values};

#[test]
fn a_missing_file_is_not_found() {
    let Some(ort) = ort() else { return };
    let error = ort.load(Path::new("nowhere.onnx"), "cpu", &LoadOptions::default(), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("nowhere.onnx: "), "{error}");
}

#[test]
fn a_damaged_file_is_an_invalid_model_that_is_named() {
    let Some(ort) = ort() else { return };
    let whole = ConvNet::new().file(&Dim::Fixed(1));
    let cuts = (0..whole.len()).step_by(37).map(|length| whole[..length].to_vec());
    for content in cuts.chain([b"this is no network".to_vec(), vec![0xff; 64]]) {
        let file = File::new(&content);
        let error = ort.load(&file.0, "cpu", &LoadOptions::default(), &Control::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel, "{} bytes: {error}", content.len());
        assert!(error.to_string().starts_with(&file.0.display().to_string()), "{error}");
    }
}

#[test]
fn an_unknown_operator_is_an_invalid_model_that_names_it() {
    let Some(ort) = ort() else { return };
    let mut g = Builder::new("unknown", 17);
    let x = g.input("x", ElementType::F32, &[Dim::Fixed(1)]);
    let y = g.node("Levitate", &[&x], &[]);
    g.output_named(&y, "y", ElementType::F32, &[Dim::Fixed(1)]);
    let error = load(&ort, &g.finish(), "cpu", &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    assert!(error.to_string().contains("Levitate"), "{error}");
}

#[test]
fn a_wrong_input_is_named_and_nothing_is_lost() {
    let Some(ort) = ort() else { return };
    let graph = load_cpu(&ort, &ConvNet::new().file(&Dim::Fixed(1)));
    let fails = |values: &mut Values| {
        let error = graph.run(values, &Control::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert_eq!(fails(&mut values(&[])), "there is no value `x`; there are: ");
    let mut wrong_shape = values(&[("x", Tensor::zeros([1, 3, 8, 9])), ("other", Tensor::zeros([1]))]);
    assert_eq!(fails(&mut wrong_shape), "input `x` has shape [1, 3, 8, 9], not [1, 3, 8, 8]");
    assert_eq!(wrong_shape.take_tensor("x").unwrap().shape(), [1, 3, 8, 9]);
    assert_eq!(
        fails(&mut values(&[("x", Tensor::zeros([3, 8, 8]))])),
        "input `x` has shape [3, 8, 8], not [1, 3, 8, 8]"
    );
    let integers = Tensor::new([1, 3, 8, 8], vec![0_i64; 192]).unwrap();
    assert_eq!(fails(&mut values(&[("x", integers)])), "input `x` takes elements of type f32, not i64");
    let error = graph.run_segment(1, &mut Values::new(), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn sizes_that_do_not_go_together_are_an_error_of_the_run() {
    let Some(ort) = ort() else { return };
    let free = |name: &str| [Dim::Free(name.to_owned())];
    let mut g = Builder::new("add", 17);
    let (a, b) = (g.input("a", ElementType::F32, &free("n")), g.input("b", ElementType::F32, &free("m")));
    let y = g.node("Add", &[&a, &b], &[]);
    g.output_named(&y, "y", ElementType::F32, &free("k"));
    let graph = load_cpu(&ort, &g.finish());
    let mut wrong = values(&[("a", Tensor::zeros([2])), ("b", Tensor::zeros([3]))]);
    assert!(graph.run(&mut wrong, &Control::new()).is_err());
    // It goes on working.
    let mut right = values(&[("a", Tensor::zeros([2])), ("b", Tensor::zeros([2]))]);
    graph.run(&mut right, &Control::new()).unwrap();
}

#[test]
fn a_device_that_is_not_there_is_not_found_and_the_error_says_how_to_get_it() {
    let Some(ort) = ort() else { return };
    let net = ConvNet::new().file(&Dim::Fixed(1));
    let error = load(&ort, &net, "VitisAIExecutionProvider:NPU", &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("ONNX Runtime has no device `VitisAIExecutionProvider:NPU`; it has: cpu"), "{text}");
    assert!(text.contains("onnxruntime_providers_vitisai.dll"), "{text}");
    let error = load(&ort, &net, "gpu", &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_second_library_is_refused() {
    let Some(ort) = ort() else { return };
    ort.devices().unwrap();
    let other = Ort::new(Config { dylib: Some("other.so".into()), ..Config::default() });
    let error = other.devices().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("can load one ONNX Runtime only"), "{error}");
}

#[test]
fn a_plugin_that_is_none_is_noted_and_the_others_go_on() {
    let Some(_) = ort() else { return };
    let text = File::new(b"no library");
    let library = std::env::var_os("ONBEAT_TEST_ORT").map(Into::into);
    let providers = vec![("text".to_owned(), text.0.clone()), ("gone".to_owned(), "gone.so".into())];
    let ort = Ort::new(Config { dylib: library, providers, ..Config::default() });
    assert!(!ort.devices().unwrap().is_empty());
    let plugins = ort.plugins().unwrap();
    for name in ["text", "gone"] {
        let plugin = plugins.iter().find(|plugin| plugin.name == name).unwrap();
        assert!(plugin.error.is_some() && plugin.providers.is_empty(), "{plugin:?}");
    }
}
