//! Tensors in main memory.

use crate::error::Error;

/// What a tensor consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
}

/// The elements of a tensor, the last dimension running fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
}

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::I64(_) => ElementType::I64,
            Self::I32(_) => ElementType::I32,
            Self::U8(_) => ElementType::U8,
            Self::I8(_) => ElementType::I8,
        }
    }
}

/// A type that tensors can consist of.
pub trait Element: Copy + Sized {
    /// Its name.
    const TYPE: ElementType;
    /// Wraps elements.
    fn wrap(elements: Vec<Self>) -> Elements;
    /// The elements, if they are of this type.
    fn view(elements: &Elements) -> Option<&[Self]>;
    /// The elements, if they are of this type.
    fn unwrap(elements: Elements) -> Option<Vec<Self>>;
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            const TYPE: ElementType = ElementType::$variant;
            fn wrap(elements: Vec<Self>) -> Elements {
                Elements::$variant(elements)
            }
            fn view(elements: &Elements) -> Option<&[Self]> {
                if let Elements::$variant(v) = elements { Some(v) } else { None }
            }
            fn unwrap(elements: Elements) -> Option<Vec<Self>> {
                if let Elements::$variant(v) = elements { Some(v) } else { None }
            }
        }
    };
}
element!(f32, F32);
element!(i64, I64);
element!(i32, I32);
element!(u8, U8);
element!(i8, I8);

/// A dense tensor in main memory, the last dimension running fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    elements: Elements,
}

impl Tensor {
    /// A tensor of this shape. The number of elements must fit it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it does not.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, elements: Vec<T>) -> Result<Self, Error> {
        Self::from_elements(shape, T::wrap(elements))
    }

    /// Like [`Tensor::new`], for elements whose type is known only at run time.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the number of elements does not fit the shape.
    pub fn from_elements(shape: impl Into<Vec<usize>>, elements: Elements) -> Result<Self, Error> {
        let shape = shape.into();
        let wanted = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if wanted != Some(elements.len()) {
            let found = elements.len();
            return Err(Error::invalid_input(format!("{found} elements do not fill a tensor of shape {shape:?}")));
        }
        Ok(Self { shape, elements })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let count = shape.iter().product();
        Self { shape, elements: Elements::F32(vec![0.0; count]) }
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Type of the elements.
    pub fn element_type(&self) -> ElementType {
        self.elements.element_type()
    }

    /// The elements.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements as a slice.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if they have another type.
    pub fn view<T: Element>(&self) -> Result<&[T], Error> {
        T::view(&self.elements).ok_or_else(|| wrong_type(T::TYPE, self.element_type()))
    }

    /// Takes the elements out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if they have another type.
    pub fn into_vec<T: Element>(self) -> Result<Vec<T>, Error> {
        let found = self.element_type();
        T::unwrap(self.elements).ok_or_else(|| wrong_type(T::TYPE, found))
    }

    /// Takes shape and elements apart.
    pub fn into_parts(self) -> (Vec<usize>, Elements) {
        (self.shape, self.elements)
    }
}

fn wrong_type(wanted: ElementType, found: ElementType) -> Error {
    Error::invalid_input(format!("the tensor's elements are {found:?}, not {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_must_fill_the_shape() {
        assert_eq!(Tensor::new([2, 2], vec![1.0_f32; 4]).unwrap().shape(), [2, 2]);
        let error = Tensor::new([2, 2], vec![1.0_f32; 3]).unwrap_err();
        assert_eq!(error.to_string(), "3 elements do not fill a tensor of shape [2, 2]");
        assert!(Tensor::new([usize::MAX, 2], vec![0_u8; 3]).is_err());
    }

    #[test]
    fn elements_come_out_as_what_they_are() {
        let tensor = Tensor::new([2], vec![1_i64, 2]).unwrap();
        assert_eq!(tensor.view::<i64>().unwrap(), [1, 2]);
        assert_eq!(tensor.into_vec::<f32>().unwrap_err().to_string(), "the tensor's elements are I64, not F32");
    }
}
