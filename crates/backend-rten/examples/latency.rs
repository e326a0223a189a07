//! What the way through onbeat costs: a network run by `rten` itself, and through `Graph`, by turns in one process, with one thread.
//!
//! `cargo run --release -p onbeat-backend-rten --example latency -- FILE [NAME=SIZE …]`: sizes of the dimensions that the file leaves free;
//! 1 for those that are not named. Inputs are ones. Rows: `rten` alone; on the thread of the loop ([`compute_here`]); on a helper thread;
//! in segments, if `segments=N` is among the sizes.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use onbeat_backend::{Backend, Control, Dim, ElementType, Elements, Graph, LoadOptions, Tensor, Values};
use onbeat_backend_rten::{Rten, compute_here};
use rten::{Model, NodeId, RunOptions, ThreadPool, Value};

type Failure = Box<dyn Error + Send + Sync>;

/// How often the rows take turns, and for how long each.
const TURNS: usize = 20;
const TURN: Duration = Duration::from_millis(100);

fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("usage: latency FILE [NAME=SIZE …]")?;
    let mut dimensions = Vec::new();
    let mut segments = 1;
    for argument in arguments {
        let (name, size) = argument.split_once('=').ok_or("sizes are written NAME=SIZE")?;
        if name == "segments" { segments = size.parse()? } else { dimensions.push((name.to_owned(), size.parse()?)) }
    }
    let load = |segments| {
        let options = LoadOptions { segments, dimensions: dimensions.clone(), ..LoadOptions::default() };
        Rten.load(Path::new(&file), "cpu", &options, &Control::new())
    };
    let whole = load(1)?;
    let inputs = inputs(&*whole, &dimensions)?;
    let bare = Bare::load(&file, &inputs)?;
    let mut rows = vec![("rten alone", Vec::new()), ("Graph, here", Vec::new()), ("Graph, helper", Vec::new())];
    let cut = if segments > 1 { Some(load(segments)?) } else { None };
    if cut.is_some() {
        rows.push(("in segments, here", Vec::new()));
    }
    for _ in 0..TURNS {
        bare.turn(&mut rows[0].1)?;
        compute_here(|| turn(&*whole, &inputs, &mut rows[1].1))?;
        turn(&*whole, &inputs, &mut rows[2].1)?;
        if let Some(cut) = &cut {
            compute_here(|| turn(&**cut, &inputs, &mut rows[3].1))?;
        }
    }
    let p50 = |times: &[f64]| times[times.len() / 2];
    for (_, times) in &mut rows {
        times.sort_by(f64::total_cmp);
    }
    let base = p50(&rows[0].1);
    println!("{file}, {} segments", cut.map_or(1, |it| it.segments()));
    for (name, times) in &rows {
        let p95 = times[times.len() * 95 / 100];
        let ratio = p50(times) / base;
        println!("{name:18} {:6} runs  p50 {:9.4} ms  p95 {p95:9.4} ms  p50 × {ratio:.4}", times.len(), p50(times));
    }
    Ok(())
}

fn inputs(graph: &dyn Graph, dimensions: &[(String, usize)]) -> Result<Vec<(String, Tensor)>, Failure> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Free(name) => dimensions.iter().find(|(other, _)| other == name).map_or(1, |it| it.1),
    };
    let mut inputs = Vec::new();
    for port in graph.inputs() {
        let shape: Vec<usize> = port.shape.iter().map(size).collect();
        let count = shape.iter().product();
        let elements = match port.element_type {
            Some(ElementType::I64) => Elements::I64(vec![1; count]),
            Some(ElementType::I32) => Elements::I32(vec![1; count]),
            Some(ElementType::U8) => Elements::U8(vec![1; count]),
            Some(ElementType::I8) => Elements::I8(vec![1; count]),
            Some(ElementType::F32) | None => Elements::F32(vec![1.0; count]),
        };
        inputs.push((port.name.clone(), Tensor::from_elements(shape, elements)?));
    }
    Ok(inputs)
}

/// Runs for one turn. A run counts from handing over the inputs to having the outputs as tensors.
fn turn(graph: &dyn Graph, inputs: &[(String, Tensor)], times: &mut Vec<f64>) -> Result<(), Failure> {
    let control = Control::new();
    let end = Instant::now() + TURN;
    while Instant::now() < end {
        let fresh = inputs.to_vec();
        let mut values = Values::new();
        let start = Instant::now();
        for (name, tensor) in fresh {
            values.put(&name, tensor);
        }
        graph.run(&mut values, &control)?;
        for port in graph.outputs() {
            values.take_tensor(&port.name)?;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

/// The network as `rten` itself runs it.
struct Bare {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
}

impl Bare {
    fn load(file: &str, inputs: &[(String, Tensor)]) -> Result<Self, Failure> {
        let model = Model::load(fs::read(file)?)?;
        let mut values = Vec::new();
        for (name, tensor) in inputs {
            let (shape, elements) = tensor.clone().into_parts();
            let value = match elements {
                Elements::F32(it) => Value::from_shape(shape, it)?,
                Elements::I64(it) => Value::from_shape(shape, it.into_iter().map(|it| it as i32).collect())?,
                Elements::I32(it) => Value::from_shape(shape, it)?,
                Elements::U8(it) => Value::from_shape(shape, it)?,
                Elements::I8(it) => Value::from_shape(shape, it)?,
            };
            values.push((model.node_id(name)?, value));
        }
        Ok(Self { model, inputs: values })
    }

    /// Like [`turn`]: on a thread that is new, as those of [`compute_here`] are, so that neither has the warmer memory.
    fn turn(&self, times: &mut Vec<f64>) -> Result<(), Failure> {
        let Self { model, inputs } = self;
        let pool = &Arc::new(ThreadPool::with_num_threads(1));
        pool.run(|| {
            let end = Instant::now() + TURN;
            while Instant::now() < end {
                let fresh = inputs.clone();
                let start = Instant::now();
                let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
                let given = fresh.into_iter().map(|(id, value)| (id, value.into())).collect();
                let made = model.run(given, model.output_ids(), Some(options))?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
                drop(made);
            }
            Ok(())
        })
    }
}
