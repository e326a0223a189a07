//! A loaded network.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use onbeat_backend::{Control, Dim, Error, Footprint, Graph, Port, Values};
use rten::{Model, NodeId, RunErrorKind, RunOptions, ValueOrView};

use crate::threads::Threads;
use crate::value::{Kind, accepts, describe, keep, output, to_rten, with_room};

/// A network that `rten` has loaded.
pub(crate) struct RtenGraph {
    pub(crate) model: Model,
    /// Name of the file, for messages.
    pub(crate) file: String,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) segments: Vec<Segment>,
    /// Steps of 2, 3 and so on members.
    pub(crate) batches: Vec<Batch>,
    pub(crate) threads: Threads,
    pub(crate) footprint: Footprint,
}

/// From one cut to the next.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<Slot>,
    /// The nodes that `outputs` stand for, each once: two names can stand for one node after optimisation.
    pub(crate) wanted: Vec<NodeId>,
}

/// The nodes of a step of several members.
#[derive(Debug)]
pub(crate) struct Batch {
    /// For each member: the nodes of the graph's inputs.
    pub(crate) inputs: Vec<Vec<Option<NodeId>>>,
    /// For each of the graph's outputs: the nodes of the members' outputs.
    pub(crate) outputs: Vec<NodeId>,
}

/// A value that a segment takes or makes.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// The node in `rten`'s graph; `None` for an input that the network does not use.
    pub(crate) id: Option<NodeId>,
    pub(crate) kind: Kind,
    /// Of an input: a later segment, or the caller, needs it too. Of an output: a later segment needs it.
    pub(crate) lasting: bool,
    /// Which of the graph's inputs it is, if it is one.
    pub(crate) port: Option<usize>,
    /// Of a cache: the dimension along which an operator appends to it.
    pub(crate) grows: Option<usize>,
    /// Of an input: the output that it is handed back as, without a copy.
    pub(crate) returns: Option<String>,
}

impl fmt::Debug for RtenGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model: _, file, inputs, outputs, segments, batches, threads, footprint } = self;
        f.debug_struct("RtenGraph")
            .field("file", file)
            .field("inputs", inputs)
            .field("outputs", outputs)
            .field("segments", segments)
            .field("batches", batches)
            .field("threads", threads)
            .field("footprint", footprint)
            .finish_non_exhaustive()
    }
}

impl Graph for RtenGraph {
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
        let segment = self.segments.get(segment).ok_or_else(|| {
            Error::invalid_input(format!("{}: there is no segment {segment}; there are {count}", self.file))
        })?;
        // Nothing is taken before everything is known to be there, so that a refused step can be done again.
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        for slot in &segment.inputs {
            self.check(slot, values).map_err(|error| error.about(&self.file))?;
        }
        self.compute(segment, values).map_err(|error| error.about(&self.file))
    }

    fn members_max(&self) -> usize {
        self.batches.len() + 1
    }

    fn run_together(&self, members: &mut [&mut Values], control: &Control) -> Result<(), Error> {
        if let [one] = members {
            return self.run(one, control);
        }
        let most = self.members_max();
        let batch = members.len().checked_sub(2).and_then(|i| self.batches.get(i)).ok_or_else(|| {
            Error::unsupported(format!("{}: {} members do not run together; 1 to {most} do", self.file, members.len()))
        })?;
        // As for one: nothing is taken before everything is known to be there.
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        self.check_together(members).map_err(|error| error.about(&self.file))?;
        self.compute_together(batch, members).map_err(|error| error.about(&self.file))
    }

    fn footprint(&self) -> Footprint {
        self.footprint
    }
}

impl Segment {
    pub(crate) fn new(inputs: Vec<Slot>, outputs: Vec<Slot>) -> Result<Self, Error> {
        let mut wanted: Vec<NodeId> = Vec::with_capacity(outputs.len());
        for slot in &outputs {
            let id =
                slot.id.ok_or_else(|| Error::invalid_model(format!("nothing makes the output `{}`", slot.name)))?;
            if !wanted.contains(&id) {
                wanted.push(id);
            }
        }
        Ok(Self { inputs, outputs, wanted })
    }
}

impl RtenGraph {
    /// The same graph, of one segment, which does not compute outputs that are inputs (by the place of the input), but hands those back.
    pub(crate) fn returning(mut self, outputs: &[Option<String>]) -> Self {
        for segment in &mut self.segments {
            for (slot, output) in segment.inputs.iter_mut().zip(outputs) {
                slot.returns.clone_from(output);
            }
            segment.outputs.retain(|slot| !outputs.iter().flatten().any(|name| *name == slot.name));
            let outputs = &segment.outputs;
            segment.wanted.retain(|&id| outputs.iter().any(|slot| slot.id == Some(id)));
        }
        self
    }

    /// Whether a value is there, and is what the file declares.
    fn check(&self, slot: &Slot, values: &Values) -> Result<(), Error> {
        let value = values.get(&slot.name)?;
        let (Some(port), Some((found, shape))) = (slot.port.and_then(|i| self.inputs.get(i)), describe(value)) else {
            return Ok(());
        };
        if let Some(found) = found
            && !accepts(slot.kind, found)
        {
            let wanted = port.element_type.map_or_else(|| "another type".to_owned(), |it| format!("{it:?}"));
            return Err(Error::invalid_input(format!(
                "the elements of input `{}` are {found:?}, not {wanted}",
                port.name
            )));
        }
        let fits = |(wanted, found): (&Dim, &usize)| matches!(wanted, Dim::Free(_)) || *wanted == Dim::Fixed(*found);
        // An empty shape is either unknown or that of a single number.
        let known = !port.shape.is_empty();
        if known && (port.shape.len() != shape.len() || !port.shape.iter().zip(&shape).all(fits)) {
            let wanted: Vec<String> = port.shape.iter().map(size).collect();
            return Err(Error::invalid_input(format!(
                "input `{}` has shape {shape:?}; it must be [{}]",
                port.name,
                wanted.join(", ")
            )));
        }
        Ok(())
    }

