//! `state-aware`: earliest due first, each stage where it would be done first given what processors are doing, how fast they may run,
//! and how close they are to being throttled.

use onbeat_core::id::{IdVec, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::power::Governor;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "state-aware",
    summary: "Earliest due first, where it would be done first at the processors' present load, speed and temperature",
    group: "multi-DNN",
    parameters: &[HEAT, MARGIN],
    reference: "Gao et al., Optimizing Multi-DNN Inference on Mobile Devices through Heterogeneous Processor Co-Execution (ADMS), arXiv 2503.21109, 2025: the factors; the formula is ours",
    build,
};

const HEAT: ParameterInfo = ParameterInfo {
    name: "heat",
    default: "1",
    meaning: "a processor at its throttle counts as if work took (1 + heat) times as long there, ≥ 0; 0: temperature plays no part",
};

const MARGIN: ParameterInfo = ParameterInfo {
    name: "margin_k",
    default: "10",
    meaning: "kelvins below its throttle from which on a processor's temperature counts, linearly, > 0",
};

/// Processor-state-aware placement.
#[derive(Clone, Debug)]
struct StateAware {
    heat: f64,
    margin_k: f64,
    plan: Plan,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// What each processor is like in this decision.
    units: IdVec<ProcessorId, Unit>,
    /// When each slot will be free, with what this decision puts there; by processor.
    slots: Vec<Nanos>,
}

/// What a processor is like.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    /// Its slots begin here in the list of all slots, and end there.
    slots: (usize, usize),
    /// The speed that work would have.
    speed: f64,
    /// How much worse it counts because of its temperature, ≥ 1.
    penalty: f64,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(StateAware {
        heat: parameters.factor("heat")?,
        margin_k: parameters.number("margin_k", 1e-3..=1000.0, "a number from 0.001 to 1000")?,
        plan: Plan::default(),
        queue: Vec::new(),
        units: system.platform.processors.iter().map(|_| Unit::default()).collect(),
        slots: Vec::new(),
    }))
}

/// A place for a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// When it would be done, later by what heat adds.
    worth: Nanos,
    /// Of two places that are worth the same the idle one is taken.
    busy: bool,
    processor: ProcessorId,
    slot: usize,
    /// When it would be done.
    finish: Nanos,
}

impl Policy for StateAware {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let ready = view.ready();
        if ready.is_empty() {
            return;
        }
        self.plan.begin(view);
        self.look(view);
        self.queue.clear();
        self.queue.extend(ready.iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        if self.queue.len() > 1 {
            self.queue.sort_unstable();
        }
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            // A stage that memory has refused everywhere waits until some is freed.
            let Some(place) = self.best_place(view, stage) else { continue };
            if !place.busy {
                self.plan.start(view, stage, place.processor, actions);
            } else if self.plan.join_any(view, stage, actions) {
                continue;
            }
            self.slots[place.slot] = place.finish;
        }
    }
}

impl StateAware {
    /// Looks at load, speed and temperature of all processors.
    fn look(&mut self, view: &View<'_>) {
        self.slots.clear();
        for (p, unit) in self.units.enumerate_mut() {
            unit.speed = speed(view, p);
            unit.penalty = 1.0 + self.heat * warmth(view, p, self.margin_k);
            let first = self.slots.len();
            self.slots.extend(std::iter::repeat_n(view.now(), view.free_slots(p) as usize));
            let now = view.now();
            let end = |end: Nanos| {
                let left = end.saturating_sub(now).as_f64() / unit.speed;
                now.saturating_add(Nanos::from_ns_f64(left))
            };
            self.slots.extend(view.occupancy(p).runs.iter().map(|run| end(run.expected_end)));
            unit.slots = (first, self.slots.len());
        }
    }

    fn best_place(&self, view: &View<'_>, stage: StageId) -> Option<Place> {
        let able = view.processors().filter(|&p| view.can_run(stage, p));
        let places = able.filter_map(|processor| {
            let unit = &self.units[processor];
            let alone = view.remaining(stage, processor)?.as_f64() * view.stretch(stage, processor, unit.speed)?;
            let time = view.setup(stage, processor).saturating_add(Nanos::from_ns_f64(alone));
            let slot = (unit.slots.0..unit.slots.1).min_by_key(|&slot| self.slots[slot])?;
            let start = self.slots[slot];
            let worth = start.saturating_add(Nanos::from_ns_f64(time.as_f64() * unit.penalty));
            let busy = !self.plan.is_free(processor);
            Some(Place { worth, busy, processor, slot, finish: start.saturating_add(time) })
        });
        places.min()
    }
}

