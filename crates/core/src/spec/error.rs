//! What is wrong with a file, where, and what would be right.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

/// One mistake in a file, as plain data. The command line renders it with the source text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SpecError {
    /// The file's path or, for a shipped file, its place in the library; the whole `--set path=value` for a value that comes
    /// from the command line. May be empty.
    pub file: String,
    /// The file's contents; empty if there is no text to show.
    pub text: Arc<str>,
    /// The value within the text [bytes]; empty if unknown.
    pub span: Range<usize>,
    /// Line, from 1; 0 if the mistake is in no line.
    pub line: usize,
    /// Column, from 1, in characters; 0 if the mistake is in no line.
    pub column: usize,
    /// The field, such as `stream[1].fps`; may be empty.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub help: Option<String>,
}

impl SpecError {
    /// A mistake that is in no line of a file.
    pub fn elsewhere(file: &str, field: &str, problem: impl Into<String>, help: Option<String>) -> Self {
        Self {
            file: file.to_owned(),
            text: Arc::from(""),
            span: 0..0,
            line: 0,
            column: 0,
            field: field.to_owned(),
            problem: problem.into(),
            help,
        }
    }

    /// A mistake at a place in a file.
    pub fn at(
        file: &str,
        text: &Arc<str>,
        span: Range<usize>,
        field: &str,
        problem: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        let (line, column) = line_and_column(text, span.start);
        let error = Self::elsewhere(file, field, problem, help);
        Self { text: Arc::clone(text), span, line, column, ..error }
    }
}

impl fmt::Display for SpecError {
    /// `file:line:column: field: problem (help)`, without the parts that are unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// All mistakes that were found at once, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SpecErrors {
    /// The mistakes: file by file, from top to bottom.
    pub errors: Vec<SpecError>,
}

impl SpecErrors {
    /// Sorted, each mistake once.
    pub fn new(mut errors: Vec<SpecError>) -> Self {
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        errors.dedup();
        Self { errors }
    }
}

impl From<SpecError> for SpecErrors {
    fn from(error: SpecError) -> Self {
        Self { errors: vec![error] }
    }
}

impl fmt::Display for SpecErrors {
    /// One mistake a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Line and column, from 1, of a byte position; positions past the end or within a character are moved back.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a = 1\nß = 2\n";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find('2').expect("is there")), (2, 5));
        assert_eq!(line_and_column(text, 999), (3, 1));
    }
}
