//! Several processors on one stage, combined with operating points, heat and a cap, with caches that grow, and with adapters.

use std::collections::BTreeMap;

use onbeat_core::cost::Phase;
use onbeat_core::event::{Event, StopReason, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use proptest::prelude::*;

use crate::joint::DIVISIBLE;
use crate::support::{done_at, language_cost, processor, request, run, run_script, system, times};

const GPU: ProcessorId = ProcessorId(0);
const NPU: ProcessorId = ProcessorId(1);

/// One frame, divided at ten points of 50 µs: 6 ms on a GPU of 4 W, 3 ms on an NPU of 2 W that can go at half its clock, 0.5 W.
fn frame(npu: &str, cost: &str) -> String {
    let gpu = processor("gpu", "active_w = 4\nidle_w = 1");
    let two_speeds = processor(
        "npu",
        r#"idle_w = 0.25
        operating_point = [
            { name = "full", speed = 1, volts = 5, active_w = 2 },
            { name = "low", speed = 0.5, volts = 3, active_w = 0.5 },
        ]"#,
    );
    format!(
        r#"
        name = "together"
        duration_s = 0.1
        platform.name = "p"
        platform.memory.handover_us = 50
        {gpu}
        {two_speeds}
        {npu}
        [model.frame]
        split = {{ points = 10 }}
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 6
        {cost}
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 3
        {cost}
        [[stream]]
        name = "camera"
        model = "frame"
        period_ms = 1000
        "#
    )
}

/// Divides whatever is ready, and chooses the NPU's second point at a time [ms].
#[derive(Clone, Debug)]
struct SlowAt(f64);

impl Policy for SlowAt {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let at = Nanos::from_ms(self.0);
        if view.now() == at {
            actions.set_point(NPU, 1);
        } else if view.now() < at {
            actions.wake(at);
        }
        for &stage in view.ready() {
            actions.split(stage, NPU, ProcessorSet::of(GPU), None);
        }
    }
}

/// Divides, and leaves the points alone.
const NEVER: SlowAt = SlowAt(1000.0);

fn work_energy(events: &[Event]) -> f64 {
    let of = |event: &Event| if let What::Stop { energy_mj, .. } = event.what { energy_mj } else { None };
    events.iter().filter_map(of).sum()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5
}

#[test]
fn shares_are_solved_at_the_speeds_of_the_moment() {
    let system = system(&frame("governor = \"powersave\"", ""));
    let events = run(&system, Box::new(NEVER), 1);
    // 6 ms on both at half the NPU's clock: 3 ms, and half a millisecond of waiting. 4 and 0.5 W all the while.
    assert_eq!(done_at(&system, &events, "camera"), [3.5]);
    assert!(close(work_energy(&events), 4.5 * 3.5), "{}", work_energy(&events));
    // By the profile: 9 mJ for the whole on either, halves of it, and (3/5)² of that at 3 V.
    let system = crate::support::system(&frame("governor = \"powersave\"", "energy_mj = 9"));
    let events = run(&system, Box::new(NEVER), 1);
    assert!(close(work_energy(&events), 4.5 + 4.5 * 0.36), "{}", work_energy(&events));
}

#[test]
fn within_a_segment_all_wait_for_the_one_that_got_slower() {
    let at_once = system(&frame("", ""));
    let events = run(&at_once, Box::new(SlowAt(1.0)), 1);
    // 2.5 ms, of which 2 depend on the clock. At 1 ms, 1.5 are left, and take 0.2 + 0.8 · 2 times as long: until 3.7 ms.
    assert!(close(done_at(&at_once, &events, "camera")[0], 3.7));
    assert!(close(work_energy(&events), 6.0 * 1.0 + 4.5 * 2.7), "{}", work_energy(&events));
    let stop =
        events.iter().find_map(|e| if let What::Stop { alone, .. } = e.what { Some(alone.as_ms()) } else { None });
    assert!(close(stop.unwrap(), 3.7), "nobody shared a bus: {stop:?}");
}

