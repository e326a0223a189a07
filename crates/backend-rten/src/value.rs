//! Tensors on their way into `rten` and out of it.

use std::any::Any;

use onbeat_backend::{DeviceValue, ElementType, Elements, Error, Tensor, Value};
use rten_tensor::prelude::*;

/// What the file declares a value to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tensor of a type that callers know.
    Plain(ElementType),
    /// Truth values: bytes for callers, 32-bit integers for `rten`.
    Truth,
    /// Not declared, or of a type that `rten` widens (16-bit and 64-bit floating point): as it comes.
    Open,
}

impl Kind {
    /// The element type that callers see.
    pub(crate) fn element_type(self) -> Option<ElementType> {
        match self {
            Self::Plain(it) => Some(it),
            Self::Truth => Some(ElementType::U8),
            Self::Open => None,
        }
    }
}

/// A value in `rten`'s own form.
#[derive(Debug)]
pub(crate) struct RtenValue {
    pub(crate) value: rten::Value,
    pub(crate) kind: Kind,
}

impl DeviceValue for RtenValue {
    fn to_tensor(&self) -> Result<Tensor, Error> {
        copy(&self.value, self.kind)
    }

    fn bytes(&self) -> u64 {
        let size = match &self.value {
            rten::Value::FloatTensor(_) | rten::Value::Int32Tensor(_) => 4,
            _ => 1,
        };
        self.value.len() as u64 * size
    }

