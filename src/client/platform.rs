//! Whether this system is a Linux, the only one that all the steps are written for: by what `uname`
//! says, so that a system that runs programs of Linux beside its own is none.

use crate::client::external::Call;
use crate::client::failure::{Failure, Result};

/// Refuses other systems, or warns of them if the run is forced.
///
/// # Errors
/// [`Failure::Refused`].
pub(crate) fn check(is_forced: bool) -> Result<()> {
    let said = match Call::new(["uname"]).run() {
        Ok(ended) => ended.output,
        Err(interrupted @ Failure::Interrupted(_)) => return Err(interrupted),
        Err(_) => Vec::new(),
    };
    if String::from_utf8_lossy(&said).to_lowercase().contains("linux") {
        return Ok(());
    }
    if is_forced {
        log::warn!("uname does not say that this is a Linux; going on, as --force is given");
        return Ok(());
    }
    Err(Failure::Refused(
        "uname does not say that this is a Linux, the only system that is supported; try --force at your own risk"
            .into(),
    ))
}
