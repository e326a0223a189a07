//! The same inputs give the same bytes.

use onbeat_core::record::{Header, Recorder};
use onbeat_core::system::System;
use onbeat_sim::{Engine, simulate};

use crate::support::system;

fn mixed() -> System {
    system(crate::properties::MIXED)
}

fn record(system: &System, policy: &str, seed: u64) -> Vec<u8> {
    let header = Header::new(system, "simulator", policy, seed);
    let recorder = Recorder::new(Vec::new(), &header).unwrap();
    let made = onbeat_policy::make(policy, system).unwrap();
    let (_, recorder) = simulate(system, made, policy, seed, recorder).unwrap();
    recorder.finish().unwrap()
}

#[test]
fn same_seed_same_bytes_in_one_thread_and_in_many() {
    let system = mixed();
    for policy in onbeat_policy::all() {
        let alone = record(&system, policy.name, 3);
        let together: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| record(&system, policy.name, 3))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for other in together {
            assert!(other == alone, "{} differs between threads", policy.name);
        }
        assert!(record(&system, policy.name, 4) != alone, "{}: the seed makes no difference", policy.name);
    }
}

#[test]
fn another_policy_changes_no_arrival_and_no_length() {
    use onbeat_core::event::What;
    let system = mixed();
    let arrivals = |policy: &str| {
        let made = onbeat_policy::make(policy, &system).unwrap();
        let events = crate::support::run(&system, made, 5);
        // Lengths of the requests: a language model that starts a chain is ready when its job is released.
        let chat = system.sources.enumerate().find(|(_, source)| source.name == "chat").unwrap().0;
        let mut requests = std::collections::BTreeMap::new();
        for event in &events {
            match event.what {
                What::Release { job, source, nominal, .. } if source == chat => {
                    requests.insert(job, (nominal, 0, 0));
                }
                What::Ready { job, prompt, output, .. } if prompt > 0 => {
                    let entry = requests.get_mut(&job).unwrap();
                    (entry.1, entry.2) = (prompt, output);
                }
                _ => {}
            }
        }
        let mut requests: Vec<_> = requests.into_values().collect();
        requests.sort_unstable();
        let mut releases: Vec<_> = events
            .iter()
            .filter_map(|e| match e.what {
                What::Release { source, nominal, .. } => Some((source, nominal, e.at)),
                _ => None,
            })
            .collect();
        releases.sort_unstable();
        (releases, requests)
    };
    let edf = arrivals("edf");
    assert!(edf.0.len() > 100 && edf.1.iter().any(|&(_, prompt, output)| prompt > 0 && output > 1));
    for policy in onbeat_policy::all() {
        assert_eq!(arrivals(policy.name), edf, "{}", policy.name);
    }
}

#[test]
fn another_stream_changes_nobody_elses_arrivals() {
    use onbeat_core::event::What;
    let with = |extra: &str| {
        let system = system(&format!("{}{extra}", crate::properties::MIXED));
        let made = onbeat_policy::make("edf", &system).unwrap();
        let events = crate::support::run(&system, made, 5);
        events
            .iter()
            .filter_map(|e| match e.what {
                What::Release { source, nominal, .. } if system.sources[source].name == "events" => {
                    Some((nominal, e.at))
                }
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let more = "
        [[stream]]
        name = \"more\"
        model = \"big\"
        arrival = { process = \"poisson\", rate_per_s = 5 }
    ";
    assert_eq!(with(""), with(more));
}

#[test]
fn a_fork_goes_on_like_the_original() {
    let system = mixed();
    let policy = onbeat_policy::make("llf", &system).unwrap();
    let mut engine = Engine::new(&system, policy, "llf", 9, Vec::new());
    for _ in 0..200 {
        assert!(engine.step().unwrap());
    }
    let fork = engine.clone();
    let (first, events) = engine.run().unwrap();
    let (second, forked) = fork.run().unwrap();
    assert_eq!(first, second);
    assert_eq!(events, forked);
}
