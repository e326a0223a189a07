//! The CPU: values, caches, cancelling, threads.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use onbeat_backend::{
    Backend, Control, DeviceKind, Element, ErrorKind, Granularity, Graph, LoadOptions, Tensor, Value, Values,
};
use onbeat_backend_ort::Ort;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

use crate::support::{ConvNet, load, load_cpu, max_difference, model, noise, ort, run, values};

fn dims(list: &[usize]) -> Vec<Dim> {
    list.iter().map(|&size| Dim::Fixed(size)).collect()
}

#[test]
fn the_cpu_is_a_device_that_can_be_interrupted_at_every_operator() {
    let Some(ort) = ort() else { return };
    let devices = ort.devices().unwrap();
    let cpu = &devices[0];
    assert_eq!((cpu.name.as_str(), cpu.kind, cpu.granularity), ("cpu", DeviceKind::Cpu, Granularity::Node));
    assert!(cpu.description.contains("ONNX Runtime 1."), "{}", cpu.description);
    assert!(ort.description().starts_with("ONNX Runtime 1."), "{}", ort.description());
    for other in &devices[1..] {
        assert_eq!(other.granularity, Granularity::Segment, "{}", other.name);
        assert_eq!(devices.iter().filter(|device| device.name == other.name).count(), 1, "{}", other.name);
    }
}

#[test]
fn a_network_of_convolutions_gives_what_the_definition_gives() {
    let Some(ort) = ort() else { return };
    let net = ConvNet::new();
    let graph = load_cpu(&ort, &net.file(&Dim::Fixed(1)));
    let found = run(&*graph, &[("x", ConvNet::input())], "y");
    assert!(max_difference(&found, &net.expected()) < 1e-5);
    assert_eq!(graph.inputs()[0].shape, [1, 3, 8, 8].map(onbeat_backend::Dim::Fixed));
    assert_eq!(graph.segments(), 1);
    assert!(graph.footprint().weights > 0);
}

#[test]
fn free_dimensions_have_names_until_they_are_given_sizes() {
    let Some(ort) = ort() else { return };
    let file = ConvNet::new().file(&Dim::Free("batch".into()));
    let graph = load_cpu(&ort, &file);
    assert_eq!(graph.inputs()[0].shape[0], onbeat_backend::Dim::Free("batch".into()));
    let options = LoadOptions { dimensions: vec![("batch".into(), 1)], ..LoadOptions::default() };
    let graph = load(&ort, &file, "cpu", &options).unwrap();
    let found = run(&*graph, &[("x", ConvNet::input())], "y");
    assert!(max_difference(&found, &ConvNet::new().expected()) < 1e-5);
}

/// `present = concat(past, x)`, `sum` = sum of all of it.
fn cache() -> Vec<u8> {
    let mut g = Builder::new("cache", 17);
    let past = g.input("past", ElementType::F32, &[Dim::Fixed(1), Dim::Free("past".into())]);
    let x = g.input("x", ElementType::F32, &dims(&[1, 1]));
    let present = g.node("Concat", &[&past, &x], &[("axis", Attr::Int(1))]);
    let sum = g.node("ReduceSum", &[&present], &[("keepdims", Attr::Int(0))]);
    g.output_named(&present, "present", ElementType::F32, &[Dim::Fixed(1), Dim::Free("total".into())]);
    g.output_named(&sum, "sum", ElementType::F32, &[]);
    g.finish()
}

