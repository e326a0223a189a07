//! Worst-case response times on one processor under fixed priorities and EDF, by published and machine-checked analyses
//! (Bozhko and Brandenburg, ECRTS 2020, as implemented by the crate `response-time-analysis`).
//!
//! # When it applies
//! To periodic streams with bounded jitter whose chain is a single stage that can run on this processor alone, if
//! nothing else can run there, the processor is exclusive and not divided, nothing is batched, execution times are bounded, all weights are in memory from
//! the start and stay there, and neither the memory bus nor a lower clock can slow the processor. Whatever prevents a bound is named. Bounds
//! are for all time, not just for the length of the run.
//!
//! # What is added to execution times
//! The largest execution time, plus what one job can cause in context switches: one on its own start and, where it can
//! preempt, the cost of taking the preempted work off and another switch back to it.

use onbeat_core::cost::{Cost, PhaseCost, Work};
use onbeat_core::id::{NodeId, ProcessorId, SourceId};
use onbeat_core::power::Governor;
use onbeat_core::spec::{ModelShape, Preemption, VariationKind};
use onbeat_core::system::{Arrival, Node, System};
use onbeat_core::units::{Bytes, Nanos};
use response_time_analysis::arrival::Sporadic;
use response_time_analysis::demand::RBF;
use response_time_analysis::time::{Duration, Service};
use response_time_analysis::{edf, fixed_point, fixed_priority, wcet};
use thiserror::Error;

use crate::demand::largest;

/// How jobs are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the source's priority, larger first; jobs of equal priority may delay each other.
    FixedPriority,
    /// By absolute deadline, earlier first.
    Edf,
}

/// Why there is no bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoBound {
    /// The source cannot run on this processor.
    #[error("it does not run on this processor")]
    NotHere,
    /// The processor runs several segments side by side.
    #[error("the processor runs {0} segments side by side")]
    Slots(u32),
    /// The processor is divided into units: runs go side by side, at speeds that depend on how many units they get.
    #[error("the processor is divided into units")]
    Divided,
    /// Something else uses the processor in a way that no analysis covers.
    #[error("`{source_name}` runs there too, and {why}")]
    Interference {
        /// The other source.
        source_name: String,
        /// What is wrong with it.
        why: Box<NoBound>,
    },
    /// Arrivals are not periodic.
    #[error("its arrivals are not periodic")]
    NotPeriodic,
    /// Jitter has no largest value.
    #[error("its jitter is unbounded")]
    Jitter,
    /// The chain has several stages.
    #[error("its chain has several stages")]
    Chain,
    /// The stage can run elsewhere, too.
    #[error("it can also run on another processor")]
    NotPinned,
    /// The stage may run in several variants, which the policy chooses.
    #[error("it may run in several variants")]
    Variants,
    /// The stage is a language model.
    #[error("it generates tokens")]
    Autoregressive,
    /// Its steps can be shared: whoever joins makes them longer for all.
    #[error("its steps can be shared with other requests")]
    Batches,
    /// Execution times have no largest value.
    #[error("its execution times are unbounded")]
    ExecutionTime,
    /// There is no deadline to order jobs by.
    #[error("it has no deadline")]
    NoDeadline,
    /// Weights may have to be loaded.
    #[error("its weights may have to be loaded during the run")]
    Loading,
    /// Other processors may slow this one down.
    #[error("the memory bus may slow it down")]
    Contention,
    /// The processor may run at a slower operating point.
    #[error("its clock may go down")]
    Speed,
    /// The processor is overloaded.
    #[error("the processor is overloaded: {0}% of its time is needed")]
    Overload(u64),
    /// No bound was found below the limit.
    #[error("no bound below {0} was found")]
    Diverges(Nanos),
}

/// A stream as the analyses see it; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Task {
    source: SourceId,
    priority: i32,
    deadline: Nanos,
    period: u64,
    jitter: u64,
    /// Largest execution time, with switches.
    execution: u64,
    /// Longest segment, and last one, with a switch before it.
    longest: u64,
    last: u64,
}

impl Task {
    fn arrivals(&self) -> Sporadic {
        Sporadic::new(Duration::from(self.period), Duration::from(self.jitter))
    }

