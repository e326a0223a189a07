//! `bandwidth-aware`: earliest due first, but nothing starts that would make more urgent work late by taking its memory bandwidth.

use onbeat_core::bus::Demand;
use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ProcessorId, StageId};
use onbeat_core::policy::{Action, Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::bus::{self, Rates};
use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::{STEP_MIN, TokenAlarm};
use crate::parameters::Parameters;
use crate::plan::Plan;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::{Rest, Times, rest_of_running, until_due};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "bandwidth-aware",
    summary: "Earliest due first; work on any processor is held back where it would make more urgent work late over the memory bus",
    group: "contention",
    parameters: &[ParameterInfo {
        name: "margin_ms",
        default: "1",
        meaning: "work counts as late when it is expected to be done less than this before it is due [ms], 0 to 3600000",
    }],
    reference: "the idea of Agent.xpu (arXiv 2506.24045, 2025) and HeRo (arXiv 2603.01661, 2026), which dispatch with an eye to memory bandwidth; the rule is ours",
    build,
};

/// Earliest due first, with joint admission over the memory bus.
#[derive(Clone, Debug)]
struct BandwidthAware {
    order: Admission,
    dispatch: Dispatch,
    tokens: TokenAlarm,
    alarm: Alarm,
}

/// By due time, where the bus allows it.
#[derive(Clone, Debug)]
struct Admission {
    margin: Nanos,
    times: Times,
    /// What runs, with what this decision starts.
    loads: Vec<Load>,
    /// How fast the loads get on, relative to alone.
    rates: Rates,
    /// The same with one more or one fewer.
    changed: Rates,
    /// The stage that was looked at last, if it was held back.
    held: Option<StageId>,
    /// The shortest step of an answer that somebody is held back for where [`TokenAlarm`] does not look.
    look_again: Option<Nanos>,
}

/// Work that runs or starts.
#[derive(Clone, Copy, Debug)]
struct Load {
    stage: StageId,
    processor: ProcessorId,
    due: Nanos,
    /// Nominal time until its phase is done [ns].
    left_ns: f64,
    /// And of the phases after it that are due with it.
    after_ns: f64,
    /// Of an answer whose next token is due.
    pace: Option<Pace>,
    demand: Demand,
    /// Whether its end was asked for.
    ending: bool,
}

/// How an answer stands with its goal for the time per token.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Nominal time per token [ns].
    step_ns: f64,
    /// That goal [ns].
    goal_ns: f64,
    /// How far ahead of the goal it is [ns], if the token under way has just begun.
    ahead_ns: f64,
    /// Nominal time until it is done [ns].
    left_ns: f64,
}

impl Pace {
    /// That of a stage which decodes on a processor, in a batch of so many; `None` if no token is due next.
    fn of(view: &View<'_>, stage: StageId, processor: ProcessorId, members: usize) -> Option<Self> {
        let live = view.stage(stage);
        let goal = view.source(stage).tpot?.as_f64().max(1.0);
        if live.kind != Phase::Decode || !view.token_is_due(stage) {
            return None;
        }
        let (_, cost) = view.cost(stage, processor)?.phases.get(usize::from(live.phase))?;
        let slower = cost.batch_factor(u32::try_from(members).unwrap_or(u32::MAX));
        let left_ns = view.remaining_in_phase(stage, processor)?.as_f64() * slower;
        let tokens = (live.work.units(Phase::Decode) - live.position).max(1.0);
        let until_due = view.due(stage).as_f64() - view.now().as_f64();
        Some(Self { step_ns: left_ns / tokens, goal_ns: goal, ahead_ns: until_due - goal, left_ns })
    }

    /// Whether it falls back at a rate so far that it is less than a margin ahead after some time [ns].
    fn is_lost(self, rate: f64, ns: f64, margin: Nanos) -> bool {
        let loses = 1.0 - rate * self.goal_ns / self.step_ns;
        loses > 0.0 && self.ahead_ns - loses * ns < margin.as_f64()
    }
}

fn build(parameters: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let order = Admission {
        margin: parameters.milliseconds("margin_ms")?,
        times: Times::default(),
        loads: Vec::new(),
        rates: Rates::default(),
        changed: Rates::default(),
        held: None,
        look_again: None,
    };
    Ok(Box::new(BandwidthAware {
        order,
        dispatch: Dispatch::default(),
        tokens: TokenAlarm::default(),
        alarm: Alarm::default(),
    }))
}

impl Policy for BandwidthAware {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.list(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
        if let Some(step) = self.order.look_again {
            self.alarm.set(view.now(), view.now().saturating_add(step.max(STEP_MIN)), actions);
        }
        self.order.make_way(view, actions);
    }
}

