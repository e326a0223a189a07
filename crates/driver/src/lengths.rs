//! How long answers will be, learned from those that have ended: a predictor that takes nothing but a sum per prompt length.

use std::collections::BTreeMap;

use onbeat_core::cost::Work;

/// What is known beforehand weighs as much as so many answers.
const PRIOR: f64 = 4.0;

/// Answers' lengths, overall and by prompt length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lengths {
    all: Sum,
    /// By the number of bits of the prompt length: prompts that differ by less than a factor of two are taken together.
    by_prompt: BTreeMap<u32, Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    answers: f64,
    tokens: f64,
}

impl Sum {
    /// The mean, together with what was believed before.
    fn mean(self, before: f64) -> f64 {
        (PRIOR * before + self.tokens) / (PRIOR + self.answers)
    }
}

impl Lengths {
    /// The predicted length of the answer to a prompt [tokens], where `expected` would be the guess without having seen any: the mean of
    /// those to prompts of about this length, drawn towards the mean of all, which is drawn towards the guess (James and Stein's
    /// shrinkage with a fixed weight).
    pub(crate) fn predict(&self, prompt: u32, expected: Work) -> u32 {
        let all = self.all.mean(f64::from(expected.output));
        self.by_prompt.get(&bits(prompt)).copied().unwrap_or_default().mean(all).round().max(1.0) as u32
    }

    /// An answer has ended.
    pub(crate) fn learn(&mut self, prompt: u32, tokens: u32) {
        for sum in [&mut self.all, self.by_prompt.entry(bits(prompt)).or_default()] {
            sum.answers += 1.0;
            sum.tokens += f64::from(tokens);
        }
    }
}

fn bits(prompt: u32) -> u32 {
    u32::BITS - prompt.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_prompts_of_like_length_count_most() {
        let expected = Work { output: 100, ..Work::default() };
        let mut lengths = Lengths::default();
        assert_eq!(lengths.predict(50, expected), 100, "nothing is known");
        // Short prompts have answers of 20 tokens, long ones of 220: all of them 4 × 100 + 4 × 20 + 4 × 220 over 12, which is 113.3.
        for _ in 0..4 {
            lengths.learn(40, 20);
            lengths.learn(900, 220);
        }
        // (4 × 113.3 + 4 × 20) / 8 and (4 × 113.3 + 4 × 220) / 8; nobody has asked with 200 tokens.
        assert_eq!([50, 1000, 200].map(|prompt| lengths.predict(prompt, expected)), [67, 167, 113]);
        for _ in 0..1000 {
            lengths.learn(63, 20);
        }
        assert_eq!(lengths.predict(32, expected), 20, "of the same bits as 63");
    }
}