    fn wcet(&self) -> wcet::Scalar {
        wcet::Scalar::new(Service::from(self.execution))
    }

    fn demand(&self) -> RBF<Sporadic, wcet::Scalar> {
        RBF::new(self.arrivals(), self.wcet())
    }
}

/// The largest response time, from nominal release to completion, of each source's jobs on a processor under an order
/// of jobs, in the scenario's order of sources. The processor's own preemption rule applies: at any time, at ends of
/// segments, or never.
pub fn response_times(system: &System, processor: ProcessorId, order: Order) -> Vec<Result<Nanos, NoBound>> {
    let tasks: Vec<Result<Task, NoBound>> =
        system.sources.ids().map(|source| task(system, source, processor, order)).collect();
    let of_processor = usable(system, processor);
    let blocking = tasks.iter().zip(&system.sources).find_map(|(task, source)| match task {
        Err(NoBound::NotHere) | Ok(_) => None,
        Err(why) => Some(NoBound::Interference { source_name: source.name.clone(), why: Box::new(why.clone()) }),
    });
    let all: Vec<Task> = tasks.iter().flatten().copied().collect();
    let bound = |task: &Result<Task, NoBound>| {
        let task = task.as_ref().map_err(Clone::clone)?;
        of_processor.clone()?;
        if let Some(blocking) = &blocking {
            return Err(blocking.clone());
        }
        bound_of(system, task, &all, system.platform.processors[processor].preemption, order)
    };
    tasks.iter().map(bound).collect()
}

/// Whether the processor itself allows for an analysis.
fn usable(system: &System, processor: ProcessorId) -> Result<(), NoBound> {
    let unit = &system.platform.processors[processor];
    if unit.slots > 1 {
        return Err(NoBound::Slots(unit.slots));
    }
    if unit.division.is_some() {
        return Err(NoBound::Divided);
    }
    let others =
        system.nodes.iter().any(|node| node.costs.ids().any(|p| p != processor && node.costs_on(p).next().is_some()));
    if system.contention && system.platform.bandwidth.is_some() && others {
        return Err(NoBound::Contention);
    }
    // With the governor `policy` the policies that these analyses are of leave the first point.
    let slows_down = unit.power.as_ref().is_some_and(|model| {
        let held_back =
            model.thermal.is_some_and(|node| node.throttle.is_some()) || system.platform.power_cap.is_some();
        model.points.len() > 1 && (held_back || !matches!(model.governor, Governor::Policy | Governor::Performance))
    });
    if slows_down {
        return Err(NoBound::Speed);
    }
    Ok(())
}

/// The source as a task of this processor.
fn task(system: &System, id: SourceId, processor: ProcessorId, order: Order) -> Result<Task, NoBound> {
    let source = &system.sources[id];
    let nodes: Vec<NodeId> = system.nodes_of(id).collect();
    if !nodes.iter().any(|&node| system.nodes[node].costs_on(processor).next().is_some()) {
        return Err(NoBound::NotHere);
    }
    let &[node] = nodes.as_slice() else { return Err(NoBound::Chain) };
    if !system.nodes[node].variants.is_empty() {
        return Err(NoBound::Variants);
    }
    let Some(cost) = system.cost(node, processor) else { return Err(NoBound::NotHere) };
    if system.nodes[node].costs.iter().flatten().count() > 1 {
        return Err(NoBound::NotPinned);
    }
    let Arrival::Periodic { period, .. } = source.arrival else { return Err(NoBound::NotPeriodic) };
    let jitter = source.jitter.as_ref().map_or(Some(0.0), largest).ok_or(NoBound::Jitter)?;
    if system.models[system.nodes[node].model].shape == ModelShape::Autoregressive {
        return Err(NoBound::Autoregressive);
    }
    if cost.phases.iter().any(|(_, phase)| phase.batch_max() > 1) {
        return Err(NoBound::Batches);
    }
    if cost.load_ns > 0 && !(system.preloaded && everything_fits(system)) {
        return Err(NoBound::Loading);
    }
    if order == Order::Edf && source.deadline.is_none() {
        return Err(NoBound::NoDeadline);
    }
    let segments = segments_ns(system, cost, node).ok_or(NoBound::ExecutionTime)?;
    let unit = &system.platform.processors[processor];
    let switches = match unit.preemption {
        Preemption::Never => unit.switch_cost.0,
        Preemption::Anytime | Preemption::Segment => 2 * unit.switch_cost.0 + unit.preempt_cost.0,
    };
    let up = |ns: f64| (ns.ceil() as u64).max(1);
    let with_switch = |ns: f64| up(ns) + unit.switch_cost.0;
    Ok(Task {
        source: id,
        priority: source.priority,
        deadline: source.deadline.unwrap_or(Nanos::MAX),
        period: period.0.max(1),
        jitter: jitter.ceil() as u64,
        execution: up(segments.iter().sum()) + switches,
        longest: with_switch(segments.iter().copied().fold(0.0, f64::max)),
        last: up(segments.last().copied().unwrap_or(0.0)),
    })
}

