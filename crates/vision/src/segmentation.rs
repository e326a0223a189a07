//! Which pixels of a picture belong to a person: MediaPipe's selfie segmentation.
//!
//! Networks and shapes are those of the package `mediapipe` 0.10.21, `mediapipe/modules/selfie_segmentation`.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Data, Dim, Error, Graph, Image, Loader, Output, Tensor, Values, find_image};

use crate::convert_tflite;
use crate::picture::{Border, Sampler, Window, check};
use crate::task::{self, OneGraph, Task, one_graph_model};

/// Person segmentation.
///
/// Takes a picture of any size – the network sees it stretched to its own – and gives a mask: a picture of one channel and of the
/// input's size, 255 where a person is for certain, 0 where none is, interpolated linearly from the network's pixels.
///
/// For the networks `selfie_segmentation_landscape.tflite`, which computes at 256 × 144 pixels, and `selfie_segmentation.tflite`, at
/// 256 × 256, about twice the work.
#[derive(Debug)]
pub struct Segmentation(OneGraph<Selfie>);
one_graph_model!(Segmentation);

impl Segmentation {
    /// Loads `model.onnx` from a folder, which is made from `model.tflite` if it is not there.
    ///
    /// # Errors
    /// If neither file is there, if it is damaged or holds another network, or if the backend cannot load it.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        Self::new(task::load(dir, "tflite", convert_tflite, loader)?)
            .map_err(|error| error.about(&dir.display().to_string()))
    }

    /// The model whose network is `graph`, as [`convert_tflite`] makes it from either file.
    ///
    /// # Errors
    /// If its inputs and outputs are others.
    pub fn new(graph: Arc<dyn Graph>) -> Result<Self, Error> {
        let (name, height) =
            if graph.outputs().iter().any(|port| port.name == LANDSCAPE) { (LANDSCAPE, 144) } else { (SQUARE, 256) };
        let input = [1, 3, height, WIDTH].map(Dim::Fixed);
        OneGraph::new(Selfie { output: name, height }, graph, &input, &[name]).map(Self)
    }
}

/// Outputs of the two networks.
const LANDSCAPE: &str = "segment_back";
const SQUARE: &str = "activation_10";
/// Width of what both see [pixels].
const WIDTH: usize = 256;

#[derive(Debug)]
struct Selfie {
    output: &'static str,
    /// Height of what the network sees [pixels].
    height: usize,
}

#[derive(Debug, Default)]
struct Buffers {
    sampler: Sampler,
    mask: Vec<u8>,
}

impl Task for Selfie {
    type Buffers = Buffers;

    fn check(&self, input: &[Data]) -> Result<(), Error> {
        check(find_image(input)?)
    }

    fn prepare(&self, input: &[Data], buffers: &mut Buffers) -> Result<Tensor, Error> {
        let image = find_image(input)?;
        let (width, height) = (WIDTH, self.height);
        let mut planes = Vec::new();
        let scale = (1.0 / 255.0, 0.0);
        buffers.sampler.planes(image, Window::whole(image), Border::Edge, (width, height), scale, &mut planes);
        Tensor::new([1, 3, height, width], planes)
    }

    fn read(&self, input: &[Data], outputs: &mut Values, buffers: &mut Buffers) -> Result<Output, Error> {
        let &Image { width, height, .. } = find_image(input)?;
        let mask = outputs.take_tensor(self.output)?;
        let from = (WIDTH, self.height);
        let to = (width as usize, height as usize);
        let mask = task::filled(&mask, from.0 * from.1)?;
        buffers.sampler.mask(mask, from, to, &mut buffers.mask);
        let mask = Image { width, height, channels: 1, pixels: Arc::from(&*buffers.mask) };
        Ok(Output { data: vec![Data::Image(mask)], ..Output::default() })
    }
}
