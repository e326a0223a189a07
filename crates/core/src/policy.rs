//! The contract between a scheduling policy and whatever drives it.
//!
//! A [`Policy`] is a pure state machine: it reads a [`View`] and writes [`Actions`]. It has no clock, no I/O, no threads and
//! no hidden randomness, so the simulator and the runtime can drive the same object, and a recorded run can be replayed.
//!
//! # When it is asked
//! Whenever something happened – a job was released or ended, a run ended, a timer that the policy set expired – and after
//! everything that happens at that instant has been taken into account. It is asked once per instant.
//!
//! # What it may do
//! See [`Action`]. An action that is not possible is an [`ActionError`], never silently ignored: the run stops and the error
//! names the policy.

mod batches;
mod caches;
mod eviction;
mod setup;
mod together;
mod units;

use std::fmt::Debug;

use thiserror::Error;

use crate::cost::{Cost, Phase, remaining_ns};
use crate::id::{JobId, ModelId, ProcessorId, ProcessorSet, StageId};
use crate::joint::Together;
use crate::power::{Governor, OperatingPoint};
use crate::spec::{ModelShape, Preemption};
use crate::state::{Job, Occupancy, PowerState, Run, Stage, State};
use crate::system::{Node, Source, System};
use crate::units::{Bytes, Nanos};

pub use eviction::{evict_caches, evict_idle_models, evict_least_recently_used, evict_youngest_caches};

/// A scheduling policy.
pub trait Policy: Debug + Send + ClonePolicy {
    /// Decides what happens now. Called once per instant at which something happened.
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions);

    /// Makes room in memory for a start that was just refused. Whatever is evicted here, the start is then tried once more;
    /// if it still does not fit, the stage stays ready, [`View::can_run`] is false for it there until memory is freed, and the policy
    /// is asked again.
    ///
    /// By default evicts idle models, the least recently used first, until the shortage is covered.
    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        evict_least_recently_used(view, shortage, actions);
    }
}

/// Cloning behind a pointer; implemented for every policy that is `Clone`.
pub trait ClonePolicy {
    /// A copy with the same state.
    fn clone_policy(&self) -> Box<dyn Policy>;
}

impl<P: Policy + Clone + 'static> ClonePolicy for P {
    fn clone_policy(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Policy> {
    fn clone(&self) -> Self {
        (**self).clone_policy()
    }
}

/// A start that did not fit into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The stage that should have started.
    pub stage: StageId,
    /// Where.
    pub processor: ProcessorId,
    /// How much memory is missing.
    pub missing: Bytes,
}

/// How far a run goes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many of the profile's segments, ≥ 1.
    Segments(u32),
    /// So many units of the phase – prompt tokens, output tokens, steps –, ≥ 1. Where the processor takes prompt pieces of any size
    /// (`chunk_efficiency`), exactly so many; elsewhere up to the first of the profile's boundaries at which so many are done. A piece
    /// that was interrupted inside is finished first.
    Units(u32),
}

