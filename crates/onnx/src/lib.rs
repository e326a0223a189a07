//! ONNX files: read, build, cut into segments, extract.
//!
//! * [`Model`] reads a file and writes it again; [`proto`] holds the messages that it consists of.
//! * [`Builder`] makes a graph node by node: for weights that come in other formats, and for tests.
//! * [`Flow`] knows in which order nodes can run and which values cross each place between them, and chooses where to cut.
//! * [`extract`] takes a part out as a model of its own.

mod build;
mod cuts;
mod error;
mod extract;
mod flow;
mod model;
pub mod proto;
mod types;

pub use build::{Attr, Builder, Number, tensor};
pub use cuts::{Carried, Piece, estimate};
pub use error::Error;
pub use extract::extract;
pub use flow::{Flow, sizes_follow_data};
pub use model::{Dim, ElementType, Model, Port};
/// A shared buffer, which [`Model::read`] takes.
pub use prost::bytes::Bytes;
