//! What a report is made from: plain data, filled by the command line from summaries, statistics and events.
//!
//! ```text
//! Report ─► Comparison (one scenario on one platform) ─► PolicyRow ─► Summary (one seed)
//!                 │                                          └─► Excerpt (events of one seed, for timelines)
//!                 └─► Bound (what no policy can beat)
//! ```
//!
//! Two functions of the caller do the statistics, because this crate sees records only: [`PolicyRow::new`] takes one that turns
//! samples into a mean with its interval, [`Comparison::judge`] one that compares two policies seed by seed.

use std::collections::BTreeMap;

use onbeat_core::event::Event;
use onbeat_core::metric::{Better, Metric, Values};
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use serde::{Deserialize, Serialize};

/// Everything that one report shows.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Version of onbeat that ran.
    pub onbeat: String,
    /// Command line that gives this report again, if there is one.
    pub command: Option<String>,
    /// One per scenario and platform, in the order to show.
    pub comparisons: Vec<Comparison>,
}

/// Policies compared on one scenario on one platform.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The resolved scenario on its platform.
    pub system: System,
    /// The policies; after [`Comparison::judge`], best first.
    pub rows: Vec<PolicyRow>,
    /// What decides which policy is best; [`Comparison::judge`] sets it.
    pub metric: Option<Metric>,
    /// What no policy can beat.
    pub bound: Bound,
    /// Whether the runs took place in real time; otherwise they were simulated.
    pub real: bool,
}

/// One policy's results.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Policy, with its parameters.
    pub policy: String,
    /// One summary per seed, in order of seed; the same seeds for every policy.
    pub runs: Vec<Summary>,
    /// Metrics of the whole run, over seeds.
    pub run: Statistics,
    /// Metrics per stream and session, over seeds, in the scenario's order.
    pub sources: Vec<Statistics>,
    /// Metrics per processor, over seeds, in the platform's order.
    pub processors: Vec<Statistics>,
    /// How it stands against the best policy.
    pub verdict: Verdict,
    /// Its metric less the best policy's, seed by seed; absent for the best policy.
    pub difference: Option<Statistic>,
    /// Proven bounds of the response time [ms] per stream and session, where an analysis applies. Empty: none was made.
    pub response_bounds_ms: Vec<Option<f64>>,
    /// Events of one seed, for the timeline.
    pub excerpt: Option<Excerpt>,
}

/// Statistics by metric; a metric that does not apply is absent.
pub type Statistics = BTreeMap<Metric, Statistic>;

/// A mean over seeds with its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// Mean, in the metric's unit.
    pub mean: f64,
    /// Half the width of the 95% confidence interval; absent with fewer than two samples.
    pub half_width: Option<f64>,
    /// Number of samples.
    pub n: u32,
}

/// How a policy stands against the best one, by [`Comparison::metric`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The best mean.
    Best,
    /// The same as the best policy on every seed.
    Same,
    /// Its 95% interval of the difference from the best policy includes zero.
    WithinNoise,
    /// Worse, beyond the noise.
    Worse,
    /// A worse mean, but one seed cannot tell noise from difference.
    #[default]
    Unknown,
}

impl Verdict {
    /// Short form for tables.
    pub fn short(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Same => "same",
            Self::WithinNoise => "≈ noise",
            Self::Worse => "worse",
            Self::Unknown => "?",
        }
    }
}

/// What no policy can beat, as far as an analysis can tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The best possible values of run metrics: at least as much for those of which less is better.
    pub run: Values,
    /// The same per stream and session, in the scenario's order. Empty: unknown.
    pub sources: Vec<Values>,
    /// Why deadlines must be missed; empty if the analysis finds no reason.
    pub reasons: Vec<Reason>,
}

/// Why no policy can meet all deadlines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// A job alone on its fastest processors already takes longer than its deadline.
    TooSlow {
        /// Stream or session.
        source: String,
        /// Shortest response time [ms].
        shortest_ms: f64,
        /// Deadline [ms].
        deadline_ms: f64,
    },
    /// The first token cannot come in time even alone.
    FirstTokenTooSlow {
        /// Session.
        source: String,
        /// Shortest time to first token [ms].
        shortest_ms: f64,
        /// Goal [ms].
        goal_ms: f64,
    },
    /// Tokens cannot follow each other fast enough even alone.
    TokensTooSlow {
        /// Session.
        source: String,
        /// Shortest time per output token [ms].
        shortest_ms: f64,
        /// Goal [ms].
        goal_ms: f64,
    },
    /// The work exceeds what the processors can do together.
    Overload {
        /// Work offered / capacity under the best assignment, as a fraction; above 1 is too much.
        load: f64,
    },
    /// Another reason that an analysis states.
    Stated {
        /// A clause without a full stop.
        text: String,
    },
}

/// The events of one run up to some time, for timelines.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt {
    /// Seed of the run.
    pub seed: u64,
    /// The events from the beginning of the run on; later ones may be left out.
    pub events: Vec<Event>,
    /// Start of the window to show.
    pub from: Nanos,
    /// End of the window to show.
    pub to: Nanos,
}

