//! What is left of each ready stage on each processor, remembered from one decision to the next.
//!
//! Policies that compare times look at every ready stage in every decision, and for language models each look sums a table. As long as a
//! stage waits, nothing of that changes.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::View;
use onbeat_core::state::Run;
use onbeat_core::units::Nanos;

/// No stage has changed so often.
pub(crate) const NEVER: u64 = u64::MAX;

/// What is left of a stage on one processor, by nominal latencies and without setup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// Of the current phase.
    pub(crate) phase: Nanos,
    /// Of all phases.
    pub(crate) stage: Nanos,
}

/// Remembers [`View::remaining`] and [`View::remaining_in_phase`] of stages on all processors. As large as the most stages that were ever
/// alive at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    /// The [changes](onbeat_core::slab::Slab::changes) of each stage that its times are of, by [`StageId`]; [`NEVER`]: none yet.
    known: Vec<u64>,
    /// Times by stage and processor; `None` where it cannot run.
    rest: Vec<Option<Rest>>,
}

impl Times {
    /// What is left of a stage, by processor.
    pub(crate) fn of(&mut self, view: &View<'_>, stage: StageId) -> &[Option<Rest>] {
        let count = view.processors().len();
        if stage.index() >= self.known.len() {
            self.known.resize(stage.index() + 1, NEVER);
            self.rest.resize(self.known.len() * count, None);
        }
        let current = view.state.stages.changes(stage);
        let rest = &mut self.rest[stage.index() * count..(stage.index() + 1) * count];
        if self.known[stage.index()] != current {
            self.known[stage.index()] = current;
            for (processor, rest) in view.processors().zip(rest.iter_mut()) {
                *rest = view
                    .remaining(stage, processor)
                    .zip(view.remaining_in_phase(stage, processor))
                    .map(|(stage, phase)| Rest { phase, stage });
            }
        }
        rest
    }
}

/// What has to be done of a stage by the time at which it is [due](View::due), on a processor: up to the first token or one step where
/// that is [a token's](View::token_is_due), and otherwise all of it.
pub(crate) fn until_due(view: &View<'_>, stage: StageId, rest: Rest) -> Nanos {
    if !view.token_is_due(stage) {
        return rest.stage;
    }
    let live = view.stage(stage);
    if live.kind != Phase::Decode {
        return rest.phase;
    }
    let left = (live.work.units(Phase::Decode) - live.position).max(1.0);
    Nanos::from_ns_f64(rest.phase.as_f64() / left)
}

/// The last moment at which a stage can go on and meet all of its goals [ns], from what is left of it: what is [due](View::due) next,
/// and the whole of it by its deadline. Negative if that was before the beginning; `i64::MAX` without goals.
pub(crate) fn latest_start_ns(view: &View<'_>, stage: StageId, rest: Rest) -> i64 {
    let due = view.due(stage);
    if due == Nanos::MAX {
        return i64::MAX;
    }
    let latest = signed(due) - signed(until_due(view, stage, rest));
    let deadline = view.job(stage).deadline;
    if deadline == Nanos::MAX || !view.token_is_due(stage) {
        return latest;
    }
    latest.min(signed(deadline.saturating_sub(view.node(stage).tail)) - signed(rest.stage))
}

fn signed(time: Nanos) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// What is left of a stage on the processor where that is shortest.
pub(crate) fn best_rest(rests: &[Option<Rest>]) -> Rest {
    let rests = rests.iter().flatten();
    rests.fold(Rest { phase: Nanos::MAX, stage: Nanos::MAX }, |best, rest| Rest {
        phase: best.phase.min(rest.phase),
        stage: best.stage.min(rest.stage),
    })
}

/// What is left of a stage that runs. Its position is that of its last known boundary; when its phase will be done is known better from
/// the run.
pub(crate) fn rest_of_running(view: &View<'_>, stage: StageId, processor: ProcessorId, run: &Run) -> Rest {
    let phase = run.expected_end.saturating_sub(view.now());
    let after = match (view.remaining(stage, processor), view.remaining_in_phase(stage, processor)) {
        (Some(all), Some(phase)) => all.saturating_sub(phase),
        _ => Nanos::ZERO,
    };
    Rest { phase, stage: phase.saturating_add(after) }
}

