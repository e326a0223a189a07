//! Named values on their way into, through and out of a graph.

use std::any::Any;
use std::fmt::Debug;

use crate::error::Error;
use crate::tensor::Tensor;

/// A value that a backend keeps in its own form, perhaps in a device's memory. It never leaves the backend that made it except as
/// a copy ([`DeviceValue::to_tensor`]).
pub trait DeviceValue: Any + Send + Debug {
    /// A copy in main memory.
    fn to_tensor(&self) -> Result<Tensor, Error>;
    /// Memory that it takes [bytes].
    fn bytes(&self) -> u64;
    /// A copy of the same form.
    fn clone_value(&self) -> Result<Box<dyn DeviceValue>, Error>;
    /// Itself, for the backend that made it to recognise.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
    /// Itself, for the backend that made it to recognise.
    fn as_any(&self) -> &dyn Any;
}

/// A tensor in main memory, or one that a backend keeps in its own form.
#[derive(Debug)]
pub enum Value {
    /// In main memory.
    Host(Tensor),
    /// In the form of the backend that made it; passed back to that backend without a copy.
    Device(Box<dyn DeviceValue>),
}

impl Value {
    /// The tensor: taken out, or copied from the device.
    ///
    /// # Errors
    /// If the device cannot copy it.
    pub fn into_tensor(self) -> Result<Tensor, Error> {
        match self {
            Self::Host(tensor) => Ok(tensor),
            Self::Device(value) => value.to_tensor(),
        }
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Host(tensor)
    }
}

/// Named values. A graph takes what it needs and adds what it makes.
#[derive(Debug, Default)]
pub struct Values {
    list: Vec<(String, Value)>,
}

impl Values {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, in place of an older one of that name.
    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.list.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.list.push((name.to_owned(), value)),
        }
    }

    /// Takes a value out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is none of that name.
    pub fn take(&mut self, name: &str) -> Result<Value, Error> {
        match self.list.iter().position(|(other, _)| other == name) {
            Some(i) => Ok(self.list.swap_remove(i).1),
            None => Err(self.missing(name)),
        }
    }

    /// Takes a value out, into main memory.
    ///
    /// # Errors
    /// If there is none of that name, or the device cannot copy it.
    pub fn take_tensor(&mut self, name: &str) -> Result<Tensor, Error> {
        self.take(name)?.into_tensor()
    }

    /// A value, left where it is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is none of that name.
    pub fn get(&self, name: &str) -> Result<&Value, Error> {
        self.list.iter().find(|(other, _)| other == name).map(|(_, value)| value).ok_or_else(|| self.missing(name))
    }

    /// Gives a value another name: what was an output is the next input (caches, state). Replaces a value that had the new name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is none of the old name.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let value = self.take(from)?;
        self.put(to, value);
        Ok(())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    /// Forgets all values.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    fn missing(&self, name: &str) -> Error {
        let names: Vec<&str> = self.names().collect();
        Error::invalid_input(format!("there is no value `{name}`; there are: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_become_the_next_inputs() {
        let mut values = Values::new();
        values.put("present", Tensor::zeros([1]));
        values.put("past", Tensor::zeros([2]));
        values.rename("present", "past").unwrap();
        assert_eq!(values.take_tensor("past").unwrap().shape(), [1]);
        assert_eq!(values.take("past").unwrap_err().to_string(), "there is no value `past`; there are: ");
    }
}
