//! Looks at a picture: who is in it, where the faces are, and how it looks at twice the size.
//!
//! `cargo run --release -p onbeat-vision --example see -- MODELS PICTURE OUT` reads the models' folders in MODELS, writes `mask.png`,
//! `faces.png` and `twice.png` into OUT, and prints how long each inference took on one thread.

use std::path::Path;
use std::time::Instant;

use onbeat_backend::{Backend, Control, Data, Error, Image, LoadOptions, Loader, Model, Output, Region};
use onbeat_backend_rten::{Rten, compute_here};
use onbeat_vision::{FaceDetector, FaceLandmarks, Segmentation, SuperResolution, picture};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [models, input, out] = &arguments[..] else {
        eprintln!("usage: see MODELS PICTURE OUT");
        std::process::exit(2);
    };
    compute_here(|| see(Path::new(models), Path::new(input), Path::new(out)))
}

fn see(models: &Path, input: &Path, out: &Path) -> Result<(), Error> {
    let (options, control) = (LoadOptions::default(), Control::new());
    let loader = Loader { backend: &Rten, device: "cpu", options: &options, control: &control };
    println!("{}, one thread", Rten.description());
    let image = picture::read(input)?;
    let given = [Data::Image(image.clone())];

    let mask = run("segmentation", &Segmentation::load(&models.join("selfie-segmentation"), &loader)?, &given)?;
    let [Data::Image(mask)] = &mask.data[..] else { unreachable!("segmentation gives a mask") };
    let share = mask.pixels.iter().filter(|&&pixel| pixel >= 128).count() as f64 / mask.pixels.len() as f64;
    println!("  a person covers {:.1}% of the picture", 100.0 * share);
    picture::write_png(&out.join("mask.png"), mask)?;

    let faces = run("face detection", &FaceDetector::load(&models.join("face-detection"), &loader)?, &given)?;
    let [Data::Regions(regions)] = &faces.data[..] else { unreachable!("the detector gives regions") };
    let mut pixels = image.pixels.to_vec();
    for region in &**regions {
        println!("  {region:?}");
        frame(&image, &mut pixels, region);
    }
    if !regions.is_empty() {
        let given = [faces.data[0].clone(), given[0].clone()];
        let points = run("face landmarks", &FaceLandmarks::load(&models.join("face-landmark"), &loader)?, &given)?;
        let [Data::Points(points)] = &points.data[..] else { unreachable!("landmarks are points") };
        for [x, y, _] in &**points {
            dot(&image, &mut pixels, x * image.width as f32, y * image.height as f32, [0, 255, 0]);
        }
    }
    let marked = picture::picture(image.width, image.height, image.channels, pixels)?;
    picture::write_png(&out.join("faces.png"), &marked)?;

    let upscale = SuperResolution::load(&models.join("anime4k-2x"), &loader)?;
    let small = picture::resize(&image, 320, 180, picture::Filter::Area)?;
    run("super-resolution, 320 x 180", &upscale, &[Data::Image(small)])?;
    let twice = run("super-resolution", &upscale, &given)?;
    let [Data::Image(twice)] = &twice.data[..] else { unreachable!("super-resolution gives a picture") };
    picture::write_png(&out.join("twice.png"), twice)
}

/// Median and least time of some inferences, and the result of the last.
fn run(name: &str, model: &dyn Model, input: &[Data]) -> Result<Output, Error> {
    let (mut session, control) = (model.open()?, Control::new());
    let mut times = Vec::new();
    let mut output = Output::default();
    for _ in 0..20 {
        let start = Instant::now();
        session.begin(input)?;
        while !session.step(1, &control)?.done {}
        output = session.finish()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name}: median {:.2} ms, least {:.2} ms; {} segments", times[10], times[0], model.segments());
    Ok(output)
}

/// Draws the edges of a region.
fn frame(image: &Image, pixels: &mut [u8], region: &Region) {
    let (left, top) = (region.x * image.width as f32, region.y * image.height as f32);
    let (width, height) = (region.width * image.width as f32, region.height * image.height as f32);
    for i in 0..=200_u8 {
        let part = f32::from(i) / 200.0;
        for (x, y) in [(part, 0.0), (part, 1.0), (0.0, part), (1.0, part)] {
            dot(image, pixels, left + x * width, top + y * height, [255, 255, 0]);
        }
    }
}

fn dot(image: &Image, pixels: &mut [u8], x: f32, y: f32, colour: [u8; 3]) {
    let (x, y, channels) = (x as usize, y as usize, image.channels as usize);
    if x < image.width as usize && y < image.height as usize {
        let at = (y * image.width as usize + x) * channels;
        pixels[at..at + channels].copy_from_slice(&colour[..channels]);
    }
}
