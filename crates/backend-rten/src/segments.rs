//! Loading a network so that it can run from cut to cut.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use onbeat_backend::{Control, Dim, ElementType, Elements, Error, ErrorKind, Graph, Values};
use onbeat_onnx as onnx;
use onbeat_onnx::proto::ValueInfoProto;
use rten::{DataType, Dimension, ModelOptions, NodeId, NodeInfo, Sequence, Value, ValueType};
use rten_tensor::Tensor;

use crate::backend::load_model;
use crate::graph::{RtenGraph, Segment, Slot};
use crate::value::Kind;

/// A network on its way from the file to a graph.
pub(crate) struct Network {
    pub(crate) onnx: onnx::Model,
    pub(crate) options: ModelOptions,
    /// Sizes of free dimensions, where they are known.
    pub(crate) dimensions: Vec<(String, usize)>,
}

/// How many pieces are timed for each segment that is wanted.
const PIECES_PER_SEGMENT: usize = 4;
/// How often they are timed; the shortest time counts.
const ROUNDS: usize = 3;

impl Network {
    /// Cuts a graph that was loaded whole, if it can be.
    ///
    /// Where to cut is measured, if the sizes of all inputs are known: the network is loaded with more cuts than wanted, and each piece is
    /// timed with inputs of ones. Otherwise, and for networks whose sizes depend on what the inputs contain, it is estimated from the weights.
    pub(crate) fn cut(&self, whole: RtenGraph, segments: usize, control: &Control) -> Result<RtenGraph, Error> {
        let flow = onnx::Flow::of(&self.onnx).map_err(|error| Error::invalid_model(error.to_string()))?;
        let measurable = self.sizes_known(&whole) && !onnx::sizes_follow_data(&self.onnx);
        let costs = if measurable { self.measure(&flow, &whole, segments, control)? } else { None };
        let costs = costs.unwrap_or_else(|| onnx::estimate(&self.onnx));
        let cuts = flow.cut(segments, &costs);
        if cuts.is_empty() {
            return Ok(whole);
        }
        Ok(self.load_cut(&flow, &cuts, &whole, control)?.unwrap_or(whole))
    }

    fn sizes_known(&self, whole: &RtenGraph) -> bool {
        let known = |dim: &Dim| match dim {
            Dim::Fixed(_) => true,
            Dim::Free(name) => self.dimensions.iter().any(|(other, _)| other == name),
        };
        whole.inputs.iter().all(|port| port.shape.iter().all(known))
    }

    /// Costs of the nodes [ns]; `None` if the network does not run with ones as inputs.
    fn measure(
        &self,
        flow: &onnx::Flow,
        whole: &RtenGraph,
        segments: usize,
        control: &Control,
    ) -> Result<Option<Vec<f64>>, Error> {
        let even = vec![1.0; flow.len()];
        let cuts = flow.cut(segments.saturating_mul(PIECES_PER_SEGMENT), &even);
        let Some(fine) = self.load_cut(flow, &cuts, whole, control)? else { return Ok(None) };
        let pieces = flow.pieces(&cuts);
        let mut best = vec![f64::INFINITY; pieces.len()];
        for _ in 0..ROUNDS {
            let Some(mut values) = self.ones(&fine)? else { return Ok(None) };
            for (i, best) in best.iter_mut().enumerate() {
                let start = Instant::now();
                match fine.run_segment(i, &mut values, control) {
                    Ok(()) => *best = best.min(start.elapsed().as_nanos() as f64),
                    Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                    Err(_) => return Ok(None),
                }
            }
        }
        let mut costs = vec![0.0; flow.len()];
        for (piece, time) in pieces.iter().zip(best) {
            for &node in &piece.nodes {
                costs[node] = time / piece.nodes.len() as f64;
            }
        }
        Ok(Some(costs))
    }

    /// Loads the network with the values that cross the cuts as further outputs, so that optimisation does not do away with them. `None`
    /// if `rten` cannot run the pieces.
    fn load_cut(
        &self,
        flow: &onnx::Flow,
        cuts: &[usize],
        whole: &RtenGraph,
        control: &Control,
    ) -> Result<Option<RtenGraph>, Error> {
        let pieces = flow.pieces(cuts);
        let mut changed = self.onnx.clone();
        let outputs = &mut changed.graph_mut().output;
        for carried in pieces.iter().flat_map(|piece| &piece.outputs) {
            if !outputs.iter().any(|info| info.name() == carried.name) {
                outputs.push(ValueInfoProto { name: Some(carried.name.clone()), ..ValueInfoProto::default() });
            }
        }
        let names: Vec<String> = outputs.iter().map(|info| info.name().to_owned()).collect();
        let nothing = ValueInfoProto { name: Some(NOTHING.to_owned()), ..ValueInfoProto::default() };
        changed.graph_mut().input.push(nothing);
        let model = load_model(&self.options, changed.to_bytes())?;
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        let mut graph = RtenGraph {
            model,
            file: whole.file.clone(),
            inputs: whole.inputs.clone(),
            outputs: whole.outputs.clone(),
            segments: Vec::new(),
            batches: Vec::new(),
            threads: whole.threads.clone(),
            footprint: whole.footprint,
        };
        // Optimisation can make a node in one piece look at the shape of an input that belongs to another. So more and more inputs are kept
        // for all pieces, until the pieces can be planned. Integers first: they are small, and no operator would change them in place.
        let integers = |i: &usize| whole.inputs[*i].element_type != Some(ElementType::F32);
        let all: Vec<usize> = (0..whole.inputs.len()).collect();
        for kept in [Vec::new(), all.iter().copied().filter(integers).collect(), all] {
            graph.segments = slots(&graph, whole, &pieces, &names, &kept)?;
            if graph.segments.iter().all(|segment| can_be_planned(&graph, segment)) {
                return Ok(Some(graph));
            }
        }
        Ok(None)
    }

