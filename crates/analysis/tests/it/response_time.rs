//! Response-time bounds: published cases, and against a schedule played through tick by tick.

use onbeat_analysis::response_time::{NoBound, Order, response_times};
use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::curve::{Below, Curve};
use onbeat_core::distribution::Distribution;
use onbeat_core::id::{ProcessorId, SourceId};
use onbeat_core::spec::Preemption;
use onbeat_core::system::Division;
use onbeat_core::units::Nanos;
use proptest::prelude::*;

use crate::support::{Builder, ms};

const P0: ProcessorId = ProcessorId(0);

/// Streams of (execution time, period, deadline) [ms], the first with the highest priority.
fn tasks(tasks: &[(u64, u64, u64)], preemption: Preemption) -> Builder {
    let mut builder = Builder::new(1, ms(1000));
    builder.system.platform.processors[P0].preemption = preemption;
    for (i, &(execution, period, deadline)) in (0_i32..).zip(tasks) {
        let stream = builder.stream(ms(period));
        builder.stage(stream, 1.0, &[Some(execution as f64)], None);
        builder.system.sources[stream].deadline = Some(ms(deadline));
        builder.system.sources[stream].priority = -i;
    }
    builder
}

/// Bounds [ms], rounded to a microsecond: the analyses of non-preemptive tasks know that a job that blocks has started
/// one nanosecond earlier.
fn bounds(builder: &Builder, order: Order) -> Vec<f64> {
    let found = response_times(&builder.system, P0, order);
    found.into_iter().map(|bound| (bound.unwrap().as_ms() * 1000.0).round() / 1000.0).collect()
}

#[test]
fn fixed_priorities_preemptive() {
    // Joseph and Pandya's recurrence on the example of Burns and Wellings' textbook.
    let classic = tasks(&[(3, 7, 7), (3, 12, 12), (5, 20, 20)], Preemption::Anytime);
    assert_eq!(bounds(&classic, Order::FixedPriority), [3.0, 6.0, 20.0]);
    // The analysis crate's own example.
    let crates = tasks(&[(1, 4, 4), (1, 5, 5), (3, 9, 9), (3, 18, 18)], Preemption::Anytime);
    assert_eq!(bounds(&crates, Order::FixedPriority), [1.0, 2.0, 7.0, 18.0]);
    // Lehoczky 1990, examples 2 and 3: the worst response is not the first one.
    let ex2 = tasks(&[(52, 100, 100), (52, 140, 140)], Preemption::Anytime);
    assert_eq!(bounds(&ex2, Order::FixedPriority), [52.0, 156.0]);
    let ex3 = tasks(&[(26, 70, 70), (62, 100, 100)], Preemption::Anytime);
    assert_eq!(bounds(&ex3, Order::FixedPriority), [26.0, 118.0]);
}

#[test]
fn fixed_priorities_without_preemption() {
    // Davis, Burns, Bril and Lukkien 2007 (CAN revisited): three messages of 1 ms with periods 2.5, 3.5, 3.5; here
    // times two.
    let can = tasks(&[(2, 5, 5), (2, 7, 7), (2, 7, 7)], Preemption::Never);
    assert_eq!(bounds(&can, Order::FixedPriority), [4.0, 6.0, 7.0]);
}

#[test]
fn segments_bound_the_blocking() {
    let mut builder = tasks(&[(2, 10, 10), (20, 100, 100)], Preemption::Segment);
    let low = builder.system.nodes.ids().last().unwrap();
    let Some(cost) = &mut builder.system.nodes[low].costs[P0] else { panic!("runs on p0") };
    let PhaseCost::Fixed { boundaries, .. } = &mut cost.phases[0].1 else { panic!("fixed") };
    *boundaries = vec![0.25, 0.5, 0.75, 1.0];
    // Blocked by a segment of 5 ms; the other one suffers from two jobs of 2 ms before its last segment starts at 19 ms.
    assert_eq!(bounds(&builder, Order::FixedPriority), [7.0, 24.0]);
    let one_segment = tasks(&[(2, 10, 10), (20, 100, 100)], Preemption::Segment);
    assert_eq!(bounds(&one_segment, Order::FixedPriority), [22.0, 22.0]);
}

#[test]
fn edf_without_preemption() {
    // Of the analysis crate's tests, which give 89, 90 and 121: there, a blocking job is one whole unit under way (79 + 11 − 1).
    // Here it is one nanosecond under way, and the first two bounds come out one unit longer.
    let builder = tasks(&[(79, 120, 50), (11, 34, 100), (1, 190, 120)], Preemption::Never);
    assert_eq!(bounds(&builder, Order::Edf), [90.0, 91.0, 121.0]);
}

#[test]
fn jitter_counts_from_the_nominal_release() {
    let mut builder = tasks(&[(3, 7, 7), (3, 12, 12)], Preemption::Anytime);
    builder.system.sources[SourceId(0)].jitter = Some(Distribution::constant(2.0e6));
    // The first: 2 + 3. The second: two jobs of the first within ceil((w + 2) / 7): w = 3 + 6 = 9.
    assert_eq!(bounds(&builder, Order::FixedPriority), [5.0, 9.0]);
}

