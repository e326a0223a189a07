//! Parts of pictures in the size and form that a network takes, fast: each value is interpolated linearly between the four pixels
//! around it, as MediaPipe's graphs do it. Buffers are kept from picture to picture.

use onbeat_backend::Image;

/// What lies beyond the edge of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Border {
    /// The pixels of the edge.
    Edge,
    /// Black.
    Black,
}

/// A part of a picture [pixels]; it may reach beyond the edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) width: f32,
    pub(crate) height: f32,
}

impl Window {
    /// All of it.
    pub(crate) fn whole(image: &Image) -> Self {
        Self { x: 0.0, y: 0.0, width: image.width as f32, height: image.height as f32 }
    }
}

/// Two neighbours and their weights.
#[derive(Clone, Copy, Debug)]
struct Tap {
    first: usize,
    second: usize,
    first_weight: f32,
    second_weight: f32,
}

/// Takes parts out of pictures.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    line: Vec<f32>,
}

impl Sampler {
    /// Fills `planes`, three planes (red, green, blue) of `width` × `height` values, with `window` of a picture. A value is
    /// `pixel × scale + offset`. The picture's pixels fill its sizes.
    pub(crate) fn planes(
        &mut self,
        image: &Image,
        window: Window,
        border: Border,
        (width, height): (usize, usize),
        (scale, offset): (f32, f32),
        planes: &mut Vec<f32>,
    ) {
        taps(&mut self.columns, window.x, window.width, width, image.width as usize, border);
        taps(&mut self.rows, window.y, window.height, height, image.height as usize, border);
        let channels = image.channels as usize;
        let size = width * height;
        planes.clear();
        planes.resize(3 * size, 0.0);
        let row_length = image.width as usize * channels;
        // Grey fills all planes: its one channel stands for all.
        let [green, blue] = if channels == 3 { [1, 2] } else { [0, 0] };
        let (reds, rest) = planes.split_at_mut(size);
        let (greens, blues) = rest.split_at_mut(size);
        let lines = reds.chunks_exact_mut(width).zip(greens.chunks_exact_mut(width)).zip(blues.chunks_exact_mut(width));
        for (row, ((reds, greens), blues)) in self.rows.iter().zip(lines) {
            let above = &image.pixels[row.first * row_length..][..row_length];
            let below = &image.pixels[row.second * row_length..][..row_length];
            let (upper, lower) = (row.first_weight * scale, row.second_weight * scale);
            for (i, column) in self.columns.iter().enumerate() {
                let (left, right) = (column.first * channels, column.second * channels);
                let value = |channel: usize| {
                    let at = |line: &[u8], x: usize| f32::from(line[x + channel]);
                    let above = at(above, left) * column.first_weight + at(above, right) * column.second_weight;
                    let below = at(below, left) * column.first_weight + at(below, right) * column.second_weight;
                    above * upper + below * lower + offset
                };
                reds[i] = value(0);
                greens[i] = value(green);
                blues[i] = value(blue);
            }
        }
    }

    /// Fills `pixels` with a plane of `from` (width, height) values, 0 to 1, in another size `to`, as 0 to 255.
    pub(crate) fn mask(&mut self, plane: &[f32], from: (usize, usize), to: (usize, usize), pixels: &mut Vec<u8>) {
        taps(&mut self.columns, 0.0, from.0 as f32, to.0, from.0, Border::Edge);
        taps(&mut self.rows, 0.0, from.1 as f32, to.1, from.1, Border::Edge);
        pixels.clear();
        for row in &self.rows {
            let (above, below) = (&plane[row.first * from.0..][..from.0], &plane[row.second * from.0..][..from.0]);
            let (upper, lower) = (row.first_weight * 255.0, row.second_weight * 255.0);
            self.line.clear();
            self.line.extend(above.iter().zip(below).map(|(above, below)| above * upper + below * lower + 0.5));
            let line = &self.line;
            // The cast saturates at 0 and 255.
            let value = |tap: &Tap| (line[tap.first] * tap.first_weight + line[tap.second] * tap.second_weight) as u8;
            pixels.extend(self.columns.iter().map(value));
        }
    }
}

/// For each of `count` new pixels that share `length` old ones from `start` on: its two old neighbours, of which there are `old`.
#[expect(clippy::cast_possible_wrap, reason = "sizes of pictures are 32-bit numbers")]
fn taps(taps: &mut Vec<Tap>, start: f32, length: f32, count: usize, old: usize, border: Border) {
    let (step, last) = (length / count as f32, old as i64 - 1);
    taps.clear();
    taps.extend((0..count).map(|i| {
        let centre = start + (i as f32 + 0.5) * step - 0.5;
        let left = centre.floor();
        let (fraction, left) = (centre - left, left as i64);
        let weight =
            |at: i64, weight: f32| if border == Border::Black && !(0..=last).contains(&at) { 0.0 } else { weight };
        Tap {
            first: left.clamp(0, last) as usize,
            second: (left.saturating_add(1)).clamp(0, last) as usize,
            first_weight: weight(left, 1.0 - fraction),
            second_weight: weight(left.saturating_add(1), fraction),
        }
    }));
}

