//! Files, options and inputs that are wrong.

use std::path::Path;

use onbeat_backend::{Backend, Control, ErrorKind, LoadOptions, Precision, Tensor};
use onbeat_backend_rten::Rten;
use onbeat_onnx::ElementType::{F32, I64};
use onbeat_onnx::{Attr, Builder, Dim, Model};

use crate::{load, run};

fn embedding() -> Builder {
    let mut g = Builder::new("embedding", 17);
    let ids = g.input("ids", I64, &[Dim::Fixed(1), Dim::Free("n".into())]);
    let table = g.f32("table", &[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let y = g.node("Gather", &[&table, &ids], &[("axis", Attr::Int(0))]);
    g.output_named(&y, "y", F32, &[]);
    g
}

#[test]
fn wrong_inputs_are_named() {
    let graph = load(&embedding().finish(), &LoadOptions::default()).unwrap();
    let message = |inputs: &[(&str, Tensor)]| {
        let error = run(&*graph, inputs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string().split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(message(&[]), "there is no value `ids`; there are: ");
    let flat = Tensor::new([2], vec![1_i64, 2]).unwrap();
    assert_eq!(message(&[("ids", flat)]), "input `ids` has shape [2]; it must be [1, n]");
    let batch = Tensor::new([2, 1], vec![1_i64, 2]).unwrap();
    assert_eq!(message(&[("ids", batch)]), "input `ids` has shape [2, 1]; it must be [1, n]");
    let floats = Tensor::new([1, 1], vec![1.0_f32]).unwrap();
    assert_eq!(message(&[("ids", floats)]), "the elements of input `ids` are F32, not I64");
    let huge = Tensor::new([1, 1], vec![1_i64 << 40]).unwrap();
    assert!(message(&[("ids", huge)]).contains("1099511627776"));
    let inside = Tensor::new([1, 2], vec![2_i64, 0]).unwrap();
    let y = run(&*graph, &[("ids", inside)]).unwrap().take_tensor("y").unwrap();
    assert_eq!(y.view::<f32>().unwrap(), [4.0, 5.0, 0.0, 1.0]);
    let outside = Tensor::new([1, 1], vec![3_i64]).unwrap();
    assert_eq!(run(&*graph, &[("ids", outside)]).unwrap_err().kind(), ErrorKind::Device);
    assert!(graph.run_segment(1, &mut onbeat_backend::Values::new(), &Control::new()).is_err());
}

#[test]
fn an_unknown_operator_is_named() {
    let mut g = Builder::new("g", 17);
    let x = g.input("x", F32, &[]);
    let y = g.node("Fancy", &[&x], &[]);
    g.output(&y, F32, &[]);
    let error = load(&g.finish(), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("Fancy operator not supported"), "{error}");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let whole = embedding().finish();
    for length in 0..whole.len() {
        if let Err(error) = load(&whole[..length], &LoadOptions::default()) {
            assert!(matches!(error.kind(), ErrorKind::InvalidModel | ErrorKind::Unsupported), "{error}");
        }
    }
    let ids = Tensor::new([1, 1], vec![1_i64]).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x15;
        for segments in [1, 2] {
            if let Ok(graph) = load(&bytes, &LoadOptions { segments, ..LoadOptions::default() }) {
                let _ = run(&*graph, &[("ids", ids.clone())]);
            }
        }
    }
}

#[test]
fn absurd_sizes_are_not_tried_out() {
    let mut g = Builder::new("huge", 17);
    let x = g.input("x", F32, &[1 << 40, 1 << 20, 1 << 10].map(Dim::Fixed));
    let y = g.node("Neg", &[&x], &[]);
    let z = g.node("Neg", &[&y], &[]);
    g.output(&z, F32, &[]);
    let graph = load(&g.finish(), &LoadOptions { segments: 2, ..LoadOptions::default() }).unwrap();
    assert_eq!(graph.segments(), 1);
}

#[test]
fn what_depends_on_itself_is_an_error() {
    let mut model: Model = embedding().into_model();
    model.graph_mut().node[0].input[1] = "y".into();
    for segments in [1, 2] {
        let error = load(&model.to_bytes(), &LoadOptions { segments, ..LoadOptions::default() });
        let error = error.map(|graph| run(&*graph, &[("ids", Tensor::new([1, 1], vec![1_i64]).unwrap())]).map(|_| ()));
        assert!(matches!(error, Err(_) | Ok(Err(_))));
    }
}

#[test]
fn weights_in_other_folders_are_not_read() {
    let mut model: Model = embedding().into_model();
    let table = &mut model.graph_mut().initializer[0];
    table.raw_data = None;
    table.data_location = Some(onbeat_onnx::proto::LOCATION_EXTERNAL);
    let entry = |key: &str, value: &str| onbeat_onnx::proto::StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    table.external_data = vec![entry("location", "../secret"), entry("offset", "0"), entry("length", "24")];
    let error = load(&model.to_bytes(), &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("its weights are in `../secret`, which is not in its folder"), "{error}");
}

#[test]
fn options_that_rten_cannot_follow_are_errors() {
    let bytes = embedding().finish();
    let kind = |options: LoadOptions| load(&bytes, &options).unwrap_err().kind();
    let default = LoadOptions::default;
    assert_eq!(kind(LoadOptions { threads: 0, ..default() }), ErrorKind::InvalidInput);
    assert_eq!(kind(LoadOptions { segments: 0, ..default() }), ErrorKind::InvalidInput);
    assert_eq!(kind(LoadOptions { precision: Precision::Half, ..default() }), ErrorKind::Unsupported);
    let extra = |key: &str, value: &str| LoadOptions { extra: vec![(key.into(), value.into())], ..default() };
    assert_eq!(kind(extra("spin", "true")), ErrorKind::Unsupported);
    assert_eq!(kind(extra("prepack_weights", "yes")), ErrorKind::InvalidInput);
    assert!(load(&bytes, &extra("prepack_weights", "true")).is_ok());
    let control = Control::new();
    let missing = Rten.load(Path::new("no such file.onnx"), "cpu", &default(), &control).unwrap_err();
    assert_eq!(missing.to_string(), "no such file.onnx: there is no such file");
    assert_eq!(Rten.load(Path::new("x"), "npu", &default(), &control).unwrap_err().kind(), ErrorKind::NotFound);
    control.cancel();
    let file = crate::TempFile::new(&bytes);
    assert_eq!(Rten.load(&file.0, "cpu", &default(), &control).unwrap_err().kind(), ErrorKind::Cancelled);
}
