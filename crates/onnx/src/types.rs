//! Element types of values that a file does not declare.

use std::collections::HashMap;

use crate::model::Model;
use crate::proto::{
    AttributeProto, GraphProto, NodeProto, TensorType, TypeProto, TypeValue, ValueInfoProto, data_type,
};

/// What is known about a model's values: what the file declares, else the element type that follows from the operators.
pub(crate) struct Types<'a> {
    declared: HashMap<&'a str, &'a ValueInfoProto>,
    elements: HashMap<&'a str, i32>,
}

impl<'a> Types<'a> {
    pub(crate) fn of(model: &'a Model) -> Self {
        let graph = model.graph();
        let mut elements = HashMap::new();
        follow(graph, &mut elements);
        let infos = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        Self {
            declared: infos.filter(|info| info.r#type.is_some()).map(|info| (info.name(), info)).collect(),
            elements,
        }
    }

    /// Name and type of a value; without a type if nothing is known.
    pub(crate) fn describe(&self, name: &str) -> ValueInfoProto {
        if let Some(&info) = self.declared.get(name) {
            return info.clone();
        }
        let tensor = |&elem_type: &i32| TensorType { elem_type: Some(elem_type), shape: None };
        let r#type = self.elements.get(name).map(tensor);
        let r#type = r#type.map(|it| TypeProto { value: Some(TypeValue::Tensor(it)), denotation: None });
        ValueInfoProto { name: Some(name.to_owned()), r#type, ..ValueInfoProto::default() }
    }
}

/// Adds the element types of a graph's values to those of the graphs around it.
fn follow<'a>(graph: &'a GraphProto, elements: &mut HashMap<&'a str, i32>) {
    elements.extend(graph.initializer.iter().map(|it| (it.name(), it.data_type())));
    for info in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
        if let Some(TypeValue::Tensor(tensor)) = info.r#type.as_ref().and_then(|it| it.value.as_ref()) {
            elements.insert(info.name(), tensor.elem_type());
        }
    }
    // Files list nodes in an order in which they can run, so one pass suffices.
    for node in &graph.node {
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|inner| follow(inner, elements));
        }
        for (i, name) in node.output.iter().enumerate() {
            if let Some(found) = output_type(node, i, elements) {
                elements.entry(name).or_insert(found);
            }
        }
    }
}

/// The element type of a node's output, by the operator's definition in ONNX or ONNX Runtime's contributed operators.
fn output_type(node: &NodeProto, output: usize, elements: &HashMap<&str, i32>) -> Option<i32> {
    let input = |i: usize| elements.get(node.input.get(i)?.as_str()).copied();
    let number = |name: &str| attribute(node, name).and_then(|it| it.i).map(|it| it as i32);
    match (node.op_type(), output) {
        ("Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "NonMaxSuppression", _)
        | ("TopK" | "MaxPool" | "Unique", 1..) => Some(data_type::INT64),
        (
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN"
            | "IsInf",
            _,
        )
        | ("Dropout", 1) => Some(data_type::BOOL),
        ("Cast", _) => number("to"),
        ("EyeLike" | "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike", _) => {
            number("dtype").or(input(0)).or(Some(data_type::FLOAT))
        }
        ("Multinomial", _) => number("dtype").or(Some(data_type::INT32)),
        ("MatMulInteger" | "ConvInteger", _) => Some(data_type::INT32),
        ("DynamicQuantizeLinear", 0 | 2) => Some(data_type::UINT8),
        ("DynamicQuantizeLinear", _) => Some(data_type::FLOAT),
        ("DequantizeLinear" | "CastLike", _) => input(1),
        ("QuantizeLinear", _) => input(2).or_else(|| number("output_dtype")).or(Some(data_type::UINT8)),
        ("QLinearConv" | "QLinearMatMul", _) => input(7),
        ("Where", _) => input(1).or(input(2)),
        ("OneHot" | "GatherBlockQuantized", _) => input(2),
        ("ConstantOfShape" | "Constant", _) => {
            let tensor =
                attribute(node, "value").and_then(|it| it.t.as_ref()).map(super::proto::TensorProto::data_type);
            let int = attribute(node, "value_int").or(attribute(node, "value_ints")).map(|_| data_type::INT64);
            tensor.or(int).or(Some(data_type::FLOAT))
        }
        ("If" | "Loop" | "Scan", _) => {
            let inner = node.attribute.iter().find_map(|it| it.g.as_ref())?;
            // A loop's body gives the condition first.
            let skipped = usize::from(node.op_type() == "Loop");
            elements.get(inner.output.get(output + skipped)?.name()).copied()
        }
        // Every other operator gives what it takes; the first input can be left out.
        _ => (0..node.input.len()).find_map(input),
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|it| it.name() == name)
}
