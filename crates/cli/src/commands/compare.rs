//! `onbeat compare`: policies side by side, on one or several scenarios and platforms.

use std::path::PathBuf;
use std::time::Instant;

use onbeat_core::event::Event;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_report::{Comparison, Excerpt, PolicyRow, Report};
use rayon::prelude::*;

use crate::analyse;
use crate::args::{CompareArgs, DEFAULT_OUT, Format};
use crate::commands::report::write;
use crate::failure::Failure;
use crate::plan::{self, Plan, Skipped};
use crate::present;
use crate::run::{self, Done, Run};
use crate::ui::Ui;

/// Skipped pairs of one scenario that are listed one by one.
const LISTED_MAX: usize = 3;

/// Name of the report within its folder.
const REPORT: &str = "report.html";

/// Runs everything, prints the result and writes the report.
pub(crate) fn run(args: &CompareArgs, ui: Ui) -> Result<(), Failure> {
    let plan = plan::compare(args)?;
    tell_skipped(&plan, ui);
    let start = Instant::now();
    let runs = runs(&plan, args);
    let number = runs.len();
    let done = run::all(&runs, ui)?;
    let jobs: u64 = done.iter().map(|done| done.outcome.jobs).sum();
    ui.note(&format!("{number} runs with {jobs} jobs simulated in {:.1} s", start.elapsed().as_secs_f64()));
    let mut report = assemble(&plan, args, done);
    ui.print(&present::compared(&report, args.format, ui))?;

    let folder = match (&args.out, args.format) {
        (Some(folder), _) => Some(folder.clone()),
        (None, Format::Table) => Some(PathBuf::from(DEFAULT_OUT)),
        (None, Format::Json | Format::Csv) => None,
    };
    if let Some(folder) = folder {
        if plan.systems.len() > 1 {
            add_timelines_of_the_best(&mut report)?;
        }
        write(&folder.join(REPORT), present::html(&report)?.as_bytes(), ui)?;
    }
    if let Some(folder) = &args.record {
        ui.note(&format!("Wrote {number} records to {}", folder.display()));
    }
    let others = onbeat_policy::all().len() - onbeat_policy::STANDARD.len();
    if args.policies == ["standard"] && others > 0 {
        ui.note(&format!("{others} more policies: `--policy all`, or see `onbeat list policies`"));
    }
    Ok(())
}

/// Lists what was skipped: every pair, or, of scenarios that fit only few platforms, one pair for example.
fn tell_skipped(plan: &Plan, ui: Ui) {
    if plan.skipped.is_empty() {
        return;
    }
    let pairs = plan.skipped.len() + plan.systems.len();
    ui.note(&format!("{} of {pairs} pairs of scenario and platform are skipped:", plan.skipped.len()));
    for same in plan.skipped.chunk_by(|a, b| a.scenario == b.scenario) {
        let Some(first) = same.first() else { continue };
        if same.len() <= LISTED_MAX {
            for Skipped { scenario, platform, reason } in same {
                ui.note(&format!("  {scenario} on {platform}: {reason}"));
            }
        } else {
            let Skipped { scenario, platform, reason } = first;
            ui.note(&format!("  {scenario} on {} platforms, such as {platform}: {reason}", same.len()));
        }
    }
}

/// Every policy with every seed on every system, in this order: system, policy, seed.
fn runs<'a>(plan: &'a Plan, args: &CompareArgs) -> Vec<Run<'a>> {
    let several = plan.systems.len() > 1;
    let mut runs = Vec::new();
    for system in &plan.systems {
        let (_, to) = present::window(system);
        for policy in &plan.policies {
            for (i, &seed) in plan.seeds.iter().enumerate() {
                // Of many comparisons only the best policies get a timeline; they are not known yet.
                let keep_until = (i == 0 && !several).then_some(to);
                let record = args.record.as_ref().map(|folder| folder.join(record_name(system, policy, seed)));
                runs.push(Run { system, policy, seed, keep_until, record });
            }
        }
    }
    runs
}

/// `SCENARIO-PLATFORM-POLICY-SEED.jsonl`, with nothing in it that file systems refuse.
fn record_name(system: &System, policy: &str, seed: u64) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-._=,+".contains(c) { c } else { '_' };
    let name = format!("{}-{}-{policy}-{seed}.jsonl", system.scenario, system.platform.name);
    name.chars().map(plain).collect()
}

/// Puts the runs back together, in the order of [`runs`].
fn assemble(plan: &Plan, args: &CompareArgs, done: Vec<Done>) -> Report {
    let mut done = done.into_iter();
    let comparisons = plan.systems.iter().map(|system| {
        let (from, to) = present::window(system);
        let rows = plan.policies.iter().map(|policy| {
            let runs: Vec<Done> = done.by_ref().take(plan.seeds.len()).collect();
            policy_row(policy, runs, from, to)
        });
        let mut comparison = Comparison::new(system.clone(), rows.collect());
        analyse::complete(&mut comparison);
        comparison
    });
    Report {
        onbeat: env!("CARGO_PKG_VERSION").to_owned(),
        command: Some(plan::command_line(args)),
        comparisons: comparisons.collect(),
    }
}

/// Simulates the best policy of every comparison once more, for its timeline: keeping the events of all runs until the best is known
/// would take too much memory.
fn add_timelines_of_the_best(report: &mut Report) -> Result<(), Failure> {
    report.comparisons.par_iter_mut().try_for_each(|comparison| {
        let system = &comparison.system;
        let (from, to) = present::window(system);
        if let Some(best) = comparison.rows.first_mut()
            && let Some(seed) = best.runs.first().map(|run| run.seed)
        {
            let done = run::one(&Run { system, policy: &best.policy, seed, keep_until: Some(to), record: None })?;
            best.excerpt = excerpt(seed, done.events, from, to);
        }
        Ok(())
    })
}

fn policy_row(policy: &str, mut runs: Vec<Done>, from: Nanos, to: Nanos) -> PolicyRow {
    let first = runs.first_mut().map(|done| (done.summary.seed, std::mem::take(&mut done.events)));
    let mut row = present::row(policy, runs.into_iter().map(|done| done.summary).collect());
    row.excerpt = first.and_then(|(seed, events)| excerpt(seed, events, from, to));
    row
}

/// The beginning of a run, with the window to show of it. A run with more events than are kept ends the window early.
pub(crate) fn excerpt(seed: u64, events: Vec<Event>, from: Nanos, to: Nanos) -> Option<Excerpt> {
    let last = events.last()?.at;
    let (from, to) = if last < from { (last.saturating_sub(Nanos(to.0 - from.0)), last) } else { (from, to) };
    Some(Excerpt { seed, events, from, to })
}
