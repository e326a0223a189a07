//! Colours that people with any colour vision can tell apart, in light, in dark and in print.
//!
//! The first seven are those of Okabe and Ito ("Color Universal Design", 2008) less black and yellow, which vanish in one of the
//! schemes; the others are lighter and darker relatives for charts with many series. No chart relies on colour alone: series are
//! labelled, and lines also differ by dashes.

/// Colours of series, by number.
pub const SERIES: [&str; 14] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#9467bd", "#b8a400", "#4f8a45",
    "#9ad0c2", "#f3b8a0", "#4a6fa5", "#b5651d",
];

/// Dashes of lines, by number: SVG `stroke-dasharray`.
pub const DASHES: [&str; 4] = ["none", "6 3", "2 2", "8 3 2 3"];

/// What marks a miss: vermilion, always together with a cross.
pub const MISS: &str = "#d4001a";

/// Colour of a series.
pub fn colour(number: usize) -> &'static str {
    SERIES[number % SERIES.len()]
}

/// Dashes of a series: they change after every four colours, and again when
/// colours repeat.
pub fn dashes(number: usize) -> &'static str {
    DASHES[((number % SERIES.len()) / 4 + number / SERIES.len()) % DASHES.len()]
}

/// White or near-black, whichever reads better on a colour `#rrggbb`.
pub fn ink_on(colour: &str) -> &'static str {
    let channel = |from: usize| {
        let byte = colour.get(from..from + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let c = f64::from(byte) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    // Relative luminance as in WCAG 2.2; at 0.179 both inks have the same contrast.
    let luminance = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
    if luminance > 0.179 { "#111111" } else { "#ffffff" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_contrasts_with_the_colour() {
        assert_eq!(ink_on("#ffffff"), "#111111");
        assert_eq!(ink_on("#000000"), "#ffffff");
        assert_eq!(ink_on("#0072b2"), "#ffffff");
        assert_eq!(ink_on("#e69f00"), "#111111");
    }

    #[test]
    fn series_with_the_same_colour_differ_in_dashes() {
        for a in 0..14 {
            assert_ne!((colour(a), dashes(a)), (colour(a + 14), dashes(a + 14)));
        }
    }
}
