//! `pd-partition`: prompts and answers, or streams and answers, side by side on parts of one processor, which is cut anew as the load
//! changes.

use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Run;
use onbeat_core::system::{Division, System};
use onbeat_core::units::Nanos;

use crate::parameters::Parameters;
use crate::plan::{Plan, holding_time};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "pd-partition",
    summary: "Earliest due first; answers keep the fewest units of a processor that meet their goal, prompts and streams get the rest, cut anew under load",
    group: "generative",
    parameters: &[],
    reference: "Nexus, arXiv 2507.06608, 2025; Hong et al., semi-PD, arXiv 2504.19867, 2025",
    build,
};

/// Times its cost by which going on with more units must be worth while.
const WIDENING_GAIN: u64 = 2;

/// Processors divided between those that answer and everybody else.
#[derive(Clone, Debug, Default)]
struct PdPartition {
    plan: Plan,
    /// Ready stages by due time and serial.
    queue: Vec<(Nanos, u64, StageId)>,
    /// Units that nothing was given on, by processor; slots where it cannot be divided.
    free: Vec<u32>,
    /// Units that stages in decode get on each processor that can be divided; 0 where there are none.
    answers: Vec<u32>,
    /// Those of them that a stage in decode waits for, which nobody else may take.
    reserved: Vec<u32>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::<PdPartition>::default())
}

impl Policy for PdPartition {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.plan.begin(view);
        self.queue.clear();
        self.queue.extend(view.ready().iter().map(|&stage| (view.due(stage), view.stage(stage).serial, stage)));
        self.queue.sort_unstable();
        self.free.clear();
        self.answers.clear();
        for p in view.processors() {
            match division(view, p) {
                None => {
                    self.free.push(view.free_slots(p));
                    self.answers.push(0);
                }
                Some(division) => {
                    self.free.push(view.free_units(p));
                    self.answers.push(self.units_for_answers(view, p, division));
                }
            }
        }
        self.reserved.clear();
        for p in view.processors() {
            let waits =
                answering(view, p).is_none() && self.queue.iter().any(|&(.., stage)| answers_on(view, stage, p));
            self.reserved.push(if waits { self.answers[p.index()] } else { 0 });
        }
        for p in view.processors().filter(|&p| view.preemptible(p)) {
            if let (Some(division), Some(run)) = (division(view, p), answering(view, p))
                && self.should_cut(view, p, division, run)
            {
                actions.preempt(run.stage);
                // Nobody joins a batch that is about to go on elsewhere.
                self.plan.close(p, run.model);
            }
        }
        for i in 0..self.queue.len() {
            let stage = self.queue[i].2;
            if view.stage(stage).kind == Phase::Decode {
                self.answer(view, stage, actions);
            } else {
                self.start(view, stage, actions);
            }
        }
    }
}

fn division(view: &View<'_>, p: ProcessorId) -> Option<Division> {
    view.system.platform.processors[p].division
}

/// The run of those that answer on a processor, unless it is being ended.
fn answering<'a>(view: &View<'a>, p: ProcessorId) -> Option<&'a Run> {
    view.occupancy(p).runs.iter().find(|run| run.kind == Phase::Decode && !run.ending)
}

/// Whether a ready stage in decode has its cache on a processor.
fn answers_on(view: &View<'_>, stage: StageId, p: ProcessorId) -> bool {
    let live = view.stage(stage);
    live.kind == Phase::Decode && live.processor.is_none_or(|at| at == p) && view.can_run(stage, p)
}

impl PdPartition {
    /// The ready stages that are not in decode and can run on a processor, the most urgent first.
    fn others<'a>(&'a self, view: &View<'a>, p: ProcessorId) -> impl Iterator<Item = StageId> + 'a {
        let view = *view;
        let stages = self.queue.iter().map(|&(.., stage)| stage);
        stages.filter(move |&stage| view.stage(stage).kind != Phase::Decode && view.can_run(stage, p))
    }

