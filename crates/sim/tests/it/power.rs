//! Operating points, heat, governors and the power cap.

use onbeat_core::event::{Event, What};
use onbeat_core::id::ProcessorId;
use onbeat_core::policy::{ActionError, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_driver::DriveError;
use onbeat_sim::simulate;
use proptest::prelude::*;

use crate::properties::MIXED;
use crate::support::{Script, done_at, first_come, run, run_script, system};

/// One processor with three points (25 W, 12 W and 4.5 W at 5 V, 4 V and 3 V) and one job of 10 ms, bound by memory for `memory` of its time.
fn one_job(memory: f64, platform: &str, processor: &str) -> String {
    format!(
        r#"
        name = "power"
        duration_s = 0.1
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 100
        [platform.power]
        {platform}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        active_w = 25
        idle_w = 1
        {processor}
        operating_point = [
            {{ name = "full", speed = 1, volts = 5 }},
            {{ name = "mid", speed = 0.75, volts = 4 }},
            {{ name = "low", speed = 0.5, volts = 3, idle_w = 0.25 }},
        ]
        [model.a]
        [[cost]]
        model = "a"
        processor = "npu"
        latency_ms = 10
        bytes_mb = {}
        [[stream]]
        name = "a"
        model = "a"
        period_ms = 1000
        "#,
        1000.0 * memory
    )
}

/// Number of a point and when it is chosen.
const LOW: u32 = 2;

/// Sets a point at a time, and serves first come, first served.
#[derive(Clone, Debug)]
struct SetAt(f64, u32);

impl Policy for SetAt {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let at = Nanos::from_ms(self.0);
        if view.now() == at {
            actions.set_point(ProcessorId(0), self.1);
        } else if view.now() < at {
            actions.wake(at);
        }
        first_come(view, actions);
    }
}

