//! Converts Anime4K networks, as WebSR writes them to JSON, to ONNX.
//!
//! Layout of the package `@websr/websr` 0.0.15, `weights/anime4k`: every layer has four output channels. Its weights are 4 × 4
//! matrices, column by column (a column for each channel that goes in), one for each of the 3 × 3 pixels around, column by column
//! from the left, and that for each input; a layer of a layer takes what is positive of it, then what is negative, as separate inputs
//! ("concatenated ReLU"). Several layers that take the same inputs stand for one with more channels: those that follow take the
//! positive parts of all of them, then the negative parts.

use std::collections::BTreeMap;

use onbeat_backend::Error;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};
use serde::Deserialize;

/// What the first layers take.
const PICTURE: &str = "input_image";
/// Channels of a layer.
const CHANNELS: usize = 4;

#[derive(Debug, Deserialize)]
struct File {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Layer {
    Conv { inputs: Vec<String>, weights: Vec<f32>, bias: Vec<f32> },
    PixelShuffle { inputs: Vec<String> },
}

/// Layers that take the same inputs: one convolution.
#[derive(Debug)]
struct Group<'a> {
    inputs: &'a [String],
    members: Vec<(&'a str, &'a [f32], &'a [f32])>,
}

/// Converts an Anime4K network from JSON to ONNX, operator set 17.
///
/// Input `image` \[1, 3, height, width\], output `upscaled` \[1, 3, 2 height, 2 width\]; red, green, blue, 0 to 1, where the output may
/// go slightly beyond: it is the picture, interpolated linearly, plus what the network adds. Both parts of a concatenated ReLU come out of
/// one convolution whose weights are there twice, once negated: exactly the same numbers in fewer operators.
///
/// # Errors
/// [`ErrorKind::InvalidModel`](onbeat_backend::ErrorKind::InvalidModel) if the file is no such network or damaged.
pub fn convert_anime4k(json: &[u8]) -> Result<Vec<u8>, Error> {
    let file: File = serde_json::from_slice(json)
        .map_err(|error| Error::invalid_model(format!("not an Anime4K network in JSON: {error}")))?;
    if file.layers.len() > 64 {
        return Err(Error::unsupported(format!("the network has {} layers, more than 64", file.layers.len())));
    }
    let (groups, last) = groups(&file)?;
    let mut graph = Builder::new("anime4k", 17);
    let sizes = |height: &str, width: &str| {
        [Dim::Fixed(1), Dim::Fixed(3), Dim::Free(height.to_owned()), Dim::Free(width.to_owned())]
    };
    let picture = graph.input("image", ElementType::F32, &sizes("height", "width"));
    let residual = convolutions(&mut graph, &groups, last, &picture)?;
    let shuffle = [("blocksize", Attr::Int(2)), ("mode", Attr::Text("CRD".into()))];
    let residual = graph.node("DepthToSpace", &[&residual], &shuffle);
    let scales = graph.f32("scales", &[4], vec![1.0, 1.0, 2.0, 2.0]);
    let linear =
        [("mode", Attr::Text("linear".into())), ("coordinate_transformation_mode", Attr::Text("half_pixel".into()))];
    let enlarged = graph.node("Resize", &[&picture, "", &scales], &linear);
    // One channel is added to each of the three.
    let sum = graph.node("Add", &[&enlarged, &residual], &[]);
    graph.output_named(&sum, "upscaled", ElementType::F32, &sizes("height_2x", "width_2x"));
    Ok(graph.finish())
}

/// Adds the convolutions; the value of the last one.
fn convolutions(graph: &mut Builder, groups: &[Group<'_>], last: usize, picture: &str) -> Result<String, Error> {
    let mut values: Vec<Option<String>> = vec![None; groups.len()];
    loop {
        // The file names its layers in no useful order, so they are taken as their inputs become known.
        let mut progress = false;
        for (i, group) in groups.iter().enumerate() {
            let about = |error: Error| error.about(&format!("the layer `{}`", group.members[0].0));
            let known =
                if values[i].is_none() { inputs(group, groups, &values, picture).map_err(about)? } else { None };
            let Some(inputs) = known else { continue };
            let value = convolution(graph, group, &inputs, i == last).map_err(about)?;
            if i == last {
                return Ok(value);
            }
            values[i] = Some(value);
            progress = true;
        }
        if !progress {
            return Err(Error::invalid_model("the layers that the pixel shuffle takes do not follow from the picture"));
        }
    }
}

/// The convolutions, and which of them the pixel shuffle takes.
fn groups(file: &File) -> Result<(Vec<Group<'_>>, usize), Error> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (name, layer) in &file.layers {
        let Layer::Conv { inputs, weights, bias } = layer else { continue };
        if bias.len() != CHANNELS || inputs.is_empty() {
            return Err(Error::invalid_model(format!(
                "the layer `{name}` has no inputs, or {} biases instead of 4",
                bias.len()
            )));
        }
        let member = (name.as_str(), weights.as_slice(), bias.as_slice());
        match groups.iter_mut().find(|it| it.inputs == inputs) {
            Some(group) => group.members.push(member),
            None => groups.push(Group { inputs, members: vec![member] }),
        }
    }
    let shuffled =
        file.layers.values().find_map(|it| if let Layer::PixelShuffle { inputs } = it { Some(inputs) } else { None });
    let shuffled = shuffled.ok_or_else(|| Error::invalid_model("there is no layer of the type `pixel_shuffle`"))?;
    let last = groups.iter().position(|it| it.members.iter().map(|it| it.0).eq(shuffled.iter().map(String::as_str)));
    let last = last.ok_or_else(|| {
        Error::unsupported("the pixel shuffle does not take all layers that share their inputs, in order")
    })?;
    match groups[last].members.len() {
        1 | 3 => Ok((groups, last)),
        other => Err(Error::unsupported(format!(
            "the pixel shuffle takes {other} layers; 1 (brightness) or 3 (colours) are supported"
        ))),
    }
}

/// The values that a group takes, with their channels in the order of its weights; `None` if one is not known yet.
fn inputs(
    group: &Group<'_>,
    groups: &[Group<'_>],
    values: &[Option<String>],
    picture: &str,
) -> Result<Option<Vec<String>>, Error> {
    if group.inputs == [PICTURE] {
        return Ok(Some(vec![picture.to_owned()]));
    }
    let mut found = Vec::new();
    let mut rest = group.inputs;
    while let Some(first) = rest.first() {
        let source = groups.iter().position(|it| {
            it.members.len() <= rest.len() && it.members.iter().zip(rest).all(|((name, ..), wanted)| name == wanted)
        });
        let missing =
            || Error::invalid_model(format!("it takes `{first}`, which is not there or not with its fellows"));
        let source = source.ok_or_else(missing)?;
        let Some(value) = &values[source] else { return Ok(None) };
        found.push(value.clone());
        rest = &rest[groups[source].members.len()..];
    }
    Ok(Some(found))
}

/// Adds a group's convolution; its result is positive and negative parts, or the plain numbers of the last one.
#[expect(clippy::cast_possible_wrap, reason = "a kernel's side is 1 or 3")]
fn convolution(graph: &mut Builder, group: &Group<'_>, inputs: &[String], last: bool) -> Result<String, Error> {
    let from_picture = group.inputs == [PICTURE];
    let blocks = if from_picture { 1 } else { 2 * group.inputs.len() };
    let given = if from_picture { 3 } else { CHANNELS * blocks };
    let mut weights = Vec::new();
    let mut bias = Vec::new();
    let mut kernel = 0;
    for (_, stored, member_bias) in &group.members {
        let side = match stored.len().checked_div(CHANNELS * CHANNELS * blocks) {
            Some(9) if stored.len() % (9 * CHANNELS * CHANNELS * blocks) == 0 => 3,
            Some(1) if stored.len() == CHANNELS * CHANNELS * blocks => 1,
            _ => return Err(Error::invalid_model(format!("{} weights do not fit {blocks} inputs", stored.len()))),
        };
        if kernel != 0 && kernel != side {
            return Err(Error::unsupported("layers that share their inputs have kernels of different sizes"));
        }
        kernel = side;
        let at = |out: usize, channel: usize, x: usize, y: usize| {
            let (block, column) = (channel / CHANNELS, channel % CHANNELS);
            stored[((block * side * side + x * side + y) * CHANNELS + column) * CHANNELS + out]
        };
        // The fourth channel of the picture is its opacity, which onbeat's pictures do not have.
        let opacity =
            (0..CHANNELS * side * side).map(|i| at(i % CHANNELS, 3, i / CHANNELS / side, i / CHANNELS % side));
        if from_picture && opacity.into_iter().any(|weight| weight != 0.0) {
            return Err(Error::unsupported("the network depends on the picture's opacity"));
        }
        for out in 0..CHANNELS {
            for channel in 0..given {
                weights.extend((0..side * side).map(|i| at(out, channel, i % side, i / side)));
            }
        }
        bias.extend_from_slice(member_bias);
    }
    if weights.iter().chain(&bias).any(|it| !it.is_finite()) {
        return Err(Error::invalid_model("a weight is not a finite number"));
    }
    if !last {
        weights.extend_from_within(..);
        bias.extend_from_within(..);
        let (weights_half, bias_half) = (weights.len() / 2, bias.len() / 2);
        weights[weights_half..].iter_mut().chain(&mut bias[bias_half..]).for_each(|it| *it = -*it);
    }
    let out = bias.len();
    let weights = graph.f32("weights", &[out, given, kernel, kernel], weights);
    let bias = graph.f32("bias", &[out], bias);
    let input = if let [input] = inputs {
        input.clone()
    } else {
        let parts: Vec<&str> = inputs.iter().map(String::as_str).collect();
        graph.node("Concat", &parts, &[("axis", Attr::Int(1))])
    };
    let pad = (kernel / 2) as i64;
    let attributes = [
        ("kernel_shape", Attr::Ints(vec![kernel as i64; 2])),
        ("strides", Attr::Ints(vec![1; 2])),
        ("pads", Attr::Ints(vec![pad; 4])),
    ];
    let value = graph.node("Conv", &[&input, &weights, &bias], &attributes);
    Ok(if last { value } else { graph.node("Relu", &[&value], &[]) })
}
