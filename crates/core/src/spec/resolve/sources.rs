//! Streams and sessions: when their jobs arrive, and what is asked of them.

use std::collections::BTreeMap;

use crate::distribution::Distribution;
use crate::id::{Id, NodeId};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::files::{ReadFile, beside};
use crate::spec::limits;
use crate::spec::trace::{TraceWindow, read_trace};
use crate::spec::{
    ActionsSpec, ArrivalProcess, ArrivalSpec, DropRule, ModelShape, ScenarioSpec, SessionSpec, StreamSpec,
};
use crate::system::{Actions, Arrival, Source, Text};
use crate::units::Nanos;

use super::chains::{self, Chain};
use super::distribution::{self, DELAY_MS, TOKENS};
use super::figures::Sources;
use super::models::Catalogue;

/// Priority of sessions that have none: below all streams, and below all priorities that a file may give.
pub(super) const SESSION_PRIORITY: i32 = -1_000_000;

/// Priority of idle-time work: below everything else.
const BEST_EFFORT_PRIORITY: i32 = 2 * SESSION_PRIORITY;

/// A stream or session with its chain; the stages are not numbered yet.
#[derive(Debug)]
pub(super) struct PlannedSource<'a> {
    /// As the system has it, without stages.
    pub source: Source,
    /// Where it stands in the file.
    pub field: Field,
    /// The chain that each job runs through.
    pub chain: Chain<'a>,
    /// Prompt length of stages that have none of their own.
    pub prompt: Option<Distribution>,
    /// Output length of stages that have none of their own.
    pub output: Option<Distribution>,
    /// What a robot does with the outputs.
    pub actions: Option<ActionsSpec>,
}

impl PlannedSource<'_> {
    /// What a robot does with the outputs, if the source's first stage becomes node number `first`.
    pub(super) fn actions(&self, first: usize) -> Option<Actions> {
        let spec = self.actions.as_ref()?;
        let stage = |name: &String| self.chain.stages.iter().position(|stage| &stage.spec.name == name);
        Some(Actions {
            count: spec.count,
            period: Nanos::from_ms(spec.period_ms),
            first: spec.first.as_ref().and_then(stage).map(|stage| NodeId::new(first + stage)),
        })
    }
}

/// Checks a chunk of actions.
fn check_actions(check: &mut Check<'_>, at: &Field, spec: &ActionsSpec, chain: Option<&Chain<'_>>) {
    check.number(at, "count", f64::from(spec.count), &limits::ACTIONS);
    check.number(at, "period_ms", spec.period_ms, &limits::PERIOD_MS);
    if let (Some(first), Some(chain)) = (&spec.first, chain)
        && !chain.stages.iter().any(|stage| &stage.spec.name == first)
    {
        check.unknown(&at.key("first"), "stage", first, chain.stages.iter().map(|stage| stage.spec.name.as_str()));
    }
}

/// What streams and sessions are resolved against.
#[derive(Clone, Copy)]
pub(super) struct Around<'a, 'c> {
    /// The scenario.
    pub scenario: &'c ScenarioSpec,
    /// Its chains; `None` for those that are wrong.
    pub chains: &'c BTreeMap<String, Option<Chain<'a>>>,
    /// All models.
    pub catalogue: &'c Catalogue<'a>,
    /// Reads traces.
    pub files: &'c dyn ReadFile,
}

/// All streams, then all sessions, in the order of the file.
pub(super) fn resolve<'a>(check: &mut Check<'_>, around: Around<'a, '_>) -> Vec<PlannedSource<'a>> {
    let scenario = around.scenario;
    let root = Field::root();
    let count = scenario.stream.len() + scenario.session.len();
    if count == 0 || count > limits::SOURCES_MAX {
        let help = format!("a scenario has 1 to {} `[[stream]]` and `[[session]]`", limits::SOURCES_MAX);
        check.wrong(&root, format!("there are {count} streams and sessions"), help);
        return Vec::new();
    }
    let streams = scenario.stream.iter().enumerate().map(|(i, s)| (root.key("stream").index(i), s.name.as_str()));
    let sessions = scenario.session.iter().enumerate().map(|(i, s)| (root.key("session").index(i), s.name.as_str()));
    check.distinct("streams or sessions", streams.chain(sessions).map(|(field, name)| (field.key("name"), name)));
    let mut planned = Vec::new();
    for (i, spec) in scenario.stream.iter().enumerate() {
        planned.extend(stream(check, &root.key("stream").index(i), spec, around));
    }
    for (i, spec) in scenario.session.iter().enumerate() {
        planned.extend(session(check, &root.key("session").index(i), spec, around));
    }
    set_priorities(&mut planned, scenario);
    planned
}