/// Time and energy of every reading of a processor.
fn energies(events: &[Event], which: u32) -> Vec<(f64, f64)> {
    let of = |event: &Event| match event.what {
        What::Power { processor: ProcessorId(p), energy_mj, .. } if p == which => Some((event.at.as_ms(), energy_mj?)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn last_energy(events: &[Event], which: u32) -> f64 {
    energies(events, which).last().unwrap().1
}

fn points(events: &[Event]) -> Vec<(f64, u32)> {
    let mut points: Vec<(f64, u32)> = Vec::new();
    for event in events {
        if let What::Power { point, .. } = event.what
            && points.last().is_none_or(|&(_, last)| last != point)
        {
            points.push((event.at.as_ms(), point));
        }
    }
    points
}

fn work_energy(events: &[Event]) -> f64 {
    let of = |event: &Event| if let What::Stop { energy_mj, .. } = event.what { energy_mj } else { None };
    events.iter().filter_map(of).sum()
}

#[test]
fn only_the_compute_bound_part_depends_on_the_clock() {
    // 6 ms of computing take 12 at half the clock; 4 ms of memory stay 4.
    let system = system(&one_job(0.4, "governor = \"powersave\"", ""));
    let events = run(&system, Box::new(Script(first_come)), 1);
    assert_eq!(done_at(&system, &events, "a"), [16.0]);
    // 25 W x 0.5 x (3/5)^2 = 4.5 W for 16 ms; 0.25 W for 84 ms.
    assert!((work_energy(&events) - 72.0).abs() < 1e-9);
    assert!((last_energy(&events, 0) - (72.0 + 21.0)).abs() < 1e-9);
}

#[test]
fn a_change_under_way_keeps_the_progress() {
    // Half of the work is done at 5 ms; the other half, all of it computing, takes 10 ms at half the clock.
    let system = system(&one_job(0.0, "", ""));
    let events = run(&system, Box::new(SetAt(5.0, LOW)), 1);
    assert_eq!(done_at(&system, &events, "a"), [15.0]);
    assert_eq!(points(&events), [(0.0, 0), (5.0, LOW)]);
    assert!((work_energy(&events) - (5.0 * 25.0 + 10.0 * 4.5)).abs() < 1e-9);
    // Nothing shared the bus: no contention, however slow the clock.
    let stop =
        events.iter().find_map(|event| if let What::Stop { alone, .. } = event.what { Some(alone) } else { None });
    assert_eq!(stop, Some(Nanos::from_ms(15.0)));
}

#[test]
fn a_change_takes_effect_after_the_transition_time() {
    // The request at 5 ms takes effect at 7 ms: 3 ms of work are left, which take 6.
    let system = system(&one_job(0.0, "", "transition_us = 2000"));
    let events = run(&system, Box::new(SetAt(5.0, LOW)), 1);
    assert_eq!(points(&events), [(0.0, 0), (7.0, LOW)]);
    assert_eq!(done_at(&system, &events, "a"), [13.0]);
}

#[test]
fn profiled_energy_goes_with_the_square_of_the_voltage() {
    // 100 mJ by the profile; half of it at 3 V instead of 5: 50 + 50 x 0.36.
    let toml = one_job(0.0, "", "").replace("latency_ms = 10", "latency_ms = 10\nenergy_mj = 100");
    let system = system(&toml);
    let events = run(&system, Box::new(SetAt(5.0, LOW)), 1);
    assert!((work_energy(&events) - 68.0).abs() < 1e-9, "{}", work_energy(&events));
}

#[test]
fn clock_and_contention_come_together() {
    // Two such jobs, always bound by memory for 40%: shares of 50 of 100. 6/0.5 + 4 x 2 = 20 ms on the slow one, 6 + 8 = 14 on the fast one; from 14 ms
    // on the slow one is alone: 0.7 of it are done, the rest takes 0.3 x 16 = 4.8 ms.
    let toml = one_job(0.4, "governor = \"powersave\"", "")
        .replace("[model.a]", "[[platform.processor]]\nname = \"gpu\"\nkind = \"gpu\"\n[model.a]\n[model.b]")
        .replace("[[stream]]", "[[cost]]\nmodel = \"b\"\nprocessor = \"gpu\"\nlatency_ms = 10\nbytes_mb = 400\n[[stream]]\nname = \"b\"\nmodel = \"b\"\nperiod_ms = 1000\n[[stream]]");
    let (system, events) = run_script(&toml, first_come);
    let (a, b) = (done_at(&system, &events, "a")[0], done_at(&system, &events, "b")[0]);
    assert!((b - 14.0).abs() < 1e-5, "{b}");
    assert!((a - 18.8).abs() < 1e-5, "{a}");
}

#[test]
fn illegal_points_are_errors() {
    let fails = |toml: &str, point: u32| {
        let system = system(toml);
        let error = simulate(&system, Box::new(SetAt(5.0, point)), "test", 1, onbeat_core::event::NoSink).unwrap_err();
        match error {
            DriveError::IllegalAction { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    assert_eq!(fails(&one_job(0.0, "", ""), 3), ActionError::NoSuchPoint);
    assert_eq!(fails(&one_job(0.0, "governor = \"ondemand\"", ""), LOW), ActionError::Governed);
    assert_eq!(fails(MIXED, 0), ActionError::NoSuchPoint);
}

/// A job that runs for ever on a processor of R = 10 K/W and C = 0.2 J/K, throttled at 45 °C and released at 40 °C.
fn hot(active_w: f64) -> String {
    one_job(0.0, "ambient_c = 25", "thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 0.2, throttle_c = 45, release_c = 40, step_ms = 50 }")
        .replace("active_w = 25", &format!("active_w = {active_w}"))
        .replace("latency_ms = 10", "latency_ms = 100000")
        .replace("duration_s = 0.1", "duration_s = 20")
}

#[test]
fn heat_throttles_at_the_time_that_the_closed_form_says() {
    // RC = 2 s. At 3 W the goal is 55 °C: 45 °C is reached after 2 ln 3 = 2.197224577 s, exactly.
    let system = system(&hot(3.0));
    let events = run(&system, Box::new(Script(first_come)), 1);
    let changes = points(&events);
    assert_eq!(changes[0], (0.0, 0));
    assert!((changes[1].0 - 2_197.224_578).abs() < 1e-6 && changes[1].1 == 1, "{changes:?}");
    // At 3 W x 0.75 x 0.64 = 1.44 W it cools towards 39.4 °C: to 40 °C after 2 ln(5.6/0.6) s. Then it is fast again.
    let released = changes[1].0 + 2000.0 * (5.6_f64 / 0.6).ln();
    assert!((changes[2].0 - released).abs() < 1e-5 && changes[2].1 == 0, "{changes:?} and {released}");
    let peaks = events.iter().filter_map(|event| match event.what {
        What::Power { peak_celsius, .. } => peak_celsius,
        _ => None,
    });
    let peak = peaks.fold(0.0, f64::max);
    assert!((peak - 45.0).abs() < 1e-5, "{peak}");
}

#[test]
fn heat_that_one_step_does_not_stop_takes_another() {
    // 8 W: even 8 x 0.48 = 3.84 W lead to 63.4 °C; 8 x 0.18 = 1.44 W do not. The second step follows 50 ms after the first.
    let system = system(&hot(8.0));
    let events = run(&system, Box::new(Script(first_come)), 1);
    let changes = points(&events);
    assert_eq!((changes[1].1, changes[2].1), (1, LOW));
    assert!((changes[2].0 - changes[1].0 - 50.0).abs() < 1e-6, "{changes:?}");
}

#[test]
fn the_cap_slows_down_what_draws_most() {
    // Two jobs at 25 W and a cap of 40 W: 25 + 12 fit. The first processor draws as much as the second and is slowed down. When the
    // other job has ended, it is free to draw 25 W again: 7.5 ms are done at 10 ms.
    let toml = one_job(0.0, "cap_w = 40", "count = 2")
        .replace("period_ms = 1000", "period_ms = 1000\n[[stream]]\nname = \"b\"\nmodel = \"a\"\nperiod_ms = 1000");
    let (system, events) = run_script(&toml, first_come);
    assert_eq!(done_at(&system, &events, "b"), [10.0]);
    assert_eq!(done_at(&system, &events, "a"), [12.5]);
    for event in &events {
        if let What::Power { watts: Some(watts), .. } = event.what {
            assert!(watts <= 25.0);
        }
    }
}

#[test]
fn ondemand_follows_the_load_of_the_last_period() {
    // Starts at the slowest point. After the first period of 10 ms, busy throughout: the fastest. 5 ms of work are left: done at
    // 15 ms. The period from 10 to 20 ms is busy for half of its time: 0.5 + 0.5 x 0.5 = 0.75. Then idle: 0.5.
    let system = system(&one_job(0.0, "governor = \"ondemand\"", ""));
    let events = run(&system, Box::new(Script(first_come)), 1);
    assert_eq!(points(&events), [(0.0, LOW), (10.0, 0), (20.0, 1), (30.0, LOW)]);
    assert_eq!(done_at(&system, &events, "a"), [15.0]);
}

#[test]
fn schedutil_follows_a_decaying_average_with_a_margin() {
    // Half-life 32 ms, period 10 ms: y = 2^(-10/32) = 0.80524. At half the clock a busy period uses half: u1 = 0.0974, 1.25 u = 0.12: slowest.
    let toml = one_job(0.0, "governor = \"schedutil\"", "").replace("latency_ms = 10", "latency_ms = 50");
    let system = system(&toml);
    let events = run(&system, Box::new(Script(first_come)), 1);
    // u after n periods at half the clock: 0.5 (1 - y^n); 1.25 u > 0.5 when y^n < 0.2: n = 8 (y^8 = 0.1768). Then u = 0.4116 grows with 0.75:
    // 1.25 u > 0.75 when u > 0.6: u9 = 0.4775, u10 = 0.5306 - by then the work, 40 + 7.5 ms done at 90 ms, ends at 93.33 ms.
    assert_eq!(points(&events), [(0.0, LOW), (80.0, 1)]);
    assert!((done_at(&system, &events, "a")[0] - 93.333_334).abs() < 1e-5);
}

#[test]
fn a_platform_without_power_says_nothing_about_it() {
    let system = system(MIXED);
    let events = run(&system, onbeat_policy::make("edf", &system).unwrap(), 1);
    assert!(!events.iter().any(|event| matches!(event.what, What::Power { .. })));
}

/// The mixed scenario with points, leakage, heat and a cap.
fn mixed(governor: &str, cap: Option<f64>, transition_us: u32) -> System {
    let cap = cap.map_or(String::new(), |cap| format!("cap_w = {cap}"));
    let points = r#"
        operating_point = [
            { name = "full", speed = 1, volts = 1.0 },
            { name = "mid", speed = 0.8, active_w = 2 },
            { name = "low", speed = 0.4, volts = 0.7 },
        ]"#;
    let heat = "thermal = { resistance_k_per_w = 12, capacitance_j_per_k = 0.05, throttle_c = 55, release_c = 50, step_ms = 20 }";
    let toml = MIXED
        .replace("[[platform.processor]]\n    name = \"core\"", &format!("[platform.power]\n governor = \"{governor}\"\n{cap}\n[[platform.processor]]\n    name = \"core\"\n active_w = 3\nidle_w = 0.2\ntransition_us = {transition_us}\n{points}"))
        .replace("name = \"npu\"\n    kind = \"npu\"", &format!("name = \"npu\"\n    kind = \"npu\"\n    active_w = 4\n idle_w = 0.1\nleakage_w = 0.3\nleakage_per_k = 0.02\n{heat}\n{points}"));
    system(&toml)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Energy is the integral of power: what runs, idling and leakage drew adds up to the reading at the end, and no reading is lower than
    /// the one before.
    #[test]
    fn energy_is_the_integral_of_power(
        governor in prop::sample::select(vec!["policy", "performance", "powersave", "ondemand", "schedutil"]),
        cap in prop::option::of(3.0_f64..15.0),
        transition_us in 0_u32..3000,
        policy in prop::sample::select(vec!["edf", "llf", "fcfs", "eft", "onbeat"]),
        seed in 0_u64..100,
    ) {
        let system = mixed(governor, cap, transition_us);
        let events = run(&system, onbeat_policy::make(policy, &system).unwrap(), seed);
        let again = run(&system, onbeat_policy::make(policy, &system).unwrap(), seed);
        prop_assert_eq!(&events, &again, "the same inputs give the same events");
        for p in 0..system.platform.processors.len() as u32 {
            let id = ProcessorId(p);
            let model = system.platform.processors[id].power.as_ref().unwrap();
            // Idle time by point, from starts, stops and points.
            let (mut busy, mut since, mut point, mut idle_mj, mut work_mj) = (0_u32, Nanos::ZERO, 0_u32, 0.0, 0.0);
            let mut open = std::collections::BTreeMap::new();
            let mut last: Option<(Nanos, f64, f64)> = None;
            let mut heat = Vec::new();
            for event in &events {
                let idle = |from: Nanos, point: u32| {
                    let watts = model.points[point as usize].idle_w;
                    watts * (event.at - from).as_ms()
                };
                match event.what {
                    What::Start { run, processor, .. } if processor == id => {
                        if busy == 0 { idle_mj += idle(since, point); since = event.at; }
                        let members = open.entry(run).or_insert(0_u32);
                        *members += 1;
                        if *members == 1 { busy += 1; }
                    }
                    What::Stop { run, processor, energy_mj, .. } if processor == id => {
                        work_mj += energy_mj.unwrap();
                        let members = open.get_mut(&run).unwrap();
                        *members -= 1;
                        if *members == 0 { open.remove(&run); busy -= 1; since = event.at; }
                    }
                    What::Power { processor, point: next, energy_mj, watts, celsius, .. } if processor == id => {
                        if busy == 0 { idle_mj += idle(since, point); since = event.at; }
                        point = next;
                        let energy = energy_mj.unwrap();
                        prop_assert!(last.is_none_or(|(_, before, _)| energy >= before));
                        last = Some((event.at, energy, watts.unwrap()));
                        heat.extend(celsius);
                    }
                    _ => {}
                }
            }
            let total = last.unwrap().1;
            // The node gives the leakage: what was drawn was stored or has flown off. Without a node there is none here.
            let leaked = total - work_mj - idle_mj;
            if model.thermal.is_none() {
                prop_assert!(leaked.abs() <= 1e-6 * total.max(1.0), "{leaked} mJ of {total} are unaccounted for on {p}");
            } else {
                let seconds = system.duration.as_secs();
                let least = 0.3 * seconds * 1e3;
                let hottest = heat.iter().copied().fold(25.0, f64::max);
                let most = 0.3 * (1.0 + 0.02 * (hottest + 5.0 - 25.0)) * seconds * 1e3;
                prop_assert!(leaked >= least * (1.0 - 1e-9) && leaked <= most, "{least} <= {leaked} <= {most}");
            }
        }
    }
}
