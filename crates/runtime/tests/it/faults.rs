//! Devices that fail, panic, hang and dawdle.

use std::time::Duration;

use onbeat_core::event::What;
use onbeat_core::id::Id;

use crate::support::{Fault, Script, Setup, scenario};

const EVERY: &str = "[[stream]]\nname = \"s\"\nmodel = \"m\"\nperiod_ms = 20\n";

fn plain(processors: &[&str], script: Script) -> Setup {
    let models = [("m", "", "latency_ms = 2\nsegments = 2")];
    Setup::new(scenario(0.5, processors, &models, EVERY), &[("m", Script { steps: 2, ..script })])
}

#[test]
fn a_step_that_fails_or_panics_costs_its_job_and_nothing_else() {
    let ran = plain(
        &["a"],
        Script {
            fault: |_, inference, step| match (inference % 5, step) {
                (1, 0) => Some(Fault::Fail),
                (3, 1) => Some(Fault::Panic),
                _ => None,
            },
            ..Script::default()
        },
    )
    .run();
    let begun = ran.inputs("m").len();
    let injected = (0..begun).filter(|i| [1, 3].contains(&(i % 5))).count();
    assert!(begun >= 5, "{begun}");
    // The last one may not have come to its fault.
    assert!((injected - 1..=injected).contains(&ran.failed()), "{begun} {injected} {}", ran.failed());
    assert_eq!(ran.count(|what| matches!(what, What::Failed { .. })), ran.failed());
    assert!(ran.kept.troubles.len() >= ran.failed());
    let told: Vec<&str> = ran.kept.troubles.iter().map(|trouble| trouble.what.as_str()).take(2).collect();
    assert_eq!(told, ["it failed", "it panicked: scripted"]);
    assert_eq!(ran.outputs("m").len(), ran.done());
    assert_eq!(ran.count(|what| matches!(what, What::Lost { .. })), 0);
}

#[test]
fn input_that_is_no_good_costs_its_job_and_nothing_else() {
    let mut setup = plain(&["a"], Script::default());
    setup.feed = |index| if index % 3 == 1 { "bad".to_owned() } else { format!("i{index}") };
    let ran = setup.run();
    assert!(ran.failed() >= 1 && ran.done() >= 1, "{ran:?}");
    assert!(ran.kept.troubles.iter().all(|trouble| trouble.what == "this is bad"));
    assert!(ran.outputs("m").iter().all(|output| !output.contains("bad")));
}

#[test]
fn a_processor_that_hangs_is_lost_and_the_other_takes_over() {
    // The third inference on `a` sleeps through its loss and then goes on as if nothing had happened, parts and output included.
    let mut setup = plain(
        &["a", "b"],
        Script {
            fault: |processor, inference, _| {
                (processor == "a" && inference == 2).then_some(Fault::Sleep(Duration::from_millis(1100)))
            },
            ..Script::default()
        },
    );
    setup.toml = setup.toml.replace("duration_s = 0.5", "duration_s = 2.5");
    setup.hang_floor = Duration::from_millis(600);
    let ran = setup.run();
    let lost = ran.events.iter().position(|event| matches!(event.what, What::Lost { .. })).expect("it is lost");
    assert!(matches!(ran.events[lost].what, What::Lost { processor } if processor.index() == 0));
    assert_eq!(ran.count(|what| matches!(what, What::Lost { .. })), 1);
    let starts = |p: usize| {
        let on = |what: &What| matches!(what, What::Start { processor, .. } if processor.index() == p);
        ran.events[lost..].iter().filter(|event| on(&event.what)).count()
    };
    assert_eq!(starts(0), 0);
    assert!(starts(1) > 0);
    assert!(ran.kept.troubles[0].what.contains("counts as lost"), "{:?}", ran.kept.troubles);
    // The job that hung was done again on `b`, and nothing of it came twice.
    let third = ran.inputs("m").iter().filter(|input| *input == "i2").count();
    assert!(third <= 2);
    let mut outputs = ran.outputs("m");
    let all = outputs.len();
    outputs.dedup();
    assert_eq!(outputs.len(), all);
    assert_eq!(all, ran.done());
    assert_eq!(ran.failed(), 0);
}

#[test]
fn the_state_that_a_stream_left_on_a_lost_processor_is_not_asked_for() {
    // The stream lives on `a`; `other` hangs there. The stream begins anew on `b`, because nobody talks to `a` any more.
    let models = [("ear", "shape = \"streaming\"", "latency_ms = 1"), ("other", "", "a@latency_ms = 1")];
    let rest = "[[stream]]\nname = \"s\"\nmodel = \"ear\"\nperiod_ms = 20\ncount = 5\n\
                [[stream]]\nname = \"t\"\nmodel = \"ear\"\nperiod_ms = 20\nphase_ms = 1500\n\
                [[stream]]\nname = \"o\"\nmodel = \"other\"\nperiod_ms = 5000\nphase_ms = 200\n";
    let hang = Script { fault: |_, _, _| Some(Fault::Sleep(Duration::from_secs(4))), ..Script::default() };
    let mut setup =
        Setup::new(scenario(2.0, &["a", "b"], &models, rest), &[("ear", Script::default()), ("other", hang)]);
    setup.hang_floor = Duration::from_millis(600);
    let ran = setup.run();
    assert_eq!(ran.count(|what| matches!(what, What::Lost { .. })), 1);
    // Nothing else can do what hung.
    assert_eq!(ran.failed(), 1);
    assert_eq!(ran.kept.troubles.len(), 1, "{:?}", ran.kept.troubles);
    assert!(ran.done() > 0);
}

#[test]
fn a_device_ten_times_slower_than_its_profile_is_late_and_not_lost() {
    let models = [("m", "", "latency_ms = 2\nsegments = 2")];
    let rest = format!("{EVERY}deadline_ms = 20\ndrop = \"late\"\n");
    let script = Script { steps: 2, step: Duration::from_millis(10), ..Script::default() };
    let ran = Setup::new(scenario(0.6, &["a"], &models, &rest), &[("m", script)]).run();
    assert_eq!(ran.count(|what| matches!(what, What::Lost { .. } | What::Failed { .. })), 0);
    assert!(ran.count(|what| matches!(what, What::Drop { .. })) > 0);
}

#[test]
fn two_slots_of_a_processor_load_a_model_once() {
    let models = [("m", "", "latency_ms = 2")];
    let rest = format!("{EVERY}[[stream]]\nname = \"t\"\nmodel = \"m\"\nperiod_ms = 20\n# not_preloaded\n");
    let slow = Script {
        load: |_, _| {
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        },
        ..Script::default()
    };
    let ran = Setup::new(scenario(0.4, &["a*2"], &models, &rest), &[("m", slow)]).run();
    assert!(ran.done() > 0);
    assert_eq!(ran.log.loads.lock().unwrap().len(), 1);
}
