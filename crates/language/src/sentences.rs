//! Where sentences end, in a text that grows.

/// Finds the end of the first sentence that is complete: the length of the text up to the next one's first character. A sentence
/// ends with a line, or with `.`, `!`, `?` or `…`, closing marks and white space – which tells a full stop from that of `3.14`. The
/// number of a list's item (`1.`) is no sentence.
pub(crate) fn first_end(text: &str) -> Option<usize> {
    let begin = text.len() - text.trim_start().len();
    let mut ended = false;
    let mut characters = text[begin..].char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let here = &text[begin..begin + at];
        match c {
            '\n' => {}
            '.' | '!' | '?' | '\u{2026}' => {
                ended = !is_number(here);
                continue;
            }
            '"' | '\'' | ')' | ']' | '*' | '\u{201d}' | '\u{2019}' if ended => continue,
            _ if ended && c.is_whitespace() => {}
            _ => {
                ended = false;
                continue;
            }
        }
        // The sentence has ended before `at`; the white space behind it belongs to it.
        let mut end = text.len();
        for (at, c) in characters.by_ref() {
            if !c.is_whitespace() {
                end = begin + at;
                break;
            }
        }
        return Some(end);
    }
    None
}

fn is_number(text: &str) -> bool {
    let mark = |c: char| c.is_ascii_digit() || matches!(c, '*' | '#' | '(' | ' ');
    text.chars().all(mark) && text.chars().any(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let (mut rest, mut parts) = (text, Vec::new());
        while let Some(end) = first_end(rest) {
            parts.push(rest[..end].trim());
            rest = &rest[end..];
        }
        parts.push(rest);
        parts
    }

    #[test]
    fn sentences_end_where_a_reader_would_end_them() {
        assert_eq!(split("It is 3.14. Really? Yes"), ["It is 3.14.", "Really?", "Yes"]);
        assert_eq!(split("He said \"No.\" Then he left."), ["He said \"No.\"", "Then he left."]);
        assert_eq!(split("1. One thing.\n2. **Two.** Three"), ["1. One thing.", "2. **Two.**", "Three"]);
        assert_eq!(split("A title\n\nText"), ["A title", "Text"]);
        assert_eq!(split("not yet."), ["not yet."]);
        assert_eq!(split(""), [""]);
    }
}
