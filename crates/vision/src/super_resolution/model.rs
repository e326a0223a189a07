//! The model.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Data, Dim, Error, Graph, Image, Loader, Output, Tensor, Values, find_image};

use super::convert_anime4k;
use crate::picture::{check, deinterleave, interleave};
use crate::task::{self, OneGraph, Task, one_graph_model};

/// Twice the resolution.
///
/// Takes a picture of any size and gives one of three channels, twice as wide and twice as high. For the networks of the package
/// `@websr/websr` 0.0.15, `weights/anime4k/cnn-2x-*.json`: small, medium and large (`s`, `m`, `l`), trained on camera pictures,
/// animation or rendered scenes (`rl`, `an`, `3d`). The small ones correct the brightness alone, the others each colour.
///
/// The network's dimensions `height` and `width` are free; devices that need to know them get them by
/// [`LoadOptions::dimensions`](onbeat_backend::LoadOptions::dimensions).
#[derive(Debug)]
pub struct SuperResolution(OneGraph<Upscale>);
one_graph_model!(SuperResolution);

impl SuperResolution {
    /// Loads `model.onnx` from a folder, which is made from `model.json` if it is not there.
    ///
    /// # Errors
    /// If neither file is there, if it is damaged or holds another network, or if the backend cannot load it.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        Self::new(task::load(dir, "json", convert_anime4k, loader)?)
            .map_err(|error| error.about(&dir.display().to_string()))
    }

    /// The model whose network is `graph`, as [`convert_anime4k`] makes them.
    ///
    /// # Errors
    /// If its inputs and outputs are others.
    pub fn new(graph: Arc<dyn Graph>) -> Result<Self, Error> {
        let free = |name: &str| Dim::Free(name.to_owned());
        let input = [Dim::Fixed(1), Dim::Fixed(3), free("height"), free("width")];
        OneGraph::new(Upscale, graph, &input, &["upscaled"]).map(Self)
    }
}

#[derive(Debug)]
struct Upscale;

impl Task for Upscale {
    type Buffers = Vec<u8>;

    fn check(&self, input: &[Data]) -> Result<(), Error> {
        check(find_image(input)?)
    }

    fn prepare(&self, input: &[Data], _: &mut Vec<u8>) -> Result<Tensor, Error> {
        let image = find_image(input)?;
        Tensor::new([1, 3, image.height as usize, image.width as usize], deinterleave(image))
    }

    fn read(&self, input: &[Data], outputs: &mut Values, pixels: &mut Vec<u8>) -> Result<Output, Error> {
        let image = find_image(input)?;
        let planes = outputs.take_tensor("upscaled")?;
        let (width, height) = (2 * image.width, 2 * image.height);
        interleave(task::filled(&planes, 3 * width as usize * height as usize)?, pixels);
        let image = Image { width, height, channels: 3, pixels: Arc::from(&**pixels) };
        Ok(Output { data: vec![Data::Image(image)], ..Output::default() })
    }
}
