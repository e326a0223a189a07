//! What processors and the memory bus did.

use onbeat_core::cost::Work;
use onbeat_core::event::StopReason;
use onbeat_core::id::{IdVec, ModelId, NodeId, ProcessorId, ProcessorSet};
use onbeat_core::spec::ProvenanceKind;
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Millijoules, Nanos};

use super::bins::Bins;
use super::power::{Reading, Readings};

/// Figures' kinds in the order in which shares are reported.
pub(super) const KINDS: [ProvenanceKind; 3] =
    [ProvenanceKind::Measured, ProvenanceKind::Published, ProvenanceKind::Analytical];

/// A run that goes on: one slot of a processor, one stage or a batch of them.
#[derive(Clone, Debug)]
struct OpenRun {
    serial: u64,
    node: NodeId,
    variant: u8,
    start: Nanos,
    setup: Nanos,
    /// Units that it takes of a processor that can be divided; else 0.
    units: u32,
    /// Stages that it serves and that have not stopped yet.
    members: u32,
    /// Sum over the stages that have stopped.
    alone: Nanos,
    energy: Option<Millijoules>,
    preempted: bool,
}

/// What a stage's stop says about its run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub(super) run: u64,
    pub(super) at: Nanos,
    pub(super) why: StopReason,
    pub(super) alone: Nanos,
    pub(super) energy_mj: Option<f64>,
}

/// What one processor did within the measured time.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    open: Vec<OpenRun>,
    /// When it last went from idle to busy.
    active_since: Nanos,
    /// Time with at least one run.
    pub(super) active: Nanos,
    /// Sum over slots; parts of a processor that can be divided count as such.
    pub(super) busy: Nanos,
    pub(super) setup: Nanos,
    /// Busy time without setup and preemption that was not needed alone [ns]; sums of rounded figures, so that single
    /// terms may be negative.
    pub(super) lost_ns: f64,
    /// Energy of the work; `None` once some of it is unknown.
    pub(super) work_energy: Option<Millijoules>,
    pub(super) preemptions: u64,
    /// Busy time per bin of the whole run.
    pub(super) bins: Bins,
    pub(super) busy_by_model: IdVec<ModelId, Nanos>,
    /// Where the platform says anything about power.
    pub(super) readings: Option<Box<Readings>>,
}

/// All processors and the bus.
#[derive(Clone, Debug)]
pub(super) struct Lanes<'s> {
    system: &'s System,
    pub(super) by_processor: IdVec<ProcessorId, Lane>,
    /// Runs on which several processors work, and the others of them.
    helpers: Vec<(u64, ProcessorSet)>,
    /// Time alone by kind of figure, in the order of [`KINDS`] [ns].
    pub(super) alone_by_kind: [f64; 3],
    pub(super) peak_memory: Option<Bytes>,
    pub(super) bus: Bins,
    bus_since: Nanos,
    bus_traffic: f64,
}

impl<'s> Lanes<'s> {
    pub(super) fn new(system: &'s System) -> Self {
        let lane = |_| Lane {
            open: Vec::new(),
            active_since: Nanos::ZERO,
            active: Nanos::ZERO,
            busy: Nanos::ZERO,
            setup: Nanos::ZERO,
            lost_ns: 0.0,
            work_energy: Some(Millijoules(0.0)),
            preemptions: 0,
            bins: Bins::new(system.duration),
            busy_by_model: system.models.iter().map(|_| Nanos::ZERO).collect(),
            readings: None,
        };
        Self {
            system,
            by_processor: system.platform.processors.iter().map(lane).collect(),
            helpers: Vec::new(),
            alone_by_kind: [0.0; 3],
            peak_memory: None,
            bus: Bins::new(system.duration),
            bus_since: Nanos::ZERO,
            bus_traffic: 0.0,
        }
    }

