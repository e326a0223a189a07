//! `planaria`: every stage gets the least processor with which it is on time; what is left over goes to those with the best scores.

use std::cmp::Reverse;

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::recut::{self, Recut};
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::{Rest, Times, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "planaria",
    summary: "Side by side: each stage gets the slowest processor on which it is on time, spare ones go to the best scores",
    group: "multi-DNN",
    parameters: &[],
    reference: "Ghodrati et al., Planaria: Dynamic Architecture Fission for Spatial Multi-Tenant Acceleration of Deep Neural Networks, MICRO 2020; scores after its public code",
    build,
};

/// Planaria-style spatial sharing.
#[derive(Clone, Debug, Default)]
struct Planaria {
    plan: Plan,
    times: Times,
    candidates: Vec<Candidate>,
    /// What each processor has left to give, by slots; by units, where it can be divided.
    free: Vec<u32>,
    /// Whether running work can go on with other units on any processor.
    recuts: bool,
    /// Units that running work gives up at its next boundary and that nobody counts on yet, by processor.
    coming: Vec<u32>,
    /// Stages that this decision takes off their units.
    cut: Vec<StageId>,
}

/// Where a stage can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    processor: ProcessorId,
    /// How much of [`Planaria::free`] it takes.
    units: u32,
}

/// A place with what is left of the stage there, and what precedes it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    place: Place,
    rest: Rest,
    setup: Nanos,
}

/// A ready stage.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    stage: StageId,
    serial: u64,
    /// Whether some processor, idle or not, would have it on time.
    in_time: bool,
    score: f64,
    /// Where it will start.
    given: Option<Place>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let recuts = system.platform.processors.ids().any(|p| recut::division(system, p).is_some());
    Ok(Box::new(Planaria { recuts, ..Planaria::default() }))
}

/// Weight of a priority: the priority itself, and 1 for those below 1, which include the default ones.
fn weight(priority: i32) -> f64 {
    f64::from(priority.max(1))
}

/// Score of a stage that can be on time (`need` is the part of its fastest processor's speed that it needs): weight over slack over need.
/// Larger goes first.
fn score_in_time(weight: f64, slack: Nanos, need: f64) -> f64 {
    weight / slack.as_f64().max(1.0) / need.max(1e-9)
}

/// Score of a stage that cannot: weight over the time that it takes.
fn score_late(weight: f64, time: Nanos) -> f64 {
    weight / time.as_f64().max(1.0)
}

/// All places where a stage can run, busy or not: every processor, at every width that its profile states where it can be divided.
fn choices<'a>(view: View<'a>, stage: StageId, rest: &'a [Option<Rest>]) -> impl Iterator<Item = Choice> + 'a {
    let on = move |processor: ProcessorId| {
        let divided = view.system.platform.processors[processor].division.is_some();
        view.widths(stage, processor).filter_map(move |units| {
            let rest = if divided {
                let phase = view.remaining_in_phase_on_units(stage, processor, units)?;
                Rest { phase, stage: view.remaining_on_units(stage, processor, units)? }
            } else {
                rest[processor.index()]?
            };
            let setup = view.setup_on_units(stage, processor, units);
            Some(Choice { place: Place { processor, units }, rest, setup })
        })
    };
    view.processors().filter(move |&p| view.can_run(stage, p)).flat_map(on)
}

/// Runs that nobody has asked to end, and that this decision does not cut.
fn uncut<'a>(view: View<'a>, processor: ProcessorId, cut: &'a [StageId]) -> impl Iterator<Item = Recut<'a>> + 'a {
    Recut::all(view, processor).filter(|run| !run.ending && !cut.contains(&run.stage))
}

impl Policy for Planaria {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() && !self.recuts {
            return;
        }
        self.plan.begin(view);
        self.cut.clear();
        self.free.clear();
        self.free.extend(view.processors().map(|p| match view.system.platform.processors[p].division {
            Some(_) => view.free_units(p),
            None => view.free_slots(p),
        }));
        if self.recuts || self.free.iter().any(|&free| free > 0) {
            self.list(view);
            self.give_least(view);
            if self.recuts {
                self.cut_for_those_who_wait(view, actions);
            }
            self.give_spare(view);
            for i in 0..self.candidates.len() {
                let Candidate { stage, given, .. } = self.candidates[i];
                match given {
                    Some(Place { processor, units })
                        if view.system.platform.processors[processor].division.is_some() =>
                    {
                        actions.start_on_units(stage, processor, units, None);
                    }
                    Some(Place { processor, .. }) => self.plan.start(view, stage, processor, actions),
                    None => {}
                }
            }
        } else {
            self.candidates.clear();
            let open = view.ready().iter().map(|&stage| Candidate {
                stage,
                serial: view.stage(stage).serial,
                in_time: false,
                score: 0.0,
                given: None,
            });
            self.candidates.extend(open);
            self.candidates.sort_unstable_by_key(|candidate| candidate.serial);
        }
        let mut waits = false;
        for i in 0..self.candidates.len() {
            let Candidate { stage, given, .. } = self.candidates[i];
            waits |= given.is_none() && !self.plan.join_any(view, stage, actions);
        }
        if self.recuts && !waits {
            self.widen(view, actions);
        }
    }
}