/// Whether weights never have to be evicted: all of them, on every processor that can use them, and all activations fit
/// into memory.
fn everything_fits(system: &System) -> bool {
    let Some(capacity) = system.platform.capacity else { return true };
    let mut needed = 0.0;
    for processor in system.platform.processors.ids() {
        let weights = |node: &Node| -> Vec<_> {
            let here = node.variant_numbers().filter(|&variant| node.costs_of(variant)[processor].is_some());
            here.map(|variant| system.weights_of(node.model_of(variant))).collect()
        };
        let mut models: Vec<_> = system.nodes.iter().flat_map(weights).collect();
        models.sort_unstable();
        models.dedup();
        needed += models.iter().map(|&model| system.models[model].weights.as_f64()).sum::<f64>();
        let activations =
            system.nodes.iter().flat_map(|node| node.costs_on(processor)).map(|cost| cost.activation_bytes);
        needed += f64::from(system.platform.processors[processor].slots) * activations.max().unwrap_or(0) as f64;
    }
    // Caches grow with the number of requests, which nothing limits here.
    let caches = system.nodes.iter().any(|node| system.models[node.model].kv_per_token > Bytes::ZERO);
    !caches && needed <= capacity.as_f64()
}

/// Largest lengths of a stage's segments [ns]; `None` if they have no largest length.
fn segments_ns(system: &System, cost: &Cost, node: NodeId) -> Option<Vec<f64>> {
    let variation = match system.variation.kind {
        VariationKind::None => Some(1.0),
        VariationKind::Uniform => Some(1.0 + system.variation.spread),
        VariationKind::Lognormal | VariationKind::Exponential => None,
    };
    let (_, most) = system.nodes[node].scales();
    let mut segments = Vec::new();
    for (_, phase) in &cost.phases {
        match phase {
            PhaseCost::Fixed { latency_ns, quantiles, boundaries, .. } => {
                let factor = quantiles.as_ref().map_or(variation, |quantiles| Some(quantiles.at(1.0)))?;
                let mut from = 0.0;
                for &to in boundaries {
                    segments.push(latency_ns * most * factor * (to - from));
                    from = to;
                }
            }
            PhaseCost::Steps { .. } => {
                let variation = variation?;
                let step = |i: u32| phase.latency_ns(Work::default(), f64::from(i), f64::from(i) + 1.0) * variation;
                segments.extend((0..system.nodes[node].steps).map(step));
            }
            PhaseCost::Prefill { .. } | PhaseCost::Decode { .. } => return None,
        }
    }
    Some(segments)
}

/// The bound for one task among all.
fn bound_of(
    system: &System,
    task: &Task,
    all: &[Task],
    preemption: Preemption,
    order: Order,
) -> Result<Nanos, NoBound> {
    let load: f64 = all.iter().map(|task| task.execution as f64 / task.period as f64).sum();
    if load > 1.0 + 1e-9 {
        return Err(NoBound::Overload((load * 100.0).ceil() as u64));
    }
    let longest_period = all.iter().map(|task| task.period).max().unwrap_or(1);
    let limit = system.duration.0.max(longest_period.saturating_mul(16));
    let others: Vec<&Task> = all.iter().filter(|other| other.source != task.source).collect();
    let found = match order {
        Order::FixedPriority => fixed_priority(task, &others, preemption, Duration::from(limit)),
        Order::Edf => edf(task, &others, preemption, Duration::from(limit)),
    };
    // The analyses count from the release; response times count from the nominal one, up to the jitter earlier.
    found
        .map(|bound| Nanos(u64::from(bound)).saturating_add(Nanos(task.jitter)))
        .map_err(|_| NoBound::Diverges(Nanos(limit)))
}

