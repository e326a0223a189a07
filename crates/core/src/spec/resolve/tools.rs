//! Tools and adapters on the platform: stages that run no model, and weights beside a model's own.

use crate::cost::{Cost, Phase, PhaseCost, Work};
use crate::curve::{Below, Curve};
use crate::distribution::{Distribution, Family};
use crate::exits::Exits;
use crate::id::{IdVec, ModelId, ProcessorId, SourceId};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{ModelShape, ScenarioSpec, VariantsSpec, limits};
use crate::system::{Adapter, Model, Node, Role};
use crate::units::{Bytes, Nanos};

use super::chains::Stage;
use super::figures::Sources;
use super::models::{Catalogue, Variant};
use super::nodes::Builder;

/// Checks the scenario's adapters.
pub(super) fn check_adapters(check: &mut Check<'_>, scenario: &ScenarioSpec, catalogue: &Catalogue<'_>) {
    let sources = Sources { table: &scenario.source, inline: true };
    for (name, adapter) in &scenario.adapter {
        let at = Field::root().key("adapter").key(name);
        check.name(&at, name);
        check.number(&at, "weights_mb", adapter.weights_mb, &limits::ADAPTER_MB);
        check.optional(&at, "load_ms", adapter.load_ms, &limits::OVERHEAD_MS);
        catalogue.variant(check, &at.key("model"), &adapter.model, None);
        sources.check_key(check, &at.key("source"), "source", adapter.source.as_deref());
    }
}

/// The quantiles of a distribution relative to its mean, if they are piecewise linear; `None` for a constant.
fn quantiles(distribution: &Distribution) -> Result<Option<Curve>, ()> {
    let mean = distribution.mean();
    let relative = |points: Vec<(f64, f64)>| {
        let points = points.into_iter().map(|(p, value)| (p, value / mean)).collect();
        Ok(Some(Curve::new(points, Below::Hold)))
    };
    match &distribution.family {
        Family::Constant(_) => Ok(None),
        Family::Uniform { low, high } => relative(vec![(0.0, *low), (1.0, *high)]),
        Family::Quantiles(curve) => relative(curve.points().to_vec()),
        _ => Err(()),
    }
}

