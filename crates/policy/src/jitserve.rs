//! `jitserve`: just enough service, just in time: requests that must be served now to keep their goals go by goodput per processor
//! time; those ahead of their pace, and those past saving, fill the rest.

use onbeat_core::cost::Phase;
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::generative::{BACKGROUND, real_time_key, run_key};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "jitserve",
    summary: "Streams first; then requests that must be served now to keep their goals, by goodput per time; the rest later",
    group: "generative",
    parameters: &[
        ParameterInfo {
            name: "frame_ms",
            default: "100",
            meaning: "a request whose slack is below this must be served now [ms], 0 to 3600000",
        },
        ParameterInfo {
            name: "caution",
            default: "0.5",
            meaning: "how much longer than expected an answer is taken to be before its first token; less and less with each token, 0 to 100",
        },
    ],
    reference: "Zhang et al., JITServe: SLO-aware LLM Serving with Imprecise Request Information, NSDI 2026 (arXiv 2504.20068)",
    build,
};

/// Grouped margin goodput.
#[derive(Clone, Debug)]
struct JitServe {
    order: JustInTime,
    dispatch: Dispatch,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = JustInTime {
        frame: parameters.milliseconds("frame_ms")?,
        caution: parameters.number("caution", 0.0..=100.0, "a number from 0 to 100")?,
    };
    Ok(Box::new(JitServe { order, dispatch: Dispatch::default(), alarm: Alarm::default() }))
}

impl Policy for JitServe {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.dispatch.run(view, actions, &mut self.order);
        // Whoever waits ahead of its pace must be looked at when it is not ahead any more.
        let mut next = Nanos::MAX;
        for &(key, stage) in self.dispatch.waiting() {
            if (BACKGROUND + AHEAD..BACKGROUND + PAST_SAVING).contains(&key) {
                let slack = self.order.standing(view, stage).slack;
                next = next.min(view.now().saturating_add(slack.saturating_sub(self.order.frame)));
            }
        }
        if next != Nanos::MAX {
            self.alarm.set(view.now(), next.max(view.now() + LOOK_AGAIN_MIN), actions);
        }
    }
}

/// Keys of requests that must be served now begin at 0, above [`BACKGROUND`]; then those ahead of their pace, then those past saving.
const AHEAD: u64 = 1 << 60;
const PAST_SAVING: u64 = 2 << 60;

/// Keeps a request at the edge of its frame from waking the policy without end.
const LOOK_AGAIN_MIN: Nanos = Nanos(1_000_000);

#[derive(Clone, Debug)]
struct JustInTime {
    frame: Nanos,
    caution: f64,
}

/// How a request stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Time until it must be served, at the latest; 0 if it is too late.
    slack: Nanos,
    /// Whether its goals can still be kept.
    feasible: bool,
    /// Processor time per token that would keep its goal [ns].
    price: u64,
}

impl JustInTime {
    /// The length that an answer is taken to have, in tokens after those it has: cautious at first, and less so as it goes on.
    fn tokens_left(&self, view: &View<'_>, stage: StageId) -> f64 {
        let live = view.stage(stage);
        let whole = f64::from(live.work.output.max(1));
        let left = if live.kind == Phase::Decode { (whole - 1.0 - live.position).max(1.0) } else { whole };
        left * (1.0 + self.caution * left / whole)
    }

    fn standing(&self, view: &View<'_>, stage: StageId) -> Standing {
        let live = view.stage(stage);
        let now = view.now();
        let best = |ns: &dyn Fn(ProcessorId) -> Option<Nanos>| view.processors().filter_map(ns).min();
        let phase = best(&|p| view.remaining_in_phase(stage, p)).unwrap_or(Nanos::ZERO);
        let all = best(&|p| view.remaining(stage, p)).unwrap_or(Nanos::ZERO);
        let tokens = self.tokens_left(view, stage);
        let decode = if live.kind == Phase::Decode { phase } else { all.saturating_sub(phase) };
        let expected = if live.kind == Phase::Decode {
            (live.work.units(Phase::Decode) - live.position).max(1.0)
        } else {
            live.work.units(Phase::Decode).max(1.0)
        };
        let step = decode.as_f64() / expected;
        let prompt = if live.kind == Phase::Decode { 0.0 } else { phase.as_f64() };
        // Only of what generates the length is an estimate.
        let generates = live.work.units(Phase::Decode) > 0.0;
        let need = if generates { prompt + step * tokens } else { all.as_f64() };
        // What has to be done for the next goal.
        let by = view.due(stage);
        let work = if !view.token_is_due(stage) {
            need
        } else if live.kind == Phase::Decode {
            step
        } else {
            prompt
        };
        let slack = by.saturating_sub(now).saturating_sub(Nanos::from_ns_f64(work));
        let feasible = by == Nanos::MAX || now.saturating_add(Nanos::from_ns_f64(work)) <= by;
        Standing { slack, feasible, price: (need / tokens.max(1.0)) as u64 }
    }

    fn background(&self, view: &View<'_>, stage: StageId) -> u64 {
        let standing = self.standing(view, stage);
        let within = |x: u64| x.min(AHEAD - 1);
        BACKGROUND
            + if !standing.feasible {
                PAST_SAVING + within(view.job(stage).release.0)
            } else if standing.slack <= self.frame {
                within(standing.price)
            } else {
                AHEAD + within(standing.slack.0)
            }
    }
}

impl Order for JustInTime {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        real_time_key(view, stage).unwrap_or_else(|| self.background(view, stage))
    }

    /// By class only: within a class nobody takes over, or two requests could take the processor from each other in turn.
    fn running_key(&mut self, view: &View<'_>, _: ProcessorId, run: &Run) -> u64 {
        run_key(view, run, |stage| {
            let key = self.background(view, stage) - BACKGROUND;
            BACKGROUND + key / AHEAD * AHEAD
        })
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn who_is_ahead_of_its_pace_gives_way_to_who_must_be_served_now() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        // Its first token came at 100 ms, and 20 are there at 200: the next one is due at 1100.
        let writing = rig.running_decode(chat, 0, 100.0);
        rig.state.stages[writing].tokens = 20;
        rig.state.now = ms(200.0);
        rig.ready(chat, 0.0);
        // 100 ms of prompt, due at 1000 ms, 700 ms of slack: nobody is in a hurry; wake up when the slack is 100.
        assert_eq!(rig.decide("jitserve"), [Action::Wake { at: ms(800.0) }]);
        rig.state.now = ms(800.0);
        assert_eq!(rig.decide("jitserve"), [preempt(writing)]);
    }

    #[test]
    fn goodput_per_time_decides_and_what_is_past_saving_goes_last() {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0], 1);
        let (late, dear, cheap) = (rig.ready(chat, 0.0), rig.ready(chat, 400.0), rig.ready(chat, 400.0));
        rig.state.now = ms(1250.0);
        // 50 ms of slack for both; the cheap one has more tokens for its prompt.
        rig.state.stages[cheap].work.output = 401;
        assert_eq!(rig.decide("jitserve")[0], start(cheap, 0));
        rig.state.ready.retain(|&stage| stage != cheap);
        assert_eq!(rig.decide("jitserve")[0], start(dear, 0));
        rig.state.ready.retain(|&stage| stage != dear);
        assert_eq!(rig.decide("jitserve")[0], start(late, 0));
    }
}
