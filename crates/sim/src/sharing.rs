//! The memory bus among the runs of the moment; the rules are in [`onbeat_core::bus`].

use onbeat_core::bus::{Demand, share_max_min};
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::units::{Bytes, Nanos};

use crate::engine::Engine;
use crate::runs::{Doing, LiveRun, at_rate, cost_of};

/// What loading weights within a setup moves over the bus [bytes/ns].
pub(crate) fn load_traffic(loads: Bytes, setup: Nanos) -> f64 {
    loads.as_f64() / setup.as_f64().max(1.0)
}

impl<S: Sink> Engine<'_, S> {
    /// What a run asks of the memory bus. `alone_ns` is the time that all of it takes alone.
    pub(crate) fn demand_of(&self, p: ProcessorId, stages: &[StageId], run: &LiveRun, alone_ns: f64) -> Demand {
        let Some(limit) = self.course.limit_of(p) else { return Demand::NONE };
        let mut bytes = 0.0;
        if run.piece {
            let live = &self.course.state.stages[stages[0]];
            let work = self.course.hidden[stages[0].index()].work;
            bytes = cost_of(self.course.system, live, p).piece_bytes(work, run.from, run.from + run.length);
        } else if run.is_mixed() {
            bytes = self.pieces_bytes(p, stages, run);
        }
        let whole = if run.piece { 0 } else { run.decoders };
        for (k, &stage) in stages[..whole].iter().enumerate() {
            let from = run.start_of(k);
            let cost = cost_of(self.course.system, &self.course.state.stages[stage], p);
            let work = self.work_in(run, stage);
            bytes += cost.member_bytes(work, from, from + run.length, run.decoders as u32);
        }
        Demand::new(bytes, alone_ns, limit)
    }

    /// Shares the memory bus among the runs that make progress, sets the processors' speeds, and moves the ends of runs.
    pub(crate) fn share_bus(&mut self) {
        self.bus_dirty = false;
        let bus = self.course.system.platform.bandwidth.filter(|_| self.course.system.contention);
        if bus.is_none() && self.course.power.is_none() {
            return;
        }
        let mut shares = std::mem::take(&mut self.shares);
        let mut order = std::mem::take(&mut self.order);
        shares.clear();
        let mut joint = false;
        for (p, runs) in self.runs.enumerate() {
            let first = shares.len();
            for run in runs {
                joint |= run.joint.is_some();
                shares.extend(run.asks());
            }
            let limit = bus.and_then(|_| self.course.system.platform.bandwidth_of(p));
            if let Some(limit) = limit.filter(|_| shares.len() > first + 1) {
                share_max_min(limit, &mut shares[first..], &mut order);
            }
        }
        if let Some(bus) = bus {
            share_max_min(bus, &mut shares, &mut order);
        }
        self.set_points(&shares);
        self.plan_for_speeds();
        if joint {
            self.couple(&shares);
        }

        let now = self.course.state.now;
        let mut share = shares.iter();
        let (mut traffic, mut pace, mut working) = (0.0, 0.0, 0_u32);
        for p in self.course.system.platform.processors.ids() {
            let speed = self.course.speed(p);
            for run in self.runs[p].iter_mut().filter(|run| run.asks().is_some()) {
                let share = *share.next().expect("one share per run that takes part");
                if run.doing == Doing::Setup {
                    traffic += share;
                    continue;
                }
                working += 1;
                let (rate, alone) = match &run.joint {
                    Some(joint) => (joint.rate, joint.alone),
                    None if run.doing == Doing::Helping => (run.rate, run.meter.alone_rate),
                    None => (run.demand.rate(share, speed), run.demand.rate(f64::INFINITY, speed)),
                };
                traffic += run.demand.traffic(rate);
                pace += rate / alone;
                if rate != run.rate || alone != run.meter.alone_rate {
                    run.done_ns = (run.done_ns + (now - run.updated).as_f64() * run.rate).min(run.target_ns);
                    run.credit(now);
                    run.rate = rate;
                    run.meter.alone_rate = alone;
                    run.next_at = now + at_rate(run.target_ns - run.done_ns, rate);
                }
            }
        }
        let pace = if working == 0 { 1.0 } else { pace / f64::from(working) };
        self.shares = shares;
        self.order = order;
        self.set_loads();
        if bus.is_some() && (traffic, pace) != self.last_bus {
            self.last_bus = (traffic, pace);
            self.course.emit(What::Bus { traffic, speed: pace });
        }
    }
}
