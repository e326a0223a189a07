//! Preemption: at once, at segment boundaries, never; and what it costs.

use onbeat_core::event::{StopReason, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{done_at, run_script, times};

/// One long job at 0 ms, one urgent job at 4 ms.
fn scenario(processor: &str, segments: &str) -> String {
    format!(
        r#"
        name = "preemption"
        duration_s = 0.1
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        {processor}
        [model.long]
        [model.short]
        [[cost]]
        model = "long"
        processor = "npu"
        latency_ms = 10
        {segments}
        [[cost]]
        model = "short"
        processor = "npu"
        latency_ms = 2
        [[stream]]
        name = "long"
        model = "long"
        period_ms = 1000
        [[stream]]
        name = "short"
        model = "short"
        period_ms = 1000
        phase_ms = 4
        deadline_ms = 5
        "#
    )
}

/// The job with the earlier deadline first; preempts.
fn urgent_first(view: &View<'_>, actions: &mut Actions) {
    let Some(&first) = view.ready().iter().min_by_key(|&&stage| view.job(stage).deadline) else { return };
    let p = view.processors().next().unwrap();
    if view.free_slots(p) > 0 {
        actions.start(first, p);
        return;
    }
    let run = &view.occupancy(p).runs[0];
    if view.preemptible(p) && !run.ending && view.job(first).deadline < view.job(run.stage).deadline {
        actions.preempt(run.stage);
    }
}

#[test]
fn anytime_keeps_the_progress_within_the_segment() {
    let (system, events) = run_script(&scenario("preemption = \"anytime\"", ""), urgent_first);
    assert_eq!(done_at(&system, &events, "short"), [6.0]);
    assert_eq!(done_at(&system, &events, "long"), [12.0]);
}

#[test]
fn a_segment_ends_before_its_processor_is_given_up() {
    let (system, events) = run_script(&scenario("preemption = \"segment\"", "segments = 4"), urgent_first);
    // Segments end at 2.5, 5, 7.5 and 10 ms: the short job runs from 5 to 7.
    assert_eq!(done_at(&system, &events, "short"), [7.0]);
    assert_eq!(done_at(&system, &events, "long"), [12.0]);
    let preempted = times(&events, |what| matches!(what, What::Stop { why: StopReason::Preempted, .. }));
    assert_eq!(preempted.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [5.0]);
}

#[test]
fn a_boundary_that_is_reached_right_now_counts() {
    let (system, events) = run_script(&scenario("preemption = \"segment\"", "segment_weights = [4, 6]"), urgent_first);
    // The first segment ends at 4 ms, when the short job arrives.
    assert_eq!(done_at(&system, &events, "short"), [6.0]);
    assert_eq!(done_at(&system, &events, "long"), [12.0]);
}

#[test]
fn one_segment_or_never_means_waiting_to_the_end() {
    for processor in ["preemption = \"segment\"", "preemption = \"never\""] {
        let (system, events) = run_script(&scenario(processor, ""), urgent_first);
        assert_eq!(done_at(&system, &events, "short"), [12.0], "{processor}");
    }
}

#[test]
fn switches_and_preemptions_cost_what_the_processor_says() {
    let costs = "preemption = \"anytime\"\nswitch_us = 500\npreempt_us = 250";
    let (system, events) = run_script(&scenario(costs, ""), urgent_first);
    // Preempted at 4, saved until 4.25, switched until 4.75, done at 6.75; switched back until 7.25; 6 ms left.
    assert_eq!(done_at(&system, &events, "short"), [6.75]);
    assert_eq!(done_at(&system, &events, "long"), [13.25]);
}

#[test]
fn preempting_on_a_processor_that_never_does_is_an_error_that_names_the_policy() {
    let system = crate::support::system(&scenario("preemption = \"never\"", ""));
    let script = crate::support::Script(|view, actions| {
        let p = view.processors().next().unwrap();
        match view.occupancy(p).runs.first() {
            Some(run) => actions.preempt(run.stage),
            None => crate::support::first_come(view, actions),
        }
    });
    let error = onbeat_sim::simulate(&system, Box::new(script), "rude", 1, onbeat_core::event::NoSink).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("`rude`") && text.contains("never preempts") && text.contains("4 ms"), "{text}");
}

#[test]
fn a_policy_that_goes_round_in_circles_is_stopped() {
    let system = crate::support::system(&scenario("preemption = \"anytime\"", ""));
    let script = crate::support::Script(|view, actions| {
        crate::support::first_come(view, actions);
        view.ready().iter().for_each(|&stage| actions.preempt(stage));
    });
    let error = onbeat_sim::simulate(&system, Box::new(script), "dizzy", 1, onbeat_core::event::NoSink).unwrap_err();
    assert!(matches!(error, onbeat_sim::SimError::Livelock { .. }), "{error}");
}

#[test]
fn progress_moves_within_a_group_of_identical_processors_and_not_beyond() {
    // Two cores and a separate dsp. A job runs 4 ms on core0, is preempted, and goes on elsewhere.
    let toml = |target: &str| {
        format!(
            r#"
            name = "migration"
            duration_s = 0.1
            [platform]
            name = "p"
            [platform.memory]
            [[platform.processor]]
            name = "core"
            kind = "cpu"
            count = 2
            preemption = "anytime"
            [[platform.processor]]
            name = "dsp"
            kind = "dsp"
            preemption = "anytime"
            [model.m]
            [[cost]]
            model = "m"
            processor = "core"
            latency_ms = 10
            [[cost]]
            model = "m"
            processor = "dsp"
            latency_ms = 10
            [[stream]]
            name = "m"
            model = "m"
            period_ms = 1000
            # Wakes the policy at 4 ms.
            [[stream]]
            name = "{target}"
            model = "m"
            period_ms = 1000
            phase_ms = 4
            "#
        )
    };
    fn to(target: &'static str, view: &View<'_>, actions: &mut Actions) {
        let moved = view.system.processor(target).unwrap();
        let core0 = view.system.processor("core0").unwrap();
        for &stage in view.ready() {
            if view.source(stage).name == "m" {
                let p = if view.now().as_ms() >= 4.0 { moved } else { core0 };
                actions.start(stage, p);
            }
        }
        if view.now().as_ms() == 4.0
            && let Some(run) = view.occupancy(core0).runs.first()
        {
            actions.preempt(run.stage);
        }
    }
    let (system, events) = run_script(&toml("a"), |view, actions| to("core1", view, actions));
    assert_eq!(done_at(&system, &events, "m"), [10.0]);
    let (system, events) = run_script(&toml("b"), |view, actions| to("dsp", view, actions));
    assert_eq!(done_at(&system, &events, "m"), [14.0]);
}