#[test]
fn the_next_segment_is_divided_anew() {
    // Two segments of 1.25 ms. At 0.5 ms, 0.75 of the first are left and take 1.35; the second takes 3 / 2 + 0.25 ms.
    let halves = system(&frame("", "segments = 2"));
    let events = run(&halves, Box::new(SlowAt(0.5)), 1);
    assert!(close(done_at(&halves, &events, "camera")[0], 1.85 + 1.75), "{:?}", done_at(&halves, &events, "camera"));
    // Just between them: the second is divided at the speeds that it begins with.
    let events = run(&halves, Box::new(SlowAt(1.25)), 1);
    assert!(close(done_at(&halves, &events, "camera")[0], 1.25 + 1.75), "{:?}", done_at(&halves, &events, "camera"));
}

#[test]
fn what_is_bound_by_memory_does_not_depend_on_the_clock() {
    // On the NPU 1 of 3 ms are spent in reading 30 MB at 30 GB/s: 1 + 2 / 0.5 = 5 ms at half the clock; the GPU takes 5 as well.
    let toml = frame("governor = \"powersave\"\nbandwidth_gbps = 30", "bytes_mb = 30")
        .replace("platform.memory.handover_us = 50", "platform.memory = { handover_us = 50, bandwidth_gbps = 100 }")
        .replace("latency_ms = 6", "latency_ms = 5")
        .replace("active_w = 4", "active_w = 4\nbandwidth_gbps = 50");
    let system = system(&toml);
    let events = run(&system, Box::new(NEVER), 1);
    assert!(close(done_at(&system, &events, "camera")[0], 3.0), "{:?}", done_at(&system, &events, "camera"));
}

#[test]
fn the_cap_counts_every_processor_of_the_set() {
    // 4 + 2 W alone would be too much for 5 W; 4 + 0.5 are not, and the shares follow at once.
    let toml = frame("", "").replace("[model.frame]", "[platform.power]\ncap_w = 5\n[model.frame]");
    let system = system(&toml);
    let events = run(&system, Box::new(NEVER), 1);
    assert_eq!(done_at(&system, &events, "camera"), [3.5]);
    assert!(close(work_energy(&events), 4.5 * 3.5), "{}", work_energy(&events));
}

/// A large model on a CPU, a small one on a GPU that can go at half its clock; 1 MB of cache per token for the large one, a quarter for the small one.
fn chat(platform: &str, gpu: &str, session: &str) -> String {
    format!(
        r#"
        name = "draft"
        duration_s = 2
        platform.name = "p"
        platform.memory = {{ handover_us = 50, {platform} }}
        [[platform.processor]]
        name = "cpu"
        kind = "cpu"
        active_w = 10
        idle_w = 1
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        active_w = 4
        idle_w = 0.5
        {gpu}
        [model.large]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        [model.small]
        shape = "autoregressive"
        kv_kb_per_token = 250
        [[cost]]
        model = "large"
        processor = "cpu"
        prefill_ms = [[100, 0.001]]
        decode_ms = [[0, 50]]
        verify_factor = [[1, 1.0], [16, 1.0]]
        [[cost]]
        model = "small"
        processor = "gpu"
        prefill_ms = [[100, 0.001]]
        decode_ms = [[0, 5]]
        [[session]]
        name = "chat"
        chain = "chat"
        arrival = {{ process = "periodic", period_s = 100 }}
        prompt = 10
        output = 11
        [chain.chat]
        stage = [{{ name = "answer", model = "large", draft = {{ model = "small", tokens = 4, acceptance = 1 }} }}]
        {session}
        "#
    )
}

/// The CPU verifies what the GPU has drafted.
fn from_gpu(view: &View<'_>, actions: &mut Actions) {
    let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
    for &stage in view.ready() {
        if view.stage(stage).kind == Phase::Prefill || view.node(stage).draft.is_none() {
            actions.start(stage, cpu);
        } else {
            actions.speculate(stage, cpu, gpu, 4, None);
        }
    }
}

const HALF: &str = "governor = \"powersave\"\noperating_point = [{ name = \"full\", speed = 1 }, { name = \"half\", speed = 0.5, active_w = 2 }]";

