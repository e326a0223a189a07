//! What policies foresee of the memory bus: how fast runs would get on side by side, by the simulator's rules ([`onbeat_core::bus`]),
//! from the figures that the profile states.

use onbeat_core::bus::{Demand, share_max_min};
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::View;

/// The bandwidth that there is to share [bytes/ns]; `None` if nothing slows anything down.
pub(crate) fn bandwidth(view: &View<'_>) -> Option<f64> {
    view.system.platform.bandwidth.filter(|_| view.system.contention)
}

/// What the rest of a stage's current phase asks of the bus on a processor, on average and unbatched.
pub(crate) fn demand(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Demand {
    let live = view.stage(stage);
    let limit = bandwidth(view).and_then(|_| view.system.platform.bandwidth_of(processor));
    let (Some(limit), Some(cost)) = (limit, view.cost(stage, processor)) else { return Demand::NONE };
    let units = if live.running { live.units } else { cost.widths.widest };
    let Some((kind, cost)) = cost.on_units(units).get(usize::from(live.phase)) else { return Demand::NONE };
    let end = live.work.units(*kind).max(live.position);
    let bytes = cost.bytes(live.work, live.position, end);
    Demand::new(bytes, cost.latency_ns(live.work, live.position, end), limit)
}

/// How fast runs get on side by side. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// Rates of progress relative to alone, in the order of the runs.
    pub(crate) of: Vec<f64>,
    /// Shares of a processor's runs.
    part: Vec<f64>,
    order: Vec<usize>,
}

impl Rates {
    /// Finds the rates of runs, each on its processor, while all of them run.
    pub(crate) fn find(
        &mut self,
        view: &View<'_>,
        bus: f64,
        runs: impl Iterator<Item = (ProcessorId, Demand)> + Clone,
    ) {
        let Self { of, part, order } = self;
        of.clear();
        of.extend(runs.clone().map(|(_, demand)| demand.asks()));
        for p in view.processors() {
            let on_it = || runs.clone().enumerate().filter(move |(_, run)| run.0 == p).map(|(i, _)| i);
            if on_it().nth(1).is_some()
                && let Some(limit) = view.system.platform.bandwidth_of(p)
            {
                part.clear();
                part.extend(on_it().map(|i| of[i]));
                share_max_min(limit, part, order);
                on_it().zip(part.iter()).for_each(|(i, &share)| of[i] = share);
            }
        }
        share_max_min(bus, of, order);
        for (rate, (_, demand)) in of.iter_mut().zip(runs) {
            *rate = demand.rate(*rate, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::bus::Demand;
    use onbeat_core::id::ProcessorId;
    use onbeat_core::spec::Preemption;

    use super::Rates;
    use crate::test_rig::Rig;

    #[test]
    fn the_worked_case_of_the_semantics_and_a_processor_with_a_limit_of_its_own() {
        let mut rig = Rig::new(&[("npu", Preemption::Never), ("gpu", Preemption::Never)]);
        let platform = &mut rig.system.platform;
        (platform.bandwidth, platform.processors[ProcessorId(0)].bandwidth) = (Some(100.0), Some(40.0));
        let mut rates = Rates::default();
        let mut find = |runs: &[(u32, f64, f64)]| {
            let demand = |&(p, memory_bound, peak): &(u32, f64, f64)| (ProcessorId(p), Demand { memory_bound, peak });
            rates.find(&rig.view(), 100.0, runs.iter().map(demand));
            rates.of.clone()
        };
        assert_eq!(find(&[(1, 0.6, 100.0)]), [1.0]);
        let [a, b] = find(&[(0, 0.6, 100.0), (1, 1.0, 100.0)])[..] else { panic!("two rates") };
        assert!((1.0 / a - 1.6).abs() < 1e-12 && (1.0 / b - 2.0).abs() < 1e-12, "{a} {b}");
        // Two parts of the NPU share its 40, though the bus has 100.
        assert_eq!(find(&[(0, 1.0, 40.0), (1, 1.0, 50.0), (0, 1.0, 40.0)]), [0.5, 1.0, 0.5]);
        assert_eq!(find(&[(0, 0.0, 0.0)]), [1.0]);
    }
}
