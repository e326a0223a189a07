//! Rules on the files of the checkout: none too long, none that knows somebody's machine, no link into nothing.

use std::path::Path;

use crate::output_of;

/// A longer file probably is two rooms in one.
const LINES_MAX: usize = 800;

/// Places that exist on one machine only. Written in two parts, so that this file does not find itself.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/Use", "rs/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/"),
];

/// Package registries: which one is used is a setting of the machine, never of the project.
const REGISTRIES: &[&str] = &[
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("deb.deb", "ian.org"),
];

/// Checks all files that git tracks or would track.
pub(crate) fn check() -> Result<(), String> {
    let files = output_of("git", &["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
    let mut problems = Vec::new();
    let mut count = 0;
    for file in files.split('\0').filter(|file| !file.is_empty()) {
        // A deleted file stays in git's list until the deletion is committed; what is not text has no lines.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        count += 1;
        problems.extend(problems_of(file, &text));
        if has_extension(file, "md") {
            problems.extend(broken_links(file, &text));
        }
    }
    println!("{count} text files");
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn problems_of(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if has_extension(file, "rs") && lines > LINES_MAX {
        problems.push(format!("{file}: {lines} lines, more than {LINES_MAX}; split it by what its parts are about"));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if let Some(place) = MACHINE_PATHS.iter().find(|place| starts_path(line, place)) {
            problems.push(format!("{file}:{number}: a path of somebody's machine: {place}"));
        }
        if let Some(host) = REGISTRIES.iter().find(|host| line.contains(**host)) {
            problems.push(format!("{file}:{number}: a package registry's host: {host}"));
        }
    }
    problems
}

/// Links of a Markdown file to files of the checkout that are not there.
fn broken_links(file: &str, text: &str) -> Vec<String> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut problems = Vec::new();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let path = link.split('#').next().unwrap_or_default();
        let elsewhere = path.is_empty() || path.contains("://") || path.contains(char::is_whitespace);
        if !elsewhere && !folder.join(path).exists() {
            problems.push(format!("{file}: links to {link}, which is not there"));
        }
    }
    problems
}

fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|other| other == extension)
}

/// Whether an absolute path in the line starts with `place`; `https://example.org/home/` and `target/tmp/` do not count.
fn starts_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-' | '}' | '~' | ']' | ')' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links_into_nothing() {
        let text = "[a](main.rs) [b](../Cargo.toml#x) [c](https://example.org/y) [d](#here) [e](nothing.md) f[0](x y)";
        let found = broken_links(concat!(env!("CARGO_MANIFEST_DIR"), "/src/page.md"), text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("nothing.md"));
    }

    #[test]
    fn finds_long_files_and_traces_of_a_machine() {
        assert!(problems_of("a.rs", &"\n".repeat(LINES_MAX)).is_empty());
        assert_eq!(problems_of("a.rs", &"\n".repeat(LINES_MAX + 1)).len(), 1);
        assert!(problems_of("a.csv", &"\n".repeat(LINES_MAX + 1)).is_empty());
        let home = MACHINE_PATHS[0];
        assert_eq!(problems_of("a.md", &format!("see `{home}me/notes`")).len(), 1);
        assert_eq!(problems_of("a.md", &format!("{home}me")).len(), 1);
        assert!(problems_of("a.md", &format!("https://example.org{home}page and target{home}x")).is_empty());
        assert_eq!(problems_of("a.toml", &format!("url = \"https://{}/x\"", REGISTRIES[0])).len(), 1);
    }
}
