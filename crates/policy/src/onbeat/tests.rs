use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::curve::Curve;
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::joint::Together;
use onbeat_core::policy::{Action, Limit};
use onbeat_core::power::{OperatingPoint, PowerModel};
use onbeat_core::spec::{DropRule, Preemption, VariationKind};
use onbeat_core::state::Part;
use onbeat_core::system::{Arrival, Division, Variation};
use onbeat_core::units::Nanos;

use crate::speculative::tests::let_draft;
use crate::test_rig::{Rig, ms, start};

#[test]
fn does_not_wait_for_work_that_is_overdue() {
    let mut rig = Rig::new(&[("cpu0", Preemption::Never), ("cpu1", Preemption::Never)]);
    let long = rig.stream("long", None, &[Some(10.0), Some(10.0)]);
    let frame = rig.stream("frame", Some(16.0), &[Some(1.0), Some(1.0)]);
    rig.running(long, 0, 0.0);
    // Expected to end at 10 ms, and still running: it may go on until 36 ms.
    rig.state.now = ms(18.0);
    rig.state.processors[ProcessorId(0)].runs[0].expected_end = ms(10.0);
    let stage = rig.ready(frame, 18.0);
    assert_eq!(rig.decide("onbeat"), [start(stage, 1)], "the other processor is as fast, and free");
}

#[test]
fn waits_for_a_much_faster_processor_that_is_free_soon() {
    let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
    let long = rig.stream("long", None, &[None, Some(2.0)]);
    let frame = rig.stream("frame", Some(30.0), &[Some(20.0), Some(1.0)]);
    rig.running(long, 1, 0.0);
    let _frame = rig.ready(frame, 0.0);
    // On the NPU at 2 + 1 = 3 ms, on the CPU at 20 ms.
    assert_eq!(rig.decide("onbeat"), []);
}

#[test]
fn idle_time_work_gives_way_only_at_the_end_of_its_segment() {
    for (preemption, first) in [(Preemption::Segment, 1), (Preemption::Anytime, 0)] {
        let mut rig = Rig::new(&[("npu", preemption), ("gpu", Preemption::Segment)]);
        let notes = rig.stream("notes", None, &[Some(42.0), None]);
        rig.system.sources[notes].best_effort = true;
        let frame = rig.stream("frame", Some(33.0), &[Some(2.0), Some(10.0)]);
        let background = rig.running(notes, 0, 0.0);
        let stage = rig.ready(frame, 0.0);
        let waits = vec![crate::test_rig::preempt(background)];
        // On the NPU it would be done after 2 ms, or after 42 + 2.
        assert_eq!(rig.decide("onbeat"), if first == 1 { vec![start(stage, 1)] } else { waits });
    }
}

#[test]
fn work_that_nobody_waits_for_leaves_the_processor_that_a_question_would_need() {
    for (latency, place) in [(800.0, 0), (1100.0, 1)] {
        let mut rig = Rig::new(&[("npu", Preemption::Never), ("cpu", Preemption::Never)]);
        // A question needs 100 ms on the NPU for its first token, which is due after 1000 ms: it can wait for 900.
        let chat = rig.session("chat", &[5.0, 5.0], 1);
        let node = rig.system.nodes_of(chat).next().unwrap();
        rig.system.nodes[node].costs[ProcessorId(1)] = None;
        let index = rig.stream("index", None, &[Some(latency), Some(3000.0)]);
        rig.system.sources[index].arrival = Arrival::Periodic { first: Nanos::ZERO, period: ms(5000.0) };
        let stage = rig.ready(index, 0.0);
        assert_eq!(rig.decide("onbeat"), [start(stage, place)], "{latency} ms");
    }
}

#[test]
fn patience_counts_from_when_work_was_last_served() {
    let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
    let notes = rig.session("notes", &[40.0], 1);
    (rig.system.sources[notes].ttft, rig.system.sources[notes].tpot) = (None, None);
    let frame = rig.stream("frame", Some(50.0), &[Some(20.0)]);
    let mut policy = rig.make("onbeat");
    let answer = rig.ready_decode(notes, 0.0);
    rig.state.now = ms(550.0);
    let Action::Start { stage, limit, .. } = rig.decide_with(&mut policy)[0] else { panic!("it starts") };
    assert_eq!((stage, limit), (answer, Some(Limit::Segments(1))));
    rig.state.now = ms(590.0);
    let stage = rig.ready(frame, 590.0);
    assert_eq!(rig.decide_with(&mut policy), [start(stage, 0)]);
}

