//! Models that are one graph, with work before and after it.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onbeat_backend::{
    Control, Data, Dim, Error, ErrorKind, Footprint, Graph, Loader, Model, Output, Session, Step, Tensor, Values,
};

/// What a model does before and after its graph.
pub(crate) trait Task: Send + Sync + Debug + 'static {
    /// Buffers that a session keeps from inference to inference.
    type Buffers: Default + Send + Debug;

    /// Checks the input; must be cheap.
    fn check(&self, input: &[Data]) -> Result<(), Error>;

    /// The graph's input.
    fn prepare(&self, input: &[Data], buffers: &mut Self::Buffers) -> Result<Tensor, Error>;

    /// What the graph's outputs mean.
    fn read(&self, input: &[Data], outputs: &mut Values, buffers: &mut Self::Buffers) -> Result<Output, Error>;
}

/// A task and the graph that does it: a model.
#[derive(Debug)]
pub(crate) struct OneGraph<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    task: T,
    graph: Arc<dyn Graph>,
    input: String,
}

impl<T: Task> OneGraph<T> {
    /// A model from a graph that takes one picture, of this shape as far as the graph says, and gives these outputs.
    pub(crate) fn new(task: T, graph: Arc<dyn Graph>, shape: &[Dim], outputs: &[&str]) -> Result<Self, Error> {
        let [input] = graph.inputs() else {
            let names: Vec<&str> = graph.inputs().iter().map(|port| port.name.as_str()).collect();
            return Err(Error::invalid_model(format!("the network takes `{}`, not one picture", names.join("`, `"))));
        };
        let fits = |(found, wanted): (&Dim, &Dim)| !matches!((found, wanted), (Dim::Fixed(a), Dim::Fixed(b)) if a != b);
        if !input.shape.is_empty() && (input.shape.len() != shape.len() || !input.shape.iter().zip(shape).all(fits)) {
            let (name, found) = (&input.name, &input.shape);
            return Err(Error::invalid_model(format!("the input `{name}` has shape {found:?}, not {shape:?}")));
        }
        for output in outputs {
            if !graph.outputs().iter().any(|port| port.name == *output) {
                return Err(Error::invalid_model(format!("the network has no output `{output}`")));
            }
        }
        let input = input.name.clone();
        Ok(Self(Arc::new(Inner { task, graph, input })))
    }
}

/// Loads `model.onnx` of a folder. If it is not there, `model.<extension>` is converted first.
pub(crate) fn load(
    dir: &Path,
    extension: &str,
    convert: impl Fn(&[u8]) -> Result<Vec<u8>, Error>,
    loader: &Loader<'_>,
) -> Result<Arc<dyn Graph>, Error> {
    let network = dir.join("model.onnx");
    if !network.exists() {
        convert_file(&dir.join("model").with_extension(extension), &network, convert)?;
    }
    loader.load(&network)
}

fn convert_file(from: &Path, to: &Path, convert: impl Fn(&[u8]) -> Result<Vec<u8>, Error>) -> Result<(), Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = from.display();
    let bytes =
        fs::read(from).map_err(|error| Error::not_found(format!("cannot read the network `{name}`: {error}")))?;
    let network = convert(&bytes).map_err(|error| error.about(&format!("`{name}`")))?;
    // Written under another name first, so that nobody finds half a file; two threads or processes write different ones.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let part = to.with_extension(format!("{}-{number}.part", std::process::id()));
    let written = fs::write(&part, network).and_then(|()| fs::rename(&part, to));
    written.map_err(|error| {
        let _ = fs::remove_file(&part); // It may not be there, and the first error says more.
        Error::device(format!("cannot write `{}`: {error}", to.display()))
    })
}

impl<T: Task> Model for OneGraph<T> {
    fn footprint(&self) -> Footprint {
        self.0.graph.footprint()
    }

    fn segments(&self) -> usize {
        self.0.graph.segments()
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(Inference {
            model: Arc::clone(&self.0),
            input: Vec::new(),
            values: Values::new(),
            buffers: T::Buffers::default(),
            segment: 0,
            intact: false,
            output: None,
        }))
    }
}

/// Makes a type that wraps a [`OneGraph`] a model.
macro_rules! one_graph_model {
    ($name:ident) => {
        impl ::onbeat_backend::Model for $name {
            fn footprint(&self) -> ::onbeat_backend::Footprint {
                self.0.footprint()
            }

            fn segments(&self) -> usize {
                self.0.segments()
            }

            fn open(&self) -> Result<Box<dyn ::onbeat_backend::Session>, ::onbeat_backend::Error> {
                self.0.open()
            }
        }
    };
}
pub(crate) use one_graph_model;

#[derive(Debug)]
struct Inference<T: Task> {
    model: Arc<Inner<T>>,
    /// Kept, because an interrupted step begins anew, and because the result refers to it.
    input: Vec<Data>,
    values: Values,
    buffers: T::Buffers,
    /// The segment that comes next.
    segment: usize,
    /// Whether `values` hold what that segment needs.
    intact: bool,
    output: Option<Output>,
}