    fn compute(&self, segment: &Segment, values: &mut Values) -> Result<(), Error> {
        let mut owned = Vec::with_capacity(segment.inputs.len());
        let mut lasting = Vec::new();
        for slot in &segment.inputs {
            let value = values.take(&slot.name)?;
            let value = to_rten(value, slot.kind).map_err(|error| error.about(&format!("input `{}`", slot.name)))?;
            match slot.grows {
                _ if slot.lasting || slot.returns.is_some() => lasting.push((slot, value)),
                Some(axis) => owned.push((slot, with_room(value, axis))),
                None => owned.push((slot, value)),
            }
        }
        // Values that are handed over for good are changed in place where an operator can.
        let mut inputs: Vec<(NodeId, ValueOrView)> = Vec::with_capacity(segment.inputs.len());
        inputs.extend(owned.into_iter().filter_map(|(slot, value)| Some((slot.id?, ValueOrView::Value(value)))));
        inputs.extend(lasting.iter().filter_map(|(slot, value)| Some((slot.id?, value.as_view().into()))));
        let made = self.run_model(inputs, &segment.wanted);
        for (slot, value) in lasting {
            let name = slot.returns.as_ref().filter(|_| made.is_ok()).unwrap_or(&slot.name);
            values.put(name, keep(value, slot.kind));
        }
        let mut made: Vec<Option<rten::Value>> = made?.into_iter().map(Some).collect();
        for (i, slot) in segment.outputs.iter().enumerate() {
            let place = segment.wanted.iter().position(|&id| Some(id) == slot.id);
            let place = place.expect("`wanted` has every output's node");
            let again = segment.outputs[i + 1..].iter().any(|later| later.id == slot.id);
            let value = if again { made[place].clone() } else { made[place].take() };
            let value = value.expect("a value is taken only by the last output that stands for its node");
            values.put(&slot.name, if slot.lasting { keep(value, slot.kind) } else { output(value, slot.kind)? });
        }
        Ok(())
    }

    /// Whether all members' values are there and fit together: each has one row, whose sizes are those of the others.
    fn check_together(&self, members: &[&mut Values]) -> Result<(), Error> {
        for slot in &self.segments[0].inputs {
            for values in members {
                self.check(slot, values)?;
            }
            if slot.grows.is_some() {
                continue;
            }
            let shape = |values: &Values| values.get(&slot.name).map(|it| describe(it).map(|(_, shape)| shape));
            let first = shape(members[0])?;
            for values in members {
                if shape(values)? != first || first.as_ref().is_some_and(|it| it.first().is_some_and(|&rows| rows != 1))
                {
                    return Err(Error::invalid_input(format!(
                        "input `{}`: members that run together bring one row each, of the same shape",
                        slot.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn compute_together(&self, batch: &Batch, members: &mut [&mut Values]) -> Result<(), Error> {
        let [segment] = self.segments.as_slice() else { unreachable!("networks that are cut have no batches") };
        let mut inputs: Vec<(NodeId, ValueOrView)> = Vec::with_capacity(members.len() * segment.inputs.len());
        for (values, ids) in members.iter_mut().zip(&batch.inputs) {
            for (slot, id) in segment.inputs.iter().zip(ids) {
                let value = to_rten(values.take(&slot.name)?, slot.kind)
                    .map_err(|error| error.about(&format!("input `{}`", slot.name)))?;
                let value = match slot.grows {
                    Some(axis) => with_room(value, axis),
                    None => value,
                };
                inputs.extend(id.map(|id| (id, ValueOrView::Value(value))));
            }
        }
        let mut made = self.run_model(inputs, &batch.outputs)?.into_iter();
        for slot in &segment.outputs {
            for (values, value) in members.iter_mut().zip(made.by_ref()) {
                values.put(&slot.name, output(value, slot.kind)?);
            }
        }
        Ok(())
    }

    fn run_model(&self, inputs: Vec<(NodeId, ValueOrView)>, wanted: &[NodeId]) -> Result<Vec<rten::Value>, Error> {
        let options = RunOptions::default().with_thread_pool(Some(self.threads.pool()));
        // `rten` means to report everything as an error, but some operators index what a damaged file controls. Its model holds no
        // state but a plan that is only replaced as a whole, so it can be used again after a panic.
        let result = catch_unwind(AssertUnwindSafe(|| self.model.run(inputs, wanted, Some(options))));
        match result {
            Ok(Ok(values)) => Ok(values),
            Ok(Err(error)) => Err(match error.kind() {
                RunErrorKind::InvalidInput => Error::invalid_input(error.to_string()),
                RunErrorKind::PlanningError | RunErrorKind::NodeNotFound => Error::invalid_model(error.to_string()),
                _ => Error::device(error.to_string()),
            }),
            Err(panic) => Err(Error::device(format!("rten failed: {}", panic_message(&*panic)))),
        }
    }
}

fn size(dim: &Dim) -> String {
    match dim {
        Dim::Fixed(size) => size.to_string(),
        Dim::Free(name) if name.is_empty() => "any".to_owned(),
        Dim::Free(name) => name.clone(),
    }
}

/// What a panic says.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}
