//! Cutting a network into several, between which it can be interrupted.

use std::sync::Arc;

use onbeat_backend::Error;
use onbeat_onnx::proto::{
    Dimension, DimensionValue, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use onbeat_onnx::{Flow, Model, estimate, extract};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, ValueType};

use crate::costs::{Shapes, costs};
use crate::runtime::Runtime;

/// A file with weights, by the name that the network has for it, and what it holds.
pub(crate) type Beside = (String, Arc<[u8]>);

/// A part of a network, as a network of its own.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its file's content.
    pub(crate) content: Vec<u8>,
    /// Those of its inputs that are needed after it.
    pub(crate) lasting: Vec<String>,
}

/// Cuts a network into as many parts as wanted, or as many as it can be cut into. `dimensions` are sizes for those that it leaves free,
/// `beside` the weights that lie in other files.
pub(crate) fn cut(
    runtime: &Runtime,
    mut model: Model,
    segments: usize,
    dimensions: &[(String, usize)],
    beside: &[Beside],
) -> Result<Vec<Part>, Error> {
    let invalid = |error: onbeat_onnx::Error| Error::invalid_model(error.to_string());
    fix(&mut model, |name, _| dimensions.iter().find(|(other, _)| other == name).map(|(_, size)| *size));
    let flow = Flow::of(&model).map_err(invalid)?;
    let known = infer(runtime, &model, beside);
    let cuts = flow.cut(segments, &work(runtime, &model, &known, beside));
    let pieces = flow.pieces(&cuts);
    let types: Vec<ValueInfoProto> = known.iter().filter_map(|(name, dtype)| describe(name, dtype)).collect();
    pieces
        .iter()
        .map(|piece| {
            let inputs: Vec<&str> = piece.inputs.iter().map(|value| value.name.as_str()).collect();
            let outputs: Vec<&str> = piece.outputs.iter().map(|value| value.name.as_str()).collect();
            let mut part = extract(&model, &inputs, &outputs).map_err(invalid)?;
            let graph = part.graph_mut();
            let own =
                |name: &str| model.graph().output.iter().chain(&model.graph().input).any(|info| info.name() == name);
            for info in graph.input.iter_mut().chain(&mut graph.output).filter(|info| !own(info.name())) {
                if let Some(known) = types.iter().find(|known| known.name() == info.name()) {
                    info.r#type.clone_from(&known.r#type);
                }
            }
            let lasting = piece.inputs.iter().filter(|value| value.later || value.output);
            let lasting = lasting.map(|value| value.name.clone()).collect();
            Ok(Part { content: part.to_bytes(), lasting })
        })
        .collect()
}

/// Gives free dimensions of the inputs sizes, by their names and places.
fn fix(model: &mut Model, size: impl Fn(&str, usize) -> Option<usize>) {
    for info in &mut model.graph_mut().input {
        let Some(TypeValue::Tensor(tensor)) = info.r#type.as_mut().and_then(|it| it.value.as_mut()) else { continue };
        for (place, dim) in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim).enumerate() {
            let name = match &dim.value {
                Some(DimensionValue::Value(_)) => continue,
                Some(DimensionValue::Param(name)) => name.as_str(),
                None => "",
            };
            if let Some(size) = size(name, place) {
                dim.value = Some(DimensionValue::Value(i64::try_from(size).unwrap_or(i64::MAX)));
            }
        }
    }
}

/// What each node costs. Sizes that are free are guessed: 1 where a batch is, 256 elsewhere, which is right enough to compare operators.
fn work(runtime: &Runtime, model: &Model, known: &[(String, ValueType)], beside: &[Beside]) -> Vec<f64> {
    let shapes = |known: &[(String, ValueType)]| {
        let shape = |(name, dtype): &(String, ValueType)| Some((name.clone(), dtype.tensor_shape()?.to_vec()));
        known.iter().filter_map(shape).collect::<Vec<_>>()
    };
    let count = |shapes: &[(String, Vec<i64>)]| {
        let shapes: Shapes = shapes.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        costs(model, &shapes)
    };
    let guess = || {
        let mut fixed = model.clone();
        fix(&mut fixed, |_, place| Some(if place == 0 { 1 } else { 256 }));
        count(&shapes(&infer(runtime, &fixed, beside)))
    };
    count(&shapes(known)).or_else(guess).unwrap_or_else(|| estimate(model))
}

/// Types and shapes of all values, as ONNX Runtime infers them: providers that compile need those of the values that cross a cut. Empty if
/// it cannot load the network; then loading the parts says why.
fn infer(runtime: &Runtime, model: &Model, beside: &[Beside]) -> Vec<(String, ValueType)> {
    let mut all = model.clone();
    let graph = all.graph_mut();
    let outputs: Vec<String> = graph.output.iter().map(|info| info.name().to_owned()).collect();
    let made =
        graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty() && !outputs.contains(name));
    let wanted = made.map(|name| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() });
    let wanted: Vec<ValueInfoProto> = wanted.collect();
    graph.output.extend(wanted);
    let load = || -> ort::Result<Session> {
        // Shapes that are computed are known only once constants are folded, which is what the lowest level does.
        let mut builder = Session::builder(&runtime.environment)?
            .with_log_level(LogLevel::Fatal)?
            .with_intra_threads(1)?
            .with_optimization_level(GraphOptimizationLevel::Level1)?
            .with_prepacking(false)?;
        for (name, content) in beside {
            builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(content))?;
        }
        let _reading = runtime.reading();
        let cpu =
            runtime.environment.devices().find(|device| device.ep().is_ok_and(|name| name == crate::provider::CPU));
        builder.with_devices(cpu, None)?.commit_from_memory(&all.to_bytes())
    };
    let Ok(session) = load() else { return Vec::new() };
    session.outputs().iter().map(|output| (output.name().to_owned(), output.dtype().clone())).collect()
}

fn describe(name: &str, dtype: &ValueType) -> Option<ValueInfoProto> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = dtype else { return None };
    let dim = |(i, &size): (usize, &i64)| {
        let symbol = dimension_symbols.get(i).filter(|symbol| !symbol.is_empty());
        let value = if size >= 0 {
            Some(DimensionValue::Value(size))
        } else {
            symbol.map(|symbol| DimensionValue::Param(symbol.clone()))
        };
        Dimension { value, denotation: None }
    };
    let dims: Vec<Dimension> = shape.iter().enumerate().map(dim).collect();
    // An empty shape is that of a single number, or not known.
    let shape = (!dims.is_empty()).then_some(TensorShapeProto { dim: dims });
    let tensor = TensorType { elem_type: Some(number(*ty)?), shape };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    Some(ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() })
}

/// The number that ONNX files give to a type.
fn number(ty: TensorElementType) -> Option<i32> {
    Some(match ty {
        TensorElementType::Float32 => 1,
        TensorElementType::Uint8 => 2,
        TensorElementType::Int8 => 3,
        TensorElementType::Uint16 => 4,
        TensorElementType::Int16 => 5,
        TensorElementType::Int32 => 6,
        TensorElementType::Int64 => 7,
        TensorElementType::String => 8,
        TensorElementType::Bool => 9,
        TensorElementType::Float16 => 10,
        TensorElementType::Float64 => 11,
        TensorElementType::Uint32 => 12,
        TensorElementType::Uint64 => 13,
        TensorElementType::Bfloat16 => 16,
        _ => return None,
    })
}
