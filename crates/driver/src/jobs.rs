//! Jobs and their chains: release, readiness of stages, completion, drops.

use std::collections::VecDeque;

use onbeat_core::cost::{Cost, Phase, PhaseCost, Work};
use onbeat_core::distribution::Distribution;
use onbeat_core::event::{DropCause, Sink, What};
use onbeat_core::id::{Id, JobId, NodeId, ProcessorId, SourceId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::{DropRule, ModelShape, Overflow, Preemption, VariationKind};
use onbeat_core::state::{Cache, Job, Stage};
use onbeat_core::system::{Edge, System};
use onbeat_core::units::{Bytes, Nanos};

use crate::course::{Course, TimerKind};
use crate::random::{Key, predict, sample, uniform, variation};

/// What policies do not see of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Number of the arrival within the source.
    pub(crate) index: u64,
    /// Live stage instances, those that wait for their turn included.
    stages: Vec<StageId>,
    /// Progress of each of the chain's nodes; empty for chains of one node.
    nodes: Vec<NodeProgress>,
    /// Nodes whose fate is open.
    open: u32,
}

/// What a finished stage has not handed on yet.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// Output tokens.
    tokens: u32,
    /// Whether all of them were handed on, in parts that the data decided.
    in_parts: bool,
}

/// Progress of one node of a job's chain.
#[derive(Clone, Copy, Debug, Default)]
struct NodeProgress {
    /// Edges into the node whose fate is open.
    undecided: u32,
    /// Most instances that a taken edge asked for.
    wanted: u32,
    /// Instances that are not finished.
    alive: u32,
    /// Instances made so far.
    made: u32,
    /// Where the last finished predecessor ran, and the size of its output.
    input: Option<(ProcessorId, f64)>,
}

/// What policies do not see of a stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hidden {
    /// Real size of the work.
    pub work: Work,
    /// Uniform sample for measured latency distributions.
    pub u: f64,
    /// Execution time factor.
    pub variation: f64,
    /// Output tokens that were handed on to stages that follow every so many of them.
    pub handed: u32,
    /// Output tokens that count as part of the prompt, because they are prefilled again.
    pub before: u32,
    /// Memory held while it runs.
    pub activation: Bytes,
    /// Number among the instances of its node in the job.
    pub instance: u32,
    /// Where the prompt piece ends that it is in the middle of, or that it joins a batch with [units]; 0 without one.
    pub piece_end: f64,
    /// Number of the last decision that took it off its processor, or its cache away; 0: none has.
    pub(crate) overtaken_in: u64,
    /// Number of the conversation that it continues; 0 without one.
    pub(crate) conversation: u32,
    /// Whether it has the cache of that conversation and has not started.
    pub(crate) reused: bool,
    /// Probability that a token which is drafted for it is accepted.
    pub acceptance: f64,
    /// Whether memory is reserved for a draft model's cache.
    pub drafts: bool,
    /// Which of the exits its input takes, in whatever variant: a uniform number; small ones are easy inputs.
    pub(crate) ease: f64,
    /// Tokens that a step of its run writes into the cache besides the next one: those that were drafted.
    pub(crate) ahead: u32,
}

/// What is the same for all stages of a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeTraits {
    /// The only node of its chain.
    alone: bool,
    /// Its work gives way to all other work.
    pub best_effort: bool,
    /// Some processor has a latency distribution.
    draws_quantile: bool,
    /// Instances run strictly in order.
    pub streaming: bool,
    /// Some edge asks for one instance per so many tokens.
    pub per_tokens: bool,
    /// Inferences may end early.
    exits: bool,
    first_phase: Phase,
}

