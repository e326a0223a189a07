//! Which metrics matter for a comparison: the columns of its table.

use onbeat_core::metric::{Better, Metric};

use crate::model::{Comparison, PolicyRow, Statistic};

/// What a column is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The whole run.
    Run,
    /// A stream or session, by number.
    Source(usize),
    /// A processor, by number.
    Processor(usize),
}

/// A column of the table of policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What is shown.
    pub metric: Metric,
    /// Of what.
    pub place: Place,
    /// Name of the stream or processor, empty for the whole run.
    pub of: String,
    /// Whether to show the confidence interval beside the mean.
    pub interval: bool,
    /// Columns with the largest number go first when space is short.
    pub expendable: u32,
}

impl Column {
    /// The policy's value, if it has one.
    pub fn value<'a>(&self, row: &'a PolicyRow) -> Option<&'a Statistic> {
        match self.place {
            Place::Run => row.run.get(&self.metric),
            Place::Source(i) => row.sources.get(i)?.get(&self.metric),
            Place::Processor(i) => row.processors.get(i)?.get(&self.metric),
        }
    }

    /// The best possible value, if known.
    pub fn bound(&self, comparison: &Comparison) -> Option<f64> {
        match self.place {
            Place::Run => comparison.bound.run.get(&self.metric).copied(),
            Place::Source(i) => comparison.bound.sources.get(i)?.get(&self.metric).copied(),
            Place::Processor(_) => None,
        }
    }

    /// First line of the heading.
    pub fn title(&self) -> &str {
        if self.of.is_empty() { self.metric.short() } else { &self.of }
    }

    /// Second line of the heading: the metric if the first line names something else, and the unit.
    pub fn subtitle(&self) -> String {
        let unit = self.metric.unit().symbol();
        match (self.of.is_empty(), unit.is_empty()) {
            (true, _) => unit.to_owned(),
            (false, true) => self.metric.short().to_owned(),
            (false, false) => format!("{} {unit}", self.metric.short()),
        }
    }

    /// Heading in one line, for people who hear it.
    pub fn label(&self) -> String {
        let of = if self.of.is_empty() { String::new() } else { format!("{} ", self.of) };
        let unit = self.metric.unit().symbol();
        let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
        format!("{of}{}{unit}", self.metric.short())
    }

    /// The mean as shown, without unit.
    pub fn format(&self, value: f64) -> String {
        match self.place {
            // A tenth of a per cent more or less of utilisation tells nobody anything.
            Place::Processor(_) if self.metric == Metric::Utilisation => {
                format!("{:.0}", value * 100.0)
            }
            _ => self.metric.unit().format(value),
        }
    }

    /// For each policy, whether it shows the best value. Nobody is marked where most show the same, or where no way is better.
    pub fn best(&self, rows: &[PolicyRow]) -> Vec<bool> {
        // What looks the same must be marked the same, so the shown values are compared.
        let shown: Vec<Option<(f64, String)>> =
            rows.iter().map(|row| self.value(row).map(|s| (s.mean, self.format(s.mean)))).collect();
        let values = || shown.iter().flatten().map(|(mean, _)| *mean).filter(|mean| mean.is_finite());
        let best = match self.metric.better() {
            Better::Lower => values().min_by(f64::total_cmp),
            Better::Higher => values().max_by(f64::total_cmp),
            Better::Neutral => None,
        };
        let Some(best) = best.map(|best| self.format(best)) else { return vec![false; rows.len()] };
        let marks: Vec<bool> =
            shown.iter().map(|value| value.as_ref().is_some_and(|(_, text)| *text == best)).collect();
        let marked = marks.iter().filter(|&&mark| mark).count();
        if marked * 2 > rows.len().max(2) || marked == rows.len() { vec![false; rows.len()] } else { marks }
    }
}

/// The columns that matter for this comparison, in the order to show. Only those for which some policy has a value.
pub fn columns(comparison: &Comparison) -> Vec<Column> {
    let column = |metric, place, of: &str, interval, expendable| Column {
        metric,
        place,
        of: of.to_owned(),
        interval,
        expendable,
    };
    let several = comparison.seeds() > 1;
    let mut columns: Vec<Column> = Vec::new();
    let mut run = |metric, interval, expendable| {
        columns.push(column(metric, Place::Run, "", interval, expendable));
    };
    let deciding = comparison.metric.or_else(|| comparison.default_metric());
    let rates = [Metric::MeanViolationRate, Metric::ViolationRate];
    if let Some(metric) = deciding {
        run(metric, several, 0);
    }
    for metric in rates.into_iter().filter(|&metric| Some(metric) != deciding) {
        run(metric, several, 1);
    }
    let has = |metric: Metric| comparison.rows.iter().any(|row| row.run.contains_key(&metric));
    if !rates.into_iter().any(has) {
        for metric in [Metric::ResponseMean, Metric::ResponseP99, Metric::ResponseMax] {
            if Some(metric) != deciding {
                run(metric, false, 2);
            }
        }
    }
    if let Some(tightest) = tightest(comparison) {
        let name = &comparison.system.sources.as_slice()[tightest].name;
        columns.push(column(Metric::ResponseP99, Place::Source(tightest), name, false, 2));
    }
    for (i, source) in comparison.system.sources.iter().enumerate() {
        let metrics = [(source.actions.is_some(), Metric::ReactionP95), (source.best_effort, Metric::Throughput)];
        for (_, metric) in metrics.into_iter().filter(|(applies, _)| *applies) {
            columns.push(column(metric, Place::Source(i), &source.name, false, 2));
        }
    }
    let mut run = |metric, expendable| columns.push(column(metric, Place::Run, "", false, expendable));
    run(Metric::RelativeQuality, 2);
    run(Metric::TtftP95, 3);
    run(Metric::TpotMean, 5);
    run(Metric::SloAttainment, 4);
    run(Metric::Recomputed, 5);
    run(Metric::SwapTime, 5);
    run(Metric::AveragePower, 6);
    if !has(Metric::AveragePower) {
        run(Metric::Energy, 6);
    }
    run(Metric::PeakTemperature, 6);
    run(Metric::ThrottledShare, 5);
    for (i, processor) in comparison.system.platform.processors.iter().enumerate() {
        columns.push(column(Metric::Utilisation, Place::Processor(i), &processor.name, false, 7 + i as u32));
    }
    columns.retain(|column| comparison.rows.iter().any(|row| column.value(row).is_some()));
    columns
}

/// The stream or session with the shortest deadline; streams before sessions.
pub fn tightest(comparison: &Comparison) -> Option<usize> {
    let sources = comparison.system.sources.iter().enumerate();
    sources
        .filter(|(_, source)| source.deadline.is_some())
        .min_by_key(|(_, source)| (source.session, source.deadline))
        .map(|(i, _)| i)
}
