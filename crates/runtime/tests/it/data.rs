//! What passes between the stages of a chain.

use onbeat_backend::Gate;
use onbeat_core::event::What;

use crate::support::{Script, Setup, scenario};

/// A stream whose jobs run through stages: name, model, and edges into it.
fn chain(period_ms: u32, stages: &[(&str, &str, &str)]) -> String {
    let stage = |&(name, model, after): &(&str, &str, &str)| {
        format!("[[chain.c.stage]]\nname = \"{name}\"\nmodel = \"{model}\"\nafter = [{after}]\n")
    };
    let stages: String = stages.iter().map(stage).collect();
    format!("[[stream]]\nname = \"s\"\nchain = \"c\"\nperiod_ms = {period_ms}\n{stages}")
}

#[test]
fn a_fan_out_gives_each_instance_its_region_and_a_join_gets_all_of_them_in_order() {
    let several = "{ stage = 'detect', fan_out = { kind = 'uniform', low = 0, high = 5 } }";
    let rest =
        chain(30, &[("detect", "detect", ""), ("crop", "crop", several), ("merge", "merge", "{ stage = 'crop' }")]);
    let one = "latency_ms = 1";
    let models = [("detect", "", one), ("crop", "", one), ("merge", "", one)];
    let stays = Script { movable: false, ..Script::default() };
    let scripts =
        [("detect", Script { regions: 3, gate: Gate::Follow(3), ..stays }), ("crop", stays), ("merge", stays)];
    let ran = Setup::new(scenario(0.4, &["a", "b"], &models, &rest), &scripts).run();
    let mut merged = ran.inputs("merge");
    assert!(!merged.is_empty());
    // Jobs may overtake each other.
    merged.sort_by_key(|input| (input.len(), input.clone()));
    for input in &merged {
        let i = input.rsplit_once("+i").unwrap().1;
        assert_eq!(*input, format!("crop(r0+i{i})+crop(r1+i{i})+crop(r2+i{i})+i{i}"));
    }
    assert!(ran.count(|what| matches!(what, What::Follow { count: 3, .. })) >= merged.len());
}

#[test]
fn a_gate_that_is_shut_skips_what_follows() {
    let rest = chain(20, &[("first", "first", ""), ("second", "second", "{ stage = 'first', probability = 0.99 }")]);
    let models = [("first", "", "latency_ms = 1"), ("second", "", "latency_ms = 1")];
    let scripts = [("first", Script { gate: Gate::Stop, ..Script::default() }), ("second", Script::default())];
    let ran = Setup::new(scenario(0.3, &["a"], &models, &rest), &scripts).run();
    assert!(ran.done() > 0);
    assert_eq!(ran.inputs("second"), Vec::<String>::new());
}

const TALK: &str = r#"
    [[session]]
    name = "chat"
    chain = "c"
    arrival = { process = "periodic", period_s = 0.15 }
    [[chain.c.stage]]
    name = "write"
    model = "write"
    prompt = 8
    output = OUTPUT
    [[chain.c.stage]]
    name = "speak"
    model = "speak"
    after = [{ stage = "write", per_tokens = 4 }]
"#;

fn talk(output: u32, script: Script) -> Vec<Vec<String>> {
    let llm = "a@prefill_ms = [[1, 1], [100, 2]]\ndecode_ms = [[0, 0.1], [1000, 0.1]]";
    let models = [("write", "shape = \"autoregressive\"", llm), ("speak", "", "b@latency_ms = 0.1")];
    let scripts = [
        ("write", Script { prompt: 8, step: std::time::Duration::from_micros(100), ..script }),
        ("speak", Script { step: std::time::Duration::ZERO, movable: false, ..Script::default() }),
    ];
    let rest = TALK.replace("OUTPUT", &output.to_string());
    let ran = Setup::new(scenario(0.9, &["a", "b"], &models, &rest), &scripts).run();
    assert!(ran.done() >= 1, "{ran:?}");
    let spoken = ran.inputs("speak");
    let of = |i: usize| {
        let own = |input: &&String| input.starts_with(&format!("i{i}#"));
        spoken.iter().filter(own).map(|input| input.split('+').next().unwrap().to_owned()).collect()
    };
    (0..ran.done().min(3)).map(of).collect()
}

#[test]
fn every_part_of_an_answer_arrives_once_and_in_order() {
    // 12 tokens, a part every three: four, and the rest in the same step as the last of them.
    let jobs = talk(40, Script { steps: 12, part_every: Some(3), ..Script::default() });
    for (i, parts) in jobs.iter().enumerate() {
        assert_eq!(*parts, (1..=5).map(|n| format!("i{i}#{n}")).collect::<Vec<_>>());
    }
}

#[test]
fn an_answer_that_would_go_on_is_cut_off_and_its_rest_is_handed_on() {
    // Cut off at 9 tokens: three parts, and the rest.
    let jobs = talk(9, Script { steps: 1000, part_every: Some(3), ..Script::default() });
    for (i, parts) in jobs.iter().enumerate() {
        assert_eq!(*parts, (1..=4).map(|n| format!("i{i}#{n}")).collect::<Vec<_>>());
    }
    // One token: it comes with the prompt.
    let jobs = talk(1, Script { steps: 1000, part_every: Some(3), ..Script::default() });
    for (i, parts) in jobs.iter().enumerate() {
        assert_eq!(*parts, [format!("i{i}#1")]);
    }
}

#[test]
fn what_stands_in_for_a_virtual_stage_comes_before_what_the_source_released() {
    let stages = [
        ("first", "first", ""),
        ("skipped", "first", "{ stage = 'first', probability = 0.0 }"),
        ("second", "second", "{ stage = 'first' }, { stage = 'skipped' }"),
    ];
    let rest = chain(30, &stages);
    let models = [("first", "", "v@latency_ms = 1"), ("second", "", "a@latency_ms = 1")];
    let scripts = [("first", Script::default()), ("second", Script::default())];
    let ran = Setup::new(scenario(0.3, &["a", "v:virtual"], &models, &rest), &scripts).run();
    let inputs = ran.inputs("second");
    assert!(!inputs.is_empty());
    for (i, input) in inputs.iter().enumerate() {
        assert_eq!(*input, format!("standin0+i{i}"));
    }
}
