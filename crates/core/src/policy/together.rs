//! What policies see of several processors on one stage; see [`crate::joint`].

use super::View;
use crate::cost::{Phase, PhaseCost, Work};
use crate::id::{ProcessorId, ProcessorSet, StageId};
use crate::joint::{Attention, Cycle, Draft, TOKEN_BYTES, Together, divided_ns};
use crate::state::Stage;
use crate::system::Processor;
use crate::units::Nanos;

impl<'a> View<'a> {
    /// The shortest nominal time in which the rest of a stage could be done by any means, in any of the variants that it may still run:
    /// on the processor that takes least for it; by all that can run it together, if the model can be divided; with every drafted token
    /// accepted, if it has a draft model; with attention in no time, if that can be divided.
    pub fn remaining_least(&self, stage: StageId) -> Nanos {
        self.remaining_least_of(stage, *self.stage(stage))
    }

    /// [`View::remaining_least`], if its output is the shortest and its execution time the least that it may turn out to have: a job that
    /// would be late even so is lost.
    pub fn remaining_shortest(&self, stage: StageId) -> Nanos {
        let (node, mut live) = (self.node(stage), *self.stage(stage));
        if let Some(output) = &node.output {
            live.work.output = live.work.output.min((output.smallest().round() as u32).max(live.tokens));
        }
        let variation = self.system.variation.smallest();
        let costs = self.variants(stage).flat_map(|variant| node.costs_of(variant).iter().flatten());
        let phases = costs.flat_map(|cost| cost.at_all_widths().flat_map(|(_, phases)| phases));
        let least = phases.map(|(_, cost)| cost.latency_factor(0.0, variation)).fold(1.0, f64::min);
        Nanos::from_ns_f64((self.remaining_least_of(stage, live).as_f64() * least).floor())
    }

    fn remaining_least_of(&self, stage: StageId, live: Stage) -> Nanos {
        if self.node(stage).tool.is_some() {
            return self.remaining_best(stage);
        }
        let of_variant = |variant: u8| {
            let model = live.in_variant(self.system, variant).model;
            let whole = self.processors().filter_map(move |p| self.remaining_least_on((stage, live), variant, p));
            if self.system.models[model].split.is_none() {
                return whole.min();
            }
            Some(Nanos::from_ns_f64(divided_ns(whole.map(Nanos::as_f64)).floor()))
        };
        let least = self.variants(stage).filter_map(of_variant).min().expect("every stage can run somewhere");
        let node = self.node(stage);
        if node.draft.is_none() && node.attention.is_none() {
            return least;
        }
        // The least of the helped processors' factors on all of it: help never makes anything else faster than that.
        let factor = self.processors().map(|p| node.decode_least(p)).fold(1.0, f64::min);
        Nanos::from_ns_f64((least.as_f64() * factor).floor())
    }

    /// [`View::remaining_as`] at the first exit that it may take, and at the best of the widths where the processor can be divided.
    fn remaining_least_on(
        &self,
        (stage, live): (StageId, Stage),
        variant: u8,
        processor: ProcessorId,
    ) -> Option<Nanos> {
        let mut live = live.in_variant(self.system, variant);
        let exits = self.node(stage).exits_of(variant);
        if !exits.is_empty() {
            live.work.exit = exits.least_after(self.passed(stage));
        }
        let widest = self.remaining_of(&live, processor)?;
        let cost = self.system.nodes[live.node].costs_of(variant)[processor].as_ref()?;
        if cost.widths.narrower.is_empty() {
            return Some(widest);
        }
        // Each phase can run on other units. Progress within a segment may count or not: a lower bound takes it off.
        let phases = usize::from(live.phase)..cost.phases.len();
        let least = |i: usize| {
            let from = if i == usize::from(live.phase) { live.position } else { 0.0 };
            let at_widths = cost.at_all_widths().filter_map(|(_, phases)| {
                let (kind, cost) = phases.get(i)?;
                Some(cost.latency_ns(live.work, from, live.work.units(*kind).max(from)))
            });
            at_widths.fold(f64::INFINITY, f64::min)
        };
        let rest: f64 = phases.map(least).sum();
        Some(Nanos::from_ns_f64((rest - live.partial_ns).max(0.0).floor()))
    }

