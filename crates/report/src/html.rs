//! The report as one HTML file that asks nothing of the network: styles, script and pictures are in it.
//!
//! All names and texts that come from files are escaped; a content security policy in the page forbids requests as a second wall.

mod figures;
mod inside;
mod page;
mod variants;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use thiserror::Error;

use crate::model::Report;
use crate::svg::escape;

/// How much the report holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtmlOptions {
    /// The most runs that the timeline of one policy holds; its window ends early if there are more, and a note says so.
    pub slices_max: usize,
    /// The most points of one line in a chart.
    pub points_max: usize,
    /// The most policies per comparison that the report looks into, best first; a note says so if there are more.
    pub policies_max: usize,
}

impl HtmlOptions {
    /// For a report of so many comparisons: a matrix shows less of each, so that the page stays one that browsers open.
    pub fn for_comparisons(count: usize) -> Self {
        if count > 1 { Self { slices_max: 2000, points_max: 60, policies_max: 3 } } else { Self::default() }
    }
}

impl Default for HtmlOptions {
    fn default() -> Self {
        Self { slices_max: 4000, points_max: 160, policies_max: 50 }
    }
}

/// The report cannot be rendered: a mistake in the built-in template.
#[derive(Debug, Error)]
#[error("cannot render the HTML report: {0:#}")]
pub struct HtmlError(#[from] minijinja::Error);

/// The report as an HTML page.
///
/// # Errors
/// None for the built-in template, unless it has a mistake.
pub fn render(report: &Report, options: HtmlOptions) -> Result<String, HtmlError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report.html", include_str!("templates/report.html"))?;
    let page = page::page(report, options);
    Ok(environment.get_template("report.html")?.render(Serde(&page))?)
}

/// Markup that the template puts in as it is.
fn safe(markup: String) -> Value {
    Value::from_safe_string(markup)
}

/// Text with code in backquotes as markup.
fn rich(text: &str) -> Value {
    let mut markup = String::new();
    for (i, part) in text.split('`').enumerate() {
        // A number stays with its unit and its interval.
        let part = escape(part).replace(" ms", "\u{a0}ms").replace(" ± ", "\u{a0}±\u{a0}");
        let code = i % 2 == 1;
        markup.push_str(if code { "<code>" } else { "" });
        markup.push_str(&part);
        markup.push_str(if code { "</code>" } else { "" });
    }
    safe(markup)
}

/// JSON that may stand in a script element: no character of it can end the element.
fn script_json(json: &serde_json::Value) -> Value {
    let text = json.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    safe(text)
}
