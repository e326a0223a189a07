//! Hand-worked event sequences and their summaries.

use onbeat_analysis::statistics::Statistics;
use onbeat_core::cost::Phase;
use onbeat_core::event::{DropCause, Event, Sink, StopReason, What};
use onbeat_core::id::{NodeId, ProcessorId, SourceId};
use onbeat_core::metric::{Metric, Values};
use onbeat_core::spec::ProvenanceKind;
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};
use proptest::prelude::*;

use crate::support::{Builder, ms};

const P0: ProcessorId = ProcessorId(0);
const P1: ProcessorId = ProcessorId(1);

/// Events under construction, with times in milliseconds.
#[derive(Default)]
struct Script(Vec<Event>);

impl Script {
    fn at(&mut self, at: u64, what: What) -> &mut Self {
        self.0.push(Event { at: ms(at), what });
        self
    }
    fn release(&mut self, at: u64, job: u64, source: u32, deadline: Option<u64>) -> &mut Self {
        self.at(
            at,
            What::Release { job, source: SourceId(source), nominal: ms(at), deadline: deadline.map(ms), content: None },
        )
    }
    fn ready(&mut self, at: u64, stage: u64, job: u64, node: u32, output: u32) -> &mut Self {
        self.at(at, What::Ready { stage, job, node: NodeId(node), prompt: output.min(1), output })
    }
    fn start(&mut self, at: u64, run: u64, stage: u64, processor: ProcessorId, setup: u64) -> &mut Self {
        self.at(at, What::start(run, stage, processor, Phase::Forward, ms(setup)))
    }
    fn stop(
        &mut self,
        at: u64,
        run: u64,
        stage: u64,
        processor: ProcessorId,
        alone: u64,
        energy_mj: Option<f64>,
    ) -> &mut Self {
        self.stop_as(at, run, stage, processor, alone, energy_mj, StopReason::Finished, 0)
    }
    #[expect(clippy::too_many_arguments, reason = "the fields of the event")]
    fn stop_as(
        &mut self,
        at: u64,
        run: u64,
        stage: u64,
        processor: ProcessorId,
        alone: u64,
        energy_mj: Option<f64>,
        why: StopReason,
        tokens: u32,
    ) -> &mut Self {
        self.at(at, What::Stop { run, stage, processor, why, alone: ms(alone), bytes: Bytes::ZERO, energy_mj, tokens })
    }
    fn done(&mut self, at: u64, stage: u64, job: u64) -> &mut Self {
        self.at(at, What::StageDone { stage, job })
    }
    fn job_done(&mut self, at: u64, job: u64) -> &mut Self {
        self.at(at, What::JobDone { job })
    }
    fn first(&mut self, at: u64, stage: u64, job: u64) -> &mut Self {
        self.at(at, What::FirstToken { stage, job })
    }

    fn summary(&self, system: &System) -> Summary {
        system.validate().unwrap();
        let mut statistics = Statistics::new(system, 7, "edf");
        assert!(statistics.is_active());
        self.0.iter().for_each(|event| statistics.event(event));
        statistics.finish()
    }
}

fn expect(values: &Values, expected: &[(Metric, f64)]) {
    for &(metric, value) in expected {
        let got = values.get(&metric).unwrap_or_else(|| panic!("{} is absent", metric.name()));
        assert!((got - value).abs() < 1e-9, "{}: {got} instead of {value}", metric.name());
    }
}

fn expect_absent(values: &Values, absent: &[Metric]) {
    for metric in absent {
        assert!(!values.contains_key(metric), "{} should be absent", metric.name());
    }
}

/// One stream with period and deadline 100 ms on one processor for 1 s, 10 ms alone.
fn one_stream() -> Builder {
    let mut builder = Builder::new(1, ms(1000));
    let source = builder.stream(ms(100));
    builder.stage(source, 1.0, &[Some(10.0)], Some(500.0));
    builder
}