#[test]
fn an_answer_never_runs_to_an_end_that_nobody_knows() {
    let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
    let chat = rig.session("chat", &[5.0], 1);
    let answer = rig.ready_decode(chat, 0.0);
    // One step before the expected end; quanta of 20 ms hold four.
    rig.state.stages[answer].position = rig.state.stages[answer].work.units(Phase::Decode) - 1.0;
    let Action::Start { limit, .. } = rig.decide("onbeat")[0] else { panic!("it starts") };
    assert_eq!(limit, Some(Limit::Segments(1)));
}

#[test]
fn answers_that_are_too_slow_alone_are_drafted_and_keep_their_drafter() {
    let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment), ("cpu", Preemption::Segment)]);
    let small = rig.session("small", &[9.0, 3.0, 4.0], 1);
    // 50 ms per token is the goal.
    for (step, drafts) in [(60.0, true), (40.0, false)] {
        let large = rig.session("large", &[step, 90.0, 90.0], 1);
        let_draft(&mut rig, small, large, 0.8);
        let stage = rig.ready_decode(large, 0.0);
        let decided = rig.decide("onbeat");
        let drafted = matches!(decided[0], Action::StartTogether { stage: s, processor: ProcessorId(0), together: Together::Draft { processor: ProcessorId(1), .. }, .. } if s == stage);
        assert_eq!(drafted, drafts, "{step} ms per token: {decided:?}");
        if drafts {
            // The CPU could draft, too, but would have to read the context first.
            rig.state.stages[stage].drafted = Some((ProcessorId(1), 101));
            let busy = rig.stream("busy", Some(50.0), &[None, Some(20.0), None]);
            rig.running(busy, 1, 0.0);
            assert!(matches!(rig.decide("onbeat")[0], Action::Start { stage: s, .. } if s == stage));
        }
        rig.state.ready.clear();
    }
}

#[test]
fn nobody_joins_a_batch_that_makes_room() {
    let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
    let chat = rig.session("chat", &[5.0], 4);
    let frame = rig.stream("frame", Some(12.0), &[Some(4.0)]);
    let writing = rig.running_decode(chat, 0, 0.0);
    let answer = rig.ready_decode(chat, 0.0);
    assert_eq!(rig.decide("onbeat"), [start(answer, 0)], "it joins");
    rig.state.now = ms(1.0);
    let _frame = rig.ready(frame, 1.0);
    assert_eq!(rig.decide("onbeat"), [crate::test_rig::preempt(writing)]);
}

#[test]
fn what_would_be_slowed_down_by_others_counts_with_the_time_that_it_takes_then() {
    let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
    let writing = rig.stream("writing", None, &[Some(100.0), None]);
    let bulk = rig.stream("bulk", None, &[None, Some(18.0)]);
    let _frames = rig.stream("frames", Some(30.0), &[None, Some(20.0)]);
    for source in [writing, bulk] {
        let node = rig.system.nodes_of(source).next().unwrap();
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            // All of it is reading, at 10 bytes per nanosecond.
            if let PhaseCost::Fixed { latency_ns, bytes, .. } = &mut cost.phases[0].1 {
                *bytes = *latency_ns * 10.0;
            }
        }
    }
    rig.system.platform.bandwidth = Some(10.0);
    rig.running(writing, 0, 0.0);
    let stage = rig.ready(bulk, 10.0);
    rig.state.now = ms(10.0);
    assert_eq!(rig.decide("onbeat"), [start(stage, 1)], "until 28; a frame comes at 30");
    rig.system.contention = true;
    assert_eq!(rig.decide("onbeat"), [], "until 46, and a frame that starts then takes until 66");
}

#[test]
fn what_several_processors_do_makes_room_only_where_all_of_them_preempt() {
    for (helper, room) in [(Preemption::Segment, true), (Preemption::Never, false)] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", helper)]);
        let long = rig.stream("long", None, &[Some(100.0), None]);
        let frame = rig.stream("frame", Some(110.0), &[Some(5.0), None]);
        let divided = rig.running(long, 0, 0.0);
        let run = &mut rig.state.processors[ProcessorId(0)].runs[0];
        run.over = ProcessorSet::of(ProcessorId(0)).with(ProcessorId(1));
        run.expected_end = ms(300.0);
        rig.state.now = ms(1.0);
        rig.ready(frame, 1.0);
        let asked = rig.decide("onbeat").contains(&crate::test_rig::preempt(divided));
        assert_eq!(asked, room, "{helper:?}");
    }
}