impl NodeTraits {
    pub(crate) fn new(system: &System, id: NodeId) -> Self {
        let node = &system.nodes[id];
        let range = &system.sources[node.source].nodes;
        Self {
            alone: range.end - range.start == 1,
            draws_quantile: node.all_costs().flat_map(Cost::at_all_widths).any(|(_, phases)| {
                phases.iter().any(|(_, phase)| matches!(phase, PhaseCost::Fixed { quantiles: Some(_), .. }))
            }),
            streaming: system.models[node.model].shape == ModelShape::Streaming,
            exits: node.has_exits(),
            per_tokens: node.after.iter().any(|edge| edge.per_tokens.is_some()),
            // A tool has no costs, and no phases that matter.
            first_phase: node.costs[node.fastest].as_ref().map_or(Phase::Forward, |cost| cost.phases[0].0),
            best_effort: system.sources[node.source].best_effort,
        }
    }
}

/// Queue of a streaming model's stages.
#[derive(Clone, Debug, Default)]
pub(crate) struct InOrder {
    /// The one whose turn it is.
    current: Option<StageId>,
    /// Those that wait for it, in order.
    waiting: VecDeque<StageId>,
    /// Where the state is.
    state_at: Option<ProcessorId>,
}

/// Purposes of the numbers within a job; part of the key, never change them.
mod purpose {
    pub(super) const STAGE: u64 = 1;
    pub(super) const EDGE: u64 = 2;
    pub(super) const PREDICTION: u64 = 3;
    pub(super) const TOOL: u64 = 4;
    pub(super) const DRAFT: u64 = 5;
    pub(super) const EXIT: u64 = 6;
}