#[test]
fn counts_times_and_scores_of_a_stream() {
    let mut builder = one_stream();
    builder.system.platform.processors[P0].idle_w = 2.0;
    let mut script = Script::default();
    // On time after 20 ms: 5 ms setup, 10 ms of work in 15 ms.
    script.release(0, 0, 0, Some(100)).ready(0, 0, 0, 0, 0).start(0, 0, 0, P0, 5);
    script.stop(20, 0, 0, P0, 10, Some(500.0)).done(20, 0, 0).job_done(20, 0);
    // Late by 30 ms.
    script.release(100, 1, 0, Some(200)).ready(100, 1, 1, 0, 0).start(220, 1, 1, P0, 0);
    script.stop(230, 1, 1, P0, 10, Some(500.0)).done(230, 1, 1).job_done(230, 1);
    // Dropped, unfinished past its deadline, unfinished before its deadline.
    script.release(300, 2, 0, Some(400)).ready(300, 2, 2, 0, 0);
    script.at(400, What::Drop { job: 2, cause: DropCause::Late });
    script.release(800, 3, 0, Some(900)).ready(800, 3, 3, 0, 0);
    script.release(950, 4, 0, Some(1050)).ready(950, 4, 4, 0, 0);
    script.at(1000, What::Unfinished { job: 3 }).at(1000, What::Unfinished { job: 4 }).at(1000, What::End);
    let summary = script.summary(&builder.system);
    assert_eq!((summary.seed, summary.policy.as_str(), summary.measured_s), (7, "edf", 1.0));
    let on_time = 1.0; // Real-time score 80 ms before the deadline.
    let expected = [
        (Metric::Jobs, 5.0),
        (Metric::Done, 2.0),
        (Metric::Dropped, 1.0),
        (Metric::Unfinished, 2.0),
        (Metric::Judged, 4.0),
        (Metric::Violations, 3.0),
        (Metric::ViolationRate, 0.75),
        (Metric::DropRate, 0.2),
        (Metric::ResponseMean, 75.0),
        (Metric::ResponseP50, 20.0),
        (Metric::ResponseP99, 130.0),
        (Metric::ResponseMax, 130.0),
        (Metric::TardinessMean, 15.0),
        (Metric::TardinessMax, 30.0),
        (Metric::Goodput, 1.0),
    ];
    expect(&summary.sources[0].values, &expected);
    expect(&summary.run, &expected);
    // Deviation of 20 and 130: 55 * sqrt(2).
    expect(&summary.sources[0].values, &[(Metric::CompletionJitter, 55.0 * 2.0_f64.sqrt())]);
    expect_absent(
        &summary.sources[0].values,
        &[Metric::TtftMean, Metric::Tokens, Metric::SloAttainment, Metric::Quality],
    );
    assert_eq!(summary.sources[0].response_ecdf, [(20.0, 0.5), (130.0, 1.0)]);
    let of_processor = [
        (Metric::Utilisation, 0.03),
        (Metric::SetupShare, 5.0 / 30.0),
        // 5 of 30 ms busy were neither setup nor needed alone.
        (Metric::ContentionLoss, 5.0 / 30.0),
        (Metric::Preemptions, 0.0),
        // 1 J of work and 2 W for 970 ms.
        (Metric::Energy, 1.0 + 1.94),
        (Metric::AveragePower, 2.94),
    ];
    expect(&summary.processors[0].values, &of_processor);
    expect(&summary.run, &of_processor);
    assert_eq!(summary.processors[0].busy_by_model, [("m0".to_owned(), 30.0)]);
    assert_eq!(summary.provenance, [(ProvenanceKind::Published, 1.0)]);
    let energy_score = 1000.0 / 1500.0;
    let run = [
        (Metric::MeanViolationRate, 0.75),
        (Metric::Fairness, 1.0),
        // Two executed frames, one of them on time (30 ms late scores e^-450); four judged frames.
        (Metric::XrbenchScore, 100.0 * on_time * energy_score / 4.0),
        // Three logged frames; one dropped is penalised again.
        (Metric::XrbenchRepoScore, 100.0 * on_time * energy_score / 3.0 * (2.0 / 3.0)),
        // The worst case is the only case.
        (Metric::UxCost, 0.75),
    ];
    expect(&summary.run, &run);
}