/// Something that a policy wants done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Runs a ready stage's current phase on a processor that has a free slot – or, if the processor runs a batchable decode
    /// phase of the same model, joins that batch at its next boundary. A stage in prefill joins it for one step, with a piece of its
    /// prompt that the limit states, where the profile has `mixed_steps`.
    Start {
        /// The stage.
        stage: StageId,
        /// Where.
        processor: ProcessorId,
        /// How far it goes at most; `None`: to the end of the phase.
        limit: Option<Limit>,
        /// On a processor that can be divided, how many of its units the run takes: one of [`View::widths`]. `None`: as many as the
        /// profile states at most, on a processor on which nothing else runs.
        units: Option<u32>,
    },
    /// Runs a ready stage's current phase on several processors at once, each of which needs a free slot and keeps it until the run
    /// ends. It ends at boundaries only, and nobody joins it.
    StartTogether {
        /// The stage.
        stage: StageId,
        /// The stage's own processor: its caches are kept there, and its segments count.
        processor: ProcessorId,
        /// What the others are, and do.
        together: Together,
        /// The most segments to run; `None`: to the end of the phase.
        segments: Option<u32>,
    },
    /// Ends the run that serves a stage as soon as its processor can (at once or at the next boundary). The stages become ready
    /// again. Not possible on processors that never preempt.
    Preempt {
        /// A running stage.
        stage: StageId,
    },
    /// Gives up a job. Not possible while one of its stages runs.
    Drop {
        /// The job.
        job: JobId,
    },
    /// Lets a stage run another of its variants: faster and worse, or slower and better. Not possible once the stage has begun, because no
    /// variant can go on from another one's state.
    Switch {
        /// A ready stage.
        stage: StageId,
        /// Number of the variant; 0 is the default one. See [`Node::variants`].
        variant: u8,
    },
    /// Removes a model's weights for one processor from memory. Not possible while a stage uses them.
    Evict {
        /// The model.
        model: ModelId,
        /// The processor.
        processor: ProcessorId,
    },
    /// Takes the key-value cache of a stage that does not run out of memory: into slower memory, from which it is read back when
    /// the stage goes on, or for good, so that its prompt and all tokens so far are prefilled again.
    EvictCache {
        /// The stage.
        stage: StageId,
        /// Whether the cache is kept, in slower memory.
        keep: bool,
    },
    /// Says where the key-value cache of a stage that does not run is from now on: in slower memory, where it stays while the stage runs
    /// and fetches what it needs of it in every step, or in memory again, into which it is read when the stage starts. What it holds
    /// in memory leaves as for [`Action::EvictCache`]. Only where the model states `kv_offload`, and in simulations.
    PlaceCache {
        /// The stage.
        stage: StageId,
        /// Whether it is in slower memory.
        far: bool,
    },
    /// Begins to copy what there is of a stage's cache to another processor, over the link from where it is, while the stage goes on or
    /// waits. When the stage starts there, only what was written since is handed over. Copied once more when the copy is complete, only
    /// what was written since is copied. Not where a device is [real](View::on_devices).
    CopyCache {
        /// A stage that has begun.
        stage: StageId,
        /// Where it could go on.
        to: ProcessorId,
    },
    /// Asks to be called again at a time in the future.
    Wake {
        /// When.
        at: Nanos,
    },
    /// Sets a processor's operating point, at once or after the platform's transition time. What runs there goes on at the new speed.
    /// Heat or a power cap may hold the processor at a slower point for as long as they last. Only if the processor's governor is
    /// `policy`.
    SetPoint {
        /// The processor.
        processor: ProcessorId,
        /// Number of the point, see [`View::points`].
        point: u32,
    },
}

impl Action {
    /// The stage that it starts, its own processor, and the others that it takes; `None` if it starts nothing.
    pub fn starts(&self) -> Option<(StageId, ProcessorId, ProcessorSet)> {
        match *self {
            Self::Start { stage, processor, .. } => Some((stage, processor, ProcessorSet::default())),
            Self::StartTogether { stage, processor, together, .. } => {
                Some((stage, processor, together.others(processor)))
            }
            _ => None,
        }
    }
}

/// The actions of one decision, in the order in which they are to be done. The buffer is reused.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    list: Vec<Action>,
}

impl Actions {
    /// Runs a ready stage's current phase to its end. See [`Action::Start`].
    pub fn start(&mut self, stage: StageId, processor: ProcessorId) {
        self.start_limited(stage, processor, None);
    }

    /// Runs at most `segments` segments of a ready stage's current phase. See [`Action::Start`].
    pub fn start_segments(&mut self, stage: StageId, processor: ProcessorId, segments: u32) {
        self.start_limited(stage, processor, Some(Limit::Segments(segments)));
    }

