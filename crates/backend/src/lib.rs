//! What an inference backend offers to the runtime: devices, graphs, models, sessions, and the data that passes between them.
//!
//! Two levels, so that a new backend is small and a new kind of model is independent of backends:
//!
//! * A [`Backend`] finds [`Device`]s and loads network files onto them. What it loads is a [`Graph`]: named tensors in, named tensors
//!   out, in one or more segments between which it can be interrupted.
//! * A [`Model`] does a task – hears, sees, writes, speaks – with one or more graphs and what goes around them: features, tokenizers,
//!   caches, state. A [`Session`] is one inference, or one stream of them, in progress. The runtime knows only these two.
//!
//! Nothing here starts threads. A call blocks the thread that makes it, until it is done or its [`Control`] is cancelled.

mod control;
mod data;
mod error;
mod graph;
mod model;
mod sentences;
mod tensor;
mod values;

pub use control::{CancelHook, Control};
pub use data::{Audio, Data, Image, Region, find_audio, find_image, find_regions, find_tensors, find_text};
pub use error::{Error, ErrorKind};
pub use graph::{
    Backend, Device, DeviceKind, Dim, Footprint, Granularity, Graph, LoadOptions, Loader, Port, Precision,
};
pub use model::{Gate, Model, Output, Session, Size, Step};
pub use sentences::{Sentences, first_sentence};
pub use tensor::{Element, ElementType, Elements, Tensor};
pub use values::{DeviceValue, Value, Values};
