//! Reading and writing ONNX files.

use prost::Message;
use prost::bytes::Bytes;

use crate::error::Error;
use crate::proto::{
    DimensionValue, GraphProto, LOCATION_EXTERNAL, ModelProto, TensorProto, TypeValue, ValueInfoProto, data_type,
};

/// The element type of a tensor, as far as onbeat's models use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point (IEEE 754 binary16).
    F16,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
    /// Truth values, one byte each.
    Bool,
}

impl ElementType {
    /// Its number in ONNX files.
    pub fn number(self) -> i32 {
        match self {
            Self::F32 => data_type::FLOAT,
            Self::F16 => data_type::FLOAT16,
            Self::I64 => data_type::INT64,
            Self::I32 => data_type::INT32,
            Self::U8 => data_type::UINT8,
            Self::I8 => data_type::INT8,
            Self::Bool => data_type::BOOL,
        }
    }

    /// The type with this number; `None` if it is one that onbeat does not use.
    pub fn from_number(number: i32) -> Option<Self> {
        let all = [Self::F32, Self::F16, Self::I64, Self::I32, Self::U8, Self::I8, Self::Bool];
        all.into_iter().find(|it| it.number() == number)
    }

    /// Size of an element [bytes].
    pub fn bytes(self) -> usize {
        match self {
            Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::U8 | Self::I8 | Self::Bool => 1,
        }
    }
}

/// The size of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always the same.
    Fixed(usize),
    /// Free, by this name; the name may be empty.
    Free(String),
}

/// An input or an output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Type of the elements; `None` if the file does not say, or if it is one that onbeat does not use.
    pub element_type: Option<ElementType>,
    /// Sizes of the dimensions; `None` if the file does not say.
    pub shape: Option<Vec<Dim>>,
}

/// A model that was read from a file or built.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    proto: ModelProto,
}

impl Model {
    /// Reads an ONNX file. Weights share the buffer that is handed over.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::NoGraph`].
    pub fn read(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let proto = ModelProto::decode(bytes.into()).map_err(|error| Error::Damaged(error.to_string()))?;
        Self::from_proto(proto)
    }

    /// A model of this message.
    ///
    /// # Errors
    /// [`Error::NoGraph`].
    pub fn from_proto(proto: ModelProto) -> Result<Self, Error> {
        if proto.graph.is_none() {
            return Err(Error::NoGraph);
        }
        Ok(Self { proto })
    }

    /// The file's content. Less than 2 GiB, which is the limit of the format.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.proto.encode_to_vec()
    }

    /// The message.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The graph.
    pub fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`from_proto` lets no model without a graph pass")
    }

    /// The graph, to change it.
    pub fn graph_mut(&mut self) -> &mut GraphProto {
        self.proto.graph.as_mut().expect("`from_proto` lets no model without a graph pass")
    }

    /// What the model takes when it runs. Old files list the initialisers among the inputs; those are left out.
    pub fn inputs(&self) -> Vec<Port> {
        let graph = self.graph();
        let initialised = |port: &Port| graph.initializer.iter().any(|tensor| tensor.name() == port.name);
        graph.input.iter().map(port).filter(|port| !initialised(port)).collect()
    }

    /// What the model gives.
    pub fn outputs(&self) -> Vec<Port> {
        self.graph().output.iter().map(port).collect()
    }

    /// The value that the file's metadata holds for a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto
            .metadata_props
            .iter()
            .find(|entry| entry.key() == key)
            .map(super::proto::StringStringEntryProto::value)
    }

    /// Version of the operator set of a domain; `""` is ONNX's own.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        // ONNX's own domain has two names.
        let same = |other: &str| other == domain || (domain.is_empty() && other == "ai.onnx");
        self.proto.opset_import.iter().find(|set| same(set.domain())).map(super::proto::OperatorSetIdProto::version)
    }

    /// Files with weights that lie beside the model's own, as the file names them, each once.
    pub fn external_files(&self) -> Vec<&str> {
        let mut files = Vec::new();
        for tensor in &self.graph().initializer {
            let location = tensor.external_data.iter().find(|entry| entry.key() == "location");
            if let Some(location) = location
                && tensor.data_location() == LOCATION_EXTERNAL
                && !files.contains(&location.value())
            {
                files.push(location.value());
            }
        }
        files
    }

    /// Size of the weights: initialisers and tensors in nodes [bytes].
    pub fn weight_bytes(&self) -> u64 {
        graph_bytes(self.graph())
    }
}

