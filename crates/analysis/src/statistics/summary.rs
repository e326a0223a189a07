//! From counts to metrics.

use onbeat_core::id::ProcessorId;
use onbeat_core::metric::{Metric, Values};
use onbeat_core::power::OperatingPoint;
use onbeat_core::summary::{ProcessorSummary, SourceSummary, Summary, VariantShare};
use onbeat_core::system::{Node, Source, System};
use onbeat_core::units::{Millijoules, Nanos};

use super::actions::Robot;
use super::processors::{KINDS, Lane, Lanes};
use super::samples::Samples;
use super::sources::{Caches, Tallies, Tally};

/// All metrics of a run that was observed up to `end`.
pub(super) fn summarise(
    system: &System,
    seed: u64,
    policy: String,
    end: Nanos,
    lanes: &Lanes<'_>,
    tallies: &Tallies<'_>,
) -> Summary {
    let measured = end.saturating_sub(system.warm_up);
    let sources: Vec<SourceSummary> = system
        .sources
        .enumerate()
        .map(|(id, source)| source_summary(system, source, &tallies.by_source[id], measured))
        .collect();
    let processors: Vec<ProcessorSummary> =
        system.platform.processors.ids().map(|id| processor_summary(system, id, lanes, measured)).collect();
    let mut run = Values::new();
    run_of_sources(&mut run, system, tallies, &sources, measured);
    run_of_processors(&mut run, system, lanes, &processors, measured);
    let alone: f64 = lanes.alone_by_kind.iter().sum();
    Summary {
        scenario: system.scenario.clone(),
        platform: system.platform.name.clone(),
        policy,
        seed,
        measured_s: measured.as_secs(),
        run,
        sources,
        processors,
        bus_traffic: lanes.bus.rates(),
        provenance: KINDS
            .into_iter()
            .zip(lanes.alone_by_kind)
            .filter(|&(_, ns)| ns > 0.0)
            .map(|(kind, ns)| (kind, ns / alone))
            .collect(),
    }
}

/// Sets a metric that applies.
fn set(values: &mut Values, metric: Metric, value: impl Into<Option<f64>>) {
    if let Some(value) = value.into() {
        values.insert(metric, value);
    }
}

/// `part / whole`, if there is a whole.
fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Counts over one source or many.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    jobs: u64,
    done: u64,
    dropped: u64,
    unfinished: u64,
    judged: u64,
    violations: u64,
}

impl Counts {
    fn of<'t>(tallies: impl IntoIterator<Item = &'t Tally>) -> Self {
        tallies.into_iter().fold(Self::default(), |sum, tally| Self {
            jobs: sum.jobs + tally.jobs,
            done: sum.done + tally.done,
            dropped: sum.dropped + tally.dropped,
            unfinished: sum.unfinished + tally.unfinished,
            judged: sum.judged + tally.judged,
            violations: sum.violations + tally.violations,
        })
    }

    fn met(self) -> f64 {
        (self.judged - self.violations) as f64
    }

    fn put(self, values: &mut Values) {
        set(values, Metric::Jobs, self.jobs as f64);
        set(values, Metric::Done, self.done as f64);
        set(values, Metric::Dropped, self.dropped as f64);
        set(values, Metric::Unfinished, self.unfinished as f64);
        set(values, Metric::Judged, self.judged as f64);
        set(values, Metric::Violations, self.violations as f64);
        set(values, Metric::ViolationRate, ratio(self.violations as f64, self.judged as f64));
        set(values, Metric::DropRate, ratio(self.dropped as f64, self.jobs as f64));
    }
}

fn put_times(values: &mut Values, response: &Samples, tardiness: &Samples, ttft: &Samples, tpot: &Samples) {
    use Metric::{
        ResponseMax, ResponseMean, ResponseP50, ResponseP95, ResponseP99, TardinessMax, TardinessMean, TardinessP99,
        TpotMean, TpotP95, TtftMax, TtftMean, TtftP50, TtftP95,
    };
    let mut put = |samples: &Samples, mean: Metric, max: Option<Metric>, percentiles: &[(Metric, u64)]| {
        if samples.is_empty() {
            return;
        }
        values.insert(mean, samples.mean_ms());
        if let Some(max) = max {
            values.insert(max, samples.max_ms());
        }
        let per_mille: Vec<u64> = percentiles.iter().map(|&(_, p)| p).collect();
        for (&(metric, _), value) in percentiles.iter().zip(samples.percentiles_ms(&per_mille)) {
            values.insert(metric, value);
        }
    };
    put(response, ResponseMean, Some(ResponseMax), &[(ResponseP50, 500), (ResponseP95, 950), (ResponseP99, 990)]);
    put(tardiness, TardinessMean, Some(TardinessMax), &[(TardinessP99, 990)]);
    put(ttft, TtftMean, Some(TtftMax), &[(TtftP50, 500), (TtftP95, 950)]);
    put(tpot, TpotMean, None, &[(TpotP95, 950)]);
}

