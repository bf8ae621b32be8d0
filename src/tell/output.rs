//! What a command prints.

use std::io::{self, Write};

use crate::tell::error::{Error, Result};

/// Prints `text` to standard output. A reader that has gone away, such as `head`, is no failure.
///
/// # Errors
/// If standard output cannot be written to, such as a file on a full disk.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(cause) => Err(Error::io_bytes("write to", b"standard output", cause)),
        Ok(()) => Ok(()),
    }
}
