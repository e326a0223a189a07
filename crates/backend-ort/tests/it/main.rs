//! Tests against a real ONNX Runtime. They are skipped unless `ONBEAT_TEST_ORT` names its library (of the Python package
//! `onnxruntime`, for example), those of plugins unless `ONBEAT_TEST_ORT_OPENVINO` and `ONBEAT_TEST_ORT_QNN` name theirs.

#![expect(clippy::unwrap_used, reason = "a test that meets an unexpected error should panic")]

mod agreement;
mod cpu;
mod errors;
mod plugins;
mod segments;
mod support;