#[test]
fn a_cache_goes_from_output_to_input_as_it_is_and_may_begin_empty() {
    let Some(ort) = ort() else { return };
    let graph = load_cpu(&ort, &cache());
    let mut values = Values::new();
    values.put("past", Tensor::zeros([1, 0]));
    for step in 1..=4_u8 {
        values.put("x", Tensor::new([1, 1], vec![f32::from(step)]).unwrap());
        graph.run(&mut values, &Control::new()).unwrap();
        values.rename("present", "past").unwrap();
    }
    assert_eq!(values.take_tensor("sum").unwrap().into_vec::<f32>().unwrap(), [10.0]);
    let Value::Device(past) = values.get("past").unwrap() else { panic!("the cache was copied to main memory") };
    assert_eq!(past.bytes(), 4 * 4);
    let copy = past.clone_value().unwrap();
    assert_eq!(copy.to_tensor().unwrap(), Tensor::new([1, 4], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap());
    assert_eq!(values.take_tensor("past").unwrap().shape(), [1, 4]);
}

#[test]
fn values_of_other_types_pass_through_but_cannot_be_read() {
    let Some(ort) = ort() else { return };
    let mut g = Builder::new("half", 17);
    let x = g.input("x", ElementType::F32, &dims(&[2]));
    let half = g.node("Cast", &[&x], &[("to", Attr::Int(10))]);
    g.output_named(&half, "half", ElementType::F16, &dims(&[2]));
    let first = load_cpu(&ort, &g.finish());
    let mut g = Builder::new("single", 17);
    let half = g.input("half", ElementType::F16, &dims(&[2]));
    let y = g.node("Cast", &[&half], &[("to", Attr::Int(1))]);
    g.output_named(&y, "y", ElementType::F32, &dims(&[2]));
    let second = load_cpu(&ort, &g.finish());

    let mut all = values(&[("x", Tensor::new([2], vec![1.5_f32, -2.0]).unwrap())]);
    first.run(&mut all, &Control::new()).unwrap();
    let Value::Device(half) = all.get("half").unwrap() else { panic!("it was copied") };
    assert_eq!(half.to_tensor().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(half.bytes(), 4);
    second.run(&mut all, &Control::new()).unwrap();
    assert_eq!(all.take_tensor("y").unwrap().into_vec::<f32>().unwrap(), [1.5, -2.0]);
}

fn through<T: Element + std::fmt::Debug + PartialEq>(ort: &Ort, element: ElementType, list: &[T]) {
    let mut g = Builder::new("identity", 17);
    let x = g.input("x", element, &dims(&[3]));
    g.output_named(&x, "y", element, &dims(&[3]));
    let graph = load_cpu(ort, &g.finish());
    assert_eq!(graph.inputs()[0].element_type, Some(T::TYPE));
    let mut all = values(&[("x", Tensor::new([3], list.to_vec()).unwrap())]);
    graph.run(&mut all, &Control::new()).unwrap();
    assert_eq!(all.take_tensor("y").unwrap().into_vec::<T>().unwrap(), list);
}

#[test]
fn all_types_of_tensors_go_in_and_come_out() {
    let Some(ort) = ort() else { return };
    through(&ort, ElementType::F32, &[1.0_f32, -2.5, 0.0]);
    through(&ort, ElementType::I64, &[i64::MAX, i64::MIN, 0]);
    through(&ort, ElementType::I32, &[i32::MAX, i32::MIN, 0]);
    through(&ort, ElementType::U8, &[255_u8, 0, 1]);
    through(&ort, ElementType::I8, &[127_i8, -128, 0]);
    // Truth values are bytes outside.
    through(&ort, ElementType::Bool, &[0_u8, 1, 1]);
}

/// 64 matrix products one after the other: about 2 GFLOP per 1000 rows, and one second or more for 100,000.
fn long() -> Vec<u8> {
    let mut g = Builder::new("long", 17);
    let mut y = g.input("x", ElementType::F32, &[Dim::Free("rows".into()), Dim::Fixed(128)]);
    let weights: Vec<f32> = noise(5, 128 * 128).into_iter().map(|w| w * 0.3).collect();
    let w = g.f32("w", &[128, 128], weights);
    for _ in 0..64 {
        y = g.node("MatMul", &[&y, &w], &[]);
    }
    g.output_named(&y, "y", ElementType::F32, &[Dim::Free("rows".into()), Dim::Fixed(128)]);
    g.finish()
}

#[test]
fn a_cancelled_run_ends_early_keeps_its_inputs_and_the_graph_goes_on_working() {
    let Some(ort) = ort() else { return };
    let graph = load_cpu(&ort, &long());
    let short = || run(&*graph, &[("x", Tensor::new([2, 128], noise(6, 256)).unwrap())], "y");
    let before = short();

    let control = Control::new();
    let mut all = values(&[("x", Tensor::new([100_000, 128], noise(7, 12_800_000)).unwrap())]);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            control.cancel();
        });
        graph.run(&mut all, &control).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(all.names().collect::<Vec<_>>(), ["x"]);
    assert_eq!(graph.run(&mut all, &control).unwrap_err().kind(), ErrorKind::Cancelled);

    // The flag of the cancelled run does not stay set, and nothing of it shows in later ones.
    assert_eq!(short(), before);
    let mut all = values(&[("x", Tensor::new([2, 128], noise(6, 256)).unwrap())]);
    graph.run(&mut all, &Control::new()).unwrap();
}

