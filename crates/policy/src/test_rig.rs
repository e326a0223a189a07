//! Systems and states built by hand, for the policies' unit tests. Times are in milliseconds.

use onbeat_core::cost::{Cost, Phase, PhaseCost, Work};
use onbeat_core::curve::{Below, Curve};
use onbeat_core::distribution::Distribution;
use onbeat_core::id::{Id, IdVec, ModelId, NodeId, ProcessorId, ProcessorSet, SourceId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::spec::{DropRule, ModelShape, Overflow, Preemption, ProcessorKind};
use onbeat_core::state::{Cache, Job, Run, Stage, State};
use onbeat_core::system::{
    Alternative, Arrival, Link, Model, Node, Platform, Processor, Role, Source, System, Text, Variation,
};
use onbeat_core::units::{Bytes, Nanos};

/// Prompt and output length of every session's requests [tokens].
const WORK: Work = Work { prompt: 100, output: 101, steps: 0, exit: 1.0, scale: 1.0 };

/// A system and a state.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) system: System,
    pub(crate) state: State,
    serials: u64,
}

/// Milliseconds.
pub(crate) fn ms(ms: f64) -> Nanos {
    Nanos::from_ms(ms)
}

/// The action that starts a stage on a processor.
pub(crate) fn start(stage: StageId, processor: u32) -> Action {
    Action::Start { stage, processor: ProcessorId(processor), limit: None, units: None }
}

/// The action that preempts a stage.
pub(crate) fn preempt(stage: StageId) -> Action {
    Action::Preempt { stage }
}

/// The cost of an inference in one piece.
fn fixed(latency: f64) -> Cost {
    Cost::of(vec![(Phase::Forward, PhaseCost::fixed(latency * 1e6))])
}

fn distribution(tokens: u32) -> Distribution {
    Distribution::constant(f64::from(tokens))
}

impl Rig {
    /// Exclusive processors without switch costs, unlimited memory, nothing to run.
    pub(crate) fn new(processors: &[(&str, Preemption)]) -> Self {
        let processors: IdVec<ProcessorId, Processor> = processors
            .iter()
            .enumerate()
            .map(|(group, &(name, preemption))| Processor {
                name: name.to_owned(),
                kind: ProcessorKind::Cpu,
                group: group as u32,
                slots: 1,
                division: None,
                preemption,
                switch_cost: Nanos::ZERO,
                preempt_cost: Nanos::ZERO,
                idle_w: 0.0,
                active_w: None,
                bandwidth: None,
                device: None,
                power: None,
            })
            .collect();
        let links = processors.iter().map(|_| processors.iter().map(|_| Link::default()).collect()).collect();
        let system = System {
            scenario: "rig".to_owned(),
            title: String::new(),
            description: String::new(),
            platform: Platform {
                name: "rig".to_owned(),
                title: String::new(),
                processors,
                capacity: None,
                bandwidth: None,
                links,
                power_cap: None,
                kv_block: None,
                swap: None,
            },
            models: IdVec::new(),
            nodes: IdVec::new(),
            sources: IdVec::new(),
            contents: Vec::new(),
            duration: Nanos::from_secs(1.0),
            warm_up: Nanos::ZERO,
            variation: Variation::default(),
            preloaded: true,
            contention: false,
            figures: Vec::new(),
            assumptions: Vec::new(),
            warnings: Vec::new(),
        };
        let state = State::new(&system);
        Self { system, state, serials: 0 }
    }

    /// A periodic stream of one stage and one model, with a deadline and a period of `deadline` (100 ms without one), and its
    /// latency on each processor.
    pub(crate) fn stream(&mut self, name: &str, deadline: Option<f64>, latencies: &[Option<f64>]) -> SourceId {
        let costs = latencies.iter().map(|latency| latency.map(fixed)).collect();
        let period = ms(deadline.unwrap_or(100.0));
        self.source(
            name,
            ModelShape::OneShot,
            costs,
            Work::default(),
            deadline.map(ms),
            Arrival::Periodic { first: Nanos::ZERO, period },
        )
    }

    /// A session with a language model: 1 ms per prompt token, and per output token the time given for each processor; goals of
    /// 1000 ms to the first token and 50 ms per token after it; batches of at most `batch`.
    pub(crate) fn session(&mut self, name: &str, steps: &[f64], batch: u32) -> SourceId {
        let cost = |step: &f64| {
            let prefill = PhaseCost::prefill(Curve::new(vec![(100.0, 100e6)], Below::Origin));
            let mut decode = PhaseCost::decode(Curve::constant(step * 1e6));
            if let PhaseCost::Decode { batch: curve, .. } = &mut decode {
                *curve = (batch > 1).then(|| Curve::new(vec![(1.0, 1.0), (f64::from(batch), 1.5)], Below::Hold));
            }
            Some(Cost::of(vec![(Phase::Prefill, prefill), (Phase::Decode, decode)]))
        };
        let costs = steps.iter().map(cost).collect();
        let arrival = Arrival::Poisson { start: Nanos::ZERO, rate_per_s: 0.5 };
        let id = self.source(name, ModelShape::Autoregressive, costs, WORK, None, arrival);
        let source = &mut self.system.sources[id];
        source.session = true;
        source.ttft = Some(ms(1000.0));
        source.tpot = Some(ms(50.0));
        id
    }

