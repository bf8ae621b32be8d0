//! `post-xfer --detach`: the work goes to a process that the end of the connection does not touch.
//!
//! rsyncd counts a connection until its hook has ended. So the hook starts this program once more
//! and ends as soon as the other one says that it has taken over: that the transfer's marks are on
//! disk, its entry in the ledger names the new process, and what it owes is on record. Whichever of
//! the two dies before or after that, the next run finds the debt.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::tell::error::{Error, Result};

/// The option that the other process is started with.
pub(crate) const DETACHED: &str = "--detached";
const DETACH: &str = "--detach";

/// What it says when it has taken over.
const WORD: &str = "taken over";

/// Whether another process has taken over. If not, the work is still this one's.
///
/// # Errors
/// If no other process can be started.
pub(crate) fn hand_over() -> Result<bool> {
    let program =
        std::env::current_exe().map_err(|cause| Error::io_bytes("find", b"this program", cause))?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1).map(detached))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| Error::io("start", &program, cause))?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        // It says nothing if it dies; and if there is nothing to do, it ends well without a word.
        let _ = BufReader::new(output).read_line(&mut said);
    }
    if said.trim_end() == WORD {
        return Ok(true);
    }
    Ok(child.wait().is_ok_and(|status| status.success()))
}

fn detached(argument: OsString) -> OsString {
    if argument == DETACH { DETACHED.into() } else { argument }
}

/// In the new process: leaves the hook's session, so that no signal to that reaches us.
pub(crate) fn leave_session() {
    if let Err(error) = nix::unistd::setsid() {
        log::warn!(
            "this process cannot leave the session of the hook, so a signal to that ends it, too: {error}"
        );
    }
}

/// In the new process: lets the hook go.
pub(crate) fn take_over() {
    let mut output = std::io::stdout();
    // If the hook is dead, nobody waits for the word.
    let _ = writeln!(output, "{WORD}").and_then(|()| output.flush());
}