fn has_goals(source: &Source) -> bool {
    source.ttft.is_some() || source.tpot.is_some()
}

fn source_summary(system: &System, source: &Source, tally: &Tally, measured: Nanos) -> SourceSummary {
    let mut values = Values::new();
    let counts = Counts::of([tally]);
    counts.put(&mut values);
    put_times(&mut values, &tally.response, &tally.tardiness, &tally.ttft, &tally.tpot);
    set(&mut values, Metric::CompletionJitter, tally.response.deviation_ms());
    if has_language_model(system, source) {
        set(&mut values, Metric::Tokens, tally.tokens as f64);
        set(&mut values, Metric::Tps, ratio(tally.tokens as f64, measured.as_secs()));
    }
    if source.session && has_goals(source) {
        set(&mut values, Metric::SloAttainment, ratio(counts.met(), counts.judged as f64));
    }
    if tally.required {
        set(&mut values, Metric::Goodput, ratio(counts.met(), measured.as_secs()));
    }
    put_quality(&mut values, system, [(source, tally)]);
    if source.best_effort {
        set(&mut values, Metric::Throughput, ratio(tally.done as f64, measured.as_secs()));
        set(&mut values, Metric::Work, tally.work_ns / 1e6);
    }
    if let Some(robot) = &tally.robot {
        put_reaction(&mut values, robot);
    }
    put_caches(&mut values, [tally]);
    SourceSummary {
        name: source.name.clone(),
        session: source.session,
        deadline_ms: source.deadline.map(Nanos::as_ms),
        ttft_goal_ms: source.ttft.map(Nanos::as_ms),
        tpot_goal_ms: source.tpot.map(Nanos::as_ms),
        values,
        variants: variant_shares(system, (source, tally)),
        response_ecdf: tally.response.ecdf(),
        ttft_ecdf: tally.ttft.ecdf(),
    }
}

/// What eviction of caches has cost, if any was evicted.
fn put_caches<'t>(values: &mut Values, tallies: impl IntoIterator<Item = &'t Tally>) {
    let all = tallies.into_iter().filter_map(|tally| tally.caches);
    let Some(caches) = all.reduce(Caches::and) else { return };
    values.insert(Metric::Recomputed, caches.recomputed as f64);
    values.insert(Metric::SwappedOut, caches.out.as_mb());
    values.insert(Metric::SwappedIn, caches.back.as_mb());
    values.insert(Metric::SwapTime, caches.took.as_ms());
}

fn put_reaction(values: &mut Values, robot: &Robot) {
    set(values, Metric::Starvation, ratio(robot.starved as f64, robot.due as f64));
    if !robot.reaction.is_empty() {
        values.insert(Metric::ReactionMean, robot.reaction.mean_ms());
        values.insert(Metric::ReactionMax, robot.reaction.max_ms());
        values.extend(robot.reaction.percentiles_ms(&[950]).into_iter().map(|value| (Metric::ReactionP95, value)));
    }
}

fn has_language_model(system: &System, source: &Source) -> bool {
    use onbeat_core::spec::ModelShape;
    let nodes = &system.nodes.as_slice()[source.nodes.start as usize..source.nodes.end as usize];
    nodes.iter().any(|node| system.models[node.model].shape == ModelShape::Autoregressive)
}

/// Completions of a stage in one of its variants, on inputs of one class.
#[derive(Clone, Copy)]
struct Completed<'t> {
    node: &'t Node,
    variant: u8,
    /// What the jobs saw.
    content: Option<u8>,
    count: u64,
}

impl<'t> Completed<'t> {
    /// The variant's score on such inputs, by name.
    fn score(&self, system: &'t System) -> Option<(&'t String, f64)> {
        let (name, value) = system.models[self.node.model_of(self.variant)].quality.as_ref()?;
        let in_content =
            self.node.in_content(self.content).and_then(|class| class.scores.get(usize::from(self.variant)));
        Some((name, in_content.copied().unwrap_or(*value)))
    }

    /// Its quality relative to the best variant.
    fn relative(&self) -> Option<f64> {
        self.node.quality_in(self.variant, self.content)
    }
}