    /// A stage starts, alone or in a batch.
    pub(super) fn start(
        &mut self,
        processor: ProcessorId,
        run: u64,
        (node, variant): (NodeId, u8),
        at: Nanos,
        (setup, units): (Nanos, u32),
    ) {
        let lane = &mut self.by_processor[processor];
        if let Some(open) = lane.open.iter_mut().find(|open| open.serial == run) {
            open.members += 1;
            open.setup = open.setup.max(setup);
            return;
        }
        if lane.open.is_empty() {
            lane.active_since = at;
        }
        lane.open.push(OpenRun {
            serial: run,
            node,
            variant,
            start: at,
            setup,
            units,
            members: 1,
            alone: Nanos::ZERO,
            energy: Some(Millijoules(0.0)),
            preempted: false,
        });
    }

    /// Other processors work on a run from now on.
    pub(super) fn help(&mut self, run: u64, node: (NodeId, u8), helpers: ProcessorSet, at: Nanos, setup: Nanos) {
        for helper in helpers.iter() {
            self.start(helper, run, node, at, (setup, 0));
        }
        self.helpers.push((run, helpers));
    }

    /// A stage stops; the run ends with its last stage.
    pub(super) fn stop(&mut self, processor: ProcessorId, stopped: &Stopped) {
        if let Some(i) = self.helpers.iter().position(|&(run, _)| run == stopped.run) {
            // The energy of all is with the stage's own processor.
            let rest = Stopped { energy_mj: stopped.energy_mj.map(|_| 0.0), ..*stopped };
            for helper in self.helpers.swap_remove(i).1.iter() {
                self.stop_one(helper, &rest);
            }
        }
        self.stop_one(processor, stopped);
    }

    fn stop_one(&mut self, processor: ProcessorId, stopped: &Stopped) {
        let lane = &mut self.by_processor[processor];
        let Some(i) = lane.open.iter().position(|open| open.serial == stopped.run) else {
            return; // Its start is missing: a damaged record.
        };
        let open = &mut lane.open[i];
        open.members -= 1;
        open.alone = open.alone.saturating_add(stopped.alone);
        open.energy = match (open.energy, stopped.energy_mj) {
            (Some(sum), Some(energy)) => Some(sum + Millijoules(energy)),
            (sum, None) if stopped.alone == Nanos::ZERO => sum, // Nothing was done: there is nothing to know.
            _ => None,
        };
        open.preempted |= stopped.why == StopReason::Preempted;
        if open.members == 0 {
            let closed = lane.open.swap_remove(i);
            self.close(processor, &closed, stopped.at);
        }
    }

    /// Counts a run that has ended.
    fn close(&mut self, processor: ProcessorId, run: &OpenRun, at: Nanos) {
        let system = self.system;
        let window = |from: Nanos, to: Nanos| to.min(system.duration).saturating_sub(from.max(system.warm_up));
        let lane = &mut self.by_processor[processor];
        // A part of the processor counts as such.
        let unit = &system.platform.processors[processor];
        let part = unit.share(run.units);
        lane.bins.add(run.start, at, part);
        if lane.open.is_empty() {
            lane.active += window(lane.active_since, at);
        }
        let busy = window(run.start, at);
        if busy == Nanos::ZERO {
            return;
        }
        let work_from = run.start.saturating_add(run.setup).min(at);
        // Taking preempted work off the processor ends its run.
        let cost = unit.preempt_cost;
        let work_to = if run.preempted { at.saturating_sub(cost).max(work_from) } else { at };
        let worked = window(work_from, work_to);
        // A run across the edge of the measured time counts by the share of its working time that lies within it.
        let whole = work_to.saturating_sub(work_from);
        let share = if whole == Nanos::ZERO { 0.0 } else { worked.as_f64() / whole.as_f64() };
        let alone = run.alone.as_f64() * share;
        let of_part = |time: Nanos| if run.units == 0 { time } else { Nanos::from_ns_f64(time.as_f64() * part) };
        lane.busy += of_part(busy);
        lane.setup += of_part(window(run.start, work_from));
        lane.lost_ns += (worked.as_f64() - alone) * part;
        lane.preemptions += u64::from(run.preempted);
        let node = &system.nodes[run.node];
        lane.busy_by_model[node.model_of(run.variant)] += of_part(busy);
        if share > 0.0 {
            lane.work_energy = match (lane.work_energy, run.energy) {
                (Some(sum), Some(energy)) => Some(sum + Millijoules(energy.0 * share)),
                _ => None,
            };
        }
        if let Some(cost) = &node.costs_of(run.variant)[processor] {
            let kind = system.figures.get(cost.figure_on(run.units) as usize).map(|figure| figure.kind);
            if let Some(i) = KINDS.iter().position(|&k| Some(k) == kind) {
                self.alone_by_kind[i] += alone;
            }
        }
    }

