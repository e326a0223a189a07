//! Mixed steps – prompt pieces that share a decode step – and ends inside a segment, at layer groups.

use onbeat_core::cost::{Phase, PhaseCost, mixed_step_ns};
use onbeat_core::event::{Sink, StopReason};
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::Limit;
use onbeat_core::state::Run;

use crate::engine::Engine;
use crate::runs::{Doing, LiveRun, SAME_TIME_NS, at_rate, cost_of};

impl LiveRun {
    /// Whether it is a step that prompt pieces share.
    pub(crate) fn is_mixed(&self) -> bool {
        self.decoders < self.members
    }
}

impl<S: Sink> Engine<'_, S> {
    /// Where a stage's run ends that starts now under a limit [units], and whether it is a prompt piece of its own size.
    pub(crate) fn end_of_run(&self, p: ProcessorId, stage: StageId, limit: Option<Limit>) -> (f64, bool) {
        let live = &self.course.state.stages[stage];
        let hidden = &self.course.hidden[stage.index()];
        let end = hidden.work.units(live.kind);
        let Some(limit) = limit else { return (end, false) };
        let cost = cost_of(self.course.system, live, p);
        let mut to = cost.limit_end(hidden.work, live.kind, live.position, limit);
        let piece = cost.any_piece() && matches!(limit, Limit::Units(_));
        if piece && live.partial_ns > 0.0 {
            // What is half done is done first: a piece, or a segment of the profile.
            let begun = if hidden.piece_end > live.position {
                hidden.piece_end
            } else {
                cost.next_boundary(hidden.work, live.kind, live.position)
            };
            to = to.max(begun).min(end);
        }
        (to, piece)
    }

    /// Nominal time of the prompt pieces in a mixed step, alone [ns].
    fn pieces_ns(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun) -> f64 {
        (run.decoders..run.members).map(|k| self.piece_ns(p, stages[k], run.start_of(k))).sum()
    }

    fn piece_ns(&self, p: ProcessorId, stage: StageId, from: f64) -> f64 {
        let hidden = &self.course.hidden[stage.index()];
        let cost = cost_of(self.course.system, &self.course.state.stages[stage], p);
        cost.piece_ns(hidden.work, from, hidden.piece_end)
    }

    /// Nominal time of a mixed step [ns].
    pub(crate) fn mixed_ns(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun) -> f64 {
        let model = self.course.state.stages[stages[0]].model;
        // Of the weights, those that decoding reads.
        let weights = self.course.system.reading_weights_ns(model, p) * run.depth;
        mixed_step_ns(self.decode_ns(p, stages, run, 1.0), self.pieces_ns(p, stages, run), weights)
    }

    /// Data that the prompt pieces of a mixed step move besides the weights [bytes].
    pub(crate) fn pieces_bytes(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun) -> f64 {
        let of = |k: usize| {
            let live = &self.course.state.stages[stages[k]];
            let tokens = self.course.hidden[stages[k].index()].piece_end - run.start_of(k);
            piece_bytes(cost_of(self.course.system, live, p), tokens)
        };
        (run.decoders..run.members).map(of).sum()
    }

    /// Each member's share of a mixed step's time: those that decode share what the step takes without pieces, and the pieces, by
    /// their length, what they add.
    pub(crate) fn mixed_shares(&self, p: ProcessorId, run: &LiveRun, visible: &Run) -> Vec<f64> {
        let stages: Vec<StageId> = visible.stages().take(run.members).collect();
        let whole = self.mixed_ns(p, &stages, run);
        let decode = self.decode_ns(p, &stages, run, 1.0);
        let pieces = self.pieces_ns(p, &stages, run).max(1.0);
        let share = |k: usize| {
            if k < run.decoders {
                decode / whole / run.decoders as f64
            } else {
                (whole - decode) / whole * self.piece_ns(p, stages[k], run.start_of(k)) / pieces
            }
        };
        (0..run.members).map(share).collect()
    }

    /// Ends a run at the next layer group inside the segment or piece that it is in, if that comes before the segment's end. Whether
    /// it does. Groups are those of one processor: what several do together ends with its segment.
    pub(crate) fn cut_at_group(&mut self, p: ProcessorId, i: usize) -> bool {
        let run = &self.runs[p][i];
        let stage = self.course.state.processors[p].runs[i].stage;
        let live = &self.course.state.stages[stage];
        let cost = cost_of(self.course.system, live, p);
        let groups = f64::from(cost.layer_groups());
        if groups <= 1.0 || run.members > 1 || run.joint.is_some() || live.kind != Phase::Prefill {
            return false;
        }
        let work = self.course.hidden[stage.index()].work;
        let done = self.done_now(run);
        let (from, end) = (run.from, run.from + run.length);
        let (start, stop) = if run.piece {
            (from, end)
        } else {
            let start = cost.boundary_at_or_before(from + self.whole_units_done(p, i)).max(from);
            (start, cost.next_boundary(work, live.kind, start).min(end))
        };
        // All in nominal time since the run's first position, as if it had started there.
        let before = cost.latency_ns(work, from, start);
        let group = cost.latency_ns(work, start, stop) / groups;
        let inside = (done + run.partial_ns) / run.factor - before;
        let tolerance = SAME_TIME_NS / (group * run.factor);
        let begun = if start == from { run.partial_ns / run.factor } else { 0.0 };
        let next = (inside / group - tolerance).ceil().max((begun / group + tolerance).floor() + 1.0);
        if next >= groups {
            return false;
        }
        let target_ns = (((before + next * group) * run.factor).round_ties_even() - run.partial_ns).max(1.0);
        let now = self.course.state.now;
        let run = &mut self.runs[p][i];
        run.early = true;
        run.why = StopReason::Preempted;
        run.target_ns = target_ns;
        if run.doing == Doing::Work {
            run.done_ns = done.min(target_ns);
            run.updated = now;
            run.next_at = now + at_rate(target_ns - run.done_ns, run.rate);
            if run.next_at == now {
                run.done_ns = target_ns;
                self.leave_now(p, i);
            }
        }
        true
    }
}

/// Data that a prompt piece moves besides the weights [bytes].
pub(crate) fn piece_bytes(cost: &PhaseCost, tokens: f64) -> f64 {
    match cost {
        PhaseCost::Prefill { bytes_per_token, .. } => bytes_per_token * tokens,
        _ => 0.0,
    }
}

/// Puts the stages that decode before those that bring a prompt piece, and counts them.
pub(crate) fn decoders_first(stages: &mut [StageId], decodes: impl Fn(StageId) -> bool) -> usize {
    stages.sort_by_key(|&stage| !decodes(stage));
    stages.iter().take_while(|&&stage| decodes(stage)).count()
}
