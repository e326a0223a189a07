//! Tensors on their way into and out of ONNX Runtime.

use std::any::Any;
use std::sync::Arc;

use onbeat_backend::{DeviceValue, Dim, Element, ElementType, Elements, Error, Port, Tensor, Value};
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, ValueType};

/// A value of ONNX Runtime. Nobody writes to one after it was made, so copies share it.
#[derive(Clone, Debug)]
pub(crate) struct OrtValue(Arc<DynValue>);

impl OrtValue {
    pub(crate) fn new(value: DynValue) -> Self {
        Self(Arc::new(value))
    }

    pub(crate) fn get(&self) -> &DynValue {
        &self.0
    }

    /// Takes over a tensor's memory, without a copy unless the type has to change. Truth values are bytes outside, and 64-bit integers
    /// may come as 32-bit ones.
    fn from_tensor(tensor: Tensor, wanted: Option<TensorElementType>) -> Result<Self, Error> {
        let (shape, elements) = tensor.into_parts();
        match (elements, wanted) {
            (Elements::U8(v), Some(TensorElementType::Bool)) => {
                wrap(shape, v.into_iter().map(|it| it != 0).collect::<Vec<_>>())
            }
            (Elements::I8(v), Some(TensorElementType::Bool)) => {
                wrap(shape, v.into_iter().map(|it| it != 0).collect::<Vec<_>>())
            }
            (Elements::I32(v), Some(TensorElementType::Int64)) => {
                wrap(shape, v.into_iter().map(i64::from).collect::<Vec<_>>())
            }
            (Elements::F32(v), _) => wrap(shape, v),
            (Elements::I64(v), _) => wrap(shape, v),
            (Elements::I32(v), _) => wrap(shape, v),
            (Elements::U8(v), _) => wrap(shape, v),
            (Elements::I8(v), _) => wrap(shape, v),
        }
    }

    /// The value that a graph takes for an input of this type. If it cannot be had, also the value again, if there still is one.
    pub(crate) fn from_value(value: Value, wanted: Option<TensorElementType>) -> Result<Self, (Error, Option<Value>)> {
        match value {
            Value::Host(tensor) => Self::from_tensor(tensor, wanted).map_err(|error| (error, None)),
            Value::Device(value) if value.as_any().is::<Self>() => {
                let value = value.into_any().downcast::<Self>().expect("the type was just asked for");
                Ok(*value)
            }
            // It comes from another backend: only a copy can.
            Value::Device(value) => {
                let copy = value.to_tensor().and_then(|tensor| Self::from_tensor(tensor, wanted));
                copy.map_err(|error| (error, Some(Value::Device(value))))
            }
        }
    }

    /// Checks that it is what an input takes.
    pub(crate) fn check(&self, port: &Port, wanted: Option<TensorElementType>) -> Result<(), Error> {
        let ValueType::Tensor { ty, shape, .. } = self.0.dtype() else { return Ok(()) };
        if let Some(wanted) = wanted
            && wanted != *ty
        {
            let name = &port.name;
            let message = format!("input `{name}` takes elements of type {wanted}, not {ty}");
            let known = element_type(wanted).is_some();
            return Err(if known { Error::invalid_input(message) } else { Error::unsupported(message) });
        }
        // A port without dimensions is a single number or of unknown shape: the library tells them apart.
        let fits = port.shape.is_empty()
            || port.shape.len() == shape.len()
                && port.shape.iter().zip(shape.iter()).all(|(wanted, &found)| match wanted {
                    Dim::Fixed(wanted) => *wanted as u64 == found.unsigned_abs(),
                    Dim::Free(_) => true,
                });
        if fits {
            return Ok(());
        }
        let (name, wanted) = (&port.name, shape_text(&port.shape));
        Err(Error::invalid_input(format!("input `{name}` has shape {:?}, not {wanted}", &shape[..])))
    }

    fn tensor_type(&self) -> Result<(TensorElementType, Vec<usize>), Error> {
        match self.0.dtype() {
            // A tensor that exists has no negative dimension.
            ValueType::Tensor { ty, shape, .. } => {
                Ok((*ty, shape.iter().map(|&size| size.unsigned_abs() as usize).collect()))
            }
            other => Err(Error::unsupported(format!("a value of type {other} is no tensor"))),
        }
    }

