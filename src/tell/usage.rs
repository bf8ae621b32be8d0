//! What is wrong with a command line, told without repeating what it would do to a terminal.

use std::io::{Write, stderr, stdout};
use std::os::unix::ffi::OsStrExt;

use clap::Parser;

use crate::tell::escape::{escape, lines};
use crate::tell::exit::Exit;

/// Prints what clap says of the command line that it could not read, or was asked by it.
///
/// clap shows the arguments as they are. So it is asked once more, with the same ones escaped: then
/// each is one word of one line. An argument that is only wrong because it is no text is right by
/// then, and is in no message.
pub(crate) fn print<Line: Parser>(error: clap::Error) -> Exit {
    // A closed output is no trouble of ours.
    if !error.use_stderr() {
        let _ = write!(stdout(), "{}", error.render());
        return Exit::Done;
    }
    let escaped = std::env::args_os().map(|argument| escape(argument.as_bytes()));
    let error = Line::try_parse_from(escaped).err().unwrap_or(error);
    let _ = write!(stderr(), "{}", lines(&error.render().to_string()));
    Exit::Usage
}