impl PolicyRow {
    /// Results of a policy, with statistics over its runs.
    ///
    /// `statistic` turns the samples of one metric (at least one, in order of seed) into their mean and interval. Where only some
    /// runs have a metric, the samples are those that do.
    pub fn new(policy: impl Into<String>, runs: Vec<Summary>, statistic: impl Fn(&[f64]) -> Statistic) -> Self {
        let over = |values: &dyn Fn(&Summary) -> Option<&Values>| -> Statistics {
            let samples = |metric: Metric| -> Vec<f64> {
                runs.iter().filter_map(|run| values(run)?.get(&metric).copied()).collect()
            };
            Metric::ALL
                .iter()
                .map(|&metric| (metric, samples(metric)))
                .filter(|(_, samples)| !samples.is_empty())
                .map(|(metric, samples)| (metric, statistic(&samples)))
                .collect()
        };
        let (sources, processors) = runs.first().map_or((0, 0), |run| (run.sources.len(), run.processors.len()));
        let run = over(&|run| Some(&run.run));
        let sources = (0..sources).map(|i| over(&|run| run.sources.get(i).map(|source| &source.values))).collect();
        let processors =
            (0..processors).map(|i| over(&|run| run.processors.get(i).map(|processor| &processor.values))).collect();
        Self {
            policy: policy.into(),
            runs,
            run,
            sources,
            processors,
            verdict: Verdict::default(),
            difference: None,
            response_bounds_ms: Vec::new(),
            excerpt: None,
        }
    }

    /// The mean of a metric of the whole run.
    pub fn mean(&self, metric: Metric) -> Option<f64> {
        self.run.get(&metric).map(|statistic| statistic.mean)
    }

    /// The mean of a metric of a stream or session.
    pub fn source_mean(&self, source: usize, metric: Metric) -> Option<f64> {
        self.sources.get(source)?.get(&metric).map(|statistic| statistic.mean)
    }

    /// The mean of a metric of a processor.
    pub fn processor_mean(&self, processor: usize, metric: Metric) -> Option<f64> {
        self.processors.get(processor)?.get(&metric).map(|statistic| statistic.mean)
    }
}

impl Comparison {
    /// A comparison of policies on `system`, not judged yet.
    pub fn new(system: System, rows: Vec<PolicyRow>) -> Self {
        Self { system, rows, metric: None, bound: Bound::default(), real: false }
    }

    /// Ranks the policies, best first, and says how each stands against the best.
    ///
    /// The metric is [`Comparison::default_metric`] unless one is set. `paired` turns the differences of a policy from the best, one per
    /// seed, into their mean and 95% interval. Policies with equal means are ranked by [`TIE_BREAKERS`], then they keep their order.
    pub fn judge(&mut self, paired: impl Fn(&[f64]) -> Statistic) {
        self.metric = self.metric.or_else(|| self.default_metric());
        let Some(metric) = self.metric else { return };
        let key = |row: &PolicyRow, metric: Metric| {
            let sign = if metric.better() == Better::Higher { -1.0 } else { 1.0 };
            row.mean(metric).map_or(f64::INFINITY, |mean| sign * mean)
        };
        self.rows.sort_by(|a, b| {
            let by = |metric: Metric| key(a, metric).total_cmp(&key(b, metric));
            TIE_BREAKERS.iter().fold(by(metric), |order, &next| order.then_with(|| by(next)))
        });
        let Some((best, others)) = self.rows.split_first_mut() else { return };
        best.verdict = Verdict::Best;
        best.difference = None;
        for row in others {
            let pairs = best.runs.iter().zip(&row.runs).filter_map(|(a, b)| {
                debug_assert_eq!(a.seed, b.seed, "policies are compared seed by seed");
                Some(b.run.get(&metric)? - a.run.get(&metric)?)
            });
            let differences: Vec<f64> = pairs.collect();
            if differences.is_empty() {
                row.verdict = Verdict::Unknown;
                continue;
            }
            let difference = paired(&differences);
            row.difference = Some(difference);
            row.verdict = match difference.half_width {
                _ if differences.iter().all(|&d| d == 0.0) => Verdict::Same,
                None => Verdict::Unknown,
                Some(half_width) if difference.mean.abs() <= half_width => Verdict::WithinNoise,
                Some(_) => Verdict::Worse,
            };
        }
    }

    /// What decides unless the user says otherwise: the mean of the violation rates of the sources, so that a stream with few jobs, such
    /// as an assistant, counts as much as one with many; without deadlines, the mean response time.
    pub fn default_metric(&self) -> Option<Metric> {
        let candidates = [Metric::MeanViolationRate, Metric::ViolationRate, Metric::ResponseMean];
        candidates.into_iter().find(|metric| self.rows.iter().any(|row| row.run.contains_key(metric)))
    }

    /// Number of seeds.
    pub fn seeds(&self) -> usize {
        self.rows.iter().map(|row| row.runs.len()).max().unwrap_or(0)
    }

    /// Names of the streams and sessions, in the scenario's order.
    pub fn source_names(&self) -> Vec<&str> {
        self.system.sources.iter().map(|source| source.name.as_str()).collect()
    }

    /// `scenario on platform`, by their names for people where they have any.
    pub fn name(&self) -> String {
        format!("{} on {}", self.scenario_title(), self.platform_title())
    }

    /// The scenario's name for people, or its name.
    pub fn scenario_title(&self) -> &str {
        title(&self.system.title, &self.system.scenario)
    }

    /// The platform's name for people, or its name.
    pub fn platform_title(&self) -> &str {
        title(&self.system.platform.title, &self.system.platform.name)
    }
}

/// What decides between policies whose deciding metric is equal, in order.
pub const TIE_BREAKERS: [Metric; 3] = [Metric::ViolationRate, Metric::ResponseMean, Metric::Energy];

/// The name for people, or the name if there is none.
pub(crate) fn title<'a>(title: &'a str, name: &'a str) -> &'a str {
    if title.is_empty() { name } else { title }
}