impl<'a> Builder<'a, '_> {
    /// A stage that is a tool, and its smallest size.
    pub(super) fn tool(&mut self, source: SourceId, stage: &Stage<'a>, tool: &Distribution) -> Option<(Node, Work)> {
        let name = &stage.spec.name;
        let key = stage.spec.source.as_deref();
        let sources = Sources { table: &self.scenario.source, inline: true };
        let mut check = Check::new(self.document, &mut self.errors);
        sources.check_key(&mut check, &stage.field.key("source"), "source", key);
        // The copies of a part that repeats are one tool.
        let copy = name.rsplit_once('.').filter(|(_, number)| number.parse::<u32>().is_ok());
        let original = copy.map_or(name.as_str(), |(original, _)| original);
        let latency = sources.figure(format!("tool {original}: latency"), key, None);
        let figure = self.figures.iter().position(|figure| *figure == latency).unwrap_or_else(|| {
            self.figures.push(latency);
            self.figures.len() - 1
        });
        self.notes.assume(
            "Tools are rehearsed: a call takes a time drawn from the scenario's distribution, and nothing is called."
                .to_owned(),
        );
        let mut costs: IdVec<ProcessorId, Option<Cost>> =
            self.platform.platform.processors.iter().map(|_| None).collect();
        let occupies = !stage.spec.on.is_empty();
        if occupies {
            self.tool_costs(stage, tool, figure as u32, &mut costs)?;
        }
        let fastest = costs.enumerate().find(|(_, cost)| cost.is_some()).map_or(ProcessorId(0), |(p, _)| p);
        let model = self.special_model(format!("tool {original}"), Role::Tool, Bytes::ZERO);
        let node = Node {
            draft: None,
            name: name.clone(),
            source,
            model,
            costs,
            fastest,
            best: Nanos::from_ns_f64(tool.mean()),
            tail: Nanos::ZERO,
            tail_together: None,
            to_first_token: None,
            attention: None,
            steps: 0,
            exits: Exits::default(),
            prompt: None,
            output: None,
            expected: Work::default(),
            output_max: 0,
            output_bytes: stage.spec.output_kb * 1e3,
            before: Vec::new(),
            after: Vec::new(),
            variants: Vec::new(),
            quality: None,
            tool: (!occupies).then(|| tool.clone()),
            adapter: None,
            in_content: Vec::new(),
        };
        Some((node, Work::default()))
    }

    /// Costs of a tool that takes a processor's slot.
    fn tool_costs(
        &mut self,
        stage: &Stage<'a>,
        tool: &Distribution,
        figure: u32,
        costs: &mut IdVec<ProcessorId, Option<Cost>>,
    ) -> Option<()> {
        let at = stage.field.key("tool_ms");
        let cut = stage.spec.tool_ms.as_ref().is_some_and(|spec| spec.min.is_some() || spec.max.is_some());
        let quantiles = match quantiles(tool) {
            Ok(quantiles) if !cut && tool.mean() > 0.0 => quantiles,
            _ => {
                let problem = "the latency of a tool that takes a processor is not piecewise linear".to_owned();
                let help =
                    "use `constant`, `uniform` or `quantiles` above 0, without `min` and `max`; or leave out `on`";
                self.wrong(&at, problem, help.to_owned());
                return None;
            }
        };
        let phase =
            PhaseCost::Fixed { latency_ns: tool.mean(), quantiles, boundaries: vec![1.0], bytes: 0.0, energy_mj: None };
        let mut found = false;
        for p in self.platform.platform.processors.ids() {
            if stage.spec.on.iter().any(|on| self.platform.means(p, on)) {
                let phases = vec![(Phase::Forward, phase.clone())];
                costs[p] = Some(Cost { figure, ..Cost::of(phases) });
                found = true;
            }
        }
        if !found {
            let at = stage.field.key("on").index(0);
            let (document, names) = (self.document, self.platform.names());
            Check::new(document, &mut self.errors).unknown(&at, "processor", &stage.spec.on[0], names);
            return None;
        }
        Some(())
    }

    /// The weights that a stage needs beside its model's. `Err`: a mistake was reported.
    pub(super) fn adapter(&mut self, stage: &Stage<'a>, variant: &Variant<'a>) -> Result<Option<Adapter>, ()> {
        let Some(name) = stage.spec.adapter.as_deref() else { return Ok(None) };
        let at = stage.field.key("adapter");
        let table = &self.scenario.adapter;
        let Some(spec) = table.get(name) else {
            let known = table.keys().map(String::as_str);
            Check::new(self.document, &mut self.errors).unknown(&at, "adapter", name, known);
            return Err(());
        };
        if stage.spec.variants != VariantsSpec::None {
            let problem = "an adapter fits one variant of its model, and the stage has several".to_owned();
            self.wrong(&at, problem, "leave out `variants` or `adapter`".to_owned());
            return Err(());
        }
        if spec.model != variant.model && spec.model != variant.name() {
            let problem = format!("`{name}` is an adapter of `{}`, not of `{}`", spec.model, variant.name());
            self.wrong(&at, problem, "choose another adapter or another model".to_owned());
            return Err(());
        }
        let full = format!("{}+{name}", variant.name());
        let sources = Sources { table: &self.scenario.source, inline: true };
        let figure = sources.figure(format!("{full}: size of the weights"), spec.source.as_deref(), None);
        if !self.figures.contains(&figure) {
            self.figures.push(figure);
        }
        let load = match (spec.load_ms, self.platform.load_bandwidth) {
            (Some(ms), _) => Nanos::from_ms(ms),
            (None, Some(bandwidth)) => Nanos::from_ns_f64(spec.weights_mb * 1e6 / bandwidth),
            (None, None) => {
                self.notes.instant_load(&full);
                Nanos::ZERO
            }
        };
        let model = self.special_model(full, Role::Adapter, Bytes::from_mb(spec.weights_mb));
        Ok(Some(Adapter { model, load }))
    }

    /// The index of an entry that is no network; added when it is first used.
    fn special_model(&mut self, name: String, role: Role, weights: Bytes) -> ModelId {
        if let Some((id, _)) = self.models.enumerate().find(|(_, model)| model.name == name && model.role == role) {
            return id;
        }
        self.models.push(Model {
            split: None,
            offload: None,
            title: name.clone(),
            name,
            task: String::new(),
            shape: ModelShape::OneShot,
            weights,
            kv_per_token: Bytes::ZERO,
            state: Bytes::ZERO,
            quality: None,
            path: None,
            weights_of: None,
            role,
        })
    }
}
