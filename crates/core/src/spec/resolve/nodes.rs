//! Stages on the platform: which model runs each, and what it costs where.

use std::collections::BTreeMap;

use crate::cost::{Cost, Work};
use crate::curve::{Below, Curve};
use crate::distribution::Distribution;
use crate::id::{Id, IdVec, ModelId, NodeId, ProcessorId, SourceId};
use crate::joint::{Attention, Draft, Split};
use crate::spec::check::Check;
use crate::spec::document::Document;
use crate::spec::error::SpecError;
use crate::spec::limits;
use crate::spec::{ModelShape, ScenarioSpec, SplitSpec};
use crate::system::{Alternative, Edge, Figure, Model, Node, Role, Source, Variation};
use crate::units::{Bytes, Nanos};

use super::bounds;
use super::chains::{PlannedDraft, Stage};
use super::content::relative_to_best;
use super::entries::{Wanted, offload};
use super::figures::Sources;
use super::models::{Catalogue, Row, Variant, shape_name};
use super::notes::Notes;
use super::platform::ResolvedPlatform;
use super::sizes::{self, Sizes, has_end};
use super::sources::PlannedSource;

/// A variant's cost entry on each processor.
pub(super) type Rows<'a> = IdVec<ProcessorId, Option<Row<'a>>>;

/// Puts stages onto the platform.
#[derive(Debug)]
pub(super) struct Builder<'a, 'c> {
    /// The scenario's file, for mistakes.
    pub document: &'c Document,
    /// The scenario.
    pub scenario: &'c ScenarioSpec,
    /// All models and costs.
    pub catalogue: &'c Catalogue<'a>,
    /// The platform.
    pub platform: &'c ResolvedPlatform,
    /// Factor on all bytes moved.
    pub bytes_scale: f64,
    /// Variation of execution times.
    pub variation: Variation,
    /// Models in use.
    pub models: IdVec<ModelId, Model>,
    /// Stages so far.
    pub nodes: IdVec<NodeId, Node>,
    /// Sources so far.
    pub sources: IdVec<SourceId, Source>,
    /// Figures so far.
    pub figures: Vec<Figure>,
    /// What readers of results must know.
    pub notes: Notes,
    /// Mistakes so far.
    pub errors: Vec<SpecError>,
    /// Figure of each cost entry in use.
    pub rows: BTreeMap<(usize, usize), u32>,
}