impl Admission {
    /// Lists what runs.
    fn list(&mut self, view: &View<'_>) {
        self.loads.clear();
        self.look_again = None;
        for processor in view.processors() {
            for run in &view.occupancy(processor).runs {
                // A batch is judged by the member that is due first.
                let first = run.stages().min_by_key(|&stage| view.due(stage)).expect("a run serves at least one stage");
                let rest = rest_of_running(view, first, processor, run);
                let pace = Pace::of(view, first, processor, 1 + run.others.len());
                self.loads.push(Load {
                    stage: run.stage,
                    processor,
                    due: view.due(first),
                    // What is left of an answer is known by its tokens.
                    left_ns: pace.map_or(rest.phase.as_f64(), |pace| pace.left_ns),
                    after_ns: after_ns(view, first, rest),
                    pace,
                    demand: bus::demand(view, run.stage, processor),
                    ending: run.ending,
                });
            }
        }
        self.find_rates(view);
    }

    fn find_rates(&mut self, view: &View<'_>) {
        if let Some(bus) = bus::bandwidth(view) {
            self.rates.find(view, bus, self.loads.iter().map(|load| (load.processor, load.demand)));
        }
    }

    /// Whether work is late that runs at the rate `slower` beside other work, which ends after `other_ns`, and at `rate` after it: done
    /// after it is due, or, of an answer, behind its goal for the time per token.
    fn late(&self, view: &View<'_>, load: &Load, slower: f64, rate: f64, other_ns: f64) -> bool {
        if let Some(pace) = load.pace {
            return pace.is_lost(slower, other_ns.min(load.left_ns / slower), self.margin);
        }
        let done = done_beside(load.left_ns, slower, rate, other_ns) + load.after_ns;
        load.due != Nanos::MAX && view.now().as_f64() + done > load.due.saturating_sub(self.margin).as_f64()
    }

    /// The same at one rate throughout.
    fn late_at(&self, view: &View<'_>, load: &Load, rate: f64) -> bool {
        self.late(view, load, rate, rate, f64::INFINITY)
    }

    /// When a stage would be done on a processor beside what runs [ns from now]; `None` if that would make more urgent work late that is
    /// on time without it.
    fn admit(&mut self, view: &View<'_>, bus: f64, load: &Load, setup_ns: f64) -> Option<f64> {
        let runs = self.loads.iter().chain([load]).map(|load| (load.processor, load.demand));
        self.changed.find(view, bus, runs);
        let own = setup_ns + load.left_ns / self.changed.of.last().copied().unwrap_or(1.0);
        for (other, (&rate, &slower)) in self.loads.iter().zip(self.rates.of.iter().zip(&self.changed.of)) {
            if other.due >= load.due || slower >= rate {
                continue;
            }
            if self.late(view, other, slower, rate, own) && !self.late_at(view, other, rate) {
                if let Some(pace) = other.pace
                    && load.due != Nanos::MAX
                    && !view.preemptible(other.processor)
                {
                    // With every token the answer may have gained time for it.
                    let step = Nanos::from_ns_f64(pace.step_ns);
                    self.look_again = Some(self.look_again.map_or(step, |known| known.min(step)));
                }
                return None;
            }
        }
        Some(own)
    }

    /// Ends work that makes more urgent work late by taking its bandwidth, if that one can then be on time: the work that asks for most.
    /// The estimate is that of [`Self::admit`], so that the work is not admitted again at once.
    fn make_way(&mut self, view: &View<'_>, actions: &mut Actions) {
        let Some(bus) = bus::bandwidth(view) else { return };
        for urgent in 0..self.loads.len() {
            let load = self.loads[urgent];
            let (rate, due) = (self.rates.of[urgent], load.due);
            if rate >= 1.0 || !self.late_at(view, &load, rate) {
                continue;
            }
            let hog = (0..self.loads.len())
                .filter(|&i| {
                    let load = &self.loads[i];
                    let running =
                        view.stage(load.stage).running && !load.ending && !makes_way(view, actions, load.stage);
                    load.due > due && running && view.preemptible(load.processor) && load.demand.memory_bound > 0.0
                })
                .max_by(|&a, &b| self.traffic(a).total_cmp(&self.traffic(b)));
            let Some(hog) = hog else { continue };
            let others = self.loads.iter().enumerate().filter(|&(i, _)| i != hog);
            self.changed.find(view, bus, others.map(|(_, load)| (load.processor, load.demand)));
            let freed = self.changed.of[urgent - usize::from(hog < urgent)];
            let hog_ns = self.loads[hog].left_ns / self.rates.of[hog];
            if self.late(view, &load, rate, freed, hog_ns) && !self.late_at(view, &load, freed) {
                actions.preempt(self.loads[hog].stage);
                return;
            }
        }
    }

    fn traffic(&self, load: usize) -> f64 {
        self.loads[load].demand.memory_bound * self.loads[load].demand.peak
    }
}

