//! The backend and how it loads networks.

use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path};
use std::sync::Arc;

use onbeat_backend::{
    Backend, Control, Device, DeviceKind, Dim, ElementType, Error, ErrorKind, Footprint, Granularity, Graph,
    LoadOptions, Port, Precision,
};
use onbeat_onnx as onnx;
use onbeat_onnx::proto::{NodeProto, ValueInfoProto};
use rten::{LoadErrorKind, Model, ModelOptions, ShapeInferenceMode};

use crate::adapt::adapt;
use crate::batch::{MEMBERS_MAX, add_batches, own};
use crate::graph::{Batch, RtenGraph, Segment, Slot, panic_message};
use crate::segments::Network;
use crate::threads::Threads;
use crate::value::Kind;

/// ONNX graphs on the CPU with `rten`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rten;

/// The version that this crate's manifest pins; the library does not tell it.
const RTEN_VERSION: &str = "0.27.0";

const CPU: &str = "cpu";

impl Backend for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn description(&self) -> String {
        format!("rten {RTEN_VERSION}")
    }

    fn devices(&self) -> Result<Vec<Device>, Error> {
        Ok(vec![Device {
            name: CPU.to_owned(),
            kind: DeviceKind::Cpu,
            description: processor_name(),
            granularity: Granularity::Segment,
        }])
    }

    fn load(
        &self,
        file: &Path,
        device: &str,
        options: &LoadOptions,
        control: &Control,
    ) -> Result<Arc<dyn Graph>, Error> {
        if device != CPU {
            return Err(Error::not_found(format!("rten has no device `{device}`; it has `{CPU}`")));
        }
        let graph = load(file, options, control).map_err(|error| error.about(&file.display().to_string()))?;
        Ok(Arc::new(graph))
    }
}

fn load(file: &Path, options: &LoadOptions, control: &Control) -> Result<RtenGraph, Error> {
    let how = Options::new(options)?;
    let bytes = fs::read(file).map_err(|error| match error.kind() {
        IoErrorKind::NotFound => Error::not_found("there is no such file"),
        IoErrorKind::OutOfMemory => Error::new(ErrorKind::OutOfMemory, "no memory is left to read the file"),
        _ => Error::not_found(format!("cannot be read: {error}")),
    })?;
    check_cancelled(control)?;
    let bytes = onnx::Bytes::from(bytes);
    let mut network = onnx::Model::read(bytes.clone()).map_err(|error| Error::invalid_model(error.to_string()))?;
    let found = adapt(&mut network);
    let mut model_options = how.model_options;
    if found.shapes_mislead {
        model_options.shape_inference(ShapeInferenceMode::Off);
    }
    for location in network.external_files() {
        model_options.external_data(location, read_beside(file, location)?);
    }
    check_cancelled(control)?;
    let name = file.file_name().map_or_else(|| file.display().to_string(), |it| it.to_string_lossy().into_owned());
    let mut facts = Facts::of(&network);
    if options.segments == 1 && options.members > 1 {
        let mut extended = network.clone();
        // What `rten` does not load with the extension it may load without.
        if add_batches(&mut extended)
            && let Ok(model) = load_model(&model_options, extended.to_bytes())
        {
            facts.members_max = MEMBERS_MAX;
            return Ok(facts.graph(model, name, how.threads)?.returning(&facts.same));
        }
    }
    check_cancelled(control)?;
    if options.segments == 1 && !found.changed {
        // The weights were not copied so far. Without the network, the buffer has one owner and goes on as it is.
        drop(network);
        let model = load_model(&model_options, Vec::from(bytes))?;
        return Ok(facts.graph(model, name, how.threads)?.returning(&facts.same));
    }
    drop(bytes);
    let whole = facts.graph(load_model(&model_options, network.to_bytes())?, name, how.threads)?;
    check_cancelled(control)?;
    if options.segments == 1 {
        return Ok(whole.returning(&facts.same));
    }
    let network = Network { onnx: network, options: model_options, dimensions: options.dimensions.clone() };
    network.cut(whole, options.segments, control)
}

