//! Variants: what is chosen is what is loaded and executed.

use onbeat_core::event::What;
use onbeat_core::policy::{Actions, View};

use onbeat_runtime::RunError;

use crate::support::{Script, Setup, first_come, scenario};

const CHOICE: &str = "[[cost]]\nmodel = \"x\"\nvariant = \"light\"\nprocessor = \"a\"\nlatency_ms = 1\n\
                      [[stream]]\nname = \"s\"\nchain = \"c\"\nperiod_ms = 20\n\
                      [[chain.c.stage]]\nname = \"only\"\nmodel = \"x\"\nvariants = \"any\"\n";

/// Every other job runs the lighter variant.
fn in_turn(view: &View<'_>, actions: &mut Actions) {
    for &stage in view.ready() {
        let wanted = (view.job(stage).serial % 2) as u8;
        if view.stage(stage).variant != wanted {
            actions.switch(stage, wanted);
        }
    }
    first_come(view, actions);
}

fn run(spec: &str, rest: &str) -> crate::support::Ran {
    let toml = scenario(0.4, &["a"], &[("x", spec, "latency_ms = 2\nsegments = 2")], &format!("{CHOICE}{rest}"));
    let heavy = Script { steps: 2, ..Script::default() };
    let scripts = [("x", heavy), ("x/light", Script::default())];
    Setup { rule: in_turn, ..Setup::new(toml, &scripts) }.run()
}

#[test]
fn the_variant_that_a_policy_chooses_is_executed() {
    let ran = run("weights_mb = 8\nvariant.light = { weights_mb = 2 }", "");
    assert!(ran.done() > 4, "{ran:?}");
    let begun = ran.log.begun.lock().unwrap();
    for (name, _, input) in begun.iter() {
        let index: u64 = input.trim_start_matches('i').parse().unwrap();
        assert_eq!(name, if index.is_multiple_of(2) { "x" } else { "x/light" });
    }
    assert!(ran.count(|what| matches!(what, What::Switch { variant: 1, .. })) >= begun.len() / 2);
    // Loaded before time began, once each.
    let loads = ran.log.loads.lock().unwrap();
    assert_eq!(loads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x", "x/light"]);
}

#[test]
fn a_variant_with_shared_weights_is_a_network_of_its_own() {
    let ran = run("weights_mb = 8\nvariant.light = { shares_weights = true }", "");
    assert_eq!(ran.count(|what| matches!(what, What::Load { .. })), 1, "nominally");
    let loads = ran.log.loads.lock().unwrap();
    assert_eq!(loads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x", "x/light"]);
    assert!(ran.done() > 4);
}

#[test]
fn variants_that_do_not_fit_together_take_turns() {
    let ran = run("weights_mb = 600\nvariant.light = { weights_mb = 500 }", "# one_gigabyte\n");
    let loads = ran.count(|what| matches!(what, What::Load { .. }));
    assert!(loads > 2, "{loads}");
    let real = ran.log.loads.lock().unwrap().len();
    assert!((loads - 1..=loads).contains(&real), "{loads} {real}");
    assert!(ran.done() > 1);
}

#[test]
fn early_exits_are_refused() {
    let stream = "[[stream]]\nname = \"s\"\nmodel = \"x\"\nperiod_ms = 20\n";
    let toml = scenario(0.1, &["a"], &[("x", "exits = [[0.5, 0.5], [1, 0.5]]", "latency_ms = 2")], stream);
    let ran = Setup::new(toml, &[("x", Script::default())]).try_run();
    assert!(matches!(ran, Err(RunError::Exits { stage }) if stage == "x"));
}

#[test]
fn content_is_rehearsed_and_refused_where_inputs_are_real() {
    let stream = "[content.street]\nclasses = [{ name = \"slow\", share = 0.5, scene_s = 0.02 }, { name = \"fast\", share = 0.5, scene_s = 0.02 }]\n\
                  [[stream]]\nname = \"s\"\nchain = \"c\"\nperiod_ms = 10\ncontent = \"street\"\n\
                  [[chain.c.stage]]\nname = \"only\"\nmodel = \"x\"\nwork_by_content = { fast = 2 }\n";
    let on = |processors: &[&str]| {
        let toml = scenario(0.2, processors, &[("x", "", "latency_ms = 2")], stream);
        Setup::new(toml, &[("x", Script::default())]).try_run()
    };
    let refused = on(&["v:virtual", "a"]);
    assert!(matches!(refused, Err(RunError::Content { stream, processor }) if stream == "s" && processor == "a"));
    let ran = on(&["v:virtual"]).unwrap();
    let mut classes = [0; 2];
    let mut seen = std::collections::BTreeMap::new();
    for event in &ran.events {
        match event.what {
            What::Release { job, content, .. } => {
                let class = content.expect("the stream looks at something");
                classes[usize::from(class)] += 1;
                seen.insert(job, class);
            }
            What::Ready { stage, job, .. } => assert_eq!(stage, job, "one stage per job"),
            // What is fast takes twice as long.
            What::Stop { stage, alone, .. } if alone.as_ms() > 1.0 => {
                let expected = if seen[&stage] == 1 { 4.0 } else { 2.0 };
                assert!((alone.as_ms() - expected).abs() < 0.01, "{alone}");
            }
            _ => {}
        }
    }
    assert!(classes[0] > 0 && classes[1] > 0, "{classes:?}");
}
