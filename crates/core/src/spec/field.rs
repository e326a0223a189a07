//! Where a value stands in a file: `stream[1].fps`.

use std::fmt;

/// The way from the root of a file to one of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The steps from the root.
    pub steps: Vec<Step>,
}

/// One step into a table or an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

impl Field {
    /// The file itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The value under a key of this table.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// An element of this array.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// Whether `other` is this value or lies within it.
    pub fn contains(&self, other: &Self) -> bool {
        other.steps.starts_with(&self.steps)
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if i == 0 { "" } else { "." };
                    let bare =
                        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                    if bare { write!(f, "{dot}{key}")? } else { write!(f, "{dot}{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_people_write_it() {
        let field = Field::root().key("stream").index(1).key("fps");
        assert_eq!(field.to_string(), "stream[1].fps");
        assert_eq!(Field::root().key("model").key("qwen2.5").to_string(), "model.\"qwen2.5\"");
        assert!(Field::root().key("stream").contains(&field) && !field.contains(&Field::root()));
    }
}
