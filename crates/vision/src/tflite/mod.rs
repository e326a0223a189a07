//! Converts MediaPipe's TFLite files to ONNX.

mod convert;
mod file;
mod flatbuffer;
mod operators;

pub use convert::convert_tflite;
