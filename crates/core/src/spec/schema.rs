//! JSON Schemas of the files, for editors.

use schemars::schema_for;
use serde_json::Value;

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
