//! What is known about execution providers: where their packages put them, and the options that keep onbeat's promises.

use std::path::{Path, PathBuf};

use onbeat_backend::{DeviceKind, LoadOptions, Precision};

/// ONNX Runtime's own provider for the CPU.
pub(crate) const CPU: &str = "CPUExecutionProvider";
/// Qualcomm's, for the parts of a Snapdragon.
pub(crate) const QNN: &str = "QNNExecutionProvider";
/// The part of its package that drives the Hexagon NPU, or simulates it.
pub(crate) const QNN_HTP: &str = "QnnHtp";
/// Apple's Core ML, which ONNX Runtime for macOS has built in.
pub(crate) const CORE_ML: &str = "CoreMLExecutionProvider";

/// A plugin execution provider and the package that it comes in.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Its name in ONNX Runtime.
    pub(crate) name: &'static str,
    /// The package's folder below `site-packages`.
    pub(crate) folder: &'static str,
    /// The library's name, without prefix and suffix.
    pub(crate) library: &'static str,
    /// Libraries that have to be in memory before it, by the beginnings of their names: in its own folder …
    pub(crate) beside: &'static [&'static str],
    /// … and in the `nvidia/*/lib` (on Windows `bin`) folders beside the package.
    pub(crate) nvidia: &'static [&'static str],
    /// What installs it.
    pub(crate) install: &'static str,
}

/// The plugin providers that packages exist for. Folders and names are those of onnxruntime-ep-openvino 1.8.1, onnxruntime-qnn 2.7.0,
/// onnxruntime-ep-webgpu 0.4.0, onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0, onnxruntime-gpu 1.31.1 and onnxruntime-ep-mlx 0.31.0.
pub(crate) const PROVIDERS: &[Provider] = &[
    Provider {
        name: "OpenVINOExecutionProvider",
        folder: "onnxruntime_ep_openvino",
        library: "onnxruntime_providers_openvino_plugin",
        beside: &[],
        nvidia: &[],
        install: "pip install onnxruntime-ep-openvino",
    },
    Provider {
        name: QNN,
        folder: "onnxruntime_qnn",
        library: "onnxruntime_providers_qnn",
        beside: &[],
        nvidia: &[],
        install: "pip install onnxruntime-qnn",
    },
    Provider {
        name: "WebGpuExecutionProvider",
        folder: "onnxruntime_ep_webgpu",
        library: "onnxruntime_providers_webgpu",
        beside: &[],
        nvidia: &[],
        install: "pip install onnxruntime-ep-webgpu",
    },
    Provider {
        name: "NvTensorRTRTXExecutionProvider",
        folder: "onnxruntime_ep_nv_tensorrt_rtx",
        library: "onnxruntime_providers_nv_tensorrt_rtx",
        beside: &["libcudart.so", "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"],
        nvidia: &[],
        install: "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
    },
    Provider {
        name: "CUDAExecutionProvider",
        folder: "onnxruntime/capi",
        library: "onnxruntime_providers_cuda",
        beside: &[],
        // In the order in which they need each other.
        nvidia: &["cudart", "nvrtc", "nvJitLink", "cublasLt", "cublas", "cufft", "curand", "cudnn"],
        install: "pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime",
    },
    Provider {
        name: "MLXExecutionProvider",
        folder: "onnxruntime_ep_mlx",
        library: "onnxruntime_mlx_ep",
        beside: &[],
        nvidia: &[],
        install: "pip install onnxruntime-ep-mlx",
    },
];

/// How to get a provider that was asked for and is not there.
pub(crate) fn install(provider: &str) -> Option<&'static str> {
    let known = PROVIDERS.iter().find(|known| known.name.eq_ignore_ascii_case(provider)).map(|known| known.install);
    known.or(match provider {
        "VitisAIExecutionProvider" => Some(
            "install Ryzen AI Software or get the provider from Windows ML, then give the path of \
             onnxruntime_providers_vitisai.dll in ONBEAT_ORT",
        ),
        "DmlExecutionProvider" => {
            Some("pip install onnxruntime-directml or onnxruntime-windowsml in place of onnxruntime")
        }
        CORE_ML => Some("pip install onnxruntime, on macOS"),
        _ => None,
    })
}

