//! Exit codes, in one place: scripts rely on them.
//!
//! `onbeat --help` prints this table, made from [`Exit::ALL`].

use std::fmt::Write;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Everything went well. Also when whoever reads the output closes the pipe.
    Success = 0,
    /// A defect of onbeat itself.
    Internal = 1,
    /// The command line does not make sense: an unknown option or name, a value out of range.
    Usage = 2,
    /// A specification or record file is wrong, or a scenario does not fit its platform.
    Spec = 3,
    /// `check` found problems: deadlines that no policy can meet, or stages without a profile.
    Problems = 4,
    /// A file could not be read or written.
    Io = 5,
    /// A policy asked for something impossible, or does not accept its parameters.
    Policy = 6,
    /// A model or a device is not there, or does not work.
    Device = 7,
    /// A replay decided differently from its record.
    Differs = 8,
}

impl Exit {
    /// All codes in order.
    pub const ALL: &[Self] = &[
        Self::Success,
        Self::Internal,
        Self::Usage,
        Self::Spec,
        Self::Problems,
        Self::Io,
        Self::Policy,
        Self::Device,
        Self::Differs,
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "everything went well (also when a reader closes the pipe)",
            Self::Internal => "a defect of onbeat itself",
            Self::Usage => "the command line does not make sense",
            Self::Spec => "a specification or record file is wrong, or a scenario does not fit its platform",
            Self::Problems => "check found problems: impossible deadlines, or stages without a profile",
            Self::Io => "a file could not be read or written",
            Self::Policy => "a policy asked for something impossible, or does not accept its parameters",
            Self::Device => "a model or a device is not there, or does not work",
            Self::Differs => "a replay decided differently from its record",
        }
    }

    /// The table that ends `onbeat --help`.
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            writeln!(text, "  {}  {}", exit.code(), exit.meaning()).expect("writing to a string succeeds");
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