#[test]
fn the_warm_up_hides_jobs_and_cuts_runs() {
    let mut builder = one_stream();
    builder.system.warm_up = ms(500);
    let mut script = Script::default();
    // Released before the end of the warm-up, and runs 10 ms before and 30 ms after it; alone it needs 20 ms.
    script.release(490, 0, 0, Some(590)).ready(490, 0, 0, 0, 0).start(490, 0, 0, P0, 0);
    script.stop(530, 0, 0, P0, 20, Some(400.0)).done(530, 0, 0).job_done(530, 0);
    script.release(500, 1, 0, Some(600)).ready(500, 1, 1, 0, 0).start(530, 1, 1, P0, 0);
    script.stop(540, 1, 1, P0, 10, Some(500.0)).done(540, 1, 1).job_done(540, 1);
    script.at(1000, What::End);
    let summary = script.summary(&builder.system);
    assert_eq!(summary.measured_s, 0.5);
    expect(
        &summary.run,
        &[(Metric::Jobs, 1.0), (Metric::Done, 1.0), (Metric::ResponseMean, 40.0), (Metric::Violations, 0.0)],
    );
    // 40 ms of 500; alone 15 + 10 of these 40.
    expect(&summary.run, &[(Metric::Utilisation, 0.08), (Metric::ContentionLoss, 15.0 / 40.0), (Metric::Energy, 0.8)]);
    // Series cover the whole run: bins of 1000/240 ms.
    let busy: f64 = summary.processors[0].utilisation.iter().sum::<f64>() * 1000.0 / 240.0;
    assert!((busy - 50.0).abs() < 1e-3, "{busy}");
}

#[test]
fn requests_are_judged_by_their_goals() {
    let mut builder = Builder::new(1, ms(10_000));
    let source = builder.session(1.0);
    builder.language(source, &[Some((1.0, 10.0))], 1, 11);
    builder.system.sources[source].ttft = Some(ms(100));
    builder.system.sources[source].tpot = Some(ms(10));
    let mut script = Script::default();
    let mut request = |job: u64, at: u64, first: u64, last: u64, output: u32| {
        script.release(at, job, 0, None).ready(at, job, job, 0, output).start(at, 2 * job, job, P0, 0);
        script.stop_as(first, 2 * job, job, P0, 1, None, StopReason::Finished, 1).first(first, job, job);
        script.start(first, 2 * job + 1, job, P0, 0);
        script.stop_as(last, 2 * job + 1, job, P0, 1, None, StopReason::Finished, output - 1);
        script.done(last, job, job).job_done(last, job);
    };
    request(0, 0, 100, 200, 11); // Both goals met exactly.
    request(1, 1000, 1101, 1200, 11); // First token 1 ms late.
    request(2, 2000, 2050, 2151, 11); // 10.1 ms per token.
    request(3, 3000, 3040, 3040, 1); // One token has no TPOT.
    // Unfinished: no first token although due; first token in time; too early to tell; first token late; first token in time, but ten
    // tokens 850 ms later, when the goal allows 100 ms.
    for (job, at) in [(4, 9000), (5, 9900), (6, 9950), (7, 9200), (8, 9100)] {
        script.release(at, job, 0, None).ready(at, job, job, 0, 11);
    }
    script.first(9950, 5, 5).first(9400, 7, 7).first(9150, 8, 8).at(10_000, What::End);
    let summary = script.summary(&builder.system);
    let expected = [
        (Metric::Jobs, 9.0),
        (Metric::Done, 4.0),
        (Metric::Unfinished, 5.0),
        (Metric::Judged, 7.0),
        (Metric::Violations, 5.0),
        (Metric::SloAttainment, 2.0 / 7.0),
        (Metric::Goodput, 0.2),
        // 100, 101, 50, 40, 50, 200, 50.
        (Metric::TtftMean, 591.0 / 7.0),
        (Metric::TtftP50, 50.0),
        (Metric::TtftMax, 200.0),
        // 10, 9.9, 10.1.
        (Metric::TpotMean, 10.0),
        (Metric::TpotP95, 10.1),
        (Metric::Tokens, 34.0),
        (Metric::Tps, 3.4),
    ];
    expect(&summary.sources[0].values, &expected);
    expect(&summary.run, &expected);
    expect_absent(&summary.run, &[Metric::TardinessMean, Metric::Energy, Metric::XrbenchScore, Metric::UxCost]);
    assert_eq!(summary.sources[0].ttft_ecdf.last(), Some(&(200.0, 1.0)));
}

