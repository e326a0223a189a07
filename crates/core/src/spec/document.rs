//! A TOML file as it was read: its text, its values, and where each value stands.

use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{SpecError, SpecErrors};
use super::field::{Field, Step};
use super::message::{self, Message};
use super::overrides::Override;
use super::schema;

/// Mistakes of the kind that stops the reader that are reported from one file at once.
const MISTAKES_MAX: usize = 20;

/// A TOML file with its values, some of which may have been replaced from the command line.
#[derive(Clone, Debug)]
pub struct Document {
    file: String,
    text: Arc<str>,
    table: toml::Table,
    overridden: Vec<(Field, String)>,
}

impl Document {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Where it is not TOML.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecErrors> {
        let text: Arc<str> = Arc::from(text);
        match toml::from_str::<toml::Table>(&text) {
            Ok(table) => Ok(Self { file: file.to_owned(), text, table, overridden: Vec::new() }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let (problem, help) = message::syntax(error.message());
                Err(SpecError::at(file, &text, span, "", problem, help).into())
            }
        }
    }

    /// The file's path or, for a shipped file, its place in the library.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's contents.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces a value, as `--set path=value` asks.
    ///
    /// # Errors
    /// If the path leads nowhere.
    pub fn set(&mut self, change: &Override) -> Result<(), SpecErrors> {
        let field = change.apply(&mut self.table)?;
        self.overridden.push((field, change.to_string()));
        Ok(())
    }

    /// Whether there is a value.
    pub fn has(&self, field: &Field) -> bool {
        let mut steps = field.steps.iter();
        let Some(Step::Key(first)) = steps.next() else { return true };
        let root = self.table.get(first);
        steps
            .try_fold(root, |value, step| match (step, value?) {
                (Step::Key(key), Value::Table(table)) => Some(table.get(key)),
                (Step::Index(index), Value::Array(items)) => Some(items.get(*index)),
                _ => None,
            })
            .flatten()
            .is_some()
    }

    /// The file's values as a typed specification.
    ///
    /// # Errors
    /// All mistakes in names and types that can be told apart, at most twenty: after each one the value is left out and the
    /// rest is read again.
    pub fn read<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, SpecErrors> {
        let mut errors = Vec::new();
        let mut table = self.table.clone();
        let mut left_out: Vec<Field> = Vec::new();
        while errors.len() < MISTAKES_MAX {
            let error = match serde_path_to_error::deserialize::<_, T>(table.clone()) {
                Ok(spec) if errors.is_empty() => return Ok(spec),
                Ok(_) => break,
                Err(error) => error,
            };
            let mut field = field_of(error.path());
            let mut message = message::of_serde(error.inner().message());
            if let Some(missing) = &message.missing {
                // A value that was left out because it is wrong is no second mistake.
                if !left_out.contains(&field.key(missing)) {
                    let meaning = schema::description::<T>(&field, missing);
                    let help = meaning.map(|meaning| format!("add `{missing}`: {meaning}"));
                    errors.push(self.error(&field, message.problem, help));
                }
                break;
            }
            if message.of_choice
                && let Some(words) = choices::<T>(&table, &field)
            {
                // Which words there are, serde says of a word only.
                message = words;
            }
            if let Some(Step::Key(key)) = field.steps.last()
                && let Some(help) = message::brackets(key, &field.to_string(), &message)
            {
                message.help = Some(help);
            }
            if let Some(unknown) = &message.unknown
                && field.steps.last() != Some(&Step::Key(unknown.clone()))
            {
                field = field.key(unknown);
            }
            errors.push(self.error(&field, message.problem, message.help));
            // Elements of arrays are never left out alone: that would move the ones behind.
            while matches!(field.steps.last(), Some(Step::Index(_))) {
                field.steps.pop();
            }
            if field.steps.is_empty() || !remove(&mut table, &field) {
                break;
            }
            left_out.push(field);
        }
        Err(SpecErrors::new(errors))
    }

    /// A mistake in a value of this file. If the value comes from the command line, the mistake says so.
    pub fn error(&self, field: &Field, problem: impl Into<String>, help: Option<String>) -> SpecError {
        let overridden = self.overridden.iter().rev().find(|(at, _)| at.contains(field));
        if let Some((_, change)) = overridden {
            return SpecError::elsewhere(&format!("--set {change}"), &field.to_string(), problem, help);
        }
        let span = locate(&self.text, field).unwrap_or(0..0);
        SpecError::at(&self.file, &self.text, span, &field.to_string(), problem, help)
    }
}

