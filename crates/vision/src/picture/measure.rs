//! How alike two pictures are.

use onbeat_backend::{Error, Image};

use super::check;

/// Peak signal-to-noise ratio over all values of all channels [dB]; infinite for equal pictures.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if the pictures differ in size or channels.
pub fn psnr(a: &Image, b: &Image) -> Result<f64, Error> {
    same(a, b)?;
    Ok(ratio(a.pixels.iter().zip(&*b.pixels).map(|(&a, &b)| f64::from(a) - f64::from(b))))
}

/// Peak signal-to-noise ratio of the brightness, as [`luma`] gives it [dB]; infinite for equal pictures.
///
/// # Errors
/// Like [`psnr`].
pub fn psnr_luma(a: &Image, b: &Image) -> Result<f64, Error> {
    same(a, b)?;
    Ok(ratio(luma(a).zip(luma(b)).map(|(a, b)| a - b)))
}

/// Brightness of each pixel, 0 to 255, not rounded: 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601, full range).
pub fn luma(image: &Image) -> impl Iterator<Item = f64> {
    image.pixels.chunks_exact(image.channels as usize).map(|pixel| match *pixel {
        [red, green, blue] => 0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue),
        _ => f64::from(pixel[0]),
    })
}

fn ratio(differences: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = differences.fold((0_u64, 0.0), |(count, sum), d| (count + 1, sum + d * d));
    10.0 * (255.0 * 255.0 / (sum / count as f64)).log10()
}

/// Intersection over union of two masks, 0 to 1: of the pixels that are at least `threshold` in either, the share that is in both.
/// 1 if there are none in either.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) if the masks differ in size or channels.
pub fn iou(a: &Image, b: &Image, threshold: u8) -> Result<f64, Error> {
    same(a, b)?;
    let (mut both, mut either) = (0_u64, 0_u64);
    for (&a, &b) in a.pixels.iter().zip(&*b.pixels) {
        both += u64::from(a >= threshold && b >= threshold);
        either += u64::from(a >= threshold || b >= threshold);
    }
    Ok(if either == 0 { 1.0 } else { both as f64 / either as f64 })
}

fn same(a: &Image, b: &Image) -> Result<(), Error> {
    check(a)?;
    check(b)?;
    let size = |it: &Image| (it.width, it.height, it.channels);
    if size(a) == size(b) {
        return Ok(());
    }
    let text = |it: &Image| format!("{} × {} × {}", it.width, it.height, it.channels);
    Err(Error::invalid_input(format!("a picture of {} cannot be compared with one of {}", text(a), text(b))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::picture;

    #[test]
    fn signal_to_noise_by_hand() {
        let a = picture(2, 1, 1, [100, 50]).unwrap();
        let b = picture(2, 1, 1, [104, 53]).unwrap();
        // Mean square (16 + 9) / 2 = 12.5; 10 log10(65025 / 12.5) = 37.1617 dB.
        assert!((psnr(&a, &b).unwrap() - 37.1617).abs() < 1e-4);
        assert_eq!(psnr(&a, &a).unwrap(), f64::INFINITY);
        let red = picture(1, 1, 3, [10, 0, 0]).unwrap();
        let black = picture(1, 1, 3, [0, 0, 0]).unwrap();
        // 0.299 × 10 = 2.99; 20 log10(255 / 2.99) = 38.6174 dB. Over the channels: 10 log10(65025 / (100 / 3)) = 32.9020 dB.
        assert!((psnr_luma(&red, &black).unwrap() - 38.6174).abs() < 1e-4);
        assert!((psnr(&red, &black).unwrap() - 32.9020).abs() < 1e-4);
        assert!(psnr(&a, &red).is_err());
    }

    #[test]
    fn overlap_by_hand() {
        let a = picture(5, 1, 1, [255, 200, 128, 127, 0]).unwrap();
        let b = picture(5, 1, 1, [255, 0, 128, 128, 0]).unwrap();
        // In both: pixels 0 and 2. In either: 0, 1, 2, 3.
        assert_eq!(iou(&a, &b, 128).unwrap(), 0.5);
        assert_eq!(iou(&a, &b, 255).unwrap(), 1.0);
        let none = picture(1, 1, 1, [0]).unwrap();
        assert_eq!(iou(&none, &none, 1).unwrap(), 1.0);
    }
}
