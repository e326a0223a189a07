//! `k-edf`: earliest due first, but only the K stages that are due first may run at all.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order, hold_back};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "k-edf",
    summary: "Earliest due first; all but the K stages that are due first are held back, though processors be idle",
    group: "XSched",
    parameters: &[ParameterInfo {
        name: "k",
        default: "1",
        meaning: "how many stages may run at once on all processors together, 1 to 1000000",
    }],
    reference: "Shen et al., XSched: Preemptive Scheduling for Diverse XPUs, OSDI 2025; policy KEDF of the public repository XpuOS/xsched",
    build,
};

/// The K earliest due.
#[derive(Clone, Debug)]
struct KEdf {
    order: Admitted,
    dispatch: Dispatch,
}

/// By due time, for those that are admitted.
#[derive(Clone, Debug)]
struct Admitted {
    k: usize,
    /// Live stages by due time and serial; only the first K may run.
    rank: Vec<(u64, u64, StageId)>,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let text = parameters.text("k");
    let k = text.parse().ok().filter(|k| (1..=1_000_000).contains(k)).ok_or_else(|| PolicyError::BadValue {
        policy: INFO.name,
        parameter: "k",
        value: text.to_owned(),
        allowed: "a whole number from 1 to 1000000",
    })?;
    Ok(Box::new(KEdf { order: Admitted { k, rank: Vec::new() }, dispatch: Dispatch::default() }))
}

impl Policy for KEdf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.list(view);
        self.dispatch.run(view, actions, &mut self.order);
        hold_back(view, actions, |_, run| run.stages().any(|stage| self.order.admits(stage)));
    }
}

impl Admitted {
    /// Puts live stages in order. Those that no processor can take at the moment hold nobody back.
    fn list(&mut self, view: &View<'_>) {
        self.rank.clear();
        let ready = view.ready().iter().copied().filter(|&stage| view.processors().any(|p| view.can_run(stage, p)));
        let runs = view.processors().flat_map(|p| &view.occupancy(p).runs).filter(|run| !view.gives_way(run));
        let running = runs.flat_map(Run::stages);
        for stage in ready.chain(running) {
            self.rank.push((view.due(stage).0, view.stage(stage).serial, stage));
        }
        self.rank.sort_unstable();
        self.rank.truncate(self.k);
    }

    fn admits(&self, stage: StageId) -> bool {
        self.rank.iter().any(|&(_, _, admitted)| admitted == stage)
    }
}

impl Order for Admitted {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn considers(&self, _: &View<'_>, stage: StageId) -> bool {
        self.admits(stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn only_the_first_k_start() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime), ("b", Preemption::Anytime), ("c", Preemption::Anytime)]);
        let late = rig.stream("late", Some(30.0), &[Some(4.0), Some(4.0), Some(4.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(4.0), Some(4.0), Some(4.0)]);
        let (late, soon, later) = (rig.ready(late, 0.0), rig.ready(soon, 0.0), rig.ready(late, 0.0));
        assert_eq!(rig.decide("k-edf"), [start(soon, 0)]);
        assert_eq!(rig.decide("k-edf:k=2"), [start(soon, 0), start(late, 1)]);
        assert_eq!(rig.decide("k-edf:k=3"), [start(soon, 0), start(late, 1), start(later, 2)]);
    }

    #[test]
    fn a_run_beyond_the_first_k_stops_though_nobody_needs_its_processor() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime), ("b", Preemption::Anytime)]);
        let late = rig.stream("late", Some(30.0), &[Some(4.0), None]);
        let soon = rig.stream("soon", Some(20.0), &[None, Some(4.0)]);
        let running = rig.running(late, 0, 0.0);
        let urgent = rig.ready(soon, 1.0);
        rig.state.now = ms(1.0);
        assert_eq!(rig.decide("k-edf"), [start(urgent, 1), preempt(running)]);
        assert_eq!(rig.decide("k-edf:k=2"), [start(urgent, 1)]);
        rig.system.platform.processors[onbeat_core::id::ProcessorId(0)].preemption = Preemption::Never;
        assert_eq!(rig.decide("k-edf"), [start(urgent, 1)]);
    }

    #[test]
    fn a_stage_that_memory_refuses_everywhere_holds_nobody_back() {
        let mut rig = Rig::new(&[("a", Preemption::Anytime)]);
        let late = rig.stream("late", Some(30.0), &[Some(4.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(4.0)]);
        let (late, soon) = (rig.ready(late, 0.0), rig.ready(soon, 0.0));
        rig.state.stages[soon].refused = 1;
        assert_eq!(rig.decide("k-edf"), [start(late, 0)]);
    }
}
