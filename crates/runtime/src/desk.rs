//! A desk instead of devices: runs go in virtual time exactly as the profile says, so that the state machine can be tested without threads.

mod caches;
mod joint;
#[path = "../../sim/tests/it/mix.rs"]
mod mix;

use std::collections::{BTreeMap, BTreeSet};

use onbeat_analysis::statistics::Statistics;
use onbeat_core::event::{Event, Sink, What};
use onbeat_core::id::ProcessorId;
use onbeat_core::metric::Metric;
use onbeat_core::policy::Policy;
use onbeat_core::record::{Header, Record};
use onbeat_core::spec::{Library, Options, Preemption, ReadFile};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_driver::{Checker, Facts};
use proptest::prelude::*;

use crate::live::Live;
use crate::rehearse::Plan;
use crate::replay::{ReplayError, replay};
use crate::task::{Command, Launch, Report};

/// A run on the desk.
struct OnDesk {
    launch: Launch,
    start: Nanos,
    cut: bool,
    told: u32,
}

/// What is to happen to the devices, for fault tests.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The run under way on the processor at this time fails.
    Fail(Nanos, ProcessorId),
    /// The processor is lost at this time.
    Lose(Nanos, ProcessorId),
}

impl Fault {
    fn at(self) -> Nanos {
        match self {
            Self::Fail(at, _) | Self::Lose(at, _) => at,
        }
    }
}

/// Runs a system on the desk to its end.
fn run_on_desk(system: &System, policy: &str, seed: u64, faults: Vec<Fault>) -> Vec<Event> {
    let made = onbeat_policy::make(policy, system).unwrap();
    run_made_on_desk(system, made, policy, seed, faults)
}

/// The same with a policy that is there.
fn run_made_on_desk(
    system: &System,
    made: Box<dyn Policy>,
    policy: &str,
    seed: u64,
    mut faults: Vec<Fault>,
) -> Vec<Event> {
    let mut live = Live::new(system, made, policy, seed, Facts::default(), Vec::<Event>::new());
    let mut desk: BTreeMap<u64, OnDesk> = BTreeMap::new();
    let (mut now, mut reports, mut commands) = (Nanos::ZERO, Vec::new(), Vec::new());
    faults.sort_by_key(|fault| fault.at());
    loop {
        live.instant(now, &reports, &mut commands).unwrap_or_else(|error| panic!("{error}"));
        reports.clear();
        for command in commands.drain(..) {
            match command {
                Command::Launch(launch) => {
                    desk.insert(launch.run, OnDesk { launch, start: now, cut: false, told: 0 });
                }
                Command::Cut { run, .. } => desk.get_mut(&run).unwrap().cut = true,
                Command::Replan { run, ends_ns } => {
                    if let Some(joint) = desk.get_mut(&run).and_then(|run| run.launch.joint.as_mut()) {
                        joint.ends_ns = ends_ns;
                    }
                }
                // On the desk, a change of speed takes effect with the next run.
                Command::Unload { .. } | Command::Forget { .. } | Command::Pace { .. } => {}
            }
        }
        let told = desk.values().filter(|run| run.launch.tells).map(|run| {
            let next = Plan::new(system, &run.launch).next(steps_at(system, run, now));
            time_of(system, run, next)
        });
        let ends = desk.values().map(|run| end_of(system, run, now).0).chain(told.filter(|&at| at > now));
        let fault = faults.first().map(|fault| fault.at());
        let next = ends.chain(fault).min().unwrap_or(Nanos::MAX).min(live.next_timer());
        now = next.max(now + Nanos(1));
        if now >= system.duration {
            live.end(system.duration);
            return live.into_sink();
        }
        for run in desk.values_mut() {
            let steps = steps_at(system, run, now);
            if steps != run.told && end_of(system, run, now).0 > now {
                run.told = steps;
                reports.push(Report::Progress { run: run.launch.run, steps });
            }
        }
        let over: Vec<u64> =
            desk.iter().filter(|(_, run)| end_of(system, run, now).0 <= now).map(|(&n, _)| n).collect();
        for number in over {
            let run = desk.remove(&number).unwrap();
            let (_, steps, finished) = end_of(system, &run, now);
            reports.push(Report::Ran { run: number, steps, finished });
        }
        while faults.first().is_some_and(|fault| fault.at() <= now) {
            match faults.remove(0) {
                Fault::Fail(_, p) => {
                    let run = desk.iter().find(|(_, run)| run.launch.processor == p).map(|(&n, _)| n);
                    if let Some(run) = run {
                        desk.remove(&run);
                        reports.push(Report::Failed { run });
                    }
                }
                Fault::Lose(_, p) => {
                    let helps = |run: &OnDesk| run.launch.joint.as_ref().is_some_and(|joint| joint.over.contains(p));
                    desk.retain(|_, run| run.launch.processor != p && !helps(run));
                    reports.push(Report::Lost { processor: p });
                }
            }
        }
    }
}