impl Planaria {
    /// Lists the ready stages, those that can be on time first, each kind by falling score.
    fn list(&mut self, view: &View<'_>) {
        self.candidates.clear();
        for &stage in view.ready() {
            let rest = self.times.of(view, stage);
            let slack = view.due(stage).saturating_sub(view.now());
            let (mut fastest, mut least) = (Nanos::MAX, None);
            for Choice { rest, setup, .. } in choices(*view, stage, rest) {
                let time = setup.saturating_add(until_due(view, stage, rest));
                fastest = fastest.min(time);
                if time <= slack {
                    least = least.max(Some(time));
                }
            }
            if fastest == Nanos::MAX {
                // Memory refuses it everywhere.
                continue;
            }
            let weight = weight(view.source(stage).priority);
            let score = match least {
                Some(least) => score_in_time(weight, slack, fastest.as_f64() / least.as_f64().max(1.0)),
                None => score_late(weight, fastest),
            };
            let serial = view.stage(stage).serial;
            self.candidates.push(Candidate { stage, serial, in_time: least.is_some(), score, given: None });
        }
        // Scores are not negative, so that their bits are in their order.
        self.candidates.sort_unstable_by_key(|c| (Reverse(c.in_time), Reverse(c.score.to_bits()), c.serial));
    }

    /// Gives each stage that can be on time the slowest idle processor that suffices, and then each other one the fastest that is left.
    fn give_least(&mut self, view: &View<'_>) {
        for i in 0..self.candidates.len() {
            let Candidate { stage, in_time, .. } = self.candidates[i];
            let slack = view.due(stage).saturating_sub(view.now());
            let rest = self.times.of(view, stage);
            let free = &self.free;
            let idle =
                choices(*view, stage, rest).filter(|choice| free[choice.place.processor.index()] >= choice.place.units);
            let times = idle.map(|Choice { place, rest, setup }| {
                (setup.saturating_add(until_due(view, stage, rest)), place.processor, place.units)
            });
            // Ties: the processor that comes first, then the fewest units.
            let given = if in_time {
                times.filter(|&(time, ..)| time <= slack).max_by_key(|&(time, p, units)| (time, Reverse((p, units))))
            } else {
                times.min()
            };
            if let Some((_, processor, units)) = given {
                self.free[processor.index()] -= units;
                self.candidates[i].given = Some(Place { processor, units });
            }
        }
    }

    /// Lets running work that holds more units than it needs go on with fewer, where that makes room for a stage that can be on time.
    fn cut_for_those_who_wait(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.coming.clear();
        let ending = |p| Recut::all(*view, p).filter(|run| run.ending).map(|run| run.surplus()).sum::<u32>();
        self.coming.extend(view.processors().map(ending));
        for i in 0..self.candidates.len() {
            let Candidate { stage, given, in_time, .. } = self.candidates[i];
            // Who is late anyway goes last and takes what is left.
            if given.is_some() || !in_time || self.plan.batch_for(view, stage, |_| true).is_some() {
                continue;
            }
            let slack = view.due(stage).saturating_sub(view.now());
            let rest = self.times.of(view, stage);
            let (free, coming, cut) = (&self.free, &self.coming, &self.cut);
            let room = |p: ProcessorId| {
                let spare: u32 = uncut(*view, p, cut).map(|run| run.surplus()).sum();
                free[p.index()] + coming[p.index()] + spare
            };
            // The slowest place that suffices, so that the least is taken from others.
            let found = choices(*view, stage, rest)
                .filter(|choice| recut::division(view.system, choice.place.processor).is_some())
                .map(|choice| (choice.setup.saturating_add(until_due(view, stage, choice.rest)), choice.place))
                .filter(|&(time, place)| time <= slack && place.units <= room(place.processor))
                .max_by_key(|&(time, Place { processor, units })| (time, Reverse((processor, units))));
            let Some((_, Place { processor, units })) = found else { continue };
            let p = processor.index();
            let now = self.free[p].min(units);
            self.free[p] -= now;
            while self.coming[p] < units - now {
                let most = uncut(*view, processor, &self.cut).max_by_key(|run| (run.surplus(), run.stage));
                let run = most.expect("there is room");
                self.coming[p] += run.surplus();
                self.cut(view, processor, run.stage, actions);
            }
            self.coming[p] -= units - now;
        }
    }

