//! Early exits: where an inference ends whose answer is sure before all of the network was computed.

use serde::{Deserialize, Serialize};

/// Two places within this of each other, as shares of an inference, are the same.
pub const SAME_PLACE: f64 = 1e-9;

/// Where inferences of a model may end, and which share of the inputs leaves there. Empty: all run to the end.
///
/// The shares are those of a network with classifiers on its way, each of which ends the inference if it is sure enough (Teerapittayanon
/// et al., BranchyNet, ICPR 2016; Huang et al., MSDNet, ICLR 2018). Which exit an input takes is drawn for it; the inputs of a stream are
/// independent of each other.
///
/// Of a language model the inputs are answers, each of which computes the same share of the layers for all its tokens (layers skipped by
/// what the prompt holds: Jain et al., `FiRST`, EMNLP Findings 2025), or tokens, each of which leaves at an exit of its own (Schuster et
/// al., CALM, NeurIPS 2022). Tokens are not drawn: every step takes the mean, which is what a long answer comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Exits {
    /// Place and share of the inputs.
    places: Vec<(f64, f64)>,
    /// Whether the inputs are the tokens of an answer.
    of_tokens: bool,
}

/// How exits are written down.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Inputs(Vec<(f64, f64)>),
    Tokens { tokens: Vec<(f64, f64)> },
}

impl From<Written> for Exits {
    fn from(written: Written) -> Self {
        match written {
            Written::Inputs(places) => Self { places, of_tokens: false },
            Written::Tokens { tokens } => Self { places: tokens, of_tokens: true },
        }
    }
}

impl From<Exits> for Written {
    fn from(exits: Exits) -> Self {
        if exits.of_tokens { Self::Tokens { tokens: exits.places } } else { Self::Inputs(exits.places) }
    }
}

impl Exits {
    /// Exits by place – the share of an inference's work that is done there, rising, in (0, 1], the last 1 – with the shares of the inputs,
    /// which sum to 1.
    pub fn new(places: Vec<(f64, f64)>) -> Self {
        debug_assert!(places.windows(2).all(|pair| pair[0].0 < pair[1].0), "exits rise");
        Self { places, of_tokens: false }
    }

    /// The same for inputs that are the tokens of answers: places are shares of a decode step.
    pub fn of_tokens(places: Vec<(f64, f64)>) -> Self {
        Self { of_tokens: true, ..Self::new(places) }
    }

    /// Whether all inferences run to the end.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The exit that an input takes, for a uniform number in [0, 1): small numbers are easy inputs, which leave early. Of tokens, the mean.
    pub fn of(&self, u: f64) -> f64 {
        if self.of_tokens {
            return self.mean();
        }
        let mut sum = 0.0;
        let taken = self.places.iter().find(|&&(_, share)| {
            sum += share;
            u < sum
        });
        taken.or(self.places.last()).map_or(1.0, |&(place, _)| place)
    }

    /// How deep a step goes that serves answers which alone compute these shares of it: as deep as the one that goes deepest. Of tokens,
    /// [what that is on average](Self::deepest_mean).
    pub fn deepest(&self, answers: impl ExactSizeIterator<Item = f64>) -> f64 {
        if self.of_tokens { self.deepest_mean(answers.len() as u32) } else { answers.fold(0.0, f64::max) }
    }

    /// The mean of the deepest exit of so many inputs that are independent of each other: Σ place · (Fᵏ − F'ᵏ), where F is the share of
    /// the inputs that have left at the place, and F' before it.
    pub fn deepest_mean(&self, count: u32) -> f64 {
        let count = f64::from(count);
        let (mut left, mut deepest) = (0.0_f64, 0.0);
        for &(place, share) in &self.places {
            let before = left;
            left = (left + share).min(1.0);
            deepest += place * (libm::pow(left, count) - libm::pow(before, count));
        }
        deepest.clamp(0.0, 1.0)
    }

    /// The mean over all inputs.
    pub fn mean(&self) -> f64 {
        self.mean_after(0.0)
    }

    /// The mean over the inputs that have not left at a place or before it.
    pub fn mean_after(&self, place: f64) -> f64 {
        let (sum, shares) =
            self.later(place).fold((0.0, 0.0), |(sum, shares), (at, share)| (sum + at * share, shares + share));
        if shares > 0.0 { (sum / shares).min(1.0) } else { 1.0 }
    }

