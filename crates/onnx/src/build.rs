//! Building ONNX graphs node by node.

use std::collections::HashSet;

use prost::bytes::Bytes;

use crate::model::{Dim, ElementType, Model};
use crate::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto,
    attribute_type,
};

/// A constant of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A number.
    Float(f32),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// Numbers.
    Floats(Vec<f32>),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
    /// A tensor, from [`tensor`].
    Tensor(TensorProto),
    /// A graph: the body of a branch or a loop, from [`Builder::into_graph`].
    Graph(GraphProto),
}

/// Numbers that tensors consist of.
pub trait Number: Copy {
    /// Their type.
    const TYPE: ElementType;
    /// Appends its bytes, the lowest first.
    fn put(self, bytes: &mut Vec<u8>);
}

macro_rules! number {
    ($type:ty, $element:ident) => {
        impl Number for $type {
            const TYPE: ElementType = ElementType::$element;
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    };
}
number!(f32, F32);
number!(i64, I64);
number!(i32, I32);
number!(u8, U8);
number!(i8, I8);

/// A constant tensor, for [`Attr::Tensor`].
///
/// # Panics
/// If the elements do not fill the shape.
pub fn tensor<T: Number>(shape: &[usize], elements: &[T]) -> TensorProto {
    let mut bytes = Vec::with_capacity(elements.len() * T::TYPE.bytes());
    for it in elements {
        it.put(&mut bytes);
    }
    raw_tensor("", T::TYPE, shape, bytes)
}

fn raw_tensor(name: &str, element_type: ElementType, shape: &[usize], bytes: Vec<u8>) -> TensorProto {
    let count: usize = shape.iter().product();
    assert_eq!(
        bytes.len(),
        count * element_type.bytes(),
        "the tensor `{name}` of shape {shape:?} needs {count} elements of type {element_type:?}"
    );
    TensorProto {
        dims: shape.iter().map(|&size| signed(size)).collect(),
        data_type: Some(element_type.number()),
        name: Some(name.to_owned()),
        raw_data: Some(Bytes::from(bytes)),
        ..TensorProto::default()
    }
}

/// Builds a model: inputs, weights, nodes, outputs, in any order that puts a value before its use.
///
/// Methods return the names of the values that they make. An optional input that is left out is the empty string.
///
/// ```
/// use onbeat_onnx::{Builder, Dim, ElementType};
///
/// let mut g = Builder::new("double", 17);
/// let x = g.input("x", ElementType::F32, &[Dim::Fixed(2)]);
/// let two = g.f32("two", &[], vec![2.0]);
/// let y = g.node("Mul", &[&x, &two], &[]);
/// g.output_named(&y, "y", ElementType::F32, &[Dim::Fixed(2)]);
/// let file: Vec<u8> = g.finish();
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    graph: GraphProto,
    opset: i64,
    contrib: bool,
    metadata: Vec<StringStringEntryProto>,
    names: HashSet<String>,
}

impl Builder {
    /// An empty graph with a name, for a version of ONNX's operator set.
    pub fn new(name: &str, opset: i64) -> Self {
        let graph = GraphProto { name: Some(name.to_owned()), ..GraphProto::default() };
        // The empty string stands for an input that is left out, so no value may have it as its name.
        let names = HashSet::from([String::new()]);
        Self { graph, opset, contrib: false, metadata: Vec::new(), names }
    }

    /// Imports ONNX Runtime's own operators (`com.microsoft`, version 1). [`Builder::contrib_node`] does it by itself.
    pub fn contrib(&mut self) -> &mut Self {
        self.contrib = true;
        self
    }

