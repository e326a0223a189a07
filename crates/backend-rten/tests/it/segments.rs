//! Networks in segments.

use onbeat_backend::{Control, ErrorKind, LoadOptions, Tensor, Value, Values};
use onbeat_onnx::ElementType::F32;
use onbeat_onnx::{Attr, Builder, Dim};

use crate::{load, noise, run};

/// Convolutions with detours, on pictures of any size.
fn network(blocks: u32, size: &[Dim]) -> Vec<u8> {
    let mut g = Builder::new("network", 17);
    let mut x = g.input("x", F32, size);
    let scale = g.input("scale", F32, &[]);
    for block in 0..blocks {
        let w = g.f32("w", &[8, 8, 3, 3], noise(576, block + 1));
        let b = g.f32("b", &[8], noise(8, block + 100));
        let pads = [("pads", Attr::Ints(vec![1; 4]))];
        let convolved = g.node("Conv", &[&x, &w, &b], &pads);
        let active = g.node("Sigmoid", &[&convolved], &[]);
        let gated = g.node("Mul", &[&convolved, &active], &[]);
        let scaled = g.node("Mul", &[&gated, &scale], &[]);
        x = g.node("Add", &[&scaled, &x], &[]);
        if block == 0 {
            g.output_named(&x, "early", F32, &[]);
        }
    }
    g.output_named(&x, "y", F32, &[]);
    g.finish()
}

