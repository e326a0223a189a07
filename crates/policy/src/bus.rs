//! What policies foresee of the memory bus: how fast runs would get on side by side, by the rules of `docs/semantics.md`, section 6, from
//! the figures that the profile states.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::View;

/// What a run asks of the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    /// Fraction of its time alone in which it is bound by memory, 0 to 1.
    pub(crate) memory_bound: f64,
    /// What it draws in that part [bytes/ns].
    pub(crate) peak: f64,
}

/// The bandwidth that there is to share [bytes/ns]; `None` if nothing slows anything down.
pub(crate) fn bandwidth(view: &View<'_>) -> Option<f64> {
    view.system.platform.bandwidth.filter(|_| view.system.contention)
}

/// What the rest of a stage's current phase asks of the bus on a processor, on average and unbatched.
pub(crate) fn demand(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Demand {
    let live = view.stage(stage);
    let phase = view.cost(stage, processor).and_then(|cost| cost.phases.get(usize::from(live.phase)));
    let (Some(bus), Some((kind, cost))) = (bandwidth(view), phase) else { return Demand::default() };
    let end = live.work.units(*kind).max(live.position);
    let alone = cost.latency_ns(live.work, live.position, end);
    let bytes = cost.bytes(live.work, live.position, end);
    if bytes <= 0.0 || alone <= 0.0 {
        return Demand::default();
    }
    let limit = view.system.platform.processors[processor].bandwidth.map_or(bus, |own| own.min(bus));
    Demand { memory_bound: (bytes / alone / limit).min(1.0), peak: limit }
}

impl Demand {
    fn asks(self) -> f64 {
        if self.memory_bound > 0.0 { self.peak } else { 0.0 }
    }

    /// Rate of progress with a share of the bus, relative to alone.
    fn rate(self, share: f64) -> f64 {
        if self.memory_bound <= 0.0 || share >= self.peak {
            return 1.0;
        }
        1.0 / ((1.0 - self.memory_bound) + self.memory_bound * self.peak / share)
    }
}

/// How fast each of several runs on different processors gets on while all of them run, relative to alone. `rates` is overwritten.
pub(crate) fn rates(bus: f64, demands: impl Iterator<Item = Demand> + Clone, rates: &mut Vec<f64>) {
    rates.clear();
    // Max-min fair: everybody gets what they ask for or the common level, whichever is smaller. There are as many runs as slots, so
    // that looking for the level by rounds is quicker than sorting.
    let mut level = f64::INFINITY;
    if demands.clone().map(Demand::asks).sum::<f64>() > bus {
        level = 0.0;
        loop {
            let below = |demand: &Demand| demand.asks() <= level;
            let met: f64 = demands.clone().filter(below).map(Demand::asks).sum();
            let others = demands.clone().filter(|demand| !below(demand)).count();
            let next = (bus - met) / others.max(1) as f64;
            if next <= level {
                break;
            }
            level = next;
        }
    }
    rates.extend(demands.map(|demand| demand.rate(demand.asks().min(level))));
}

#[cfg(test)]
mod tests {
    use super::{Demand, rates};

    fn rates_of(bus: f64, demands: &[(f64, f64)]) -> Vec<f64> {
        let mut found = Vec::new();
        rates(bus, demands.iter().map(|&(memory_bound, peak)| Demand { memory_bound, peak }), &mut found);
        found
    }

    #[test]
    fn the_worked_case_of_the_semantics() {
        assert_eq!(rates_of(100.0, &[(0.6, 100.0)]), [1.0]);
        let [a, b] = rates_of(100.0, &[(0.6, 100.0), (1.0, 100.0)])[..] else { panic!("two rates") };
        assert!((1.0 / a - 1.6).abs() < 1e-12 && (1.0 / b - 2.0).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn small_demands_are_met_and_large_ones_share_the_rest() {
        // Shares of 10: 2 is below every level, the others get 4 each (the simulator's example).
        let found = rates_of(10.0, &[(1.0, 9.0), (1.0, 2.0), (1.0, 4.5)]);
        let expected = [4.0 / 9.0, 1.0, 4.0 / 4.5];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(rates_of(10.0, &[(0.0, 0.0), (1.0, 10.0)]), [1.0, 1.0]);
        assert_eq!(rates_of(10.0, &[]), [] as [f64; 0]);
    }
}
