//! The exit status of a wrong command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::command::finding::Severity;
use crate::tell::exit::Exit;

/// The status of a wrong command line. That of `check` is one that monitoring does not take for a
/// critical state.
pub(crate) fn status_of_usage<Line: CommandFactory>(exit: Exit) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let commands = Line::command();
    let takes_value = |option: &OsString| option == "--config" || option == "--rsyncd-conf";
    // A word that is no command may be the value of an option that stands too early.
    let is_command =
        |pair: &&[OsString]| !takes_value(&pair[0]) && commands.find_subcommand(&pair[1]).is_some();
    let command = arguments.windows(2).find(is_command).map(|pair| &pair[1]);
    match exit {
        Exit::Usage if command.is_some_and(|command| command == "check") => {
            Severity::Unknown.code().into()
        }
        exit => exit.into(),
    }
}
