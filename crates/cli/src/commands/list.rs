//! `onbeat list`: what there is, with one line each.

use serde_json::{Map, Value};

use crate::args::{ListArgs, ListKind, PlainFormat};
use crate::catalogue::{self, Entry};
use crate::failure::Failure;
use crate::ui::{Ui, push, wrap};

/// Listed without a kind; models and metrics are long lists.
const OVERVIEW: [ListKind; 3] = [ListKind::Scenarios, ListKind::Platforms, ListKind::Policies];

/// Prints the lists.
pub(crate) fn run(args: &ListArgs, ui: Ui) -> Result<(), Failure> {
    let kinds = args.kind.as_ref().map_or(OVERVIEW.as_slice(), std::slice::from_ref);
    let lists: Vec<(ListKind, Vec<Entry>)> = kinds.iter().map(|&kind| (kind, catalogue::entries(kind))).collect();
    match args.format {
        PlainFormat::Table => ui.print(&text(&lists, args.kind.is_none(), ui)),
        PlainFormat::Json => {
            let object: Map<String, Value> = lists
                .iter()
                .map(|(kind, entries)| (heading(*kind).to_lowercase(), entries.iter().map(Entry::to_json).collect()))
                .collect();
            ui.print(&serde_json::to_string_pretty(&object).expect("strings and lists of strings"))
        }
    }
}

fn text(lists: &[(ListKind, Vec<Entry>)], overview: bool, ui: Ui) -> String {
    let mut text = String::new();
    for (kind, entries) in lists {
        if !text.is_empty() {
            text.push('\n');
        }
        push(&mut text, format_args!("{}\n", ui.bold(heading(*kind))));
        let column = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0) + 2;
        let width = usize::from(ui.width).saturating_sub(column + 2).max(30);
        for entry in entries {
            let mut name = format!("{:column$}", entry.name);
            for line in wrap(&entry.description, width) {
                push(&mut text, format_args!("  {name}{line}\n"));
                name = " ".repeat(column);
            }
            for note in &entry.notes {
                for line in wrap(note, width) {
                    push(&mut text, format_args!("  {:column$}{}\n", "", ui.dim(&line)));
                }
            }
        }
    }
    if overview {
        push(
            &mut text,
            format_args!("\n{}\n", ui.dim("More: `onbeat list models`, `onbeat list metrics`, `onbeat show NAME`")),
        );
    }
    text
}

fn heading(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Policies => "Policies",
        ListKind::Platforms => "Platforms",
        ListKind::Scenarios => "Scenarios",
        ListKind::Models => "Models",
        ListKind::Metrics => "Metrics",
    }
}
