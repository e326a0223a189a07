//! A network that was loaded: one session per segment.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use onbeat_backend::{Control, Error, Footprint, Graph, Port, Value, Values};
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::TensorElementType;

use crate::error;
use crate::value::{OrtValue, port, tensor_type};

/// A network on one of ONNX Runtime's devices.
#[derive(Debug)]
pub(crate) struct OrtGraph {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) footprint: Footprint,
}

/// A session, and what it takes.
#[derive(Debug)]
pub(crate) struct Segment {
    inputs: Vec<Input>,
    session: Mutex<Running>,
}

/// One thread at a time runs a session.
struct Running {
    session: Session,
    options: Arc<RunOptions>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("session", &self.session).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Input {
    port: Port,
    element_type: Option<TensorElementType>,
    /// Whether no later segment needs it.
    last: bool,
}

impl Segment {
    /// `lasting` are the inputs that are needed after the segment.
    pub(crate) fn new(session: Session, lasting: &[String]) -> Result<Self, Error> {
        let input = |outlet| {
            let port = port(outlet);
            Input { last: !lasting.contains(&port.name), element_type: tensor_type(outlet), port }
        };
        let inputs = session.inputs().iter().map(input).collect();
        let options = Arc::new(RunOptions::new().map_err(|error| error::running(&error))?);
        Ok(Self { inputs, session: Mutex::new(Running { session, options }) })
    }

    fn run(&self, taken: &[OrtValue], control: &Control) -> Result<Vec<(String, OrtValue)>, Error> {
        let mut running = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        let Running { session, options } = &mut *running;
        let flag = Arc::clone(options);
        let hook = control.on_cancel(move || {
            // It can fail only if there are no options.
            let _ = flag.terminate();
        });
        let inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = self
            .inputs
            .iter()
            .zip(taken)
            .map(|(input, value)| (Cow::from(input.port.name.as_str()), SessionInputValue::from(value.get())))
            .collect();
        let result = session.run_with_options(inputs, &**options).map(|outputs| {
            outputs.into_iter().map(|(name, value)| (name.to_owned(), OrtValue::new(value))).collect::<Vec<_>>()
        });
        drop(hook);
        // From here on nobody sets the flag.
        let cancelled = control.is_cancelled();
        if cancelled {
            let _ = options.unterminate();
        }
        result.map_err(|failure| if cancelled { Error::cancelled() } else { error::running(&failure) })
    }

    /// Takes the inputs out of the values; if one is missing or wrong, all stay there.
    fn take(&self, values: &mut Values) -> Result<Vec<OrtValue>, Error> {
        for input in &self.inputs {
            values.get(&input.port.name)?;
        }
        let mut taken = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let name = &input.port.name;
            let made = OrtValue::from_value(values.take(name)?, input.element_type).map_err(|(error, value)| {
                if let Some(value) = value {
                    values.put(name, value);
                }
                error.about(&format!("input `{name}`"))
            });
            let made = made.and_then(|value| {
                let checked = value.check(&input.port, input.element_type);
                taken.push(value);
                checked
            });
            if let Err(error) = made {
                self.give_back(taken, values, |_| true);
                return Err(error);
            }
        }
        Ok(taken)
    }

    fn give_back(&self, taken: Vec<OrtValue>, values: &mut Values, which: impl Fn(&Input) -> bool) {
        for (input, value) in self.inputs.iter().zip(taken).filter(|(input, _)| which(input)) {
            values.put(&input.port.name, Value::Device(Box::new(value)));
        }
    }
}

impl Graph for OrtGraph {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn segments(&self) -> usize {
        self.segments.len()
    }

    fn run_segment(&self, segment: usize, values: &mut Values, control: &Control) -> Result<(), Error> {
        let count = self.segments.len();
        let part = self.segments.get(segment);
        let part = part.ok_or_else(|| Error::invalid_input(format!("there is no segment {segment} of {count}")))?;
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        let taken = part.take(values)?;
        match part.run(&taken, control) {
            Ok(outputs) => {
                part.give_back(taken, values, |input| !input.last);
                for (name, value) in outputs {
                    values.put(&name, Value::Device(Box::new(value)));
                }
                Ok(())
            }
            Err(error) => {
                part.give_back(taken, values, |_| true);
                Err(error)
            }
        }
    }

    fn footprint(&self) -> Footprint {
        self.footprint
    }
}
