//! Offered load: how much work arrives, before any policy decides where it goes.
//!
//! All figures rest on nominal latencies, alone, and on mean sizes; without contention, context switches and loading. Stages that may run
//! several variants run their default one, except where it says otherwise. On a processor that is divided into units, each phase takes the
//! number of units on which it needs the least unit-time: units × latency ÷ units of the processor.

use onbeat_core::cost::{Cost, Work};
use onbeat_core::id::{IdVec, ProcessorId};
use onbeat_core::system::{Processor, System};

use crate::demand::{Arrivals, epochs, reach};

/// Offered load of a system.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedLoad {
    /// Per stream and session, in the scenario's order.
    pub sources: Vec<SourceLoad>,
    /// Per processor, in the platform's order: the load if every stage ran on its fastest processor, over the
    /// processor's slots. Above 1, that processor is overloaded by this mapping.
    pub fastest: IdVec<ProcessorId, f64>,
    /// Load of everything on its fastest processor, over all slots of the platform. Above 1, no mapping carries it –
    /// unless stages are faster in batches.
    pub total: f64,
    /// The same with every stage in its fastest variant; `None` if no stage has a choice.
    pub lightest: Option<f64>,
}

/// Offered load of one stream or session.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceLoad {
    /// Name.
    pub name: String,
    /// Mean number of jobs per second over the whole run [1/s].
    pub jobs_per_s: f64,
    /// Share of one slot's time, or of a divided processor's, that it needs if its whole chain runs on one processor; `None` where a stage
    /// cannot run.
    pub on: IdVec<ProcessorId, Option<f64>>,
    /// Load with every stage on its fastest processor, in slots. Best-effort work offers what it offers to this source alone: it
    /// counts in no sum.
    pub fastest: f64,
}

/// The time of a whole processor that a stage takes at the least [ns]: its latency or, where the processor can be divided, phase by phase
/// the least unit-time of the widths that are stated.
fn occupied_ns(cost: &Cost, processor: &Processor, work: Work) -> f64 {
    let least = |i: usize| {
        let at_widths = cost.at_all_widths().filter_map(|(units, phases)| {
            let (phase, cost) = phases.get(i)?;
            let end = work.units(*phase);
            Some(if end > 0.0 { cost.latency_ns(work, 0.0, end) * processor.share(units) } else { 0.0 })
        });
        at_widths.fold(f64::INFINITY, f64::min)
    };
    (0..cost.phases.len()).map(least).sum()
}

/// The offered load of a system, as means over the whole run.
pub fn offered_load(system: &System) -> OfferedLoad {
    let mut fastest: IdVec<ProcessorId, f64> = system.platform.processors.iter().map(|_| 0.0).collect();
    let mut sources = Vec::new();
    let mut lightest = 0.0;
    let epochs = epochs(system);
    for (id, source) in system.sources.enumerate() {
        let jobs: f64 = Arrivals::by_epoch(source, &epochs)
            .iter()
            .map(|arrivals| f64::midpoint(arrivals.least, arrivals.most))
            .sum();
        let jobs_per_s = jobs / system.duration.as_secs().max(f64::MIN_POSITIVE);
        let mut on: IdVec<ProcessorId, Option<f64>> = fastest.iter().map(|_| Some(0.0)).collect();
        let mut on_fastest = 0.0;
        for (node, instances) in system.nodes_of(id).zip(reach(system, id)) {
            let node = &system.nodes[node];
            let needs = |variant: u8, p: ProcessorId| {
                let cost = node.costs_of(variant)[p].as_ref()?;
                let occupied = occupied_ns(cost, &system.platform.processors[p], node.work_of(variant, node.expected));
                Some(jobs_per_s * instances * occupied / 1e9)
            };
            let load = |p: ProcessorId| needs(0, p);
            for processor in system.platform.processors.ids() {
                on[processor] = on[processor].zip(load(processor)).map(|(sum, load)| sum + load);
            }
            let least = load(node.fastest).unwrap_or(0.0);
            if !source.best_effort {
                fastest[node.fastest] += least;
            }
            on_fastest += least;
            let in_variants =
                node.variant_numbers().map(|variant| needs(variant, node.fastest_of(variant)).unwrap_or(least));
            lightest += in_variants.fold(least, f64::min);
        }
        sources.push(SourceLoad { name: source.name.clone(), jobs_per_s, on, fastest: on_fastest });
    }
    let slots = |p: ProcessorId| f64::from(system.platform.processors[p].slots);
    let all_slots = system.platform.processors.ids().map(slots).sum::<f64>();
    let total = fastest.iter().sum::<f64>() / all_slots;
    let choice = system.nodes.iter().any(|node| !node.variants.is_empty());
    for processor in system.platform.processors.ids() {
        fastest[processor] /= slots(processor);
    }
    OfferedLoad { sources, fastest, total, lightest: choice.then_some(lightest / all_slots) }
}
