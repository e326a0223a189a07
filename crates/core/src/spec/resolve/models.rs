//! Models and cost entries from all files in question, in order of precedence.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::exits::Exits;
use crate::id::ProcessorId;
use crate::spec::check::Check;
use crate::spec::document::Document;
use crate::spec::error::SpecError;
use crate::spec::field::Field;
use crate::spec::files::beside;
use crate::spec::{CostSpec, ExitsPer, ModelShape, ModelSpec, ProfileSpec, QualitySpec, VariantSpec, limits};
use crate::suggest;

use super::architecture;
use super::experts;
use super::figures::{Sources, check_provenance};
use super::platform::ResolvedPlatform;

/// A file with models and costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer<'a> {
    /// The file.
    pub document: &'a Document,
    /// Its models and costs.
    pub spec: &'a ProfileSpec,
    /// Whether it is the scenario itself.
    pub inline: bool,
    /// Whether its costs are for the platform; otherwise only its models count.
    pub for_platform: bool,
    /// Whether processors that the platform does not have are mistakes; otherwise their costs are for other platforms.
    pub all_processors: bool,
    /// Files of the same rank must not give the same cost twice; files of a lower rank take precedence.
    pub rank: usize,
}

impl<'a> Layer<'a> {
    /// The file's sources.
    pub(super) fn sources(&self) -> Sources<'a> {
        Sources { table: &self.spec.source, inline: self.inline }
    }

    /// A path that the file gives, relative to where the file is.
    pub(super) fn place_of(&self, path: &str) -> String {
        beside(self.document.file(), path)
    }
}

/// A cost entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// Number of its file.
    pub layer: usize,
    /// Number within its file.
    pub index: usize,
    /// Its contents.
    pub spec: &'a CostSpec,
}

impl Row<'_> {
    /// Where it stands in its file.
    pub(super) fn field(&self) -> Field {
        Field::root().key("cost").index(self.index)
    }
}

/// A model in one variant.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the file's own words")]
pub(super) struct Variant<'a> {
    /// Model's name.
    pub model: &'a str,
    /// Variant's name; `None` for the default one.
    pub variant: Option<&'a str>,
    /// The model.
    pub spec: &'a ModelSpec,
    /// Number of the file that declares the model.
    pub layer: usize,
}

impl<'a> Variant<'a> {
    /// `model` or `model/variant`.
    pub(super) fn name(&self) -> String {
        match self.variant {
            Some(variant) => format!("{}/{variant}", self.model),
            None => self.model.to_owned(),
        }
    }

    /// What the file says of the variant; `None` for the default one.
    pub(super) fn own(&self) -> Option<&'a VariantSpec> {
        self.variant.and_then(|variant| self.spec.variant.get(variant))
    }

    /// Size of the weights that it reads [MB], where known.
    pub(super) fn weights_mb(&self) -> Option<f64> {
        self.own().map_or(self.spec.weights_mb, |own| own.weights_mb)
    }

    /// The variant whose weights it runs with, if those are not its own: the default one.
    pub(super) fn weights_of(&self) -> Option<Self> {
        self.own().filter(|own| own.shares_weights).map(|_| Self { variant: None, ..*self })
    }

    /// Size of the weights that must be in memory for it [MB], where known.
    pub(super) fn held_mb(&self) -> Option<f64> {
        self.weights_of().unwrap_or(*self).weights_mb()
    }

    /// Where its inferences may end early.
    pub(super) fn exits(&self) -> Exits {
        let (spec, own) = (self.spec, self.own());
        let exits = own.map_or(&spec.exits, |own| &own.exits).clone();
        let per = own.map_or(spec.exits_per, |own| own.exits_per).unwrap_or_default();
        let of_tokens = spec.shape == ModelShape::Autoregressive && per == ExitsPer::Token;
        exits.map(if of_tokens { Exits::of_tokens } else { Exits::new }).unwrap_or_default()
    }

    /// Its quality, where known.
    pub(super) fn quality(&self) -> Option<&'a QualitySpec> {
        self.own().map_or(self.spec.quality.as_ref(), |own| own.quality.as_ref())
    }
}

