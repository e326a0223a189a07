//! Classes of a source's jobs, each with the least work that its jobs need.
//!
//! A policy that must turn down work could turn down the long jobs. Whoever bounds what policies can do must therefore
//! not count with mean sizes. Instead, each random quantity – whether an edge is taken, prompt and output lengths,
//! execution times – is cut into slices of known probability, and every job of a slice is taken to have the slice's
//! smallest value.

use onbeat_core::cost::{PhaseCost, Work};
use onbeat_core::distribution::{Distribution, Family};
use onbeat_core::id::{Id, NodeId, SourceId};
use onbeat_core::spec::{ModelShape, VariationKind};
use onbeat_core::system::{Arrival, System};
use statrs::distribution::{ContinuousCDF, Gamma, LogNormal, Normal};

use super::parts::{Part, parts};

/// Slices that a random quantity is cut into.
const SLICES: usize = 4;

/// The most classes per source; quantities that would exceed it are taken at their smallest.
const CLASSES: usize = 32;

/// A class of a source's jobs.
#[derive(Clone, Debug)]
pub(crate) struct JobClass {
    /// Share of the source's jobs that belong to it.
    pub(crate) share: f64,
    /// Group of a trace's requests, of those from [`trace_groups`].
    pub(crate) group: Option<usize>,
    /// The stages that its jobs run through at least, in order.
    pub(crate) stages: Vec<StageWork>,
}

/// What a class needs of one stage, at least.
#[derive(Clone, Debug)]
pub(crate) struct StageWork {
    pub(crate) node: NodeId,
    pub(crate) instances: f64,
    pub(crate) work: Work,
    /// Lower ends of the slices of the stage's random numbers.
    u: f64,
    variation: f64,
}

impl StageWork {
    pub(crate) fn parts(&self, system: &System) -> Vec<Part> {
        parts(system, self.node, self.work, self.u, self.variation)
    }
}

impl JobClass {
    fn with(&self, share: f64) -> Self {
        Self { share: self.share * share, ..self.clone() }
    }

    pub(crate) fn stage(&self, node: NodeId) -> Option<&StageWork> {
        self.stages.iter().find(|stage| stage.node == node)
    }
}

/// Splits every class by `outcomes` of (probability, effect), or applies only the smallest, first outcome if there
/// would be too many.
fn split<T: Copy>(
    classes: &mut Vec<JobClass>,
    outcomes: &[(f64, T)],
    applies: impl Fn(&JobClass) -> bool,
    apply: impl Fn(&mut JobClass, T),
) {
    let few = classes.len() * outcomes.len() <= CLASSES;
    let mut next = Vec::with_capacity(classes.len());
    for class in classes.drain(..) {
        if !applies(&class) {
            next.push(class);
            continue;
        }
        let taken = if few { outcomes } else { &outcomes[..1] };
        for &(probability, effect) in taken {
            let mut part = class.with(if few { probability } else { 1.0 });
            apply(&mut part, effect);
            next.push(part);
        }
    }
    next.retain(|class| class.share > 0.0);
    *classes = next;
}

fn slices(at: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..SLICES).map(|i| (1.0 / SLICES as f64, at(i as f64 / SLICES as f64))).collect()
}

/// The classes of a source's jobs; shares sum to 1.
pub(crate) fn job_classes(system: &System, source: SourceId) -> Vec<JobClass> {
    let mut classes = vec![JobClass { share: 1.0, group: None, stages: Vec::new() }];
    if let Arrival::Trace { requests } = &system.sources[source].arrival {
        let groups = trace_groups(requests.len());
        let outcomes: Vec<(f64, usize)> =
            (0..groups).map(|g| (requests_in(g, groups, requests.len()) as f64 / requests.len() as f64, g)).collect();
        split(&mut classes, &outcomes, |_| groups > 0, |class, group| class.group = Some(group));
    }
    for node in system.nodes_of(source) {
        add_stage(system, source, node, &mut classes);
    }
    classes
}

