//! `edzl`: earliest due first, until a stage has no time to spare: then it goes first.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};
use crate::times::{Rest, Times, best_rest, latest_start_ns, rest_of_running};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "edzl",
    summary: "Earliest due first until zero laxity: a stage without time to spare goes before all others",
    group: "real-time",
    parameters: &[PREEMPTIVE],
    reference: "Lee, On-Line Multiprocessor Scheduling Algorithms for Real-Time Tasks, IEEE TENCON 1994",
    build,
};

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(Switch::new(|view, stage| view.due(stage).0, Nanos::ZERO, parameters.flag("preemptive")?)))
}

/// Key of a stage that is critical; nothing goes before it.
const CRITICAL: u64 = 0;

/// Any fixed order, with a switch: a stage whose time to spare has run down goes before all that have some left. Critical stages go in
/// the order in which they became ready, and do not take over from each other.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    order: Critical,
    dispatch: Dispatch,
    alarm: Alarm,
}

impl Switch {
    /// With the order of stages that are not critical, and the time to spare at which they become so.
    pub(crate) fn new(base: fn(&View<'_>, StageId) -> u64, lead: Nanos, preemptive: bool) -> Self {
        let order = Critical { base, lead, preemptive, times: Times::default() };
        Self { order, dispatch: Dispatch::default(), alarm: Alarm::default() }
    }
}

impl Policy for Switch {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        // While stages wait, the next one becomes critical though nothing else happens.
        let mut next = Nanos::MAX;
        for &(key, stage) in self.dispatch.waiting() {
            if key != CRITICAL && self.could_take_over(view, stage) {
                next = next.min(self.order.critical_at(view, stage));
            }
        }
        if next != Nanos::MAX {
            self.alarm.set(view.now(), next, actions);
        }
    }
}

impl Switch {
    /// Whether work runs that the stage could take the slot of.
    fn could_take_over(&self, view: &View<'_>, stage: StageId) -> bool {
        let started = self.dispatch.started().iter().map(|&(_, _, processor)| processor);
        let mut running = self.dispatch.running().map(|(_, processor)| processor).chain(started);
        running.any(|p| view.can_run(stage, p) && view.preemptible(p))
    }
}

/// Critical stages first, then by another order.
#[derive(Clone, Debug)]
struct Critical {
    base: fn(&View<'_>, StageId) -> u64,
    lead: Nanos,
    preemptive: bool,
    times: Times,
}

impl Critical {
    /// When a waiting stage becomes critical: so long before the last moment at which it can start, on its fastest processor, and be
    /// on time. [`Nanos::MAX`] without goals.
    fn critical_at(&mut self, view: &View<'_>, stage: StageId) -> Nanos {
        let rest = best_rest(self.times.of(view, stage));
        self.critical_from(view, stage, rest)
    }

    fn critical_from(&self, view: &View<'_>, stage: StageId, rest: Rest) -> Nanos {
        match latest_start_ns(view, stage, rest) {
            i64::MAX => Nanos::MAX,
            latest => Nanos(latest.max(0).cast_unsigned()).saturating_sub(self.lead),
        }
    }

    fn key_of(&self, view: &View<'_>, stage: StageId, critical_at: Nanos) -> u64 {
        if critical_at <= view.now() { CRITICAL } else { (self.base)(view, stage).max(CRITICAL + 1) }
    }
}

impl Order for Critical {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let critical_at = self.critical_at(view, stage);
        self.key_of(view, stage, critical_at)
    }

    fn running_key(&mut self, view: &View<'_>, processor: ProcessorId, run: &Run) -> u64 {
        let key = |stage| {
            let rest = rest_of_running(view, stage, processor, run);
            self.key_of(view, stage, self.critical_from(view, stage, rest))
        };
        run.stages().map(key).min().expect("a run serves at least one stage")
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn goes_by_due_time_until_there_is_no_time_to_spare() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(8.0)]);
        let heavy = rig.stream("heavy", Some(30.0), &[Some(25.0)]);
        let running = rig.running(soon, 0, 0.0);
        let waiting = rig.ready(heavy, 0.0);
        let mut policy = rig.make("edzl");
        // The heavy stage must start at 30 - 25 = 5.
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(5.0) }]);
        assert_eq!(rig.decide_with(&mut policy), [], "one wake-up at a time");
        rig.state.now = ms(5.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(running)]);
        assert_eq!(rig.decide("edzl:preemptive=false"), []);
        rig.stop(running);
        assert_eq!(rig.decide_with(&mut policy), [start(waiting, 0), Action::Wake { at: ms(12.0) }], "20 - 8 = 12");
    }

    #[test]
    fn critical_stages_do_not_take_over_from_each_other() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let first = rig.stream("first", Some(12.0), &[Some(12.0)]);
        let second = rig.stream("second", Some(10.0), &[Some(10.0)]);
        rig.running(first, 0, 0.0);
        rig.ready(second, 0.0);
        assert_eq!(rig.decide("edzl"), []);
    }

    #[test]
    fn a_decode_must_go_on_one_step_before_its_next_token_is_due() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[4.0], 1);
        let soon = rig.stream("soon", Some(49.0), &[Some(48.0)]);
        rig.running(soon, 0, 0.0);
        let decode = rig.ready_decode(chat, 0.0);
        // The first token came at 0, the next one is due at 50; a step takes 4.
        rig.state.stages[decode].first_token = Some(ms(0.0));
        assert_eq!(rig.decide("edzl"), [Action::Wake { at: ms(46.0) }]);
    }
}