fn time_of(system: &System, run: &OnDesk, steps: u32) -> Nanos {
    let time_ns = Plan::new(system, &run.launch).time_ns(steps) * run.launch.stretch;
    run.start + run.launch.setup + Nanos(time_ns as u64)
}

/// Steps that a run has done at a time.
fn steps_at(system: &System, run: &OnDesk, now: Nanos) -> u32 {
    let plan = Plan::new(system, &run.launch);
    let mut steps = 0;
    while steps < plan.steps && time_of(system, run, plan.next(steps)) <= now {
        steps = plan.next(steps);
    }
    steps
}

/// When a run ends, after how many steps, and whether the inference is complete then.
fn end_of(system: &System, run: &OnDesk, now: Nanos) -> (Nanos, u32, bool) {
    let plan = Plan::new(system, &run.launch);
    let mut steps = plan.steps;
    if run.cut {
        // At the first boundary that is still ahead.
        let done = steps_at(system, run, now).max(run.told);
        let behind = time_of(system, run, done) < now;
        steps = if done == 0 || behind { plan.next(done) } else { done };
    }
    (time_of(system, run, steps), steps, plan.completes && steps == plan.steps)
}

struct NoFiles;

impl ReadFile for NoFiles {
    fn read(&self, _: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

pub(crate) fn system(scenario: &str, platform: &str, seconds: f64) -> System {
    let options = Options { duration: Some(Nanos::from_secs(seconds)), contention: false, ..Options::default() };
    Library::shipped().resolve(scenario, Some(platform), &options, &NoFiles).unwrap()
}

fn checked(system: &System, events: &[Event], what: &str) {
    let mut checker = Checker::new(system);
    for event in events {
        checker.event(event);
    }
    assert_eq!(checker.finish(), [], "{what}");
}

fn as_record(system: &System, policy: &str, seed: u64, events: Vec<Event>) -> Record {
    Record { header: Header::new(system, "runtime", policy, seed), events, complete: true }
}

fn summary(system: &System, policy: &str, events: &[Event]) -> Summary {
    let mut statistics = Statistics::new(system, 0, policy);
    for event in events {
        statistics.event(event);
    }
    statistics.finish()
}

/// Every policy: the invariants hold, and a replay takes the same decisions.
fn every_policy(scenario: &str, platform: &str, seconds: f64, faults: &dyn Fn(&System) -> Vec<Fault>) {
    let mut system = system(scenario, platform, seconds);
    for source in &mut system.sources {
        // What is predicted from the answers so far replays, too.
        source.text.learns = source.session;
    }
    for info in onbeat_policy::all() {
        let what = format!("{scenario} on {platform} under {}", info.name);
        let events = run_on_desk(&system, info.name, 1, faults(&system));
        checked(&system, &events, &what);
        let record = as_record(&system, info.name, 1, events);
        let policy = onbeat_policy::make(info.name, &system).unwrap();
        replay(&record, policy, info.name).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn every_policy_keeps_the_invariants_and_replays_to_the_same_decisions() {
    every_policy("video-conference", "snapdragon-x-elite", 6.0, &|_| Vec::new());
    every_policy("desktop-agents", "ryzen-ai-7-350", 20.0, &|_| Vec::new());
    // Tools, and idle-time work that gives way.
    every_policy("agent-with-tools", "snapdragon-x-elite", 30.0, &|_| Vec::new());
    every_policy("call-and-sleep", "snapdragon-x-elite", 12.0, &|_| Vec::new());
}

#[test]
fn every_policy_goes_on_when_runs_fail_and_a_processor_is_lost() {
    every_policy("video-conference", "snapdragon-x-elite", 6.0, &|system| {
        let npu = system.processor("npu").unwrap();
        let gpu = system.processor("gpu").unwrap();
        let fails =
            (1..20).map(|i| Fault::Fail(Nanos::from_ms(f64::from(i) * 137.0), if i % 2 == 0 { npu } else { gpu }));
        fails.chain([Fault::Lose(Nanos::from_secs(4.6), npu)]).collect()
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails and is lost, and whenever: the invariants hold, nothing starts on a lost processor, and the record replays.
    #[test]
    fn random_faults_break_no_invariant(
        seed in 0_u64..1_000,
        policy in prop::sample::select(vec!["edf", "fcfs", "onbeat", "static", "heft"]),
        scenario in prop::sample::select(vec![("video-conference", "snapdragon-x-elite"), ("desktop-agents", "ryzen-ai-7-350")]),
        faults in prop::collection::vec((0.0_f64..4.0, 0_usize..8, prop::bool::weighted(0.15)), 0..25),
    ) {
        let system = system(scenario.0, scenario.1, 4.0);
        let processors: Vec<ProcessorId> = system.platform.processors.ids().collect();
        let fault = |&(at, p, lost): &(f64, usize, bool)| {
            let (at, p) = (Nanos::from_secs(at), processors[p % processors.len()]);
            if lost { Fault::Lose(at, p) } else { Fault::Fail(at, p) }
        };
        let events = run_on_desk(&system, policy, seed, faults.iter().map(fault).collect());
        checked(&system, &events, policy);
        let mut lost = BTreeSet::new();
        for event in &events {
            match event.what {
                What::Lost { processor } => prop_assert!(lost.insert(processor), "lost twice"),
                What::Start { processor, .. } => prop_assert!(!lost.contains(&processor), "a start on a lost processor"),
                _ => {}
            }
        }
        let record = as_record(&system, policy, seed, events);
        let made = onbeat_policy::make(policy, &system).unwrap();
        if let Err(error) = replay(&record, made, policy) {
            return Err(TestCaseError::fail(error.to_string()));
        }
    }
}

#[test]
fn losing_every_processor_drops_every_job() {
    let system = system("video-conference", "snapdragon-x-elite", 3.0);
    let all = system.platform.processors.ids().map(|p| Fault::Lose(Nanos::from_secs(1.0), p)).collect();
    let events = run_on_desk(&system, "edf", 1, all);
    checked(&system, &events, "all lost");
    let lost = events.iter().position(|event| matches!(event.what, What::Lost { .. })).unwrap();
    assert!(!events[lost..].iter().any(|event| matches!(event.what, What::JobDone { .. } | What::Start { .. })));
    let still_alive = events.iter().filter(|event| matches!(event.what, What::Unfinished { .. })).count();
    assert_eq!(still_alive, 0);
}

#[test]
fn the_state_machine_and_the_simulator_agree_when_devices_keep_to_the_profile() {
    // Both start from the same arrivals; what differs is that instants of the runtime are a nanosecond apart.
    const USUAL: &[&str] = &["edf", "fcfs", "onbeat", "static", "heft"];
    const TOGETHER: &[&str] = &["speculative", "hetero-split", "attention-offload"];
    let snapdragon = "snapdragon-x-elite";
    for (scenario, platform, seconds, policies) in [
        ("video-conference", snapdragon, 8.0, USUAL),
        ("game", snapdragon, 8.0, USUAL),
        ("long-answers", "ryzen-ai-7-350", 90.0, TOGETHER),
    ] {
        let mut system = system(scenario, platform, seconds);
        for unit in &mut system.platform.processors {
            // Real devices stop at boundaries; the desk does as they do.
            if unit.preemption == Preemption::Anytime {
                unit.preemption = Preemption::Segment;
            }
        }
        for &policy in policies {
            let made = onbeat_policy::make(policy, &system).unwrap();
            let (_, simulated) = onbeat_sim::simulate(&system, made, policy, 3, Vec::<Event>::new()).unwrap();
            let run = run_on_desk(&system, policy, 3, Vec::new());
            let (a, b) = (summary(&system, policy, &simulated), summary(&system, policy, &run));
            for (i, source) in system.sources.iter().enumerate() {
                for metric in [Metric::ViolationRate, Metric::ResponseP50] {
                    let of = |summary: &Summary| summary.sources[i].values.get(&metric).copied().unwrap_or(0.0);
                    let tolerance = if metric == Metric::ViolationRate { 0.02 } else { of(&a) * 0.02 + 0.01 };
                    let difference = (of(&a) - of(&b)).abs();
                    assert!(
                        difference <= tolerance,
                        "{scenario}, {policy}, {}: {} {} simulated, {} run",
                        source.name,
                        metric.name(),
                        of(&a),
                        of(&b)
                    );
                }
            }
        }
    }
}

/// A powered platform: `speed` and heat on the virtual NPU, governors on all, a power cap.
const POWERED: &str = r#"
    name = "powered"
    duration_s = 4
    [platform]
    name = "p"
    memory = { bandwidth_gbps = 20 }
    [platform.power]
    governor = "GOVERNOR"
    cap_w = 6
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    active_w = 4
    transition_us = 300
    thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 0.02, throttle_c = 50, release_c = 45, step_ms = 20 }
    operating_point = [{ name = "full", speed = 1, volts = 1 }, { name = "mid", speed = 0.8, volts = 0.9 }, { name = "low", speed = 0.5, volts = 0.7 }]
    [[platform.processor]]
    name = "cpu"
    kind = "cpu"
    active_w = 3
    idle_w = 0.1
    leakage_w = 0.1
    operating_point = [{ name = "full", speed = 1 }, { name = "low", speed = 0.4, active_w = 0.5 }]
    [model.a]
    [model.b]
    [model.c]
    shape = "autoregressive"
    [[cost]]
    model = "a"
    processor = "npu"
    latency_ms = 7
    energy_mj = 20
    segments = 3
    [[cost]]
    model = "a"
    processor = "cpu"
    latency_ms = 9
    [[cost]]
    model = "b"
    processor = "npu"
    latency_ms = 12
    bytes_mb = 60
    segments = 4
    [[cost]]
    model = "c"
    processor = "cpu"
    prefill_ms = [[100, 20]]
    decode_ms = [[0, 8]]
    [[stream]]
    name = "a"
    model = "a"
    period_ms = 20
    [[stream]]
    name = "b"
    model = "b"
    period_ms = 33
    [[session]]
    name = "chat"
    model = "c"
    arrival = { process = "poisson", rate_per_s = 1 }
    prompt = 80
    output = 40
    tpot_ms = 50
"#;

#[test]
fn governors_heat_and_a_cap_replay_to_the_same_points() {
    for governor in onbeat_core::power::Governor::ALL {
        let system = System::from_toml(&POWERED.replace("GOVERNOR", governor.name())).unwrap();
        for policy in ["edf", "onbeat", "cycle-conserving-edf", "state-aware"] {
            let what = format!("{policy} with {}", governor.name());
            let events = run_on_desk(&system, policy, 1, Vec::new());
            checked(&system, &events, &what);
            let of = |event: &Event| match event.what {
                What::Power { processor, point, energy_mj, .. } => Some((processor, point, energy_mj.unwrap())),
                _ => None,
            };
            let mut energies = BTreeMap::new();
            let mut points = BTreeSet::new();
            for (processor, point, energy) in events.iter().filter_map(of) {
                assert!(energies.insert(processor, energy).is_none_or(|before| energy >= before), "{what}");
                points.insert((processor, point));
            }
            assert!(points.len() > 2 || governor.name() == "powersave", "{what}: {points:?}");
            let record = as_record(&system, policy, 1, events);
            let made = onbeat_policy::make(policy, &system).unwrap();
            replay(&record, made, policy).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn a_virtual_device_takes_longer_at_a_slower_point_and_a_real_one_is_left_alone() {
    let toml = POWERED.replace("GOVERNOR", "powersave").replace("cap_w = 6", "").replace("= 33", "= 3300");
    let system = System::from_toml(&toml).unwrap();
    let took = |system: &System| {
        let events = run_on_desk(system, "static", 1, Vec::new());
        summary(system, "static", &events).sources[0].values[&Metric::ResponseP50]
    };
    // 7 ms at half of the clock; nothing of it is bound by memory.
    let slow = took(&system);
    assert!((13.9..=14.1).contains(&slow), "{slow}");
    let mut real = system;
    for unit in &mut real.platform.processors {
        unit.device = Some(onbeat_core::system::Device { name: "rten".to_owned(), ..Default::default() });
    }
    let fast = took(&real);
    assert!((6.9..=7.1).contains(&fast), "{fast}");
    let events = run_on_desk(&real, "cycle-conserving-edf", 1, Vec::new());
    assert!(
        events.iter().all(|event| !matches!(event.what, What::Power { point: 1.., .. }) || event.at == Nanos::ZERO)
    );
}

#[test]
fn a_batch_of_frames_shares_the_weights_and_draws_power_for_as_long_as_it_takes() {
    let stream = |name: &str| format!("[[stream]]\nname = \"{name}\"\nmodel = \"m\"\nperiod_ms = 1000\ncount = 1\n");
    let frames = |processor: &str| {
        format!(
            r#"
            name = "frames"
            duration_s = 1
            [platform]
            name = "p"
            memory = {{}}
            [[platform.processor]]
            name = "gpu"
            kind = "gpu"
            {processor}
            [model.m]
            shape = "iterative"
            steps = 4
            weights_mb = 40
            [[cost]]
            model = "m"
            processor = "gpu"
            step_ms = 10
            batch_factor = [[1, 1], [2, 1.5]]
            bytes_mb = 100
            energy_mj = 10
            {}{}
            "#,
            stream("a"),
            stream("b")
        )
    };
    let sums = |events: &[Event]| {
        let of = |event: &Event| match event.what {
            What::Stop { bytes, energy_mj, .. } => Some((bytes.as_mb(), energy_mj.unwrap())),
            _ => None,
        };
        events.iter().filter_map(of).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    for processor in ["", "leakage_w = 0.5\nidle_w = 0.1\nactive_w = 3"] {
        let system = System::from_toml(&frames(processor)).unwrap();
        let events = run_on_desk(&system, "edf", 1, Vec::new());
        // The second joins when the first has done a step; three steps of 15 ms later it goes on alone. A step alone moves 100 MB, one of
        // both 2 × 60 + 40; and what takes half as long again draws 10 mJ in 10 ms all the same.
        let done = events.iter().filter(|event| matches!(event.what, What::JobDone { .. }));
        assert_eq!(done.map(|event| event.at.as_ms().round()).collect::<Vec<_>>(), [55.0, 65.0]);
        let (bytes, energy) = sums(&events);
        assert_eq!(bytes, 100.0 + 3.0 * 160.0 + 100.0);
        assert!((energy - 65.0).abs() < 1e-3, "{energy}");
    }
}

#[test]
fn a_replay_finds_the_first_decision_that_differs() {
    let system = system("video-conference", "snapdragon-x-elite", 2.0);
    let events = run_on_desk(&system, "edf", 1, Vec::new());
    let record = as_record(&system, "edf", 1, events);
    let other = onbeat_policy::make("fcfs", &system).unwrap();
    let error = replay(&record, other, "fcfs").unwrap_err();
    assert!(matches!(error, ReplayError::Different { .. }), "{error}");
    assert!(error.to_string().contains("Asked"), "{error}");
}

#[test]
fn a_simulation_is_no_real_run() {
    let system = system("video-conference", "snapdragon-x-elite", 2.0);
    let mut record = as_record(&system, "edf", 1, Vec::new());
    record.header.driver = "simulator".to_owned();
    let error = replay(&record, onbeat_policy::make("edf", &system).unwrap(), "edf").unwrap_err();
    assert!(error.to_string().contains("onbeat run"), "{error}");
}
