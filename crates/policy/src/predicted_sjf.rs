//! `predicted-sjf`: streams by deadline; below them, the job that is predicted to be shortest starts first, unless another one has
//! waited for too long.

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "predicted-sjf",
    summary: "Streams with deadlines first; then the shortest predicted job, unless another one has waited for too long",
    group: "generative",
    parameters: &[ParameterInfo {
        name: "age_ms",
        default: "10000",
        meaning: "work whose job was released longer ago than this goes before all other work without deadlines, oldest first [ms], 0 to 3600000",
    }],
    reference: "Sundaresan, Predictive SJF Scheduling to Mitigate Head-of-Line Blocking in Serial LLM Backends (Clairvoyant), arXiv 2606.07248, 2026",
    build,
};

/// Keys of work that has not waited for too long.
const YOUNG: u64 = BACKGROUND + (1 << 61);

/// Shortest predicted job first.
#[derive(Clone, Debug)]
struct PredictedSjf {
    order: ShortestPredicted,
    dispatch: Dispatch,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = ShortestPredicted { age: parameters.milliseconds("age_ms")? };
    Ok(Box::new(PredictedSjf { order, dispatch: Dispatch::default() }))
}

impl Policy for PredictedSjf {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
    }
}

#[derive(Clone, Debug)]
struct ShortestPredicted {
    age: Nanos,
}

impl Order for ShortestPredicted {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        if let Some(key) = real_time_key(view, stage) {
            return key;
        }
        let release = view.job(stage).release;
        if view.now().saturating_sub(release) > self.age {
            return BACKGROUND + release.0.min((1 << 61) - 1);
        }
        YOUNG + predicted(view, stage).0.min((1 << 61) - 1)
    }

    /// Only streams with deadlines take over from work without them.
    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |_| BACKGROUND)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

/// Nominal time of the whole stage on its fastest processor, with the prompt's real length and the predicted output.
fn predicted(view: &View<'_>, stage: StageId) -> Nanos {
    let work = view.stage(stage).work;
    let costs = view.node(stage).costs.iter().flatten();
    Nanos::from_ns_f64(costs.map(|cost| cost.total_ns(work)).fold(f64::INFINITY, f64::min))
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    /// Two requests of the same session on one GPU, the first predicted at 101 tokens, the second at 11; decided at `now`.
    fn two_requests(now: f64, policy: &str) -> (Vec<Action>, Action, Action) {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let (long, short) = (rig.ready(chat, 0.0), rig.ready(chat, 1000.0));
        rig.state.stages[short].work.output = 11;
        rig.state.now = ms(now);
        (rig.decide(policy), start(long, 0), start(short, 0))
    }

    #[test]
    fn the_shorter_prediction_goes_first_until_the_longer_one_is_too_old() {
        // 100 + 100 * 4 = 500 ms against 100 + 10 * 4 = 140 ms.
        let (actions, _, short) = two_requests(1000.0, "predicted-sjf");
        assert_eq!(actions, [short]);
        let (actions, _, short) = two_requests(5000.0, "predicted-sjf:age_ms=5000");
        assert_eq!(actions, [short], "not longer than 5 s ago");
        let (actions, long, _) = two_requests(5000.1, "predicted-sjf:age_ms=5000");
        assert_eq!(actions, [long]);
    }

    #[test]
    fn a_frame_takes_over_from_an_answer_and_a_short_answer_does_not() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let frame = rig.stream("frame", Some(30.0), &[Some(5.0)]);
        let running = rig.running_decode(chat, 0, 0.0);
        let short = rig.ready(chat, 0.0);
        rig.state.stages[short].work.output = 1;
        assert_eq!(rig.decide("predicted-sjf"), []);
        rig.ready(frame, 0.0);
        assert_eq!(rig.decide("predicted-sjf"), [preempt(running)]);
    }
}
