//! Whatever a file holds, the answer is a system or a list of mistakes.

use std::io;

use onbeat_core::spec::{FileKind, Library, NoFiles, Options, Override, TraceWindow, read_trace};
use proptest::prelude::*;

use crate::mistakes::GOOD;

/// Resolves whatever it is; a system must be sound and survive JSON.
fn try_resolve(text: &str, platform: Option<&str>, options: &Options) {
    let files = |_: &str| -> io::Result<String> { Ok(text.to_owned()) };
    match Library::shipped().resolve_text("fuzz.toml", text, platform, options, &files) {
        Ok(system) => {
            system.validate().expect("a system that resolves is sound");
            let json = serde_json::to_string(&system).expect("a system can be written");
            let back: onbeat_core::system::System = serde_json::from_str(&json).expect("a system can be read back");
            assert_eq!(back.hash(), system.hash());
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            for error in &errors.errors {
                assert!(error.text.get(error.span.clone()).is_some(), "the span lies within the text: {error:?}");
            }
            assert!(!errors.to_string().is_empty());
        }
    }
}

/// Values that files should not have, and some that they may.
const VALUES: &[&str] = &[
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "1e300",
    "-0.0",
    "1e-300",
    "9223372036854775807",
    "4294967296",
    "\"\"",
    "\"camera\"",
    "[]",
    "[[]]",
    "[[0, 0]]",
    "[[1, 1], [1, 1]]",
    "[[0, 1], [1, 0]]",
    "{}",
    "{ kind = \"normal\", mean = 1, std = 0 }",
    "true",
    "1979-05-27",
    "[\"call\", \"call\"]",
    "\"\\u0000\"",
    "16",
    "[[1, 1e-6], [1.0000001, 86400000]]",
];

/// The places of values in a text: what stands behind an equals sign, up to the end of the value as far as a simple eye can see.
fn values(text: &str) -> Vec<(usize, usize)> {
    let starts = text.match_indices(" = ").map(|(at, _)| at + 3);
    starts
        .map(|start| {
            let rest = &text[start..];
            let end = rest.find(['\n', ',', '}']).unwrap_or(rest.len());
            (start, start + end)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        try_resolve(&text, None, &Options::default());
        let _ = read_trace("fuzz.csv", &text, &window());
        let _ = Override::parse(&text);
    }

    #[test]
    fn files_with_pieces_cut_out_never_panic(from in 0..GOOD.len(), length in 0..200_usize) {
        let mut text = GOOD.to_owned();
        let to = (from + length).min(text.len());
        text.replace_range(from..to, "");
        try_resolve(&text, None, &Options::default());
    }

    #[test]
    fn files_with_odd_values_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(VALUES)), 1..4)) {
        let mut text = GOOD.to_owned();
        for (place, value) in changes {
            let places = values(&text);
            let (start, end) = places[place.index(places.len())];
            text.replace_range(start..end, value);
        }
        try_resolve(&text, None, &Options::default());
    }

    #[test]
    fn files_with_odd_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..6)) {
        let mut text = GOOD.to_owned();
        for (place, value) in changes {
            let mut at = place.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
            text.replace_range(at..end, value.encode_utf8(&mut [0; 4]));
        }
        try_resolve(&text, None, &Options::default());
    }

    #[test]
    fn odd_overrides_never_panic(path in "[a-z._\\[\\]0-9\"]{0,20}", value in prop::sample::select(VALUES)) {
        let options = Options { overrides: vec![format!("{path}={value}")], ..Options::default() };
        try_resolve(GOOD, None, &options);
    }

    #[test]
    fn damaged_traces_never_panic(rows in prop::collection::vec("[0-9a-z:. ,-]{0,30}", 0..8)) {
        let text = format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{}", rows.join("\n"));
        let _ = read_trace("fuzz.csv", &text, &window());
    }
}

#[test]
fn shipped_scenarios_with_a_line_less_never_panic() {
    let library = Library::shipped();
    for name in library.names(FileKind::Scenario).into_iter().take(6) {
        let text = library.text(FileKind::Scenario, name).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for without in 0..lines.len() {
            let rest: Vec<&str> =
                lines.iter().enumerate().filter(|&(i, _)| i != without).map(|(_, line)| *line).collect();
            try_resolve(&rest.join("\n"), None, &Options::default());
        }
    }
}

#[test]
fn deeply_nested_files_are_refused() {
    let text = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Library::shipped().resolve_text("deep.toml", &text, None, &Options::default(), &NoFiles).is_err());
}

fn window() -> TraceWindow {
    TraceWindow {
        from_s: 0.0,
        to_s: f64::INFINITY,
        speed: 1.0,
        start_s: 0.0,
        max_prompt: u32::MAX,
        max_output: u32::MAX,
    }
}
