//! `bandwidth-aware`: earliest due first, but nothing starts that would make more urgent work late by taking its memory bandwidth.

use onbeat_core::bus::Demand;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::bus::{self, Rates};
use crate::dispatch::{Dispatch, Order};
use crate::edf::TokenAlarm;
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "bandwidth-aware",
    summary: "Earliest due first; work on any processor is held back where it would make more urgent work late over the memory bus",
    group: "contention",
    parameters: &[ParameterInfo {
        name: "margin_ms",
        default: "1",
        meaning: "work counts as late when it is expected to be done less than this before it is due [ms], 0 to 3600000",
    }],
    reference: "the idea of Agent.xpu (arXiv 2506.24045, 2025) and HeRo (arXiv 2603.01661, 2026), which dispatch with an eye to memory bandwidth; the rule is ours",
    build,
};

/// Earliest due first, with joint admission over the memory bus.
#[derive(Clone, Debug)]
struct BandwidthAware {
    order: Admission,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

/// By due time, where the bus allows it.
#[derive(Clone, Debug)]
struct Admission {
    margin: Nanos,
    times: Times,
    /// What runs, with what this decision starts.
    loads: Vec<Load>,
    /// How fast the loads get on, relative to alone.
    rates: Rates,
    /// The same with one more or one fewer.
    changed: Rates,
    /// The stage that was looked at last, if it was held back.
    held: Option<StageId>,
}

/// Work that runs or starts.
#[derive(Clone, Copy, Debug)]
struct Load {
    stage: StageId,
    processor: ProcessorId,
    due: Nanos,
    /// Nominal time until it is done [ns].
    left_ns: f64,
    demand: Demand,
    /// Whether its end was asked for.
    ending: bool,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = Admission {
        margin: parameters.milliseconds("margin_ms")?,
        times: Times::default(),
        loads: Vec::new(),
        rates: Rates::default(),
        changed: Rates::default(),
        held: None,
    };
    Ok(Box::new(BandwidthAware { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for BandwidthAware {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.list(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
        self.order.make_way(view, actions);
    }
}

impl Admission {
    /// Lists what runs.
    fn list(&mut self, view: &View<'_>) {
        self.loads.clear();
        for processor in view.processors() {
            for run in &view.occupancy(processor).runs {
                self.loads.push(Load {
                    stage: run.stage,
                    processor,
                    due: run.stages().map(|stage| view.due(stage)).min().unwrap_or(Nanos::MAX),
                    left_ns: run.expected_end.saturating_sub(view.now()).as_f64(),
                    demand: bus::demand(view, run.stage, processor),
                    ending: run.ending,
                });
            }
        }
        self.find_rates(view);
    }

    fn find_rates(&mut self, view: &View<'_>) {
        if let Some(bus) = bus::bandwidth(view) {
            self.rates.find(view, bus, self.loads.iter().map(|load| (load.processor, load.demand)));
        }
    }

    /// Whether something that is done so long from now is late.
    fn late(&self, view: &View<'_>, after_ns: f64, due: Nanos) -> bool {
        due != Nanos::MAX && view.now().as_f64() + after_ns > due.saturating_sub(self.margin).as_f64()
    }

    /// When a stage would be done on a processor beside what runs [ns from now]; `None` if that would make more urgent work late that is
    /// on time without it.
    fn admit(&mut self, view: &View<'_>, bus: f64, load: &Load, setup_ns: f64) -> Option<f64> {
        let runs = self.loads.iter().chain([load]).map(|load| (load.processor, load.demand));
        self.changed.find(view, bus, runs);
        let own = setup_ns + load.left_ns / self.changed.of.last().copied().unwrap_or(1.0);
        for (other, (&rate, &slower)) in self.loads.iter().zip(self.rates.of.iter().zip(&self.changed.of)) {
            if other.due >= load.due || slower >= rate {
                continue;
            }
            let alone = other.left_ns / rate;
            let done = done_beside(other.left_ns, slower, rate, own);
            if self.late(view, done, other.due) && !self.late(view, alone, other.due) {
                return None;
            }
        }
        Some(own)
    }

    /// Ends work that makes more urgent work late by taking its bandwidth, if that one can then be on time: the work that asks for most.
    /// The estimate is that of [`Self::admit`], so that the work is not admitted again at once.
    fn make_way(&mut self, view: &View<'_>, actions: &mut Actions) {
        let Some(bus) = bus::bandwidth(view) else { return };
        for urgent in 0..self.loads.len() {
            let Load { due, left_ns, .. } = self.loads[urgent];
            let rate = self.rates.of[urgent];
            if rate >= 1.0 || !self.late(view, left_ns / rate, due) {
                continue;
            }
            let hog = (0..self.loads.len())
                .filter(|&i| {
                    let load = &self.loads[i];
                    let running =
                        view.stage(load.stage).running && !load.ending && !makes_way(view, actions, load.stage);
                    load.due > due && running && view.preemptible(load.processor) && load.demand.memory_bound > 0.0
                })
                .max_by(|&a, &b| self.traffic(a).total_cmp(&self.traffic(b)));
            let Some(hog) = hog else { continue };
            let others = self.loads.iter().enumerate().filter(|&(i, _)| i != hog);
            self.changed.find(view, bus, others.map(|(_, load)| (load.processor, load.demand)));
            let freed = self.changed.of[urgent - usize::from(hog < urgent)];
            let beside = done_beside(left_ns, rate, freed, self.loads[hog].left_ns / self.rates.of[hog]);
            if self.late(view, beside, due) && !self.late(view, left_ns / freed, due) {
                actions.preempt(self.loads[hog].stage);
                return;
            }
        }
    }

    fn traffic(&self, load: usize) -> f64 {
        self.loads[load].demand.memory_bound * self.loads[load].demand.peak
    }
}

/// Whether the run that serves a stage was taken off its processor earlier in this decision, perhaps for another stage of its batch.
fn makes_way(view: &View<'_>, actions: &Actions, stage: StageId) -> bool {
    let run_of = |stage: StageId| {
        let on = view.stage(stage).processor?;
        view.occupancy(on).runs.iter().find(|run| run.stages().any(|other| other == stage)).map(|run| run.serial)
    };
    let preempted =
        |action: &Action| matches!(*action, Action::Preempt { stage: other } if run_of(other) == run_of(stage));
    actions.as_slice().iter().any(preempted)
}

/// When work of so much time alone is done [ns from now] that runs at the rate `slower` beside other work, which ends after `other_ns`, and
/// at `rate` after it.
fn done_beside(left_ns: f64, slower: f64, rate: f64, other_ns: f64) -> f64 {
    let beside = left_ns / slower;
    if beside <= other_ns { beside } else { other_ns + (left_ns - other_ns * slower) / rate }
}

impl Order for Admission {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        self.held = None;
        let Some(bus) = bus::bandwidth(view) else { return plan.fastest(view, stage) };
        let mut best: Option<(f64, Load)> = None;
        for processor in view.processors().filter(|&p| plan.fits(view, stage, p)) {
            let Some(rest) = self.times.of(view, stage)[processor.index()] else { continue };
            let load = Load {
                stage,
                processor,
                due: view.due(stage),
                left_ns: rest.phase.as_f64(),
                demand: bus::demand(view, stage, processor),
                ending: false,
            };
            self.held = Some(stage);
            let Some(own) = self.admit(view, bus, &load, view.setup(stage, processor).as_f64()) else { continue };
            let done = own + rest.stage.saturating_sub(rest.phase).as_f64();
            if best.is_none_or(|(least, _)| done < least) {
                best = Some((done, load));
            }
        }
        let (_, load) = best?;
        self.held = None;
        self.loads.push(load);
        self.find_rates(view);
        Some(load.processor)
    }

    /// A stage that waits for bandwidth does not need a slot.
    fn claims(&self, _: &View<'_>, stage: StageId) -> bool {
        self.held != Some(stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::cost::PhaseCost;
    use onbeat_core::id::{NodeId, SourceId};
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    /// GPU and NPU on a bus of 100 GB/s.
    fn rig(preemption: Preemption) -> Rig {
        let mut rig = Rig::new(&[("gpu", preemption), ("npu", preemption)]);
        rig.system.platform.bandwidth = Some(100.0);
        rig.system.contention = true;
        rig
    }

    /// Lets a stream's model move so much, on every processor.
    fn moves(rig: &mut Rig, source: SourceId, megabytes: f64) {
        let node = NodeId(rig.system.sources[source].nodes.start);
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            if let PhaseCost::Fixed { bytes, .. } = &mut cost.phases[0].1 {
                *bytes = megabytes * 1e6;
            }
        }
    }

    #[test]
    fn a_second_hog_waits_while_a_deadline_is_near_and_light_work_does_not() {
        for (due, together) in [(10.0, false), (20.0, true)] {
            let mut rig = rig(Preemption::Segment);
            let urgent = rig.stream("urgent", Some(due), &[None, Some(8.0)]);
            let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
            let light = rig.stream("light", Some(80.0), &[Some(8.0), None]);
            moves(&mut rig, urgent, 800.0);
            moves(&mut rig, bulk, 800.0);
            rig.running(urgent, 1, 0.0);
            let hog = rig.ready(bulk, 0.0);
            // Side by side the urgent one takes 16 ms.
            assert_eq!(rig.decide("bandwidth-aware"), Vec::from_iter(together.then(|| start(hog, 0))), "due at {due}");
            let light = rig.ready(light, 0.0);
            assert_eq!(
                rig.decide("bandwidth-aware"),
                [start(light, 0)],
                "it takes no bandwidth, and is due before the hog"
            );
            assert_eq!(rig.decide("edf"), [start(light, 0)]);
        }
    }

    #[test]
    fn a_hog_makes_way_for_urgent_work_that_comes_later() {
        let mut rig = rig(Preemption::Anytime);
        let urgent = rig.stream("urgent", Some(10.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(40.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 4000.0);
        let hog = rig.running(bulk, 0, 0.0);
        rig.state.now = ms(1.0);
        let frame = rig.ready(urgent, 1.0);
        assert_eq!(rig.decide("bandwidth-aware"), [start(frame, 1), preempt(hog)]);
        rig.stop(hog);
        rig.state.ready.retain(|&stage| stage != frame);
        rig.start_again(frame, 1, 1.0);
        assert_eq!(rig.decide("bandwidth-aware"), [], "held back until the frame is done");
    }

    #[test]
    fn a_hog_that_is_nearly_done_need_not_make_way() {
        let mut rig = rig(Preemption::Anytime);
        let urgent = rig.stream("urgent", Some(14.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(2.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 200.0);
        rig.running(bulk, 0, 0.0);
        let frame = rig.ready(urgent, 0.0);
        // Beside the hog until 4 ms, then alone: done at 10 ms, not at 16.
        assert_eq!(rig.decide("bandwidth-aware"), [start(frame, 1)]);
    }

    #[test]
    fn what_is_late_anyway_holds_nobody_back() {
        let mut rig = rig(Preemption::Segment);
        let urgent = rig.stream("urgent", Some(7.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 800.0);
        rig.running(urgent, 1, 0.0);
        let hog = rig.ready(bulk, 0.0);
        assert_eq!(rig.decide("bandwidth-aware"), [start(hog, 0)]);
    }

    #[test]
    fn without_contention_it_is_edf() {
        let mut rig = rig(Preemption::Segment);
        rig.system.contention = false;
        let urgent = rig.stream("urgent", Some(10.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 800.0);
        let (urgent, bulk) = (rig.ready(urgent, 0.0), rig.ready(bulk, 0.0));
        assert_eq!(rig.decide("bandwidth-aware"), [start(urgent, 1), start(bulk, 0)]);
        assert_eq!(rig.decide("bandwidth-aware"), rig.decide("edf"));
    }
}
