//! `onbeat show`: a shipped file's text, a policy's page, a model, a metric's meaning.

use crate::args::ShowArgs;
use crate::catalogue;
use crate::failure::{Failure, similar};
use crate::ui::Ui;

/// Prints the page.
pub(crate) fn run(args: &ShowArgs, ui: Ui) -> Result<(), Failure> {
    let pages = catalogue::pages(&args.name);
    if pages.is_empty() {
        let names = catalogue::names();
        let meant = similar(&args.name, names.iter().map(String::as_str));
        let help = if meant.is_empty() {
            "`onbeat list` shows all names".to_owned()
        } else {
            format!("did you mean {}? `onbeat list` shows all names", meant.join(", "))
        };
        return Err(Failure::usage(format!("there is nothing called `{}`", args.name), help));
    }
    ui.print(&pages.join("\n"))
}
