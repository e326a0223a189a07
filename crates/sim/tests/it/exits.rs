//! Early exits: an inference ends where its input leaves.

use onbeat_core::event::{DropCause, Event, What};
use onbeat_core::id::ProcessorId;
use onbeat_core::policy::{Actions, View};
use onbeat_core::units::{Bytes, Nanos};
use proptest::prelude::*;

use crate::support::{Script, done_at, first_come, jobs_of, run, run_script, system};

/// A camera every 20 ms; its network takes 10 ms, moves 40 MB and costs 8 mJ in all.
fn scenario(exits: &str, cost: &str, stream: &str) -> String {
    format!(
        r#"
        name = "exits"
        duration_s = 100
        [platform]
        name = "p"
        memory = {{}}
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        preemption = "anytime"
        [model.net]
        exits = {exits}
        [[cost]]
        model = "net"
        processor = "npu"
        latency_ms = 10
        bytes_mb = 40
        energy_mj = 8
        {cost}
        [[stream]]
        name = "camera"
        model = "net"
        period_ms = 20
        {stream}
        "#
    )
}

/// What the runs of all stages were: time alone, bytes, energy.
fn stops(events: &[Event]) -> Vec<(Nanos, Bytes, f64)> {
    let of = |event: &Event| match event.what {
        What::Stop { alone, bytes, energy_mj, .. } => Some((alone, bytes, energy_mj.unwrap())),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn what_is_not_computed_costs_no_time_no_traffic_and_no_energy() {
    let (system, events) = run_script(&scenario("[[0.25, 1], [1, 0]]", "", "count = 2"), first_come);
    assert_eq!(done_at(&system, &events, "camera"), [2.5, 22.5]);
    assert_eq!(stops(&events), vec![(Nanos(2_500_000), Bytes(10_000_000), 2.0); 2]);
    assert_eq!(system.sources.as_slice()[0].shortest, Nanos(2_500_000));
}

#[test]
fn the_end_that_policies_may_count_on_does_not_tell_the_exit() {
    /// Two of four segments at a time: half a millisecond later the run is expected to do both, wherever its input leaves.
    fn halves(view: &View<'_>, actions: &mut Actions) {
        let (now, half) = (view.now(), Nanos::from_ms(0.5));
        if let Some(run) = view.occupancy(ProcessorId(0)).runs.first()
            && now == run.start + half
        {
            assert_eq!(run.expected_end, run.start + Nanos::from_ms(5.0));
        }
        for &stage in view.ready() {
            actions.start_segments(stage, ProcessorId(0), 2);
            actions.wake(now + half);
        }
    }
    let (system, events) = run_script(&scenario("[[0.3, 0.5], [1, 0.5]]", "segments = 4", "count = 50"), halves);
    let took: Vec<f64> = jobs_of(&system, &events, "camera").iter().map(|&(at, done)| done.unwrap() - at).collect();
    assert!(took.contains(&3.0) && took.contains(&10.0), "{took:?}");
}

#[test]
fn inputs_leave_by_their_shares_under_every_policy_and_policies_see_the_mean() {
    fn look(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            // 0.2 · 0.25 + 0.3 · 0.5 + 0.5 · 1.
            assert_eq!(view.stage(stage).work.exit, 0.7);
            assert_eq!(view.remaining(stage, ProcessorId(0)), Some(Nanos(7_000_000)));
            assert_eq!(view.remaining_least(stage), Nanos(2_500_000));
        }
        first_come(view, actions);
    }
    let toml = scenario("[[0.25, 0.2], [0.5, 0.3], [1, 0.5]]", "", "count = 4000");
    let (system, events) = run_script(&toml, look);
    let took = |events: &[Event]| -> Vec<f64> {
        jobs_of(&system, events, "camera").into_iter().map(|(release, done)| done.unwrap() - release).collect()
    };
    let all = took(&events);
    let share = |ms: f64| all.iter().filter(|&&took| (took - ms).abs() < 1e-6).count() as f64 / all.len() as f64;
    // Three standard errors of a share of a half among 4000 are 0.024.
    for (ms, expected) in [(2.5, 0.2), (5.0, 0.3), (10.0, 0.5)] {
        assert!((share(ms) - expected).abs() < 0.024, "{ms}: {}", share(ms));
    }
    // The same inputs, in pieces.
    let cut = toml.replace("latency_ms = 10", "latency_ms = 10\nsegments = 8");
    let (_, events) = run_script(&cut, |view, actions| {
        if let Some(&stage) = view.ready().first().filter(|_| view.free_slots(ProcessorId(0)) > 0) {
            actions.start_segments(stage, ProcessorId(0), 1);
        }
    });
    assert_eq!(took(&events), all);
}

#[test]
fn an_input_that_has_passed_an_exit_does_not_take_it() {
    /// One segment at a time.
    fn pieces(view: &View<'_>, actions: &mut Actions) {
        let Some(&stage) = view.ready().first() else { return };
        let live = view.stage(stage);
        // Ends of segments: a quarter, a half, three quarters. The mean of what is left.
        let (mean, least) = match live.position {
            0.0 | 0.25 => (0.75, 0.5),
            _ => (1.0, 1.0),
        };
        assert_eq!(live.work.exit, mean, "at {}", live.position);
        let ms = |units: f64| Nanos((units * 10e6) as u64);
        assert_eq!(view.remaining(stage, ProcessorId(0)), Some(ms(mean - live.position)));
        assert_eq!(view.remaining_least(stage), ms(least - live.position));
        actions.start_segments(stage, ProcessorId(0), 1);
    }
    let (system, events) = run_script(&scenario("[[0.5, 0.5], [1, 0.5]]", "segments = 4", "count = 50"), pieces);
    let took: Vec<f64> =
        done_at(&system, &events, "camera").iter().enumerate().map(|(i, done)| done - 20.0 * i as f64).collect();
    assert!(took.contains(&5.0) && took.contains(&10.0), "{took:?}");
    assert!(took.iter().all(|took| [5.0, 10.0].contains(took)), "{took:?}");
}

#[test]
fn an_exit_within_a_segment_ends_there() {
    let (system, events) = run_script(&scenario("[[0.3, 1], [1, 0]]", "segments = 4", "count = 1"), |view, actions| {
        if let Some(&stage) = view.ready().first() {
            actions.start_segments(stage, ProcessorId(0), 1);
        }
    });
    assert_eq!(done_at(&system, &events, "camera"), [3.0]);
    assert_eq!(stops(&events).iter().map(|stop| stop.0.0).collect::<Vec<_>>(), [2_500_000, 500_000]);
}

#[test]
fn a_variant_has_exits_of_its_own_and_easy_inputs_are_easy_in_all() {
    let toml = |variant: u8| {
        let extra = "[[chain.see.stage]]\nname = 'see'\nmodel = 'net'\nvariants = ['net/other']\n\
                     [[cost]]\nmodel = 'net'\nvariant = 'other'\nprocessor = 'npu'\nlatency_ms = 5\n";
        let toml =
            scenario("[[0.5, 0.5], [1, 0.5]]\nvariant.other = { exits = [[0.2, 0.6], [1, 0.4]] }", "", "count = 300")
                .replace("model = \"net\"\n        period_ms", "chain = \"see\"\n        period_ms");
        let rule: fn(&View<'_>, &mut Actions) = if variant == 0 {
            first_come
        } else {
            |view, actions| {
                for &stage in view.ready().iter().filter(|&&stage| view.stage(stage).variant == 0) {
                    assert!((view.remaining_as(stage, 1, ProcessorId(0)).unwrap().as_ms() - 2.6).abs() < 1e-9);
                    actions.switch(stage, 1);
                }
                first_come(view, actions);
            }
        };
        let (system, events) = run_script(&format!("{toml}{extra}"), rule);
        jobs_of(&system, &events, "camera").into_iter().map(|(at, done)| done.unwrap() - at).collect::<Vec<f64>>()
    };
    let mut seen = [0; 3];
    for (own, other) in toml(0).into_iter().zip(toml(1)) {
        let place = match (own.round() as u32, other.round() as u32) {
            (5, 1) => 0,
            (10, 1) => 1,
            (10, 5) => 2,
            both => panic!("what leaves at half of the one leaves at a fifth of the other: {both:?}"),
        };
        seen[place] += 1;
    }
    assert!(seen.iter().all(|&count| count > 5), "{seen:?}");
}

#[test]
fn a_job_is_hopeless_only_if_the_first_exit_is_too_late() {
    let dropped = |deadline: u32| {
        let stream = format!("count = 1\nphase_ms = 1\ndeadline_ms = {deadline}\ndrop = 'hopeless'");
        let block = "\n[model.block]\n[[cost]]\nmodel = 'block'\nprocessor = 'npu'\nlatency_ms = 8\nbytes_mb = 0\nenergy_mj = 0\n\
                     [[stream]]\nname = 'block'\nmodel = 'block'\nperiod_ms = 500\ncount = 1\n";
        let (_, events) =
            run_script(&format!("{}{block}", scenario("[[0.2, 0.5], [1, 0.5]]", "", &stream)), first_come);
        let hopeless = |event: &&Event| matches!(event.what, What::Drop { cause: DropCause::Hopeless, .. });
        events.iter().find(hopeless).map(|event| event.at.as_ms())
    };
    // Something runs until 8 ms. The first exit takes 2 ms: due at 9 is too early, due at 11 is not.
    assert_eq!(dropped(8).map(f64::round), Some(7.0));
    assert_eq!(dropped(10), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the exits, the segments and the preemptions: each input is computed up to one of its exits, and no further.
    #[test]
    fn the_work_of_an_input_is_that_up_to_its_exit(
        first in 0.01..0.6_f64,
        second in 0.61..0.99_f64,
        segments in 1_u32..7,
        period in 3.0..17.0_f64,
        seed in 0_u64..1000,
    ) {
        let exits = format!("[[{first}, 0.3], [{second}, 0.3], [1, 0.4]]");
        let toml = format!(
            "{}\n[model.small]\n[[cost]]\nmodel = 'small'\nprocessor = 'npu'\nlatency_ms = 1.3\nbytes_mb = 0\nenergy_mj = 0\n\
             [[stream]]\nname = 'often'\nmodel = 'small'\nperiod_ms = {period}\npriority = 9\n",
            scenario(&exits, &format!("segments = {segments}"), "count = 40\npriority = 1")
        ).replace("duration_s = 100", "duration_s = 2");
        let system = system(&toml);
        let rule = |view: &View<'_>, actions: &mut Actions| {
            let p = ProcessorId(0);
            let best = view.ready().iter().copied().max_by_key(|&stage| view.source(stage).priority);
            let Some(best) = best else { return };
            match view.occupancy(p).runs.first() {
                None => actions.start(best, p),
                Some(run) if view.source(run.stage).priority < view.source(best).priority => actions.preempt(run.stage),
                Some(_) => {}
            }
        };
        let events = run(&system, Box::new(Script(rule)), seed);
        prop_assert_eq!(&events, &run(&system, Box::new(Script(rule)), seed), "the same seed, the same events");
        let mut energy = std::collections::BTreeMap::new();
        for event in &events {
            if let What::Stop { stage, energy_mj: Some(mj), .. } = event.what {
                *energy.entry(stage).or_insert(0.0) += mj;
            }
        }
        let done = |stage: u64| events.iter().any(|event| matches!(event.what, What::StageDone { stage: s, .. } if s == stage));
        let mut inputs = 0;
        for (&stage, &mj) in energy.iter().filter(|&(&stage, &mj)| mj > 0.0 && done(stage)) {
            inputs += 1;
            let exit = mj / 8.0;
            prop_assert!([first, second, 1.0].iter().any(|place| (place - exit).abs() < 1e-6), "{stage}: {exit}");
        }
        prop_assert!(inputs > 30, "{inputs}");
    }
}
