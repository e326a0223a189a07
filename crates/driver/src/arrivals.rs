//! When jobs arrive.

use std::collections::VecDeque;

use onbeat_core::event::Sink;
use onbeat_core::id::{Id, JobId, SourceId};
use onbeat_core::system::{Arrival, Source};
use onbeat_core::units::Nanos;

use crate::course::{Course, TimerKind};
use crate::random::{Key, Random, exponential, gamma_with, sample};

/// A source's state.
#[derive(Clone, Debug)]
pub(crate) struct SourceState {
    /// Key of all numbers within its jobs.
    pub(crate) key: Key,
    /// Numbers of the arrival process.
    arrivals: Random,
    /// Numbers of the jitter.
    jitter: Random,
    /// Number of the next arrival, counting those outside of the active periods.
    next: u64,
    /// Jobs that arrived while active.
    released: u64,
    /// Nominal time of the last arrival.
    last: Nanos,
    /// Live jobs in order of release, kept only if the source has a queue limit.
    pub(crate) alive: VecDeque<JobId>,
    /// What jobs see that have arrived and are not released yet: number of the arrival, class.
    delayed: Vec<(u64, u8)>,
}

impl SourceState {
    pub(crate) fn new(source: &Source, seed: u64) -> Self {
        let key = Key::of_source(seed, &source.name);
        Self {
            key: key.part(0),
            arrivals: key.part(1).stream(),
            jitter: key.part(2).stream(),
            next: 0,
            released: 0,
            last: Nanos::ZERO,
            alive: VecDeque::new(),
            delayed: Vec::new(),
        }
    }

    /// Nominal time of the next arrival, if there is one.
    fn next_nominal(&mut self, arrival: &Arrival) -> Option<Nanos> {
        let index = self.next;
        let at = match arrival {
            Arrival::Periodic { first, period } => Nanos(first.0.checked_add(period.0.checked_mul(index)?)?),
            Arrival::Poisson { start, rate_per_s } => {
                let gap = Nanos::from_secs(exponential(&mut self.arrivals) / rate_per_s);
                (if index == 0 { *start } else { self.last }).saturating_add(gap)
            }
            Arrival::Gamma { start, rate_per_s, cv } => {
                let gap = Nanos::from_secs(gamma_with(&mut self.arrivals, 1.0 / rate_per_s, *cv));
                (if index == 0 { *start } else { self.last }).saturating_add(gap)
            }
            Arrival::Trace { requests } => requests.get(usize::try_from(index).ok()?)?.at,
        };
        self.next += 1;
        self.last = at;
        Some(at)
    }
}

impl<S: Sink> Course<'_, S> {
    /// Schedules the source's next arrival within its active periods, if there is one before the end.
    pub(crate) fn schedule_arrival(&mut self, source: SourceId) {
        let spec = &self.system.sources[source];
        let state = &mut self.sources[source];
        if spec.count.is_some_and(|count| state.released >= count) {
            return;
        }
        while let Some(nominal) = state.next_nominal(&spec.arrival) {
            if nominal >= self.system.duration {
                return;
            }
            let active =
                spec.active.is_empty() || spec.active.iter().any(|&(start, end)| start <= nominal && nominal < end);
            if active {
                let index = state.next - 1;
                state.released += 1;
                self.push_timer(nominal, TimerKind::Arrival, source.0, index, nominal);
                return;
            }
            if let (Arrival::Periodic { first, period }, Some(&(start, _))) =
                (&spec.arrival, spec.active.iter().find(|&&(start, _)| start > nominal))
            {
                // Skip what lies between active periods in one go.
                let skipped = (start.0.saturating_sub(first.0)).div_ceil(period.0);
                state.next = state.next.max(skipped);
            }
        }
    }

    /// The source's scheduled arrival takes place.
    pub(crate) fn arrive(&mut self, source: SourceId) {
        let state = &mut self.sources[source];
        let (index, nominal) = (state.next - 1, state.last);
        let delay = match &self.system.sources[source].jitter {
            Some(jitter) => Nanos::from_ns_f64(sample(jitter, &mut state.jitter)),
            None => Nanos::ZERO,
        };
        let content = self.system.sources[source].content.map(|content| {
            let content = content as usize;
            self.scenes[content].at(&self.system.contents[content], nominal)
        });
        self.schedule_arrival(source);
        if delay == Nanos::ZERO {
            self.release(source, index, nominal, content);
        } else {
            self.sources[source].delayed.extend(content.map(|class| (index, class)));
            self.push_timer(nominal.saturating_add(delay), TimerKind::Release, source.0, index, nominal);
        }
    }

    /// Releases a job that jitter has delayed. It sees what there was to see at its nominal time.
    pub(crate) fn release_delayed(&mut self, source: SourceId, index: u64, nominal: Nanos) {
        let delayed = &mut self.sources[source].delayed;
        let place = delayed.iter().position(|&(other, _)| other == index);
        let content = place.map(|place| delayed.swap_remove(place).1);
        self.release(source, index, nominal, content);
    }

    /// Length of the prompt and the output that a trace gives to a source's job.
    pub(crate) fn traced_lengths(&self, source: SourceId, index: u64) -> Option<(u32, u32)> {
        match &self.system.sources[source].arrival {
            Arrival::Trace { requests } => requests.get(index as usize).map(|r| (r.prompt, r.output)),
            _ => None,
        }
    }

    /// Forgets a job that has ended.
    pub(crate) fn forget_alive(&mut self, source: SourceId, job: JobId) {
        if self.system.sources[source].queue.is_some() {
            let alive = &mut self.sources[source].alive;
            // Jobs mostly end in order of release, so this is nearly always the first.
            if let Some(i) = alive.iter().position(|&other| other.index() == job.index()) {
                alive.remove(i);
            }
        }
    }
}