impl<S: Sink> Course<'_, S> {
    /// Releases a source's job number `index`.
    pub(crate) fn release(&mut self, source: SourceId, index: u64, nominal: Nanos, content: Option<u8>) {
        let spec = &self.system.sources[source];
        let serial = self.outcome.jobs;
        self.outcome.jobs += 1;
        let deadline = spec.deadline.map(|deadline| nominal.saturating_add(deadline));
        self.emit(What::Release { job: serial, source, nominal, deadline, content });
        if let Some(queue) = spec.queue
            && self.sources[source].alive.len() >= queue as usize
            && !self.make_way(source)
        {
            self.emit(What::Drop { job: serial, cause: DropCause::QueueFull });
            return;
        }
        let job = self.state.jobs.insert(Job {
            serial,
            source,
            release: nominal,
            deadline: deadline.unwrap_or(Nanos::MAX),
            started: false,
            running: 0,
            content,
        });
        if job.index() == self.books.len() {
            self.books.push(Book::default());
        }
        if spec.queue.is_some() {
            self.sources[source].alive.push_back(job);
        }
        self.open_book(job, source, index);
        if let Some(deadline) = deadline {
            match spec.drop {
                DropRule::None => {}
                DropRule::Late => {
                    self.push_timer(deadline.max(self.state.now), TimerKind::DropCheck, job.0, serial, nominal);
                }
                // How long it takes at least by what it sees is known when its stages are there.
                DropRule::Hopeless if content.is_some() => {}
                DropRule::Hopeless => {
                    let hopeless = Nanos(deadline.0.saturating_sub(spec.shortest.0) + 1);
                    self.push_timer(hopeless.max(self.state.now), TimerKind::DropCheck, job.0, serial, nominal);
                }
            }
        }
        for node in self.system.nodes_of(source) {
            if self.system.nodes[node].before.is_empty() {
                self.make_instances(job, node, 1);
            }
        }
        if let Some(deadline) = deadline.filter(|_| content.is_some() && spec.drop == DropRule::Hopeless) {
            let hopeless = Nanos(deadline.0.saturating_sub(self.shortest_rest(job).0) + 1);
            self.push_timer(hopeless.max(self.state.now), TimerKind::DropCheck, job.0, serial, nominal);
        }
    }

    /// Starts a job's bookkeeping.
    fn open_book(&mut self, job: JobId, source: SourceId, index: u64) {
        let system = self.system;
        let book = &mut self.books[job.index()];
        book.index = index;
        book.stages.clear();
        book.nodes.clear();
        let nodes = system.nodes_of(source);
        book.open = nodes.len() as u32;
        if nodes.len() > 1 {
            book.nodes.extend(nodes.map(|node| NodeProgress {
                undecided: system.nodes[node].before.len() as u32,
                ..NodeProgress::default()
            }));
        }
    }

    /// A source's queue is full: drops the oldest job that has not started, if that is the rule. Whether there is room now.
    fn make_way(&mut self, source: SourceId) -> bool {
        if self.system.sources[source].overflow == Overflow::Newest {
            return false;
        }
        let oldest = self.sources[source].alive.iter().copied().find(|&job| !self.state.jobs[job].started);
        if let Some(job) = oldest {
            self.drop_job(job, DropCause::QueueFull);
        }
        oldest.is_some()
    }

    fn progress(&mut self, job: JobId, node: NodeId) -> &mut NodeProgress {
        let first = self.system.sources[self.state.jobs[job].source].nodes.start as usize;
        &mut self.books[job.index()].nodes[node.index() - first]
    }

    /// A live job's number within its source.
    pub fn job_index(&self, job: JobId) -> u64 {
        self.books[job.index()].index
    }

    /// Prompt and output length of a stage, where they are known.
    fn length_of(&self, job: JobId, node: NodeId, instance: u32) -> Option<(u32, u32)> {
        let live = &self.state.jobs[job];
        self.facts.length(live.serial, (live.source, self.job_index(job)), node, instance)
    }

    /// The key of what is random about a job's stage. The stage goes by its number within the chain: streams before this one in the
    /// file change nothing.
    fn key(&self, job: JobId, purpose: u64, node: NodeId) -> Key {
        let source = self.state.jobs[job].source;
        let within = node.0 - self.system.sources[source].nodes.start;
        self.sources[source].key.part(self.books[job.index()].index).part(purpose).part(u64::from(within))
    }

    /// Makes `count` instances of a job's stage; they are ready at once, or when their turn comes.
    fn make_instances(&mut self, job: JobId, node: NodeId, count: u32) {
        let mut first = 0;
        let mut input = None;
        if !self.nodes[node].alone {
            let progress = self.progress(job, node);
            first = progress.made;
            input = progress.input;
            progress.made += count;
            progress.alive += count;
        }
        for instance in first..first + count {
            let stage = self.make_stage(job, node, instance, input);
            if self.nodes[node].streaming {
                let queue = &mut self.in_order[node];
                if queue.current.is_some() {
                    queue.waiting.push_back(stage);
                    continue;
                }
                queue.current = Some(stage);
                self.state.stages[stage].processor = queue.state_at;
            }
            self.announce(stage);
        }
    }

    fn make_stage(&mut self, job: JobId, node: NodeId, instance: u32, input: Option<(ProcessorId, f64)>) -> StageId {
        let system = self.system;
        let spec = &system.nodes[node];
        let traits = self.nodes[node];
        let varies = system.variation.kind != VariationKind::None;
        let mut hidden = Hidden { work: spec.expected, u: 0.5, variation: 1.0, instance, ..Hidden::default() };
        let autoregressive = traits.first_phase == Phase::Prefill;
        if varies || traits.draws_quantile || autoregressive {
            let mut random = self.key(job, purpose::STAGE, node).part(u64::from(instance)).stream();
            // Always drawn in this order, so that one does not depend on whether another is used.
            hidden.u = uniform(&mut random);
            hidden.variation = variation(system.variation, &mut random);
            if autoregressive {
                let traced = self.traced_lengths(self.state.jobs[job].source, self.books[job.index()].index);
                let mut length = |distribution: &Option<_>, traced: Option<u32>| match distribution {
                    Some(distribution) => sample(distribution, &mut random).round_ties_even() as u32,
                    None => traced.unwrap_or(1),
                };
                hidden.work.prompt = length(&spec.prompt, traced.map(|t| t.0)).max(1);
                hidden.work.output = length(&spec.output, traced.map(|t| t.1)).max(1);
            }
        }
        if let Some(seen) = spec.in_content(self.state.jobs[job].content) {
            hidden.work.scale = seen.work;
        }
        if traits.exits {
            let key = self.key(job, purpose::EXIT, node).part(u64::from(instance));
            hidden.ease = uniform(&mut key.stream());
            hidden.work.exit = spec.exits.of(hidden.ease);
        }
        if let Some(draft) = &spec.draft {
            hidden.acceptance = sample(&draft.acceptance, &mut self.draft_key(job, node, instance).stream());
        }
        if autoregressive && let Some((prompt, output)) = self.length_of(job, node, instance) {
            hidden.work.prompt = prompt.max(1);
            hidden.work.output = output.max(1);
        } else if autoregressive {
            self.continue_conversation(spec.source, spec.model, &mut hidden);
        }
        let mut visible = Work { prompt: hidden.work.prompt, scale: hidden.work.scale, ..spec.expected };
        if let Some(sigma) = system.sources[spec.source].text.predictor
            && autoregressive
            && !self.view().on_devices()
        {
            let key = self.key(job, purpose::PREDICTION, node).part(u64::from(instance));
            visible.output = predict(hidden.work.output, sigma, &mut key.stream());
        }
        if let Some(lengths) = self.lengths[node].as_ref().filter(|_| autoregressive) {
            visible.output = lengths.predict(visible.prompt, spec.expected);
        }
        let stage = self.state.stages.insert(Stage {
            serial: u64::MAX,
            job,
            node,
            variant: 0,
            model: spec.model,
            weights: system.weights_of(spec.model),
            ready_at: Nanos::MAX,
            work: visible,
            phase: 0,
            kind: traits.first_phase,
            position: 0.0,
            partial_ns: 0.0,
            processor: None,
            input,
            running: false,
            units: 0,
            first_token: None,
            tokens: 0,
            drafted: None,
            refused: 0,
            cache: Cache::default(),
            copy: None,
        });
        if stage.index() == self.hidden.len() {
            self.hidden.push(hidden);
        } else {
            self.hidden[stage.index()] = hidden;
        }
        self.books[job.index()].stages.push(stage);
        stage
    }

    fn draft_key(&self, job: JobId, node: NodeId, instance: u32) -> Key {
        self.key(job, purpose::DRAFT, node).part(u64::from(instance))
    }

    /// Which of a stage's output tokens, by number from 0 after the first, would be accepted if they were drafted: the same ones whoever
    /// drafts them, and when.
    pub fn accepts(&self, stage: StageId) -> impl Fn(u32) -> bool + use<S> {
        let live = &self.state.stages[stage];
        let hidden = self.hidden[stage.index()];
        let key = self.draft_key(live.job, live.node, hidden.instance);
        move |token| uniform(&mut key.part(u64::from(token) + 1).stream()) < hidden.acceptance
    }

    /// A stage waits for a processor from now on, for the first time.
    fn announce(&mut self, stage: StageId) {
        let serial = self.outcome.stages;
        self.outcome.stages += 1;
        let work = self.hidden[stage.index()].work;
        let live = &mut self.state.stages[stage];
        live.serial = serial;
        live.ready_at = self.state.now;
        self.take_over_cache(stage);
        let live = &self.state.stages[stage];
        let (job, node, kind) = (live.job, live.node, live.kind);
        if let Some(tool) = &self.system.nodes[node].tool {
            self.call_tool(stage, tool);
        } else {
            self.make_wait(stage);
            self.changed = true;
        }
        if self.sink_active {
            let (prompt, output) = if kind == Phase::Prefill { (work.prompt, work.output) } else { (0, 0) };
            let job = self.state.jobs[job].serial;
            self.emit(What::Ready { stage: serial, job, node, prompt, output });
        }
    }

    /// A stage that has not ended waits for a processor from now on.
    pub fn make_wait(&mut self, stage: StageId) {
        if self.nodes[self.state.stages[stage].node].exits {
            self.rule_out_exits(stage);
        }
        let best_effort = self.nodes[self.state.stages[stage].node].best_effort;
        self.state.wait(stage, best_effort);
    }

    /// The share of each step that stages compute which decode together; of a stage alone, where it ends.
    pub fn depth(&self, stages: &[StageId]) -> f64 {
        let exit = |&stage: &StageId| self.hidden[stage.index()].work.exit;
        let live = &self.state.stages[stages[0]];
        match stages {
            [only] => exit(only),
            // Nothing to look up where nothing is left out: the rule.
            _ if stages.iter().all(|stage| exit(stage) == 1.0) => 1.0,
            _ => self.system.nodes[live.node].exits_of(live.variant).deepest(stages.iter().map(exit)),
        }
    }

    /// What has not ended takes none of the exits that it has passed: policies see the mean of the others.
    fn rule_out_exits(&mut self, stage: StageId) {
        let view = View { system: self.system, state: &self.state };
        let passed = view.passed(stage);
        let live = &mut self.state.stages[stage];
        live.work.exit = self.system.nodes[live.node].exits_of(live.variant).mean_after(passed);
    }

    /// When policies may count on the end of a run that should last to `end`: work that gives way frees its slot whenever it is asked to.
    pub fn end_to_count_on(&self, p: ProcessorId, stages: &[StageId], end: Nanos) -> Nanos {
        let gives_way = |&stage: &StageId| self.nodes[self.state.stages[stage].node].best_effort;
        let yields = self.system.platform.processors[p].preemption != Preemption::Never && stages.iter().all(gives_way);
        if yields { self.state.now } else { end }
    }

    /// A stage that is a tool begins: it ends by itself.
    fn call_tool(&mut self, stage: StageId, tool: &Distribution) {
        let live = self.state.stages[stage];
        let instance = self.hidden[stage.index()].instance;
        // The stage by its number within the chain: a new stream changes no other stream's tools.
        let key = self.key(live.job, purpose::TOOL, live.node).part(u64::from(instance));
        let time = Nanos::from_ns_f64(sample(tool, &mut key.stream()));
        self.state.jobs[live.job].started = true;
        let now = self.state.now;
        self.push_timer(now.saturating_add(time), TimerKind::Tool, stage.0, live.serial, now);
    }

    /// A call of a tool ends, unless its job was given up in the meantime.
    pub(crate) fn end_tool(&mut self, stage: StageId, serial: u64) {
        if self.state.stages.get(stage).is_some_and(|live| live.serial == serial) {
            self.changed = true;
            self.finish_stage(stage);
        }
    }

    /// A stage has finished its last phase.
    pub(crate) fn finish_stage(&mut self, stage: StageId) {
        let live = &self.state.stages[stage];
        let (serial, job, node, tokens) = (live.serial, live.job, live.node, live.tokens);
        if let Some(lengths) = self.lengths[node].as_mut().filter(|_| tokens > 0) {
            lengths.learn(live.work.prompt.saturating_sub(self.hidden[stage.index()].before), tokens);
        }
        let output = live.processor.map(|p| (p, self.system.nodes[node].output_bytes));
        let instance = self.hidden[stage.index()].instance;
        let job_serial = self.state.jobs[job].serial;
        self.emit(What::StageDone { stage: serial, job: job_serial });
        self.keep_cache(stage);
        self.remove_stage(stage);
        if self.nodes[node].alone {
            self.finish_job(job);
            return;
        }
        let progress = self.progress(job, node);
        progress.alive -= 1;
        let complete = progress.alive == 0 && progress.undecided == 0;
        if complete {
            let rest = Rest { tokens, in_parts: self.parts_of(job, node, instance).is_some() };
            self.close_node(job, node, true, output, rest);
            if self.books[job.index()].open == 0 {
                self.finish_job(job);
            }
        }
    }

    /// A node's fate is decided: it is finished, or (`ran` is false) skipped. Its edges are followed.
    fn close_node(&mut self, job: JobId, node: NodeId, ran: bool, output: Option<(ProcessorId, f64)>, rest: Rest) {
        self.books[job.index()].open -= 1;
        let system = self.system;
        for (number, edge) in system.nodes[node].after.iter().enumerate() {
            let mut count = if ran { self.followers(job, node, number, edge) } else { 0 };
            if let Some(every) = edge.per_tokens
                && count > 0
            {
                // The instances for whole multiples were made on the way; what is left is the rest.
                count = u32::from(!rest.in_parts && !rest.tokens.is_multiple_of(every));
            }
            self.decide_edge(job, edge, count, output);
        }
    }

    /// How many instances follow over an edge: a number that depends on the job alone, not on the course of the run.
    fn followers(&self, job: JobId, node: NodeId, number: usize, edge: &Edge) -> u32 {
        if let Some(count) = self.facts.followers(self.state.jobs[job].serial, node, number) {
            return count;
        }
        if edge.probability >= 1.0 && edge.fan_out.is_none() {
            return 1;
        }
        let key = self.key(job, purpose::EDGE, node).part(number as u64);
        let mut random = key.stream();
        if uniform(&mut random) >= edge.probability {
            return 0;
        }
        match &edge.fan_out {
            Some(fan_out) => sample(fan_out, &mut random).round_ties_even() as u32,
            None => 1,
        }
    }

    /// An edge's fate is decided: `count` instances follow, as far as this edge is concerned.
    fn decide_edge(&mut self, job: JobId, edge: &Edge, count: u32, output: Option<(ProcessorId, f64)>) {
        let progress = self.progress(job, edge.to);
        progress.undecided -= 1;
        progress.wanted = progress.wanted.max(count);
        if count > 0 {
            progress.input = output;
        }
        if progress.undecided > 0 {
            return;
        }
        let (wanted, made, alive) = (progress.wanted, progress.made, progress.alive);
        if wanted > 0 {
            self.make_instances(job, edge.to, wanted);
        } else if made == 0 {
            self.close_node(job, edge.to, false, None, Rest::default());
        } else if alive == 0 {
            // All instances came over a per-token edge and are finished already.
            self.close_node(job, edge.to, true, output, Rest::default());
        }
    }

    /// The numbers of tokens at which a stage hands on a part of its output, where they are known.
    fn parts_of(&self, job: JobId, node: NodeId, instance: u32) -> Option<&[u32]> {
        self.facts.parts(self.state.jobs[job].serial, node, instance)
    }

    /// The number of tokens, larger than it has now, at which a stage hands on some of its output next; `None`: never.
    pub fn next_part(&self, stage: StageId) -> Option<u32> {
        let live = &self.state.stages[stage];
        if !self.nodes[live.node].per_tokens {
            return None;
        }
        if let Some(parts) = self.parts_of(live.job, live.node, self.hidden[stage.index()].instance) {
            return parts.iter().copied().find(|&at| at > live.tokens);
        }
        let every = self.system.nodes[live.node].after.iter().filter_map(|edge| edge.per_tokens);
        every.map(|every| (live.tokens / every + 1) * every).min()
    }

    /// An autoregressive stage has generated `now` tokens so far: makes the instances that follow every so many of them.
    pub(crate) fn follow_tokens(&mut self, stage: StageId, now: u32) {
        let live = self.state.stages[stage];
        let system = self.system;
        let hidden = &mut self.hidden[stage.index()];
        let before = std::mem::replace(&mut hidden.handed, now);
        let instance = hidden.instance;
        debug_assert!(before <= now, "tokens are handed on once");
        for (number, edge) in system.nodes[live.node].after.iter().enumerate() {
            let Some(every) = edge.per_tokens else { continue };
            let count = match self.parts_of(live.job, live.node, instance) {
                Some(parts) => parts.iter().filter(|&&at| before < at && at <= now).count() as u32,
                None => now / every - before / every,
            };
            if count > 0 && self.followers(live.job, live.node, number, edge) > 0 {
                let output = live.processor.map(|p| (p, system.nodes[live.node].output_bytes));
                self.progress(live.job, edge.to).input = output;
                self.make_instances(live.job, edge.to, count);
            }
        }
    }

    /// Takes a stage out of everything that knows it.
    fn remove_stage(&mut self, stage: StageId) {
        let live = self.state.stages.remove(stage);
        self.free_cache(live.cache);
        // Its weights may make room now, though nothing was freed.
        self.forgive_refusals();
        let stages = &mut self.books[live.job.index()].stages;
        let i = stages.iter().position(|&other| other == stage).expect("a job knows its stages");
        stages.swap_remove(i);
        if self.nodes[live.node].streaming {
            let queue = &mut self.in_order[live.node];
            if queue.current == Some(stage) {
                queue.current = queue.waiting.pop_front();
                queue.state_at = live.processor.or(queue.state_at);
                if let Some(next) = queue.current {
                    self.state.stages[next].processor = queue.state_at;
                    self.announce(next);
                }
            } else {
                queue.waiting.retain(|&other| other != stage);
            }
        }
    }

    fn finish_job(&mut self, job: JobId) {
        let live = self.state.jobs.remove(job);
        self.forget_alive(live.source, job);
        self.changed = true;
        self.emit(What::JobDone { job: live.serial });
    }

    /// Gives up a job, none of whose stages runs.
    pub fn drop_job(&mut self, job: JobId, cause: DropCause) {
        debug_assert_eq!(self.state.jobs[job].running, 0, "a running job is not dropped");
        while let Some(&stage) = self.books[job.index()].stages.last() {
            self.state.stop_waiting(stage);
            self.remove_stage(stage);
        }
        let live = self.state.jobs.remove(job);
        self.forget_alive(live.source, job);
        self.changed = true;
        self.emit(What::Drop { job: live.serial, cause });
    }

    /// Applies the source's drop rule to a job, now that its time may have run out. `serial` tells whether it is still the same job.
    pub(crate) fn check_drop(&mut self, job: JobId, serial: u64) {
        let Some(&live) = self.state.jobs.get(job) else { return };
        if live.serial != serial || live.running > 0 {
            // Ended, or judged again when its run stops.
            return;
        }
        let now = self.state.now;
        match self.system.sources[live.source].drop {
            DropRule::None => {}
            DropRule::Late => {
                if now >= live.deadline {
                    self.drop_job(job, DropCause::Late);
                }
            }
            DropRule::Hopeless => {
                let need = self.shortest_rest(job);
                if now.saturating_add(need) > live.deadline {
                    self.drop_job(job, DropCause::Hopeless);
                } else {
                    let hopeless = Nanos(live.deadline.0 - need.0 + 1);
                    self.push_timer(hopeless, TimerKind::DropCheck, job.0, serial, live.release);
                }
            }
        }
    }

    /// Applies drop rules after a run of the job has stopped. Whether the job is still alive.
    pub(crate) fn judge_after_stop(&mut self, job: JobId, serial: u64) {
        if let Some(live) = self.state.jobs.get(job)
            && live.serial == serial
            && live.running == 0
            && live.deadline != Nanos::MAX
        {
            let drop = self.system.sources[live.source].drop;
            let late = drop == DropRule::Late && self.state.now >= live.deadline;
            if late || drop == DropRule::Hopeless {
                self.check_drop(job, serial);
            }
        }
    }

    /// The shortest nominal time in which a job, none of whose stages runs, could be done.
    fn shortest_rest(&self, job: JobId) -> Nanos {
        let view = View { system: self.system, state: &self.state };
        let rest = |&stage: &StageId| {
            let node = view.node(stage);
            view.remaining_least(stage).saturating_add(node.tail_together.unwrap_or(node.tail))
        };
        self.books[job.index()].stages.iter().map(rest).max().unwrap_or(Nanos::ZERO)
    }
}
