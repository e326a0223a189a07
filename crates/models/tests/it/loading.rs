//! Loading, with a backend whose graphs copy their input, in two segments.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use onbeat_backend::{
    Backend, Control, Data, Device, Dim, ElementType, Error, ErrorKind, Footprint, Graph, LoadOptions, Loader, Model,
    Port, Tensor, Values,
};
use onbeat_backend_rten::Rten;
use onbeat_models::{Cache, Catalogue, RunsAs, file, load, load_folder, load_path};

/// Loads any file that exists as a network that copies `x` \[free, 2\] to `y`, and remembers the options.
#[derive(Debug, Default)]
struct Copying {
    options: Mutex<Option<LoadOptions>>,
}

#[derive(Debug)]
struct Copy([Port; 1], [Port; 1]);

fn port(name: &str) -> Port {
    let shape = vec![Dim::Free("rows".to_owned()), Dim::Fixed(2)];
    Port { name: name.to_owned(), element_type: Some(ElementType::F32), shape }
}

impl Backend for Copying {
    fn name(&self) -> &'static str {
        "copying"
    }
    fn description(&self) -> String {
        "for tests".to_owned()
    }
    fn devices(&self) -> Result<Vec<Device>, Error> {
        Ok(Vec::new())
    }
    fn load(&self, file: &Path, _: &str, options: &LoadOptions, _: &Control) -> Result<Arc<dyn Graph>, Error> {
        fs::metadata(file).map_err(|error| Error::not_found(format!("{}: {error}", file.display())))?;
        *self.options.lock().unwrap() = Some(options.clone());
        Ok(Arc::new(Copy([port("x")], [port("y")])))
    }
}

impl Graph for Copy {
    fn inputs(&self) -> &[Port] {
        &self.0
    }
    fn outputs(&self) -> &[Port] {
        &self.1
    }
    fn segments(&self) -> usize {
        2
    }
    fn run_segment(&self, segment: usize, values: &mut Values, _: &Control) -> Result<(), Error> {
        if segment == 0 { values.rename("x", "middle") } else { values.rename("middle", "y") }
    }
    fn footprint(&self) -> Footprint {
        Footprint { weights: 8, activations: 0 }
    }
}

fn with_loader<T>(backend: &Copying, options: &LoadOptions, act: impl FnOnce(&Loader<'_>) -> T) -> T {
    act(&Loader { backend, device: "cpu", options, control: &Control::new() })
}

fn run(model: &dyn Model, input: &[Data]) -> Vec<(String, Tensor)> {
    let mut session = model.open().unwrap();
    assert!(session.step(1, &Control::new()).is_err());
    session.begin(input).unwrap();
    assert!(!session.step(1, &Control::new()).unwrap().done);
    assert!(session.finish().is_err());
    assert!(session.step(1, &Control::new()).unwrap().done);
    let output = session.finish().unwrap();
    let [Data::Tensors(tensors)] = &output.data[..] else { panic!("{output:?}") };
    tensors.to_vec()
}

#[test]
fn a_users_network_takes_tensors_by_name_and_is_filled_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.onnx");
    fs::write(&file, "anything").unwrap();
    let options = LoadOptions { dimensions: vec![("rows".to_owned(), 3)], ..LoadOptions::default() };
    let cache = Cache::new(folder.path());
    let model = with_loader(&Copying::default(), &options, |loader| load_path(&file, &cache, loader)).unwrap();
    assert_eq!((model.segments(), model.footprint().weights), (2, 8));

    let given = Tensor::new([1, 2], vec![1.0_f32, 2.0]).unwrap();
    let input = [Data::Text("not for it".into()), Data::Tensors(vec![("x".to_owned(), given.clone())].into())];
    assert_eq!(run(&*model, &input), [("y".to_owned(), given)]);

    let filled = run(&*model, &[]);
    assert_eq!(filled[0].1.shape(), [3, 2]);
    let other = Data::Tensors(vec![("z".to_owned(), Tensor::zeros([1]))].into());
    assert_eq!(run(&*model, &[other]), filled);
}

#[test]
fn files_that_are_no_models_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let own = |name: &str| {
        let file = folder.path().join(name);
        with_loader(&Copying::default(), &LoadOptions::default(), |loader| load_path(&file, &cache, loader))
            .unwrap_err()
    };
    assert_eq!(own("absent.onnx").kind(), ErrorKind::NotFound);
    fs::write(folder.path().join("a.tflite"), "TFL3").unwrap();
    assert!(
        own("a.tflite")
            .to_string()
            .ends_with("a.tflite: neither an ONNX file, whose name ends in .onnx, nor a GGUF file")
    );
    // A GGUF file is known by its first bytes, whatever its name, and this one ends after them.
    fs::write(folder.path().join("cut.bin"), "GGUF").unwrap();
    assert!(own("cut.bin").to_string().contains("cut.bin: "));
    assert_eq!(fs::read_dir(folder.path().join("converted")).unwrap().count(), 0);
}

