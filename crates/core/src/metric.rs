//! Every metric, declared once: name, unit, meaning, which way is better. Tables, plots, files and the reference page
//! are made from this list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values of metrics; a metric that does not apply is absent.
pub type Values = BTreeMap<Metric, f64>;

/// What a metric is computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole run.
    Run,
    /// One stream or session, and (as stated in the meaning) the whole run.
    Source,
    /// One processor, and (summed or averaged as stated) the whole run.
    Processor,
}

/// Unit of a metric's value, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A fraction from 0 to 1, shown as a percentage.
    Fraction,
    /// Milliseconds.
    Ms,
    /// Per second.
    PerSecond,
    /// Megabytes (10^6 bytes).
    Mb,
    /// Joules.
    Joule,
    /// Watts.
    Watt,
    /// Degrees Celsius.
    Celsius,
    /// A score without a unit.
    Score,
}

impl Unit {
    /// The unit as shown beside a name, empty without one.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Count | Self::Score => "",
            Self::Fraction => "%",
            Self::Ms => "ms",
            Self::PerSecond => "1/s",
            Self::Mb => "MB",
            Self::Joule => "J",
            Self::Watt => "W",
            Self::Celsius => "°C",
        }
    }

    /// The value as shown, without the symbol: percentages are multiplied by 100.
    pub fn format(self, value: f64) -> String {
        match self {
            Self::Count | Self::Mb => format!("{value:.0}"),
            Self::Celsius => format!("{value:.1}"),
            Self::Fraction => format!("{:.2}", value * 100.0),
            Self::Ms if value.abs() >= 1000.0 => format!("{value:.0}"),
            Self::Ms if value.abs() >= 100.0 => format!("{value:.1}"),
            Self::Ms | Self::PerSecond | Self::Joule | Self::Watt => format!("{value:.2}"),
            Self::Score => format!("{value:.3}"),
        }
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Smaller values.
    Lower,
    /// Larger values.
    Higher,
    /// Neither; the value explains others.
    Neutral,
}

