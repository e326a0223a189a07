//! `utilisation-partition`: sources take turns, each for its share of a time slice.

use onbeat_core::id::{Id, ProcessorId, SourceId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order, hold_back};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::usage::slice;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "utilisation-partition",
    summary: "Sources take turns on the processors, each for its share of a time slice",
    group: "XSched",
    parameters: &[
        ParameterInfo {
            name: "slice_ms",
            default: "50",
            meaning: "time in which every source with work has its turn, if all have [ms], above 0",
        },
        ParameterInfo {
            name: "shares",
            default: "",
            meaning: "SOURCE:SHARE+SOURCE:SHARE, shares above 0 up to 1000; what is not named has the share 1",
        },
        ParameterInfo {
            name: "per",
            default: "processor",
            meaning: "`processor`: every processor has turns of its own; `chip`: one turn for all of them, as in XSched's code",
        },
    ],
    reference: "Shen et al., XSched: Preemptive Scheduling for Diverse XPUs, OSDI 2025; policy UP of the public repository XpuOS/xsched",
    build,
};

/// Turns by share.
#[derive(Clone, Debug)]
struct UtilisationPartition {
    order: Turns,
    dispatch: Dispatch,
    alarm: Alarm,
}

/// Whose turn it is.
#[derive(Clone, Debug)]
struct Turns {
    /// How long each source's turn is.
    lengths: Vec<Nanos>,
    /// One for each processor, or a single one.
    turns: Vec<Turn>,
    per_chip: bool,
    /// Whether each source has work for the turn in question.
    work: Vec<bool>,
}

/// A turn.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    source: Option<SourceId>,
    end: Nanos,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let wrong = |parameter: &'static str, allowed: &'static str| PolicyError::BadValue {
        policy: INFO.name,
        parameter,
        value: parameters.text(parameter).to_owned(),
        allowed,
    };
    let per_chip = match parameters.text("per") {
        "chip" => true,
        "processor" => false,
        _ => return Err(wrong("per", "processor or chip")),
    };
    let whole = parameters.milliseconds("slice_ms")?;
    if whole == Nanos::ZERO {
        return Err(wrong("slice_ms", "a number of milliseconds above 0"));
    }
    let allowed = "SOURCE:SHARE with a share above 0 up to 1000, several of them joined by +";
    let within = |share: f64| share > 0.0 && share <= 1000.0;
    let shares = parameters.by_source("shares", system, |_| true, 1.0, within, ("source", allowed))?;
    let sum: f64 = shares.iter().sum();
    // A turn is never so short that nothing but switching happens.
    let length = |share: &f64| Nanos::from_ns_f64(whole.as_f64() * share / sum).max(TURN_MIN);
    let count = if per_chip { 1 } else { system.platform.processors.len() };
    let order = Turns {
        lengths: shares.iter().map(length).collect(),
        turns: vec![Turn::default(); count],
        per_chip,
        work: vec![false; system.sources.len()],
    };
    Ok(Box::new(UtilisationPartition { order, dispatch: Dispatch::default(), alarm: Alarm::default() }))
}

/// The shortest turn.
const TURN_MIN: Nanos = Nanos(100_000);

impl Policy for UtilisationPartition {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let next = self.order.pass_on(view);
        self.dispatch.run(view, actions, &mut self.order);
        hold_back(view, actions, |processor, run| {
            run.stages().any(|stage| self.order.has_turn(view.job(stage).source, processor))
        });
        if next != Nanos::MAX {
            self.alarm.set(view.now(), next, actions);
        }
    }
}

impl Turns {
    /// Ends turns whose time is up or whose source has no work. Returns when the first of those that others wait for ends.
    fn pass_on(&mut self, view: &View<'_>) -> Nanos {
        let (now, count) = (view.now(), self.lengths.len());
        let mut next = Nanos::MAX;
        for number in 0..self.turns.len() {
            self.find_work(view, number);
            let turn = &mut self.turns[number];
            let over = turn.end <= now || turn.source.is_none_or(|source| !self.work[source.index()]);
            if over {
                // Its own source comes last.
                let first = turn.source.map_or(0, |source| source.index() + 1);
                let with_work = (first..first + count).map(|i| i % count).find(|&i| self.work[i]);
                turn.source = with_work.map(SourceId::new);
                turn.end = with_work.map_or(now, |i| now.saturating_add(self.lengths[i]));
            }
            if self.work.iter().filter(|&&work| work).count() > 1 {
                next = next.min(turn.end);
            }
        }
        next
    }