impl Variant<'_> {
    /// Size of the weights that are kept in memory [MB], where known: all, less experts that are fetched when they are needed.
    pub(super) fn resident_mb(&self) -> Option<f64> {
        let missing = self.spec.experts.as_ref().map_or(0.0, experts::missing_mb);
        self.weights_mb().map(|mb| (mb - missing).max(0.0))
    }
}

/// All models and costs.
#[derive(Debug)]
pub(super) struct Catalogue<'a> {
    /// The files, those that take precedence first.
    pub layers: Vec<Layer<'a>>,
}

impl<'a> Catalogue<'a> {
    /// The model of this name.
    pub(super) fn model(&self, name: &str) -> Option<(usize, &'a str, &'a ModelSpec)> {
        self.layers
            .iter()
            .enumerate()
            .find_map(|(i, layer)| layer.spec.model.get_key_value(name).map(|(name, spec)| (i, name.as_str(), spec)))
    }

    /// All names of models.
    pub(super) fn model_names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> =
            self.layers.iter().flat_map(|layer| layer.spec.model.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The variant called `model` or `model/variant`. A variant named by itself must not be named twice.
    pub(super) fn variant(
        &self,
        check: &mut Check<'_>,
        field: &Field,
        name: &str,
        variant: Option<(&Field, &str)>,
    ) -> Option<Variant<'a>> {
        let (model, slash) = match name.split_once('/') {
            Some((model, variant)) if self.model(name).is_none() => (model, Some((field, variant))),
            _ => (name, None),
        };
        let Some((layer, model, spec)) = self.model(model) else {
            let help = match suggest::closest(name, self.model_names()) {
                Some(close) => format!("did you mean `{close}`?"),
                None => {
                    let entry = Field::root().key("model").key(name);
                    format!("declare it as `[{entry}]`; `onbeat list models` shows the shipped ones")
                }
            };
            check.wrong(field, format!("unknown model `{name}`"), help);
            return None;
        };
        if let (Some(_), Some((at, _))) = (slash, variant) {
            check.wrong(at, "the variant is named twice", "name it after the slash or in `variant`");
            return None;
        }
        let variant = match slash.or(variant) {
            None => None,
            Some((at, name)) => {
                let Some((name, _)) = spec.variant.get_key_value(name) else {
                    let what = format!("variant of `{model}`:");
                    check.unknown(at, &what, name, spec.variant.keys().map(String::as_str));
                    return None;
                };
                Some(name.as_str())
            }
        };
        Some(Variant { model, variant, spec, layer })
    }

