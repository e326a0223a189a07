//! "Did you mean": the closest of several names.

use std::fmt::Write;

/// Names listed in full; of more only a close one is named, or the first few.
const LISTED_MAX: usize = 24;

/// Help for an unknown name: the closest allowed one, if any is close, and the list of all.
pub fn help<'a>(name: &str, allowed: impl IntoIterator<Item = &'a str>) -> String {
    let allowed: Vec<&str> = allowed.into_iter().collect();
    if allowed.is_empty() {
        return "there is none".to_owned();
    }
    let mut help = String::new();
    if let Some(close) = closest(name, allowed.iter().copied()) {
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

/// The closest name that differs in no more than a third of its letters, and one always; or else the shortest that goes on where this one
/// ends, as `deadline_ms` does after `deadline` (ties: the first).
pub fn closest<'a>(name: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names are short; a text of a megabyte in place of a name is not worth a quadratic search.
    if name.len() > 200 {
        return None;
    }
    let most = (name.chars().count() / 3).max(1);
    let goes_on = |candidate: &str| {
        let begins = candidate.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        begins && name.len() > 1 && candidate[name.len()..].starts_with(['_', '-', '.'])
    };
    let near = allowed.into_iter().filter_map(|candidate| match distance(name, candidate) {
        d if d <= most => Some((d, candidate)),
        _ if goes_on(candidate) => Some((most + candidate.len(), candidate)),
        _ => None,
    });
    near.min_by_key(|&(d, _)| d).map(|(_, candidate)| candidate)
}

/// Edits (insertions, deletions, replacements, swaps of neighbours) between two names, capitals ignored.
pub fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_close_name_and_no_distant_one() {
        assert_eq!(distance("fsp", "fps"), 1);
        assert_eq!(distance("deadline", "deadline_ms"), 3);
        assert_eq!(closest("fsp", ["name", "fps"]), Some("fps"));
        assert_eq!(closest("colour", ["fps", "drop"]), None);
        assert_eq!(closest("deadline", ["drop", "deadline_ms"]), Some("deadline_ms"));
        assert_eq!(closest("Llama", ["llama-3.2-10b", "llama-3.2-1b", "tiny-llama"]), Some("llama-3.2-1b"));
        assert_eq!(closest("dead", ["deadline_ms"]), None, "a name goes on after a separator");
        assert_eq!(help("x", ["a"; 0]), "there is none");
        assert_eq!(help("nmae", ["name", "kind"]), "did you mean `name`? allowed: `name`, `kind`");
    }
}
