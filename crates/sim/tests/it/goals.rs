//! When stages are due: goals for tokens are for the chain's last language model.

use onbeat_core::policy::{Actions, View};
use onbeat_core::units::Nanos;

use crate::support::{first_come, run_script};

/// A plan by a language model (prompt 10 ms, nine steps of 2 ms), a search of 5 ms, and an answer (prompt 20 ms, steps of 2 ms).
fn plan_and_answer(goals: &str) -> String {
    format!(
        r#"
        name = "goals"
        duration_s = 1
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.llm]
        shape = "autoregressive"
        [model.search]
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 2]]
        [[cost]]
        model = "search"
        processor = "gpu"
        latency_ms = 5
        [[session]]
        name = "ask"
        chain = "ask"
        arrival = {{ process = "periodic", period_s = 100 }}
        {goals}
        [[chain.ask.stage]]
        name = "plan"
        model = "llm"
        prompt = 100
        output = 10
        [[chain.ask.stage]]
        name = "search"
        model = "search"
        after = [{{ stage = "plan" }}]
        [[chain.ask.stage]]
        name = "answer"
        model = "llm"
        prompt = 200
        output = 4
        after = [{{ stage = "search" }}]
        "#
    )
}

/// What is due, and whether that is a token only, whenever a stage waits.
fn expect(view: &View<'_>, expected: &[(&str, f64, bool)]) {
    for &stage in view.ready() {
        let ms = |ms: f64| if ms == f64::INFINITY { Nanos::MAX } else { Nanos::from_ms(ms) };
        let name = format!("{} {}", view.node(stage).name, view.stage(stage).kind.name());
        let &(_, due, token) = expected.iter().find(|&&(key, ..)| key == name).expect("all are listed");
        assert_eq!((view.due(stage), view.token_is_due(stage)), (ms(due), token), "{name}");
    }
}

#[test]
fn a_plan_is_due_as_a_whole_and_the_answer_by_its_tokens() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        // 100 ms to the first token, of which the search and the answer's prompt take 25. The first token comes after 10 + 18 + 5 + 20.
        expect(
            view,
            &[
                ("plan prefill", 75.0, false),
                ("plan decode", 75.0, false),
                ("search forward", 80.0, false),
                ("answer prefill", 100.0, true),
                ("answer decode", 53.0 + 30.0, true),
            ],
        );
        first_come(view, actions);
    }
    run_script(&plan_and_answer("ttft_ms = 100\ntpot_ms = 30"), script);
}

#[test]
fn without_a_goal_for_the_first_token_only_the_answers_later_ones_are_due() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        expect(
            view,
            &[
                ("plan prefill", f64::INFINITY, false),
                ("plan decode", f64::INFINITY, false),
                ("search forward", f64::INFINITY, false),
                ("answer prefill", f64::INFINITY, false),
                ("answer decode", 53.0 + 30.0, true),
            ],
        );
        first_come(view, actions);
    }
    run_script(&plan_and_answer("tpot_ms = 30"), script);
}

#[test]
fn a_deadline_that_comes_first_is_for_the_whole_stage() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        // What follows the plan takes 5 + 20 + 6 ms, what follows the search 26.
        expect(
            view,
            &[
                ("plan prefill", 29.0, false),
                ("plan decode", 29.0, false),
                ("search forward", 34.0, false),
                ("answer prefill", 60.0, false),
                ("answer decode", 60.0, false),
            ],
        );
        first_come(view, actions);
    }
    run_script(&plan_and_answer("ttft_ms = 100\ntpot_ms = 30\ndeadline_ms = 60"), script);
}
