//! `content-aware`: processors' time goes to the frames whose content gains most by it, as far as everything can be on time.

use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::Dispatch;
use crate::edf::{EarliestDue, PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Times, until_due};
use crate::variants::Choices;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "content-aware",
    summary: "Variants by what is to be seen: time goes where the frames' content gains most quality, as far as all can be on time",
    group: "multi-DNN",
    parameters: &[
        ParameterInfo {
            name: "content",
            default: "true",
            meaning: "true: a variant's quality is that for the class of content that the job sees; false: that over all content",
        },
        ParameterInfo {
            name: "contention",
            default: "true",
            meaning: "true: latencies are those of the profile times how much longer runs took lately; false: those of the profile",
        },
        PREEMPTIVE,
    ],
    reference: "Xu, Zhang, Wang, Lee, Mitra, Chaterji, Li and Bagchi, ApproxDet: Content and Contention-Aware Approximate Object Detection for Mobiles, SenSys 2020 (arXiv 2010.10754)",
    build,
};

#[derive(Clone, Debug)]
struct ContentAware {
    /// Whether quality is that for the job's content.
    content: bool,
    /// Whether latencies are corrected by how long runs took lately.
    contention: bool,
    choices: Choices,
    sensor: Sensor,
    times: Times,
    waiting: Vec<Waiting>,
    upgrades: Vec<Upgrade>,
    order: EarliestDue,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

/// A stage that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Nanos,
    serial: u64,
    stage: StageId,
    /// How much more time it can take than it does until it is late [ns].
    spare: f64,
    /// The variant that it is given; `None` without a choice.
    chosen: Option<Chosen>,
}

/// A variant for a stage.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    number: u8,
    quality: f64,
    /// What the stage takes in it until it is done with what is due, on the processor where it is done first [ns].
    span: f64,
}

/// A better variant for a waiting stage than its lightest one.
#[derive(Clone, Copy, Debug)]
struct Upgrade {
    /// Quality gained per time [1/ns].
    gain: f64,
    /// Which of the waiting stages.
    of: usize,
    to: Chosen,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(ContentAware {
        content: parameters.flag("content")?,
        contention: parameters.flag("contention")?,
        choices: Choices::new(system),
        sensor: Sensor::new(system),
        times: Times::default(),
        waiting: Vec::new(),
        upgrades: Vec::new(),
        order: EarliestDue { preemptive: parameters.flag("preemptive")? },
        dispatch: Dispatch::default(),
        tokens: TokenAlarm::default(),
    }))
}

impl Policy for ContentAware {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let senses = self.contention && self.choices.any();
        if senses {
            self.sensor.look(view);
        }
        if self.choose(view, actions) {
            // It is asked again at once, and sees the variants then.
            return;
        }
        self.dispatch.run(view, actions, &mut self.order);
        if senses {
            self.sensor.watch(view, actions);
        }
        self.tokens.set(view, &self.dispatch, actions);
    }
}

impl ContentAware {
    /// Switches the stages that wait. Whether any was switched.
    fn choose(&mut self, view: &View<'_>, actions: &mut Actions) -> bool {
        if !self.choices.any() || !view.ready().iter().any(|&stage| !self.choices.of(view, stage).is_empty()) {
            return false;
        }
        let slots: f64 = view.processors().map(|p| f64::from(view.system.platform.processors[p].slots)).sum();
        self.list(view, slots);
        self.upgrades.sort_unstable_by(|a, b| {
            b.gain.total_cmp(&a.gain).then(a.of.cmp(&b.of)).then(a.to.number.cmp(&b.to.number))
        });
        for &Upgrade { of, to, .. } in &self.upgrades {
            let (until, later) = self.waiting.split_at_mut(of + 1);
            let own = &mut until[of];
            let Some(chosen) = own.chosen.filter(|chosen| to.quality > chosen.quality) else { continue };
            let more = to.span - chosen.span;
            let share = (more / slots).max(0.0);
            if more <= own.spare && later.iter().all(|other| share <= other.spare) {
                own.chosen = Some(to);
                own.spare -= more;
                for other in later {
                    other.spare -= more / slots;
                }
            }
        }
        let before = actions.as_slice().len();
        for waiting in &self.waiting {
            if let Some(chosen) = waiting.chosen.filter(|chosen| chosen.number != view.stage(waiting.stage).variant) {
                actions.switch(waiting.stage, chosen.number);
            }
        }
        actions.as_slice().len() > before
    }

