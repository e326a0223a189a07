//! The charts of the HTML report, as inline SVG whose inks come from the page's style sheet (so that they follow light, dark and print).

use crate::palette::{colour, dashes};
use crate::svg::{Scale, Svg, escape, shorten, tick_label};

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name.
    pub name: String,
    /// Number that gives its colour and dashes; the same on all charts.
    pub number: usize,
    /// Points in order of x.
    pub points: Vec<(f64, f64)>,
    /// Whether to draw it in front and bold.
    pub emphasis: bool,
}

/// A vertical or horizontal line with a meaning, such as a deadline.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Where, in the axis' unit.
    pub at: f64,
    /// What it is, such as `deadline 33 ms`.
    pub label: String,
}

/// Empirical distribution functions, one per policy, with the deadline. `unit` is that of x.
pub fn ecdf(title: &str, series: &[Series], reference: Option<&Reference>, unit: &str) -> String {
    const WIDTH: f64 = 380.0;
    const HEIGHT: f64 = 224.0;
    let (left, right, top, bottom) = (44.0, WIDTH - 14.0, 20.0, HEIGHT - 40.0);
    let xs = || series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).chain(reference.map(|r| r.at));
    let positive = || xs().filter(|x| *x > 0.0);
    let low = positive().fold(f64::INFINITY, f64::min);
    let high = positive().fold(0.0, f64::max);
    let (low, high) = if low.is_finite() { (low, high) } else { (0.1, 1.0) };
    // A wide range is logarithmic; a narrow one begins at zero, where lengths compare honestly.
    let log = high / low > 12.0;
    let (low, high) = if log { (low * 0.9, high * 1.12) } else { (0.0, high * 1.06) };
    let x = Scale { low, high, from: left, to: right, log };
    let y = Scale { low: 0.0, high: 1.0, from: bottom, to: top, log: false };
    let mut svg = Svg::new(WIDTH, HEIGHT);
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg.line((left, y.at(tick)), (right, y.at(tick)), r#"class="grid""#);
        svg.text(left - 6.0, y.at(tick) + 4.0, &format!("{:.0}%", tick * 100.0), r#"class="tick" text-anchor="end""#);
    }
    x_axis(&mut svg, x, bottom, 6);
    let name = if log { format!("{unit}, logarithmic") } else { unit.to_owned() };
    svg.text(f64::midpoint(left, right), HEIGHT - 6.0, &name, r#"class="axis" text-anchor="middle""#);
    if let Some(reference) = reference {
        let at = x.at(reference.at);
        svg.line((at, top - 4.0), (at, bottom), r#"class="reference""#);
        let anchor = if at > f64::midpoint(left, right) { "end" } else { "start" };
        svg.text(
            at.clamp(left, right),
            top - 8.0,
            &reference.label,
            &format!(r#"class="reference-label" text-anchor="{anchor}""#),
        );
    }
    let (front, back): (Vec<&Series>, Vec<&Series>) = series.iter().partition(|s| s.emphasis);
    for series in back.into_iter().chain(front) {
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(series.points.len() * 2 + 2);
        let mut before = 0.0;
        for &(value, fraction) in &series.points {
            points.push((x.at(value), y.at(before)));
            points.push((x.at(value), y.at(fraction)));
            before = fraction;
        }
        if !points.is_empty() {
            points.push((right, y.at(before)));
        }
        draw_series(&mut svg, series, &points);
    }
    svg.finish(title, &format!("Fraction of jobs at or below a time, per policy; time in {unit}."), r#"class="chart""#)
}

fn draw_series(svg: &mut Svg, series: &Series, points: &[(f64, f64)]) {
    let width = if series.emphasis { 2.6 } else { 1.4 };
    svg.path(
        points,
        &format!(
            r#"class="series" data-series="{}" fill="none" stroke="{}" stroke-width="{width}" stroke-dasharray="{}""#,
            series.number,
            colour(series.number),
            dashes(series.number)
        ),
    );
}

fn x_axis(svg: &mut Svg, x: Scale, bottom: f64, count: usize) {
    svg.line((x.from, bottom), (x.to, bottom), r#"class="axis-line""#);
    for tick in x.ticks(count) {
        svg.line((x.at(tick), bottom), (x.at(tick), bottom + 4.0), r#"class="axis-line""#);
        svg.text(x.at(tick), bottom + 16.0, &tick_label(tick), r#"class="tick" text-anchor="middle""#);
    }
}

/// A row of a dot plot.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Name.
    pub name: String,
    /// Number that gives its colour.
    pub number: usize,
    /// Mean.
    pub mean: f64,
    /// Half of the interval.
    pub half_width: Option<f64>,
    /// Whether to write the name bold.
    pub emphasis: bool,
}

/// One dot with its interval per policy, and the goal.
pub fn dots(title: &str, rows: &[Dot], reference: Option<&Reference>, unit: &str) -> String {
    const WIDTH: f64 = 380.0;
    const ROW: f64 = 19.0;
    let (left, right, top) = (112.0, WIDTH - 56.0, 22.0);
    let bottom = top + ROW * rows.len() as f64 + 4.0;
    let height = bottom + 38.0;
    let ends = rows.iter().map(|row| row.mean + row.half_width.unwrap_or(0.0));
    let high = ends.chain(reference.map(|r| r.at)).fold(0.0, f64::max);
    let x = Scale { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 }, from: left, to: right, log: false };
    let mut svg = Svg::new(WIDTH, height);
    for tick in x.ticks(5) {
        svg.line((x.at(tick), top), (x.at(tick), bottom), r#"class="grid""#);
    }
    x_axis(&mut svg, x, bottom, 5);
    svg.text(f64::midpoint(left, right), height - 6.0, unit, r#"class="axis" text-anchor="middle""#);
    for (i, row) in rows.iter().enumerate() {
        let y = top + ROW * (i as f64 + 0.5) + 2.0;
        let weight = if row.emphasis { r#" font-weight="700""# } else { "" };
        svg.raw(&format!("<title>{}</title>", escape(&row.name)));
        svg.text(left - 8.0, y + 4.0, &shorten(&row.name, 17), &format!(r#"class="label" text-anchor="end"{weight}"#));
        let ink = colour(row.number);
        if let Some(half_width) = row.half_width {
            let (from, to) = (x.at(row.mean - half_width), x.at(row.mean + half_width));
            svg.line((from, y), (to, y), &format!(r#"stroke="{ink}" stroke-width="2""#));
        }
        svg.raw(&format!(
            r#"<circle cx="{}" cy="{}" r="4.2" fill="{ink}"/>"#,
            crate::svg::number(x.at(row.mean)),
            crate::svg::number(y)
        ));
        let end = x.at(row.mean + row.half_width.unwrap_or(0.0)).max(x.at(row.mean)) + 8.0;
        svg.text(end, y + 4.0, &onbeat_core::metric::Unit::Ms.format(row.mean), r#"class="tick halo""#);
    }
    if let Some(reference) = reference {
        let at = x.at(reference.at);
        svg.line((at, top - 4.0), (at, bottom), r#"class="reference""#);
        let anchor = if at > f64::midpoint(left, right) { "end" } else { "start" };
        svg.text(at, top - 8.0, &reference.label, &format!(r#"class="reference-label" text-anchor="{anchor}""#));
    }
    svg.finish(title, &format!("One dot per policy with its 95% interval, in {unit}."), r#"class="chart""#)
}

/// A quantity over the time of a run, in equal bins, as a filled step line.
pub fn over_time(
    title: &str,
    values: &[f64],
    end_s: f64,
    high: f64,
    unit: &str,
    ink: &str,
    reference: Option<&Reference>,
) -> String {
    const WIDTH: f64 = 560.0;
    const HEIGHT: f64 = 118.0;
    let (left, right, top, bottom) = (44.0, WIDTH - 10.0, 22.0, HEIGHT - 30.0);
    let x = Scale { low: 0.0, high: end_s.max(1e-9), from: left, to: right, log: false };
    let y = Scale { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, from: bottom, to: top, log: false };
    let mut svg = Svg::new(WIDTH, HEIGHT);
    for tick in y.ticks(2) {
        svg.line((left, y.at(tick)), (right, y.at(tick)), r#"class="grid""#);
        svg.text(left - 6.0, y.at(tick) + 4.0, &tick_label(tick), r#"class="tick" text-anchor="end""#);
    }
    let bin = end_s / values.len().max(1) as f64;
    let mut points = vec![(left, bottom)];
    for (i, value) in values.iter().enumerate() {
        points.push((x.at(i as f64 * bin), y.at(*value)));
        points.push((x.at((i + 1) as f64 * bin), y.at(*value)));
    }
    points.push((right, bottom));
    svg.path(&points, &format!(r#"fill="{ink}" fill-opacity="0.28" stroke="none""#));
    let inner = points.get(1..points.len() - 1).unwrap_or_default();
    svg.path(inner, &format!(r#"fill="none" stroke="{ink}" stroke-width="1.2""#));
    x_axis(&mut svg, x, bottom, 8);
    svg.text(left, 13.0, &format!("{title} [{unit}]"), r#"class="label""#);
    svg.text(right, HEIGHT - 2.0, "time [s]", r#"class="axis" text-anchor="end""#);
    if let Some(reference) = reference {
        svg.line((left, y.at(reference.at)), (right, y.at(reference.at)), r#"class="reference""#);
        svg.text(right, 13.0, &reference.label, r#"class="reference-label" text-anchor="end""#);
    }
    svg.finish(title, &format!("{title} over time: {unit} against seconds."), r#"class="chart wide""#)
}

/// A part of a stacked bar.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Number that gives its colour.
    pub number: usize,
    /// Share of the bar's full length, 0 to 1.
    pub share: f64,
}

/// Shares of time per processor, by model.
pub fn stacked(title: &str, rows: &[(String, Vec<Part>)]) -> String {
    const WIDTH: f64 = 560.0;
    const ROW: f64 = 30.0;
    let (left, right, top) = (84.0, WIDTH - 52.0, 6.0);
    let bottom = top + ROW * rows.len() as f64;
    let x = Scale { low: 0.0, high: 1.0, from: left, to: right, log: false };
    let mut svg = Svg::new(WIDTH, bottom + 34.0);
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg.line((x.at(tick), top), (x.at(tick), bottom), r#"class="grid""#);
        svg.text(x.at(tick), bottom + 14.0, &format!("{:.0}%", tick * 100.0), r#"class="tick" text-anchor="middle""#);
    }
    svg.text(
        f64::midpoint(left, right),
        bottom + 30.0,
        "busy share of the measured time",
        r#"class="axis" text-anchor="middle""#,
    );
    for (i, (name, parts)) in rows.iter().enumerate() {
        let y = top + ROW * i as f64 + 5.0;
        svg.text(left - 8.0, y + 14.0, &shorten(name, 12), r#"class="label" text-anchor="end""#);
        svg.rect(left, y, right - left, ROW - 10.0, r#"class="empty""#);
        let mut from = 0.0;
        for part in parts.iter().filter(|part| part.share > 0.0) {
            let (a, b) = (x.at(from), x.at(from + part.share));
            let ink = colour(part.number);
            svg.raw(&format!("<g><title>{}: {:.1}%</title>", escape(&part.name), part.share * 100.0));
            svg.rect(a, y, b - a, ROW - 10.0, &format!(r#"fill="{ink}" class="part""#));
            let fits = ((b - a) / 6.6) as usize;
            if fits >= part.name.chars().count().min(6) {
                let text = shorten(&part.name, fits);
                let contrast = crate::palette::ink_on(ink);
                svg.text(a + 4.0, y + 14.0, &text, &format!(r#"class="in-bar" style="fill:{contrast}""#));
            }
            svg.raw("</g>");
            from += part.share;
        }
        svg.text(right + 6.0, y + 14.0, &format!("{:.0}%", from * 100.0), r#"class="tick""#);
    }
    svg.finish(title, "Share of the measured time that each processor spends on each model.", r#"class="chart wide""#)
}

/// The mean of distribution functions, one per seed: at each x, the mean of the fractions. At most `points_max` points.
pub fn mean_ecdf(functions: &[&[(f64, f64)]], points_max: usize) -> Vec<(f64, f64)> {
    let functions: Vec<&[(f64, f64)]> = functions.iter().copied().filter(|f| !f.is_empty()).collect();
    let mut xs: Vec<f64> = functions.iter().flat_map(|f| f.iter().map(|p| p.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    if xs.len() > points_max {
        let last = xs.len() - 1;
        xs = (0..points_max).map(|i| xs[i * last / (points_max - 1).max(1)]).collect();
    }
    let at = |f: &[(f64, f64)], x: f64| {
        let n = f.partition_point(|p| p.0 <= x);
        if n == 0 { 0.0 } else { f[n - 1].1 }
    };
    let mean = |x: f64| functions.iter().map(|f| at(f, x)).sum::<f64>() / functions.len().max(1) as f64;
    xs.into_iter().map(|x| (x, mean(x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_two_distributions_lies_between_them() {
        let (a, b) = (vec![(1.0, 0.5), (2.0, 1.0)], vec![(2.0, 0.5), (4.0, 1.0)]);
        assert_eq!(mean_ecdf(&[&a, &b], 100), [(1.0, 0.25), (2.0, 0.75), (4.0, 1.0)]);
        assert_eq!(mean_ecdf(&[], 100), []);
        assert_eq!(mean_ecdf(&[&a, &b], 2), [(1.0, 0.25), (4.0, 1.0)]);
    }
}