/// What a graph needs to know about its file.
struct Facts {
    inputs: Vec<onnx::Port>,
    outputs: Vec<onnx::Port>,
    /// For each input: along which dimension it grows.
    grows: Vec<Option<usize>>,
    /// For each input: the output that is the same value, if there is one.
    same: Vec<Option<String>>,
    weights: u64,
    /// The most members of a step; 1: it was not extended to take several.
    members_max: usize,
}

impl Facts {
    fn of(network: &onnx::Model) -> Self {
        let inputs = network.inputs();
        let grows = inputs.iter().map(|input| grows(network, input)).collect();
        let same = inputs.iter().map(|input| same(network, input)).collect();
        Self { inputs, outputs: network.outputs(), grows, same, weights: network.weight_bytes(), members_max: 1 }
    }

    /// A graph of one segment.
    fn graph(&self, model: Model, file: String, threads: Threads) -> Result<RtenGraph, Error> {
        let input = |(i, it): (usize, &onnx::Port)| Slot {
            name: it.name.clone(),
            id: model.find_node(&it.name),
            kind: kind(it),
            lasting: false,
            port: Some(i),
            grows: self.grows[i],
            returns: None,
        };
        let output = |(i, it): (usize, &onnx::Port)| Slot {
            name: it.name.clone(),
            // Optimisation keeps the outputs' order, but can put other nodes in their place.
            id: model.output_ids().get(i).copied(),
            kind: kind(it),
            lasting: false,
            port: None,
            grows: None,
            returns: None,
        };
        let inputs = self.inputs.iter().enumerate().map(input).collect();
        let outputs = self.outputs.iter().enumerate().map(output).collect();
        Ok(RtenGraph {
            file,
            inputs: self.inputs.iter().map(port).collect(),
            outputs: self.outputs.iter().map(port).collect(),
            segments: vec![Segment::new(inputs, outputs)?],
            batches: self.batches(&model),
            threads,
            footprint: Footprint { weights: self.weights, activations: 0 },
            model,
        })
    }
}

impl Facts {
    /// The nodes that take and make the values of steps of 2, 3 and so on members.
    fn batches(&self, model: &Model) -> Vec<Batch> {
        // Of the outputs, those of one member come first, then those of the members of each size of step.
        let mut made = model.output_ids().iter().copied().skip(self.outputs.len());
        let input = |name: &str, i: usize| model.find_node(&own(name, i));
        (2..=self.members_max)
            .map(|members| {
                let of = |i: usize| self.inputs.iter().map(|it| input(&it.name, i)).collect();
                let inputs = (0..members).map(of).collect();
                let outputs = made.by_ref().take(self.outputs.len() * members).collect();
                Batch { inputs, outputs }
            })
            .collect()
    }
}

/// The output that an input is handed through to unchanged: state of which only a part is new each time.
fn same(network: &onnx::Model, input: &onnx::Port) -> Option<String> {
    let graph = network.graph();
    let is_same = |output: &&ValueInfoProto| {
        let identity = |node: &NodeProto| node.op_type() == "Identity" && node.input.first() == Some(&input.name);
        let made = |node: &NodeProto| node.output.first().is_some_and(|name| name == output.name());
        output.name() == input.name || graph.node.iter().any(|node| made(node) && identity(node))
    };
    graph.output.iter().find(is_same).map(|output| output.name().to_owned())
}

/// Whether an input is a cache: an operator appends to it, and nothing else takes it. Then, along which dimension.
fn grows(network: &onnx::Model, input: &onnx::Port) -> Option<usize> {
    // Looking at its shape does not count.
    let takes = |node: &&NodeProto| node.input.contains(&input.name) && !matches!(node.op_type(), "Shape" | "Size");
    let mut takers = network.graph().node.iter().filter(takes);
    let (node, None) = (takers.next()?, takers.next()) else { return None };
    let place = node.input.iter().position(|name| *name == input.name)?;
    match (node.op_type(), place) {
        ("Concat", 0) => {
            let axis = node.attribute.iter().find(|it| it.name() == "axis")?.i();
            let rank = i64::try_from(input.shape.as_ref()?.len()).ok()?;
            usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()
        }
        // Past keys and values, of shape (batch, heads, tokens, size).
        ("GroupQueryAttention", 3 | 4) | ("Attention", 4 | 5) | ("MultiHeadAttention", 6 | 7) => Some(2),
        _ => None,
    }
}