/// Rate-monotonic priorities for streams that have none: −1 for the shortest period, −2 for the next one, and so on (equal periods,
/// equal priorities; without a period last). Whoever writes a priority ≥ 0 thus goes before all who write none.
fn set_priorities(planned: &mut [PlannedSource<'_>], scenario: &ScenarioSpec) {
    let given: BTreeMap<&str, i32> = scenario
        .stream
        .iter()
        .map(|s| (s.name.as_str(), s.priority))
        .chain(scenario.session.iter().map(|s| (s.name.as_str(), s.priority)))
        .filter_map(|(name, priority)| priority.map(|priority| (name, priority)))
        .collect();
    let period = |source: &Source| source.period().unwrap_or(Nanos::MAX);
    let mut periods: Vec<Nanos> =
        planned.iter().filter(|p| !p.source.session && !p.source.best_effort).map(|p| period(&p.source)).collect();
    periods.sort_unstable();
    periods.dedup();
    for PlannedSource { source, .. } in planned {
        if source.best_effort {
            // Below every other priority there is.
            source.priority = BEST_EFFORT_PRIORITY;
            continue;
        }
        let rank = periods.partition_point(|&other| other < period(source));
        let rank = i32::try_from(rank).expect("the number of streams is limited");
        let default = if source.session { SESSION_PRIORITY } else { -1 - rank };
        source.priority = given.get(source.name.as_str()).copied().unwrap_or(default);
    }
}

/// What streams and sessions have in common.
struct Common<'s> {
    name: &'s str,
    chain: Option<&'s str>,
    model: Option<&'s str>,
    deadline_ms: Option<f64>,
    priority: Option<i32>,
    best_effort: bool,
    drop: DropRule,
    queue: Option<u32>,
    count: Option<u64>,
    during: &'s [String],
    source: Option<&'s str>,
}

fn stream<'a>(
    check: &mut Check<'_>,
    at: &Field,
    spec: &StreamSpec,
    around: Around<'a, '_>,
) -> Option<PlannedSource<'a>> {
    let before = check.errors.len();
    let common = Common {
        name: &spec.name,
        chain: spec.chain.as_deref(),
        model: spec.model.as_deref(),
        deadline_ms: spec.deadline_ms,
        priority: spec.priority,
        best_effort: spec.best_effort,
        drop: spec.drop,
        queue: spec.queue,
        count: spec.count,
        during: &spec.during,
        source: spec.source.as_deref(),
    };
    let (chain, active) = check_common(check, at, &common, around);
    let arrival = stream_arrival(check, at, spec, around.files);
    if let Some(actions) = &spec.actions {
        check_actions(check, &at.key("actions"), actions, chain.as_ref());
    }
    let known = &around.scenario.content;
    let content = spec.content.as_ref().and_then(|name| {
        let found = known.get_index_of(name);
        if found.is_none() {
            check.unknown(&at.key("content"), "content", name, known.keys().map(String::as_str));
        }
        found.and_then(|index| u32::try_from(index).ok())
    });
    let jitter = spec.jitter_ms.as_ref().and_then(|d| distribution::resolve(check, &at.key("jitter_ms"), d, DELAY_MS));
    if check.errors.len() > before {
        return None;
    }
    let (chain, arrival) = (chain?, arrival?);
    // Periodic streams are due before the next activation; of sporadic ones nothing is asked that the file does not ask.
    let period = match arrival {
        Arrival::Periodic { period, .. } => Some(period),
        _ => None,
    };
    let deadline = spec.deadline_ms.or(chain.deadline_ms).map(Nanos::from_ms).or(period);
    let deadline = deadline.filter(|_| !spec.best_effort);
    let source = Source {
        name: spec.name.clone(),
        session: false,
        arrival,
        jitter,
        deadline,
        ttft: None,
        tpot: None,
        priority: 0,
        drop: spec.drop,
        queue: spec.queue,
        overflow: spec.overflow,
        active,
        count: spec.count,
        nodes: 0..0,
        shortest: Nanos::ZERO,
        text: Text::default(),
        best_effort: spec.best_effort,
        actions: None,
        content,
    };
    Some(PlannedSource { source, field: at.clone(), chain, prompt: None, output: None, actions: spec.actions.clone() })
}

