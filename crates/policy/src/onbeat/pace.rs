//! Whether one more answer can be written at the pace that goals ask for.
//!
//! An answer's first token starts the clock of the others. Where those that are being written already take what the processors give,
//! a prompt that need not be read yet waits: the answers in progress get ahead of their goals, or come to their ends, meanwhile.

use onbeat_core::cost::{Phase, PhaseCost};
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::View;
use onbeat_core::system::{Node, System};
use onbeat_core::units::Nanos;

/// What answers in progress take of the processors, and what one more would take.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// How much of a slot an answer takes that is written just as fast as its goal asks, by node and processor; infinite where it has no
    /// goal, or cannot be written.
    shares: Vec<f64>,
    /// Whether answers are batched there.
    batched: Vec<bool>,
    /// What answers in progress take, by processor.
    load: Vec<f64>,
    /// Whether the loads are those of the present decision.
    counted: bool,
}

impl Pace {
    pub(super) fn new(system: &System) -> Self {
        let processors = || system.platform.processors.ids();
        let decode = |node: &Node, p| {
            let cost = node.costs[p].as_ref()?;
            cost.phases.iter().find(|(kind, _)| *kind == Phase::Decode).map(|(_, cost)| cost.clone())
        };
        let share = |node: &Node, p: ProcessorId| {
            let source = &system.sources[node.source];
            let last = node.to_first_token == Some(Nanos::ZERO) || source.nodes.len() == 1;
            let goal = source.tpot.filter(|_| last)?;
            // In the middle of an answer of the expected length.
            let (work, at) = (node.expected, f64::from(node.expected.output / 2));
            Some(decode(node, p)?.latency_ns(work, at, at + 1.0) / goal.as_f64())
        };
        let batches = |node, p| matches!(decode(node, p), Some(PhaseCost::Decode { batch: Some(_), .. }));
        let all = || system.nodes.iter().flat_map(|node| processors().map(move |p| (node, p)));
        Self {
            shares: all().map(|(node, p)| share(node, p).unwrap_or(f64::INFINITY)).collect(),
            batched: all().map(|(node, p)| batches(node, p)).collect(),
            load: vec![0.0; processors().len()],
            counted: false,
        }
    }

    /// Before the first question of a decision.
    pub(super) fn begin(&mut self) {
        self.counted = false;
    }

    /// Whether the answer to a prompt would be one too many wherever it could be written as fast as its goal asks.
    pub(super) fn is_taken(&mut self, view: &View<'_>, stage: StageId) -> bool {
        if !self.counted {
            self.counted = true;
            self.count(view);
        }
        let row = self.row(view, stage);
        let mut could = false;
        for (p, unit) in view.system.platform.processors.enumerate() {
            let (share, load) = (self.shares[row + p.index()], self.load[p.index()]);
            if share > 1.0 {
                continue;
            }
            could = true;
            if load == 0.0 || load + share <= f64::from(unit.slots) || self.batched[row + p.index()] {
                return false;
            }
        }
        could
    }

    /// Counts each answer in progress where it takes least.
    fn count(&mut self, view: &View<'_>) {
        self.load.fill(0.0);
        let running =
            view.processors().flat_map(|p| view.occupancy(p).runs.iter().flat_map(onbeat_core::state::Run::stages));
        for stage in view.ready().iter().copied().chain(running) {
            if view.stage(stage).kind != Phase::Decode {
                continue;
            }
            let row = self.row(view, stage);
            let shares = self.shares[row..row + self.load.len()].iter().copied().enumerate();
            let least = shares.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|least| least.1.is_finite());
            if let Some((p, share)) = least {
                self.load[p] += share;
            }
        }
    }

    fn row(&self, view: &View<'_>, stage: StageId) -> usize {
        view.stage(stage).node.index() * self.load.len()
    }
}