/// The three planes (red, green, blue) of a picture, 0 to 1; grey fills all of them. The picture's pixels fill its sizes.
pub(crate) fn deinterleave(image: &Image) -> Vec<f32> {
    let channels = image.channels as usize;
    let mut planes = Vec::with_capacity(3 * image.pixels.len() / channels);
    for plane in 0..3 {
        let channel = if channels == 3 { plane } else { 0 };
        planes.extend(image.pixels.chunks_exact(channels).map(|pixel| f32::from(pixel[channel]) * (1.0 / 255.0)));
    }
    planes
}

/// Three planes of values, 0 to 1, as pixels of 0 to 255; beyond that, values are cut off.
pub(crate) fn interleave(planes: &[f32], pixels: &mut Vec<u8>) {
    let byte = |value: f32| (value * 255.0 + 0.5) as u8; // The cast saturates at 0 and 255.
    let size = planes.len() / 3;
    let (reds, rest) = planes.split_at(size);
    let (greens, blues) = rest.split_at(size);
    pixels.resize(3 * size, 0);
    let all = pixels.chunks_exact_mut(3).zip(reds).zip(greens).zip(blues);
    for (((pixel, &red), &green), &blue) in all {
        pixel.copy_from_slice(&[byte(red), byte(green), byte(blue)]);
    }
}

/// A region of a picture, made square in pixels by its longer side and `factor` times as large, around the same centre.
pub(crate) fn grow(window: Window, factor: f32) -> Window {
    let side = window.width.max(window.height) * factor;
    Window {
        x: window.x + (window.width - side) / 2.0,
        y: window.y + (window.height - side) / 2.0,
        width: side,
        height: side,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::picture;

    const UNCHANGED: (f32, f32) = (1.0, 0.0);

    fn sampled(image: &Image, window: Window, border: Border, size: (usize, usize)) -> Vec<f32> {
        let mut planes = Vec::new();
        Sampler::default().planes(image, window, border, size, UNCHANGED, &mut planes);
        planes
    }

    #[test]
    fn colours_come_apart_into_planes() {
        let image = picture(2, 1, 3, [1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(sampled(&image, Window::whole(&image), Border::Edge, (2, 1)), [1., 4., 2., 5., 3., 6.]);
        let grey = picture(2, 1, 1, [7, 8]).unwrap();
        assert_eq!(sampled(&grey, Window::whole(&grey), Border::Edge, (2, 1)), [7., 8., 7., 8., 7., 8.]);
        let mut planes = Vec::new();
        Sampler::default().planes(&grey, Window::whole(&grey), Border::Edge, (1, 1), (2.0, -1.0), &mut planes);
        assert_eq!(planes, [14.0; 3]); // 7.5 × 2 − 1.
    }

    #[test]
    fn windows_beyond_the_edge_by_hand() {
        let image = picture(2, 1, 1, [100, 200]).unwrap();
        // Four pixels from −1 to 3 at their own size: the centres are those of the pixels −1, 0, 1, 2.
        let window = Window { x: -1.0, y: 0.0, width: 4.0, height: 1.0 };
        assert_eq!(sampled(&image, window, Border::Edge, (4, 1))[..4], [100., 100., 200., 200.]);
        assert_eq!(sampled(&image, window, Border::Black, (4, 1))[..4], [0., 100., 200., 0.]);
        // Half a pixel further, each lies between two: black and 100, 100 and 200, 200 and black.
        let window = Window { x: -0.5, y: 0.0, width: 3.0, height: 1.0 };
        assert_eq!(sampled(&image, window, Border::Black, (3, 1))[..3], [50., 150., 100.]);
        // Far outside, and not a number: no panic.
        for x in [1e30, -1e30, f32::NAN, f32::INFINITY] {
            let far = Window { x, y: 0.0, width: 3.0, height: f32::MAX };
            sampled(&image, far, Border::Black, (3, 1));
        }
    }

    #[test]
    fn masks_grow_linearly() {
        let mut pixels = Vec::new();
        Sampler::default().mask(&[0.0, 1.0], (2, 1), (4, 2), &mut pixels);
        // Quarters of 255 are 63.75 and 191.25; both rows are the same.
        assert_eq!(pixels, [0, 64, 191, 255, 0, 64, 191, 255]);
    }

    #[test]
    fn planes_become_pixels() {
        let mut pixels = Vec::new();
        interleave(&[0.0, 1.0, 0.5, -3.0, 0.2, 7.0], &mut pixels);
        assert_eq!(pixels, [0, 128, 51, 255, 0, 255]);
        let image = picture(2, 1, 3, pixels).unwrap();
        let wanted = [0.0, 1.0, 128.0 / 255.0, 0.0, 0.2, 1.0];
        assert!(deinterleave(&image).iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(deinterleave(&picture(1, 1, 1, [51]).unwrap()).len(), 3);
    }

    #[test]
    fn regions_grow_around_their_centre() {
        let window = grow(Window { x: 10.0, y: 20.0, width: 20.0, height: 40.0 }, 1.5);
        assert_eq!(window, Window { x: -10.0, y: 10.0, width: 60.0, height: 60.0 });
    }
}