    /// The cost of a variant on a processor: from the first file that has one, by the unit's own name before its common one.
    pub(super) fn cost(
        &self,
        variant: &Variant<'_>,
        platform: &ResolvedPlatform,
        processor: ProcessorId,
    ) -> Option<Row<'a>> {
        let unit = &platform.platform.processors[processor].name;
        let common = &platform.common_names[processor];
        let mut ranks: Vec<usize> =
            self.layers.iter().filter(|layer| layer.for_platform).map(|layer| layer.rank).collect();
        ranks.dedup();
        // On a processor with units, the widest part that is stated.
        let units = platform.platform.processors[processor].division.map_or(u32::MAX, |division| division.units);
        ranks.into_iter().find_map(|rank| {
            let named = |name: &String| {
                let widest = |row: &Row<'a>| (row.spec.units.unwrap_or(units), Reverse((row.layer, row.index)));
                self.rows(rank, variant, name).max_by_key(widest)
            };
            [unit, common].into_iter().find_map(named)
        })
    }

    /// The entries for fewer units of the same processor as `widest`, from files of the same rank, the narrowest first.
    pub(super) fn narrower(&self, variant: &Variant<'_>, widest: &Row<'a>) -> Vec<Row<'a>> {
        let rank = self.layers[widest.layer].rank;
        let same = |row: &Row<'a>| (row.layer, row.index) == (widest.layer, widest.index);
        let mut rows: Vec<Row<'a>> = self
            .rows(rank, variant, &widest.spec.processor)
            .filter(|row| !same(row) && row.spec.units.is_some())
            .collect();
        rows.sort_by_key(|row| row.spec.units);
        rows
    }

    /// The entries of files of a rank for a variant on a processor, in their order.
    fn rows<'r>(
        &'r self,
        rank: usize,
        variant: &'r Variant<'_>,
        processor: &'r str,
    ) -> impl Iterator<Item = Row<'a>> + 'r {
        let layers = self.layers.iter().enumerate().filter(move |(_, layer)| layer.for_platform && layer.rank == rank);
        let rows = layers.flat_map(|(layer, file)| {
            file.spec.cost.iter().enumerate().map(move |(index, spec)| Row { layer, index, spec })
        });
        rows.filter(move |row| {
            row.spec.processor == processor
                && row.spec.model == variant.model
                && row.spec.variant.as_deref() == variant.variant
        })
    }

    /// Checks the models and costs of all files that are for the platform.
    pub(super) fn check(&self, platform: Option<&ResolvedPlatform>, errors: &mut Vec<SpecError>) {
        // Model, variant and processor; units; in files of which rank.
        let mut seen = BTreeSet::new();
        for layer in self.layers.iter().filter(|layer| layer.for_platform) {
            let mut check = Check::new(layer.document, errors);
            let sources = layer.sources();
            sources.check_table(&mut check, &Field::root());
            for (name, model) in &layer.spec.model {
                check_model(&mut check, &Field::root().key("model").key(name), name, model, sources);
            }
            for (i, cost) in layer.spec.cost.iter().enumerate() {
                let at = Field::root().key("cost").index(i);
                // All units of a processor are as many as it has.
                let units = cost.units.or_else(|| platform.and_then(|platform| platform.units_of(&cost.processor)));
                let names = [Some(cost.model.as_str()), cost.variant.as_deref(), Some(cost.processor.as_str())];
                let key = (names, units, layer.rank);
                if !seen.insert(key) {
                    let problem = format!("there is a second cost of `{}` on `{}`", cost.model, cost.processor);
                    check.wrong(&at, problem, "give one entry per model, variant, processor and number of units");
                }
                if let Some(platform) = platform
                    && layer.all_processors
                    && !platform.has(&cost.processor)
                {
                    check.unknown(&at.key("processor"), "processor", &cost.processor, platform.names());
                }
                if let (Some(platform), Some(units)) = (platform, cost.units) {
                    platform.check_units(&mut check, &at.key("units"), &cost.processor, units);
                }
                self.check_cost(&mut check, &at, cost, sources);
            }
        }
    }

    fn check_cost(&self, check: &mut Check<'_>, at: &Field, cost: &CostSpec, sources: Sources<'_>) {
        let variant_at = at.key("variant");
        let variant = cost.variant.as_deref().map(|name| (&variant_at, name));
        if let Some(variant) = self.variant(check, &at.key("model"), &cost.model, variant) {
            check_shape(check, at, cost, variant.spec.shape);
            let of_experts = [("experts_gbps", cost.experts_gbps.is_some()), ("expert_ms", cost.expert_ms.is_some())];
            for (key, _) in of_experts.into_iter().filter(|&(_, given)| given && variant.spec.experts.is_none()) {
                let problem = format!("`{key}` has no use: `{}` has no `experts`", cost.model);
                check.wrong(&at.key(key), problem, "add `experts` to the model, or leave it out");
            }
        }
        check_numbers(check, at, cost);
        // The entry's source covers all its figures that name none of their own.
        sources.check_key(check, &at.key("source"), "cost", cost.source.as_deref());
        check_provenance(check, at, &cost.provenance, &COST_FIGURES, sources);
    }
}

