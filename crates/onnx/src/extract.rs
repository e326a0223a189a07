//! Taking a part of a model out, as a model of its own.

use std::collections::{HashMap, HashSet};

use crate::error::Error;
use crate::flow::{dependencies, node_name};
use crate::model::Model;
use crate::proto::{GraphProto, ModelProto, ValueInfoProto};
use crate::types::Types;

/// The part of a model that computes `outputs` from `inputs`, with the weights that it needs and no others. Names stay. Values that have
/// no declared type get one, as far as it follows from the operators; their shapes stay open.
///
/// # Errors
/// [`Error::Request`] if a value is not in the model, or if an output needs an input of the model that is not among `inputs`.
pub fn extract<S: AsRef<str>>(model: &Model, inputs: &[S], outputs: &[S]) -> Result<Model, Error> {
    let graph = model.graph();
    let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
    let outputs: Vec<&str> = outputs.iter().map(AsRef::as_ref).collect();
    let wanted = wanted(graph, &inputs, &outputs)?;
    let kept = |name: &str| wanted.values.contains(name) && !inputs.contains(&name);
    let nodes = graph.node.iter().enumerate().filter(|(i, _)| wanted.nodes.contains(i)).map(|(_, node)| node.clone());
    let types = Types::of(model);
    let describe = |name: &&str| types.describe(name);
    let part = GraphProto {
        name: graph.name.clone(),
        node: nodes.collect(),
        initializer: graph.initializer.iter().filter(|it| kept(it.name())).cloned().collect(),
        sparse_initializer: graph
            .sparse_initializer
            .iter()
            .filter(|it| it.values.as_ref().is_some_and(|values| kept(values.name())))
            .cloned()
            .collect(),
        input: inputs.iter().map(describe).collect(),
        output: outputs.iter().map(describe).collect(),
        value_info: graph
            .value_info
            .iter()
            .filter(|it| wanted.inner(it) && !inputs.contains(&it.name()))
            .cloned()
            .collect(),
        quantization_annotation: graph
            .quantization_annotation
            .iter()
            .filter(|it| wanted.values.contains(it.tensor_name()))
            .cloned()
            .collect(),
        ..GraphProto::default()
    };
    let whole = model.proto();
    Model::from_proto(ModelProto {
        graph: Some(part),
        ir_version: whole.ir_version,
        opset_import: whole.opset_import.clone(),
        functions: whole.functions.clone(),
        producer_name: whole.producer_name.clone(),
        metadata_props: whole.metadata_props.clone(),
        ..ModelProto::default()
    })
}

/// What a part consists of.
struct Wanted<'a> {
    nodes: HashSet<usize>,
    values: HashSet<&'a str>,
}

impl Wanted<'_> {
    fn inner(&self, info: &ValueInfoProto) -> bool {
        self.values.contains(info.name())
    }
}

/// Walks from the outputs back to the inputs.
fn wanted<'a>(graph: &'a GraphProto, inputs: &[&'a str], outputs: &[&'a str]) -> Result<Wanted<'a>, Error> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        makers.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), i)));
    }
    let sparse = graph.sparse_initializer.iter().filter_map(|it| it.values.as_ref());
    let initialisers: HashSet<&str> =
        graph.initializer.iter().chain(sparse).map(super::proto::TensorProto::name).collect();
    let is_input = |name: &str| graph.input.iter().any(|info| info.name() == name);
    if let Some(name) = inputs.iter().find(|name| !makers.contains_key(*name) && !is_input(name)) {
        return Err(Error::Request(format!("the model has no value `{name}` to start from")));
    }
    let mut wanted = Wanted { nodes: HashSet::new(), values: HashSet::new() };
    let mut open: Vec<(&str, Option<usize>)> = outputs.iter().map(|&name| (name, None)).collect();
    while let Some((name, for_node)) = open.pop() {
        if !wanted.values.insert(name) || inputs.contains(&name) {
            continue;
        }
        match makers.get(name) {
            Some(&maker) => {
                if wanted.nodes.insert(maker) {
                    open.extend(dependencies(&graph.node[maker]).into_iter().map(|name| (name, Some(maker))));
                }
            }
            None if initialisers.contains(name) => {}
            None => {
                let what = for_node
                    .map_or_else(|| "an output".to_owned(), |i| format!("node `{}`", node_name(&graph.node[i])));
                let problem =
                    if is_input(name) { "which is not among the inputs" } else { "which the model does not have" };
                return Err(Error::Request(format!("{what} needs the value `{name}`, {problem}")));
            }
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Attr, Builder};
    use crate::model::ElementType;
    use crate::proto::{NodeProto, data_type};

    fn two_layers() -> Model {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", ElementType::F32, &[]);
        let w1 = g.f32("w1", &[1, 1], vec![1.0]);
        let w2 = g.f32("w2", &[1, 1], vec![2.0]);
        let first = g.node("MatMul", &[&x, &w1], &[]);
        let ids = g.node("Cast", &[&first], &[("to", Attr::Int(i64::from(data_type::INT64)))]);
        let second = g.node("MatMul", &[&first, &w2], &[]);
        let y = g.node("Gather", &[&second, &ids], &[]);
        g.output_named(&y, "y", ElementType::F32, &[]);
        g.into_model()
    }

    #[test]
    fn a_part_has_only_what_it_needs_and_typed_ends() {
        let model = two_layers();
        let part = extract(&model, &["MatMul", "Cast"], &["y"]).unwrap();
        let names: Vec<&str> = part.graph().node.iter().map(NodeProto::op_type).collect();
        assert_eq!(names, ["MatMul", "Gather", "Identity"]);
        assert_eq!(part.graph().initializer.len(), 1);
        let types: Vec<_> = part.inputs().into_iter().map(|port| port.element_type).collect();
        assert_eq!(types, [Some(ElementType::F32), Some(ElementType::I64)]);
        assert_eq!(part.opset(""), Some(17));
    }

    #[test]
    fn impossible_parts_are_errors() {
        let error =
            |inputs: &[&str], outputs: &[&str]| extract(&two_layers(), inputs, outputs).unwrap_err().to_string();
        assert_eq!(error(&["Cast"], &["y"]), "node `MatMul` needs the value `x`, which is not among the inputs");
        assert_eq!(error(&["x"], &["z"]), "an output needs the value `z`, which the model does not have");
        assert_eq!(error(&["z"], &["y"]), "the model has no value `z` to start from");
    }
}
