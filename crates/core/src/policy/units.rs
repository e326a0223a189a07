//! What a policy sees of processors that can be divided into units.

use super::View;
use crate::cost::{Phase, PhaseCost, remaining_ns};
use crate::id::{ProcessorId, StageId};
use crate::state::Stage;
use crate::units::Nanos;

impl<'a> View<'a> {
    /// Units of a processor that nothing runs on; 0 or 1 where it cannot be divided. A processor that can be divided has no free
    /// *slot* as long as anything runs there: policies that ask for slots have it to themselves.
    pub fn free_units(&self, processor: ProcessorId) -> u32 {
        let occupancy = self.occupancy(processor);
        if occupancy.parts.is_empty() {
            return self.free_slots(processor).min(1);
        }
        occupancy.parts.iter().filter(|part| part.run.is_none()).map(|part| part.units).sum()
    }

    /// The share of a processor that can be divided on which nothing runs; 0 elsewhere.
    pub fn idle_share(&self, processor: ProcessorId) -> f64 {
        let unit = &self.system.platform.processors[processor];
        let idle = unit.division.map_or(0, |_| self.free_units(processor));
        if idle == 0 { 0.0 } else { unit.share(idle) }
    }

    /// Numbers of units on which a stage can run on a processor, the narrowest first: those that its profile states. 1 alone where
    /// the processor cannot be divided; none where the stage cannot run.
    pub fn widths(&self, stage: StageId, processor: ProcessorId) -> impl DoubleEndedIterator<Item = u32> + use<'a> {
        self.cost(stage, processor).into_iter().flat_map(|cost| cost.widths.iter()).map(|units| units.max(1))
    }

    /// Like [`View::remaining`], on so many units of a processor that can be divided. `None` if no profile states what it costs there.
    pub fn remaining_on_units(&self, stage: StageId, processor: ProcessorId, units: u32) -> Option<Nanos> {
        let live = self.stage(stage);
        let (units, phases) = self.phases_on_units(live, processor, units)?;
        let rest = remaining_ns(phases, live.work, usize::from(live.phase), live.position);
        Some(Nanos::from_ns_f64(rest - self.partial_ns(live, processor, units)))
    }

    /// Like [`View::remaining_in_phase`], on so many units. `None` if no profile states what it costs there.
    pub fn remaining_in_phase_on_units(&self, stage: StageId, processor: ProcessorId, units: u32) -> Option<Nanos> {
        let live = self.stage(stage);
        let (units, phases) = self.phases_on_units(live, processor, units)?;
        let (kind, cost) = &phases[usize::from(live.phase)];
        let end = live.work.units(*kind).max(live.position);
        let rest = cost.latency_ns(live.work, live.position, end);
        Some(Nanos::from_ns_f64(rest - self.partial_ns(live, processor, units)))
    }

    /// The phases on so many units, if they are stated, and the number by which they are known.
    fn phases_on_units(
        &self,
        live: &Stage,
        processor: ProcessorId,
        units: u32,
    ) -> Option<(u32, &'a [(Phase, PhaseCost)])> {
        let cost = self.cost_of(live, processor)?;
        let units = if cost.widths.widest == 0 && units == 1 { 0 } else { units };
        cost.widths.iter().any(|width| width == units).then(|| (units, cost.on_units(units)))
    }

    /// Like [`View::setup`], on so many units of a processor that can be divided: cutting it anew included.
    pub fn setup_on_units(&self, stage: StageId, processor: ProcessorId, units: u32) -> Nanos {
        self.setup_of(self.stage(stage), processor, Some(units))
    }

    /// What precedes progress if a stage joins a batch that runs on a processor: on one that can be divided, no part is cut for it.
    pub fn setup_to_join(&self, stage: StageId, processor: ProcessorId) -> Nanos {
        self.setup_of(self.stage(stage), processor, Some(0))
    }
}
