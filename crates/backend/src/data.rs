//! What passes between the stages of a chain. Copies are cheap: they share what they point to.

use std::sync::Arc;

use crate::error::Error;
use crate::tensor::Tensor;

/// Sound, one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Audio {
    /// Samples per second [Hz].
    pub rate_hz: u32,
    /// Samples, −1 to 1.
    pub samples: Arc<[f32]>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width [pixels].
    pub width: u32,
    /// Height [pixels].
    pub height: u32,
    /// Values per pixel: 1 (grey, mask) or 3 (red, green, blue).
    pub channels: u32,
    /// Pixels, row by row from the top, 0 to 255.
    pub pixels: Arc<[u8]>,
}

/// A part of a picture, in fractions of its width and height.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Left edge, 0 to 1.
    pub x: f32,
    /// Upper edge, 0 to 1.
    pub y: f32,
    /// Width, 0 to 1.
    pub width: f32,
    /// Height, 0 to 1.
    pub height: f32,
    /// How sure the detector is, 0 to 1.
    pub score: f32,
}

/// What passes between the stages of a chain.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Data {
    /// Sound.
    Audio(Audio),
    /// A picture.
    Image(Image),
    /// Text.
    Text(Arc<str>),
    /// Parts of a picture.
    Regions(Arc<[Region]>),
    /// Points, as x, y, z.
    Points(Arc<[[f32; 3]]>),
    /// Named tensors, of models that onbeat knows nothing about.
    Tensors(Arc<[(String, Tensor)]>),
}

macro_rules! find {
    ($name:ident, $variant:ident, $type:ty, $what:literal) => {
        #[doc = concat!("The first item that is ", $what, ".")]
        ///
        /// # Errors
        /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is none.
        pub fn $name(input: &[Data]) -> Result<&$type, Error> {
            let found = input.iter().find_map(|item| if let Data::$variant(it) = item { Some(it) } else { None });
            found.ok_or_else(|| Error::invalid_input(concat!("the stage needs ", $what, ", and gets none")))
        }
    };
}
find!(find_audio, Audio, Audio, "sound");
find!(find_image, Image, Image, "a picture");
find!(find_text, Text, Arc<str>, "text");
find!(find_regions, Regions, Arc<[Region]>, "regions of a picture");
find!(find_tensors, Tensors, Arc<[(String, Tensor)]>, "tensors");
