//! Parts of a chain that may run again are unrolled: the chain stays a DAG, and every bound and every guarantee that holds for DAGs
//! holds for it.
//!
//! The part's last stage leads to the next copy of its first stage with the given probability, and for certain to whatever follows the
//! part. A stage waits until the fate of all edges into it is known: so what follows waits for the last copy that runs.

use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::limits;
use crate::spec::{ChainSpec, EdgeSpec, RepeatSpec, StageSpec};

/// A part that was checked, by positions of stages.
#[derive(Debug)]
struct Part {
    inside: Vec<bool>,
    first: usize,
    last: usize,
}

/// The stages of a chain with its parts unrolled, each with its position in the file. The stages themselves were checked.
pub(super) fn unroll(check: &mut Check<'_>, field: &Field, chain: &ChainSpec) -> Option<Vec<(usize, StageSpec)>> {
    let mut stages: Vec<(usize, StageSpec)> = chain.stage.iter().cloned().enumerate().collect();
    let mut taken = vec![false; chain.stage.len()];
    for (i, repeat) in chain.repeat.iter().enumerate() {
        let at = field.key("repeat").index(i);
        let part = part(check, &at, repeat, &chain.stage, &mut taken)?;
        unroll_part(&mut stages, chain, repeat, &part);
    }
    if stages.len() > limits::STAGES_MAX {
        let problem = format!("unrolled, the chain has {} stages", stages.len());
        check.wrong(&field.key("repeat"), problem, format!("must have 1 to {}", limits::STAGES_MAX));
        return None;
    }
    Some(stages)
}

fn part(
    check: &mut Check<'_>,
    at: &Field,
    repeat: &RepeatSpec,
    stages: &[StageSpec],
    taken: &mut [bool],
) -> Option<Part> {
    let before = check.errors.len();
    check.number(at, "probability", repeat.probability, &limits::PROBABILITY);
    check.number(at, "at_most", f64::from(repeat.at_most), &limits::REPEATS);
    let mut inside = vec![false; stages.len()];
    for (i, name) in repeat.stages.iter().enumerate() {
        let at = at.key("stages").index(i);
        match stages.iter().position(|stage| &stage.name == name) {
            None => check.unknown(&at, "stage", name, stages.iter().map(|stage| stage.name.as_str())),
            Some(stage) if taken[stage] => {
                check.wrong(&at, format!("`{name}` is repeated twice"), "a stage belongs to one part at most");
            }
            Some(stage) => {
                inside[stage] = true;
                taken[stage] = true;
            }
        }
    }
    if check.errors.len() > before {
        return None;
    }
    let place = |name: &str| stages.iter().position(|stage| stage.name == name);
    let is_inside = |edge: &EdgeSpec| place(&edge.stage).is_some_and(|from| inside[from]);
    let members = || (0..stages.len()).filter(|&i| inside[i]);
    let firsts: Vec<usize> = members().filter(|&i| !stages[i].after.iter().any(is_inside)).collect();
    let follows = |i: usize, j: usize| stages[j].after.iter().any(|edge| edge.stage == stages[i].name);
    let lasts: Vec<usize> = members().filter(|&i| !members().any(|j| follows(i, j))).collect();
    let (&[first], &[last]) = (firsts.as_slice(), lasts.as_slice()) else {
        let problem = format!("the part begins in {} stages and ends in {}", firsts.len(), lasts.len());
        check.wrong(&at.key("stages"), problem, "a part that repeats begins in one stage and ends in one");
        return None;
    };
    for i in members().filter(|&i| i != first && stages[i].after.iter().any(|edge| !is_inside(edge))) {
        let problem = format!("`{}` also follows a stage outside of the part", stages[i].name);
        check.wrong(&at.key("stages"), problem, format!("only `{}`, where the part begins, can", stages[first].name));
    }
    for (i, stage) in stages.iter().enumerate().filter(|&(i, _)| !inside[i]) {
        for edge in stage.after.iter().filter(|edge| is_inside(edge)) {
            let plain = edge.probability.is_none() && edge.fan_out.is_none() && edge.per_tokens.is_none();
            if edge.stage != stages[last].name || !plain {
                let problem = format!("`{}` follows `{}`, which repeats", stages[i].name, edge.stage);
                let help = format!("follow `{}`, where the part ends, over a plain edge", stages[last].name);
                check.wrong(&at.key("stages"), problem, help);
            }
        }
    }
    (check.errors.len() == before).then_some(Part { inside, first, last })
}

fn unroll_part(stages: &mut Vec<(usize, StageSpec)>, chain: &ChainSpec, repeat: &RepeatSpec, part: &Part) {
    let name = |stage: usize, copy: u32| match copy {
        1 => chain.stage[stage].name.clone(),
        copy => format!("{}.{copy}", chain.stage[stage].name),
    };
    let edge = |stage: String, probability| EdgeSpec { stage, probability, fan_out: None, per_tokens: None };
    let place = |name: &str| chain.stage.iter().position(|stage| stage.name == name);
    let mut copies = Vec::new();
    for copy in 2..=repeat.at_most {
        for (i, original) in chain.stage.iter().enumerate().filter(|&(i, _)| part.inside[i]) {
            let mut stage = StageSpec { name: name(i, copy), ..original.clone() };
            if i == part.first {
                stage.after = vec![edge(name(part.last, copy - 1), Some(repeat.probability))];
            } else {
                for before in &mut stage.after {
                    before.stage = place(&before.stage).map_or_else(String::new, |from| name(from, copy));
                }
            }
            copies.push((i, stage));
        }
    }
    let last = &chain.stage[part.last].name;
    for (i, stage) in stages.iter_mut() {
        if !part.inside[*i] && stage.after.iter().any(|edge| &edge.stage == last) {
            stage.after.extend((2..=repeat.at_most).map(|copy| edge(name(part.last, copy), None)));
        }
    }
    // After the part's last stage in the file, so that the order of the stages stays the reader's.
    let end = stages.iter().rposition(|&(i, _)| part.inside[i]).map_or(stages.len(), |end| end + 1);
    stages.splice(end..end, copies);
}
