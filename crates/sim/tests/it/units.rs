//! Processors that are divided into units: who runs side by side, at what speed, and what cutting anew costs.

use onbeat_core::event::{Event, StopReason, What};
use onbeat_core::id::{Id, ProcessorId};
use onbeat_core::policy::{ActionError, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_driver::DriveError;
use onbeat_sim::simulate;
use proptest::prelude::*;

use crate::support::{Script, done_at, first_come, language_cost, request, run, run_script, system, times};

const NPU: ProcessorId = ProcessorId(0);

/// An accelerator of four units. `a` is stated for one, two and four of them, `b` for one alone.
fn scenario(processor: &str, memory: &str, streams: &str) -> String {
    format!(
        r#"
        name = "parts"
        duration_s = 0.2
        [platform]
        name = "p"
        [platform.memory]
        {memory}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        units = 4
        {processor}
        [model.a]
        [model.b]
        [[cost]]
        model = "a"
        processor = "npu"
        latency_ms = 6
        [[cost]]
        model = "a"
        processor = "npu"
        units = 1
        latency_ms = 18
        [[cost]]
        model = "a"
        processor = "npu"
        units = 2
        latency_ms = 10
        [[cost]]
        model = "b"
        processor = "npu"
        units = 1
        latency_ms = 4
        {streams}
        "#
    )
}

fn streams(names: &[(&str, &str)]) -> String {
    let stream = |(name, model): &(&str, &str)| {
        format!("[[stream]]\nname = \"{name}\"\nmodel = \"{model}\"\nperiod_ms = 1000\ncount = 1\n")
    };
    names.iter().map(stream).collect()
}

/// Starts every ready stage on the widest part that is stated, at most `W` units, as long as there are units.
fn at_most<const W: u32>(view: &View<'_>, actions: &mut Actions) {
    let mut free = view.free_units(NPU);
    for &stage in view.ready() {
        if let Some(units) = view.widths(stage, NPU).rev().find(|&units| units <= free.min(W)) {
            free -= units;
            actions.start_on_units(stage, NPU, units, None);
        }
    }
}

#[test]
fn parts_work_side_by_side_at_the_speed_that_is_stated_for_them() {
    let text = scenario("", "", &streams(&[("x", "a"), ("y", "a"), ("z", "b")]));
    // One unit each: nobody waits.
    let (system, events) = run_script(&text, at_most::<1>);
    let done = |name| done_at(&system, &events, name)[0];
    assert_eq!((done("x"), done("y"), done("z")), (18.0, 18.0, 4.0));
    let units = |event: &Event| match event.what {
        What::Start { units, .. } => Some(units),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(units).collect::<Vec<_>>(), [1, 1, 1]);
    // Two units each: the third waits.
    let (system, events) = run_script(&text, at_most::<2>);
    let done = |name| done_at(&system, &events, name)[0];
    assert_eq!((done("x"), done("y"), done("z")), (10.0, 10.0, 14.0));
}

#[test]
fn a_policy_that_asks_for_no_units_has_the_processor_to_itself() {
    let text = scenario("", "", &streams(&[("x", "a"), ("y", "a"), ("z", "b")]));
    let (system, events) = run_script(&text, first_come);
    let done = |name| done_at(&system, &events, name)[0];
    // The widest part that is stated: 6 ms of four units for `a`, 4 ms of one for `b`, of which three units are of no use.
    assert_eq!((done("x"), done("y"), done("z")), (6.0, 12.0, 16.0));
    let starts = times(&events, |what| matches!(what, What::Start { .. }));
    assert_eq!(starts.len(), 3, "one after the other");
}

fn refused(text: &str, script: fn(&View<'_>, &mut Actions)) -> ActionError {
    let system = system(text);
    match simulate(&system, Box::new(Script(script)), "test", 1, Vec::new()) {
        Err(DriveError::IllegalAction { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_stated_cannot_be_run() {
    let text = scenario("", "", &streams(&[("x", "a"), ("y", "a")]));
    let three: fn(&View<'_>, &mut Actions) = |view, actions| actions.start_on_units(view.ready()[0], NPU, 3, None);
    assert_eq!(refused(&text, three), ActionError::NoSuchWidth, "no figure is interpolated");
    let too_many: fn(&View<'_>, &mut Actions) = |view, actions| {
        actions.start_on_units(view.ready()[0], NPU, 2, None);
        actions.start_on_units(view.ready()[1], NPU, 4, None);
    };
    assert_eq!(refused(&text, too_many), ActionError::Busy);
    let whole: fn(&View<'_>, &mut Actions) = |view, actions| {
        actions.start_on_units(view.ready()[0], NPU, 1, None);
        actions.start(view.ready()[1], NPU);
    };
    assert_eq!(refused(&text, whole), ActionError::Busy, "without units it asks for an idle processor");
}

#[test]
fn cutting_anew_costs_and_an_idle_part_of_the_right_size_does_not() {
    // Each starts when the one before has ended.
    let text = scenario("repartition_us = 1000", "", &streams(&[("u", "a"), ("v", "a"), ("w", "b"), ("x", "a")]));
    let script: fn(&View<'_>, &mut Actions) = |view, actions| {
        let mut free = view.free_units(NPU);
        for &stage in view.ready() {
            let units = match view.stage(stage).serial {
                // 4 is cut into 2 + 2: 1 ms. For the second, the other 2 are there.
                0 | 1 => 2,
                // 2 + 2 idle: the first is cut into 1 + 1.
                2 if free == 4 => 1,
                // 1 + 1 + 2 become 4 again.
                3 if free == 4 => 4,
                _ => continue,
            };
            free -= units;
            actions.start_on_units(stage, NPU, units, None);
        }
    };
    let (system, events) = run_script(&text, script);
    let done = |name| done_at(&system, &events, name)[0];
    assert_eq!((done("u"), done("v")), (11.0, 10.0));
    assert_eq!((done("w"), done("x")), (11.0 + 1.0 + 4.0, 16.0 + 1.0 + 6.0));
}

#[test]
fn every_part_remembers_its_model() {
    // `b` and `a` side by side, twice: the second time each finds the part on which it ran before, although `switch_us` is dear.
    let both = "[[stream]]\nname = \"x\"\nmodel = \"a\"\nperiod_ms = 50\ncount = 2\n[[stream]]\nname = \"z\"\nmodel = \"b\"\nperiod_ms = 50\ncount = 2\n";
    let text = scenario("switch_us = 3000", "", both);
    let (system, events) = run_script(&text, at_most::<1>);
    assert_eq!(done_at(&system, &events, "x"), [18.0, 68.0]);
    assert_eq!(done_at(&system, &events, "z"), [4.0, 54.0]);
    let (system, events) = run_script(&text, first_come);
    assert_eq!(
        done_at(&system, &events, "z"),
        [6.0 + 3.0 + 4.0, 50.0 + 3.0 + 6.0 + 3.0 + 4.0],
        "undivided they take turns"
    );
}

/// Energy of the stops, and of the last reading of the processor [mJ].
fn energies(events: &[Event]) -> (f64, Option<f64>) {
    let mut stops = 0.0;
    let mut read = None;
    for event in events {
        match event.what {
            What::Stop { energy_mj, .. } => stops += energy_mj.expect("power is stated"),
            What::Power { energy_mj, .. } => read = energy_mj,
            _ => {}
        }
    }
    (stops, read)
}

#[test]
fn a_part_draws_its_share_of_the_power() {
    let two = streams(&[("x", "a"), ("z", "b")]);
    // 8 W busy, 2 W idle. `x` on two units for 10 ms, `z` on one for 4 ms.
    let power = "active_w = 8\nidle_w = 2";
    let (_, events) = run_script(&scenario(power, "", &two), at_most::<2>);
    let (stops, _) = energies(&events);
    assert!((stops - (8.0 * 0.5 * 10.0 + 8.0 * 0.25 * 4.0)).abs() < 1e-9, "{stops}");
    // With a power model, the processor's energy is the integral: what runs, and the idle units' share of the idle power.
    let modelled = format!("{power}\ntransition_us = 0\nleakage_w = 0.5");
    let (_, events) = run_script(&scenario(&modelled, "", &two), at_most::<2>);
    let (stops, read) = energies(&events);
    let idle = 2.0 * (0.25 * 4.0 + 0.5 * 6.0 + 190.0);
    assert!((stops - 48.0).abs() < 1e-9, "{stops}");
    assert!((read.expect("it is read") - (48.0 + idle + 0.5 * 200.0)).abs() < 1e-6, "{read:?}");
}

#[test]
fn answers_are_batched_on_the_part_where_the_batch_runs() {
    let text = r#"
        name = "chat"
        duration_s = 1
        [platform]
        name = "p"
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        units = 2
        [platform.memory]
        [model.m]
        shape = "autoregressive"
        "#
    .to_owned()
        + &language_cost("m", "npu", 20.0, 4.0, "batch_factor = [[1, 1.0], [2, 1.5]]")
        + &language_cost("m", "npu", 40.0, 5.0, "units = 1\nbatch_factor = [[1, 1.0], [2, 1.2]]")
        + &request("s", "m", 0, 100, 11)
        + &request("t", "m", 0, 100, 11);
    let script: fn(&View<'_>, &mut Actions) = |view, actions| {
        let mut free = view.free_units(NPU);
        for &stage in view.ready() {
            if view.can_join(stage, NPU) {
                actions.start(stage, NPU);
            } else if free > 0 {
                free -= 1;
                actions.start_on_units(stage, NPU, 1, None);
            }
        }
    };
    // Both prompts side by side until 40; the two answers on a unit each: 10 steps of 5 ms.
    let (system, events) = run_script(&text, script);
    assert_eq!(done_at(&system, &events, "s"), [90.0]);
    assert_eq!(done_at(&system, &events, "t"), [90.0]);
    // One on the unit, and the other one joins it: 10 steps of 5 · 1.2 ms.
    let joined: fn(&View<'_>, &mut Actions) = |view, actions| {
        let mut started = view.free_units(NPU) < 2;
        for &stage in view.ready() {
            let live = view.stage(stage);
            if live.kind == onbeat_core::cost::Phase::Prefill {
                actions.start_on_units(stage, NPU, 1, None);
            } else if started {
                actions.start(stage, NPU);
            } else {
                actions.start_on_units(stage, NPU, 1, None);
                started = true;
            }
        }
    };
    let (system, events) = run_script(&text, joined);
    assert_eq!(done_at(&system, &events, "s"), [100.0]);
    assert_eq!(done_at(&system, &events, "t"), [100.0]);
}

/// The same without units: the entry of the whole processor counts.
fn undivided(text: &str) -> System {
    system(&text.replace("units = 4", ""))
}

#[test]
fn without_units_the_entry_for_the_most_counts() {
    let text = scenario("", "", &streams(&[("x", "a"), ("z", "b")]));
    let (divided, whole) = (system(&text), undivided(&text));
    let events = |system: &System| {
        let all = run(system, Box::new(Script(first_come)), 1);
        all.into_iter().map(|event| (event.at, std::mem::discriminant(&event.what))).collect::<Vec<_>>()
    };
    assert_eq!(events(&divided), events(&whole));
}

#[test]
fn bounds_take_the_best_part() {
    // One unit is faster than four: `shortest` and `hopeless` must know.
    let text = scenario("", "", &streams(&[("x", "a")])).replace("latency_ms = 18", "latency_ms = 3");
    let system = system(&text);
    assert_eq!(system.sources[onbeat_core::id::SourceId::new(0)].shortest.as_ms(), 3.0);
}

#[test]
fn wrong_files_are_told() {
    let text = scenario("", "", &streams(&[("x", "a")]));
    let wrong = |from: &str, to: &str| System::from_toml(&text.replace(from, to)).unwrap_err().to_string();
    assert!(wrong("units = 2\n", "units = 5\n").contains("5 units of `npu`, which has 4"));
    assert!(wrong("units = 2\n", "units = 1\n").contains("a second cost of `a`"));
    assert!(wrong("units = 2\n", "units = 4\n").contains("a second cost of `a`"));
    assert!(wrong("units = 2\n", "units = 2\nmemory_mb = 3\n").contains("it counts from the entry for the most units"));
    assert!(wrong("units = 4\n", "units = 4\nslots = 2\n").contains("a processor has units or slots"));
    assert!(wrong("units = 4\n", "repartition_us = 5\n").contains("not divided"));
    assert!(wrong("units = 4\n", "units = 4\ndevice = \"rten\"\n").contains("cannot be divided"));
}

#[test]
fn a_distribution_that_only_a_part_states_is_drawn_from() {
    let frames = "[[stream]]\nname = \"s\"\nmodel = \"a\"\nperiod_ms = 20\n";
    let toml = scenario("", "", frames).replace("latency_ms = 10", "quantiles_ms = { p50 = 10, p99 = 12 }");
    let (system, events) = run_script(&toml, at_most::<2>);
    let done = done_at(&system, &events, "s");
    let took: Vec<f64> = done.iter().enumerate().map(|(i, done)| done - 20.0 * i as f64).collect();
    // Up to the median they are alike.
    assert!(took.iter().any(|&ms| ms == took[0]) && took.iter().any(|&ms| ms > 10.0), "{took:?}");
    assert!(took.iter().all(|&ms| (9.9..=12.0).contains(&ms)), "{took:?}");
}

/// Starts ready stages on parts whose widths follow from a number, and preempts from time to time.
#[derive(Clone, Debug)]
struct Chaos(u64);

impl Policy for Chaos {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let mut free = view.free_units(NPU);
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        };
        if next() % 4 == 0
            && let Some(run) = view.occupancy(NPU).runs.iter().find(|run| !run.ending)
        {
            actions.preempt(run.stage);
        }
        for &stage in view.ready() {
            let widths: Vec<u32> = view.widths(stage, NPU).filter(|&units| units <= free).collect();
            if !widths.is_empty() {
                let units = widths[next() as usize % widths.len()];
                free -= units;
                actions.start_on_units(stage, NPU, units, None);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_more_units_than_there_are_and_energy_is_the_integral(
        seed in any::<u64>(), anytime in any::<bool>(), repartition in 0_u32..3000, period in 3_u32..20,
    ) {
        let preemption = if anytime { "anytime" } else { "segment" };
        let processor = format!(
            "repartition_us = {repartition}\nswitch_us = 100\npreemption = \"{preemption}\"\nactive_w = 8\nidle_w = 2\nleakage_w = 0.25"
        );
        let stream = |i: u32, model: &str| {
            format!("[[stream]]\nname = \"s{i}\"\nmodel = \"{model}\"\nperiod_ms = {}\n", period + i)
        };
        let busy = [stream(0, "a"), stream(1, "a"), stream(2, "b"), stream(3, "a")].concat();
        let text = scenario(&processor, "", &busy).replace("latency_ms = 6", "latency_ms = 6\nsegments = 3");
        let system = system(&text);
        // The checker counts units; the same again gives the same.
        let events = run(&system, Box::new(Chaos(seed)), 1);
        prop_assert_eq!(&events, &run(&system, Box::new(Chaos(seed)), 1));
        let (stops, read) = energies(&events);
        // Idle units' share of the time, from the record alone.
        let (mut taken, mut since, mut idle_ns) = (std::collections::BTreeMap::new(), 0.0, 0.0);
        for event in &events {
            let used: u32 = taken.values().sum();
            idle_ns += (event.at.as_f64() - since) * (1.0 - f64::from(used) / 4.0);
            since = event.at.as_f64();
            match event.what {
                What::Start { run, units, .. } => { taken.insert(run, units); }
                What::Stop { run, .. } => { taken.remove(&run); }
                _ => {}
            }
        }
        let expected = stops + (2.0 * idle_ns + 0.25 * since) / 1e6;
        prop_assert!((read.unwrap() - expected).abs() < 1e-6 * expected, "{:?} {}", read, expected);
    }
}

/// Four units: 40 segments in 200, 110 and 100 ms on one, three and four of them, due after `due` ms; and 1 ms later something short, 20 ms
/// on one and 18 on four, due after 40. When both are done under `planaria`, and how often a run was cut.
fn staggered(processor: &str, due: u32) -> (f64, f64, usize) {
    let cost = |model: &str, units: u32, ms: u32, segments: u32| {
        format!(
            "[[cost]]\nmodel = \"{model}\"\nprocessor = \"npu\"\nunits = {units}\nlatency_ms = {ms}\nsegments = {segments}\n"
        )
    };
    let toml = format!(
        r#"
        name = "staggered"
        duration_s = 0.4
        platform = {{ name = "p", memory = {{}}, processor = [{{ name = "npu", kind = "npu", units = 4, {processor} }}] }}
        stream = [
            {{ name = "long", model = "a", period_ms = 1000, deadline_ms = {due} }},
            {{ name = "short", model = "b", period_ms = 1000, phase_ms = 1, deadline_ms = 40 }},
        ]
        [model.a]
        [model.b]
        {}{}{}{}{}
        "#,
        cost("a", 1, 200, 40),
        cost("a", 3, 110, 40),
        cost("a", 4, 100, 40),
        cost("b", 1, 20, 1),
        cost("b", 4, 18, 1),
    );
    let system = system(&toml);
    let events = run(&system, onbeat_policy::make("planaria", &system).unwrap(), 1);
    let done = |name| done_at(&system, &events, name)[0];
    let cut = times(&events, |what| matches!(what, What::Stop { why: StopReason::Preempted, .. })).len();
    (done("long"), done("short"), cut)
}

#[test]
fn planaria_cuts_running_work_anew_for_what_comes_and_when_that_is_done() {
    // Three units are enough for 115 ms: from the first boundary at 2.5 ms to the one at 24.5, and then four again.
    assert_eq!(staggered("preemption = \"segment\"", 115), (102.0, 22.5, 2));
    // One is enough for 300 ms; but the two that nobody else can use are spare.
    assert_eq!(staggered("preemption = \"segment\"", 300), (102.0, 22.5, 2));
    // Cutting costs 2 ms, which `short` pays; what is left over is a part of three. At 24.5 ms 31 segments are left, and four units save 7.75 ms,
    // more than twice the cost: 24.5 + 2 + 77.5.
    assert_eq!(staggered("preemption = \"segment\", repartition_us = 2000", 118), (104.0, 24.5, 2));
}

#[test]
fn planaria_cuts_nobody_who_needs_what_it_has() {
    // Three units would be too late.
    assert_eq!(staggered("preemption = \"segment\"", 105), (100.0, 118.0, 0));
    // Within a segment, progress would be lost.
    assert_eq!(staggered("preemption = \"anytime\"", 300), (100.0, 118.0, 0));
    assert_eq!(staggered("preemption = \"never\"", 300), (100.0, 118.0, 0));
}