/// Completions of a source's stages by what they saw and the variant that they ran.
fn completed<'t>(system: &'t System, (source, tally): (&'t Source, &'t Tally)) -> impl Iterator<Item = Completed<'t>> {
    source.nodes.clone().zip(&tally.stages).flat_map(move |(node, stage)| {
        let node = &system.nodes.as_slice()[node as usize];
        (0_u8..).zip(&stage.by_variant).flat_map(move |(class, of_class)| {
            let content = (!node.in_content.is_empty()).then_some(class);
            let of_variants = node.variant_numbers().zip(of_class);
            of_variants.map(move |(variant, &count)| Completed { node, variant, content, count })
        })
    })
}

/// Mean published quality over stage completions; `None` where there is none, where scores of different names would be mixed, or where
/// a stage also ran variants without one.
fn quality<'t>(system: &'t System, of: impl IntoIterator<Item = (&'t Source, &'t Tally)>) -> Option<f64> {
    let (mut sum, mut count, mut name) = (0.0, 0_u64, None);
    let all = of.into_iter().flat_map(|one| completed(system, one));
    for one in all.filter(|one| one.count > 0) {
        let Some((score, value)) = one.score(system) else {
            let scored = |variant: u8| system.models[one.node.model_of(variant)].quality.is_some();
            if one.node.variant_numbers().any(scored) {
                return None;
            }
            continue;
        };
        if name.is_some_and(|name| name != score) {
            return None;
        }
        name = Some(score);
        sum += value * one.count as f64;
        count += one.count;
    }
    ratio(sum, count as f64)
}

/// Over completions of stages that have a choice: mean quality relative to the best variant, `None` where that is unknown of one that
/// ran; and the share of other variants than the default one.
fn choices<'t>(
    system: &'t System,
    of: impl IntoIterator<Item = (&'t Source, &'t Tally)>,
) -> (Option<f64>, Option<f64>) {
    let (mut sum, mut others, mut count) = (Some(0.0), 0, 0);
    let all = of.into_iter().flat_map(|one| completed(system, one));
    for one in all.filter(|one| one.count > 0 && !one.node.variants.is_empty()) {
        sum = sum.zip(one.relative()).map(|(sum, quality)| sum + quality * one.count as f64);
        others += if one.variant == 0 { 0 } else { one.count };
        count += one.count;
    }
    (sum.and_then(|sum| ratio(sum, count as f64)), ratio(others as f64, count as f64))
}

fn put_quality<'t>(
    values: &mut Values,
    system: &'t System,
    of: impl IntoIterator<Item = (&'t Source, &'t Tally)> + Clone,
) {
    set(values, Metric::Quality, quality(system, of.clone()));
    let (relative, degraded) = choices(system, of);
    set(values, Metric::RelativeQuality, relative);
    set(values, Metric::Degraded, degraded);
}

/// What became of each choice of variants. Qualities are those on the inputs that a variant ran on.
fn variant_shares(system: &System, of: (&Source, &Tally)) -> Vec<VariantShare> {
    let all: Vec<Completed<'_>> = completed(system, of).filter(|one| !one.node.variants.is_empty()).collect();
    let share = |one: &Completed<'_>| {
        let of_node = || all.iter().filter(|other| std::ptr::eq(other.node, one.node));
        let of_variant = || of_node().filter(|other| other.variant == one.variant);
        let whole: u64 = of_node().map(|other| other.count).sum();
        let ran: u64 = of_variant().map(|other| other.count).sum();
        let mean = |of: &dyn Fn(&Completed<'_>) -> Option<f64>| {
            let sum = of_variant().filter(|other| other.count > 0).map(|other| Some(of(other)? * other.count as f64));
            sum.sum::<Option<f64>>().and_then(|sum| ratio(sum, ran as f64))
        };
        let model = &system.models[one.node.model_of(one.variant)];
        let varies = !one.node.in_content.is_empty() && ran > 0;
        VariantShare {
            stage: one.node.name.clone(),
            model: model.name.clone(),
            share: ratio(ran as f64, whole as f64).unwrap_or(0.0),
            relative_quality: if varies { mean(&|other| other.relative()) } else { one.node.quality_of(one.variant) },
            quality: model.quality.as_ref().map(|(name, value)| {
                let seen = mean(&|other| other.score(system).map(|(_, value)| value)).filter(|_| varies);
                (name.clone(), seen.unwrap_or(*value))
            }),
        }
    };
    // One entry per variant: those of the first class stand for all.
    all.iter().filter(|one| one.content.unwrap_or(0) == 0).map(share).collect()
}