    /// Runs a ready stage's current phase, at most up to a limit. See [`Action::Start`].
    pub fn start_limited(&mut self, stage: StageId, processor: ProcessorId, limit: Option<Limit>) {
        self.list.push(Action::Start { stage, processor, limit, units: None });
    }

    /// Runs a ready stage's current phase on so many units of a processor that can be divided. See [`Action::Start`].
    pub fn start_on_units(&mut self, stage: StageId, processor: ProcessorId, units: u32, limit: Option<Limit>) {
        self.list.push(Action::Start { stage, processor, limit, units: Some(units) });
    }

    /// Divides a ready stage's current phase among a processor and `helpers`, for at most `segments` segments. See
    /// [`Action::StartTogether`].
    pub fn split(
        &mut self,
        stage: StageId,
        processor: ProcessorId,
        helpers: ProcessorSet,
        segments: impl Into<Option<u32>>,
    ) {
        let (together, segments) = (Together::Split { helpers }, segments.into());
        self.list.push(Action::StartTogether { stage, processor, together, segments });
    }

    /// Lets a draft model on `drafter` propose `tokens` tokens at a time for a stage in decode, which `processor` verifies; for at most
    /// `cycles` cycles. See [`Action::StartTogether`].
    pub fn speculate(
        &mut self,
        stage: StageId,
        processor: ProcessorId,
        drafter: ProcessorId,
        tokens: u32,
        cycles: impl Into<Option<u32>>,
    ) {
        let (together, segments) = (Together::Draft { processor: drafter, tokens }, cycles.into());
        self.list.push(Action::StartTogether { stage, processor, together, segments });
    }

    /// Does a ready stage's current phase with several processors. See [`Action::StartTogether`].
    pub fn start_together(&mut self, stage: StageId, processor: ProcessorId, together: Together) {
        self.list.push(Action::StartTogether { stage, processor, together, segments: None });
    }

    /// Ends a stage's run as soon as possible. See [`Action::Preempt`].
    pub fn preempt(&mut self, stage: StageId) {
        self.list.push(Action::Preempt { stage });
    }

    /// Gives up a job. See [`Action::Drop`].
    pub fn drop_job(&mut self, job: JobId) {
        self.list.push(Action::Drop { job });
    }

    /// Lets a stage run another of its variants. See [`Action::Switch`].
    pub fn switch(&mut self, stage: StageId, variant: u8) {
        self.list.push(Action::Switch { stage, variant });
    }

    /// Removes a model from memory. See [`Action::Evict`].
    pub fn evict(&mut self, model: ModelId, processor: ProcessorId) {
        self.list.push(Action::Evict { model, processor });
    }

    /// Takes a waiting stage's cache out of memory. See [`Action::EvictCache`].
    pub fn evict_cache(&mut self, stage: StageId, keep: bool) {
        self.list.push(Action::EvictCache { stage, keep });
    }

    /// Says where a waiting stage's cache is from now on. See [`Action::PlaceCache`].
    pub fn place_cache(&mut self, stage: StageId, far: bool) {
        self.list.push(Action::PlaceCache { stage, far });
    }

    /// Begins to copy a stage's cache to another processor. See [`Action::CopyCache`].
    pub fn copy_cache(&mut self, stage: StageId, to: ProcessorId) {
        self.list.push(Action::CopyCache { stage, to });
    }

    /// Asks to be called again. See [`Action::Wake`].
    pub fn wake(&mut self, at: Nanos) {
        self.list.push(Action::Wake { at });
    }

    /// Sets a processor's operating point. See [`Action::SetPoint`].
    pub fn set_point(&mut self, processor: ProcessorId, point: u32) {
        self.list.push(Action::SetPoint { processor, point });
    }

    /// The actions so far.
    pub fn as_slice(&self) -> &[Action] {
        &self.list
    }

    /// Forgets all but the first `count` actions.
    pub fn truncate(&mut self, count: usize) {
        self.list.truncate(count);
    }