fn graph_bytes(graph: &GraphProto) -> u64 {
    let initialisers = graph.initializer.iter().map(tensor_bytes).sum::<u64>();
    let sparse = graph.sparse_initializer.iter().flat_map(|it| [&it.values, &it.indices]).flatten();
    let sparse = sparse.map(tensor_bytes).sum::<u64>();
    let attributes = graph.node.iter().flat_map(|node| &node.attribute).map(|attribute| {
        attribute.t.iter().chain(&attribute.tensors).map(tensor_bytes).sum::<u64>()
            + attribute.g.iter().chain(&attribute.graphs).map(graph_bytes).sum::<u64>()
    });
    initialisers + sparse + attributes.sum::<u64>()
}

/// Size of a tensor's elements [bytes]: by its shape and type, so that those in other files count too.
pub(crate) fn tensor_bytes(tensor: &TensorProto) -> u64 {
    let count = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0)).fold(1, u64::saturating_mul);
    let bytes = match tensor.data_type() {
        data_type::UINT8 | data_type::INT8 | data_type::BOOL => 1,
        data_type::UINT16 | data_type::INT16 | data_type::FLOAT16 | data_type::BFLOAT16 => 2,
        data_type::INT64 | data_type::UINT64 | data_type::DOUBLE | data_type::COMPLEX64 => 8,
        data_type::COMPLEX128 => 16,
        _ => 4,
    };
    // A damaged file can claim any shape, but what it does not hold takes no memory.
    let claimed = count.saturating_mul(bytes);
    match &tensor.raw_data {
        Some(raw) if tensor.data_location() != LOCATION_EXTERNAL => claimed.min(raw.len() as u64),
        _ => claimed,
    }
}

fn port(info: &ValueInfoProto) -> Port {
    let tensor = match info.r#type.as_ref().and_then(|it| it.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => Some(tensor),
        _ => None,
    };
    let dims = tensor.and_then(|it| it.shape.as_ref()).map(|shape| {
        let dim = |value: &Option<DimensionValue>| match value {
            Some(DimensionValue::Value(size)) => usize::try_from(*size).map_or(Dim::Free(String::new()), Dim::Fixed),
            Some(DimensionValue::Param(name)) => Dim::Free(name.clone()),
            None => Dim::Free(String::new()),
        };
        shape.dim.iter().map(|it| dim(&it.value)).collect()
    });
    Port {
        name: info.name().to_owned(),
        element_type: tensor.and_then(|it| ElementType::from_number(it.elem_type())),
        shape: dims,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::proto::StringStringEntryProto;

    fn small() -> Vec<u8> {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", ElementType::F32, &[Dim::Fixed(2)]);
        let w = g.f32("w", &[2], vec![1.0, 2.0]);
        let y = g.node("Add", &[&x, &w], &[]);
        g.output(&y, ElementType::F32, &[]);
        g.finish()
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        assert_eq!(Model::read(Vec::new()), Err(Error::NoGraph));
        assert!(matches!(Model::read(b"not a model".to_vec()), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error_or_a_smaller_model() {
        let whole = small();
        for length in 0..whole.len() {
            // The graph is one field, so a cut inside it is always noticed.
            match Model::read(whole[..length].to_vec()) {
                Ok(model) => assert_eq!(model.graph(), Model::read(whole.clone()).unwrap().graph()),
                Err(error) => assert!(matches!(error, Error::NoGraph | Error::Damaged(_))),
            }
        }
    }

    #[test]
    fn old_files_list_initialisers_among_the_inputs() {
        let mut model = Model::read(small()).unwrap();
        let info = crate::build::value_info("w", ElementType::F32, &[Dim::Fixed(2)]);
        model.graph_mut().input.push(info);
        let names: Vec<String> = model.inputs().into_iter().map(|port| port.name).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn weights_in_other_files_are_named_once_and_count() {
        let mut model = Model::read(small()).unwrap();
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
        let external = TensorProto {
            name: Some("far".into()),
            dims: vec![100, 3],
            data_type: Some(data_type::FLOAT16),
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![entry("location", "weights.bin"), entry("offset", "0")],
            ..TensorProto::default()
        };
        model.graph_mut().initializer.extend([external.clone(), external]);
        assert_eq!(model.external_files(), ["weights.bin"]);
        assert_eq!(model.weight_bytes(), 8 + 2 * 600);
    }
}
