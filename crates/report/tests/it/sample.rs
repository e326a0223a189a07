//! A small scenario with made-up runs: events and statistics without a simulator. The figures mean nothing.

use std::collections::BTreeMap;

use onbeat_core::cost::{Cost, Phase, PhaseCost, Work};
use onbeat_core::curve::{Below, Curve};
use onbeat_core::event::{DropCause, Event, StopReason, What};
use onbeat_core::id::{Id, IdVec, NodeId, ProcessorId, SourceId};
use onbeat_core::metric::{Metric, Values};
use onbeat_core::spec::{DropRule, ModelShape, Overflow, Preemption, ProcessorKind, ProvenanceKind};
use onbeat_core::summary::{ProcessorSummary, SourceSummary, Summary};
use onbeat_core::system::{Arrival, Figure, Link, Model, Node, Platform, Processor, Source, System, Variation};
use onbeat_core::units::{Bytes, Nanos};
use onbeat_report::{Bound, Comparison, Excerpt, PolicyRow, Reason, Report, Statistic};

/// A stage of the sample: name, model, latency on each processor [ms].
type Stage<'a> = (&'a str, &'a str, [Option<f64>; 3]);

fn cost(ms: f64, talks: bool) -> Cost {
    let latency_ns = ms * 1e6;
    let always = || Curve::new(vec![(1.0, latency_ns)], Below::Hold);
    let whole = || PhaseCost::Fixed { latency_ns, quantiles: None, boundaries: vec![1.0], bytes: 1e6, energy_mj: None };
    // The report only asks which phases a stage has, and for its latency.
    let phases = if talks {
        vec![(Phase::Prefill, PhaseCost::prefill(always())), (Phase::Decode, PhaseCost::decode(always()))]
    } else {
        vec![(Phase::Forward, whole())]
    };
    Cost::of(phases)
}

fn processor(name: &str, kind: ProcessorKind, slots: u32) -> Processor {
    Processor {
        name: name.to_owned(),
        kind,
        group: 0,
        slots,
        division: None,
        preemption: Preemption::Segment,
        switch_cost: Nanos::from_ms(0.5),
        preempt_cost: Nanos::ZERO,
        idle_w: 0.1,
        active_w: Some(2.0),
        bandwidth: None,
        device: None,
        power: None,
    }
}

/// Streams and a session on three processors. `streams` is the number of further streams.
pub(crate) fn system(streams: usize) -> System {
    let mut system = System {
        scenario: "video-call".to_owned(),
        title: "Video call".to_owned(),
        description: "A made-up call for the tests of the report: a camera, a microphone and an assistant.".to_owned(),
        platform: Platform {
            name: "test-chip".to_owned(),
            title: "Test chip".to_owned(),
            processors: [
                processor("cpu", ProcessorKind::Cpu, 2),
                processor("gpu", ProcessorKind::Gpu, 1),
                processor("npu", ProcessorKind::Npu, 1),
            ]
            .into_iter()
            .collect(),
            capacity: Some(Bytes(16_000_000_000)),
            bandwidth: Some(68.0),
            links: (0..3).map(|_| (0..3).map(|_| Link::default()).collect()).collect(),
            power_cap: None,
            kv_block: None,
            swap: None,
        },
        models: IdVec::new(),
        nodes: IdVec::new(),
        sources: IdVec::new(),
        contents: Vec::new(),
        duration: Nanos::from_secs(2.0),
        warm_up: Nanos::from_ms(200.0),
        variation: Variation::default(),
        preloaded: true,
        contention: true,
        figures: vec![
            Figure {
                what: "selfie-segmentation on npu: latency".to_owned(),
                kind: ProvenanceKind::Published,
                source: "made-up table, row 3".to_owned(),
            },
            Figure {
                what: "llama on gpu: decode".to_owned(),
                kind: ProvenanceKind::Analytical,
                source: "weights / bandwidth; 1.8 GB, 68 GB/s".to_owned(),
            },
        ],
        assumptions: vec!["The operating system takes no time.".to_owned(), "Models stay in memory.".to_owned()],
        warnings: vec!["The decode figures of `llama` on gpu are extrapolated past 2048 tokens".to_owned()],
    };
    source(
        &mut system,
        "camera",
        false,
        33.333,
        Some(33.333),
        &[
            ("segment", "selfie-segmentation", [Some(22.0), Some(9.0), Some(6.0)]),
            ("face", "face-mesh", [Some(8.0), Some(4.0), None]),
        ],
    );
    source(&mut system, "microphone", false, 10.0, Some(10.0), &[("denoise", "dtln", [Some(2.0), None, Some(1.0)])]);
    source(
        &mut system,
        "assistant",
        true,
        700.0,
        Some(900.0),
        &[
            ("listen", "whisper-base", [Some(90.0), Some(35.0), Some(30.0)]),
            ("answer", "llama-3.2-1b", [None, Some(220.0), Some(160.0)]),
        ],
    );
    for i in 0..streams {
        let name = format!("incoming-video-{}", i + 1);
        source(
            &mut system,
            &name,
            false,
            66.0,
            Some(66.0),
            &[("upscale", "quicksrnet-large", [None, Some(11.0), Some(7.0)])],
        );
    }
    system.validate().expect("the sample is consistent");
    system
}