fn session<'a>(
    check: &mut Check<'_>,
    at: &Field,
    spec: &SessionSpec,
    around: Around<'a, '_>,
) -> Option<PlannedSource<'a>> {
    let before = check.errors.len();
    let common = Common {
        name: &spec.name,
        chain: spec.chain.as_deref(),
        model: spec.model.as_deref(),
        deadline_ms: spec.deadline_ms,
        priority: spec.priority,
        best_effort: spec.best_effort,
        drop: spec.drop,
        queue: spec.queue,
        count: spec.count,
        during: &spec.during,
        source: spec.source.as_deref(),
    };
    let (chain, active) = check_common(check, at, &common, around);
    let arrival = arrival(check, &at.key("arrival"), &spec.arrival, around.files);
    let prompt = spec.prompt.as_ref().and_then(|d| distribution::resolve(check, &at.key("prompt"), d, TOKENS));
    let output = spec.output.as_ref().and_then(|d| distribution::resolve(check, &at.key("output"), d, TOKENS));
    check.optional(at, "ttft_ms", spec.ttft_ms, &limits::DEADLINE_MS);
    check.optional(at, "tpot_ms", spec.tpot_ms, &limits::DEADLINE_MS);
    for (key, _) in [("ttft_ms", spec.ttft_ms), ("tpot_ms", spec.tpot_ms)]
        .into_iter()
        .filter(|(_, goal)| spec.best_effort && goal.is_some())
    {
        check.wrong(&at.key(key), format!("`{key}` does not go with `best_effort`"), NO_GOALS);
    }
    let given = [
        ("prompt", spec.prompt.is_some()),
        ("output", spec.output.is_some()),
        ("ttft_ms", spec.ttft_ms.is_some()),
        ("tpot_ms", spec.tpot_ms.is_some()),
        ("conversation", spec.conversation.is_some()),
        ("predictor_sigma", spec.predictor_sigma.is_some()),
        ("predictor", spec.predictor.is_some()),
    ];
    check.optional(at, "conversation", spec.conversation.map(f64::from), &limits::TOKENS);
    check.optional(at, "predictor_sigma", spec.predictor_sigma, &limits::SIGMA);
    if spec.predictor.is_some() && spec.predictor_sigma.is_some() {
        check.wrong(&at.key("predictor"), "`predictor` does not go with `predictor_sigma`", "leave one of them out");
    }
    if let Some(chain) = &chain {
        let tokens =
            |stage: &chains::Stage<'_>| stage.candidates.iter().any(|m| m.spec.shape == ModelShape::Autoregressive);
        let generative = chain.stages.iter().any(tokens);
        for (key, _) in given.iter().filter(|(_, given)| *given && !generative) {
            let problem = format!("`{key}` has no use: no model of `{}` is autoregressive", chain.name);
            check.wrong(&at.key(key), problem, "leave it out, or use a language model");
        }
    }
    if check.errors.len() > before {
        return None;
    }
    let (chain, arrival) = (chain?, arrival?);
    let source = Source {
        name: spec.name.clone(),
        session: true,
        arrival,
        jitter: None,
        deadline: spec.deadline_ms.or(chain.deadline_ms).map(Nanos::from_ms).filter(|_| !spec.best_effort),
        ttft: spec.ttft_ms.map(Nanos::from_ms),
        tpot: spec.tpot_ms.map(Nanos::from_ms),
        priority: 0,
        drop: spec.drop,
        queue: spec.queue,
        overflow: spec.overflow,
        active,
        count: spec.count,
        nodes: 0..0,
        shortest: Nanos::ZERO,
        text: Text {
            conversation: spec.conversation,
            predictor: spec.predictor_sigma,
            learns: spec.predictor.is_some(),
        },
        best_effort: spec.best_effort,
        actions: None,
        content: None,
    };
    Some(PlannedSource { source, field: at.clone(), chain, prompt, output, actions: None })
}

