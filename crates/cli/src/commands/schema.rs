//! `onbeat schema`: the JSON Schema of a specification file, for editors that complete and check TOML.

use onbeat_core::spec::{self, FileKind};

use crate::args::{SchemaArgs, SchemaKind};
use crate::failure::Failure;
use crate::ui::Ui;

/// Prints the schema.
pub(crate) fn run(args: &SchemaArgs, ui: Ui) -> Result<(), Failure> {
    let kind = match args.kind {
        SchemaKind::Platform => FileKind::Platform,
        SchemaKind::Profile => FileKind::Profile,
        SchemaKind::Scenario => FileKind::Scenario,
    };
    ui.print(&serde_json::to_string_pretty(&spec::schema(kind)).expect("a schema is JSON"))
}
