//! Chains: stages in an order in which every stage comes after those that it waits for.

use std::collections::BTreeMap;

use crate::distribution::Distribution;
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::limits;
use crate::spec::{ChainSpec, DraftSpec, ModelShape, ScenarioSpec, StageSpec, VariantsSpec};

use super::content;
use super::distribution::{self, DELAY_MS, INSTANCES, TOKENS};
use super::models::{Catalogue, Variant, shape_name};
use super::repeat;

/// A chain that was checked.
#[derive(Clone, Debug)]
pub(super) struct Chain<'a> {
    /// Name.
    pub name: String,
    /// End-to-end deadline [ms].
    pub deadline_ms: Option<f64>,
    /// Stages, each after all that it waits for.
    pub stages: Vec<Stage<'a>>,
}

/// A model that drafts for a stage.
#[derive(Clone, Debug)]
pub(super) struct PlannedDraft<'a> {
    /// The model.
    pub variant: Variant<'a>,
    /// Tokens per cycle.
    pub tokens: u32,
    /// Probability that one is accepted.
    pub acceptance: Distribution,
    /// Key of its source.
    pub source: Option<String>,
}

/// A stage of a chain.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    /// As the file has it.
    pub spec: StageSpec,
    /// Where it stands in the file.
    pub field: Field,
    /// Models that may run it, the preferred one first.
    pub candidates: Vec<Variant<'a>>,
    /// The model that may draft for it.
    pub draft: Option<PlannedDraft<'a>>,
    /// Variants that a policy may choose instead of the first candidate, best first.
    pub variants: Vec<Variant<'a>>,
    /// Prompt length, if the stage has its own.
    pub prompt: Option<Distribution>,
    /// Output length, if the stage has its own.
    pub output: Option<Distribution>,
    /// Edges from the stages that go before.
    pub before: Vec<Before>,
    /// Latency of a tool [ns]; it has no candidates then.
    pub tool: Option<Distribution>,
}

/// An edge, seen from its end.
#[derive(Clone, Debug)]
pub(super) struct Before {
    /// Position of the stage where it starts.
    pub stage: usize,
    /// Where it stands in the file.
    pub field: Field,
    /// Probability that it is taken.
    pub probability: f64,
    /// Number of instances that follow.
    pub fan_out: Option<Distribution>,
    /// One instance per so many output tokens.
    pub per_tokens: Option<u32>,
}

/// All chains of a scenario by name, less those that are wrong.
pub(super) fn resolve<'a>(
    check: &mut Check<'_>,
    scenario: &ScenarioSpec,
    catalogue: &Catalogue<'a>,
) -> BTreeMap<String, Option<Chain<'a>>> {
    let mut chains = BTreeMap::new();
    for (name, spec) in &scenario.chain {
        let field = Field::root().key("chain").key(name);
        check.name(&field, name);
        chains.insert(name.clone(), chain(check, &field, name, spec, catalogue));
    }
    chains
}

/// A chain of one stage, for a source that names a model; both are called like the model.
pub(super) fn of_model<'a>(
    check: &mut Check<'_>,
    source: &Field,
    model: &str,
    catalogue: &Catalogue<'a>,
) -> Option<Chain<'a>> {
    let spec = StageSpec { name: model.to_owned(), model: Some(model.to_owned()), ..StageSpec::default() };
    let stage = stage(check, source, &spec, catalogue)?;
    Some(Chain { name: model.to_owned(), deadline_ms: None, stages: vec![stage] })
}

fn chain<'a>(
    check: &mut Check<'_>,
    field: &Field,
    name: &str,
    spec: &ChainSpec,
    catalogue: &Catalogue<'a>,
) -> Option<Chain<'a>> {
    let before = check.errors.len();
    check.optional(field, "deadline_ms", spec.deadline_ms, &limits::DEADLINE_MS);
    let at = field.key("stage");
    if spec.stage.is_empty() || spec.stage.len() > limits::STAGES_MAX {
        check.wrong(
            &at,
            format!("the chain has {} stages", spec.stage.len()),
            format!("must have 1 to {}", limits::STAGES_MAX),
        );
        return None;
    }
    let in_file: Vec<(usize, StageSpec)> = spec.stage.iter().cloned().enumerate().collect();
    let mut stages = all_stages(check, &at, &in_file, catalogue);
    if check.errors.len() == before && !spec.repeat.is_empty() {
        let unrolled = repeat::unroll(check, field, spec)?;
        stages = all_stages(check, &at, &unrolled, catalogue);
    }
    if check.errors.len() > before {
        return None;
    }
    let order = order(check, &at, &stages)?;
    Some(Chain { name: name.to_owned(), deadline_ms: spec.deadline_ms, stages: sort(stages, &order) })
}