    /// Inputs of ones – as numbers, indices, lengths and masks what is least odd – in the sizes that are known; `None` if they are too large.
    fn ones(&self, graph: &RtenGraph) -> Result<Option<Values>, Error> {
        let mut values = Values::new();
        for port in &graph.inputs {
            let size = |dim: &Dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Free(name) => self.dimensions.iter().find(|(other, _)| other == name).map_or(1, |it| it.1),
            };
            let shape: Vec<usize> = port.shape.iter().map(size).collect();
            let Some(count) = count(&shape) else { return Ok(None) };
            let elements = match port.element_type {
                Some(ElementType::I64) => Elements::I64(vec![1; count]),
                Some(ElementType::I32) => Elements::I32(vec![1; count]),
                Some(ElementType::U8) => Elements::U8(vec![1; count]),
                Some(ElementType::I8) => Elements::I8(vec![1; count]),
                Some(ElementType::F32) | None => Elements::F32(vec![1.0; count]),
            };
            values.put(&port.name, onbeat_backend::Tensor::from_elements(shape, elements)?);
        }
        Ok(Some(values))
    }
}

/// The number of elements of a tensor that is only tried out, if it is not absurd: a damaged file can claim any size, and memory that is not
/// there ends the process.
fn count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?;
    (count <= 1 << 28).then_some(count)
}

/// An input that is never given.
const NOTHING: &str = "onbeat: never given";

/// Whether `rten` can run a segment, without running it.
///
/// `rten` has no call for that. But it plans for one output after the other before it computes, and its message names the first that it
/// cannot make. So it is asked for the segment's outputs, and then for one that nothing makes.
fn can_be_planned(graph: &RtenGraph, segment: &Segment) -> bool {
    let Some(nothing) = graph.model.find_node(NOTHING) else { return false };
    let mut inputs = Vec::new();
    for id in segment.inputs.iter().filter_map(|slot| slot.id) {
        let Some(value) = stand_in(graph, id) else { return false };
        inputs.push((id, value.into()));
    }
    let wanted: Vec<NodeId> = segment.wanted.iter().copied().chain([nothing]).collect();
    let result = catch_unwind(AssertUnwindSafe(|| graph.model.run(inputs, &wanted, None)));
    matches!(result, Ok(Err(error)) if error.to_string().contains(NOTHING))
}

/// A value that `rten` takes for an input, as long as it does not compute: of the right type and number of dimensions, and without elements
/// where sizes are free. `None` if it would be absurdly large.
fn stand_in(graph: &RtenGraph, id: NodeId) -> Option<Value> {
    let info = graph.model.node_info(id);
    let size = |dim: &Dimension| match dim {
        Dimension::Fixed(size) => *size,
        Dimension::Symbolic(_) => 0,
    };
    let shape: Vec<usize> = info.as_ref().and_then(NodeInfo::shape).iter().flatten().map(size).collect();
    let shape = shape.as_slice();
    count(shape)?;
    Some(match info.as_ref().and_then(NodeInfo::dtype) {
        Some(ValueType::Tensor(DataType::Int32)) => Tensor::<i32>::zeros(shape).into(),
        Some(ValueType::Tensor(DataType::Int8)) => Tensor::<i8>::zeros(shape).into(),
        Some(ValueType::Tensor(DataType::UInt8)) => Tensor::<u8>::zeros(shape).into(),
        Some(ValueType::Sequence(kind)) => Sequence::new(kind).into(),
        _ => Tensor::<f32>::zeros(shape).into(),
    })
}

/// The slots of all pieces. `names` are those of the model's outputs, `kept` the graph's inputs that every piece gets.
fn slots(
    graph: &RtenGraph,
    whole: &RtenGraph,
    pieces: &[onnx::Piece],
    names: &[String],
    kept: &[usize],
) -> Result<Vec<Segment>, Error> {
    let place: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let whole = &whole.segments[0];
    let slot = |carried: &onnx::Carried, lasting: bool| {
        let known = whole.inputs.iter().find(|slot| slot.name == carried.name);
        let output = whole.outputs.iter().find(|slot| slot.name == carried.name);
        // Optimisation keeps the outputs' order, but can put other nodes in their place.
        let made = place.get(carried.name.as_str()).and_then(|&i| graph.model.output_ids().get(i).copied());
        let id: Option<NodeId> = if known.is_some() { graph.model.find_node(&carried.name) } else { made };
        let kind = known.or(output).map_or(Kind::Open, |slot| slot.kind);
        let port = known.and_then(|slot| slot.port);
        let grows = if lasting { None } else { known.and_then(|slot| slot.grows) };
        Slot { name: carried.name.clone(), id, kind, lasting, port, grows, returns: None }
    };
    let mut segments = Vec::with_capacity(pieces.len());
    for (i, piece) in pieces.iter().enumerate() {
        let later = i + 1 < pieces.len();
        let mut inputs: Vec<Slot> = piece.inputs.iter().map(|it| slot(it, it.later || it.output)).collect();
        for &input in kept {
            let name = &whole.inputs[input].name;
            if let Some(slot) = inputs.iter_mut().find(|slot| slot.name == *name) {
                slot.lasting |= later;
                slot.grows = slot.grows.filter(|_| !slot.lasting);
            } else {
                let carried = onnx::Carried { name: name.clone(), later, output: false };
                inputs.push(slot(&carried, later));
            }
        }
        let outputs = piece.outputs.iter().map(|it| slot(it, it.later)).collect();
        segments.push(Segment::new(inputs, outputs)?);
    }
    Ok(segments)
}
