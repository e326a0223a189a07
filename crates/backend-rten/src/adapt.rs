//! What `rten` 0.27 reads otherwise than ONNX means it, and how files are changed so that it does not matter.

use onbeat_onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, attribute_type};
use onbeat_onnx::{Attr, Builder, Model, tensor};

/// What was found in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file was changed.
    pub(crate) changed: bool,
    /// `rten` must not infer shapes: it takes `DynamicQuantizeLSTM`'s weights to be laid out like those of `LSTM`, though they are
    /// transposed, and folds the wrong shapes that follow into constants.
    pub(crate) shapes_mislead: bool,
}

/// Changes what has to be changed.
pub(crate) fn adapt(model: &mut Model) -> Found {
    let mut found = Found::default();
    let graph = model.graph_mut();
    drop_empty_inputs(graph, &mut found);
    name_kernels(graph, &mut found);
    turn_pads(graph, &mut found);
    found
}

/// An input that is left out is an empty name, or no name at all at the end. `rten` counts the names, so those at the end must go.
fn drop_empty_inputs(graph: &mut GraphProto, found: &mut Found) {
    for node in &mut graph.node {
        found.shapes_mislead |= node.op_type() == "DynamicQuantizeLSTM";
        while node.input.last().is_some_and(String::is_empty) {
            node.input.pop();
            found.changed = true;
        }
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                drop_empty_inputs(inner, found);
            }
        }
    }
}

/// The size of a convolution's kernel may be left out, as the weights have it. `rten` then takes the kernel to have one dimension.
fn name_kernels(graph: &mut GraphProto, found: &mut Found) {
    for node in &mut graph.node {
        let weights = match node.op_type() {
            "Conv" | "ConvTranspose" | "ConvInteger" => node.input.get(1),
            "QLinearConv" => node.input.get(3),
            _ => None,
        };
        let weights = weights.and_then(|name| graph.initializer.iter().find(|it| it.name() == name));
        let named = node.attribute.iter().any(|it| it.name() == "kernel_shape");
        // The weights' first two dimensions are channels.
        if let Some(size) = weights.and_then(|it| it.dims.get(2..))
            && !named
        {
            node.attribute.push(AttributeProto {
                name: Some("kernel_shape".to_owned()),
                r#type: Some(attribute_type::INTS),
                ints: size.to_vec(),
                ..AttributeProto::default()
            });
            found.changed = true;
        }
    }
}

/// `rten` pads by reflection only along the last two dimensions. Pictures whose channels come last are turned, padded and turned back.
fn turn_pads(graph: &mut GraphProto, found: &mut Found) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node) {
        match channels_last_pads(&node, &graph.initializer) {
            Some(pads) => {
                nodes.extend(turned(&node, pads, &mut graph.initializer));
                found.changed = true;
            }
            None => nodes.push(node),
        }
    }
    graph.node = nodes;
}

/// Padding of height and width – before both, after both – if it is constant and all that the node pads.
fn channels_last_pads(node: &NodeProto, initialisers: &[TensorProto]) -> Option<[i64; 4]> {
    let mode = node.attribute.iter().find(|it| it.name() == "mode")?;
    if node.op_type() != "Pad" || !node.domain().is_empty() || mode.s() == b"constant" || node.input.len() != 2 {
        return None;
    }
    let pads = initialisers.iter().find(|it| it.name() == node.input[1])?;
    let pads: Vec<i64> = match &pads.raw_data {
        Some(raw) => raw.chunks_exact(8).map(|it| i64::from_le_bytes(it.try_into().expect("8 bytes"))).collect(),
        None => pads.int64_data.clone(),
    };
    match pads[..] {
        [0, top, left, 0, 0, bottom, right, 0] => Some([top, left, bottom, right]),
        _ => None,
    }
}

fn turned(
    pad: &NodeProto,
    [top, left, bottom, right]: [i64; 4],
    initialisers: &mut Vec<TensorProto>,
) -> [NodeProto; 3] {
    let output = pad.output.first().cloned().unwrap_or_default();
    let name = |what: &str| format!("{output}/onbeat/{what}");
    let transpose = |from: &str, to: String, order: [i64; 4]| {
        let mut g = Builder::new("", 17);
        g.node("Transpose", &[from], &[("perm", Attr::Ints(order.to_vec()))]);
        let node = g.into_graph().node.remove(0);
        NodeProto { name: Some(to.clone()), output: vec![to], ..node }
    };
    let pads = tensor(&[8], &[0, 0, top, left, 0, 0, bottom, right]);
    initialisers.push(TensorProto { name: Some(name("pads")), ..pads });
    let before = transpose(&pad.input[0], name("turned"), [0, 3, 1, 2]);
    let middle = NodeProto { input: vec![name("turned"), name("pads")], output: vec![name("padded")], ..pad.clone() };
    let after = transpose(&name("padded"), output.clone(), [0, 2, 3, 1]);
    [before, middle, after]
}

#[cfg(test)]
mod tests {
    use onbeat_onnx::{Dim, ElementType};

    use super::*;

    #[test]
    fn names_of_inputs_that_are_left_out_at_the_end_go() {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", ElementType::F32, &[Dim::Fixed(1)]);
        let y = g.contrib_node("DynamicQuantizeLSTM", &[&x, "", &x, "", ""], &[]);
        g.output(&y, ElementType::F32, &[]);
        let mut model = g.into_model();
        assert_eq!(adapt(&mut model), Found { changed: true, shapes_mislead: true });
        assert_eq!(model.graph().node[0].input, ["x", "", "x"]);
        assert_eq!(adapt(&mut model), Found { changed: false, shapes_mislead: true });
    }
}
