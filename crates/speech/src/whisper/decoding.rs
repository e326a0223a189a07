//! Which token comes next, and when a text has gone wrong.

use super::description::Description;

/// A text whose first token's `no speech` is likelier than this, and whose tokens are unlikelier than [`UNSURE`], was not spoken: the
/// defaults of the package `openai-whisper` 20240930 (`transcribe.py`, `no_speech_threshold`, `logprob_threshold`).
const NO_SPEECH: f32 = 0.6;
/// Mean of the logarithms of the tokens' probabilities.
const UNSURE: f32 = -1.0;
/// A run of tokens, at most this long,
const RUN_MAX: usize = 16;
/// which comes this often in a row
const TIMES: usize = 5;
/// and so makes at least this many tokens, is a loop and not speech.
const LOOP: usize = 12;

/// Which tokens may come.
#[derive(Debug)]
pub(super) struct Choice {
    barred: Vec<bool>,
    barred_first: Vec<u32>,
}

impl Choice {
    pub(super) fn new(description: &Description) -> Self {
        let mut barred = vec![false; description.vocabulary];
        barred.iter_mut().skip(description.timestamps as usize).for_each(|it| *it = true);
        description.suppress.iter().for_each(|&token| barred[token as usize] = true);
        Self { barred, barred_first: description.suppress_first.clone() }
    }

    /// The likeliest token, and the logarithm of its probability among those that may come.
    pub(super) fn choose(&self, logits: &[f32], first: bool) -> (u32, f32) {
        let barred = |token: usize| self.barred[token] || (first && self.barred_first.contains(&(token as u32)));
        let candidates = || (0..logits.len()).filter(|&token| !barred(token)).map(|token| (token, logits[token]));
        let best = candidates().fold((0, f32::NEG_INFINITY), |best, it| if it.1 > best.1 { it } else { best });
        let sum: f32 = candidates().map(|(_, logit)| (logit - best.1).exp()).sum();
        (best.0 as u32, -sum.ln())
    }
}

/// Probability of one token among all.
pub(super) fn probability(logits: &[f32], token: u32) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.get(token as usize).map_or(0.0, |logit| (logit - largest).exp() / sum)
}

/// Whether there was no speech: by the probability of that after the first token, the sum of the logarithms of the tokens'
/// probabilities, and their number.
pub(super) fn is_silence(no_speech: f32, sum: f32, count: usize) -> bool {
    no_speech > NO_SPEECH && sum / (count.max(1) as f32) < UNSURE
}

/// How many of the tokens to keep, if they end in a loop: up to the loop's first round.
pub(super) fn looping(tokens: &[u32]) -> Option<usize> {
    (1..=RUN_MAX).find_map(|run| {
        let same = tokens.len().checked_sub(run)?;
        let again = (0..same).rev().take_while(|&i| tokens[i] == tokens[i + run]).count();
        let whole = again + run;
        (whole >= TIMES * run && whole >= LOOP).then_some(tokens.len() - again)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whisper::description::tests::tiny;

    #[test]
    fn the_likeliest_token_that_may_come_is_chosen() {
        let choice = Choice::new(&tiny());
        // Tokens 5, 6 and 8 are barred; 0 and 4 as the first. By hand: e⁰ / (e⁰ + e⁻¹ + 4 e⁻²) = 0.5238 and, first,
        // e⁰ / (e⁰ + 3 e⁻¹) = 0.4754.
        let logits = [2.0, 0.0, 0.0, 0.0, 1.0, 9.0, 9.0, 0.0, 9.0];
        let (token, log) = choice.choose(&logits, false);
        assert_eq!(token, 0);
        assert!((log.exp() - 0.5238).abs() < 1e-4, "{}", log.exp());
        let logits = [2.0, 1.0, 0.0, 0.0, 1.0, 9.0, 9.0, 0.0, 9.0];
        let (token, log) = choice.choose(&logits, true);
        assert_eq!(token, 1);
        assert!((log.exp() - 0.475_4).abs() < 1e-4, "{}", log.exp());
        assert!((probability(&[0.0, 3.0_f32.ln()], 1) - 0.75).abs() < 1e-6);
    }

    #[test]
    fn silence_is_both_unlikely_to_be_speech_and_unsure() {
        assert!(is_silence(0.7, -2.2, 2));
        assert!(!is_silence(0.5, -2.2, 2));
        assert!(!is_silence(0.7, -1.8, 2));
    }

    #[test]
    fn loops_end_at_their_first_round() {
        let spoken = [1, 2, 1, 2, 1, 2, 1, 2, 3];
        assert_eq!(looping(&spoken), None);
        let four_times = [9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3];
        assert_eq!(looping(&four_times), None);
        let five_times = [9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3];
        assert_eq!(looping(&five_times), Some(4));
        assert_eq!(looping(&[7; 11]), None);
        assert_eq!(looping(&[7; 12]), Some(1));
        assert_eq!(looping(&[]), None);
    }
}
