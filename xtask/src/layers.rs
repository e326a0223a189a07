//! Which crate may use which, and what the dependencies' licences and sources may be.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{call, output_of};

/// Our crates and those of ours that each may use, as `ARCHITECTURE.md` draws it. Tests (dev-dependencies) may look anywhere.
const ARROWS: &[(&str, &[&str])] = &[
    ("onbeat-core", &[]),
    ("onbeat-policy", &["onbeat-core"]),
    ("onbeat-analysis", &["onbeat-core"]),
    ("onbeat-report", &["onbeat-core"]),
    ("onbeat-driver", &["onbeat-core"]),
    ("onbeat-sim", &["onbeat-core", "onbeat-driver"]),
    ("onbeat-backend", &[]),
    ("onbeat-onnx", &[]),
    ("onbeat-backend-rten", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-backend-ort", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-backend-remote", &["onbeat-backend"]),
    ("onbeat-backend-llama", &["onbeat-backend"]),
    ("onbeat-language", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-speech", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-voice", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-vision", &["onbeat-backend", "onbeat-onnx"]),
    ("onbeat-models", &["onbeat-backend", "onbeat-language", "onbeat-speech", "onbeat-voice", "onbeat-vision"]),
    ("onbeat-runtime", &["onbeat-core", "onbeat-driver", "onbeat-backend"]),
    (
        "onbeat",
        &[
            "onbeat-core",
            "onbeat-policy",
            "onbeat-driver",
            "onbeat-analysis",
            "onbeat-report",
            "onbeat-sim",
            "onbeat-backend",
            "onbeat-backend-rten",
            "onbeat-backend-ort",
            "onbeat-backend-remote",
            "onbeat-backend-llama",
            "onbeat-models",
            "onbeat-speech",
            "onbeat-vision",
            "onbeat-runtime",
        ],
    ),
    ("xtask", &["onbeat-core", "onbeat-policy", "onbeat-analysis", "onbeat"]),
];

/// Dependencies that bring a capability, and the only crates of ours that may use them directly.
const CAPABILITIES: &[(&str, &[&str])] = &[
    ("rayon", &["onbeat", "onbeat-backend-rten"]), // Threads for simulations side by side, and for networks.
    ("crossbeam-channel", &["onbeat", "onbeat-runtime"]), // Threads that talk.
    ("indicatif", &["onbeat"]),                    // The terminal.
    ("clap", &["onbeat"]),                         // The command line.
    ("miette", &["onbeat"]),                       // Errors as people see them.
    ("ureq", &["onbeat-backend-remote"]),          // HTTP.
    ("tokio", &["onbeat"]),                        // Async.
    ("axum", &["onbeat"]),                         // HTTP.
];

/// The one source of dependencies, as `Cargo.lock` names it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks arrows, licences and sources from `cargo metadata`, and the rest of `deny.toml` where cargo-deny is installed.
pub(crate) fn check() -> Result<(), String> {
    let metadata = output_of("cargo", &["metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|problem| format!("cargo metadata: {problem}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let deny = std::fs::read_to_string("deny.toml").map_err(|problem| format!("deny.toml: {problem}"))?;
    let allowed = allowed_licences(&deny)?;
    let mut problems = Vec::new();
    for package in packages {
        if package["source"].is_null() {
            problems.extend(problems_of_ours(package));
        } else {
            problems.extend(problems_of_dependency(package, &allowed));
        }
    }
    println!("{} packages", packages.len());
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    if output_of("cargo", &["deny", "--version"]).is_ok() {
        call("cargo", &["deny", "--offline", "check", "licenses", "bans", "sources"], &[])?;
    } else {
        println!("cargo-deny is not installed: duplicates and bans of deny.toml are not checked");
    }
    Ok(())
}

/// What is wrong with the dependencies of one of our crates.
fn problems_of_ours(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some((_, may_use)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        return vec![format!("{name}: a new crate needs a line in xtask's `ARROWS` and in ARCHITECTURE.md")];
    };
    let mut problems = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let used = dependency["name"].as_str().unwrap_or_default();
        if dependency["kind"] == "dev" {
            continue;
        }
        if dependency["path"].is_string() && !may_use.contains(&used) {
            problems.push(format!("{name} must not use {used}; it may use: {}", may_use.join(", ")));
        }
        if let Some((_, users)) = CAPABILITIES.iter().find(|(capability, _)| *capability == used)
            && !users.contains(&name)
        {
            problems.push(format!("{name} must not use {used}; only {} may", users.join(", ")));
        }
    }
    problems
}

/// What is wrong with a dependency itself.
fn problems_of_dependency(package: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    let name = format!("{} {}", package["name"].as_str().unwrap_or("?"), package["version"].as_str().unwrap_or("?"));
    let mut problems = Vec::new();
    if package["source"] != CRATES_IO {
        problems.push(format!("{name}: comes from {}, not from crates.io", package["source"]));
    }
    match package["license"].as_str() {
        Some(licence) if permits(licence, allowed) => {}
        Some(licence) => {
            problems.push(format!("{name}: licence `{licence}` is not allowed by deny.toml"));
        }
        None => problems.push(format!("{name}: states no licence")),
    }
    problems
}

/// The licences that `deny.toml` allows.
fn allowed_licences(deny: &str) -> Result<BTreeSet<String>, String> {
    let table: toml::Table = deny.parse().map_err(|problem| format!("deny.toml: {problem}"))?;
    let allow = table.get("licenses").and_then(|licenses| licenses.get("allow")).and_then(toml::Value::as_array);
    let allow = allow.ok_or("deny.toml: no `licenses.allow`")?;
    Ok(allow.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect())
}

/// Whether the allowed licences satisfy an SPDX expression. `OR` binds less than `AND`; old crates write `/` for `OR`.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let ok = any_of(&mut words, allowed);
    ok && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut ok = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        // Not `||` in one line: the right side must be read even if the left one suffices.
        let right = all_of(words, allowed);
        ok = ok || right;
    }
    ok
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut ok = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        let right = one(words, allowed);
        ok = ok && right;
    }
    ok
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let ok = any_of(words, allowed);
        return words.next_if_eq(&")").is_some() && ok;
    }
    let Some(licence) = words.next() else { return false };
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().unwrap_or_default();
        return allowed.contains(&format!("{licence} WITH {exception}"));
    }
    allowed.contains(licence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_judged_as_spdx_defines_them() {
        let allowed: BTreeSet<String> =
            ["MIT", "Apache-2.0", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
        for ok in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "MIT OR GPL-3.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "MIT OR GPL-3.0 AND LGPL-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(permits(ok, &allowed), "{ok}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "MIT WITH LLVM-exception",
            "",
            "(MIT",
            "MIT MIT",
        ] {
            assert!(!permits(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_forbidden_arrow_is_found_and_a_test_may_look_anywhere() {
        let package = |kind: Value, used: &str| serde_json::json!({ "name": "onbeat-policy", "dependencies": [{ "name": used, "kind": kind, "path": "/x" }] });
        assert!(problems_of_ours(&package(Value::Null, "onbeat-core")).is_empty());
        assert_eq!(problems_of_ours(&package(Value::Null, "onbeat-sim")).len(), 1);
        assert!(problems_of_ours(&package("dev".into(), "onbeat-sim")).is_empty());
        assert_eq!(problems_of_ours(&serde_json::json!({ "name": "onbeat-new" })).len(), 1);
        let rayon = serde_json::json!({ "name": "onbeat-sim", "dependencies": [{ "name": "rayon", "kind": null }] });
        assert_eq!(problems_of_ours(&rayon).len(), 1);
    }

    #[test]
    fn licences_of_deny_toml_are_read() {
        let allowed = allowed_licences(include_str!("../../deny.toml")).unwrap();
        assert!(allowed.contains("MIT") && !allowed.contains("GPL-3.0"));
        assert!(allowed_licences("[bans]").is_err());
    }
}