fn fixed_priority(task: &Task, others: &[&Task], preemption: Preemption, limit: Duration) -> fixed_point::SearchResult {
    let demands: Vec<_> =
        others.iter().filter(|other| other.priority >= task.priority).map(|other| other.demand()).collect();
    let lower = || others.iter().filter(|other| other.priority < task.priority);
    let blocking = |of: fn(&Task) -> u64| Service::from(lower().map(|other| of(other)).max().unwrap_or(0));
    let arrivals = task.arrivals();
    match preemption {
        Preemption::Anytime => fixed_priority::fully_preemptive::dedicated_uniproc_rta(&task.demand(), &demands, limit),
        Preemption::Segment => {
            use fixed_priority::limited_preemptive::{TaskUnderAnalysis, dedicated_uniproc_rta};
            let last_np_segment = Service::from(task.last);
            let tua = TaskUnderAnalysis {
                wcet: task.wcet(),
                arrivals: &arrivals,
                last_np_segment,
                blocking_bound: blocking(|other| other.longest),
            };
            dedicated_uniproc_rta(&tua, &demands, limit)
        }
        Preemption::Never => {
            use fixed_priority::fully_nonpreemptive::{TaskUnderAnalysis, dedicated_uniproc_rta};
            let tua = TaskUnderAnalysis {
                wcet: task.wcet(),
                arrivals: &arrivals,
                blocking_bound: blocking(|other| other.execution),
            };
            dedicated_uniproc_rta(&tua, &demands, limit)
        }
    }
}

/// EDF counts deadlines from the nominal release. With jitter, the time from release to deadline varies: an interfering
/// job is taken to be as urgent as it can be (its deadline less its jitter), the job under analysis as little urgent as
/// it can be.
fn edf(task: &Task, others: &[&Task], preemption: Preemption, limit: Duration) -> fixed_point::SearchResult {
    let demands: Vec<_> = others.iter().map(|other| other.demand()).collect();
    let arrivals: Vec<Sporadic> = others.iter().map(|other| other.arrivals()).collect();
    let urgent = |other: &Task| Duration::from(other.deadline.0.saturating_sub(other.jitter));
    let own = task.arrivals();
    let deadline = Duration::from(task.deadline.0);
    match preemption {
        Preemption::Anytime => {
            use edf::fully_preemptive::{Task as EdfTask, dedicated_uniproc_rta};
            let demand = task.demand();
            let tua = EdfTask { rbf: &demand, deadline };
            let others: Vec<_> =
                others.iter().zip(&demands).map(|(other, rbf)| EdfTask { rbf, deadline: urgent(other) }).collect();
            dedicated_uniproc_rta(&tua, &others, limit)
        }
        Preemption::Segment => {
            use edf::limited_preemptive::{InterferingTask, TaskUnderAnalysis, dedicated_uniproc_rta};
            let last_np_segment = Service::from(task.last);
            let tua = TaskUnderAnalysis { wcet: task.wcet(), arrivals: &own, deadline, last_np_segment };
            let other = |(other, rbf)| {
                let other: &&Task = other;
                InterferingTask { rbf, deadline: urgent(other), max_np_segment: Service::from(other.longest) }
            };
            let others: Vec<_> = others.iter().zip(&demands).map(other).collect();
            dedicated_uniproc_rta(&tua, &others, limit)
        }
        Preemption::Never => {
            use edf::fully_nonpreemptive::{InterferingTask, TaskUnderAnalysis, dedicated_uniproc_rta};
            let tua = TaskUnderAnalysis { wcet: task.wcet(), arrivals: &own, deadline };
            let others: Vec<_> = others
                .iter()
                .zip(&arrivals)
                .map(|(other, arrivals)| InterferingTask { wcet: other.wcet(), arrivals, deadline: urgent(other) })
                .collect();
            dedicated_uniproc_rta(&tua, &others, limit)
        }
    }
}
