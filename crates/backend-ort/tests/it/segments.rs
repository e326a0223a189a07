//! Networks that are cut into several.

use onbeat_backend::{Backend, Control, ErrorKind, LoadOptions, Tensor, Values};
use onbeat_onnx::proto::StringStringEntryProto;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

use crate::support::{ConvNet, File, load, load_cpu, max_difference, model, noise, ort, ort_with, run, values};

fn cut(segments: usize) -> LoadOptions {
    LoadOptions { segments, ..LoadOptions::default() }
}

fn free(name: &str) -> [Dim; 2] {
    [Dim::Free(name.to_owned()), Dim::Fixed(16)]
}

/// Ten layers of which each adds the input and the first adds an output of its own, so that values cross cuts in every way: the input to
/// all, the layers' to the next, `first` to the end.
fn layers() -> Builder {
    let mut g = Builder::new("layers", 17);
    let x = g.input("x", ElementType::F32, &free("n"));
    let mut y = x.clone();
    for layer in 0..10 {
        let w = g.f32("w", &[16, 16], noise(layer, 256));
        y = g.node("MatMul", &[&y, &w], &[]);
        y = g.node("Add", &[&y, &x], &[]);
        if layer == 0 {
            g.output_named(&y, "first", ElementType::F32, &free("n"));
        }
    }
    let large = g.node("Greater", &[&y, &x], &[]);
    let y = g.node("Where", &[&large, &y, &x], &[]);
    g.output_named(&y, "y", ElementType::F32, &free("n"));
    g
}

fn input() -> Tensor {
    Tensor::new([3, 16], noise(20, 48)).unwrap()
}

#[test]
fn parts_give_bit_for_bit_what_the_whole_gives() {
    let Some(ort) = ort() else { return };
    let file = layers().finish();
    let whole = load_cpu(&ort, &file);
    let expected = [run(&*whole, &[("x", input())], "first"), run(&*whole, &[("x", input())], "y")];
    for segments in [2, 3, 5] {
        let graph = load(&ort, &file, "cpu", &cut(segments)).unwrap();
        assert_eq!(graph.segments(), segments);
        assert_eq!(graph.inputs(), whole.inputs());
        assert_eq!(graph.outputs().iter().map(|port| &port.name).collect::<Vec<_>>(), ["first", "y"]);
        let mut all = values(&[("x", input())]);
        for segment in 0..segments {
            graph.run_segment(segment, &mut all, &Control::new()).unwrap();
        }
        let mut names: Vec<&str> = all.names().collect();
        names.sort_unstable();
        assert_eq!(names, ["first", "y"], "nothing but the outputs is left");
        for (name, expected) in ["first", "y"].iter().zip(&expected) {
            assert_eq!(&all.take_tensor(name).unwrap().into_vec::<f32>().unwrap(), expected);
        }
    }
}

