//! Types, caches, and values that stay in the backend.

use std::thread;

use onbeat_backend::{Control, Dim, ElementType, LoadOptions, Tensor, Value, Values};
use onbeat_backend_rten::compute_here;
use onbeat_onnx as onnx;
use onbeat_onnx::{Attr, Builder};

use crate::{load, noise, run, values};

#[test]
fn a_line_is_computed_as_by_hand() {
    let mut g = Builder::new("line", 17);
    let x = g.input("x", onnx::ElementType::F32, &[onnx::Dim::Fixed(1), onnx::Dim::Free("n".into())]);
    let slope = g.f32("slope", &[], vec![2.0]);
    let product = g.node("Mul", &[&x, &slope], &[]);
    let y = g.node("Add", &[&product, &slope], &[]);
    g.output_named(&y, "y", onnx::ElementType::F32, &[onnx::Dim::Fixed(1), onnx::Dim::Free("n".into())]);
    let bytes = g.finish();
    let graph = load(&bytes, &LoadOptions::default()).unwrap();
    assert_eq!(graph.inputs()[0].shape, [Dim::Fixed(1), Dim::Free("n".into())]);
    assert_eq!((graph.inputs()[0].element_type, graph.segments()), (Some(ElementType::F32), 1));
    assert_eq!(graph.footprint().weights, 4);
    let input = [("x", Tensor::new([1, 3], vec![0.0_f32, 1.0, -3.0]).unwrap())];
    for threads in [1, 2] {
        let graph = load(&bytes, &LoadOptions { threads, ..LoadOptions::default() }).unwrap();
        let y = run(&*graph, &input).unwrap().take_tensor("y").unwrap();
        assert_eq!(y.view::<f32>().unwrap(), [2.0, 4.0, -4.0]);
    }
    let here = compute_here(|| run(&*graph, &input).unwrap().take_tensor("y").unwrap());
    assert_eq!(here.view::<f32>().unwrap(), [2.0, 4.0, -4.0]);
}

#[test]
fn integers_and_truth_have_the_types_that_the_file_declares() {
    let mut g = Builder::new("g", 17);
    let i = g.input("i", onnx::ElementType::I64, &[onnx::Dim::Fixed(2)]);
    let t = g.input("t", onnx::ElementType::Bool, &[onnx::Dim::Fixed(2)]);
    let twice = g.node("Add", &[&i, &i], &[]);
    let not = g.node("Not", &[&t], &[]);
    let half = g.f16_bits("half", &[1], vec![0x3800]);
    let wide = g.node("Cast", &[&half], &[("to", Attr::Int(1))]);
    g.output_named(&twice, "twice", onnx::ElementType::I64, &[]);
    g.output_named(&not, "not", onnx::ElementType::Bool, &[]);
    g.output_named(&wide, "wide", onnx::ElementType::F32, &[]);
    let graph = load(&g.finish(), &LoadOptions::default()).unwrap();
    let types: Vec<_> = graph.outputs().iter().map(|port| port.element_type).collect();
    assert_eq!(types, [Some(ElementType::I64), Some(ElementType::U8), Some(ElementType::F32)]);
    let inputs = [("i", Tensor::new([2], vec![3_i64, -4]).unwrap()), ("t", Tensor::new([2], vec![0_u8, 1]).unwrap())];
    let mut made = run(&*graph, &inputs).unwrap();
    assert_eq!(made.take_tensor("twice").unwrap().view::<i64>().unwrap(), [6, -8]);
    assert_eq!(made.take_tensor("not").unwrap().view::<u8>().unwrap(), [1, 0]);
    assert_eq!(made.take_tensor("wide").unwrap().view::<f32>().unwrap(), [0.5]);
    assert_eq!(made.names().count(), 0, "inputs are taken");
}

#[test]
fn an_output_that_is_the_next_input_grows_as_if_it_were_copied() {
    let mut g = Builder::new("cache", 17);
    let shape =
        |tokens: &str| [1, 2, 0, 3].map(|n| if n == 0 { onnx::Dim::Free(tokens.into()) } else { onnx::Dim::Fixed(n) });
    let past = g.input("past", onnx::ElementType::F32, &shape("past"));
    let new = g.input("new", onnx::ElementType::F32, &shape("new"));
    let present = g.node("Concat", &[&past, &new], &[("axis", Attr::Int(-2))]);
    let sum = g.node("ReduceSum", &[&present], &[("keepdims", Attr::Int(0))]);
    g.output_named(&sum, "sum", onnx::ElementType::F32, &[]);
    g.output_named(&present, "present", onnx::ElementType::F32, &shape("all"));
    let graph = load(&g.finish(), &LoadOptions::default()).unwrap();
    let mut state = Values::new();
    state.put("past", Tensor::zeros([1, 2, 0, 3]));
    let mut expected: [Vec<f32>; 2] = Default::default();
    for step in 0..150_u32 {
        let tokens = 1 + step as usize % 3;
        let new = noise(6 * tokens, step);
        for (head, kept) in expected.iter_mut().enumerate() {
            kept.extend(&new[head * 3 * tokens..][..3 * tokens]);
        }
        state.put("new", Tensor::new([1, 2, tokens, 3], new).unwrap());
        graph.run(&mut state, &Control::new()).unwrap();
        let sum = state.take_tensor("sum").unwrap().view::<f32>().unwrap()[0];
        assert!((sum - expected.iter().flatten().sum::<f32>()).abs() < 1e-3);
        state.rename("present", "past").unwrap();
    }
    let Value::Device(cache) = state.take("past").unwrap() else { panic!("the cache was copied") };
    let cache = cache.to_tensor().unwrap();
    assert_eq!(cache.shape(), [1, 2, 300, 3]);
    assert_eq!(cache.view::<f32>().unwrap(), expected.concat());
}

