//! Graphs that the tests build, loaded and run.

mod errors;
mod segments;
mod values;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use onbeat_backend::{Backend, Control, Error, Graph, LoadOptions, Tensor, Values};
use onbeat_backend_rten::Rten;

/// A file that is gone when the test is over.
struct TempFile(PathBuf);

impl TempFile {
    fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("onbeat-rten-{}-{}.onnx", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::write(&path, bytes).expect("the folder for temporary files can be written");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn load(bytes: &[u8], options: &LoadOptions) -> Result<Arc<dyn Graph>, Error> {
    let file = TempFile::new(bytes);
    Rten.load(&file.0, "cpu", options, &Control::new())
}

fn values(list: &[(&str, Tensor)]) -> Values {
    let mut values = Values::new();
    for (name, tensor) in list {
        values.put(name, tensor.clone());
    }
    values
}

fn run(graph: &dyn Graph, inputs: &[(&str, Tensor)]) -> Result<Values, Error> {
    let mut values = values(inputs);
    graph.run(&mut values, &Control::new())?;
    Ok(values)
}

/// Numbers between −1 and 1 that look random and are the same each time.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
