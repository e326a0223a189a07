//! Seeing: person segmentation, faces, super-resolution, and the pictures they work on.
//!
//! Each task is a [`Model`](onbeat_backend::Model) that loads its network through a [`Loader`](onbeat_backend::Loader), so that it
//! runs on every backend. One inference is one pass of the network; the work before and after it – sizes, colours, boxes – belongs to
//! its first and its last segment.
//!
//! | task | takes | gives |
//! |---|---|---|
//! | [`Segmentation`]: which pixels are a person | picture | mask of the same size |
//! | [`FaceDetector`]: where faces are | picture | regions, the surest first |
//! | [`FaceLandmarks`]: points of a face | picture, regions | 468 points of the first region's face |
//! | [`SuperResolution`]: more detail | picture | picture of twice the size |
//!
//! A model's folder holds `model.onnx`, or the file that it is converted from: [`convert_tflite`], [`convert_anime4k`].
//!
//! ```no_run
//! use std::path::Path;
//!
//! use onbeat_backend::{Control, Data, Error, LoadOptions, Loader, Model};
//! use onbeat_backend_rten::Rten;
//! use onbeat_vision::{Segmentation, picture};
//!
//! let (options, control) = (LoadOptions::default(), Control::new());
//! let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &control };
//! let model = Segmentation::load(Path::new("selfie-segmentation"), &loader)?;
//! let mut session = model.open()?;
//! session.begin(&[Data::Image(picture::read(Path::new("me.png"))?)])?;
//! while !session.step(1, &control)?.done {}
//! if let [Data::Image(mask)] = &session.finish()?.data[..] {
//!     picture::write_png(Path::new("mask.png"), mask)?;
//! }
//! # Ok::<(), Error>(())
//! ```

mod face;
pub mod picture;
mod segmentation;
mod super_resolution;
mod task;
mod tflite;

pub use face::{FaceDetector, FaceLandmarks, LANDMARKS};
pub use segmentation::Segmentation;
pub use super_resolution::{SuperResolution, convert_anime4k};
pub use tflite::convert_tflite;