    /// How far an inference is that may end early, what it has done within a segment included, as a share of all of it. Stages of other
    /// shapes pass no exit on their way: what a language model leaves out of its steps does not depend on how many it has done.
    pub fn passed(&self, stage: StageId) -> f64 {
        let live = self.stage(stage);
        if live.kind != Phase::Forward {
            return 0.0;
        }
        let cost = live.processor.filter(|_| live.partial_ns > 0.0).and_then(|p| self.cost(stage, p));
        let phase = cost.and_then(|cost| cost.on_units(live.units).get(usize::from(live.phase)));
        // An inference that may end early is taken for a whole one: where it ends is not known.
        let work = Work { exit: 1.0, ..live.work };
        let position =
            |cost: &PhaseCost| cost.position_after(work, live.position, work.units(live.kind), live.partial_ns);
        phase.map_or(live.position, |(_, cost)| position(cost))
    }

    /// Nominal time of the rest of a stage's phase on several processors, alone and by expected lengths, without
    /// [setup](View::setup_together). `None` if they cannot: in a real run, [real devices](View::can_work_together) cannot.
    ///
    /// * Divided, the ratio is taken once for the whole rest; solved for every segment, as in a run, it can only be better.
    /// * With a draft model, it is the mean time over the distribution of the acceptance.
    /// * Nobody shares the work on a stage whose cache is in slower memory, and nobody drafts or reads attention for a variant.
    pub fn remaining_together(&self, stage: StageId, processor: ProcessorId, together: Together) -> Option<Nanos> {
        let live = self.stage(stage);
        if live.cache.far || !self.can_work_together(together.others(processor).with(processor)) {
            return None;
        }
        let end = live.work.units(live.kind).max(live.position);
        let cost_on = |p| Some(&self.cost(stage, p)?.phases[usize::from(live.phase)].1);
        match together {
            Together::Split { helpers } => {
                let split = self.system.models[live.model].split?;
                let all = helpers.with(processor);
                if !all.iter().all(|p| cost_on(p).is_some()) {
                    return None;
                }
                let whole = all.iter().filter_map(cost_on).map(|cost| cost.latency_ns(live.work, live.position, end));
                let links = &self.system.platform.links;
                let waiting = split.waiting_ns(links, all, cost_on(processor)?, live.work, (live.position, end));
                Some(Nanos::from_ns_f64(divided_ns(whole) + waiting))
            }
            Together::Attention { helpers } => {
                let attention = self.attention(stage)?;
                let (all, cost, left) = (helpers.with(processor), cost_on(processor)?, end - live.position);
                if !attention.can_divide(all) {
                    return None;
                }
                // Contexts grow by one per step: those in the middle are the mean.
                let tokens = (f64::from(live.work.prompt) + 1.0 + live.position + (left - 1.0) / 2.0) * left;
                let whole = cost.latency_ns(live.work, live.position, end);
                let (saved, _) = attention.divided_ns(processor, helpers, tokens.max(0.0), whole);
                let links = &self.system.platform.links;
                let waiting = attention.split.waiting_ns(links, all, cost, live.work, (live.position, end));
                Some(Nanos::from_ns_f64(whole - saved + waiting))
            }
            Together::Draft { processor: drafter, tokens } => {
                let cycle = self.cycle(stage, processor, drafter, tokens)?;
                let left = end - live.position;
                if left <= 0.0 {
                    return Some(Nanos::ZERO);
                }
                let cycles = left / self.draft(stage)?.tokens_per_cycle(tokens);
                // Steps grow with the context: those in the middle are the mean.
                let middle = live.position + (left / 2.0).floor();
                Some(Nanos::from_ns_f64(cycles * cycle.time_ns(live.work, middle)))
            }
        }
    }