    fn copy<T: Element + PrimitiveTensorElementType>(&self, shape: Vec<usize>) -> Result<Tensor, Error> {
        let (_, elements) = self.0.try_extract_tensor::<T>().map_err(|error| crate::error::running(&error))?;
        Tensor::new(shape, elements.to_vec())
    }
}

impl DeviceValue for OrtValue {
    fn to_tensor(&self) -> Result<Tensor, Error> {
        let (ty, shape) = self.tensor_type()?;
        match element_type(ty) {
            Some(ElementType::F32) => self.copy::<f32>(shape),
            Some(ElementType::I64) => self.copy::<i64>(shape),
            Some(ElementType::I32) => self.copy::<i32>(shape),
            Some(ElementType::U8) if ty == TensorElementType::Bool => {
                let (_, elements) =
                    self.0.try_extract_tensor::<bool>().map_err(|error| crate::error::running(&error))?;
                Tensor::new(shape, elements.iter().map(|&it| u8::from(it)).collect::<Vec<_>>())
            }
            Some(ElementType::U8) => self.copy::<u8>(shape),
            Some(ElementType::I8) => self.copy::<i8>(shape),
            None => Err(Error::unsupported(format!("a tensor of {ty} can be passed on to a graph, but not be read"))),
        }
    }

    fn bytes(&self) -> u64 {
        let Ok((ty, shape)) = self.tensor_type() else { return 0 };
        ty.byte_size(shape.iter().product()).unwrap_or(0) as u64
    }

    fn clone_value(&self) -> Result<Box<dyn DeviceValue>, Error> {
        Ok(Box::new(self.clone()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn wrap<T>(shape: Vec<usize>, elements: Vec<T>) -> Result<OrtValue, Error>
where
    T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let value = ort::value::Tensor::from_array((shape, elements)).map_err(|error| crate::error::running(&error))?;
    Ok(OrtValue::new(value.into_dyn()))
}

/// The type of onbeat's tensors for one of ONNX Runtime's, if there is one. Truth values are bytes.
pub(crate) fn element_type(ty: TensorElementType) -> Option<ElementType> {
    match ty {
        TensorElementType::Float32 => Some(ElementType::F32),
        TensorElementType::Int64 => Some(ElementType::I64),
        TensorElementType::Int32 => Some(ElementType::I32),
        TensorElementType::Uint8 | TensorElementType::Bool => Some(ElementType::U8),
        TensorElementType::Int8 => Some(ElementType::I8),
        _ => None,
    }
}

/// An input or output of a session.
pub(crate) fn port(outlet: &ort::value::Outlet) -> Port {
    let name = outlet.name().to_owned();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Port { name, element_type: None, shape: Vec::new() };
    };
    let dims = shape.iter().enumerate().map(|(i, &size)| {
        let symbol = || dimension_symbols.get(i).cloned().unwrap_or_default();
        usize::try_from(size).map_or_else(|_| Dim::Free(symbol()), Dim::Fixed)
    });
    Port { name, element_type: element_type(*ty), shape: dims.collect() }
}

/// The type of the elements that a session takes or gives, if it is a tensor.
pub(crate) fn tensor_type(outlet: &ort::value::Outlet) -> Option<TensorElementType> {
    if let ValueType::Tensor { ty, .. } = outlet.dtype() { Some(*ty) } else { None }
}

fn shape_text(shape: &[Dim]) -> String {
    let dims = shape.iter().map(|dim| match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Free(name) if name.is_empty() => "?".to_owned(),
        Dim::Free(name) => name.clone(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_read_like_lists() {
        assert_eq!(shape_text(&[Dim::Fixed(1), Dim::Free("seq".into()), Dim::Free(String::new())]), "[1, seq, ?]");
    }

    #[test]
    fn types_without_a_tensor_of_onbeat_are_told_apart() {
        assert_eq!(element_type(TensorElementType::Float32), Some(ElementType::F32));
        assert_eq!(element_type(TensorElementType::Float16), None);
        assert_eq!(element_type(TensorElementType::Bool), Some(ElementType::U8));
    }
}
