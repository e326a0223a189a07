//! What stages cost on each processor, and where the figures come from.

use crate::cost::{Cost, Narrower, Phase};
use crate::id::{IdVec, ProcessorId};
use crate::offload::Offload;
use crate::spec::check::Check;
use crate::spec::{KvOffloadSpec, ModelShape, ProvenanceKind, limits};
use crate::system::Figure;
use crate::units::Nanos;

use super::chains::Stage;
use super::cost::{self, Inputs};
use super::models::{Row, Variant};
use super::nodes::{Builder, Rows};
use super::sizes::{self, Sizes};

/// What a cost is asked for: a stage in a variant on a processor, for work of these sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'s, 'a> {
    pub stage: &'s Stage<'a>,
    pub variant: &'s Variant<'a>,
    pub processor: ProcessorId,
    pub sizes: Sizes,
}

impl<'a> Builder<'a, '_> {
    /// Costs of a variant, its fastest processor and its nominal latency there. All variants of a stage have the same `kinds` of phases.
    pub(super) fn costs(
        &mut self,
        stage: &Stage<'a>,
        variant: &Variant<'a>,
        rows: &Rows<'a>,
        sizes: Sizes,
        kinds: &mut Option<Vec<Phase>>,
    ) -> Option<(IdVec<ProcessorId, Option<Cost>>, ProcessorId, Nanos)> {
        let mut costs: IdVec<ProcessorId, Option<Cost>> = IdVec::new();
        for (processor, row) in rows.enumerate() {
            let cost = match row {
                Some(row) => Some(self.cost_at_widths(Wanted { stage, variant, processor, sizes }, row)?),
                None => None,
            };
            costs.push(cost);
        }
        self.same_phases(&costs, rows, variant, kinds)?;
        let nominal = |cost: &Cost| cost.total_ns(sizes.expected);
        let (fastest, best) = costs
            .enumerate()
            .filter_map(|(id, cost)| cost.as_ref().map(|cost| (id, nominal(cost))))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((costs, fastest, Nanos::from_ns_f64(best)))
    }

    /// The cost of a stage on a processor, at every width that is stated if the processor can be divided.
    fn cost_at_widths(&mut self, of: Wanted<'_, 'a>, row: &Row<'a>) -> Option<Cost> {
        let Wanted { variant, processor, .. } = of;
        let mut cost = self.cost(of, row)?;
        let Some(division) = self.platform.platform.processors[processor].division else { return Some(cost) };
        cost.widths.widest = row.spec.units.unwrap_or(division.units);
        for narrower in self.catalogue.narrower(variant, row) {
            let given = [("load_ms", narrower.spec.load_ms), ("memory_mb", narrower.spec.memory_mb)];
            if let Some((key, _)) = given.iter().find(|(_, given)| given.is_some()) {
                let problem = format!("`{key}` in an entry for a part of the processor's units");
                let mut check = Check::new(self.catalogue.layers[narrower.layer].document, &mut self.errors);
                check.wrong(&narrower.field().key(key), problem, "it counts from the entry for the most units");
                return None;
            }
            let of_part = self.cost(of, &narrower)?;
            let kinds = |cost: &Cost| cost.phases.iter().map(|(kind, _)| *kind).collect::<Vec<Phase>>();
            if kinds(&of_part) != kinds(&cost) {
                let problem =
                    format!("`before_ms` and `after_ms` of `{}` are given for some units only", variant.name());
                let mut check = Check::new(self.catalogue.layers[narrower.layer].document, &mut self.errors);
                check.wrong(
                    &narrower.field(),
                    problem,
                    "give each of them in all entries of the processor, or in none",
                );
                return None;
            }
            let units = narrower.spec.units.unwrap_or(division.units);
            cost.widths.narrower.push(Narrower { units, phases: of_part.phases, figure: of_part.figure });
        }
        Some(cost)
    }

    pub(super) fn cost(&mut self, of: Wanted<'_, 'a>, row: &Row<'a>) -> Option<Cost> {
        let Wanted { stage, variant, processor, sizes } = of;
        let unit = &self.platform.platform.processors[processor];
        let what = format!("{} on {}", variant.name(), unit.name);
        let figure = self.figure(row, variant, processor);
        let inputs = Inputs {
            variant,
            size: stage.spec.size,
            bytes_scale: self.bytes_scale,
            load_bandwidth: self.platform.load_bandwidth,
            figure,
        };
        let misses = variant.spec.experts.as_ref().is_some_and(|experts| experts.resident < 1.0);
        if misses && row.spec.experts_gbps.or(self.platform.load_bandwidth).is_none() {
            let problem = format!("nothing says how fast experts of `{}` are fetched on {}", variant.name(), unit.name);
            let help = "add `experts_gbps` to the cost entry, or `load_gbps` to the platform".to_owned();
            self.wrong(&stage.field, problem, help);
            return None;
        }
        let Some(mut cost) = cost::build(row.spec, inputs) else {
            let problem = format!("the cost of `{}` depends on the size of the input", variant.name());
            self.wrong(&stage.field, problem, "add `size` to the stage".to_owned());
            return None;
        };
        if cost.total_ns(sizes.largest) > limits::STAGE_NS_MAX {
            let problem = format!("{what} would take longer than a year at its largest size");
            self.wrong(&stage.field, problem, "check the profile's table and the lengths".to_owned());
            return None;
        }
        if let (Some(spec), Some(swap)) = (&variant.spec.kv_offload, &self.platform.platform.swap) {
            if unit.division.is_some() {
                let problem = format!("`{}` has `kv_offload`, and `{}` has `units`", variant.name(), unit.name);
                let help =
                    "leave one of them out: what a part of a processor fetches from slower memory is not modelled";
                self.wrong(&stage.field, problem, help.to_owned());
                return None;
            }
            let bytes = variant.spec.kv_kb_per_token.unwrap_or(0.0) * 1e3;
            cost.far = Some(Box::new(offload(spec).far(&cost, bytes, swap.link)));
        }
        let bus = self.platform.platform.bandwidth;
        let most = [bus, unit.bandwidth].into_iter().flatten().fold(f64::INFINITY, f64::min);
        let needed = cost::bandwidth_needed(&cost, sizes.expected);
        // A difference in the last digit is none.
        if needed > most * (1.0 + 1e-9) {
            let text = format!(
                "{what}: bytes moved and latency need {needed:.1} GB/s, more than the {most:.1} GB/s that it can draw; only as many bytes count as fit."
            );
            self.notes.warn(text);
        }
        for warning in sizes::beyond_tables(&what, row.spec, stage.spec.size, &cost, sizes) {
            self.notes.warn(warning);
        }
        Some(cost)
    }

    /// The phases of a stage must be the same on all processors and in all variants, so that it can move between them.
    fn same_phases(
        &mut self,
        costs: &IdVec<ProcessorId, Option<Cost>>,
        rows: &Rows<'a>,
        variant: &Variant<'a>,
        first: &mut Option<Vec<Phase>>,
    ) -> Option<()> {
        let kinds = |cost: &Cost| cost.phases.iter().map(|(kind, _)| *kind).collect::<Vec<Phase>>();
        for (cost, row) in costs.iter().zip(rows) {
            let (Some(cost), Some(row)) = (cost, row) else { continue };
            if *first.get_or_insert_with(|| kinds(cost)) != kinds(cost) {
                let layer = &self.catalogue.layers[row.layer];
                let problem = format!(
                    "`before_ms` and `after_ms` of `{}` are given on some processors only, or in some variants",
                    variant.name()
                );
                let mut check = Check::new(layer.document, &mut self.errors);
                check.wrong(&row.field(), problem, "give each of them everywhere or nowhere");
                return None;
            }
        }
        Some(())
    }

    /// The index of the entry's latency figure; its figures are added when it is first used.
    fn figure(&mut self, row: &Row<'a>, variant: &Variant<'a>, processor: ProcessorId) -> u32 {
        if let Some(&figure) = self.rows.get(&(row.layer, row.index)) {
            return figure;
        }
        let index = self.figures.len() as u32;
        self.rows.insert((row.layer, row.index), index);
        let sources = self.catalogue.layers[row.layer].sources();
        let spec = row.spec;
        let mut what = format!("{} on {}", variant.name(), self.platform.common_names[processor]);
        if let (Some(division), Some(units)) = (self.platform.platform.processors[processor].division, row.spec.units) {
            what = format!("{what}, {units} of {} units", division.units);
        }
        self.figures.push(sources.figure(format!("{what}: latency"), spec.source.as_deref(), spec.row.as_deref()));
        for (figure, key) in &spec.provenance {
            self.figures.push(sources.figure(format!("{what}: {figure}"), Some(key), None));
        }
        let weights = variant.weights_mb();
        if let (None, Some(mb)) = (spec.bytes_mb, weights.filter(|&mb| mb > 0.0)) {
            let per = match variant.spec.shape {
                ModelShape::OneShot | ModelShape::Streaming => "per inference",
                ModelShape::Iterative => "per step",
                ModelShape::Autoregressive => {
                    "per prefill segment and per decode step, plus the key-value cache per decode step"
                }
            };
            let read =
                if variant.spec.experts.is_some() { "all weights that a token activates" } else { "all weights" };
            let source = format!("{read} once {per}; inputs: weights of {mb} MB");
            self.figures.push(Figure {
                what: format!("{what}: bytes moved"),
                kind: ProvenanceKind::Analytical,
                source,
            });
        }
        if let Some(experts) = variant.spec.experts.as_ref().filter(|experts| experts.resident < 1.0) {
            self.figures.push(Figure {
                what: format!("{what}: misses of the expert cache"),
                kind: ProvenanceKind::Analytical,
                source: format!(
                    "layers · M · (1 − (1 − active · (1 − h) / M)^tokens) experts at their size / bandwidth, M = per layer · (1 − resident); inputs: {} layers, {} of {} active, {} MB each, {} resident, {}",
                    experts.layers,
                    experts.active,
                    experts.per_layer,
                    experts.expert_mb,
                    experts.resident,
                    super::experts::hit_rate_source(experts)
                ),
            });
            self.notes.assume(
                "Experts that are not in memory are fetched when they are needed, with the expected number of misses, hidden behind nothing.".to_owned(),
            );
        }
        if let (Some(offload), true) = (&variant.spec.kv_offload, self.platform.platform.swap.is_some()) {
            self.figures.push(Figure {
                what: format!("{what}: steps while the cache is in slower memory"),
                kind: ProvenanceKind::Analytical,
                source: format!(
                    "max(c, f) + min(c, f) / layers, c the step, f what it fetches over the link to slower memory; inputs: {} layers, a share of {} of the tokens, at least {}",
                    offload.layers, offload.share, offload.min_tokens
                ),
            });
        }
        self.note_row(&what, spec, variant, processor);
        index
    }

    /// What a reader must know about an entry.
    fn note_row(&mut self, what: &str, spec: &crate::spec::CostSpec, variant: &Variant<'a>, processor: ProcessorId) {
        let unit = &self.platform.platform.processors[processor];
        let model = variant.name();
        let shape = variant.spec.shape;
        if variant.weights_mb().is_none() {
            self.notes.unknown_weights(&model);
        } else if spec.load_ms.is_none() && self.platform.load_bandwidth.is_none() {
            self.notes.instant_load(&model);
        }
        let energy =
            spec.energy_mj.is_some() && (shape != ModelShape::Autoregressive || spec.prefill_mj_per_token.is_some());
        let processor_name = &self.platform.common_names[processor];
        self.notes.energy(&model, processor_name, energy || unit.active_w.is_some());
        if shape == ModelShape::Autoregressive {
            if spec.prefill_chunk.is_none() {
                self.notes.whole_prefill(what);
            }
            if spec.mixed_steps {
                self.notes.mixed_steps(what);
            }
            if variant.spec.kv_kb_per_token.is_none() {
                self.notes.unknown_cache(&model);
            }
        }
        if shape == ModelShape::Iterative && (spec.before_ms.is_some() || spec.after_ms.is_some()) {
            self.notes.parts_without_bytes(what);
        }
    }
}

pub(super) fn offload(spec: &KvOffloadSpec) -> Offload {
    Offload { layers: spec.layers, share: spec.share, least: f64::from(spec.min_tokens) }
}
