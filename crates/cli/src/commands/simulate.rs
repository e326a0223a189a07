//! `onbeat simulate`: one scenario under one policy.

use std::time::Instant;

use onbeat_report::Report;
use onbeat_sim::Outcome;

use crate::args::SimulateArgs;
use crate::failure::Failure;
use crate::plan;
use crate::present;
use crate::run::{self, Run};
use crate::ui::Ui;

/// Simulates and prints.
pub(crate) fn run(args: &SimulateArgs, ui: Ui) -> Result<(), Failure> {
    let system = plan::one_system(&args.scenario, args.platform.as_deref(), &args.system)?;
    let run =
        Run { system: &system, policy: &args.policy, seed: args.seed, keep_until: None, record: args.record.clone() };
    let start = Instant::now();
    let done = run::one(&run)?;
    let Outcome { jobs, decisions, .. } = done.outcome;
    ui.note(&format!("{jobs} jobs with {decisions} decisions simulated in {:.2} s", start.elapsed().as_secs_f64()));
    let report: Report = present::single(system.clone(), &args.policy, done.summary);
    ui.print(&present::ran(&report, "simulated", args.format, ui))?;
    if let Some(path) = &args.record {
        ui.note(&format!("Record: {} (render it with `onbeat report {0}`)", path.display()));
    }
    Ok(())
}