#[test]
fn loading_can_be_cancelled() {
    let Some(ort) = ort() else { return };
    let control = Control::new();
    control.cancel();
    let file = crate::support::File::new(&long());
    let error = ort.load(&file.0, "cpu", &LoadOptions::default(), &control).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn threads_share_a_graph() {
    let Some(ort) = ort() else { return };
    let graph = load_cpu(&ort, &long());
    let input = |i: u32| Tensor::new([3, 128], noise(i, 384)).unwrap();
    let expected: Vec<Vec<f32>> = (0..4).map(|i| run(&*graph, &[("x", input(i))], "y")).collect();
    thread::scope(|scope| {
        for (i, expected) in (0..).zip(&expected) {
            let graph: &dyn Graph = &*graph;
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(&run(graph, &[("x", input(i))], "y"), expected);
                }
            });
        }
    });
}

#[test]
fn values_outlive_their_graph() {
    let Some(ort) = ort() else { return };
    let graph = load_cpu(&ort, &cache());
    let mut all = values(&[("past", Tensor::zeros([1, 0])), ("x", Tensor::new([1, 1], vec![3.0_f32]).unwrap())]);
    graph.run(&mut all, &Control::new()).unwrap();
    drop(graph);
    assert_eq!(all.take_tensor("present").unwrap().into_vec::<f32>().unwrap(), [3.0]);
}

/// Threads of this process that may run on these cores only.
#[cfg(target_os = "linux")]
fn threads_on(cores: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let on = |task: &std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("Cpus_allowed_list:").is_some_and(|list| list.trim() == cores))
    };
    tasks.filter(on).count()
}

#[test]
#[cfg(target_os = "linux")]
fn further_threads_are_pinned() {
    let Some(ort) = ort() else { return };
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("skipped: one core");
        return;
    }
    let before = threads_on("1");
    let options = LoadOptions { threads: 3, cores: vec![1], ..LoadOptions::default() };
    let graph = load(&ort, &long(), "cpu", &options).unwrap();
    run(&*graph, &[("x", Tensor::new([200, 128], noise(6, 25_600)).unwrap())], "y");
    assert_eq!(threads_on("1") - before, 2);
}

#[test]
fn the_voice_detector_gives_what_python_gives() {
    let Some(ort) = ort() else { return };
    let Some(file) = model("silero-vad/silero_vad_16k_stateful.onnx") else { return };
    let graph: Arc<dyn Graph> = ort.load(&file, "cpu", &LoadOptions::default(), &Control::new()).unwrap();
    let wave: Vec<f32> = (0..576_u16).map(|i| (f32::from(i % 80) - 40.0) / 80.0).collect();
    let mut all = values(&[("state", Tensor::zeros([2, 1, 128]))]);
    // From onnxruntime 1.31.1 in Python, the same saw-tooth wave three times, the state handed on.
    for expected in [0.070_022_82, 0.023_348_42, 0.004_928_976_f32] {
        all.put("input", Tensor::new([1, 576], wave.clone()).unwrap());
        graph.run(&mut all, &Control::new()).unwrap();
        all.rename("stateN", "state").unwrap();
        let found = all.take_tensor("output").unwrap().into_vec::<f32>().unwrap()[0];
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_core_that_is_not_there_is_an_error() {
    let Some(ort) = ort() else { return };
    let options = LoadOptions { threads: 2, cores: vec![99_999], ..LoadOptions::default() };
    let error = load(&ort, &long(), "cpu", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("this machine has no core 99999"), "{error}");
}