#[test]
fn an_input_that_is_an_output_too_is_handed_back() {
    let mut g = Builder::new("kept", 17);
    let shape = [onnx::Dim::Fixed(1), onnx::Dim::Fixed(3)];
    let cross = g.input("cross", onnx::ElementType::F32, &shape);
    let x = g.input("x", onnx::ElementType::F32, &shape);
    let y = g.node("Mul", &[&cross, &x], &[]);
    g.output_named(&y, "y", onnx::ElementType::F32, &shape);
    g.output_named(&cross, "kept", onnx::ElementType::F32, &shape);
    let bytes = g.finish();
    for segments in [1, 2] {
        let graph = load(&bytes, &LoadOptions { segments, ..LoadOptions::default() }).unwrap();
        let mut state = Values::new();
        state.put("cross", Tensor::new([1, 3], vec![1.0_f32, 2.0, 3.0]).unwrap());
        for x in [2.0_f32, 3.0] {
            state.put("x", Tensor::new([1, 3], vec![x; 3]).unwrap());
            graph.run(&mut state, &Control::new()).unwrap();
            assert_eq!(state.take_tensor("y").unwrap().view::<f32>().unwrap(), [x, 2.0 * x, 3.0 * x]);
            state.rename("kept", "cross").unwrap();
            assert_eq!(state.names().count(), 1);
        }
    }
}

#[test]
fn several_threads_run_the_same_graph() {
    let mut g = Builder::new("square", 17);
    let x = g.input("x", onnx::ElementType::F32, &[onnx::Dim::Fixed(4)]);
    let y = g.node("Mul", &[&x, &x], &[]);
    g.output_named(&y, "y", onnx::ElementType::F32, &[]);
    let graph = load(&g.finish(), &LoadOptions::default()).unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            let graph = &graph;
            scope.spawn(move || {
                for round in 0..50 {
                    let x = noise(4, seed * 100 + round);
                    let mut made = run(&**graph, &[("x", Tensor::new([4], x.clone()).unwrap())]).unwrap();
                    let squares: Vec<f32> = x.iter().map(|x| x * x).collect();
                    assert_eq!(made.take_tensor("y").unwrap().view::<f32>().unwrap(), squares);
                }
            });
        }
    });
}

#[test]
fn pictures_with_channels_last_are_padded_by_reflection() {
    let mut g = Builder::new("pad", 17);
    let x = g.input("x", onnx::ElementType::F32, &[1, 2, 2, 2].map(onnx::Dim::Fixed));
    let pads = g.i64("pads", &[8], vec![0, 0, 1, 0, 0, 1, 0, 0]);
    let y = g.node("Pad", &[&x, &pads], &[("mode", Attr::Text("reflect".into()))]);
    g.output_named(&y, "y", onnx::ElementType::F32, &[]);
    let graph = load(&g.finish(), &LoadOptions::default()).unwrap();
    let x = Tensor::new([1, 2, 2, 2], (0..8_u8).map(f32::from).collect()).unwrap();
    let y = run(&*graph, &[("x", x)]).unwrap().take_tensor("y").unwrap();
    // Rows below: the first again. Columns to the left: the second of each row.
    assert_eq!(y.shape(), [1, 3, 3, 2]);
    let row = [[2., 3., 0., 1., 2., 3.], [6., 7., 4., 5., 6., 7.], [2., 3., 0., 1., 2., 3.]];
    assert_eq!(y.view::<f32>().unwrap(), row.concat());
}

#[test]
fn an_output_may_be_an_input_or_a_constant_or_another_output_again() {
    let mut g = Builder::new("odd", 17);
    let x = g.input("x", onnx::ElementType::F32, &[onnx::Dim::Fixed(1)]);
    let unused = g.input("unused", onnx::ElementType::F32, &[onnx::Dim::Fixed(1)]);
    assert_eq!(unused, "unused");
    let w = g.f32("w", &[1], vec![5.0]);
    let constant = g.node("Neg", &[&w], &[]);
    let y = g.node("Neg", &[&x], &[]);
    g.output(&x, onnx::ElementType::F32, &[]);
    g.output_named(&constant, "constant", onnx::ElementType::F32, &[]);
    g.output_named(&y, "y", onnx::ElementType::F32, &[]);
    g.output_named(&y, "again", onnx::ElementType::F32, &[]);
    let bytes = g.finish();
    let input = |x| Tensor::new([1], vec![x]).unwrap();
    for segments in [1, 3] {
        let graph = load(&bytes, &LoadOptions { segments, ..LoadOptions::default() }).unwrap();
        let mut made = values(&[("x", input(2.0_f32)), ("unused", input(0.0))]);
        graph.run(&mut made, &Control::new()).unwrap();
        for (name, value) in [("x", 2.0), ("constant", -5.0), ("y", -2.0), ("again", -2.0)] {
            assert_eq!(made.take_tensor(name).unwrap().view::<f32>().unwrap(), [value], "{name}");
        }
    }
}
