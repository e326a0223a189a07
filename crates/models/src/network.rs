//! Networks that onbeat knows nothing about: tensors in, tensors out.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{
    Control, Data, Dim, ElementType, Elements, Error, Footprint, Graph, LoadOptions, Loader, Model, Output, Port,
    Session, Step, Tensor, Values,
};

/// How many elements an input may be filled with.
const ELEMENTS_MAX: usize = 1 << 28;

/// A network that onbeat knows nothing about, as a `one_shot` model.
///
/// It takes [`Data::Tensors`]: each of its inputs is the tensor of its name. An input for which there is none – all of them, if the
/// stage gets no tensors – is filled, so that a network can be run and timed by itself or behind one that it was not made for:
///
/// * its size is that in the file; dimensions that the file leaves free have the size that the load options (`dimensions`) or the
///   catalogue give them, else 1;
/// * 32-bit floating-point elements are pseudo-random, 0 ≤ x < 1, unsigned bytes are pseudo-random, 0 to 255: pictures; all other
///   integers are 0, which is a valid index into any table. The sequence is that of `SplitMix64`, begun from the FNV-1a hash of the
///   input's name: the same on every machine, in every run.
///
/// It gives all its outputs as [`Data::Tensors`].
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    graph: Arc<dyn Graph>,
    /// What inputs are filled with.
    filling: Vec<(String, Tensor)>,
}

impl Network {
    /// Loads a network file. `dimensions` are sizes of free dimensions for which the loader's options have none.
    ///
    /// # Errors
    /// If it cannot be loaded, or an input cannot be filled: its shape is larger than 2²⁸ elements.
    pub fn load(file: &Path, dimensions: &[(String, usize)], loader: &Loader<'_>) -> Result<Self, Error> {
        let mut options = loader.options.clone();
        for (name, size) in dimensions {
            if size_of(&options, name).is_none() {
                options.dimensions.push((name.clone(), *size));
            }
        }
        let graph = Loader { options: &options, ..*loader }.load(file)?;
        let about = |error: Error| error.about(&file.display().to_string());
        let filling = graph.inputs().iter().map(|port| Ok((port.name.clone(), fill(port, &options)?)));
        let filling = filling.collect::<Result<Vec<_>, Error>>().map_err(about)?;
        Ok(Self { shared: Arc::new(Shared { graph, filling }) })
    }
}

impl Model for Network {
    fn footprint(&self) -> Footprint {
        self.shared.graph.footprint()
    }

    fn segments(&self) -> usize {
        self.shared.graph.segments()
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(NetworkSession { shared: Arc::clone(&self.shared), values: Values::new(), next: None }))
    }
}

#[derive(Debug)]
struct NetworkSession {
    shared: Arc<Shared>,
    values: Values,
    /// The segment that comes next; `None` before `begin`.
    next: Option<usize>,
}

impl Session for NetworkSession {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        self.values.clear();
        for (name, filling) in &self.shared.filling {
            let given =
                input.iter().filter_map(|item| if let Data::Tensors(tensors) = item { Some(tensors) } else { None });
            let given = given.flat_map(|tensors| tensors.iter()).find(|(other, _)| other == name);
            self.values.put(name, given.map_or(filling, |(_, tensor)| tensor).clone());
        }
        self.next = Some(0);
        Ok(())
    }

    fn step(&mut self, _units: u32, control: &Control) -> Result<Step, Error> {
        let segments = self.shared.graph.segments();
        let Some(segment) = self.next.filter(|&next| next < segments) else {
            return Err(Error::invalid_input("the network has no inference in progress"));
        };
        self.shared.graph.run_segment(segment, &mut self.values, control)?;
        self.next = Some(segment + 1);
        Ok(Step { units: 1, done: segment + 1 == segments, parts: Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        if self.next != Some(self.shared.graph.segments()) {
            return Err(Error::invalid_input("the network's inference is not finished"));
        }
        self.next = None;
        let outputs = self.shared.graph.outputs().iter();
        let tensors = outputs.map(|port| Ok((port.name.clone(), self.values.take_tensor(&port.name)?)));
        let tensors: Vec<(String, Tensor)> = tensors.collect::<Result<_, Error>>()?;
        self.values.clear();
        Ok(Output { data: vec![Data::Tensors(tensors.into())], ..Output::default() })
    }
}

fn size_of(options: &LoadOptions, dimension: &str) -> Option<usize> {
    options.dimensions.iter().find(|(name, _)| name == dimension).map(|(_, size)| *size)
}

fn fill(port: &Port, options: &LoadOptions) -> Result<Tensor, Error> {
    let shape: Vec<usize> = port
        .shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Free(name) => size_of(options, name).unwrap_or(1),
        })
        .collect();
    let count = shape
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .filter(|&count| count <= ELEMENTS_MAX);
    let Some(count) = count else {
        return Err(Error::invalid_model(format!("input {} of shape {shape:?} is too large to be filled", port.name)));
    };
    let mut random = SplitMix::from_name(&port.name);
    let elements = match port.element_type.unwrap_or(ElementType::F32) {
        // The upper 24 bits: as many as a 32-bit number below 1 can hold.
        ElementType::F32 => Elements::F32((0..count).map(|_| (random.next() >> 40) as f32 / 16_777_216.0).collect()),
        ElementType::U8 => Elements::U8((0..count).map(|_| (random.next() >> 56) as u8).collect()),
        ElementType::I64 => Elements::I64(vec![0; count]),
        ElementType::I32 => Elements::I32(vec![0; count]),
        ElementType::I8 => Elements::I8(vec![0; count]),
    };
    Tensor::from_elements(shape, elements)
}

/// Sebastiano Vigna's generator of 2015, as in Java's `SplittableRandom`.
struct SplitMix(u64);

impl SplitMix {
    /// Begins from the FNV-1a hash of a name.
    fn from_name(name: &str) -> Self {
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_published_algorithms() {
        // The first outputs for seed 1234567, as in the generator's published test vector.
        let mut random = SplitMix(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        // FNV-1a of "a", 64 bits, as in the published list of test vectors.
        assert_eq!(SplitMix::from_name("a").0, 0xaf63_dc4c_8601_ec8c);
    }

    fn port(element_type: ElementType, shape: Vec<Dim>) -> Port {
        Port { name: "x".to_owned(), element_type: Some(element_type), shape }
    }

    #[test]
    fn free_dimensions_come_from_the_options_or_are_one() {
        let options = LoadOptions { dimensions: vec![("h".to_owned(), 5)], ..LoadOptions::default() };
        let free = |name: &str| Dim::Free(name.to_owned());
        let tensor = fill(&port(ElementType::F32, vec![Dim::Fixed(3), free("h"), free("w")]), &options).unwrap();
        assert_eq!(tensor.shape(), [3, 5, 1]);
        let values = tensor.view::<f32>().unwrap();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert_ne!(values[0], values[1]);
        let indices = fill(&port(ElementType::I64, vec![Dim::Fixed(2)]), &options).unwrap();
        assert_eq!(indices.view::<i64>().unwrap(), [0, 0]);
    }

    #[test]
    fn a_shape_too_large_to_fill_is_an_error() {
        let huge = port(ElementType::U8, vec![Dim::Fixed(usize::MAX), Dim::Fixed(2)]);
        assert!(fill(&huge, &LoadOptions::default()).unwrap_err().to_string().contains("too large to be filled"));
    }
}