#[test]
fn a_batch_is_one_run_and_a_preemption_counts_once() {
    let mut builder = Builder::new(2, ms(1000));
    let source = builder.session(10.0);
    builder.language(source, &[Some((1.0, 10.0)), None], 1, 11);
    builder.system.platform.processors[P0].preempt_cost = ms(3);
    builder.system.platform.processors[P1].slots = 2;
    let stream = builder.stream(ms(100));
    builder.stage(stream, 1.0, &[None, Some(50.0)], None);
    let mut script = Script::default();
    for job in 0..2 {
        script.release(0, job, 0, None).ready(0, job, job, 0, 11);
    }
    script.start(0, 0, 0, P0, 4).start(0, 0, 1, P0, 4);
    // 4 ms of setup, 93 ms of work, 3 ms to take it off.
    script.stop_as(100, 0, 0, P0, 46, None, StopReason::Preempted, 5);
    script.stop_as(100, 0, 1, P0, 47, None, StopReason::Preempted, 5);
    // Two slots of p1, together for 50 of 75 ms.
    for (job, at) in [(2, 100), (3, 125)] {
        script.release(at, job, 1, Some(at + 100)).ready(at, job, job, 1, 0).start(at, job, job, P1, 0);
    }
    script.stop(150, 2, 2, P1, 50, Some(10.0)).done(150, 2, 2).job_done(150, 2);
    script.stop(175, 3, 3, P1, 50, Some(10.0)).done(175, 3, 3).job_done(175, 3);
    script.at(1000, What::End);
    builder.system.platform.processors[P1].idle_w = 1.0;
    let summary = script.summary(&builder.system);
    expect(
        &summary.processors[0].values,
        &[
            (Metric::Utilisation, 0.1),
            (Metric::SetupShare, 0.04),
            (Metric::ContentionLoss, 0.0),
            (Metric::Preemptions, 1.0),
            (Metric::PreemptionCost, 3.0),
        ],
    );
    expect_absent(&summary.processors[0].values, &[Metric::Energy, Metric::AveragePower]);
    expect(&summary.processors[1].values, &[(Metric::Utilisation, 0.05), (Metric::Energy, 0.02 + 0.925)]);
    expect_absent(&summary.run, &[Metric::Energy]);
    expect(&summary.run, &[(Metric::Utilisation, 0.075), (Metric::Preemptions, 1.0)]);
}

#[test]
fn quality_is_a_mean_over_completions_of_one_score() {
    let mut builder = Builder::new(1, ms(1000));
    for _ in 0..2 {
        let source = builder.stream(ms(100));
        builder.stage(source, 1.0, &[Some(1.0)], None);
    }
    let models: Vec<_> = builder.system.models.ids().collect();
    builder.system.models[models[0]].quality = Some(("mIoU".to_owned(), 0.5));
    builder.system.models[models[1]].quality = Some(("mIoU".to_owned(), 0.8));
    let mut script = Script::default();
    for (job, source) in [(0, 0), (1, 1), (2, 1)] {
        script.release(0, job, source, Some(100)).ready(0, job, job, source, 0).done(1, job, job).job_done(1, job);
    }
    script.at(1000, What::End);
    let summary = script.summary(&builder.system);
    expect(&summary.sources[0].values, &[(Metric::Quality, 0.5)]);
    expect(&summary.run, &[(Metric::Quality, 0.7)]);
    builder.system.models[models[1]].quality = Some(("WER".to_owned(), 8.0));
    expect_absent(&script.summary(&builder.system).run, &[Metric::Quality]);
}

