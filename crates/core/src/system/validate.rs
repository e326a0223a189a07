//! Whether a system that was read from a record fits together.

use std::ops::Range;

use super::{Processor, System};
use crate::content::Content;
use crate::cost::{Cost, Phase, PhaseCost};
use crate::id::{IdVec, ModelId, NodeId, ProcessorId};
use crate::units::Nanos;

impl System {
    /// Whether all indices within the system refer to something. A system made by [`spec`](crate::spec) always is valid; one read
    /// from a record may have been damaged.
    ///
    /// # Errors
    /// What does not fit.
    pub fn validate(&self) -> Result<(), String> {
        let processors = self.platform.processors.len();
        check(processors > 0, "the platform has no processor")?;
        check(self.platform.processors.iter().all(|p| p.slots > 0), "a processor has no slot")?;
        let divided = |p: &Processor| p.division.is_none_or(|division| division.units >= 2);
        check(self.platform.processors.iter().all(divided), "a processor is divided into fewer than two units")?;
        let powered = self.platform.processors.iter().filter(|p| p.power.is_some()).count();
        check(powered == 0 || powered == processors, "only some processors have operating points")?;
        let points = |p: &Processor| p.power.as_ref().is_none_or(|power| !power.points.is_empty());
        check(self.platform.processors.iter().all(points), "a processor has no operating point")?;
        check(self.platform.power_cap.is_none() || powered > 0, "a power cap needs to know what processors draw")?;
        check(self.platform.links.len() == processors, "the links do not match the processors")?;
        check(self.platform.links.iter().all(|row| row.len() == processors), "the links do not match the processors")?;
        for (id, node) in self.nodes.enumerate() {
            check(self.models.get(node.model).is_some(), "a stage refers to a model that does not exist")?;
            check(self.sources.get(node.source).is_some(), "a stage refers to a source that does not exist")?;
            check(node.costs.len() == processors, "a stage's costs do not match the processors")?;
            if node.tool.is_some() {
                check(node.costs.iter().all(Option::is_none), "a tool runs on a processor")?;
                check(node.costs.get(node.fastest).is_some(), "a stage refers to a processor that does not exist")?;
            } else {
                check(node.costs.iter().any(Option::is_some), "a stage can run nowhere")?;
                check(
                    node.costs.get(node.fastest).is_some_and(Option::is_some),
                    "a stage's fastest processor cannot run it",
                )?;
            }
            let adapter = node.adapter.is_none_or(|adapter| self.models.get(adapter.model).is_some());
            check(adapter, "a stage refers to an adapter that does not exist")?;
            // Edges lead to later stages of the same source: there can be no cycle.
            let range = &self.sources[node.source].nodes;
            let inside = |n: NodeId| range.contains(&n.0);
            check(inside(id), "a stage lies outside of its source")?;
            check(
                node.after.iter().all(|edge| edge.to > id && inside(edge.to)),
                "an edge does not lead to a later stage of its chain",
            )?;
            check(
                node.before.iter().all(|&before| before < id && inside(before)),
                "an edge does not come from an earlier stage of its chain",
            )?;
            check(node.variants.len() < usize::from(u8::MAX), "a stage has too many variants")?;
            for other in &node.variants {
                check(self.models.get(other.model).is_some(), "a variant refers to a model that does not exist")?;
                check(other.costs.len() == processors, "a variant's costs do not match the processors")?;
                check(
                    other.costs.get(other.fastest).is_some_and(Option::is_some),
                    "a variant's fastest processor cannot run it",
                )?;
            }
            let first = node.all_costs().next().map(|cost| kinds(&cost.phases)).unwrap_or_default();
            check(node.tool.is_some() || !first.is_empty(), "a stage has no phases")?;
            for variant in node.variant_numbers() {
                self.check_costs(node.costs_of(variant), &first)?;
            }
            if let Some(attention) = &node.attention {
                let fits = attention.bandwidth.len() == processors && attention.least.len() == processors;
                check(fits, "what attention can read does not match the processors")?;
            }
            if let Some(draft) = &node.draft {
                check(self.models.get(draft.model).is_some(), "a stage drafts with a model that does not exist")?;
                check(
                    draft.costs.len() == processors && draft.verify.len() == processors,
                    "a draft model's costs do not match the processors",
                )?;
                self.check_costs(&draft.costs, &[Phase::Prefill, Phase::Decode])?;
            }
        }
        for model in &self.models {
            // What is shared is no share itself.
            let whole = |id: ModelId| self.models.get(id).is_some_and(|other| other.weights_of.is_none());
            check(model.weights_of.is_none_or(whole), "a model shares weights that no model has")?;
        }
        let share = |content: &Content| content.classes.iter().map(|class| class.share).sum::<f64>();
        let whole = |content: &Content| content.classes.len() < 255 && (share(content) - 1.0).abs() < 1e-3;
        check(self.contents.iter().all(whole), "the shares of the classes of content do not make a whole")?;
        check(
            self.contents.iter().flat_map(|content| &content.classes).all(|class| class.scene_ns > 0.0),
            "scenes have no length",
        )?;
        for source in &self.sources {
            let Range { start, end } = source.nodes;
            check(start < end && end as usize <= self.nodes.len(), "a source has no stages")?;
            let first = source.actions.and_then(|actions| actions.first);
            check(first.is_none_or(|node| source.nodes.contains(&node.0)), "actions come from another source's stage")?;
            check(source.actions.is_none_or(|a| a.count > 0 && a.period > Nanos::ZERO), "a chunk has no actions")?;
            let classes = match source.content {
                Some(content) => self.contents.get(content as usize).map(|content| content.classes.len()),
                None => Some(0),
            };
            let Some(classes) = classes else { return Err("a source sees content that does not exist".to_owned()) };
            let nodes = &self.nodes.as_slice()[start as usize..end as usize];
            check(nodes.iter().all(|node| node.in_content.len() == classes), "a stage's classes are not its source's")?;
        }
        Ok(())
    }