/// A provider's options for a device, as far as the caller has not chosen: the precision that was asked for, as many threads as
/// allowed, and the part of the provider's package that drives the device. `folder` is where the provider's library lies.
pub(crate) fn defaults(
    provider: &str,
    kind: DeviceKind,
    options: &LoadOptions,
    folder: Option<&Path>,
) -> Vec<(String, String)> {
    let as_stored = options.precision == Precision::AsStored;
    let mut list = Vec::new();
    let mut set = |key: &str, value: &str| list.push((key.to_owned(), value.to_owned()));
    match provider {
        "OpenVINOExecutionProvider" => {
            if let Some(config) = openvino(kind, options.threads.max(1), as_stored) {
                set("load_config", &config);
            }
        }
        QNN => {
            let found = qnn_library(kind, folder);
            if let Some((_, path)) = &found {
                set("backend_path", &path.to_string_lossy());
            }
            // Switched on it has to know which chip; left alone it is on for every chip that is known.
            if as_stored && (kind == DeviceKind::Npu || found.is_some_and(|(part, _)| part == QNN_HTP)) {
                set("enable_htp_fp16_precision", "0");
            }
        }
        // TensorFloat-32 rounds inputs of matrix products to 10 bits of fraction.
        "CUDAExecutionProvider" if as_stored => set("use_tf32", "0"),
        CORE_ML => {
            set("MLComputeUnits", if kind == DeviceKind::Npu { "CPUAndNeuralEngine" } else { "CPUAndGPU" });
            // An ML program computes in the types that it is written in, a neural network in 16 bits where the unit has them
            // (coremltools guide, "Typed Execution").
            set("ModelFormat", if as_stored { "MLProgram" } else { "NeuralNetwork" });
            set("AllowLowPrecisionAccumulationOnGPU", if as_stored { "0" } else { "1" });
        }
        _ => {}
    }
    list
}

/// The part of Qualcomm's package that drives a kind of device, and where it lies.
pub(crate) fn qnn_library(kind: DeviceKind, folder: Option<&Path>) -> Option<(&'static str, PathBuf)> {
    let parts: &[&str] = match kind {
        DeviceKind::Npu => &[QNN_HTP],
        DeviceKind::Gpu => &["QnnGpu"],
        // On other machines than Snapdragons the library for the NPU simulates it.
        _ => &["QnnCpu", QNN_HTP],
    };
    let folder = folder?;
    let paths = parts.iter().map(|part| (*part, folder.join(crate::find::library_name(part))));
    paths.into_iter().find(|(_, path)| path.exists())
}

/// OpenVINO's properties, which it takes as JSON by device.
fn openvino(kind: DeviceKind, threads: usize, as_stored: bool) -> Option<String> {
    let (device, half, threads) = match kind {
        // A CPU without fast 16-bit arithmetic would only lose by it: OpenVINO chooses.
        DeviceKind::Cpu => ("CPU", None, Some(format!("\"INFERENCE_NUM_THREADS\":\"{threads}\""))),
        DeviceKind::Gpu => ("GPU", Some("f16"), None),
        DeviceKind::Npu => ("NPU", Some("f16"), None),
        DeviceKind::Other => return None,
    };
    let precision = if as_stored { Some("f32") } else { half };
    let precision = precision.map(|precision| format!("\"INFERENCE_PRECISION_HINT\":\"{precision}\""));
    let properties: Vec<String> = precision.into_iter().chain(threads).collect();
    Some(format!("{{\"{device}\":{{{}}}}}", properties.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openvino_is_told_the_precision_and_the_threads() {
        assert_eq!(
            openvino(DeviceKind::Cpu, 2, true).unwrap(),
            r#"{"CPU":{"INFERENCE_PRECISION_HINT":"f32","INFERENCE_NUM_THREADS":"2"}}"#
        );
        assert_eq!(openvino(DeviceKind::Npu, 2, false).unwrap(), r#"{"NPU":{"INFERENCE_PRECISION_HINT":"f16"}}"#);
        assert_eq!(openvino(DeviceKind::Other, 1, true), None);
    }

    #[test]
    fn precision_is_never_lowered_unasked() {
        let stored = LoadOptions::default();
        let half = LoadOptions { precision: Precision::Half, ..LoadOptions::default() };
        let option = |provider, kind, options, key: &str| {
            let list = defaults(provider, kind, options, None);
            list.into_iter().find(|(other, _)| other == key).map(|(_, value)| value)
        };
        let fp16 = "enable_htp_fp16_precision";
        assert_eq!(option(QNN, DeviceKind::Npu, &stored, fp16).as_deref(), Some("0"));
        assert_eq!(option(QNN, DeviceKind::Npu, &half, fp16), None);
        assert_eq!(option(CORE_ML, DeviceKind::Gpu, &stored, "ModelFormat").as_deref(), Some("MLProgram"));
        assert_eq!(option("CUDAExecutionProvider", DeviceKind::Gpu, &stored, "use_tf32").as_deref(), Some("0"));
        assert_eq!(option("CUDAExecutionProvider", DeviceKind::Gpu, &half, "use_tf32"), None);
    }
}
