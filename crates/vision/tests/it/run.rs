//! Runs converted networks.

use std::path::{Path, PathBuf};

use onbeat_backend::{Control, Data, LoadOptions, Loader, Model, Output, Tensor, Values};
use onbeat_backend_rten::Rten;

/// A folder of a test's own, deleted when it ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("onbeat-vision-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Calls `f` with a loader onto the CPU that cuts networks into segments.
pub(crate) fn with_loader<R>(segments: usize, f: impl FnOnce(&Loader<'_>) -> R) -> R {
    let (options, control) = (LoadOptions { segments, ..LoadOptions::default() }, Control::new());
    f(&Loader { backend: &Rten, device: "cpu", options: &options, control: &control })
}

/// Runs a network on one input; the output of that name.
pub(crate) fn network(name: &str, network: &[u8], input: (&str, Tensor), output: &str) -> Tensor {
    let folder = Folder::new(name);
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, network).unwrap();
    let graph = with_loader(1, |loader| loader.load(&file)).unwrap();
    let mut values = Values::new();
    values.put(input.0, input.1);
    graph.run(&mut values, &Control::new()).unwrap();
    values.take_tensor(output).unwrap()
}

/// One inference of a model.
pub(crate) fn infer(model: &dyn Model, input: &[Data]) -> Output {
    let mut session = model.open().unwrap();
    session.begin(input).unwrap();
    for segment in 1..=model.segments() {
        let step = session.step(1, &Control::new()).unwrap();
        assert_eq!((step.units, step.done), (1, segment == model.segments()));
    }
    session.finish().unwrap()
}
