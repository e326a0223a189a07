//! What the tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onbeat_backend::{Backend, Control, Error, Graph, LoadOptions, Tensor, Values};
use onbeat_backend_ort::{Config, Ort};
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

/// The backend with the library and the plugins that the environment names. `None`, and a line that says so, if it names none.
pub(crate) fn ort() -> Option<Ort> {
    let Some(library) = std::env::var_os("ONBEAT_TEST_ORT") else {
        println!("skipped: ONBEAT_TEST_ORT does not name an ONNX Runtime library");
        return None;
    };
    let plugin = |name: &str, variable: &str| Some((name.to_owned(), PathBuf::from(std::env::var_os(variable)?)));
    let plugins = [plugin("OpenVINO", "ONBEAT_TEST_ORT_OPENVINO"), plugin("QNN", "ONBEAT_TEST_ORT_QNN")];
    let providers = plugins.into_iter().flatten().collect();
    Some(Ort::new(Config { dylib: Some(library.into()), providers, ..Config::default() }))
}

/// The backend, if the environment names this plugin too.
pub(crate) fn ort_with(variable: &str) -> Option<Ort> {
    if std::env::var_os(variable).is_none() {
        println!("skipped: {variable} does not name a plugin");
        return None;
    }
    ort()
}

/// A file that is gone after the test.
#[derive(Debug)]
pub(crate) struct File(pub(crate) PathBuf);

impl File {
    pub(crate) fn new(content: &[u8]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("onbeat-ort-it-{}-{count}.onnx", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn load(ort: &Ort, content: &[u8], device: &str, options: &LoadOptions) -> Result<Arc<dyn Graph>, Error> {
    ort.load(&File::new(content).0, device, options, &Control::new())
}

pub(crate) fn load_cpu(ort: &Ort, content: &[u8]) -> Arc<dyn Graph> {
    load(ort, content, "cpu", &LoadOptions::default()).unwrap()
}

pub(crate) fn values(list: &[(&str, Tensor)]) -> Values {
    let mut values = Values::new();
    for (name, tensor) in list {
        values.put(name, tensor.clone());
    }
    values
}

pub(crate) fn run(graph: &dyn Graph, inputs: &[(&str, Tensor)], output: &str) -> Vec<f32> {
    let mut values = values(inputs);
    graph.run(&mut values, &Control::new()).unwrap();
    values.take_tensor(output).unwrap().into_vec().unwrap()
}

/// Numbers between −0.5 and 0.5 that look random, the same every time.
pub(crate) fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A model in `ONBEAT_TEST_MODELS`.
pub(crate) fn model(path: &str) -> Option<PathBuf> {
    let found = std::env::var_os("ONBEAT_TEST_MODELS").map(|folder| Path::new(&folder).join(path));
    let found = found.filter(|path| path.is_file());
    if found.is_none() {
        println!("skipped: there is no {path} in ONBEAT_TEST_MODELS");
    }
    found
}

pub(crate) const SIZE: usize = 8;

/// A small network of convolutions: 3 × 8 × 8 → conv 3 × 3 to 4 channels, ReLU → conv 1 × 1 to 2 channels. Its file, and its
/// output for an input.
pub(crate) struct ConvNet {
    first: Vec<f32>,
    bias: Vec<f32>,
    second: Vec<f32>,
}

impl ConvNet {
    pub(crate) fn new() -> Self {
        Self { first: noise(1, 4 * 3 * 9), bias: noise(2, 4), second: noise(3, 2 * 4) }
    }

    pub(crate) fn file(&self, batch: &Dim) -> Vec<u8> {
        let shape = |channels| [batch.clone(), Dim::Fixed(channels), Dim::Fixed(SIZE), Dim::Fixed(SIZE)];
        let mut g = Builder::new("net", 17);
        let x = g.input("x", ElementType::F32, &shape(3));
        let first = g.f32("first", &[4, 3, 3, 3], self.first.clone());
        let bias = g.f32("bias", &[4], self.bias.clone());
        let second = g.f32("second", &[2, 4, 1, 1], self.second.clone());
        let y = g.node("Conv", &[&x, &first, &bias], &[("pads", Attr::Ints(vec![1; 4]))]);
        let y = g.node("Relu", &[&y], &[]);
        let y = g.node("Conv", &[&y, &second], &[]);
        g.output_named(&y, "y", ElementType::F32, &shape(2));
        g.finish()
    }

    pub(crate) fn input() -> Tensor {
        Tensor::new([1, 3, SIZE, SIZE], noise(4, 3 * SIZE * SIZE)).unwrap()
    }

    /// The output, straight from the definition of a convolution.
    pub(crate) fn expected(&self) -> Vec<f32> {
        let x = noise(4, 3 * SIZE * SIZE);
        let at = |channel: usize, row: usize, column: usize| {
            // Rows and columns are counted from the padding.
            let inside = (1..=SIZE).contains(&row) && (1..=SIZE).contains(&column);
            if inside { f64::from(x[(channel * SIZE + row - 1) * SIZE + column - 1]) } else { 0.0 }
        };
        let mut output = vec![0.0; 2 * SIZE * SIZE];
        for (row, column) in (0..SIZE).flat_map(|row| (0..SIZE).map(move |column| (row, column))) {
            for middle in 0..4 {
                let mut sum = f64::from(self.bias[middle]);
                for (channel, i, j) in (0..27).map(|k| (k / 9, k / 3 % 3, k % 3)) {
                    sum +=
                        f64::from(self.first[middle * 27 + channel * 9 + i * 3 + j]) * at(channel, row + i, column + j);
                }
                for last in 0..2 {
                    let weight = f64::from(self.second[last * 4 + middle]);
                    output[(last * SIZE + row) * SIZE + column] += weight * sum.max(0.0);
                }
            }
        }
        output.into_iter().map(|value| value as f32).collect()
    }
}

pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
