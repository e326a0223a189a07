//! `onbeat check`: whether scenarios fit their platforms, and what no policy could do.
//!
//! # JSON
//! `{"checks": […]}`, one entry per scenario and platform: `scenario`, `platform`, `result` (`checked`, `wrong` or `skipped`), `problems`
//! (sentences), `errors` (of pairs that do not fit) or `details` (of those that do). Details are: `system_hash`, `stages`; per source its
//! goals, `jobs_per_s`, `shortest_ms` (fastest possible response), `load_fastest`, `load_on` by processor, `violation_rate_min` (what no
//! policy can avoid) and `response_times` by policy (`bound_ms` or `no_bound`, and `simulated_max_ms`); per processor its `load_fastest`;
//! `load_total`, and `load_total_lightest` in the fastest variants, where stages have a choice; the lower bounds; `provenance` (number of figures by kind); `warnings` and `assumptions`. Loads and rates are fractions.

mod files;
mod text;

use onbeat_analysis::bound::{LowerBound, lower_bound};
use onbeat_analysis::offered::{OfferedLoad, offered_load};
use onbeat_analysis::response_time::{NoBound, Order};
use onbeat_core::id::SourceId;
use onbeat_core::metric::Metric;
use onbeat_core::spec::{ProvenanceKind, SpecErrors};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::analyse;
use crate::args::{CheckArgs, PlainFormat};
use crate::failure::Failure;
use crate::plan::{self, Candidate};
use crate::run::{self, Run};
use crate::ui::Ui;

/// Seed of the simulations beside the response-time bounds.
const SEED: u64 = 1;

/// The orders of jobs for which there are response-time bounds, with the policies that follow them.
const ORDERS: [(Order, &str); 2] = [(Order::FixedPriority, "fixed-priority"), (Order::Edf, "edf")];

/// What was found out about a scenario on a platform.
#[derive(Debug)]
struct Finding {
    system: System,
    load: OfferedLoad,
    bound: LowerBound,
    orders: Vec<OrderFinding>,
}

/// Response times under one order of jobs.
#[derive(Debug)]
struct OrderFinding {
    policy: &'static str,
    /// Bound of each source, or why there is none.
    bounds: Vec<Result<Nanos, NoBound>>,
    /// Longest simulated response time of each source [ms], with `--simulate`.
    simulated_ms: Vec<Option<f64>>,
}

/// What was found out about a pair.
#[derive(Debug)]
enum Outcome {
    Found(Box<Finding>),
    /// They are meant to fit and do not.
    Wrong(SpecErrors),
    /// They do not fit, and nobody said so.
    Skipped(SpecErrors),
}

/// A scenario and a platform, with what was found out.
#[derive(Debug)]
struct Checked {
    scenario: String,
    platform: String,
    outcome: Outcome,
}

/// Checks, prints what was found, and fails if that is a problem.
pub(crate) fn run(args: &CheckArgs, ui: Ui) -> Result<(), Failure> {
    let (others, scenarios) = files::split(&args.scenarios)?;
    for file in &others {
        ui.print(&file.check(&args.system)?)?;
    }
    if scenarios.is_empty() {
        return Ok(());
    }
    let mut candidates = plan::candidates(&scenarios, &args.platforms, &args.system)?;
    // A single pair that is wrong is simply a wrong file, and shown as such.
    if candidates.len() == 1
        && let Some(Candidate { resolved: Err(_), .. }) = candidates.first()
        && let Some(Candidate { resolved: Err(errors), .. }) = candidates.pop()
    {
        return Err(crate::disk::Disk::default().failure(errors));
    }
    let several = candidates.len() > 1;
    let checked: Vec<Checked> =
        candidates.into_par_iter().map(|c| check(c, args.simulate)).collect::<Result<_, _>>()?;
    match args.format {
        PlainFormat::Table => {
            let mut parts = Vec::new();
            // One scenario is shown in full on its first platform; many would scroll away.
            if (!several || scenarios.len() == 1) && !args.platforms.iter().any(|name| name == plan::ALL) {
                parts.extend(checked.iter().find_map(|c| c.finding()).map(|finding| text::full(finding, ui)));
            }
            if several {
                parts.push(text::overview(&checked, ui));
            }
            ui.print(&parts.join("\n"))?;
        }
        PlainFormat::Json => {
            let list: Vec<Value> = checked.iter().map(Checked::to_json).collect();
            ui.print(&serde_json::to_string_pretty(&json!({ "checks": list })).expect("plain data"))?;
        }
    }
    let problems = checked.iter().map(|c| c.problems().len()).sum::<usize>();
    match problems {
        0 => Ok(()),
        1 => Err(Failure::Problems("1 problem found".to_owned())),
        n => Err(Failure::Problems(format!("{n} problems found"))),
    }
}

fn check(candidate: Candidate, simulate: bool) -> Result<Checked, Failure> {
    let Candidate { scenario, platform, meant, resolved } = candidate;
    let outcome = match resolved {
        Ok(system) => Outcome::Found(Box::new(find(system, simulate)?)),
        Err(errors) if meant => Outcome::Wrong(errors),
        Err(errors) => Outcome::Skipped(errors),
    };
    Ok(Checked { scenario, platform, outcome })
}

