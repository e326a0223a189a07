//! What min-min, max-min and sufferage share: all ready stages are looked at together, and the one that a rule picks is given the
//! place where it would finish first, again and again.

use std::cmp::Reverse;

use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::units::Nanos;

use crate::slots::{Place, Slots};

/// Which stage is given its place next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The one that can be done first.
    MinMin,
    /// The one that can be done last.
    MaxMin,
    /// The one that loses most if it does not get its best processor.
    Sufferage,
}

/// A batch-mode heuristic.
#[derive(Clone, Debug)]
pub(crate) struct BatchMode {
    rule: Rule,
    slots: Slots,
    queue: Vec<Candidate>,
    /// How long each candidate would hold each processor, row by row.
    own: Vec<Option<Nanos>>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    stage: StageId,
    serial: u64,
    /// Where its row begins in `own`.
    row: usize,
    place: Place,
    /// The processor on which it would be done next best, if it can run on another one.
    second: Option<ProcessorId>,
    /// How much later it would be done there; [`Nanos::MAX`] without one.
    loss: Nanos,
}

impl BatchMode {
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, slots: Slots::default(), queue: Vec::new(), own: Vec::new() }
    }

    /// Lists the ready stages with their places. A stage that memory has refused everywhere waits until some is freed.
    fn list(&mut self, view: &View<'_>) {
        self.queue.clear();
        self.own.clear();
        for &stage in view.ready() {
            let row = self.own.len();
            self.slots.own_times(view, stage, &mut self.own);
            if let Some((place, second)) = self.slots.best_two(&self.own[row..]) {
                let serial = view.stage(stage).serial;
                let mut candidate = Candidate { stage, serial, row, place, second: None, loss: Nanos::MAX };
                candidate.set(place, second);
                self.queue.push(candidate);
            }
        }
    }

    /// A slot of a processor was given away, so that nothing can be done there sooner than before: looks again at the candidates that
    /// counted on it.
    fn update(&mut self, taken: ProcessorId) {
        for candidate in &mut self.queue {
            let second = self.rule == Rule::Sufferage && candidate.second == Some(taken);
            if candidate.place.processor == taken || second {
                let places = self.slots.best_two(&self.own[candidate.row..]);
                let (place, second) = places.expect("memory refuses nothing during a decision");
                candidate.set(place, second);
            }
        }
    }
}

impl Candidate {
    fn set(&mut self, place: Place, second: Option<Place>) {
        self.place = place;
        self.second = second.map(|second| second.processor);
        self.loss = second.map_or(Nanos::MAX, |second| second.finish.saturating_sub(place.finish));
    }
}

impl Rule {
    /// Smaller is picked first.
    fn key(self, candidate: &Candidate) -> (u64, Reverse<u64>, u64) {
        let Candidate { serial, place, loss, .. } = *candidate;
        let finish = place.finish.0;
        match self {
            Self::MinMin => (finish, Reverse(0), serial),
            Self::MaxMin => (0, Reverse(finish), serial),
            Self::Sufferage => (0, Reverse(loss.0), serial),
        }
    }
}