/// Options that `rten` understands.
struct Options {
    model_options: ModelOptions,
    threads: Threads,
}

impl Options {
    fn new(options: &LoadOptions) -> Result<Self, Error> {
        if options.precision != Precision::AsStored {
            return Err(Error::unsupported(
                "rten computes with the precision of the file; precision must be as stored",
            ));
        }
        if options.segments == 0 {
            return Err(Error::invalid_input("a network has at least 1 segment, not 0"));
        }
        let mut model_options = ModelOptions::with_all_ops();
        for (key, value) in &options.extra {
            let on = || match value.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Error::invalid_input(format!("option `{key}` is `{value}`; it must be true or false"))),
            };
            match key.as_str() {
                "prepack_weights" => model_options.prepack_weights(on()?),
                "enable_optimization" => model_options.enable_optimization(on()?),
                _ => {
                    let message = format!("rten has no option `{key}`; it has prepack_weights and enable_optimization");
                    return Err(Error::unsupported(message));
                }
            };
        }
        Ok(Self { model_options, threads: Threads::new(options.threads, &options.cores)? })
    }
}

fn check_cancelled(control: &Control) -> Result<(), Error> {
    if control.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}

/// Reads a file with weights that the network names, which must lie in its folder or below.
fn read_beside(file: &Path, location: &str) -> Result<Vec<u8>, Error> {
    let inside = Path::new(location).components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(Error::invalid_model(format!("its weights are in `{location}`, which is not in its folder")));
    }
    let path = file.parent().unwrap_or(Path::new("")).join(location);
    fs::read(&path)
        .map_err(|error| Error::not_found(format!("its weights in {} cannot be read: {error}", path.display())))
}

/// Has `rten` load a file's content.
pub(crate) fn load_model(options: &ModelOptions, bytes: Vec<u8>) -> Result<Model, Error> {
    // `rten` means to report everything as an error, but a damaged file can still make it index what is not there.
    match catch_unwind(AssertUnwindSafe(|| options.load(bytes))) {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(error)) => Err(match error.kind() {
            LoadErrorKind::OperatorInvalid | LoadErrorKind::FormatNotEnabled => {
                Error::unsupported(format!("rten {RTEN_VERSION} cannot load it: {error}"))
            }
            _ => Error::invalid_model(format!("rten {RTEN_VERSION} cannot load it: {error}")),
        }),
        Err(panic) => Err(Error::invalid_model(format!("rten {RTEN_VERSION} failed: {}", panic_message(&*panic)))),
    }
}

fn kind(port: &onnx::Port) -> Kind {
    match port.element_type {
        // `rten` widens 16-bit numbers when the file is loaded.
        Some(onnx::ElementType::F32 | onnx::ElementType::F16) => Kind::Plain(ElementType::F32),
        Some(onnx::ElementType::I64) => Kind::Plain(ElementType::I64),
        Some(onnx::ElementType::I32) => Kind::Plain(ElementType::I32),
        Some(onnx::ElementType::U8) => Kind::Plain(ElementType::U8),
        Some(onnx::ElementType::I8) => Kind::Plain(ElementType::I8),
        Some(onnx::ElementType::Bool) => Kind::Truth,
        None => Kind::Open,
    }
}

fn port(port: &onnx::Port) -> Port {
    let dim = |dim: &onnx::Dim| match dim {
        onnx::Dim::Fixed(size) => Dim::Fixed(*size),
        onnx::Dim::Free(name) => Dim::Free(name.clone()),
    };
    Port {
        name: port.name.clone(),
        element_type: kind(port).element_type(),
        shape: port.shape.iter().flatten().map(dim).collect(),
    }
}

/// The processor's name, as the system gives it.
fn processor_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
