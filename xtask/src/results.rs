//! `cargo xtask results`: all policies on all shipped scenarios, as a page and as a table for other programs.

mod data;
mod findings;
mod measure;
mod page;

use std::time::Instant;

use crate::results::data::Results;

/// Seeds per policy, scenario and platform when the command line does not say: as many as `onbeat compare` runs.
pub(crate) const DEFAULT_SEEDS: u32 = 20;

/// The page.
const PAGE: &str = "docs/results.md";
/// Every cell of the matrix; the page shows the accelerators' cells summed up.
const TABLE: &str = "docs/results.csv";

/// Builds, runs, and writes both files.
pub(crate) fn run(seeds: u32) -> Result<(), String> {
    let programs = measure::build()?;
    let start = Instant::now();
    let (cells, left_out) = measure::matrix(&programs, seeds)?;
    let losses = measure::losses(&programs, &cells, seeds)?;
    let costs = measure::decision_costs(&programs)?;
    let results = Results { cells, losses, costs, left_out, seeds, seconds: start.elapsed().as_secs_f64() };
    for (path, text) in [(PAGE, page::render(&results)), (TABLE, page::csv(&results))] {
        std::fs::write(path, text).map_err(|problem| format!("cannot write {path}: {problem}"))?;
        println!("wrote {path}");
    }
    println!("{:.0} s, without building", results.seconds);
    Ok(())
}
