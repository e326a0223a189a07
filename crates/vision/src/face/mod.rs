//! Faces: where they are, and their landmarks.

mod anchors;
mod detect;
mod landmarks;
mod overlap;

pub use detect::FaceDetector;
pub use landmarks::{FaceLandmarks, LANDMARKS};