fn find(system: System, simulate: bool) -> Result<Finding, Failure> {
    let order = |(order, policy): (Order, &'static str)| {
        let simulated_ms = if simulate { simulated_maxima(&system, policy)? } else { Vec::new() };
        Ok(OrderFinding { policy, bounds: analyse::response_bounds(&system, order), simulated_ms })
    };
    let orders = ORDERS.into_iter().map(order).collect::<Result<_, Failure>>()?;
    Ok(Finding { load: offered_load(&system), bound: lower_bound(&system), orders, system })
}

fn simulated_maxima(system: &System, policy: &str) -> Result<Vec<Option<f64>>, Failure> {
    let done = run::one(&Run { system, policy, seed: SEED, keep_until: None, record: None })?;
    Ok(done.summary.sources.iter().map(|source| source.values.get(&Metric::ResponseMax).copied()).collect())
}

impl Checked {
    fn finding(&self) -> Option<&Finding> {
        match &self.outcome {
            Outcome::Found(finding) => Some(finding),
            Outcome::Wrong(_) | Outcome::Skipped(_) => None,
        }
    }

    /// What is wrong, a sentence each.
    fn problems(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Found(finding) => finding.problems(),
            Outcome::Wrong(errors) => vec![plan::one_line(errors)],
            Outcome::Skipped(_) => Vec::new(),
        }
    }

    fn to_json(&self) -> Value {
        let mut object = json!({ "scenario": self.scenario, "platform": self.platform, "problems": self.problems() });
        match &self.outcome {
            Outcome::Found(finding) => {
                object["platform"] = json!(finding.system.platform.name);
                object["result"] = json!("checked");
                object["details"] = finding.to_json();
            }
            Outcome::Wrong(errors) => {
                object["result"] = json!("wrong");
                object["errors"] = json!(errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
            Outcome::Skipped(errors) => {
                object["result"] = json!("skipped");
                object["errors"] = json!(errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
        }
        object
    }
}

impl Finding {
    /// What is wrong, a sentence each: what no policy can do, and bounds that the simulation disproves.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.bound.binding.clone();
        let unavoidable = self.bound.violation_rate > 0.0 || self.bound.mean_violation_rate > 0.0;
        if unavoidable && problems.is_empty() {
            problems.push("some deadlines must be missed".to_owned());
        }
        for order in &self.orders {
            for ((bound, simulated), source) in order.bounds.iter().zip(&order.simulated_ms).zip(&self.system.sources) {
                // Half a nanosecond of rounding is no contradiction.
                if let (Ok(bound), Some(simulated)) = (bound, simulated)
                    && *simulated > bound.as_ms() + 1e-6
                {
                    problems.push(format!(
                        "{}: {simulated} ms under {}, beyond its bound of {bound}: a defect of onbeat, please report it",
                        source.name, order.policy
                    ));
                }
            }
        }
        problems
    }

    /// How many figures the system rests on, by provenance.
    fn provenance(&self) -> Vec<(ProvenanceKind, usize)> {
        [ProvenanceKind::Measured, ProvenanceKind::Published, ProvenanceKind::Analytical]
            .into_iter()
            .map(|kind| (kind, self.system.figures.iter().filter(|figure| figure.kind == kind).count()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn to_json(&self) -> Value {
        let system = &self.system;
        let processors: Vec<Value> = system
            .platform
            .processors
            .enumerate()
            .map(|(id, processor)| json!({ "name": processor.name, "load_fastest": self.load.fastest[id] }))
            .collect();
        let provenance: Vec<Value> =
            self.provenance().into_iter().map(|(kind, figures)| json!({ "kind": kind, "figures": figures })).collect();
        let mut details = json!({
            "system_hash": system.hash(),
            "stages": system.nodes.len(),
            "sources": system.sources.ids().map(|id| self.source_json(id)).collect::<Vec<_>>(),
            "processors": processors,
            "load_total": self.load.total,
            "violation_rate_min": self.bound.violation_rate,
            "mean_violation_rate_min": self.bound.mean_violation_rate,
            "in_expectation": self.bound.in_expectation,
            "provenance": provenance,
            "warnings": system.warnings,
            "assumptions": system.assumptions,
        });
        if let Some(lightest) = self.load.lightest {
            details["load_total_lightest"] = json!(lightest);
        }
        details
    }

    fn source_json(&self, id: SourceId) -> Value {
        let source = &self.system.sources[id];
        let index = onbeat_core::id::Id::index(id);
        let load = &self.load.sources[index];
        let on: serde_json::Map<String, Value> = self
            .system
            .platform
            .processors
            .enumerate()
            .map(|(p, processor)| (processor.name.clone(), json!(load.on[p])))
            .collect();
        let orders: serde_json::Map<String, Value> = self
            .orders
            .iter()
            .map(|order| {
                let bound = &order.bounds[index];
                let value = json!({
                    "bound_ms": bound.as_ref().ok().map(|bound| bound.as_ms()),
                    "no_bound": bound.as_ref().err().map(ToString::to_string),
                    "simulated_max_ms": order.simulated_ms.get(index).copied().flatten(),
                });
                (order.policy.to_owned(), value)
            })
            .collect();
        json!({
            "name": source.name,
            "jobs_per_s": load.jobs_per_s,
            "deadline_ms": source.deadline.map(Nanos::as_ms),
            "ttft_goal_ms": source.ttft.map(Nanos::as_ms),
            "tpot_goal_ms": source.tpot.map(Nanos::as_ms),
            "shortest_ms": source.shortest.as_ms(),
            "load_fastest": load.fastest,
            "load_on": on,
            "violation_rate_min": self.bound.sources[id].violation_rate,
            "response_times": orders,
        })
    }
}