fn check_model(check: &mut Check<'_>, at: &Field, name: &str, model: &ModelSpec, sources: Sources<'_>) {
    check.name(at, name);
    architecture::check(check, at, model, sources);
    check.optional(at, "weights_mb", model.weights_mb, &limits::SIZE_MB);
    check.optional(at, "kv_kb_per_token", model.kv_kb_per_token, &limits::KV_KB);
    if let Some(experts) = &model.experts {
        experts::check(check, &at.key("experts"), experts, model.weights_mb);
    }
    check.optional(at, "steps", model.steps.map(f64::from), &limits::STEPS);
    check.optional(at, "state_kb", model.state_kb, &limits::SIZE_KB);
    let figures = model.weights_mb.is_some()
        || model.kv_kb_per_token.is_some()
        || model.state_kb.is_some()
        || model.split.is_some()
        || model.kv_offload.is_some()
        || model.attention.is_some()
        || model.exits.is_some();
    if figures || model.source.is_some() {
        sources.check_key(check, &at.key("source"), "model", model.source.as_deref());
    }
    for (key, split) in [("split", &model.split), ("attention", &model.attention)] {
        let Some(split) = split else { continue };
        let at = at.key(key);
        check.number(&at, "points", f64::from(split.points), &limits::POINTS);
        check.number(&at, "kb", split.kb, &limits::SIZE_KB);
        if split.source.is_some() {
            sources.check_key(check, &at.key("source"), key, split.source.as_deref());
        }
    }
    if let Some(offload) = &model.kv_offload {
        let at = at.key("kv_offload");
        check.number(&at, "layers", f64::from(offload.layers), &limits::LAYERS);
        check.number(&at, "share", offload.share, &limits::SHARE);
        check.number(&at, "min_tokens", f64::from(offload.min_tokens), &limits::TOKENS_FROM_ZERO);
        if model.kv_kb_per_token.is_none() {
            check.wrong(&at, "nothing says how large the cache is", "add `kv_kb_per_token` to the model");
        }
    }
    if model.split.is_some() && model.shape == ModelShape::Streaming {
        let problem = "a streaming model is not divided: its state is in one place";
        check.wrong(&at.key("split"), problem, "it belongs to the other shapes");
    }
    if model.attention.is_some() && model.kv_kb_per_token.is_none() {
        let problem = "`attention` is divided by what of the cache each processor reads, and the cache has no size";
        check.wrong(&at.key("attention"), problem, "add `kv_kb_per_token`");
    }
    let shapes = [
        ("kv_kb_per_token", model.kv_kb_per_token.is_some(), ModelShape::Autoregressive),
        ("experts", model.experts.is_some(), ModelShape::Autoregressive),
        ("kv_offload", model.kv_offload.is_some(), ModelShape::Autoregressive),
        ("attention", model.attention.is_some(), ModelShape::Autoregressive),
        ("steps", model.steps.is_some(), ModelShape::Iterative),
        ("state_kb", model.state_kb.is_some(), ModelShape::Streaming),
    ];
    for (key, given, shape) in shapes {
        if given && model.shape != shape {
            let problem = format!("`{key}` does not belong to a model of shape `{}`", shape_name(model.shape));
            check.wrong(&at.key(key), problem, format!("it belongs to `{}`", shape_name(shape)));
        }
    }
    check_exits(check, at, model, model.exits.as_deref(), model.exits_per);
    let mut qualities = vec![(at.clone(), &model.quality)];
    for (name, variant) in &model.variant {
        let at = at.key("variant").key(name);
        check.name(&at, name);
        check.optional(&at, "weights_mb", variant.weights_mb, &limits::SIZE_MB);
        if variant.source.is_some() || variant.exits.is_some() {
            sources.check_key(check, &at.key("source"), "variant", variant.source.as_deref());
        }
        check_exits(check, &at, model, variant.exits.as_deref(), variant.exits_per);
        qualities.push((at, &variant.quality));
    }
    for (at, quality) in qualities {
        if let Some(quality) = quality {
            let at = at.key("quality");
            let by_content = quality.by_content.iter().map(|(class, &value)| (at.key("by_content").key(class), value));
            for (at, value) in std::iter::once((at.key("value"), quality.value)).chain(by_content) {
                if !value.is_finite() {
                    check.wrong(&at, format!("{value} is not a score"), "must be a finite number");
                }
            }
            if let Some(source) = &quality.source {
                sources.check_key(check, &at.key("source"), "quality", Some(source));
            }
        }
    }
}

