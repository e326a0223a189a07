//! Questions about words that the reading rules ask, as Python's `str` answers them.

/// In small letters.
pub(super) fn lower(word: &str) -> String {
    word.to_lowercase()
}

/// In capitals.
pub(super) fn upper(word: &str) -> String {
    word.to_uppercase()
}

/// The first letter a capital, the others small.
pub(super) fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(lower(chars.as_str()).chars()).collect())
}

/// Whether no letter would change in small letters.
pub(super) fn is_lower(word: &str) -> bool {
    word.chars().flat_map(char::to_lowercase).eq(word.chars())
}

/// Whether no letter would change in capitals.
pub(super) fn is_upper(word: &str) -> bool {
    word.chars().flat_map(char::to_uppercase).eq(word.chars())
}

/// Whether it consists of letters, and at least of one.
pub(super) fn is_alphabetic(word: &str) -> bool {
    !word.is_empty() && word.chars().all(char::is_alphabetic)
}

/// Whether it consists of the digits 0 to 9, and at least of one.
pub(super) fn is_digits(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// How many characters it has.
pub(super) fn length(word: &str) -> usize {
    word.chars().count()
}

/// All but the first character.
pub(super) fn rest(word: &str) -> &str {
    let mut chars = word.chars();
    chars.next();
    chars.as_str()
}

/// The last `count` characters, or all.
pub(super) fn last(word: &str, count: usize) -> &str {
    let start = word.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(at, _)| at);
    &word[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_asked_as_in_python() {
        assert_eq!(capitalised("nEW"), "New");
        assert_eq!(capitalised(""), "");
        assert!(is_lower("it's 5") && !is_lower("It") && is_upper("NASA-2") && is_upper("'") && is_lower("'"));
        assert!(is_alphabetic("Señor") && !is_alphabetic("a1") && !is_alphabetic(""));
        assert!(is_digits("1999") && !is_digits("") && !is_digits("٣"));
        assert_eq!((last("cañón", 3), last("ab", 3), rest("ñandú")), ("ñón", "ab", "andú"));
    }
}