impl Policy for BatchMode {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        if view.ready().is_empty() {
            return;
        }
        self.slots.begin(view);
        if !view.ready().iter().any(|&stage| self.slots.is_open(view, stage)) {
            return;
        }
        self.list(view);
        // Every round places one stage. Once no slot is idle and none of the stages could join a batch, nothing more can start.
        while let Some(next) = (0..self.queue.len()).min_by_key(|&i| self.rule.key(&self.queue[i])) {
            let Candidate { stage, place, .. } = self.queue.swap_remove(next);
            self.slots.take(view, stage, place, |_| true, actions);
            if !self.queue.iter().any(|left| self.slots.is_open(view, left.stage)) {
                return;
            }
            self.update(place.processor);
        }
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    /// Three stages on two processors, in milliseconds:
    ///
    /// | stage | A | B |
    /// |---|---|---|
    /// | a | 2 | 4 |
    /// | b | 3 | 9 |
    /// | c | 5 | 6 |
    ///
    /// By hand (finish on A, on B; * is picked):
    /// * min-min: a* (2, 4), b (3, 9), c (5, 6) → a on A. b* (5, 9), c (7, 6) → b waits for A. c (10, 6) → B.
    /// * max-min: c* (5) → A. b (8, 9) → 8, a (7, 4) → 4: b* waits for A. a (10, 4) → B.
    /// * sufferage: losses 2, 6*, 1 → b on A. a (5, 4) loses 1, c (8, 6) loses 2* → c on B. a (5, 10) waits for A.
    fn decide(policy: &str) -> (Vec<Action>, [Action; 6]) {
        let mut rig = Rig::new(&[("A", Preemption::Never), ("B", Preemption::Never)]);
        let a = rig.stream("a", None, &[Some(2.0), Some(4.0)]);
        let b = rig.stream("b", None, &[Some(3.0), Some(9.0)]);
        let c = rig.stream("c", None, &[Some(5.0), Some(6.0)]);
        let stages = [a, b, c].map(|source| rig.ready(source, 0.0));
        rig.reverse_ready();
        let [a, b, c] = stages;
        (rig.decide(policy), [start(a, 0), start(a, 1), start(b, 0), start(b, 1), start(c, 0), start(c, 1)])
    }

    #[test]
    fn min_min_places_what_can_be_done_first() {
        let (actions, [a_on_a, _, _, _, _, c_on_b]) = decide("min-min");
        assert_eq!(actions, [a_on_a, c_on_b]);
    }

    #[test]
    fn max_min_places_what_takes_longest() {
        let (actions, [_, a_on_b, _, _, c_on_a, _]) = decide("max-min");
        assert_eq!(actions, [c_on_a, a_on_b]);
    }

    #[test]
    fn sufferage_places_what_loses_most() {
        let (actions, [_, _, b_on_a, _, _, c_on_b]) = decide("sufferage");
        assert_eq!(actions, [b_on_a, c_on_b]);
    }

    #[test]
    fn a_stage_with_a_single_processor_suffers_most() {
        let mut rig = Rig::new(&[("A", Preemption::Never), ("B", Preemption::Never)]);
        let free = rig.stream("free", None, &[Some(1.0), Some(90.0)]);
        let bound = rig.stream("bound", None, &[Some(50.0), None]);
        let (free, bound) = (rig.ready(free, 0.0), rig.ready(bound, 0.0));
        // After it, `free` is done at 51 ms on A and at 90 ms on B: it waits.
        assert_eq!(rig.decide("sufferage"), [start(bound, 0)]);
        assert_eq!(rig.decide("min-min"), [start(free, 0)]);
    }

    #[test]
    fn all_three_wait_for_a_busy_processor_that_is_worth_it_and_break_ties_by_readiness() {
        for policy in ["min-min", "max-min", "sufferage"] {
            let mut rig = Rig::new(&[("A", Preemption::Never), ("B", Preemption::Never)]);
            let source = rig.stream("s", None, &[Some(20.0), Some(5.0)]);
            rig.running(source, 1, 0.0);
            rig.state.now = ms(1.0);
            rig.ready(source, 1.0);
            assert_eq!(rig.decide(policy), [], "{policy}: the NPU is free at 5 ms");
            let mut rig = Rig::new(&[("A", Preemption::Never)]);
            let source = rig.stream("s", None, &[Some(5.0)]);
            let (first, _) = (rig.ready(source, 0.0), rig.ready(source, 0.0));
            rig.reverse_ready();
            assert_eq!(rig.decide(policy), [start(first, 0)], "{policy}");
        }
    }

    #[test]
    fn decode_joins_a_batch_rather_than_wait_for_it() {
        for policy in ["min-min", "max-min", "sufferage", "heft", "mct"] {
            let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
            let chat = rig.session("chat", &[4.0], 4);
            rig.running_decode(chat, 0, 0.0);
            let second = rig.ready_decode(chat, 0.0);
            assert_eq!(rig.decide(policy), [start(second, 0)], "{policy}");
        }
    }
}
