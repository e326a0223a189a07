//! One module per command.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod estimate;
pub(crate) mod list;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod simulate;
