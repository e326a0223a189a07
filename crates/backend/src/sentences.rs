//! Where sentences end, in a text that grows: language models hand them on one by one.

/// Words that a full stop follows within a sentence.
const ABBREVIATIONS: &[&str] =
    &["mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "cf", "no", "fig", "approx"];

/// A text that arrives in pieces, cut into sentences; see [`first_sentence`].
#[derive(Clone, Debug, Default)]
pub struct Sentences {
    pending: String,
}

impl Sentences {
    /// Adds a piece. Returns the sentences that are complete now, without white space around them.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        self.pending.push_str(piece);
        let mut complete = Vec::new();
        while let Some(end) = first_sentence(&self.pending) {
            let rest = self.pending.split_off(end);
            let sentence = std::mem::replace(&mut self.pending, rest);
            if !sentence.trim().is_empty() {
                complete.push(sentence.trim().to_owned());
            }
        }
        complete
    }

    /// What is left when the text is finished.
    pub fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        let rest = rest.trim();
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

/// Where the first sentence of a text that grows ends [bytes], if that is certain already.
///
/// A sentence ends after `.`, `!`, `?` or `…`, closing marks, quotes and brackets, where white space follows – which tells a full stop
/// from that of `3.14` –; after a full-width `。`, `！` or `？`; and at the end of a line. A full stop after an initial, a usual
/// abbreviation or the number of a list item ends none.
pub fn first_sentence(text: &str) -> Option<usize> {
    let mut ends_before_space = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' | '。' | '！' | '？' => return Some(at + c.len_utf8()),
            '!' | '?' | '…' => ends_before_space = true,
            '.' => ends_before_space = !is_abbreviation(&text[..at]),
            '"' | '\'' | ')' | ']' | '*' | '”' | '’' | '»' => {}
            c if c.is_whitespace() && ends_before_space => return Some(at),
            _ => ends_before_space = false,
        }
    }
    None
}

/// Whether a full stop after this text belongs to its last word.
fn is_abbreviation(before: &str) -> bool {
    let word = before.split_whitespace().next_back().unwrap_or_default();
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let mut chars = word.chars();
    let is_initial = matches!((chars.next(), chars.next()), (Some(c), None) if c.is_uppercase() && c != 'I');
    let is_list_item = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit()) && before.trim() == word;
    is_initial || is_list_item || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&str]) -> Vec<String> {
        let mut sentences = Sentences::default();
        let mut all: Vec<String> = pieces.iter().flat_map(|piece| sentences.push(piece)).collect();
        all.extend(sentences.rest());
        all
    }

    #[test]
    fn a_sentence_ends_where_white_space_follows() {
        assert_eq!(cut(&["Is it? Yes", ".", " It costs 3", ".5 euros."]), ["Is it?", "Yes.", "It costs 3.5 euros."]);
        assert_eq!(cut(&["He said \"Go!\" and", " left."]), ["He said \"Go!\"", "and left."]);
        assert_eq!(cut(&["Wait... what?\n\n- one\n"]), ["Wait...", "what?", "- one"]);
        assert_eq!(cut(&["**Two.** Three"]), ["**Two.**", "Three"]);
        assert_eq!(cut(&["東京。大阪！"]), ["東京。", "大阪！"]);
        assert_eq!(cut(&["  \n "]), Vec::<String>::new());
    }

    #[test]
    fn full_stops_of_abbreviations_initials_and_lists_end_none() {
        assert_eq!(
            cut(&["1. Ask Dr. J. Smith, i.e. her. So am I. Done"]),
            ["1. Ask Dr. J. Smith, i.e. her.", "So am I.", "Done"]
        );
    }

    #[test]
    fn nothing_is_given_before_it_is_certain() {
        let mut sentences = Sentences::default();
        assert!(sentences.push("It is 3.").is_empty());
        assert!(sentences.push("5 metres.").is_empty());
        assert_eq!(sentences.push(" Then"), ["It is 3.5 metres."]);
        assert_eq!(sentences.rest().as_deref(), Some("Then"));
        assert_eq!(sentences.rest(), None);
    }
}
