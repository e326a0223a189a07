//! What a robot does with chunks of actions: how soon it reacts, and how often it has nothing to do.

use onbeat_core::system::Actions;
use onbeat_core::units::Nanos;

use super::samples::Samples;

/// The actions that the robot executes: at every multiple of the period one action, of the chunk with the latest observation.
///
/// The action at time τ of a chunk whose observation was made at r is number ⌊(τ − r) / period⌋: what should have been done before the
/// chunk came is skipped. A chunk has actions up to r + count · period.
#[derive(Clone, Debug)]
pub(super) struct Robot {
    actions: Actions,
    warm_up: Nanos,
    /// Observation of the chunk that is executed, and whether none of its actions was executed yet.
    chunk: Option<(Nanos, bool)>,
    /// Number of the next time at which an action is due.
    tick: u64,
    /// Times at which an action was due since the first chunk, and those at which there was none.
    pub(super) due: u64,
    pub(super) starved: u64,
    /// From the observation to the first action executed.
    pub(super) reaction: Samples,
}

impl Robot {
    pub(super) fn new(actions: Actions, warm_up: Nanos) -> Self {
        Self { actions, warm_up, chunk: None, tick: 0, due: 0, starved: 0, reaction: Samples::new() }
    }

    /// A chunk is there at `at`, from an observation made at `observed`.
    pub(super) fn chunk(&mut self, observed: Nanos, at: Nanos) {
        self.execute(at);
        // A chunk that comes after one with a later observation is old news.
        if self.chunk.is_none_or(|(current, _)| observed > current) {
            self.chunk = Some((observed, true));
        }
    }

    /// Executes what is due before `until`.
    pub(super) fn execute(&mut self, until: Nanos) {
        let period = self.actions.period.0;
        let end = until.0.div_ceil(period);
        let from = self.tick;
        self.tick = end.max(from);
        let Some((observed, fresh)) = self.chunk else { return };
        let over = observed.saturating_add(Nanos(period.saturating_mul(u64::from(self.actions.count))));
        // Times before `last` have an action of this chunk.
        let last = over.0.div_ceil(period).clamp(from, end.max(from));
        if fresh && last > from {
            let first = Nanos(from * period);
            self.chunk = Some((observed, false));
            if observed >= self.warm_up {
                self.reaction.add(first.saturating_sub(observed));
            }
        }
        let counted = self.warm_up.0.div_ceil(period);
        let times = |from: u64, to: u64| to.saturating_sub(from.max(counted));
        self.due += times(from, end);
        self.starved += times(last, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Nanos {
        Nanos::from_ms(ms)
    }

    fn robot(count: u32) -> Robot {
        Robot::new(Actions { count, period: ms(20.0), first: None }, Nanos::ZERO)
    }

    #[test]
    fn reacts_at_the_first_action_after_the_chunk_and_starves_when_it_is_used_up() {
        // Observed at 0, there at 50: due at 60, 80 of actions 3 and 4 of five (up to 100); nothing at 100, 120; the next chunk,
        // observed at 100, comes at 135: due at 140 to 180.
        let mut robot = robot(5);
        robot.chunk(ms(0.0), ms(50.0));
        robot.chunk(ms(100.0), ms(135.0));
        robot.execute(ms(200.0));
        assert_eq!((robot.due, robot.starved), (7, 2));
        assert_eq!(robot.reaction.percentiles_ms(&[0, 1000]), [40.0, 60.0]);
    }

    #[test]
    fn a_chunk_that_comes_too_late_is_never_executed() {
        let mut robot = robot(2);
        robot.chunk(ms(0.0), ms(10.0));
        robot.chunk(ms(20.0), ms(70.0));
        robot.execute(ms(100.0));
        // 20 is served by the first chunk (up to 40); 40, 60 and 80 have nothing.
        assert_eq!((robot.due, robot.starved), (4, 3));
        assert_eq!(robot.reaction.max_ms(), 20.0);
    }

    #[test]
    fn old_news_changes_nothing_and_chunks_within_one_period_replace_each_other() {
        let mut robot = robot(10);
        robot.chunk(ms(20.0), ms(41.0));
        robot.chunk(ms(0.0), ms(42.0));
        robot.chunk(ms(40.0), ms(59.0));
        robot.execute(ms(80.0));
        assert_eq!((robot.due, robot.starved), (1, 0));
        assert_eq!(robot.reaction.max_ms(), 20.0, "of the chunk observed at 40");
    }
}