#[test]
fn drafts_take_longer_at_a_lower_clock_and_each_draws_in_its_turn() {
    let (system, events) = run_script(&chat("", HALF, ""), from_gpu);
    // Two cycles of 4 × 10 + 50 + 0.1 ms.
    assert!((done_at(&system, &events, "chat")[0] - 180.2).abs() < 0.003);
    // Verifying: 10 W for 50 ms, and 1 W for 40.1; drafting: 2 W for 40 ms, 0.5 W for 50.1.
    let cycle = 10.0 * 50.0 + 1.0 * 40.1 + 2.0 * 40.0 + 0.5 * 50.1;
    assert!((work_energy(&events) - 2.0 * cycle).abs() < 0.1, "{}", work_energy(&events));
    // Where speeds are fixed it is the same rule, at 4 W for 20 ms.
    let (_, events) = run_script(&chat("", "", ""), from_gpu);
    let cycle = 10.0 * 50.0 + 1.0 * 20.1 + 4.0 * 20.0 + 0.5 * 50.1;
    assert!((work_energy(&events) - 2.0 * cycle).abs() < 0.1, "{}", work_energy(&events));
}

fn used(events: &[Event]) -> Vec<f64> {
    let used = |e: &Event| if let What::Memory { used } = e.what { Some(used.as_mb()) } else { None };
    events.iter().filter_map(used).collect()
}

#[test]
fn both_caches_grow_before_a_cycle_that_could_write_past_their_end() {
    let (system, events) = run_script(&chat("kv_block_tokens = 16", "", ""), from_gpu);
    assert!((done_at(&system, &events, "chat")[0] - 140.2).abs() < 0.003);
    // The prompt and a token: one block of 16 MB. With drafts 10 + 1 + 4 tokens: one block in both, 20 MB. The second cycle, from token 5
    // on, may write the 20th: two blocks in both.
    assert_eq!(used(&events), [16.0, 20.0, 40.0, 0.0]);
}

#[test]
fn a_cache_that_cannot_grow_ends_the_run_after_a_cycle() {
    // A neighbour's 20 MB leave no room for a second block until it ends.
    let other = request("other", "other", 0, 10, 11)
        + "[model.other]\nshape = \"autoregressive\"\nkv_kb_per_token = 1000\n"
        + &language_cost("other", "gpu", 0.001, 50.0, "");
    /// The neighbour holds its cache on the CPU's slots first; drafts go on where there is room.
    fn both(view: &View<'_>, actions: &mut Actions) {
        let (cpu, gpu) = (ProcessorId(0), ProcessorId(1));
        for &stage in view.ready() {
            if view.source(stage).name == "other" {
                if view.stage(stage).kind == Phase::Prefill && view.free_slots(gpu) > 0 {
                    actions.start(stage, gpu);
                }
            } else if view.stage(stage).kind == Phase::Prefill {
                actions.start(stage, cpu);
            } else if view.can_run(stage, cpu) && view.free_slots(gpu) > 0 {
                actions.speculate(stage, cpu, gpu, 4, None);
            }
        }
    }
    let toml = chat("kv_block_tokens = 16, capacity_gb = 0.04", "", &other).replacen(
        "period_s = 100 }",
        "period_s = 100, start_s = 0.01 }",
        1,
    );
    let (system, events) = run_script(&toml, both);
    // 16 MB of the neighbour's and 20 leave 4 of 40: the second cycle does not fit. The run ends after the first one, and its stage waits:
    // nobody evicts the neighbour's cache, which is older.
    let stops: Vec<(f64, StopReason)> = events
        .iter()
        .filter_map(|e| match e.what {
            What::Stop { why, tokens: 5, .. } => Some((e.at.as_ms(), why)),
            _ => None,
        })
        .collect();
    assert_eq!(stops.len(), 1, "{stops:?}");
    assert!((stops[0].0 - 80.1).abs() < 0.01 && stops[0].1 == StopReason::Rebatched, "{stops:?}");
    assert!(events.iter().any(|e| matches!(e.what, What::OutOfMemory { .. })));
    assert_eq!(crate::support::jobs_of(&system, &events, "chat")[0].1, None);
}

