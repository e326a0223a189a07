//! The report as CSV in long form: one value per line, for spreadsheets, pandas and DuckDB.
//!
//! Columns: `scenario,platform,policy,seed,scope,name,metric,value`. `scope` is `run`, `source` or `processor`; `name` is that of the
//! source or processor, empty for the run. Values are as stored: rates are fractions, times are in milliseconds; the metrics'
//! reference has the units. Lines come in the order of comparisons, policies, seeds, scopes and metrics.

use onbeat_core::metric::Values;
use onbeat_core::summary::Summary;
use serde::Serialize;

use crate::model::Report;

#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    platform: &'a str,
    policy: &'a str,
    seed: u64,
    scope: &'a str,
    name: &'a str,
    metric: &'a str,
    value: f64,
}

/// The report as CSV with a heading line.
pub fn render(report: &Report) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for comparison in &report.comparisons {
        for run in comparison.rows.iter().flat_map(|row| &row.runs) {
            write_run(&mut writer, run);
        }
    }
    let bytes = writer.into_inner().expect("writing to memory succeeds");
    String::from_utf8(bytes).expect("only strings and numbers were written")
}

fn write_run(writer: &mut csv::Writer<Vec<u8>>, run: &Summary) {
    let mut write = |scope: &str, name: &str, values: &Values| {
        for (metric, value) in values {
            let line = Line {
                scenario: &run.scenario,
                platform: &run.platform,
                policy: &run.policy,
                seed: run.seed,
                scope,
                name,
                metric: metric.name(),
                value: *value,
            };
            writer.serialize(line).expect("writing to memory succeeds");
        }
    };
    write("run", "", &run.run);
    for source in &run.sources {
        write("source", &source.name, &source.values);
    }
    for processor in &run.processors {
        write("processor", &processor.name, &processor.values);
    }
}
