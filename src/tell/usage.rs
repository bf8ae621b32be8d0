//! Reports mistakes in a command line, without control characters from its arguments.

use std::io::{Write, stderr};
use std::os::unix::ffi::OsStrExt;

use clap::{CommandFactory, Parser};

use crate::tell::escape::{escape, lines};
use crate::tell::exit::Exit;
use crate::tell::output;

/// Prints clap's message for a command line that it could not parse, or for `--help`.
///
/// clap prints arguments unescaped. So the command line is parsed once more with escaped arguments:
/// then each is one word of one line. If the only mistake is an argument that is not UTF-8, the
/// escaped one is right, and the first message, which does not show it, is printed.
pub(crate) fn print<CommandLine: Parser>(error: clap::Error) -> Exit {
    // The reader of a closed output does not want the text.
    if !error.use_stderr() {
        let _ = output::print(&error.render().to_string());
        return Exit::Done;
    }
    let escaped = std::env::args_os().map(|argument| escape(argument.as_bytes()));
    let error = CommandLine::try_parse_from(escaped).err().unwrap_or(error);
    let _ = write!(stderr(), "{}", lines(&error.render().to_string()));
    Exit::Usage
}

/// Prints the help, and why nothing is done.
pub(crate) fn print_help<CommandLine: CommandFactory>(why: &str) -> Exit {
    let _ = writeln!(stderr(), "{}\n{why}", CommandLine::command().render_help());
    Exit::Usage
}

/// What is wrong with a command line, in one line.
pub(crate) fn summary(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().and_then(|line| line.strip_prefix("error: "));
    escape(first.unwrap_or("it only prints help").as_bytes())
}
