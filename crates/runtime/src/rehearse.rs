//! Virtual devices: they occupy a processor in real time for exactly what the profile says, and compute nothing.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::offload::BatchSteps;
use onbeat_core::system::System;

use super::sync::{Ordering, Sender};
use super::worker::{Message, Shared};
use crate::task::{Launch, Member, Report};

/// Executes a run virtually, counted from when it was given. Steps done, and whether the inference is complete.
pub(crate) fn rehearse(
    system: &System,
    launch: &Launch,
    shared: &Shared,
    given: Instant,
    messages: &Sender<Message>,
) -> (u32, bool) {
    let plan = Plan::new(system, launch);
    sleep_until(given + Duration::from_nanos(launch.setup.0));
    let parts = |m: &Member| system.nodes[m.node].after.iter().any(|edge| edge.per_tokens.is_some());
    let tells = launch.tells || launch.members.iter().any(parts);
    let (mut steps, mut at_ns) = (0, 0.0);
    while steps < plan.steps {
        if steps > 0 && shared.cut.load(Ordering::Acquire) {
            return (steps, false);
        }
        let next = plan.next(steps);
        // A change of the operating point takes effect with the next step.
        let stretch = f64::from_bits(shared.stretch.load(Ordering::Acquire));
        let step_ns = replanned_ns(shared, steps, next).unwrap_or_else(|| plan.time_ns(next) - plan.time_ns(steps));
        at_ns += step_ns * stretch;
        sleep_until(given + Duration::from_nanos(launch.setup.0 + at_ns.max(0.0).round() as u64));
        steps = next;
        shared.steps.store(steps, Ordering::Release);
        if tells && steps < plan.steps && launch.phase == Phase::Decode {
            let _ = messages.send(Message::Report(launch.run, Report::Progress { run: launch.run, steps }));
        }
    }
    (steps, plan.completes)
}

/// Time from one step to another, if the run was planned anew since it was given [ns].
fn replanned_ns(shared: &Shared, from: u32, to: u32) -> Option<f64> {
    let ends = shared.ends_ns.lock().unwrap_or_else(PoisonError::into_inner);
    ends.as_ref().map(|ends| ends[to as usize] - ends[from as usize])
}

/// How a run would go by the profile.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    launch: &'a Launch,
    /// The profile's entry and the ratio of real to nominal latency, for each member.
    costs: Vec<(&'a PhaseCost, &'a Member)>,
    factor: f64,
    /// If they are a batch of which some have their cache in slower memory.
    fetching: Option<BatchSteps<'a>>,
    /// Steps that it has.
    pub(crate) steps: u32,
    /// Whether the inference is complete after them.
    pub(crate) completes: bool,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(system: &'a System, launch: &'a Launch) -> Self {
        let phase = usize::from(launch.phase_index);
        let costs: Vec<(&PhaseCost, &Member)> = launch
            .members
            .iter()
            .filter_map(|member| {
                let cost = system.nodes[member.node].costs_of(member.variant)[launch.processor].as_ref()?;
                Some((&cost.with_cache(member.far).on_units(member.units).get(phase)?.1, member))
            })
            .collect();
        let fetching = (launch.members.len() > 1 && launch.members.iter().any(|member| member.far)).then(|| {
            let members = launch.members.iter().filter_map(|member| {
                let cost = system.nodes[member.node].costs_of(member.variant)[launch.processor].as_ref()?;
                Some((cost, launch.phase_index, f64::from(member.work.prompt) + 1.0 + member.from, member.far))
            });
            BatchSteps::new(launch.members.len() as u32, members)
        });
        let count = costs.len().max(1) as f64;
        let own: f64 = costs.iter().map(|(cost, member)| cost.latency_factor(member.u, member.variation)).sum();
        // What members fetch goes over one link, while one step computes for all: the factor is within.
        let batch = costs.first().filter(|_| fetching.is_none());
        let batch = batch.map_or(1.0, |(cost, _)| cost.batch_factor(costs.len() as u32));
        let left = |(cost, member): &(&PhaseCost, &Member)| match cost {
            PhaseCost::Fixed { boundaries, .. } => {
                // An early exit ends a segment.
                let end = member.work.units(launch.phase) - 1e-9;
                let inside = boundaries.iter().filter(|&&boundary| boundary > member.from + 1e-9 && boundary < end);
                inside.count() as u32 + 1
            }
            _ => (member.work.units(launch.phase) - member.from).max(0.0) as u32,
        };
        let left = costs.iter().map(left).min().unwrap_or(0);
        let (steps, whole) = if let Some(joint) = &launch.joint {
            (joint.ends_ns.len() as u32 - 1, joint.whole)
        } else {
            let steps = left.min(launch.steps_max.unwrap_or(u32::MAX));
            (steps, steps == left)
        };
        let stretch = match costs.first() {
            Some((cost, member)) if launch.piece => {
                let to = member.from + f64::from(steps);
                cost.piece_ns(member.work, member.from, to) / cost.latency_ns(member.work, member.from, to).max(1.0)
            }
            _ => 1.0,
        };
        let last_phase = costs.iter().all(|(_, member)| {
            let cost = system.nodes[member.node].costs_of(member.variant)[launch.processor].as_ref();
            let phases = cost.map(|cost| &cost.phases);
            let later = phases.into_iter().flatten().skip(phase + 1);
            later.into_iter().all(|(kind, _)| member.work.units(*kind) <= 0.0)
        });
        Self { launch, costs, fetching, factor: own / count * batch * stretch, steps, completes: last_phase && whole }
    }

    /// Steps at the boundary after `steps`.
    pub(crate) fn next(&self, steps: u32) -> u32 {
        let by = if self.launch.phase == Phase::Prefill { self.launch.units_per_step } else { 1 };
        steps.saturating_add(by).min(self.steps)
    }

    /// Time that so many steps take [ns]. A batched step takes the mean of its members' steps times the factor for the batch.
    pub(crate) fn time_ns(&self, steps: u32) -> f64 {
        if steps == 0 {
            return 0.0;
        }
        if let Some(joint) = &self.launch.joint {
            return joint.ends_ns[steps as usize];
        }
        if let Some(fetching) = &self.fetching {
            return fetching.sum(f64::from(steps)) * self.factor;
        }
        let one = |(cost, member): &(&PhaseCost, &Member)| {
            let to = match cost {
                PhaseCost::Fixed { boundaries, .. } => {
                    let passed = boundaries.iter().filter(|&&boundary| boundary <= member.from + 1e-9).count();
                    let end = member.work.units(self.launch.phase);
                    boundaries.get((passed + steps as usize).wrapping_sub(1)).copied().unwrap_or(end).min(end)
                }
                _ => member.from + f64::from(steps),
            };
            cost.latency_ns(member.work, member.from, to)
        };
        let sum: f64 = self.costs.iter().map(one).sum();
        (sum / self.costs.len().max(1) as f64 * self.factor).max(0.0)
    }
}

/// Sleeps until an instant. The kernel wakes a thread up to its timer slack late (50 µs by default); what remains is part of the
/// measured release jitter, and is not spun away, because spinning would take a core from the real devices.
fn sleep_until(at: Instant) {
    let now = Instant::now();
    if at > now {
        std::thread::sleep(at - now);
    }
}
