//! Backends, their devices, and the graphs that they load.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::Control;
use crate::error::Error;
use crate::tensor::ElementType;
use crate::values::Values;

/// A library that runs networks on some kinds of devices.
pub trait Backend: Send + Sync + Debug {
    /// Its name, as platform files write it: `rten`, `ort`.
    fn name(&self) -> &'static str;

    /// What it is, with the version of the library under it: `ONNX Runtime 1.31.1`.
    fn description(&self) -> String;

    /// The devices that it finds now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), with what to install, if the library under it is not there.
    fn devices(&self) -> Result<Vec<Device>, Error>;

    /// Loads a network file onto one of its devices, by the device's name. Does not fall back to another device, unless
    /// [`LoadOptions::fallback`] says so.
    ///
    /// # Errors
    /// Names the file. Damaged files and unknown operators are errors, never panics.
    fn load(
        &self,
        file: &Path,
        device: &str,
        options: &LoadOptions,
        control: &Control,
    ) -> Result<Arc<dyn Graph>, Error>;
}

/// A device that a backend can load networks onto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name, unique within the backend: `cpu`, `OpenVINOExecutionProvider:NPU`.
    pub name: String,
    /// What kind of unit it is.
    pub kind: DeviceKind,
    /// Vendor and model, as far as known.
    pub description: String,
    /// How soon running work can be taken off it.
    pub granularity: Granularity,
}

/// What kind of unit a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// General-purpose cores.
    Cpu,
    /// Graphics processor.
    Gpu,
    /// Neural processor.
    Npu,
    /// Anything else.
    Other,
}

/// How soon running work can be taken off a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// After the operator that runs.
    Node,
    /// After the segment that runs: what the backend has compiled into one piece.
    Segment,
}

/// How a network is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads that it computes with, ≥ 1. One: the thread that calls.
    pub threads: usize,
    /// Cores that further threads are pinned to; empty: not pinned.
    pub cores: Vec<usize>,
    /// How many segments the network is cut into, as equal as they can be made, ≥ 1. A network may have fewer places to cut.
    pub segments: usize,
    /// How many inferences the network should be able to compute at once, ≥ 1; see [`Graph::members_max`]. A network, or a backend, may not
    /// be able to do more than one.
    pub members: usize,
    /// Sizes of dimensions that the file leaves free, by name, for devices that need all sizes.
    pub dimensions: Vec<(String, usize)>,
    /// Precision of the computation, where the device offers a choice.
    pub precision: Precision,
    /// Folder for compiled networks, where the backend can keep them; `None`: compiled anew each time.
    pub cache: Option<PathBuf>,
    /// Whether operators that the device lacks may run on the CPU instead.
    pub fallback: bool,
    /// Options handed to the library as they are: key and value.
    pub extra: Vec<(String, String)>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            cores: Vec::new(),
            segments: 1,
            members: 1,
            dimensions: Vec::new(),
            precision: Precision::AsStored,
            cache: None,
            fallback: false,
            extra: Vec::new(),
        }
    }
}

/// Precision of a computation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// That of the file; a device never lowers it by itself.
    #[default]
    AsStored,
    /// 16-bit floating point, where the device offers it.
    Half,
}

/// A network loaded onto a device.
pub trait Graph: Send + Sync + Debug {
    /// What it takes.
    fn inputs(&self) -> &[Port];

    /// What it gives.
    fn outputs(&self) -> &[Port];

    /// How many segments it consists of, ≥ 1.
    fn segments(&self) -> usize;

    /// Runs one segment on the calling thread. Segment 0 takes the graph's inputs out of `values`; each puts what the following ones
    /// need into them; the last one's outputs are the graph's. Several threads may run the same graph, each with its own values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) names the tensor that is missing or has a wrong shape. After
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) the graph can be used again.
    fn run_segment(&self, segment: usize, values: &mut Values, control: &Control) -> Result<(), Error>;

    /// How many members [`Graph::run_together`] takes at most, ≥ 1.
    fn members_max(&self) -> usize {
        1
    }

    /// Runs all segments for several members in one go, each with its own values: what each gets is what [`Graph::run`] would give it,
    /// up to rounding, but weights are read once for all. Each member brings one row: of a language model, one token beside its caches.
    ///
    /// # Errors
    /// Like [`Graph::run_segment`], and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if there are more than
    /// [`Graph::members_max`]. If values are not there or do not fit together, nothing was taken.
    fn run_together(&self, members: &mut [&mut Values], control: &Control) -> Result<(), Error> {
        match members {
            [one] => self.run(one, control),
            _ => Err(Error::unsupported(format!("{} members do not run together on this device", members.len()))),
        }
    }

    /// Memory that it takes.
    fn footprint(&self) -> Footprint;

    /// Runs all segments.
    ///
    /// # Errors
    /// Like [`Graph::run_segment`].
    fn run(&self, values: &mut Values, control: &Control) -> Result<(), Error> {
        (0..self.segments()).try_for_each(|segment| self.run_segment(segment, values, control))
    }
}

/// An input or an output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type of the elements; `None` if the backend does not say.
    pub element_type: Option<ElementType>,
    /// Sizes of the dimensions; empty if unknown, or for a single number.
    pub shape: Vec<Dim>,
}

/// The size of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always the same.
    Fixed(usize),
    /// Free, by this name.
    Free(String),
}

/// Memory that something takes [bytes].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Weights, as long as it is loaded.
    pub weights: u64,
    /// Activations while it runs; 0 if not known.
    pub activations: u64,
}

/// A backend, one of its devices, and how to load onto it: all that a model needs to load its graphs.
#[derive(Clone, Copy, Debug)]
pub struct Loader<'a> {
    /// The backend.
    pub backend: &'a dyn Backend,
    /// The device's name.
    pub device: &'a str,
    /// How to load.
    pub options: &'a LoadOptions,
    /// Cancels loading.
    pub control: &'a Control,
}

impl Loader<'_> {
    /// Loads a network file.
    ///
    /// # Errors
    /// Like [`Backend::load`].
    pub fn load(&self, file: &Path) -> Result<Arc<dyn Graph>, Error> {
        self.backend.load(file, self.device, self.options, self.control)
    }
}