#[test]
fn a_divided_answer_grows_its_cache_on_the_stages_own_processor() {
    let toml = chat("kv_block_tokens = 16", "", "")
        .replace("[model.large]", "[model.large]\nsplit = { points = 1 }")
        .replace("draft = { model = \"small\", tokens = 4, acceptance = 1 }", "")
        .replace(
            "[[session]]",
            "[[cost]]\nmodel = \"large\"\nprocessor = \"gpu\"\nprefill_ms = [[100, 0.001]]\ndecode_ms = [[0, 50]]\n[[session]]",
        );
    fn split_all(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            actions.split(stage, ProcessorId(0), ProcessorSet::of(ProcessorId(1)), None);
        }
    }
    let (system, events) = run_script(&toml, split_all);
    // A prompt of next to nothing and one wait, a hand-over, then ten tokens in 25.05 ms each. The seventeenth token needs a second block.
    assert!((done_at(&system, &events, "chat")[0] - 250.6).abs() < 0.01, "{:?}", done_at(&system, &events, "chat"));
    assert_eq!(used(&events), [16.0, 32.0, 0.0]);
    let grown = times(&events, |what| matches!(what, What::Memory { used } if used.as_mb() == 32.0));
    assert!((grown[0].as_ms() - 0.1 - 6.0 * 25.05).abs() < 0.01, "{grown:?}");
}

#[test]
fn an_adapter_is_needed_on_every_processor_of_the_set() {
    let toml = frame("", "")
        .replace("duration_s = 0.1", "duration_s = 0.1\npreloaded = false")
        .replace("[[stream]]\n", "[adapter.tone]\nmodel = \"frame\"\nweights_mb = 30\nload_ms = 7\n[chain.a]\nstage = [{ name = \"a\", model = \"frame\", adapter = \"tone\" }]\n[[stream]]\n")
        .replace("name = \"camera\"\n        model = \"frame\"", "name = \"camera\"\n        chain = \"a\"");
    let system = system(&toml);
    let events = run(&system, Box::new(NEVER), 1);
    // Loaded side by side, then 2.5 ms.
    assert_eq!(done_at(&system, &events, "camera"), [9.5]);
    let name = |model: &onbeat_core::id::ModelId| system.models[*model].name.clone();
    let loads: Vec<String> = events
        .iter()
        .filter_map(|e| if let What::Load { model, .. } = &e.what { Some(name(model)) } else { None })
        .collect();
    assert_eq!(loads.iter().filter(|name| name.contains("tone")).count(), 2, "{loads:?}");
}