#[test]
fn the_repository_score_counts_the_stages_of_dropped_chains() {
    let mut builder = Builder::new(1, ms(1000));
    let source = builder.stream(ms(100));
    builder.stage(source, 1.0, &[Some(1.0)], Some(0.0));
    builder.stage(source, 0.5, &[Some(1.0)], Some(0.0));
    let mut script = Script::default();
    // Both stages executed.
    script.release(0, 0, 0, Some(100));
    script.ready(0, 0, 0, 0, 0).done(1, 0, 0).ready(1, 1, 0, 1, 0).done(2, 1, 0).job_done(2, 0);
    // Dropped before the first one: the second would have been reached with probability 0.5.
    script.release(100, 1, 0, Some(200)).ready(100, 2, 1, 0, 0).at(200, What::Drop { job: 1, cause: DropCause::Late });
    script.at(1000, What::End);
    let first = 1.0 / 2.0 * (1.0 / 2.0);
    let second = 1.0 / 1.5 * (1.0 / 1.5);
    expect(
        &script.summary(&builder.system).run,
        &[(Metric::XrbenchRepoScore, 100.0 * f64::midpoint(first, second)), (Metric::XrbenchScore, 50.0)],
    );
}

#[test]
fn caches_that_left_memory_are_accounted_to_their_source() {
    let mut builder = Builder::new(1, ms(1000));
    for _ in 0..2 {
        let source = builder.stream(ms(100));
        builder.stage(source, 1.0, &[Some(1.0)], None);
    }
    let mut script = Script::default();
    script.release(0, 0, 0, None).ready(0, 0, 0, 0, 0).release(0, 1, 1, None).ready(0, 1, 1, 1, 0);
    let (held, mb) = (Bytes(70_000_000), Bytes(61_000_000));
    script.at(10, What::EvictCache { stage: 0, held, moved: Bytes::ZERO, tokens: 61, took: Nanos::ZERO });
    script.at(20, What::EvictCache { stage: 0, held, moved: mb, tokens: 0, took: ms(6) });
    script.at(30, What::ReadCache { stage: 0, moved: mb, took: ms(6) });
    script.at(40, What::PlaceCache { stage: 0, far: true, held, moved: mb, took: ms(6) }).at(1000, What::End);
    let summary = script.summary(&builder.system);
    let expected =
        [(Metric::Recomputed, 61.0), (Metric::SwappedOut, 122.0), (Metric::SwappedIn, 61.0), (Metric::SwapTime, 18.0)];
    expect(&summary.sources[0].values, &expected);
    expect(&summary.run, &expected);
    expect_absent(&summary.sources[1].values, &[Metric::Recomputed, Metric::SwapTime]);
}

#[test]
fn memory_and_bus_over_time() {
    let builder = Builder { system: one_stream().system };
    let mut script = Script::default();
    script.at(0, What::Memory { used: Bytes(3_000_000) }).at(0, What::Bus { traffic: 8.0, speed: 1.0 });
    script.at(500, What::Memory { used: Bytes(5_000_000) }).at(500, What::Bus { traffic: 0.0, speed: 1.0 });
    script.at(600, What::Memory { used: Bytes(1_000_000) }).at(1000, What::End);
    let summary = script.summary(&builder.system);
    expect(&summary.run, &[(Metric::PeakMemory, 5.0)]);
    assert_eq!(summary.bus_traffic.len(), 240);
    assert_eq!((summary.bus_traffic[0], summary.bus_traffic[239]), (8.0, 0.0));
    let mean = summary.bus_traffic.iter().sum::<f64>() / 240.0;
    assert!((mean - 4.0).abs() < 1e-3, "{mean}");
}

