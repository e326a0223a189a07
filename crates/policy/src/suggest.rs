//! What a user may have meant.

/// The candidate closest to `text`, if it is close: at most a third of its letters differ, and two are always allowed. Of equally
/// close ones the first.
pub(crate) fn closest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Names are short; a text of a megabyte in place of a name is not worth a quadratic search.
    if text.len() > 200 {
        return None;
    }
    let distances = candidates.into_iter().map(|candidate| (distance(text, candidate), candidate));
    let (distance, best) = distances.min_by_key(|&(distance, _)| distance)?;
    let letters = best.chars().count();
    (distance <= (letters / 3).max(2) && distance < letters).then(|| best.to_owned())
}

/// Edits between two names: insertions, deletions, replacements, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before[j - 2] + 1);
            }
            row.push(edits);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_closest_name_and_gives_up_on_strangers() {
        let names = ["edf", "p-edf", "latency-greedy"];
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("edf", "efd"), 1);
        assert_eq!(closest("edff", names).as_deref(), Some("edf"));
        assert_eq!(closest("pedf", names).as_deref(), Some("edf"));
        assert_eq!(closest("latency_greedy", names).as_deref(), Some("latency-greedy"));
        assert_eq!(closest("magic-scheduler", names), None);
    }
}
