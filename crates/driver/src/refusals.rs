//! Starts that were refused for lack of memory, and when they may be tried again.

use onbeat_core::event::Sink;
use onbeat_core::id::{ModelId, ProcessorId, StageId};
use onbeat_core::policy::{ActionError, refusal_bit};
use onbeat_core::state::Stage;
use onbeat_core::units::{Bytes, Nanos};

use crate::course::Course;

/// That a stage, in one of its variants, found no memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    stage: StageId,
    serial: u64,
    variant: u8,
    /// Where, as bits by id.
    processors: u64,
    at: Nanos,
    /// The least memory that was [taken](Course::taken) at that instant when it was refused, or could be tried again.
    least: Bytes,
}

impl<S: Sink> Course<'_, S> {
    /// A start was refused on some processors, in the variant that the stage runs.
    pub(crate) fn refuse(&mut self, stage: StageId, processors: u64) {
        let taken = self.taken();
        let live = &mut self.state.stages[stage];
        live.refused |= processors;
        let (serial, variant) = (live.serial, live.variant);
        let refusal = Refusal { stage, serial, variant, processors, at: self.state.now, least: taken };
        match self.refusals.iter_mut().find(|other| (other.serial, other.variant) == (serial, variant)) {
            Some(other) if other.at == refusal.at => {
                let (processors, least) = (other.processors | processors, other.least.min(taken));
                *other = Refusal { processors, least, ..refusal };
            }
            Some(other) => *other = Refusal { processors: other.processors | processors, ..refusal },
            None => self.refusals.push(refusal),
        }
        self.refused_in = self.outcome.decisions;
        self.changed = true;
    }

    /// If nothing runs, nothing is leaving memory, and somebody who was refused waits among others who have begun: all refusals are void,
    /// once at an instant, and at this instant who waits gives way. Whether the policy is to be asked again.
    pub fn break_deadlock(&mut self) -> bool {
        let now = self.state.now;
        let tried = self.stuck_at == Some(now) || self.state.real;
        if tried || self.is_busy() || self.state.memory.swap_free_at > now {
            return false;
        }
        let waiting = || self.state.ready.iter().chain(&self.state.background).map(|&stage| &self.state.stages[stage]);
        let begun = |live: &Stage| live.cache.held > Bytes::ZERO || live.position > 0.0 || live.phase > 0;
        let refused = self.state.ready.iter().any(|&stage| self.state.stages[stage].refused != 0);
        if !refused || waiting().count() < 2 || !waiting().any(begun) {
            return false;
        }
        self.stuck_at = Some(now);
        self.refusals.clear();
        for &stage in self.state.ready.iter().chain(&self.state.background) {
            self.state.stages[stage].refused = 0;
        }
        self.changed = true;
        true
    }

    /// Whether something runs.
    fn is_busy(&self) -> bool {
        self.state.processors.iter().any(|occupancy| !occupancy.runs.is_empty())
    }

    /// Makes room where nothing else would, when [nothing runs](Course::break_deadlock): weights go, the least recently used first, then
    /// caches of stages that became ready after this one, the youngest first. Nothing goes if that is not enough.
    pub(crate) fn displace(
        &mut self,
        stage: StageId,
        p: ProcessorId,
        models: [Option<ModelId>; 2],
        missing: Bytes,
    ) -> Result<(), ActionError> {
        if self.stuck_at != Some(self.state.now) || self.is_busy() {
            return Ok(());
        }
        let serial = self.state.stages[stage].serial;
        let gives_way = self.system.has_best_effort();
        let mut caches: Vec<(u64, StageId)> = Vec::new();
        for &other in self.state.ready.iter().chain(&self.state.background) {
            let live = &self.state.stages[other];
            let younger = live.serial > serial || (gives_way && self.nodes[live.node].best_effort);
            if other != stage && younger && self.view().can_evict_cache(other, false) {
                caches.push((live.serial, other));
            }
        }
        let mut weights: Vec<(Nanos, ModelId, ProcessorId)> = Vec::new();
        for (model, on) in self.state.memory.resident.enumerate() {
            let needed = models.contains(&Some(model));
            let there = on.enumerate().filter(|&(q, _)| !(needed && q == p));
            weights.extend(there.filter_map(|(q, used)| Some(((*used)?, model, q))));
        }
        let held = |&(_, other): &(u64, StageId)| self.state.stages[other].cache.held.0;
        let size = |&(_, model, _): &(Nanos, ModelId, ProcessorId)| self.system.models[model].weights.0;
        let all = caches.iter().map(held).sum::<u64>() + weights.iter().map(size).sum::<u64>();
        if all < missing.0 {
            return Ok(());
        }
        caches.sort_unstable();
        weights.sort_unstable();
        let mut missing = missing.0;
        for (_, model, q) in weights {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(self.system.models[model].weights.0);
            self.unload(model, q);
        }
        while missing > 0 {
            let Some((_, other)) = caches.pop() else { break };
            missing = missing.saturating_sub(self.state.stages[other].cache.held.0);
            self.evict_cache(other, false)?;
        }
        Ok(())
    }

    /// A stage was given memory on a processor after all.
    pub(crate) fn accept(&mut self, stage: StageId, p: ProcessorId) {
        let bit = refusal_bit(p);
        let live = &self.state.stages[stage];
        if live.refused & bit != 0 {
            let serial = live.serial;
            self.state.stages[stage].refused &= !bit;
            self.refusals.iter_mut().filter(|other| other.serial == serial).for_each(|other| other.processors &= !bit);
        }
    }

    /// Where a stage has been refused in a variant, as bits by id.
    pub(crate) fn refused_as(&self, serial: u64, variant: u8) -> u64 {
        let found = self.refusals.iter().find(|other| (other.serial, other.variant) == (serial, variant));
        found.map_or(0, |refusal| refusal.processors)
    }

    /// Nothing that was found out about a stage holds any more.
    pub(crate) fn forget_refusals(&mut self, stage: StageId) {
        let serial = self.state.stages[stage].serial;
        self.refusals.retain(|refusal| refusal.serial != serial);
        self.state.stages[stage].refused = 0;
    }

    /// Memory that is used, less what can make room: the caches of stages that wait – of all of them where caches grow, of idle-time work
    /// anywhere but in real runs – and, where there is such work, models that are not in use.
    fn taken(&self) -> Bytes {
        let held = |stages: &[StageId]| {
            stages.iter().fold(Bytes::ZERO, |sum, &stage| sum + self.state.stages[stage].cache.held)
        };
        let mut room = if self.caches_grow() { held(&self.state.ready) } else { Bytes::ZERO };
        if self.system.has_best_effort() && !self.state.real {
            room += held(&self.state.background);
            let view = self.view();
            for (model, on) in self.state.memory.resident.enumerate() {
                let idle = on.ids().filter(|&p| view.can_evict(model, p)).count() as u64;
                room += Bytes(self.system.models[model].weights.0 * idle);
            }
        }
        self.state.memory.used - room
    }

    /// Memory was freed: what was refused may be tried again – at the instant at which it was refused only if less is taken than ever at
    /// that instant. Work that is taken off its processor gives back what it takes when it goes on there, and so do models that are
    /// loaded and evicted in turn: to try again at each turn would go round in a circle.
    pub(crate) fn forgive_refusals(&mut self) {
        if self.refusals.is_empty() {
            return;
        }
        let (now, taken) = (self.state.now, self.taken());
        let stages = &mut self.state.stages;
        self.refusals.retain_mut(|refusal| {
            if refusal.at == now && taken >= refusal.least {
                return true;
            }
            (refusal.least, refusal.processors) = (taken, 0);
            let is_it = |live: &&Stage| (live.serial, live.variant) == (refusal.serial, refusal.variant);
            if stages.get(refusal.stage).filter(is_it).is_some_and(|live| live.refused != 0) {
                stages[refusal.stage].refused = 0;
            }
            refusal.at == now
        });
    }
}