    fn source(
        &mut self,
        name: &str,
        shape: ModelShape,
        costs: IdVec<ProcessorId, Option<Cost>>,
        expected: Work,
        deadline: Option<Nanos>,
        arrival: Arrival,
    ) -> SourceId {
        let model = self.system.models.push(Model {
            name: format!("{name}-model"),
            title: String::new(),
            task: String::new(),
            shape,
            weights: Bytes::ZERO,
            kv_per_token: Bytes::ZERO,
            state: Bytes::ZERO,
            quality: None,
            path: None,
            split: None,
            offload: None,
            weights_of: None,
            role: Role::Network,
        });
        self.state.memory.resident.push(costs.iter().map(|_| Some(Nanos::ZERO)).collect());
        let total = |p: ProcessorId| costs[p].as_ref().map(|cost| (Nanos::from_ns_f64(cost.total_ns(expected)), p));
        let (best, fastest) = costs.ids().filter_map(total).min().expect("a stage can run somewhere");
        let source = SourceId::new(self.system.sources.len());
        let node = self.system.nodes.push(Node {
            name: name.to_owned(),
            source,
            model,
            costs,
            fastest,
            best,
            tail: Nanos::ZERO,
            tail_together: None,
            to_first_token: None,
            attention: None,
            steps: 0,
            prompt: (shape == ModelShape::Autoregressive).then(|| distribution(WORK.prompt)),
            output: (shape == ModelShape::Autoregressive).then(|| distribution(WORK.output)),
            expected,
            output_max: expected.output,
            output_bytes: 0.0,
            draft: None,
            before: Vec::new(),
            after: Vec::new(),
            variants: Vec::new(),
            quality: None,
            tool: None,
            adapter: None,
            exits: onbeat_core::exits::Exits::default(),
            in_content: Vec::new(),
        });
        self.system.sources.push(Source {
            name: name.to_owned(),
            session: false,
            arrival,
            jitter: None,
            deadline,
            ttft: None,
            tpot: None,
            priority: 0,
            drop: DropRule::None,
            queue: None,
            overflow: Overflow::Oldest,
            active: Vec::new(),
            count: None,
            nodes: node.0..node.0 + 1,
            shortest: best,
            text: Text::default(),
            best_effort: false,
            actions: None,
            content: None,
        })
    }

    /// Gives the stage of a source another variant, with its latency on each processor and its quality relative to the first one.
    pub(crate) fn variant(&mut self, source: SourceId, latencies: &[Option<f64>], quality: f64) {
        let node = NodeId(self.system.sources[source].nodes.start);
        let number = self.system.nodes[node].variants.len() + 1;
        let own = self.system.models[self.system.nodes[node].model].clone();
        let model = self.system.models.push(Model { name: format!("{}/{number}", own.name), ..own });
        self.state.memory.resident.push(latencies.iter().map(|_| Some(Nanos::ZERO)).collect());
        let costs: IdVec<ProcessorId, Option<Cost>> = latencies.iter().map(|latency| latency.map(fixed)).collect();
        let total = |p: ProcessorId| Some((Nanos::from_ns_f64(costs[p].as_ref()?.total_ns(Work::default())), p));
        let (best, fastest) = costs.ids().filter_map(total).min().expect("a variant can run somewhere");
        let node = &mut self.system.nodes[node];
        node.quality = Some(1.0);
        node.variants.push(Alternative {
            model,
            costs,
            fastest,
            best,
            steps: 0,
            quality: Some(quality),
            exits: onbeat_core::exits::Exits::default(),
        });
    }

    /// Switches a stage to another variant.
    pub(crate) fn switch(&mut self, stage: StageId, variant: u8) {
        self.state.stages[stage] = self.state.stages[stage].in_variant(&self.system, variant);
    }

    /// Lets a session's prompts run in pieces of any size, at full speed, and share steps with answers.
    pub(crate) fn mix(&mut self, source: SourceId) {
        let node = NodeId(self.system.sources[source].nodes.start);
        for cost in self.system.nodes[node].costs.iter_mut().flatten() {
            for (_, phase) in &mut cost.phases {
                if let PhaseCost::Prefill { pieces, .. } = phase {
                    pieces.efficiency = Some(Curve::constant(1.0));
                    pieces.mixed = true;
                }
            }
        }
    }

    /// Gives one source's model to another source.
    pub(crate) fn share_model(&mut self, from: SourceId, to: SourceId) {
        let node = |rig: &Self, source: SourceId| NodeId(rig.system.sources[source].nodes.start);
        let model: ModelId = self.system.nodes[node(self, from)].model;
        let to = node(self, to);
        self.system.nodes[to].model = model;
    }

