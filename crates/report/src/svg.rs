//! Small builders for SVG: escaped text, scales with round ticks, step lines.

use std::fmt::Write;

/// An SVG picture under construction.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty picture of so many pixels.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Adds markup, which must be well-formed.
    pub fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    /// Adds a rectangle. `attributes` is further markup such as `fill="red"`.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, attributes: &str) {
        let (x, y, width, height) = (number(x), number(y), number(width.max(0.0)), number(height.max(0.0)));
        self.raw(&format!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" {attributes}/>"#));
    }

    /// Adds a line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), attributes: &str) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.raw(&format!(r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {attributes}/>"#));
    }

    /// Adds text, escaped.
    pub fn text(&mut self, x: f64, y: f64, text: &str, attributes: &str) {
        let (x, y) = (number(x), number(y));
        self.raw(&format!(r#"<text x="{x}" y="{y}" {attributes}>{}</text>"#, escape(text)));
    }

    /// Adds a line through points.
    pub fn path(&mut self, points: &[(f64, f64)], attributes: &str) {
        if points.is_empty() {
            return;
        }
        let mut d = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            let command = if i == 0 { "M" } else { "L" };
            let _ = write!(d, "{command}{} {}", number(*x), number(*y));
        }
        self.raw(&format!(r#"<path d="{d}" {attributes}/>"#));
    }

    /// The finished picture. `title` and `description` are read out to those who cannot see it.
    pub fn finish(self, title: &str, description: &str, attributes: &str) -> String {
        let (width, height) = (number(self.width), number(self.height));
        let (title, description) = (escape(title), escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" {attributes}>\n<title>{title}</title>\n<desc>{description}</desc>\n{}</svg>\n",
            self.body
        )
    }
}

/// Text that means itself within SVG and HTML, in elements and in quoted attributes. Control characters, which XML forbids, go.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A coordinate: at most two decimals.
pub fn number(value: f64) -> String {
    let text = format!("{:.2}", if value.is_finite() { value } else { 0.0 });
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Shortens text to so many characters, with an ellipsis.
pub fn shorten(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(characters.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Maps values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Pixel of the smallest value.
    pub from: f64,
    /// Pixel of the largest value.
    pub to: f64,
    /// Whether equal ratios take equal space; then `low` > 0.
    pub log: bool,
}

impl Scale {
    /// The pixel of a value; values outside go to the nearest end.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let share = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * if share.is_finite() { share } else { 0.0 }
    }

    /// Round values to label, at most about `count`.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        if self.log { log_ticks(self.low, self.high, count) } else { linear_ticks(self.low, self.high, count) }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten from `low` to `high`.
fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = high - low;
    if span <= 0.0 || !span.is_finite() {
        return vec![low];
    }
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(power * 10.0);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

fn log_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let steps: &[&[f64]] = &[&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
    let all = |multiples: &[f64]| -> Vec<f64> {
        let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let ticks = (from..=to).flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power)));
        ticks.filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001).collect()
    };
    let mut ticks =
        steps.iter().map(|multiples| all(multiples)).find(|ticks| ticks.len() <= count).unwrap_or_else(|| all(&[1.0]));
    if ticks.len() < 2 {
        ticks = linear_ticks(low, high, 3).into_iter().filter(|tick| *tick > 0.0).collect();
    }
    let every = ticks.len().div_ceil(count.max(1)).max(1);
    ticks.into_iter().step_by(every).collect()
}

/// A tick's label: as few digits as tell it from its neighbours, thousands as `k`.
pub fn tick_label(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_in_elements_and_attributes() {
        assert_eq!(escape("<a b=\"c\" d='e'>&\u{1}"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;\u{fffd}");
    }

    #[test]
    fn scales_map_ends_to_ends_and_clamp() {
        let linear = Scale { low: 0.0, high: 10.0, from: 100.0, to: 200.0, log: false };
        assert_eq!([linear.at(0.0), linear.at(5.0), linear.at(10.0), linear.at(99.0)], [100.0, 150.0, 200.0, 200.0]);
        let log = Scale { low: 1.0, high: 100.0, from: 0.0, to: 200.0, log: true };
        assert!((log.at(10.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn ticks_are_round() {
        let ticks = |low, high, log, count| Scale { low, high, from: 0.0, to: 1.0, log }.ticks(count);
        assert_eq!(ticks(0.0, 10.0, false, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(0.0, 1.0, false, 4), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(1.0, 1000.0, true, 4), [1.0, 10.0, 100.0, 1000.0]);
        assert!(ticks(33.0, 41.0, true, 5).len() >= 2, "a narrow logarithmic axis still has labels");
        assert!(ticks(1e-3, 1e9, true, 6).len() <= 6);
    }

    #[test]
    fn tick_labels_are_short() {
        assert_eq!(
            ["0.5", "20", "1200", "20k", "3M"].map(String::from),
            [0.5, 20.0, 1200.0, 20_000.0, 3e6].map(tick_label)
        );
    }
}
