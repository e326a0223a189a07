//! Why a command failed, how that is shown, and with which exit code.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use onbeat_core::record::RecordError;
use onbeat_core::spec::{SpecError, SpecErrors};
use onbeat_core::suggest::distance;
use thiserror::Error;

use crate::exit::Exit;
use crate::ui::{push, wrap};

/// Width of messages [columns].
const WIDTH: usize = 110;

/// Mistakes in files that are shown at once.
const MISTAKES_MAX: usize = 20;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The command line does not make sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: Option<String>,
    },
    /// A specification file is wrong, or a scenario does not fit its platform.
    #[error("{0}")]
    Spec(SpecErrors),
    /// A record file is wrong.
    #[error("{}: {problem}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: RecordError,
    },
    /// `check` found problems, which it has printed.
    #[error("{0}")]
    Problems(String),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// `read`, `write` or `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Results could not be written to stdout.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
    /// A policy asked for something impossible, or does not accept its parameters.
    #[error("{message}")]
    Policy {
        /// What is wrong; names the policy.
        message: String,
        /// What would be right.
        help: Option<String>,
    },
    /// A model or a device is not there, or does not work.
    #[error("{message}")]
    Device {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: Option<String>,
    },
    /// A replay decided differently from its record.
    #[error("{0}")]
    Differs(String),
    /// A defect of onbeat.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// The command line does not make sense.
    pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), help: Some(help.into()) }
    }

    /// A function for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { action, path, error }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Io { .. } | Self::Record { problem: RecordError::Io(_), .. } => Exit::Io,
            Self::Spec(_) | Self::Record { .. } => Exit::Spec,
            Self::Problems(_) => Exit::Problems,
            // A reader such as `head` that has seen enough is no failure.
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Stdout(_) => Exit::Io,
            Self::Policy { .. } => Exit::Policy,
            Self::Device { .. } => Exit::Device,
            Self::Differs(_) => Exit::Differs,
            Self::Internal(_) => Exit::Internal,
        }
    }

    /// The message for stderr, with the place in the file where there is one.
    pub(crate) fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        // Texts are wrapped here, because names must not be broken at their dashes.
        let handler =
            GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false).with_wrap_lines(false);
        let mut text = String::new();
        let shown = match self {
            Self::Spec(errors) => {
                let mut shown = errors.errors.iter().take(MISTAKES_MAX);
                let shown = shown.try_for_each(|e| handler.render_report(&mut text, &Mistake::new(e)));
                if errors.errors.len() > MISTAKES_MAX {
                    push(&mut text, format_args!("and {} more\n", errors.errors.len() - MISTAKES_MAX));
                }
                shown
            }
            other => handler.render_report(&mut text, &Plain(other)),
        };
        // Rendering writes to a string; it fails only if a diagnostic points outside of its own source text.
        if shown.is_err() { format!("error: {self}\n") } else { text }
    }
}

/// A mistake in a file, as miette wants it.
#[derive(Debug)]
struct Mistake<'a> {
    error: &'a SpecError,
    source: Option<NamedSource<String>>,
}

impl<'a> Mistake<'a> {
    fn new(error: &'a SpecError) -> Self {
        let within = !error.text.is_empty() && error.line > 0 && error.span.end <= error.text.len();
        let source = within.then(|| NamedSource::new(&error.file, error.text.to_string()).with_language("toml"));
        Self { error, source }
    }
}

impl fmt::Display for Mistake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpecError { file, field, problem, .. } = self.error;
        // With the source text the file's name stands above it.
        for part in [file, field].into_iter().skip(usize::from(self.source.is_some())).filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&wrapped(problem))
    }
}

impl std::error::Error for Mistake<'_> {}

impl Diagnostic for Mistake<'_> {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.error.help.as_ref().map(|help| Box::new(wrapped(help)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), self.error.span.clone()))))
    }
}

/// A failure without a place in a file, as miette wants it.
#[derive(Debug)]
struct Plain<'a>(&'a Failure);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&wrapped(&self.0.to_string()))
    }
}

impl std::error::Error for Plain<'_> {}

impl Diagnostic for Plain<'_> {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        let text: &str = match self.0 {
            Failure::Usage { help, .. } | Failure::Policy { help, .. } | Failure::Device { help, .. } => {
                help.as_deref()?
            }
            Failure::Record { problem: RecordError::Header { .. } | RecordError::Empty, .. } => {
                "`onbeat simulate --record FILE` and `onbeat run` write records"
            }
            Failure::Internal(_) => "This is a defect of onbeat. Please report it with the command line and the files.",
            _ => return None,
        };
        Some(Box::new(wrapped(text)))
    }
}

/// Lines that leave room for what stands before them.
fn wrapped(text: &str) -> String {
    wrap(text, WIDTH - 10).join("\n")
}

/// The names most like `wanted`, best first, for "did you mean".
pub(crate) fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut close: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let distance = distance(wanted, name);
            let part = wanted.len() >= 3 && (name.contains(wanted) || wanted.contains(name));
            (part || distance * 3 <= wanted.chars().count().max(3)).then_some((distance, name))
        })
        .collect();
    close.sort_unstable();
    close.into_iter().take(4).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_like() {
        let names = ["video-conference", "voice-assistant", "game"];
        assert_eq!(similar("vidoe-conference", names.into_iter()), ["video-conference"]);
        assert_eq!(similar("conference", names.into_iter()), ["video-conference"]);
        assert!(similar("zzz", names.into_iter()).is_empty());
    }

    #[test]
    fn a_closed_pipe_is_success() {
        assert_eq!(Failure::Stdout(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Success);
        assert_eq!(Failure::Stdout(io::ErrorKind::StorageFull.into()).exit(), Exit::Io);
    }
}
