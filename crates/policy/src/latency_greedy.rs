//! `latency-greedy`: XRBench's policy. One queue per model, models in alphabetical order, each on the fastest idle processor.

use onbeat_core::id::{IdVec, ModelId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "latency-greedy",
    summary: "XRBench's: one queue per model, in alphabetical order of model, each on its fastest idle processor",
    group: "multi-DNN",
    parameters: &[ParameterInfo {
        name: "tick_ms",
        default: "0",
        meaning: "compatibility with XRBench's harness: new stages are noticed only at multiples of this [ms] and when a run ends; 0: at once",
    }],
    reference: "XRBench (MLSys 2023), github.com/XRBench/XRBench-MLSys2023, commit 8915666, LatencyGreedy",
    build,
};

/// XRBench's latency-greedy policy.
#[derive(Clone, Debug)]
struct LatencyGreedy {
    order: Alphabetical,
    dispatch: Dispatch,
    tick: Nanos,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let mut names: Vec<&str> = system.models.iter().map(|model| model.name.as_str()).collect();
    names.sort_unstable();
    let rank = |name: &str| names.partition_point(|&other| other < name) as u64;
    let ranks = system.models.iter().map(|model| rank(&model.name)).collect();
    Ok(Box::new(LatencyGreedy {
        order: Alphabetical { ranks, noticed: u64::MAX },
        dispatch: Dispatch::default(),
        tick: parameters.milliseconds("tick_ms")?,
        alarm: Alarm::default(),
    }))
}

impl Policy for LatencyGreedy {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if self.tick > Nanos::ZERO {
            self.notice(view, actions);
        }
        self.dispatch.run(view, actions, &mut self.order);
    }
}

impl LatencyGreedy {
    /// At a tick or when a run has just ended, notices all stages; otherwise asks for a wake-up at the next tick if there is one to notice.
    fn notice(&mut self, view: &View<'_>, actions: &mut Actions) {
        let Some(newest) = view.ready().iter().map(|&stage| view.stage(stage).serial).max() else {
            return;
        };
        let now = view.now();
        let ended = || view.processors().any(|p| view.occupancy(p).idle_since == now);
        if now.0.is_multiple_of(self.tick.0) || ended() {
            self.order.noticed = newest + 1;
            return;
        }
        if self.order.noticed == u64::MAX {
            self.order.noticed = 0;
        }
        if newest >= self.order.noticed {
            let next = (now.0 / self.tick.0 + 1) * self.tick.0;
            self.alarm.set(now, Nanos(next), actions);
        }
    }
}

/// By the name of the model.
#[derive(Clone, Debug)]
struct Alphabetical {
    /// Number of smaller names, by model.
    ranks: IdVec<ModelId, u64>,
    /// Stages with smaller serials are noticed.
    noticed: u64,
}

impl Order for Alphabetical {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        self.ranks[view.stage(stage).model]
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        view.stage(stage).serial < self.noticed
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn models_go_by_name_and_take_the_fastest_idle_processor() {
        let mut rig = Rig::new(&[("a", Preemption::Never), ("b", Preemption::Never)]);
        let hands = rig.stream("hands", Some(5.0), &[Some(9.0), Some(3.0)]);
        let eyes = rig.stream("eyes", Some(50.0), &[Some(9.0), Some(4.0)]);
        let (hands, eyes) = (rig.ready(hands, 0.0), rig.ready(eyes, 0.0));
        assert_eq!(rig.decide("latency-greedy"), [start(eyes, 1), start(hands, 0)]);
    }

    #[test]
    fn with_ticks_a_frame_is_noticed_at_the_next_tick_or_completion() {
        let mut rig = Rig::new(&[("a", Preemption::Never)]);
        let hands = rig.stream("hands", Some(22.0), &[Some(8.0)]);
        let mut policy = rig.make("latency-greedy:tick_ms=16");
        rig.state.now = ms(22.0);
        let frame = rig.ready(hands, 22.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(32.0) }]);
        rig.state.now = ms(25.0);
        assert_eq!(rig.decide_with(&mut policy), [], "not noticed, and woken once");
        rig.state.processors[onbeat_core::id::ProcessorId(0)].idle_since = ms(25.0);
        assert_eq!(rig.decide_with(&mut policy.clone()), [start(frame, 0)], "a completion notices it");
        rig.state.now = ms(32.0);
        assert_eq!(rig.decide_with(&mut policy), [start(frame, 0)]);
        rig.state.now = ms(22.0);
        assert_eq!(rig.decide("latency-greedy"), [start(frame, 0)], "without ticks at once");
    }
}