    /// Units that those in decode get: all that are stated if nobody else wants any; otherwise the fewest with which a step is not
    /// longer than their goal, and none for which the others would not have room. 0 if there is nobody in decode.
    fn units_for_answers(&self, view: &View<'_>, p: ProcessorId, division: Division) -> u32 {
        let answers = || {
            let waiting = self.queue.iter().map(|&(.., stage)| stage).filter(|&stage| answers_on(view, stage, p));
            answering(view, p).into_iter().flat_map(Run::stages).chain(waiting)
        };
        let Some(first) = answers().next() else { return 0 };
        let count = answers().count() as u32;
        let taken: u32 = view
            .occupancy(p)
            .runs
            .iter()
            .filter(|run| run.kind != Phase::Decode)
            .map(|run| view.stage(run.stage).units)
            .sum();
        let wanted = self.others(view, p).next().and_then(|stage| view.widths(stage, p).next());
        let left = division.units - if taken > 0 { taken } else { wanted.unwrap_or(0) };
        if taken == 0 && wanted.is_none() {
            return view.widths(first, p).next_back().unwrap_or(0);
        }
        let goal = answers().filter_map(|stage| view.source(stage).tpot).min();
        let fits = |&units: &u32| units <= left;
        let in_time = |&units: &u32| {
            let step = step_on(view, first, p, units, count);
            goal.is_none_or(|goal| step.is_some_and(|step| step <= goal))
        };
        let enough = view.widths(first, p).filter(fits).find(in_time);
        // Where even the narrowest part leaves no room for others, they take turns.
        enough
            .or_else(|| view.widths(first, p).rev().find(fits))
            .or_else(|| view.widths(first, p).next_back())
            .unwrap_or(0)
    }

    /// Starts a stage that is not in decode where it is done first, on what those in decode do not need.
    fn start(&mut self, view: &View<'_>, stage: StageId, actions: &mut Actions) {
        let mut best: Option<(Nanos, ProcessorId, u32)> = None;
        for p in view.processors().filter(|&p| view.can_run(stage, p)) {
            let free = self.free[p.index()];
            if division(view, p).is_none() {
                if let Some(time) = holding_time(view, stage, p).filter(|_| free > 0) {
                    best = Some(best.map_or((time, p, 0), |best| best.min((time, p, 0))));
                }
                continue;
            }
            let reserved = self.reserved[p.index()];
            for units in view.widths(stage, p).filter(|units| units + reserved <= free) {
                let Some(rest) = view.remaining_on_units(stage, p, units) else { continue };
                let found = (rest.saturating_add(view.setup_on_units(stage, p, units)), p, units);
                best = Some(best.map_or(found, |best| best.min(found)));
            }
        }
        let Some((_, p, units)) = best else { return };
        if units == 0 {
            self.plan.start(view, stage, p, actions);
            self.free[p.index()] -= 1;
        } else {
            actions.start_on_units(stage, p, units, None);
            self.free[p.index()] -= units;
        }
    }

    /// Lets a stage in decode join a batch, or start on the units that answers get.
    fn answer(&mut self, view: &View<'_>, stage: StageId, actions: &mut Actions) {
        if let Some(p) = self.plan.batch_for(view, stage, |p| answers_on(view, stage, p)) {
            self.plan.join(view, stage, p, actions);
            return;
        }
        let places = view.processors().filter(|&p| answers_on(view, stage, p));
        let free = places.filter(|&p| self.free[p.index()] >= self.answers[p.index()].max(1));
        let Some((_, p)) = free.filter_map(|p| Some((holding_time(view, stage, p)?, p))).min() else { return };
        if division(view, p).is_none() {
            self.plan.start(view, stage, p, actions);
            self.free[p.index()] -= 1;
            return;
        }
        // Another model may be stated for other widths.
        let Some(units) = view.widths(stage, p).rev().find(|&units| units <= self.answers[p.index()]) else { return };
        actions.start_on_units(stage, p, units, None);
        self.free[p.index()] -= units;
        self.reserved[p.index()] = 0;
        self.plan.open(view, stage, p);
    }

    /// Whether the batch of those in decode holds units that somebody else waits for, or could go on with more.
    fn should_cut(&self, view: &View<'_>, p: ProcessorId, division: Division, run: &Run) -> bool {
        let (held, wanted, free) = (view.stage(run.stage).units, self.answers[p.index()], self.free[p.index()]);
        let waits = |stage: StageId| view.widths(stage, p).next().is_some_and(|units| units > free);
        if wanted < held {
            return self.others(view, p).any(waits);
        }
        let left = |units| view.remaining_in_phase_on_units(run.stage, p, units);
        let cost = division.repartition + view.system.platform.processors[p].preempt_cost;
        wanted > held
            && free + held >= wanted
            && self.others(view, p).next().is_none()
            && left(held)
                .zip(left(wanted))
                .is_some_and(|(now, then)| now.saturating_sub(then).0 > WIDENING_GAIN * cost.0)
    }
}

/// What the next step of `count` stages in decode takes on so many units.
fn step_on(view: &View<'_>, stage: StageId, p: ProcessorId, units: u32, count: u32) -> Option<Nanos> {
    let live = view.stage(stage);
    let (_, cost) = view.cost(stage, p)?.on_units(units).get(usize::from(live.phase))?;
    let step = cost.latency_ns(live.work, live.position, live.position + 1.0);
    Some(Nanos::from_ns_f64(step * cost.batch_factor(count.min(cost.batch_max()))))
}
