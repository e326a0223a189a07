//! JSON Schemas of the files, for editors.

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use super::field::{Field, Step};
use super::library::FileKind;
use super::{PlatformSpec, ProfileSpec, ScenarioSpec};

/// The JSON Schema of a kind of file, with titles and descriptions.
pub fn schema(kind: FileKind) -> Value {
    let mut schema = match kind {
        FileKind::Platform => schema_for!(PlatformSpec),
        FileKind::Profile => schema_for!(ProfileSpec),
        FileKind::Scenario => schema_for!(ScenarioSpec),
    };
    schema.insert("title".to_owned(), format!("onbeat {} file", kind.name()).into());
    schema.to_value()
}

/// What the schema of a file says of a key of a table at a place in it, if it says anything; without the last full stop.
pub(crate) fn description<T: JsonSchema>(table: &Field, key: &str) -> Option<String> {
    let schema = schema_for!(T).to_value();
    let mut at = &schema;
    for step in &table.steps {
        at = referred(&schema, at)?;
        at = match step {
            Step::Key(key) => at["properties"].get(key).or_else(|| at.get("additionalProperties"))?,
            Step::Index(_) => at.get("items")?,
        };
    }
    let text = referred(&schema, at)?["properties"].get(key)?["description"].as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned())
}

/// What a schema refers to, directly or as one of several that may be (an optional value).
fn referred<'s>(schema: &'s Value, at: &'s Value) -> Option<&'s Value> {
    let several = at["anyOf"].as_array().or_else(|| at["oneOf"].as_array()).or_else(|| at["allOf"].as_array());
    if let Some(several) = several {
        return several.iter().find_map(|one| referred(schema, one).filter(|one| one["properties"].is_object()));
    }
    match at["$ref"].as_str() {
        Some(name) => schema.pointer(name.strip_prefix('#')?),
        None => Some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        for kind in [FileKind::Platform, FileKind::Profile, FileKind::Scenario] {
            let schema = schema(kind);
            assert_eq!(schema["title"], format!("onbeat {} file", kind.name()));
            assert_eq!(schema["additionalProperties"], false);
            for (name, property) in schema["properties"].as_object().expect("a file has fields") {
                assert!(property["description"].is_string(), "{name} has no description");
            }
        }
    }
}