/// [`DIVISIBLE`] with points, heat and a cap, and a small model that drafts for the large one.
fn powered(governor: &str, cap: Option<f64>, transition_us: u32) -> System {
    let cap = cap.map_or(String::new(), |cap| format!("cap_w = {cap}"));
    let points = "operating_point = [{ name = \"full\", speed = 1, volts = 1.0 }, { name = \"mid\", speed = 0.8, active_w = 2 }, { name = \"low\", speed = 0.4, volts = 0.7 }]";
    let with = |name: &str, active: f64, more: &str| {
        format!(
            "name = \"{name}\"\n kind = \"{name}\"\n active_w = {active}\n idle_w = 0.2\n transition_us = {transition_us}\n {points}\n {more}"
        )
    };
    let heat = "thermal = { resistance_k_per_w = 12, capacitance_j_per_k = 0.05, throttle_c = 55, release_c = 50, step_ms = 20 }";
    let toml = DIVISIBLE
        .replace("name = \"cpu\"\n    kind = \"cpu\"", &with("cpu", 3.0, ""))
        .replace("name = \"gpu\"\n    kind = \"gpu\"", &with("gpu", 5.0, heat))
        .replace("name = \"npu\"\n    kind = \"npu\"", &with("npu", 4.0, ""))
        .replace("[model.frame]", &format!("[platform.power]\n governor = \"{governor}\"\n {cap}\n [model.frame]"))
        .replace("name = \"chat\"\n    model = \"llm\"", "name = \"chat\"\n    chain = \"chat\"")
        + r#"
        [chain.chat]
        stage = [{ name = "answer", model = "llm", draft = { model = "small", tokens = 3, acceptance = 0.8 } }]
        [model.small]
        shape = "autoregressive"
        weights_mb = 20
        "#
        + &language_cost("small", "npu", 4.0, 3.0, "energy_mj = 5")
        + &language_cost("small", "cpu", 10.0, 6.0, "");
    system(&toml.replace(
        "decode_ms = [[0, 20], [500, 22]]",
        "decode_ms = [[0, 20], [500, 22]]\n    verify_factor = [[1, 1.0], [8, 1.2]]",
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Energy is the integral of power, also where several processors draw for one stage: what runs and idling drew adds up to the
    /// readings at the end. Bytes are those of the work, however often it was divided anew.
    #[test]
    fn energy_is_the_integral_of_power(
        governor in prop::sample::select(vec!["policy", "performance", "powersave", "ondemand", "schedutil"]),
        cap in prop::option::of(3.0_f64..15.0),
        transition_us in 0_u32..3000,
        policy in prop::sample::select(vec!["hetero-split", "speculative"]),
        seed in 0_u64..100,
    ) {
        let system = powered(governor, cap, transition_us);
        let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), seed);
        prop_assert_eq!(&events, &run(&system, onbeat_policy::make(policy, &system).unwrap(), seed));
        let units = system.platform.processors.len();
        let (mut busy, mut since, mut point) = (vec![0_u32; units], vec![Nanos::ZERO; units], vec![0_u32; units]);
        let (mut idle_mj, mut work_mj, mut total, mut together) = (0.0, 0.0, vec![0.0; units], 0);
        let mut open: BTreeMap<u64, (u32, ProcessorSet)> = BTreeMap::new();
        let mut idle = |p: usize, at: Nanos, since: &mut Vec<Nanos>, point: &[u32]| {
            let model = system.platform.processors[ProcessorId(p as u32)].power.as_ref().unwrap();
            idle_mj += model.points[point[p] as usize].idle_w * (at - since[p]).as_ms();
            since[p] = at;
        };
        for event in &events {
            match event.what {
                What::Start { run, processor, over, .. } => {
                    together += usize::from(!over.is_empty());
                    let all = over.with(processor);
                    let members = open.entry(run).or_insert((0, all));
                    members.0 += 1;
                    if members.0 == 1 {
                        for q in all.iter().map(|q| q.0 as usize) {
                            if busy[q] == 0 { idle(q, event.at, &mut since, &point); }
                            busy[q] += 1;
                        }
                    }
                }
                What::Stop { run, energy_mj, .. } => {
                    work_mj += energy_mj.unwrap();
                    let members = open.get_mut(&run).unwrap();
                    members.0 -= 1;
                    if members.0 == 0 {
                        for q in open.remove(&run).unwrap().1.iter().map(|q| q.0 as usize) {
                            busy[q] -= 1;
                            since[q] = event.at;
                        }
                    }
                }
                What::Power { processor, point: next, energy_mj, .. } => {
                    let q = processor.0 as usize;
                    if busy[q] == 0 { idle(q, event.at, &mut since, &point); }
                    point[q] = next;
                    prop_assert!(energy_mj.unwrap() >= total[q]);
                    total[q] = energy_mj.unwrap();
                }
                _ => {}
            }
        }
        let sum: f64 = total.iter().sum();
        prop_assert!((sum - work_mj - idle_mj).abs() <= 1e-6 * sum, "{sum} mJ, of which {work_mj} and {idle_mj}");
        prop_assert!(sum > 0.0 && together < 1000);
    }
}

#[test]
fn policies_work_together_at_changing_speeds() {
    for policy in ["hetero-split", "speculative"] {
        let system = powered("ondemand", Some(8.0), 500);
        let joint = |seed: u64| {
            let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), seed);
            times(&events, |what| matches!(what, What::Start { over, .. } if !over.is_empty())).len()
        };
        let all: usize = (0..5).map(joint).sum();
        assert!(all > 5, "{policy}: {all}");
    }
}

/// A GPU of 50 GB/s and a CPU of 25 that has no profile of the model: 300 MB of weights, 1 MB of cache per token, steps of 10 ms.
fn reader(bus: u32, more: &str) -> String {
    format!(
        r#"
        name = "attention"
        duration_s = 2
        platform.name = "p"
        platform.memory = {{ handover_us = 50, bandwidth_gbps = {bus} }}
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        bandwidth_gbps = 50
        active_w = 10
        [[platform.processor]]
        name = "cpu"
        kind = "cpu"
        bandwidth_gbps = 25
        active_w = 6
        idle_w = 1
        [model.llm]
        shape = "autoregressive"
        weights_mb = 300
        kv_kb_per_token = 1000
        attention = {{ points = 4 }}
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[99, 100]]
        decode_ms = [[0, 10]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "periodic", period_s = 0.4 }}
        prompt = 99
        output = 11
        {more}
        "#
    )
}