/// Checks the exits of a model or variant.
fn check_exits(
    check: &mut Check<'_>,
    at: &Field,
    model: &ModelSpec,
    exits: Option<&[(f64, f64)]>,
    per: Option<ExitsPer>,
) {
    let language = model.shape == ModelShape::Autoregressive;
    if per.is_some() && !(language && exits.is_some()) {
        let problem = if language { "there are no exits" } else { "an inference leaves as a whole" };
        check.wrong(&at.key("exits_per"), problem, "it belongs to `exits` of a model of shape `autoregressive`");
    }
    let Some(exits) = exits else { return };
    let at = at.key("exits");
    if model.shape != ModelShape::OneShot && !language {
        let problem = format!("`exits` does not belong to a model of shape `{}`", shape_name(model.shape));
        let (one, other) = (shape_name(ModelShape::OneShot), shape_name(ModelShape::Autoregressive));
        check.wrong(&at, problem, format!("it belongs to `{one}` and `{other}`"));
    }
    let apart = [
        ("split", model.split.is_some()),
        ("attention", model.attention.is_some()),
        ("kv_offload", model.kv_offload.is_some()),
    ];
    for (key, _) in apart.into_iter().filter(|&(_, given)| language && given) {
        let problem = format!("the model also has `{key}`, whose costs are those of whole steps");
        check.wrong(&at, problem, format!("leave out one of `exits` and `{key}`"));
    }
    if exits.is_empty() {
        check.wrong(&at, "there are no exits", "leave `exits` out if all inferences run to the end");
        return;
    }
    // Further rules mean something only for numbers that are possible.
    let before = exits.iter().enumerate().filter(|&(i, &(place, share))| {
        let at = at.index(i);
        let place = check.value(&at.index(0), place, &limits::SHARE);
        let share = check.value(&at.index(1), share, &limits::PROBABILITY);
        !(place && share)
    });
    if before.count() > 0 {
        return;
    }
    for (i, pair) in exits.windows(2).enumerate() {
        if pair[1].0 <= pair[0].0 {
            let problem = format!("the exit at {} follows the one at {}", pair[1].0, pair[0].0);
            check.wrong(&at.index(i + 1), problem, "exits rise: the earliest comes first");
        }
    }
    let (last, _) = exits[exits.len() - 1];
    if last != 1.0 {
        let problem = format!("the last exit is at {last} of the work");
        check.wrong(&at.index(exits.len() - 1), problem, "the last one is the end of the inference: 1");
    }
    let sum: f64 = exits.iter().map(|&(_, share)| share).sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        check.wrong(
            &at,
            format!("the shares of the inputs sum to {sum}"),
            "every input leaves somewhere: they sum to 1",
        );
    }
}

/// Shares that are written with a few digits sum to 1 within this.
pub(super) const SUM_TOLERANCE: f64 = 1e-6;

/// Figures of a cost entry that may have a source of their own.
const COST_FIGURES: [&str; 25] = [
    "latency_ms",
    "quantiles_ms",
    "by_size_ms",
    "step_ms",
    "reuse",
    "before_ms",
    "after_ms",
    "prefill_ms",
    "decode_ms",
    "prefill_chunk",
    "chunk_overhead_ms",
    "batch_factor",
    "verify_factor",
    "segments",
    "segment_weights",
    "bytes_mb",
    "prefill_kb_per_token",
    "energy_mj",
    "prefill_mj_per_token",
    "memory_mb",
    "load_ms",
    "chunk_efficiency",
    "layer_groups",
    "experts_gbps",
    "expert_ms",
];

const FORWARD_FIELDS: [&str; 5] = ["latency_ms", "quantiles_ms", "by_size_ms", "segments", "segment_weights"];
const STEP_FIELDS: [&str; 4] = ["step_ms", "reuse", "before_ms", "after_ms"];
/// Steps of loops are batched as tokens are.
const LOOP_FIELDS: [&str; 5] = ["step_ms", "reuse", "before_ms", "after_ms", "batch_factor"];
const TOKEN_FIELDS: [&str; 13] = [
    "prefill_ms",
    "decode_ms",
    "prefill_chunk",
    "chunk_overhead_ms",
    "batch_factor",
    "prefill_kb_per_token",
    "prefill_mj_per_token",
    "chunk_efficiency",
    "layer_groups",
    "mixed_steps",
    "experts_gbps",
    "expert_ms",
    "verify_factor",
];

