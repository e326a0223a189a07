//! Speed of the engine. `cargo bench -p onbeat-sim`.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onbeat_core::event::NoSink;
use onbeat_core::system::System;
use onbeat_sim::{Engine, simulate};

const EDF: &str = r#"
    name = "w1"
    duration_s = 100
    [platform]
    name = "p"
    [platform.memory]
    [[platform.processor]]
    name = "core"
    kind = "cpu"
    count = 2
    preemption = "anytime"
    [model.a]
    [model.b]
    [model.c]
    [[cost]]
    model = "a"
    processor = "core"
    latency_ms = 4
    [[cost]]
    model = "b"
    processor = "core"
    latency_ms = 6
    [[cost]]
    model = "c"
    processor = "core"
    latency_ms = 14
    [[stream]]
    name = "a"
    model = "a"
    period_ms = 10
    [[stream]]
    name = "b"
    model = "b"
    period_ms = 15
    [[stream]]
    name = "c"
    model = "c"
    period_ms = 35
"#;

const REQUESTS: &str = r#"
    name = "w2"
    duration_s = 900
    [platform]
    name = "p"
    [platform.memory]
    [[platform.processor]]
    name = "gpu"
    kind = "gpu"
    [model.llm]
    shape = "autoregressive"
    [[cost]]
    model = "llm"
    processor = "gpu"
    prefill_ms = [[512, 60], [4096, 600]]
    decode_ms = [[0, 12], [4096, 16]]
    batch_factor = [[1, 1.0], [32, 1.6]]
    [[session]]
    name = "chat"
    model = "llm"
    arrival = { process = "poisson", rate_per_s = 2 }
    prompt = 512
    output = 128
    count = 1000
"#;

fn bench(c: &mut Criterion) {
    for (name, toml, policy) in
        [("3 tasks on 2 processors, edf, 100 s", EDF, "edf"), ("1000 requests", REQUESTS, "fcfs")]
    {
        let system = System::from_toml(toml).unwrap_or_else(|errors| panic!("{errors}"));
        let made = onbeat_policy::make(policy, &system).unwrap_or_else(|error| panic!("{error}"));
        let run = || simulate(&system, made.clone(), policy, 1, NoSink).unwrap_or_else(|error| panic!("{error}")).0;
        let mut group = c.benchmark_group("engine");
        group.throughput(Throughput::Elements(run().jobs));
        group.bench_function(name, |b| b.iter(run));
        group.finish();
    }
    let system = System::from_toml(EDF).unwrap_or_else(|errors| panic!("{errors}"));
    let made = onbeat_policy::make("edf", &system).unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::new(&system, made, "edf", 1, NoSink);
    for _ in 0..1000 {
        engine.step().unwrap_or_else(|error| panic!("{error}"));
    }
    c.bench_function("fork of a running engine", |b| b.iter(|| engine.clone()));
}

criterion_group!(benches, bench);
criterion_main!(benches);