    /// Forgets all actions and keeps the buffer.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

/// Why an action is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ActionError {
    /// `Start`, `Switch`: the stage does not exist or has ended.
    #[error("the stage is not alive")]
    NoSuchStage,
    /// `Switch`: the stage has no variant with this number.
    #[error("the stage has no such variant")]
    NoSuchVariant,
    /// `Switch`: the stage has begun; another variant could not go on from there.
    #[error("the stage has begun in another variant")]
    Begun,
    /// `Start`, `Switch`: the stage runs already, or waits for its turn.
    #[error("the stage is running already")]
    NotReady,
    /// `Start`: no profile for this model on this processor, or the scenario forbids it.
    #[error("the stage cannot run on this processor")]
    CannotRunHere,
    /// `Start`: the processor has failed.
    #[error("the processor has failed")]
    ProcessorFailed,
    /// `Start`: every slot is taken, and there is no batch to join.
    #[error("the processor has no free slot and no batch to join")]
    Busy,
    /// `Start`: a limit of zero.
    #[error("a run has at least one segment or unit")]
    NoSegments,
    /// `Start`: nothing says what the stage costs on so many units, or the processor cannot be divided.
    #[error("no profile says what the stage costs on so many units of the processor")]
    NoSuchWidth,
    /// `StartTogether`: nothing says how the model is divided.
    #[error("the model cannot be split: it states no `split`")]
    CannotSplit,
    /// `StartTogether`: no other processor is named, or the stage's own is named twice.
    #[error("several processors are needed to work together")]
    NoHelper,
    /// `StartTogether`: the stage has no draft model, or is not in decode.
    #[error("there is nothing to draft: the stage has no `draft`, or is not in decode")]
    NoDraft,
    /// `StartTogether`: nothing says how attention is divided, or the stage is not in decode.
    #[error("the attention cannot be divided: the model states no `attention`, or the stage is not in decode")]
    NoAttention,
    /// `StartTogether`: no tokens are drafted, or too many.
    #[error("a cycle drafts 1 to 64 tokens")]
    DraftLength,
    /// `StartTogether` of a stage whose cache stays in slower memory: what each processor fetches of it is not modelled.
    #[error("several processors work on one stage only where its cache is in memory")]
    OnlyCachesInMemory,
    /// `StartTogether` of a real device: no backend can share a stage with another one.
    #[error("several processors work on one stage only where all of them are simulated or rehearsed")]
    OnlyRehearsed,
    /// `Preempt`: the stage does not run.
    #[error("the stage is not running")]
    NotRunning,
    /// `Preempt`: the processor never preempts.
    #[error("the processor never preempts")]
    NotPreemptible,
    /// `Drop`: the job does not exist or has ended.
    #[error("the job is not alive")]
    NoSuchJob,
    /// `Drop`: a stage of the job runs; preempt it first.
    #[error("a stage of the job is running")]
    JobRunning,
    /// `Evict`: the weights are not in memory.
    #[error("the model is not in memory for this processor")]
    NotResident,
    /// `Evict`: a stage that has started uses the weights or their caches.
    #[error("the model is in use")]
    InUse,
    /// `EvictCache`: the stage runs, has no cache in memory, or there are real devices.
    #[error("the stage has no cache that could be evicted now")]
    NoCache,
    /// `EvictCache`: there is no slower memory, or no room in it.
    #[error("there is no slower memory with room for the cache")]
    NoSwap,
    /// `PlaceCache`: the model states no `kv_offload`, there is no slower memory with room for the whole cache, or there are real devices.
    #[error(
        "the cache cannot stay in slower memory: the model needs `kv_offload`, the platform `swap_gbps` and room there"
    )]
    NoOffload,
    /// `CopyCache`: the stage has no cache in memory, is there already, cannot run there, or there are real devices; or a copy is under way.
    #[error("there is no cache that could be copied to this processor now")]
    NoCopy,
    /// Anything but `Evict`, `EvictCache` and `PlaceCache` in answer to [`Policy::out_of_memory`].
    #[error("only evictions are possible when a start is short of memory")]
    OnlyEvictions,
    /// `Wake`: not in the future.
    #[error("a wake-up lies in the future")]
    NotInFuture,
    /// `SetPoint`: the processor has no such operating point.
    #[error("the processor has no such operating point")]
    NoSuchPoint,
    /// `SetPoint`: the platform's governor chooses the point.
    #[error("the processor's governor chooses its operating point; only with the governor `policy` a policy does")]
    Governed,
    /// `SetPoint`: in a real run, the processor is a real device.
    #[error("the operating point of a real device cannot be set")]
    NotAdjustable,
}

