//! `onbeat show`: a shipped file's text, a policy's page, a model, a metric's meaning.

use crate::args::ShowArgs;
use crate::catalogue::{self, Page};
use crate::failure::{Failure, similar};
use crate::ui::{Ui, wrap};

/// Prints the page.
pub(crate) fn run(args: &ShowArgs, ui: Ui) -> Result<(), Failure> {
    let pages = catalogue::pages(&args.name);
    if pages.is_empty() {
        let names = catalogue::names();
        let meant = similar(&args.name, names.iter().map(String::as_str));
        let help = if meant.is_empty() {
            "`onbeat list` shows all names".to_owned()
        } else {
            format!("did you mean {}? `onbeat list` shows all names", meant.join(", "))
        };
        return Err(Failure::usage(format!("there is nothing called `{}`", args.name), help));
    }
    let texts: Vec<String> = pages
        .into_iter()
        .map(|page| match page {
            Page::File(text) => text,
            Page::Text(text) => wrap_markdown(&text, usize::from(ui.width)),
        })
        .collect();
    ui.print(&texts.join("\n"))
}

/// Wraps paragraphs and leaves tables and code as they are.
fn wrap_markdown(text: &str, width: usize) -> String {
    let mut wrapped = String::new();
    let mut code = false;
    for line in text.lines() {
        let fence = line.starts_with("```");
        code ^= fence;
        if code || fence || line.starts_with('|') || line.chars().count() <= width {
            wrapped.push_str(line);
            wrapped.push('\n');
        } else {
            for part in wrap(line, width) {
                wrapped.push_str(&part);
                wrapped.push('\n');
            }
        }
    }
    wrapped
}