    /// The traffic on the bus changes.
    pub(super) fn bus(&mut self, at: Nanos, traffic: f64) {
        self.bus.add(self.bus_since, at, self.bus_traffic);
        self.bus_since = at;
        self.bus_traffic = traffic;
    }

    /// A processor's power is read.
    pub(super) fn power(&mut self, processor: ProcessorId, at: Nanos, reading: &Reading) {
        let unit = &self.system.platform.processors[processor];
        match &mut self.by_processor[processor].readings {
            Some(readings) => readings.add(self.system, unit, at, reading),
            none => *none = Some(Box::new(Readings::new(self.system, unit, at, reading))),
        }
    }

    pub(super) fn memory(&mut self, used: Bytes) {
        self.peak_memory = Some(self.peak_memory.map_or(used, |peak| peak.max(used)));
    }

    /// The record ends here. Runs that are still going on – the record was cut short – count up to now as if they had
    /// the machine for themselves; their energy is unknown.
    pub(super) fn finish(&mut self, at: Nanos) {
        self.bus(at, 0.0);
        for processor in self.by_processor.ids() {
            while let Some(mut open) = self.by_processor[processor].open.pop() {
                open.alone = at.saturating_sub(open.start).saturating_sub(open.setup);
                open.energy = (open.alone == Nanos::ZERO).then_some(Millijoules(0.0));
                self.close(processor, &open, at);
            }
        }
    }

    /// Energy of a processor over `measured` time, idle power included; `None` where nothing states it.
    pub(super) fn energy(&self, processor: ProcessorId, measured: Nanos) -> Option<Millijoules> {
        let (lane, unit) = (&self.by_processor[processor], &self.system.platform.processors[processor]);
        // A processor that did nothing and whose power nobody stated is not known to draw none.
        let leaks = unit.power.as_ref().is_some_and(|model| model.leakage.watts > 0.0);
        let stated = lane.busy > Nanos::ZERO || unit.idle_w > 0.0 || unit.active_w.is_some() || leaks;
        if let Some(readings) = &lane.readings {
            return readings.energy().filter(|_| stated);
        }
        // Of a processor that can be divided, what is idle draws its part.
        let active = if unit.division.is_some() { lane.busy } else { lane.active };
        let idle = Millijoules::of_power(unit.idle_w, measured.saturating_sub(active));
        lane.work_energy.filter(|_| stated).map(|work| work + idle)
    }
}

/// The largest energy that the stage's work can cost in any variant on any processor that can run it [mJ]; `None` if some processor's
/// is unknown.
pub(super) fn worst_energy(system: &System, node: NodeId, work: Work) -> Option<f64> {
    let mut worst = 0.0_f64;
    let node = &system.nodes[node];
    let costs = |variant| node.costs_of(variant).enumerate().map(move |(p, cost)| (variant, p, cost));
    for (variant, p, cost) in node.variant_numbers().flat_map(costs) {
        let Some(cost) = cost else { continue };
        // The costliest input runs to the end.
        let work = Work { exit: 1.0, scale: node.scales().1, ..node.work_of(variant, work) };
        let active_w = system.platform.processors[p].active_w;
        let mut sum: f64;
        for (taken, phases) in cost.at_all_widths() {
            let share = system.platform.processors[p].share(taken);
            sum = 0.0;
            for (kind, phase) in phases {
                let units = work.units(*kind);
                let of_power = || active_w.map(|watts| watts * share * phase.latency_ns(work, 0.0, units) / 1e6);
                sum += phase.energy_mj(work, 0.0, units).or_else(of_power)?;
            }
            worst = worst.max(sum);
        }
    }
    Some(worst)
}
