//! Pictures: files, sizes, and how alike two of them are.

mod file;
mod measure;
mod resize;
mod sample;

pub use file::{decode, png, read, write_png};
pub use measure::{iou, luma, psnr, psnr_luma};
pub use resize::{Filter, resize};
pub(crate) use sample::{Border, Sampler, Window, deinterleave, grow, interleave};

use onbeat_backend::{Error, Image};

/// A picture from its pixels, row by row from the top, `channels` values each.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if a size is 0, if there are neither 1 nor 3 channels, or if
/// the pixels do not fill the sizes.
pub fn picture(
    width: u32,
    height: u32,
    channels: u32,
    pixels: impl Into<std::sync::Arc<[u8]>>,
) -> Result<Image, Error> {
    let image = Image { width, height, channels, pixels: pixels.into() };
    check(&image)?;
    Ok(image)
}

/// Checks that the pixels fill the sizes.
pub(crate) fn check(image: &Image) -> Result<(), Error> {
    let Image { width, height, channels, pixels } = image;
    if !matches!(channels, 1 | 3) {
        return Err(Error::invalid_input(format!("the picture has {channels} channels; 1 or 3 are supported")));
    }
    let wanted = (*width as usize).checked_mul(*height as usize).and_then(|it| it.checked_mul(*channels as usize));
    if wanted != Some(pixels.len()) || pixels.is_empty() {
        let found = pixels.len();
        return Err(Error::invalid_input(format!(
            "{found} bytes do not fill a picture of {width} × {height} × {channels}"
        )));
    }
    Ok(())
}
