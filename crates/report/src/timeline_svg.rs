//! A timeline as a picture for print: lanes of processors, strips of jobs, misses, legend, axis in milliseconds.

use std::fmt::Write as _;

use onbeat_core::id::Id;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::palette::{MISS, colour, ink_on};
use crate::svg::{Scale, Svg, escape, number, shorten, tick_label};
use crate::timeline::{Mark, Slice, Timeline};

const WIDTH: f64 = 1120.0;
const LEFT: f64 = 132.0;
const RIGHT: f64 = WIDTH - 16.0;
const LANE: f64 = 38.0;
const STRIP: f64 = 18.0;
/// Pixels per character of the labels, about.
const CHARACTER: f64 = 6.6;

/// The picture, white on any page, with all styles in it. `title` is its heading.
pub fn render(system: &System, timeline: &Timeline, title: &str) -> String {
    let top = 46.0;
    let strips_top = top + LANE * timeline.lanes.len() as f64 + 22.0;
    let bottom = strips_top + STRIP * system.sources.len() as f64 + 4.0;
    let legend = legend_rows(system, timeline);
    let height = bottom + 58.0 + 18.0 * legend.len() as f64;
    let x = Scale {
        low: timeline.from.as_ms(),
        high: timeline.to.as_ms().max(timeline.from.as_ms() + 1e-6),
        from: LEFT,
        to: RIGHT,
        log: false,
    };
    let mut svg = Svg::new(WIDTH, height);
    svg.raw(STYLE);
    svg.rect(0.0, 0.0, WIDTH, height, r##"fill="#ffffff""##);
    svg.text(LEFT, 22.0, &shorten(title, 150), r#"class="title""#);
    for tick in x.ticks(12) {
        svg.line((x.at(tick), top - 6.0), (x.at(tick), bottom), r#"class="grid""#);
        svg.text(x.at(tick), bottom + 16.0, &tick_label(tick), r#"class="tick" text-anchor="middle""#);
    }
    svg.text(f64::midpoint(LEFT, RIGHT), bottom + 34.0, "simulated time [ms]", r#"class="tick" text-anchor="middle""#);
    lanes(&mut svg, system, timeline, x, top);
    strips(&mut svg, system, timeline, x, strips_top);
    draw_legend(&mut svg, &legend, bottom + 58.0);
    let description = format!(
        "{} runs on {} lanes from {} to {}; {} deadlines or goals missed or jobs dropped.",
        timeline.slices.len(),
        timeline.lanes.len(),
        timeline.from,
        timeline.to,
        timeline.marks.len()
    );
    svg.finish(title, &description, r#"font-family="system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif""#)
}

const STYLE: &str = r##"<style>
.title{font-size:15px;font-weight:600;fill:#111}.tick{font-size:11px;fill:#444}.name{font-size:12px;fill:#111}
.grid{stroke:#e4e4e4;stroke-width:1}.lane{fill:#f6f6f6}.in{font-size:10.5px}.slice{stroke:#ffffff;stroke-width:.6}
.miss{stroke:#d4001a;stroke-width:2;fill:none;stroke-linecap:round}.drop{fill:#ffffff;stroke:#111;stroke-width:1.4}.head{font-size:11px;fill:#666}
</style>
<defs><pattern id="setup" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<rect width="5" height="5" fill="#ffffff"/><rect width="2" height="5" fill="#555555"/></pattern></defs>"##;

fn lanes(svg: &mut Svg, system: &System, timeline: &Timeline, x: Scale, top: f64) {
    for (i, lane) in timeline.lanes.iter().enumerate() {
        let y = top + LANE * i as f64;
        svg.rect(LEFT, y + 2.0, RIGHT - LEFT, LANE - 4.0, r#"class="lane""#);
        svg.text(LEFT - 10.0, y + LANE / 2.0 + 4.0, &shorten(&lane.name, 18), r#"class="name" text-anchor="end""#);
    }
    for slice in &timeline.slices {
        slice_box(svg, system, slice, x, top + LANE * slice.lane as f64 + 4.0);
    }
    // Misses also stand where the late work ran: at the end of the job's last run within the window.
    for mark in timeline.marks.iter().filter(|mark| !mark.kind.is_drop()) {
        let last = timeline.slices.iter().rev().find(|slice| slice.job == mark.job && slice.end >= mark.at);
        if let Some(slice) = last.filter(|slice| slice.end <= timeline.to) {
            cross(svg, x.at(slice.end.as_ms()) - 5.0, top + LANE * slice.lane as f64 + 9.0, mark, system);
        }
    }
}

fn slice_box(svg: &mut Svg, system: &System, slice: &Slice, x: Scale, y: f64) {
    let height = LANE - 8.0;
    let (a, ready, b) = (x.at(slice.start.as_ms()), x.at(slice.ready.as_ms()), x.at(slice.end.as_ms()));
    let node = &system.nodes[slice.node];
    let fill = colour(slice.model.index());
    svg.raw(&format!("<g><title>{}</title>", escape(&describe(system, slice))));
    svg.rect(a, y, (b - a).max(0.6), height, &format!(r#"class="slice" fill="{fill}""#));
    if ready - a > 0.4 {
        svg.rect(a, y, ready - a, height, r#"class="slice" fill="url(#setup)""#);
    }
    let fits = ((b - ready - 6.0) / CHARACTER).max(0.0) as usize;
    if fits >= node.name.chars().count().min(4) && fits >= 2 {
        let name = shorten(&node.name, fits);
        svg.text(ready + 4.0, y + height / 2.0 + 4.0, &name, &format!(r#"class="in" fill="{}""#, ink_on(fill)));
    }
    svg.raw("</g>");
}

/// One run in words.
pub fn describe(system: &System, slice: &Slice) -> String {
    let node = &system.nodes[slice.node];
    let length = slice.end.saturating_sub(slice.start);
    let mut text = format!(
        "{} / {} ({}, {}), job {}: {} at {}",
        system.sources[slice.source].name,
        node.name,
        system.models[slice.model].name,
        slice.phase.name(),
        slice.job,
        length,
        slice.start
    );
    if slice.units > 0 {
        let _ = write!(text, ", {} units", slice.units);
    }
    if slice.batch > 1 {
        let _ = write!(text, ", batch of {}", slice.batch);
    }
    let _ = write!(text, "; {}", crate::timeline::why_name(slice.why));
    text
}

fn strips(svg: &mut Svg, system: &System, timeline: &Timeline, x: Scale, top: f64) {
    svg.text(LEFT, top - 7.0, "jobs, from release to completion; tick: deadline", r#"class="head""#);
    for (source, s) in system.sources.enumerate() {
        let y = top + STRIP * source.index() as f64;
        svg.text(LEFT - 10.0, y + 13.0, &shorten(&s.name, 18), r#"class="name" text-anchor="end""#);
        for job in timeline.jobs.iter().filter(|job| job.source == source) {
            let (a, b) = (x.at(job.release.as_ms()), x.at(job.end.as_ms()));
            svg.rect(
                a,
                y + 5.0,
                (b - a).max(1.0),
                7.0,
                r##"fill="#555555" fill-opacity="0.35" stroke="#333333" stroke-width="0.5""##,
            );
            if let Some(deadline) = job.deadline.filter(|&at| inside(timeline, at)) {
                svg.line(
                    (x.at(deadline.as_ms()), y + 3.0),
                    (x.at(deadline.as_ms()), y + 14.0),
                    r##"stroke="#111111" stroke-width="1""##,
                );
            }
        }
        for mark in timeline.marks.iter().filter(|mark| mark.source == source) {
            let at = x.at(mark.at.as_ms());
            if mark.kind.is_drop() {
                triangle(svg, at, y + 8.5);
            } else {
                cross(svg, at, y + 8.5, mark, system);
            }
        }
    }
}

fn inside(timeline: &Timeline, at: Nanos) -> bool {
    at >= timeline.from && at <= timeline.to
}

fn cross(svg: &mut Svg, x: f64, y: f64, mark: &Mark, system: &System) {
    let (x0, x1, y0, y1) = (number(x - 4.0), number(x + 4.0), number(y - 4.0), number(y + 4.0));
    let title = escape(&format!("{}: {} at {}", system.sources[mark.source].name, mark.kind.name(), mark.at));
    svg.raw(&format!(
        r#"<path class="miss" d="M{x0} {y0}L{x1} {y1}M{x0} {y1}L{x1} {y0}"><title>{title}</title></path>"#
    ));
}

fn triangle(svg: &mut Svg, x: f64, y: f64) {
    let (x0, x1, y0, y1) = (number(x - 5.0), number(x + 5.0), number(y - 4.0), number(y + 5.0));
    svg.raw(&format!(r#"<path class="drop" d="M{x0} {y0}L{x1} {y0}L{} {y1}Z"/>"#, number(x)));
}

/// What the legend shows.
enum Key {
    Model(usize, String),
    Setup,
    Miss,
    Drop,
}

impl Key {
    fn label(&self) -> &str {
        match self {
            Self::Model(_, name) => name,
            Self::Setup => "setup",
            Self::Miss => "deadline or goal missed",
            Self::Drop => "job dropped",
        }
    }
}

/// Entries of the legend in lines that fit, with the place of each.
fn legend_rows(system: &System, timeline: &Timeline) -> Vec<Vec<(f64, Key)>> {
    let used = |model: usize| timeline.slices.iter().any(|slice| slice.model.index() == model);
    let models =
        system.models.iter().enumerate().filter(|(i, _)| used(*i)).map(|(i, m)| Key::Model(i, shorten(&m.name, 40)));
    let keys = models.chain([Key::Setup, Key::Miss, Key::Drop]);
    let mut rows: Vec<Vec<(f64, Key)>> = vec![Vec::new()];
    let mut x = LEFT;
    for key in keys {
        let width = 30.0 + CHARACTER * key.label().chars().count() as f64 + 8.0;
        if x + width > RIGHT && x > LEFT {
            rows.push(Vec::new());
            x = LEFT;
        }
        rows.last_mut().expect("there is a first row").push((x, key));
        x += width;
    }
    rows
}

fn draw_legend(svg: &mut Svg, rows: &[Vec<(f64, Key)>], top: f64) {
    for (i, row) in rows.iter().enumerate() {
        let y = top + 18.0 * i as f64;
        for (x, key) in row {
            match key {
                Key::Model(number, _) => {
                    svg.rect(*x, y - 9.0, 16.0, 11.0, &format!(r#"fill="{}""#, colour(*number)));
                }
                Key::Setup => {
                    svg.rect(*x, y - 9.0, 16.0, 11.0, r##"fill="url(#setup)" stroke="#555555" stroke-width="0.5""##);
                }
                Key::Miss => {
                    let ink = format!(r#"stroke="{MISS}" stroke-width="2" stroke-linecap="round""#);
                    svg.line((x + 4.0, y - 8.0), (x + 12.0, y), &ink);
                    svg.line((x + 4.0, y), (x + 12.0, y - 8.0), &ink);
                }
                Key::Drop => triangle(svg, x + 8.0, y - 4.0),
            }
            svg.text(x + 22.0, y, key.label(), r#"class="tick""#);
        }
    }
}
