//! How fast a joint run gets on, what it asks of the bus, and what it draws.

use super::{Course, Mark, Together};
use crate::bus::Demand;
use crate::id::{IdVec, ProcessorId};
use crate::system::Processor;
use crate::units::{Millijoules, Nanos};

impl Course {
    /// Rate at which a processor gets on with its part, with a share of the bus and at these speeds: relative to the speeds that the
    /// run was planned with. Where drafting and verifying take turns, the stage's own processor stands for both.
    pub fn rate_of(
        &self,
        q: ProcessorId,
        together: Together,
        (demand, share): (Demand, f64),
        speed: impl Fn(ProcessorId) -> f64,
    ) -> f64 {
        let drafts = matches!(together, Together::Draft { .. });
        let (mut planned, mut now) = (0.0, 0.0);
        for part in self.parts.iter().filter(|part| drafts || part.processor == q) {
            planned += part.computing_ns;
            now += part.computing_ns * part.speed / speed(part.processor);
        }
        if now == planned {
            return if demand.memory_bound <= 0.0 { 1.0 } else { demand.rate(share, 1.0) };
        }
        let memory = demand.memory_bound;
        // Waiting for one another and handing over do not depend on the clock.
        let computing = (1.0 - memory - self.waiting_ns / self.ahead_ns).max(0.0);
        // A part that reads nothing is given nothing, and needs nothing.
        let reading = if share >= demand.peak || memory <= 0.0 { memory } else { memory * demand.peak / share };
        1.0 / ((1.0 - memory - computing) + computing * now / planned + reading)
    }

    /// What processor `q` asks of the bus for a joint run of processor `p`, of which what is ahead takes `alone_ns` in all. `limit` is the
    /// most that a processor can draw [bytes/ns], where that is known.
    pub fn demand_of(
        &self,
        together: Together,
        (p, q): (ProcessorId, ProcessorId),
        alone_ns: f64,
        limit: impl Fn(ProcessorId) -> Option<f64>,
    ) -> Demand {
        match together {
            Together::Split { .. } | Together::Attention { .. } => {
                let bytes = self.parts.iter().find(|part| part.processor == q).map_or(0.0, |part| part.bytes);
                limit(q).map_or(Demand::NONE, |limit| Demand::new(bytes, alone_ns, limit))
            }
            // Drafting and verifying take turns: the stage's own processor asks for both.
            Together::Draft { .. } if q == p => {
                let with_limits = || self.parts.iter().filter_map(|part| Some((part.bytes, limit(part.processor)?)));
                let at_limit: f64 = with_limits().map(|(bytes, limit)| bytes / limit).sum();
                let bytes: f64 = with_limits().map(|(bytes, _)| bytes).sum();
                if at_limit <= 0.0 { Demand::NONE } else { Demand::new(bytes, alone_ns, bytes / at_limit) }
            }
            Together::Draft { .. } => Demand::NONE,
        }
    }

    /// What a processor draws for its part at the first operating points [W], by the profile, if that states it for all that the
    /// processor does; and the share of the time in which it is at it. `factor` is the ratio of real to nominal latency.
    pub fn power_of(&self, q: ProcessorId, factor: f64) -> (Option<f64>, f64) {
        let (mut energy, mut turn) = (Some(0.0), 0.0);
        for part in self.parts.iter().filter(|part| part.processor == q) {
            energy = energy.zip(part.energy_mj).map(|(sum, energy)| sum + energy);
            turn += part.turn_ns;
        }
        let watts = |energy: f64| energy / (self.ahead_ns * factor).max(f64::MIN_POSITIVE) * 1e6;
        (energy.map(watts), (turn / self.ahead_ns.max(f64::MIN_POSITIVE)).min(1.0))
    }

    /// Energy of a joint run of which so much was done, where speeds are fixed; `None` if a processor's is unknown [mJ]. A part whose
    /// profile states none draws the processor's active power in its turn, and idle power while it waits for the other.
    pub fn energy_mj(&self, done: Mark, busy: Nanos, processors: &IdVec<ProcessorId, Processor>) -> Option<f64> {
        let mut sum = done.energy_mj;
        for part in self.parts.iter().filter(|part| part.energy_mj.is_none()) {
            let unit = &processors[part.processor];
            let (_, at_it) = self.power_of(part.processor, 1.0);
            let turn = (part.turn_ns / self.ahead_ns.max(f64::MIN_POSITIVE)).min(1.0);
            sum += Millijoules::of_power(unit.active_w? * turn + unit.idle_w * (1.0 - at_it), busy).0;
        }
        Some(sum)
    }
}
