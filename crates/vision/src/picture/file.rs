//! Picture files.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use onbeat_backend::{Error, Image};

use super::{check, picture};

/// Reads a picture file, PNG or JPEG. Transparency is dropped; grey pictures have one channel, others three.
///
/// # Errors
/// Names the file, and says what is wrong with it.
pub fn read(path: &Path) -> Result<Image, Error> {
    let name = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Error::not_found(format!("cannot read the picture `{name}`: {error}")))?;
    decode(&bytes).map_err(|error| error.about(&format!("`{name}`")))
}

/// Like [`read`], from the content of a file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if it is no picture, is damaged, or is larger than 16384
/// pixels in a direction.
pub fn decode(file: &[u8]) -> Result<Image, Error> {
    let unreadable =
        |error: &dyn std::fmt::Display| Error::invalid_input(format!("not a readable PNG or JPEG picture: {error}"));
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| unreadable(&error))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(16384);
    limits.max_image_height = Some(16384);
    reader.limits(limits);
    let image = reader.decode().map_err(|error| unreadable(&error))?;
    let (width, height) = (image.width(), image.height());
    if image.color().has_color() {
        picture(width, height, 3, image.into_rgb8().into_raw())
    } else {
        picture(width, height, 1, image.into_luma8().into_raw())
    }
}

/// A picture as the content of a PNG file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if the pixels do not fill the picture.
pub fn png(image: &Image) -> Result<Vec<u8>, Error> {
    check(image)?;
    let (width, height, pixels) = (image.width, image.height, image.pixels.to_vec());
    let image = if image.channels == 1 {
        image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    };
    let image = image.expect("the pixels fill the picture");
    let mut file = Cursor::new(Vec::new());
    let result = image.write_to(&mut file, ImageFormat::Png);
    result.map_err(|error| Error::invalid_input(format!("cannot write the picture as PNG: {error}")))?;
    Ok(file.into_inner())
}

/// Writes a picture as a PNG file.
///
/// # Errors
/// Names the file if it cannot be written.
pub fn write_png(path: &Path, image: &Image) -> Result<(), Error> {
    let result = std::fs::write(path, png(image)?);
    result.map_err(|error| Error::device(format!("cannot write the picture `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let colours = picture(2, 1, 3, [255, 0, 10, 3, 200, 100]).unwrap();
        assert_eq!(decode(&png(&colours).unwrap()).unwrap(), colours);
        let grey = picture(1, 3, 1, [0, 128, 255]).unwrap();
        assert_eq!(decode(&png(&grey).unwrap()).unwrap(), grey);
    }

    #[test]
    fn damaged_files_are_errors() {
        let file = png(&picture(2, 1, 3, [255, 0, 10, 3, 200, 100]).unwrap()).unwrap();
        for length in [0, 10, file.len() / 2] {
            let error = decode(&file[..length]).unwrap_err().to_string();
            assert!(error.starts_with("not a readable PNG or JPEG picture: "), "{error}");
        }
        let error = read(Path::new("no such picture.png")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the picture `no such picture.png`: "), "{error}");
    }

    #[test]
    fn pixels_must_fill_the_picture() {
        let error = picture(2, 2, 3, [0; 11]).unwrap_err().to_string();
        assert_eq!(error, "11 bytes do not fill a picture of 2 × 2 × 3");
        assert!(picture(1, 1, 4, [0; 4]).is_err());
        assert!(picture(0, 1, 1, []).is_err());
    }
}
