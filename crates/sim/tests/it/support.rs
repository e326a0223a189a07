//! What the tests share.

use onbeat_core::event::{Event, What};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_sim::{Checker, simulate};

/// A policy made of one function.
#[derive(Clone, Debug)]
pub(crate) struct Script(pub(crate) fn(&View<'_>, &mut Actions));

impl Policy for Script {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        (self.0)(view, actions);
    }
}

/// Starts ready stages in order on the first processor that is free, one per processor and decision.
pub(crate) fn first_come(view: &View<'_>, actions: &mut Actions) {
    let mut free: Vec<u32> = view.processors().map(|p| view.free_slots(p)).collect();
    for &stage in view.ready() {
        let place = view.processors().find(|&p| free[p.0 as usize] > 0 && view.can_run(stage, p));
        if let Some(p) = place {
            free[p.0 as usize] -= 1;
            actions.start(stage, p);
        }
    }
}

/// The system of a scenario with everything inline.
pub(crate) fn system(toml: &str) -> System {
    System::from_toml(toml).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A processor of a platform, named after its kind.
pub(crate) fn processor(kind: &str, more: &str) -> String {
    format!("[[platform.processor]]\nname = \"{kind}\"\nkind = \"{kind}\"\n{more}\n")
}

/// What a language model costs on a processor: milliseconds for 100 prompt tokens, and for a step.
pub(crate) fn language_cost(model: &str, processor: &str, prefill_ms: f64, step_ms: f64, more: &str) -> String {
    format!(
        r#"
        [[cost]]
        model = "{model}"
        processor = "{processor}"
        prefill_ms = [[100, {prefill_ms}]]
        decode_ms = [[0, {step_ms}]]
        {more}
        "#
    )
}

/// A session with one request, at `start_ms`.
pub(crate) fn request(name: &str, model: &str, start_ms: u32, prompt: u32, output: u32) -> String {
    format!(
        r#"
        [[session]]
        name = "{name}"
        model = "{model}"
        arrival = {{ process = "periodic", period_s = 100, start_s = {} }}
        prompt = {prompt}
        output = {output}
        "#,
        f64::from(start_ms) / 1e3
    )
}

/// The events of a run whose invariants have been checked.
pub(crate) fn run(system: &System, policy: Box<dyn Policy>, seed: u64) -> Vec<Event> {
    let sinks = (Vec::new(), Checker::new(system));
    let (_, (events, checker)) =
        simulate(system, policy, "test", seed, sinks).unwrap_or_else(|error| panic!("{error}"));
    let violations = checker.finish();
    assert!(violations.is_empty(), "{violations:#?}");
    events
}

pub(crate) fn run_script(toml: &str, script: fn(&View<'_>, &mut Actions)) -> (System, Vec<Event>) {
    let system = system(toml);
    let events = run(&system, Box::new(Script(script)), 1);
    (system, events)
}

/// Completions of a source's jobs in order of release: release and, if done, completion [ms].
pub(crate) fn jobs_of(system: &System, events: &[Event], source: &str) -> Vec<(f64, Option<f64>)> {
    let mut jobs = Vec::new();
    for event in events {
        match event.what {
            What::Release { job, source: s, nominal, .. } if system.sources[s].name == source => {
                jobs.push((job, nominal.as_ms(), None));
            }
            What::JobDone { job } => {
                if let Some(entry) = jobs.iter_mut().find(|entry| entry.0 == job) {
                    entry.2 = Some(event.at.as_ms());
                }
            }
            _ => {}
        }
    }
    jobs.into_iter().map(|(_, release, done)| (release, done)).collect()
}

/// Completion times of a source's jobs [ms]; panics if one is not done.
pub(crate) fn done_at(system: &System, events: &[Event], source: &str) -> Vec<f64> {
    jobs_of(system, events, source).into_iter().map(|(_, done)| done.expect("done")).collect()
}

/// Times at which an event of a kind happened.
pub(crate) fn times(events: &[Event], pick: impl Fn(&What) -> bool) -> Vec<Nanos> {
    events.iter().filter(|event| pick(&event.what)).map(|event| event.at).collect()
}
