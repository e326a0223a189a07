//! Chains, streams and drop rules.

use onbeat_core::event::{DropCause, What};

use crate::support::{done_at, first_come, jobs_of, run_script, times};

/// A platform of one processor with models of 1, 2 and 5 ms.
const BASE: &str = r#"
    name = "chains"
    duration_s = 0.1
    [platform]
    name = "p"
    [platform.memory]
    handover_us = 100
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    [[platform.processor]]
    name = "cpu"
    kind = "cpu"
    [model.one]
    [model.two]
    [model.five]
    [model.stateful]
    shape = "streaming"
    [[cost]]
    model = "one"
    processor = "npu"
    latency_ms = 1
    [[cost]]
    model = "two"
    processor = "cpu"
    latency_ms = 2
    [[cost]]
    model = "five"
    processor = "npu"
    latency_ms = 5
    [[cost]]
    model = "stateful"
    processor = "npu"
    latency_ms = 7
    [[cost]]
    model = "stateful"
    processor = "cpu"
    latency_ms = 7
"#;

#[test]
fn a_diamond_waits_for_both_branches_and_pays_for_handing_over() {
    let toml = format!(
        "{BASE}
        [[stream]]
        name = \"s\"
        chain = \"diamond\"
        period_ms = 1000
        [[chain.diamond.stage]]
        name = \"source\"
        model = \"one\"
        [[chain.diamond.stage]]
        name = \"left\"
        model = \"two\"
        after = [{{ stage = \"source\" }}]
        [[chain.diamond.stage]]
        name = \"right\"
        model = \"five\"
        after = [{{ stage = \"source\" }}]
        [[chain.diamond.stage]]
        name = \"join\"
        model = \"one\"
        after = [{{ stage = \"left\" }}, {{ stage = \"right\" }}]
        "
    );
    let (system, events) = run_script(&toml, first_come);
    // source 0-1 on npu; left 1.1-3.1 on cpu; right 1-6 on npu; join 6-7 on npu, its input from npu.
    assert_eq!(done_at(&system, &events, "s"), [7.0]);
    assert_eq!(times(&events, |what| matches!(what, What::StageDone { .. })).len(), 4);
}

#[test]
fn fan_out_makes_instances_and_zero_skips_what_follows() {
    let toml = |fan_out: &str| {
        format!(
            "{BASE}
            [[stream]]
            name = \"s\"
            chain = \"c\"
            period_ms = 10
            count = 9
            [[chain.c.stage]]
            name = \"detect\"
            model = \"five\"
            [[chain.c.stage]]
            name = \"crop\"
            model = \"one\"
            after = [{{ stage = \"detect\", fan_out = {fan_out} }}]
            [[chain.c.stage]]
            name = \"merge\"
            model = \"one\"
            after = [{{ stage = \"crop\" }}]
            "
        )
    };
    let response = |fan_out: &str| {
        let (system, events) = run_script(&toml(fan_out), first_come);
        let jobs = jobs_of(&system, &events, "s");
        jobs.into_iter().map(|(release, done)| (done.unwrap() - release) as u32).collect::<Vec<_>>()
    };
    // detect 5, three crops, merge.
    assert_eq!(response("3"), [9; 9]);
    // One crop and a merge, or neither.
    let some = response("{ kind = \"uniform\", low = 0, high = 1 }");
    assert!(some.contains(&5) && some.contains(&7) && some.iter().all(|&ms| ms == 5 || ms == 7), "{some:?}");
}

#[test]
fn an_edge_with_probability_is_taken_that_often_and_alike_under_every_policy() {
    let toml = format!(
        "{}
        [[stream]]
        name = \"s\"
        chain = \"c\"
        period_ms = 10
        [[chain.c.stage]]
        name = \"first\"
        model = \"one\"
        [[chain.c.stage]]
        name = \"second\"
        model = \"one\"
        after = [{{ stage = \"first\", probability = 0.3 }}]
        ",
        BASE.replace("duration_s = 0.1", "duration_s = 50")
    );
    let (system, events) = run_script(&toml, first_come);
    let jobs = jobs_of(&system, &events, "s");
    let taken = |jobs: &[(f64, Option<f64>)]| {
        jobs.iter().map(|&(release, done)| (done.unwrap() - release) > 1.5).collect::<Vec<_>>()
    };
    let share = taken(&jobs).iter().filter(|&&t| t).count() as f64 / jobs.len() as f64;
    assert!((share - 0.3).abs() < 0.03, "{share}");
    // Last in, first out instead: the same edges are taken.
    let (system, events) = run_script(&toml, |view, actions| {
        let p = view.processors().next().unwrap();
        if let Some(&stage) = view.ready().last().filter(|_| view.free_slots(p) > 0) {
            actions.start(stage, p);
        }
    });
    assert_eq!(taken(&jobs), taken(&jobs_of(&system, &events, "s")));
}

#[test]
fn streaming_models_go_in_order_one_at_a_time() {
    // 7 ms of work every 5 ms, two processors: only one can work on the stream at a time.
    let toml = format!(
        "{BASE}
        [[stream]]
        name = \"s\"
        model = \"stateful\"
        period_ms = 5
        count = 3
        "
    );
    let (system, events) = run_script(&toml, |view, actions| {
        // Alternates between processors, to see the state follow.
        for &stage in view.ready() {
            let last = view.stage(stage).processor;
            let p = view.processors().find(|&p| Some(p) != last && view.free_slots(p) > 0).unwrap();
            actions.start(stage, p);
        }
    });
    // The second and third pay 0.1 ms for bringing the state over.
    let done = done_at(&system, &events, "s");
    assert_eq!(done, [7.0, 14.1, 21.2]);
}

#[test]
fn late_jobs_are_dropped_at_their_deadline_unless_they_run() {
    let toml = format!(
        "{BASE}
        [[stream]]
        name = \"s\"
        model = \"five\"
        period_ms = 3
        deadline_ms = 4
        drop = \"late\"
        count = 3
        "
    );
    let (system, events) = run_script(&toml, first_come);
    // First: 0-5, late but running at its deadline. Second: released 3, runs 5-10. Third: released 6, dropped at 10: the run ends
    // at that instant, but it has not started and is late.
    let jobs = jobs_of(&system, &events, "s");
    assert_eq!(jobs, [(0.0, Some(5.0)), (3.0, Some(10.0)), (6.0, None)]);
    let dropped = times(&events, |what| matches!(what, What::Drop { cause: DropCause::Late, .. }));
    assert_eq!(dropped.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [10.0]);
}

#[test]
fn hopeless_jobs_are_dropped_as_soon_as_they_cannot_make_it() {
    let toml = format!(
        "{BASE}
        [[stream]]
        name = \"s\"
        model = \"five\"
        period_ms = 3
        deadline_ms = 9
        drop = \"hopeless\"
        count = 3
        "
    );
    let (system, events) = run_script(&toml, first_come);
    // First 0-5; second 5-10 (deadline 12); third is released at 6 with deadline 15: hopeless after 10, and starts at 10.
    assert_eq!(done_at(&system, &events, "s"), [5.0, 10.0, 15.0]);
    let (_, events) = run_script(&toml.replace("deadline_ms = 9", "deadline_ms = 8"), first_come);
    // Third: deadline 14, hopeless after 9.
    let dropped = times(&events, |what| matches!(what, What::Drop { cause: DropCause::Hopeless, .. }));
    assert_eq!(dropped.iter().map(|t| t.0).collect::<Vec<_>>(), [9_000_001]);
}

#[test]
fn a_full_queue_loses_the_oldest_waiting_job_or_the_new_one() {
    let toml = |overflow: &str| {
        format!(
            "{BASE}
            [[stream]]
            name = \"s\"
            model = \"five\"
            period_ms = 1
            deadline_ms = 100
            queue = 2
            overflow = \"{overflow}\"
            count = 4
            "
        )
    };
    // Releases at 0 (starts), 1 (waits), 2, 3 (each finds two alive).
    let (system, events) = run_script(&toml("oldest"), first_come);
    assert_eq!(jobs_of(&system, &events, "s"), [(0.0, Some(5.0)), (1.0, None), (2.0, None), (3.0, Some(10.0))]);
    let (system, events) = run_script(&toml("newest"), first_come);
    assert_eq!(jobs_of(&system, &events, "s"), [(0.0, Some(5.0)), (1.0, Some(10.0)), (2.0, None), (3.0, None)]);
}

#[test]
fn phases_of_use_bound_a_stream() {
    let toml = format!(
        "{BASE}
        [[phase]]
        name = \"sharing\"
        start_s = 0.02
        end_s = 0.05
        [[stream]]
        name = \"s\"
        model = \"one\"
        period_ms = 10
        during = [\"sharing\"]
        "
    );
    let (system, events) = run_script(&toml, first_come);
    let releases: Vec<f64> = jobs_of(&system, &events, "s").into_iter().map(|job| job.0).collect();
    assert_eq!(releases, [20.0, 30.0, 40.0]);
}

#[test]
fn a_late_job_that_is_preempted_goes_after_the_decision_with_all_its_stages() {
    // Two branches; the one that runs is preempted after the deadline, while the policy starts the other one in the same decision.
    let toml = format!(
        "{}
        [[stream]]
        name = \"s\"
        chain = \"fork\"
        period_ms = 1000
        deadline_ms = 2
        drop = \"late\"
        [[stream]]
        name = \"wake\"
        model = \"two\"
        period_ms = 1000
        phase_ms = 4
        [[chain.fork.stage]]
        name = \"left\"
        model = \"five\"
        [[chain.fork.stage]]
        name = \"right\"
        model = \"five\"
        ",
        BASE.replace("kind = \"npu\"", "kind = \"npu\"\n    preemption = \"anytime\"")
    );
    let (system, events) = run_script(&toml, |view, actions| {
        let npu = view.system.processor("npu").unwrap();
        let branch = view.ready().iter().copied().find(|&stage| view.source(stage).name == "s");
        match view.occupancy(npu).runs.first() {
            None => branch.into_iter().for_each(|stage| actions.start(stage, npu)),
            Some(run) if view.now().as_ms() == 4.0 && run.start < view.now() => {
                actions.preempt(run.stage);
                if let Some(stage) = branch {
                    actions.start(stage, npu);
                }
            }
            Some(_) => {}
        }
    });
    // The job runs on in its other branch, and is dropped when that stops: it is late and nothing of it runs.
    assert_eq!(jobs_of(&system, &events, "s"), [(0.0, None)]);
    let dropped = times(&events, |what| matches!(what, What::Drop { cause: DropCause::Late, .. }));
    assert_eq!(dropped.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [9.0]);
}
