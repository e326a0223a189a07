//! The tokenizer of the first llamas: pairs of characters, merged by the scores of what they become.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// Turns text into tokens as `sentencepiece`'s byte-pair encoding does: of all neighbours that make a token together, those with the
/// best score are joined first, the leftmost of equals. What is no token in the end becomes tokens of its bytes.
#[derive(Debug)]
pub(crate) struct Pieces {
    ids: HashMap<String, u32>,
    scores: Vec<f32>,
    bytes: Vec<Option<u32>>,
    unknown: u32,
}

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Two neighbours that make a token together.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both, to tell whether one of them has grown since.
    length: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}
impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Pair {}

/// A run of the text; `length` 0: joined to the one before.
struct Run {
    start: usize,
    length: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl Pieces {
    pub(crate) fn new(tokens: &[String], types: &[i32], scores: Vec<f32>) -> Self {
        let mut bytes = vec![None; 256];
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut unknown = 0;
        for (id, (token, &kind)) in (0..).zip(tokens.iter().zip(types)) {
            match kind {
                BYTE => {
                    if let Some(byte) = Self::byte(token) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                UNKNOWN => unknown = id,
                CONTROL => {}
                _ => {
                    ids.insert(token.clone(), id);
                }
            }
        }
        Self { ids, scores, bytes, unknown }
    }

    /// The byte that a token like `<0x0A>` stands for.
    pub(crate) fn byte(token: &str) -> Option<u8> {
        u8::from_str_radix(token.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
    }

    pub(crate) fn encode(&self, text: &str, space_first: bool, tokens: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let text = format!("{}{text}", if space_first { " " } else { "" }).replace(' ', "\u{2581}");
        let mut runs: Vec<Run> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Run { start, length: c.len_utf8(), before: i.checked_sub(1), after: Some(i + 1) })
            .collect();
        let count = runs.len();
        runs[count - 1].after = None;
        let mut pairs = BinaryHeap::new();
        let offer = |pairs: &mut BinaryHeap<Pair>, runs: &[Run], left: Option<usize>, right: Option<usize>| {
            let (Some(left), Some(right)) = (left, right) else { return };
            let (start, length) = (runs[left].start, runs[left].length + runs[right].length);
            if let Some(&id) = self.ids.get(&text[start..start + length]) {
                pairs.push(Pair { score: self.scores[id as usize], left, right, length });
            }
        };
        for i in 1..count {
            offer(&mut pairs, &runs, Some(i - 1), Some(i));
        }
        while let Some(Pair { left, right, length, .. }) = pairs.pop() {
            let stale =
                runs[left].length == 0 || runs[right].length == 0 || runs[left].length + runs[right].length != length;
            if stale {
                continue;
            }
            runs[left].length = length;
            runs[right].length = 0;
            let after = runs[right].after;
            runs[left].after = after;
            if let Some(after) = after {
                runs[after].before = Some(left);
            }
            let before = runs[left].before;
            offer(&mut pairs, &runs, before, Some(left));
            offer(&mut pairs, &runs, Some(left), after);
        }
        for run in runs.iter().filter(|run| run.length > 0) {
            let piece = &text[run.start..run.start + run.length];
            match self.ids.get(piece) {
                Some(&id) => tokens.push(id),
                None => tokens.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)].unwrap_or(self.unknown))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: of `▁abab`, `ab` scores best and is joined twice, then `▁ab`; `▁abab` is no token. `é` becomes its bytes.
    #[test]
    fn the_best_pairs_are_joined_first() {
        let tokens = ["<unk>", "<s>", "<0xC3>", "<0xA9>", "\u{2581}", "a", "b", "ab", "\u{2581}ab", "ba", "\u{2581}a"];
        let tokens = tokens.map(str::to_owned);
        let types = [2, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1];
        let scores = vec![0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -1.0, -2.0, -3.0, -4.0];
        let pieces = Pieces::new(&tokens, &types, scores);
        let mut ids = Vec::new();
        pieces.encode("abab", true, &mut ids);
        assert_eq!(ids, [8, 7]);
        ids.clear();
        pieces.encode("b\u{e9}<s>", false, &mut ids);
        assert_eq!(ids, [6, 2, 3, 0, 0, 0]);
        ids.clear();
        pieces.encode("", true, &mut ids);
        assert!(ids.is_empty());
    }
}