    fn clone_value(&self) -> Result<Box<dyn DeviceValue>, Error> {
        Ok(Box::new(Self { value: self.value.clone(), kind: self.kind }))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A value's element type and shape, as callers see them, if they can be known without a copy.
pub(crate) fn describe(value: &Value) -> Option<(Option<ElementType>, Vec<usize>)> {
    match value {
        Value::Host(tensor) => Some((Some(tensor.element_type()), tensor.shape().to_vec())),
        Value::Device(device) => {
            let own = device.as_any().downcast_ref::<RtenValue>()?;
            Some((own.kind.element_type(), own.value.shape().to_vec()))
        }
    }
}

/// Whether tensors of a type can be handed over as a value of a kind.
pub(crate) fn accepts(kind: Kind, found: ElementType) -> bool {
    match kind {
        // 32-bit integers are what `rten` wants in any case.
        Kind::Plain(ElementType::I64) => matches!(found, ElementType::I64 | ElementType::I32),
        Kind::Plain(wanted) => wanted == found,
        Kind::Truth => matches!(found, ElementType::U8 | ElementType::I8 | ElementType::I32),
        Kind::Open => true,
    }
}

/// Hands a value to `rten`: without a copy, unless its type must change or another backend made it.
pub(crate) fn to_rten(value: Value, kind: Kind) -> Result<rten::Value, Error> {
    let tensor = match value {
        Value::Host(tensor) => tensor,
        Value::Device(device) if device.as_any().is::<RtenValue>() => {
            let own = device.into_any().downcast::<RtenValue>().expect("its type was just looked at");
            return Ok(own.value);
        }
        Value::Device(device) => device.to_tensor()?,
    };
    let (shape, elements) = tensor.into_parts();
    let truth = kind == Kind::Truth;
    match elements {
        Elements::F32(v) => wrap(&shape, v),
        Elements::I64(v) => wrap(&shape, narrow(&v)?),
        Elements::I32(v) => wrap(&shape, v),
        Elements::U8(v) if truth => wrap(&shape, v.into_iter().map(|it| i32::from(it != 0)).collect()),
        Elements::I8(v) if truth => wrap(&shape, v.into_iter().map(|it| i32::from(it != 0)).collect()),
        Elements::U8(v) => wrap(&shape, v),
        Elements::I8(v) => wrap(&shape, v),
    }
}

fn wrap<T>(shape: &[usize], elements: Vec<T>) -> Result<rten::Value, Error>
where
    rten::Value: From<rten_tensor::Tensor<T>>,
{
    rten::Value::from_shape(shape, elements).map_err(|error| Error::invalid_input(error.to_string()))
}

/// A cache with room to grow along a dimension, so that appending to it moves only what is new. Each time the room is used up, the cache
/// is copied into half as much more; so an element is copied three times on average, however long the cache gets.
pub(crate) fn with_room(value: rten::Value, axis: usize) -> rten::Value {
    let rten::Value::FloatTensor(cache) = value else { return value };
    let Some(&size) = cache.shape().get(axis) else { return cache.into() };
    if cache.has_capacity(axis, size + 1) {
        return cache.into();
    }
    let mut shape = cache.shape().to_vec();
    shape[axis] = size + (size / 2).max(LEAST_ROOM);
    let mut roomy = rten_tensor::Tensor::with_capacity(shape.as_slice(), axis);
    match roomy.append(axis, &cache) {
        Ok(()) => roomy.into(),
        // Cannot happen: the room was just made for it. But without room, too, the result is right.
        Err(_) => cache.into(),
    }
}

/// Room that a cache gets at least, in elements along the dimension in which it grows.
const LEAST_ROOM: usize = 64;

fn narrow(elements: &[i64]) -> Result<Vec<i32>, Error> {
    let narrow = |&it: &i64| {
        i32::try_from(it)
            .map_err(|_| Error::invalid_input(format!("rten computes with 32-bit integers, which {it} does not fit")))
    };
    elements.iter().map(narrow).collect()
}

/// A copy of a value, in the right order and of the declared type.
fn copy(value: &rten::Value, kind: Kind) -> Result<Tensor, Error> {
    let shape = value.shape().to_vec();
    match value {
        rten::Value::FloatTensor(it) => Tensor::new(shape, it.to_vec()),
        rten::Value::UInt8Tensor(it) => Tensor::new(shape, it.to_vec()),
        rten::Value::Int8Tensor(it) => Tensor::new(shape, it.to_vec()),
        rten::Value::Int32Tensor(it) => match kind {
            Kind::Plain(ElementType::I64) => Tensor::new(shape, it.iter().map(|&it| i64::from(it)).collect()),
            Kind::Truth => Tensor::new(shape, it.iter().map(|&it| u8::from(it != 0)).collect()),
            _ => Tensor::new(shape, it.to_vec()),
        },
        _ => Err(Error::unsupported("the value is a sequence of tensors, which only other operators can take")),
    }
}

/// What becomes of a graph's output: a tensor for callers where that takes no copy, else `rten`'s own form.
///
/// A cache with room to grow is spread out in memory, so it stays in its own form and goes back in as it is.
pub(crate) fn output(value: rten::Value, kind: Kind) -> Result<Value, Error> {
    let shape = value.shape().to_vec();
    let tensor = match value {
        rten::Value::FloatTensor(it) if it.is_contiguous() => Tensor::new(shape, it.into_data()),
        rten::Value::UInt8Tensor(it) if it.is_contiguous() => Tensor::new(shape, it.into_data()),
        rten::Value::Int8Tensor(it) if it.is_contiguous() => Tensor::new(shape, it.into_data()),
        rten::Value::Int32Tensor(it)
            if it.is_contiguous() && !matches!(kind, Kind::Truth | Kind::Plain(ElementType::I64)) =>
        {
            Tensor::new(shape, it.into_data())
        }
        other => return Ok(keep(other, kind)),
    };
    tensor.map(Value::Host)
}

/// A value in its own form.
pub(crate) fn keep(value: rten::Value, kind: Kind) -> Value {
    Value::Device(Box::new(RtenValue { value, kind }))
}

#[cfg(test)]
mod tests {
    use rten_tensor::Storage as _;

    use super::*;

    #[test]
    fn floats_pass_through_without_a_copy() {
        let elements = vec![1.0_f32, 2.0, 3.0, 4.0];
        let address = elements.as_ptr();
        let tensor = Tensor::new([2, 2], elements).unwrap();
        let inside = to_rten(tensor.into(), Kind::Plain(ElementType::F32)).unwrap();
        let Value::Host(outside) = output(inside, Kind::Plain(ElementType::F32)).unwrap() else { panic!() };
        assert_eq!(outside.view::<f32>().unwrap().as_ptr(), address);
        assert_eq!(outside.shape(), [2, 2]);
    }

    #[test]
    fn a_cache_with_room_is_extended_where_it_lies() {
        let cache = rten_tensor::Tensor::from_data(&[1, 2, 1, 2], vec![1.0_f32, 2.0, 3.0, 4.0]);
        let rten::Value::FloatTensor(mut roomy) = with_room(cache.clone().into(), 2) else { panic!() };
        assert_eq!(roomy, cache);
        let address = roomy.view().storage().as_ptr();
        for _ in 0..LEAST_ROOM {
            assert!(roomy.has_capacity(2, roomy.size(2) + 1));
            roomy.append(2, &cache).unwrap();
            assert_eq!(roomy.view().storage().as_ptr(), address);
        }
        assert!(!roomy.has_capacity(2, roomy.size(2) + 1));
        let tensor = output(roomy.into(), Kind::Open).unwrap().into_tensor().unwrap();
        assert_eq!(tensor.shape(), [1, 2, LEAST_ROOM + 1, 2]);
        assert_eq!(tensor.view::<f32>().unwrap()[2 * LEAST_ROOM..][..4], [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn wide_integers_come_back_wide_and_too_wide_ones_are_errors() {
        let kind = Kind::Plain(ElementType::I64);
        let tensor = Tensor::new([2], vec![-1_i64, 7]).unwrap();
        let inside = to_rten(tensor.clone().into(), kind).unwrap();
        let outside = output(inside, kind).unwrap();
        assert!(matches!(outside, Value::Device(_)));
        assert_eq!(outside.into_tensor().unwrap(), tensor);
        let tensor = Tensor::new([1], vec![1_i64 << 31]).unwrap();
        let error = to_rten(tensor.into(), kind).unwrap_err();
        assert_eq!(error.to_string(), "rten computes with 32-bit integers, which 2147483648 does not fit");
    }

    #[test]
    fn truth_is_a_byte_outside() {
        let tensor = Tensor::new([3], vec![0_u8, 1, 200]).unwrap();
        let inside = to_rten(tensor.into(), Kind::Truth).unwrap();
        let outside = output(inside, Kind::Truth).unwrap().into_tensor().unwrap();
        assert_eq!(outside.view::<u8>().unwrap(), [0, 1, 1]);
    }

    #[test]
    fn what_is_laid_out_in_another_order_is_copied_in_the_right_one() {
        let mut tensor = rten_tensor::Tensor::from_data(&[2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]);
        tensor.permute(&[1, 0]);
        let outside = output(tensor.into(), Kind::Open).unwrap();
        assert!(matches!(outside, Value::Device(_)));
        assert_eq!(outside.into_tensor().unwrap().view::<f32>().unwrap(), [1.0, 3.0, 2.0, 4.0]);
    }
}