fn source(
    system: &mut System,
    name: &str,
    session: bool,
    period_ms: f64,
    deadline_ms: Option<f64>,
    stages: &[Stage<'_>],
) {
    let id = SourceId::new(system.sources.len());
    let first = system.nodes.len() as u32;
    for (i, (stage, model_name, ms)) in stages.iter().enumerate() {
        let talks = model_name.starts_with("llama");
        let known = system.models.enumerate().find(|(_, m)| m.name == *model_name).map(|(id, _)| id);
        let model = known.unwrap_or_else(|| system.models.push(model(model_name, talks)));
        let before = if i > 0 { vec![NodeId(first + i as u32 - 1)] } else { Vec::new() };
        let after = if i + 1 < stages.len() {
            vec![onbeat_core::system::Edge {
                to: NodeId(first + i as u32 + 1),
                probability: 1.0,
                fan_out: None,
                per_tokens: None,
            }]
        } else {
            Vec::new()
        };
        let fastest = (0..3)
            .filter(|&p| ms[p].is_some())
            .min_by(|&a, &b| ms[a].partial_cmp(&ms[b]).expect("no NaN"))
            .expect("runs somewhere");
        system.nodes.push(Node {
            tool: None,
            adapter: None,
            exits: onbeat_core::exits::Exits::default(),
            name: (*stage).to_owned(),
            source: id,
            model,
            costs: ms.iter().map(|ms| ms.map(|ms| cost(ms, talks))).collect(),
            fastest: ProcessorId::new(fastest),
            best: Nanos::from_ms(ms[fastest].expect("it runs there")),
            tail: Nanos::ZERO,
            tail_together: None,
            to_first_token: None,
            attention: None,
            steps: 0,
            prompt: None,
            output: None,
            expected: Work { prompt: 1, output: 2, steps: 0, exit: 1.0, scale: 1.0 },
            output_max: 0,
            output_bytes: 0.0,
            draft: None,
            before,
            after,
            variants: Vec::new(),
            quality: None,
            in_content: Vec::new(),
        });
    }
    system.sources.push(Source {
        name: name.to_owned(),
        session,
        arrival: Arrival::Periodic { first: Nanos::ZERO, period: Nanos::from_ms(period_ms) },
        jitter: None,
        deadline: deadline_ms.map(Nanos::from_ms),
        ttft: session.then(|| Nanos::from_ms(400.0)),
        tpot: session.then(|| Nanos::from_ms(60.0)),
        priority: 0,
        drop: DropRule::Late,
        queue: None,
        overflow: Overflow::Oldest,
        active: Vec::new(),
        count: None,
        nodes: first..system.nodes.len() as u32,
        shortest: Nanos::ZERO,
        text: onbeat_core::system::Text::default(),
        best_effort: false,
        actions: None,
        content: None,
    });
}

fn model(name: &str, talks: bool) -> Model {
    Model {
        name: name.to_owned(),
        title: format!("Model {name}"),
        task: "a task".to_owned(),
        shape: if talks { ModelShape::Autoregressive } else { ModelShape::OneShot },
        weights: Bytes::from_mb(10.0),
        kv_per_token: Bytes::ZERO,
        state: Bytes::ZERO,
        quality: None,
        path: None,
        split: None,
        offload: None,
        weights_of: None,
        role: onbeat_core::system::Role::Network,
    }
}

/// A run made by serving every stage in order of release on the processor that is free first, `slow` times slower than alone.
pub(crate) fn events(system: &System, slow: f64) -> Vec<Event> {
    let mut events = Vec::new();
    let mut releases: Vec<(u64, usize)> = Vec::new();
    for (i, source) in system.sources.iter().enumerate() {
        let period = source.period().expect("the sample is periodic").0;
        releases.extend((0..).map(|n| n * period).take_while(|&at| at < system.duration.0).map(|at| (at, i)));
    }
    releases.sort_unstable();
    let lanes: Vec<usize> =
        system.platform.processors.enumerate().flat_map(|(p, d)| (0..d.slots).map(move |_| p.index())).collect();
    let mut free = vec![0_u64; lanes.len()];
    let (mut run, mut stage) = (0, 0);
    for (job, &(release, i)) in releases.iter().enumerate() {
        let (job, source) = (job as u64, &system.sources.as_slice()[i]);
        let deadline = source.deadline.map(|deadline| Nanos(release + deadline.0));
        let mut push = |at: u64, what: What| events.push(Event { at: Nanos(at), what });
        push(
            release,
            What::Release { job, source: SourceId::new(i), nominal: Nanos(release), deadline, content: None },
        );
        let mut ready = release;
        let mut dropped = false;
        for node in system.nodes_of(SourceId::new(i)) {
            let n = &system.nodes[node];
            let setup = 300_000;
            let ends = |lane: usize| {
                let cost = n.costs[ProcessorId::new(lanes[lane])].as_ref()?;
                let (kind, first) = &cost.phases[0];
                let latency_ns = first.latency_ns(n.expected, 0.0, n.expected.units(*kind));
                let start = free[lane].max(ready);
                Some((start + setup + (latency_ns * slow) as u64, start, lane))
            };
            let (end, start, lane) = (0..lanes.len()).filter_map(ends).min().expect("every stage runs somewhere");
            if deadline.is_some_and(|deadline| start > deadline.0) {
                push(start, What::Drop { job, cause: DropCause::Late });
                dropped = true;
                break;
            }
            let processor = ProcessorId::new(lanes[lane]);
            let talks = n.costs[processor].as_ref().is_some_and(|cost| cost.phases.len() > 1);
            let phase = if talks { Phase::Prefill } else { Phase::Forward };
            push(ready, What::Ready { stage, job, node, prompt: u32::from(talks) * 64, output: u32::from(talks) * 20 });
            push(start, What::start(run, stage, processor, phase, Nanos(setup)));
            push(start, What::Bus { traffic: 20.0 + 3.0 * lane as f64, speed: 0.9 });
            if talks {
                push(end - (end - start) / 2, What::FirstToken { stage, job });
            }
            let stop = What::Stop {
                run,
                stage,
                processor,
                why: StopReason::Finished,
                alone: Nanos(end - start),
                bytes: Bytes(1_000_000),
                energy_mj: None,
                tokens: u32::from(talks) * 20,
            };
            push(end, stop);
            push(end, What::StageDone { stage, job });
            free[lane] = end;
            ready = end;
            run += 1;
            stage += 1;
        }
        if !dropped {
            push(ready, What::JobDone { job });
        }
    }
    // Serving job by job wrote the events job by job; a record has them in order of time. The order of equal times is kept.
    events.sort_by_key(|event| event.at);
    let end = system.duration.max(events.last().map_or(Nanos::ZERO, |event| event.at));
    events.push(Event { at: Nanos::ZERO, what: What::Memory { used: Bytes(1_200_000_000) } });
    events.sort_by_key(|event| event.at);
    events.push(Event { at: end, what: What::End });
    events
}

/// Statistics of a made-up run: `rates` are the violation rates of the sources (padded with the last), `seed` shakes all of them a little.
pub(crate) fn summary(system: &System, policy: &str, seed: u64, rates: &[f64]) -> Summary {
    let shake = 1.0 + 0.06 * ((seed * 7919 + policy.len() as u64 * 31) % 11) as f64 / 10.0 - 0.03;
    let rate = |i: usize| (rates.get(i).or(rates.last()).copied().unwrap_or(0.0) * shake).min(1.0);
    let sources: Vec<SourceSummary> =
        system.sources.iter().enumerate().map(|(i, s)| source_summary(s, rate(i), shake)).collect();
    let mean_rate = (0..sources.len()).map(rate).sum::<f64>() / sources.len() as f64;
    let jobs: f64 = sources.iter().map(|s| s.values[&Metric::Jobs]).sum();
    let violations: f64 = sources.iter().map(|s| s.values[&Metric::Jobs] * s.values[&Metric::ViolationRate]).sum();
    let busy = [0.35, 0.62, 0.88].map(|busy: f64| (busy * shake).min(1.0));
    let bins = 60;
    Summary {
        scenario: system.scenario.clone(),
        platform: system.platform.name.clone(),
        policy: policy.to_owned(),
        seed,
        measured_s: 1.8,
        run: Values::from([
            (Metric::Jobs, jobs),
            (Metric::ViolationRate, violations / jobs),
            (Metric::MeanViolationRate, mean_rate),
            (Metric::ResponseMean, 12.0 * shake * (1.0 + mean_rate)),
            (Metric::TtftP95, 310.0 * shake * (1.0 + 3.0 * mean_rate)),
            (Metric::TpotMean, 41.0 * shake),
            (Metric::SloAttainment, 1.0 - rate(2)),
            (Metric::AveragePower, 7.4 * shake),
            (Metric::Energy, 13.3 * shake),
        ]),
        sources,
        processors: ["cpu", "gpu", "npu"]
            .iter()
            .zip(busy)
            .map(|(name, busy)| ProcessorSummary {
                name: (*name).to_owned(),
                values: Values::from([(Metric::Utilisation, busy)]),
                utilisation: (0..bins).map(|bin| busy * (0.7 + 0.3 * (f64::from(bin) * 0.7).sin().abs())).collect(),
                busy_by_model: shares(if *name == "cpu" { busy * 3600.0 } else { busy * 1800.0 }),
                time_by_point: Vec::new(),
                speed: Vec::new(),
                celsius: Vec::new(),
            })
            .collect(),
        bus_traffic: (0..bins).map(|bin| 30.0 + 25.0 * (f64::from(bin) * 0.4).sin()).collect(),
        provenance: vec![(ProvenanceKind::Published, 0.88), (ProvenanceKind::Analytical, 0.12)],
    }
}

fn shares(busy_ms: f64) -> Vec<(String, f64)> {
    [("selfie-segmentation", 0.5), ("llama-3.2-1b", 0.35), ("dtln", 0.15)]
        .map(|(name, share)| (name.to_owned(), busy_ms * share))
        .to_vec()
}

fn source_summary(source: &Source, rate: f64, shake: f64) -> SourceSummary {
    let deadline = source.deadline.map(Nanos::as_ms);
    let jobs = (1.8e9 / source.period().expect("the sample is periodic").as_f64()).round();
    let scale = deadline.unwrap_or(30.0) * shake;
    let points = 80;
    let ecdf = |from: f64, spread: f64| -> Vec<(f64, f64)> {
        (1..=points)
            .map(|i| f64::from(i) / f64::from(points))
            .map(|f| (from + spread * (f / (1.02 - f)).powf(0.6), f))
            .collect()
    };
    let mut values = Values::from([
        (Metric::Jobs, jobs),
        (Metric::ViolationRate, rate),
        (Metric::DropRate, rate * 0.6),
        (Metric::ResponseP50, scale * 0.4),
        (Metric::ResponseP95, scale * (0.7 + rate)),
        (Metric::ResponseP99, scale * (0.9 + 2.0 * rate)),
        (Metric::ResponseMax, scale * (1.0 + 3.0 * rate)),
    ]);
    if source.session {
        values.extend([
            (Metric::TtftP95, 310.0 * shake),
            (Metric::TpotMean, 41.0 * shake),
            (Metric::SloAttainment, 1.0 - rate),
        ]);
    }
    SourceSummary {
        name: source.name.clone(),
        session: source.session,
        deadline_ms: deadline,
        ttft_goal_ms: source.ttft.map(Nanos::as_ms),
        tpot_goal_ms: source.tpot.map(Nanos::as_ms),
        values,
        variants: Vec::new(),
        response_ecdf: ecdf(scale * 0.2, scale * (0.12 + rate)),
        ttft_ecdf: if source.session { ecdf(120.0, 60.0 * shake * (1.0 + rate)) } else { Vec::new() },
    }
}

/// Mean and interval; 2 instead of Student's quantile is good enough for samples.
pub(crate) fn statistic(samples: &[f64]) -> Statistic {
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half_width = (samples.len() > 1).then(|| 2.0 * (variance / n).sqrt());
    Statistic { mean, half_width, n: samples.len() as u32 }
}

/// Policies with the violation rates of their sources, over so many seeds.
pub(crate) fn comparison(system: System, policies: &[(&str, &[f64])], seeds: u64) -> Comparison {
    let rows = policies.iter().enumerate().map(|(i, (policy, rates))| {
        let runs = (0..seeds).map(|seed| summary(&system, policy, seed, rates)).collect();
        let mut row = PolicyRow::new(*policy, runs, statistic);
        let events = events(&system, 1.0 + 0.25 * i as f64);
        row.excerpt = Some(Excerpt { seed: 0, events, from: Nanos::ZERO, to: system.duration });
        row
    });
    let rows = rows.collect();
    let mut comparison = Comparison::new(system, rows);
    comparison.judge(statistic);
    comparison
}

/// The usual sample: ten policies, five seeds, a bound.
pub(crate) fn usual() -> Report {
    usual_with(system(2))
}

/// Ten policies on a system.
pub(crate) fn usual_with(system: System) -> Report {
    let mut comparison = comparison(system, &TEN, 5);
    comparison.bound = bound();
    comparison.rows[0].response_bounds_ms = vec![Some(41.0), Some(9.5), None, None, None];
    Report {
        onbeat: "0.1.0".to_owned(),
        command: Some("onbeat compare video-call --platform test-chip --seeds 5".to_owned()),
        comparisons: vec![comparison],
    }
}

/// A bound with a reason.
pub(crate) fn bound() -> Bound {
    let sources = vec![
        Values::from([(Metric::ViolationRate, 0.0), (Metric::ResponseP99, 6.5)]),
        Values::from([(Metric::ViolationRate, 0.0), (Metric::ResponseP99, 1.0)]),
        Values::from([(Metric::ViolationRate, 0.01)]),
    ];
    let reason = Reason::TooSlow { source: "assistant".to_owned(), shortest_ms: 950.0, deadline_ms: 900.0 };
    Bound {
        run: BTreeMap::from([(Metric::MeanViolationRate, 0.002), (Metric::ViolationRate, 0.001)]),
        sources,
        reasons: vec![reason],
    }
}

/// Ten policies with violation rates per source.
pub(crate) const TEN: [(&str, &[f64]); 10] = [
    ("fcfs", &[0.31, 0.12, 0.55, 0.24]),
    ("edf", &[0.02, 0.004, 0.11, 0.021]),
    ("llf", &[0.004, 0.0, 0.041, 0.003]),
    ("static", &[0.22, 0.0, 0.30, 0.62]),
    ("round-robin", &[0.4, 0.2, 0.61, 0.33]),
    ("eft", &[0.012, 0.002, 0.09, 0.011]),
    ("fixed-priority", &[0.006, 0.0, 0.23, 0.004]),
    ("sjf", &[0.05, 0.0, 0.92, 0.03]),
    ("latency-greedy", &[0.13, 0.06, 0.21, 0.17]),
    ("p-edf", &[0.06, 0.0, 0.18, 0.09]),
];
