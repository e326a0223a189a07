//! Which variants of their models stages ran under one policy.

use onbeat_core::metric::{Metric, Unit};
use serde::Serialize;

use crate::model::{Comparison, PolicyRow};

/// One variant of one stage.
#[derive(Serialize)]
pub(super) struct VariantRow {
    source: String,
    stage: String,
    model: String,
    score: String,
    relative: String,
    share: String,
}

/// The variants of every stage that has a choice, with their shares as means over seeds.
pub(super) fn variants(comparison: &Comparison, row: &PolicyRow) -> Vec<VariantRow> {
    let mut rows = Vec::new();
    for (i, source) in comparison.system.sources.iter().enumerate() {
        let Some(first) = row.runs.first().and_then(|run| run.sources.get(i)) else { continue };
        for (k, variant) in first.variants.iter().enumerate() {
            let shares = row.runs.iter().filter_map(|run| Some(run.sources.get(i)?.variants.get(k)?.share));
            let (sum, count) = shares.fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
            let none = || "–".to_owned();
            rows.push(VariantRow {
                source: source.name.clone(),
                stage: variant.stage.clone(),
                model: variant.model.clone(),
                score: variant.quality.as_ref().map_or_else(none, |(name, value)| format!("{name} {value}")),
                relative: variant
                    .relative_quality
                    .map_or_else(none, |value| Metric::RelativeQuality.unit().format(value)),
                share: format!("{} %", Unit::Fraction.format(sum / f64::max(count, 1.0))),
            });
        }
    }
    rows
}