#[test]
fn power_is_read_from_its_events_within_the_measured_time() {
    use onbeat_core::power::{OperatingPoint, PowerModel, Thermal};
    let mut builder = one_stream();
    let thermal = Thermal {
        resistance: 10.0,
        capacitance: 1.0,
        ambient: 25.0,
        start: 25.0,
        throttle: Some(60.0),
        release: 50.0,
        step: Nanos(1),
    };
    let mut model = PowerModel { thermal: Some(thermal), ..PowerModel::fixed(1.0, Some(2.0)) };
    model.points.push(OperatingPoint { name: "half".to_owned(), speed: 0.5, ..model.points[0].clone() });
    for unit in &mut builder.system.platform.processors {
        unit.power = Some(model.clone());
        unit.idle_w = 1.0;
    }
    builder.system.warm_up = Nanos::from_ms(200.0);
    let mut script = Script::default();
    let mut read = |at: u64, point: u32, throttled: bool, joules: f64, celsius: f64, peak: f64| {
        let (energy_mj, celsius) = (Some(joules * 1e3), Some(celsius));
        let watts = Some(2.0);
        script.at(
            at,
            What::Power { processor: P0, point, throttled, watts, energy_mj, celsius, peak_celsius: Some(peak) },
        );
    };
    read(0, 0, false, 0.0, 25.0, 25.0);
    read(200, 0, false, 0.5, 70.0, 80.0); // The end of the warm-up.
    read(400, 1, true, 1.0, 50.0, 75.0);
    read(800, 0, false, 1.4, 40.0, 55.0);
    read(1000, 0, false, 2.0, 45.0, 45.0);
    script.at(1000, What::End);
    let summary = script.summary(&builder.system);
    let processor = &summary.processors[0];
    expect(
        &processor.values,
        &[
            (Metric::Energy, 1.5),
            (Metric::AveragePower, 1.5 / 0.8),
            (Metric::PeakTemperature, 75.0),
            (Metric::ThrottledShare, 0.5),
            (Metric::MeanSpeed, 0.75),
        ],
    );
    expect(&summary.run, &[(Metric::PeakTemperature, 75.0), (Metric::ThrottledShare, 0.5)]);
    assert_eq!(processor.time_by_point, [(String::new(), 400.0), ("half".to_owned(), 400.0)]);
    assert_eq!((processor.speed[0], processor.speed[120]), (1.0, 0.5));
    assert!((processor.celsius[239] - 42.5).abs() < 1e-9);
}

#[test]
fn a_record_that_was_cut_short_covers_what_it_has() {
    let builder = one_stream();
    let mut script = Script::default();
    script.release(0, 0, 0, Some(100)).ready(0, 0, 0, 0, 0).start(0, 0, 0, P0, 0);
    script.release(100, 1, 0, Some(200)).ready(200, 1, 1, 0, 0);
    let summary = script.summary(&builder.system);
    assert_eq!(summary.measured_s, 0.2);
    expect(&summary.run, &[(Metric::Unfinished, 2.0), (Metric::Judged, 1.0), (Metric::Utilisation, 1.0)]);
    expect_absent(&summary.run, &[Metric::Energy]);
}

#[test]
fn events_about_unknown_things_are_ignored() {
    let builder = one_stream();
    let mut script = Script::default();
    script.job_done(1, 9).done(1, 4, 9).first(2, 4, 9).start(3, 1, 4, P0, 0).stop(4, 1, 4, P0, 1, None);
    script
        .at(4, What::Drop { job: 3, cause: DropCause::Policy })
        .at(5, What::Unfinished { job: 8 })
        .at(1000, What::End);
    expect(&script.summary(&builder.system).run, &[(Metric::Jobs, 0.0), (Metric::Utilisation, 0.0)]);
}