#[test]
fn a_run_can_be_cancelled_between_segments_and_go_on() {
    let Some(ort) = ort() else { return };
    let file = layers().finish();
    let expected = run(&*load_cpu(&ort, &file), &[("x", input())], "y");
    let graph = load(&ort, &file, "cpu", &cut(3)).unwrap();
    let mut all = values(&[("x", input())]);
    graph.run_segment(0, &mut all, &Control::new()).unwrap();
    let cancelled = Control::new();
    cancelled.cancel();
    assert_eq!(graph.run_segment(1, &mut all, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
    graph.run_segment(1, &mut all, &Control::new()).unwrap();
    graph.run_segment(2, &mut all, &Control::new()).unwrap();
    assert_eq!(all.take_tensor("y").unwrap().into_vec::<f32>().unwrap(), expected);
    let error = graph.run_segment(1, &mut Values::new(), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_network_has_only_so_many_places_to_cut() {
    let Some(ort) = ort() else { return };
    let graph = load(&ort, &ConvNet::new().file(&Dim::Fixed(1)), "cpu", &cut(1000)).unwrap();
    assert!((2..=4).contains(&graph.segments()), "{}", graph.segments());
    let found = run(&*graph, &[("x", ConvNet::input())], "y");
    assert!(max_difference(&found, &ConvNet::new().expected()) < 1e-5);
}

#[test]
fn weights_in_another_file_are_found_and_counted() {
    let Some(ort) = ort() else { return };
    let mut model = layers().into_model();
    let expected = run(&*load_cpu(&ort, &model.to_bytes()), &[("x", input())], "y");
    // The first layer's weights move out.
    let data = File::new(&[]);
    let name = data.0.file_name().unwrap().to_str().unwrap().to_owned();
    let weights = model.weight_bytes();
    let first = &mut model.graph_mut().initializer[0];
    std::fs::write(&data.0, first.raw_data.take().unwrap()).unwrap();
    first.data_location = Some(1);
    let entry = StringStringEntryProto { key: Some("location".into()), value: Some(name) };
    first.external_data = vec![entry];
    let file = File::new(&model.to_bytes());
    for segments in [1, 3] {
        let graph = ort.load(&file.0, "cpu", &cut(segments), &Control::new()).unwrap();
        assert_eq!(graph.segments(), segments);
        assert_eq!(graph.footprint().weights, weights);
        assert_eq!(run(&*graph, &[("x", input())], "y"), expected);
    }
    drop(data);
    let error = ort.load(&file.0, "cpu", &cut(3), &Control::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(ort.load(&file.0, "cpu", &cut(1), &Control::new()).is_err());
}

/// Truth values cross the cut: they need no tensor of onbeat's.
#[test]
fn values_of_any_type_cross_a_cut() {
    let Some(ort) = ort() else { return };
    let mut g = Builder::new("truth", 17);
    let x = g.input("x", ElementType::F32, &[Dim::Fixed(2)]);
    let zero = g.f32("zero", &[], vec![0.0]);
    let truth = g.node("Greater", &[&x, &zero], &[]);
    let y = g.node("Cast", &[&truth], &[("to", Attr::Int(1))]);
    g.output_named(&y, "y", ElementType::F32, &[Dim::Fixed(2)]);
    let graph = load(&ort, &g.finish(), "cpu", &cut(2)).unwrap();
    assert_eq!(graph.segments(), 2);
    assert_eq!(run(&*graph, &[("x", Tensor::new([2], vec![-1.0_f32, 1.0]).unwrap())], "y"), [0.0, 1.0]);
}

#[test]
fn providers_that_compile_take_parts_too() {
    for (variable, device) in [
        ("ONBEAT_TEST_ORT_OPENVINO", "OpenVINOExecutionProvider:CPU"),
        ("ONBEAT_TEST_ORT_QNN", "QNNExecutionProvider:CPU"),
    ] {
        let Some(ort) = ort_with(variable) else { continue };
        let folder = File::new(&[]).0.with_extension(&device[..3]);
        let net = ConvNet::new();
        // The provider learns all shapes, though the file leaves one free.
        let dimensions = vec![("batch".to_owned(), 1)];
        let options = LoadOptions { dimensions, cache: Some(folder.clone()), ..cut(2) };
        for _ in 0..2 {
            let graph = load(&ort, &net.file(&Dim::Free("batch".into())), device, &options).unwrap();
            assert_eq!(graph.segments(), 2);
            let found = run(&*graph, &[("x", ConvNet::input())], "y");
            assert!(max_difference(&found, &net.expected()) < 1e-5);
        }
        // Names of temporary files differ, so each load has kept its own two.
        let kept = std::fs::read_dir(&folder).unwrap().count();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(kept, 4, "{device}");
    }
}

#[test]
fn a_real_network_in_parts_gives_what_the_whole_gives() {
    let Some(ort) = ort() else { return };
    let Some(file) = model("terrain-diffusion/model.onnx") else { return };
    let load = |segments| ort.load(&file, "cpu", &cut(segments), &Control::new()).unwrap();
    let noisy: Vec<f32> = noise(1, 128 * 128).into_iter().map(|value| value * 80.0).collect();
    let inputs = [
        ("noisy", Tensor::new([1, 1, 128, 128], noisy).unwrap()),
        ("sigma", Tensor::new([1], vec![80.0_f32]).unwrap()),
        ("difficulty", Tensor::new([1], vec![0.5_f32]).unwrap()),
    ];
    let whole = load(1);
    let name = whole.outputs()[0].name.clone();
    let parts = load(4);
    assert_eq!(parts.segments(), 4);
    // Not bit for bit: at a cut ONNX Runtime cannot fuse operators. The outputs are between −1 and 1.
    let difference = max_difference(&run(&*whole, &inputs, &name), &run(&*parts, &inputs, &name));
    println!("{difference}");
    assert!(difference < 1e-4, "{difference}");
}
