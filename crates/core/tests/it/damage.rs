//! Records that were damaged, or edited by hand: whatever does not fit together is named, and nothing panics later.

use onbeat_core::cost::{Cost, Phase, PhaseCost};
use onbeat_core::event::{Event, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::record::{Header, Record};
use onbeat_core::system::{Division, System};
use onbeat_core::units::{Bytes, Nanos};

/// A network on one and on two units of an accelerator, and a language model whose cache may lie in slower memory, whose attention can be
/// divided, and for which a small one drafts.
pub(crate) const SCENARIO: &str = r#"
    name = "damage"
    duration_s = 1
    [platform]
    name = "p"
    [platform.memory]
    bandwidth_gbps = 10
    swap_gbps = 1
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    units = 2
    [[platform.processor]]
    name = "gpu"
    kind = "gpu"
    [model.net]
    [model.large]
    shape = "autoregressive"
    kv_kb_per_token = 100
    kv_offload = { layers = 4 }
    attention = { points = 1 }
    [model.small]
    shape = "autoregressive"
    [[cost]]
    model = "net"
    processor = "npu"
    latency_ms = 3
    [[cost]]
    model = "net"
    processor = "npu"
    units = 1
    latency_ms = 5
    [[cost]]
    model = "large"
    processor = "gpu"
    prefill_ms = [[100, 10]]
    decode_ms = [[0, 50]]
    verify_factor = [[1, 1.0], [16, 1.0]]
    [[cost]]
    model = "small"
    processor = "gpu"
    prefill_ms = [[100, 2]]
    decode_ms = [[0, 5]]
    [[stream]]
    name = "frames"
    model = "net"
    period_ms = 50
    [[session]]
    name = "chat"
    chain = "chat"
    arrival = { process = "periodic", period_s = 1 }
    prompt = 100
    output = 5
    [chain.chat]
    stage = [{ name = "answer", model = "large", draft = { model = "small", tokens = 4, acceptance = 0.5 } }]
"#;

const NPU: ProcessorId = ProcessorId(0);
const GPU: ProcessorId = ProcessorId(1);

fn net(system: &mut System) -> &mut Cost {
    system.nodes.iter_mut().next().and_then(|node| node.costs[NPU].as_mut()).expect("the first stage runs on the NPU")
}

fn answer(system: &mut System) -> &mut onbeat_core::system::Node {
    system.nodes.iter_mut().last().expect("there are stages")
}

fn drop_last(phases: &mut Vec<(Phase, PhaseCost)>) {
    phases.pop();
}

type Damage = fn(&mut System);

#[test]
fn a_system_that_does_not_fit_together_is_refused() {
    let good = System::from_toml(SCENARIO).unwrap_or_else(|errors| panic!("{errors}"));
    good.validate().expect("it is sound");
    let damages: &[(&str, Damage)] = &[
        ("what attention can read", |s| answer(s).attention.as_mut().unwrap().bandwidth = [None].into_iter().collect()),
        ("what attention can read", |s| answer(s).attention.as_mut().unwrap().least = [1.0].into_iter().collect()),
        ("draft model's costs", |s| answer(s).draft.as_mut().unwrap().costs = [None].into_iter().collect()),
        ("phases", |s| drop_last(&mut answer(s).draft.as_mut().unwrap().costs[GPU].as_mut().unwrap().phases)),
        ("phases", |s| drop_last(&mut answer(s).costs[GPU].as_mut().unwrap().far.as_mut().unwrap().cost.phases)),
        ("phases", |s| drop_last(&mut net(s).widths.narrower[0].phases)),
        ("phases", |s| net(s).widths.narrower[0].phases[0].0 = Phase::Steps),
        ("phases", |s| net(s).phases[0].1 = answer(s).costs[GPU].as_ref().unwrap().phases[0].1.clone()),
        ("figure", |s| net(s).widths.narrower[0].figure = 1000),
        ("figure", |s| answer(s).draft.as_mut().unwrap().costs[GPU].as_mut().unwrap().figure = 1000),
        ("fewer than two units", |s| {
            s.platform.processors[NPU].division = Some(Division { units: 1, repartition: Nanos::ZERO });
        }),
        ("units that its processor has not got", |s| s.platform.processors[NPU].division = None),
        ("units that its processor has not got", |s| net(s).widths.narrower[0].units = 2),
    ];
    for (problem, damage) in damages {
        let mut system = good.clone();
        damage(&mut system);
        let found = system.validate().expect_err(problem);
        assert!(found.contains(problem), "{found}: {problem}");
    }
}

#[test]
fn an_event_that_refers_to_what_there_is_not_is_refused() {
    let system = System::from_toml(SCENARIO).unwrap_or_else(|errors| panic!("{errors}"));
    let start = |processor, units| What::Start {
        run: 0,
        stage: 0,
        processor,
        phase: Phase::Forward,
        setup: Nanos::ZERO,
        over: ProcessorSet::EMPTY,
        units,
    };
    let read = |what: What| {
        let mut text = serde_json::to_vec(&Header::new(&system, "simulator", "fifo", 1)).unwrap();
        text.push(b'\n');
        text.extend(serde_json::to_vec(&Event { at: Nanos::ZERO, what }).unwrap());
        Record::read(text.as_slice()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(read(start(NPU, 2)), Ok(()));
    assert_eq!(read(start(GPU, 0)), Ok(()));
    let nowhere = ProcessorId(7);
    for what in [
        start(NPU, 3),
        start(GPU, 1),
        What::CopyCache { stage: 0, to: nowhere, moved: Bytes::ZERO, took: Nanos::ZERO },
        What::Failed { run: 0, processor: nowhere },
        What::Lost { processor: nowhere },
    ] {
        let error = read(what).expect_err("it refers to what there is not");
        assert!(error.starts_with("line 2: "), "{error}");
    }
}
