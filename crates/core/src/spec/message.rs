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
    /// Whether one of several words was expected and the value is no word.
    pub of_choice: bool,
}

/// Translates a message of serde.
pub(crate) fn of_serde(text: &str) -> Message {
    let text = text.trim_end();
    let names = quoted(text);
    if text.starts_with("unknown field") && !names.is_empty() {
        let help = suggest::help(names[0], names[1..].iter().copied());
        let problem = format!("unknown field `{}`", names[0]);
        return Message { problem, help: Some(help), unknown: Some(names[0].to_owned()), ..Message::default() };
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
        let of_choice = wanted.starts_with("string only") || wanted.starts_with("enum ") || found == "unit variant";
        return Message { problem, help: Some(format!("must be {}", kind(wanted))), of_choice, ..Message::default() };
    }
    Message { problem: text.to_owned(), ..Message::default() }
}

/// Translates a message of the TOML parser: what is wrong and, for what happens most, what would be right.
pub(crate) fn syntax(text: &str) -> (String, Option<String>) {
    let help = if text.contains("string values must be quoted") {
        Some("put texts into straight double quotes: \"camera\"")
    } else if text.contains("duplicate key") {
        Some("give it once; entries of a list have two brackets, such as `[[stream]]`")
    } else if text.contains("unexpected key or value") {
        Some("write one `key = value` per line; numbers have a point, as in 12.5")
    } else {
        None
    };
    (format!("not valid TOML: {}", text.trim_end().replace('\n', ", ")), help.map(str::to_owned))
}

/// Lists of tables, in all kinds of files.
const LISTS: [&str; 9] =
    ["stream", "session", "phase", "stage", "repeat", "cost", "processor", "operating_point", "link"];

/// Tables whose entries have names of the user's choice.
const NAMED: [&str; 6] = ["chain", "model", "variant", "content", "adapter", "source"];

/// What would be right where one pair of brackets too few, or too many, makes a table of a list or a list of a table. `key` is the last of
/// the field's path, `path` all of it.
pub(crate) fn brackets(key: &str, path: &str, message: &Message) -> Option<String> {
    let plain = !path.contains('[');
    match message.help.as_deref()? {
        "must be an array" if message.problem.ends_with("a table") && LISTS.contains(&key) && plain => {
            Some(format!("must be a list: write `[[{path}]]`, with two brackets, above each entry"))
        }
        "must be a table" if message.problem.ends_with("an array") && NAMED.contains(&key) && plain => {
            Some(format!("must be a table: write `[{path}.NAME]`, with one bracket, above each entry"))
        }
        _ => None,
    }
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
        other if other.starts_with("struct ") => match example(other.trim_start_matches("struct ")) {
            Some(example) => format!("a table such as {{ {example} }}"),
            None => "a table".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// An entry that is often taken for a plain value, as it may look.
fn example(of: &str) -> Option<&'static str> {
    Some(match of {
        "EdgeSpec" => "stage = \"detect\"",
        "ArrivalSpec" => "process = \"poisson\", rate_per_s = 0.2",
        "QualitySpec" => "metric = \"mIoU\", value = 95.3, higher_is_better = true",
        "MemorySpec" => "bandwidth_gbps = 60",
        "VariationSpec" => "kind = \"lognormal\", spread = 0.1",
        "DraftSpec" => "model = \"small\", tokens = 4, acceptance = 0.7",
        "SplitSpec" => "points = 65, kb = 12",
        "ReuseSpec" => "every = 3, step_ms = 20",
        "ActionsSpec" => "count = 50, period_ms = 20",
        _ => return None,
    })
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
        let edge = of_serde("invalid type: string \"a\", expected struct EdgeSpec");
        assert_eq!(edge.help.as_deref(), Some("must be a table such as { stage = \"detect\" }"));
        let one_bracket = of_serde("invalid type: map, expected a sequence");
        let help = brackets("stream", "stream", &one_bracket).unwrap();
        assert_eq!(help, "must be a list: write `[[stream]]`, with two brackets, above each entry");
        assert_eq!(brackets("during", "stream[0].during", &one_bracket), None);
        let two_brackets = of_serde("invalid type: sequence, expected a map");
        let help = brackets("chain", "chain", &two_brackets).unwrap();
        assert_eq!(help, "must be a table: write `[chain.NAME]`, with one bracket, above each entry");
    }
}