#[test]
fn switches_are_part_of_the_execution() {
    let mut builder = tasks(&[(3, 10, 10), (5, 20, 20)], Preemption::Anytime);
    builder.system.platform.processors[P0].switch_cost = Nanos::from_us(100.0);
    builder.system.platform.processors[P0].preempt_cost = Nanos::from_us(50.0);
    // 0.25 ms each.
    assert_eq!(bounds(&builder, Order::FixedPriority), [3.25, 8.5]);
}

#[test]
fn what_prevents_a_bound_is_named() {
    let reason = |builder: &Builder, i: usize| response_times(&builder.system, P0, Order::Edf)[i].clone().unwrap_err();
    let overloaded = tasks(&[(3, 4, 4), (3, 6, 6)], Preemption::Anytime);
    assert_eq!(reason(&overloaded, 0), NoBound::Overload(125));
    let mut builder = tasks(&[(1, 10, 10), (1, 20, 20)], Preemption::Anytime);
    builder.system.platform.processors[P0].slots = 2;
    assert_eq!(reason(&builder, 0), NoBound::Slots(2));
    builder.system.platform.processors[P0].slots = 1;
    builder.system.platform.processors[P0].division = Some(Division { units: 2, repartition: Nanos::ZERO });
    assert_eq!(reason(&builder, 0), NoBound::Divided, "two runs side by side, and parts that are cut anew");
    builder.system.platform.processors[P0].division = None;
    // A second frame that joins makes the first one's steps half as long again.
    let batch = Some(Curve::new(vec![(1.0, 1.0), (2.0, 1.5)], Below::Hold));
    let steps = PhaseCost::Steps { step_ns: 1e5, bytes: 0.0, energy_mj: None, reuse: None, batch, weights: 0.0 };
    let mut batched = tasks(&[(1, 10, 10), (1, 20, 20)], Preemption::Anytime);
    let node = batched.system.nodes.ids().next().unwrap();
    batched.system.nodes[node].steps = 4;
    batched.system.nodes[node].costs[P0].as_mut().unwrap().phases = vec![(Phase::Steps, steps)];
    assert_eq!(reason(&batched, 0), NoBound::Batches);
    let session = builder.session(1.0);
    builder.language(session, &[Some((1.0, 1.0))], 10, 10);
    assert_eq!(reason(&builder, 2), NoBound::NotPeriodic);
    assert_eq!(reason(&builder, 0).to_string(), "`s2` runs there too, and its arrivals are not periodic");

    let mut two = Builder::new(2, ms(100));
    let elsewhere = two.stream(ms(10));
    two.stage(elsewhere, 1.0, &[None, Some(1.0)], None);
    let either = two.stream(ms(10));
    two.stage(either, 1.0, &[Some(1.0), Some(1.0)], None);
    assert_eq!((reason(&two, 0), reason(&two, 1)), (NoBound::NotHere, NoBound::NotPinned));
    let mut shared = Builder::new(2, ms(100));
    for on in [[Some(1.0), None], [None, Some(1.0)]] {
        let stream = shared.stream(ms(10));
        shared.stage(stream, 1.0, &on, None);
    }
    assert_eq!(response_times(&shared.system, P0, Order::Edf)[0], Ok(ms(1)));
    shared.system.platform.bandwidth = Some(10.0);
    assert_eq!(reason(&shared, 0), NoBound::Contention);
}

/// Largest response times when all tasks are released together, tick by tick; `urgency` orders jobs, smaller first.
fn play(tasks: &[(u64, u64)], ticks: u64, urgency: impl Fn(usize, u64) -> u64) -> Vec<u64> {
    let mut worst = vec![0; tasks.len()];
    let mut live: Vec<(u64, usize, u64, u64)> = Vec::new(); // (urgency, task, release, left)
    for now in 0..ticks {
        for (i, &(execution, period)) in tasks.iter().enumerate() {
            if now % period == 0 {
                live.push((urgency(i, now), i, now, execution));
            }
        }
        live.sort_unstable();
        if let Some(first) = live.first_mut() {
            first.3 -= 1;
            if first.3 == 0 {
                let (_, task, release, _) = live.remove(0);
                worst[task] = worst[task].max(now + 1 - release);
            }
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn bounds_hold_for_schedules_played_through(set in prop::collection::vec((1..5_u64, 4..16_u64), 1..4)) {
        prop_assume!(set.iter().map(|&(c, t)| c as f64 / t as f64).sum::<f64>() <= 1.0);
        let with_deadlines: Vec<_> = set.iter().map(|&(c, t)| (c, t, t)).collect();
        let builder = tasks(&with_deadlines, Preemption::Anytime);
        // Long enough for every hyperperiod of such periods that matters here: a busy period from the common release.
        let fixed = play(&set, 4000, |i, _| i as u64);
        let found = bounds(&builder, Order::FixedPriority);
        // The common release is the critical instant: the bound is exact.
        for (found, played) in found.iter().zip(&fixed) {
            prop_assert_eq!(*found, *played as f64);
        }
        let played = play(&set, 4000, |i, now| now + set[i].1);
        for ((found, played), &(_, period)) in bounds(&builder, Order::Edf).iter().zip(&played).zip(&set) {
            prop_assert!(*found >= *played as f64, "{found} below {played}");
            prop_assert!(*found <= period as f64, "EDF meets implicit deadlines up to full utilisation: {found} above {period}");
        }
    }
}
