//! Which sub-network of its supernet each waiting stage runs: the best with which everything that waits can still be on time.

use onbeat_core::id::StageId;
use onbeat_core::policy::{Actions, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::times::{Times, until_due};
use crate::variants::{Choice, Choices};

/// Switches stages to lighter variants under load, and back.
#[derive(Clone, Debug)]
pub(crate) struct Supernet {
    choices: Choices,
    waiting: Vec<Waiting>,
}

/// A stage that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Nanos,
    serial: u64,
    stage: StageId,
    /// The least that it takes, in its lightest variant on its fastest processor, until it is done with what is due [ns].
    least: f64,
    /// How much more time those that are due no later can take until somebody is late, itself or one that is due later [ns].
    spare: f64,
}

impl Supernet {
    pub(crate) fn new(system: &System) -> Self {
        Self { choices: Choices::new(system), waiting: Vec::new() }
    }

    /// Switches the stages that wait. Whether any was switched: the policy is asked again then, with a view that shows it.
    pub(crate) fn choose(&mut self, view: &View<'_>, times: &mut Times, actions: &mut Actions) -> bool {
        if !self.choices.any() || !view.ready().iter().any(|&stage| !self.choices.of(view, stage).is_empty()) {
            return false;
        }
        self.list(view, times);
        let slots: f64 = view.processors().map(|p| f64::from(view.system.platform.processors[p].slots)).sum();
        let now = view.now();
        let running = view.processors().flat_map(|p| &view.occupancy(p).runs);
        let busy: f64 = running.map(|run| run.expected_end.saturating_sub(now).as_f64()).sum::<f64>() / slots;
        // What those that are due earlier take at least, spread over all slots.
        let mut before = 0.0;
        for waiting in &mut self.waiting {
            let slack = waiting.due.saturating_sub(now).as_f64();
            // What cannot be on time whatever runs is nobody's reason to run something worse.
            let hopeless = waiting.due == Nanos::MAX || slack < waiting.least;
            waiting.spare = if hopeless { f64::INFINITY } else { slack - busy - before - waiting.least };
            before += waiting.least / slots;
        }
        for i in (1..self.waiting.len()).rev() {
            self.waiting[i - 1].spare = self.waiting[i - 1].spare.min(self.waiting[i].spare);
        }
        // What those that are due earlier take beyond their least.
        let mut taken = 0.0;
        let mut switched = false;
        for waiting in &self.waiting {
            let choices = self.choices.of(view, waiting.stage);
            let late = waiting.due != Nanos::MAX && waiting.due.saturating_sub(now).as_f64() < waiting.least;
            let room = if late { 0.0 } else { waiting.spare - taken };
            let extra = |span: Nanos| (span.as_f64() - waiting.least).max(0.0);
            let fits = |span: &Nanos| extra(*span) <= room;
            let spans =
                || choices.iter().filter_map(|choice| Some((choice, choice.fastest_until_due(view, waiting.stage)?)));
            let lightest = || spans().min_by_key(|&(_, span)| span);
            let in_time = |&(choice, span): &(&Choice, Nanos)| fits(&span) && choice.keeps_pace(view, waiting.stage);
            let Some((choice, span)) = spans().find(in_time).or_else(lightest) else { continue };
            taken += extra(span) / slots;
            if choice.number != view.stage(waiting.stage).variant {
                actions.switch(waiting.stage, choice.number);
                switched = true;
            }
        }
        switched
    }

    /// Lists the stages that wait, by due time.
    fn list(&mut self, view: &View<'_>, times: &mut Times) {
        self.waiting.clear();
        for &stage in view.ready() {
            let choices = self.choices.of(view, stage);
            let least = if choices.is_empty() {
                let rests = times.of(view, stage).iter().flatten();
                rests.map(|&rest| until_due(view, stage, rest)).min()
            } else {
                choices.iter().filter_map(|choice| choice.fastest_until_due(view, stage)).min()
            };
            let (due, serial) = (view.due(stage), view.stage(stage).serial);
            let least = least.unwrap_or(Nanos::ZERO).as_f64();
            self.waiting.push(Waiting { due, serial, stage, least, spare: 0.0 });
        }
        self.waiting.sort_unstable_by_key(|waiting| (waiting.due, waiting.serial));
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    /// A stream whose frames take 8 ms, or 4 or 2 in variants that are worse.
    fn rig() -> (Rig, onbeat_core::id::SourceId) {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(8.0)]);
        rig.variant(camera, &[Some(4.0)], 0.9);
        rig.variant(camera, &[Some(2.0)], 0.8);
        (rig, camera)
    }

    fn switch(stage: onbeat_core::id::StageId, variant: u8) -> Action {
        Action::Switch { stage, variant }
    }

    #[test]
    fn the_best_variants_with_which_everything_is_on_time() {
        let (mut rig, camera) = rig();
        let first = rig.ready(camera, 0.0);
        assert_eq!(rig.decide("dream"), [start(first, 0)], "alone it has time for the best");
        let (second, third) = (rig.ready(camera, 0.0), rig.ready(camera, 0.0));
        // Due at 10: 4 + 4 + 2.
        assert_eq!(rig.decide("dream"), [switch(first, 1), switch(second, 1), switch(third, 2)]);
        assert_eq!(rig.decide("dream:supernet=false"), [start(first, 0)]);
        rig.switch(first, 1);
        rig.switch(second, 1);
        rig.switch(third, 2);
        assert_eq!(rig.decide("dream"), [start(first, 0)], "nothing is left to switch");
    }

    #[test]
    fn goes_back_when_there_is_time_again() {
        let (mut rig, camera) = rig();
        let stage = rig.ready(camera, 0.0);
        rig.switch(stage, 2);
        assert_eq!(rig.decide("dream"), [switch(stage, 0)]);
    }

    #[test]
    fn what_is_late_anyway_runs_the_lightest_and_is_nobodys_reason() {
        let (mut rig, camera) = rig();
        rig.state.now = ms(9.0);
        let late = rig.ready(camera, 0.0);
        let fresh = rig.ready(camera, 9.0);
        // One millisecond is too short for the late one; the other has ten, less the late one's two.
        assert_eq!(rig.decide("dream"), [switch(late, 2)]);
        rig.switch(late, 2);
        let actions = rig.decide("dream");
        assert!(actions.iter().all(|action| !matches!(action, Action::Switch { .. })), "{actions:?}");
        assert_eq!(rig.state.stages[fresh].variant, 0);
    }

    #[test]
    fn what_has_begun_stays_as_it_is() {
        let (mut rig, camera) = rig();
        let stage = rig.ready(camera, 0.0);
        rig.state.stages[stage].position = 0.5;
        for _ in 0..3 {
            rig.ready(camera, 0.0);
        }
        let actions = rig.decide("dream");
        assert!(!actions.iter().any(|action| matches!(action, Action::Switch { stage: s, .. } if *s == stage)));
    }
}
