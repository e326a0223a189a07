//! What policies see of key-value caches.

use super::{View, refusal_bit};
use crate::cost::Phase;
use crate::id::{ProcessorId, StageId};
use crate::system::Processor;
use crate::units::{Bytes, Nanos};

impl View<'_> {
    /// Whether some processor is a real device in a real run: then caches are reserved as a whole, and stay where they are until their
    /// stage ends. Where all are virtual, that is rehearsed as it is simulated.
    pub fn on_devices(&self) -> bool {
        self.state.real && self.system.platform.processors.iter().any(Processor::runs_models)
    }

    /// Whether the cache of a stage can be evicted: it does not run, has a cache in memory, and no device is [real](View::on_devices). To `keep` it,
    /// there must be slower memory with room for it.
    pub fn can_evict_cache(&self, stage: StageId, keep: bool) -> bool {
        let live = self.stage(stage);
        let room = || {
            let swap = self.system.platform.swap?;
            let left = swap.capacity.map_or(u64::MAX, |all| all.0.saturating_sub(self.state.memory.swapped.0));
            Some(left >= self.cache_in_use(stage).0)
        };
        !live.running && !self.on_devices() && live.cache.held > Bytes::ZERO && (!keep || room() == Some(true))
    }

    /// Whether the cache of a stage that does not run can stay in slower memory while it runs: its model says how, there is room for the
    /// prompt and the largest output, and no device is [real](View::on_devices).
    pub fn can_offload(&self, stage: StageId) -> bool {
        let (live, Some(swap)) = (self.stage(stage), self.system.platform.swap) else { return false };
        let others = self.state.memory.swapped.0 - live.cache.swapped.0;
        let room = swap.capacity.is_none_or(|all| all.0 >= others + self.cache_reserve(stage).0);
        self.system.models[live.model].offload.is_some() && room && !live.running && !self.on_devices()
    }

    /// Whether copying a stage's cache to a processor can begin: it has one in memory, on another processor, could go on there, no copy is
    /// under way, and no device is [real](View::on_devices).
    pub fn can_copy(&self, stage: StageId, to: ProcessorId) -> bool {
        let live = self.stage(stage);
        let here = live.processor.is_some_and(|from| from != to);
        let under_way = live.copy.is_some_and(|copy| copy.done > self.now());
        here && live.cache.held > Bytes::ZERO
            && self.cost(stage, to).is_some()
            && self.state.failed & refusal_bit(to) == 0
            && !under_way
            && !self.on_devices()
    }

    /// Tokens of a stage's cache that a processor has not got: all of them, less those of a copy there, complete or under way.
    pub fn tokens_to_hand_over(&self, stage: StageId, to: ProcessorId) -> f64 {
        let live = self.stage(stage);
        let copied = live.copy.filter(|copy| copy.to == to).map_or(0.0, |copy| copy.tokens);
        (live.context() - copied).max(0.0)
    }

    /// How long copying takes of what a processor has not got of a stage's cache, from where the stage is; zero if it is nowhere.
    pub fn copy_time(&self, stage: StageId, to: ProcessorId) -> Nanos {
        let live = self.stage(stage);
        let bytes = self.system.models[live.model].kv_per_token.as_f64() * self.tokens_to_hand_over(stage, to);
        live.processor.map_or(Nanos::ZERO, |from| self.system.platform.links[from][to].time(bytes))
    }

    /// A cache for all of a stage's prompt and its largest output: what is reserved in slower memory if it stays there.
    pub fn cache_reserve(&self, stage: StageId) -> Bytes {
        let live = self.stage(stage);
        let tokens = u64::from(live.work.prompt) + u64::from(self.node(stage).output_max);
        Bytes(self.system.models[live.model].kv_per_token.0 * tokens)
    }

    /// The part of a stage's cache that holds something: what moving it moves.
    pub fn cache_in_use(&self, stage: StageId) -> Bytes {
        Bytes((self.system.models[self.stage(stage).model].kv_per_token.as_f64() * self.cache_tokens(stage)) as u64)
    }

    /// Tokens that are in a stage's cache, wherever it is; of an answer, the last one is counted with them.
    pub fn cache_tokens(&self, stage: StageId) -> f64 {
        self.stage(stage).context()
    }

    /// Memory that a stage's cache needs to go on from where it stands, nothing if it is in slower memory: all of the prompt and the next
    /// token, by blocks. `largest` is the largest output, for which there is memory from the beginning where caches do not grow.
    pub fn cache_needed(&self, stage: StageId, largest: u32) -> Bytes {
        let live = self.stage(stage);
        if live.cache.far {
            return Bytes::ZERO;
        }
        let per_token = self.system.models[live.model].kv_per_token.0;
        let Some(block) = self.system.platform.kv_block.filter(|_| !self.on_devices()) else {
            return Bytes(per_token * (u64::from(live.work.prompt) + u64::from(largest)));
        };
        let done = if live.kind == Phase::Prefill { 0 } else { live.position as u64 };
        let tokens = u64::from(live.work.prompt) + done + 1;
        Bytes(per_token * tokens.next_multiple_of(u64::from(block.max(1))))
    }
}