/// Stages with their positions in the file.
fn all_stages<'a>(
    check: &mut Check<'_>,
    at: &Field,
    specs: &[(usize, StageSpec)],
    catalogue: &Catalogue<'a>,
) -> Vec<Stage<'a>> {
    check.distinct("stages", specs.iter().map(|(i, s)| (at.index(*i).key("name"), s.name.as_str())));
    let mut stages = Vec::new();
    for (i, spec) in specs {
        if let Some(mut stage) = stage(check, &at.index(*i), spec, catalogue) {
            stage.before = edges(check, &at.index(*i), spec, specs);
            stages.push(stage);
        }
    }
    stages
}

fn stage<'a>(check: &mut Check<'_>, at: &Field, spec: &StageSpec, catalogue: &Catalogue<'a>) -> Option<Stage<'a>> {
    let before = check.errors.len();
    check.name(&at.key("name"), &spec.name);
    let variant_at = at.key("variant");
    let variant = spec.variant.as_deref().map(|name| (&variant_at, name));
    let mut candidates = Vec::new();
    match (&spec.model, &spec.tool_ms) {
        (Some(model), None) => candidates.extend(catalogue.variant(check, &at.key("model"), model, variant)),
        (None, Some(_)) => not_for_tools(check, at, spec),
        (Some(_), Some(_)) => {
            check.wrong(&at.key("tool_ms"), "both `model` and `tool_ms` are given", "a stage is a model or a tool");
        }
        (None, None) => {
            check.wrong(
                at,
                "neither `model` nor `tool_ms` is given",
                "say which model runs, or how long the tool takes",
            );
        }
    }
    for (i, name) in spec.or.iter().enumerate() {
        candidates.extend(catalogue.variant(check, &at.key("or").index(i), name, None));
    }
    let variants = variants(check, at, spec, candidates.first(), catalogue);
    check.optional(at, "size", spec.size, &limits::ELEMENTS);
    check.optional(at, "steps", spec.steps.map(f64::from), &limits::STEPS);
    check.number(at, "output_kb", spec.output_kb, &limits::SIZE_KB);
    let prompt = spec.prompt.as_ref().and_then(|d| distribution::resolve(check, &at.key("prompt"), d, TOKENS));
    let output = spec.output.as_ref().and_then(|d| distribution::resolve(check, &at.key("output"), d, TOKENS));
    let tool = spec.tool_ms.as_ref().and_then(|d| distribution::resolve(check, &at.key("tool_ms"), d, DELAY_MS));
    let for_shapes = [
        ("steps", spec.steps.is_some(), ModelShape::Iterative),
        ("prompt", spec.prompt.is_some(), ModelShape::Autoregressive),
        ("output", spec.output.is_some(), ModelShape::Autoregressive),
    ];
    for (key, given, shape) in for_shapes {
        if given && !candidates.is_empty() && candidates.iter().all(|model| model.spec.shape != shape) {
            let found = shape_name(candidates[0].spec.shape);
            let problem = format!("`{key}` has no use: `{}` has the shape `{found}`", candidates[0].model);
            check.wrong(&at.key(key), problem, format!("it belongs to models of shape `{}`", shape_name(shape)));
        }
    }
    content::check_work(check, at, spec, candidates.first());
    let draft = spec.draft.as_ref().and_then(|draft| draft_of(check, at, draft, candidates.first(), catalogue));
    (check.errors.len() == before).then(|| Stage {
        draft,
        spec: spec.clone(),
        field: at.clone(),
        candidates,
        variants,
        prompt,
        output,
        before: Vec::new(),
        tool,
    })
}

