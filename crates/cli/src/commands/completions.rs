//! `onbeat completions`: a script that lets a shell complete commands and options.

use crate::args::{self, CompletionsArgs};
use crate::failure::Failure;
use crate::ui::Ui;

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs, ui: Ui) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "onbeat", &mut script);
    ui.print(&String::from_utf8_lossy(&script))
}