/// The speed that work on a processor would have. A governor speeds up when there is work, as far as heat allows; a policy's point stays.
fn speed(view: &View<'_>, processor: ProcessorId) -> f64 {
    let Some(model) = &view.system.platform.processors[processor].power else { return 1.0 };
    let state = view.power(processor);
    let rises = matches!(model.governor, Governor::Ondemand | Governor::Schedutil) && state.adjustable;
    let point = if rises { state.allowed } else { model.slower_of(state.point, state.allowed) };
    model.points[point as usize].speed
}

/// How close a processor is to its throttle: 0 from `margin_k` below it down, 1 at it and above, and while it is throttled.
fn warmth(view: &View<'_>, processor: ProcessorId, margin_k: f64) -> f64 {
    let model = view.system.platform.processors[processor].power.as_ref();
    let throttle = model.and_then(|model| model.thermal?.throttle);
    let state = view.power(processor);
    match (throttle, state.celsius) {
        (Some(_), Some(_)) if state.throttled => 1.0,
        (Some(throttle), Some(celsius)) => (1.0 - (throttle - celsius) / margin_k).clamp(0.0, 1.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::power::{OperatingPoint, PowerModel, Thermal};
    use onbeat_core::spec::Preemption;

    use super::*;
    use crate::test_rig::{Rig, ms, start};

    /// A GPU and an NPU with the speeds 1 and 0.5, throttled at 80 °C.
    fn rig() -> Rig {
        let mut rig = Rig::new(&[("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        let thermal = Thermal {
            resistance: 10.0,
            capacitance: 1.0,
            ambient: 25.0,
            start: 25.0,
            throttle: Some(80.0),
            release: 75.0,
            step: ms(100.0),
        };
        for p in [ProcessorId(0), ProcessorId(1)] {
            let mut model = PowerModel { thermal: Some(thermal), ..PowerModel::fixed(0.0, Some(1.0)) };
            model.points.push(OperatingPoint { speed: 0.5, ..model.points[0].clone() });
            rig.system.platform.processors[p].power = Some(model);
            rig.state.power[p].celsius = Some(25.0);
        }
        rig
    }

    #[test]
    fn without_heat_a_stage_goes_where_it_is_done_first_and_waits_for_it() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(20.0), Some(5.0)]);
        rig.running(source, 1, 0.0);
        rig.state.now = ms(1.0);
        let waiting = rig.ready(source, 1.0);
        assert_eq!(rig.decide("state-aware"), [], "the NPU is free at 5 ms and done at 10; the GPU would be at 21");
        assert_eq!(rig.decide("edf"), [start(waiting, 0)]);
    }

    #[test]
    fn a_slow_operating_point_counts() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(8.0), Some(5.0)]);
        let stage = rig.ready(source, 0.0);
        assert_eq!(rig.decide("state-aware"), [start(stage, 1)]);
        rig.state.power[ProcessorId(1)].point = 1;
        assert_eq!(rig.decide("state-aware"), [start(stage, 0)], "10 ms at half of the speed");
    }

    #[test]
    fn a_processor_that_is_nearly_throttled_is_spared() {
        let mut rig = rig();
        let source = rig.stream("s", Some(100.0), &[Some(8.0), Some(5.0)]);
        let stage = rig.ready(source, 0.0);
        rig.state.power[ProcessorId(1)].celsius = Some(75.0);
        assert_eq!(rig.decide("state-aware"), [start(stage, 1)], "5 x 1.5 = 7.5");
        rig.state.power[ProcessorId(1)].celsius = Some(77.0);
        assert_eq!(rig.decide("state-aware"), [start(stage, 0)], "5 x 1.7 = 8.5");
        assert_eq!(rig.decide("state-aware:heat=0"), [start(stage, 1)]);
        assert_eq!(rig.decide("state-aware:margin_k=5"), [start(stage, 1)], "2 of 5 K: 5 x 1.4 = 7");
    }
}
