//! JSON and CSV.

use onbeat_report::{csv, json};

use crate::sample;

/// The shape of a JSON value: keys and types, one element of each list.
fn shape(value: &serde_json::Value, depth: usize) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) if depth == 0 => {
            Value::String(format!("object of {}", if map.is_empty() { "nothing" } else { "…" }))
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), shape(value, depth - 1))).collect(),
        Value::Array(list) => {
            list.first().map_or(Value::Array(Vec::new()), |first| Value::Array(vec![shape(first, depth)]))
        }
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => Value::Null,
    }
}

#[test]
fn the_json_has_its_documented_shape() {
    let value: serde_json::Value = serde_json::from_str(&json::render(&sample::usual())).expect("it is JSON");
    assert_eq!(value["format"], json::FORMAT);
    assert_eq!(value["comparisons"][0]["policies"][0]["policy"], "llf");
    assert_eq!(value["comparisons"][0]["policies"][0]["verdict"], "best");
    assert_eq!(value["comparisons"][0]["advice"]["policy"], "llf");
    insta::assert_snapshot!(serde_json::to_string_pretty(&shape(&value, 4)).expect("it is JSON"));
}

#[test]
fn the_csv_has_a_line_per_value() {
    let report = sample::usual();
    let text = csv::render(&report);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("scenario,platform,policy,seed,scope,name,metric,value"));
    let values = |summary: &onbeat_core::summary::Summary| {
        summary.run.len()
            + summary.sources.iter().map(|s| s.values.len()).sum::<usize>()
            + summary.processors.iter().map(|p| p.values.len()).sum::<usize>()
    };
    let expected: usize = report.comparisons[0].rows.iter().flat_map(|row| &row.runs).map(values).sum();
    assert_eq!(lines.count(), expected);
    assert!(text.contains("video-call,test-chip,llf,0,source,assistant,slo_attainment,"));
}

#[test]
fn names_with_commas_are_quoted() {
    let mut system = sample::system(0);
    system.scenario = "a, \"b\"".to_owned();
    let comparison = sample::comparison(system, &[("edf", &[0.0])], 1);
    let report = onbeat_report::Report { comparisons: vec![comparison], ..Default::default() };
    assert!(csv::render(&report).contains("\"a, \"\"b\"\"\",test-chip,edf"));
}