impl<'a, 'c> Builder<'a, 'c> {
    pub(super) fn new(
        document: &'c Document,
        scenario: &'c ScenarioSpec,
        catalogue: &'c Catalogue<'a>,
        platform: &'c ResolvedPlatform,
        bytes_scale: f64,
        variation: Variation,
    ) -> Self {
        Self {
            document,
            scenario,
            catalogue,
            platform,
            bytes_scale,
            variation,
            models: IdVec::new(),
            nodes: IdVec::new(),
            sources: IdVec::new(),
            figures: platform.figures.clone(),
            notes: Notes::default(),
            errors: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Adds a source with its stages.
    pub(super) fn add(&mut self, planned: PlannedSource<'a>) {
        let first = self.nodes.len();
        let id = SourceId::new(self.sources.len());
        if first + planned.chain.stages.len() > limits::NODES_MAX {
            let help = format!("all chains together have at most {}", limits::NODES_MAX);
            self.wrong(&planned.field, "there are too many stages".to_owned(), help);
            return;
        }
        let mut smallest = Vec::new();
        for stage in &planned.chain.stages {
            let Some((node, sizes)) = self.node(id, stage, &planned) else { continue };
            self.nodes.push(node);
            smallest.push(sizes);
        }
        let actions = planned.actions(first);
        let PlannedSource { mut source, field, chain, .. } = planned;
        source.actions = actions;
        if self.nodes.len() < first + chain.stages.len() {
            // A stage is wrong and was reported.
            return;
        }
        for (i, stage) in chain.stages.iter().enumerate() {
            for edge in &stage.before {
                let (from, to) = (NodeId::new(first + edge.stage), NodeId::new(first + i));
                let Some(per_tokens) = edge.per_tokens else {
                    self.connect(from, to, edge.probability, edge.fan_out.clone(), None);
                    continue;
                };
                let model = &self.models[self.nodes[from].model];
                if model.shape != ModelShape::Autoregressive {
                    let problem =
                        format!("`{}` puts out no tokens: its shape is `{}`", model.name, shape_name(model.shape));
                    self.wrong(
                        &edge.field.key("per_tokens"),
                        problem,
                        "`per_tokens` follows an autoregressive stage".to_owned(),
                    );
                }
                self.connect(from, to, edge.probability, None, Some(per_tokens));
            }
        }
        source.nodes = first as u32..self.nodes.len() as u32;
        let variation = self.variation.smallest();
        let splits: Vec<bool> =
            self.nodes.iter().skip(first).map(|node| self.models[node.model].split.is_some()).collect();
        bounds::set(self.nodes_mut(first), &mut source, (&smallest, &splits), variation);
        if source.ttft.is_some() || source.tpot.is_some() {
            bounds::set_to_first_token(self.nodes_mut(first), first);
        }
        let instances = bounds::instances_max(&self.nodes.as_slice()[first..], first);
        if instances > limits::INSTANCES_MAX {
            let problem = format!("one job may have {instances:.0} stage instances");
            self.wrong(&field, problem, format!("fan out to at most {} instances per job", limits::INSTANCES_MAX));
        }
        self.sources.push(source);
    }

    fn nodes_mut(&mut self, first: usize) -> Vec<&mut Node> {
        self.nodes.iter_mut().skip(first).collect()
    }

    fn connect(
        &mut self,
        from: NodeId,
        to: NodeId,
        probability: f64,
        fan_out: Option<Distribution>,
        per_tokens: Option<u32>,
    ) {
        self.nodes[from].after.push(Edge { to, probability, fan_out, per_tokens });
        self.nodes[to].before.push(from);
    }

    pub(super) fn wrong(&mut self, field: &crate::spec::field::Field, problem: String, help: String) {
        Check::new(self.document, &mut self.errors).wrong(field, problem, help);
    }

    /// A stage without edges and bounds, and its smallest size.
    fn node(&mut self, source: SourceId, stage: &Stage<'a>, planned: &PlannedSource<'a>) -> Option<(Node, Work)> {
        let works = self.works_in_content(stage, planned)?;
        if let Some(tool) = &stage.tool {
            let (mut node, least) = self.tool(source, stage, tool)?;
            node.in_content = self.in_content(stage, planned, works, &[]);
            return Some((node, least));
        }
        let mut choice = self.choose(stage)?.into_iter();
        let (variant, rows) = choice.next()?;
        let adapter = self.adapter(stage, &variant).ok()?;
        let shape = variant.spec.shape;
        let tokens = shape == ModelShape::Autoregressive;
        let lengths = |own: &Option<Distribution>, session: &Option<Distribution>| {
            own.clone().or_else(|| session.clone()).filter(|_| tokens)
        };
        let prompt = lengths(&stage.prompt, &planned.prompt);
        let output = lengths(&stage.output, &planned.output);
        let steps = self.steps(stage, &variant)?;
        let lengths = [prompt.as_ref(), output.as_ref()];
        let mut sizes = match sizes::of(&planned.source.arrival, tokens.then_some(lengths), steps) {
            Ok(sizes) => sizes,
            Err(key) => {
                let problem = format!("`{}` has no {key} length", stage.spec.name);
                let place = if planned.source.session { "the session or to the stage" } else { "the stage" };
                self.wrong(&planned.field, problem, format!("add `{key}` to {place}"));
                return None;
            }
        };
        if let Some(most) = planned.source.text.conversation.filter(|_| tokens) {
            sizes.largest.prompt = sizes.largest.prompt.max(most);
        }
        let output = output.map(|output| self.cut_to_reserve(output, sizes, &stage.spec.name));
        let exits = variant.exits();
        sizes = sizes.with_exits(&exits).with_content(&self.shares(planned, &works));
        let model = self.model(&variant);
        let mut kinds = None;
        let (costs, fastest, best) = self.costs(stage, &variant, &rows, sizes, &mut kinds)?;
        let mut variants = Vec::new();
        for (other, rows) in choice {
            let steps = self.steps(stage, &other)?;
            let exits = other.exits();
            let sizes = sizes.with_steps(steps).with_exits(&exits);
            let model = self.model(&other);
            let (costs, fastest, best) = self.costs(stage, &other, &rows, sizes, &mut kinds)?;
            variants.push((other, Alternative { model, costs, fastest, best, steps, quality: None, exits }));
        }
        let draft = match &stage.draft {
            Some(draft) => Some(self.draft(stage, draft, &rows, sizes)?),
            None => None,
        };
        let attention = variant.spec.attention.as_ref().map(|spec| self.attention(spec, &variant, &costs, sizes));
        let quality = self.relative_quality(&stage.spec.name, &variant, &mut variants);
        let all: Vec<Variant<'a>> = std::iter::once(variant).chain(variants.iter().map(|(other, _)| *other)).collect();
        let in_content = self.in_content(stage, planned, works, &all);
        let node = Node {
            name: stage.spec.name.clone(),
            source,
            model,
            costs,
            fastest,
            best,
            tail: Nanos::ZERO,
            tail_together: None,
            to_first_token: None,
            attention,
            steps,
            prompt,
            output,
            expected: sizes.expected,
            output_max: if tokens { sizes.largest.output } else { 0 },
            output_bytes: stage.spec.output_kb * 1e3,
            draft,
            before: Vec::new(),
            after: Vec::new(),
            variants: variants.into_iter().map(|(_, other)| other).collect(),
            quality,
            tool: None,
            adapter,
            exits,
            in_content,
        };
        Some((node, sizes.smallest))
    }

    /// How a stage's attention can be divided.
    fn attention(
        &self,
        spec: &SplitSpec,
        variant: &Variant<'a>,
        costs: &IdVec<ProcessorId, Option<Cost>>,
        sizes: Sizes,
    ) -> Attention {
        let platform = &self.platform.platform;
        let bandwidth: IdVec<ProcessorId, Option<f64>> =
            platform.processors.ids().map(|p| platform.bandwidth_of(p)).collect();
        let cache_per_token = variant.spec.kv_kb_per_token.unwrap_or(0.0) * 1e3 * self.bytes_scale;
        let contexts = (1.0, f64::from(sizes.largest.prompt) + f64::from(sizes.largest.output));
        let least = |p: ProcessorId| {
            let decode = costs[p].as_ref().and_then(|cost| cost.phases.get(1));
            decode.map_or(1.0, |(_, cost)| Attention::least_of(cost, cache_per_token, bandwidth[p], contexts))
        };
        let least = platform.processors.ids().map(least).collect();
        Attention { split: Split { points: spec.points, bytes: spec.kb * 1e3 }, cache_per_token, bandwidth, least }
    }

    /// The model that drafts for a stage, with what it costs, and what verifying costs, on each processor.
    fn draft(
        &mut self,
        stage: &Stage<'a>,
        planned: &PlannedDraft<'a>,
        rows: &IdVec<ProcessorId, Option<Row<'a>>>,
        sizes: Sizes,
    ) -> Option<Draft> {
        let field = stage.field.key("draft");
        let variant = planned.variant;
        let platform = self.platform;
        let mut costs: IdVec<ProcessorId, Option<Cost>> = IdVec::new();
        for processor in platform.platform.processors.ids() {
            let row = self.catalogue.cost(&variant, platform, processor);
            costs.push(match row {
                Some(row) => Some(self.cost(Wanted { stage, variant: &variant, processor, sizes }, &row)?),
                None => None,
            });
        }
        if costs.iter().all(Option::is_none) {
            let problem = format!("platform `{}` has no cost of `{}`", platform.platform.name, variant.name());
            self.wrong(&field.key("model"), problem, "name a model that it has, or add a `[[cost]]` entry".to_owned());
            return None;
        }
        let factor = |row: &Option<Row<'a>>| {
            let spec = row.as_ref()?.spec;
            let points = spec.verify_factor.clone().or_else(|| spec.batch_factor.clone())?;
            Some(Curve::new(points, Below::Hold))
        };
        let verify: IdVec<ProcessorId, Option<Curve>> = rows.iter().map(factor).collect();
        if verify.iter().all(Option::is_none) {
            let problem =
                format!("nothing says what it costs to verify several tokens of `{}` at once", stage.spec.name);
            let help = "add `verify_factor` (or `batch_factor`) to a cost entry of the stage's model".to_owned();
            self.wrong(&field, problem, help);
            return None;
        }
        if let Some(key) = &planned.source {
            let sources = Sources { table: &self.scenario.source, inline: true };
            let mut check = Check::new(self.document, &mut self.errors);
            sources.check_key(&mut check, &field.key("source"), "acceptance", Some(key));
            let what = format!("{} drafts for {}: acceptance", variant.name(), stage.spec.name);
            self.figures.push(sources.figure(what, Some(key), None));
        }
        let model = self.model(&variant);
        Some(Draft::new(model, costs, verify, planned.tokens, planned.acceptance.clone()))
    }

    /// Sets the variants' quality relative to the best of them; that of the default one. `None` without a choice, or where scores are
    /// unknown or of different kinds.
    fn relative_quality(
        &mut self,
        stage: &str,
        own: &Variant<'a>,
        others: &mut [(Variant<'a>, Alternative)],
    ) -> Option<f64> {
        if others.is_empty() {
            return None;
        }
        let first = own.quality();
        let kind = first.map(|quality| (quality.metric.as_str(), quality.higher_is_better));
        let all = || std::iter::once(first).chain(others.iter().map(|(other, _)| other.quality()));
        let comparable = all().all(|quality| {
            quality.is_some_and(|quality| Some((quality.metric.as_str(), quality.higher_is_better)) == kind)
        });
        // A ratio of scores that can be negative says nothing.
        let positive = all().flatten().all(|quality| quality.value >= 0.0);
        if !comparable || !positive {
            self.notes.assume(format!(
                "Nothing says how good the variants of stage `{stage}` are, compared with each other: their scores are unknown or of different kinds."
            ));
            return None;
        }
        let values: Vec<f64> = all().flatten().map(|quality| quality.value).collect();
        let qualities = relative_to_best(&values, kind.is_some_and(|(_, higher)| higher));
        for ((_, other), &quality) in others.iter_mut().zip(&qualities[1..]) {
            other.quality = Some(quality);
        }
        qualities.first().copied()
    }

    /// The first of the stage's models that has a cost on a processor that may run it, and the variants that may take its place.
    fn choose(&mut self, stage: &Stage<'a>) -> Option<Vec<(Variant<'a>, Rows<'a>)>> {
        let platform = self.platform;
        let name = &platform.platform.name;
        let on = &stage.spec.on;
        let known = on.iter().filter(|on| platform.has(on)).count();
        for (i, unknown) in on.iter().enumerate().filter(|(_, on)| !platform.has(on)) {
            if known == 0 {
                let at = stage.field.key("on").index(i);
                Check::new(self.document, &mut self.errors).unknown(&at, "processor", unknown, platform.names());
            } else {
                self.notes
                    .warn(format!("Stage `{}` may run on `{unknown}`, which `{name}` does not have.", stage.spec.name));
            }
        }
        if known == 0 && !on.is_empty() {
            return None;
        }
        let allowed = |id: ProcessorId| on.is_empty() || on.iter().any(|on| platform.means(id, on));
        let catalogue = self.catalogue;
        let rows_of = |variant: &Variant<'a>| -> Option<(Variant<'a>, Rows<'a>)> {
            let ids = platform.platform.processors.ids();
            let row = |id| if allowed(id) { catalogue.cost(variant, platform, id) } else { None };
            let rows: Rows<'a> = ids.map(row).collect();
            rows.iter().any(Option::is_some).then_some((*variant, rows))
        };
        let choice = stage.candidates.iter().take(1).chain(&stage.variants);
        let mut chosen: Vec<(Variant<'a>, Rows<'a>)> = choice.clone().filter_map(rows_of).collect();
        if chosen.is_empty() {
            chosen.extend(stage.candidates.iter().skip(1).find_map(rows_of));
        } else {
            for missing in choice.skip(1).filter(|variant| rows_of(variant).is_none()) {
                self.notes.assume(format!(
                    "Stage `{}` cannot run `{}`, of which `{name}` has no profile.",
                    stage.spec.name,
                    missing.name()
                ));
            }
        }
        if let (Some((first, _)), Some(preferred)) = (chosen.first(), stage.candidates.first()) {
            if first.name() != preferred.name() {
                let text = format!(
                    "Stage `{}` runs `{}` in place of `{}`, of which `{name}` has no profile.",
                    stage.spec.name,
                    first.name(),
                    preferred.name()
                );
                self.notes.assume(text);
            }
            return Some(chosen);
        }
        let tried: Vec<String> = stage.candidates.iter().map(|variant| format!("`{}`", variant.name())).collect();
        let place = if on.is_empty() { String::new() } else { format!(" for {}", on.join(", ")) };
        let problem = format!("platform `{name}` has no cost of {}{place}", tried.join(", "));
        let help = "add a `[[cost]]` entry, or name in the stage's `or` a model that has one".to_owned();
        self.wrong(&stage.field.key("model"), problem, help);
        None
    }

    /// Steps of an iterative model; 0 for others.
    fn steps(&mut self, stage: &Stage<'a>, variant: &Variant<'a>) -> Option<u32> {
        if variant.spec.shape != ModelShape::Iterative {
            return Some(0);
        }
        let steps = stage.spec.steps.or(variant.spec.steps);
        if steps.is_none() {
            let problem = format!("nothing says how many steps `{}` has", variant.name());
            self.wrong(&stage.field, problem, "add `steps` to the stage or to the model".to_owned());
        }
        steps
    }

    /// Outputs are cut to the length that memory is reserved for; that changes one in about ten thousand where a distribution has no
    /// largest value.
    fn cut_to_reserve(&mut self, mut output: Distribution, sizes: Sizes, stage: &str) -> Distribution {
        let most = f64::from(sizes.largest.output);
        if output.max > most && !has_end(&output) {
            self.notes.assume(format!(
                "Outputs of stage `{stage}` are cut to {most} tokens, which one in about ten thousand exceeds."
            ));
        }
        output.max = output.max.min(most);
        output
    }

    /// The model's index; added when it is first used.
    fn model(&mut self, variant: &Variant<'a>) -> ModelId {
        let name = variant.name();
        if let Some((id, _)) = self.models.enumerate().find(|(_, model)| model.name == name) {
            return id;
        }
        let (spec, own) = (variant.spec, variant.own());
        let weights_of = variant.weights_of().map(|whole| self.model(&whole));
        let path = own.and_then(|own| own.path.as_ref()).or(spec.path.as_ref());
        if !variant.exits().is_empty() {
            let sources = self.catalogue.layers[variant.layer].sources();
            let key = own.map_or(&spec.source, |own| &own.source).as_deref();
            self.figures.push(sources.figure(format!("{name}: early exits"), key, None));
        }
        if let Some(mb) = variant.resident_mb() {
            let sources = self.catalogue.layers[variant.layer].sources();
            let key = own.and_then(|own| own.source.as_deref()).or(spec.source.as_deref());
            let row = if own.is_some() { None } else { spec.row.as_deref() };
            self.figures.push(sources.figure(format!("{name}: size of the weights"), key, row));
            for (split, what) in [(&spec.split, "how it is divided"), (&spec.attention, "how its attention is divided")]
            {
                if let Some(key) = split.as_ref().and_then(|split| split.source.as_deref()) {
                    self.figures.push(sources.figure(format!("{name}: {what}"), Some(key), None));
                }
            }
            if self.platform.platform.capacity.is_some_and(|capacity| Bytes::from_mb(mb) > capacity) {
                self.notes.warn(format!("The weights of `{name}` are larger than the memory: it can never start."));
            }
        }
        self.models.push(Model {
            title: if spec.title.is_empty() { name.clone() } else { spec.title.clone() },
            name,
            task: spec.task.clone(),
            shape: spec.shape,
            weights: Bytes::from_mb(variant.resident_mb().unwrap_or(0.0)),
            kv_per_token: Bytes::from_mb(spec.kv_kb_per_token.unwrap_or(0.0) / 1e3),
            state: Bytes::from_mb(spec.state_kb.unwrap_or(0.0) / 1e3),
            quality: variant.quality().map(|quality| (quality.metric.clone(), quality.value)),
            split: spec.split.as_ref().map(|split| Split { points: split.points, bytes: split.kb * 1e3 }),
            offload: spec.kv_offload.as_ref().map(offload),
            path: path.map(|path| self.catalogue.layers[variant.layer].place_of(path)),
            weights_of,
            role: Role::Network,
        })
    }
}
