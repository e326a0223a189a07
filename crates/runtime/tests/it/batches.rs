//! Answers that share the steps of a real device.

use std::collections::BTreeMap;

use onbeat_core::event::{StopReason, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{Fault, Ran, Script, Setup, scenario, words};

/// Three requests at once; what follows speaks parts of four tokens.
fn rest(output: u32) -> String {
    let session = |n| {
        format!("[[session]]\nname = \"s{n}\"\nchain = \"c\"\narrival = {{ process = \"periodic\", period_s = 10 }}\n")
    };
    let stages = format!(
        r#"
        [[chain.c.stage]]
        name = "write"
        model = "write"
        prompt = 8
        output = {output}
        [[chain.c.stage]]
        name = "speak"
        model = "speak"
        after = [{{ stage = "write", per_tokens = 4 }}]
        "#
    );
    (0..3).map(session).chain([stages]).collect()
}

/// Prompts first, one by one, which end the batch; then all answers at once.
fn prompts_then_batches(view: &View<'_>, actions: &mut Actions) {
    let (a, b) = (view.processors().next().unwrap(), view.processors().nth(1).unwrap());
    let writes = |stage| view.can_run(stage, a);
    for &stage in view.ready() {
        if !writes(stage) && view.free_slots(b) > 0 {
            return actions.start(stage, b);
        }
    }
    let ready = view.ready().iter().copied().filter(|&stage| writes(stage));
    let prompt = ready.clone().find(|&stage| view.stage(stage).phase == 0);
    match (view.occupancy(a).runs.first(), prompt) {
        (None, Some(prompt)) => actions.start(prompt, a),
        (Some(run), Some(_)) if !run.ending && view.stage(run.stage).phase > 0 => actions.preempt(run.stage),
        // The first starts, the others join it.
        (None, None) => ready.for_each(|stage| actions.start(stage, a)),
        _ => {}
    }
}

fn chats(output: u32, script: Script) -> Ran {
    let llm =
        "a@prefill_ms = [[1, 1], [100, 2]]\ndecode_ms = [[0, 0.5], [1000, 0.5]]\nbatch_factor = [[1, 1.0], [4, 1.5]]";
    let models = [("write", "shape = \"autoregressive\"", llm), ("speak", "", "b@latency_ms = 0.1")];
    let scripts = [
        ("write", Script { prompt: 8, movable: false, step: std::time::Duration::from_micros(100), ..script }),
        ("speak", Script { step: std::time::Duration::ZERO, movable: false, ..Script::default() }),
    ];
    let mut setup = Setup::new(scenario(1.5, &["a", "b"], &models, &rest(output)), &scripts);
    setup.sources_apart = true;
    setup.rule = prompts_then_batches;
    setup.run()
}

/// How much longer than that of the first session an answer is.
fn by_session(input: &str) -> u32 {
    5 * (input[1..].parse::<u32>().unwrap() % 10)
}

/// Answers that are complete, by their input, with what was spoken of each.
fn said(ran: &Ran) -> BTreeMap<String, (String, Vec<String>)> {
    let done = |job| ran.count(|what| *what == What::JobDone { job }) > 0;
    let spoken = ran.inputs("speak");
    let mut said = BTreeMap::new();
    for product in ran.kept.products.iter().filter(|it| done(it.job)) {
        let text = words(&product.data);
        let Some(input) = text.strip_prefix("write(").and_then(|it| it.strip_suffix(')')) else { continue };
        let own = |it: &&String| it.starts_with(&format!("{input}#"));
        let parts = spoken.iter().filter(own).map(|it| it.split('+').next().unwrap().to_owned()).collect();
        said.insert(input.to_owned(), (text.clone(), parts));
    }
    assert_eq!(said.len(), 3);
    said
}

#[test]
fn answers_share_steps_and_each_ends_by_itself() {
    let script = Script { steps: 20, more: by_session, part_every: Some(4), ..Script::default() };
    let (alone, ran) = (chats(100, script), chats(100, Script { members_max: 4, ..script }));
    let (alone, together) = (said(&alone), said(&ran));
    assert_eq!(together, alone);
    ran.assert_each_step_once("write");
    assert!(ran.log.shared.lock().unwrap().contains(&3));
    assert_eq!(ran.count(|what| matches!(what, What::Ended { .. })), 2);
    assert!(ran.count(|what| matches!(what, What::Stop { why: StopReason::Rebatched, .. })) >= 2);
    // Each answer's length is its own.
    let mut stages = BTreeMap::new();
    for event in &ran.events {
        match event.what {
            What::Ready { stage, node, .. } => drop(stages.insert(stage, ran.system.nodes[node].source.0)),
            What::Length { stage, output } => assert_eq!(output, 20 + 5 * stages[&stage]),
            _ => {}
        }
    }
}

#[test]
fn a_model_whose_sessions_share_no_steps_takes_turns() {
    // Of a batch of more than the model takes at once, some go first.
    for members_max in [1, 2] {
        let ran = chats(100, Script { steps: 20, more: by_session, members_max, ..Script::default() });
        assert_eq!((ran.done(), ran.failed()), (3, 0));
        assert_eq!(ran.count(|what| matches!(what, What::Ended { .. })), 2);
        ran.assert_each_step_once("write");
        assert!(ran.log.shared.lock().unwrap().iter().all(|&members| members <= members_max));
    }
}

#[test]
fn members_that_would_go_on_are_cut_off_each_at_its_longest_output() {
    let ran = chats(25, Script { steps: 1000, part_every: Some(8), members_max: 4, ..Script::default() });
    assert!(!ran.log.shared.lock().unwrap().is_empty());
    for (input, (_, parts)) in said(&ran) {
        assert_eq!(parts, (1..=4).map(|n| format!("{input}#{n}")).collect::<Vec<_>>());
    }
}

#[test]
fn a_device_that_fails_a_shared_step_fails_all_who_share_it() {
    let fault = |_: &str, inference, step| (inference == 1 && step == 10).then_some(Fault::Fail);
    let ran = chats(100, Script { steps: 20, members_max: 4, fault, ..Script::default() });
    let failed =
        ran.events.iter().find_map(|event| if let What::Failed { run, .. } = event.what { Some(run) } else { None });
    let failed = failed.unwrap();
    assert_eq!(ran.failed(), ran.count(|what| matches!(what, What::Start { run, .. } if *run == failed)));
    assert_eq!((ran.done(), ran.failed()), (0, 3));
    assert_eq!(ran.kept.troubles.len(), 1);
}