/// Which fields that depend on the model's shape an entry has.
fn given_fields(cost: &CostSpec) -> Vec<&'static str> {
    let given = [
        cost.latency_ms.is_some(),
        cost.quantiles_ms.is_some(),
        cost.by_size_ms.is_some(),
        cost.segments.is_some(),
        cost.segment_weights.is_some(),
        cost.step_ms.is_some(),
        cost.reuse.is_some(),
        cost.before_ms.is_some(),
        cost.after_ms.is_some(),
        cost.prefill_ms.is_some(),
        cost.decode_ms.is_some(),
        cost.prefill_chunk.is_some(),
        cost.chunk_overhead_ms.is_some(),
        cost.batch_factor.is_some(),
        cost.prefill_kb_per_token.is_some(),
        cost.prefill_mj_per_token.is_some(),
        cost.chunk_efficiency.is_some(),
        cost.layer_groups.is_some(),
        cost.mixed_steps,
        cost.experts_gbps.is_some(),
        cost.expert_ms.is_some(),
        cost.verify_factor.is_some(),
    ];
    let names = FORWARD_FIELDS.iter().chain(&STEP_FIELDS).chain(&TOKEN_FIELDS);
    names.zip(given).filter(|(_, given)| *given).map(|(name, _)| *name).collect()
}

/// The fields of an entry are those of its model's shape.
fn check_shape(check: &mut Check<'_>, at: &Field, cost: &CostSpec, shape: ModelShape) {
    let given = given_fields(cost);
    let (allowed, needed): (&[&str], &[&str]) = match shape {
        ModelShape::OneShot | ModelShape::Streaming => (&FORWARD_FIELDS, &[]),
        ModelShape::Iterative => (&LOOP_FIELDS, &["step_ms"]),
        ModelShape::Autoregressive => (&TOKEN_FIELDS, &["prefill_ms", "decode_ms"]),
    };
    let shape_name = shape_name(shape);
    for field in &given {
        if !allowed.contains(field) {
            let problem = format!("`{field}` does not fit: `{}` has the shape `{shape_name}`", cost.model);
            check.wrong(&at.key(field), problem, format!("this shape has: {}", allowed.join(", ")));
        }
    }
    for field in needed {
        if !given.contains(field) {
            check.wrong(
                at,
                format!("`{field}` is missing"),
                format!("a model of shape `{shape_name}` needs: {}", needed.join(", ")),
            );
        }
    }
    if needed.is_empty() {
        let ways = given.iter().filter(|field| FORWARD_FIELDS[..3].contains(field)).count();
        if ways != 1 {
            let problem = if ways == 0 { "there is no latency" } else { "the latency is given more than once" };
            check.wrong(at, problem, "give exactly one of latency_ms, quantiles_ms, by_size_ms");
        }
        if cost.segments.is_some() && cost.segment_weights.is_some() {
            check.wrong(
                &at.key("segment_weights"),
                "both `segments` and `segment_weights` are given",
                "give one of them",
            );
        }
    }
}