#[test]
fn what_can_be_preempted_is_in_nobodys_way_in_plans() {
    for (preemption, starts) in [(Preemption::Anytime, true), (Preemption::Never, false)] {
        let mut rig = Rig::new(&[("cpu", preemption), ("gpu", Preemption::Segment)]);
        let long = rig.stream("long", None, &[Some(500.0), None]);
        let bulk = rig.stream("bulk", None, &[None, Some(150.0)]);
        let _frames = rig.stream("frames", Some(66.0), &[Some(15.0), Some(3.0)]);
        rig.running(long, 0, 0.0);
        rig.state.now = ms(10.0);
        let stage = rig.ready(bulk, 10.0);
        // The GPU is taken until 160 then; the frame of 66 ms is due at 132, and fits if the CPU is taken from the long work.
        assert_eq!(rig.decide("onbeat") == [start(stage, 1)], starts, "{preemption:?}");
    }
}

#[test]
fn a_prompt_waits_while_answers_take_all_that_there_is() {
    for (step, batch, waits) in [(30.0, 1, true), (20.0, 1, false), (30.0, 2, false)] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("cpu", Preemption::Segment)]);
        // 50 ms per token is the goal: the CPU is too slow, and the GPU writes two answers only at 25 ms per step or in a batch.
        let chat = rig.session("chat", &[step, 90.0], batch);
        let mut policy = rig.make("onbeat");
        let writing = rig.running_decode(chat, 0, 0.0);
        let prompt = rig.ready(chat, 0.0);
        let first = rig.decide_with(&mut policy);
        let started = |actions: &[Action]| matches!(actions, [Action::Start { stage, processor: ProcessorId(1), .. }] if *stage == prompt);
        if !waits {
            assert!(started(&first), "{step} ms: {first:?}");
            continue;
        }
        // Its 100 ms, and half as much to be safe, before the first token is due.
        assert_eq!(first, [Action::Wake { at: ms(850.0) }]);
        let now = |rig: &mut Rig, at: f64| {
            rig.state.now = ms(at);
            rig.state.processors[ProcessorId(0)].runs[0].expected_end = ms(at + 30.0);
        };
        now(&mut rig, 849.0);
        assert_eq!(rig.decide_with(&mut policy), []);
        now(&mut rig, 850.0);
        assert!(started(&rig.decide_with(&mut policy.clone())), "the last moment");
        // The other answer has come to its end.
        rig.state.now = ms(849.0);
        rig.state.processors[ProcessorId(0)].runs.clear();
        rig.state.stages.remove(writing);
        assert!(matches!(rig.decide_with(&mut policy)[..], [Action::Start { stage, .. }] if stage == prompt));
    }
}

#[test]
fn only_what_is_late_at_the_very_least_is_dropped() {
    for (spread, dropped) in [(0.5, false), (0.1, true)] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let frames = rig.stream("frames", Some(40.0), &[Some(50.0)]);
        rig.system.sources[frames].drop = DropRule::Late;
        rig.system.variation = Variation { kind: VariationKind::Uniform, spread };
        let stage = rig.ready(frames, 0.0);
        let job = rig.state.stages[stage].job;
        // From 25 ms, or from 45.
        let decided = rig.decide("onbeat");
        assert_eq!(decided, if dropped { vec![Action::Drop { job }] } else { vec![start(stage, 0)] });
    }
}

#[test]
fn a_prompt_is_cut_as_the_next_frame_allows() {
    for (pieces, groups, limit) in [(false, 1, None), (true, 1, Some(Some(Limit::Units(25)))), (false, 50, Some(None))]
    {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        let chat = rig.session("chat", &[5.0], 1);
        let _frames = rig.stream("frames", Some(33.0), &[Some(8.0)]);
        let node = rig.system.nodes_of(chat).next().unwrap();
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            if let PhaseCost::Prefill { pieces: of, .. } = &mut cost.phases[0].1 {
                of.efficiency = pieces.then(|| Curve::constant(1.0));
                of.layer_groups = groups;
            }
        }
        rig.state.now = ms(20.0);
        let prompt = rig.ready(chat, 20.0);
        // The frame of 33 ms needs the processor from 58 on: all of the prompt would take until 120, half of it until 70, a quarter until
        // 45. With 50 groups it gives way within 2 ms.
        let action = |limit| Action::Start { stage: prompt, processor: ProcessorId(0), limit, units: None };
        assert_eq!(rig.decide("onbeat"), limit.map(action).into_iter().collect::<Vec<_>>(), "{groups} groups");
    }
}

