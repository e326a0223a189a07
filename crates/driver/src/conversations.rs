//! Conversations: requests whose prompts begin with all that was said before, and caches that are kept from one to the next.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ModelId, ProcessorId, SourceId, StageId};
use onbeat_core::policy::refusal_bit;
use onbeat_core::units::{Bytes, Nanos};

use crate::course::Course;
use crate::jobs::Hidden;

/// A session's conversation with a model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conversation {
    /// Tokens so far, prompts and outputs.
    length: u64,
    /// Number of the conversation, from 1: when it gets too long, a new one begins.
    number: u32,
    /// The cache that the last request has left.
    kept: Option<Kept>,
}

/// A cache that belongs to no stage.
#[derive(Clone, Copy, Debug)]
struct Kept {
    tokens: u32,
    held: Bytes,
    processor: ProcessorId,
    since: Nanos,
}

impl<S: Sink> Course<'_, S> {
    /// Puts what was said before in front of a request's prompt.
    pub(crate) fn continue_conversation(&mut self, source: SourceId, model: ModelId, hidden: &mut Hidden) {
        let Some(most) = self.system.sources[source].text.conversation.filter(|_| !self.view().on_devices()) else {
            return;
        };
        let said = u64::from(hidden.work.prompt) + u64::from(hidden.work.output);
        let talk = self.conversations.entry((source, model)).or_default();
        let mut forgotten = None;
        if talk.number == 0 || talk.length + said > u64::from(most) {
            forgotten = talk.kept.take();
            talk.length = 0;
            talk.number += 1;
        }
        // At most `most`, or the request alone.
        hidden.work.prompt += talk.length as u32;
        hidden.conversation = talk.number;
        talk.length += said;
        if let Some(kept) = forgotten {
            self.free(kept.held);
        }
    }

    /// A request becomes ready: takes over the cache of its conversation, so that only what is new must be prefilled.
    pub(crate) fn take_over_cache(&mut self, stage: StageId) {
        let number = self.hidden[stage.index()].conversation;
        if number == 0 {
            return;
        }
        let live = &mut self.state.stages[stage];
        let key = (self.state.jobs[live.job].source, live.model);
        let Some(talk) = self.conversations.get_mut(&key).filter(|talk| talk.number == number) else { return };
        let lost = self.state.failed;
        if let Some(kept) = talk.kept.take_if(|kept| refusal_bit(kept.processor) & lost != 0) {
            // In real time a processor can be lost, and with it what it has kept.
            self.free(kept.held);
        } else if let Some(kept) = talk.kept.take_if(|kept| kept.tokens < live.work.prompt) {
            live.cache.held = kept.held;
            live.position = f64::from(kept.tokens);
            live.processor = Some(kept.processor);
            self.hidden[stage.index()].reused = true;
        }
    }

    /// A request is finished: its cache is kept for the next one of its conversation, as long as nobody needs the memory.
    pub(crate) fn keep_cache(&mut self, stage: StageId) {
        let live = self.state.stages[stage];
        let number = self.hidden[stage.index()].conversation;
        let (Some(processor), true) = (live.processor, number > 0 && live.cache.held > Bytes::ZERO) else { return };
        // The last token was never read by the model.
        let tokens = live.work.prompt + if live.kind == Phase::Decode { live.position as u32 } else { 0 };
        let block = u64::from(self.system.platform.kv_block.filter(|_| self.caches_grow()).unwrap_or(1).max(1));
        let used = self.system.models[live.model].kv_per_token.0 * u64::from(tokens).next_multiple_of(block);
        let held = Bytes(used.min(live.cache.held.0));
        let key = (self.state.jobs[live.job].source, live.model);
        let Some(talk) = self.conversations.get_mut(&key).filter(|talk| talk.number == number) else { return };
        if talk.kept.is_some_and(|kept| kept.tokens >= tokens) {
            return;
        }
        let before = talk.kept.replace(Kept { tokens, held, processor, since: self.state.now });
        self.state.stages[stage].cache.held -= held;
        if let Some(before) = before {
            self.free(before.held);
        }
    }

    /// Gives up kept caches, those that have not been used for longest first, and then those that waiting requests have taken over,
    /// the last first, until nothing is `missing` or none is left.
    pub(crate) fn give_up_kept(&mut self, stage: StageId, mut missing: Bytes) {
        if self.conversations.is_empty() {
            return;
        }
        while missing > Bytes::ZERO {
            let kept = self.conversations.iter_mut().filter(|(_, talk)| talk.kept.is_some());
            let oldest = kept.min_by_key(|(_, talk)| talk.kept.map(|kept| kept.since));
            let freed = if let Some(kept) = oldest.and_then(|(_, talk)| talk.kept.take()) {
                kept.held
            } else {
                let taken = |&other: &StageId| other != stage && self.hidden[other.index()].reused;
                let Some(other) = self.state.ready.iter().copied().rev().find(taken) else { return };
                let held = std::mem::take(&mut self.state.stages[other].cache.held);
                self.hidden[other.index()].reused = false;
                let tokens = self.view().cache_tokens(other) as u32;
                self.begin_again(other);
                let serial = self.state.stages[other].serial;
                self.emit(What::EvictCache { stage: serial, held, moved: Bytes::ZERO, tokens, took: Nanos::ZERO });
                held
            };
            self.free(freed);
            missing = Bytes(missing.0.saturating_sub(freed.0));
        }
    }
}