    /// The draft model of a stage: in decode, in its default variant.
    pub fn draft(&self, stage: StageId) -> Option<&'a Draft> {
        let live = self.stage(stage);
        self.node(stage).draft.as_ref().filter(|_| live.kind == Phase::Decode && live.variant == 0)
    }

    /// How the attention of a stage can be divided: in decode, in its default variant.
    pub fn attention(&self, stage: StageId) -> Option<&'a Attention> {
        let live = self.stage(stage);
        self.node(stage).attention.as_ref().filter(|_| live.kind == Phase::Decode && live.variant == 0)
    }

    /// Whether these processors can work on one stage at the same time, as far as they go: in a real run only virtual devices can,
    /// because no backend shares a stage with another one.
    pub fn can_work_together(&self, set: ProcessorSet) -> bool {
        let processors = &self.system.platform.processors;
        !self.state.real || !set.iter().any(|p| processors.get(p).is_some_and(Processor::runs_models))
    }

    /// What a cycle of drafting and verifying is made of; `None` if the stage has no [draft model](View::draft) now, its cache is in
    /// slower memory, or one of the processors cannot do its part, as [real devices](View::can_work_together) cannot in a real run.
    pub fn cycle(
        &self,
        stage: StageId,
        processor: ProcessorId,
        drafter: ProcessorId,
        tokens: u32,
    ) -> Option<Cycle<'a>> {
        let live = self.stage(stage);
        let pair = ProcessorSet::of(processor).with(drafter);
        let draft = self.draft(stage).filter(|_| !live.cache.far && self.can_work_together(pair))?;
        let links = &self.system.platform.links;
        let bytes = f64::from(tokens) * TOKEN_BYTES;
        let way = |a: ProcessorId, b: ProcessorId| if a == b { 0.0 } else { links[a][b].time(bytes).as_f64() };
        Some(Cycle {
            target: (processor, &self.cost(stage, processor)?.phases[usize::from(live.phase)].1),
            drafter: (drafter, draft.step(drafter)?),
            tokens,
            verify: draft.verify_factor(processor, tokens)?,
            handover_ns: way(drafter, processor) + way(processor, drafter),
        })
    }

    /// What precedes progress if a stage starts on several processors now: they prepare side by side, and all wait for the slowest. A
    /// draft model reads what it has not seen yet of the context first.
    pub fn setup_together(&self, stage: StageId, processor: ProcessorId, together: Together) -> Nanos {
        let live = self.stage(stage);
        // Each is taken as a whole: one that is divided into smaller parts is cut anew.
        let whole = |p: ProcessorId| self.system.platform.processors[p].division;
        let setup_on = |p: ProcessorId| self.setup_of(live, p, whole(p).map(|division| division.units));
        let cut = |p: ProcessorId| match whole(p) {
            Some(division) if !self.occupancy(p).has_part(division.units) => division.repartition,
            _ => Nanos::ZERO,
        };
        let own = setup_on(processor);
        match together {
            // Who reads a part of the cache needs nothing else of the model.
            Together::Attention { helpers } => helpers.iter().map(cut).fold(own, Nanos::max),
            Together::Split { helpers } => helpers.iter().map(setup_on).fold(own, Nanos::max),
            Together::Draft { processor: drafter, .. } => {
                let Some(draft) = &self.node(stage).draft else { return own };
                let read = live.drafted.map_or(0, |(at, read)| if at == drafter { read } else { 0 });
                let context = live.work.prompt.saturating_add(live.tokens);
                let mut setup = Nanos::from_ns_f64(draft.catch_up_ns(drafter, read, context));
                if !self.state.memory.is_resident(draft.model, drafter)
                    && let Some(cost) = &draft.costs[drafter]
                {
                    setup += Nanos(cost.load_ns);
                }
                if drafter == processor {
                    return own + setup;
                }
                let occupancy = self.occupancy(drafter);
                let before = whole(drafter)
                    .map_or(occupancy.last_model, |division| occupancy.model_before(division.units, draft.model));
                if before.is_some_and(|last| last != draft.model) {
                    setup += self.system.platform.processors[drafter].switch_cost;
                }
                setup += cut(drafter);
                own.max(setup)
            }
        }
    }
}
