//! 468 points of a face: MediaPipe's face mesh.
//!
//! The network and its constants are those of the package `mediapipe` 0.10.21, `mediapipe/modules/face_landmark`.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{
    Data, Dim, Error, Gate, Graph, Image, Loader, Output, Region, Tensor, Values, find_image, find_regions,
};

use crate::convert_tflite;
use crate::picture::{Border, Sampler, Window, check, grow};
use crate::task::{self, OneGraph, Task, one_graph_model};

/// Width and height of what the network sees [pixels].
const SIZE: u16 = 192;
/// How many points [`FaceLandmarks`] gives.
pub const LANDMARKS: usize = 468;
/// The network sees a square so many times as large as the face's longer side.
const MARGIN: f32 = 1.5;
/// From this score on there is a face.
const SCORE_MIN: f32 = 0.5;
/// Outputs: x, y and z of the points [pixels]; the raw score.
const OUTPUTS: [&str; 2] = ["conv2d_21", "conv2d_31"];

/// Landmarks of a face.
///
/// Takes a picture and regions, of which it looks at the first: the face as [`FaceDetector`](crate::FaceDetector) gives it. Gives
/// [`LANDMARKS`] points in MediaPipe's order: x and y in fractions of the picture's width and height, z – depth, towards the viewer
/// negative – in fractions of its width. Its gate: one face, or stop where the network sees none. The network sees the face upright as
/// it stands in the picture, and is less exact for heads that are tilted far to a side.
#[derive(Debug)]
pub struct FaceLandmarks(OneGraph<Landmarks>);
one_graph_model!(FaceLandmarks);

impl FaceLandmarks {
    /// Loads `model.onnx` from a folder, which is made from `model.tflite` if it is not there.
    ///
    /// # Errors
    /// If neither file is there, if it is damaged or holds another network, or if the backend cannot load it.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        Self::new(task::load(dir, "tflite", convert_tflite, loader)?)
            .map_err(|error| error.about(&dir.display().to_string()))
    }

    /// The model whose network is `graph`, as [`convert_tflite`] makes it from `face_landmark.tflite`.
    ///
    /// # Errors
    /// If its inputs and outputs are others.
    pub fn new(graph: Arc<dyn Graph>) -> Result<Self, Error> {
        let input = [1, 3, usize::from(SIZE), usize::from(SIZE)].map(Dim::Fixed);
        OneGraph::new(Landmarks, graph, &input, &OUTPUTS).map(Self)
    }
}

#[derive(Debug)]
struct Landmarks;

impl Task for Landmarks {
    type Buffers = Sampler;

    fn check(&self, input: &[Data]) -> Result<(), Error> {
        check(find_image(input)?)?;
        face(input).map(|_| ())
    }

    fn prepare(&self, input: &[Data], sampler: &mut Sampler) -> Result<Tensor, Error> {
        let image = find_image(input)?;
        let window = window(face(input)?, image);
        let size = usize::from(SIZE);
        let mut planes = Vec::new();
        sampler.planes(image, window, Border::Edge, (size, size), (1.0 / 255.0, 0.0), &mut planes);
        Tensor::new([1, 3, size, size], planes)
    }

    fn read(&self, input: &[Data], outputs: &mut Values, _: &mut Sampler) -> Result<Output, Error> {
        let points = outputs.take_tensor(OUTPUTS[0])?;
        let points = task::filled(&points, 3 * LANDMARKS)?;
        let score = outputs.take_tensor(OUTPUTS[1])?;
        let score = 1.0 / (1.0 + (-task::filled(&score, 1)?[0]).exp());
        let image = find_image(input)?;
        let window = window(face(input)?, image);
        let points = points.chunks_exact(3).map(|it| in_picture([it[0], it[1], it[2]], window, image)).collect();
        let gate = if score >= SCORE_MIN { Gate::Follow(1) } else { Gate::Stop };
        Ok(Output { data: vec![Data::Points(points)], gate })
    }
}

/// The region to look at.
fn face(input: &[Data]) -> Result<Region, Error> {
    let face = find_regions(input)?.first().copied();
    let face = face.ok_or_else(|| Error::invalid_input("landmarks need a face, and the list of regions is empty"))?;
    // Far enough beyond what a detector gives, and small enough for exact arithmetic.
    let numbers = [face.x, face.y, face.width, face.height];
    if numbers.iter().any(|it| !(-2.0..=3.0).contains(it)) || face.width <= 0.0 || face.height <= 0.0 {
        return Err(Error::invalid_input(format!("{face:?} is no part of a picture")));
    }
    Ok(face)
}

/// The square of the picture that the network sees.
fn window(face: Region, image: &Image) -> Window {
    let (width, height) = (image.width as f32, image.height as f32);
    let face =
        Window { x: face.x * width, y: face.y * height, width: face.width * width, height: face.height * height };
    grow(face, MARGIN)
}

/// From pixels of what the network sees to fractions of the picture.
fn in_picture([x, y, z]: [f32; 3], window: Window, image: &Image) -> [f32; 3] {
    let (width, height, size) = (image.width as f32, image.height as f32, f32::from(SIZE));
    let (x, y, z) = (x / size * window.width, y / size * window.height, z / size * window.width);
    [(window.x + x) / width, (window.y + y) / height, z / width]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::picture;

    #[test]
    fn points_come_back_to_the_picture_by_hand() {
        // A face of 20 × 20 pixels in the middle of 100 × 50: the network sees the 30 × 30 pixels from 35, 10 on.
        let image = picture(100, 50, 1, vec![0; 5000]).unwrap();
        let face = Region { x: 0.4, y: 0.3, width: 0.2, height: 0.4, score: 1.0 };
        let window = window(face, &image);
        for (point, wanted) in [([0., 0., 0.], [0.35, 0.2, 0.0]), ([192., 96., -64.], [0.65, 0.5, -0.1])] {
            let found = in_picture(point, window, &image);
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, not {wanted:?}");
        }
    }

    #[test]
    fn no_face_or_a_strange_one_is_an_error() {
        let regions = |list: &[Region]| [Data::Regions(list.into())];
        let error = face(&regions(&[])).unwrap_err().to_string();
        assert_eq!(error, "landmarks need a face, and the list of regions is empty");
        let region = Region { x: 0.1, y: 0.1, width: 0.1, height: 0.1, score: 1.0 };
        assert_eq!(face(&regions(&[region])).unwrap(), region);
        assert!(face(&regions(&[Region { x: f32::NAN, ..region }])).is_err());
        assert!(face(&regions(&[Region { width: 0.0, ..region }])).is_err());
    }
}
