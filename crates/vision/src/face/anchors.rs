//! The boxes that a single-shot detector's answers are relative to.

/// Centre of an anchor, in fractions of the network's picture. All anchors are as large as that picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Anchor {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// Anchors of MediaPipe's short-range face detector, in the order of the network's answers: for each cell of each grid two per
/// layer, where neighbouring layers of the same stride share a grid.
///
/// `face_detection_short_range.pbtxt` of the package `mediapipe` 0.10.21: four layers of strides 8, 16, 16, 16 over 128 × 128 pixels;
/// one aspect ratio and one interpolated one, hence two anchors per layer; centres offset by half a cell; fixed size.
pub(super) fn short_range() -> Vec<Anchor> {
    const GRIDS: [(u16, usize); 2] = [(128 / 8, 2), (128 / 16, 6)];
    let mut anchors = Vec::new();
    for (cells, per_cell) in GRIDS {
        let centre = |i: u16| (f32::from(i) + 0.5) / f32::from(cells);
        for y in 0..cells {
            for x in 0..cells {
                anchors.extend([Anchor { x: centre(x), y: centre(y) }].repeat(per_cell));
            }
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_anchor_for_each_answer() {
        let anchors = short_range();
        // 16 × 16 × 2 + 8 × 8 × 6, as many as the network's output has rows.
        assert_eq!(anchors.len(), 896);
        assert_eq!(anchors[0], Anchor { x: 0.031_25, y: 0.031_25 });
        assert_eq!(anchors[1], anchors[0]);
        assert_eq!(anchors[2], Anchor { x: 0.093_75, y: 0.031_25 });
        assert_eq!(anchors[511], Anchor { x: 0.968_75, y: 0.968_75 });
        assert_eq!(anchors[512], Anchor { x: 0.0625, y: 0.0625 });
        assert_eq!(anchors[895], Anchor { x: 0.9375, y: 0.9375 });
    }
}
