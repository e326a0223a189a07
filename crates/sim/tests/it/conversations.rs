//! Requests that continue a conversation, and predictions of their lengths.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Event, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{done_at, first_come, request, run_script, times};

/// A language model with 1 MB of cache per token: 0.1 ms per prompt token, 10 ms per step.
fn llm(memory: &str, sources: &str) -> String {
    format!(
        r#"
        name = "conversations"
        duration_s = 3
        [platform]
        name = "p"
        [platform.memory]
        {memory}
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        [model.llm]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        [model.tool]
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10], [1000, 100]]
        decode_ms = [[0, 10]]
        [[cost]]
        model = "tool"
        processor = "gpu"
        latency_ms = 30
        {sources}
        "#
    )
}

fn chat(turns: u32, longest: u32) -> String {
    format!(
        r#"
        [[session]]
        name = "chat"
        model = "llm"
        arrival = {{ process = "periodic", period_s = 0.5 }}
        prompt = 50
        output = 11
        conversation = {longest}
        count = {turns}
        "#
    )
}

fn prompts(events: &[Event]) -> Vec<u32> {
    events.iter().filter_map(|e| if let What::Ready { prompt, .. } = e.what { Some(prompt) } else { None }).collect()
}

#[test]
fn a_turn_prefills_what_is_new() {
    let (system, events) = run_script(&llm("", &chat(3, 1000)), first_come);
    assert_eq!(prompts(&events), [50, 111, 172]);
    // 5 ms and ten steps. Then 61 + 50 tokens, of which the last of the first answer and 50 new ones are not in the cache: 5.1 ms.
    let first = times(&events, |what| matches!(what, What::FirstToken { .. }));
    assert_eq!(first.iter().map(|t| t.as_ms()).collect::<Vec<_>>(), [5.0, 505.1, 1005.1]);
    assert_eq!(done_at(&system, &events, "chat"), [105.0, 605.1, 1105.1]);
}

#[test]
fn a_conversation_that_gets_too_long_begins_anew() {
    let (_, events) = run_script(&llm("", &chat(4, 130)), first_come);
    // 61 and 122 tokens; a third turn would make 183.
    assert_eq!(prompts(&events), [50, 111, 50, 111]);
}

#[test]
fn a_kept_cache_makes_way_for_others() {
    let sources = chat(2, 1000) + &request("other", "llm", 200, 60, 11);
    // The first turn leaves 60 MB, the other request needs 71, and the second turn 122.
    for (memory, expected) in [("capacity_gb = 0.14", 505.1), ("capacity_gb = 0.13", 511.1)] {
        let (_, events) = run_script(&llm(memory, &sources), first_come);
        let first = times(&events, |what| matches!(what, What::FirstToken { .. }));
        assert_eq!(first.last().unwrap().as_ms(), expected, "{memory}");
    }
}

#[test]
fn a_model_call_after_a_tool_goes_on_where_the_one_before_ended() {
    let agent = r#"
        [[session]]
        name = "agent"
        chain = "agent"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 50
        output = 11
        conversation = 1000
        [[chain.agent.stage]]
        name = "plan"
        model = "llm"
        [[chain.agent.stage]]
        name = "search"
        model = "tool"
        after = [{ stage = "plan" }]
        [[chain.agent.stage]]
        name = "answer"
        model = "llm"
        prompt = 20
        after = [{ stage = "search" }]
    "#;
    let (system, events) = run_script(&llm("", agent), first_come);
    // 105 ms, the tool until 135, then 1 + 20 tokens and ten steps.
    assert_eq!(done_at(&system, &events, "agent"), [237.1]);
}

#[test]
fn policies_see_the_prediction_and_not_the_length() {
    fn seen(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready().iter().filter(|&&stage| view.stage(stage).tokens == 0) {
            let predicted = view.stage(stage).work.output;
            // The mean of the distribution is 50; a perfect predictor knows better.
            let name = view.source(stage).name.as_str();
            assert!(name != "blind" || predicted == 50, "{predicted}");
            assert!(name != "oracle" || predicted != 50, "{predicted}");
        }
        first_come(view, actions);
    }
    let ask = |name: &str, predictor: &str| {
        format!(
            r#"
            [[session]]
            name = "{name}"
            model = "llm"
            arrival = {{ process = "periodic", period_s = 0.5 }}
            prompt = 5
            output = {{ kind = "quantiles", points = [[0, 10], [0.5, 20], [0.5001, 80], [1, 90]] }}
            {predictor}
            "#
        )
    };
    let sources = ask("blind", "") + &ask("oracle", "predictor_sigma = 0");
    let (_, events) = run_script(&llm("", &sources), seen);
    assert!(events.len() > 10);
}

#[test]
fn a_predictor_learns_from_the_answers_that_have_ended() {
    use std::cell::RefCell;
    thread_local! {
        static SEEN: RefCell<Vec<(u64, u32)>> = const { RefCell::new(Vec::new()) };
    }
    fn note(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            let live = view.stage(stage);
            if live.kind == Phase::Prefill && live.position == 0.0 {
                SEEN.with_borrow_mut(|seen| seen.push((live.serial, live.work.output)));
            }
        }
        first_come(view, actions);
    }
    let ask = r#"
        [[session]]
        name = "ask"
        model = "llm"
        arrival = { process = "periodic", period_s = 1.5 }
        prompt = 50
        output = { kind = "uniform", low = 1, high = 99 }
        predictor = "history"
    "#;
    SEEN.with_borrow_mut(Vec::clear);
    let (_, events) = run_script(&llm("", ask).replace("duration_s = 3", "duration_s = 20"), note);
    let mut seen = SEEN.with_borrow_mut(std::mem::take);
    seen.dedup_by_key(|entry| entry.0);
    let mut tokens = std::collections::BTreeMap::<u64, u32>::new();
    for event in &events {
        if let What::Stop { stage, tokens: more, .. } = event.what {
            *tokens.entry(stage).or_default() += more;
        }
    }
    // Every request has ended when the next one comes, and all prompts are alike.
    let (mut sum, mut count) = (0.0_f64, 0.0_f64);
    for (serial, predicted) in seen {
        let all = (4.0 * 50.0 + sum) / (4.0 + count);
        assert_eq!(predicted, ((4.0 * all + sum) / (4.0 + count)).round() as u32, "request {serial}");
        (sum, count) = (sum + f64::from(tokens[&serial]), count + 1.0);
    }
    assert!(count > 10.0);
}
