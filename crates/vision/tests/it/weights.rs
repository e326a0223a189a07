//! The models on real weights and a real picture: folders of the catalogue's models in the folder that the environment variable
//! `ONBEAT_TEST_MODELS` names. Without it these tests say so and pass.

use std::path::PathBuf;

use onbeat_backend::{Control, Data, ErrorKind, Gate, Image, Model, Region, Session};
use onbeat_vision::picture::{self, Filter};
use onbeat_vision::{FaceDetector, FaceLandmarks, LANDMARKS, Segmentation, SuperResolution};

use crate::run;

/// A model's folder, if it is there.
fn folder(model: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ONBEAT_TEST_MODELS").map(|models| PathBuf::from(models).join(model));
    let folder = folder.filter(|it| it.is_dir());
    if folder.is_none() {
        println!("skipped: ONBEAT_TEST_MODELS names no folder with the model {model}");
    }
    folder
}

/// The portrait of an astronaut, 512 × 512, of the package `scikit-image` 0.25.2.
fn astronaut() -> Option<Image> {
    Some(picture::read(&folder("test-picture")?.join("astronaut.png")).unwrap())
}

/// Whether a pixel lies within an ellipse with this centre and these half axes.
fn within(x: u32, y: u32, centre: (f64, f64), axes: (f64, f64)) -> bool {
    let (x, y) = ((f64::from(x) - centre.0) / axes.0, (f64::from(y) - centre.1) / axes.1);
    x * x + y * y <= 1.0
}

/// Where the person is, drawn by hand on the picture: head, shoulders and arms, and the helmet that she holds, which both networks
/// take for a part of her.
fn person() -> Image {
    let inside = |x: u32, y: u32| {
        within(x, y, (225.0, 85.0), (74.0, 72.0))
            || within(x, y, (200.0, 360.0), (172.0, 215.0))
            || within(x, y, (390.0, 450.0), (105.0, 100.0))
    };
    let pixels: Vec<u8> = (0..512 * 512).map(|i| if inside(i % 512, i / 512) { 255 } else { 0 }).collect();
    picture::picture(512, 512, 1, pixels).unwrap()
}

fn mask(model: &Segmentation, image: &Image) -> Image {
    let output = run::infer(model, &[Data::Image(image.clone())]);
    let [Data::Image(mask)] = &output.data[..] else { panic!("{output:?}") };
    assert_eq!((mask.width, mask.height, mask.channels), (image.width, image.height, 1));
    mask.clone()
}

#[test]
fn the_mask_covers_the_person() {
    for name in ["selfie-segmentation", "selfie-segmentation-square"] {
        let (Some(folder), Some(image)) = (folder(name), astronaut()) else { continue };
        let model = run::with_loader(1, |loader| Segmentation::load(&folder, loader)).unwrap();
        let mask = mask(&model, &image);
        let overlap = picture::iou(&mask, &person(), 128).unwrap();
        println!("{name}: intersection over union with the drawn outline {overlap:.3}");
        assert!(overlap > 0.85, "{overlap}");
        let at = |x: usize, y: usize| mask.pixels[y * 512 + x];
        // Both upper corners and the shuttle behind her are not; forehead, mouth, collar and chest are.
        assert!([at(5, 5), at(506, 5), at(430, 150), at(100, 60)].iter().all(|&it| it < 26));
        assert!([at(225, 70), at(225, 145), at(200, 230), at(200, 350)].iter().all(|&it| it > 229));
    }
}

