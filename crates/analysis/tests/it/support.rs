//! Small systems made by hand.

use onbeat_core::cost::{Cost, Phase, PhaseCost, Work};
use onbeat_core::curve::{Below, Curve};
use onbeat_core::distribution::Distribution;
use onbeat_core::id::{Id, IdVec, ModelId, NodeId, ProcessorId, SourceId};
use onbeat_core::spec::{DropRule, ModelShape, Overflow, Preemption, ProcessorKind, ProvenanceKind};
use onbeat_core::system::{Arrival, Edge, Figure, Link, Model, Node, Platform, Processor, Source, System, Variation};
use onbeat_core::units::{Bytes, Nanos};

pub(crate) fn ms(ms: u64) -> Nanos {
    Nanos(ms * 1_000_000)
}

/// A system under construction.
pub(crate) struct Builder {
    pub(crate) system: System,
}

impl Builder {
    /// Processors `p0`, `p1`, … that differ in nothing.
    pub(crate) fn new(processors: usize, duration: Nanos) -> Self {
        let processor = |i: usize| Processor {
            name: format!("p{i}"),
            kind: ProcessorKind::Npu,
            group: i as u32,
            slots: 1,
            division: None,
            preemption: Preemption::Anytime,
            switch_cost: Nanos::ZERO,
            preempt_cost: Nanos::ZERO,
            idle_w: 0.0,
            active_w: None,
            bandwidth: None,
            device: None,
            power: None,
        };
        let figure = |kind| Figure { what: "test".to_owned(), kind, source: "test".to_owned() };
        let row = || (0..processors).map(|_| Link::default()).collect();
        Self {
            system: System {
                scenario: "test".to_owned(),
                title: String::new(),
                description: String::new(),
                platform: Platform {
                    name: "chip".to_owned(),
                    title: String::new(),
                    processors: (0..processors).map(processor).collect(),
                    capacity: None,
                    bandwidth: None,
                    links: (0..processors).map(|_| row()).collect(),
                    power_cap: None,
                    kv_block: None,
                    swap: None,
                },
                models: IdVec::new(),
                nodes: IdVec::new(),
                sources: IdVec::new(),
                contents: Vec::new(),
                duration,
                warm_up: Nanos::ZERO,
                variation: Variation::default(),
                preloaded: true,
                contention: true,
                figures: [ProvenanceKind::Measured, ProvenanceKind::Published, ProvenanceKind::Analytical]
                    .map(figure)
                    .to_vec(),
                assumptions: Vec::new(),
                warnings: Vec::new(),
            },
        }
    }

    /// A periodic stream whose deadline is its period, without stages yet.
    pub(crate) fn stream(&mut self, period: Nanos) -> SourceId {
        let sources = self.system.sources.len();
        let next = self.system.nodes.len() as u32;
        self.system.sources.push(Source {
            name: format!("s{sources}"),
            session: false,
            arrival: Arrival::Periodic { first: Nanos::ZERO, period },
            jitter: None,
            deadline: Some(period),
            ttft: None,
            tpot: None,
            priority: 0,
            drop: DropRule::None,
            queue: None,
            overflow: Overflow::Oldest,
            active: Vec::new(),
            count: None,
            nodes: next..next,
            shortest: Nanos::ZERO,
            text: onbeat_core::system::Text::default(),
            best_effort: false,
            actions: None,
            content: None,
        })
    }

    /// A session with Poisson arrivals and no goals yet, without stages yet.
    pub(crate) fn session(&mut self, rate_per_s: f64) -> SourceId {
        let id = self.stream(Nanos(1));
        let source = &mut self.system.sources[id];
        source.session = true;
        source.deadline = None;
        source.arrival = Arrival::Poisson { start: Nanos::ZERO, rate_per_s };
        id
    }

    /// Appends a stage, after the source's previous one with this probability, with a fixed latency per processor [ms].
    pub(crate) fn stage(
        &mut self,
        source: SourceId,
        probability: f64,
        latency_ms: &[Option<f64>],
        energy_mj: Option<f64>,
    ) -> NodeId {
        let phase = |ms: f64| {
            vec![(
                Phase::Forward,
                PhaseCost::Fixed {
                    latency_ns: ms * 1e6,
                    quantiles: None,
                    boundaries: vec![1.0],
                    bytes: 0.0,
                    energy_mj,
                },
            )]
        };
        let phases = latency_ms.iter().map(|ms| ms.map(phase)).collect();
        self.node(source, probability, ModelShape::OneShot, phases, Work::default())
    }

    /// Appends a language model stage: per processor (prefill of a token, decode step) [ms].
    pub(crate) fn language(
        &mut self,
        source: SourceId,
        speeds: &[Option<(f64, f64)>],
        prompt: u32,
        output: u32,
    ) -> NodeId {
        let phases = |(prefill, decode): (f64, f64)| {
            let prefill = PhaseCost::prefill(Curve::new(vec![(1.0, prefill * 1e6)], Below::Origin));
            let decode = PhaseCost::decode(Curve::constant(decode * 1e6));
            vec![(Phase::Prefill, prefill), (Phase::Decode, decode)]
        };
        let phases = speeds.iter().map(|speed| speed.map(phases)).collect();
        let work = Work { prompt, output, steps: 0, exit: 1.0, scale: 1.0 };
        let node = self.node(source, 1.0, ModelShape::Autoregressive, phases, work);
        self.system.nodes[node].prompt = Some(Distribution::constant(f64::from(prompt)));
        self.system.nodes[node].output = Some(Distribution::constant(f64::from(output)));
        node
    }

    fn node(
        &mut self,
        source: SourceId,
        probability: f64,
        shape: ModelShape,
        phases: Vec<Option<Vec<(Phase, PhaseCost)>>>,
        expected: Work,
    ) -> NodeId {
        let id = NodeId::new(self.system.nodes.len());
        let model = self.system.models.push(Model {
            name: format!("m{id}"),
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
            role: onbeat_core::system::Role::Network,
        });
        let costs: IdVec<ProcessorId, Option<Cost>> =
            phases.into_iter().map(|phases| phases.map(|phases| Cost { figure: 1, ..Cost::of(phases) })).collect();
        let total = |p: ProcessorId| costs[p].as_ref().map(|cost| cost.total_ns(expected));
        let fastest = costs
            .ids()
            .filter(|&p| total(p).is_some())
            .min_by(|&a, &b| total(a).partial_cmp(&total(b)).unwrap())
            .unwrap();
        let best = Nanos::from_ns_f64(total(fastest).unwrap());
        let range = &mut self.system.sources[source].nodes;
        let before = if range.start == range.end { Vec::new() } else { vec![NodeId(range.end - 1)] };
        range.end += 1;
        for &before in &before {
            self.system.nodes[before].after.push(Edge { to: id, probability, fan_out: None, per_tokens: None });
        }
        let certain = before.iter().all(|_| probability == 1.0);
        if certain {
            self.system.sources[source].shortest += best;
        }
        self.system.nodes.push(Node {
            name: format!("n{id}"),
            source,
            model: ModelId::new(model.index()),
            costs,
            fastest,
            best,
            tail: Nanos::ZERO,
            tail_together: None,
            to_first_token: None,
            attention: None,
            steps: 0,
            prompt: None,
            output: None,
            expected,
            output_max: expected.output,
            output_bytes: 0.0,
            draft: None,
            before,
            after: Vec::new(),
            variants: Vec::new(),
            quality: None,
            tool: None,
            adapter: None,
            exits: onbeat_core::exits::Exits::default(),
            in_content: Vec::new(),
        })
    }
}