#[test]
fn what_would_slow_down_an_answer_beyond_its_deadline_waits() {
    for (due, starts) in [(100.0, true), (60.0, false)] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment), ("npu", Preemption::Segment)]);
        let answer = rig.stream("answer", Some(due), &[Some(50.0), None]);
        let hog = rig.stream("hog", Some(1000.0), &[None, Some(40.0)]);
        for source in [answer, hog] {
            let node = rig.system.nodes_of(source).next().unwrap();
            for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
                // All of it is reading, at 10 bytes per nanosecond.
                if let PhaseCost::Fixed { latency_ns, bytes, .. } = &mut cost.phases[0].1 {
                    *bytes = *latency_ns * 10.0;
                }
            }
        }
        (rig.system.platform.bandwidth, rig.system.contention) = (Some(10.0), true);
        rig.running(answer, 0, 0.0);
        let stage = rig.ready(hog, 0.0);
        // Beside each other both take twice as long: the answer 90 ms.
        assert_eq!(rig.decide("onbeat") == [start(stage, 1)], starts, "due at {due} ms");
    }
}

#[test]
fn a_prompt_shares_steps_where_the_profile_lets_it() {
    for mixed in [true, false] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[20.0], 4);
        if mixed {
            rig.mix(chat);
        }
        rig.running_decode(chat, 0, 0.0);
        rig.state.now = ms(1.0);
        let prompt = rig.ready(chat, 1.0);
        let decided = rig.decide("onbeat");
        let shares =
            matches!(decided[..], [Action::Start { stage, limit: Some(Limit::Units(_)), .. }] if stage == prompt);
        assert_eq!((shares, decided.is_empty()), (mixed, !mixed), "{decided:?}");
    }
}

#[test]
fn an_answer_that_is_longer_than_expected_takes_its_units_like_any_other() {
    let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
    let chat = rig.session("chat", &[5.0], 1);
    rig.system.platform.processors[ProcessorId(0)].division = Some(Division { units: 4, repartition: Nanos::ZERO });
    rig.state.processors[ProcessorId(0)].parts = vec![Part { units: 4, run: None, last_model: None }];
    let node = rig.system.nodes_of(chat).next().unwrap();
    for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
        cost.widths.widest = 4;
    }
    for _ in 0..2 {
        let answer = rig.ready_decode(chat, 0.0);
        rig.state.stages[answer].position = rig.state.stages[answer].work.units(Phase::Decode) + 3.0;
    }
    let decided = rig.decide("onbeat");
    assert!(matches!(decided[..], [Action::Start { units: Some(4), .. }]), "{decided:?}");
}

#[test]
fn a_slow_clock_counts() {
    for (speed, place) in [(1.0, 0), (0.4, 1)] {
        let mut rig = Rig::new(&[("npu", Preemption::Segment), ("gpu", Preemption::Segment)]);
        let frames = rig.stream("frames", Some(20.0), &[Some(10.0), Some(14.0)]);
        let mut model = PowerModel::fixed(0.0, Some(1.0));
        model.points.push(OperatingPoint { speed, ..model.points[0].clone() });
        rig.system.platform.processors[ProcessorId(0)].power = Some(model);
        rig.state.power[ProcessorId(0)].point = 1;
        let stage = rig.ready(frames, 0.0);
        assert_eq!(rig.decide("onbeat"), [start(stage, place)], "{} ms on the NPU", 10.0 / speed);
    }
}

#[test]
fn an_answer_that_has_to_end_in_time_runs_the_variant_that_does() {
    for (deadline, variant) in [(2200.0, 0), (1000.0, 1)] {
        let mut rig = Rig::new(&[("gpu", Preemption::Segment)]);
        // 100 ms of prompt and 100 tokens of 20 ms; the lighter variant writes them in 4.
        let chat = rig.session("chat", &[20.0], 1);
        let source = &mut rig.system.sources[chat];
        (source.ttft, source.tpot, source.deadline) = (None, None, Some(ms(deadline)));
        rig.variant(chat, &[Some(1.0)], 0.8);
        let node = rig.system.nodes_of(chat).next().unwrap();
        let mut light = rig.system.nodes[node].costs.clone();
        for cost in light.iter_mut().flatten() {
            cost.phases[1].1 = PhaseCost::decode(Curve::constant(4e6));
        }
        rig.system.nodes[node].variants[0].costs = light;
        let stage = rig.ready(chat, 0.0);
        let switched = rig.decide("onbeat").contains(&Action::Switch { stage, variant: 1 });
        assert_eq!(switched, variant == 1, "due at {deadline} ms");
    }
}
