//! Where a figure comes from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A source of figures, declared once per file under a key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// How the figures were obtained.
    pub kind: ProvenanceKind,
    /// `published`: who published it and which version. `measured`: machine, date and software versions.
    pub from: Option<String>,
    /// `published`: the page or path within the source.
    pub page: Option<String>,
    /// `measured`: how many runs.
    pub runs: Option<u32>,
    /// `analytical`: the formula.
    pub formula: Option<String>,
    /// `analytical`: the formula's inputs and where they come from.
    pub inputs: Option<String>,
    /// Licence of the source, where it has one.
    pub licence: Option<String>,
    /// Caveats that a reader of results should know.
    pub note: Option<String>,
}

/// How a figure was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProvenanceKind {
    /// By us, on a machine.
    Measured,
    /// By others, in a public source.
    Published,
    /// By a formula.
    Analytical,
}

impl ProvenanceKind {
    /// The name as written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Published => "published",
            Self::Analytical => "analytical",
        }
    }
}