/// What best effort means.
const NO_GOALS: &str = "idle-time work has neither deadline nor goals and gives way to all other work";

type Active = Vec<(Nanos, Nanos)>;

fn check_common<'a>(
    check: &mut Check<'_>,
    at: &Field,
    common: &Common<'_>,
    around: Around<'a, '_>,
) -> (Option<Chain<'a>>, Active) {
    check.name(&at.key("name"), common.name);
    check.optional(at, "deadline_ms", common.deadline_ms, &limits::DEADLINE_MS);
    check.optional(at, "priority", common.priority.map(f64::from), &limits::PRIORITY);
    check.optional(at, "queue", common.queue.map(f64::from), &limits::QUEUE);
    check.optional(at, "count", common.count.map(|count| count as f64), &limits::COUNT);
    if common.best_effort {
        let given = [
            ("deadline_ms", common.deadline_ms.is_some()),
            ("priority", common.priority.is_some()),
            ("drop", common.drop != DropRule::None),
        ];
        for (key, _) in given.into_iter().filter(|&(_, given)| given) {
            check.wrong(&at.key(key), format!("`{key}` does not go with `best_effort`"), NO_GOALS);
        }
    }
    if let Some(key) = common.source {
        let sources = Sources { table: &around.scenario.source, inline: true };
        sources.check_key(check, &at.key("source"), "source", Some(key));
    }
    let chain = match (common.chain, common.model) {
        (Some(name), None) => {
            let chain = around.chains.get(name);
            if chain.is_none() {
                check.unknown(&at.key("chain"), "chain", name, around.chains.keys().map(String::as_str));
            }
            chain.cloned().flatten()
        }
        (None, Some(model)) => chains::of_model(check, at, model, around.catalogue),
        (Some(_), Some(_)) => {
            check.wrong(&at.key("model"), "both `chain` and `model` are given", "give one of them");
            None
        }
        (None, None) => {
            check.wrong(at, "neither `chain` nor `model` is given", "say what each job runs");
            None
        }
    };
    (chain, active(check, &at.key("during"), common.during, around.scenario))
}

