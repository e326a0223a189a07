//! Caches that are copied to another processor while their stage goes on.

use onbeat_core::event::What;
use onbeat_core::id::ProcessorId;
use onbeat_core::policy::{Actions, View};
use onbeat_core::units::Nanos;
use proptest::prelude::*;

use crate::caches::ask;
use crate::support::{done_at, run_script};

/// Two alike processors, a link of 1 GB/s and half a millisecond between them, 1 MB of cache per token, 10 ms per step.
fn two(sources: &str) -> String {
    crate::caches::two(sources, 1, 10.0)
}

/// Copies until at most four tokens are left, then moves.
fn moves(view: &View<'_>, actions: &mut Actions) {
    let (from, to) = (ProcessorId(0), ProcessorId(1));
    for (stage, live) in view.state.stages.iter() {
        if live.running && live.processor == Some(from) && live.tokens >= 3 {
            match live.copy {
                Some(copy) if copy.done > view.now() => {}
                Some(_) if view.tokens_to_hand_over(stage, to) <= 4.0 => actions.preempt(stage),
                _ => {
                    actions.copy_cache(stage, to);
                    let left = view.tokens_to_hand_over(stage, to);
                    actions.wake(view.now() + view.system.platform.links[from][to].time(left * 1e6));
                }
            }
        }
    }
    for &stage in view.ready() {
        let live = view.stage(stage);
        match live.tokens {
            0 => actions.start(stage, from),
            1 => actions.start_segments(stage, from, 2),
            _ if live.copy.is_none() => actions.start(stage, from),
            _ => actions.start(stage, to),
        }
    }
    if view.ready().iter().any(|&stage| view.stage(stage).tokens == 3) {
        actions.wake(view.now() + Nanos(1));
    }
}

/// The pause of a request of so many tokens that moves after two steps, and when it is done.
fn pause(prompt: u32) -> (f64, f64) {
    let (system, events) =
        run_script(&two(&ask("a", 0, prompt, 301)).replace("duration_s = 3", "duration_s = 9"), moves);
    let pause = events.iter().find_map(|event| match event.what {
        What::Start { processor: ProcessorId(1), setup, .. } => Some(setup.as_ms()),
        _ => None,
    });
    (pause.expect("it moves"), done_at(&system, &events, "a")[0])
}

#[test]
fn only_what_was_written_meanwhile_is_handed_over() {
    // Prompt until 10, two steps until 30. 103 tokens are copied from there on (and a nanosecond): 103.5 ms, in which ten steps are
    // done. Ten tokens are copied: 10.5 ms, in which one is written or two. The request leaves at the end of the step that is under way,
    // at 150, with what is left to hand over: two tokens and the latency, 2.5 ms. 286 steps are left.
    assert_eq!(pause(100), (2.5, 10.0 + 140.0 + 2.5 + 2860.0));
    // Moving without copying would have stopped it for more than a hundred times that.
    let (ten_times, _) = pause(1000);
    assert!(ten_times <= 4.5, "the pause does not grow with the context: {ten_times}");
}

#[test]
fn a_copy_that_is_not_complete_is_waited_for() {
    /// Copies after two steps, and moves at once.
    fn hasty(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            match view.stage(stage).tokens {
                0 => actions.start(stage, ProcessorId(0)),
                1 => actions.start_segments(stage, ProcessorId(0), 2),
                _ => {
                    actions.copy_cache(stage, ProcessorId(1));
                    actions.start(stage, ProcessorId(1));
                }
            }
        }
    }
    let (system, events) = run_script(&two(&ask("a", 0, 100, 11)), hasty);
    // 103.5 ms for the copy, and the latency of handing over what is new: nothing.
    assert_eq!(done_at(&system, &events, "a"), [30.0 + 103.5 + 0.5 + 80.0]);
}

#[test]
fn what_cannot_be_copied_says_so() {
    fn wrong(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            actions.copy_cache(stage, ProcessorId(1));
        }
    }
    let system = crate::support::system(&two(&ask("a", 0, 100, 11)));
    let script = Box::new(crate::support::Script(wrong));
    let error = onbeat_sim::simulate(&system, script, "test", 1, onbeat_core::event::NoSink).unwrap_err().to_string();
    assert!(error.contains("no cache that could be copied"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_pause_is_bounded_by_what_is_written_in_one_round(prompt in 1_u32..900) {
        let (pause, done) = pause(prompt);
        // At most four tokens are left when it is told to leave, and it writes one more.
        prop_assert!(pause <= 5.5, "{pause}");
        let alone = f64::from(prompt) / 10.0 + 3000.0;
        prop_assert!((done - alone - pause).abs() < 1e-6, "nothing else is lost: {done} {alone} {pause}");
    }
}
