//! Interference: how much two models slow each other down on two processors, and the bandwidth of a bus that would explain it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, Model};
use onbeat_models::{Cache, RunsAs};

use super::quantile;
use crate::live::{Unit, samples};

/// How long each side is measured, alone and together.
const TIME: Duration = Duration::from_millis(1500);

/// Slowdowns below this are noise on any machine.
pub(crate) const NOISE: f64 = 1.05;

/// Two models side by side.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) first: String,
    pub(crate) second: String,
    /// Time per inference (per token) beside the other, relative to alone: of the first, of the second.
    pub(crate) slowdown: (f64, f64),
    /// What the two would move together if nothing slowed them down [GB/s], if weights are read once per inference.
    pub(crate) demand_gbps: f64,
}

/// A loaded model on each of two processors.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) name: String,
    pub(crate) kind: RunsAs,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) unit: Unit,
    pub(crate) cores: Vec<u32>,
}

/// Measures every pair, a model with itself included.
pub(crate) fn pairs(here: &[Side], there: &[Side], cache: &Cache) -> Result<Vec<Pair>, Error> {
    let alone: Vec<f64> = here.iter().map(|side| alone(side, cache)).collect::<Result<_, _>>()?;
    let alone_there: Vec<f64> = there.iter().map(|side| self::alone(side, cache)).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for (i, first) in here.iter().enumerate() {
        for (j, second) in there.iter().enumerate().skip(i) {
            let (a, b) = together(first, second, cache)?;
            let demand = |side: &Side, ms: f64| side.model.footprint().weights as f64 / (ms * 1e6);
            all.push(Pair {
                first: first.name.clone(),
                second: second.name.clone(),
                slowdown: (a / alone[i], b / alone_there[j]),
                demand_gbps: demand(first, alone[i]) + demand(second, alone_there[j]),
            });
        }
    }
    Ok(all)
}

/// The bandwidth of a memory bus that explains the slowdowns, in the simulator's model: two that want more than the bus has share it,
/// so their slowdown is demand over bandwidth. A bus has at least what an undisturbed pair moves; a pair that moves less and still
/// slows down suffers from something else. `None`: no slowdown is the bus's.
pub(crate) fn fit_bandwidth(pairs: &[Pair]) -> Option<f64> {
    let undisturbed = pairs.iter().filter(|pair| mean(pair) <= NOISE).map(|pair| pair.demand_gbps).fold(0.0, f64::max);
    let slowed = pairs.iter().filter(|pair| mean(pair) > NOISE && pair.demand_gbps > undisturbed);
    let fitted: Vec<f64> = slowed.map(|pair| (pair.demand_gbps / mean(pair)).max(undisturbed)).collect();
    (!fitted.is_empty()).then(|| quantile(&fitted, 0.5))
}

fn mean(pair: &Pair) -> f64 {
    f64::midpoint(pair.slowdown.0, pair.slowdown.1)
}

fn alone(side: &Side, cache: &Cache) -> Result<f64, Error> {
    let stop = AtomicBool::new(false);
    let start = Barrier::new(1);
    on_thread(side, cache, &start, &stop, true)
}

fn together(first: &Side, second: &Side, cache: &Cache) -> Result<(f64, f64), Error> {
    let stop = AtomicBool::new(false);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| on_thread(second, cache, &start, &stop, false));
        let own = on_thread(first, cache, &start, &stop, true);
        stop.store(true, Ordering::Relaxed);
        let other = other.join().unwrap_or_else(|_| Err(Error::device("the other side has panicked")));
        Ok((own?, other?))
    })
}

/// Time per unit of work [ms], median, on a thread that is pinned as the side says.
fn on_thread(side: &Side, cache: &Cache, start: &Barrier, stop: &AtomicBool, leads: bool) -> Result<f64, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            onbeat_runtime::pin(&side.cores).map_err(Error::device)?;
            side.unit.host(|| {
                start.wait();
                work(side, cache, stop, leads)
            })
        });
        thread.join().unwrap_or_else(|_| Err(Error::device("the measuring thread has panicked")))
    })
}

fn work(side: &Side, cache: &Cache, stop: &AtomicBool, leads: bool) -> Result<f64, Error> {
    let control = Control::new();
    let mut session = side.model.open()?;
    let input: Vec<Data> = match side.kind {
        RunsAs::Language => vec![Data::Text(samples::QUESTIONS[2].into())],
        kind => samples::sample(kind, cache),
    };
    let tokens = matches!(side.kind, RunsAs::Language | RunsAs::Whisper);
    let begun = Instant::now();
    let mut times = Vec::new();
    while if leads { begun.elapsed() < TIME } else { !stop.load(Ordering::Relaxed) } {
        session.begin(&input)?;
        let whole = Instant::now();
        let mut first = true;
        loop {
            let part = Instant::now();
            let done = session.step(u32::MAX, &control)?.done;
            if tokens && !first {
                times.push(part.elapsed().as_secs_f64() * 1e3);
            }
            first = false;
            if done {
                session.finish()?;
                break;
            }
            if tokens && (if leads { begun.elapsed() >= TIME } else { stop.load(Ordering::Relaxed) }) {
                session = side.model.open()?;
                break;
            }
        }
        if !tokens {
            times.push(whole.elapsed().as_secs_f64() * 1e3);
        }
    }
    if times.is_empty() {
        Err(Error::device(format!("{}: nothing was measured in time", side.name)))
    } else {
        Ok(quantile(&times, 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: f64, b: f64, demand_gbps: f64) -> Pair {
        Pair { first: "a".into(), second: "b".into(), slowdown: (a, b), demand_gbps }
    }

    #[test]
    fn pairs_that_move_more_than_undisturbed_ones_give_the_bandwidth() {
        // 60 GB/s wanted, each 1.5 times slower: the bus has 40 GB/s.
        assert_eq!(fit_bandwidth(&[pair(1.0, 1.02, 30.0), pair(1.4, 1.6, 60.0)]), Some(40.0));
        // What slows down although others move more without harm does not wait for the bus.
        assert_eq!(fit_bandwidth(&[pair(1.0, 1.0, 30.0), pair(1.3, 1.3, 10.0)]), None);
        assert_eq!(fit_bandwidth(&[pair(1.02, 1.03, 30.0)]), None);
        assert_eq!(fit_bandwidth(&[]), None);
    }
}
