//! The command line of onbeat.
//!
//! [`args`] is what the user typed, as plain data; `plan` resolves names and files; each of the `commands` does one job and prints.
//! Results go to stdout, everything else to stderr. [`exit`] lists the exit codes.

pub mod args;
pub mod exit;

mod analyse;
mod catalogue;
mod commands;
mod disk;
mod failure;
mod live;
mod plan;
mod policies;
mod present;
mod profile;
mod run;
mod tables;
mod ui;

use std::ffi::OsString;

use clap::FromArgMatches;

pub use failure::Failure;

use args::{Cli, Command};
use exit::Exit;
use ui::Ui;

/// Runs the program with its command line, the program's name included.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let parsed = args::command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here as well, and go to stdout.
            let wrong = error.use_stderr();
            let _ = error.print();
            return if wrong { Exit::Usage } else { Exit::Success };
        }
    };
    let ui = Ui::new(&cli.global);
    match run(cli, ui) {
        Ok(()) => Exit::Success,
        Err(failure) => {
            let exit = failure.exit();
            if exit != Exit::Success {
                eprint!("{}", failure.render(ui.color_err));
            }
            exit
        }
    }
}

fn run(cli: Cli, ui: Ui) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(cli.global.threads))
        .thread_name(|i| format!("onbeat-run-{i}"))
        .build()
        .map_err(|error| Failure::Internal(format!("cannot start threads: {error}")))?;
    pool.install(|| match cli.command {
        Command::Compare(args) => commands::compare::run(&args, ui),
        Command::Simulate(args) => commands::simulate::run(&args, ui),
        Command::Run(args) => commands::run::run(&args, ui),
        Command::Replay(args) => commands::replay::run(&args, ui),
        Command::Profile(args) => commands::profile::run(&args, ui),
        Command::Models(args) => commands::models::run(&args, ui),
        Command::Doctor => commands::doctor::run(ui),
        Command::Check(args) => commands::check::run(&args, ui),
        Command::Estimate(args) => commands::estimate::run(&args, ui),
        Command::List(args) => commands::list::run(&args, ui),
        Command::Show(args) => commands::show::run(&args, ui),
        Command::Report(args) => commands::report::run(&args, ui),
        Command::Schema(args) => commands::schema::run(&args, ui),
        Command::Completions(args) => commands::completions::run(&args, ui),
    })
}