/// The place of a value within a text; of the closest table or array around it if it is not there.
fn locate(text: &str, field: &Field) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let mut table = Some(root.get_ref());
    let mut array = None;
    let mut span = 0..0;
    for step in &field.steps {
        let found = match step {
            Step::Key(key) => table.and_then(|table| table.get_key_value(key.as_str())),
            Step::Index(_) => None,
        };
        let value = match (found, step) {
            (Some((_, value)), _) => value,
            (None, Step::Index(index)) => match array.and_then(|items: &toml::de::DeArray<'_>| items.get(*index)) {
                Some(value) => value,
                None => break,
            },
            (None, Step::Key(_)) => break,
        };
        (table, array) = (None, None);
        match value.get_ref() {
            DeValue::Table(inner) => table = Some(inner),
            DeValue::Array(inner) => array = Some(inner),
            _ => {}
        }
        // A table made by dotted keys has no place of its own; its key has one.
        span = match found {
            Some((key, _)) if value.span().is_empty() => key.span(),
            _ => value.span(),
        };
    }
    Some(span)
}

/// What serde says of a value that is to be one of several words, but is none: the message for the value as a word.
fn choices<T: DeserializeOwned>(table: &toml::Table, field: &Field) -> Option<Message> {
    let mut table = table.clone();
    let value = value_at(&mut table, field)?;
    *value = Value::String(value.to_string());
    let error = serde_path_to_error::deserialize::<_, T>(table).err()?;
    let message = message::of_serde(error.inner().message());
    (field_of(error.path()) == *field && message.problem.starts_with("unknown value")).then_some(message)
}

/// A value, if it is there.
fn value_at<'t>(table: &'t mut toml::Table, field: &Field) -> Option<&'t mut Value> {
    let mut steps = field.steps.iter();
    let Some(Step::Key(first)) = steps.next() else { return None };
    steps.try_fold(table.get_mut(first)?, |value, step| match (step, value) {
        (Step::Key(key), Value::Table(table)) => table.get_mut(key),
        (Step::Index(index), Value::Array(items)) => items.get_mut(*index),
        _ => None,
    })
}

/// Removes a value; false if there is none.
fn remove(table: &mut toml::Table, field: &Field) -> bool {
    let Some((Step::Key(last), steps)) = field.steps.split_last() else { return false };
    let mut steps = steps.iter();
    let Some(first) = steps.next() else { return table.remove(last).is_some() };
    let Step::Key(first) = first else { return false };
    let inner = steps.try_fold(table.get_mut(first), |value, step| match (step, value?) {
        (Step::Key(key), Value::Table(table)) => Some(table.get_mut(key)),
        (Step::Index(index), Value::Array(items)) => Some(items.get_mut(*index)),
        _ => None,
    });
    match inner.flatten() {
        Some(Value::Table(table)) => table.remove(last).is_some(),
        _ => false,
    }
}

fn field_of(path: &serde_path_to_error::Path) -> Field {
    let mut steps = Vec::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => steps.push(Step::Index(*index)),
            Segment::Map { key } => steps.push(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    Field { steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at<'t>(text: &'t str, field: &Field) -> &'t str {
        &text[locate(text, field).expect("the text is TOML")]
    }

    #[test]
    fn finds_values_by_their_path() {
        let text = "name = 'a'\n[[stream]]\nfps = 1\n[[stream]]\nfps = 22\n[chain]\nx.stage = [{ name = 'b' }]\n";
        let stream = Field::root().key("stream");
        assert_eq!(text_at(text, &stream.index(1).key("fps")), "22");
        assert_eq!(text_at(text, &stream.index(1).key("gone")), "[[stream]]");
        assert_eq!(text_at(text, &Field::root().key("chain").key("x").key("stage").index(0).key("name")), "'b'");
        assert_eq!(text_at(text, &Field::root().key("gone")), "");
    }

    #[test]
    fn knows_which_values_are_there() {
        let document = Document::parse("f", "a = 1\n[[b]]\nc = 2\n").expect("is TOML");
        assert!(document.has(&Field::root().key("b").index(0).key("c")));
        assert!(!document.has(&Field::root().key("b").index(1).key("c")));
        assert!(!document.has(&Field::root().key("a").key("c")));
    }
}
