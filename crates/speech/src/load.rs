//! Loading a network and checking that it is the one that is meant.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Error, Graph, Loader, Port};

/// Loads `dir/file` and checks that it has these inputs and outputs.
pub(crate) fn load(
    dir: &Path,
    file: &str,
    loader: &Loader<'_>,
    inputs: &[&str],
    outputs: &[&str],
) -> Result<Arc<dyn Graph>, Error> {
    let path = dir.join(file);
    let graph = loader.load(&path)?;
    let missing = |ports: &[Port], what: &str, wanted: &[&str]| -> Result<(), Error> {
        match wanted.iter().find(|name| ports.iter().all(|port| port.name != **name)) {
            None => Ok(()),
            Some(name) => {
                let found: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                Err(Error::invalid_model(format!(
                    "{}: it has no {what} `{name}`, but {}",
                    path.display(),
                    found.join(", ")
                )))
            }
        }
    };
    missing(graph.inputs(), "input", inputs)?;
    missing(graph.outputs(), "output", outputs)?;
    Ok(graph)
}

/// The sum of two footprints' weights, and the larger of their activations: they do not run at the same time.
pub(crate) fn footprint(graphs: &[&Arc<dyn Graph>]) -> onbeat_backend::Footprint {
    let mut total = onbeat_backend::Footprint::default();
    for graph in graphs {
        let one = graph.footprint();
        total.weights += one.weights;
        total.activations = total.activations.max(one.activations);
    }
    total
}
