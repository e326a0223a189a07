//! One answer per face: boxes that overlap are merged.

use onbeat_backend::Region;

/// Share of two regions' union that both cover, 0 to 1.
pub(super) fn overlap(a: &Region, b: &Region) -> f32 {
    let side = |a: f32, a_length: f32, b: f32, b_length: f32| (a + a_length).min(b + b_length) - a.max(b);
    let (width, height) = (side(a.x, a.width, b.x, b.width), side(a.y, a.height, b.y, b.height));
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let both = width * height;
    both / (a.width * a.height + b.width * b.height - both)
}

/// Merges regions: the surest takes all that overlap it by more than `limit`, and lies at their mean, weighted by score, with its own
/// score; then the surest of the rest, and so on. MediaPipe's weighted non-maximum suppression. The surest comes first.
pub(super) fn merge(mut regions: Vec<Region>, limit: f32) -> Vec<Region> {
    regions.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut merged = Vec::new();
    while let Some(&surest) = regions.first() {
        let mut sum = [0.0; 5];
        let before = regions.len();
        regions.retain(|it| {
            let joins = overlap(it, &surest) > limit;
            if joins {
                let parts = [it.x, it.y, it.width, it.height, 1.0];
                sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part * it.score);
            }
            !joins
        });
        if regions.len() == before {
            // Without an area it does not even overlap itself.
            regions.remove(0);
            continue;
        }
        let [x, y, width, height, weight] = sum;
        let (x, y, width, height) = (x / weight, y / weight, width / weight, height / weight);
        merged.push(Region { x, y, width, height, score: surest.score });
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(x: f32, y: f32, width: f32, height: f32, score: f32) -> Region {
        Region { x, y, width, height, score }
    }

    #[test]
    fn overlap_by_hand() {
        let a = region(0.0, 0.0, 0.5, 0.5, 1.0);
        // They share a quarter of 0.25, 0.0625; together they cover 0.4375.
        assert!((overlap(&a, &region(0.25, 0.25, 0.5, 0.5, 1.0)) - 1.0 / 7.0).abs() < 1e-6);
        assert_eq!(overlap(&a, &a), 1.0);
        assert_eq!(overlap(&a, &region(0.5, 0.0, 0.5, 0.5, 1.0)), 0.0);
    }

    #[test]
    fn overlapping_regions_become_one_by_hand() {
        let sure = region(0.2, 0.2, 0.2, 0.2, 0.9);
        let near = region(0.24, 0.2, 0.2, 0.2, 0.6);
        let other = region(0.7, 0.7, 0.1, 0.1, 0.7);
        let merged = merge(vec![near, other, sure], 0.3);
        // Overlap of the two: 0.16 × 0.2 of 0.048, two thirds. x: (0.2 × 0.9 + 0.24 × 0.6) / 1.5 = 0.216.
        assert_eq!(merged.len(), 2);
        assert!((merged[0].x - 0.216).abs() < 1e-6 && (merged[0].width - 0.2).abs() < 1e-6, "{merged:?}");
        assert_eq!(merged[0].score, 0.9);
        assert!((merged[1].x - 0.7).abs() < 1e-6 && merged[1].score == 0.7, "{merged:?}");
        // A higher limit keeps them apart.
        assert_eq!(merge(vec![near, other, sure], 0.7).len(), 3);
    }

    #[test]
    fn nothing_and_regions_without_area_end() {
        assert!(merge(Vec::new(), 0.3).is_empty());
        let thin = region(0.1, 0.1, 0.0, 0.2, 0.8);
        assert!(merge(vec![thin, region(f32::NAN, 0.0, 1.0, 1.0, 0.9)], 0.3).is_empty());
    }
}