fn inputs() -> [(&'static str, Tensor); 2] {
    let x = Tensor::new([1, 8, 12, 10], noise(960, 7)).expect("960 = 8 × 12 × 10");
    [("x", x), ("scale", Tensor::new([], vec![0.5_f32]).expect("a number has one element"))]
}

#[test]
fn a_network_in_segments_gives_the_same_bits_as_a_whole_one() {
    let free = [Dim::Fixed(1), Dim::Fixed(8), Dim::Free("h".into()), Dim::Free("w".into())];
    for (size, dimensions) in [
        ([1, 8, 12, 10].map(Dim::Fixed), Vec::new()),
        (free.clone(), Vec::new()),
        (free, vec![("h".to_owned(), 12), ("w".to_owned(), 10)]),
    ] {
        let bytes = network(8, &size);
        let whole = load(&bytes, &LoadOptions::default()).unwrap();
        let mut expected = run(&*whole, &inputs()).unwrap();
        let expected = ["y", "early"].map(|name| expected.take_tensor(name).unwrap());
        for segments in [2, 4, 7] {
            let options = LoadOptions { segments, dimensions: dimensions.clone(), ..LoadOptions::default() };
            let graph = load(&bytes, &options).unwrap();
            assert!((2..=segments).contains(&graph.segments()), "{} segments", graph.segments());
            let mut made = run(&*graph, &inputs()).unwrap();
            assert_eq!(["y", "early"].map(|name| made.take_tensor(name).unwrap()), expected);
            assert_eq!(made.names().count(), 0, "what crossed the cuts is taken");
        }
    }
}

#[test]
fn a_cancelled_network_goes_on_where_it_stopped() {
    let bytes = network(6, &[1, 8, 12, 10].map(Dim::Fixed));
    let graph = load(&bytes, &LoadOptions { segments: 3, ..LoadOptions::default() }).unwrap();
    let expected = run(&*graph, &inputs()).unwrap().take_tensor("y").unwrap();
    let mut values = Values::new();
    for (name, tensor) in inputs() {
        values.put(name, tensor);
    }
    let control = Control::new();
    graph.run_segment(0, &mut values, &control).unwrap();
    control.cancel();
    for _ in 0..2 {
        assert_eq!(graph.run_segment(1, &mut values, &control).unwrap_err().kind(), ErrorKind::Cancelled);
    }
    for segment in 1..graph.segments() {
        graph.run_segment(segment, &mut values, &Control::new()).unwrap();
    }
    assert_eq!(values.take_tensor("y").unwrap(), expected);
}

#[test]
fn what_crosses_a_cut_stays_in_the_backends_form() {
    let bytes = network(4, &[1, 8, 12, 10].map(Dim::Fixed));
    let graph = load(&bytes, &LoadOptions { segments: 2, ..LoadOptions::default() }).unwrap();
    let mut values = Values::new();
    for (name, tensor) in inputs() {
        values.put(name, tensor);
    }
    graph.run_segment(0, &mut values, &Control::new()).unwrap();
    let names: Vec<String> = values.names().map(str::to_owned).collect();
    for name in names.iter().filter(|&name| name != "early") {
        assert!(matches!(values.get(name).unwrap(), Value::Device(_)), "{name}");
    }
}

#[test]
fn a_network_with_no_place_to_cut_stays_whole() {
    let mut g = Builder::new("one", 17);
    let x = g.input("x", F32, &[Dim::Fixed(1)]);
    let y = g.node("Neg", &[&x], &[]);
    g.output(&y, F32, &[]);
    let graph = load(&g.finish(), &LoadOptions { segments: 4, ..LoadOptions::default() }).unwrap();
    assert_eq!(graph.segments(), 1);
}

#[test]
fn shapes_that_are_taken_early_do_not_hinder_cutting() {
    // Flattens and unflattens by the input's own shape, which optimisation makes look at the input again.
    let size = [Dim::Fixed(1), Dim::Free("n".into()), Dim::Fixed(4)];
    let mut g = Builder::new("shapes", 17);
    let x = g.input("x", F32, &size);
    let flat = g.i64("flat", &[1], vec![-1]);
    let mut y = x;
    for i in 0..6 {
        let shape = g.node("Shape", &[&y], &[]);
        let w = g.f32("w", &[4, 4], noise(16, i));
        let product = g.node("MatMul", &[&y, &w], &[]);
        let flattened = g.node("Reshape", &[&product, &flat], &[]);
        let active = g.node("Tanh", &[&flattened], &[]);
        y = g.node("Reshape", &[&active, &shape], &[]);
    }
    g.output_named(&y, "y", F32, &size);
    let bytes = g.finish();
    let whole = load(&bytes, &LoadOptions::default()).unwrap();
    let input = [("x", Tensor::new([1, 5, 4], noise(20, 3)).unwrap())];
    let expected = run(&*whole, &input).unwrap().take_tensor("y").unwrap();
    let graph = load(&bytes, &LoadOptions { segments: 3, ..LoadOptions::default() }).unwrap();
    assert_eq!(graph.segments(), 3);
    assert_eq!(run(&*graph, &input).unwrap().take_tensor("y").unwrap(), expected);
}

#[test]
fn a_network_whose_sizes_follow_its_inputs_is_not_tried_with_others() {
    // As long as `speed` is right, the output is small; with 0 it would have as many elements as an integer can count.
    let mut g = Builder::new("speech", 17);
    let speed = g.input("speed", F32, &[]);
    let (zero, one) = (g.i64("zero", &[], vec![0]), g.i64("one", &[], vec![1]));
    let one_over = g.node("Reciprocal", &[&speed], &[]);
    let frames = g.node("Cast", &[&one_over], &[("to", Attr::Int(7))]);
    let mut x = g.node("Range", &[&zero, &frames, &one], &[]);
    for _ in 0..8 {
        x = g.node("Neg", &[&x], &[]);
    }
    g.output_named(&x, "y", onbeat_onnx::ElementType::I64, &[]);
    let graph = load(&g.finish(), &LoadOptions { segments: 3, ..LoadOptions::default() }).unwrap();
    assert_eq!(graph.segments(), 3);
    let mut made = run(&*graph, &[("speed", Tensor::new([], vec![0.25_f32]).unwrap())]).unwrap();
    assert_eq!(made.take_tensor("y").unwrap().view::<i64>().unwrap(), [0, 1, 2, 3]);
}
