//! Where faces are: MediaPipe's short-range face detector (BlazeFace).
//!
//! The network and its constants are those of the package `mediapipe` 0.10.21, `mediapipe/modules/face_detection`.

use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Data, Dim, Error, Gate, Graph, Image, Loader, Output, Region, Tensor, Values, find_image};

use super::anchors::{Anchor, short_range};
use super::overlap::merge;
use crate::convert_tflite;
use crate::picture::{Border, Sampler, Window, check, grow};
use crate::task::{self, OneGraph, Task, one_graph_model};

/// Width and height of what the network sees [pixels].
const SIZE: u16 = 128;
/// Numbers per answer: centre and size of the box, then x and y of six points in the face.
const COORDINATES: usize = 16;
/// Outputs: boxes and points; raw scores.
const OUTPUTS: [&str; 2] = ["regressors", "classificators"];
/// Answers below this score count as none.
const SCORE_MIN: f32 = 0.5;
/// Boxes that overlap by more than this are the same face.
const OVERLAP_MAX: f32 = 0.3;
/// Raw scores beyond this are cut off, so that their exponential is a number.
const RAW_SCORE_MAX: f32 = 100.0;

/// Face detection.
///
/// Takes a picture of any size – the network sees it whole, with black bars where it is not square – and gives the faces as regions,
/// the surest first. Its gate: once per face, or stop. Meant for faces within about two metres of the camera.
#[derive(Debug)]
pub struct FaceDetector(OneGraph<Faces>);
one_graph_model!(FaceDetector);

impl FaceDetector {
    /// Loads `model.onnx` from a folder, which is made from `model.tflite` if it is not there.
    ///
    /// # Errors
    /// If neither file is there, if it is damaged or holds another network, or if the backend cannot load it.
    pub fn load(dir: &Path, loader: &Loader<'_>) -> Result<Self, Error> {
        Self::new(task::load(dir, "tflite", convert_tflite, loader)?)
            .map_err(|error| error.about(&dir.display().to_string()))
    }

    /// The model whose network is `graph`, as [`convert_tflite`] makes it from `face_detection_short_range.tflite`.
    ///
    /// # Errors
    /// If its inputs and outputs are others.
    pub fn new(graph: Arc<dyn Graph>) -> Result<Self, Error> {
        let input = [1, 3, usize::from(SIZE), usize::from(SIZE)].map(Dim::Fixed);
        OneGraph::new(Faces { anchors: short_range() }, graph, &input, &OUTPUTS).map(Self)
    }
}

#[derive(Debug)]
struct Faces {
    anchors: Vec<Anchor>,
}

impl Task for Faces {
    type Buffers = Sampler;

    fn check(&self, input: &[Data]) -> Result<(), Error> {
        check(find_image(input)?)
    }

    fn prepare(&self, input: &[Data], sampler: &mut Sampler) -> Result<Tensor, Error> {
        let image = find_image(input)?;
        let size = usize::from(SIZE);
        let mut planes = Vec::new();
        sampler.planes(image, seen(image), Border::Black, (size, size), (2.0 / 255.0, -1.0), &mut planes);
        Tensor::new([1, 3, size, size], planes)
    }

    fn read(&self, input: &[Data], outputs: &mut Values, _: &mut Sampler) -> Result<Output, Error> {
        let boxes = outputs.take_tensor(OUTPUTS[0])?;
        let boxes = task::filled(&boxes, self.anchors.len() * COORDINATES)?;
        let scores = outputs.take_tensor(OUTPUTS[1])?;
        let scores = task::filled(&scores, self.anchors.len())?;
        let image = find_image(input)?;
        let faces: Vec<Region> = merge(decode(&self.anchors, boxes, scores), OVERLAP_MAX)
            .into_iter()
            .filter_map(|face| in_picture(face, image))
            .collect();
        let gate = if faces.is_empty() { Gate::Stop } else { Gate::Follow(faces.len() as u32) };
        Ok(Output { data: vec![Data::Regions(faces.into())], gate })
    }
}

/// The square that the network sees: all of the picture, and bars along its shorter side.
fn seen(image: &Image) -> Window {
    grow(Window::whole(image), 1.0)
}

/// The answers that are sure enough, in fractions of what the network sees.
fn decode(anchors: &[Anchor], boxes: &[f32], scores: &[f32]) -> Vec<Region> {
    let answers = anchors.iter().zip(boxes.chunks_exact(COORDINATES)).zip(scores);
    let regions = answers.filter_map(|((anchor, values), &raw)| {
        let score = 1.0 / (1.0 + (-raw.clamp(-RAW_SCORE_MAX, RAW_SCORE_MAX)).exp());
        let of_size = |value: f32| value / f32::from(SIZE);
        let (width, height) = (of_size(values[2]), of_size(values[3]));
        let (x, y) = (anchor.x + of_size(values[0]) - width / 2.0, anchor.y + of_size(values[1]) - height / 2.0);
        (score >= SCORE_MIN).then_some(Region { x, y, width, height, score })
    });
    regions.collect()
}

/// From fractions of what the network sees to fractions of the picture, without what lies beyond its edge; `None` if nothing is left.
fn in_picture(face: Region, image: &Image) -> Option<Region> {
    let seen = seen(image);
    let span = |start: f32, length: f32, seen_start: f32, seen_length: f32, picture: u32| {
        let at = |fraction: f32| ((seen_start + fraction * seen_length) / picture as f32).clamp(0.0, 1.0);
        let (from, to) = (at(start), at(start + length));
        (from < to).then_some((from, to - from))
    };
    let (x, width) = span(face.x, face.width, seen.x, seen.width, image.width)?;
    let (y, height) = span(face.y, face.height, seen.y, seen.height, image.height)?;
    Some(Region { x, y, width, height, score: face.score })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::picture;

    #[test]
    fn answers_are_decoded_by_hand() {
        let anchors = [Anchor { x: 0.5, y: 0.25 }; 2];
        let mut boxes = [0.0; 2 * COORDINATES];
        boxes[..4].copy_from_slice(&[12.8, -6.4, 32.0, 64.0]);
        // Logit of 0.9 is ln 9; the second is below one half.
        let faces = decode(&anchors, &boxes, &[9.0_f32.ln(), -0.1]);
        assert_eq!(faces.len(), 1);
        let Region { x, y, width, height, score } = faces[0];
        // Centre 0.6, 0.2; size 0.25, 0.5.
        for (found, wanted) in [(x, 0.475), (y, -0.05), (width, 0.25), (height, 0.5), (score, 0.9)] {
            assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}");
        }
        // Scores far beyond what can be exponentiated.
        assert_eq!(decode(&anchors, &boxes, &[1e30, f32::NAN]).len(), 1);
    }

    #[test]
    fn bars_are_taken_off_by_hand() {
        // 200 × 100: the network sees bars of 50 above and below, so that the picture's rows are 0.25 to 0.75 of what it sees.
        let image = picture(200, 100, 1, vec![0; 20000]).unwrap();
        let face = Region { x: 0.1, y: 0.5, width: 0.2, height: 0.5, score: 0.8 };
        let Region { x, y, width, height, .. } = in_picture(face, &image).unwrap();
        for (found, wanted) in [(x, 0.1), (y, 0.5), (width, 0.2), (height, 0.5)] {
            assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}");
        }
        // Within a bar there is no picture.
        assert_eq!(in_picture(Region { y: 0.0, height: 0.2, ..face }, &image), None);
    }
}
