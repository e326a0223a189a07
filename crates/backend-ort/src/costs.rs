//! How much work each operator of a network is, so that parts can be made equally long.

use std::collections::HashMap;

use onbeat_onnx::Model;
use onbeat_onnx::proto::{NodeProto, TensorProto};

/// Shapes of values by their names; a size of 0 or less is not known.
pub(crate) type Shapes<'a> = HashMap<&'a str, Vec<i64>>;

/// The work of each node, in multiplications, from the shapes of the values. `None` if too many are not known.
pub(crate) fn costs(model: &Model, inferred: &Shapes) -> Option<Vec<f64>> {
    let graph = model.graph();
    let mut shapes = inferred.clone();
    shapes.extend(graph.initializer.iter().map(|tensor: &TensorProto| (tensor.name(), tensor.dims.clone())));
    let known = |name: &&String| shapes.get(name.as_str()).is_some_and(|shape| shape.iter().all(|&size| size > 0));
    let outputs = graph.node.iter().filter_map(|node| node.output.first());
    let (all, unknown) = (outputs.clone().count(), outputs.filter(|name| !known(name)).count());
    (unknown * 10 <= all).then(|| graph.node.iter().map(|node| cost(node, &shapes)).collect())
}

/// What an element costs that is not multiplied into a sum but handled on its own: memory traffic and conversions weigh more than one of the
/// multiplications that processors do many of at once.
const ELEMENT: f64 = 15.0;

fn cost(node: &NodeProto, shapes: &Shapes) -> f64 {
    let shape = |i: usize| node.input.get(i).and_then(|name| shapes.get(name.as_str())).map_or(&[][..], Vec::as_slice);
    let made: f64 = node.output.iter().filter_map(|name| shapes.get(name.as_str())).map(|shape| size(shape)).sum();
    let sums = match node.op_type() {
        // Each output is a sum over the weights of its channel.
        "Conv" | "ConvInteger" | "FusedConv" => made * size(shape(1).get(1..).unwrap_or_default()),
        "QLinearConv" => made * size(shape(3).get(1..).unwrap_or_default()),
        // Each input is multiplied with the weights of its channel.
        "ConvTranspose" => size(shape(0)) * size(shape(1).get(1..).unwrap_or_default()),
        "MatMul" | "MatMulInteger" | "Gemm" | "QLinearMatMul" | "MatMulNBits" | "DynamicQuantizeMatMul" => {
            made * shape(0).last().map_or(1.0, |&size| size.max(1) as f64)
        }
        "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM" => {
            let steps = shape(0).iter().take(2).map(|&size| size.max(1) as f64).product::<f64>();
            steps * (size(shape(1)) + size(shape(2)))
        }
        "Einsum" => einsum(node, shapes),
        "Reshape" | "Shape" | "Identity" | "Squeeze" | "Unsqueeze" | "Flatten" | "Constant" => return 1.0,
        _ => 0.0,
    };
    sums + made * ELEMENT
}

/// The number of elements; sizes that are not known count as 1.
fn size(shape: &[i64]) -> f64 {
    shape.iter().map(|&size| size.max(1) as f64).product()
}

/// The product of the sizes of all letters of the equation.
fn einsum(node: &NodeProto, shapes: &Shapes) -> f64 {
    let equation = node.attribute.iter().find(|attribute| attribute.name() == "equation");
    let equation =
        equation.and_then(|attribute| attribute.s.as_ref()).map(|text| String::from_utf8_lossy(text).into_owned());
    let equation = equation.unwrap_or_default().replace(' ', "");
    let terms = equation.split("->").next().unwrap_or_default().split(',');
    let mut letters: HashMap<char, f64> = HashMap::new();
    for (term, name) in terms.zip(&node.input) {
        let Some(shape) = shapes.get(name.as_str()) else { continue };
        letters.extend(term.chars().zip(shape.iter().map(|&size| size.max(1) as f64)));
    }
    letters.into_values().product()
}

#[cfg(test)]
mod tests {
    use onbeat_onnx::{Attr, Builder, Dim, ElementType};

    use super::*;

    #[test]
    fn convolutions_products_and_sums_are_counted() {
        let mut g = Builder::new("net", 17);
        let x = g.input("x", ElementType::F32, &[1, 3, 10, 10].map(Dim::Fixed));
        let weights = g.f32("weights", &[4, 3, 3, 3], vec![0.0; 108]);
        let conv = g.node("Conv", &[&x, &weights], &[("pads", Attr::Ints(vec![1; 4]))]);
        let relu = g.node("Relu", &[&conv], &[]);
        let flat = g.node("Flatten", &[&relu], &[]);
        let matrix = g.f32("matrix", &[400, 5], vec![0.0; 2000]);
        let product = g.node("MatMul", &[&flat, &matrix], &[]);
        let einsum = g.node("Einsum", &[&product, &product], &[("equation", Attr::Text("ij, kj -> ik".into()))]);
        g.output(&einsum, ElementType::F32, &[]);
        let names = [conv, relu, flat, product, einsum];
        let sizes: [&[i64]; 5] = [&[1, 4, 10, 10], &[1, 4, 10, 10], &[1, 400], &[1, 5], &[1, 1]];
        let mut shapes: Shapes = names.iter().map(String::as_str).zip(sizes.map(<[i64]>::to_vec)).collect();
        let model = g.into_model();
        // 400 outputs × 27 weights; 400 elements; 5 outputs × 400; letters i, j and k: 1 × 5 × 1. Each output is an element too.
        let expected = [400.0 * 27.0 + 6000.0, 6000.0, 1.0, 2000.0 + 75.0, 5.0 + 15.0];
        assert_eq!(costs(&model, &shapes).unwrap(), expected);

        shapes.insert(&names[0], vec![1, 4, -1, -1]);
        assert_eq!(costs(&model, &shapes), None);
    }
}