    /// The first exit that an input may take which has not left at a place or before it. Of tokens, the mean.
    pub fn least_after(&self, place: f64) -> f64 {
        if self.of_tokens {
            return self.mean_after(place);
        }
        self.later(place).next().map_or(1.0, |(at, _)| at)
    }

    fn later(&self, place: f64) -> impl Iterator<Item = (f64, f64)> {
        self.places.iter().copied().filter(move |&(at, share)| at > place + SAME_PLACE && share > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ResNet-50 with early exits on CIFAR-10: see `tests/scenarios/early-exit.md`.
    fn published() -> Exits {
        Exits::new(vec![(0.192, 0.0579), (0.444, 0.0997), (0.802, 0.4247), (1.0, 0.4177)])
    }

    #[test]
    fn the_mean_is_that_of_a_published_network() {
        // 0.0111 + 0.0443 + 0.3406 + 0.4177; the file says that 0.8142 of the computation is used.
        assert!((published().mean() - 0.8137).abs() < 5e-5, "{}", published().mean());
    }

    #[test]
    fn each_exit_is_taken_by_its_share_of_the_inputs() {
        let exits = published();
        assert_eq!(
            [0.0, 0.0578, 0.058, 0.157, 0.158, 0.582, 0.583, 0.999_999].map(|u| exits.of(u)),
            [0.192, 0.192, 0.444, 0.444, 0.802, 0.802, 1.0, 1.0]
        );
        let draws = 100_000;
        let sum: f64 = (0..draws).map(|i| exits.of((f64::from(i) + 0.5) / f64::from(draws))).sum();
        assert!((sum / f64::from(draws) - exits.mean()).abs() < 1e-4);
    }

    #[test]
    fn what_has_passed_an_exit_does_not_take_it() {
        let exits = Exits::new(vec![(0.25, 0.5), (0.5, 0.0), (0.75, 0.25), (1.0, 0.25)]);
        assert_eq!((exits.mean(), exits.least_after(0.0)), (0.5625, 0.25));
        assert_eq!((exits.mean_after(0.25), exits.least_after(0.25)), (0.875, 0.75), "nobody leaves at a half");
        assert_eq!((exits.mean_after(0.8), exits.least_after(0.8)), (1.0, 1.0));
        assert_eq!((exits.mean_after(1.0), exits.least_after(1.0)), (1.0, 1.0));
    }

    #[test]
    fn a_step_goes_as_deep_as_the_deepest_of_its_tokens() {
        let exits = Exits::of_tokens(vec![(0.25, 0.5), (0.5, 0.25), (1.0, 0.25)]);
        let of = |count: usize| exits.deepest(std::iter::repeat_n(0.5, count));
        assert_eq!((exits.of(0.0), exits.mean(), exits.least_after(0.0), of(1)), (0.5, 0.5, 0.5, 0.5));
        // Two: both at a quarter, 1/4; one of them at a half and none later, 9/16 - 1/4; else the end.
        assert_eq!(of(2), 0.25 * 0.25 + 0.5 * (0.5625 - 0.25) + 0.4375);
        assert!(of(32) > 0.999, "of many tokens one runs to the end");
        let answers = Exits::new(vec![(0.25, 0.5), (1.0, 0.5)]);
        assert_eq!(answers.deepest([0.25, 0.75, 0.5].into_iter()), 0.75);
    }

    #[test]
    fn exits_are_written_as_they_were_before_tokens_had_any() {
        let places = vec![(0.5, 0.5), (1.0, 0.5)];
        let written = |exits: &Exits| serde_json::to_string(exits).expect("plain data");
        assert_eq!(written(&Exits::new(places.clone())), "[[0.5,0.5],[1.0,0.5]]");
        let tokens = Exits::of_tokens(places);
        assert_eq!(written(&tokens), r#"{"tokens":[[0.5,0.5],[1.0,0.5]]}"#);
        assert_eq!(serde_json::from_str::<Exits>(&written(&tokens)).expect("as written"), tokens);
    }

    #[test]
    fn without_exits_everything_runs_to_the_end() {
        let none = Exits::default();
        assert_eq!((none.of(0.0), none.mean(), none.least_after(0.0)), (1.0, 1.0, 1.0));
    }
}