impl<T: Task> Session for Inference<T> {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        self.model.task.check(input)?;
        self.input.clear();
        self.input.extend_from_slice(input);
        (self.segment, self.intact, self.output) = (0, false, None);
        Ok(())
    }

    fn step(&mut self, _units: u32, control: &Control) -> Result<Step, Error> {
        let Inner { task, graph, input } = &*self.model;
        if self.input.is_empty() || self.segment == graph.segments() {
            return Err(Error::invalid_input("no inference has begun, or it is finished"));
        }
        // A segment that was interrupted may have taken its inputs with it; then those before it run again.
        let first = if self.intact && self.segment > 0 { self.segment } else { 0 };
        if first == 0 {
            self.values.clear();
            self.values.put(input, task.prepare(&self.input, &mut self.buffers)?);
        }
        self.intact = false;
        (first..=self.segment).try_for_each(|segment| graph.run_segment(segment, &mut self.values, control))?;
        let done = self.segment + 1 == graph.segments();
        if done {
            self.output = Some(task.read(&self.input, &mut self.values, &mut self.buffers)?);
            self.values.clear();
        }
        self.segment += 1;
        self.intact = true;
        Ok(Step { units: 1, done, parts: Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        self.input.clear();
        self.output.take().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the inference is not finished"))
    }
}

/// The elements of an output, which must be so many.
pub(crate) fn filled(output: &Tensor, count: usize) -> Result<&[f32], Error> {
    let elements = output.view::<f32>()?;
    if elements.len() == count {
        return Ok(elements);
    }
    Err(Error::invalid_model(format!("an output of shape {:?} does not have {count} elements", output.shape())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use onbeat_backend::Port;

    use super::*;

    /// Adds one in each of three segments, and notes which have run. Takes its input away before it notices that it is cancelled.
    #[derive(Debug)]
    struct Counter {
        ports: [Vec<Port>; 2],
        ran: Mutex<Vec<usize>>,
    }

    impl Graph for Counter {
        fn inputs(&self) -> &[Port] {
            &self.ports[0]
        }

        fn outputs(&self) -> &[Port] {
            &self.ports[1]
        }

        fn segments(&self) -> usize {
            3
        }

        fn run_segment(&self, segment: usize, values: &mut Values, control: &Control) -> Result<(), Error> {
            let name = |i: usize| ["in", "1", "2", "out"][i];
            self.ran.lock().unwrap().push(segment);
            let value = values.take_tensor(name(segment))?.into_vec::<f32>()?[0];
            if control.is_cancelled() {
                return Err(Error::cancelled());
            }
            values.put(name(segment + 1), Tensor::new([1], vec![value + 1.0])?);
            Ok(())
        }

        fn footprint(&self) -> Footprint {
            Footprint::default()
        }
    }

    /// Counts from the length of a text.
    #[derive(Debug)]
    struct Length;

    impl Task for Length {
        type Buffers = ();

        fn check(&self, input: &[Data]) -> Result<(), Error> {
            onbeat_backend::find_text(input).map(|_| ())
        }

        fn prepare(&self, input: &[Data], (): &mut ()) -> Result<Tensor, Error> {
            Tensor::new([1], vec![onbeat_backend::find_text(input)?.len() as f32])
        }

        fn read(&self, _: &[Data], outputs: &mut Values, (): &mut ()) -> Result<Output, Error> {
            let text = format!("{:?}", filled(&outputs.take_tensor("out")?, 1)?);
            Ok(Output { data: vec![Data::Text(text.into())], ..Output::default() })
        }
    }

    fn counter() -> Arc<Counter> {
        let port = |name: &str| Port { name: name.to_owned(), element_type: None, shape: vec![Dim::Fixed(1)] };
        Arc::new(Counter { ports: [vec![port("in")], vec![port("out")]], ran: Mutex::default() })
    }

    #[test]
    fn an_interrupted_step_can_be_done_again() {
        let graph = counter();
        let model = OneGraph::new(Length, Arc::clone(&graph) as Arc<dyn Graph>, &[Dim::Fixed(1)], &["out"]).unwrap();
        assert_eq!(model.segments(), 3);
        let mut session = model.open().unwrap();
        let (control, cancelled) = (Control::new(), Control::new());
        cancelled.cancel();
        session.begin(&[Data::Text("four".into())]).unwrap();
        assert!(session.finish().is_err());
        session.begin(&[Data::Text("seven77".into())]).unwrap();
        assert!(!session.step(1, &control).unwrap().done);
        assert_eq!(session.step(1, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(!session.step(1, &control).unwrap().done);
        assert!(session.step(1, &control).unwrap().done);
        assert_eq!(session.finish().unwrap().data, [Data::Text("[10.0]".into())]);
        // The second segment is lost, so that the first runs again; nothing runs after the end.
        assert_eq!(*graph.ran.lock().unwrap(), [0, 1, 0, 1, 2]);
        assert!(session.step(1, &control).is_err() && session.finish().is_err());
    }

    #[test]
    fn another_network_is_an_error() {
        let model = |shape, output| OneGraph::new(Length, counter() as Arc<dyn Graph>, &[shape], &[output]);
        let error = model(Dim::Fixed(2), "out").unwrap_err().to_string();
        assert_eq!(error, "the input `in` has shape [Fixed(1)], not [Fixed(2)]");
        assert_eq!(model(Dim::Fixed(1), "mask").unwrap_err().to_string(), "the network has no output `mask`");
        assert!(model(Dim::Free("any".into()), "out").is_ok());
    }
}