/// The model that drafts for a stage.
fn draft_of<'a>(
    check: &mut Check<'_>,
    at: &Field,
    spec: &DraftSpec,
    own: Option<&Variant<'a>>,
    catalogue: &Catalogue<'a>,
) -> Option<PlannedDraft<'a>> {
    let at = at.key("draft");
    let variant = catalogue.variant(check, &at.key("model"), &spec.model, None)?;
    for (field, model) in [(at.key("model"), Some(&variant)), (at.clone(), own)] {
        if let Some(model) = model.filter(|model| model.spec.shape != ModelShape::Autoregressive) {
            let problem = format!("`{}` has the shape `{}`", model.name(), shape_name(model.spec.shape));
            check.wrong(&field, problem, "tokens are drafted by and for models of shape `autoregressive`");
        }
        if let Some(model) = model.filter(|model| !model.exits().is_empty()) {
            let problem = format!("`{}` has `exits`, and drafts and their verification are whole steps", model.name());
            check.wrong(&field, problem, "leave out one of `exits` and `draft`");
        }
    }
    check.number(&at, "tokens", f64::from(spec.tokens), &limits::DRAFT);
    let acceptance = distribution::resolve(check, &at.key("acceptance"), &spec.acceptance, distribution::PROBABILITY)?;
    Some(PlannedDraft { variant, tokens: spec.tokens, acceptance, source: spec.source.clone() })
}

/// The variants that a policy may choose instead of a stage's own.
fn variants<'a>(
    check: &mut Check<'_>,
    at: &Field,
    spec: &StageSpec,
    own: Option<&Variant<'a>>,
    catalogue: &Catalogue<'a>,
) -> Vec<Variant<'a>> {
    let field = at.key("variants");
    let Some(own) = own.copied() else { return Vec::new() };
    let mut variants: Vec<Variant<'a>> = match &spec.variants {
        VariantsSpec::None => return Vec::new(),
        VariantsSpec::Any(_) => {
            let named = own.spec.variant.keys().map(|name| Some(name.as_str()));
            let all = std::iter::once(None).chain(named).map(|variant| Variant { variant, ..own });
            all.filter(|variant| variant.variant != own.variant).collect()
        }
        VariantsSpec::These(these) => {
            let named = these.iter().enumerate();
            named.filter_map(|(i, name)| catalogue.variant(check, &field.index(i), name, None)).collect()
        }
    };
    if own.spec.shape == ModelShape::Streaming {
        let problem =
            format!("`{}` is streaming: the state that one variant leaves is of no use to another", own.model);
        check.wrong(&field, problem, "name one variant in `variant`");
    }
    for (i, variant) in variants.iter().enumerate() {
        let (name, shape) = (variant.name(), variant.spec.shape);
        if shape != own.spec.shape {
            let (shape, other) = (shape_name(shape), shape_name(own.spec.shape));
            let problem = format!("`{name}` has the shape `{shape}`, `{}` has `{other}`", own.name());
            check.wrong(&field.index(i), problem, "variants of one stage have the same shape");
        }
        if name == own.name() || variants[..i].iter().any(|other| other.name() == name) {
            check.wrong(&field.index(i), format!("`{name}` is named twice"), "name every variant once");
        }
    }
    if variants.len() > limits::VARIANTS_MAX {
        let problem = format!("the stage has {} other variants", variants.len());
        check.wrong(&field, problem, format!("give at most {}", limits::VARIANTS_MAX));
        variants.truncate(limits::VARIANTS_MAX);
    }
    variants
}

/// Reports what a tool cannot have.
fn not_for_tools(check: &mut Check<'_>, at: &Field, spec: &StageSpec) {
    let given = [
        ("or", !spec.or.is_empty()),
        ("variant", spec.variant.is_some()),
        ("variants", !matches!(spec.variants, VariantsSpec::None)),
        ("adapter", spec.adapter.is_some()),
        ("size", spec.size.is_some()),
        ("steps", spec.steps.is_some()),
        ("prompt", spec.prompt.is_some()),
        ("output", spec.output.is_some()),
        ("work_by_content", !spec.work_by_content.is_empty()),
    ];
    for (key, _) in given.into_iter().filter(|&(_, given)| given) {
        check.wrong(&at.key(key), format!("`{key}` has no use: the stage is a tool"), "it belongs to models");
    }
}