    /// Adds a pair to the file's metadata.
    pub fn metadata(&mut self, key: &str, value: &str) -> &mut Self {
        self.metadata.push(StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) });
        self
    }

    /// Adds an input of the graph.
    ///
    /// # Panics
    /// If the name is empty or taken.
    pub fn input(&mut self, name: &str, element_type: ElementType, shape: &[Dim]) -> String {
        assert!(self.names.insert(name.to_owned()), "the name `{name}` of the input is taken");
        self.graph.input.push(value_info(name, element_type, shape));
        name.to_owned()
    }

    /// Adds weights. If the name is taken, a number is appended: use the name that is returned.
    ///
    /// # Panics
    /// If the elements do not fill the shape.
    pub fn f32(&mut self, name: &str, shape: &[usize], elements: Vec<f32>) -> String {
        self.numbers(name, shape, elements)
    }

    /// Like [`Builder::f32`], for 64-bit integers.
    pub fn i64(&mut self, name: &str, shape: &[usize], elements: Vec<i64>) -> String {
        self.numbers(name, shape, elements)
    }

    /// Like [`Builder::f32`], for 32-bit integers.
    pub fn i32(&mut self, name: &str, shape: &[usize], elements: Vec<i32>) -> String {
        self.numbers(name, shape, elements)
    }

    /// Like [`Builder::f32`], for unsigned bytes, which are not copied.
    pub fn u8(&mut self, name: &str, shape: &[usize], elements: Vec<u8>) -> String {
        self.initialiser(name, ElementType::U8, shape, elements)
    }

    /// Like [`Builder::f32`], for signed bytes.
    pub fn i8(&mut self, name: &str, shape: &[usize], elements: Vec<i8>) -> String {
        self.numbers(name, shape, elements)
    }

    /// Like [`Builder::f32`], for 16-bit floating point, given as the bits of IEEE 754 binary16.
    pub fn f16_bits(&mut self, name: &str, shape: &[usize], elements: Vec<u16>) -> String {
        let bytes = elements.into_iter().flat_map(u16::to_le_bytes).collect();
        self.initialiser(name, ElementType::F16, shape, bytes)
    }

    fn numbers<T: Number>(&mut self, name: &str, shape: &[usize], elements: Vec<T>) -> String {
        let mut bytes = Vec::with_capacity(elements.len() * T::TYPE.bytes());
        for it in elements {
            it.put(&mut bytes);
        }
        self.initialiser(name, T::TYPE, shape, bytes)
    }

    /// Adds weights of any type as their bytes, the lowest first. Otherwise like [`Builder::f32`].
    ///
    /// # Panics
    /// If the bytes do not fill the shape.
    pub fn initialiser(&mut self, name: &str, element_type: ElementType, shape: &[usize], bytes: Vec<u8>) -> String {
        let name = self.fresh(name);
        self.graph.initializer.push(raw_tensor(&name, element_type, shape, bytes));
        name
    }

    /// Adds a node with one output.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        self.push("", operator, inputs, attributes, 1).remove(0)
    }

    /// Adds a node with several outputs.
    pub fn node_n(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attr)],
        outputs: usize,
    ) -> Vec<String> {
        self.push("", operator, inputs, attributes, outputs)
    }

    /// Adds a node with one output, of an operator of ONNX Runtime's own (`com.microsoft`).
    pub fn contrib_node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        self.contrib_node_n(operator, inputs, attributes, 1).remove(0)
    }

    /// Adds a node with several outputs, of an operator of ONNX Runtime's own (`com.microsoft`).
    pub fn contrib_node_n(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attr)],
        outputs: usize,
    ) -> Vec<String> {
        self.contrib = true;
        self.push(CONTRIB, operator, inputs, attributes, outputs)
    }

    fn push(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attr)],
        outputs: usize,
    ) -> Vec<String> {
        let outputs: Vec<String> = (0..outputs).map(|_| self.fresh(operator)).collect();
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&it| it.to_owned()).collect(),
            output: outputs.clone(),
            // A node's first output names it too: both are unique, and messages of libraries name nodes.
            name: outputs.first().cloned(),
            op_type: Some(operator.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        outputs
    }

    /// Makes a value an output of the graph, by its own name.
    pub fn output(&mut self, value: &str, element_type: ElementType, shape: &[Dim]) {
        self.graph.output.push(value_info(value, element_type, shape));
    }

    /// Makes a value an output of the graph under a name. If it is not the value's own, an `Identity` gives it that.
    ///
    /// # Panics
    /// If the name belongs to another value.
    pub fn output_named(&mut self, value: &str, name: &str, element_type: ElementType, shape: &[Dim]) {
        if value != name {
            assert!(self.names.insert(name.to_owned()), "the name `{name}` of the output is taken");
            self.graph.node.push(NodeProto {
                input: vec![value.to_owned()],
                output: vec![name.to_owned()],
                name: Some(name.to_owned()),
                op_type: Some("Identity".to_owned()),
                ..NodeProto::default()
            });
        }
        self.output(name, element_type, shape);
    }

    /// The file's content.
    pub fn finish(self) -> Vec<u8> {
        self.into_model().to_bytes()
    }

    /// The model.
    pub fn into_model(self) -> Model {
        let set =
            |domain: &str, version| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
        let mut sets = vec![set("", self.opset)];
        if self.contrib {
            sets.push(set(CONTRIB, 1));
        }
        // The oldest file version that may carry the operator set, by ONNX's table of versions.
        let ir_version = match self.opset {
            ..=18 => 8,
            19..=20 => 9,
            _ => 10,
        };
        Model::from_proto(ModelProto {
            ir_version: Some(ir_version),
            opset_import: sets,
            producer_name: Some("onbeat".to_owned()),
            graph: Some(self.graph),
            metadata_props: self.metadata,
            ..ModelProto::default()
        })
        .expect("a built model has a graph")
    }

    /// The graph alone, for [`Attr::Graph`].
    pub fn into_graph(self) -> GraphProto {
        self.graph
    }

    /// A name that no value has yet: the wanted one, or that with a number.
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = self.names.len();
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        name
    }
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("no dimension is longer than memory")
}