    /// Lists the stages that wait by due time, all in their lightest variants, and the variants that are better.
    fn list(&mut self, view: &View<'_>, slots: f64) {
        let now = view.now();
        self.waiting.clear();
        self.upgrades.clear();
        for &stage in view.ready() {
            let (due, serial) = (view.due(stage), view.stage(stage).serial);
            self.waiting.push(Waiting { due, serial, stage, spare: 0.0, chosen: None });
        }
        self.waiting.sort_unstable_by_key(|waiting| (waiting.due, waiting.serial));
        let running = view.processors().flat_map(|p| &view.occupancy(p).runs);
        let busy: f64 = running.map(|run| run.expected_end.saturating_sub(now).as_f64()).sum();
        // What runs, and what those that are due earlier take at least, spread over all slots.
        let mut before = busy / slots;
        for (of, waiting) in self.waiting.iter_mut().enumerate() {
            let stage = waiting.stage;
            let first = self.upgrades.len();
            for choice in self.choices.of(view, stage) {
                let span = self.sensor.shortest(view, |p| choice.span_until_due(view, stage, p));
                let quality = if self.content { choice.quality } else { choice.quality_of_all };
                let to = Chosen { number: choice.number, quality, span };
                // The better one of two that take as long.
                if waiting.chosen.is_none_or(|least| (span, -quality) < (least.span, -least.quality)) {
                    waiting.chosen = Some(to);
                }
                if choice.keeps_pace(view, stage) {
                    self.upgrades.push(Upgrade { gain: 0.0, of, to });
                }
            }
            let least = waiting.chosen.map_or_else(
                || {
                    let rests = self.times.of(view, stage);
                    self.sensor.shortest(view, |p| Some(until_due(view, stage, rests[p.index()]?)))
                },
                |least| least.span,
            );
            let least = if least.is_finite() { least } else { 0.0 };
            let slack = waiting.due.saturating_sub(now).as_f64();
            // What cannot be on time whatever it runs is nobody's reason to run something worse, and is to be out of the way soon.
            let late = slack < least;
            waiting.spare = if late || waiting.due == Nanos::MAX { f64::INFINITY } else { slack - before - least };
            before += least / slots;
            let lightest = waiting.chosen.filter(|_| !late);
            let mut kept = first;
            for i in first..self.upgrades.len() {
                let Upgrade { to, .. } = self.upgrades[i];
                if let Some(lightest) = lightest.filter(|least| to.quality > least.quality && to.span.is_finite()) {
                    let gain = (to.quality - lightest.quality) / (to.span - lightest.span).max(1.0);
                    self.upgrades[kept] = Upgrade { gain, of, to };
                    kept += 1;
                }
            }
            self.upgrades.truncate(kept);
        }
    }
}

/// Weight of the run that ended last in the mean of how much longer runs take.
const WEIGHT: f64 = 0.25;

/// How much longer runs take on each processor than by their profiles, as far as those that ended lately tell: others on the memory bus,
/// a slow clock, or a profile that is wrong.
#[derive(Clone, Debug)]
struct Sensor {
    slower: Vec<f64>,
    watched: Vec<Watched>,
}

/// A run whose end tells.
#[derive(Clone, Copy, Debug)]
struct Watched {
    stage: StageId,
    serial: u64,
    phase: u8,
    processor: ProcessorId,
    start: Nanos,
    nominal: Nanos,
}

impl Sensor {
    fn new(system: &System) -> Self {
        Self { slower: vec![1.0; system.platform.processors.len()], watched: Vec::new() }
    }

    /// Learns from the runs that have ended.
    fn look(&mut self, view: &View<'_>) {
        let slower = &mut self.slower;
        self.watched.retain(|run| {
            let live = view.state.stages.get(run.stage).filter(|live| live.serial == run.serial);
            if live.is_some_and(|live| live.running && live.phase == run.phase) {
                return true;
            }
            // What is ready again in the same phase was taken off.
            if live.is_none_or(|live| live.phase != run.phase) {
                let ratio = (view.now() - run.start).as_f64() / run.nominal.as_f64().max(1.0);
                let mean = &mut slower[run.processor.index()];
                *mean += WEIGHT * (ratio - *mean);
            }
            false
        });
    }

    /// Remembers what starts in this decision.
    fn watch(&mut self, view: &View<'_>, actions: &Actions) {
        for action in actions.as_slice() {
            let &Action::Start { stage, processor, limit: None, .. } = action else { continue };
            let live = view.stage(stage);
            let Some(rest) = view.remaining_in_phase(stage, processor).filter(|_| !live.kind.is_batched()) else {
                continue;
            };
            let nominal = rest.saturating_add(view.setup(stage, processor));
            let (serial, phase) = (live.serial, live.phase);
            self.watched.push(Watched { stage, serial, phase, processor, start: view.now(), nominal });
        }
    }

