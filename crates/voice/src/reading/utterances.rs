//! Cutting texts where one can pause. Sentences as in `tts.py` of hibari-tts 0.2.1 (Apache-2.0).

/// Longest piece that the network speaks at once [phonemes]; longer sentences are cut at commas, or else at spaces.
pub const PHONEMES_MAX: usize = 400;

/// The sentences of a text: lines, cut after points, question and exclamation marks.
pub(super) fn sentences(text: &str, is_title: impl Fn(&str) -> bool) -> Vec<&str> {
    let mut sentences = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut start = 0;
        let mut marks = line.char_indices().filter(|(_, c)| matches!(c, '.' | '!' | '?' | '…'));
        while let Some((at, mark)) = marks.find(|(at, _)| *at >= start) {
            let end = at + mark.len_utf8();
            let rest = line[end..].trim_start_matches(['"', '”', '’', ')', ']']);
            let next = rest.trim_start();
            if next.len() == rest.len() || next.is_empty() || !ends_sentence(&line[start..end], next, &is_title) {
                continue;
            }
            sentences.push(line[start..end].trim());
            start = line.len() - next.len();
        }
        sentences.push(line[start..].trim());
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

/// Whether a sentence ends here: not after a title ("Dr. Smith") or an initial ("J. K."), and not before a small letter.
fn ends_sentence(before: &str, next: &str, is_title: impl Fn(&str) -> bool) -> bool {
    if next.starts_with(char::is_lowercase) {
        return false;
    }
    let Some(before) = before.strip_suffix('.') else { return true };
    let word = before.rsplit(' ').next().unwrap_or(before).trim_start_matches(['(', '"', '“', '\'', '‘']);
    let mut chars = word.chars();
    let is_initial = chars.next().is_some_and(char::is_uppercase) && chars.next().is_none();
    !is_title(word) && !is_initial
}

/// Cuts phonemes into pieces of at most [`PHONEMES_MAX`]: at commas, colons, semicolons and dashes; clauses that are too long at spaces; and
/// what has no spaces anywhere.
pub(super) fn cut(phonemes: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut length = 0;
    for part in parts(phonemes) {
        let count = part.chars().count();
        let trimmed = part.trim_end().chars().count();
        if length > 0 && length + trimmed > PHONEMES_MAX {
            pieces.push(std::mem::take(&mut piece));
            length = 0;
        }
        piece.push_str(part);
        length += count;
    }
    pieces.push(piece);
    pieces.iter().map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
}

/// Parts of at most [`PHONEMES_MAX`], without what follows their last mark: all of it, or clauses, or words, or runs.
fn parts(phonemes: &str) -> Vec<&str> {
    let fits = |part: &str| part.trim_end().chars().count() <= PHONEMES_MAX;
    if fits(phonemes) {
        return vec![phonemes];
    }
    let clause_ends = |(at, _): &(usize, &str)| phonemes[..*at].ends_with([',', ';', ':', '—']);
    let cuts = phonemes.match_indices(' ').filter(clause_ends).map(|(at, _)| at + 1);
    let clauses = split_at_all(phonemes, cuts);
    let words = clauses
        .into_iter()
        .flat_map(|clause| if fits(clause) { vec![clause] } else { clause.split_inclusive(' ').collect() });
    let runs = words.flat_map(|word| {
        let cuts = word.char_indices().step_by(PHONEMES_MAX).skip(1).map(|(at, _)| at);
        if fits(word) { vec![word] } else { split_at_all(word, cuts) }
    });
    runs.collect()
}

fn split_at_all(text: &str, cuts: impl Iterator<Item = usize>) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for cut in cuts {
        parts.push(&text[start..cut]);
        start = cut;
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_a_reader_pauses() {
        let split = |text| sentences(text, |word| word == "Dr");
        assert_eq!(split("One. Two! \"Three?\" Four"), ["One.", "Two!", "\"Three?", "Four"]);
        assert_eq!(
            split("Dr. Smith and J. K. Rowling came. They left."),
            ["Dr. Smith and J. K. Rowling came.", "They left."]
        );
        assert_eq!(split("It costs 3.50 e.g. here.\n\nNext line"), ["It costs 3.50 e.g. here.", "Next line"]);
        assert_eq!(split("Wait... What?"), ["Wait...", "What?"]);
        assert_eq!(split(" \n "), [""; 0]);
        assert_eq!(split("..."), ["..."]);
    }

    #[test]
    fn long_sentences_are_cut_at_commas_then_spaces_then_anywhere() {
        assert_eq!(cut("a, b"), ["a, b"]);
        let clause = "x".repeat(250);
        assert_eq!(
            cut(&format!("{clause}, {clause}; {clause}.")),
            [format!("{clause},"), format!("{clause};"), format!("{clause}."),]
        );
        let words = cut(&"word ".repeat(200));
        assert_eq!(words.iter().map(|piece| piece.chars().count()).collect::<Vec<_>>(), [399, 399, 199]);
        let runs = cut(&"ə".repeat(900));
        assert_eq!(runs.iter().map(|piece| piece.chars().count()).collect::<Vec<_>>(), [400, 400, 100]);
        assert_eq!(cut(""), [""; 0]);
    }
}
