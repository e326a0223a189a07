//! Where output goes: results to stdout, everything else to stderr.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Color, Global};
use crate::failure::Failure;

/// Width of tables where stdout is no terminal [columns].
const WIDTH_WITHOUT_TERMINAL: u16 = 120;

/// Where output goes, and how it looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    quiet: bool,
    /// Whether stdout takes colours.
    pub(crate) color: bool,
    /// Whether stderr takes colours.
    pub(crate) color_err: bool,
    /// Width of stdout [columns].
    pub(crate) width: u16,
}

impl Ui {
    /// From the options and the terminal.
    pub(crate) fn new(global: &Global) -> Self {
        let stdout = io::stdout();
        let width =
            terminal_size::terminal_size_of(&stdout).map_or(WIDTH_WITHOUT_TERMINAL, |(width, _)| width.0.max(40));
        Self {
            quiet: global.quiet,
            color: wants_color(global.color, stdout.is_terminal()),
            color_err: wants_color(global.color, io::stderr().is_terminal()),
            width,
        }
    }

    /// Prints results, with a newline at the end.
    #[expect(clippy::unused_self, reason = "all output goes through here, whether or not it depends on the options")]
    pub(crate) fn print(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.write_all(newline.as_bytes()))
            .and_then(|()| stdout.flush())
            .map_err(Failure::Stdout)
    }

    /// Tells something that is no result. Failure to write to stderr is not worth ending for.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Warns about something that a reader of the results must know, so even a quiet run says it.
    pub(crate) fn warn(self, text: &str) {
        let (on, off) = if self.color_err { ("\u{1b}[33m", "\u{1b}[0m") } else { ("", "") };
        let _ = writeln!(io::stderr().lock(), "{on}warning:{off} {text}");
    }

    /// A progress bar over `runs` runs on stderr; nothing unless stderr is a terminal.
    pub(crate) fn progress(self, runs: usize) -> ProgressBar {
        if self.quiet || runs < 2 {
            return ProgressBar::hidden();
        }
        // Standard error is drawn to only if it is a terminal.
        let bar = ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::stderr());
        let template = if self.color_err {
            "{spinner:.cyan} {pos}/{len} runs {bar:28.cyan/dim} {eta} left  {wide_msg:.dim}"
        } else {
            "{spinner} {pos}/{len} runs {bar:28} {eta} left  {wide_msg}"
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        bar.set_style(style.progress_chars("━╸─"));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// A progress bar over a run's seconds on stderr; nothing unless stderr is a terminal.
    pub(crate) fn progress_over(self, seconds: u64) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{pos:>4} s of {len} s {bar:20}  {wide_msg}");
        bar.set_style(style.expect("the template is a constant").progress_chars("━╸─"));
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }

    /// Text in bold, if stdout takes it.
    pub(crate) fn bold(self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Text that stands back, if stdout takes it.
    pub(crate) fn dim(self, text: &str) -> String {
        self.styled("2", text)
    }

    /// Text that says that all is well.
    pub(crate) fn good(self, text: &str) -> String {
        self.styled("32", text)
    }

    /// Text that says that something is wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.styled("31", text)
    }

    /// Text that says that something needs attention.
    pub(crate) fn doubtful(self, text: &str) -> String {
        self.styled("33", text)
    }

    fn styled(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// <https://no-color.org>: any value but the empty one switches colours off.
fn wants_color(color: Color, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// Appends formatted text.
pub(crate) fn push(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("writing to a string succeeds");
}

/// Breaks text into lines of at most `width` characters, at spaces. Keeps the line breaks of paragraphs.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.trim_end().lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// Characters of a line that take space: escape sequences do not.
pub(crate) fn visible_width(line: &str) -> usize {
    let mut width = 0;
    let mut escape = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            _ => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_take_no_space() {
        assert_eq!(visible_width("\u{1b}[1mbold\u{1b}[0m ±"), 6);
    }

    #[test]
    fn text_wraps_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one\n\ntwo\n", 7), ["one", "", "two"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
    }

    #[test]
    fn an_explicit_wish_for_colours_goes_before_the_terminal() {
        assert!(wants_color(Color::Always, false));
        assert!(!wants_color(Color::Never, true));
        assert!(!wants_color(Color::Auto, false));
    }
}
