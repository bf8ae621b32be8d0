//! What a command prints.

use std::io::{self, IsTerminal, Write};

use crate::tell::error::{Error, Result};
use crate::tell::progress;
use crate::tell::terminal::{fold, line_width};

/// [`print_whole`] of a text for people: on a terminal, its long lines are folded.
///
/// # Errors
/// As [`print_whole`].
pub(crate) fn print(text: &str) -> Result<()> {
    match line_width() {
        Some(width) => print_whole(&fold(text, width)),
        None => print_whole(text),
    }
}

/// Prints `text` to standard output as it is. A reader that has gone away, such as `head`, is no
/// failure.
///
/// # Errors
/// If standard output cannot be written to, such as a file on a full disk.
pub(crate) fn print_whole(text: &str) -> Result<()> {
    let write = || {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes()).and_then(|()| output.flush())
    };
    // Both may be on one terminal.
    match if io::stdout().is_terminal() { progress::pause(write) } else { write() } {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(cause) => Err(Error::io_bytes("write to", b"standard output", cause)),
        Ok(()) => Ok(()),
    }
}