    /// A job of the source, released at `at`, with its stage.
    fn stage(&mut self, source: SourceId, at: f64) -> StageId {
        let declared = &self.system.sources[source];
        let node = NodeId(declared.nodes.start);
        let job = self.state.jobs.insert(Job {
            serial: self.serials,
            source,
            release: ms(at),
            deadline: declared.deadline.map_or(Nanos::MAX, |deadline| ms(at) + deadline),
            started: false,
            running: 0,
            content: None,
        });
        let stage = self.state.stages.insert(Stage {
            serial: self.serials,
            job,
            node,
            variant: 0,
            model: self.system.nodes[node].model,
            weights: self.system.nodes[node].model,
            ready_at: ms(at),
            work: self.system.nodes[node].expected,
            phase: 0,
            kind: self.system.nodes[node].costs.iter().flatten().next().expect("it can run somewhere").phases[0].0,
            position: 0.0,
            partial_ns: 0.0,
            processor: None,
            input: None,
            running: false,
            units: 0,
            first_token: None,
            tokens: 0,
            drafted: None,
            refused: 0,
            cache: Cache::default(),
            copy: None,
        });
        self.serials += 1;
        stage
    }

    /// A ready stage, released at `at`.
    pub(crate) fn ready(&mut self, source: SourceId, at: f64) -> StageId {
        let stage = self.stage(source, at);
        self.state.ready.push(stage);
        stage
    }

    /// A waiting stage of a best-effort source.
    pub(crate) fn background(&mut self, source: SourceId, at: f64) -> StageId {
        let stage = self.stage(source, at);
        self.state.background.push(stage);
        stage
    }

    /// A ready stage that has its first token and goes on with decode.
    pub(crate) fn ready_decode(&mut self, source: SourceId, at: f64) -> StageId {
        let stage = self.ready(source, at);
        self.enter_decode(stage, at);
        stage
    }

    fn enter_decode(&mut self, stage: StageId, at: f64) {
        let live = &mut self.state.stages[stage];
        live.phase = 1;
        live.kind = Phase::Decode;
        live.first_token = Some(ms(at));
        live.tokens = 1;
    }

    /// A stage that runs on a processor since `at`, when it was released.
    pub(crate) fn running(&mut self, source: SourceId, processor: u32, at: f64) -> StageId {
        let stage = self.stage(source, at);
        self.run(stage, processor, at);
        stage
    }

    /// A stage that runs in decode since `at`.
    pub(crate) fn running_decode(&mut self, source: SourceId, processor: u32, at: f64) -> StageId {
        let stage = self.stage(source, at);
        self.enter_decode(stage, at);
        self.run(stage, processor, at);
        stage
    }

    /// Starts a stage that is no longer ready.
    pub(crate) fn start_again(&mut self, stage: StageId, processor: u32, at: f64) {
        self.run(stage, processor, at);
    }

    fn run(&mut self, stage: StageId, processor: u32, at: f64) {
        let processor = ProcessorId(processor);
        let live = &mut self.state.stages[stage];
        live.processor = Some(processor);
        live.running = true;
        let (serial, model, kind) = (live.serial, live.model, live.kind);
        let job = live.job;
        self.state.jobs[job].started = true;
        self.state.jobs[job].running = 1;
        let latency = self.view().remaining_in_phase(stage, processor).expect("it can run there");
        self.state.processors[processor].runs.push(Run {
            serial,
            stage,
            others: Vec::new(),
            model,
            kind,
            start: ms(at),
            expected_end: ms(at) + latency,
            ending: false,
            over: ProcessorSet::EMPTY,
        });
    }

    /// Takes a running stage off its processor; it becomes ready again.
    pub(crate) fn stop(&mut self, stage: StageId) {
        for processor in &mut self.state.processors {
            processor.runs.retain(|run| run.stage != stage);
        }
        self.state.stages[stage].running = false;
        self.state.ready.push(stage);
    }

    /// Turns the list of ready stages round: only serials say who was first.
    pub(crate) fn reverse_ready(&mut self) {
        self.state.ready.reverse();
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { system: &self.system, state: &self.state }
    }

    /// The policy that the text describes.
    pub(crate) fn make(&self, policy: &str) -> Box<dyn Policy> {
        crate::make(policy, &self.system).expect("the policy exists")
    }

    /// What a new policy decides.
    pub(crate) fn decide(&self, policy: &str) -> Vec<Action> {
        self.decide_with(&mut self.make(policy))
    }

    /// What a policy decides.
    pub(crate) fn decide_with(&self, policy: &mut Box<dyn Policy>) -> Vec<Action> {
        let mut actions = Actions::default();
        policy.decide(&self.view(), &mut actions);
        actions.as_slice().to_vec()
    }
}