#[test]
fn idle_processors_read_a_part_of_the_cache() {
    let system = system(&reader(100, "count = 1"));
    let events = run(&system, onbeat_policy::make("attention-offload", &system).unwrap(), 1);
    // Contexts of 100 to 109 tokens are 1045 MB: 20.9 ms on the GPU, two thirds of that with the CPU. Four points of 50 µs per step.
    let answer = 100.0 - 20.9 / 3.0 + 10.0 * 0.2;
    assert!(
        (done_at(&system, &events, "chat")[0] - 100.0 - answer).abs() < 1e-3,
        "{:?}",
        done_at(&system, &events, "chat")
    );
    let stop = events.iter().rev().find_map(|e| match e.what {
        What::Stop { bytes, energy_mj, .. } => Some((bytes.as_mb(), energy_mj.unwrap())),
        _ => None,
    });
    // All of the bytes. 10 W all the while; 6 W while the CPU reads, 1 W while it waits.
    let reads = 20.9 * 2.0 / 3.0;
    let energy = 10.0 * answer + 6.0 * reads + 1.0 * (answer - reads);
    let (bytes, drawn) = stop.unwrap();
    assert!((bytes - 4045.0).abs() < 1e-3 && (drawn - energy).abs() < 1e-3 * energy, "{bytes} {drawn} {energy}");
}

#[test]
fn what_the_bus_does_not_have_cannot_be_read() {
    // Together they would draw up to 75 GB/s of 50: slower than the GPU alone, which the policy does not see, as it knows nominal times.
    let system = system(&reader(50, "count = 1"));
    let divided = run(&system, onbeat_policy::make("attention-offload", &system).unwrap(), 1);
    let alone = run(&system, onbeat_policy::make("edf", &system).unwrap(), 1);
    assert_eq!(done_at(&system, &alone, "chat"), [200.0]);
    assert!(done_at(&system, &divided, "chat")[0] > 200.0, "{:?}", done_at(&system, &divided, "chat"));
}

#[test]
fn nobody_beats_the_bound_with_attention_divided() {
    let goals = "ttft_ms = 150\ntpot_ms = 9.8\ndeadline_ms = 220\ndrop = \"hopeless\"";
    let system = system(&reader(100, goals));
    let bound = onbeat_analysis::bound::lower_bound(&system);
    assert!(bound.sources.iter().all(|source| source.impossible.is_none()), "{:?}", bound.binding);
    let mut joint = 0;
    for policy in onbeat_policy::all() {
        let events = run(&system, onbeat_policy::make(policy.name, &system).unwrap(), 1);
        joint += times(&events, |what| matches!(what, What::Start { over, .. } if !over.is_empty())).len();
        for (release, done) in crate::support::jobs_of(&system, &events, "chat") {
            let shortest = system.sources.iter().next().unwrap().shortest.as_ms();
            assert!(done.is_none_or(|done| done - release >= shortest - 1e-6), "{}", policy.name);
        }
    }
    assert_eq!(joint, 5, "one answer of each request, under one policy");
}

#[test]
fn attention_that_cannot_be_divided_is_an_error() {
    let error = |toml: &str| {
        fn both(view: &View<'_>, actions: &mut Actions) {
            for &stage in view.ready() {
                let together = onbeat_core::joint::Together::Attention { helpers: ProcessorSet::of(ProcessorId(1)) };
                actions.start_together(stage, ProcessorId(0), together);
            }
        }
        let system = system(toml);
        match onbeat_sim::simulate(&system, Box::new(crate::support::Script(both)), "test", 1, Vec::new()) {
            Err(onbeat_sim::SimError::IllegalAction { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let toml = reader(100, "");
    assert_eq!(error(&toml), onbeat_core::policy::ActionError::NoAttention, "the prompt's is not divided");
}
