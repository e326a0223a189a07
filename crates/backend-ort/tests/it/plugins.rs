//! Plugin providers: OpenVINO on the CPU, and Qualcomm's simulator of the Hexagon NPU.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use onbeat_backend::{Backend, Control, DeviceKind, ErrorKind, LoadOptions, Precision, Tensor};
use onbeat_backend_ort::Ort;
use onbeat_onnx::{Builder, Dim, ElementType};

use crate::support::{ConvNet, File, load, max_difference, ort_with, run};

const OPENVINO: &str = "ONBEAT_TEST_ORT_OPENVINO";
const QNN: &str = "ONBEAT_TEST_ORT_QNN";

/// Loads the network of convolutions, runs it, and returns the largest difference from what the definition gives.
fn difference(ort: &Ort, device: &str, options: &LoadOptions) -> f32 {
    let net = ConvNet::new();
    let graph = load(ort, &net.file(&Dim::Fixed(1)), device, options).unwrap();
    max_difference(&run(&*graph, &[("x", ConvNet::input())], "y"), &net.expected())
}

/// An operator that neither provider has: the determinant of a 2 × 2 matrix, plus one.
fn exotic() -> Vec<u8> {
    let mut g = Builder::new("exotic", 17);
    let x = g.input("x", ElementType::F32, &[Dim::Fixed(2), Dim::Fixed(2)]);
    let one = g.f32("one", &[], vec![1.0]);
    let y = g.node("Det", &[&x], &[]);
    let y = g.node("Add", &[&y, &one], &[]);
    g.output_named(&y, "y", ElementType::F32, &[]);
    g.finish()
}

/// The CPU helps only where it is allowed to.
fn fallback_is_forbidden_unless_asked_for(ort: &Ort, device: &str) {
    let error = load(ort, &exotic(), device, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("`fallback`"), "{error}");
    let graph = load(ort, &exotic(), device, &LoadOptions { fallback: true, ..LoadOptions::default() }).unwrap();
    let matrix = Tensor::new([2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    assert!(max_difference(&run(&*graph, &[("x", matrix)], "y"), &[-1.0]) < 1e-5);
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("onbeat-ort-compiled-{name}-{}", std::process::id())))
    }

    fn files(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        entries.map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Compiles once, loads what was compiled, notices damage.
fn compiled_networks_are_kept(ort: &Ort, device: &str) {
    let folder = Folder::new(device.split(':').next().unwrap());
    let options = LoadOptions { cache: Some(folder.0.clone()), ..LoadOptions::default() };
    let file = File::new(&ConvNet::new().file(&Dim::Fixed(1)));
    let difference = || {
        let graph = ort.load(&file.0, device, &options, &Control::new()).unwrap();
        max_difference(&run(&*graph, &[("x", ConvNet::input())], "y"), &ConvNet::new().expected())
    };
    assert!(difference() < 1e-4);
    let kept = folder.files();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].0.extension().is_some_and(|extension| extension == "onnx"), "{kept:?}");
    assert!(difference() < 1e-4);
    assert_eq!(folder.files(), kept);

    fs::write(&kept[0].0, "EPContext").unwrap();
    assert!(difference() < 1e-4);
    assert!(difference() < 1e-4);
}

#[test]
fn openvino_computes_in_the_precision_of_the_file() {
    let Some(ort) = ort_with(OPENVINO) else { return };
    let device = "OpenVINOExecutionProvider:CPU";
    let devices = ort.devices().unwrap();
    let found = devices.iter().find(|found| found.name == device).unwrap();
    assert_eq!(found.kind, DeviceKind::Cpu);
    assert!(difference(&ort, device, &LoadOptions::default()) < 1e-5);
    println!(
        "HALF {}",
        difference(&ort, device, &LoadOptions { precision: Precision::Half, ..LoadOptions::default() })
    );
    let plugin = ort.plugins().unwrap().into_iter().find(|plugin| plugin.name == "OpenVINOExecutionProvider").unwrap();
    assert_eq!(plugin.providers, ["OpenVINOExecutionProvider"]);
    fallback_is_forbidden_unless_asked_for(&ort, device);
}

#[test]
fn openvino_keeps_compiled_networks() {
    let Some(ort) = ort_with(OPENVINO) else { return };
    compiled_networks_are_kept(&ort, "OpenVINOExecutionProvider:CPU");
}

#[test]
fn the_simulator_of_an_npu_runs_a_network_without_help_of_the_cpu() {
    let Some(ort) = ort_with(QNN) else { return };
    let device = "QNNExecutionProvider:CPU";
    let devices = ort.devices().unwrap();
    let found = devices.iter().find(|found| found.name == device).unwrap();
    assert!(found.description.contains("simulates the Hexagon NPU"), "{}", found.description);
    assert!(difference(&ort, device, &LoadOptions::default()) < 1e-5);
    fallback_is_forbidden_unless_asked_for(&ort, device);
}

#[test]
fn a_simulated_chip_computes_in_half_precision_only_when_asked_to() {
    let Some(ort) = ort_with(QNN) else { return };
    // Once a chip was named, the whole process computes like on that chip, so this test has a process of its own.
    if std::env::var_os("ONBEAT_TEST_CHILD").is_none() {
        let name = "plugins::a_simulated_chip_computes_in_half_precision_only_when_asked_to";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env("ONBEAT_TEST_CHILD", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let device = "QNNExecutionProvider:CPU";
    // The number of Snapdragon X Elite.
    let chip = LoadOptions { extra: vec![("soc_model".into(), "60".into())], ..LoadOptions::default() };
    let error = load(&ort, &ConvNet::new().file(&Dim::Fixed(1)), device, &chip).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("`half`"), "{error}");
    let half = difference(&ort, device, &LoadOptions { precision: Precision::Half, ..chip });
    // Halves have 10 bits of fraction; the outputs are about 1.
    assert!((1e-5..1e-2).contains(&half), "{half}");
    let error = load(&ort, &ConvNet::new().file(&Dim::Fixed(1)), device, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn the_simulator_of_an_npu_keeps_compiled_networks() {
    let Some(ort) = ort_with(QNN) else { return };
    compiled_networks_are_kept(&ort, "QNNExecutionProvider:CPU");
}
