//! Tests of steps that several answers share.

use super::tests::{load_from, real_model, run, session, short, tiny};
use super::*;
use crate::model::{LanguageModel, Options};
use crate::test_files::{Folder, Storage};
use onbeat_backend::Model;

const PROMPTS: [&str; 8] =
    ["first", "the second one", "a third", "hello, the fourth!", "fifth", "no. 6", "seven of eight", "8"];

/// Answers that share their steps; each joins when the one before has written two tokens, and leaves when it has ended. Their tokens and
/// parts.
fn together(model: &LanguageModel, prompts: &[&str]) -> Vec<(Vec<u32>, Vec<Data>)> {
    let control = Control::new();
    let mut sessions: Vec<LanguageSession> = prompts.iter().map(|prompt| session(model, prompt)).collect();
    let mut parts: Vec<Vec<Data>> = vec![Vec::new(); prompts.len()];
    for round in 0.. {
        for (session, parts) in sessions.iter_mut().zip(&mut parts).take(round / 2 + 1) {
            while session.reached < session.prompt {
                parts.extend(session.step(5, &control).unwrap().parts);
            }
        }
        let mut going: Vec<(&mut LanguageSession, &mut Vec<Data>)> = sessions
            .iter_mut()
            .zip(&mut parts)
            .take(round / 2 + 1)
            .filter(|(it, _)| it.stage == Stage::Going)
            .collect();
        if going.is_empty() && round / 2 + 1 >= prompts.len() {
            break;
        }
        let mut members: Vec<&mut dyn Session> =
            going.iter_mut().map(|(it, _)| &mut **it as &mut dyn Session).collect();
        if members.is_empty() {
            continue;
        }
        let steps = model.step_together(&mut members, &control).unwrap();
        assert_eq!(steps.len(), going.len());
        for ((session, parts), step) in going.iter_mut().zip(steps) {
            assert_eq!((step.units, step.done), (1, session.stage == Stage::Done));
            parts.extend(step.parts);
        }
    }
    sessions.iter().zip(parts).map(|(it, parts)| (it.tokens[it.prompt..].to_vec(), parts)).collect()
}

#[test]
fn answers_that_share_their_steps_are_those_written_alone() {
    for (storage, name) in [(Storage::Float, "float"), (Storage::Blocks, "blocks")] {
        let folder = Folder::new(&format!("together-{name}"));
        let options = Options { temperature: 0.7, seed: 3, ..short() };
        let model = tiny(&folder, storage, options);
        assert_eq!(model.members_max(), 8);
        let alone: Vec<_> = PROMPTS.iter().map(|prompt| run(&mut session(&model, prompt), 5)).collect();
        assert!(alone.windows(2).all(|two| two[0].0 != two[1].0));
        for count in [2, 3, 5] {
            assert_eq!(together(&model, &PROMPTS[..count]), alone[..count], "{count} of {name}");
        }
        let eight = together(&model, &PROMPTS);
        if let Storage::Float = storage {
            assert_eq!(eight, alone);
        } else {
            // More than five rows are not rounded to 8 bits, so these random weights choose other tokens sooner or later.
            assert!(eight.iter().all(|(tokens, _)| !tokens.is_empty()));
        }
    }
}

/// Up to five rows are multiplied with 4-bit codes like one alone: not a bit differs.
#[test]
fn the_logits_of_up_to_five_members_are_those_of_each_alone() {
    let folder = Folder::new("together-bits");
    let model = tiny(&folder, Storage::Blocks, short()).shared();
    let control = Control::new();
    let begun = |count: usize| -> Vec<LanguageSession> {
        let begin = |prompt: &&str| {
            let mut it = LanguageSession::new(Arc::clone(&model));
            it.begin(&[Data::Text((*prompt).into())]).unwrap();
            it.feed_to(it.prompt, &control).unwrap();
            it.values.take("logits").unwrap();
            it.values.put("input_ids", Tensor::new([1, 1], vec![65_i64]).unwrap());
            it
        };
        PROMPTS[..count].iter().map(begin).collect()
    };
    for count in 2..=5 {
        let (mut alone, mut both) = (begun(count), begun(count));
        let mut values: Vec<&mut Values> = both.iter_mut().map(|it| &mut it.values).collect();
        model.graph.run_together(&mut values, &control).unwrap();
        for (alone, shared) in alone.iter_mut().zip(&mut both) {
            model.graph.run(&mut alone.values, &control).unwrap();
            for name in model.caches.iter().map(|it| it.present.as_str()).chain(["logits"]) {
                let [one, other] = [&mut *alone, &mut *shared].map(|it| it.values.take_tensor(name).unwrap());
                assert_eq!(one, other, "{name} of {count}");
            }
        }
    }
}

#[test]
fn what_cannot_share_a_step_is_an_error_and_touches_nothing() {
    let folder = Folder::new("together-errors");
    let model = tiny(&folder, Storage::Float, short());
    let other = load_from(&folder.0, short());
    let control = Control::new();
    let (alone, _) = run(&mut session(&model, "first"), 100);
    let mut first = session(&model, "first");
    first.step(100, &control).unwrap();
    let mut fails = |second: &mut LanguageSession, wanted: &str| {
        let error = model.step_together(&mut [&mut first, second], &control).unwrap_err();
        assert_eq!(error.to_string(), wanted);
    };
    fails(&mut session(&model, "second"), "a prompt is worked through alone: only answers share steps");
    fails(&mut LanguageSession::new(model.shared()), "the session has no prompt yet: begin comes before step");
    fails(&mut session(&other, "second"), "a session of another model cannot share this one's steps");
    let mut nine: Vec<LanguageSession> = (0..9).map(|_| session(&model, "x")).collect();
    for it in &mut nine {
        it.step(100, &control).unwrap();
    }
    let mut nine: Vec<&mut dyn Session> = nine.iter_mut().map(|it| it as &mut dyn Session).collect();
    let error = model.step_together(&mut nine, &control).unwrap_err();
    assert!(error.to_string().ends_with("9 members do not run together; 1 to 8 do"), "{error}");
    // A step that was cancelled can be done again, alone or with others.
    let mut second = session(&model, "the second one");
    second.step(100, &control).unwrap();
    let cancelled = Control::new();
    cancelled.cancel();
    let error = model.step_together(&mut [&mut first, &mut second], &cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(model.step_together(&mut [&mut first, &mut second], &control).is_ok());
    first.running = Some(Running { count: 1, segment: 0 });
    first.values.clear();
    model.step_together(&mut [&mut first, &mut second], &control).unwrap();
    run(&mut first, 1);
    assert_eq!(first.tokens[first.prompt..], alone);
}

/// With the real weights: four members write what each writes alone, token by token.
#[test]
fn smollm2_answers_four_at_once_as_one_by_one() {
    let Some(folder) = real_model() else { return };
    let model = load_from(&folder, Options { tokens_max: 16, ..Options::default() });
    let prompts = ["What is the capital of France?", "Name three colours.", "Count to five.", "Who are you?"];
    let alone: Vec<_> = prompts.iter().map(|prompt| run(&mut session(&model, prompt), 5)).collect();
    assert_eq!(together(&model, &prompts), alone);
}
