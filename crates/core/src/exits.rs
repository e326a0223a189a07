//! Early exits: where an inference ends whose answer is sure before all of the network was computed.

use serde::{Deserialize, Serialize};

/// Two places within this of each other, as shares of an inference, are the same.
pub const SAME_PLACE: f64 = 1e-9;

/// Where inferences of a model may end, and which share of the inputs leaves there. Empty: all run to the end.
///
/// The shares are those of a network with classifiers on its way, each of which ends the inference if it is sure enough (Teerapittayanon
/// et al., BranchyNet, ICPR 2016; Huang et al., MSDNet, ICLR 2018). Which exit an input takes is drawn for it; the inputs of a stream are
/// independent of each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exits(Vec<(f64, f64)>);

impl Exits {
    /// Exits by place – the share of an inference's work that is done there, rising, in (0, 1], the last 1 – with the shares of the inputs,
    /// which sum to 1.
    pub fn new(exits: Vec<(f64, f64)>) -> Self {
        debug_assert!(exits.windows(2).all(|pair| pair[0].0 < pair[1].0), "exits rise");
        Self(exits)
    }

    /// Whether all inferences run to the end.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The exit that an input takes, for a uniform number in [0, 1): small numbers are easy inputs, which leave early.
    pub fn of(&self, u: f64) -> f64 {
        let mut sum = 0.0;
        let taken = self.0.iter().find(|&&(_, share)| {
            sum += share;
            u < sum
        });
        taken.or(self.0.last()).map_or(1.0, |&(place, _)| place)
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

    /// The first exit that an input may take which has not left at a place or before it.
    pub fn least_after(&self, place: f64) -> f64 {
        self.later(place).next().map_or(1.0, |(at, _)| at)
    }

    fn later(&self, place: f64) -> impl Iterator<Item = (f64, f64)> {
        self.0.iter().copied().filter(move |&(at, share)| at > place + SAME_PLACE && share > 0.0)
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
    fn without_exits_everything_runs_to_the_end() {
        let none = Exits::default();
        assert_eq!((none.of(0.0), none.mean(), none.least_after(0.0)), (1.0, 1.0, 1.0));
    }
}