fn processor_summary(system: &System, id: ProcessorId, lanes: &Lanes<'_>, measured: Nanos) -> ProcessorSummary {
    let (unit, lane) = (&system.platform.processors[id], &lanes.by_processor[id]);
    let mut values = Values::new();
    let slots = f64::from(unit.slots);
    set(&mut values, Metric::Utilisation, ratio(lane.busy.as_f64(), slots * measured.as_f64()));
    put_lane_shares(&mut values, [lane]);
    set(&mut values, Metric::Preemptions, lane.preemptions as f64);
    set(&mut values, Metric::PreemptionCost, lane.preemptions as f64 * unit.preempt_cost.as_ms());
    put_energy(&mut values, lanes.energy(id, measured), measured);
    let readings = lane.readings.as_deref();
    let points = unit.power.as_ref().map_or(&[][..], |model| &model.points);
    let several = readings.filter(|_| points.len() > 1);
    let heated = readings.filter(|readings| readings.peak.is_some());
    set(&mut values, Metric::PeakTemperature, heated.and_then(|readings| readings.peak));
    let throttles = unit.power.as_ref().and_then(|model| model.thermal?.throttle).is_some();
    let throttled = readings.filter(|_| throttles).and_then(|r| ratio(r.throttled.as_f64(), measured.as_f64()));
    set(&mut values, Metric::ThrottledShare, throttled);
    let time = |(point, time): (&OperatingPoint, &Nanos)| (point.speed * time.as_f64(), time.as_f64());
    let sums = several.map(|readings| points.iter().zip(&readings.time_by_point).map(time));
    let sums = sums.map(|times| times.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1)));
    set(&mut values, Metric::MeanSpeed, sums.and_then(|(speed, time)| ratio(speed, time)));
    ProcessorSummary {
        name: unit.name.clone(),
        values,
        utilisation: lane.bins.rates().into_iter().map(|rate| rate / slots).collect(),
        busy_by_model: system
            .models
            .iter()
            .zip(&lane.busy_by_model)
            .filter(|&(_, &busy)| busy > Nanos::ZERO)
            .map(|(model, busy)| (model.name.clone(), busy.as_ms()))
            .collect(),
        time_by_point: several.map_or_else(Vec::new, |readings| {
            let used = points.iter().zip(&readings.time_by_point).filter(|&(_, &time)| time > Nanos::ZERO);
            used.map(|(point, time)| (point.name.clone(), time.as_ms())).collect()
        }),
        speed: several.map_or_else(Vec::new, |readings| readings.speed.rates()),
        celsius: heated.map_or_else(Vec::new, |readings| readings.celsius.rates()),
    }
}

fn put_lane_shares<'l>(values: &mut Values, lanes: impl IntoIterator<Item = &'l Lane>) {
    let (mut busy, mut setup, mut lost) = (0.0, 0.0, 0.0);
    for lane in lanes {
        busy += lane.busy.as_f64();
        setup += lane.setup.as_f64();
        lost += lane.lost_ns;
    }
    // Rounding to nanoseconds can leave a loss just below zero.
    set(values, Metric::ContentionLoss, ratio(lost.max(0.0), busy));
    set(values, Metric::SetupShare, ratio(setup, busy));
}

fn put_energy(values: &mut Values, energy: Option<Millijoules>, measured: Nanos) {
    let joules = energy.map(|energy| energy.0 / 1e3);
    set(values, Metric::Energy, joules);
    set(values, Metric::AveragePower, joules.and_then(|joules| ratio(joules, measured.as_secs())));
}

/// Metrics of the whole run that come from its jobs.
fn run_of_sources(
    run: &mut Values,
    system: &System,
    tallies: &Tallies<'_>,
    sources: &[SourceSummary],
    measured: Nanos,
) {
    let all = || tallies.by_source.iter();
    // Idle-time work is no burden: how long it waits and what of it is dropped says nothing about the run.
    let asked = || system.sources.iter().zip(all()).filter(|(source, _)| !source.best_effort).map(|(_, tally)| tally);
    Counts::of(asked()).put(run);
    let merged = |of: fn(&Tally) -> &Samples| {
        let mut merged = Samples::new();
        asked().for_each(|tally| merged.merge(of(tally)));
        merged
    };
    put_times(run, &merged(|t| &t.response), &merged(|t| &t.tardiness), &merged(|t| &t.ttft), &merged(|t| &t.tpot));
    if system.sources.iter().any(|source| has_language_model(system, source)) {
        let tokens: u64 = all().map(|tally| tally.tokens).sum();
        set(run, Metric::Tokens, tokens as f64);
        set(run, Metric::Tps, ratio(tokens as f64, measured.as_secs()));
    }
    let with_goals = system.sources.iter().zip(all()).filter(|(s, _)| s.session && has_goals(s)).map(|(_, t)| t);
    let goals = Counts::of(with_goals);
    set(run, Metric::SloAttainment, ratio(goals.met(), goals.judged as f64));
    if all().any(|tally| tally.required) {
        set(run, Metric::Goodput, ratio(Counts::of(all().filter(|t| t.required)).met(), measured.as_secs()));
    }
    let rates: Vec<f64> = sources.iter().filter_map(|s| s.values.get(&Metric::ViolationRate).copied()).collect();
    set(run, Metric::MeanViolationRate, ratio(rates.iter().sum(), rates.len() as f64));
    set(run, Metric::Fairness, jain(rates.iter().map(|rate| 1.0 - rate)));
    put_quality(run, system, system.sources.iter().zip(all()));
    put_caches(run, all());
    set(run, Metric::XrbenchScore, xrbench_corrected(all()));
    set(run, Metric::XrbenchRepoScore, xrbench_repository(all()));
    set(run, Metric::UxCost, ux_cost(all()));
}

