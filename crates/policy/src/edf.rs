//! `edf`: the stage that is due first goes first, on the fastest idle processor.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "edf",
    summary: "Earliest due first, on the fastest idle processor; takes over from what is due later",
    group: "RTGen-style",
    parameters: &[PREEMPTIVE],
    reference: "Liu and Layland, Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment, J. ACM 20(1), 1973",
    build,
};

/// The parameter that `edf` shares with all that can preempt and need not.
pub(crate) const PREEMPTIVE: ParameterInfo = ParameterInfo {
    name: "preemptive",
    default: "true",
    meaning: "true: less urgent work is taken off processors that allow it; false: what runs, runs to the end of its phase",
};

/// Earliest due first.
#[derive(Clone, Debug)]
struct Edf {
    order: EarliestDue,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = EarliestDue { preemptive: parameters.flag("preemptive")? };
    Ok(Box::new(Edf { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for Edf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }
}

/// By the time at which stages are due.
#[derive(Clone, Debug)]
pub(crate) struct EarliestDue {
    pub(crate) preemptive: bool,
}

impl Order for EarliestDue {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

/// No decode step of a real model is shorter; keeps a damaged profile from waking the policy without end.
pub(crate) const STEP_MIN: Nanos = Nanos(10_000);

/// Looks again once per output token while a stage waits behind a decode that has a TPOT goal: with every token the next one is
/// due later, and nothing else may happen in the meantime.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenAlarm {
    alarm: Alarm,
}

impl TokenAlarm {
    /// Asks for a wake-up after the next token, if that can change a decision.
    pub(crate) fn set(&mut self, view: &View<'_>, dispatch: &Dispatch, actions: &mut Actions) {
        // The most urgent stage is the first; work without a deadline takes over from nothing.
        let Some(&(key, _)) = dispatch.waiting().first() else { return };
        if key == u64::MAX {
            return;
        }
        let started = dispatch.started().iter().map(|&(_, stage, processor)| (stage, processor));
        let running = view
            .processors()
            .flat_map(|p| view.occupancy(p).runs.iter().filter(|run| !run.ending).map(move |run| (run.stage, p)));
        let step = running.chain(started).filter_map(|(stage, p)| step(view, stage, p)).min();
        if let Some(step) = step {
            self.alarm.set(view.now(), view.now().saturating_add(step.max(STEP_MIN)), actions);
        }
    }
}

/// Mean nominal time per output token of a stage that decodes towards a TPOT goal and can be preempted.
fn step(view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
    let live = view.stage(stage);
    if live.kind != Phase::Decode || !view.preemptible(processor) || view.source(stage).tpot.is_none() {
        return None;
    }
    let left = (live.work.units(Phase::Decode) - live.position).max(1.0);
    Some(Nanos::from_ns_f64(view.remaining_in_phase(stage, processor)?.as_f64() / left))
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_earliest_due_takes_the_fastest_idle_processor() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let late = rig.stream("late", Some(50.0), &[Some(9.0), Some(2.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(8.0), Some(3.0)]);
        let (late, soon) = (rig.ready(late, 0.0), rig.ready(soon, 0.0));
        assert_eq!(rig.decide("edf"), [start(soon, 1), start(late, 0)]);
    }

    #[test]
    fn equal_dues_go_by_readiness_and_equal_processors_by_number() {
        let mut rig = Rig::new(&[("a", Preemption::Never), ("b", Preemption::Never)]);
        let source = rig.stream("s", Some(20.0), &[Some(4.0), Some(4.0)]);
        let (first, second) = (rig.ready(source, 0.0), rig.ready(source, 0.0));
        assert_eq!(rig.decide("edf"), [start(first, 0), start(second, 1)]);
        rig.reverse_ready();
        assert_eq!(rig.decide("edf"), [start(first, 0), start(second, 1)]);
    }

    #[test]
    fn preempts_the_least_urgent_run_once_and_waits_for_its_slot() {
        let mut rig = Rig::new(&[("a", Preemption::Segment), ("b", Preemption::Segment)]);
        let relaxed = rig.stream("relaxed", Some(90.0), &[Some(40.0), Some(40.0)]);
        let best_effort = rig.stream("best-effort", None, &[Some(40.0), Some(40.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(4.0), Some(4.0)]);
        rig.running(relaxed, 0, 0.0);
        let victim = rig.running(best_effort, 1, 0.0);
        rig.state.now = ms(5.0);
        let urgent = rig.ready(soon, 5.0);
        assert_eq!(rig.decide("edf"), [preempt(victim)]);
        rig.state.processors[onbeat_core::id::ProcessorId(1)].runs[0].ending = true;
        assert_eq!(rig.decide("edf"), [], "the slot is on its way");
        rig.ready(soon, 5.0);
        rig.state.now = ms(6.0);
        let actions = rig.decide("edf");
        assert_eq!(actions.len(), 1, "one more slot for the second urgent stage: {actions:?}");
        rig.stop(victim);
        assert_eq!(rig.decide("edf")[0], start(urgent, 1));
    }

    #[test]
    fn does_not_preempt_for_equal_dues_nor_where_it_must_not() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime)]);
        let source = rig.stream("s", Some(20.0), &[Some(4.0)]);
        let soon = rig.stream("soon", Some(10.0), &[Some(4.0)]);
        let running = rig.running(source, 0, 0.0);
        rig.ready(source, 0.0);
        assert_eq!(rig.decide("edf"), []);
        rig.ready(soon, 0.0);
        assert_eq!(rig.decide("edf"), [preempt(running)]);
        assert_eq!(rig.decide("edf:preemptive=false"), []);
        rig.system.platform.processors[onbeat_core::id::ProcessorId(0)].preemption = Preemption::Never;
        assert_eq!(rig.decide("edf"), []);
    }

    #[test]
    fn decode_joins_a_batch_up_to_its_limit() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 2);
        let running = rig.running_decode(chat, 0, 0.0);
        let (second, third) = (rig.ready_decode(chat, 1.0), rig.ready_decode(chat, 1.0));
        assert_eq!(rig.decide("edf"), [start(second, 0)], "a batch of two");
        rig.stop(running);
        rig.state.ready.retain(|&s| s == second || s == third);
        assert_eq!(rig.decide("edf"), [start(second, 0), start(third, 0)], "a batch started now can be joined now");
    }

    #[test]
    fn a_stage_behind_a_decode_is_looked_at_after_every_token() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let slow = rig.stream("slow", Some(10_000.0), &[Some(5.0)]);
        rig.running_decode(chat, 0, 0.0);
        rig.ready(slow, 0.0);
        let mut policy = rig.make("edf");
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(4.0) }]);
        assert_eq!(rig.decide_with(&mut policy), [], "one wake-up at a time");
    }
}
