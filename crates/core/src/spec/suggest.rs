//! "Did you mean": the closest of several names.

use std::fmt::Write;

/// Names listed in full; of more only a close one is named, or the first few.
const LISTED_MAX: usize = 24;

/// Help for an unknown name: the closest allowed one, if any is close, and the list of all.
pub(crate) fn help<'a>(name: &str, allowed: impl IntoIterator<Item = &'a str>) -> String {
    let allowed: Vec<&str> = allowed.into_iter().collect();
    if allowed.is_empty() {
        return "there is none".to_owned();
    }
    let mut help = String::new();
    if let Some(close) = closest(name, &allowed) {
        let _ = write!(help, "did you mean `{close}`? ");
    }
    if allowed.len() > LISTED_MAX && !help.is_empty() {
        return help.trim_end().to_owned();
    }
    let listed: Vec<String> = allowed.iter().take(LISTED_MAX).map(|name| format!("`{name}`")).collect();
    let _ = write!(help, "allowed: {}", listed.join(", "));
    if allowed.len() > LISTED_MAX {
        let _ = write!(help, " and {} more", allowed.len() - LISTED_MAX);
    }
    help
}

/// The closest name that differs in no more than a third of its letters (ties: the first).
pub(crate) fn closest<'a>(name: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // Names are short; a text of a megabyte in place of a name is not worth a quadratic search.
    if name.len() > 200 {
        return None;
    }
    let most = (name.chars().count() / 3).max(1);
    let near = allowed.iter().map(|candidate| (distance(name, candidate), *candidate));
    near.filter(|&(d, _)| d <= most).min_by_key(|&(d, _)| d).map(|(_, candidate)| candidate)
}

/// Edits (insertions, deletions, replacements, swaps of neighbours) between two names, capitals ignored.
fn distance(a: &str, b: &str) -> usize {
    let letters = |s: &str| s.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_close_name_and_no_distant_one() {
        assert_eq!(distance("fsp", "fps"), 1);
        assert_eq!(distance("deadline", "deadline_ms"), 3);
        assert_eq!(closest("fsp", &["name", "fps"]), Some("fps"));
        assert_eq!(closest("colour", &["fps", "drop"]), None);
        assert_eq!(help("x", ["a"; 0]), "there is none");
        assert_eq!(help("nmae", ["name", "kind"]), "did you mean `name`? allowed: `name`, `kind`");
    }
}
