//! Which policy to use and why, in plain words that follow from the figures.

use onbeat_core::metric::{Metric, Unit};
use onbeat_core::spec::ProvenanceKind;
use serde::{Deserialize, Serialize};

use crate::model::{Comparison, PolicyRow, Reason, Statistic, Verdict};

/// Above this rate of violations even the best policy does not serve the scenario.
const HOPELESS: f64 = 0.5;
/// Reasons for the lower bound that the text gives.
const REASONS: usize = 3;
/// Differences of a stream's violation rate below this explain nothing.
const TELLING: f64 = 0.002;

/// Advice derived from a comparison. Names are in backquotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The recommended policy; none if no policy is better than the others, or none ran.
    pub policy: Option<String>,
    /// The answer in one sentence.
    pub headline: String,
    /// Why, and what to know before relying on it.
    pub sentences: Vec<String>,
}

impl Advice {
    /// All of it as one paragraph.
    pub fn text(&self) -> String {
        let sentences = self.sentences.iter().map(String::as_str);
        std::iter::once(self.headline.as_str()).chain(sentences).collect::<Vec<_>>().join(" ")
    }
}

/// What to recommend, and why.
///
/// Expects a comparison that was judged: [`Comparison::judge`].
pub fn advise(comparison: &Comparison) -> Advice {
    let Some((best, others)) = comparison.rows.split_first() else {
        return Advice { headline: "No policy ran.".to_owned(), ..Advice::default() };
    };
    let Some((metric, value)) = comparison.metric.and_then(|metric| Some((metric, *best.run.get(&metric)?))) else {
        return Advice {
            headline:
                "No job was finished or judged, so there is nothing to compare; a longer run may help (`--duration`)."
                    .to_owned(),
            ..Advice::default()
        };
    };
    let case = Case { comparison, best, others, metric, value };
    let mut advice = case.headline();
    let rest = [
        case.alternatives(),
        case.cause(),
        case.bound(),
        case.worst_source(),
        case.busiest(),
        case.disagreement(),
        case.unfinished(),
        case.provenance(),
    ];
    advice.sentences.extend(rest.into_iter().flatten());
    advice
}

struct Case<'a> {
    comparison: &'a Comparison,
    best: &'a PolicyRow,
    others: &'a [PolicyRow],
    metric: Metric,
    value: Statistic,
}