    /// The shortest of some times by processor, as long as they are to be expected [ns]; infinite without any.
    fn shortest(&self, view: &View<'_>, span: impl Fn(ProcessorId) -> Option<Nanos>) -> f64 {
        let expected = |p: ProcessorId| Some(span(p)?.as_f64() * self.slower[p.index()].max(1.0));
        view.processors().filter_map(expected).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::content::InContent;
    use onbeat_core::id::{NodeId, SourceId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    fn switch(stage: onbeat_core::id::StageId, variant: u8) -> Action {
        Action::Switch { stage, variant }
    }

    /// A stream whose frames take 6 ms, or 3 in a variant that is worse: by 0.02 where things are slow (class 0), by 0.1 where they are
    /// fast (class 1), by 0.04 over all.
    fn camera(rig: &mut Rig, name: &str, deadline: f64) -> SourceId {
        let camera = rig.stream(name, Some(deadline), &[Some(6.0)]);
        rig.variant(camera, &[Some(3.0)], 0.96);
        let node = NodeId(rig.system.sources[camera].nodes.start);
        let class = |worse: f64| InContent { work: 1.0, scores: Vec::new(), quality: vec![1.0, worse] };
        rig.system.nodes[node].in_content = vec![class(0.98), class(0.9)];
        camera
    }

    fn sees(rig: &mut Rig, stage: onbeat_core::id::StageId, class: u8) {
        let job = rig.state.stages[stage].job;
        rig.state.jobs[job].content = Some(class);
    }

    #[test]
    fn time_goes_where_the_content_gains_most() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let (lot, road) = (camera(&mut rig, "lot", 10.0), camera(&mut rig, "road", 10.0));
        let (slow, fast) = (rig.ready(lot, 0.0), rig.ready(road, 0.0));
        sees(&mut rig, slow, 0);
        sees(&mut rig, fast, 1);
        // 6 + 3 of 10 ms: one of them can run the better one.
        assert_eq!(rig.decide("content-aware"), [switch(slow, 1)]);
        assert_eq!(rig.decide("content-aware:content=false"), [switch(fast, 1)], "who comes first");
        rig.switch(slow, 1);
        assert_eq!(rig.decide("content-aware"), [start(slow, 0)], "nothing is left to switch");
    }

    #[test]
    fn everybody_runs_the_best_if_there_is_time_and_the_lightest_if_it_is_too_late() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let (lot, road) = (camera(&mut rig, "lot", 12.0), camera(&mut rig, "road", 12.0));
        let (slow, fast) = (rig.ready(lot, 0.0), rig.ready(road, 0.0));
        sees(&mut rig, slow, 0);
        sees(&mut rig, fast, 1);
        assert_eq!(rig.decide("content-aware"), [start(slow, 0)]);
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide("content-aware"), [switch(slow, 1), switch(fast, 1)]);
    }

    #[test]
    fn what_is_due_later_lends_no_more_than_its_spare_time() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let (lot, road) = (camera(&mut rig, "lot", 8.0), camera(&mut rig, "road", 10.0));
        let (fast, slow) = (rig.ready(lot, 0.0), rig.ready(road, 0.0));
        sees(&mut rig, fast, 1);
        sees(&mut rig, slow, 0);
        assert_eq!(rig.decide("content-aware"), [switch(slow, 1)], "6 + 3 ms: the later one is on time");
        let third = rig.ready(road, 0.0);
        sees(&mut rig, third, 0);
        // 6 + 3 + 3 would be too long for the last one: 3 + 3 + 3.
        assert_eq!(rig.decide("content-aware"), [switch(fast, 1), switch(slow, 1), switch(third, 1)]);
    }

    #[test]
    fn runs_that_take_longer_than_their_profile_leave_less_time() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let road = camera(&mut rig, "road", 10.0);
        let first = rig.ready(road, 0.0);
        sees(&mut rig, first, 1);
        let mut policy = rig.make("content-aware");
        assert_eq!(rig.decide_with(&mut policy), [start(first, 0)]);
        // It took 24 ms instead of 6: on average 1 + (4 - 1) / 4 times as long.
        rig.state.ready.clear();
        rig.state.stages.remove(first);
        rig.state.now = ms(24.0);
        let second = rig.ready(road, 24.0);
        sees(&mut rig, second, 1);
        let mut blind = rig.make("content-aware:contention=false");
        assert_eq!(rig.decide_with(&mut blind), [start(second, 0)]);
        assert_eq!(rig.decide_with(&mut policy), [switch(second, 1)], "10.5 ms are too long");
    }

    #[test]
    fn where_scores_are_unknown_the_order_of_the_file_decides() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let road = camera(&mut rig, "road", 10.0);
        let node = &mut rig.system.nodes[NodeId(rig.system.sources[road].nodes.start)];
        node.in_content.clear();
        node.quality = None;
        node.variants[0].quality = None;
        let first = rig.ready(road, 0.0);
        assert_eq!(rig.decide("content-aware"), [start(first, 0)]);
        let second = rig.ready(road, 0.0);
        assert_eq!(rig.decide("content-aware"), [switch(second, 1)], "6 + 3 ms");
    }

    #[test]
    fn without_variants_it_is_edf() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let late = rig.stream("late", Some(90.0), &[Some(40.0)]);
        let soon = rig.stream("soon", Some(20.0), &[Some(4.0)]);
        let running = rig.running(late, 0, 0.0);
        rig.ready(soon, 0.0);
        assert_eq!(rig.decide("content-aware"), [crate::test_rig::preempt(running)]);
        assert_eq!(rig.decide("content-aware:preemptive=false"), []);
    }
}