    /// Which sources have work that a turn is for: it runs there, or could.
    fn find_work(&mut self, view: &View<'_>, turn: usize) {
        self.work.fill(false);
        let per_chip = self.per_chip;
        let processors = || view.processors().filter(move |p| per_chip || p.index() == turn);
        for &stage in view.ready() {
            if processors().any(|p| view.can_run(stage, p)) {
                self.work[view.job(stage).source.index()] = true;
            }
        }
        for stage in processors().flat_map(|p| &view.occupancy(p).runs).flat_map(Run::stages) {
            self.work[view.job(stage).source.index()] = true;
        }
    }

    fn turn(&self, processor: ProcessorId) -> &Turn {
        &self.turns[if self.per_chip { 0 } else { processor.index() }]
    }

    fn has_turn(&self, source: SourceId, processor: ProcessorId) -> bool {
        self.turn(processor).source == Some(source)
    }
}

impl Order for Turns {
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        let source = view.job(stage).source;
        plan.fastest_among(view, stage, |p| self.has_turn(source, p))
    }

    fn allows(&self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> bool {
        self.has_turn(view.job(stage).source, processor)
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        let source = view.job(stage).source;
        self.turns.iter().any(|turn| turn.source == Some(source))
    }

    fn portion(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<u32> {
        slice(view, stage, processor, self.turn(processor).end.saturating_sub(view.now()))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn turns_are_as_long_as_the_shares_say() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let a = rig.stream("a", None, &[Some(90.0)]);
        let b = rig.stream("b", None, &[Some(90.0)]);
        let mut policy = rig.make("utilisation-partition:slice_ms=40,shares=a:3");
        let (first, second) = (rig.ready(a, 0.0), rig.ready(b, 0.0));
        assert_eq!(rig.decide_with(&mut policy), [start(first, 0), Action::Wake { at: ms(30.0) }]);
        rig.state.ready.retain(|&stage| stage != first);
        rig.start_again(first, 0, 0.0);
        rig.state.now = ms(30.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(first), Action::Wake { at: ms(40.0) }]);
        rig.stop(first);
        assert_eq!(rig.decide_with(&mut policy), [start(second, 0)], "the wake-up is on its way");
    }

    #[test]
    fn a_source_without_work_passes_its_turn_on_and_one_alone_is_not_interrupted() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        rig.stream("a", None, &[Some(90.0)]);
        let b = rig.stream("b", None, &[Some(90.0)]);
        let mut policy = rig.make("utilisation-partition");
        let only = rig.ready(b, 0.0);
        assert_eq!(rig.decide_with(&mut policy), [start(only, 0)]);
        rig.state.ready.clear();
        rig.start_again(only, 0, 0.0);
        rig.state.now = ms(80.0);
        assert_eq!(rig.decide_with(&mut policy), []);
    }

    #[test]
    fn a_turn_is_of_a_processor_or_of_the_chip() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime), ("npu", Preemption::Never)]);
        let a = rig.stream("a", None, &[Some(9.0), None]);
        let b = rig.stream("b", None, &[None, Some(9.0)]);
        let (a, b) = (rig.ready(a, 0.0), rig.ready(b, 0.0));
        assert_eq!(rig.decide("utilisation-partition"), [start(a, 0), start(b, 1)]);
        let chip = rig.decide("utilisation-partition:per=chip");
        assert_eq!(chip, [start(a, 0), Action::Wake { at: ms(25.0) }], "the NPU is left idle");
    }

    #[test]
    fn mistakes_are_explained() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        rig.stream("camera", None, &[Some(9.0)]);
        let error = |text: &str| crate::make(text, &rig.system).unwrap_err().to_string();
        assert!(error("utilisation-partition:shares=camra:2").contains("did you mean `camera`?"));
        assert!(error("utilisation-partition:shares=camera").contains("SOURCE:SHARE"));
        assert!(error("utilisation-partition:shares=camera:0").contains("SOURCE:SHARE"));
        assert!(error("utilisation-partition:slice_ms=0").contains("above 0"));
        assert!(error("utilisation-partition:per=core").contains("processor or chip"));
    }
}
