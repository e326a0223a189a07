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

/// Fills paragraphs to the width and leaves tables and code as they are.
fn wrap_markdown(text: &str, width: usize) -> String {
    let mut filled = String::new();
    let mut paragraph = String::new();
    let mut code = false;
    let flush = |paragraph: &mut String, filled: &mut String| {
        for line in wrap(&std::mem::take(paragraph), width) {
            filled.push_str(&line);
            filled.push('\n');
        }
    };
    for line in text.lines() {
        let fence = line.starts_with("```");
        let as_it_is = code || fence || line.is_empty() || line.starts_with(['|', '#']);
        code ^= fence;
        if as_it_is || begins_item(line) {
            flush(&mut paragraph, &mut filled);
        }
        if as_it_is {
            filled.push_str(line);
            filled.push('\n');
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    flush(&mut paragraph, &mut filled);
    filled
}

/// Whether a line is the first of an item of a list.
fn begins_item(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("* ") || line.starts_with("- ") || (number.len() < line.len() && number.starts_with(". "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_filled_and_the_rest_stays() {
        let text = "# head\n\none two\nthree four\n* item a\n  goes on\n1. first\n\n| a very long row | stays |\n```\ncode  stays\n```\n";
        let filled = "# head\n\none two\nthree\nfour\n* item a\ngoes on\n1. first\n\n| a very long row | stays |\n```\ncode  stays\n```\n";
        assert_eq!(wrap_markdown(text, 9), filled);
    }
}
