//! `dm`: the source whose jobs have the shortest relative deadline goes first; in sessions that is the TTFT goal.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::{Source, System};
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "dm",
    summary: "Deadline-monotonic: shortest relative deadline first (sessions: TTFT goal), on the fastest idle processor",
    group: "real-time",
    parameters: &[PREEMPTIVE],
    reference: "Leung and Whitehead, On the Complexity of Fixed-Priority Scheduling of Periodic, Real-Time Tasks, Performance Evaluation 2(4), 1982",
    build,
};

/// Shortest relative deadline first.
#[derive(Clone, Debug)]
struct DeadlineMonotonic {
    order: ShortestDeadline,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = ShortestDeadline { preemptive: parameters.flag("preemptive")? };
    Ok(Box::new(DeadlineMonotonic { order, dispatch: Dispatch::default() }))
}

impl Policy for DeadlineMonotonic {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// By the source's relative deadline.
#[derive(Clone, Debug)]
struct ShortestDeadline {
    preemptive: bool,
}

/// The deadline or the TTFT goal, whichever is shorter; [`Nanos::MAX`] without either.
fn relative_deadline(source: &Source) -> Nanos {
    source.deadline.into_iter().chain(source.ttft).min().unwrap_or(Nanos::MAX)
}

impl Order for ShortestDeadline {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        relative_deadline(view.source(stage)).0
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_shorter_relative_deadline_wins_though_it_is_due_later() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let short = rig.stream("short", Some(10.0), &[Some(4.0)]);
        let long = rig.stream("long", Some(20.0), &[Some(4.0)]);
        let running = rig.running(long, 0, 0.0);
        rig.state.now = ms(15.0);
        let urgent = rig.ready(short, 15.0);
        assert_eq!(rig.decide("dm"), [preempt(running)], "due at 25, after 20");
        assert_eq!(rig.decide("dm:preemptive=false"), []);
        assert_eq!(rig.decide("edf"), []);
        rig.stop(running);
        assert_eq!(rig.decide("dm"), [start(urgent, 0)]);
    }

    #[test]
    fn a_session_ranks_by_its_first_token_and_work_without_goals_comes_last() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let free = rig.stream("free", None, &[Some(4.0)]);
        let slow = rig.stream("slow", Some(1001.0), &[Some(4.0)]);
        let chat = rig.session("chat", &[4.0], 1);
        rig.ready(free, 0.0);
        rig.ready(slow, 0.0);
        let first = rig.ready(chat, 0.0);
        assert_eq!(rig.decide("dm"), [start(first, 0)], "1000 ms to the first token");
    }
}