/// What has to be done after a stage's phase by the time at which it is due [ns].
fn after_ns(view: &View<'_>, stage: StageId, rest: Rest) -> f64 {
    until_due(view, stage, rest).saturating_sub(rest.phase).as_f64()
}

/// Whether the run that serves a stage was taken off its processor earlier in this decision, perhaps for another stage of its batch.
fn makes_way(view: &View<'_>, actions: &Actions, stage: StageId) -> bool {
    let run_of = |stage: StageId| {
        let on = view.stage(stage).processor?;
        view.occupancy(on).runs.iter().find(|run| run.stages().any(|other| other == stage)).map(|run| run.serial)
    };
    let preempted =
        |action: &Action| matches!(*action, Action::Preempt { stage: other } if run_of(other) == run_of(stage));
    actions.as_slice().iter().any(preempted)
}

/// When work of so much time alone is done [ns from now] that runs at the rate `slower` beside other work, which ends after `other_ns`, and
/// at `rate` after it.
fn done_beside(left_ns: f64, slower: f64, rate: f64, other_ns: f64) -> f64 {
    let beside = left_ns / slower;
    if beside <= other_ns { beside } else { other_ns + (left_ns - other_ns * slower) / rate }
}

impl Order for Admission {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        view.due(stage).0
    }

    fn place(&mut self, view: &View<'_>, plan: &Plan, stage: StageId) -> Option<ProcessorId> {
        self.held = None;
        let Some(bus) = bus::bandwidth(view) else { return plan.fastest(view, stage) };
        let mut best: Option<(f64, Load)> = None;
        for processor in view.processors().filter(|&p| plan.fits(view, stage, p)) {
            let Some(rest) = self.times.of(view, stage)[processor.index()] else { continue };
            let load = Load {
                stage,
                processor,
                due: view.due(stage),
                left_ns: rest.phase.as_f64(),
                after_ns: after_ns(view, stage, rest),
                pace: Pace::of(view, stage, processor, 1),
                demand: bus::demand(view, stage, processor),
                ending: false,
            };
            self.held = Some(stage);
            let Some(own) = self.admit(view, bus, &load, view.setup(stage, processor).as_f64()) else { continue };
            let done = own + rest.stage.saturating_sub(rest.phase).as_f64();
            if best.is_none_or(|(least, _)| done < least) {
                best = Some((done, load));
            }
        }
        let (_, load) = best?;
        self.held = None;
        self.loads.push(load);
        self.find_rates(view);
        Some(load.processor)
    }

    /// A stage that waits for bandwidth does not need a slot.
    fn claims(&self, _: &View<'_>, stage: StageId) -> bool {
        self.held != Some(stage)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::cost::PhaseCost;
    use onbeat_core::id::{NodeId, SourceId, StageId};
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, preempt, start};

    /// GPU and NPU on a bus of 100 GB/s.
    fn rig(preemption: Preemption) -> Rig {
        let mut rig = Rig::new(&[("gpu", preemption), ("npu", preemption)]);
        rig.system.platform.bandwidth = Some(100.0);
        rig.system.contention = true;
        rig
    }

    /// Lets a stream's model move so much, on every processor.
    fn moves(rig: &mut Rig, source: SourceId, megabytes: f64) {
        let node = NodeId(rig.system.sources[source].nodes.start);
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            if let PhaseCost::Fixed { bytes, .. } = &mut cost.phases[0].1 {
                *bytes = megabytes * 1e6;
            }
        }
    }

    #[test]
    fn a_second_hog_waits_while_a_deadline_is_near_and_light_work_does_not() {
        for (due, together) in [(10.0, false), (20.0, true)] {
            let mut rig = rig(Preemption::Segment);
            let urgent = rig.stream("urgent", Some(due), &[None, Some(8.0)]);
            let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
            let light = rig.stream("light", Some(80.0), &[Some(8.0), None]);
            moves(&mut rig, urgent, 800.0);
            moves(&mut rig, bulk, 800.0);
            rig.running(urgent, 1, 0.0);
            let hog = rig.ready(bulk, 0.0);
            // Side by side the urgent one takes 16 ms.
            assert_eq!(rig.decide("bandwidth-aware"), Vec::from_iter(together.then(|| start(hog, 0))), "due at {due}");
            let light = rig.ready(light, 0.0);
            assert_eq!(
                rig.decide("bandwidth-aware"),
                [start(light, 0)],
                "it takes no bandwidth, and is due before the hog"
            );
            assert_eq!(rig.decide("edf"), [start(light, 0)]);
        }
    }

    #[test]
    fn a_hog_makes_way_for_urgent_work_that_comes_later() {
        let mut rig = rig(Preemption::Anytime);
        let urgent = rig.stream("urgent", Some(10.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(40.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 4000.0);
        let hog = rig.running(bulk, 0, 0.0);
        rig.state.now = ms(1.0);
        let frame = rig.ready(urgent, 1.0);
        assert_eq!(rig.decide("bandwidth-aware"), [start(frame, 1), preempt(hog)]);
        rig.stop(hog);
        rig.state.ready.retain(|&stage| stage != frame);
        rig.start_again(frame, 1, 1.0);
        assert_eq!(rig.decide("bandwidth-aware"), [], "held back until the frame is done");
    }

    #[test]
    fn a_hog_that_is_nearly_done_need_not_make_way() {
        let mut rig = rig(Preemption::Anytime);
        let urgent = rig.stream("urgent", Some(14.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(2.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 200.0);
        rig.running(bulk, 0, 0.0);
        let frame = rig.ready(urgent, 0.0);
        // Beside the hog until 4 ms, then alone: done at 10 ms, not at 16.
        assert_eq!(rig.decide("bandwidth-aware"), [start(frame, 1)]);
    }

    #[test]
    fn what_is_late_anyway_holds_nobody_back() {
        let mut rig = rig(Preemption::Segment);
        let urgent = rig.stream("urgent", Some(7.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 800.0);
        rig.running(urgent, 1, 0.0);
        let hog = rig.ready(bulk, 0.0);
        assert_eq!(rig.decide("bandwidth-aware"), [start(hog, 0)]);
    }

    /// A chat that decodes on the GPU, 10 ms and 900 MB a token, with a goal per token; it has `tokens` of its 101.
    fn decoding(rig: &mut Rig, goal: f64, tokens: u32) -> StageId {
        let chat = rig.session("chat", &[10.0, 10.0], 1);
        rig.system.sources[chat].tpot = Some(ms(goal));
        let node = NodeId(rig.system.sources[chat].nodes.start);
        for cost in rig.system.nodes[node].costs.iter_mut().flatten() {
            if let PhaseCost::Decode { bytes_per_step, .. } = &mut cost.phases[1].1 {
                *bytes_per_step = 900e6;
            }
        }
        let stage = rig.running_decode(chat, 0, 0.0);
        rig.state.stages[stage].tokens = tokens;
        rig.state.stages[stage].position = f64::from(tokens - 1);
        stage
    }

    #[test]
    fn an_answer_is_protected_where_it_would_fall_behind_its_goal_per_token() {
        // Beside the hog a token takes 19 ms.
        for (goal, tokens, length, together) in [
            (12.0, 1, 90.0, false),
            (20.0, 1, 90.0, true),
            // It could not keep 9 ms alone either.
            (9.0, 1, 90.0, true),
            // After 51 tokens in 500 ms it is 100 ms ahead; beside the hog it loses 0.37 ms per ms.
            (12.0, 51, 90.0, true),
            (12.0, 51, 150.0, false),
        ] {
            let mut rig = rig(Preemption::Never);
            let chat = decoding(&mut rig, goal, tokens);
            let bulk = rig.stream("bulk", Some(4000.0), &[None, Some(length)]);
            moves(&mut rig, bulk, 90.0 * length);
            rig.state.now = ms(f64::from(tokens - 1) * 10.0);
            let hog = rig.ready(bulk, rig.state.now.as_ms());
            let actions = rig.decide("bandwidth-aware");
            let expected = if together { start(hog, 1) } else { Action::Wake { at: rig.state.now + ms(10.0) } };
            assert_eq!(actions, [expected], "goal {goal}, {tokens} tokens, {length} ms");
            assert!(rig.state.stages[chat].running);
        }
    }

    #[test]
    fn a_hog_makes_way_for_an_answer_that_would_fall_behind() {
        for (goal, way) in [(12.0, true), (20.0, false), (9.0, false)] {
            let mut rig = rig(Preemption::Segment);
            let bulk = rig.stream("bulk", Some(4000.0), &[None, Some(900.0)]);
            moves(&mut rig, bulk, 80_000.0);
            let hog = rig.running(bulk, 1, 0.0);
            decoding(&mut rig, goal, 1);
            assert_eq!(rig.decide("bandwidth-aware"), Vec::from_iter(way.then(|| preempt(hog))), "{goal}");
        }
    }

    #[test]
    fn without_contention_it_is_edf() {
        let mut rig = rig(Preemption::Segment);
        rig.system.contention = false;
        let urgent = rig.stream("urgent", Some(10.0), &[None, Some(8.0)]);
        let bulk = rig.stream("bulk", Some(90.0), &[Some(8.0), None]);
        moves(&mut rig, urgent, 800.0);
        moves(&mut rig, bulk, 800.0);
        let (urgent, bulk) = (rig.ready(urgent, 0.0), rig.ready(bulk, 0.0));
        assert_eq!(rig.decide("bandwidth-aware"), [start(urgent, 1), start(bulk, 0)]);
        assert_eq!(rig.decide("bandwidth-aware"), rig.decide("edf"));
    }
}