/// What becomes of a job of the property test.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done(u64),
    Dropped(u64),
    Unfinished,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![(1..200_u64).prop_map(Fate::Done), (1..200_u64).prop_map(Fate::Dropped), Just(Fate::Unfinished)]
}

proptest! {
    #[test]
    fn counts_add_up_and_percentiles_are_ordered(fates in prop::collection::vec((0..900_u64, fate()), 0..60), warm_up in 0..900_u64) {
        let mut builder = one_stream();
        builder.system.warm_up = ms(warm_up);
        let mut fates = fates;
        fates.sort_by_key(|&(at, _)| at);
        let mut script = Script::default();
        for (job, &(at, fate)) in (0_u64..).zip(&fates) {
            script.release(at, job, 0, Some(at + 100)).ready(at, job, job, 0, 0);
            match fate {
                Fate::Done(after) => {
                    script.done(at + after, job, job).job_done(at + after, job);
                }
                Fate::Dropped(after) => {
                    script.at(at + after, What::Drop { job, cause: DropCause::Late });
                }
                Fate::Unfinished => {}
            }
        }
        script.0.sort_by_key(|event| event.at);
        script.0.retain(|event| event.at <= ms(1000));
        script.at(1000, What::End);
        let summary = script.summary(&builder.system);
        let values = &summary.sources[0].values;
        let get = |metric: Metric| values.get(&metric).copied().unwrap_or(0.0);
        let jobs = fates.iter().filter(|&&(at, _)| at >= warm_up).count();
        prop_assert_eq!(get(Metric::Jobs), jobs as f64);
        prop_assert_eq!(get(Metric::Jobs), get(Metric::Done) + get(Metric::Dropped) + get(Metric::Unfinished));
        prop_assert!(get(Metric::Violations) <= get(Metric::Judged) && get(Metric::Judged) <= get(Metric::Jobs));
        let ordered = [Metric::ResponseP50, Metric::ResponseP95, Metric::ResponseP99, Metric::ResponseMax].map(get);
        prop_assert!(ordered.is_sorted(), "{ordered:?}");
        let curve = &summary.sources[0].response_ecdf;
        prop_assert!(curve.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
        prop_assert!(curve.last().is_none_or(|&(x, y)| y == 1.0 && (x - get(Metric::ResponseMax)).abs() < 1e-9));
        // The whole run is the only source.
        for metric in [Metric::Jobs, Metric::Violations] {
            prop_assert_eq!(summary.run.get(&metric), values.get(&metric));
        }
    }
}

#[test]
fn an_hour_of_frames_keeps_memory_bounded_and_percentiles_close() {
    let mut builder = one_stream();
    builder.system.duration = Nanos(3_600_000_000_000);
    let mut statistics = Statistics::new(&builder.system, 0, "edf");
    let mut event = |at: u64, what: What| statistics.event(&Event { at: Nanos(at), what });
    let jobs = 100_000_u64;
    for job in 0..jobs {
        let (at, response) = (job * 36_000_000, (job * 7919 % jobs) * 100);
        event(at, What::Release { job, source: SourceId(0), nominal: Nanos(at), deadline: None, content: None });
        event(at, What::Ready { stage: job, job, node: NodeId(0), prompt: 0, output: 0 });
        event(at + response, What::StageDone { stage: job, job });
        event(at + response, What::JobDone { job });
    }
    event(3_600_000_000_000, What::End);
    let values = statistics.finish().run;
    assert_eq!(values[&Metric::Done], jobs as f64);
    // Responses are a permutation of 0, 100, ... ns.
    assert!((values[&Metric::ResponseP99] / (98_999.0 * 100.0 / 1e6) - 1.0).abs() < 1e-3);
    assert_eq!(values[&Metric::ResponseMax], 9.9999);
}