/// The phases of use in order of time; those that touch or overlap become one.
fn active(check: &mut Check<'_>, at: &Field, during: &[String], scenario: &ScenarioSpec) -> Active {
    let mut periods: Active = Vec::new();
    for (i, name) in during.iter().enumerate() {
        match scenario.phase.iter().find(|phase| &phase.name == name) {
            Some(phase) => {
                periods.push((Nanos::from_secs(phase.start_s), Nanos::from_secs(phase.end_s)));
            }
            None => check.unknown(&at.index(i), "phase", name, scenario.phase.iter().map(|p| p.name.as_str())),
        }
    }
    periods.sort_unstable();
    let mut merged: Active = Vec::new();
    for (start, end) in periods {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn stream_arrival(check: &mut Check<'_>, at: &Field, spec: &StreamSpec, files: &dyn ReadFile) -> Option<Arrival> {
    let fine = check.optional(at, "fps", spec.fps, &limits::RATE_PER_S)
        & check.optional(at, "period_ms", spec.period_ms, &limits::PERIOD_MS)
        & check.number(at, "phase_ms", spec.phase_ms, &limits::OFFSET_MS);
    let period = match (spec.fps, spec.period_ms, &spec.arrival) {
        (Some(fps), None, None) => Nanos::from_secs(1.0 / fps),
        (None, Some(ms), None) => Nanos::from_ms(ms),
        (None, None, Some(spec_arrival)) => {
            if spec.phase_ms != 0.0 {
                check.wrong(&at.key("phase_ms"), "`phase_ms` does not go with `arrival`", "use `arrival.start_s`");
            }
            return arrival(check, &at.key("arrival"), spec_arrival, files);
        }
        (None, None, None) => {
            check.wrong(
                at,
                "neither `fps`, `period_ms` nor `arrival` is given",
                "say when jobs arrive with one of them",
            );
            return None;
        }
        (Some(_), Some(_), _) => {
            check.wrong(&at.key("period_ms"), "both `fps` and `period_ms` are given", "give one of them");
            return None;
        }
        (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
            check.wrong(&at.key("arrival"), "`arrival` does not go with `fps` or `period_ms`", "give one of them");
            return None;
        }
    };
    fine.then_some(Arrival::Periodic { first: Nanos::from_ms(spec.phase_ms), period })
}

fn arrival(check: &mut Check<'_>, at: &Field, spec: &ArrivalSpec, files: &dyn ReadFile) -> Option<Arrival> {
    let before = check.errors.len();
    check.optional(at, "rate_per_s", spec.rate_per_s, &limits::RATE_PER_S);
    check.optional(at, "period_s", spec.period_s, &limits::PERIOD_S);
    check.optional(at, "cv", spec.cv, &limits::VARIATION_COEFFICIENT);
    check.number(at, "start_s", spec.start_s, &limits::TIME_S);
    check.number(at, "from_s", spec.from_s, &limits::TIME_S);
    check.optional(at, "to_s", spec.to_s, &limits::TIME_S);
    check.optional(at, "speed", spec.speed, &limits::SPEED);
    check.optional(at, "max_prompt", spec.max_prompt.map(f64::from), &limits::TOKENS);
    check.optional(at, "max_output", spec.max_output.map(f64::from), &limits::TOKENS);
    if let Some(to) = spec.to_s
        && to <= spec.from_s
    {
        check.wrong(
            &at.key("to_s"),
            format!("to_s {to} is not after from_s {}", spec.from_s),
            "the window must have a length",
        );
    }
    let (name, needed, more): (_, &[&str], &[&str]) = match spec.process {
        ArrivalProcess::Periodic => ("periodic", &["period_s"], &[]),
        ArrivalProcess::Poisson => ("poisson", &["rate_per_s"], &[]),
        ArrivalProcess::Gamma => ("gamma", &["rate_per_s", "cv"], &[]),
        ArrivalProcess::Trace => ("trace", &["file"], &["from_s", "to_s", "speed", "max_prompt", "max_output"]),
    };
    for key in ["rate_per_s", "period_s", "cv", "file", "from_s", "to_s", "speed", "max_prompt", "max_output"] {
        let given = check.document.has(&at.key(key));
        if needed.contains(&key) && !given {
            check.wrong(at, format!("`{key}` is missing"), format!("`{name}` arrivals need: {}", needed.join(", ")));
        } else if given && !needed.contains(&key) && !more.contains(&key) {
            let list = [needed, more].concat().join(", ");
            check.wrong(
                &at.key(key),
                format!("`{key}` does not belong to `{name}` arrivals"),
                format!("they have: {list}, start_s"),
            );
        }
    }
    if check.errors.len() > before {
        return None;
    }
    let start = Nanos::from_secs(spec.start_s);
    Some(match spec.process {
        ArrivalProcess::Periodic => Arrival::Periodic { first: start, period: Nanos::from_secs(spec.period_s?) },
        ArrivalProcess::Poisson => Arrival::Poisson { start, rate_per_s: spec.rate_per_s? },
        ArrivalProcess::Gamma => Arrival::Gamma { start, rate_per_s: spec.rate_per_s?, cv: spec.cv? },
        ArrivalProcess::Trace => {
            let path = beside(check.document.file(), spec.file.as_deref()?);
            let text = match files.read(&path) {
                Ok(text) => text,
                Err(error) => {
                    check.wrong(
                        &at.key("file"),
                        format!("`{path}` cannot be read: {error}"),
                        "the path is relative to the scenario's file",
                    );
                    return None;
                }
            };
            match read_trace(&path, &text, &TraceWindow::of(spec)) {
                Ok(requests) if requests.is_empty() => {
                    check.wrong(
                        &at.key("file"),
                        "no request of the trace lies within the window",
                        "widen `from_s` and `to_s`",
                    );
                    return None;
                }
                Ok(requests) => Arrival::Trace { requests },
                Err(errors) => {
                    check.errors.extend(errors.errors);
                    return None;
                }
            }
        }
    })
}
