//! The reader's messages in the words of those who write files.

use crate::suggest;

/// A mistake in names or types.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub help: Option<String>,
    /// The field that is missing, if one is.
    pub missing: Option<String>,
    /// The field that is unknown, if one is.
    pub unknown: Option<String>,
}

/// Translates a message of serde.
pub(crate) fn of_serde(text: &str) -> Message {
    let text = text.trim_end();
    let names = quoted(text);
    if text.starts_with("unknown field") && !names.is_empty() {
        let help = suggest::help(names[0], names[1..].iter().copied());
        let problem = format!("unknown field `{}`", names[0]);
        return Message { problem, help: Some(help), unknown: Some(names[0].to_owned()), missing: None };
    }
    if text.starts_with("missing field") && !names.is_empty() {
        let problem = format!("missing field `{}`", names[0]);
        return Message { problem, missing: Some(names[0].to_owned()), ..Message::default() };
    }
    if text.starts_with("unknown variant") && !names.is_empty() {
        let help = suggest::help(names[0], names[1..].iter().copied());
        return Message { problem: format!("unknown value `{}`", names[0]), help: Some(help), ..Message::default() };
    }
    if let Some((found, wanted)) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .or_else(|| text.strip_prefix("invalid length "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        let problem = format!("does not fit: {}", this(found));
        return Message { problem, help: Some(format!("must be {}", kind(wanted))), ..Message::default() };
    }
    Message { problem: text.to_owned(), ..Message::default() }
}

/// Translates a message of the TOML parser.
pub(crate) fn syntax(text: &str) -> String {
    format!("not valid TOML: {}", text.trim_end().replace('\n', ", "))
}

/// What serde found, in words.
fn this(found: &str) -> String {
    let shortened: String = found.chars().take(80).collect();
    match shortened.as_str() {
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        other if other.starts_with(|c: char| c.is_ascii_digit()) => format!("{other} elements"),
        other => format!("the {}", other.replace("floating point", "number").replace('`', "")),
    }
}

/// What serde expected, in words.
fn kind(wanted: &str) -> String {
    match wanted {
        "f64" | "f32" => "a number".to_owned(),
        "u32" | "u64" | "usize" => "a whole number ≥ 0".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "a boolean" | "bool" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        "a tuple of size 2" => "a pair such as [100, 2.5]".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    }
}

/// The names between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_would_be_right() {
        let unknown = of_serde("unknown field `fsp`, expected one of `name`, `fps`");
        assert_eq!(unknown.problem, "unknown field `fsp`");
        assert_eq!(unknown.help.as_deref(), Some("did you mean `fps`? allowed: `name`, `fps`"));
        let wrong = of_serde("invalid type: string \"fast\", expected f64");
        assert_eq!(wrong.problem, "does not fit: the string \"fast\"");
        assert_eq!(wrong.help.as_deref(), Some("must be a number"));
        assert_eq!(of_serde("missing field `name`").missing.as_deref(), Some("name"));
        assert_eq!(of_serde("something new").problem, "something new");
    }
}