fn add_stage(system: &System, source: SourceId, id: NodeId, classes: &mut Vec<JobClass>) {
    let node = &system.nodes[id];
    let place = |class: &mut JobClass| {
        let work = Work { steps: node.steps, scale: node.scales().0, ..Work::default() };
        class.stages.push(StageWork { node: id, instances: 1.0, work, u: 0.0, variation: 1.0 });
    };
    let remove = |class: &mut JobClass| class.stages.retain(|stage| stage.node != id);
    // A stage is certain to run only if everything before it runs and every edge to it is taken.
    for class in classes.iter_mut() {
        if node.before.iter().all(|&before| class.stage(before).is_some()) {
            place(class);
        }
    }
    let present = |class: &JobClass| class.stage(id).is_some();
    for &before in &node.before {
        let Some(edge) = system.nodes[before].after.iter().find(|edge| edge.to == id) else {
            continue;
        };
        if edge.probability < 1.0 {
            let outcomes = [(1.0 - edge.probability, false), (edge.probability, true)];
            split(classes, &outcomes, present, |class, taken| {
                if !taken {
                    remove(class);
                }
            });
        }
        for class in classes.iter_mut() {
            let output = class.stage(before).map(|stage| stage.work.output);
            let Some(output) = output.filter(|_| present(class)) else { continue };
            let follow = match (&edge.fan_out, edge.per_tokens) {
                (Some(fan_out), _) => fan_out.smallest().round_ties_even().max(0.0),
                (None, Some(tokens)) => f64::from(output.div_ceil(tokens.max(1))),
                (None, None) => 1.0,
            };
            if follow < 1.0 {
                remove(class);
            } else if let Some(stage) = class.stages.last_mut() {
                stage.instances = stage.instances.max(follow);
            }
        }
    }
    size_stage(system, source, id, classes);
}

/// Sets one of a stage's lengths [tokens].
type SetLength = fn(&mut StageWork, u32);

/// The stage that was added to the class last.
fn last(class: &mut JobClass) -> &mut StageWork {
    class.stages.last_mut().expect("the class has the stage that was just added")
}

/// Splits classes by the sizes and execution times of the stage that was added last.
fn size_stage(system: &System, source: SourceId, id: NodeId, classes: &mut Vec<JobClass>) {
    let node = &system.nodes[id];
    let present = |class: &JobClass| class.stage(id).is_some();
    if system.models[node.model].shape == ModelShape::Autoregressive {
        let lengths: [(&Option<Distribution>, SetLength); 2] =
            [(&node.prompt, |stage, n| stage.work.prompt = n), (&node.output, |stage, n| stage.work.output = n)];
        for (distribution, set) in lengths {
            let Some(distribution) = distribution else { continue };
            let at = |u: f64| quantile(distribution, u).round_ties_even().max(1.0);
            let outcomes = match distribution.as_constant() {
                Some(_) => vec![(1.0, at(0.0))],
                None => slices(at),
            };
            split(classes, &outcomes, present, |class, n| set(last(class), n as u32));
        }
        if let Arrival::Trace { requests } = &system.sources[source].arrival {
            for class in classes.iter_mut().filter(|class| class.stage(id).is_some()) {
                let group = class.group.unwrap_or(0);
                let groups = trace_groups(requests.len());
                let order = trace_order(requests);
                let members =
                    || order.iter().enumerate().filter(|&(rank, _)| group_of(rank, groups, requests.len()) == group);
                let smallest = |of: fn(&onbeat_core::system::Request) -> u32| {
                    members().map(|(_, &i)| of(&requests[i])).min().unwrap_or(1).max(1)
                };
                let stage = last(class);
                if node.prompt.is_none() {
                    stage.work.prompt = smallest(|request| request.prompt);
                }
                if node.output.is_none() {
                    stage.work.output = smallest(|request| request.output);
                }
            }
        }
    }
    let measured = |phase: &PhaseCost| matches!(phase, PhaseCost::Fixed { quantiles: Some(_), .. });
    let mut phases = node.all_costs().flat_map(|cost| &cost.phases).map(|(_, phase)| phase);
    let all = node.all_costs().flat_map(|cost| &cost.phases).count();
    let with_quantiles = phases.by_ref().filter(|phase| measured(phase)).count();
    if with_quantiles > 0 {
        split(classes, &slices(|u| u), present, |class, u| last(class).u = u);
    }
    if with_quantiles < all && system.variation.kind != VariationKind::None {
        let outcomes = slices(|u| variation_quantile(system, u));
        split(classes, &outcomes, present, |class, factor| last(class).variation = factor);
    }
}