#[test]
fn a_mask_in_pieces_is_the_same_mask() {
    let (Some(folder), Some(image)) = (folder("selfie-segmentation"), astronaut()) else { return };
    let [whole, cut] =
        [1, 4].map(|segments| run::with_loader(segments, |loader| Segmentation::load(&folder, loader)).unwrap());
    assert!(cut.segments() > 1);
    let wanted = mask(&whole, &image);
    assert_eq!(mask(&cut, &image), wanted);

    // Cancelled at each segment, then the same step again.
    let mut session = cut.open().unwrap();
    session.begin(&[Data::Image(image.clone())]).unwrap();
    for segment in 1..=cut.segments() {
        let control = Control::new();
        control.cancel();
        assert_eq!(session.step(1, &control).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(session.step(1, &Control::new()).unwrap().done, segment == cut.segments());
    }
    assert_eq!(session.finish().unwrap().data, [Data::Image(wanted)]);

    // A small picture gives a small mask, in the same session.
    let small = picture::resize(&image, 100, 60, Filter::Area).unwrap();
    assert_eq!(mask_of(&mut *session, &small).width, 100);
}

fn mask_of(session: &mut dyn Session, image: &Image) -> Image {
    session.begin(&[Data::Image(image.clone())]).unwrap();
    while !session.step(1, &Control::new()).unwrap().done {}
    let output = session.finish().unwrap();
    let [Data::Image(mask)] = &output.data[..] else { panic!("{output:?}") };
    mask.clone()
}

fn faces(detector: &FaceDetector, image: &Image) -> (Vec<Region>, Gate) {
    let output = run::infer(detector, &[Data::Image(image.clone())]);
    let [Data::Regions(regions)] = &output.data[..] else { panic!("{output:?}") };
    (regions.to_vec(), output.gate)
}

fn near(found: f32, wanted: f32, by: f32) -> bool {
    (found - wanted).abs() < by
}

#[test]
fn the_face_is_found_wherever_it_is() {
    let (Some(folder), Some(image)) = (folder("face-detection"), astronaut()) else { return };
    let detector = run::with_loader(1, |loader| FaceDetector::load(&folder, loader)).unwrap();
    let (found, gate) = faces(&detector, &image);
    println!("{found:?}");
    assert_eq!((found.len(), gate), (1, Gate::Follow(1)));
    // The tip of the nose, read off the picture: 223, 129.
    let face = found[0];
    let (x, y) = (223.0 / 512.0, 129.0 / 512.0);
    assert!(face.x < x && x < face.x + face.width && face.y < y && y < face.y + face.height, "{face:?}");
    // Left edge, upper edge, size [pixels] and score by a Python version of the same steps with ONNX Runtime 1.31.1.
    let wanted = [179.077, 81.356, 92.570, 0.9208];
    let found = [face.x * 512.0, face.y * 512.0, face.width * 512.0, face.score];
    assert!(found.iter().zip(wanted).all(|(a, b)| near(*a, b, 0.01)), "{found:?}, not {wanted:?}");

    // The same picture at the right edge of a wide one: bars are added, and taken off again. The network sees less of her.
    let wide: Vec<u8> = image.pixels.chunks_exact(3 * 512).flat_map(|row| [&[90; 3 * 256][..], row].concat()).collect();
    let (found, _) = faces(&detector, &picture::picture(768, 512, 3, wide).unwrap());
    assert_eq!(found.len(), 1);
    let face = found[0];
    let wanted = [422.085, 198.647 - 128.0, 105.059, 0.7157];
    let found = [face.x * 768.0, face.y * 512.0, face.width * 768.0, face.score];
    assert!(found.iter().zip(wanted).all(|(a, b)| near(*a, b, 0.01)), "{found:?}, not {wanted:?}");

    // Without her there is none.
    let (found, gate) = faces(&detector, &picture::picture(64, 64, 1, vec![128; 4096]).unwrap());
    assert_eq!((found.len(), gate), (0, Gate::Stop));
}

#[test]
fn landmarks_lie_on_the_face() {
    let (Some(folder), Some(image)) = (folder("face-landmark"), astronaut()) else { return };
    let model = run::with_loader(1, |loader| FaceLandmarks::load(&folder, loader)).unwrap();
    // As the detector gives it.
    let face = Region { x: 0.3498, y: 0.1589, width: 0.1808, height: 0.1808, score: 0.92 };
    let input = [Data::Regions([face].into()), Data::Image(image.clone())];
    let output = run::infer(&model, &input);
    assert_eq!(output.gate, Gate::Follow(1));
    let [Data::Points(points)] = &output.data[..] else { panic!("{output:?}") };
    assert_eq!(points.len(), LANDMARKS);
    // All within the box and a margin of a quarter of it: the mesh reaches above the brows and below the chin.
    for [x, y, _] in &**points {
        let inside = |at: f32, start: f32, length: f32| (-0.25..1.25).contains(&((at - start) / length));
        assert!(inside(*x, face.x, face.width) && inside(*y, face.y, face.height), "{x}, {y}");
    }
    // MediaPipe's numbering: 1 tip of the nose, 33 and 263 outer corners of the eyes, 13 upper lip, 152 chin. Read off the picture.
    let seen = [(1, 223.0, 129.0), (33, 194.0, 101.0), (263, 257.0, 103.0), (13, 223.0, 142.0), (152, 221.0, 175.0)];
    for (point, x, y) in seen {
        let [found_x, found_y, _] = points[point].map(|it| it * 512.0);
        println!("point {point}: {found_x:.1}, {found_y:.1}");
        assert!(near(found_x, x, 4.0) && near(found_y, y, 4.0), "point {point}");
    }
    // Where there is no face, the network says so.
    let sky = Region { x: 0.62, y: 0.02, width: 0.15, height: 0.15, score: 1.0 };
    assert_eq!(run::infer(&model, &[Data::Regions([sky].into()), Data::Image(image)]).gate, Gate::Stop);
}

#[test]
fn super_resolution_beats_cubic_interpolation() {
    let Some(image) = astronaut() else { return };
    let half = picture::resize(&image, 256, 256, Filter::Area).unwrap();
    let cubic = picture::resize(&half, 512, 512, Filter::Bicubic).unwrap();
    let (all, luma) = (picture::psnr(&image, &cubic).unwrap(), picture::psnr_luma(&image, &cubic).unwrap());
    println!("cubic: {all:.2} dB, luma {luma:.2} dB");
    // Pillow 13.0.0's cubic filter on the same picture: 30.40 dB, luma 30.60 dB.
    assert!((all - 30.40).abs() < 0.05 && (luma - 30.60).abs() < 0.05);
    // Gains that ONNX Runtime's results have over Pillow's, less 0.05 dB. The catalogue has the first; others are tried if they are there.
    let gains = [("anime4k-2x", 1.3), ("anime4k-2x-s-rl", 0.8), ("anime4k-2x-m-rl", 0.85), ("anime4k-2x-l-an", 2.2)];
    for (name, gain) in gains {
        let Some(folder) = folder(name) else { continue };
        let model = run::with_loader(1, |loader| SuperResolution::load(&folder, loader)).unwrap();
        let output = run::infer(&model, &[Data::Image(half.clone())]);
        let [Data::Image(twice)] = &output.data[..] else { panic!("{output:?}") };
        let (found, found_luma) = (picture::psnr(&image, twice).unwrap(), picture::psnr_luma(&image, twice).unwrap());
        println!("{name}: {found:.2} dB, luma {found_luma:.2} dB");
        assert!(found > all + gain && found_luma > luma + gain, "{name}: {found}, {found_luma}");
    }
}