#[cfg(test)]
mod tests {
    use onbeat_core::cost::Phase;
    use onbeat_core::id::{Id, ProcessorId, StageId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;
    use onbeat_core::units::Nanos;

    use super::{Rest, Times, latest_start_ns, until_due};
    use crate::test_rig::{Rig, ms, start};

    fn times(times: &mut Times, rig: &Rig, stage: StageId) -> Vec<Option<(Nanos, Nanos)>> {
        times.of(&rig.view(), stage).iter().map(|rest| rest.map(|rest| (rest.phase, rest.stage))).collect()
    }

    #[test]
    fn only_an_answers_tokens_are_due_one_by_one() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 1);
        let stage = rig.ready(chat, 0.0);
        let node = rig.state.stages[stage].node;
        // 100 tokens are left of the prompt, and 100 of the output.
        let rest = Rest { phase: ms(100.0), stage: ms(500.0) };
        let decode = Rest { phase: ms(400.0), stage: ms(400.0) };
        let tail = |rig: &mut Rig, decodes: bool| {
            let live = &mut rig.state.stages[stage];
            (live.phase, live.kind) = if decodes { (1, Phase::Decode) } else { (0, Phase::Prefill) };
            let view = rig.view();
            (view.due(stage), until_due(&view, stage, if decodes { decode } else { rest }))
        };
        // An answer: the first token by 1000 ms, then one every 50 ms, counted from 0 here.
        assert_eq!(tail(&mut rig, false), (ms(1000.0), ms(100.0)));
        assert_eq!(tail(&mut rig, true), (ms(50.0), ms(4.0)));
        // A plan, 200 ms before the first token of an answer: all of it by 800 ms, whatever its phase.
        rig.system.nodes[node].to_first_token = Some(ms(200.0));
        assert_eq!(tail(&mut rig, false), (ms(800.0), ms(500.0)));
        assert_eq!(tail(&mut rig, true), (ms(800.0), ms(400.0)));
    }

    /// A plan of 100 ms of prompt and 400 ms of tokens that is due as a whole by 800 ms: it must start by 300 ms.
    fn plan(rig: &mut Rig) -> StageId {
        let agent = rig.session("agent", &[4.0], 1);
        let stage = rig.ready(agent, 0.0);
        rig.system.nodes[rig.state.stages[stage].node].to_first_token = Some(ms(200.0));
        stage
    }

    #[test]
    fn every_policy_that_reckons_with_slack_counts_all_of_a_plan() {
        let new = || Rig::new(&[("gpu", Preemption::Anytime)]);
        // `llf`: 300 ms to spare are less than a frame's 400.
        let mut rig = new();
        let stage = plan(&mut rig);
        let frame = rig.stream("frame", Some(410.0), &[Some(10.0)]);
        rig.ready(frame, 0.0);
        assert_eq!(rig.decide("llf")[0], start(stage, 0));
        // `edzl`, `laxity`: it becomes critical when it must start, or 10 ms before.
        let mut rig = new();
        plan(&mut rig);
        let frame = rig.stream("frame", Some(900.0), &[Some(400.0)]);
        rig.system.sources[frame].priority = 1;
        rig.running(frame, 0, 0.0);
        assert_eq!(rig.decide("laxity"), [Action::Wake { at: ms(290.0) }]);
        let job = rig.state.stages[rig.state.processors[ProcessorId(0)].runs[0].stage].job;
        rig.state.jobs[job].deadline = ms(700.0);
        assert_eq!(rig.decide("edzl"), [Action::Wake { at: ms(300.0) }]);
        // `jitserve`: 46 ms to spare, at most 100; another request has 250.
        let mut rig = new();
        let chat = rig.session("chat", &[4.0], 1);
        rig.system.sources[chat].ttft = Some(ms(600.0));
        rig.ready(chat, 0.0);
        let stage = plan(&mut rig);
        rig.state.now = ms(250.0);
        assert_eq!(rig.decide("jitserve:caution=0")[0], start(stage, 0));
        // `flowprefill`: it is past saving, and goes behind a prompt that is due later.
        let mut rig = new();
        let stage = plan(&mut rig);
        let chat = rig.session("chat", &[4.0], 1);
        rig.system.sources[chat].ttft = Some(ms(900.0));
        let prompt = rig.ready(chat, 0.0);
        rig.state.now = ms(299.0);
        assert_eq!(rig.decide("flowprefill"), [start(stage, 0)]);
        rig.state.now = ms(301.0);
        assert_eq!(rig.decide("flowprefill"), [start(prompt, 0)]);
    }

    #[test]
    fn the_last_moment_to_start_keeps_all_goals() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 1);
        let stage = rig.ready(chat, 0.0);
        let rest = Rest { phase: ms(100.0), stage: ms(500.0) };
        let at = |rig: &Rig| latest_start_ns(&rig.view(), stage, rest);
        assert_eq!(at(&rig), 900_000_000, "the first token by 1000 ms");
        let job = rig.state.stages[stage].job;
        rig.state.jobs[job].deadline = ms(1200.0);
        assert_eq!(at(&rig), 700_000_000, "the whole answer by 1200 ms");
        rig.state.jobs[job].deadline = ms(300.0);
        assert_eq!(at(&rig), -200_000_000);
        rig.state.jobs[job].deadline = Nanos::MAX;
        rig.system.sources[chat].ttft = None;
        assert_eq!(at(&rig), i64::MAX);
    }

    #[test]
    fn follows_progress_and_does_not_confuse_stages_that_share_an_id() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[9.0, 4.0], 1);
        let camera = rig.stream("camera", Some(10.0), &[None, Some(3.0)]);
        let mut memory = Times::default();
        let stage = rig.ready(chat, 0.0);
        let all = |decode: f64| Some((ms(100.0), ms(100.0 + 100.0 * decode)));
        assert_eq!(times(&mut memory, &rig, stage), [all(9.0), all(4.0)]);
        rig.state.stages[stage].position = 50.0;
        assert_eq!(times(&mut memory, &rig, stage)[1], Some((ms(50.0), ms(450.0))));
        rig.state.stages[stage].phase = 1;
        rig.state.stages[stage].kind = Phase::Decode;
        assert_eq!(times(&mut memory, &rig, stage)[1], Some((ms(200.0), ms(200.0))), "the last 50 tokens");
        rig.state.ready.clear();
        rig.state.stages.remove(stage);
        let other = rig.ready(camera, 0.0);
        assert_eq!(other.index(), stage.index());
        assert_eq!(times(&mut memory, &rig, other), [None, Some((ms(3.0), ms(3.0)))]);
    }
}
