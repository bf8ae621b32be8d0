//! `post-xfer --detach`: hands the work over to a process that outlives the connection.
//!
//! rsyncd counts a connection until its hook has ended. So the hook starts this program once more,
//! and ends as soon as the detached process says that it has taken over. By then the marks of the
//! transfer are on disk, and its entry in the ledger names the detached process. So if either of
//! the two processes dies at any time, the next run finds what is left to do.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::tell::error::{Error, Result};

/// The option that the detached process is started with.
pub(crate) const DETACHED: &str = "--detached";
const DETACH: &str = "--detach";

/// The line that the detached process prints when it has taken over.
const TAKEN_OVER: &str = "taken over";

/// Starts the detached process. Returns false if that process failed before it took over: then the
/// hook does the work itself.
///
/// # Errors
/// If no process can be started.
pub(crate) fn hand_over() -> Result<bool> {
    let program =
        std::env::current_exe().map_err(|cause| Error::io_bytes("find", b"this program", cause))?;
    let mut process = Command::new(&program)
        .args(std::env::args_os().skip(1).map(to_detached))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| Error::io("start", &program, cause))?;
    let mut line = String::new();
    if let Some(output) = process.stdout.take() {
        // The process prints no line if it dies, or if it ends because there is nothing to do.
        let _ = BufReader::new(output).read_line(&mut line);
    }
    if line.trim_end() == TAKEN_OVER {
        return Ok(true);
    }
    Ok(process.wait().is_ok_and(|status| status.success()))
}

/// The argument for the detached process: `--detached` instead of `--detach`.
fn to_detached(argument: OsString) -> OsString {
    if argument == DETACH { DETACHED.into() } else { argument }
}

/// In the detached process: leaves the hook's session, so that no signal to that session ends it.
pub(crate) fn leave_session() {
    if let Err(error) = nix::unistd::setsid() {
        log::warn!(
            "this process cannot leave the session of the hook, so a signal to that ends it, too: \
             {error}"
        );
    }
}

/// In the detached process: tells the hook that it may end.
pub(crate) fn report_taken_over() {
    let mut output = std::io::stdout();
    // If the hook is dead, this line is not needed.
    let _ = writeln!(output, "{TAKEN_OVER}").and_then(|()| output.flush());
}