const CONTRIB: &str = "com.microsoft";

pub(crate) fn value_info(name: &str, element_type: ElementType, shape: &[Dim]) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::Fixed(size) => Some(DimensionValue::Value(signed(*size))),
            Dim::Free(name) if name.is_empty() => None,
            Dim::Free(name) => Some(DimensionValue::Param(name.clone())),
        };
        Dimension { value, denotation: None }
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorType { elem_type: Some(element_type.number()), shape: Some(shape) };
    let r#type = TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn attribute(name: &str, value: &Attr) -> AttributeProto {
    let text = |it: &str| Bytes::copy_from_slice(it.as_bytes());
    let mut it = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let r#type = match value {
        Attr::Float(value) => {
            it.f = Some(*value);
            attribute_type::FLOAT
        }
        Attr::Int(value) => {
            it.i = Some(*value);
            attribute_type::INT
        }
        Attr::Text(value) => {
            it.s = Some(text(value));
            attribute_type::STRING
        }
        Attr::Floats(values) => {
            it.floats.clone_from(values);
            attribute_type::FLOATS
        }
        Attr::Ints(values) => {
            it.ints.clone_from(values);
            attribute_type::INTS
        }
        Attr::Texts(values) => {
            it.strings = values.iter().map(|value| text(value)).collect();
            attribute_type::STRINGS
        }
        Attr::Tensor(value) => {
            it.t = Some(value.clone());
            attribute_type::TENSOR
        }
        Attr::Graph(value) => {
            it.g = Some(value.clone());
            attribute_type::GRAPH
        }
    };
    it.r#type = Some(r#type);
    it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_read_back() {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", ElementType::F32, &[Dim::Fixed(1), Dim::Free("seq".into()), Dim::Free(String::new())]);
        let w = g.f32("w", &[2, 1], vec![1.0, -2.5]);
        let again = g.f32("w", &[], vec![0.0]);
        assert_ne!(w, again);
        let half = g.f16_bits("h", &[1], vec![0x3c00]);
        let y =
            g.node("Conv", &[&x, &w, ""], &[("strides", Attr::Ints(vec![0, 2])), ("mode", Attr::Text("CRD".into()))]);
        let parts = g.contrib_node_n("Odd", &[&y, &half], &[("alpha", Attr::Float(0.0)), ("axis", Attr::Int(0))], 2);
        g.output_named(&parts[1], "out", ElementType::F32, &[]);
        g.output(&parts[0], ElementType::I64, &[Dim::Fixed(3)]);
        g.metadata("key", "value");

        let model = Model::read(g.clone().finish()).unwrap();
        assert_eq!(model, g.into_model());
        assert_eq!(model.inputs()[0].shape.as_ref().unwrap()[1], Dim::Free("seq".into()));
        assert_eq!(model.inputs()[0].shape.as_ref().unwrap()[2], Dim::Free(String::new()));
        let outputs: Vec<_> = model.outputs().into_iter().map(|port| (port.name, port.element_type)).collect();
        assert_eq!(outputs, [("out".to_owned(), Some(ElementType::F32)), (parts[0].clone(), Some(ElementType::I64))]);
        let graph = model.graph();
        assert_eq!(graph.initializer[0].raw_data(), [0, 0, 128, 63, 0, 0, 32, 192]);
        assert_eq!(graph.initializer[2].raw_data(), [0x00, 0x3c]);
        assert_eq!(graph.node[0].input, ["x", "w", ""]);
        assert_eq!(graph.node[0].attribute[0].ints, [0, 2]);
        assert_eq!(graph.node[0].attribute[1].s(), b"CRD");
        // Zeros are written out: a reader of version 2 of the protocol tells them from what is absent.
        assert_eq!(graph.node[1].attribute[0].f, Some(0.0));
        assert_eq!(graph.node[1].domain(), "com.microsoft");
        assert_eq!(graph.node[2].op_type(), "Identity");
        assert_eq!((model.opset(""), model.opset("com.microsoft")), (Some(17), Some(1)));
        assert_eq!(model.metadata("key"), Some("value"));
        assert_eq!(model.weight_bytes(), 8 + 4 + 2);
    }

    #[test]
    #[should_panic(expected = "needs 4 elements of type F32")]
    fn elements_must_fill_the_shape() {
        Builder::new("g", 17).f32("w", &[2, 2], vec![0.0; 3]);
    }
}
