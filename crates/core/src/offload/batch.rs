//! Batches in which some caches stay in slower memory: what all of them fetch goes over one link, while one step computes for all.

use super::Far;
use crate::cost::{Cost, PhaseCost};
use crate::curve::StepSum;

/// A batch's steps, counted from its start: what they compute and what they fetch, summed.
#[derive(Clone, Debug)]
pub struct BatchSteps<'s> {
    /// Steps of all members in memory, the context of each at the start, and whether it fetches.
    members: Vec<(&'s StepSum, f64, Option<&'s StepSum>)>,
    /// Time of a step relative to the mean of its members'.
    factor: f64,
    layers: f64,
    /// Steps, in order, at which a curve of a member bends.
    bends: Vec<f64>,
}

impl<'s> BatchSteps<'s> {
    /// The steps of so many stages that decode together: their cost, the number of the phase, the context at the start, and whether their
    /// cache is in slower memory. A step computes as if all were in memory, fetches what each of those members needs, one after the
    /// other, and hides the shorter behind the longer but for one layer.
    pub fn new(batch: u32, members: impl Iterator<Item = (&'s Cost, u8, f64, bool)>) -> Self {
        let mut steps = Self { members: Vec::new(), factor: 1.0, layers: 1.0, bends: Vec::new() };
        for (cost, phase, context, far) in members {
            let phase = &cost.phases[usize::from(phase)].1;
            let PhaseCost::Decode { step_ns, .. } = phase else { continue };
            steps.factor = phase.batch_factor(batch);
            let far: Option<&Far> = cost.far.as_deref().filter(|_| far);
            if let Some(far) = far {
                steps.layers = far.layers;
            }
            steps.members.push((step_ns, context, far.map(|far| &far.fetch_ns)));
        }
        steps.find_bends();
        steps
    }

    /// What the steps `from`..`to` compute and fetch [ns].
    fn parts(&self, from: f64, to: f64) -> (f64, f64) {
        let (mut compute, mut fetch) = (0.0, 0.0);
        for &(steps, context, far) in &self.members {
            compute += steps.between(context + from, context + to);
            fetch += far.map_or(0.0, |far| far.between(context + from, context + to));
        }
        (compute / self.members.len() as f64 * self.factor, fetch)
    }

    /// By how much step number `i` computes longer than it fetches [ns].
    fn gap(&self, i: f64) -> f64 {
        let (compute, fetch) = self.parts(i, i + 1.0);
        compute - fetch
    }

    fn find_bends(&mut self) {
        for &(steps, context, far) in &self.members {
            let points = steps.curve().points().iter().chain(far.into_iter().flat_map(|far| far.curve().points()));
            self.bends.extend(points.map(|&(at, _)| (at - context).ceil()).filter(|&at| at > 0.0));
        }
        self.bends.sort_by(f64::total_cmp);
    }

    /// The sum of max(c, f) + min(c, f) / layers over the first `x` steps [ns]. With c and f summed in closed form, the rest is the sum of
    /// |c − f|, in which both are linear between the points of the curves: there they cross once at most.
    pub fn sum(&self, x: f64) -> f64 {
        let (compute, fetch) = self.parts(0.0, x);
        let distance = |from: f64, to: f64| {
            let (compute, fetch) = self.parts(from, to);
            (compute - fetch).abs()
        };
        // A part of a step at the end, if any.
        let mut apart = distance(x.floor(), x);
        let mut next = 0.0;
        for to in self.bends.iter().copied().take_while(|&at| at < x).chain([x.floor()]) {
            let from = std::mem::replace(&mut next, to);
            if to - from < 1.0 {
                continue;
            }
            let (first, last) = (self.gap(from), self.gap(to - 1.0));
            if first * last < 0.0 {
                // The first step on the other side.
                let middle = (from + (to - 1.0 - from) * first / (first - last)).floor() + 1.0;
                apart += distance(from, middle) + distance(middle, to);
            } else {
                apart += distance(from, to);
            }
        }
        let both = compute + fetch;
        f64::midpoint(both, apart) + (both - apart) / 2.0 / self.layers
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::curve::{Below, Curve};
    use crate::offload::overlapped;

    proptest! {
        #[test]
        fn the_closed_form_is_the_sum_over_steps(
            members in prop::collection::vec((0_u32..3000, any::<bool>(), 1.0..60.0_f64), 1..5),
            share in 0.01..1.0_f64, layers in 1_u32..40, steps in 0_u32..600,
        ) {
            let fetch = |k: f64| {
                let points = vec![(0.0, 5.0), (100.0, 5.0 + k), (100.0 / share, 5.0 + k), (100.0 / share + 1.0, 5.0 + k + share * k / 100.0)];
                StepSum::new(Curve::new(points, Below::Hold))
            };
            let compute = StepSum::new(Curve::new(vec![(0.0, 20.0), (500.0, 22.0), (2000.0, 40.0)], Below::Hold));
            let curves: Vec<StepSum> = members.iter().map(|m| fetch(m.2)).collect();
            let member = |(m, far): (&(u32, bool, f64), _)| (&compute, f64::from(m.0), m.1.then_some(far));
            let mut steps_of = BatchSteps {
                members: members.iter().zip(&curves).map(member).collect(),
                factor: 1.3,
                layers: f64::from(layers),
                bends: Vec::new(),
            };
            steps_of.find_bends();
            let by_hand: f64 = (0..steps)
                .map(|i| {
                    let (compute, fetch) = steps_of.parts(f64::from(i), f64::from(i) + 1.0);
                    overlapped(compute, fetch, f64::from(layers))
                })
                .sum();
            let sum = steps_of.sum(f64::from(steps));
            prop_assert!((sum - by_hand).abs() < 1e-6 * by_hand.max(1.0), "{sum} {by_hand}");
        }
    }
}
