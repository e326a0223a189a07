//! Where figures come from: every figure of a platform and of a cost entry has a source.

use indexmap::IndexMap;

use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{ProvenanceKind, SourceSpec};
use crate::system::Figure;

/// What counts as the source of figures that a scenario gives inline without naming one.
const INLINE: &str = "given inline in the scenario";

/// The sources of one file, and whether its figures may do without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    /// The file's `[source]` table.
    pub table: &'a IndexMap<String, SourceSpec>,
    /// Whether the figures stand in a scenario.
    pub inline: bool,
}

impl Sources<'_> {
    /// Checks the table itself: published and measured sources say where, analytical ones how.
    pub(super) fn check_table(&self, check: &mut Check<'_>, root: &Field) {
        for (key, source) in self.table {
            let at = root.key("source").key(key);
            let (needed, given, what) = match source.kind {
                ProvenanceKind::Published => ("from", &source.from, "who published it, and which version"),
                ProvenanceKind::Measured => ("from", &source.from, "machine, date and software versions"),
                ProvenanceKind::Analytical => ("formula", &source.formula, "the formula"),
            };
            if given.as_ref().is_none_or(|text| text.trim().is_empty()) {
                let problem = format!("a source of kind `{}` does not say `{needed}`", source.kind.name());
                check.wrong(&at, problem, format!("add `{needed}`: {what}"));
            }
        }
    }

    /// Checks a key of the table that a figure refers to; a missing key is fine inline only.
    pub(super) fn check_key(&self, check: &mut Check<'_>, field: &Field, figure: &str, key: Option<&str>) {
        match key {
            Some(key) if !self.table.contains_key(key) => {
                check.unknown(field, "source", key, self.table.keys().map(String::as_str));
            }
            None if !self.inline => {
                check.wrong(
                    field,
                    format!("`{figure}` has no source"),
                    "every figure needs one: name a key of `[source]`",
                );
            }
            _ => {}
        }
    }

    /// The figure behind a key.
    pub(super) fn figure(&self, what: String, key: Option<&str>, row: Option<&str>) -> Figure {
        match key.and_then(|key| self.table.get(key)) {
            Some(source) => Figure { what, kind: source.kind, source: describe(source, row) },
            None => Figure { what, kind: ProvenanceKind::Analytical, source: INLINE.to_owned() },
        }
    }
}

/// A `provenance` table: every key names a figure that there is, every value a source.
pub(super) fn check_provenance(
    check: &mut Check<'_>,
    entry: &Field,
    provenance: &IndexMap<String, String>,
    figures: &[&str],
    sources: Sources<'_>,
) {
    for (figure, key) in provenance {
        let at = entry.key("provenance").key(figure);
        if figures.contains(&figure.as_str()) {
            sources.check_key(check, &at, figure, Some(key));
        } else {
            check.unknown(&at, "figure", figure, figures.iter().copied());
        }
    }
}

/// A source in one line.
fn describe(source: &SourceSpec, row: Option<&str>) -> String {
    let mut parts: Vec<String> = Vec::new();
    match source.kind {
        ProvenanceKind::Analytical => {
            parts.extend(source.formula.clone());
            parts.extend(source.inputs.as_ref().map(|inputs| format!("inputs: {inputs}")));
        }
        ProvenanceKind::Published | ProvenanceKind::Measured => {
            parts.extend(source.from.clone());
            parts.extend(source.page.clone());
            parts.extend(source.runs.map(|runs| format!("{runs} runs")));
        }
    }
    parts.extend(row.map(str::to_owned));
    let mut text = parts.join("; ");
    if let Some(note) = &source.note {
        text.push_str(". Note: ");
        text.push_str(note);
    }
    text
}
