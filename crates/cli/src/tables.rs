//! Small tables in the look of the report's.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use crate::ui::Ui;

/// What a cell says, beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing more.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
    /// Something needs attention.
    Doubtful,
    /// It stands back.
    Weak,
}

/// A table of which the first column is text and, by default, the others are numbers.
#[derive(Debug)]
pub(crate) struct Grid {
    table: Table,
    right: Vec<bool>,
    color: bool,
}

impl Grid {
    /// With these headings. Columns whose heading starts with `<` hold text and are aligned to the left.
    pub(crate) fn new(ui: Ui, headings: &[&str]) -> Self {
        let right: Vec<bool> = headings.iter().enumerate().map(|(i, text)| i > 0 && !text.starts_with('<')).collect();
        let mut table = Table::new();
        // Lines around the heading and at the end only: columns, not boxes.
        table.load_preset("  ── ──      ──    ").set_content_arrangement(ContentArrangement::Disabled);
        let cells = headings.iter().zip(&right).map(|(text, &right)| {
            let cell = Cell::new(text.trim_start_matches('<'));
            if right { cell.set_alignment(CellAlignment::Right) } else { cell }
        });
        table.set_header(cells);
        Self { table, right, color: ui.color }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = (T, Tone)>) {
        let cells = cells.into_iter().enumerate().map(|(i, (text, tone))| {
            let cell = Cell::new(text.into());
            let cell = if self.right.get(i) == Some(&true) { cell.set_alignment(CellAlignment::Right) } else { cell };
            match tone {
                _ if !self.color => cell,
                Tone::Plain => cell,
                Tone::Good => cell.fg(Color::Green),
                Tone::Bad => cell.fg(Color::Red),
                Tone::Doubtful => cell.fg(Color::Yellow),
                Tone::Weak => cell.add_attribute(Attribute::Dim),
            }
        });
        let row: Vec<Cell> = cells.collect();
        self.table.add_row(row);
    }

    /// The table as text, a newline after every line.
    pub(crate) fn finish(mut self) -> String {
        if self.color {
            self.table.enforce_styling();
        }
        self.table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}