#[test]
fn a_model_that_is_not_there_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let error = |name: &str| {
        with_loader(&Copying::default(), &LoadOptions::default(), |loader| load(name, &cache, loader)).unwrap_err()
    };
    assert_eq!(error("dtln").to_string(), "model dtln has not been fetched: `onbeat models fetch dtln` does it");
    assert_eq!(error("dtln").kind(), ErrorKind::NotFound);
    assert_eq!(file("test-picture", &cache).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(error("dltn").to_string().contains("there is no model `dltn` in the catalogue; there are: "));
}

#[test]
fn every_model_of_the_catalogue_is_known_to_what_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    for entry in Catalogue::shipped().models() {
        let backend = Copying::default();
        let result = with_loader(&backend, &LoadOptions::default(), |loader| load_folder(entry, folder.path(), loader));
        let error = result.expect_err("the folder is empty");
        // Its own loader looks for a file, and says which.
        let expected = if entry.runs_as == RunsAs::File { ErrorKind::Unsupported } else { ErrorKind::NotFound };
        assert_eq!(error.kind(), expected, "{}: {error}", entry.name);
        assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{}: {error}", entry.name);
    }
}

#[test]
fn sizes_of_the_catalogue_give_way_to_those_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let entry = Catalogue::shipped().find("style-multistyle26").unwrap();
    fs::write(folder.path().join(entry.network.as_ref().unwrap()), "anything").unwrap();
    let backend = Copying::default();
    let options = LoadOptions { dimensions: vec![("h".to_owned(), 128)], ..LoadOptions::default() };
    with_loader(&backend, &options, |loader| load_folder(entry, folder.path(), loader)).unwrap();
    let mut dimensions = backend.options.lock().unwrap().take().unwrap().dimensions;
    dimensions.sort();
    assert_eq!(dimensions, [("h".to_owned(), 128), ("w".to_owned(), 256)]);
}

/// With real weights, where the environment names them: every model loads on the CPU, and plain networks run.
#[test]
fn fetched_models_load_on_the_cpu() {
    let Some(models) = std::env::var_os("ONBEAT_TEST_MODELS") else {
        println!("skipped: ONBEAT_TEST_MODELS names no folder of models");
        return;
    };
    let options = LoadOptions::default();
    for entry in Catalogue::shipped().models().filter(|entry| entry.runs_as != RunsAs::File) {
        let folder = Path::new(&models).join(&entry.name);
        if !folder.is_dir() {
            println!("skipped: there is no model {}", entry.name);
            continue;
        }
        let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &Control::new() };
        let model = load_folder(entry, &folder, &loader).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        assert!(model.footprint().weights > 0, "{}", entry.name);
        let mut session = model.open().unwrap();
        if entry.runs_as == RunsAs::Network {
            session.begin(&[]).unwrap();
            while !session.step(1, &Control::new()).unwrap().done {}
            let output = session.finish().unwrap();
            let [Data::Tensors(tensors)] = &output.data[..] else { panic!("{output:?}") };
            for (name, tensor) in tensors.iter() {
                println!("{}: {name} {:?}", entry.name, tensor.shape());
                assert!(tensor.view::<f32>().unwrap().iter().all(|value| value.is_finite()), "{}: {name}", entry.name);
            }
        }
    }
}

/// With real weights, where the environment names them: a GGUF file of any name is converted the first time, and only then.
#[test]
fn a_users_gguf_file_is_converted_once() {
    let models = std::env::var_os("ONBEAT_TEST_MODELS").unwrap_or_default();
    let original = Path::new(&models).join("smollm2-135m-instruct/model.gguf");
    if !original.is_file() {
        println!("skipped: ONBEAT_TEST_MODELS names no folder with smollm2-135m-instruct/model.gguf");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let own = folder.path().join("own");
    fs::copy(&original, &own).unwrap();
    let options = LoadOptions::default();
    let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &Control::new() };
    let model = load_path(&own, &cache, &loader).unwrap();
    let prompt = [Data::Text("Hello".into())];
    assert!(model.size(&prompt).unwrap().prompt > 0);
    let converted = || {
        let folders: Vec<_> =
            fs::read_dir(folder.path().join("converted")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(folders.len(), 1);
        folders[0].metadata().unwrap().modified().unwrap()
    };
    let first = converted();
    load_path(&own, &cache, &loader).unwrap();
    assert_eq!(converted(), first);
}