impl Case<'_> {
    fn is_rate(&self) -> bool {
        matches!(self.metric, Metric::MeanViolationRate | Metric::ViolationRate)
    }

    fn perfect(&self, row: &PolicyRow) -> bool {
        self.is_rate() && row.mean(self.metric) == Some(0.0)
    }

    /// `misses 2.10% of its deadlines and goals`, or the same for a metric that is no rate.
    fn does(&self, row: &PolicyRow) -> String {
        let shown = row.run.get(&self.metric).map_or_else(|| "nothing known".to_owned(), |s| show(self.metric, *s));
        if self.perfect(row) {
            "meets every deadline and goal".to_owned()
        } else if self.is_rate() {
            format!("misses {shown} of deadlines and goals")
        } else {
            format!("has a {} of {shown}", name(self.metric))
        }
    }

    fn counting(&self) -> &'static str {
        if self.metric == Metric::MeanViolationRate && self.comparison.system.sources.len() > 1 {
            " (every stream and session counts alike)"
        } else {
            ""
        }
    }

    fn headline(&self) -> Advice {
        let best = &self.best.policy;
        let all = self.others.len() + 1;
        let does = self.does(self.best);
        let is_same = |row: &PolicyRow| row.verdict == Verdict::Same;
        let recommend = |headline: String| Advice { policy: Some(best.clone()), headline, sentences: Vec::new() };
        let no_deadlines = if self.is_rate() {
            ""
        } else {
            "No stream has a deadline or goal that was judged, so another figure decides. "
        };
        if self.others.is_empty() {
            return recommend(format!(
                "{no_deadlines}`{best}` {does}{}; no other policy was run to compare it with.",
                self.counting()
            ));
        }
        if self.others.iter().all(|row| self.perfect(row)) && self.perfect(self.best) {
            let extra = self.among_equals();
            return Advice {
                policy: extra.as_ref().map(|(policy, _)| policy.clone()),
                headline: format!("Any of the {all} policies will do: each meets every deadline and goal."),
                sentences: extra.into_iter().map(|(_, sentence)| sentence).collect(),
            };
        }
        if self.others.iter().all(is_same) {
            return Advice {
                policy: None,
                headline: format!(
                    "{no_deadlines}The choice of policy makes no difference here: each of the {all} {does}{}.",
                    self.counting()
                ),
                sentences: self.among_equals().into_iter().map(|(_, sentence)| sentence).collect(),
            };
        }
        if self.is_rate() && self.value.mean >= HOPELESS {
            return recommend(format!(
                "None of the {all} policies serves this scenario on this platform: even the best, `{best}`, {does}{}.",
                self.counting()
            ));
        }
        let rank = if self.perfect(self.best) {
            String::new()
        } else if self.is_rate() {
            format!(", the fewest of {all} policies{}", self.counting())
        } else {
            format!(", the best of {all} policies")
        };
        let near = self.others.iter().filter(|row| row.verdict == Verdict::WithinNoise).count();
        let doubt = match near {
            0 => String::new(),
            1 => "; one other is within the noise".to_owned(),
            n => format!("; {n} others are within the noise"),
        };
        recommend(format!("{no_deadlines}Use `{best}`: it {does}{rank}{doubt}."))
    }

    /// Among policies that meet every deadline: the one that answers fastest, and the one that needs least energy.
    fn among_equals(&self) -> Option<(String, String)> {
        let lowest = |metric: Metric| -> Option<(&PolicyRow, String)> {
            let rows = std::iter::once(self.best).chain(self.others);
            let mut means: Vec<(&PolicyRow, f64)> = rows.filter_map(|row| Some((row, row.mean(metric)?))).collect();
            means.sort_by(|a, b| a.1.total_cmp(&b.1));
            let &[(row, low), .., (_, high)] = means.as_slice() else { return None };
            // What shows as the same figure is no reason to prefer anybody.
            (metric.show(low) != metric.show(high))
                .then(|| (row, format!("{} ({} against up to {})", name(metric), metric.show(low), metric.show(high))))
        };
        let response = lowest(Metric::ResponseMean).or_else(|| lowest(Metric::ResponseP99));
        let energy = lowest(Metric::Energy).or_else(|| lowest(Metric::AveragePower));
        match (response, energy) {
            (Some((a, response)), Some((b, energy))) if a.policy == b.policy => Some((
                a.policy.clone(),
                format!("Among them `{}` has the lowest {response} and the lowest {energy}.", a.policy),
            )),
            (Some((a, response)), Some((b, energy))) => Some((
                a.policy.clone(),
                format!("Among them `{}` has the lowest {response}, `{}` the lowest {energy}.", a.policy, b.policy),
            )),
            (Some((row, text)), None) | (None, Some((row, text))) => {
                Some((row.policy.clone(), format!("Among them `{}` has the lowest {text}.", row.policy)))
            }
            (None, None) => None,
        }
    }

    /// The policies that come next, and whether the distance is noise.
    fn alternatives(&self) -> Option<String> {
        let with = |verdict: Verdict| self.others.iter().filter(move |row| row.verdict == verdict);
        let seeds = self.comparison.seeds();
        if self.others.is_empty() || self.others.iter().all(|row| row.verdict == Verdict::Same) {
            return None;
        }
        let mut parts = Vec::new();
        let same: Vec<&str> = with(Verdict::Same).map(|row| row.policy.as_str()).collect();
        if !same.is_empty() {
            let verb = if same.len() == 1 { "does" } else { "do" };
            parts.push(format!("{} {verb} exactly as well.", list(&same)));
        }
        let noise: Vec<&str> = with(Verdict::WithinNoise).map(|row| row.policy.as_str()).collect();
        if !noise.is_empty() {
            let verb = if noise.len() == 1 { "is" } else { "are" };
            parts.push(format!(
                "{} {verb} within the noise of {seeds} seeds, so the figures do not prove `{}` better; more seeds may (`--seeds {}`).",
                list(&noise),
                self.best.policy,
                (seeds * 4).max(10)
            ));
        }
        if let Some(next) = with(Verdict::Worse).next() {
            let beyond = next.difference.map_or_else(String::new, |difference| {
                format!(
                    "; the difference of {} is beyond the noise of {seeds} seeds",
                    show_difference(self.metric, difference)
                )
            });
            let next_word = if noise.is_empty() && same.is_empty() { "Next is" } else { "The next one is" };
            parts.push(format!("{next_word} `{}`, which {}{beyond}.", next.policy, self.does(next)));
        }
        if let Some(next) = with(Verdict::Unknown).next() {
            parts.push(format!(
                "Next is `{}`, which {}; with one {}, noise cannot be told from a difference{}.",
                next.policy,
                self.does(next),
                if self.comparison.real { "run" } else { "seed" },
                if self.comparison.real { "" } else { " (`--seeds 10`)" },
            ));
        }
        parts.extend(self.tail());
        Some(parts.join(" "))
    }

    /// The policies after the first that is really worse: the last of them, or that all do the same.
    fn tail(&self) -> Option<String> {
        let worse = |row: &&PolicyRow| matches!(row.verdict, Verdict::Worse | Verdict::Unknown);
        let mut worse = self.others.iter().filter(worse);
        let (next, last) = (worse.next()?, worse.next_back()?);
        let (does, last_does) = (self.does(next), self.does(last));
        let more = worse.count() + 1;
        Some(if does != last_does {
            format!("The last, `{}`, {last_does}.", last.policy)
        } else if more == 1 {
            format!("`{}` does no better.", last.policy)
        } else {
            format!("{more} more do no better.")
        })
    }

    /// The stream that makes most of the difference to the first policy that is really worse.
    fn cause(&self) -> Option<String> {
        let other = self.others.iter().find(|row| matches!(row.verdict, Verdict::Worse | Verdict::Unknown))?;
        let rate = |row: &PolicyRow, source| row.source_mean(source, Metric::ViolationRate);
        let gains =
            (0..self.comparison.system.sources.len()).filter_map(|i| Some((i, rate(other, i)? - rate(self.best, i)?)));
        let (source, gain) = gains.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        if gain < TELLING || self.comparison.system.sources.len() < 2 {
            return None;
        }
        Some(format!(
            "Most of the advantage over `{}` lies in `{}`: {} missed instead of {}.",
            other.policy,
            self.comparison.source_names()[source],
            Metric::ViolationRate.show(rate(self.best, source)?),
            Metric::ViolationRate.show(rate(other, source)?),
        ))
    }

    /// What no policy can beat, why, and how much is left to gain.
    fn bound(&self) -> Option<String> {
        if !self.is_rate() {
            return None;
        }
        let bound = self.comparison.bound.run.get(&self.metric).copied();
        let all = &self.comparison.bound.reasons;
        let mut reasons: Vec<String> = all.iter().take(REASONS).map(explain).collect();
        if all.len() > REASONS {
            reasons.push(format!("and {} more reasons", all.len() - REASONS));
        }
        let reasons = reasons.join("; ");
        match bound {
            Some(bound) if bound > 0.0 => {
                let why = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
                let left = (self.value.mean - bound).max(0.0);
                let left = if Unit::Fraction.format(left) == "0.00" {
                    format!("`{}` reaches it", self.best.policy)
                } else {
                    format!("at most {} points are left to gain", Unit::Fraction.format(left))
                };
                Some(format!("No policy can go below {}{why}; {left}.", self.metric.show(bound)))
            }
            Some(_) if self.value.mean > 0.0 => {
                Some("The analysis finds no deadline that must be missed, so a better policy may exist.".to_owned())
            }
            _ if !reasons.is_empty() => Some(format!("No policy can meet every deadline: {reasons}.")),
            _ => None,
        }
    }

    /// Where the recommended policy does worst.
    fn worst_source(&self) -> Option<String> {
        let system = &self.comparison.system;
        let rate = |i: usize| self.best.source_mean(i, Metric::ViolationRate);
        let rates = (0..system.sources.len()).filter_map(|i| Some((i, rate(i)?)));
        let (i, worst) = rates.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        if worst == 0.0 || system.sources.len() < 2 {
            return None;
        }
        let source = &system.sources.as_slice()[i];
        let kind = if source.session { "session" } else { "stream" };
        let shown = |metric: Metric| Some(metric.show(self.best.source_mean(i, metric)?));
        let mut parts = vec![format!("{} missed", Metric::ViolationRate.show(worst))];
        if self.best.source_mean(i, Metric::DropRate).is_some_and(|rate| rate > 0.0) {
            parts.extend(shown(Metric::DropRate).map(|rate| format!("{rate} dropped")));
        }
        if let (Some(deadline), Some(p99)) = (source.deadline, shown(Metric::ResponseP99)) {
            parts.push(format!("p99 of {p99} for a deadline of {deadline}"));
        } else if let (Some(goal), Some(p95)) = (source.ttft, shown(Metric::TtftP95)) {
            parts.push(format!("TTFT p95 of {p95} for a goal of {goal}"));
        }
        let (policy, name) = (&self.best.policy, &source.name);
        Some(format!("`{policy}` does worst on the {kind} `{name}`: {}.", parts.join(", ")))
    }

    fn busiest(&self) -> Option<String> {
        let processors = &self.comparison.system.platform.processors;
        let mut busy: Vec<(&str, f64)> = processors
            .iter()
            .enumerate()
            .filter_map(|(i, p)| Some((p.name.as_str(), self.best.processor_mean(i, Metric::Utilisation)?)))
            .collect();
        busy.sort_by(|a, b| b.1.total_cmp(&a.1));
        let ((name, most), others) = busy.split_first()?;
        let percent = |value: f64| format!("{:.0}%", value * 100.0);
        let others: Vec<String> = others.iter().map(|(name, value)| format!("`{name}` {}", percent(*value))).collect();
        let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        Some(format!("Under `{}`, `{name}` is the busiest processor at {}{others}.", self.best.policy, percent(*most)))
    }

    /// Says so when the other way of counting violations has another winner.
    fn disagreement(&self) -> Option<String> {
        let (other, how) = match self.metric {
            Metric::MeanViolationRate => (Metric::ViolationRate, "every job alike instead of every stream"),
            Metric::ViolationRate => (Metric::MeanViolationRate, "every stream alike instead of every job"),
            _ => return None,
        };
        let mine = self.best.mean(other)?;
        let (row, value) = self
            .others
            .iter()
            .filter_map(|row| Some((row, row.mean(other)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, value)| *value < mine && other.show(*value) != other.show(mine))?;
        Some(format!(
            "Counting {how}, `{}` misses fewer: {} against {}.",
            row.policy,
            other.show(value),
            other.show(mine)
        ))
    }

    fn unfinished(&self) -> Option<String> {
        let (jobs, unfinished) = (self.best.mean(Metric::Jobs)?, self.best.mean(Metric::Unfinished)?);
        (unfinished > 0.05 * jobs).then(|| {
            format!(
                "{} of its jobs were still unfinished at the end of the run: work piles up.",
                Metric::ViolationRate.show(unfinished / jobs)
            )
        })
    }

    fn provenance(&self) -> Option<String> {
        let share = analytical_share(self.best);
        (share > 0.0).then(|| {
            format!(
                "{:.0}% of the busy time rests on analytical figures, which nobody measured or published.",
                (share * 100.0).max(1.0)
            )
        })
    }
}

