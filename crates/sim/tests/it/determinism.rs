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
fn another_stream_changes_nobody_elses_arrivals_and_lengths_wherever_it_stands_in_the_file() {
    use onbeat_core::event::What;
    let with = |file: &str| {
        let system = system(file);
        let made = onbeat_policy::make("edf", &system).unwrap();
        let mut releases = Vec::new();
        // By the number of the stream's job: jobs of the others shift the numbers in the record.
        let mut jobs = std::collections::BTreeMap::new();
        let mut lengths = std::collections::BTreeMap::new();
        for event in crate::support::run(&system, made, 5) {
            match event.what {
                What::Release { job, source, nominal, .. } => match system.sources[source].name.as_str() {
                    "events" => releases.push((nominal, event.at)),
                    "chat" => drop(jobs.insert(job, jobs.len())),
                    _ => {}
                },
                What::Ready { job, prompt, output, .. } if prompt > 0 && jobs.contains_key(&job) => {
                    lengths.insert(jobs[&job], (prompt, output));
                }
                _ => {}
            }
        }
        (releases, lengths)
    };
    let more = "
        [[stream]]
        name = \"more\"
        model = \"big\"
        arrival = { process = \"poisson\", rate_per_s = 5 }
    ";
    let mixed = crate::properties::MIXED;
    let alone = with(mixed);
    assert!(alone.0.len() > 3 && alone.1.len() > 1, "{alone:?}");
    let last = with(&format!("{mixed}{more}"));
    let first = with(&mixed.replacen("[[stream]]", &format!("{more}[[stream]]"), 1));
    for other in [last, first] {
        assert_eq!(alone.0, other.0);
        // More load can keep a request from becoming ready before the end.
        let both: Vec<_> = alone.1.iter().filter(|(job, _)| other.1.contains_key(job)).collect();
        assert!(!both.is_empty() && both.iter().all(|&(job, length)| other.1[job] == *length), "{alone:?} {other:?}");
    }
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
