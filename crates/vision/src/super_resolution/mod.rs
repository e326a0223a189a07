//! Twice the resolution: Anime4K's convolutional networks.

mod convert;
mod model;

pub use convert::convert_anime4k;
pub use model::SuperResolution;