/// Mean share of the policy's busy time that rests on analytical figures.
pub(crate) fn analytical_share(row: &PolicyRow) -> f64 {
    share(row, ProvenanceKind::Analytical)
}

/// Mean share of the policy's busy time that rests on figures of a kind.
pub(crate) fn share(row: &PolicyRow, kind: ProvenanceKind) -> f64 {
    let of = |run: &onbeat_core::summary::Summary| -> f64 {
        run.provenance.iter().filter(|(k, _)| *k == kind).map(|(_, share)| share).sum()
    };
    // The sum of nothing is -0.0, which shows.
    row.runs.iter().map(of).sum::<f64>() / row.runs.len().max(1) as f64 + 0.0
}

/// One reason in words.
pub fn explain(reason: &Reason) -> String {
    let ms = |value: f64| Metric::ResponseMean.show(value);
    match reason {
        Reason::TooSlow { source, shortest_ms, deadline_ms } => format!(
            "`{source}` needs {} even alone on its fastest processors, for a deadline of {}",
            ms(*shortest_ms),
            ms(*deadline_ms)
        ),
        Reason::FirstTokenTooSlow { source, shortest_ms, goal_ms } => format!(
            "the first token of `{source}` takes {} even alone on its fastest processors, for a goal of {}",
            ms(*shortest_ms),
            ms(*goal_ms)
        ),
        Reason::TokensTooSlow { source, shortest_ms, goal_ms } => format!(
            "a token of `{source}` takes {} even alone on its fastest processor, for a goal of {}",
            ms(*shortest_ms),
            ms(*goal_ms)
        ),
        Reason::Stated { text } => text.trim_end_matches('.').to_owned(),
        Reason::Overload { load } => {
            format!("the work is {:.0}% of what the processors can do together", load * 100.0)
        }
    }
}

/// The mean with its interval and unit.
pub fn show(metric: Metric, value: Statistic) -> String {
    match value.half_width {
        Some(half_width) if metric.unit().format(half_width) != metric.unit().format(0.0) => {
            format!("{} ± {}", metric.show(value.mean), metric.unit().format(half_width))
        }
        _ => metric.show(value.mean),
    }
}

/// A difference with its interval; of percentages, in points.
fn show_difference(metric: Metric, value: Statistic) -> String {
    let unit = metric.unit();
    let half_width = value.half_width.map_or_else(String::new, |w| format!(" ± {}", unit.format(w)));
    let symbol = if unit == Unit::Fraction { "points" } else { unit.symbol() };
    format!("{}{half_width} {symbol}", unit.format(value.mean.abs())).trim_end().to_owned()
}

/// Name of a metric within a sentence.
fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::ResponseMean => "mean response time",
        Metric::ResponseP99 => "p99 response time",
        Metric::AveragePower => "average power",
        other => other.short(),
    }
}

/// `a`, `b` and `c`.
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
