//! `laxity`: fixed priorities, until a stage's critical time: then it goes first (after XSched's laxity policy).

use onbeat_core::id::StageId;
use onbeat_core::policy::{Policy, View};
use onbeat_core::system::System;

use crate::edf::PREEMPTIVE;
use crate::edzl::Switch;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "laxity",
    summary: "Highest source priority first, until a stage has hardly time to spare: then it goes before all others",
    group: "XSched",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "critical_ms",
            default: "10",
            meaning: "a stage is critical when its time to spare is no longer than this [ms], 0 to 3600000",
        },
    ],
    reference: "Shen et al., XSched: Preemptive Scheduling for Diverse XPUs, OSDI 2025; policy LAX of the public repository XpuOS/xsched",
    build,
};

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let lead = parameters.milliseconds("critical_ms")?;
    Ok(Box::new(Switch::new(priority_key, lead, parameters.flag("preemptive")?)))
}

/// By the priority of the source; larger is more urgent.
fn priority_key(view: &View<'_>, stage: StageId) -> u64 {
    i64::from(view.source(stage).priority).abs_diff(i64::from(i32::MAX))
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt};

    #[test]
    fn low_priority_work_takes_over_at_its_critical_time() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(40.0), &[Some(20.0)]);
        let speech = rig.stream("speech", Some(100.0), &[Some(30.0)]);
        rig.system.sources[camera].priority = 2;
        rig.system.sources[speech].priority = 1;
        rig.running(camera, 0, 0.0);
        rig.ready(speech, 0.0);
        let mut policy = rig.make("laxity:critical_ms=55");
        // It must start at 100 - 30 = 70, and is critical from 15.
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(15.0) }]);
        rig.state.now = ms(15.0);
        // The frame in hand must be done by 40 and will be at 20: less than 55 to spare, so it is critical as well.
        assert_eq!(rig.decide_with(&mut policy), []);
        assert_eq!(rig.decide("laxity:critical_ms=10"), [Action::Wake { at: ms(60.0) }]);
    }

    #[test]
    fn a_critical_stage_preempts_a_higher_priority() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(90.0), &[Some(20.0)]);
        let speech = rig.stream("speech", Some(100.0), &[Some(30.0)]);
        rig.system.sources[camera].priority = 2;
        rig.system.sources[speech].priority = 1;
        rig.ready(speech, 0.0);
        rig.state.now = ms(60.0);
        let running = rig.running(camera, 0, 60.0);
        assert_eq!(rig.decide("laxity"), [preempt(running)]);
        assert_eq!(rig.decide("fixed-priority"), []);
    }
}
