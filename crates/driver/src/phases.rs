//! How stages advance through their phases.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, StageId};

use crate::course::Course;

impl<S: Sink> Course<'_, S> {
    /// An autoregressive stage in decode stands at `position`: counts its tokens and hands them on.
    pub fn count_tokens(&mut self, stage: StageId, position: f64) {
        let before = self.hidden[stage.index()].before;
        let live = &mut self.state.stages[stage];
        let now = before + position as u32 + 1;
        live.tokens = live.tokens.max(now);
        // The output counts from the end of the prompt, of which tokens may have become a part.
        live.work.output = live.work.output.max(now - before + 1);
        if self.nodes[live.node].per_tokens && now > self.hidden[stage.index()].handed {
            self.follow_tokens(stage, now);
        }
    }

    /// A stage that is not running any more has finished its current phase: it is ready for the next one, or finished.
    pub fn finish_phase(&mut self, stage: StageId) {
        let live = &self.state.stages[stage];
        let (serial, job, node, phase) = (live.serial, live.job, live.node, live.phase);
        if live.kind == Phase::Prefill {
            let now = self.state.now;
            let tokens = self.hidden[stage.index()].before + 1;
            let other = &mut self.state.stages[stage];
            other.tokens = tokens;
            if tokens == 1 {
                other.first_token = Some(now);
                let job = self.state.jobs[job].serial;
                self.emit(What::FirstToken { stage: serial, job });
            }
            if self.nodes[node].per_tokens && tokens > self.hidden[stage.index()].handed {
                self.follow_tokens(stage, tokens);
            }
        }
        let node = &self.system.nodes[node];
        let cost = node.costs[node.fastest].as_ref();
        let phases = &cost.expect("a node can run on its fastest processor").phases;
        let work = self.hidden[stage.index()].work;
        let next = (usize::from(phase) + 1..phases.len()).find(|&next| work.units(phases[next].0) > 0.0);
        match next {
            // The last token came out of a prompt that was prefilled again.
            Some(next) => {
                let other = &mut self.state.stages[stage];
                other.phase = next as u8;
                other.kind = phases[next].0;
                other.position = 0.0;
                other.partial_ns = 0.0;
                self.make_wait(stage);
            }
            None => self.finish_stage(stage),
        }
    }

    /// A stage does not wait to join a batch any more.
    pub fn leave_batch(&mut self, stage: StageId) {
        let live = &mut self.state.stages[stage];
        live.running = false;
        let job = live.job;
        self.state.jobs[job].running -= 1;
    }
}
