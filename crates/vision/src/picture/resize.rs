//! Other sizes of whole pictures, at the best quality.

use onbeat_backend::{Error, Image};

use super::{check, picture};

/// How the pixels of another size come from those of a picture. Where a picture shrinks, the filter widens with the distance of the
/// pixels, so that fine patterns do not alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Mean of the area that a pixel covers.
    Area,
    /// Linear between pixel centres.
    Bilinear,
    /// Cubic, through the pixels: Catmull and Rom's spline (Keys' convolution with a = −0.5, third order).
    Bicubic,
}

impl Filter {
    /// How far the filter reaches [pixels].
    fn reach(self) -> f64 {
        match self {
            Self::Area => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// Weight of a pixel at a distance.
    fn weight(self, distance: f64) -> f64 {
        let d = distance.abs();
        match self {
            // Closed on one side, so that a boundary belongs to one pixel only.
            Self::Area => f64::from(u8::from(distance > -0.5 && distance <= 0.5)),
            Self::Bilinear => (1.0 - d).max(0.0),
            Self::Bicubic if d < 1.0 => (1.5 * d - 2.5) * d * d + 1.0,
            Self::Bicubic if d < 2.0 => ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0,
            Self::Bicubic => 0.0,
        }
    }
}

/// The same picture in another size. Pixel centres lie at half coordinates, so that its edges stay where they are; beyond the edge,
/// the filter is cut off.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if the new size is 0 or above 16384, or if the pixels do not
/// fill the picture.
pub fn resize(image: &Image, width: u32, height: u32, filter: Filter) -> Result<Image, Error> {
    check(image)?;
    if !(1..=16384).contains(&width) || !(1..=16384).contains(&height) {
        return Err(Error::invalid_input(format!(
            "a picture cannot be resized to {width} × {height}; 1 to 16384 is possible"
        )));
    }
    let channels = image.channels as usize;
    let (columns, rows) = (taps(image.width, width, filter), taps(image.height, height, filter));
    // Each row in the new width, then each column in the new height.
    let row_length = width as usize * channels;
    let mut wide = Vec::with_capacity(image.height as usize * row_length);
    for row in image.pixels.chunks_exact(image.width as usize * channels) {
        for tap in &columns {
            for channel in 0..channels {
                let pixels = row[tap.first * channels + channel..].iter().step_by(channels);
                wide.push(
                    tap.weights.iter().zip(pixels).map(|(weight, &pixel)| weight * f32::from(pixel)).sum::<f32>(),
                );
            }
        }
    }
    let mut pixels = Vec::with_capacity(height as usize * row_length);
    let mut sums = vec![0.0_f32; row_length];
    for tap in &rows {
        sums.fill(0.0);
        for (weight, row) in tap.weights.iter().zip(wide[tap.first * row_length..].chunks_exact(row_length)) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        }
        // The cast saturates at 0 and 255.
        pixels.extend(sums.iter().map(|sum| (sum + 0.5) as u8));
    }
    picture(width, height, image.channels, pixels)
}

/// What a new pixel consists of: old pixels from `first` on, by weight.
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

fn taps(old: u32, new: u32, filter: Filter) -> Vec<Tap> {
    let scale = f64::from(old) / f64::from(new);
    let widening = scale.max(1.0);
    let reach = filter.reach() * widening;
    let taps = (0..new).map(|i| {
        let centre = (f64::from(i) + 0.5) * scale;
        let first = (centre - reach).floor().max(0.0) as usize;
        let last = ((centre + reach).ceil() as usize).min(old as usize);
        let weight = |j: usize| filter.weight((j as f64 + 0.5 - centre) / widening);
        let sum: f64 = (first..last).map(weight).sum();
        Tap { first, weights: (first..last).map(|j| (weight(j) / sum) as f32).collect() }
    });
    taps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pixels: &[u8]) -> Image {
        picture(pixels.len() as u32, 1, 1, pixels).unwrap()
    }

    fn resized(pixels: &[u8], width: u32, filter: Filter) -> Vec<u8> {
        resize(&row(pixels), width, 1, filter).unwrap().pixels.to_vec()
    }

    #[test]
    fn twice_the_size_by_hand() {
        // New centres lie a quarter of a pixel from the old ones: weights 3/4 and 1/4; only the edge's own pixel at the edge.
        assert_eq!(resized(&[0, 100, 200], 6, Filter::Bilinear), [0, 25, 75, 125, 175, 200]);
        // The new pixel 3 lies 0.25 right of old pixel 1: distances 1.25, 0.25, 0.75, 1.75 and weights
        // −0.0703125, 0.8671875, 0.2265625, −0.0234375; 100 × 0.2265625 + 200 × −0.0234375 = 17.97.
        assert_eq!(resized(&[0, 0, 100, 200], 8, Filter::Bicubic)[3], 18);
        assert_eq!(resized(&[7, 9], 4, Filter::Area), [7, 7, 9, 9]);
    }

    #[test]
    fn half_the_size_by_hand() {
        assert_eq!(resized(&[10, 20, 30, 50], 2, Filter::Area), [15, 40]);
        // Twice as wide a triangle: weights 1/8, 3/8, 3/8, 1/8; the first is cut off at the left, so that the others are divided by 7/8.
        assert_eq!(resized(&[0, 70, 140, 0], 2, Filter::Bilinear), [50, 70]);
        assert_eq!(resize(&picture(2, 2, 1, [0, 40, 80, 120]).unwrap(), 1, 1, Filter::Area).unwrap().pixels[..], [60]);
    }

    #[test]
    fn the_same_size_changes_nothing_and_one_colour_stays() {
        let image = picture(3, 2, 3, (0..18).map(|i| i * 14).collect::<Vec<u8>>()).unwrap();
        let plain = picture(7, 5, 3, vec![201; 105]).unwrap();
        for filter in [Filter::Area, Filter::Bilinear, Filter::Bicubic] {
            assert_eq!(resize(&image, 3, 2, filter).unwrap(), image);
            for (width, height) in [(1, 1), (3, 9), (31, 2)] {
                assert!(resize(&plain, width, height, filter).unwrap().pixels.iter().all(|&pixel| pixel == 201));
            }
        }
        assert!(resize(&image, 0, 2, Filter::Area).is_err());
    }
}
