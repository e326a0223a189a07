//! Cutting a processor anew under running work: with how few units a run could do, and what it would gain by more.
//!
//! Only where work is taken off at the end of a segment: within one, progress is kept for the same width only.

use onbeat_core::cost::{Cost, Phase, PhaseCost, remaining_ns};
use onbeat_core::id::{ProcessorId, StageId};
use onbeat_core::policy::View;
use onbeat_core::spec::Preemption;
use onbeat_core::state::Run;
use onbeat_core::system::{Division, System};
use onbeat_core::units::Nanos;

/// Times its cost by which going on with more units must be worth while.
const WIDENING_GAIN: f64 = 2.0;

/// How a processor is divided, if runs there can go on with another width.
pub(crate) fn division(system: &System, processor: ProcessorId) -> Option<Division> {
    let unit = &system.platform.processors[processor];
    unit.division.filter(|_| unit.preemption == Preemption::Segment)
}

/// A run that can go on with other units after its next boundary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recut<'a> {
    view: View<'a>,
    processor: ProcessorId,
    /// The stage that runs.
    pub(crate) stage: StageId,
    /// Whether its end was asked for before.
    pub(crate) ending: bool,
    /// Units that it holds.
    pub(crate) held: u32,
    cost: &'a Cost,
    /// The next boundary [units of work], and the nominal time until then [ns].
    boundary: f64,
    until: f64,
    /// What it costs to go on with other units [ns].
    price: f64,
}

impl<'a> Recut<'a> {
    /// The runs of a processor that can. Not those whose next boundary is the end of their phase; batches and idle-time work neither.
    pub(crate) fn all(view: View<'a>, processor: ProcessorId) -> impl Iterator<Item = Self> + 'a {
        let division = division(view.system, processor);
        let runs = division.map(|division| view.occupancy(processor).runs.iter().map(move |run| (division, run)));
        runs.into_iter().flatten().filter_map(move |(division, run)| Self::of(view, processor, division, run))
    }

    fn of(view: View<'a>, processor: ProcessorId, division: Division, run: &Run) -> Option<Self> {
        if !run.others.is_empty() || !run.over.is_empty() || view.gives_way(run) {
            return None;
        }
        let live = view.stage(run.stage);
        let cost = view.cost(run.stage, processor)?;
        let (kind, phase) = &cost.on_units(live.units)[usize::from(live.phase)];
        let end = live.work.units(*kind).max(live.position);
        let left = run.expected_end.saturating_sub(view.now()).as_f64();
        let done = (phase.latency_ns(live.work, live.position, end) - left).max(0.0);
        let position = phase.position_after(live.work, live.position, end, done);
        let boundary = phase.next_boundary(live.work, *kind, position);
        let until = (phase.latency_ns(live.work, live.position, boundary) - done).max(0.0);
        let price = (division.repartition + view.system.platform.processors[processor].preempt_cost).as_f64();
        let (stage, ending, held) = (run.stage, run.ending, live.units);
        (boundary < end).then_some(Self { view, processor, stage, ending, held, cost, boundary, until, price })
    }

    /// The fewest units with which it would still be on time; if it is late anyway, the fewest that are stated. At most what it holds.
    pub(crate) fn least(&self) -> u32 {
        let narrower = || self.view.widths(self.stage, self.processor).filter(|&units| units < self.held);
        let enough = narrower().find(|&units| self.is_on_time(units));
        let late = || narrower().next().filter(|_| !self.is_on_time(self.held));
        enough.or_else(late).unwrap_or(self.held)
    }

    /// Units that it can do without.
    pub(crate) fn surplus(&self) -> u32 {
        self.held - self.least()
    }

    /// What going on with at most so many more units gains [ns], if it is worth what it costs.
    pub(crate) fn gain(&self, more: u32) -> Option<u64> {
        let wider = self
            .view
            .widths(self.stage, self.processor)
            .filter(|units| (self.held + 1..=self.held + more).contains(units));
        let best = wider.map(|units| self.rest_of_phase(units)).fold(f64::INFINITY, f64::min);
        let gain = self.rest_of_phase(self.held) - best;
        (gain > 0.0 && gain > WIDENING_GAIN * self.price).then_some(gain as u64)
    }

    fn phase(&self, units: u32) -> &'a (Phase, PhaseCost) {
        &self.cost.on_units(units)[usize::from(self.view.stage(self.stage).phase)]
    }

    /// The phase from the next boundary on, on so many units [ns].
    fn rest_of_phase(&self, units: u32) -> f64 {
        let live = self.view.stage(self.stage);
        let (kind, cost) = self.phase(units);
        cost.latency_ns(live.work, self.boundary, live.work.units(*kind).max(self.boundary))
    }

    fn is_on_time(&self, units: u32) -> bool {
        let live = self.view.stage(self.stage);
        let token = self.view.token_is_due(self.stage);
        if token && live.kind == Phase::Decode {
            let step = self.phase(units).1.latency_ns(live.work, self.boundary, self.boundary + 1.0);
            return self.view.source(self.stage).tpot.is_none_or(|goal| Nanos::from_ns_f64(step) <= goal);
        }
        let rest = if token {
            self.rest_of_phase(units)
        } else {
            remaining_ns(self.cost.on_units(units), live.work, usize::from(live.phase), self.boundary)
        };
        let price = if units == self.held { 0.0 } else { self.price };
        let end = self.view.now().saturating_add(Nanos::from_ns_f64(self.until + price + rest));
        end <= self.view.due(self.stage)
    }
}
