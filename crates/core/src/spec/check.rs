//! Checks of single values that report what is wrong and go on.

use super::document::Document;
use super::error::SpecError;
use super::field::Field;
use super::limits::{Limit, NAME_MAX, POINTS_MAX};
use crate::suggest;

/// Collects the mistakes of one file.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    /// The file.
    pub document: &'a Document,
    /// The mistakes so far.
    pub errors: &'a mut Vec<SpecError>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(document: &'a Document, errors: &'a mut Vec<SpecError>) -> Self {
        Self { document, errors }
    }

    /// Reports a mistake.
    pub(crate) fn wrong(&mut self, field: &Field, problem: impl Into<String>, help: impl Into<String>) {
        let help = help.into();
        let help = (!help.is_empty()).then_some(help);
        self.errors.push(self.document.error(field, problem, help));
    }

    /// Reports an unknown name.
    pub(crate) fn unknown<'n>(
        &mut self,
        field: &Field,
        what: &str,
        name: &str,
        allowed: impl IntoIterator<Item = &'n str>,
    ) {
        self.wrong(field, format!("unknown {what} `{name}`"), suggest::help(name, allowed));
    }

    /// A number within its limits.
    pub(crate) fn number(&mut self, table: &Field, key: &str, value: f64, limit: &Limit) -> bool {
        self.value(&table.key(key), value, limit)
    }

    /// A number within its limits, if it is given.
    pub(crate) fn optional(&mut self, table: &Field, key: &str, value: Option<f64>, limit: &Limit) -> bool {
        value.is_none_or(|value| self.number(table, key, value, limit))
    }

    /// A number within its limits, at a place.
    pub(crate) fn value(&mut self, field: &Field, value: f64, limit: &Limit) -> bool {
        let fine = limit.allows(value);
        if !fine {
            self.wrong(field, format!("{value} is out of range"), limit.describe());
        }
        fine
    }

    /// A name that is neither empty nor a novel.
    pub(crate) fn name(&mut self, field: &Field, name: &str) {
        if name.trim().is_empty() {
            self.wrong(field, "the name is empty", "give it a name");
        } else if name.chars().count() > NAME_MAX || name.contains(char::is_control) {
            self.wrong(
                field,
                "the name is too long or contains control characters",
                format!("use at most {NAME_MAX} plain characters"),
            );
        }
    }

    /// Names that must be different. `fields` are where they stand.
    pub(crate) fn distinct<'n>(&mut self, what: &str, names: impl IntoIterator<Item = (Field, &'n str)>) {
        let mut seen = std::collections::BTreeSet::new();
        for (field, name) in names {
            if !seen.insert(name) {
                self.wrong(&field, format!("there are two {what} named `{name}`"), "every name must be different");
            }
        }
    }

    /// Points of a table: x strictly increasing within limits, y within limits and, if `rising`, never decreasing.
    pub(crate) fn points(&mut self, field: &Field, points: &[(f64, f64)], x: &Limit, y: &Limit, rising: bool) -> bool {
        if points.is_empty() || points.len() > POINTS_MAX {
            self.wrong(
                field,
                format!("a table of {} points", points.len()),
                format!("must have 1 to {POINTS_MAX} points"),
            );
            return false;
        }
        for (i, &point) in points.iter().enumerate() {
            let at = field.index(i);
            if !self.value(&at.index(0), point.0, x) || !self.value(&at.index(1), point.1, y) {
                return false;
            }
            if i > 0 && points[i - 1].0 >= point.0 {
                let problem = format!("{} does not come after {}", point.0, points[i - 1].0);
                self.wrong(&at.index(0), problem, "the first numbers of the points must increase");
                return false;
            }
            if rising && i > 0 && points[i - 1].1 > point.1 {
                let problem = format!("the table falls from {} to {}", points[i - 1].1, point.1);
                self.wrong(&at.index(1), problem, "the second numbers of the points must not decrease");
                return false;
            }
        }
        true
    }
}
