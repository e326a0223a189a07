//! The bounds within which every number of a file lies. They are far beyond anything real: they keep sums within 64 bits and
//! turn a slip of the keyboard into a message.

/// A range of allowed values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Smallest value.
    pub least: f64,
    /// Whether the smallest value itself is excluded.
    pub open: bool,
    /// Largest value.
    pub most: f64,
    /// Unit for people; may be empty.
    pub unit: &'static str,
}

impl Limit {
    const fn between(least: f64, most: f64, unit: &'static str) -> Self {
        Self { least, open: false, most, unit }
    }

    const fn from_zero(most: f64, unit: &'static str) -> Self {
        Self { least: 0.0, open: false, most, unit }
    }

    /// Whether the value is finite and within the range.
    pub(crate) fn allows(&self, value: f64) -> bool {
        value <= self.most && if self.open { value > self.least } else { value >= self.least }
    }

    /// The range in words.
    pub(crate) fn describe(&self) -> String {
        let sign = if self.open { '>' } else { '≥' };
        let unit = if self.unit.is_empty() { String::new() } else { format!(" [{}]", self.unit) };
        format!("must be {sign} {} and ≤ {}{unit}", self.least, self.most)
    }
}

pub(crate) const DURATION_S: Limit = Limit { least: 0.0, open: true, most: 30.0 * 86400.0, unit: "s" };
pub(crate) const TIME_S: Limit = Limit::from_zero(30.0 * 86400.0, "s");
pub(crate) const RATE_PER_S: Limit = Limit::between(1e-6, 1e6, "1/s");
pub(crate) const PERIOD_MS: Limit = Limit::between(1e-3, 1e9, "ms");
pub(crate) const PERIOD_S: Limit = Limit::between(1e-6, 1e6, "s");
pub(crate) const DEADLINE_MS: Limit = Limit { least: 0.0, open: true, most: 30.0 * 86_400_000.0, unit: "ms" };
pub(crate) const OFFSET_MS: Limit = Limit::from_zero(30.0 * 86_400_000.0, "ms");
pub(crate) const LATENCY_MS: Limit = Limit::between(1e-6, 86_400_000.0, "ms");
pub(crate) const STEP_MS: Limit = Limit::between(1e-6, 3_600_000.0, "ms");
pub(crate) const OVERHEAD_MS: Limit = Limit::from_zero(86_400_000.0, "ms");
pub(crate) const OVERHEAD_US: Limit = Limit::from_zero(1e9, "µs");
pub(crate) const POWER_W: Limit = Limit::from_zero(1e6, "W");
pub(crate) const POWER_CAP_W: Limit = Limit { least: 0.0, open: true, most: 1e6, unit: "W" };
/// Profiles are taken at the fastest point, so that no job can be faster than its shortest profiled latency.
pub(crate) const POINT_SPEED: Limit = Limit::between(1e-6, 1.0, "");
pub(crate) const VOLTS: Limit = Limit { least: 0.0, open: true, most: 1e3, unit: "V" };
pub(crate) const CELSIUS: Limit = Limit::between(-100.0, 1000.0, "°C");
pub(crate) const RESISTANCE_K_PER_W: Limit = Limit { least: 0.0, open: true, most: 1e6, unit: "K/W" };
pub(crate) const CAPACITANCE_J_PER_K: Limit = Limit::between(1e-6, 1e9, "J/K");
pub(crate) const LEAKAGE_PER_K: Limit = Limit::from_zero(10.0, "1/K");
pub(crate) const STEP_OF_THROTTLE_MS: Limit = Limit::between(1.0, 1e6, "ms");
pub(crate) const GOVERNOR_PERIOD_MS: Limit = Limit::between(0.1, 1e6, "ms");
pub(crate) const ENERGY_MJ: Limit = Limit::from_zero(1e12, "mJ");
pub(crate) const MEMORY_GB: Limit = Limit::between(1e-6, 1e6, "GB");
pub(crate) const BANDWIDTH_GBPS: Limit = Limit::between(1e-3, 1e6, "GB/s");
pub(crate) const SIZE_MB: Limit = Limit::from_zero(1e7, "MB");
pub(crate) const SIZE_KB: Limit = Limit::from_zero(1e9, "kB");
pub(crate) const KV_KB: Limit = Limit::from_zero(1e6, "kB");
pub(crate) const TOKENS: Limit = Limit::between(1.0, 1e6, "tokens");
pub(crate) const TOKENS_FROM_ZERO: Limit = Limit::from_zero(1e6, "tokens");
/// Content that makes an inference more or less work.
pub(crate) const CONTENT_WORK: Limit = Limit::between(0.01, 100.0, "");
pub(crate) const SCENE_S: Limit = Limit::between(1e-3, 30.0 * 86400.0, "s");
pub(crate) const SHARE: Limit = Limit::between(1e-6, 1.0, "");
pub(crate) const ELEMENTS: Limit = Limit { least: 0.0, open: true, most: 1e15, unit: "elements" };
pub(crate) const FAN_OUT: Limit = Limit::from_zero(1024.0, "instances");
pub(crate) const STEPS: Limit = Limit::between(1.0, 10_000.0, "steps");
pub(crate) const POINTS: Limit = Limit::between(1.0, 100_000.0, "points");
pub(crate) const DRAFT: Limit = Limit::between(1.0, 64.0, "tokens");
pub(crate) const SEGMENTS: Limit = Limit::between(1.0, 100_000.0, "segments");
pub(crate) const LAYER_GROUPS: Limit = Limit::between(1.0, 100_000.0, "groups");
pub(crate) const BATCH: Limit = Limit::between(1.0, 1024.0, "requests");
pub(crate) const FACTOR: Limit = Limit::between(1.0, 1e6, "");
pub(crate) const EFFICIENCY: Limit = Limit::between(1e-3, 1.0, "");
pub(crate) const WEIGHT: Limit = Limit::between(1e-9, 1e9, "");
pub(crate) const SPEED: Limit = Limit::between(1e-6, 1e6, "");
pub(crate) const PROBABILITY: Limit = Limit::from_zero(1.0, "");
pub(crate) const VARIATION_COEFFICIENT: Limit = Limit::between(1e-3, 100.0, "");
pub(crate) const SIGMA: Limit = Limit::from_zero(5.0, "");
pub(crate) const SPREAD: Limit = Limit::from_zero(10.0, "");
pub(crate) const PEAK_TOPS: Limit = Limit { least: 0.0, open: true, most: 1e9, unit: "10^12/s" };
pub(crate) const LAYERS: Limit = Limit::between(1.0, 100_000.0, "layers");
pub(crate) const WIDTH: Limit = Limit::between(1.0, 1e8, "");
pub(crate) const BITS: Limit = Limit::between(1.0, 64.0, "bits");
pub(crate) const GMACS: Limit = Limit { least: 0.0, open: true, most: 1e9, unit: "10^9" };
pub(crate) const UNITS: Limit = Limit::between(1.0, 64.0, "");
pub(crate) const REPEATS: Limit = Limit::between(2.0, 16.0, "times");
pub(crate) const ADAPTER_MB: Limit = Limit { least: 0.0, open: true, most: 1e7, unit: "MB" };
pub(crate) const EXPERTS: Limit = Limit::between(1.0, 65_536.0, "experts");
pub(crate) const SKEW: Limit = Limit::between(0.0, 5.0, "");
pub(crate) const ACTIONS: Limit = Limit::between(1.0, 1e5, "actions");
pub(crate) const QUEUE: Limit = Limit::between(1.0, 1e6, "jobs");
pub(crate) const COUNT: Limit = Limit::between(1.0, 1e12, "jobs");
pub(crate) const PRIORITY: Limit = Limit { least: -999_999.0, open: false, most: 999_999.0, unit: "" };

/// The most processors of a platform, after counting identical ones.
pub(crate) const PROCESSORS_MAX: usize = 256;
/// The most stages of a chain.
pub(crate) const STAGES_MAX: usize = 1024;
/// The most other variants of a stage.
pub(crate) const VARIANTS_MAX: usize = 32;
/// The most stages of all chains of all streams and sessions.
pub(crate) const NODES_MAX: usize = 65_536;
/// The most streams and sessions.
pub(crate) const SOURCES_MAX: usize = 16_384;
/// The most classes of content.
pub(crate) const CLASSES_MAX: usize = 32;
/// The most points of a table.
pub(crate) const POINTS_MAX: usize = 10_000;
/// The most stage instances of one job, when every edge fans out as far as it can.
pub(crate) const INSTANCES_MAX: f64 = 1e6;
/// The most requests of a trace.
pub(crate) const REQUESTS_MAX: usize = 10_000_000;
/// The longest stage, by its largest size [ns]: a year.
pub(crate) const STAGE_NS_MAX: f64 = 365.0 * 86_400e9;
/// The longest name.
pub(crate) const NAME_MAX: usize = 200;