/// The `u`-quantile of the execution time factor.
fn variation_quantile(system: &System, u: f64) -> f64 {
    let spread = system.variation.spread;
    match system.variation.kind {
        VariationKind::None => 1.0,
        VariationKind::Uniform => 1.0 - spread + 2.0 * spread * u,
        VariationKind::Exponential => -libm::log(1.0 - u),
        VariationKind::Lognormal if u == 0.0 => 0.0,
        VariationKind::Lognormal => {
            let sigma2 = libm::log(1.0 + spread * spread);
            LogNormal::new(-sigma2 / 2.0, sigma2.sqrt()).map_or(0.0, |factor| factor.inverse_cdf(u))
        }
    }
}

/// The `u`-quantile of a distribution; its smallest value where the quantile cannot be computed.
fn quantile(distribution: &Distribution, u: f64) -> f64 {
    let smallest = distribution.smallest();
    if u == 0.0 {
        return smallest;
    }
    let value = match &distribution.family {
        Family::Constant(value) => *value,
        Family::Uniform { low, high } => low + (high - low) * u,
        Family::Normal { mean, std } => Normal::new(*mean, *std).map_or(smallest, |d| d.inverse_cdf(u)),
        Family::Lognormal { median, sigma } => {
            LogNormal::new(libm::log(*median), *sigma).map_or(smallest, |d| d.inverse_cdf(u))
        }
        Family::Exponential { mean } => -mean * libm::log(1.0 - u),
        Family::Gamma { mean, cv } => {
            let shape = 1.0 / (cv * cv);
            Gamma::new(shape, shape / mean).map_or(smallest, |d| d.inverse_cdf(u))
        }
        Family::Quantiles(curve) => curve.at(u),
    };
    value.clamp(distribution.min, distribution.max)
}

/// Into how many groups of similar length the requests of a trace are cut.
fn trace_groups(requests: usize) -> usize {
    requests.min(2 * SLICES)
}

fn group_of(rank: usize, groups: usize, requests: usize) -> usize {
    rank * groups / requests
}

fn requests_in(group: usize, groups: usize, requests: usize) -> usize {
    (0..requests).filter(|&rank| group_of(rank, groups, requests) == group).count()
}

/// Numbers of the requests in order of length.
fn trace_order(requests: &[onbeat_core::system::Request]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (u64::from(requests[i].prompt) + u64::from(requests[i].output), i));
    order
}

/// For each request of a trace, the group that it belongs to; empty without a trace.
pub(crate) fn groups_of_requests(arrival: &Arrival) -> Vec<usize> {
    let Arrival::Trace { requests } = arrival else { return Vec::new() };
    let groups = trace_groups(requests.len());
    let mut found = vec![0; requests.len()];
    for (rank, &i) in trace_order(requests).iter().enumerate() {
        found[i] = group_of(rank, groups, requests.len());
    }
    found
}

/// Expected number of instances of each of the source's stages per job, in order: probabilities and mean fan-outs
/// multiplied along the edges. Where several edges meet, the likeliest counts.
pub(crate) fn reach(system: &System, source: SourceId) -> Vec<f64> {
    let first = system.sources[source].nodes.start as usize;
    let mut expected: Vec<f64> = Vec::new();
    for id in system.nodes_of(source) {
        let over = |&before: &NodeId| {
            let edge = system.nodes[before].after.iter().find(|edge| edge.to == id)?;
            let follow = match (&edge.fan_out, edge.per_tokens) {
                (Some(fan_out), _) => fan_out.mean(),
                (None, Some(tokens)) => f64::from(system.nodes[before].expected.output.div_ceil(tokens.max(1))),
                (None, None) => 1.0,
            };
            Some(expected.get(before.index().checked_sub(first)?)? * edge.probability * follow)
        };
        let before = &system.nodes[id].before;
        expected.push(if before.is_empty() { 1.0 } else { before.iter().filter_map(over).fold(0.0, f64::max) });
    }
    expected
}
