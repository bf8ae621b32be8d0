//! Checks that this system is Linux, by the output of `uname`. All steps are written for Linux. A
//! system that only emulates Linux for some programs has another `uname`.

use crate::client::error::{ClientError, Result};
use crate::client::external_command::ExternalCommand;

/// Refuses other systems, or warns if the run is forced.
///
/// # Errors
/// [`ClientError::Refused`].
pub(crate) fn check(is_forced: bool) -> Result<()> {
    let output = match ExternalCommand::new(["uname"]).run() {
        Ok(ended) => ended.output,
        Err(interrupted @ ClientError::Interrupted(_)) => return Err(interrupted),
        Err(_) => Vec::new(),
    };
    if String::from_utf8_lossy(&output).to_lowercase().contains("linux") {
        return Ok(());
    }
    if is_forced {
        log::warn!("uname does not say that this is Linux; going on, as --force is given");
        return Ok(());
    }
    Err(ClientError::Refused(
        "uname does not say that this is Linux, the only system that is supported; try --force \
         at your own risk"
            .into(),
    ))
}