    /// Whether costs on all processors have these phases, at every width and wherever a cache is, and refer to figures that there are.
    fn check_costs(&self, costs: &IdVec<ProcessorId, Option<Cost>>, phases: &[Phase]) -> Result<(), String> {
        for (processor, cost) in costs.enumerate() {
            let units = self.platform.processors[processor].division.map_or(0, |division| division.units);
            for cost in cost.iter().flat_map(|cost| [Some(cost), cost.far.as_ref().map(|far| &far.cost)]).flatten() {
                let mut widths = cost.at_all_widths();
                check(
                    widths.all(|(_, at_width)| kinds(at_width) == phases && at_width.iter().all(is_of_its_kind)),
                    "a stage's phases differ between processors, variants or widths",
                )?;
                let widest = cost.widths.widest;
                let parts = |units: u32| units >= 1 && units < widest;
                check(
                    widest <= units && cost.widths.narrower.iter().all(|part| parts(part.units)),
                    "a cost is for units that its processor has not got",
                )?;
                let mut figures = cost.widths.narrower.iter().map(|part| part.figure).chain([cost.figure]);
                check(
                    figures.all(|figure| (figure as usize) < self.figures.len()),
                    "a cost refers to a figure that does not exist",
                )?;
            }
        }
        Ok(())
    }
}

fn check(ok: bool, problem: &str) -> Result<(), String> {
    if ok { Ok(()) } else { Err(problem.to_owned()) }
}

fn kinds(phases: &[(Phase, PhaseCost)]) -> Vec<Phase> {
    phases.iter().map(|(kind, _)| *kind).collect()
}

/// Whether a phase's cost is of the form that this kind of phase has.
fn is_of_its_kind((kind, cost): &(Phase, PhaseCost)) -> bool {
    match kind {
        Phase::Forward | Phase::Before | Phase::After => matches!(cost, PhaseCost::Fixed { .. }),
        Phase::Steps => matches!(cost, PhaseCost::Steps { .. }),
        Phase::Prefill => matches!(cost, PhaseCost::Prefill { .. }),
        Phase::Decode => matches!(cost, PhaseCost::Decode { .. }),
    }
}
