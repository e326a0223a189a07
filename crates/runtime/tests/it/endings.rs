//! How runs end: at the horizon, by the stop flag, by a policy that errs.

use std::time::Duration;

use onbeat_core::event::What;
use onbeat_core::units::Nanos;

use crate::support::{Fault, Script, Setup, scenario, until_cancelled};

const EVERY: &str = "[[stream]]\nname = \"s\"\nmodel = \"m\"\nperiod_ms = 20\n";

#[test]
fn the_stop_flag_ends_a_run_in_order() {
    let models = [("m", "", "latency_ms = 30\nsegments = 20")];
    let script = Script {
        steps: 20,
        fault: |_, inference, step| (inference == 2 && step == 5).then_some(Fault::Stop),
        ..Script::default()
    };
    let ran = Setup::new(scenario(600.0, &["a"], &models, EVERY), &[("m", script)]).run();
    assert!(ran.finished.ended < Nanos::from_secs(600.0));
    assert_eq!(
        ran.done() + ran.count(|what| matches!(what, What::Unfinished { .. })),
        ran.finished.outcome.jobs as usize
    );
    assert!(ran.done() >= 2);
    // The step that ran at the end was cancelled, or was its last: nothing is lost, and nothing is in trouble.
    assert_eq!(ran.kept.troubles, []);
}

#[test]
fn the_stop_flag_ends_the_loading_of_models() {
    // The first model's load stops the run, as a person would who does not want to wait for the second.
    let models = [("m", "", "latency_ms = 30"), ("n", "", "latency_ms = 30")];
    let rest = format!("{EVERY}[[stream]]\nname = \"t\"\nmodel = \"n\"\nperiod_ms = 20\n");
    let waits = Script { load: |_, control| until_cancelled(control), ..Script::default() };
    let mut setup = Setup::new(scenario(600.0, &["a"], &models, &rest), &[("m", waits), ("n", waits)]);
    setup.stop_at_once = true;
    let ran = setup.run();
    assert_eq!(ran.finished.outcome.jobs, 0);
    assert_eq!(ran.log.loads.lock().unwrap().len(), 1);
}

#[test]
fn what_still_runs_at_the_end_is_cancelled() {
    let models = [("m", "", "latency_ms = 30")];
    let script = Script { steps: 100_000, step: Duration::from_millis(1), ..Script::default() };
    let ran = Setup::new(scenario(0.2, &["a", "b"], &models, EVERY), &[("m", script)]).run();
    assert_eq!(ran.done(), 0);
    assert_eq!(ran.finished.ended, Nanos::from_secs(0.2));
}

#[test]
fn a_policy_that_errs_ends_the_run_with_an_error() {
    let models = [("m", "", "latency_ms = 30")];
    let mut setup = Setup::new(scenario(10.0, &["a"], &models, EVERY), &[("m", Script::default())]);
    setup.rule = |view, actions| {
        for &stage in view.ready() {
            actions.start(stage, view.processors().next().unwrap());
            actions.start(stage, view.processors().next().unwrap());
        }
    };
    let error = setup.try_run().unwrap_err().to_string();
    assert!(error.contains("`rule`"), "{error}");
}