    /// Where units are left over, lets the running work that gains most go on with more of them, if that is worth what it costs.
    fn widen(&mut self, view: &View<'_>, actions: &mut Actions) {
        for p in view.processors() {
            let free = self.free[p.index()];
            if free == 0 || Recut::all(*view, p).any(|run| run.ending) {
                continue;
            }
            let plan = &self.plan;
            let alone = uncut(*view, p, &self.cut).filter(|run| !plan.is_joined(p, view.stage(run.stage).model));
            let best = alone.filter_map(|run| Some((run.gain(free)?, Reverse(run.stage)))).max();
            if let Some((_, Reverse(stage))) = best {
                self.cut(view, p, stage, actions);
            }
        }
    }

    /// Takes a stage off its units at the next boundary, to go on with others.
    fn cut(&mut self, view: &View<'_>, processor: ProcessorId, stage: StageId, actions: &mut Actions) {
        self.cut.push(stage);
        actions.preempt(stage);
        // Nobody joins it any more.
        self.plan.close(processor, view.stage(stage).model);
    }

    /// Lets stages move up to faster processors that are still idle, in their order.
    fn give_spare(&mut self, view: &View<'_>) {
        for i in 0..self.candidates.len() {
            let Candidate { stage, given, .. } = self.candidates[i];
            let Some(given) = given else { continue };
            let rest = self.times.of(view, stage);
            let time = |choice: Choice| choice.setup.saturating_add(choice.rest.stage);
            let mut now = Nanos::MAX;
            let mut best = None;
            for choice in choices(*view, stage, rest) {
                let Place { processor, units } = choice.place;
                // What it holds already is free for it.
                let own = if processor == given.processor { given.units } else { 0 };
                let divided = view.system.platform.processors[processor].division.is_some();
                if choice.place == given {
                    now = time(choice);
                } else if self.free[processor.index()] + if divided { own } else { 0 } >= units {
                    let found = (time(choice), processor, units);
                    best = Some(best.map_or(found, |best: (Nanos, ProcessorId, u32)| best.min(found)));
                }
            }
            if let Some((best, processor, units)) = best
                && best < now
            {
                self.free[given.processor.index()] += given.units;
                self.free[processor.index()] -= units;
                self.candidates[i].given = Some(Place { processor, units });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use super::{score_in_time, score_late};
    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn the_scores_of_the_public_code() {
        // priority · 1/slack · 1/cores, in milliseconds 4 / 20 / 0.5.
        assert!((score_in_time(4.0, ms(20.0), 0.5) * 1e6 - 0.4).abs() < 1e-12);
        // priority / remaining time: 4 / 8.
        assert!((score_late(4.0, ms(8.0)) * 1e6 - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_stage_that_is_not_in_a_hurry_leaves_the_fast_processor_to_one_that_is() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let relaxed = rig.stream("relaxed", Some(50.0), &[Some(20.0), Some(5.0)]);
        let tight = rig.stream("tight", Some(60.0), &[Some(90.0), Some(30.0)]);
        let (relaxed, tight) = (rig.ready(relaxed, 0.0), rig.ready(tight, 0.0));
        let actions = rig.decide("planaria");
        assert_eq!(actions.len(), 2, "{actions:?}");
        assert!(actions.contains(&start(tight, 1)) && actions.contains(&start(relaxed, 0)));
        assert_eq!(rig.decide("edf"), [start(relaxed, 1), start(tight, 0)]);
    }

    #[test]
    fn spare_processors_are_used() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let relaxed = rig.stream("relaxed", Some(50.0), &[Some(20.0), Some(5.0)]);
        let stage = rig.ready(relaxed, 0.0);
        assert_eq!(rig.decide("planaria"), [start(stage, 1)]);
    }

    #[test]
    fn what_cannot_be_on_time_comes_last_and_waits_are_kept_short() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let lost = rig.stream("lost", Some(4.0), &[Some(5.0)]);
        let fine = rig.stream("fine", Some(50.0), &[Some(5.0)]);
        let (lost, fine) = (rig.ready(lost, 0.0), rig.ready(fine, 0.0));
        assert_eq!(rig.decide("planaria"), [start(fine, 0)]);
        rig.state.ready.retain(|&stage| stage == lost);
        assert_eq!(rig.decide("planaria"), [start(lost, 0)]);
    }

    #[test]
    fn a_stage_waits_for_a_busy_processor_that_alone_is_fast_enough() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let s = rig.stream("s", Some(30.0), &[Some(90.0), Some(9.0)]);
        rig.running(s, 1, 0.0);
        rig.ready(s, 0.0);
        assert_eq!(rig.decide("planaria"), [], "the CPU would take 90 ms, the NPU may still have it on time");
    }
}