/// Metrics of the whole run that come from its processors.
fn run_of_processors(
    run: &mut Values,
    system: &System,
    lanes: &Lanes<'_>,
    processors: &[ProcessorSummary],
    measured: Nanos,
) {
    let sum = |metric: Metric| processors.iter().filter_map(|p| p.values.get(&metric)).sum::<f64>();
    set(
        run,
        Metric::Utilisation,
        ratio(sum(Metric::Utilisation), processors.len() as f64).filter(|_| measured > Nanos::ZERO),
    );
    put_lane_shares(run, lanes.by_processor.iter());
    set(run, Metric::Preemptions, sum(Metric::Preemptions));
    set(run, Metric::PreemptionCost, sum(Metric::PreemptionCost));
    set(run, Metric::PeakMemory, lanes.peak_memory.map(onbeat_core::units::Bytes::as_mb));
    // One busy processor whose energy is unknown makes the sum unknown; an idle one whose power nobody stated does not.
    let known = system.platform.processors.ids().all(|id| lanes.by_processor[id].work_energy.is_some());
    let energies: Vec<Millijoules> =
        system.platform.processors.ids().filter_map(|id| lanes.energy(id, measured)).collect();
    let total = energies.iter().fold(Millijoules(0.0), |sum, &energy| sum + energy);
    put_energy(run, Some(total).filter(|_| known && !energies.is_empty()), measured);
    let all = |metric: Metric| processors.iter().filter_map(move |p| p.values.get(&metric).copied());
    set(run, Metric::PeakTemperature, all(Metric::PeakTemperature).reduce(f64::max));
    set(run, Metric::ThrottledShare, all(Metric::ThrottledShare).reduce(f64::max));
    let (speeds, count) = all(Metric::MeanSpeed).fold((0.0, 0.0), |(sum, n), speed| (sum + speed, n + 1.0));
    set(run, Metric::MeanSpeed, ratio(speeds, count));
}

/// Jain's index (Σx)² / (n Σx²), from 1/n to 1; 1 if all are zero, `None` if there are none.
fn jain(shares: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum, squares) = shares.fold((0.0, 0.0, 0.0), |(n, sum, squares), x| (n + 1.0, sum + x, squares + x * x));
    if n == 0.0 {
        return None;
    }
    Some(if squares == 0.0 { 1.0 } else { sum * sum / (n * squares) })
}

fn xrbench_corrected<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for tally in tallies.filter(|tally| tally.frames > 0) {
        // Mean over done jobs × done / frames.
        sum += tally.xrbench? / tally.frames as f64;
        count += 1.0;
    }
    ratio(100.0 * sum, count)
}

fn xrbench_repository<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for stage in tallies.flat_map(|tally| &tally.stages).filter(|stage| stage.has_frames()) {
        sum += stage.repository_score()?;
        count += 1.0;
    }
    ratio(100.0 * sum, count)
}

/// DREAM's UXCost as recalled from memory; its exact form is not verified. (Σ violation rates) × (Σ energy / worst-case
/// energy), over the sources with a deadline or goals. A rate of zero is replaced by 1 / (2 × judged jobs), so that the
/// product stays informative. Energies are those of done jobs; the worst case runs every stage on its costliest
/// processor. `None` if an energy is unknown.
fn ux_cost<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Option<f64> {
    let (mut rates, mut energies) = (0.0, 0.0);
    for tally in tallies.filter(|tally| tally.judged > 0) {
        rates += (tally.violations as f64).max(0.5) / tally.judged as f64;
        if tally.done > 0 {
            energies += ratio(tally.energy?, tally.worst_energy?)?;
        }
    }
    (rates > 0.0).then_some(rates * energies)
}
