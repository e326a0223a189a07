//! How long each stage has waited: since it was last served, and in all.

use onbeat_core::id::{Id, StageId};
use onbeat_core::policy::View;
use onbeat_core::state::Stage;
use onbeat_core::units::Nanos;

/// Waiting times of all live stages. As large as the most stages that were ever alive at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    /// By [`StageId`]; serials are never reused, ids are.
    known: Vec<Option<Wait>>,
    /// When the last decision was taken: what was started since the one before was started then.
    last: Nanos,
}

/// What is known about one stage.
#[derive(Clone, Copy, Debug)]
struct Wait {
    serial: u64,
    /// When it became ready, or was last seen to run.
    since: Nanos,
    /// Waiting before `since`.
    before: Nanos,
    running: bool,
    /// How far it had come when it was seen last.
    progress: (u8, f64, f64),
}

fn progress(live: &Stage) -> (u8, f64, f64) {
    (live.phase, live.position, live.partial_ns)
}

impl Waits {
    /// Takes note of who waits and who runs; to be called in every decision, before anything is asked.
    pub(crate) fn update(&mut self, view: &View<'_>) {
        let (now, last) = (view.now(), self.last);
        for processor in view.processors() {
            for run in &view.occupancy(processor).runs {
                for stage in run.stages() {
                    let wait = self.entry(view, stage);
                    if !wait.running {
                        wait.before = wait.before.saturating_add(last.saturating_sub(wait.since));
                    }
                    (wait.running, wait.since) = (true, now);
                }
            }
        }
        for &stage in view.ready() {
            let reached = progress(view.stage(stage));
            let wait = self.entry(view, stage);
            if wait.running {
                (wait.running, wait.since) = (false, now);
            } else if wait.progress != reached {
                // It ran and ended between two decisions.
                wait.before = wait.before.saturating_add(last.saturating_sub(wait.since));
                wait.since = now;
            }
            wait.progress = reached;
        }
        self.last = now;
    }

    /// Time since the stage was served last, or became ready.
    pub(crate) fn since_served(&self, view: &View<'_>, stage: StageId) -> Nanos {
        self.get(view, stage).map_or(Nanos::ZERO, |wait| view.now().saturating_sub(wait.since))
    }

    /// Time that the stage has waited in all.
    pub(crate) fn in_all(&self, view: &View<'_>, stage: StageId) -> Nanos {
        let before = self.get(view, stage).map_or(Nanos::ZERO, |wait| wait.before);
        before.saturating_add(self.since_served(view, stage))
    }

    fn get(&self, view: &View<'_>, stage: StageId) -> Option<Wait> {
        let known = self.known.get(stage.index()).copied().flatten();
        known.filter(|wait| wait.serial == view.stage(stage).serial)
    }

    fn entry(&mut self, view: &View<'_>, stage: StageId) -> &mut Wait {
        let live = view.stage(stage);
        if stage.index() >= self.known.len() {
            self.known.resize(stage.index() + 1, None);
        }
        let known = &mut self.known[stage.index()];
        if known.is_none_or(|wait| wait.serial != live.serial) {
            *known = Some(Wait {
                serial: live.serial,
                since: live.ready_at.min(view.now()),
                before: Nanos::ZERO,
                running: live.running,
                progress: progress(live),
            });
        }
        known.as_mut().expect("it was just filled")
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use super::Waits;
    use crate::test_rig::{Rig, ms};

    #[test]
    fn time_that_a_stage_runs_does_not_count_whether_it_was_seen_or_not() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let source = rig.stream("s", Some(100.0), &[Some(20.0)]);
        let stage = rig.ready(source, 0.0);
        let mut waits = Waits::default();
        let mut at = |rig: &mut Rig, now: f64| {
            rig.state.now = ms(now);
            waits.update(&rig.view());
            (waits.since_served(&rig.view(), stage), waits.in_all(&rig.view(), stage))
        };
        assert_eq!(at(&mut rig, 3.0), (ms(3.0), ms(3.0)));
        // It is started then, runs until 5 ms, and has come halfway.
        rig.state.stages[stage].position = 0.5;
        assert_eq!(at(&mut rig, 5.0), (ms(0.0), ms(3.0)));
        assert_eq!(at(&mut rig, 7.0), (ms(2.0), ms(5.0)));
        // It is started again and this time seen to run.
        rig.state.ready.clear();
        rig.start_again(stage, 0, 7.0);
        assert_eq!(at(&mut rig, 9.0), (ms(0.0), ms(5.0)));
        rig.stop(stage);
        assert_eq!(at(&mut rig, 10.0), (ms(0.0), ms(5.0)));
        assert_eq!(at(&mut rig, 11.0), (ms(1.0), ms(6.0)));
    }
}