/// The bit of [`Stage::refused`] that stands for a processor.
pub fn refusal_bit(processor: ProcessorId) -> u64 {
    1_u64.checked_shl(processor.0).unwrap_or(0)
}

/// What a policy sees: the system, the state, and what follows from them.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What could run where, and at what cost.
    pub system: &'a System,
    /// What is going on.
    pub state: &'a State,
}

impl<'a> View<'a> {
    /// Current time.
    #[inline]
    pub fn now(&self) -> Nanos {
        self.state.now
    }

    /// Stages that wait for a processor, in the order in which they became ready; less those of best-effort sources.
    pub fn ready(&self) -> &'a [StageId] {
        &self.state.ready
    }

    /// Stages of best-effort sources that wait for a processor, in the order in which they became ready. Every policy that
    /// `onbeat_policy::make` makes has them served behind its back, after its own decision.
    pub fn background(&self) -> &'a [StageId] {
        &self.state.background
    }

    /// Whether a run serves best-effort work alone: it gives way to everything else.
    pub fn gives_way(&self, run: &Run) -> bool {
        run.stages().all(|stage| self.source(stage).best_effort)
    }

    /// A live stage.
    #[inline]
    pub fn stage(&self, stage: StageId) -> &'a Stage {
        &self.state.stages[stage]
    }

    /// The job of a live stage.
    #[inline]
    pub fn job(&self, stage: StageId) -> &'a Job {
        &self.state.jobs[self.stage(stage).job]
    }

    /// The chain node of a live stage.
    #[inline]
    pub fn node(&self, stage: StageId) -> &'a Node {
        &self.system.nodes[self.stage(stage).node]
    }

    /// The source of a live stage.
    #[inline]
    pub fn source(&self, stage: StageId) -> &'a Source {
        &self.system.sources[self.job(stage).source]
    }

    /// What a processor does.
    #[inline]
    pub fn occupancy(&self, processor: ProcessorId) -> &'a Occupancy {
        &self.state.processors[processor]
    }

    /// Ids of all processors.
    pub fn processors(&self) -> impl ExactSizeIterator<Item = ProcessorId> + use<> {
        self.system.platform.processors.ids()
    }

    /// The stage's cost on a processor, in the variant that it runs; `None` if it cannot run there.
    #[inline]
    pub fn cost(&self, stage: StageId, processor: ProcessorId) -> Option<&'a Cost> {
        self.cost_of(self.stage(stage), processor)
    }

    fn cost_of(&self, live: &Stage, processor: ProcessorId) -> Option<&'a Cost> {
        let cost = self.system.nodes[live.node].costs_of(live.variant)[processor].as_ref()?;
        Some(cost.with_cache(live.cache.far))
    }

    /// Numbers of the variants that a stage may be [switched](Action::Switch) to, its current one included; only that one once it has
    /// begun.
    pub fn variants(&self, stage: StageId) -> impl ExactSizeIterator<Item = u8> + use<> {
        let live = self.stage(stage);
        if live.has_begun() { live.variant..=live.variant } else { 0..=self.node(stage).variants.len() as u8 }
    }

    /// Quality of a variant of the stage, relative to the best one: 0 to 1. 1 if there is no choice; `None` where scores are unknown or of
    /// different kinds. For what the stage's job sees, where scores are known for that.
    pub fn quality(&self, stage: StageId, variant: u8) -> Option<f64> {
        let node = self.node(stage);
        if node.variants.is_empty() { Some(1.0) } else { node.quality_in(variant, self.content(stage)) }
    }

    /// Class of what the stage's job sees, by number among the classes of its source's content; `None` where that is not said.
    pub fn content(&self, stage: StageId) -> Option<u8> {
        self.job(stage).content
    }

    /// Whether the stage can run on a processor at all: it has a profile there, was not just refused for lack of memory, and the
    /// processor has not failed.
    #[inline]
    pub fn can_run(&self, stage: StageId, processor: ProcessorId) -> bool {
        let refused = self.stage(stage).refused | self.state.failed;
        self.cost(stage, processor).is_some() && refused & refusal_bit(processor) == 0
    }

    /// Free slots of a processor; 1 or 0 where it can be divided into units, see [`View::free_units`].
    pub fn free_slots(&self, processor: ProcessorId) -> u32 {
        let slots = self.system.platform.processors[processor].slots;
        slots.saturating_sub(self.occupancy(processor).runs.len() as u32)
    }

    /// Time in which a processor reads a model's weights once, by the smaller of its own and the bus's bandwidth; zero where neither
    /// is known. A [mixed step](crate::cost::mixed_step_ns) saves up to this.
    pub fn reading_weights(&self, model: ModelId, processor: ProcessorId) -> Nanos {
        Nanos::from_ns_f64(self.system.reading_weights_ns(model, processor))
    }

    /// Nominal latency of the rest of a stage on a processor, alone and by expected lengths; without hand-over, switch and load
    /// costs. `None` if it cannot run there.
    pub fn remaining(&self, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        self.remaining_of(self.stage(stage), processor)
    }

    /// Like [`View::remaining`], if the stage ran another of its variants.
    pub fn remaining_as(&self, stage: StageId, variant: u8, processor: ProcessorId) -> Option<Nanos> {
        self.remaining_of(&self.stage(stage).in_variant(self.system, variant), processor)
    }

    fn remaining_of(&self, live: &Stage, processor: ProcessorId) -> Option<Nanos> {
        let cost = self.cost_of(live, processor)?;
        let units = live.units_to_run_on(cost);
        let rest = remaining_ns(cost.on_units(units), live.work, usize::from(live.phase), live.position);
        let partial = self.partial_ns(live, processor, units);
        Some(Nanos::from_ns_f64(rest - partial))
    }

    /// Progress within a segment that a stage would keep on so many units of a processor [ns].
    fn partial_ns(&self, live: &Stage, processor: ProcessorId, units: u32) -> f64 {
        let alike = || self.system.platform.are_alike(live.processor, processor);
        let kept = live.partial_ns > 0.0 && live.units == units && alike();
        if kept { live.partial_ns } else { 0.0 }
    }

    /// Like [`View::remaining`] for the current phase only.
    pub fn remaining_in_phase(&self, stage: StageId, processor: ProcessorId) -> Option<Nanos> {
        self.remaining_in_phase_of(self.stage(stage), processor)
    }

    /// Like [`View::remaining_in_phase`], if the stage ran another of its variants.
    pub fn remaining_in_phase_as(&self, stage: StageId, variant: u8, processor: ProcessorId) -> Option<Nanos> {
        self.remaining_in_phase_of(&self.stage(stage).in_variant(self.system, variant), processor)
    }

    fn remaining_in_phase_of(&self, live: &Stage, processor: ProcessorId) -> Option<Nanos> {
        let cost = self.cost_of(live, processor)?;
        let units = live.units_to_run_on(cost);
        let (kind, cost) = &cost.on_units(units)[usize::from(live.phase)];
        let end = live.work.units(*kind).max(live.position);
        let rest = cost.latency_ns(live.work, live.position, end);
        Some(Nanos::from_ns_f64(rest - self.partial_ns(live, processor, units)))
    }

    /// The shortest [`View::remaining`] over all processors; of a tool, the shortest time that it can still take.
    pub fn remaining_best(&self, stage: StageId) -> Nanos {
        if let Some(tool) = &self.node(stage).tool {
            let earliest = self.stage(stage).ready_at.saturating_add(Nanos::from_ns_f64(tool.smallest().floor()));
            return earliest.saturating_sub(self.now());
        }
        self.processors().filter_map(|p| self.remaining(stage, p)).min().expect("every stage can run somewhere")
    }

    /// When the stage could finish on a processor by nominal latencies, if it started there at `start` or now, whichever is later.
    /// `None` if it cannot run there.
    pub fn finish(&self, stage: StageId, processor: ProcessorId, start: Nanos) -> Option<Nanos> {
        let remaining = self.remaining(stage, processor)?;
        Some(start.max(self.now()).saturating_add(self.setup(stage, processor)).saturating_add(remaining))
    }

    /// When the processor's first slot will be free by nominal latencies: now, or the end of the run that ends first.
    pub fn free_at(&self, processor: ProcessorId) -> Nanos {
        if self.free_slots(processor) > 0 {
            return self.now();
        }
        let first = self.occupancy(processor).runs.iter().map(|run| run.expected_end).min();
        first.map_or(self.now(), |end| end.max(self.now()))
    }

    /// The time by which the stage should be done with what it does next:
    /// * where the source has a goal for the first token, and the stage comes before it: the goal, less the expected time from the
    ///   stage's end to that token; for the answer itself, until that token is out, the goal;
    /// * where it has one for the time per token: an answer's next token by that goal, counted from the first token, as it is judged;
    /// * where it has a deadline: that, less the shortest time that the stages after this one need.
    ///
    /// The earliest of these that apply; [`Nanos::MAX`] if none does. The answer is that of the chain's last language model: goals say
    /// nothing about the tokens of others.
    pub fn due(&self, stage: StageId) -> Nanos {
        let (end, token) = self.due_of(stage);
        end.min(token)
    }

    /// Whether what is [due](View::due) is only the next token of an answer, the first one included, and not the end of the stage.
    pub fn token_is_due(&self, stage: StageId) -> bool {
        let (end, token) = self.due_of(stage);
        token < end
    }

    /// Whether the goals for tokens are for what this stage generates: it is its chain's last language model.
    pub fn answers(&self, stage: StageId) -> bool {
        let live = self.stage(stage);
        self.time_to_first_token(live) == Some(Nanos::ZERO) && self.generates(live)
    }

    fn generates(&self, live: &Stage) -> bool {
        self.system.models[live.model].shape == ModelShape::Autoregressive
    }

    /// [`Node::to_first_token`]; a chain of a single stage needs none.
    fn time_to_first_token(&self, live: &Stage) -> Option<Nanos> {
        let node = &self.system.nodes[live.node];
        let alone = || self.system.nodes_of(node.source).len() == 1 && self.generates(live);
        node.to_first_token.or_else(|| alone().then_some(Nanos::ZERO))
    }

    /// When the stage should end, and when its next token should be out; [`Nanos::MAX`] where nothing says so.
    fn due_of(&self, stage: StageId) -> (Nanos, Nanos) {
        let live = self.stage(stage);
        let job = &self.state.jobs[live.job];
        let node = &self.system.nodes[live.node];
        let source = &self.system.sources[job.source];
        let mut end = match job.deadline {
            Nanos::MAX => Nanos::MAX,
            deadline => deadline.saturating_sub(node.tail),
        };
        let mut token = Nanos::MAX;
        if self.answers(stage) {
            if live.kind == Phase::Decode || live.first_token.is_some() {
                if let Some(tpot) = source.tpot {
                    let first = live.first_token.unwrap_or(live.ready_at);
                    let next = Nanos(tpot.0.saturating_mul(u64::from(live.tokens.max(1))));
                    token = first.saturating_add(next);
                }
            } else if let Some(ttft) = source.ttft {
                token = job.release.saturating_add(ttft);
            }
        } else if let (Some(ttft), Some(rest)) = (source.ttft, self.time_to_first_token(live)) {
            end = end.min(job.release.saturating_add(ttft).saturating_sub(rest));
        }
        (end, token)
    }

    /// The operating points between which a policy may choose with [`Action::SetPoint`]; fewer than two: it has no choice.
    pub fn points(&self, processor: ProcessorId) -> &'a [OperatingPoint] {
        let power = self.system.platform.processors[processor].power.as_ref();
        let chosen_here = power.filter(|power| power.governor == Governor::Policy && self.power(processor).adjustable);
        chosen_here.map_or(&[], |power| &power.points)
    }

    /// Speed, power and temperature of a processor.
    pub fn power(&self, processor: ProcessorId) -> &'a PowerState {
        &self.state.power[processor]
    }

    /// Speed of a processor at its present operating point relative to the one that profiles were taken at.
    pub fn speed(&self, processor: ProcessorId) -> f64 {
        let power = self.system.platform.processors[processor].power.as_ref();
        power.map_or(1.0, |power| power.points[self.power(processor).point as usize].speed)
    }

    /// How many times longer than by [`View::remaining_in_phase`] the rest of a stage's current phase takes on a processor at a
    /// `speed`, alone: only the compute-bound part depends on the speed. `None` if it cannot run there.
    pub fn stretch(&self, stage: StageId, processor: ProcessorId, speed: f64) -> Option<f64> {
        let live = self.stage(stage);
        let (kind, cost) = &self.cost(stage, processor)?.phases[usize::from(live.phase)];
        let end = live.work.units(*kind).max(live.position);
        let bytes = cost.bytes(live.work, live.position, end);
        let alone = cost.latency_ns(live.work, live.position, end);
        let bound = self.system.platform.memory_bound(processor, bytes, alone);
        Some((1.0 - bound) / speed + bound)
    }

    /// Whether running work can be taken off the processor at all.
    #[inline]
    pub fn preemptible(&self, processor: ProcessorId) -> bool {
        self.system.platform.processors[processor].preemption != Preemption::Never
    }

    /// Whether a run can be taken off all the processors that it is on.
    pub fn can_preempt(&self, processor: ProcessorId, run: &Run) -> bool {
        self.preemptible(processor) && run.over.iter().all(|p| self.preemptible(p))
    }

    /// Whether a model's weights for a processor are in memory and no live stage that has started there uses them. Idle-time work that
    /// waits uses nothing: it loads them again when it goes on, unless it is real.
    pub fn can_evict(&self, model: ModelId, processor: ProcessorId) -> bool {
        self.state.memory.is_resident(model, processor)
            && !self.occupancy(processor).runs.iter().any(|run| {
                let drafts = || self.node(run.stage).draft.as_ref().is_some_and(|draft| draft.model == model);
                let adapts = || self.node(run.stage).adapter.is_some_and(|adapter| adapter.model == model);
                self.system.weights_of(run.model) == model || (!run.over.is_empty() && (drafts() || adapts()))
            })
            && !self.state.stages.iter().any(|(_, s)| {
                let node = &self.system.nodes[s.node];
                let adapter = node.adapter;
                let lets_go = || self.system.sources[node.source].best_effort && !self.state.real;
                (s.weights == model || adapter.is_some_and(|adapter| adapter.model == model))
                    && s.processor == Some(processor)
                    && (s.running || ((s.position > 0.0 || s.phase > 0) && !lets_go()))
            })
    }
}
