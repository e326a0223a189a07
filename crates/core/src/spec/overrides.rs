//! Values from the command line: `--set stream.camera.fps=15`.

use std::fmt;

use toml::Value;

use super::error::{SpecError, SpecErrors};
use super::field::Field;
use crate::suggest;

/// Array elements that an index may name.
const INDEX_MAX: usize = 1_000_000;

/// A value that replaces one of a file.
///
/// The path's keys are separated by dots; keys with other characters than letters, digits, `_` and `-` stand in double quotes.
/// An element of an array of tables is named by its `name` or by its index, as in `stream.camera`, `stream.1` or `stream[1]`.
/// The value is a TOML value; what is none is taken as a string, so that `stream.camera.drop=late` works.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    path: Vec<String>,
    value: Value,
    text: String,
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Override {
    /// From `path=value`.
    ///
    /// # Errors
    /// Without a path or an equals sign.
    pub fn parse(text: &str) -> Result<Self, SpecErrors> {
        let wrong = |problem: &str| {
            let help = "write path=value, such as stream.camera.fps=15".to_owned();
            SpecErrors::from(SpecError::elsewhere(&format!("--set {text}"), "", problem, Some(help)))
        };
        let (path, value) = split(text).ok_or_else(|| wrong("there is no `=`"))?;
        let path = keys(path).ok_or_else(|| wrong("the path is not well formed"))?;
        let value = value.trim();
        // A value such as `1\nb = 2` would smuggle in a second key: it is taken as a string.
        let read = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let value = match read.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value")) {
            Some(read) => read,
            None => Value::String(value.to_owned()),
        };
        Ok(Self { path, value, text: text.to_owned() })
    }

    /// Whether the path starts with `key`.
    pub fn starts_with(&self, key: &str) -> bool {
        self.path.first().is_some_and(|first| first == key)
    }

    /// Without the first key of the path.
    #[must_use]
    pub fn within_first(&self) -> Self {
        Self { path: self.path.iter().skip(1).cloned().collect(), ..self.clone() }
    }

    /// Puts the value into a table and says where it went. Tables on the way are made if they are missing; elements of arrays are
    /// not.
    pub(crate) fn apply(&self, table: &mut toml::Table) -> Result<Field, SpecErrors> {
        let Some((first, rest)) = self.path.split_first() else {
            return Err(self.error(&Field::root(), "the path is empty", None));
        };
        let mut field = Field::root().key(first);
        let mut place = entry(table, first);
        for key in rest {
            match place {
                Value::Table(inner) => {
                    field = field.key(key);
                    place = entry(inner, key);
                }
                Value::Array(items) => {
                    let index = element(items, key).ok_or_else(|| {
                        let names = items.iter().filter_map(name);
                        self.error(&field, format!("there is no `{key}`"), Some(suggest::help(key, names)))
                    })?;
                    field = field.index(index);
                    place = &mut items[index];
                }
                _ => {
                    return Err(self.error(&field, format!("there is no `{key}` in a plain value"), None));
                }
            }
        }
        *place = self.value.clone();
        Ok(field)
    }

    fn error(&self, field: &Field, problem: impl Into<String>, help: Option<String>) -> SpecErrors {
        SpecError::elsewhere(&format!("--set {}", self.text), &field.to_string(), problem, help).into()
    }
}

fn entry<'t>(table: &'t mut toml::Table, key: &str) -> &'t mut Value {
    table.entry(key).or_insert_with(|| Value::Table(toml::Table::new()))
}

/// The element with this name or index.
fn element(items: &[Value], key: &str) -> Option<usize> {
    let named = items.iter().position(|item| name(item) == Some(key));
    named.or_else(|| key.parse().ok().filter(|&index| index < items.len().min(INDEX_MAX)))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

/// Splits at the first equals sign outside of quotes.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut within = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => within = !within,
            '=' if !within => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// The keys of a path; `None` if one is empty or a quote or bracket is left open.
fn keys(path: &str) -> Option<Vec<String>> {
    let mut keys = vec![String::new()];
    let mut quoted = false;
    let mut chars = path.trim().chars();
    while let Some(c) = chars.next() {
        let last = keys.last_mut()?;
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => keys.push(String::new()),
            '[' if !quoted => {
                let index: String = chars.by_ref().take_while(|&c| c != ']').collect();
                index.parse::<usize>().ok()?;
                keys.push(index);
            }
            c => last.push(c),
        }
    }
    (!quoted && keys.iter().all(|key| !key.is_empty())).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(change: &str, text: &str) -> Result<(Field, toml::Table), SpecErrors> {
        let mut table: toml::Table = toml::from_str(text).expect("the test's text is TOML");
        let field = Override::parse(change)?.apply(&mut table)?;
        Ok((field, table))
    }

    #[test]
    fn replaces_values_by_name_and_by_index() {
        let text = "[[stream]]\nname = 'camera'\nfps = 30\n";
        for change in ["stream.camera.fps=15", "stream[0].fps = 15", "stream.0.fps=15"] {
            let (field, table) = set(change, text).expect("the path exists");
            assert_eq!(field.to_string(), "stream[0].fps");
            assert_eq!(table["stream"][0]["fps"].as_integer(), Some(15));
        }
        let (_, table) = set("stream.camera.drop=late", text).expect("bare strings are accepted");
        assert_eq!(table["stream"][0]["drop"].as_str(), Some("late"));
        let (_, table) = set("variation={ kind = \"uniform\", spread = 0.1 }", text).expect("tables are values");
        assert_eq!(table["variation"]["spread"].as_float(), Some(0.1));
        let (field, _) = set("model.\"qwen2.5\".weights_mb=1", "").expect("tables on the way are made");
        assert_eq!(field.to_string(), "model.\"qwen2.5\".weights_mb");
    }

    #[test]
    fn says_which_names_there_are() {
        let error = set("stream.camra.fps=15", "[[stream]]\nname = 'camera'\n").expect_err("there is no camra");
        assert_eq!(
            error.to_string(),
            "--set stream.camra.fps=15: stream: there is no `camra` (did you mean `camera`? allowed: `camera`)"
        );
        for wrong in ["fps", "=1", "a..b=1", "a[x]=1", "\"a=1"] {
            assert!(set(wrong, "").is_err(), "{wrong}");
        }
    }
}
