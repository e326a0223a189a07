//! Sessions that move between processors, and ones that are preempted.

use std::time::Duration;

use onbeat_core::event::{StopReason, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{Script, Setup, scenario};

/// Every job on another processor than the one before.
fn in_turns(view: &View<'_>, actions: &mut Actions) {
    for &stage in view.ready() {
        let p = view.processors().nth((view.job(stage).serial % 2) as usize).unwrap();
        if view.free_slots(p) > 0 {
            actions.start(stage, p);
            return;
        }
    }
}

const STREAM: &str = "[[stream]]\nname = \"s\"\nmodel = \"ear\"\nperiod_ms = 25\n";

#[test]
fn a_stream_hears_everything_in_order_though_it_moves_all_the_time() {
    let models = [("ear", "shape = \"streaming\"", "latency_ms = 1")];
    let mut setup = Setup::new(scenario(0.5, &["a", "b"], &models, STREAM), &[("ear", Script::default())]);
    setup.rule = in_turns;
    let ran = setup.run();
    let mut heard = String::new();
    let outputs = ran.outputs("ear");
    assert!(outputs.len() > 1, "{outputs:?}");
    for (i, output) in outputs.iter().enumerate() {
        heard = format!("{heard}i{i};");
        assert_eq!(*output, format!("ear({heard})"));
    }
}

/// Segments one at a time, each on the other processor.
fn one_segment_each(view: &View<'_>, actions: &mut Actions) {
    for &stage in view.ready() {
        let last = view.stage(stage).processor.map_or(1, |p| p.0);
        let p = view.processors().nth((1 - last) as usize).unwrap();
        if view.free_slots(p) > 0 {
            actions.start_segments(stage, p, 1);
            return;
        }
    }
}

#[test]
fn an_inference_goes_on_elsewhere_where_it_stopped() {
    let models = [("long", "", "latency_ms = 4\nsegments = 4")];
    let rest = STREAM.replace("ear", "long").replace("25", "60");
    let script = Script { steps: 4, ..Script::default() };
    let mut setup = Setup::new(scenario(0.5, &["a", "b"], &models, &rest), &[("long", script)]);
    setup.rule = one_segment_each;
    let ran = setup.run();
    assert!(ran.done() > 0);
    assert!(ran.count(|what| matches!(what, What::Stop { why: StopReason::Quantum, .. })) >= 3 * ran.done());
    ran.assert_each_step_once("long");

    // One that cannot be moved does again what it did elsewhere, and comes to the same end.
    setup.scripts = vec![("long", Script { movable: false, ..script })];
    let ran = setup.run();
    assert!(ran.done() > 0 && ran.failed() == 0);
    assert_eq!(ran.outputs("long")[0], "long(i0)");
}

/// Short jobs first; they take the processor from long ones.
fn short_first(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let short = view.ready().iter().copied().find(|&stage| view.source(stage).name == "short");
    let Some(first) = short.or_else(|| view.ready().first().copied()) else { return };
    match view.occupancy(p).runs.first() {
        None => actions.start(first, p),
        Some(run) if short.is_some() && !run.ending && view.source(run.stage).name != "short" => {
            actions.preempt(run.stage);
        }
        Some(_) => {}
    }
}

#[test]
fn a_preempted_session_resumes_where_it_stopped() {
    let models = [("long", "", "latency_ms = 60\nsegments = 30"), ("short", "", "latency_ms = 1")];
    let rest = "[[stream]]\nname = \"long\"\nmodel = \"long\"\nperiod_ms = 150\n\
                [[stream]]\nname = \"short\"\nmodel = \"short\"\nperiod_ms = 17\nphase_ms = 5\n";
    let long = Script { steps: 30, step: Duration::from_millis(2), ..Script::default() };
    let mut setup = Setup::new(scenario(1.5, &["a"], &models, rest), &[("long", long), ("short", Script::default())]);
    setup.rule = short_first;
    let ran = setup.run();
    assert!(ran.count(|what| matches!(what, What::Stop { why: StopReason::Preempted, .. })) > 0);
    assert!(!ran.outputs("long").is_empty());
    ran.assert_each_step_once("long");
}