macro_rules! metrics {
    ($($variant:ident = $name:literal, $short:literal, $unit:ident, $scope:ident, $better:ident, $meaning:literal;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Metric {
            $(#[doc = $meaning] $variant,)*
        }

        impl Metric {
            /// All metrics in the order of the reference page.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Name in files and on the command line.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name),* } }
            /// Short name for table headings.
            pub fn short(self) -> &'static str { match self { $(Self::$variant => $short),* } }
            /// Unit.
            pub fn unit(self) -> Unit { match self { $(Self::$variant => Unit::$unit),* } }
            /// What it is computed for.
            pub fn scope(self) -> Scope { match self { $(Self::$variant => Scope::$scope),* } }
            /// Which way is better.
            pub fn better(self) -> Better { match self { $(Self::$variant => Better::$better),* } }
            /// What it means.
            pub fn meaning(self) -> &'static str { match self { $(Self::$variant => $meaning),* } }
        }
    };
}

metrics! {
    Jobs = "jobs", "jobs", Count, Source, Neutral, "Jobs released after the warm-up.";
    Done = "done", "done", Count, Source, Neutral, "Jobs finished by the end of the run, on time or late.";
    Dropped = "dropped", "dropped", Count, Source, Lower, "Jobs given up by a drop rule, a full queue or the policy.";
    Unfinished = "unfinished", "unfin.", Count, Source, Lower, "Jobs still going on at the end of the run.";
    Judged = "judged", "judged", Count, Source, Neutral, "Jobs with a deadline or goals that the run could judge: done, dropped, or unfinished and past saving (past the deadline, without a first token past the TTFT goal, or with tokens so late that the TPOT goal is out of reach).";
    Violations = "violations", "viol.", Count, Source, Lower, "Judged jobs that were dropped, missed their deadline or missed a goal (TTFT, TPOT).";
    ViolationRate = "violation_rate", "violations", Fraction, Source, Lower, "Violations / judged jobs; over the whole run, all jobs count alike.";
    MeanViolationRate = "mean_violation_rate", "mean viol.", Fraction, Run, Lower, "Mean of the violation rates of the sources that have a deadline or goals: every source counts alike.";
    DropRate = "drop_rate", "dropped", Fraction, Source, Lower, "Dropped jobs / jobs.";
    ResponseMean = "response_mean", "mean", Ms, Source, Lower, "Mean time from nominal release to completion, over done jobs.";
    ResponseP50 = "response_p50", "p50", Ms, Source, Lower, "Median response time of done jobs.";
    ResponseP95 = "response_p95", "p95", Ms, Source, Lower, "95th percentile of the response time of done jobs.";
    ResponseP99 = "response_p99", "p99", Ms, Source, Lower, "99th percentile of the response time of done jobs.";
    ResponseMax = "response_max", "max", Ms, Source, Lower, "Longest response time of done jobs.";
    TardinessMean = "tardiness_mean", "tard. mean", Ms, Source, Lower, "Mean of max(0, completion - deadline) over done jobs with a deadline.";
    TardinessP99 = "tardiness_p99", "tard. p99", Ms, Source, Lower, "99th percentile of the tardiness of done jobs with a deadline.";
    TardinessMax = "tardiness_max", "tard. max", Ms, Source, Lower, "Largest tardiness of done jobs with a deadline.";
    CompletionJitter = "completion_jitter", "jitter", Ms, Source, Lower, "Standard deviation of the response time: how unevenly results of a periodic stream come out.";
    TtftMean = "ttft_mean", "TTFT mean", Ms, Source, Lower, "Mean time from nominal release to the first token of the chain's last language model stage.";
    TtftP50 = "ttft_p50", "TTFT p50", Ms, Source, Lower, "Median time to first token.";
    TtftP95 = "ttft_p95", "TTFT p95", Ms, Source, Lower, "95th percentile of the time to first token.";
    TtftMax = "ttft_max", "TTFT max", Ms, Source, Lower, "Longest time to first token.";
    TpotMean = "tpot_mean", "TPOT", Ms, Source, Lower, "Mean over requests of the mean time per output token after the first.";
    TpotP95 = "tpot_p95", "TPOT p95", Ms, Source, Lower, "95th percentile over requests of the mean time per output token after the first.";
    Tokens = "tokens", "tokens", Count, Source, Higher, "Output tokens generated.";
    Tps = "tps", "tokens/s", PerSecond, Source, Higher, "Output tokens per second of the measured time.";
    SloAttainment = "slo_attainment", "SLO", Fraction, Source, Higher, "Judged requests of sessions with goals that met all of them: TTFT, TPOT and deadline.";
    Goodput = "goodput", "goodput", PerSecond, Source, Higher, "Jobs per second that met their deadline and all goals.";
    Throughput = "throughput", "done/s", PerSecond, Source, Higher, "Best-effort sources: jobs finished per second of the measured time. They have no deadline and count in no violation rate.";
    Work = "work", "work", Ms, Source, Higher, "Best-effort sources: processor time that the work done would have taken alone, of unfinished jobs too.";
    ReactionMean = "reaction_mean", "reaction", Ms, Source, Lower, "Sources whose outputs are chunks of actions: mean time from the observation (the nominal release) to the first action of its chunk that is executed.";
    ReactionP95 = "reaction_p95", "reaction p95", Ms, Source, Lower, "95th percentile of the time from observation to action.";
    ReactionMax = "reaction_max", "reaction max", Ms, Source, Lower, "Longest time from observation to action.";
    Starvation = "starvation", "starved", Fraction, Source, Lower, "Sources whose outputs are chunks of actions: times at which an action was due and there was none / times at which one was due, since the first chunk.";
    Recomputed = "recomputed", "recomp.", Count, Source, Lower, "Tokens in caches that were evicted to be computed again; absent if no cache had to leave memory. Caches that are given up between two requests of a conversation are not counted.";
    SwappedOut = "swapped_out", "swapped out", Mb, Source, Lower, "Caches moved to slower memory; absent if no cache had to leave memory.";
    SwappedIn = "swapped_in", "swapped in", Mb, Source, Lower, "Caches read back from slower memory when their stage started again; absent if no cache had to leave memory. What a stage fetches in each step while its cache stays there is not counted.";
    SwapTime = "swap_time", "swap time", Ms, Source, Lower, "Time in which the link to slower memory moved caches out and back; absent if no cache had to leave memory.";
    Utilisation = "utilisation", "util.", Fraction, Processor, Neutral, "Busy time, setup included, over slots (of a divided processor: units) x time; over the whole run, the mean of the processors.";
    ContentionLoss = "contention_loss", "contention", Fraction, Processor, Lower, "Share of busy time lost because the memory bus was shared; over the whole run, of all busy time.";
    SetupShare = "setup_share", "setup", Fraction, Processor, Lower, "Share of busy time spent on context switches, loading and hand-over.";
    Preemptions = "preemptions", "preempt.", Count, Processor, Neutral, "Runs ended early because the policy preempted them.";
    PreemptionCost = "preemption_cost", "preempt. cost", Ms, Processor, Lower, "Time that the processor spent on taking preempted work off.";
    PeakMemory = "peak_memory", "peak mem.", Mb, Run, Lower, "Most memory in use at any time: weights, caches and activations.";
    Energy = "energy", "energy", Joule, Processor, Lower, "Energy of the work done plus idle power x idle time; absent where neither the profile nor the platform states power.";
    AveragePower = "average_power", "power", Watt, Processor, Lower, "Energy / time.";
    PeakTemperature = "peak_temperature", "peak temp.", Celsius, Processor, Lower, "Highest temperature; over the whole run, of the hottest processor. Absent where no temperature is modelled.";
    ThrottledShare = "throttled_share", "throttled", Fraction, Processor, Lower, "Time in which heat kept the processor from its fastest operating point / time; over the whole run, of the processor that was throttled longest.";
    MeanSpeed = "mean_speed", "speed", Score, Processor, Neutral, "Speed of the operating points over time relative to the one that profiles were taken at; over the whole run, the mean of the processors that have several.";
    Quality = "quality", "quality", Score, Source, Higher, "Mean quality score of the model variants that ran, where published; absent where scores of different kinds would be mixed.";
    RelativeQuality = "relative_quality", "rel. quality", Score, Source, Higher, "Mean quality of the variants that ran, relative to the best one that the stage may run: score / best score where larger is better, best score / score where smaller is. Over completions of stages that have a choice; 1: the best ran every time.";
    Degraded = "degraded", "degraded", Fraction, Source, Neutral, "Completions in another variant than the default one / completions, over stages that have a choice of variants.";
    Fairness = "fairness", "fairness", Score, Run, Higher, "Jain's index of the sources' shares of jobs that met their deadline: 1 is even.";
    XrbenchScore = "xrbench_score", "XRBench", Score, Run, Higher, "XRBench score, corrected form: mean over sources of (mean over executed jobs of real-time score x energy score) x frames executed / frames; 0 to 100.";
    XrbenchRepoScore = "xrbench_repo_score", "XRBench repo", Score, Run, Higher, "XRBench score as its public repository computes it: dropped frames penalised twice, energy score not clamped; 0 to 100.";
    UxCost = "ux_cost", "UXCost", Score, Run, Lower, "DREAM's UXCost as recalled (form not verified): sum over models of violation rate x sum over models of energy / worst-case energy.";
}

impl Metric {
    /// The metric with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|metric| metric.name() == name)
    }

    /// The value as shown, with the unit's symbol.
    pub fn show(self, value: f64) -> String {
        let unit = self.unit();
        let space = if unit.symbol().is_empty() || unit == Unit::Fraction { "" } else { " " };
        format!("{}{space}{}", unit.format(value), unit.symbol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_as_serialised() {
        let mut seen = std::collections::BTreeSet::new();
        for &metric in Metric::ALL {
            assert!(seen.insert(metric.name()), "{} twice", metric.name());
            let json = serde_json::to_string(&metric).expect("an enum serialises");
            assert_eq!(json, format!("\"{}\"", metric.name()));
            assert_eq!(Metric::by_name(metric.name()), Some(metric));
        }
    }
}
