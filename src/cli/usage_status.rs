//! The exit status of a wrong command line.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::command::finding::Severity;
use crate::tell::exit::Exit;

/// The status of a wrong command line. That of `check` is one that monitoring does not take for a
/// critical state.
pub(crate) fn status_of_usage(exit: Exit) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let takes_value = |option: &OsString| option == "--config" || option == "--rsyncd-conf";
    let is_command = |pair: &&[OsString]| {
        !takes_value(&pair[0]) && !pair[1].as_encoded_bytes().starts_with(b"-")
    };
    let command = arguments.windows(2).find(is_command).map(|pair| &pair[1]);
    match exit {
        Exit::Usage if command.is_some_and(|command| command == "check") => {
            Severity::Unknown.code().into()
        }
        exit => exit.into(),
    }
}
