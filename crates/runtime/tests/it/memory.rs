//! Models that do not load, and ones that do not fit.

use onbeat_backend::Error;
use onbeat_core::event::What;

use crate::support::{Script, Setup, scenario};

const TURNS: &str = "[[stream]]\nname = \"x\"\nmodel = \"x\"\nperiod_ms = 100\n\
                     [[stream]]\nname = \"y\"\nmodel = \"y\"\nperiod_ms = 100\nphase_ms = 50\n";

#[test]
fn models_that_do_not_fit_together_are_unloaded_and_loaded_again() {
    let models = [("x", "weights_mb = 600", "latency_ms = 1"), ("y", "weights_mb = 600", "latency_ms = 1")];
    let rest = format!("{TURNS}# one_gigabyte\n");
    let scripts = [("x", Script::default()), ("y", Script::default())];
    let ran = Setup::new(scenario(0.7, &["a"], &models, &rest), &scripts).run();
    let loads = ran.count(|what| matches!(what, What::Load { .. }));
    assert!(loads > 2 && ran.done() > 0, "{loads}");
    // Every load of the schedule was one of the device; the last may have been cut off by the end.
    let real = ran.log.loads.lock().unwrap().len();
    assert!((loads - 1..=loads).contains(&real), "{loads} {real}");
    assert_eq!(ran.count(|what| matches!(what, What::Evict { .. })), loads - 1);
}

#[test]
fn a_model_that_never_fits_waits_and_the_others_go_on() {
    let models = [("x", "weights_mb = 600", "latency_ms = 1"), ("y", "weights_mb = 2000", "latency_ms = 1")];
    let rest = format!("{TURNS}# one_gigabyte\n");
    let scripts = [("x", Script::default()), ("y", Script::default())];
    let ran = Setup::new(scenario(0.5, &["a"], &models, &rest), &scripts).run();
    assert!(ran.count(|what| matches!(what, What::OutOfMemory { .. })) > 0);
    assert_eq!(ran.outputs("y"), Vec::<String>::new());
    assert_eq!(ran.outputs("x").len(), ran.done());
    assert!(ran.done() > 0);
}

fn broken(load: fn(&str, &onbeat_backend::Control) -> Result<(), Error>) -> [(&'static str, Script); 2] {
    [("x", Script { load, ..Script::default() }), ("y", Script::default())]
}

#[test]
fn a_model_that_does_not_load_costs_its_jobs_and_nothing_else() {
    let models = [("x", "", "latency_ms = 1"), ("y", "", "latency_ms = 1")];
    let rest = format!("{TURNS}# not_preloaded\n");
    let toml = scenario(0.5, &["a"], &models, &rest);
    let ran = Setup::new(&*toml, &broken(|_, _| Err(Error::invalid_model("damaged")))).run();
    assert_eq!(ran.outputs("y").len(), ran.done());
    assert!(ran.done() > 0 && ran.failed() > 0, "{ran:?}");
    assert!(ran.kept.troubles.iter().all(|trouble| trouble.what == "damaged"));
    let ran = Setup::new(&*toml, &broken(|_, _| panic!("no loader"))).run();
    assert!(ran.done() > 0 && ran.failed() > 0, "{ran:?}");
    assert!(ran.kept.troubles.iter().all(|trouble| trouble.what == "it panicked: no loader"));
}

#[test]
fn a_model_that_does_not_load_beforehand_is_an_error_that_names_it() {
    let models = [("x", "", "latency_ms = 1"), ("y", "", "latency_ms = 1")];
    let toml = scenario(0.5, &["a"], &models, TURNS);
    let error = Setup::new(&*toml, &broken(|_, _| Err(Error::invalid_model("damaged")))).try_run().unwrap_err();
    assert_eq!(error.to_string(), "`x` on `a`: damaged");
    let error = Setup::new(&*toml, &broken(|_, _| panic!("no loader"))).try_run().unwrap_err();
    assert_eq!(error.to_string(), "`x` on `a`: it panicked: no loader");
}