/// The edges that end at a stage, by positions in the file.
fn edges(check: &mut Check<'_>, at: &Field, stage: &StageSpec, stages: &[(usize, StageSpec)]) -> Vec<Before> {
    let mut edges: Vec<Before> = Vec::new();
    for (i, spec) in stage.after.iter().enumerate() {
        let at = at.key("after").index(i);
        let Some(from) = stages.iter().position(|(_, other)| other.name == spec.stage) else {
            check.unknown(&at.key("stage"), "stage", &spec.stage, stages.iter().map(|(_, s)| s.name.as_str()));
            continue;
        };
        if edges.iter().any(|edge| edge.stage == from) {
            check.wrong(
                &at.key("stage"),
                format!("`{}` is named twice", spec.stage),
                "give one edge per stage that goes before",
            );
        }
        check.optional(&at, "probability", spec.probability, &limits::PROBABILITY);
        let fan_out =
            spec.fan_out.as_ref().and_then(|d| distribution::resolve(check, &at.key("fan_out"), d, INSTANCES));
        if fan_out.as_ref().is_some_and(|d| d.largest() < 0.5) {
            check.wrong(
                &at.key("fan_out"),
                "no instance ever follows",
                "leave the stage out, or give it more than 0 instances",
            );
        }
        if fan_out.is_some() && spec.per_tokens.is_some() {
            check.wrong(
                &at.key("fan_out"),
                "both `fan_out` and `per_tokens` are given",
                "give one of them: each says how many instances follow",
            );
        }
        check.optional(&at, "per_tokens", spec.per_tokens.map(f64::from), &limits::TOKENS);
        let probability = spec.probability.unwrap_or(1.0);
        edges.push(Before { stage: from, field: at, probability, fan_out, per_tokens: spec.per_tokens });
    }
    edges
}

/// Positions in an order in which every stage comes after those that it waits for; among those that could come next, the first in
/// the file does.
fn order(check: &mut Check<'_>, at: &Field, stages: &[Stage<'_>]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    let mut placed = vec![false; stages.len()];
    while order.len() < stages.len() {
        let ready = |i: &usize| !placed[*i] && stages[*i].before.iter().all(|edge| placed[edge.stage]);
        let Some(next) = (0..stages.len()).find(ready) else {
            let cycle: Vec<usize> = cycle(stages, &placed);
            let names: Vec<String> = cycle.iter().map(|&i| format!("`{}`", stages[i].spec.name)).collect();
            let first = cycle.first().copied().unwrap_or(0);
            let problem = format!("the stages wait for each other in a circle: {}", names.join(", "));
            check.wrong(&at.index(first).key("after"), problem, "remove one of these edges");
            return None;
        };
        placed[next] = true;
        order.push(next);
    }
    Some(order)
}

/// A cycle among the stages that could not be placed: each one waits for the next.
fn cycle(stages: &[Stage<'_>], placed: &[bool]) -> Vec<usize> {
    let mut path: Vec<usize> = Vec::new();
    let mut at = placed.iter().position(|placed| !placed).unwrap_or(0);
    while !path.contains(&at) {
        path.push(at);
        let waits_for = stages[at].before.iter().map(|edge| edge.stage).find(|&other| !placed[other]);
        let Some(next) = waits_for else { return path };
        at = next;
    }
    let start = path.iter().position(|&stage| stage == at).unwrap_or(0);
    path.split_off(start)
}

/// Stages in the given order, with their edges renumbered.
fn sort<'a>(stages: Vec<Stage<'a>>, order: &[usize]) -> Vec<Stage<'a>> {
    let mut position = vec![0; stages.len()];
    for (new, &old) in order.iter().enumerate() {
        position[old] = new;
    }
    let mut stages: Vec<Option<Stage<'a>>> = stages.into_iter().map(Some).collect();
    let mut sorted = Vec::new();
    for &old in order {
        let Some(mut stage) = stages[old].take() else { continue };
        for edge in &mut stage.before {
            edge.stage = position[edge.stage];
        }
        sorted.push(stage);
    }
    sorted
}
