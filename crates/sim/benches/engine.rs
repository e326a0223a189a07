//! Speed of the engine. `cargo bench -p onbeat-sim`.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onbeat_core::event::NoSink;
use onbeat_core::system::System;
use onbeat_sim::{Engine, simulate};

#[expect(dead_code, reason = "the benchmarks use some of the workloads")]
#[path = "../examples/workloads/scenarios.rs"]
mod scenarios;

fn bench(c: &mut Criterion) {
    let workloads = [
        ("3 tasks on 2 processors, edf, 100 s", scenarios::edf(100.0), "edf"),
        ("1000 requests", scenarios::requests(), "fcfs"),
    ];
    for (name, toml, policy) in workloads {
        let system = System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"));
        let made = onbeat_policy::make(policy, &system).unwrap_or_else(|error| panic!("{error}"));
        let run = || simulate(&system, made.clone(), policy, 1, NoSink).unwrap_or_else(|error| panic!("{error}")).0;
        let mut group = c.benchmark_group("engine");
        group.throughput(Throughput::Elements(run().jobs));
        group.bench_function(name, |b| b.iter(run));
        group.finish();
    }
    let system = System::from_toml(&scenarios::edf(100.0)).unwrap_or_else(|errors| panic!("{errors}"));
    let made = onbeat_policy::make("edf", &system).unwrap_or_else(|error| panic!("{error}"));
    let mut engine = Engine::new(&system, made, "edf", 1, NoSink);
    for _ in 0..1000 {
        engine.step().unwrap_or_else(|error| panic!("{error}"));
    }
    c.bench_function("fork of a running engine", |b| b.iter(|| engine.clone()));
}

criterion_group!(benches, bench);
criterion_main!(benches);
