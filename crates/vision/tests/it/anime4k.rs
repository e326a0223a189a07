//! Anime4K networks, worked by hand.

use onbeat_backend::{Data, Tensor};
use onbeat_vision::picture::picture;
use onbeat_vision::{SuperResolution, convert_anime4k};

use crate::run;

/// Weights of a 3 × 3 layer: entries of (input, x, y, channel in, channel out).
fn kernel(inputs: usize, entries: &[([usize; 5], f32)]) -> Vec<f32> {
    let mut weights = vec![0.0; inputs * 9 * 16];
    for &([input, x, y, channel, out], weight) in entries {
        weights[((input * 9 + x * 3 + y) * 4 + channel) * 4 + out] = weight;
    }
    weights
}

/// Red, and the green of the left neighbour less one half; their positive parts as the upper corners of each new 2 × 2 pixels, the
/// negative part of the second, twice, as the lower left one; 0.125 as the lower right one.
pub(crate) fn small() -> Vec<u8> {
    let first = kernel(1, &[([0, 1, 1, 0, 0], 1.0), ([0, 0, 1, 1, 1], 1.0)]);
    let last = kernel(2, &[([0, 1, 1, 0, 0], 1.0), ([0, 1, 1, 1, 1], 1.0), ([1, 1, 1, 1, 2], 2.0)]);
    let layers = serde_json::json!({ "name": "test", "layers": {
        "second": { "type": "conv", "inputs": ["first"], "weights": last, "bias": [0.0, 0.0, 0.0, 0.125] },
        "first": { "type": "conv", "inputs": ["input_image"], "weights": first, "bias": [0.0, -0.5, 0.0, 0.0] },
        "shuffle": { "type": "pixel_shuffle", "inputs": ["second"] },
    }});
    layers.to_string().into_bytes()
}

#[test]
fn a_network_by_hand() {
    let network = convert_anime4k(&small()).unwrap();
    // Two pixels: (0.25, 0.75, 0) and (0.5, 0.25, 0).
    let x = Tensor::new([1, 3, 1, 2], vec![0.25_f32, 0.5, 0.75, 0.25, 0., 0.]).unwrap();
    let y = run::network("anime4k", &network, ("image", x), "upscaled");
    assert_eq!(y.shape(), [1, 3, 2, 4]);
    // To the left of the first pixel is nothing: −0.5, so 0 and twice 0.5. Left of the second is 0.75: 0.25 and nothing. Blue has no
    // picture of its own, so it shows what the network adds.
    let added = [0.25, 0.0, 0.5, 0.25, 1.0, 0.125, 0.0, 0.125];
    let y = y.view::<f32>().unwrap();
    assert_eq!(y[16..], added);
    // Red, enlarged: 0.25, 3/4 × 0.25 + 1/4 × 0.5, 1/4 × 0.25 + 3/4 × 0.5, 0.5, in both rows.
    let red = [0.25, 0.3125, 0.4375, 0.5];
    for (i, found) in y[..8].iter().enumerate() {
        assert_eq!(*found, red[i % 4] + added[i]);
    }
}

#[test]
fn a_model_by_hand() {
    let folder = run::Folder::new("model");
    std::fs::write(folder.path().join("model.json"), small()).unwrap();
    let model = run::with_loader(1, |loader| SuperResolution::load(folder.path(), loader)).unwrap();
    // The converted network stays beside the file.
    assert!(folder.path().join("model.onnx").exists());
    let image = picture(1, 1, 3, [51, 0, 0]).unwrap();
    let output = run::infer(&model, &[Data::Image(image)]);
    let [Data::Image(twice)] = &output.data[..] else { panic!("{output:?}") };
    assert_eq!((twice.width, twice.height, twice.channels), (2, 2, 3));
    // 0.2 of red, and 0.2, 0, 1 and 0.125 are added to all colours, of which 1.2 is cut off.
    assert_eq!(twice.pixels[..], [102, 51, 51, 51, 0, 0, 255, 255, 255, 83, 32, 32]);

    let mut session = onbeat_backend::Model::open(&model).unwrap();
    assert!(session.begin(&[Data::Text("no picture".into())]).is_err());
    assert!(session.finish().is_err());
    assert!(session.step(1, &onbeat_backend::Control::new()).is_err());
}

#[test]
fn what_is_no_such_network_says_why() {
    let error = |json: &str| convert_anime4k(json.as_bytes()).unwrap_err().to_string();
    assert!(error("{}").starts_with("not an Anime4K network in JSON: missing field `layers`"), "{}", error("{}"));
    let text = String::from_utf8(small()).unwrap();
    let found = error(&text.replace("\"inputs\":[\"first\"]", "\"inputs\":[\"third\"]"));
    assert_eq!(found, "the layer `second`: it takes `third`, which is not there or not with its fellows");
    let found = error(&text.replace("\"inputs\":[\"input_image\"]", "\"inputs\":[\"first\"]"));
    assert!(found.starts_with("the pixel shuffle"), "{found}");
}