fn check_numbers(check: &mut Check<'_>, at: &Field, cost: &CostSpec) {
    check.optional(at, "latency_ms", cost.latency_ms, &limits::LATENCY_MS);
    check.optional(at, "step_ms", cost.step_ms, &limits::STEP_MS);
    if let Some(reuse) = &cost.reuse {
        let at = at.key("reuse");
        check.number(&at, "every", f64::from(reuse.every), &limits::Limit { least: 2.0, ..limits::STEPS });
        check.optional(&at, "bytes_mb", reuse.bytes_mb, &limits::SIZE_MB);
        check.optional(&at, "energy_mj", reuse.energy_mj, &limits::ENERGY_MJ);
        if check.number(&at, "step_ms", reuse.step_ms, &limits::STEP_MS)
            && let Some(full) = cost.step_ms.filter(|&full| full < reuse.step_ms)
        {
            let problem = format!("{} ms are more than a full step's {full} ms", reuse.step_ms);
            check.wrong(&at.key("step_ms"), problem, "a step that reuses takes no longer");
        }
    }
    check.optional(at, "before_ms", cost.before_ms, &limits::OVERHEAD_MS);
    check.optional(at, "after_ms", cost.after_ms, &limits::OVERHEAD_MS);
    check.optional(at, "prefill_chunk", cost.prefill_chunk.map(f64::from), &limits::TOKENS);
    check.optional(at, "chunk_overhead_ms", cost.chunk_overhead_ms, &limits::OVERHEAD_MS);
    if cost.chunk_overhead_ms.is_some() && cost.prefill_chunk.is_none() && cost.chunk_efficiency.is_none() {
        let problem = "`chunk_overhead_ms` has no use: the whole prompt is one segment";
        check.wrong(
            &at.key("chunk_overhead_ms"),
            problem,
            "add `prefill_chunk` or `chunk_efficiency`, or leave it out",
        );
    }
    check.optional(at, "segments", cost.segments.map(f64::from), &limits::SEGMENTS);
    check.optional(at, "bytes_mb", cost.bytes_mb, &limits::SIZE_MB);
    check.optional(at, "prefill_kb_per_token", cost.prefill_kb_per_token, &limits::SIZE_KB);
    check.optional(at, "energy_mj", cost.energy_mj, &limits::ENERGY_MJ);
    check.optional(at, "prefill_mj_per_token", cost.prefill_mj_per_token, &limits::ENERGY_MJ);
    check.optional(at, "memory_mb", cost.memory_mb, &limits::SIZE_MB);
    check.optional(at, "load_ms", cost.load_ms, &limits::OVERHEAD_MS);
    if let Some(points) = &cost.by_size_ms {
        check.points(&at.key("by_size_ms"), points, &limits::ELEMENTS, &limits::LATENCY_MS, true);
    }
    if let Some(points) = &cost.prefill_ms {
        check.points(&at.key("prefill_ms"), points, &limits::TOKENS, &limits::LATENCY_MS, true);
    }
    if let Some(points) = &cost.decode_ms {
        let tokens = limits::Limit { least: 0.0, ..limits::TOKENS };
        check.points(&at.key("decode_ms"), points, &tokens, &limits::STEP_MS, false);
    }
    check.optional(at, "layer_groups", cost.layer_groups.map(f64::from), &limits::LAYER_GROUPS);
    if let Some(points) = &cost.chunk_efficiency {
        check.points(&at.key("chunk_efficiency"), points, &limits::TOKENS, &limits::EFFICIENCY, true);
    }
    check.optional(at, "experts_gbps", cost.experts_gbps, &limits::BANDWIDTH_GBPS);
    check.optional(at, "expert_ms", cost.expert_ms, &limits::STEP_MS);
    if let Some(points) = &cost.batch_factor {
        let field = at.key("batch_factor");
        let sound = check.points(&field, points, &limits::BATCH, &limits::FACTOR, true);
        if sound && points[0] != (1.0, 1.0) {
            check.wrong(
                &field.index(0),
                "the first point is not batch 1",
                "start with [1, 1.0]: batch 1 is the reference",
            );
        }
    }
    if let Some(points) = &cost.verify_factor {
        let field = at.key("verify_factor");
        let sound = check.points(&field, points, &limits::TOKENS, &limits::FACTOR, false);
        if sound && points[0] != (1.0, 1.0) {
            let help = "start with [1, 1.0]: a step for one token is the reference";
            check.wrong(&field.index(0), "the first point is not one token", help);
        }
    }
    if let Some(weights) = &cost.segment_weights {
        let field = at.key("segment_weights");
        let most = limits::SEGMENTS.most as usize;
        if weights.is_empty() || weights.len() > most {
            check.wrong(&field, format!("{} segments", weights.len()), format!("must be 1 to {most}"));
        }
        for (i, &weight) in weights.iter().enumerate() {
            check.value(&field.index(i), weight, &limits::WEIGHT);
        }
    }
    if let Some(quantiles) = &cost.quantiles_ms {
        let field = at.key("quantiles_ms");
        let mut last: Option<(&str, f64)> = None;
        for (name, _, value) in quantiles.in_order() {
            if !check.number(&field, name, value, &limits::LATENCY_MS) {
                continue;
            }
            if let Some((lower, least)) = last.filter(|&(_, least)| least > value) {
                let problem = format!("{name} = {value} is below {lower} = {least}");
                check.wrong(&field.key(name), problem, "quantiles must not decrease");
            }
            last = Some((name, value));
        }
    }
}

/// The shape as written in files.
pub(super) fn shape_name(shape: ModelShape) -> &'static str {
    match shape {
        ModelShape::OneShot => "one_shot",
        ModelShape::Streaming => "streaming",
        ModelShape::Iterative => "iterative",
        ModelShape::Autoregressive => "autoregressive",
    }
}
