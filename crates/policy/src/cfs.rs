//! `cfs`: completely fair: the source that has had the least processor time for its weight goes first.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::usage::{Usage, slice};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "cfs",
    summary: "Completely fair: the source with the least processor time for its weight goes first",
    group: "XSched",
    parameters: &[ParameterInfo {
        name: "slice_ms",
        default: "5",
        meaning: "running work gives way when its source is ahead of a waiting one by more than this [ms of virtual time], above 0",
    }],
    reference: "The fair scheduler of Linux 2.6.23 (Molnár, 2007); policy CFS of the public repository XpuOS/xsched",
    build,
};

/// Completely fair.
#[derive(Clone, Debug)]
struct Cfs {
    order: LeastServed,
    dispatch: Dispatch,
    usage: Usage,
    alarm: Alarm,
}

/// By virtual time.
#[derive(Clone, Debug)]
struct LeastServed {
    slice: Nanos,
    /// By source.
    shares: Vec<Share>,
    /// Whether each source has work now.
    active: Vec<bool>,
}

/// What a source has had.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Processor time divided by weight [ns].
    time: u64,
    weight: f64,
    active: bool,
}

/// Priorities above this count as this.
const PRIORITY_MAX: i32 = 20;

/// Weight of a priority: a quarter more for each step above 0. Priorities below 0, which include the default ones, weigh 1.
fn weight(priority: i32) -> f64 {
    (0..priority.clamp(0, PRIORITY_MAX)).fold(1.0, |weight, _| weight * 1.25)
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let slice = parameters.milliseconds("slice_ms")?;
    if slice == Nanos::ZERO {
        return Err(PolicyError::BadValue {
            policy: INFO.name,
            parameter: "slice_ms",
            value: parameters.text("slice_ms").to_owned(),
            allowed: "a number of milliseconds above 0",
        });
    }
    let shares = system.sources.iter().map(|s| Share { time: 0, weight: weight(s.priority), active: false }).collect();
    let order = LeastServed { slice, shares, active: vec![false; system.sources.len()] };
    Ok(Box::new(Cfs { order, dispatch: Dispatch::default(), usage: Usage::default(), alarm: Alarm::default() }))
}

/// Wake-ups are no closer than this part of a slice, however little is left to a crossing that may not even come (in a batch).
const GRAIN: u64 = 8;

impl Policy for Cfs {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        for charge in self.usage.charges(view) {
            let share = &mut self.order.shares[charge.source.index()];
            share.time = share.time.saturating_add((charge.time.as_f64() / share.weight) as u64);
        }
        self.order.activate(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.usage.note(view, actions);
        if let Some(crossing) = self.next_crossing(view) {
            self.alarm.set(
                view.now(),
                view.now().saturating_add(Nanos(crossing.max(self.order.slice.0 / GRAIN).max(1))),
                actions,
            );
        }
    }
}

impl Cfs {
    /// Time until running work must give way to the waiting stage whose source has had the least.
    fn next_crossing(&self, view: &View<'_>) -> Option<u64> {
        let &(waiting, stage) = self.dispatch.waiting().first()?;
        let limit = waiting.saturating_add(self.order.slice.0).saturating_add(1);
        let running = self.usage.running(view);
        let usable = running.filter(|&(_, p, _)| view.preemptible(p) && view.can_run(stage, p));
        let times = usable.map(|(other, _, part)| {
            let share = &self.order.shares[view.job(other).source.index()];
            (limit.saturating_sub(share.time) as f64 * share.weight / part).ceil() as u64
        });
        times.min()
    }
}

impl LeastServed {
    /// A source that has had no work for a while starts no further back than the one that has had the least.
    fn activate(&mut self, view: &View<'_>) {
        self.active.fill(false);
        let running = view.processors().flat_map(|p| &view.occupancy(p).runs).flat_map(Run::stages);
        for stage in view.ready().iter().copied().chain(running) {
            self.active[view.job(stage).source.index()] = true;
        }
        let least = self.shares.iter().filter(|share| share.active).map(|share| share.time).min();
        // With nobody to compare to, the one that has had most sets the mark.
        let floor = least.or_else(|| self.shares.iter().map(|share| share.time).max()).unwrap_or(0);
        for (share, &active) in self.shares.iter_mut().zip(&self.active) {
            if active && !share.active {
                share.time = share.time.max(floor);
            }
            share.active = active;
        }
    }
}

impl Order for LeastServed {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.shares[view.job(stage).source.index()].time
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(self.slice.0)
    }

    fn portion(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<u32> {
        let weight = self.shares[view.job(stage).source.index()].weight;
        slice(view, stage, processor, Nanos::from_ns_f64(self.slice.as_f64() * weight))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;

    use super::weight;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn a_step_of_priority_is_a_quarter_more() {
        assert_eq!([-1000, -1, 0, 1, 2].map(weight), [1.0, 1.0, 1.0, 1.25, 1.5625]);
        assert_eq!(weight(i32::MAX), weight(20));
    }

    #[test]
    fn work_gives_way_when_its_source_is_a_slice_ahead() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let one = rig.stream("one", Some(90.0), &[Some(40.0)]);
        let other = rig.stream("other", Some(90.0), &[Some(40.0)]);
        let mut policy = rig.make("cfs");
        let first = rig.ready(one, 0.0);
        let second = rig.ready(other, 0.0);
        assert_eq!(
            rig.decide_with(&mut policy),
            [start(first, 0), Action::Wake { at: ms(5.0) + onbeat_core::units::Nanos(1) }]
        );
        rig.state.ready.clear();
        let first = rig.running(one, 0, 0.0);
        rig.state.ready.push(second);
        rig.state.now = ms(5.0);
        assert_eq!(rig.decide_with(&mut policy).iter().filter(|a| matches!(a, Action::Preempt { .. })).count(), 0);
        rig.state.now = ms(6.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(first)]);
        rig.stop(first);
        assert_eq!(rig.decide_with(&mut policy)[0], start(second, 0));
    }

    #[test]
    fn a_source_that_was_idle_has_no_credit() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let busy = rig.stream("busy", Some(90.0), &[Some(900.0)]);
        let idle = rig.stream("idle", Some(90.0), &[Some(40.0)]);
        let mut policy = rig.make("cfs");
        rig.running(busy, 0, 0.0);
        rig.decide_with(&mut policy);
        rig.state.now = ms(100.0);
        rig.ready(idle, 100.0);
        let actions = rig.decide_with(&mut policy);
        assert_eq!(actions, [Action::Wake { at: ms(105.0) + onbeat_core::units::Nanos(1) }], "not 100 ms behind");
    }

    #[test]
    fn where_nothing_is_preempted_a_run_is_a_slice_long() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let chat = rig.session("chat", &[2.0], 1);
        let stage = rig.ready_decode(chat, 0.0);
        let actions = rig.decide("cfs");
        assert!(
            matches!(actions[..], [Action::Start { stage: s, limit: Some(Limit::Segments(2)), .. }] if s == stage),
            "{actions:?}"
        );
    }
}
